//! Ephemeral volumes: a pod that brings the template of a claim gets a claim of its own, which goes with it.
//!
//! Goal        for each ephemeral volume of a pod that is not over there is a claim POD-VOLUME that the pod owns
//! Watches     Pod; PersistentVolumeClaim (of these names)
//! Writes      PersistentVolumeClaim: create
//! Relies on   `garbage` deletes what belonged to a pod that is gone
//!
//! Rules
//!   R1 made       a missing claim is made from the template, with its labels and annotations
//!   R2 strange    a claim of that name that is not the pod's is left alone, and the pod is told
//! Source: Kubernetes documentation, "Ephemeral Volumes", Generic ephemeral volumes.

use serde_json::{Value, json};
use windlass_api::{Object, kinds};
use windlass_client::{Cache, Caches, Key, ObjectRef};

use crate::controller::{Controller, Look, Wake};
use crate::plan::Plan;

/// The controller of claims that pods bring along.
pub(crate) struct EphemeralVolumes {
    pods: Cache,
    claims: Cache,
}

/// What a decision about one pod depends on.
pub(crate) struct View {
    about: ObjectRef,
    wanted: Vec<Wanted>,
}

/// One claim.
struct Wanted {
    name: String,
    template: Value,
    /// Whether there is one, and whether it is the pod's.
    found: Option<bool>,
}

impl EphemeralVolumes {
    pub(crate) fn new(caches: &Caches) -> EphemeralVolumes {
        EphemeralVolumes { pods: caches.of(&kinds::POD), claims: caches.of(&kinds::PERSISTENT_VOLUME_CLAIM) }
    }
}

/// The claims that a pod brings along, by name.
fn templates(pod: &Object) -> Vec<(String, Value)> {
    const WORD: &[u8] = b"\"volumeClaimTemplate\"";
    if !pod.json.windows(WORD.len()).any(|found| found == WORD) {
        return Vec::new();
    }
    let value = pod.value();
    let volumes = value["spec"]["volumes"].as_array().into_iter().flatten();
    let templates = volumes.filter_map(|volume| {
        let template = volume["ephemeral"].get("volumeClaimTemplate")?;
        Some((format!("{}-{}", pod.header.name(), volume["name"].as_str().unwrap_or_default()), template.clone()))
    });
    templates.collect()
}

impl Controller for EphemeralVolumes {
    type View = View;
    const NAME: &'static str = "ephemeralvolume";

    fn wakes(&self) -> Vec<Wake> {
        vec![Wake::itself(&kinds::POD), Wake::owner(&kinds::PERSISTENT_VOLUME_CLAIM, &kinds::POD)]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let pod = self.pods.get_key(key.as_str())?;
        let header = &pod.header;
        if header.is_ending() || matches!(header.phase(), "Succeeded" | "Failed") {
            return None;
        }
        let templates = pod.memo(templates);
        let found = |name: &str| {
            let claim = self.claims.get(header.namespace(), name)?;
            Some(claim.header.controller().is_some_and(|owner| owner.uid == header.uid()))
        };
        let wanted = templates.iter().map(|(name, template)| Wanted {
            name: name.clone(),
            template: template.clone(),
            found: found(name),
        });
        let wanted: Vec<Wanted> = wanted.filter(|wanted| wanted.found != Some(true)).collect();
        (!wanted.is_empty()).then(|| View { about: ObjectRef::of(header), wanted })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        let about = &view.about;
        for wanted in &view.wanted {
            if wanted.found.is_some() {
                let why = format!(
                    "PVC {}/{} was not created for pod {}/{}: pod is not owner",
                    about.namespace, wanted.name, about.namespace, about.name
                );
                plan.say(about.clone(), "FailedCreate", why);
                continue;
            }
            let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": about.name, "uid": about.uid,
                "controller": true, "blockOwnerDeletion": true});
            let from = &wanted.template["metadata"];
            let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": wanted.name, "namespace": about.namespace, "ownerReferences": [owner],
                    "labels": from["labels"], "annotations": from["annotations"]},
                "spec": wanted.template["spec"]});
            let why = format!("pod {} brings the claim {} along", about.name, wanted.name);
            let item = plan.create(&kinds::PERSISTENT_VOLUME_CLAIM, &about.namespace, claim, why);
            item.tell_only_failure(about.clone(), "FailedCreate");
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::{Controller, EphemeralVolumes, View, Wanted, templates};
    use crate::fixture::{check, object};
    use serde_json::json;
    use windlass_client::ObjectRef;

    fn view(found: Option<bool>) -> View {
        let template = json!({"spec": {"accessModes": ["ReadWriteOnce"]}});
        let pod = object(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "w", "emptyDir": {}}]}}),
        );
        let wanted = templates(&pod).into_iter().map(|(name, template)| Wanted { name, template, found });
        View { about: ObjectRef::of(&pod.header), wanted: wanted.collect() }
    }

    #[test]
    fn r1_a_missing_claim_is_made() {
        let plan = EphemeralVolumes::plan(&view(None));
        check(&plan, "create persistentvolumeclaims ns/p-v: pod p brings the claim p-v along");
    }

    #[test]
    fn r2_a_strange_claim_is_left_alone() {
        let plan = EphemeralVolumes::plan(&view(Some(false)));
        check(&plan, "tell ns/p FailedCreate: PVC ns/p-v was not created for pod ns/p: pod is not owner");
    }
}
