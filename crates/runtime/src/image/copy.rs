//! Archives of what a person copies out of a container and into one. What a container sends is hostile.
//!
//! Rules
//!   R1 beneath   nothing is written, linked or looked up outside the destination, whatever names and links say
//!   R2 asked     an archive that holds something else than what was asked for is refused
//!   R3 kept      content, and whether a file may be executed; no owners, no setuid, no attributes
//!   R4 skipped   symbolic links, devices and what else is neither file nor directory are told and passed over
//!   R5 bounded   entries, bytes and the length of names
//!   R6 replaced  what stands where a file comes is taken away first, so that nothing is written through a link

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::entry::{Extensions, Kind, Meta};
use super::tree::{Inner, Present, Tree, present};
use super::unpack::{ENTRIES_MAX, shown};

/// What is wrong with a copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One entry is not taken.
    #[error("entry {path:?}: {why}")]
    Entry {
        /// Its path, cut to a bounded length.
        path: String,
        /// The reason.
        why: String,
    },
    /// The archive cannot be read.
    #[error("the archive is damaged or incomplete: {0}")]
    Archive(#[source] io::Error),
    /// More than the bounds.
    #[error("expected at most {max} {what}, found more")]
    TooMuch {
        /// Entries or bytes.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// Something here cannot be read or written.
    #[error("{}: {source}", path.display())]
    Local {
        /// Where.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Where a copy goes and how large it may be.
#[derive(Debug)]
pub struct Destination<'a> {
    /// The file or directory that is made. If what comes is a file and this is a directory, the file gets into it.
    pub path: &'a Path,
    /// Bytes of all files.
    pub bytes_max: u64,
}

/// Writes what an archive holds of `asked` (the name its entries begin with; empty for all) to its destination; says
/// what is passed over. Gives the bytes of all files.
///
/// Errors  what came before the error stays
pub fn take(
    archive: impl Read,
    asked: &str,
    to: &Destination<'_>,
    mut skipped: impl FnMut(&str, &str),
) -> Result<u64, CopyError> {
    let mut reader = tar::Archive::new(archive);
    let mut extensions = Extensions::default();
    let mut copy = Copy { to, tree: None, asked, bytes: 0 };
    let mut count = 0;
    for entry in reader.entries().map_err(CopyError::Archive)?.raw(true) {
        let mut entry = entry.map_err(CopyError::Archive)?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(CopyError::TooMuch { what: "entries", max: ENTRIES_MAX });
        }
        let header = entry.header().clone();
        let Some(meta) = extensions.take(&header, &mut entry).map_err(CopyError::Archive)? else { continue };
        match meta.kind {
            Kind::File | Kind::Directory | Kind::Link => copy.add(&meta, &mut entry)?,
            Kind::Symlink => {
                skipped(&shown(&meta.path), &format!("it is a symbolic link to {:?}", shown(&meta.link)));
            }
            Kind::Fifo | Kind::Device | Kind::Other(_) => {
                skipped(&shown(&meta.path), "it is neither a file nor a directory");
            }
        }
    }
    Ok(copy.bytes)
}

struct Copy<'a> {
    to: &'a Destination<'a>,
    /// The destination, once it is known to be a directory.
    tree: Option<Tree>,
    asked: &'a str,
    bytes: u64,
}

impl Copy<'_> {
    fn add(&mut self, meta: &Meta, content: &mut impl Read) -> Result<(), CopyError> {
        let refuse = |why: String| CopyError::Entry { path: shown(&meta.path), why };
        let inside = self.inside(&meta.path).map_err(refuse)?;
        let linked = match meta.kind {
            Kind::Link => Some(self.inside(&meta.link).map_err(|why| refuse(format!("its link target: {why}")))?),
            _ => None,
        };
        if meta.kind == Kind::File && self.bytes.saturating_add(meta.size) > self.to.bytes_max {
            return Err(CopyError::TooMuch { what: "bytes", max: self.to.bytes_max });
        }
        let put = match inside {
            // What was asked for is one file.
            None if meta.kind != Kind::Directory => self.alone(meta, content),
            None => self.tree().map(drop),
            Some(place) => self.put(&place, meta, linked, content),
        };
        put.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => CopyError::Archive(error),
            _ => refuse(error.to_string()),
        })
    }

    /// Where an entry goes beneath the destination; `None` for the destination itself.
    fn inside(&self, path: &[u8]) -> Result<Option<Inner>, String> {
        let whole = Inner::parse(path).map_err(|why| why.to_string())?;
        if self.asked.is_empty() {
            return Ok(whole);
        }
        let whole = whole.map(|inner| inner.path()).unwrap_or_default();
        let rest = whole.strip_prefix(self.asked).map_err(|_| format!("only {:?} was asked for", self.asked))?;
        match rest.as_os_str().is_empty() {
            true => Ok(None),
            false => Inner::parse(rest.as_os_str().as_bytes()).map_err(|why| why.to_string()),
        }
    }

    fn tree(&mut self) -> io::Result<&mut Tree> {
        if self.tree.is_none() {
            std::fs::create_dir_all(self.to.path)?;
            self.tree = Some(Tree::open(self.to.path)?);
        }
        Ok(self.tree.as_mut().expect("it was just set"))
    }

    /// A file that is all of the copy: it becomes the destination, or gets into it.
    fn alone(&mut self, meta: &Meta, content: &mut impl Read) -> io::Result<()> {
        let path = match self.to.path.is_dir() {
            true => self.to.path.join(Path::new(self.asked).file_name().unwrap_or_default()),
            false => self.to.path.to_owned(),
        };
        let name = path.file_name().ok_or_else(|| io::Error::other("the destination names no file"))?.to_owned();
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent)?;
        let mut directory = Tree::open(parent)?;
        if meta.kind == Kind::Link {
            return Err(io::Error::other("it is a link to something that was not asked for"));
        }
        self.bytes += write_file(directory.directory(Path::new(""))?, &name, meta, content)?;
        Ok(())
    }

    fn put(
        &mut self,
        place: &Inner,
        meta: &Meta,
        linked: Option<Option<Inner>>,
        content: &mut impl Read,
    ) -> io::Result<()> {
        let tree = self.tree()?;
        match meta.kind {
            Kind::Directory => tree.directory(&place.path()).map(drop),
            Kind::Link => {
                let source = linked.flatten().ok_or_else(|| io::Error::other("a link without a target"))?;
                let from = tree.existing(&source.parent)?;
                if present(from.as_fd(), &source.name)? != Present::Other {
                    return Err(io::Error::other("its link target is no file of this copy"));
                }
                let into = tree.directory(&place.parent)?;
                make_room(into, &place.name)?;
                Ok(rustix::fs::linkat(&from, &source.name, into, &place.name, AtFlags::empty())?)
            }
            _ => {
                let written = write_file(tree.directory(&place.parent)?, &place.name, meta, content)?;
                self.bytes += written;
                Ok(())
            }
        }
    }
}

/// R6.
fn make_room(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match present(directory, name)? {
        Present::Nothing => Ok(()),
        Present::Directory => Err(io::Error::other("a directory stands there")),
        Present::Whiteout | Present::Other => Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?),
    }
}

fn write_file(directory: BorrowedFd<'_>, name: &OsStr, meta: &Meta, content: &mut impl Read) -> io::Result<u64> {
    make_room(directory, name)?;
    // R3; what the person's umask takes away is taken away.
    let mode = if meta.mode & 0o111 == 0 { 0o666 } else { 0o777 };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(mode))?);
    let written = io::copy(content, &mut file)?;
    match written == meta.size {
        true => Ok(written),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes a file or a directory with all it holds as an archive, under this name. Links stay links.
pub fn pack(from: &Path, name: &str, to: impl Write) -> Result<(), CopyError> {
    let failed = |source| CopyError::Local { path: from.to_owned(), source };
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    // Small tar programs do not know holes.
    archive.sparse(false);
    if from.is_dir() {
        archive.append_dir_all(name, from).map_err(failed)?;
    } else {
        archive.append_file(name, &mut File::open(from).map_err(failed)?).map_err(failed)?;
    }
    archive.into_inner().and_then(|mut to| to.flush()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::{CopyError, Destination, pack, take};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("windlass-copy-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("to")).expect("a directory for the test");
            fs::write(path.join("canary"), "unharmed").expect("a canary");
            Place(path)
        }

        fn take(&self, asked: &str, archive: &[u8]) -> Result<(u64, Vec<String>), CopyError> {
            let mut skipped = Vec::new();
            let to = Destination { path: &self.0.join("to/new"), bytes_max: 1000 };
            let bytes = take(archive, asked, &to, |path, why| skipped.push(format!("{path}: {why}")))?;
            Ok((bytes, skipped))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            assert_eq!(fs::read_to_string(self.0.join("canary")).expect("the canary"), "unharmed");
            fs::remove_dir_all(&self.0).expect("the test's own directory");
        }
    }

    fn entry(archive: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, link: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(7);
        header.set_mtime(1);
        let raw = header.as_gnu_mut().expect("a GNU header");
        // The names are set byte for byte: the crate would refuse what these tests are about.
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.append(&header, content).expect("written to memory");
    }

    fn archive(entries: &[(tar::EntryType, &str, &str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (kind, path, link, content) in entries {
            entry(&mut archive, *kind, path, link, content);
        }
        archive.into_inner().expect("written to memory")
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;
    const DIRECTORY: tar::EntryType = tar::EntryType::Directory;

    #[test]
    fn a91_r1_r2_what_leads_out_or_was_not_asked_for_is_refused() {
        let place = Place::new("out");
        for path in ["../canary", "/etc/windlass-canary", "d/../../canary", "other", "d2/x", "."] {
            let given = archive(&[(DIRECTORY, "d", "", b""), (FILE, path, "", b"harmed")]);
            let refused = place.take("d", &given).expect_err(path);
            assert!(matches!(refused, CopyError::Entry { .. }), "{path}: {refused}");
        }
        let links = [(FILE, "d/a", "", &b"x"[..]), (tar::EntryType::Link, "d/b", "../canary", b"")];
        assert!(place.take("d", &archive(&links)).is_err());
    }

    #[test]
    fn a91_r1_r4_a_link_is_passed_over_and_nothing_is_written_through_one() {
        let place = Place::new("link");
        let given = archive(&[
            (DIRECTORY, "d", "", b""),
            (tar::EntryType::Symlink, "d/out", "/etc", b""),
            (FILE, "d/out/windlass-canary", "", b"beneath"),
            (tar::EntryType::Fifo, "d/pipe", "", b""),
        ]);
        let (_, skipped) = place.take("d", &given).expect("taken");
        assert_eq!(skipped.len(), 2, "{skipped:?}");
        assert!(place.0.join("to/new/out").is_dir() && !Path::new("/etc/windlass-canary").exists());
        // A link that the person already had there.
        symlink(place.0.join("canary"), place.0.join("to/new/file")).expect("a link");
        symlink("/etc", place.0.join("to/new/away")).expect("a link");
        place.take("d", &archive(&[(FILE, "d/file", "", b"new")])).expect("taken");
        assert_eq!(fs::read_to_string(place.0.join("to/new/file")).expect("a file"), "new");
        let refused = place.take("d", &archive(&[(FILE, "d/away/windlass-canary", "", b"x")]));
        assert!(refused.is_err() && !Path::new("/etc/windlass-canary").exists());
    }

    #[test]
    fn a91_r5_more_than_the_bound_is_refused_before_it_is_written() {
        let place = Place::new("bound");
        let given = archive(&[(FILE, "d/a", "", &[0; 600]), (FILE, "d/b", "", &[0; 600])]);
        let refused = place.take("d", &given).expect_err("too much");
        assert!(matches!(refused, CopyError::TooMuch { what: "bytes", .. }), "{refused}");
        assert!(!place.0.join("to/new/b").exists());
        let short = archive(&[(FILE, "d/a", "", &[0; 600])]);
        assert!(matches!(place.take("d", &short[..800]), Err(CopyError::Archive(_))));
    }

    #[test]
    fn r3_files_directories_and_hard_links_arrive() {
        let place = Place::new("arrive");
        let given = archive(&[
            (DIRECTORY, "./d/", "", b""),
            (DIRECTORY, "./d/sub/", "", b""),
            (FILE, "./d/sub/a", "", b"content"),
            (tar::EntryType::Link, "./d/b", "d/sub/a", b""),
        ]);
        let (bytes, skipped) = place.take("d", &given).expect("taken");
        assert_eq!((bytes, skipped), (7, Vec::new()));
        assert_eq!(fs::read_to_string(place.0.join("to/new/b")).expect("a file"), "content");
        let mode = fs::metadata(place.0.join("to/new/sub/a")).expect("a file").permissions().mode();
        assert_eq!((mode & 0o100, mode & 0o7000), (0o100, 0), "executable, and no setuid");
        let one = archive(&[(FILE, "d", "", b"alone")]);
        assert!(place.take("d", &one).is_ok(), "into the directory that is there");
        assert_eq!(fs::read_to_string(place.0.join("to/new/d")).expect("a file"), "alone");
    }

    #[test]
    fn what_is_packed_can_be_taken() {
        let place = Place::new("both");
        fs::create_dir_all(place.0.join("from/empty")).expect("a directory");
        fs::write(place.0.join("from/file"), "text").expect("a file");
        symlink("file", place.0.join("from/link")).expect("a link");
        let mut packed = Vec::new();
        pack(&place.0.join("from"), "d", &mut packed).expect("packed");
        let (bytes, skipped) = place.take("d", &packed).expect("taken");
        assert_eq!((bytes, skipped.len()), (4, 1), "{skipped:?}");
        assert!(place.0.join("to/new/empty").is_dir());
        let missing = pack(&place.0.join("nothing"), "d", Vec::new()).expect_err("missing");
        assert!(missing.to_string().contains("nothing"), "{missing}");
    }
}
