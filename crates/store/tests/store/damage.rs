//! Damaged files: a torn end is cut, anything else is an error that names file and place, and nothing acknowledged is
//! lost in silence.

use std::path::PathBuf;

use windlass_store::{OpenError, SimulatedDisk, Store};

use crate::fixture::{commit, live, open, put, small, try_open, value};

fn log_files(disk: &SimulatedDisk) -> Vec<PathBuf> {
    disk.names().into_iter().filter(|name| name.to_string_lossy().contains("log-")).collect()
}

fn snapshots(disk: &SimulatedDisk) -> Vec<PathBuf> {
    disk.names().into_iter().filter(|name| name.to_string_lossy().contains("snapshot-")).collect()
}

async fn fill(store: &Store, from: u64, to: u64) {
    for at in from..to {
        commit(store, put(&format!("k{at:03}"), &format!("value of {at} ").repeat(5))).await;
    }
}

fn holds(store: &Store, count: u64) -> bool {
    (0..count).all(|at| value(store, &format!("k{at:03}")).is_some())
}

#[test]
fn a_record_torn_at_any_byte_is_cut_and_nothing_before_it_is_lost() {
    let disk = SimulatedDisk::new(0);
    let (before, path) = live(async {
        let store = open(&disk).await;
        fill(&store, 0, 10).await;
        let path = log_files(&disk).pop().unwrap();
        let before = disk.read(&path).unwrap();
        fill(&store, 10, 11).await;
        assert_eq!(log_files(&disk).last(), Some(&path), "the last record is in the same segment");
        (before, path)
    });
    let after = disk.read(&path).unwrap();
    let first = (0..before.len()).find(|&at| before[at] != after[at]).unwrap();
    let last = (0..before.len()).rfind(|&at| before[at] != after[at]).unwrap();
    for cut in first..=last {
        // What the disk held before goes on after the cut; or zeros; or the file ends there.
        let over_old = [&after[..cut], &before[cut..]].concat();
        let over_zeros = [&after[..cut], &vec![0; after.len() - cut][..]].concat();
        for (kind, content) in [("old", over_old), ("zeros", over_zeros), ("end", after[..cut].to_vec())] {
            let torn = disk.copy();
            torn.overwrite(&path, content);
            live(async {
                let store = try_open(&torn, small()).await.unwrap_or_else(|error| panic!("{kind} at {cut}: {error}"));
                assert!(holds(&store, 10), "{kind} at {cut}");
                assert!((10..=11).contains(&store.revision()), "{kind} at {cut}");
                commit(&store, put("after", "x")).await;
            });
            live(async {
                let store = open(&torn).await;
                assert_eq!(value(&store, "after").as_deref(), Some("x"), "{kind} at {cut}");
            });
        }
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_any_file_is_noticed_or_harmless() {
    let disk = SimulatedDisk::new(0);
    live(async {
        let store = open(&disk).await;
        fill(&store, 0, 12).await;
        store.snapshot().await.unwrap();
        fill(&store, 12, 24).await;
        store.snapshot().await.unwrap();
        fill(&store, 24, 40).await;
    });
    assert!(log_files(&disk).len() > 1 && snapshots(&disk).len() == 2, "{:?}", disk.names());
    let (mut noticed, mut harmless) = (0, 0);
    for path in disk.names().into_iter().filter(|path| !path.ends_with("lock")) {
        let content = disk.read(&path).unwrap();
        for at in 0..content.len() {
            let flipped = disk.copy();
            let mut bytes = content.clone();
            bytes[at] ^= 1 << (at % 8);
            flipped.overwrite(&path, bytes);
            live(async {
                match try_open(&flipped, small()).await {
                    Ok(store) => {
                        assert!(holds(&store, 40), "silent loss: byte {at} of {}", path.display());
                        assert_eq!(store.revision(), 40, "byte {at} of {}", path.display());
                        harmless += 1;
                    }
                    Err(OpenError::Damaged { path: named, .. }) => {
                        assert_eq!(named, path, "byte {at}");
                        noticed += 1;
                    }
                    Err(error) => panic!("byte {at} of {}: {error}", path.display()),
                }
            });
        }
    }
    assert!(noticed > 1000 && harmless > 1000, "{noticed} noticed, {harmless} harmless");
}

#[test]
fn damage_in_the_middle_names_the_file_and_the_place() {
    let disk = SimulatedDisk::new(0);
    live(async { fill(&open(&disk).await, 0, 5).await });
    let path = log_files(&disk).pop().unwrap();
    let mut bytes = disk.read(&path).unwrap();
    let at = bytes.windows(9).position(|window| window == b"value of ").unwrap();
    bytes[at] ^= 1;
    disk.overwrite(&path, bytes);
    live(async {
        let error = try_open(&disk, small()).await.err().unwrap();
        let OpenError::Damaged { path: named, offset, .. } = &error else { panic!("{error}") };
        assert!(named == &path && (*offset as usize) < at && at - (*offset as usize) < 200, "{error}");
    });
}

#[test]
fn a_missing_segment_is_an_error() {
    let disk = SimulatedDisk::new(0);
    live(async { fill(&open(&disk).await, 0, 100).await });
    let files = log_files(&disk);
    assert!(files.len() > 2, "{files:?}");
    for missing in &files[..files.len() - 1] {
        let holed = disk.copy();
        holed.boot().remove(missing).unwrap();
        live(async {
            let error = try_open(&holed, small()).await.err().unwrap();
            assert!(matches!(error, OpenError::Damaged { .. }), "{}: {error}", missing.display());
        });
    }
    let empty = disk.copy();
    files.iter().for_each(|file| empty.boot().remove(file).unwrap());
    live(async {
        let error = try_open(&empty, small()).await.err().unwrap();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    });
}

#[test]
fn a_damaged_snapshot_is_passed_over_as_long_as_the_log_covers_it() {
    let disk = SimulatedDisk::new(0);
    live(async {
        let store = open(&disk).await;
        for round in 0..4 {
            fill(&store, round * 20, round * 20 + 20).await;
            store.snapshot().await.unwrap();
        }
        store.close().await;
    });
    let [older, newer] = snapshots(&disk).try_into().unwrap();
    let damage = |disk: &SimulatedDisk, path: &PathBuf| {
        let mut bytes = disk.read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        disk.overwrite(path, bytes);
    };
    damage(&disk, &newer);
    let with_one = disk.copy();
    live(async {
        let store = open(&with_one).await;
        assert!(holds(&store, 80));
        assert_eq!(store.revision(), 80);
        fill(&store, 80, 81).await;
        store.snapshot().await.unwrap();
        store.close().await;
        assert!(holds(&open(&with_one).await, 81));
    });
    damage(&disk, &older);
    live(async {
        let error = try_open(&disk, small()).await.err().unwrap();
        assert!(matches!(&error, OpenError::Damaged { path, .. } if path == &newer), "{error}");
    });
}

#[test]
fn a_damaged_vote_is_an_error() {
    let disk = SimulatedDisk::new(0);
    live(async { fill(&open(&disk).await, 0, 1).await });
    let path = disk.names().into_iter().find(|name| name.ends_with("vote")).unwrap();
    for bit in 0..disk.read(&path).unwrap().len() * 8 {
        let flipped = disk.copy();
        let mut bytes = disk.read(&path).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        flipped.overwrite(&path, bytes);
        live(async {
            let error = try_open(&flipped, small()).await.err();
            assert!(
                matches!(&error, Some(OpenError::Damaged { path: named, .. }) if named == &path),
                "bit {bit}: {error:?}"
            );
        });
    }
}
