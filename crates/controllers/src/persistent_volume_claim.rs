//! PersistentVolumeClaim: each claim gets the volume that fits it, or says why it has none.
//!
//! Goal        a claim that a volume fits is bound to it, for good and alone; no claim goes while a pod uses it
//! Watches     PersistentVolumeClaim; PersistentVolume; StorageClass; Pod (those that use an ending claim); Node (labels)
//! Writes      PersistentVolumeClaim: finalizer, class, volumeName, provisioner, status · PersistentVolume: create, claimRef
//! Relies on   the scheduler names the node of a claim that waits for its first pod; `persistent_volume` ends volumes
//!
//! Rules, in order
//!   R1 in use      an ending claim goes once no pod that was bound to a node names it: one that is over may still have the
//!                  volume mounted. Every other claim is kept from going without
//!   R2 default     an unbound claim without a class gets the default class, of several the newest
//!   R3 bound       a claim that names a volume is Bound once the volume names the claim, with what the volume has; Lost
//!                  when that volume is gone
//!   R4 match       the best volume that fits (`windlass_api::binding`) is reserved for the claim, then named by it
//!   R5 first pod   a claim whose class waits for its first pod is matched only once the scheduler has named a node, and
//!                  only to a volume that this node reaches
//!   R6 provision   without a match the class's provisioner is asked; ours makes an empty volume on the claim's node, and none
//!                  for a claim that is to be a copy (of a snapshot, of a claim)
//!   R7 growth      a bound claim of a class that allows it grows with what it asks for: where the volume is ours at once; a
//!                  driver's own programs are asked, and what has become of it then is theirs and the node's to say
//! Not here        what becomes of a volume when its claim goes (persistent_volume) · directories (node)
//! Source: Kubernetes documentation, "Persistent Volumes", "Storage Classes".

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::binding::{self, Claim, ENFORCE_SIZE, LOCAL_DRIVER, Volume};
use windlass_api::quantity::Quantity;
use windlass_api::{Object, kinds};
use windlass_client::{Cache, Caches, Key, ObjectRef, Patch};

use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};

mod class;
#[cfg(test)]
mod tests;

use class::Class;

/// Keeps a claim while pods use it.
const PROTECTION: &str = "kubernetes.io/pvc-protection";
/// What users see of a claim that this controller has bound.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// The controller of claims.
pub(crate) struct PersistentVolumeClaims {
    claims: Cache,
    volumes: Cache,
    classes: Cache,
    pods: Cache,
    nodes: Cache,
}

/// What a decision about one claim depends on.
pub(crate) struct View {
    claim: Claim,
    about: ObjectRef,
    target: Target,
    revision: u64,
    volumes: Vec<Arc<Volume>>,
    /// The claim's class, if it exists.
    class: Option<Class>,
    /// The class for claims that name none.
    default_class: Option<String>,
    /// A pod may have its volume mounted.
    is_used: bool,
    /// The node its first pod will run on: its name and labels.
    node: Option<(String, BTreeMap<String, String>)>,
}

impl PersistentVolumeClaims {
    pub(crate) fn new(caches: &Caches) -> PersistentVolumeClaims {
        PersistentVolumeClaims {
            claims: caches.of(&kinds::PERSISTENT_VOLUME_CLAIM),
            volumes: caches.of(&kinds::PERSISTENT_VOLUME),
            classes: caches.of(&kinds::STORAGE_CLASS),
            pods: caches.of(&kinds::POD),
            nodes: caches.of(&kinds::NODE),
        }
    }

    fn is_used(&self, claim: &Claim) -> bool {
        let pods = self.pods.in_namespace(&claim.namespace);
        pods.iter().any(|pod| pod.memo(Kept::read).0.contains(&claim.name))
    }
}

/// The claims that a pod uses, those of its ephemeral volumes included.
pub(crate) fn claims_of(pod: &Object) -> Vec<String> {
    // Most pods have none: they are not read for that.
    let names = |word: &[u8]| pod.json.windows(word.len()).any(|found| found == word);
    if !names(b"\"persistentVolumeClaim\"") && !names(b"\"ephemeral\"") {
        return Vec::new();
    }
    let value = pod.value();
    let volumes = value["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| claim_of(volume).or_else(|| own_claim_of(pod, volume))).collect()
}

fn claim_of(volume: &Value) -> Option<String> {
    volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned)
}

/// Of an ephemeral volume.
fn own_claim_of(pod: &Object, volume: &Value) -> Option<String> {
    let name = || format!("{}-{}", pod.header.name(), volume["name"].as_str().unwrap_or_default());
    volume["ephemeral"].is_object().then(name)
}

/// The claims that a pod keeps from going.
pub(crate) struct Kept(Vec<String>);

impl Kept {
    /// R1. Its own claims a pod keeps only until its node is done with it: after that it may be the pod that waits for them.
    pub(crate) fn read(pod: &Object) -> Kept {
        let none = || Kept(Vec::new());
        if pod.header.node_name().is_empty() || claims_of(pod).is_empty() {
            return none();
        }
        let value = pod.value();
        let is_done = pod.header.is_ending() && value["metadata"]["deletionGracePeriodSeconds"] == 0;
        let volumes = value["spec"]["volumes"].as_array().into_iter().flatten();
        let own = |volume: &Value| if is_done { None } else { own_claim_of(pod, volume) };
        Kept(volumes.filter_map(|volume| claim_of(volume).or_else(|| own(volume))).collect())
    }
}

impl Controller for PersistentVolumeClaims {
    type View = View;
    const NAME: &'static str = "persistentvolumeclaim";

    fn wakes(&self) -> Vec<Wake> {
        // A volume concerns the claim that it names; one that is free may fit any claim that waits.
        let waiting = |claims: &Cache, wake: &mut dyn FnMut(Key)| {
            for claim in claims.list().iter().filter(|claim| claim.memo(Claim::read).phase != "Bound") {
                wake(Key::of(&claim.header));
            }
        };
        let claims = self.claims.clone();
        let of_volumes = Wake::new(&kinds::PERSISTENT_VOLUME, move |change, wake| {
            for seen in [&change.old, &change.new].into_iter().flatten() {
                match &seen.memo(Volume::read).claim {
                    Some(claim) => wake(Key::new(&claim.namespace, &claim.name)),
                    None => waiting(&claims, wake),
                }
            }
        });
        let claims = self.claims.clone();
        let of_classes = Wake::new(&kinds::STORAGE_CLASS, move |_, wake| waiting(&claims, wake));
        let claims = self.claims.clone();
        let of_pods = Wake::new(&kinds::POD, move |change, wake| {
            let Some(old) = &change.old else { return };
            let still = change.new.as_ref().map(|new| new.memo(Kept::read));
            for name in &old.memo(Kept::read).0 {
                let is_kept = still.as_ref().is_some_and(|kept| kept.0.contains(name));
                if !is_kept && claims.get(old.header.namespace(), name).is_some_and(|claim| claim.header.is_ending()) {
                    wake(Key::new(old.header.namespace(), name));
                }
            }
        });
        vec![Wake::itself(&kinds::PERSISTENT_VOLUME_CLAIM), of_volumes, of_classes, of_pods]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let object = self.claims.get_key(key.as_str())?;
        let claim = Claim::clone(&object.memo(Claim::read));
        let classes = self.classes.list();
        let class = claim.class.as_deref().and_then(|name| self.classes.get("", name));
        let node = self.nodes.get("", &claim.selected_node);
        // Who has a volume looks at no other.
        let volumes = match claim.volume.as_str() {
            "" => self.volumes.list(),
            own => self.volumes.get("", own).into_iter().collect(),
        };
        Some(View {
            about: ObjectRef::of(&object.header),
            target: Target::of(&kinds::PERSISTENT_VOLUME_CLAIM, &object.header),
            revision: object.header.revision,
            volumes: volumes.iter().map(|volume| volume.memo(Volume::read)).collect(),
            class: class.map(|class| Class::clone(&class.memo(Class::read))),
            default_class: class::default_of(classes.iter().map(|class| class.memo(Class::read))),
            is_used: claim.is_ending && self.is_used(&claim),
            node: node.map(|node| (node.header.name().to_owned(), node.header.labels().to_map())),
            claim,
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        view.protect(&mut plan);
        if view.claim.is_ending || !plan.items.is_empty() {
            return plan;
        }
        match (view.claim.volume.as_str(), &view.claim.class, &view.default_class) {
            ("", None, Some(class)) => {
                let why = format!("the claim names no class, and {class} is the default");
                plan.patch(view.target.clone(), view.with_revision(json!({"spec": {"storageClassName": class}})), why);
            }
            ("", ..) => view.find(&mut plan),
            _ => view.settle(&mut plan),
        }
        plan
    }
}

impl View {
    /// A patch that holds only for the claim as it was seen.
    fn with_revision(&self, mut patch: Value) -> Value {
        patch["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        patch
    }

    /// R1.
    fn protect(&self, plan: &mut Plan) {
        let claim = &self.claim;
        let is_protected = claim.finalizers.iter().any(|found| found == PROTECTION);
        let patch = |finalizers: Vec<&str>| self.with_revision(json!({"metadata": {"finalizers": finalizers}}));
        let others = claim.finalizers.iter().map(String::as_str).filter(|found| *found != PROTECTION);
        match (claim.is_ending, is_protected) {
            (false, false) => {
                let finalizers = others.chain([PROTECTION]).collect();
                plan.patch(self.target.clone(), patch(finalizers), "no claim goes while a pod uses it");
            }
            (true, true) if !self.is_used => {
                plan.patch(self.target.clone(), patch(others.collect()), "no pod uses the claim any more");
            }
            _ => {}
        }
    }

    /// R3, R7.
    fn settle(&self, plan: &mut Plan) {
        let claim = &self.claim;
        let Some(volume) = self.volumes.iter().find(|volume| volume.name == claim.volume) else {
            if claim.phase == "Bound" {
                let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                let patch = Patch::Merge(json!({"status": {"phase": "Lost", "accessModes": null, "capacity": null}}));
                plan.patch_status(self.target.clone(), patch, why).tell(self.about.clone(), "ClaimLost");
            }
            return;
        };
        match &volume.claim {
            Some(named) if named.uid == claim.uid => self.agree(volume, plan),
            _ if volume.is_for(claim) || volume.claim.is_none() => self.reserve(volume, plan),
            Some(named) => self.complain(
                plan,
                "FailedBinding",
                &format!("volume {:?} already bound to claim {}/{}", volume.name, named.namespace, named.name),
            ),
            None => {}
        }
    }

    /// Volume and claim name each other.
    fn agree(&self, volume: &Volume, plan: &mut Plan) {
        let claim = &self.claim;
        let may_grow = self.class.as_ref().is_some_and(|class| class.may_grow);
        let is_drivers = !volume.driver.is_empty() && volume.driver != LOCAL_DRIVER;
        if is_drivers && claim.phase == "Bound" {
            if claim.bytes > claim.capacity_bytes && may_grow && claim.resizer != volume.driver {
                let patch = json!({"metadata": {"annotations": {binding::RESIZER: volume.driver}}});
                let why = "waiting for an external controller to expand this PVC";
                let item = plan.patch(self.target.clone(), self.with_revision(patch), why);
                item.tell(self.about.clone(), "ExternalExpanding");
            }
            return;
        }
        if claim.bytes > volume.bytes && may_grow && volume.driver == LOCAL_DRIVER {
            let target = volume_target(volume);
            let patch = json!({"metadata": {"resourceVersion": volume.revision.to_string()},
                "spec": {"capacity": {"storage": amount(claim.bytes)}}});
            plan.patch(target, patch, format!("claim {}/{} asks for more", claim.namespace, claim.name));
            return;
        }
        if claim.phase == "Bound" && claim.capacity_bytes == volume.bytes {
            return;
        }
        let status = json!({"status": {"phase": "Bound", "accessModes": volume.access,
            "capacity": {"storage": amount(volume.bytes)}}});
        let why = format!("volume {} is the claim's", volume.name);
        plan.patch_status(self.target.clone(), Patch::Merge(status), why);
    }

    /// R4, R5.
    fn find(&self, plan: &mut Plan) {
        let claim = &self.claim;
        let waits = self.class.as_ref().is_some_and(|class| class.waits);
        let reserved = self.volumes.iter().any(|volume| volume.is_for(claim));
        if waits && self.node.is_none() && !reserved {
            let why = "waiting for first consumer to be created before binding";
            return self.complain(plan, "WaitForFirstConsumer", why);
        }
        let reached = |volume: &Volume| match &self.node {
            // One that was made for the claim is its own wherever its pod is to go by now: the pod goes there.
            Some((node, labels)) => volume.is_for(claim) || volume.is_reached(node, labels),
            None => true,
        };
        let Some(volume) = binding::find(claim, self.volumes.iter().map(|volume| &**volume), reached) else {
            return self.provision(plan);
        };
        if volume.claim.as_ref().is_none_or(|named| named.uid != claim.uid) {
            return self.reserve(volume, plan);
        }
        let patch = json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}}, "spec": {"volumeName": volume.name}});
        let why = format!("volume {} is reserved for the claim", volume.name);
        plan.patch(self.target.clone(), self.with_revision(patch), why);
    }

    /// Makes the volume name this claim, unless another was faster.
    fn reserve(&self, volume: &Volume, plan: &mut Plan) {
        let claim = &self.claim;
        let patch = json!({"metadata": {"resourceVersion": volume.revision.to_string()},
            "spec": {"claimRef": self.claim_ref()}});
        let why = format!("it is the best volume for claim {}/{}", claim.namespace, claim.name);
        plan.patch(volume_target(volume), patch, why);
    }

    fn claim_ref(&self) -> Value {
        let claim = &self.claim;
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace,
            "name": claim.name, "uid": claim.uid})
    }

    /// R6.
    fn provision(&self, plan: &mut Plan) {
        let claim = &self.claim;
        let Some(class) = &self.class else {
            let why = match claim.class.as_deref() {
                None | Some("") => {
                    "no persistent volumes available for this claim and no storage class is set".to_owned()
                }
                Some(name) => format!("storageclass.storage.k8s.io {name:?} not found"),
            };
            return self.complain(plan, "FailedBinding", &why);
        };
        match (class.provisioner.as_str(), &self.node) {
            (class::NO_PROVISIONER, _) => {
                self.complain(plan, "FailedBinding", "no persistent volumes available for this claim");
            }
            (LOCAL_DRIVER, Some((node, _))) => self.make(class, node, plan),
            (LOCAL_DRIVER, None) => {
                let why = format!(
                    "the volumes of class {} lie on one node: set its volumeBindingMode to WaitForFirstConsumer",
                    class.name
                );
                self.complain(plan, "ProvisioningFailed", &why);
            }
            (other, _) if claim.provisioner != other => {
                let patch = json!({"metadata": {"annotations": {binding::PROVISIONER: other}}});
                let why = format!(
                    "Waiting for a volume to be created either by the external provisioner '{other}' or manually by the system administrator."
                );
                let item = plan.patch(self.target.clone(), self.with_revision(patch), why);
                item.tell(self.about.clone(), "ExternalProvisioning");
            }
            _ => {}
        }
    }

    fn make(&self, class: &Class, node: &str, plan: &mut Plan) {
        let claim = &self.claim;
        if claim.access.iter().any(|mode| mode.ends_with("Many") && mode != "ReadOnlyMany") {
            let why = "what lies on one node cannot be shared between nodes";
            return self.complain(plan, "ProvisioningFailed", why);
        }
        // Who asks for a copy must not get an empty directory instead.
        if !claim.source.is_empty() {
            let why = format!("volumes of class {} are made empty: none can be made from {}", class.name, claim.source);
            return self.complain(plan, "ProvisioningFailed", &why);
        }
        let name = format!("pvc-{}", claim.uid);
        let expression = json!({"key": "metadata.name", "operator": "In", "values": [node]});
        let attributes = class.enforces_size.then(|| json!({ENFORCE_SIZE: "true"}));
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name,
                "annotations": {"pv.kubernetes.io/provisioned-by": LOCAL_DRIVER}},
            "spec": {
                "capacity": {"storage": amount(claim.bytes)}, "accessModes": claim.access,
                "storageClassName": class.name, "persistentVolumeReclaimPolicy": class.policy,
                "claimRef": self.claim_ref(), "csi": {"driver": LOCAL_DRIVER, "volumeHandle": name, "volumeAttributes": attributes},
                "volumeMode": if claim.is_block { "Block" } else { "Filesystem" },
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchFields": [expression]}]}},
            },
        });
        let limit = match claim.is_block || class.enforces_size {
            true => "",
            false => "; it may hold more than it says, unless its class has the parameter enforceSize",
        };
        let why = format!("Successfully provisioned volume {name} on node {node}{limit}");
        let item = plan.create(&kinds::PERSISTENT_VOLUME, "", volume, why);
        item.tell(self.about.clone(), "ProvisioningSucceeded").tell_failure("ProvisioningFailed");
    }

    /// Says why the claim has no volume: as an Event, and in its status, so that it is said once.
    fn complain(&self, plan: &mut Plan, reason: &'static str, why: &str) {
        plan.say(self.about.clone(), reason, why);
    }
}

fn volume_target(volume: &Volume) -> Target {
    Target { kind: kinds::PERSISTENT_VOLUME.clone(), key: Key::new("", &volume.name), uid: volume.uid.clone() }
}

fn amount(bytes: i64) -> String {
    Quantity::from_bytes(u64::try_from(bytes).unwrap_or(0)).to_string()
}
