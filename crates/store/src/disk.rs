//! The seam to the disk: everything the store does to files, so that the simulator can stand in for a real one.
//!
//! Goal        the same store runs on a real disk and on one that loses un-synced writes, fills up and fails
//! Relies on   a file keeps what was synced before [`DiskFile::sync_data`] returned `Ok`; a name (created, renamed,
//!             removed) is durable after [`Disk::sync_dir`]; nothing else is assumed durable, and un-synced writes may
//!             survive in part and in any order

mod real;
mod simulated;

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;

pub use real::RealDisk;
pub use simulated::SimulatedDisk;

/// Work on files that may block.
pub type DiskJob = Box<dyn FnOnce() + Send + 'static>;

/// A disk: names, files and the place where blocking work runs.
///
/// Guarantees  calls take effect in the order they are made; `StorageFull` is reported by the call that needs the
///             space ([`DiskFile::write_at`], [`Disk::create`]), not later
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory and its parents; an existing one is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens a file for reading and writing; [`io::ErrorKind::NotFound`] when there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes an empty file, replacing an existing one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that may still be written beneath this directory.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Takes an exclusive lock that lasts until the returned value is dropped or the process ends;
    /// [`io::ErrorKind::WouldBlock`] when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// Runs work that blocks on this disk, away from the async tasks. The simulator runs it inline, at once.
    fn run(&self, job: DiskJob) -> BoxFuture<'static, ()>;
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Cuts or extends (with zeros, without taking space) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Fills `buffer` from `offset`; [`io::ErrorKind::UnexpectedEof`] when the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`; after an error any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and length durable. After an error nothing is known about what is durable, and calling again
    /// does not help.
    fn sync_data(&self) -> io::Result<()>;
}
