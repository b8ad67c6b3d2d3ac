//! Volumes that CSI drivers of this machine lend to pods: staged once, published to each pod, given back in reverse.
//!
//! ```text
//! ROOT/plugins_registry/NAME.sock                                    drivers that offer themselves
//! ROOT/plugins/kubernetes.io/csi/DRIVER/HASH/globalmount             where a volume is staged, by its handle's hash
//! ROOT/plugins/kubernetes.io/csi/DRIVER/HASH/vol_data.json           … and that it is
//! ROOT/plugins/kubernetes.io/csi/volumeDevices/staging/NAME          where a device is staged
//! ROOT/plugins/kubernetes.io/csi/volumeDevices/publish/NAME/UID      … and a pod's device
//! ROOT/pods/UID/volumes/kubernetes.io~csi/NAME/mount                 a pod's volume
//! ROOT/pods/UID/volumes/kubernetes.io~csi/NAME/vol_data.json         … and what has been borrowed for it
//! ```
//! The paths are kubelet's: drivers run in containers that see ROOT at the same place, and some read them.
//!
//! Rules
//!   C1 written    what is about to be borrowed is on disk before its driver is asked, and until it is given back: an agent
//!                 that comes later gives back what it finds there, with the API or without
//!   C2 once       a volume that is staged is not staged again while this boot lasts, whoever was agent then
//!   C3 last       a volume is unstaged when the last pod has given it back, and before that pod's record goes
//!   C4 in turn    one thing at a time is done to a volume; other volumes do not wait for it
//!   C5 bounded    every call has its end (`calls`); who gave up a call asks again, as the interface lets them
//!   C6 kept       nothing is removed that something is still mounted on: only empty directories are
//! Source: Container Storage Interface, "RPC Interactions"; Kubernetes documentation of CSI volumes.

pub mod calls;
#[cfg(test)]
mod driver;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::group::give_tree;
use super::plugins::Plugins;
use super::{off_the_runtime, off_with};
use crate::grpc::{CallError, code};
use crate::machine::{DriverFacts, LentVolume, MachineError, Plugin, PluginKind, VolumeStats};
use crate::turn::{self, Turn, Turns};
use calls::Asked;
use record::{Loan, Places, Stage};
pub use record::{make_dir, read as read_record};

/// What has been borrowed, and from whom.
pub struct Lending {
    root: PathBuf,
    boot: String,
    plugins: Arc<Plugins>,
    /// Whose turn it is, by driver and handle.
    turns: Turns<(String, String)>,
}

/// Whom a volume is for.
#[derive(Clone, Copy, Debug)]
pub struct Borrower<'a> {
    /// The pod's uid.
    pub pod: &'a str,
    /// The volume's name in the pod.
    pub volume: &'a str,
    /// The group that may use it.
    pub group: Option<u32>,
    /// A volume whose top is the group's already is not walked through.
    pub trust_top: bool,
}

fn failed(doing: &str, volume: &str, why: impl std::fmt::Display) -> MachineError {
    MachineError::Failed { operation: format!("{doing} volume {volume}"), why: why.to_string() }
}

impl Lending {
    /// What is borrowed beneath this directory; `boot` is the machine's present boot.
    pub fn new(root: PathBuf, boot: String, plugins: Arc<Plugins>) -> Lending {
        Lending { root, boot, plugins, turns: Turns::default() }
    }

    fn driver(&self, name: &str) -> Result<Arc<Plugin>, MachineError> {
        let why = format!("driver name {name} not found in the list of registered CSI drivers");
        let found = self.plugins.find(PluginKind::Csi, name);
        found.ok_or(MachineError::Failed { operation: "reach the driver".to_owned(), why })
    }

    /// C4.
    async fn turn(&self, driver: &str, handle: &str) -> Turn {
        turn::take(&self.turns, &(driver.to_owned(), handle.to_owned())).await
    }

    /// Borrows a volume for a pod, and says where it is.
    pub async fn lend(&self, to: Borrower<'_>, lent: &LentVolume) -> Result<PathBuf, MachineError> {
        let turn = self.turn(&lent.driver, &lent.handle).await;
        let places = Places::of(&self.root, to.pod, lent)?;
        let known: Option<Loan> = off_with(&places.loan, |path| record::read(&path)).await?;
        let is_there = known.is_some_and(|loan| loan.done && loan.boot == self.boot);
        if is_there && !lent.is_republished {
            return Ok(places.target);
        }
        // What is published already needs nobody.
        let plugin = self.driver(&lent.driver)?;
        let facts = plugin.driver.as_ref().expect("a CSI plugin is there only with its facts");
        let mut loan = Loan {
            driver_name: lent.driver.clone(),
            volume_handle: lent.handle.clone(),
            spec_vol_id: lent.name.clone(),
            volume_name: to.volume.to_owned(),
            is_block: lent.is_block,
            staging: (facts.stages && !lent.is_inline).then(|| places.staging.clone()),
            target: places.target.clone(),
            done: is_there,
            boot: self.boot.clone(),
        };
        let asked = Asked { lent, group: to.group, facts };
        if !is_there {
            // C1.
            keep(&turn, &places.loan, &loan).await?;
            if loan.staging.is_some() {
                let staging = self.stage(&turn, &plugin, &asked, &places).await?;
                if loan.staging.as_ref() != Some(&staging) {
                    loan.staging = Some(staging);
                    keep(&turn, &places.loan, &loan).await?;
                }
            }
            off_with(&places.target, |target| record::make_parent(&target)).await?;
        }
        let staging = loan.staging.as_deref().map(text).transpose()?.unwrap_or_default();
        let published = asked.publish(&plugin.endpoint, staging, text(&places.target)?).await;
        published.map_err(|error| failed("publish", &lent.name, error))?;
        if is_there {
            return Ok(places.target);
        }
        let give = to.group.filter(|_| lent.is_groups && !facts.takes_group && !lent.is_block && !lent.read_only);
        if let Some(group) = give {
            let trust_top = to.trust_top;
            off_with(&places.target, move |target| give_tree(&target, group, trust_top)).await?;
        }
        loan.done = true;
        keep(&turn, &places.loan, &loan).await?;
        Ok(places.target)
    }

    /// C2. Says where the volume is staged: the first to stage it has chosen.
    async fn stage(
        &self,
        turn: &Turn,
        plugin: &Plugin,
        asked: &Asked<'_>,
        places: &Places,
    ) -> Result<PathBuf, MachineError> {
        let lent = asked.lent;
        let known: Option<Stage> = off_with(&places.stage, |path| record::read(&path)).await?;
        let mut stage = match known {
            Some(stage) if stage.done && stage.boot == self.boot => return Ok(stage.staging),
            Some(stage) => Stage { done: false, boot: self.boot.clone(), ..stage },
            None => Stage {
                driver_name: lent.driver.clone(),
                volume_handle: lent.handle.clone(),
                staging: places.staging.clone(),
                done: false,
                boot: self.boot.clone(),
            },
        };
        keep(turn, &places.stage, &stage).await?;
        off_with(&stage.staging, |staging| record::make_dir(&staging)).await?;
        let staged = asked.stage(&plugin.endpoint, text(&stage.staging)?).await;
        staged.map_err(|error| failed("stage", &lent.name, error))?;
        stage.done = true;
        keep(turn, &places.stage, &stage).await?;
        Ok(stage.staging)
    }

    /// Gives back everything that has been borrowed for a pod. What cannot be given back keeps nothing else.
    pub async fn give_back(&self, pod: &str) -> Result<(), MachineError> {
        let directory = record::of_pod(&self.root, pod)?;
        let loans = off_with(&directory, |directory| record::loans(&directory)).await?;
        if loans.is_empty() {
            return Ok(());
        }
        let given = loans.into_iter().map(|(path, loan)| self.give_one_back(path, loan));
        for given in futures::future::join_all(given).await {
            given?;
        }
        Ok(())
    }

    async fn give_one_back(&self, path: PathBuf, loan: Loan) -> Result<(), MachineError> {
        let turn = self.turn(&loan.driver_name, &loan.volume_handle).await;
        let loan = Loan { done: false, ..loan };
        let (driver, handle, name) = (&loan.driver_name, &loan.volume_handle, &loan.spec_vol_id);
        let socket = match self.driver(driver) {
            Ok(plugin) => Some(plugin.endpoint.clone()),
            // Nothing of an earlier boot is mounted, and there may be no such driver any more.
            Err(_) if loan.boot != self.boot => None,
            Err(error) => return Err(error),
        };
        if let Some(socket) = &socket {
            // C1: from here on nobody knows whether it still is published.
            keep(&turn, &path, &loan).await?;
            let given = calls::unpublish(socket, handle, text(&loan.target)?).await;
            is_gone(given).map_err(|error| failed("unpublish", name, error))?;
        }
        let (root, target) = (self.root.clone(), loan.target.clone());
        off_the_runtime(move || record::remove_empty(&root, &target)).await?;
        if let Some(staging) = &loan.staging
            && self.is_last(&path, &loan).await?
        {
            self.unstage(&turn, socket.as_deref(), &loan, staging).await?;
        }
        let root = self.root.clone();
        off_the_runtime(move || record::forget(&root, &path)).await
    }

    /// C3.
    async fn is_last(&self, own: &Path, loan: &Loan) -> Result<bool, MachineError> {
        let (own, loan) = (own.to_owned(), loan.clone());
        off_with(&self.root, move |root| {
            let all = record::all_loans(&root)?;
            let same =
                |other: &Loan| other.driver_name == loan.driver_name && other.volume_handle == loan.volume_handle;
            Ok(!all.iter().any(|(path, other)| *path != own && other.staging.is_some() && same(other)))
        })
        .await
    }

    async fn unstage(
        &self,
        turn: &Turn,
        socket: Option<&Path>,
        loan: &Loan,
        staging: &Path,
    ) -> Result<(), MachineError> {
        let path = record::stage_of(&self.root, &loan.driver_name, &loan.volume_handle)?;
        if let Some(socket) = socket {
            let known: Option<Stage> = off_with(&path, |path| record::read(&path)).await?;
            if let Some(stage) = known {
                keep(turn, &path, &Stage { done: false, ..stage }).await?;
            }
            let given = calls::unstage(socket, &loan.volume_handle, text(staging)?).await;
            is_gone(given).map_err(|error| failed("unstage", &loan.spec_vol_id, error))?;
        }
        let (root, staging) = (self.root.clone(), staging.to_owned());
        off_the_runtime(move || {
            record::remove_empty(&root, &staging)?;
            record::forget(&root, &path)
        })
        .await
    }

    /// Lets what is on a volume grow with it.
    pub async fn expand(&self, pod: &str, lent: &LentVolume, bytes: u64) -> Result<(), MachineError> {
        let plugin = self.driver(&lent.driver)?;
        let facts = plugin.driver.as_ref().expect("a CSI plugin is there only with its facts");
        if !facts.expands {
            return Ok(());
        }
        let _turn = self.turn(&lent.driver, &lent.handle).await;
        let places = Places::of(&self.root, pod, lent)?;
        let known: Option<Loan> = off_with(&places.loan, |path| record::read(&path)).await?;
        let Some(loan) = known.filter(|loan| loan.done) else {
            return Err(failed("expand", &lent.name, "it is not published to the pod"));
        };
        let staging = loan.staging.as_deref().map(text).transpose()?.unwrap_or_default();
        let asked = Asked { lent, group: None, facts };
        let grown = asked.expand(&plugin.endpoint, staging, text(&loan.target)?, bytes).await;
        grown.map_err(|error| failed("expand", &lent.name, error))
    }

    /// How full the volumes of a pod are and whether they are well, by their names in the pod; of those whose drivers say.
    pub async fn stats(&self, pod: &str) -> Result<BTreeMap<String, VolumeStats>, MachineError> {
        let directory = record::of_pod(&self.root, pod)?;
        let loans = off_with(&directory, |directory| record::loans(&directory)).await?;
        let mut out = BTreeMap::new();
        for (_, loan) in loans.into_iter().filter(|(_, loan)| loan.done) {
            let Ok(plugin) = self.driver(&loan.driver_name) else { continue };
            if !plugin.driver.as_ref().is_some_and(|facts: &DriverFacts| facts.counts) {
                continue;
            }
            let staging = loan.staging.as_deref().map(text).transpose()?.unwrap_or_default();
            match calls::stats(&plugin.endpoint, &loan.volume_handle, text(&loan.target)?, staging).await {
                Ok(stats) => drop(out.insert(loan.volume_name, stats)),
                Err(error) => tracing::warn!(volume = loan.spec_vol_id, %error, "how a volume is was not said"),
            }
        }
        Ok(out)
    }

    /// All that is borrowed, or about to be: for which pod, of which driver, its handle.
    pub async fn lent(&self) -> Result<Vec<(String, String, String)>, MachineError> {
        off_with(&self.root, |root| {
            let mut out = Vec::new();
            for pod in super::names(&root.join("pods"))? {
                // One pod whose records cannot be read hides no other's.
                match record::of_pod(&root, &pod).and_then(|directory| record::loans(&directory)) {
                    Ok(loans) => {
                        let named = |loan: record::Loan| (pod.clone(), loan.driver_name, loan.volume_handle);
                        out.extend(loans.into_iter().map(|(_, loan)| named(loan)));
                    }
                    Err(error) => tracing::error!(pod, %error, "what drivers have lent to a pod cannot be read"),
                }
            }
            Ok(out)
        })
        .await
    }

    /// The pods for which something is borrowed.
    pub async fn pods(&self) -> Result<Vec<String>, MachineError> {
        let directory = self.root.join("pods");
        off_the_runtime(move || super::names(&directory)).await
    }
}

async fn keep<T: serde::Serialize>(turn: &Turn, path: &Path, what: &T) -> Result<(), MachineError> {
    let turn = Arc::clone(turn);
    let bytes = serde_json::to_vec(what).expect("a record has string keys only");
    off_with(path, move |path| {
        let _turn = turn;
        record::write(&path, &bytes)
    })
    .await
}

/// A driver that does not know the volume has nothing of it left.
fn is_gone(given: Result<(), CallError>) -> Result<(), CallError> {
    match given {
        Err(error) if error.code() == Some(code::NOT_FOUND) => Ok(()),
        other => other,
    }
}

fn text(path: &Path) -> Result<&str, MachineError> {
    path.to_str().ok_or_else(|| failed("name the place of", "…", "the node's directory is not UTF-8"))
}
