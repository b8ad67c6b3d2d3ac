//! A state that is carried elsewhere: the same entries, whole or not at all, and no client is misled about the revisions.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use windlass_stdx::World;
use windlass_store::{
    Config, Expect, Export, Import, ImportError, Op, OpenError, Range, ReadError, RealDisk, SimulatedDisk, Store,
    Template, occupied,
};

use crate::fixture::{commit, config, delete, fresh, live, open, put, small, value};

const ELSEWHERE: &str = "/elsewhere";

fn all(mut export: Export) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = export.read().unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

fn at(time: &str) -> World {
    World::seeded(1, time.parse().unwrap())
}

fn read(store: &Store, bytes: &[u8]) -> Result<Import, ImportError> {
    Import::read(&mut &bytes[..], store.cluster(), (u64::MAX, u64::MAX))
}

fn to(dir: &str, store: &Store) -> Config {
    Config { cluster: Some(store.cluster().to_owned()), limits: small(), ..Config::new(Path::new(dir)) }
}

/// An object that says its revision.
async fn object(store: &Store, key: &str) {
    let template = Template::with_revision_at(&b"{\"rv\":\"\"}"[..], 7);
    store.commit(vec![Op::put(key, template, Expect::Any)]).await.unwrap();
}

async fn reopened(disk: &SimulatedDisk, store: &Store) -> Store {
    Store::open(to(ELSEWHERE, store), disk.boot(), World::seeded(2, Timestamp::UNIX_EPOCH)).await.unwrap()
}

#[test]
fn an_export_shows_one_revision_whoever_writes_meanwhile() {
    live(async {
        let store = fresh().await;
        for number in 0..200 {
            commit(&store, put(&format!("k{number:03}"), &"x".repeat(10_000))).await;
        }
        let mut export = store.export().unwrap();
        let mut bytes = export.read().unwrap().unwrap();
        commit(&store, put("k000", "changed")).await;
        commit(&store, delete("k199")).await;
        commit(&store, put("new", "")).await;
        assert_eq!((export.revision(), export.entries(), store.revision()), (200, 200, 203));
        let size = export.bytes();
        let mut pieces = 1;
        while let Some(piece) = export.read().unwrap() {
            pieces += 1;
            bytes.extend_from_slice(&piece);
        }
        assert!(pieces > 5, "it comes in pieces: {pieces}");
        let import = read(&store, &bytes).unwrap();
        assert_eq!((import.revision(), import.entries().len(), import.bytes()), (200, 200, size));
        assert!(import.entries().all(|entry| entry.value().len() == 10_000 && entry.key() != "new"));
    });
}

#[test]
fn a_store_goes_on_elsewhere_with_all_it_had() {
    live(async {
        let store = fresh().await;
        object(&store, "a").await;
        object(&store, "b").await;
        commit(&store, put("plain", "as it is")).await;
        commit(&store, delete("b")).await;
        let import = read(&store, &all(store.export().unwrap())).unwrap();
        let disk = SimulatedDisk::new(0);
        let revision = import.write(&to(ELSEWHERE, &store), &*disk.boot(), &at("2026-11-30T12:00:00Z")).unwrap();
        // Twice: what the first life writes must be there in the second.
        for life in 0..2 {
            let other = reopened(&disk, &store).await;
            assert_eq!(other.cluster(), store.cluster());
            assert_eq!(other.revision(), revision + life);
            assert_eq!(value(&other, "a"), Some(format!("{{\"rv\":\"{revision}\"}}")));
            assert_eq!((value(&other, "plain").as_deref(), value(&other, "b")), (Some("as it is"), None));
            assert_eq!(other.get("a").unwrap().revision, revision);
            assert_eq!(commit(&other, put(&format!("life{life}"), "x")).await.revision, revision + life + 1);
            other.snapshot().await.unwrap();
            assert!(other.stats().is_leader);
            other.close().await;
        }
    });
}

#[test]
fn r2_an_import_has_a_revision_that_nobody_has_seen() {
    live(async {
        let store = fresh().await;
        object(&store, "a").await;
        let first = all(store.export().unwrap());
        for _ in 0..50 {
            object(&store, "a").await;
        }
        let second = all(store.export().unwrap());
        let revision = |bytes: &[u8], time: &str| {
            let disk = SimulatedDisk::new(0);
            read(&store, bytes).unwrap().write(&to(ELSEWHERE, &store), &*disk.boot(), &at(time)).unwrap()
        };
        let newer = revision(&second, "2026-11-30T12:00:00Z");
        let older = revision(&first, "2026-11-30T12:01:00Z");
        assert!(newer > store.revision(), "{newer}");
        // A minute of writes as fast as nobody writes is between them.
        assert_eq!(older - newer, 60 * 100_000);
        let again = revision(&second, "2026-11-30T12:02:00Z");
        assert!(again > older, "back and forth");
        assert_eq!(
            revision(&second, "1990-01-01T00:00:00Z"),
            store.revision() + 1_000_000_000,
            "a clock that is wrong"
        );
    });
}

#[test]
fn r3_who_watches_or_lists_from_before_is_told_to_list_anew() {
    live(async {
        let store = fresh().await;
        object(&store, "a").await;
        let bytes = all(store.export().unwrap());
        object(&store, "a").await;
        object(&store, "seen and undone").await;
        let disk = SimulatedDisk::new(0);
        let written =
            read(&store, &bytes).unwrap().write(&to(ELSEWHERE, &store), &*disk.boot(), &at("2026-11-30T12:00:00Z"));
        let revision = written.unwrap();
        let other = reopened(&disk, &store).await;
        for before in [0, 1, 2, store.revision(), revision - 1] {
            let too_old = ReadError::Compacted { wanted: before, oldest: revision };
            assert_eq!(other.watch("", before).map(drop), Err(too_old.clone()), "watch after {before}");
            let range = Range { at: Some(before), ..Range::prefix("") };
            assert_eq!(other.range(&range).map(drop), Err(too_old), "list at {before}");
        }
        let mut watch = other.watch("", revision).unwrap();
        object(&other, "next").await;
        let event = tokio::time::timeout(Duration::from_secs(1), watch.next()).await.unwrap().unwrap();
        assert_eq!((event.key(), event.revision), ("next", revision + 1));
    });
}

#[test]
fn r4_whoever_takes_it_in_is_the_only_voter() {
    live(async {
        let store = fresh().await;
        object(&store, "a").await;
        let import = read(&store, &all(store.export().unwrap())).unwrap();
        let disk = SimulatedDisk::new(0);
        let config = Config { member: 7, ..to(ELSEWHERE, &store) };
        import.write(&config, &*disk.boot(), &at("2026-11-30T12:00:00Z")).unwrap();
        let other = Store::open(config, disk.boot(), World::seeded(2, Timestamp::UNIX_EPOCH)).await.unwrap();
        assert_eq!((other.stats().voters, other.stats().is_leader), (vec![7], true));
    });
}

#[test]
fn r5_a_directory_that_has_something_is_left_alone() {
    let disk = SimulatedDisk::new(0);
    live(async {
        let store = open(&disk).await;
        object(&store, "a").await;
        let import = read(&store, &all(store.export().unwrap())).unwrap();
        let names = disk.names();
        let refused = import.write(&config(small()), &*disk.boot(), &at("2026-11-30T12:00:00Z"));
        assert!(matches!(refused, Err(ImportError::NotEmpty { .. })));
        assert_eq!(disk.names(), names);
    });
}

#[test]
fn r1_any_flipped_bit_cut_or_added_byte_is_refused() {
    live(async {
        let store = fresh().await;
        object(&store, "a").await;
        object(&store, "b").await;
        let bytes = all(store.export().unwrap());
        assert!(read(&store, &bytes).is_ok());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(&store, &flipped).is_err(), "bit {bit} of byte {at}");
            }
            assert!(read(&store, &bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(read(&store, &[&bytes[..], b"\0"].concat()).is_err(), "a byte more");
        assert!(Import::read(&mut &bytes[..], "another-cluster", (u64::MAX, u64::MAX)).is_err(), "of another cluster");
        let size = store.stats().bytes;
        assert!(Import::read(&mut &bytes[..], store.cluster(), (u64::MAX, size)).is_ok());
        assert!(Import::read(&mut &bytes[..], store.cluster(), (u64::MAX, size - 1)).is_err(), "more than was said");
    });
}

#[test]
fn a_directory_says_whose_it_is_and_is_kept_from_others_meanwhile() {
    let dir = std::env::temp_dir().join(format!("windlass-occupied-{}", std::process::id()));
    assert!(occupied(&dir, &RealDisk).unwrap().is_none(), "it is not there");
    live(async {
        let open = || Store::open(Config::new(&dir), std::sync::Arc::new(RealDisk), World::real());
        let store = open().await.unwrap();
        let cluster = store.cluster().to_owned();
        assert!(matches!(occupied(&dir, &RealDisk), Err(OpenError::Locked { .. })), "somebody has it open");
        store.close().await;
        let there = occupied(&dir, &RealDisk).unwrap().unwrap();
        assert_eq!(there.cluster, Some(cluster));
        assert!(matches!(open().await, Err(OpenError::Locked { .. })), "nobody opens it");
        drop(there);
        open().await.unwrap().close().await;
        std::fs::write(dir.join("identity"), "of nobody").unwrap();
        assert!(matches!(occupied(&dir, &RealDisk), Err(OpenError::Damaged { .. })));
    });
    std::fs::remove_dir_all(&dir).unwrap();
}
