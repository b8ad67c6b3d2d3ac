//! Leases: which pod has which address, one small file per address.
//!
//! Guarantees  a crash at any moment loses no lease and gives no address twice; an address that was given back is the
//!             last to be given out again, so that late packets and caches meet nobody new for as long as possible
//! Relies on   one process at a time using the directory

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;

/// What a lease file says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Lease {
    /// Who has the address; nobody after it was given back.
    id: Option<String>,
    /// The pod's namespace and cable were completely made.
    ready: bool,
    /// Counts up with every return, so that the order of returns survives a restart.
    returned: u64,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Every address is in use.
    #[error("all {} pod addresses of {cidr} are in use: delete pods, or give the node a larger pod network", cidr.size().saturating_sub(3))]
    Full {
        /// The network.
        cidr: Cidr,
    },
    /// A lease file could not be written or read.
    #[error("could not {doing} lease {}", path.display())]
    File {
        /// Read, write, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// The addresses of one machine's pod network.
#[derive(Debug)]
pub(crate) struct Leases {
    directory: PathBuf,
    cidr: Cidr,
    by_address: BTreeMap<Ipv4Addr, Lease>,
    by_id: BTreeMap<String, Ipv4Addr>,
    returns: u64,
}

impl Leases {
    /// Reads the leases in `directory`, which is made when it is missing.
    pub(crate) fn open(directory: &Path, cidr: Cidr) -> Result<Leases, LeaseError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| LeaseError::File { doing, path, source }
        };
        std::fs::create_dir_all(directory).map_err(failed("make the directory of", directory))?;
        let mut leases = Leases {
            directory: directory.to_owned(),
            cidr,
            by_address: BTreeMap::new(),
            by_id: BTreeMap::new(),
            returns: 0,
        };
        let entries = std::fs::read_dir(directory).map_err(failed("list", directory))?;
        for entry in entries {
            let path = entry.map_err(failed("list", directory))?.path();
            match read(&path) {
                Some((address, lease)) if cidr.contains(address) => leases.remember(address, lease),
                // A half-written file of a crash, or another pod network's: nobody holds it.
                _ => std::fs::remove_file(&path).map_err(failed("remove", &path))?,
            }
        }
        Ok(leases)
    }

    /// The address of this pod, if it has one, and whether its plumbing was completed.
    pub(crate) fn get(&self, id: &str) -> Option<(Ipv4Addr, bool)> {
        let address = *self.by_id.get(id)?;
        Some((address, self.by_address.get(&address)?.ready))
    }

    /// Every pod that has an address with completed plumbing.
    pub(crate) fn ready(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        let held =
            self.by_id.iter().filter(|(_, address)| self.by_address.get(address).is_some_and(|lease| lease.ready));
        held.map(|(id, address)| (id.as_str(), *address))
    }

    /// Every pod that has an address.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.by_id.iter().map(|(id, address)| (id.as_str(), *address))
    }

    /// An address for this pod: the one it has, else a fresh one, else the one given back longest ago.
    pub(crate) fn take(&mut self, id: &str) -> Result<Ipv4Addr, LeaseError> {
        if let Some(address) = self.by_id.get(id) {
            return Ok(*address);
        }
        let address = self.fresh().or_else(|| self.longest_returned()).ok_or(LeaseError::Full { cidr: self.cidr })?;
        let lease = Lease { id: Some(id.to_owned()), ready: false, returned: 0 };
        self.save(address, &lease)?;
        self.remember(address, lease);
        Ok(address)
    }

    /// Notes that the pod's plumbing is complete.
    pub(crate) fn mark_ready(&mut self, id: &str) -> Result<(), LeaseError> {
        let Some(address) = self.by_id.get(id).copied() else { return Ok(()) };
        let lease = Lease { id: Some(id.to_owned()), ready: true, returned: 0 };
        self.save(address, &lease)?;
        self.remember(address, lease);
        Ok(())
    }

    /// Writes the leases whose files somebody else removed; whether there were any.
    pub(crate) fn mend(&self) -> Result<bool, LeaseError> {
        let mut mended = false;
        for (address, lease) in &self.by_address {
            if !self.directory.join(address.to_string()).exists() {
                let failed =
                    |source| LeaseError::File { doing: "make the directory of", path: self.directory.clone(), source };
                std::fs::create_dir_all(&self.directory).map_err(failed)?;
                self.save(*address, lease)?;
                mended = true;
            }
        }
        Ok(mended)
    }

    /// Takes the pod's address back.
    pub(crate) fn give_back(&mut self, id: &str) -> Result<(), LeaseError> {
        let Some(address) = self.by_id.get(id).copied() else { return Ok(()) };
        let lease = Lease { id: None, ready: false, returned: self.returns + 1 };
        self.save(address, &lease)?;
        self.by_id.remove(id);
        self.remember(address, lease);
        Ok(())
    }

    /// The lowest address that was never given out: neither the network's own, nor the gateway's, nor the last.
    fn fresh(&self) -> Option<Ipv4Addr> {
        let last = u32::try_from(self.cidr.size().saturating_sub(2)).unwrap_or(u32::MAX);
        (2..=last).filter_map(|index| self.cidr.nth(index)).find(|address| !self.by_address.contains_key(address))
    }

    fn longest_returned(&self) -> Option<Ipv4Addr> {
        let returned = self.by_address.iter().filter(|(_, lease)| lease.id.is_none());
        returned.min_by_key(|(_, lease)| lease.returned).map(|(address, _)| *address)
    }

    fn remember(&mut self, address: Ipv4Addr, lease: Lease) {
        self.returns = self.returns.max(lease.returned);
        if let Some(id) = &lease.id {
            self.by_id.insert(id.clone(), address);
        }
        self.by_address.insert(address, lease);
    }

    fn save(&self, address: Ipv4Addr, lease: &Lease) -> Result<(), LeaseError> {
        let path = self.directory.join(address.to_string());
        let fresh = self.directory.join(format!("{address}.new"));
        let text = serde_json::to_vec(lease).expect("a lease has only texts and numbers");
        std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path)).map_err(|source| LeaseError::File {
            doing: "write",
            path,
            source,
        })
    }
}

fn read(path: &Path) -> Option<(Ipv4Addr, Lease)> {
    let address = path.file_name()?.to_str()?.parse().ok()?;
    let lease = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some((address, lease))
}
