//! The machine's table of mounts: what a path lies on, and whether what is mounted beneath it is seen elsewhere.
//!
//! Source: proc_pid_mountinfo(5).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};

use crate::kernel::unescape;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Where it is.
    pub path: PathBuf,
    /// What is mounted beneath it is seen by others, and the other way round.
    pub is_shared: bool,
    /// It is a part of what lies below it, mounted once more.
    pub is_own_part: bool,
}

/// What a path lies on.
pub fn mounted_on(path: &Path) -> io::Result<MountPoint> {
    let path = fs::canonicalize(path)?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    find(&table, &path).ok_or_else(|| io::Error::other(format!("nothing is mounted at {}", path.display())))
}

/// Makes what is mounted beneath a directory seen by those who are to see it, if the machine has not done so.
pub fn share(directory: &Path) -> io::Result<()> {
    let found = mounted_on(directory)?;
    if found.is_shared {
        return Ok(());
    }
    if found.path != fs::canonicalize(directory)? {
        mount_bind_recursive(directory, directory)?;
    }
    Ok(mount_change(directory, MountPropagationFlags::SHARED)?)
}

fn find(table: &str, path: &Path) -> Option<MountPoint> {
    let mut rows: Vec<Row> = table.lines().filter_map(Row::read).collect();
    // Of several at one place the last is on top.
    rows.reverse();
    let place = rows.iter().map(|row| row.path.as_path()).filter(|place| path.starts_with(place));
    let place = place.max_by_key(|place| place.components().count())?;
    let top = rows.iter().find(|row| row.path == place)?;
    let below = rows.iter().find(|row| row.id == top.parent);
    Some(MountPoint {
        path: top.path.clone(),
        is_shared: top.is_shared,
        is_own_part: below.is_some_and(|below| below.device == top.device && below.path != top.path) && top.root != "/",
    })
}

struct Row<'a> {
    id: &'a str,
    parent: &'a str,
    device: &'a str,
    root: &'a str,
    path: PathBuf,
    is_shared: bool,
}

impl Row<'_> {
    fn read(line: &str) -> Option<Row<'_>> {
        let mut fields = line.split(' ');
        let [id, parent, device, root, path] = std::array::from_fn(|_| fields.next());
        let more = fields.skip(1).take_while(|field| *field != "-");
        let is_shared = more.into_iter().any(|field| field.starts_with("shared:"));
        Some(Row {
            id: id?,
            parent: parent?,
            device: device?,
            root: root?,
            path: PathBuf::from(unescape(path?)),
            is_shared,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::find;
    use std::path::Path;

    const TABLE: &str = "\
1 0 254:0 / / rw,relatime - ext4 /dev/vda rw
2 1 0:22 / /run rw master:3 shared:7 - tmpfs tmpfs rw
3 1 254:0 /var/lib/kubelet /var/lib/kubelet rw shared:9 master:2 - ext4 /dev/vda rw
4 3 0:40 / /var/lib/kubelet/pods/a rw master:4 - tmpfs tmpfs rw
5 4 0:41 / /var/lib/kubelet/pods/a rw shared:5 - tmpfs tmpfs rw
6 1 0:42 / /my\\040disk rw shared:6 - tmpfs tmpfs rw
";

    fn on(path: &str) -> (String, bool, bool) {
        let found = find(TABLE, Path::new(path)).expect("something is mounted at the root");
        (found.path.display().to_string(), found.is_shared, found.is_own_part)
    }

    #[test]
    fn a_path_lies_on_the_topmost_mount_that_holds_it() {
        assert_eq!(on("/var/lib"), ("/".to_owned(), false, false));
        assert_eq!(on("/runner"), ("/".to_owned(), false, false));
        assert_eq!(on("/run/x"), ("/run".to_owned(), true, false));
        assert_eq!(on("/my disk/x"), ("/my disk".to_owned(), true, false));
        assert_eq!(on("/var/lib/kubelet/plugins"), ("/var/lib/kubelet".to_owned(), true, true));
        assert_eq!(on("/var/lib/kubelet/pods/a/b"), ("/var/lib/kubelet/pods/a".to_owned(), true, false));
    }
}
