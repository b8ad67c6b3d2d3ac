//! Which containers have which devices.
//!
//! Rules
//!   V1 whole    a container that asks for so many of a resource has as many healthy devices for itself, as long as its pod is
//!               here; a pod for which there are too few is refused
//!   V2 turns    the devices of an init container that ends go on to the containers after it
//!   V3 wishes   which devices go together is as their plugin would have it, as far as it names some that are free
//!   V4 once     the plugin is asked once what a container needs; that is kept, and used at each of its starts
//!   V5 known    resources that were here before the agent's restart are, with nothing in them until their plugin is back
//! Not here       what plugins say (kernel/device) · devices by claims (resource.k8s.io)
//! Source: Kubernetes documentation, "Device Plugins".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use windlass_api::quantity::Quantity;
use windlass_api::types::core;

use crate::admission::Refusal;
use crate::machine::{Allocated, DeviceTable, DeviceWish, ListedDevice, Machine};
use crate::steps::container::containers_of;

/// The key under which the machine keeps the names of resources; no uid looks like it.
pub const KEY: &str = "devices";

/// What a container has of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The resource.
    pub resource: String,
    /// The devices, by their names.
    pub devices: Vec<String>,
    /// What the container needs to use them.
    pub allocated: Allocated,
}

/// What one pod's containers have, by their names.
pub type OwnDevices = BTreeMap<String, Vec<Grant>>;

/// All devices of this node that somebody has.
#[derive(Debug, Default)]
pub struct Devices {
    given: Mutex<BTreeMap<Arc<str>, OwnDevices>>,
    /// V5.
    known: Mutex<BTreeSet<String>>,
    /// One pod at a time chooses.
    turn: tokio::sync::Mutex<()>,
}

impl Devices {
    /// V5: what was kept.
    pub fn recall(&self, kept: &[u8]) {
        match serde_json::from_slice::<BTreeSet<String>>(kept) {
            Ok(names) => self.known.lock().expect("nothing panics while holding it").extend(names),
            Err(error) => tracing::error!(%error, "the names of devices' resources that were kept cannot be read"),
        }
    }

    /// Notes resources that are new; what is to be kept then.
    pub fn learn(&self, table: &DeviceTable) -> Option<Bytes> {
        let mut known = self.known.lock().expect("nothing panics while holding it");
        let before = known.len();
        known.extend(table.0.keys().cloned());
        let is_new = known.len() > before;
        is_new.then(|| serde_json::to_vec(&*known).expect("a set of texts is JSON").into())
    }

    /// How many there are of each resource, and how many of them are healthy.
    pub fn counts(&self, table: &DeviceTable) -> BTreeMap<String, (usize, usize)> {
        let known = self.known.lock().expect("nothing panics while holding it");
        let mut counts: BTreeMap<String, (usize, usize)> = known.iter().map(|name| (name.clone(), (0, 0))).collect();
        for (resource, devices) in &table.0 {
            let healthy = devices.iter().filter(|device| device.is_healthy).count();
            counts.insert(resource.clone(), (devices.len(), healthy));
        }
        counts
    }

    /// A pod has these already.
    pub fn note(&self, pod: &Arc<str>, own: &OwnDevices) {
        if !own.is_empty() {
            self.given.lock().expect("nothing panics while holding it").insert(Arc::clone(pod), own.clone());
        }
    }

    /// The pod is over.
    pub fn give_back(&self, pod: &str) {
        self.given.lock().expect("nothing panics while holding it").remove(pod);
    }

    /// What a pod's containers have.
    pub fn own_of(&self, pod: &str) -> OwnDevices {
        self.given.lock().expect("nothing panics while holding it").get(pod).cloned().unwrap_or_default()
    }

    /// Gives a pod's containers what they ask for; the same again to a pod that has something.
    pub async fn take(
        &self,
        machine: &dyn Machine,
        pod: &Arc<str>,
        spec: &core::PodSpec,
    ) -> Result<OwnDevices, Refusal> {
        let table = Arc::clone(&machine.devices().borrow());
        let asks = self.asks(&table, spec);
        if asks.iter().all(|asked| asked.resources.is_empty()) {
            return Ok(OwnDevices::new());
        }
        let _turn = self.turn.lock().await;
        let before = self.own_of(pod);
        if !before.is_empty() {
            return Ok(before);
        }
        let mut choice = Choice { machine, table: &table, taken: self.taken(), handed_on: BTreeMap::new() };
        let mut own = OwnDevices::new();
        for asked in asks {
            for (resource, count) in asked.resources {
                let devices = choice.choose(&resource, count, asked.ends).await.map_err(refused)?;
                let grant = Grant { resource, devices, allocated: Allocated::default() };
                own.entry(asked.container.clone()).or_default().push(grant);
            }
        }
        // V4.
        for grant in own.values_mut().flatten() {
            let allocated = machine.allocate_devices(&grant.resource, &grant.devices).await;
            grant.allocated = allocated.map_err(|error| refused(error.to_string()))?;
        }
        self.note(pod, &own);
        Ok(own)
    }

    /// What containers ask for of resources that have devices, in the order in which they run.
    fn asks(&self, table: &DeviceTable, spec: &core::PodSpec) -> Vec<Asked> {
        let known = self.known.lock().expect("nothing panics while holding it");
        let amount_of = |(name, amount): (&String, &windlass_api::types::Quantity)| {
            let amount = amount.0.parse::<Quantity>().ok().and_then(|amount| usize::try_from(amount.units()).ok());
            let is_ours = table.0.contains_key(name) || known.contains(name);
            amount.filter(|amount| is_ours && *amount > 0).map(|amount| (name.clone(), amount))
        };
        let inits = spec.init_containers.as_ref().map_or(0, Vec::len);
        let containers = containers_of(spec).enumerate().map(|(at, container)| {
            let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
            Asked {
                container: container.name.clone(),
                ends: at < inits && container.restart_policy.as_deref() != Some("Always"),
                resources: limits.into_iter().flatten().filter_map(amount_of).collect(),
            }
        });
        containers.collect()
    }

    fn taken(&self) -> BTreeSet<(String, String)> {
        let given = self.given.lock().expect("nothing panics while holding it");
        let grants = given.values().flat_map(BTreeMap::values).flatten();
        let of = |grant: &Grant| {
            let named = |device: &String| (grant.resource.clone(), device.clone());
            grant.devices.iter().map(named).collect::<Vec<_>>()
        };
        grants.flat_map(of).collect()
    }
}

/// What a container asks for.
struct Asked {
    container: String,
    /// It ends before those after it begin.
    ends: bool,
    /// How many of which.
    resources: Vec<(String, usize)>,
}

/// As kubelet words it.
fn refused(why: String) -> Refusal {
    Refusal {
        reason: "UnexpectedAdmissionError",
        message: format!("Allocate failed due to {why}, which is unexpected"),
    }
}

/// What is chosen from for one pod.
struct Choice<'a> {
    machine: &'a dyn Machine,
    table: &'a DeviceTable,
    /// By resource and name.
    taken: BTreeSet<(String, String)>,
    /// V2, by resource.
    handed_on: BTreeMap<String, Vec<String>>,
}

impl Choice<'_> {
    async fn choose(&mut self, resource: &str, count: usize, ends: bool) -> Result<Vec<String>, String> {
        let available = self.available(resource, count)?;
        let mut chosen = self.kept(resource, &available, count);
        if chosen.len() < count {
            let wish = DeviceWish { available, included: chosen.clone(), count };
            let wished = match self.machine.prefer_devices(resource, &wish).await {
                Ok(wished) => wished,
                Err(error) => {
                    tracing::warn!(resource, %error, "which devices go together is not known");
                    Vec::new()
                }
            };
            fill(&mut chosen, &wished, &wish);
        }
        self.take(resource, &chosen, ends);
        Ok(chosen)
    }

    /// V1: those that can be had; at least as many as are asked for.
    fn available(&self, resource: &str, count: usize) -> Result<Vec<String>, String> {
        let all = self.table.0.get(resource).map(Vec::as_slice).unwrap_or_default();
        let healthy: Vec<&ListedDevice> = all.iter().filter(|device| device.is_healthy).collect();
        if healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        let handed_on = self.handed_on.get(resource);
        let is_handed_on = |id: &String| handed_on.is_some_and(|all| all.contains(id));
        let is_free = |id: &String| is_handed_on(id) || !self.taken.contains(&(resource.to_owned(), id.clone()));
        let ids = healthy.iter().map(|device| &device.id);
        let available: Vec<String> = ids.filter(|id| is_free(id)).cloned().collect();
        match available.len() < count {
            false => Ok(available),
            true => Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {count}, Available: {}",
                available.len()
            )),
        }
    }

    /// V2: what an init container has had.
    fn kept(&self, resource: &str, available: &[String], count: usize) -> Vec<String> {
        let handed_on = self.handed_on.get(resource);
        let is_kept = |id: &&String| handed_on.is_some_and(|all| all.contains(id));
        available.iter().filter(is_kept).take(count).cloned().collect()
    }

    fn take(&mut self, resource: &str, chosen: &[String], ends: bool) {
        self.taken.extend(chosen.iter().map(|id| (resource.to_owned(), id.clone())));
        let handed_on = self.handed_on.entry(resource.to_owned()).or_default();
        handed_on.retain(|id| !chosen.contains(id));
        if ends {
            handed_on.extend(chosen.iter().cloned());
        }
    }
}

/// V3: what is wished and free first, then the others.
fn fill(chosen: &mut Vec<String>, wished: &[String], wish: &DeviceWish) {
    let is_free = |id: &&String| wish.available.contains(id);
    for id in wished.iter().filter(is_free).chain(&wish.available) {
        if chosen.len() < wish.count && !chosen.contains(id) {
            chosen.push(id.clone());
        }
    }
}
