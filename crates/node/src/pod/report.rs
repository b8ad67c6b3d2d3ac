//! What the pod's task tells: the status to the API, the record to the disk, the rest to who looks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_api::{Subresource, kinds};
use windlass_client::{ClientError, DeleteOptions, Patch};

use super::work::{Outcome, Slot};
use super::{PodTask, Shown};
use crate::plan::{Ground, Stage};
use crate::record::{Known, KnownContainer, Record};
use crate::services;
use crate::status::{self, StatusView};
use crate::steps::{PodContext, device};

/// Most pods run by then, so that their first status is `Running` and not a word about how they come up.
const FIRST_STATUS_PATIENCE: Duration = Duration::from_millis(250);

/// How soon it is looked again whether a static pod has its likeness.
const MIRROR_PATIENCE: Duration = Duration::from_secs(1);

impl PodTask {
    /// The uid under which the API knows the pod.
    fn api_uid(&self) -> &str {
        let mirror = self.likeness.as_ref().and_then(|likeness| likeness.uid.as_deref());
        mirror.unwrap_or(&self.context.uid)
    }

    /// Begins to write what differs. Returns when to look again.
    pub(super) fn report(&mut self) -> Option<Instant> {
        self.show();
        self.save();
        if self.is_gone || self.is_deleted || !self.is_heard || self.work.is_busy(&Slot::Status) {
            return None;
        }
        let now = Instant::now();
        if !self.status_retry.is_due(now) {
            return self.status_retry.retry_at();
        }
        if self.mend_mirror() {
            return Some(now + MIRROR_PATIENCE);
        }
        let desired = self.status();
        let patch = status::patch(&desired, &self.current, self.api_uid())?;
        // Once it is said to be over, the devices that it claims may be another's.
        let is_over = desired["phase"] == "Succeeded" || desired["phase"] == "Failed";
        if is_over && self.ground != Ground::Left && device::has_claims(self.context.spec()) {
            return None;
        }
        let troubled = self.tracks.values().any(|track| track.trouble.is_some());
        let patience = self.seen_at + FIRST_STATUS_PATIENCE;
        if desired["phase"] == "Pending" && !troubled && self.ending.is_none() && now < patience {
            return Some(patience);
        }
        let context = self.context.clone();
        self.work.begin(Slot::Status, async move {
            let client = &context.shared.client;
            let patch = Patch::Strategic(patch);
            let status = Some(Subresource::Status);
            let written = client.patch(&kinds::POD, context.namespace(), context.name(), &patch, status);
            Outcome::Written(context.timed(("status", ""), written).await.map(Box::new))
        });
        None
    }

    fn status(&self) -> serde_json::Value {
        let node = self.context.shared.node_facts();
        status::status(&StatusView {
            pod: &self.context.pod,
            visitors: &self.context.visitors,
            current: &self.current,
            tracks: &self.tracks,
            ground: &self.ground,
            ending: self.ending.is_some(),
            resizing: &self.resizing,
            failure: self.failure.as_ref(),
            host_ips: &node.addresses,
            now: self.context.shared.world.now(),
            instant: Instant::now(),
        })
    }

    /// Whether the API knows all there is to know.
    pub(super) fn is_reported(&self) -> bool {
        status::patch(&self.status(), &self.current, self.api_uid()).is_none()
    }

    fn known(&self) -> Known {
        let addresses = match &self.ground {
            Ground::Up(addresses) => addresses.clone(),
            _ => self.saved.as_ref().map(|saved| saved.addresses.clone()).unwrap_or_default(),
        };
        let containers = self.tracks.iter().map(|(name, track)| (name.clone(), KnownContainer::of(track))).collect();
        let (shared, uid) = (&self.context.shared, &self.context.uid);
        let (own_cpus, own_devices) = (shared.cpus.own_of(uid), shared.devices.own_of(uid));
        Known { addresses, containers, left: self.ground == Ground::Left, own_cpus, own_devices }
    }

    /// What nobody else may have is kept before it is used: the next agent must not give it away.
    pub(super) async fn keep_now(&mut self) {
        let known = self.known();
        let record = Record::encode(&self.json, &known);
        match self.context.shared.machine.save(&self.context.uid, record).await {
            Ok(()) => self.saved = Some(known),
            Err(error) => tracing::warn!(pod = self.header.key(), %error, "what a pod was given was not kept yet"),
        }
    }

    fn save(&mut self) {
        let is_over = self.is_removed || self.work.is_busy(&Slot::Remove);
        if is_over || self.work.is_busy(&Slot::Record) {
            return;
        }
        let known = self.known();
        if self.saved.as_ref() == Some(&known) {
            return;
        }
        let record = Record::encode(&self.json, &known);
        self.saved = Some(known);
        let context = self.context.clone();
        self.work.begin(Slot::Record, async move {
            Outcome::Saved(context.shared.machine.save(&context.uid, record).await)
        });
    }

    fn show(&self) {
        let containers = self.tracks.iter().map(|(name, track)| {
            let begun = track.attempt > 0 || track.stage != Stage::Absent;
            (name.clone(), begun.then_some((track.attempt, track.is_running())))
        });
        let addresses = match &self.ground {
            Ground::Up(addresses) => addresses.clone(),
            _ => Vec::new(),
        };
        self.context.shared.locals.set(&self.context.uid, &self.context.pod, &addresses);
        let ports = addresses.first().and_then(|address| match address {
            IpAddr::V4(address) => Some(services::host_ports(self.context.spec(), *address)),
            IpAddr::V6(_) => None,
        });
        self.context.shared.set_host_ports(&self.context.uid, ports.unwrap_or_default());
        let shown = Shown {
            json: self.json.clone(),
            addresses,
            host_network: self.context.host_network(),
            containers: containers.collect(),
        };
        self.shown.send_replace(Arc::new(shown));
    }
}

/// Deletes the object of a pod that is over. One that is gone already is as good.
pub(super) async fn delete(context: &PodContext) -> Result<(), ClientError> {
    let options = DeleteOptions::of_uid(&*context.uid).at_once();
    match context.shared.client.delete(&kinds::POD, context.namespace(), context.name(), &options).await {
        Ok(_) => Ok(()),
        // Gone, or another pod has its name by now.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}
