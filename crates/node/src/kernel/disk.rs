//! What a pod has on disk: writable layers, logs, volumes; counted while their containers may change all of it.
//!
//! Guarantees  no link is followed, nothing mounted there is counted, and no count goes on for ever
//! Caveats     what changes while it is looked at is counted once, twice or not

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use super::layout::Layout;
use super::walk::{Next, walk};
use super::{file_error, names};
use crate::machine::{Held, MachineError, PodDisk};

/// Most files that are counted below one place: half a minute of a disk that has them in memory.
const FILES_MAX: u64 = 16_000_000;
/// Most files with several names that are remembered, to be counted once; more are counted by name.
const LINKS_MAX: usize = 100_000;

/// Everything of a pod.
pub fn of_pod(layout: &Layout, pod: &str) -> Result<PodDisk, MachineError> {
    let directory = layout.pod(pod)?;
    let mut all = PodDisk { layers: each(&layout.layers(pod)?)?, ..PodDisk::default() };
    // Of each container the logs of all its attempts together.
    all.logs = each(&layout.logs(pod)?)?;
    all.volumes = each(&layout.volumes(pod)?)?;
    for place in ["files", "messages"] {
        all.rest = all.rest.and(below(&directory.join(place))?.unwrap_or_default());
    }
    Ok(all)
}

/// What lies in each directory of this one. Links and what is mounted are somebody else's.
fn each(directory: &Path) -> Result<BTreeMap<String, Held>, MachineError> {
    let mut all = BTreeMap::new();
    for name in names(directory)? {
        if let Some(held) = below(&directory.join(&name))? {
            all.insert(name, held);
        }
    }
    Ok(all)
}

/// `None` where no directory of the pod's own is.
fn below(path: &Path) -> Result<Option<Held>, MachineError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |error: &io::Error| file_error("count what is in", path, error);
    let root = match openat(CWD, path, flags, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(failed(&error.into())),
    };
    let parent = path.parent().expect("it lies in the node's data");
    let device = |found: rustix::io::Result<rustix::fs::Stat>| found.map(|found| found.st_dev);
    let own = device(fstat(&root)).map_err(|error| failed(&error.into()))?;
    let around = device(rustix::fs::stat(parent)).map_err(|error| failed(&error.into()))?;
    match own == around {
        true => count(root).map(Some).map_err(|error| failed(&error)),
        false => Ok(None),
    }
}

/// More files than [`FILES_MAX`] are not counted, and it says so.
fn count(root: OwnedFd) -> io::Result<Held> {
    let mut held = Held::default();
    let mut linked = HashSet::new();
    let is_whole = walk(&root, |here, name| {
        let found = match statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(Next::Over),
            Err(error) => return Err(error.into()),
        };
        if held.files == FILES_MAX {
            return Ok(Next::Stop);
        }
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if !is_directory && found.st_nlink > 1 && linked.len() < LINKS_MAX && !linked.insert(found.st_ino) {
            return Ok(Next::Over);
        }
        held.files += 1;
        // Blocks have 512 bytes whatever the file system's own are (stat(2)).
        held.bytes = held.bytes.saturating_add(u64::try_from(found.st_blocks).unwrap_or(0) * 512);
        Ok(if is_directory { Next::Enter } else { Next::Over })
    })?;
    Ok(Held { is_whole, ..held })
}

#[cfg(test)]
mod tests {
    use super::of_pod;
    use crate::kernel::layout::Layout;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_a_pod_has_on_disk_is_counted_without_leaving_it() {
        let data = std::env::temp_dir().join(format!("windlass-disk-{}", std::process::id()));
        let layout = Layout { data: data.clone() };
        let (volumes, layers) = (layout.volumes("u").expect("a name"), layout.layers("u").expect("a name"));
        assert_eq!(of_pod(&layout, "u").expect("nothing is there"), Default::default());
        let volume = volumes.join("v");
        for directory in [volume.join("a/b"), layers.join("c.0/upper"), data.join("pods/u/logs/c"), data.join("out")] {
            fs::create_dir_all(directory).expect("made");
        }
        for file in ["pods/u/volumes/v/a/b/file", "runtime/containers/u/c.0/upper/file", "out/file"] {
            fs::write(data.join(file), vec![1; 100_000]).expect("written");
        }
        fs::write(data.join("pods/u/logs/c/0.log"), "said").expect("written");
        symlink(data.join("out"), volumes.join("host")).expect("a link");
        symlink(data.join("out"), volume.join("out")).expect("a link");
        symlink("..", volume.join("a/up")).expect("a link");
        fs::hard_link(volume.join("a/b/file"), volume.join("again")).expect("a link");
        let found = of_pod(&layout, "u").expect("counted");
        let names = |all: &std::collections::BTreeMap<String, _>| all.keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(
            (names(&found.layers), names(&found.logs), names(&found.volumes)),
            ("c.0".into(), "c".into(), "v".into())
        );
        let held = found.volumes["v"];
        assert!((100_000..200_000).contains(&held.bytes) && held.is_whole && held.files == 5, "{held:?}");
        assert!((100_000..200_000).contains(&found.layers["c.0"].bytes), "{found:?}");
        assert!(held.exceeds(90_000) && !held.exceeds(200_000));
        let deep = volume.join("d/".repeat(200));
        fs::create_dir_all(&deep).expect("made");
        fs::write(deep.join("file"), vec![1; 500_000]).expect("written");
        let held = of_pod(&layout, "u").expect("counted").volumes["v"];
        assert!(held.is_whole && held.exceeds(600_000 - 1) && !held.exceeds(10 << 20), "as deep as it lies: {held:?}");
        windlass_runtime::remove_tree(&data).expect("the test's own directory");
    }
}
