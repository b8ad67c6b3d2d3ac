//! From a layer archive to a directory that overlayfs can use as a lower directory.
//!
//! Rules
//!   R1 beneath     nothing is written, linked or looked up outside the layer's directory
//!   R2 whiteouts   `.wh.x` becomes a character device 0:0, `.wh..wh..opq` the attribute trusted.overlay.opaque
//!   R3 refused     devices, sparse files, names and paths beyond the limits, more entries or bytes than the bounds
//!   R4 kept        owner, mode with setuid, times, file capabilities and user attributes
//!   R5 dropped     every other extended attribute, above all overlayfs' own

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::digest::Checked;
use super::entry::{Extensions, Kind, Meta};
use super::recipe::{self, Recipe, Recorded};
use super::tree::{Inner, PathRefusal, Present, Tree, create, present};

/// Entries of one layer.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// Unpacked bytes of one layer.
pub const UNPACKED_BYTES_MAX: u64 = 64 << 30;
/// What the thread that undoes the compression may be ahead of the one that writes, and what is read and written at once.
const CHUNKS_MAX: usize = 8;
const CHUNK_BYTES: usize = 64 << 10;
/// What names of whiteouts begin with (OCI image spec 1.1, `layer.md`).
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that aufs kept for itself.
const AUFS_OWN: &[u8] = b".wh..wh.";
const CAPABILITY: &[u8] = b"security.capability";

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
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
    /// The content is not what its digest or size says.
    #[error("its digest does not match: expected {expected}, found {found}")]
    Digest {
        /// Promised.
        expected: String,
        /// Found.
        found: String,
    },
    /// The store cannot be written.
    #[error("could not write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// What a layer must turn out to be.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    /// Digest and size of the bytes as they come, where they are known.
    pub(super) packed: Option<(String, u64)>,
    /// Digest of the archive without compression.
    pub(super) diff_id: String,
}

/// Unpacks a layer into `directory`, which exists and is empty; its unpacked size in bytes.
///
/// Two threads share the work of a layer: one checks what comes and undoes its compression, this one checks the archive and
/// writes the files.
///
/// Guarantees  `Ok` means that packed and unpacked content were read to their end and are what was promised
pub(super) fn unpack(packed: impl Read + Send, promise: &Promise, directory: &Path) -> Result<u64, LayerError> {
    let packed_max = promise.packed.as_ref().map_or(UNPACKED_BYTES_MAX, |(_, size)| *size);
    let packed = Checked::new(packed, packed_max);
    let written = |source| LayerError::Write { path: recipe::place(directory), source };
    let recipe = Recipe::begin(directory).map_err(written)?;
    let (packed, finished) = std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(CHUNKS_MAX);
        let thread = std::thread::Builder::new().name("inflate".to_owned());
        let inflating = thread.spawn_scoped(scope, move || inflate(packed, sender)).map_err(written)?;
        let finished = unpack_checked(Chunks { receiver, chunk: Vec::new(), read: 0 }, directory, &recipe);
        Ok::<_, LayerError>((inflating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), finished))
    })?;
    // Content that is not what was promised is mostly also damaged: the former is the reason worth telling.
    match (packed, &promise.packed) {
        (Ok(found), Some(expected)) if found != *expected => {
            let say = |(digest, size): &(String, u64)| format!("{digest} of {size} bytes");
            return Err(LayerError::Digest { expected: say(expected), found: say(&found) });
        }
        (Err(error), _) if finished.is_ok() => return Err(LayerError::Archive(error)),
        _ => {}
    }
    let (size, diff_id) = finished?;
    recipe.finish().map_err(written)?;
    if diff_id != promise.diff_id {
        return Err(LayerError::Digest { expected: format!("diff_id {}", promise.diff_id), found: diff_id });
    }
    Ok(size)
}

/// The unpacked size of an archive's files, and the digest of the archive.
fn unpack_checked(chunks: Chunks, directory: &Path, recipe: &Recipe) -> Result<(u64, String), LayerError> {
    let mut archive = Recorded { inner: Checked::new(chunks, UNPACKED_BYTES_MAX), recipe: recipe.clone() };
    let size = unpack_archive(&mut archive, directory, recipe)?;
    // What comes after the last entry belongs to the archive too.
    io::copy(&mut archive, &mut io::sink()).map_err(LayerError::Archive)?;
    Ok((size, archive.inner.finish().map_err(LayerError::Archive)?.0))
}

/// Passes on what comes without its compression, and reads it to its end whatever becomes of that; its digest and size.
fn inflate<R: Read>(packed: Checked<R>, sender: SyncSender<io::Result<Vec<u8>>>) -> io::Result<(String, u64)> {
    let mut packed = BufReader::with_capacity(2 * CHUNK_BYTES, packed);
    if let Err(error) = send_chunks(&mut packed, &sender) {
        // Who unpacks may have ended with a reason of its own.
        let _ = sender.send(Err(error));
    }
    drop(sender);
    packed.into_inner().finish()
}

fn send_chunks(packed: impl io::BufRead, sender: &SyncSender<io::Result<Vec<u8>>>) -> io::Result<()> {
    let mut archive = decompressed(packed)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = archive.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
        // What came before it was damaged is looked at too.
        let is_wanted = sender.send(Ok(chunk)).is_ok();
        if read? < CHUNK_BYTES || !is_wanted {
            return Ok(());
        }
    }
}

/// An archive that another thread reads.
struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    /// Of the chunk.
    read: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.chunk, self.read) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.chunk[self.read..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        Ok(length)
    }
}

/// Undoes the compression that the first bytes show.
pub(super) fn decompressed<'a, R: io::BufRead + 'a>(mut packed: R) -> io::Result<Box<dyn Read + 'a>> {
    let head = packed.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(packed)))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        /// 128 MiB: what zstd uses at its highest ordinary level.
        const WINDOW_LOG_MAX: u32 = 27;
        let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        Ok(Box::new(decoder))
    } else {
        Ok(Box::new(packed))
    }
}

fn unpack_archive(archive: &mut impl Read, directory: &Path, recipe: &Recipe) -> Result<u64, LayerError> {
    let tree = Tree::open(directory).map_err(|source| LayerError::Write { path: directory.to_owned(), source })?;
    let buffer = vec![0; CHUNK_BYTES];
    let mut layer = Layer { tree, recipe, directories: Vec::new(), bytes: 0, buffer };
    let mut reader = tar::Archive::new(archive);
    let mut extensions = Extensions::default();
    let mut count = 0;
    for entry in reader.entries().map_err(LayerError::Archive)?.raw(true) {
        let mut entry = entry.map_err(LayerError::Archive)?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(LayerError::TooMuch { what: "entries", max: ENTRIES_MAX });
        }
        let header = entry.header().clone();
        if let Some(meta) = extensions.take(&header, &mut entry).map_err(LayerError::Archive)? {
            layer.add(&meta, &mut entry)?;
        }
    }
    layer.finish_directories()?;
    Ok(layer.bytes)
}

/// A layer while it is unpacked.
struct Layer<'a> {
    tree: Tree,
    recipe: &'a Recipe,
    /// Times of directories, to be set when nothing is put into them any more.
    directories: Vec<(PathBuf, (i64, u32))>,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Layer<'_> {
    fn add(&mut self, meta: &Meta, content: &mut impl Read) -> Result<(), LayerError> {
        let refuse = |why: String| LayerError::Entry { path: shown(&meta.path), why };
        let place = Inner::parse(&meta.path).map_err(|why: PathRefusal| refuse(why.to_string()))?;
        match (place, meta.kind) {
            (_, Kind::Device) => Err(refuse("it is a device node; an image may not bring devices".to_owned())),
            (_, Kind::Other(kind)) => Err(refuse(format!("entries of tar type {kind:?} are not supported"))),
            (None, Kind::Directory) => {
                dress(self.tree.root(), meta).map_err(|error| refuse(error.to_string()))?;
                self.directories.push((PathBuf::new(), meta.modified));
                Ok(())
            }
            (None, _) => Err(refuse("only a directory can be the root".to_owned())),
            (Some(place), _) if place.name.as_bytes().starts_with(WHITEOUT) => {
                self.hide(&place).map_err(|error| refuse(explain(&error)))
            }
            (Some(place), _) => self.put(&place, meta, content).map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull => LayerError::Write { path: place.path(), source: error },
                _ => refuse(explain(&error)),
            }),
        }
    }

    /// A whiteout (R2). One for a name that this layer itself has says nothing about that name.
    fn hide(&mut self, place: &Inner) -> io::Result<()> {
        let directory = self.tree.directory(&place.parent)?;
        let name = place.name.as_bytes();
        if name == OPAQUE {
            return make_opaque(directory);
        }
        if name.starts_with(AUFS_OWN) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(io::Error::other("a whiteout without a name"));
        }
        if present(directory, hidden)? == Present::Nothing {
            rustix::fs::mknodat(directory, hidden, FileType::CharacterDevice, Mode::empty(), 0)?;
        }
        Ok(())
    }

    fn put(&mut self, place: &Inner, meta: &Meta, content: &mut impl Read) -> io::Result<()> {
        let there = present(self.tree.directory(&place.parent)?, &place.name)?;
        let is_directory = meta.kind == Kind::Directory;
        if there != Present::Nothing && !(there == Present::Directory && is_directory) {
            self.clear(place, there)?;
        }
        // The source of a hard link is found first, since finding it may move the directory used last.
        let source = if meta.kind == Kind::Link { Some(self.source(meta)?) } else { None };
        let directory = self.tree.directory(&place.parent)?;
        let name = place.name.as_os_str();
        match (meta.kind, source) {
            (Kind::Directory, _) => {
                if there != Present::Directory {
                    rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
                }
                let made = open_new(directory, name)?;
                dress(made.as_fd(), meta)?;
                if there == Present::Whiteout {
                    make_opaque(made.as_fd())?;
                }
                self.directories.push((place.path(), meta.modified));
            }
            (Kind::File, _) => {
                let mut file = create(directory, name)?;
                self.recipe.content(&place.path(), meta.size)?;
                let copied = copy(content, &mut file, &mut self.buffer)?;
                if copied != meta.size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.bytes += copied;
                dress(file.as_fd(), meta)?;
            }
            (Kind::Symlink, _) => {
                check_target(&meta.link)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&meta.link), directory, name)?;
                own(directory, name, meta)?;
                set_times(directory, name, meta.modified)?;
            }
            (Kind::Fifo, _) => {
                rustix::fs::mknodat(directory, name, FileType::Fifo, Mode::from_raw_mode(meta.mode), 0)?;
                own(directory, name, meta)?;
                set_times(directory, name, meta.modified)?;
            }
            (Kind::Link, Some((from, old))) => {
                rustix::fs::linkat(&from, old.as_os_str(), directory, name, AtFlags::empty())?;
            }
            (Kind::Link | Kind::Device | Kind::Other(_), _) => {
                return Err(io::Error::other("an entry of a kind that is refused before"));
            }
        }
        Ok(())
    }

    /// Makes room for an entry that comes a second time, as another thing.
    fn clear(&mut self, place: &Inner, there: Present) -> io::Result<()> {
        let flags = if there == Present::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        self.recipe.spoil();
        rustix::fs::unlinkat(self.tree.directory(&place.parent)?, &place.name, flags)?;
        self.tree.forget();
        Ok(())
    }

    /// Where a hard link's content is: a file of this layer.
    fn source(&self, meta: &Meta) -> io::Result<(rustix::fd::OwnedFd, std::ffi::OsString)> {
        let target = Inner::parse(&meta.link).map_err(|why| io::Error::other(format!("its link target: {why}")))?;
        let target = target.ok_or_else(|| io::Error::other("its link target is the root"))?;
        let directory = self.tree.existing(&target.parent)?;
        match present(directory.as_fd(), &target.name)? {
            Present::Other => Ok((directory, target.name)),
            found => {
                Err(io::Error::other(format!("expected its link target to be a file of this layer, found {found:?}")))
            }
        }
    }

    /// Sets the directories' times, the deepest first.
    fn finish_directories(&mut self) -> Result<(), LayerError> {
        for (path, modified) in self.directories.drain(..).rev() {
            let done = match path.file_name() {
                None => set_times(self.tree.root(), OsStr::new("."), modified),
                // A later entry may have put something else there; that has its own times.
                Some(name) => match self.tree.existing(path.parent().unwrap_or(Path::new(""))) {
                    Ok(parent) if present(parent.as_fd(), name).is_ok_and(|found| found == Present::Directory) => {
                        set_times(parent.as_fd(), name, modified)
                    }
                    Ok(_) | Err(_) => Ok(()),
                },
            };
            done.map_err(|source| LayerError::Write { path, source })?;
        }
        Ok(())
    }
}

/// Like `io::copy`, in pieces that are worth a call.
fn copy(content: &mut impl Read, file: &mut File, buffer: &mut [u8]) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        match content.read(buffer)? {
            0 => return Ok(copied),
            read => {
                file.write_all(&buffer[..read])?;
                copied += read as u64;
            }
        }
    }
}

fn check_target(target: &[u8]) -> io::Result<()> {
    match target {
        b"" => Err(io::Error::other("a symbolic link without a target")),
        _ if target.contains(&0) || target.len() > 4095 => {
            Err(io::Error::other("its target is longer than 4095 bytes or contains a NUL byte"))
        }
        _ => Ok(()),
    }
}

/// Owner, mode, attributes and times of a file or directory that is open (R4, R5).
fn dress(file: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    let (uid, gid) = owner(meta)?;
    rustix::fs::fchown(file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode))?;
    set_attributes(file, meta)?;
    rustix::fs::futimens(file, &times(meta.modified))?;
    Ok(())
}

/// The directory that was just made at `name`.
fn open_new(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<rustix::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

fn own(directory: BorrowedFd<'_>, name: &OsStr, meta: &Meta) -> io::Result<()> {
    let (uid, gid) = owner(meta)?;
    Ok(rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn owner(meta: &Meta) -> io::Result<(Uid, Gid)> {
    let id = |id: u64| {
        // The last one means nobody in particular to the kernel.
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| io::Error::other(format!("owner {id} is none")))
    };
    Ok((Uid::from_raw(id(meta.owner.0)?), Gid::from_raw(id(meta.owner.1)?)))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn set_times(directory: BorrowedFd<'_>, name: &OsStr, modified: (i64, u32)) -> io::Result<()> {
    Ok(rustix::fs::utimensat(directory, name, &times(modified), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_attributes(file: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    for (name, value) in &meta.attributes {
        if name != CAPABILITY && !name.starts_with(b"user.") {
            continue;
        }
        match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            // Not every file system has them, and no program may rely on them.
            Err(Errno::OPNOTSUPP) if name != CAPABILITY => {}
            other => other?,
        }
    }
    Ok(())
}

fn make_opaque(directory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
}

/// The system's reason, in the words of layers where it has a special meaning here.
fn explain(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::XDEV) => "a symbolic link on its way leads out of the layer".to_owned(),
        Some(Errno::NOENT) => "a symbolic link on its way leads to nothing in this layer".to_owned(),
        Some(Errno::LOOP) => "symbolic links on its way form a circle".to_owned(),
        Some(Errno::NOTDIR) => "something on its way is no directory".to_owned(),
        Some(Errno::NOTEMPTY) => "it would replace a directory that is not empty".to_owned(),
        _ => error.to_string(),
    }
}

/// A path as it may be shown.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(120).collect()
}
