//! A disk in memory that forgets what was not synced, fills up and fails, as told.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;
use windlass_store::{Disk, DiskFile, DiskJob};

/// Un-synced writes survive a loss of power, or not, in pieces of this size.
const SECTOR_BYTES: usize = 512;

#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    random: u64,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    capacity: usize,
    syncs: u64,
    sync_fails: bool,
    write_is_full: bool,
    writes_before_failure: Option<u64>,
}

#[derive(Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone)]
enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
}

impl MemoryDisk {
    pub fn new(seed: u64) -> MemoryDisk {
        let state = State {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            next_inode: 0,
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            locks: BTreeSet::new(),
            capacity: usize::MAX,
            syncs: 0,
            sync_fails: false,
            write_is_full: false,
            writes_before_failure: None,
        };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Loses the power: what was not synced survives in part.
    pub fn lose_power(&self) {
        self.state().lose_power();
    }

    /// Bytes that all files together may take.
    pub fn set_capacity(&self, bytes: usize) {
        self.state().capacity = bytes;
    }

    pub fn used(&self) -> usize {
        self.state().used()
    }

    /// Every sync from now on fails, or succeeds again.
    pub fn set_sync_fails(&self, fails: bool) {
        self.state().sync_fails = fails;
    }

    /// Every write from now on finds the disk full, even in space that a file has already.
    pub fn set_write_is_full(&self, is_full: bool) {
        self.state().write_is_full = is_full;
    }

    /// The write after so many fails with an input/output error, and so do all later ones.
    pub fn fail_writes_after(&self, writes: u64) {
        self.state().writes_before_failure = Some(writes);
    }

    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub fn names(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    pub fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.inodes[&state.names[path]].current.clone()
    }

    /// Changes a file behind the store's back.
    pub fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.names[path];
        let inode = state.inodes.get_mut(&inode).unwrap();
        inode.current = bytes.clone();
        inode.durable = bytes;
        inode.changes.clear();
    }

    /// A disk of its own with the same content, all of it durable.
    pub fn copy(&self) -> MemoryDisk {
        let copy = MemoryDisk::new(1);
        {
            let state = self.state();
            let mut other = copy.state();
            for (path, inode) in &state.names {
                let bytes = state.inodes[inode].current.clone();
                let durable = Inode { current: bytes.clone(), durable: bytes, changes: Vec::new() };
                other.inodes.insert(*inode, durable);
                other.names.insert(path.clone(), *inode);
            }
            other.next_inode = state.next_inode;
            other.durable_names = other.names.clone();
        }
        copy
    }
}

impl State {
    fn random(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn used(&self) -> usize {
        self.names.values().map(|inode| self.inodes[inode].current.len()).sum()
    }

    fn create(&mut self, path: &Path) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.set_name(path.to_owned(), inode);
        inode
    }

    fn set_name(&mut self, path: PathBuf, inode: u64) {
        self.names.insert(path.clone(), inode);
        self.name_changes.push(NameChange::Set(path, inode));
    }

    fn remove_name(&mut self, path: &Path) -> io::Result<u64> {
        let inode = self.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        self.name_changes.push(NameChange::Remove(path.to_owned()));
        Ok(inode)
    }

    fn lose_power(&mut self) {
        self.locks.clear();
        let changes = std::mem::take(&mut self.name_changes);
        let survive = self.random(changes.len() as u64 + 1) as usize;
        for change in changes.into_iter().take(survive) {
            match change {
                NameChange::Set(path, inode) => drop(self.durable_names.insert(path, inode)),
                NameChange::Remove(path) => drop(self.durable_names.remove(&path)),
            }
        }
        self.names = self.durable_names.clone();
        let numbers: Vec<u64> = self.inodes.keys().copied().collect();
        for number in numbers {
            let changes = std::mem::take(&mut self.inodes.get_mut(&number).unwrap().changes);
            // Nothing, everything, or any sectors of it.
            let mode = self.random(3);
            for change in changes {
                self.survive(number, change, mode);
            }
            let inode = self.inodes.get_mut(&number).unwrap();
            inode.current = inode.durable.clone();
        }
    }

    fn survive(&mut self, number: u64, change: Change, mode: u64) {
        let lucky = |state: &mut State| match mode {
            0 => false,
            1 => true,
            _ => state.random(2) == 0,
        };
        match change {
            Change::SetLen(len) => {
                if lucky(self) {
                    self.inodes.get_mut(&number).unwrap().durable.resize(len, 0);
                }
            }
            Change::Write { offset, bytes } => {
                let mut at = 0;
                while at < bytes.len() {
                    let sector_end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
                    let end = sector_end.min(bytes.len());
                    if lucky(self) {
                        write(&mut self.inodes.get_mut(&number).unwrap().durable, offset + at, &bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

struct Lock {
    disk: MemoryDisk,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = *self.state().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.state().create(path);
        Ok(Arc::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.remove_name(from)?;
        state.set_name(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().remove_name(path).map(drop)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let names = state.names.keys().filter(|name| name.parent() == Some(path));
        Ok(names.map(|name| name.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.syncs += 1;
        if state.sync_fails {
            return Err(io::Error::other("the disk does not answer"));
        }
        state.name_changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok((state.capacity.saturating_sub(state.used())) as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        if !self.state().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { disk: self.clone(), path: path.to_owned() }))
    }

    fn run(&self, job: DiskJob) -> BoxFuture<'static, ()> {
        Box::pin(async move { job() })
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[&self.inode].current.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let inode = state.inodes.get_mut(&self.inode).unwrap();
        inode.current.resize(len as usize, 0);
        inode.changes.push(Change::SetLen(len as usize));
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let content = &state.inodes[&self.inode].current;
        let offset = offset as usize;
        let found = content.get(offset..offset + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Some(left) = state.writes_before_failure.as_mut() {
            if *left == 0 {
                return Err(io::Error::other("the disk does not take it"));
            }
            *left -= 1;
        }
        let offset = offset as usize;
        let growth = (offset + bytes.len()).saturating_sub(state.inodes[&self.inode].current.len());
        let space = state.capacity.saturating_sub(state.used());
        // A full disk takes the beginning of a write.
        let is_full = state.write_is_full || growth > space;
        let taken = if is_full { (bytes.len() - growth + space.min(growth)) / 2 } else { bytes.len() };
        let inode = state.inodes.get_mut(&self.inode).unwrap();
        write(&mut inode.current, offset, &bytes[..taken]);
        inode.changes.push(Change::Write { offset, bytes: bytes[..taken].to_vec() });
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.syncs += 1;
        if state.sync_fails {
            return Err(io::Error::other("the disk does not answer"));
        }
        let inode = state.inodes.get_mut(&self.inode).unwrap();
        inode.changes.clear();
        inode.durable = inode.current.clone();
        Ok(())
    }
}
