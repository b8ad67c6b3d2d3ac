//! What a container has changed in its file system: its writable layer as a plain archive, and what it took away.
//!
//! Guarantees  no link is followed and nothing mounted is entered, whatever the container, which runs, puts there meanwhile;
//!             each file has in the archive the size that it was begun with
//! Caveats     sockets are left out; of extended attributes only file capabilities and those of users are kept
//!
//! Source: kernel documentation, "Overlay Filesystem": whiteouts and opaque directories.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, flistxattr, fstat, openat, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;

/// Directories within directories; each costs a descriptor.
const DEPTH_MAX: usize = 128;
/// Most entries of a layer that are looked at.
const ENTRIES_MAX: usize = 1_000_000;
/// The longest attribute, and the longest list of their names: the kernel's own bound (xattr(7)).
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;
/// By this the archive knows a record of attributes.
const ATTRIBUTE_PREFIX: &str = "SCHILY.xattr.";

/// Writes what is in the writable layer, and gives the paths of what it hides in the layers below (top first).
pub(super) fn write<W: Write>(out: &mut tar::Builder<W>, upper: &Path, layers: &[PathBuf]) -> io::Result<Vec<String>> {
    let root = openat(CWD, upper, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let layers = layers.iter().map(|layer| {
        openat(CWD, layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)
    });
    let layers = layers.collect::<io::Result<_>>()?;
    let mut walk = Walk { out, layers, deleted: BTreeSet::new(), linked: BTreeMap::new(), entries: 0 };
    walk.directory(&root, Path::new(""), (false, 0))?;
    Ok(walk.deleted.into_iter().collect())
}

struct Walk<'a, W: Write> {
    out: &'a mut tar::Builder<W>,
    layers: Vec<OwnedFd>,
    deleted: BTreeSet<String>,
    /// Where a file with several names is already.
    linked: BTreeMap<u64, PathBuf>,
    entries: usize,
}

impl<W: Write> Walk<'_, W> {
    /// What is in a directory; `is_opaque`: nothing of the layers below is seen in it.
    fn directory(&mut self, directory: &OwnedFd, path: &Path, (is_opaque, depth): (bool, usize)) -> io::Result<()> {
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.insert(entry.file_name().to_owned());
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(io::Error::other(format!("the container has written more than {ENTRIES_MAX} files")));
            }
        }
        if is_opaque {
            let hidden = self.below(path).into_iter();
            let hidden = hidden.filter(|name| !names.iter().any(|own| own.to_bytes() == name.as_bytes()));
            self.deleted.extend(hidden.map(|name| absolute(&path.join(name))));
        }
        for name in names {
            match self.entry(directory, path, (&name, is_opaque, depth)) {
                // It went meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: &OwnedFd,
        parent: &Path,
        (name, is_opaque, depth): (&CStr, bool, usize),
    ) -> io::Result<()> {
        let path = parent.join(OsStr::from_bytes(name.to_bytes()));
        let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::CharacterDevice if found.st_rdev == 0 => {
                self.deleted.insert(absolute(&path));
                Ok(())
            }
            FileType::Directory if depth == DEPTH_MAX => {
                Err(io::Error::other(format!("the container has directories more than {DEPTH_MAX} deep")))
            }
            FileType::Directory => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = openat2(directory, name, flags, Mode::empty(), resolve)?;
                let is_opaque = is_opaque || is_opaque_itself(&opened);
                self.attributes(&opened)?;
                let mut header = header(&found, tar::EntryType::Directory, 0);
                self.out.append_data(&mut header, path.join(""), io::empty())?;
                self.directory(&opened, &path, (is_opaque, depth + 1))
            }
            FileType::RegularFile => self.file(directory, name, &path),
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())?;
                let mut header = header(&found, tar::EntryType::Symlink, 0);
                self.out.append_link(&mut header, &path, OsStr::from_bytes(target.to_bytes()))
            }
            FileType::Fifo => self.out.append_data(&mut header(&found, tar::EntryType::Fifo, 0), &path, io::empty()),
            FileType::CharacterDevice => self.device(&found, tar::EntryType::Char, &path),
            FileType::BlockDevice => self.device(&found, tar::EntryType::Block, &path),
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    fn file(&mut self, directory: &OwnedFd, name: &CStr, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(directory, name, flags, Mode::empty()) {
            // Something else is there by now.
            Err(Errno::LOOP | Errno::NXIO) => return Ok(()),
            opened => opened?,
        };
        let found = fstat(&file)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        if found.st_nlink > 1 {
            if let Some(first) = self.linked.get(&found.st_ino) {
                return self.out.append_link(&mut header(&found, tar::EntryType::Link, 0), path, first);
            }
            self.linked.insert(found.st_ino, path.to_owned());
        }
        self.attributes(&file)?;
        let size = u64::try_from(found.st_size).unwrap_or(0);
        // What is cut off meanwhile reads as zeros.
        let content = File::from(file).chain(io::repeat(0)).take(size);
        self.out.append_data(&mut header(&found, tar::EntryType::Regular, size), path, content)
    }

    fn device(&mut self, found: &Stat, kind: tar::EntryType, path: &Path) -> io::Result<()> {
        let mut header = header(found, kind, 0);
        header.set_device_major(rustix::fs::major(found.st_rdev))?;
        header.set_device_minor(rustix::fs::minor(found.st_rdev))?;
        self.out.append_data(&mut header, path, io::empty())
    }

    /// Attributes of what comes next in the archive.
    fn attributes(&mut self, file: &OwnedFd) -> io::Result<()> {
        let mut names = vec![0; ATTRIBUTE_BYTES_MAX];
        let length = match flistxattr(file, &mut names[..]) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut kept = Vec::new();
        for name in names[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
            if !name.starts_with("user.") && name != "security.capability" {
                continue;
            }
            let mut value = vec![0; ATTRIBUTE_BYTES_MAX];
            match fgetxattr(file, name, &mut value[..]) {
                Ok(length) => kept.push((format!("{ATTRIBUTE_PREFIX}{name}"), value[..length].to_vec())),
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        self.out.append_pax_extensions(kept.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }

    /// The names that the layers below have in a directory.
    fn below(&self, path: &Path) -> BTreeSet<OsString> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (mut seen, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for layer in &self.layers {
            // One that has nothing there, or no directory, says nothing.
            let Ok(directory) = openat2(layer.as_fd(), path, flags, Mode::empty(), resolve) else { continue };
            for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
                let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
                if name == "." || name == ".." || gone.contains(&name) {
                    continue;
                }
                let found = statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                let is_whiteout = found.is_ok_and(|found| {
                    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0
                });
                match is_whiteout {
                    true if !seen.contains(&name) => drop(gone.insert(name)),
                    true => {}
                    false => drop(seen.insert(name)),
                }
            }
            if is_opaque_itself(&directory) {
                break;
            }
        }
        seen
    }
}

fn is_opaque_itself(directory: &OwnedFd) -> bool {
    let mut value = [0; 8];
    fgetxattr(directory, "trusted.overlay.opaque", &mut value[..]).is_ok_and(|length| &value[..length] == b"y")
}

fn header(found: &Stat, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = super::header(kind, size, found.st_mode & 0o7777);
    header.set_uid(found.st_uid.into());
    header.set_gid(found.st_gid.into());
    header.set_mtime(u64::try_from(found.st_mtime).unwrap_or(0));
    header
}

/// A path as the container sees it.
fn absolute(path: &Path) -> String {
    format!("/{}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

    use super::write;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("windlass-difference-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        path
    }

    /// Needs root: whiteouts are devices.
    #[test]
    fn what_was_written_is_packed_and_what_was_taken_away_is_named() {
        let root = scratch("layers");
        let (upper, lower) = (root.join("upper"), root.join("lower"));
        for path in ["lower/etc", "lower/old/inner", "upper/etc", "upper/old/inner"] {
            fs::create_dir_all(root.join(path)).expect("a directory");
        }
        for path in ["etc/kept", "etc/gone", "old/one", "old/inner/two"] {
            fs::write(lower.join(path), "below").expect("a file");
        }
        mknodat(CWD, upper.join("etc/gone"), FileType::CharacterDevice, Mode::empty(), 0).expect("root makes devices");
        // Taken away and made again: nothing of what was in it is seen any more.
        setxattr(upper.join("old"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).expect("root may");
        fs::write(upper.join("etc/new"), "written").expect("a file");
        fs::hard_link(upper.join("etc/new"), upper.join("etc/same")).expect("a second name");
        symlink("/etc/shadow", upper.join("etc/link")).expect("a link");
        setxattr(upper.join("etc/new"), "user.note", b"kept", XattrFlags::empty()).expect("an attribute");

        let mut out = tar::Builder::new(Vec::new());
        let deleted = write(&mut out, &upper, std::slice::from_ref(&lower)).expect("it is packed");
        assert_eq!(deleted, ["/etc/gone", "/old/inner/two", "/old/one"]);
        let bytes = out.into_inner().expect("whole");
        let mut found = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let notes = entry.pax_extensions().expect("records").into_iter().flatten().flatten();
            let notes: Vec<String> = notes.map(|note| note.key().expect("text").to_owned()).collect();
            let (path, link) = (entry.path().expect("a path").into_owned(), entry.link_name().expect("a link"));
            let link = link.map(|link| link.display().to_string()).unwrap_or_default();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            found.push(format!("{} {text}{link} {}", path.display(), notes.join(",")));
        }
        let expected = [
            "etc/  ",
            "etc/link /etc/shadow ",
            "etc/new written SCHILY.xattr.user.note",
            "etc/same etc/new ",
            "old/  ",
            "old/inner/  ",
        ];
        assert_eq!(found, expected);
        crate::remove_tree(&root).expect("removed");
    }
}
