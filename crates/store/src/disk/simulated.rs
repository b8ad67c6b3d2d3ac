//! A disk in memory that forgets what was not synced, fills up and fails, as told.
//!
//! Goal        whatever a real disk may do to the store when the power goes, this one does, and the same again for a seed
//! Relies on   nothing: no clock unless [`SimulatedDisk::set_latency`] is used, no randomness but its seed
//!
//! Rules
//!   R1 sync      what was synced survives [`SimulatedDisk::lose_power`]
//!   R2 chance    of writes that were not synced nothing survives, all of them, or any of their sectors; of changed
//!                names the first so many
//!   R3 boot      handles from before a loss of power fail every call after it: who held them is gone
//! Not here    bit rot and misdirected writes; tests make them with [`SimulatedDisk::overwrite`]

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Disk, DiskFile, DiskJob};

/// Un-synced writes survive a loss of power, or not, in pieces of this size.
const SECTOR_BYTES: usize = 512;

/// A machine's disk, with everything that can be done to it from outside. Cheap to clone; clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    random: u64,
    boot: u64,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    capacity: usize,
    latency_max: Duration,
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

enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
}

impl SimulatedDisk {
    /// An empty disk; what survives a loss of power follows the seed.
    pub fn new(seed: u64) -> SimulatedDisk {
        let state = State {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            boot: 0,
            next_inode: 0,
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            locks: BTreeSet::new(),
            capacity: usize::MAX,
            latency_max: Duration::ZERO,
            syncs: 0,
            sync_fails: false,
            write_is_full: false,
            writes_before_failure: None,
        };
        SimulatedDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a file that is read or written exists, so nothing panics while holding it")
    }

    /// The disk as a process of this boot sees it. The handle fails every call after the next loss of power.
    pub fn boot(&self) -> Arc<dyn Disk> {
        Arc::new(Booted { disk: self.clone(), boot: self.state().boot })
    }

    /// Loses the power: what was not synced survives in part, and every handle so far is dead.
    pub fn lose_power(&self) {
        self.state().lose_power();
    }

    /// Work on the disk takes up to this long before and after its effect. Zero, the default, needs no tokio timer.
    pub fn set_latency(&self, most: Duration) {
        self.state().latency_max = most;
    }

    /// Bytes that all files together may take.
    pub fn set_capacity(&self, bytes: usize) {
        self.state().capacity = bytes;
    }

    /// Bytes that all files together take.
    pub fn used(&self) -> usize {
        self.state().used()
    }

    /// Every sync from now on fails, or succeeds again.
    pub fn set_sync_fails(&self, fails: bool) {
        self.state().sync_fails = fails;
    }

    /// Every write from now on finds the disk full, even in space that a file has already; or no longer.
    pub fn set_write_is_full(&self, is_full: bool) {
        self.state().write_is_full = is_full;
    }

    /// Whether every write finds the disk full.
    pub fn is_write_full(&self) -> bool {
        self.state().write_is_full
    }

    /// The write after so many fails with an input/output error, and so do all later ones.
    pub fn fail_writes_after(&self, writes: u64) {
        self.state().writes_before_failure = Some(writes);
    }

    /// How many times something was synced, or was tried to be.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// All files, by path.
    pub fn names(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// The whole content of a file; `None` when there is none.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).map(|inode| state.inodes[inode].current.clone())
    }

    /// Changes a file behind the store's back. A file that is not there is left so.
    pub fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let Some(&inode) = state.names.get(path) else { return };
        state.inodes.insert(inode, Inode { current: bytes.clone(), durable: bytes, changes: Vec::new() });
    }

    /// A disk of its own with the same content, all of it durable.
    pub fn copy(&self) -> SimulatedDisk {
        let copy = SimulatedDisk::new(1);
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

    fn latency(&mut self) -> Duration {
        let most_us = self.latency_max.as_micros() as u64;
        Duration::from_micros(if most_us == 0 { 0 } else { self.random(most_us + 1) })
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an inode stays as long as a name or a handle of this boot may lead to it")
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

    /// One more sync; an error when syncs fail now.
    fn count_sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.sync_fails { Err(io::Error::other("the disk does not answer")) } else { Ok(()) }
    }

    fn lose_power(&mut self) {
        self.boot += 1;
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
            let changes = std::mem::take(&mut self.inode(number).changes);
            // Nothing, everything, or any sectors of it.
            let mode = self.random(3);
            for change in changes {
                self.survive(number, change, mode);
            }
            let inode = self.inode(number);
            inode.current = inode.durable.clone();
        }
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|number, _| named.contains(number));
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
                    self.inode(number).durable.resize(len, 0);
                }
            }
            Change::Write { offset, bytes } => {
                let mut at = 0;
                while at < bytes.len() {
                    let sector_end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
                    let end = sector_end.min(bytes.len());
                    if lucky(self) {
                        write(&mut self.inode(number).durable, offset + at, &bytes[at..end]);
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

/// The disk, from a boot to the next loss of power.
#[derive(Clone)]
struct Booted {
    disk: SimulatedDisk,
    boot: u64,
}

impl Booted {
    /// R3.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.boot != self.boot {
            return Err(io::Error::other(format!(
                "expected boot {}, found {}: the power was lost",
                self.boot, state.boot
            )));
        }
        Ok(state)
    }

    async fn take_time(&self) {
        let latency = self.disk.state().latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }
}

struct Lock {
    disk: Booted,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The locks of an earlier boot went with it.
        if let Ok(mut state) = self.disk.state() {
            state.locks.remove(&self.path);
        }
    }
}

impl Disk for Booted {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        self.state().map(drop)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = *self.state()?.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.state()?.create(path);
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let inode = state.remove_name(from)?;
        state.set_name(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state()?.remove_name(path).map(drop)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state()?;
        let inside = state.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| name.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        state.count_sync()?;
        state.name_changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state()?;
        Ok((state.capacity.saturating_sub(state.used())) as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        if !self.state()?.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { disk: self.clone(), path: path.to_owned() }))
    }

    fn run(&self, job: DiskJob) -> BoxFuture<'static, ()> {
        let disk = self.clone();
        Box::pin(async move {
            disk.take_time().await;
            job();
            disk.take_time().await;
        })
    }
}

struct SimulatedFile {
    disk: Booted,
    inode: u64,
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state()?.inode(self.inode).current.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state()?;
        let inode = state.inode(self.inode);
        inode.current.resize(len as usize, 0);
        inode.changes.push(Change::SetLen(len as usize));
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state()?;
        let content = &state.inode(self.inode).current;
        let offset = offset as usize;
        let found = content.get(offset..offset + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state()?;
        if let Some(left) = state.writes_before_failure.as_mut() {
            if *left == 0 {
                return Err(io::Error::other("the disk does not take it"));
            }
            *left -= 1;
        }
        let offset = offset as usize;
        let growth = (offset + bytes.len()).saturating_sub(state.inode(self.inode).current.len());
        let space = state.capacity.saturating_sub(state.used());
        // A full disk takes the beginning of a write.
        let is_full = state.write_is_full || growth > space;
        let taken = if is_full { (bytes.len() - growth + space.min(growth)) / 2 } else { bytes.len() };
        let inode = state.inode(self.inode);
        write(&mut inode.current, offset, &bytes[..taken]);
        inode.changes.push(Change::Write { offset, bytes: bytes[..taken].to_vec() });
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state()?;
        state.count_sync()?;
        let inode = state.inode(self.inode);
        for change in std::mem::take(&mut inode.changes) {
            match change {
                Change::Write { offset, bytes } => write(&mut inode.durable, offset, &bytes),
                Change::SetLen(len) => inode.durable.resize(len, 0),
            }
        }
        Ok(())
    }
}
