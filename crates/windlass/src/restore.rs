//! `windlass restore`: the cluster of a backup's file in a place that has none, or has had this one.
//!
//! Goal        `windlass up` serves the same cluster afterwards: the same authority, keys, tokens and objects
//! Relies on   [`Archive::read`], which reads all before anything is written; [`Import`](windlass_store::Import), which
//!             gives the objects a revision that no client has seen
//!
//! Rules
//!   R1 free      nothing runs here, and there is no cluster yet; with `--replace` there may be the same one, which is put
//!                aside, not removed
//!   R2 first     the file is read to its end and found good before the data directory is touched
//!   R3 at once   what it holds is written beside and renamed; until all is in its place nothing starts here
//!   R4 the rest  images, volumes and what the node knows of its pods stay: those of the backup that still run are kept

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use windlass_apiserver::backup::Manifest;
use windlass_stdx::World;
use windlass_store::{Config, Occupied, RealDisk, occupied};

use crate::archive::Archive;
use crate::cli::RestoreFlags;
use crate::place::Place;

/// Makes this place the cluster of a backup.
pub fn run(place: &Place, flags: &RestoreFlags) -> Result<()> {
    let from: Box<dyn Read> = if flags.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let found = File::open(&flags.file).with_context(|| format!("cannot open {}", flags.file.display()))?;
        let is_file = found.metadata().is_ok_and(|found| !found.is_dir());
        ensure!(is_file, "{} is a directory: expected a backup's file", flags.file.display());
        Box::new(found)
    };
    let there = if flags.check { There::default() } else { There::look(place, flags.replace)? };
    let accept = |manifest: &Manifest| {
        let found = &manifest.cluster;
        let expected =
            [flags.cluster.as_ref(), there.cluster()].into_iter().flatten().find(|cluster| *cluster != found);
        match expected {
            None => Ok(()),
            Some(expected) => bail!("it is of cluster {found}, and expected is {expected}"),
        }
    };
    let read = Archive::read(from, memory_free_bytes()?, accept);
    let archive = read.with_context(|| format!("{} is refused, and nothing was changed", flags.file.display()))?;
    // It may have taken long: somebody may have started a cluster here meanwhile.
    drop(there);
    let there = if flags.check { There::default() } else { There::look(place, flags.replace)? };
    if let Some(other) = there.cluster().filter(|cluster| **cluster != archive.manifest.cluster) {
        bail!("cluster {other} has come to be here meanwhile, and nothing was changed");
    }
    let manifest = archive.manifest.clone();
    let said = format!(
        "cluster {} as it was at {} (revision {}, {} entries, windlass {})",
        manifest.cluster, manifest.time, manifest.revision, manifest.entries, manifest.windlass
    );
    if flags.check {
        println!("{}: whole; {said}", flags.file.display());
        return Ok(());
    }
    let revision = write(place, archive)?;
    let aside = there.put_aside(place)?;
    settle(place)?;
    println!("{}: {said}; it goes on at revision {revision}", place.data.display());
    if let Some(aside) = aside {
        println!("what was there before is in {aside}");
    }
    println!("start it with `windlass up`");
    Ok(())
}

/// The cluster that this place has had.
#[derive(Default)]
struct There {
    store: Option<Occupied>,
    has_keys: bool,
}

impl There {
    /// R1.
    fn look(place: &Place, replace: bool) -> Result<There> {
        if let Some(running) = place.running() {
            bail!("windlass runs here as {} (pid {}): stop it with `windlass down` first", running.role, running.pid);
        }
        let store = occupied(&place.store(), &RealDisk).context("cannot tell whose store is here")?;
        let has_keys = fs::read_dir(place.pki()).is_ok_and(|mut entries| entries.next().is_some());
        if !replace && (store.is_some() || has_keys) {
            bail!(
                "{} has a cluster already: choose another --data-dir or --instance, or put that one aside with --replace",
                place.data.display()
            );
        }
        if store.as_ref().is_some_and(|store| store.cluster.is_none()) {
            bail!("{} does not say of which cluster it is: move it away yourself", place.store().display());
        }
        Ok(There { store, has_keys })
    }

    fn cluster(&self) -> Option<&String> {
        self.store.as_ref()?.cluster.as_ref()
    }

    /// Moves it away; says where to.
    fn put_aside(&self, place: &Place) -> Result<Option<String>> {
        if self.store.is_none() && !self.has_keys {
            return Ok(None);
        }
        let stamp = World::real().now().strftime("%Y%m%dT%H%M%S%.3fZ").to_string();
        let aside = place.data.join(format!("replaced-{stamp}"));
        fs::DirBuilder::new().mode(0o700).create(&aside).with_context(|| format!("cannot make {}", aside.display()))?;
        for path in [place.store(), place.pki()] {
            let name = path.file_name().expect("these are directories of ours with names");
            match fs::rename(&path, aside.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot put {} aside", path.display()));
                }
                _ => {}
            }
        }
        sync(&aside)?;
        Ok(Some(aside.display().to_string()))
    }
}

/// R3: writes it beside; returns the revision that it goes on at. On an error nothing is left.
fn write(place: &Place, archive: Archive) -> Result<u64> {
    place.create()?;
    let beside = place.restoring();
    remove(&beside)?;
    let write = || {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&beside)
            .with_context(|| format!("cannot make {}", beside.display()))?;
        archive.keys.write(&beside.join("pki")).context("cannot write the keys")?;
        let config = Config { cluster: Some(archive.manifest.cluster), ..Config::new(beside.join("store")) };
        let revision = archive.state.write(&config, &RealDisk, &World::real()).context("cannot write the store")?;
        sync(&beside)?;
        Ok(revision)
    };
    let written = write();
    if written.is_err() {
        remove(&beside)?;
    }
    written
}

/// Gives what was written its place.
fn settle(place: &Place) -> Result<()> {
    let beside = place.restoring();
    for (from, to) in [(beside.join("pki"), place.pki()), (beside.join("store"), place.store())] {
        fs::rename(&from, &to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))?;
    }
    sync(&place.data)?;
    fs::remove_dir(&beside).with_context(|| format!("cannot remove {}", beside.display()))?;
    sync(&place.data)
}

fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("cannot make {} durable", directory.display()))
}

fn remove(path: &Path) -> Result<()> {
    windlass_runtime::remove_tree(path).with_context(|| format!("cannot remove {}", path.display()))
}

/// What the kernel says is there for a new program.
fn memory_free_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kilobytes.context("/proc/meminfo does not say what memory is there")? * 1024)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use windlass_apiserver::Pki;
    use windlass_store::Store;

    use super::*;
    use crate::archive::tests::{Sample, of_parts};

    /// A place in a directory of its own, and a backup's file beside it.
    struct Room {
        directory: PathBuf,
        place: Place,
        sample: Sample,
    }

    impl Drop for Room {
        fn drop(&mut self) {
            if let Err(error) = fs::remove_dir_all(&self.directory) {
                eprintln!("{} was left behind: {error}", self.directory.display());
            }
        }
    }

    impl Room {
        fn new(name: &str) -> Room {
            let directory = std::env::temp_dir().join(format!("windlass-restore-{name}-{}", std::process::id()));
            fs::create_dir(&directory).expect("a directory of our own");
            let place =
                Place { instance: "windlass".to_owned(), data: directory.join("data"), run: directory.join("run") };
            Room { directory, place, sample: Sample::new(&format!("restore-{name}")) }
        }

        fn restore(&self, file: &[u8], adjust: impl FnOnce(&mut RestoreFlags)) -> Result<()> {
            let path = self.directory.join("file");
            fs::write(&path, file).expect("our own directory");
            let mut flags = RestoreFlags { file: path, replace: false, cluster: None, check: false };
            adjust(&mut flags);
            run(&self.place, &flags)
        }

        /// It is refused for this reason, and there is no data directory.
        #[track_caller]
        fn refuses(&self, file: &[u8], why: &str) {
            let said = self.restore(file, |_| {}).err().map(|error| format!("{error:#}")).expect("it is refused");
            assert!(said.contains(why), "expected {why:?}, found {said:?}");
            assert!(!self.place.data.exists() && !self.place.run.exists(), "nothing was touched");
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(&self.place.data)
                .expect("a directory")
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        }

        fn store(&self) -> (String, u64, usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread");
            runtime.block_on(async {
                let store = Store::open(Config::new(self.place.store()), Arc::new(RealDisk), World::real());
                let store = store.await.expect("a store");
                let found = (store.cluster().to_owned(), store.revision(), store.stats().keys);
                store.close().await;
                found
            })
        }
    }

    #[test]
    fn a_place_without_a_cluster_becomes_the_one_of_the_backup() {
        let room = Room::new("free");
        room.restore(&room.sample.file(), |_| {}).expect("a good file");
        assert_eq!(room.names(), ["pki", "store"]);
        let token = Pki::open(&room.place.pki(), &World::real()).expect("the authority").join_token();
        let elsewhere = room.directory.join("elsewhere");
        room.sample.keys.write(&elsewhere).expect("our own directory");
        assert_eq!(token, Pki::open(&elsewhere, &World::real()).expect("the authority").join_token());
        let (cluster, revision, keys) = room.store();
        assert_eq!((cluster, keys), (room.sample.manifest.cluster.clone(), 2));
        assert!(revision > 1_000_000_000, "{revision}");
    }

    #[test]
    fn r1_a_cluster_that_is_there_is_left_or_put_aside_if_it_is_the_same() {
        let room = Room::new("there");
        let file = room.sample.file();
        room.restore(&file, |_| {}).expect("a good file");
        fs::create_dir(room.place.images()).expect("the rest of a node");
        let (_, first, _) = room.store();
        let refused = |result: Result<()>| format!("{:#}", result.expect_err("it is refused"));
        let said = refused(room.restore(&file, |_| {}));
        assert!(said.contains("has a cluster already") && said.contains("--replace"), "{said}");
        let other = Sample::new("restore-other");
        let said = refused(room.restore(&other.file(), |flags| flags.replace = true));
        assert!(said.contains(&format!("expected is {}", room.sample.manifest.cluster)), "{said}");
        let said = refused(room.restore(&file, |flags| flags.cluster = Some("blue".to_owned())));
        assert!(said.contains("--replace"), "{said}");
        let named = |flags: &mut RestoreFlags| (flags.replace, flags.cluster) = (true, Some("blue".to_owned()));
        let said = refused(room.restore(&file, named));
        assert!(said.contains("expected is blue"), "{said}");
        assert_eq!(room.names(), ["images", "pki", "store"]);
        assert_eq!(room.store().1, first, "nothing was touched");
        room.restore(&file, |flags| flags.replace = true).expect("the same cluster");
        let names = room.names();
        assert_eq!([&names[0], &names[1], &names[3]], ["images", "pki", "store"]);
        let aside = room.place.data.join(&names[2]);
        assert!(
            names[2].starts_with("replaced-")
                && aside.join("store/identity").exists()
                && aside.join("pki/ca.key").exists()
        );
        assert!(room.store().1 > first, "and it never goes back");
    }

    #[test]
    fn r1_a_store_that_is_open_or_says_nothing_of_itself_is_left_alone() {
        let room = Room::new("open");
        let file = room.sample.file();
        room.restore(&file, |_| {}).expect("a good file");
        let replace = |flags: &mut RestoreFlags| flags.replace = true;
        let held = occupied(&room.place.store(), &RealDisk).expect("a store");
        let said = format!("{:#}", room.restore(&file, replace).expect_err("somebody has it"));
        assert!(said.contains("in use by another process"), "{said}");
        drop(held);
        fs::remove_file(room.place.store().join("identity")).expect("it is there");
        let said = format!("{:#}", room.restore(&file, replace).expect_err("it may be anybody's"));
        assert!(said.contains("does not say of which cluster"), "{said}");
    }

    #[test]
    fn r3_a_restore_that_broke_off_is_repeated() {
        let room = Room::new("broken");
        let file = room.sample.file();
        fs::create_dir_all(room.place.restoring().join("store")).expect("our own directory");
        room.restore(&file, |_| {}).expect("a good file");
        assert_eq!(room.names(), ["pki", "store"]);
        // Between the two that are put aside, and between the two that come in their place.
        for missing in [room.place.store(), room.place.pki()] {
            fs::create_dir_all(room.place.restoring()).expect("our own directory");
            fs::remove_dir_all(&missing).expect("it is there");
            room.restore(&file, |flags| flags.replace = true).expect("a good file");
            assert!(!room.place.restoring().exists());
            assert_eq!(room.store().2, 2);
        }
    }

    #[test]
    fn a_file_is_only_looked_at_if_no_more_is_wanted() {
        let room = Room::new("check");
        room.restore(&room.sample.file(), |flags| flags.check = true).expect("a good file");
        assert!(!room.place.data.exists());
        let mut file = room.sample.file();
        file[100] ^= 1;
        assert!(room.restore(&file, |flags| flags.check = true).is_err());
        let other = |flags: &mut RestoreFlags| (flags.check, flags.cluster) = (true, Some("blue".to_owned()));
        assert!(room.restore(&room.sample.file(), other).is_err());
    }

    #[test]
    fn a70_a_flipped_byte_at_any_place_leaves_the_data_directory_as_it_was() {
        let room = Room::new("flipped");
        let file = room.sample.file();
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 0x10;
            room.refuses(&flipped, "is refused, and nothing was changed");
        }
        for at in [0, 7, 8, 12, 200, file.len() - 41, file.len() - 40, file.len() - 1] {
            room.refuses(&file[..at], "is refused");
        }
        room.refuses(&[&file[..], b"more"].concat(), "is refused");
    }

    #[test]
    fn a70_another_clusters_file_an_older_schema_and_a_bomb_leave_the_data_directory_as_it_was() {
        let room = Room::new("others");
        let said = room.restore(&room.sample.file(), |flags| flags.cluster = Some("blue".to_owned()));
        assert!(format!("{:#}", said.expect_err("another cluster")).contains("expected is blue"));
        assert!(!room.place.data.exists());
        let keys = serde_json::to_string(&room.sample.keys).expect("a map");
        let with = |name: &str, value: serde_json::Value| {
            let mut manifest = serde_json::to_value(&room.sample.manifest).expect("a map");
            manifest[name] = value;
            of_parts(1, &manifest.to_string(), &keys, &room.sample.state)
        };
        room.refuses(&with("schema", 0.into()), "stored in form 0");
        room.refuses(&with("schema", 2.into()), "stored in form 2");
        room.refuses(&with("bytes", (1u64 << 50).into()), "not enough memory");
        room.refuses(&with("entries", (1u64 << 50).into()), "not enough memory");
        let manifest = serde_json::to_string(&room.sample.manifest).expect("a map");
        room.refuses(&of_parts(2, &manifest, &keys, &room.sample.state), "format 2");
    }

    #[test]
    fn a70_paths_links_and_devices_of_other_archives_have_no_way_in() {
        let room = Room::new("paths");
        let manifest = serde_json::to_string(&room.sample.manifest).expect("a map");
        let escape = room.directory.join("escaped");
        for name in ["../../escaped", &escape.display().to_string(), "..", "store/../../escaped"] {
            let mut keys = serde_json::to_value(&room.sample.keys).expect("a map");
            keys[name] = "x".into();
            room.refuses(&of_parts(1, &manifest, &keys.to_string(), &room.sample.state), "unknown field");
            // The header of an archive of files: name, kind (link, device), and what it links to.
            for kind in [b'0', b'1', b'2', b'3', b'4'] {
                let mut tar = vec![0; 1024];
                tar[..name.len()].copy_from_slice(name.as_bytes());
                tar[156] = kind;
                tar[157..168].copy_from_slice(b"/etc/passwd");
                tar[257..262].copy_from_slice(b"ustar");
                room.refuses(&tar, "no backup");
            }
        }
        assert!(!escape.exists());
        assert!(room.restore(b"", |flags| flags.file = std::env::temp_dir()).is_err(), "a directory");
    }
}
