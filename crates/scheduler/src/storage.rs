//! What a pod's claims ask of its node.
//!
//! Rules, in order
//!   S1 there      a pod whose claim does not exist, is lost or is going waits
//!   S2 alone      a claim for one pod at a time keeps every other pod waiting
//!   S3 bound      the node must reach the volume that the claim is bound to
//!   S4 at once    a pod whose claim is to be bound without it waits until that is done
//!   S5 first pod  the node must reach a volume that fits the claim, or the claim's class must have a provisioner that can
//!                 make one there; then the claim is told the node, and the pod waits until it is bound
//!
//! Source: Kubernetes documentation, "Storage Classes", volumeBindingMode; the words are those of its events.

use std::sync::Arc;

use windlass_api::binding::{Claim, Reach, Volume};
use windlass_api::{Object, kinds};
use windlass_client::{Cache, Caches, Key, Notice, Subscription};

use crate::filter::Cure;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

/// A provisioner that makes no volumes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Claims, volumes and classes.
pub(crate) struct Storage {
    claims: Cache,
    volumes: Cache,
    classes: Cache,
    pods: Cache,
    changes: [Subscription; 3],
}

/// What a pod's claims ask.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// Each must be met by the node.
    pub(crate) needs: Vec<Need>,
    /// The claims that wait to be told the node.
    pub(crate) undecided: Vec<Key>,
}

/// A node must be within one of these reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    reaches: Vec<Reach>,
    /// What is said of a node that is not.
    pub(crate) why: &'static str,
}

impl Need {
    /// Whether a node is within reach.
    pub(crate) fn is_met(&self, node: &Node, facts: &NodeFacts) -> bool {
        self.reaches.iter().any(|reach| reach.includes(&node.name, &facts.labels))
    }
}

/// What a class says about where its volumes can be.
#[derive(Default)]
struct Class {
    waits: bool,
    makes: bool,
}

impl Class {
    fn read(object: &Object) -> Class {
        let value = object.value();
        Class {
            waits: value["volumeBindingMode"] == "WaitForFirstConsumer",
            makes: value["provisioner"] != NO_PROVISIONER,
        }
    }
}

impl Storage {
    pub(crate) fn new(caches: &Caches) -> Storage {
        let [claims, volumes, classes] =
            [&kinds::PERSISTENT_VOLUME_CLAIM, &kinds::PERSISTENT_VOLUME, &kinds::STORAGE_CLASS]
                .map(|kind| caches.of(kind));
        let changes = [claims.subscribe(), volumes.subscribe(), classes.subscribe()];
        Storage { claims, volumes, classes, pods: caches.of(&kinds::POD), changes }
    }

    /// Resolves once everything has been seen.
    pub(crate) async fn synced(&self) {
        for cache in [&self.claims, &self.volumes, &self.classes] {
            cache.synced().await;
        }
    }

    /// Waits for a change that may let a pod go on. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Notice {
        let [claims, volumes, classes] = &mut self.changes;
        tokio::select! {
            biased;
            notice = claims.next() => notice,
            notice = volumes.next() => notice,
            notice = classes.next() => notice,
        }
    }

    /// Whether something has changed since the last look.
    pub(crate) fn has_changed(&mut self) -> bool {
        let mut any = false;
        for subscription in &mut self.changes {
            while subscription.take().is_some() {
                any = true;
            }
        }
        any
    }

    /// What this pod's claims ask, or why it cannot go anywhere yet, and what may change that.
    pub(crate) fn wants(&self, pod: &Pod) -> Result<Wants, (Cure, String)> {
        let mut wants = Wants::default();
        let waits = |why: String| (Cure::NodeChanged, why);
        for name in &pod.volume_claims {
            let found = self.claims.get(pod.key.namespace(), name);
            let object = found.ok_or_else(|| waits(format!("persistentvolumeclaim {name:?} not found")))?;
            let claim = object.memo(Claim::read);
            if claim.is_ending {
                return Err(waits(format!("persistentvolumeclaim {name:?} is being deleted")));
            }
            if claim.phase == "Lost" {
                return Err(waits(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume")));
            }
            if claim.is_for_one_pod() && self.is_taken(pod, name) {
                let why =
                    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
                return Err((Cure::PodLeft, why.to_owned()));
            }
            self.ask(&claim, &Key::of(&object.header), &mut wants).map_err(waits)?;
        }
        Ok(wants)
    }

    fn ask(&self, claim: &Claim, key: &Key, wants: &mut Wants) -> Result<(), String> {
        if claim.phase == "Bound" {
            let volume = self.volumes.get("", &claim.volume);
            let volume = volume.ok_or_else(|| format!("persistentvolume {:?} not found", claim.volume))?;
            if let Some(reach) = &volume.memo(Volume::read).reach {
                let why = "node(s) had volume node affinity conflict";
                wants.needs.push(Need { reaches: vec![reach.clone()], why });
            }
            return Ok(());
        }
        let class = claim.class.as_deref().and_then(|class| self.classes.get("", class));
        let class = class.map(|class| class.memo(Class::read)).unwrap_or_default();
        if !class.waits || !claim.volume.is_empty() {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        wants.undecided.push(key.clone());
        if class.makes {
            return Ok(());
        }
        let volumes: Vec<Arc<Volume>> = self.volumes.list().iter().map(|volume| volume.memo(Volume::read)).collect();
        let fitting: Vec<_> = volumes.iter().filter(|volume| volume.fits(claim)).collect();
        if fitting.is_empty() || fitting.iter().all(|volume| volume.reach.is_some()) {
            let reaches = fitting.iter().filter_map(|volume| volume.reach.clone()).collect();
            wants.needs.push(Need { reaches, why: "node(s) didn't find available persistent volumes to bind" });
        }
        Ok(())
    }

    /// S2.
    fn is_taken(&self, pod: &Pod, claim: &str) -> bool {
        self.pods.in_namespace(pod.key.namespace()).iter().any(|other| {
            let header = &other.header;
            header.uid() != pod.uid
                && !header.node_name().is_empty()
                && !matches!(header.phase(), "Succeeded" | "Failed")
                && Pod::read(other).volume_claims.iter().any(|name| name == claim)
        })
    }
}
