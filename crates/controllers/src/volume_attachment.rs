//! VolumeAttachment: volumes of CSI drivers are attached to the nodes whose pods use them, and to no others.
//!
//! Goal        a volume whose driver wants it attached has a VolumeAttachment on each node that has a pod using it
//! Watches     Pod; PersistentVolumeClaim; PersistentVolume; VolumeAttachment; Node; CSIDriver
//! Writes      VolumeAttachment: create, delete · Node: status.volumesAttached
//! Relies on   the driver's own programs attach and detach, and say so in the VolumeAttachment's status · the node's agent
//!             names in `status.volumesInUse` what it still uses
//!
//! Rules
//!   R1 attach      what a pod bound to a node uses is attached there, unless its driver says that nothing is attached
//!   R2 one node    a volume that only one node may write is not attached to another until it is detached from the first; the
//!                  pod is told
//!   R3 detach      what no pod uses any more is detached once its node does not say that it is in use; of a node that is gone
//!                  or out of service at once, of one that has not been ready for SILENT_MAX then
//!   R4 tell        the Node says which volumes are attached to it, and pods hear of it
//!   R5 strange     attachments of other names than ours are left alone
//! Source: Kubernetes documentation, "CSI"; "Non-graceful node shutdown"; API reference, VolumeAttachment.
//! Not here       attaching (the driver's programs) · volumes that live with their pods: nobody attaches those

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_api::binding::{Claim, LOCAL_DRIVER, Volume, attachment_name, volume_in_use};
use windlass_api::{Object, kinds};
use windlass_client::{Cache, Cached, Caches, Key, ObjectRef, Patch};

use crate::controller::{Controller, Look, Wake};
use crate::persistent_volume_claim::claims_of;
use crate::plan::{Plan, Target};

/// How long a node that is not ready keeps what it says is in use, as Kubernetes has it.
const SILENT_MAX: Duration = Duration::from_secs(360);
/// The taint of a node that somebody has said is off for certain.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The controller of attachments, by node.
pub(crate) struct VolumeAttachments {
    pods: Cache,
    claims: Cache,
    volumes: Cache,
    attachments: Cache,
    nodes: Cache,
    drivers: Cache,
    /// R2: the node that a volume of one writer was last planned for, which our copy may not show yet.
    promised: Mutex<BTreeMap<String, (String, Instant)>>,
}

/// How long a volume is promised to a node: longer than it takes until our copy shows what was written.
const PROMISE: Duration = Duration::from_secs(15);

/// What a decision about one node depends on.
pub(crate) struct View {
    node: String,
    /// What its pods use, by the attachment's name.
    wanted: BTreeMap<String, Wanted>,
    /// What is attached to it, or about to be.
    attachments: Vec<Arc<Attachment>>,
    facts: Option<Arc<NodeFacts>>,
    target: Option<Target>,
    /// For how long the node has not been ready.
    silent_for: Option<Duration>,
}

/// A volume that pods of the node use.
struct Wanted {
    volume: Arc<Volume>,
    pods: Vec<ObjectRef>,
    /// Another node has it, and only one may.
    elsewhere: bool,
}

/// What is known of a VolumeAttachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Attachment {
    name: String,
    uid: String,
    driver: String,
    node: String,
    volume: String,
    is_attached: bool,
    is_ending: bool,
}

impl Attachment {
    fn read(object: &Object) -> Attachment {
        let value = object.value();
        let spec = &value["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Attachment {
            name: object.header.name().to_owned(),
            uid: object.header.uid().to_owned(),
            driver: text(&spec["attacher"]),
            node: text(&spec["nodeName"]),
            volume: text(&spec["source"]["persistentVolumeName"]),
            is_attached: value["status"]["attached"] == true,
            is_ending: object.header.is_ending(),
        }
    }

    /// R5.
    fn is_ours(&self) -> bool {
        let hash = self.name.strip_prefix("csi-").unwrap_or_default();
        hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

/// What is known of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NodeFacts {
    in_use: BTreeSet<String>,
    attached: Vec<String>,
    is_out: bool,
    /// Since when it is not ready.
    silent_since: Option<jiff::Timestamp>,
}

impl NodeFacts {
    fn read(object: &Object) -> NodeFacts {
        let value = object.value();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
        let status = &value["status"];
        let ready = list(&status["conditions"]).into_iter().find(|condition| condition["type"] == "Ready");
        let silent = ready.filter(|condition| condition["status"] != "True");
        NodeFacts {
            in_use: list(&status["volumesInUse"]).iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            attached: list(&status["volumesAttached"]).iter().map(name).collect(),
            is_out: list(&value["spec"]["taints"]).iter().any(|taint| taint["key"] == OUT_OF_SERVICE),
            silent_since: silent.and_then(|condition| condition["lastTransitionTime"].as_str()?.parse().ok()),
        }
    }
}

impl VolumeAttachments {
    pub(crate) fn new(caches: &Caches) -> VolumeAttachments {
        VolumeAttachments {
            pods: caches.of(&kinds::POD),
            claims: caches.of(&kinds::PERSISTENT_VOLUME_CLAIM),
            volumes: caches.of(&kinds::PERSISTENT_VOLUME),
            attachments: caches.of(&kinds::VOLUME_ATTACHMENT),
            nodes: caches.of(&kinds::NODE),
            drivers: caches.of(&kinds::CSI_DRIVER),
            promised: Mutex::default(),
        }
    }

    /// What a pod uses that may have to be attached.
    fn used_by(&self, pod: &Cached) -> Vec<Arc<Volume>> {
        let of_claim = |name: &String| {
            let claim = self.claims.get(pod.header.namespace(), name)?.memo(Claim::read);
            let volume = self.volumes.get("", &claim.volume)?.memo(Volume::read);
            let is_its = claim.phase == "Bound" && volume.claim.as_ref().is_some_and(|named| named.uid == claim.uid);
            let is_drivers = !volume.driver.is_empty() && volume.driver != LOCAL_DRIVER;
            (is_its && is_drivers && self.attaches(&volume.driver)).then_some(volume)
        };
        pod.memo(claims_of).iter().filter_map(of_claim).collect()
    }

    /// R1: a driver that says nothing wants its volumes attached.
    fn attaches(&self, driver: &str) -> bool {
        self.drivers.get("", driver).is_none_or(|object| object.value()["spec"]["attachRequired"] != false)
    }

    fn wanted(&self, node: &str) -> BTreeMap<String, Wanted> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        for pod in self.pods.on_node(node) {
            if matches!(pod.header.phase(), "Succeeded" | "Failed") {
                continue;
            }
            for volume in self.used_by(&pod) {
                let name = attachment_name(&volume.driver, &volume.handle, node);
                let new = || Wanted {
                    elsewhere: self.is_elsewhere(&volume, node),
                    volume: Arc::clone(&volume),
                    pods: Vec::new(),
                };
                wanted.entry(name).or_insert_with(new).pods.push(ObjectRef::of(&pod.header));
            }
        }
        wanted
    }

    /// R2. Nodes are planned for at the same time: who is told no here keeps the volume for nobody else.
    fn is_elsewhere(&self, volume: &Volume, node: &str) -> bool {
        if volume.access.iter().any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany")) {
            return false;
        }
        let is_attached = self.attachments.list().iter().any(|object| {
            let other = object.memo(Attachment::read);
            other.volume == volume.name && other.node != node && other.is_ours()
        });
        let now = Instant::now();
        let mut promised = self.promised.lock().expect("nothing panics while holding it");
        promised.retain(|_, (_, until)| *until > now);
        if is_attached || promised.get(&volume.name).is_some_and(|(other, _)| other != node) {
            return true;
        }
        promised.insert(volume.name.clone(), (node.to_owned(), now + PROMISE));
        false
    }
}

impl Controller for VolumeAttachments {
    type View = View;
    const NAME: &'static str = "volumeattachment";

    fn wakes(&self) -> Vec<Wake> {
        let of_pods = Wake::new(&kinds::POD, |change, wake| {
            for pod in [&change.old, &change.new].into_iter().flatten() {
                if !pod.header.node_name().is_empty() && !pod.memo(claims_of).is_empty() {
                    wake(Key::new("", pod.header.node_name()));
                }
            }
        });
        let pods = self.pods.clone();
        let users = move |namespace: &str, claim: &str, wake: &mut dyn FnMut(Key)| {
            for pod in pods.in_namespace(namespace) {
                if !pod.header.node_name().is_empty() && pod.memo(claims_of).iter().any(|name| name == claim) {
                    wake(Key::new("", pod.header.node_name()));
                }
            }
        };
        let by_claim = users.clone();
        let of_claims = Wake::new(&kinds::PERSISTENT_VOLUME_CLAIM, move |change, wake| {
            by_claim(change.key.namespace(), change.key.name(), wake);
        });
        let by_volume = users.clone();
        let of_volumes = Wake::new(&kinds::PERSISTENT_VOLUME, move |change, wake| {
            if let Some(claim) = change.new.as_ref().and_then(|new| new.memo(Volume::read).claim.clone()) {
                by_volume(&claim.namespace, &claim.name, wake);
            }
        });
        let volumes = self.volumes.clone();
        let of_attachments = Wake::new(&kinds::VOLUME_ATTACHMENT, move |change, wake| {
            for seen in [&change.old, &change.new].into_iter().flatten() {
                let attachment = seen.memo(Attachment::read);
                wake(Key::new("", &attachment.node));
                // One that has gone lets another node have the volume.
                let volume = volumes.get("", &attachment.volume).filter(|_| change.new.is_none());
                if let Some(claim) = volume.and_then(|volume| volume.memo(Volume::read).claim.clone()) {
                    users(&claim.namespace, &claim.name, wake);
                }
            }
        });
        let nodes = self.nodes.clone();
        let of_drivers = Wake::new(&kinds::CSI_DRIVER, move |_, wake| {
            nodes.list().iter().for_each(|node| wake(Key::of(&node.header)));
        });
        vec![of_pods, of_claims, of_volumes, of_attachments, Wake::itself(&kinds::NODE), of_drivers]
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let node = key.name();
        let attachments: Vec<Arc<Attachment>> = self
            .attachments
            .list()
            .iter()
            .map(|object| object.memo(Attachment::read))
            .filter(|it| it.node == node)
            .collect();
        let wanted = self.wanted(node);
        let object = self.nodes.get("", node);
        let facts = object.as_ref().map(|object| object.memo(NodeFacts::read));
        if attachments.is_empty() && wanted.is_empty() && facts.as_ref().is_none_or(|facts| facts.attached.is_empty()) {
            return None;
        }
        let silent = facts.as_ref().and_then(|facts| facts.silent_since);
        Some(View {
            node: node.to_owned(),
            wanted,
            attachments,
            silent_for: silent.map(|since| Duration::try_from(look.now.duration_since(since)).unwrap_or_default()),
            facts,
            target: object.map(|object| Target::of(&kinds::NODE, &object.header)),
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        view.attach(&mut plan);
        view.detach(&mut plan);
        view.tell(&mut plan);
        plan
    }
}

impl View {
    /// R1, R2.
    fn attach(&self, plan: &mut Plan) {
        if self.target.is_none() {
            return;
        }
        for (name, wanted) in &self.wanted {
            if self.attachments.iter().any(|found| found.name == *name) {
                continue;
            }
            let volume = &wanted.volume;
            if wanted.elsewhere {
                let why = format!(
                    "Multi-Attach error for volume {:?} Volume is already exclusively attached to one node and can't be attached to another",
                    volume.name
                );
                for pod in &wanted.pods {
                    plan.say(pod.clone(), "FailedAttachVolume", why.clone()).as_warning();
                }
                plan.look_again(PROMISE, "the other node may not have used it in the end");
                continue;
            }
            let object = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": name},
                "spec": {"attacher": volume.driver, "nodeName": self.node, "source": {"persistentVolumeName": volume.name}}});
            let why = format!("a pod on node {} uses volume {}", self.node, volume.name);
            plan.create(&kinds::VOLUME_ATTACHMENT, "", object, why);
        }
    }

    /// R3.
    fn detach(&self, plan: &mut Plan) {
        let unused = self.attachments.iter().filter(|found| found.is_ours() && !found.is_ending);
        for found in unused.filter(|found| !self.wanted.contains_key(&found.name)) {
            let Some(why) = self.may_detach(found, plan) else { continue };
            let key = Key::new("", &found.name);
            let target = Target { kind: kinds::VOLUME_ATTACHMENT.clone(), key, uid: found.uid.clone() };
            plan.delete(target, why);
        }
    }

    fn may_detach(&self, found: &Attachment, plan: &mut Plan) -> Option<String> {
        let Some(facts) = &self.facts else { return Some(format!("node {} is gone", self.node)) };
        // What a driver calls the volume is in the attachment's name only; the node names it in full.
        let is_it = |name: &&String| {
            let handle = name.strip_prefix(&volume_in_use(&found.driver, ""));
            handle.is_some_and(|handle| attachment_name(&found.driver, handle, &self.node) == found.name)
        };
        if !facts.in_use.iter().any(|name| is_it(&name)) {
            return Some("no pod uses the volume any more".to_owned());
        }
        if facts.is_out {
            return Some(format!("node {} is out of service", self.node));
        }
        match self.silent_for {
            Some(silent_for) if silent_for >= SILENT_MAX => {
                Some(format!("node {} has not been ready for {} s", self.node, SILENT_MAX.as_secs()))
            }
            Some(silent_for) => {
                plan.look_again(
                    SILENT_MAX - silent_for,
                    format!("node {} will have been silent long enough", self.node),
                );
                None
            }
            None => None,
        }
    }

    /// R4.
    fn tell(&self, plan: &mut Plan) {
        let (Some(facts), Some(target)) = (&self.facts, &self.target) else { return };
        let mut attached = Vec::new();
        for (name, wanted) in &self.wanted {
            if self.attachments.iter().any(|found| found.name == *name && found.is_attached && !found.is_ending) {
                let volume = volume_in_use(&wanted.volume.driver, &wanted.volume.handle);
                if !facts.attached.contains(&volume) {
                    let why = format!("AttachVolume.Attach succeeded for volume {:?}", wanted.volume.name);
                    for pod in &wanted.pods {
                        plan.say(pod.clone(), "SuccessfulAttachVolume", why.clone());
                    }
                }
                attached.push(volume);
            }
        }
        attached.sort();
        if attached != facts.attached {
            let list: Vec<Value> = attached.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
            let patch = Patch::Merge(json!({"status": {"volumesAttached": list}}));
            plan.patch_status(target.clone(), patch, "other volumes are attached to it now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Attachment, NodeFacts, SILENT_MAX, View, VolumeAttachments, Wanted, attachment_name};
    use crate::controller::Controller;
    use crate::fixture::check;
    use crate::plan::Target;
    use std::sync::Arc;
    use std::time::Duration;
    use windlass_api::binding::Volume;
    use windlass_api::kinds;
    use windlass_client::{Key, ObjectRef};

    fn name() -> String {
        attachment_name("d", "h", "n")
    }

    fn wanted(elsewhere: bool) -> Wanted {
        let volume = Volume { name: "v".into(), driver: "d".into(), handle: "h".into(), ..Volume::default() };
        let pod = ObjectRef {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: "ns".into(),
            name: "p".into(),
            uid: "up".into(),
            field_path: String::new(),
        };
        Wanted { volume: Arc::new(volume), pods: vec![pod], elsewhere }
    }

    fn attachment(is_attached: bool) -> Attachment {
        let name = name();
        let (driver, node, volume) = ("d".to_owned(), "n".to_owned(), "v".to_owned());
        Attachment { name, uid: "u".into(), driver, node, volume, is_attached, is_ending: false }
    }

    fn view(wants: Option<bool>, has: Option<bool>, facts: NodeFacts) -> View {
        let key = Key::new("", "n");
        View {
            node: "n".to_owned(),
            wanted: wants.map(|elsewhere| (name(), wanted(elsewhere))).into_iter().collect(),
            attachments: has.map(|attached| Arc::new(attachment(attached))).into_iter().collect(),
            facts: Some(Arc::new(facts)),
            target: Some(Target { kind: kinds::NODE.clone(), key, uid: "un".to_owned() }),
            silent_for: None,
        }
    }

    #[track_caller]
    fn planned(view: &View, expected: &str) {
        check(&VolumeAttachments::plan(view), &expected.replace("NAME", &name()));
    }

    fn in_use() -> NodeFacts {
        NodeFacts { in_use: ["kubernetes.io/csi/d^h".to_owned()].into(), ..NodeFacts::default() }
    }

    #[test]
    fn r1_what_a_pod_uses_is_attached_once() {
        planned(
            &view(Some(false), None, NodeFacts::default()),
            "create volumeattachments NAME: a pod on node n uses volume v",
        );
        planned(&view(Some(false), Some(false), NodeFacts::default()), "");
    }

    #[test]
    fn r2_what_another_node_has_waits_and_the_pod_is_told() {
        planned(
            &view(Some(true), None, NodeFacts::default()),
            "tell ns/p FailedAttachVolume: Multi-Attach error for volume \"v\" Volume is already exclusively attached to one node and can't be attached to another\nagain after 15s: the other node may not have used it in the end",
        );
    }

    #[test]
    fn r3_what_no_pod_uses_is_detached_once_its_node_lets_go() {
        planned(&view(None, Some(true), in_use()), "");
        planned(
            &view(None, Some(true), NodeFacts::default()),
            "delete volumeattachments NAME: no pod uses the volume any more",
        );
        let out = NodeFacts { is_out: true, ..in_use() };
        planned(&view(None, Some(true), out), "delete volumeattachments NAME: node n is out of service");
        let mut silent = view(None, Some(true), in_use());
        silent.silent_for = Some(SILENT_MAX - Duration::from_secs(60));
        planned(&silent, "again after 60s: node n will have been silent long enough");
        silent.silent_for = Some(SILENT_MAX);
        planned(&silent, "delete volumeattachments NAME: node n has not been ready for 360 s");
        let mut gone = view(None, Some(true), in_use());
        (gone.facts, gone.target) = (None, None);
        planned(&gone, "delete volumeattachments NAME: node n is gone");
    }

    #[test]
    fn r4_the_node_says_what_is_attached_and_pods_hear_of_it() {
        planned(
            &view(Some(false), Some(true), NodeFacts::default()),
            "tell ns/p SuccessfulAttachVolume: AttachVolume.Attach succeeded for volume \"v\"
             patch nodes n status: other volumes are attached to it now",
        );
        let told = NodeFacts { attached: vec!["kubernetes.io/csi/d^h".to_owned()], ..NodeFacts::default() };
        planned(&view(Some(false), Some(true), told), "");
    }

    #[test]
    fn r5_attachments_of_other_names_are_left_alone() {
        let mut view = view(None, None, NodeFacts::default());
        view.attachments = vec![Arc::new(Attachment { name: "by-hand".to_owned(), ..attachment(true) })];
        planned(&view, "");
    }
}
