//! PersistentVolume: a volume says whether it is free, and ends as its policy says when its claim goes.
//!
//! Goal        the phase of every volume is true; a volume outlives its claim exactly when its policy says so
//! Watches     PersistentVolume; PersistentVolumeClaim (the one it names); Node (of local volumes)
//! Writes      PersistentVolume: finalizer, phase, delete
//! Relies on   `persistent_volume_claim` binds; the node's agent removes the directories of local volumes
//!
//! Rules, in order
//!   R1 in use      a volume that is bound does not go; it goes once its claim is gone
//!   R2 phase       Available without a claim, Bound with one, Released when the claim it had is gone, by the API's own word
//!   R3 reclaim     a released volume of policy Delete that the local driver made is deleted; its node does the rest. Those of
//!                  other drivers are their provisioners' to delete
//!   R4 no node     what is on a node that is gone for good cannot be removed from it: the volume goes without
//! Not here        Recycle: it was deprecated before it was ours; such a volume says so and stays
//! Source: Kubernetes documentation, "Persistent Volumes", Reclaiming and Storage Object in Use Protection.

use serde_json::json;
use windlass_api::binding::{Claim, ClaimRef, LOCAL_DRIVER, LOCAL_FINALIZER, Volume};
use windlass_api::kinds;
use windlass_client::{Cache, Caches, Key, ObjectRef, Patch};

use crate::controller::{Controller, Look, Wake};
use crate::plan::{Guard, Plan, Target};

/// Keeps a volume while it is bound.
const PROTECTION: &str = "kubernetes.io/pv-protection";

/// The controller of volumes.
pub(crate) struct PersistentVolumes {
    volumes: Cache,
    claims: Cache,
    nodes: Cache,
}

/// What a decision about one volume depends on.
pub(crate) struct View {
    volume: Volume,
    about: ObjectRef,
    target: Target,
    /// The claim that it names exists.
    has_claim: bool,
    /// Some node that it can be reached from exists.
    has_node: bool,
}

impl PersistentVolumes {
    pub(crate) fn new(caches: &Caches) -> PersistentVolumes {
        PersistentVolumes {
            volumes: caches.of(&kinds::PERSISTENT_VOLUME),
            claims: caches.of(&kinds::PERSISTENT_VOLUME_CLAIM),
            nodes: caches.of(&kinds::NODE),
        }
    }
}

impl Controller for PersistentVolumes {
    type View = View;
    const NAME: &'static str = "persistentvolume";

    fn wakes(&self) -> Vec<Wake> {
        let volumes = self.volumes.clone();
        let of_claims = Wake::new(&kinds::PERSISTENT_VOLUME_CLAIM, move |change, wake| {
            let is_whole = change.new.as_ref().is_some_and(|new| new.memo(Claim::read).phase == "Bound");
            if change.new.is_some() && !is_whole {
                return;
            }
            let (namespace, name) = (change.key.namespace(), change.key.name());
            for volume in volumes.list() {
                let facts = volume.memo(Volume::read);
                if facts.claim.as_ref().is_some_and(|claim| claim.namespace == namespace && claim.name == name) {
                    wake(Key::of(&volume.header));
                }
            }
        });
        let volumes = self.volumes.clone();
        let of_nodes = Wake::new(&kinds::NODE, move |change, wake| {
            if change.new.is_none() {
                volumes.list().iter().filter(|volume| volume.header.is_ending()).for_each(|volume| {
                    wake(Key::of(&volume.header));
                });
            }
        });
        vec![Wake::itself(&kinds::PERSISTENT_VOLUME), of_claims, of_nodes]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let object = self.volumes.get_key(key.as_str())?;
        let volume = Volume::clone(&object.memo(Volume::read));
        let claim = volume.claim.as_ref().and_then(|claim| self.claims.get(&claim.namespace, &claim.name));
        let uid = volume.claim.as_ref().map(|claim| claim.uid.as_str()).unwrap_or_default();
        let is_ending = volume.is_ending;
        Some(View {
            has_claim: claim.is_some_and(|claim| claim.header.uid() == uid),
            has_node: !is_ending
                || self
                    .nodes
                    .list()
                    .iter()
                    .any(|node| volume.is_reached(node.header.name(), &node.header.labels().to_map())),
            about: ObjectRef::of(&object.header),
            target: Target::of(&kinds::PERSISTENT_VOLUME, &object.header),
            volume,
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        view.protect(&mut plan);
        if plan.items.is_empty() {
            view.phase(&mut plan);
        }
        plan
    }
}

impl View {
    fn finalizers(&self, plan: &mut Plan, without: &str, with: Option<&str>, why: &str) {
        let kept = self.volume.finalizers.iter().map(String::as_str).filter(|found| *found != without);
        let list: Vec<&str> = kept.chain(with).collect();
        let patch = json!({"metadata": {"finalizers": list, "resourceVersion": self.volume.revision.to_string()}});
        plan.patch(self.target.clone(), patch, why);
    }

    fn has(&self, finalizer: &str) -> bool {
        self.volume.finalizers.iter().any(|found| found == finalizer)
    }

    /// R1, R4.
    fn protect(&self, plan: &mut Plan) {
        match (self.volume.is_ending, self.has(PROTECTION)) {
            (false, false) => {
                self.finalizers(plan, PROTECTION, Some(PROTECTION), "no volume goes while it is bound");
            }
            (true, true) if !self.has_claim => {
                self.finalizers(plan, PROTECTION, None, "no claim has the volume any more")
            }
            (true, false) if self.has(LOCAL_FINALIZER) && !self.has_node => {
                self.finalizers(plan, LOCAL_FINALIZER, None, "the node that the volume was on is gone");
            }
            _ => {}
        }
    }

    /// R2, R3.
    fn phase(&self, plan: &mut Plan) {
        let volume = &self.volume;
        match &volume.claim {
            None => self.say(plan, "Available", "no claim has the volume"),
            // Kept for a claim, which has not come yet.
            Some(claim) if claim.uid.is_empty() => self.say(plan, "Available", "the volume is kept for a claim"),
            Some(claim) if self.has_claim => {
                self.say(plan, "Bound", &format!("claim {}/{} has the volume", claim.namespace, claim.name));
            }
            Some(claim) => self.release(claim, plan),
        }
    }

    fn release(&self, claim: &ClaimRef, plan: &mut Plan) {
        let volume = &self.volume;
        if volume.phase != "Released" && volume.phase != "Failed" {
            let key = Key::new(&claim.namespace, &claim.name);
            let gone = Target { kind: kinds::PERSISTENT_VOLUME_CLAIM.clone(), key, uid: claim.uid.clone() };
            let why = format!("claim {}/{} is gone", claim.namespace, claim.name);
            let patch = Patch::Merge(json!({"status": {"phase": "Released"}}));
            plan.patch_status(self.target.clone(), patch, why).guard(Guard::Absent(vec![gone]));
            return;
        }
        if volume.is_ending {
            return;
        }
        match volume.policy.as_str() {
            "Delete" if volume.driver == LOCAL_DRIVER => {
                plan.delete(self.target.clone(), "its claim is gone, and its policy is Delete");
            }
            "Recycle" if volume.phase != "Failed" => {
                let why = "the policy Recycle is not supported: delete the volume, or remove its claimRef";
                let patch = Patch::Merge(json!({"status": {"phase": "Failed", "message": why}}));
                plan.patch_status(self.target.clone(), patch, why).tell(self.about.clone(), "VolumeFailedRecycle");
            }
            _ => {}
        }
    }

    fn say(&self, plan: &mut Plan, phase: &str, why: &str) {
        if self.volume.phase != phase {
            plan.patch_status(self.target.clone(), Patch::Merge(json!({"status": {"phase": phase}})), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PersistentVolumes, View};
    use crate::controller::Controller;
    use crate::fixture::{change, check, object};
    use crate::plan::Target;
    use serde_json::{Value, json};
    use windlass_api::binding::Volume;
    use windlass_api::kinds;
    use windlass_client::ObjectRef;

    fn view(changes: Value) -> View {
        let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "v", "uid": "uv", "resourceVersion": "8", "finalizers": ["kubernetes.io/pv-protection"]},
            "spec": {"persistentVolumeReclaimPolicy": "Delete", "csi": {"driver": "local.windlass.dev", "volumeHandle": "v"}},
            "status": {"phase": "Pending"}});
        change(&mut volume, changes);
        let volume = object(&volume);
        View {
            volume: Volume::read(&volume),
            about: ObjectRef::of(&volume.header),
            target: Target::of(&kinds::PERSISTENT_VOLUME, &volume.header),
            has_claim: false,
            has_node: true,
        }
    }

    #[track_caller]
    fn planned(view: &View, expected: &str) {
        check(&PersistentVolumes::plan(view), expected);
    }

    fn claimed(phase: &str) -> Value {
        json!({"/spec/claimRef": {"namespace": "ns", "name": "c", "uid": "uc"}, "/status/phase": phase})
    }

    #[test]
    fn r1_a_bound_volume_does_not_go() {
        planned(
            &view(json!({"/metadata/finalizers": []})),
            "patch persistentvolumes v: no volume goes while it is bound",
        );
        let mut ending = view(claimed("Bound"));
        ending.volume.is_ending = true;
        ending.has_claim = true;
        planned(&ending, "");
        ending.has_claim = false;
        planned(&ending, "patch persistentvolumes v: no claim has the volume any more");
    }

    #[test]
    fn r2_the_phase_follows_the_claim() {
        planned(&view(json!({})), "patch persistentvolumes v status: no claim has the volume");
        let mut bound = view(claimed("Available"));
        bound.has_claim = true;
        planned(&bound, "patch persistentvolumes v status: claim ns/c has the volume");
        planned(&view(claimed("Bound")), "patch persistentvolumes v status: claim ns/c is gone");
        let kept = json!({"/spec/claimRef": {"namespace": "ns", "name": "c"}});
        planned(&view(kept), "patch persistentvolumes v status: the volume is kept for a claim");
    }

    #[test]
    fn r3_a_released_volume_ends_as_its_policy_says() {
        planned(&view(claimed("Released")), "delete persistentvolumes v: its claim is gone, and its policy is Delete");
        let with = |policy: &str| {
            let mut view = view(claimed("Released"));
            view.volume.policy = policy.to_owned();
            view
        };
        planned(&with("Retain"), "");
        planned(
            &with("Recycle"),
            "patch persistentvolumes v status: the policy Recycle is not supported: delete the volume, or remove its claimRef",
        );
        let mut external = view(claimed("Released"));
        external.volume.driver = "csi.example.com".to_owned();
        planned(&external, "");
    }

    #[test]
    fn r4_a_volume_on_a_node_that_is_gone_goes_without() {
        let mut ending =
            view(json!({"/metadata/finalizers": ["windlass.dev/local-volume"], "/status/phase": "Available"}));
        ending.volume.is_ending = true;
        planned(&ending, "");
        ending.has_node = false;
        planned(&ending, "patch persistentvolumes v: the node that the volume was on is gone");
    }
}
