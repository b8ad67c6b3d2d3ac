//! Recipes: how the archive of a layer is made again, byte for byte, from its unpacked files, so that a machine can give it
//! to another without keeping it twice.
//!
//! ```text
//! zstd of pieces:  0, length u32, bytes            what is not a file's content: headers, names, padding
//!                  1, length u64, size u16, path   the content of this file of the layer
//! ```
//! Rules
//!   R1 exact     what comes out is for its receiver to check: it has the layer's diff_id, or a file was changed
//!   R2 whole     a layer that took a file away again, by a later entry of the same name, has no recipe
//!   R3 beneath   files are opened beneath the layer's directory, whatever links lie in it

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of an archive that are written down at once.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Names and headers of entries that have not changed much: the fastest level is good enough.
const LEVEL: i32 = 1;

/// Where the recipe of the layer that is unpacked into `directory` is written.
pub(super) fn place(directory: &Path) -> PathBuf {
    // Not `with_extension`: attempts at one layer differ in theirs.
    let mut name = directory.as_os_str().to_owned();
    name.push(".recipe");
    name.into()
}

/// An archive that is read, and what of it is written down. Clones are of the same recipe.
#[derive(Clone)]
pub(super) struct Recipe(Rc<RefCell<Writing>>);

struct Writing {
    path: PathBuf,
    /// `None` when there will be no recipe (R2), or it could not be written.
    into: Option<zstd::stream::write::Encoder<'static, BufWriter<File>>>,
    piece: Vec<u8>,
    /// Bytes of the archive to come that are a file's content.
    content: u64,
}

impl Recipe {
    /// Begins one beside this directory.
    pub(super) fn begin(directory: &Path) -> io::Result<Recipe> {
        let path = place(directory);
        let file = BufWriter::new(File::create(&path)?);
        let into = Some(zstd::stream::write::Encoder::new(file, LEVEL)?);
        Ok(Recipe(Rc::new(RefCell::new(Writing { path, into, piece: Vec::new(), content: 0 }))))
    }

    /// The next `length` bytes that are read are the content of this file.
    pub(super) fn content(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut writing = self.0.borrow_mut();
        writing.flush()?;
        writing.content = length;
        let path = path.as_os_str().as_bytes();
        let size = u16::try_from(path.len()).map_err(|_| io::Error::other("a path of more than 65535 bytes"))?;
        writing.write(&[&[1], &length.to_le_bytes()[..], &size.to_le_bytes(), path])
    }

    /// There will be none (R2).
    pub(super) fn spoil(&self) {
        self.0.borrow_mut().into = None;
    }

    /// Ends it; what was spoiled leaves no file.
    pub(super) fn finish(self) -> io::Result<()> {
        let mut writing = self.0.borrow_mut();
        writing.flush()?;
        match writing.into.take() {
            Some(into) => into.finish()?.flush(),
            None => std::fs::remove_file(&writing.path),
        }
    }
}

impl Writing {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let skipped = usize::try_from(self.content).unwrap_or(usize::MAX).min(bytes.len());
        self.content -= skipped as u64;
        if self.into.is_some() {
            self.piece.extend_from_slice(&bytes[skipped..]);
            if self.piece.len() >= PIECE_BYTES_MAX {
                return self.flush();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        let length = u32::try_from(piece.len()).map_err(|_| io::Error::other("a piece of 4 GiB"))?;
        self.write(&[&[0], &length.to_le_bytes()[..], &piece])
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        match &mut self.into {
            Some(into) => parts.iter().try_for_each(|part| into.write_all(part)),
            None => Ok(()),
        }
    }
}

/// Reads through to an archive and writes down what passes.
pub(super) struct Recorded<R> {
    pub(super) inner: R,
    pub(super) recipe: Recipe,
}

impl<R: Read> Read for Recorded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.recipe.0.borrow_mut().take(&buffer[..read])?;
        Ok(read)
    }
}

/// How long the archive is that this recipe makes. Reads all of the recipe, and nothing of the layer.
pub(super) fn length(recipe: &Path) -> io::Result<u64> {
    let mut recipe = BufReader::new(zstd::stream::read::Decoder::new(File::open(recipe)?)?);
    let (mut kind, mut whole) = ([0], 0u64);
    while recipe.read(&mut kind)? != 0 {
        let skipped = if kind == [0] {
            let mut length = [0; 4];
            recipe.read_exact(&mut length)?;
            whole += u64::from(u32::from_le_bytes(length));
            u64::from(u32::from_le_bytes(length))
        } else {
            let (mut length, mut size) = ([0; 8], [0; 2]);
            recipe.read_exact(&mut length)?;
            recipe.read_exact(&mut size)?;
            whole = whole.saturating_add(u64::from_le_bytes(length));
            u16::from_le_bytes(size).into()
        };
        if io::copy(&mut recipe.by_ref().take(skipped), &mut io::sink())? != skipped {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(whole)
}

/// The archive of a layer, made again.
pub struct LayerArchive {
    root: rustix::fd::OwnedFd,
    recipe: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
    piece: Piece,
    _permit: OwnedSemaphorePermit,
}

enum Piece {
    /// So many bytes of the recipe itself.
    Bytes(u64),
    /// So many bytes of a file.
    File(File, u64),
}

impl LayerArchive {
    pub(super) fn open(directory: &Path, recipe: &Path, permit: OwnedSemaphorePermit) -> io::Result<LayerArchive> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())?;
        let recipe = BufReader::new(zstd::stream::read::Decoder::new(File::open(recipe)?)?);
        Ok(LayerArchive { root, recipe, piece: Piece::Bytes(0), _permit: permit })
    }

    /// The next piece, if there is one.
    fn next(&mut self) -> io::Result<bool> {
        let mut kind = [0];
        if self.recipe.read(&mut kind)? == 0 {
            return Ok(false);
        }
        self.piece = if kind == [0] {
            let mut length = [0; 4];
            self.recipe.read_exact(&mut length)?;
            Piece::Bytes(u32::from_le_bytes(length).into())
        } else {
            let (mut length, mut size) = ([0; 8], [0; 2]);
            self.recipe.read_exact(&mut length)?;
            self.recipe.read_exact(&mut size)?;
            let mut path = vec![0; u16::from_le_bytes(size).into()];
            self.recipe.read_exact(&mut path)?;
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            let path = std::ffi::OsStr::from_bytes(&path);
            let file = rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), resolve)?;
            Piece::File(File::from(file), u64::from_le_bytes(length))
        };
        Ok(true)
    }
}

impl Read for LayerArchive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let (read, left) = match &mut self.piece {
                Piece::Bytes(0) | Piece::File(_, 0) => {
                    if !self.next()? {
                        return Ok(0);
                    }
                    continue;
                }
                Piece::Bytes(left) => (self.recipe.read(within(buffer, *left))?, left),
                Piece::File(file, left) => (file.read(within(buffer, *left))?, left),
            };
            *left -= read as u64;
            return if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) };
        }
    }
}

/// At most so much of a buffer.
fn within(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    &mut buffer[..length]
}
