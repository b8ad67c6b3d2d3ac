//! The devices that pods claim: what there is, who has which, and what a pod's claims ask of its node.
//!
//! Rules, in order
//!   D1 there       a pod whose claim is not made yet, does not exist, is going or is not the pod's own waits
//!   D2 has         the node must be where an allocated claim's devices are; a claim that is used by as many as may waits
//!   D3 alone       a pod waits for a claim that is being allocated, for another one or for itself
//!   D4 class       a request whose class does not exist waits
//!   D5 found       on the node every request must get its devices (`search`), of those that `stock` has and nobody else has
//!   D6 assumed     what a pod is being given is nobody else's from the decision on, until our copy shows it
//!   D7 given back  a claim that is going, or that keeps a pod that fits nowhere from some node, is not kept for that pod;
//!                  when it is for nobody else it loses its devices
//!
//! Source: Kubernetes documentation, "Dynamic Resource Allocation"; KEP-4381; the words are those of its events.

mod allocation;
mod search;
mod spec;
mod stock;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use windlass_api::binding::Reach;
use windlass_api::cel::Budget;
use windlass_api::device::{Claim, ClaimName, DeviceId, USERS_MAX};
use windlass_api::kinds;
use windlass_client::{Cache, Cached, Caches, Key, Notice, Subscription};

use crate::pod::Pod;
use crate::term::Labels;
pub(crate) use allocation::Allocation;
use search::Solution;
use spec::{Class, Spec};
use stock::Stock;

/// What the selectors of one pod may cost on all nodes together: a fraction of a second.
const SELECTORS_COST_MAX: u64 = 5_000_000;

/// Claims, classes, and what drivers offer.
pub(crate) struct Devices {
    claims: Cache,
    classes: Cache,
    slices: Cache,
    claim_changes: Subscription,
    class_changes: Subscription,
    slice_changes: Subscription,
    /// How many have each device: claims as seen, and pods as assumed.
    taken: Arc<BTreeMap<DeviceId, usize>>,
    /// The devices of each claim as seen.
    seen: BTreeMap<Key, Vec<DeviceId>>,
    /// By the uid of its pod, whose namesake is another one: what is being written for it.
    underway: BTreeMap<String, Underway>,
    /// `None` when what drivers offer has changed.
    stock: Option<Arc<Stock>>,
}

/// What is being given to a pod.
struct Underway {
    claims: Vec<Key>,
    devices: Vec<DeviceId>,
    /// The revision at which it was written.
    written: Option<u64>,
}

/// What a pod's claims ask of its node.
pub(crate) struct Ask {
    /// Where the devices are that it has already, by their claims.
    reaches: Vec<(Key, Reach)>,
    /// The claims that have none yet.
    claims: Vec<AskedClaim>,
    /// The claims that have theirs and are to be reserved for the pod, as they were seen.
    pub(crate) reserve: Vec<Arc<Cached>>,
    stock: Arc<Stock>,
    taken: Arc<BTreeMap<DeviceId, usize>>,
    effort: Mutex<Effort>,
}

/// What is left of the effort that one pod is worth, and what it has brought.
struct Effort {
    budget: Budget,
    steps: usize,
    /// Why nothing is left.
    spent: Option<String>,
    solutions: BTreeMap<String, Solution>,
    /// The claims that have kept the pod from some node.
    hinder: BTreeSet<Key>,
}

/// A claim that has no devices yet.
pub(crate) struct AskedClaim {
    key: Key,
    claim: Arc<Claim>,
    spec: Arc<Spec>,
    /// By the names that the spec has for them.
    classes: BTreeMap<String, Arc<Class>>,
}

/// Why a pod cannot go anywhere yet.
pub(crate) struct Wait {
    /// Something was begun that will let it go on.
    pub(crate) is_brief: bool,
    pub(crate) why: String,
}

/// A pod's [`Ask`], if it has claims. Two are the same when they are one.
#[derive(Clone, Default)]
pub(crate) struct Asked(Option<Arc<Ask>>);

impl PartialEq for Asked {
    fn eq(&self, other: &Asked) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for Asked {}

impl fmt::Debug for Asked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} claims", self.0.as_ref().map_or(0, |ask| ask.claims.len() + ask.reaches.len()))
    }
}

impl Asked {
    /// What is asked, if anything is.
    pub(crate) fn get(&self) -> Option<&Ask> {
        self.0.as_deref()
    }
}

impl Devices {
    pub(crate) fn new(caches: &Caches) -> Devices {
        let [claims, classes, slices] =
            [&kinds::RESOURCE_CLAIM, &kinds::DEVICE_CLASS, &kinds::RESOURCE_SLICE].map(|kind| caches.of(kind));
        Devices {
            claim_changes: claims.subscribe(),
            class_changes: classes.subscribe(),
            slice_changes: slices.subscribe(),
            claims,
            classes,
            slices,
            taken: Arc::default(),
            seen: BTreeMap::new(),
            underway: BTreeMap::new(),
            stock: None,
        }
    }

    /// Resolves once everything has been seen.
    pub(crate) async fn synced(&self) {
        for cache in [&self.claims, &self.classes, &self.slices] {
            cache.synced().await;
        }
    }

    /// Waits for a change that may let a pod go on. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        tokio::select! {
            biased;
            notice = self.claim_changes.next() => self.see_claim(notice),
            _ = self.class_changes.next() => {}
            _ = self.slice_changes.next() => self.stock = None,
        }
    }

    /// Takes in everything that is there; `true` when something has changed since the last look.
    pub(crate) fn has_changed(&mut self) -> bool {
        // Before the changes up to it are taken: they are told before it is.
        let revision = self.claims.revision();
        let mut any = false;
        while let Some(notice) = self.claim_changes.take() {
            self.see_claim(notice);
            any = true;
        }
        while self.class_changes.take().is_some() {
            any = true;
        }
        while self.slice_changes.take().is_some() {
            self.stock = None;
            any = true;
        }
        let shown: Vec<String> = self
            .underway
            .iter()
            .filter(|(_, underway)| underway.written.is_some_and(|written| written <= revision))
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in shown {
            self.forget(&pod);
            any = true;
        }
        any
    }

    fn see_claim(&mut self, notice: Notice) {
        match notice {
            Notice::Changed(change) => self.set_claim(&change.key, change.new.as_deref()),
            Notice::Lagged => {
                let keys: Vec<Key> = self.seen.keys().cloned().collect();
                for key in keys {
                    self.set_claim(&key, None);
                }
                for claim in self.claims.list() {
                    self.set_claim(&Key::of(&claim.header), Some(&claim));
                }
            }
        }
    }

    fn set_claim(&mut self, key: &Key, claim: Option<&Cached>) {
        let devices = claim.map(|claim| claim.memo(Claim::read).devices.clone()).unwrap_or_default();
        let before = match devices.is_empty() {
            true => self.seen.remove(key),
            false => self.seen.insert(key.clone(), devices.clone()),
        };
        let taken = Arc::make_mut(&mut self.taken);
        devices.iter().for_each(|device| count(taken, device, true));
        before.iter().flatten().for_each(|device| count(taken, device, false));
    }

    /// What drivers offer.
    fn stock(&mut self) -> Arc<Stock> {
        let slices = &self.slices;
        Arc::clone(self.stock.get_or_insert_with(|| Arc::new(Stock::of(&slices.list()))))
    }

    /// What this pod's claims ask, or why it cannot go anywhere yet.
    pub(crate) fn wants(&mut self, pod: &Pod) -> Result<Asked, Wait> {
        if pod.device_claims.is_empty() {
            return Ok(Asked::default());
        }
        let mut ask = Ask {
            reaches: Vec::new(),
            claims: Vec::new(),
            reserve: Vec::new(),
            stock: self.stock(),
            taken: Arc::clone(&self.taken),
            effort: Mutex::new(Effort::new()),
        };
        let mut known = BTreeSet::new();
        for claim in &pod.device_claims {
            let name = match &claim.claim {
                ClaimName::Is(name) => name,
                ClaimName::NoNeed => continue,
                ClaimName::NotYet => {
                    let why = format!("pod {:?}: ResourceClaim not created yet", pod.key.to_string());
                    return Err(Wait { is_brief: false, why });
                }
            };
            if known.insert(name) {
                self.ask(pod, name, claim.template.is_some(), &mut ask)?;
            }
        }
        Ok(Asked(Some(Arc::new(ask))))
    }

    /// D1 to D4.
    fn ask(&self, pod: &Pod, name: &str, is_own: bool, ask: &mut Ask) -> Result<(), Wait> {
        let wait = |is_brief: bool, why: String| Err(Wait { is_brief, why });
        let Some(object) = self.claims.get(pod.key.namespace(), name) else {
            // One that was made for the pod may not be seen yet.
            return wait(is_own, format!("resourceclaim {name:?} not found"));
        };
        let (claim, key) = (object.memo(Claim::read), Key::of(&object.header));
        if is_own && claim.owner.as_ref().is_none_or(|(_, uid)| *uid != pod.uid) {
            let why = format!("ResourceClaim {key} was not created for pod {} (pod is not owner)", pod.key);
            return wait(false, why);
        }
        if claim.is_ending {
            return wait(false, format!("resourceclaim {name:?} is being deleted"));
        }
        if claim.is_allocated {
            if !claim.is_used_by(&pod.uid) {
                if claim.users.len() >= USERS_MAX {
                    return wait(false, "resourceclaim in use".to_owned());
                }
                ask.reserve.push(Arc::clone(&object));
            }
            ask.reaches.extend(claim.reach.clone().map(|reach| (key, reach)));
            return Ok(());
        }
        if self.underway.values().any(|underway| underway.claims.contains(&key)) {
            return wait(true, format!("resource claim {key} is in the process of being allocated"));
        }
        let spec = object.memo(Spec::read);
        let mut classes = BTreeMap::new();
        for (request, class) in spec.classes() {
            let Some(found) = self.classes.get("", class) else {
                return wait(false, format!("request {request}: device class {class} does not exist"));
            };
            classes.insert(class.to_owned(), found.memo(Class::read));
        }
        ask.claims.push(AskedClaim { key, claim, spec, classes });
        Ok(())
    }

    /// D6: the pod of this uid is being given these.
    pub(crate) fn assume(&mut self, pod: &str, allocations: &[Allocation]) {
        if allocations.is_empty() {
            return;
        }
        self.forget(pod);
        let devices: Vec<DeviceId> = allocations.iter().flat_map(|allocation| allocation.devices.clone()).collect();
        let taken = Arc::make_mut(&mut self.taken);
        devices.iter().for_each(|device| count(taken, device, true));
        let claims = allocations.iter().map(|allocation| allocation.key.clone()).collect();
        self.underway.insert(pod.to_owned(), Underway { claims, devices, written: None });
    }

    /// What was being given to a pod has been written at this revision; or nothing has been. `true` when that is free again.
    pub(crate) fn settle(&mut self, pod: &str, written: Option<u64>) -> bool {
        match (written, self.underway.get_mut(pod)) {
            (Some(revision), Some(underway)) => {
                underway.written = Some(revision);
                false
            }
            _ => self.forget(pod),
        }
    }

    fn forget(&mut self, pod: &str) -> bool {
        let Some(underway) = self.underway.remove(pod) else { return false };
        let taken = Arc::make_mut(&mut self.taken);
        underway.devices.iter().for_each(|device| count(taken, device, false));
        true
    }

    /// D7.
    pub(crate) fn hindrance(&self, pod: &Pod) -> Option<Hindrance> {
        let hinder = pod.devices.get().map(Ask::hinder).unwrap_or_default();
        pod.device_claims.iter().find_map(|claim| {
            let ClaimName::Is(name) = &claim.claim else { return None };
            let object = self.claims.get(pod.key.namespace(), name)?;
            let (claim, key) = (object.memo(Claim::read), Key::of(&object.header));
            let is_only_ours = claim.users.iter().all(|user| user.uid == pod.uid);
            let is_ours = claim.is_used_by(&pod.uid);
            let gives_back = match claim.is_ending {
                true => is_ours,
                false => claim.is_allocated && (is_ours || is_only_ours) && hinder.contains(&key),
            };
            gives_back.then(|| Hindrance { claim: key, revision: claim.revision, is_only_ours })
        })
    }
}

/// A claim that a pod is better off without.
pub(crate) struct Hindrance {
    pub(crate) claim: Key,
    pub(crate) revision: u64,
    /// It is for no other pod.
    pub(crate) is_only_ours: bool,
}

fn count(taken: &mut BTreeMap<DeviceId, usize>, device: &DeviceId, is_more: bool) {
    let now = taken.entry(device.clone()).or_default();
    *now = if is_more { *now + 1 } else { now.saturating_sub(1) };
    if *now == 0 {
        taken.remove(device);
    }
}

impl Effort {
    fn new() -> Effort {
        let budget = Budget::new(SELECTORS_COST_MAX).per_call(windlass_api::device::SELECTOR_COST_MAX);
        Effort { budget, steps: 0, spent: None, solutions: BTreeMap::new(), hinder: BTreeSet::new() }
    }
}

impl Ask {
    /// Whether everything can be had on this node; or why not.
    pub(crate) fn fits(&self, node: &str, labels: &Labels) -> Result<(), String> {
        let elsewhere: Vec<&Key> =
            self.reaches.iter().filter(|(_, reach)| !reach.includes(node, labels)).map(|(key, _)| key).collect();
        if elsewhere.is_empty() && self.claims.is_empty() {
            return Ok(());
        }
        let mut effort = self.effort.lock().expect("nothing panics while holding it");
        if !elsewhere.is_empty() {
            effort.hinder.extend(elsewhere.into_iter().cloned());
            return Err("resourceclaim not available on the node".to_owned());
        }
        if effort.solutions.contains_key(node) {
            return Ok(());
        }
        let solution = search::find(self, node, labels, &mut effort)?;
        effort.solutions.insert(node.to_owned(), solution);
        Ok(())
    }

    /// Whether devices that somebody has are worth a look: an admin's access is to them too, and all are not all without.
    fn wants_taken(&self) -> bool {
        let mut ways = self.claims.iter().flat_map(|claim| &claim.spec.requests).flat_map(|request| &request.ways);
        ways.any(|way| way.is_admin || way.count.is_none())
    }

    /// D7: the claims that have kept the pod from some node that it fits otherwise.
    fn hinder(&self) -> BTreeSet<Key> {
        self.effort.lock().expect("nothing panics while holding it").hinder.clone()
    }

    /// What the claims get on a node that fits.
    pub(crate) fn allocations(&self, node: &str) -> Vec<Allocation> {
        let effort = self.effort.lock().expect("nothing panics while holding it");
        let Some(solution) = effort.solutions.get(node) else { return Vec::new() };
        self.claims.iter().zip(solution).map(|(claim, picks)| allocation::of(claim, picks, node)).collect()
    }
}

#[cfg(test)]
mod tests;
