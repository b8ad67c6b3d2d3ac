//! What is known on disk of prepared claims.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use crate::kernel::csi::read_record as read;
use crate::kernel::layout::file_name;
use crate::kernel::names;
use crate::machine::{ClaimToPrepare, MachineError, PreparedDevice};

/// A claim of which something is prepared, or about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The pods of this machine that use it, by uid.
    pub pods: BTreeSet<String>,
    /// By driver what it has prepared; `None` while nobody knows.
    pub drivers: BTreeMap<String, Option<Vec<PreparedDevice>>>,
    /// The machine's boot in which it was prepared.
    pub boot: String,
}

impl Record {
    pub fn new(claim: &ClaimToPrepare) -> Record {
        Record {
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            pods: BTreeSet::new(),
            drivers: BTreeMap::new(),
            boot: String::new(),
        }
    }

    /// A pod is to use it. What an earlier boot had prepared is not there any more.
    pub fn begin(&mut self, pod: &str, claim: &ClaimToPrepare, boot: &str) {
        self.pods.insert(pod.to_owned());
        if self.boot != boot {
            self.drivers.values_mut().for_each(|devices| *devices = None);
            boot.clone_into(&mut self.boot);
        }
        for driver in &claim.drivers {
            self.drivers.entry(driver.clone()).or_default();
        }
    }

    /// The drivers that are still to be asked.
    pub fn open(&self) -> impl Iterator<Item = &str> {
        self.drivers.iter().filter(|(_, devices)| devices.is_none()).map(|(driver, _)| driver.as_str())
    }

    /// All that is prepared, with whose it is.
    pub fn devices(self) -> impl Iterator<Item = PreparedDevice> {
        let claim = self.name;
        self.drivers.into_iter().flat_map(move |(driver, devices)| {
            let claim = claim.clone();
            let named = move |device| PreparedDevice { claim: claim.clone(), driver: driver.clone(), ..device };
            devices.into_iter().flatten().map(named)
        })
    }
}

/// Where the record of a claim is.
pub fn path(directory: &Path, uid: &str) -> Result<PathBuf, MachineError> {
    Ok(directory.join(format!("{}.json", file_name(uid)?)))
}

/// All records. One that cannot be read hides no other.
pub fn all(directory: &Path) -> Result<Vec<Record>, MachineError> {
    let mut out = Vec::new();
    for name in names(directory)?.into_iter().filter(|name| name.ends_with(".json")) {
        match read::<Record>(&directory.join(&name)) {
            Ok(record) => out.extend(record),
            Err(error) => tracing::error!(name, %error, "what is prepared of a claim cannot be read"),
        }
    }
    Ok(out)
}
