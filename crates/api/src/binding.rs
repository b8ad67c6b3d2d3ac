//! Which PersistentVolumes a claim may be bound to, and from which nodes a volume can be reached.
//!
//! Rules of a match
//!   M1 class      volume and claim are of the same class; an empty class is one too
//!   M2 mode       both are file systems, or both are devices
//!   M3 access     the volume can be mounted in every way that the claim asks for
//!   M4 size       the volume holds at least what the claim asks for; of several the smallest is taken, then the first by name
//!   M5 labels     the claim's selector, if it has one, selects the volume
//!   M6 free       the volume is not ending and reserved for nobody else; one that is reserved for the claim is taken first
//!   M7 place      where a node is chosen, the volume can be reached from it
//! Source: API reference, PersistentVolumeClaimSpec; Kubernetes documentation, "Persistent Volumes", Binding.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Object;
use crate::field::{Errors, Path};
use crate::quantity::Quantity;
use crate::selector::{LabelSelector, Requirement, read_expression};

/// What binding depends on in a PersistentVolume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its revision, so that two claims never get one volume.
    pub revision: u64,
    /// `Available`, `Bound`, …
    pub phase: String,
    /// Empty for none.
    pub class: String,
    /// It is a device, not a file system.
    pub is_block: bool,
    /// What it holds.
    pub bytes: i64,
    /// How it may be mounted.
    pub access: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The claim it belongs to, or is kept for.
    pub claim: Option<ClaimRef>,
    /// What becomes of it when its claim goes.
    pub policy: String,
    /// The CSI driver that has made it; empty for none.
    pub driver: String,
    /// What its driver calls it.
    pub handle: String,
    /// From where it can be reached; `None` is from everywhere.
    pub reach: Option<Reach>,
    /// It is going.
    pub is_ending: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
}

/// The claim that a volume names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; empty when the volume is only kept for it.
    pub uid: String,
}

/// What binding depends on in a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// `Pending`, `Bound`, `Lost`.
    pub phase: String,
    /// `None` asks for the default class.
    pub class: Option<String>,
    /// It asks for a device, not a file system.
    pub is_block: bool,
    /// What it asks for.
    pub bytes: i64,
    /// How it is to be mounted.
    pub access: Vec<String>,
    /// Which volumes it takes.
    pub selector: Option<LabelSelector>,
    /// The volume it has, or wants.
    pub volume: String,
    /// The node that its first pod will run on.
    pub selected_node: String,
    /// Who shall make its volume, as its annotation has it.
    pub provisioner: String,
    /// Who shall make it larger, as its annotation has it.
    pub resizer: String,
    /// What its volume is to be filled from, as `KIND NAME`; empty for nothing.
    pub source: String,
    /// What its status says that it has.
    pub capacity_bytes: i64,
    /// It is going.
    pub is_ending: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
}

/// The annotation by which the scheduler says on which node the first pod of a claim will run.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The annotation that says who shall make a claim's volume.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The annotation that says who shall make a claim's volume larger.
pub const RESIZER: &str = "volume.kubernetes.io/storage-resizer";
/// The driver of volumes that are directories on their node, made by the node's own agent.
pub const LOCAL_DRIVER: &str = "local.windlass.dev";
/// The parameter of a class of [`LOCAL_DRIVER`], and the attribute of its volumes, by which they hold no more than they say.
pub const ENFORCE_SIZE: &str = "enforceSize";
/// What keeps a PersistentVolume of [`LOCAL_DRIVER`] until its node has removed the directory.
pub const LOCAL_FINALIZER: &str = "windlass.dev/local-volume";

/// The name of the VolumeAttachment of a driver's volume to a node, by which drivers' own programs know it.
pub fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    format!("csi-{}", hash(&[handle, driver, node]))
}

/// What a driver calls a volume that lives and ends with its pod; `name` is the volume's in the pod.
pub fn inline_handle(pod_uid: &str, name: &str) -> String {
    format!("csi-{}", hash(&[pod_uid, name]))
}

fn hash(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.concat().as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the status of a Node calls a driver's volume.
pub fn volume_in_use(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn bytes(value: &Value) -> i64 {
    Quantity::from_json(value).map_or(0, Quantity::units)
}

/// The newer field can name more than the older, which follows it where it can.
fn source(spec: &Value) -> String {
    let source = ["dataSourceRef", "dataSource"].iter().map(|field| &spec[*field]).find(|source| source.is_object());
    source.map(|source| format!("{} {}", text(&source["kind"]), text(&source["name"]))).unwrap_or_default()
}

impl Volume {
    /// Reads a PersistentVolume.
    pub fn read(object: &Object) -> Volume {
        let (value, header) = (object.value(), &object.header);
        let spec = &value["spec"];
        let claim = &spec["claimRef"];
        Volume {
            name: header.name().to_owned(),
            uid: header.uid().to_owned(),
            revision: header.revision,
            phase: text(&value["status"]["phase"]),
            class: text(&spec["storageClassName"]),
            is_block: spec["volumeMode"] == "Block",
            bytes: bytes(&spec["capacity"]["storage"]),
            access: texts(&spec["accessModes"]),
            labels: header.labels().to_map(),
            claim: claim.is_object().then(|| ClaimRef {
                namespace: text(&claim["namespace"]),
                name: text(&claim["name"]),
                uid: text(&claim["uid"]),
            }),
            policy: text(&spec["persistentVolumeReclaimPolicy"]),
            driver: text(&spec["csi"]["driver"]),
            handle: text(&spec["csi"]["volumeHandle"]),
            reach: Reach::read(&spec["nodeAffinity"]["required"]),
            is_ending: header.is_ending(),
            finalizers: header.finalizers().map(str::to_owned).collect(),
        }
    }

    /// Whether it can be reached from a node.
    pub fn is_reached(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        self.reach.as_ref().is_none_or(|reach| reach.includes(node, labels))
    }

    /// Whether it is kept for this claim, or has been given to it.
    pub fn is_for(&self, claim: &Claim) -> bool {
        self.claim.as_ref().is_some_and(|found| {
            found.namespace == claim.namespace
                && found.name == claim.name
                && (found.uid.is_empty() || found.uid == claim.uid)
        })
    }

    /// M1 to M6.
    pub fn fits(&self, claim: &Claim) -> bool {
        let is_free = self.is_for(claim) || self.claim.is_none() && self.phase == "Available";
        is_free
            && !self.is_ending
            && self.class == claim.class.as_deref().unwrap_or_default()
            && self.is_block == claim.is_block
            && claim.access.iter().all(|wanted| self.access.contains(wanted))
            && self.bytes >= claim.bytes
            && claim.selector.as_ref().is_none_or(|selector| selector.matches(&self.labels))
    }
}

impl Claim {
    /// Reads a PersistentVolumeClaim.
    pub fn read(object: &Object) -> Claim {
        let (value, header) = (object.value(), &object.header);
        let (spec, annotations) = (&value["spec"], &value["metadata"]["annotations"]);
        let selector = spec.get("selector").filter(|selector| !selector.is_null());
        let mut errors = Errors::new();
        Claim {
            namespace: header.namespace().to_owned(),
            name: header.name().to_owned(),
            uid: header.uid().to_owned(),
            phase: text(&value["status"]["phase"]),
            class: spec["storageClassName"].as_str().map(str::to_owned),
            is_block: spec["volumeMode"] == "Block",
            bytes: bytes(&spec["resources"]["requests"]["storage"]),
            access: texts(&spec["accessModes"]),
            selector: selector
                .map(|selector| LabelSelector::from_json(selector, &Path::new("spec").child("selector"), &mut errors)),
            volume: text(&spec["volumeName"]),
            selected_node: text(&annotations[SELECTED_NODE]),
            provisioner: text(&annotations[PROVISIONER]),
            resizer: text(&annotations[RESIZER]),
            source: source(spec),
            capacity_bytes: bytes(&value["status"]["capacity"]["storage"]),
            is_ending: header.is_ending(),
            finalizers: header.finalizers().map(str::to_owned).collect(),
        }
    }

    /// Whether only one pod at a time may use it.
    pub fn is_for_one_pod(&self) -> bool {
        self.access.iter().any(|mode| mode == "ReadWriteOncePod")
    }
}

/// The best volume for a claim (M4, M6), of those that `reached` lets pass (M7).
pub fn find<'a>(
    claim: &Claim,
    volumes: impl IntoIterator<Item = &'a Volume>,
    reached: impl Fn(&Volume) -> bool,
) -> Option<&'a Volume> {
    let fitting = volumes.into_iter().filter(|volume| volume.fits(claim) && reached(volume));
    fitting.min_by_key(|volume| (!volume.is_for(claim), volume.bytes, &volume.name))
}

/// The nodes that a volume can be reached from: those that any term selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach(Vec<Term>);

/// All of it must hold. An empty one, or one that cannot be read, holds nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    labels: Vec<Requirement>,
    names: Vec<Requirement>,
    is_broken: bool,
}

impl Reach {
    /// Reads a node selector; `None` when there is none.
    pub fn read(selector: &Value) -> Option<Reach> {
        let terms = selector["nodeSelectorTerms"].as_array()?;
        Some(Reach(terms.iter().map(Term::read).collect()))
    }

    /// Whether a node of this name and these labels is among them.
    pub fn includes(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().any(|term| term.holds(node, labels))
    }
}

/// Whether a PersistentVolume is a directory that the agent of this node has made, or shall make.
pub fn is_local_on(volume: &Value, node: &str) -> bool {
    let reach = Reach::read(&volume["spec"]["nodeAffinity"]["required"]);
    let is_here = reach.is_some_and(|reach| reach.includes(node, &BTreeMap::new()));
    is_here && volume["spec"]["csi"]["driver"] == LOCAL_DRIVER
}

impl Term {
    fn read(wire: &Value) -> Term {
        let mut errors = Errors::new();
        let mut read = |field: &str| -> Vec<Requirement> {
            let expressions = wire[field].as_array().map(Vec::as_slice).unwrap_or_default();
            expressions.iter().filter_map(|found| read_expression(found, &Path::new(field), &mut errors)).collect()
        };
        let (labels, names) = (read("matchExpressions"), read("matchFields"));
        let is_empty = labels.is_empty() && names.is_empty();
        let is_broken = is_empty || !errors.is_empty() || names.iter().any(|found| found.key != "metadata.name");
        Term { labels, names, is_broken }
    }

    fn holds(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        !self.is_broken
            && self.labels.iter().all(|found| found.matches(labels.get(&found.key).map(String::as_str)))
            && self.names.iter().all(|found| found.matches(Some(node)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, Volume, find};
    use crate::Object;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn object(value: &Value) -> Object {
        Object::parse(value.to_string().into_bytes().into()).expect("an object")
    }

    fn volume(name: &str, size: &str, more: Value) -> Volume {
        let mut value = json!({"metadata": {"name": name, "labels": {"tier": "fast"}}, "status": {"phase": "Available"},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "c"}});
        for (key, what) in more.as_object().into_iter().flatten() {
            value["spec"][key] = what.clone();
        }
        Volume::read(&object(&value))
    }

    fn claim(more: Value) -> Claim {
        let mut value = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"], "storageClassName": "c"}});
        for (key, what) in more.as_object().into_iter().flatten() {
            value["spec"][key] = what.clone();
        }
        Claim::read(&object(&value))
    }

    fn found(claim: &Claim, volumes: &[Volume]) -> Option<String> {
        find(claim, volumes, |_| true).map(|volume| volume.name.clone())
    }

    #[test]
    fn m4_the_smallest_that_is_large_enough_is_taken() {
        let volumes = [volume("a", "5Gi", json!({})), volume("b", "1Gi", json!({})), volume("c", "512Mi", json!({}))];
        assert_eq!(found(&claim(json!({})), &volumes).as_deref(), Some("b"));
        let large = json!({"resources": {"requests": {"storage": "6Gi"}}});
        assert_eq!(found(&claim(large), &volumes), None);
    }

    #[test]
    fn m1_m2_m3_m5_class_mode_access_and_labels_must_agree() {
        let volumes = [volume("a", "1Gi", json!({}))];
        for (more, fits) in [
            (json!({}), true),
            (json!({"storageClassName": ""}), false),
            (json!({"volumeMode": "Block"}), false),
            (json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}), false),
            (json!({"selector": {"matchLabels": {"tier": "fast"}}}), true),
            (json!({"selector": {"matchLabels": {"tier": "slow"}}}), false),
        ] {
            assert_eq!(found(&claim(more.clone()), &volumes).is_some(), fits, "{more}");
        }
    }

    #[test]
    fn m6_what_is_kept_for_a_claim_goes_to_it_and_to_nobody_else() {
        let kept = |name: &str, uid: &str| json!({"claimRef": {"namespace": "ns", "name": name, "uid": uid}});
        let volumes = [volume("a", "1Gi", json!({})), volume("b", "9Gi", kept("c", ""))];
        assert_eq!(found(&claim(json!({})), &volumes).as_deref(), Some("b"));
        for other in [kept("d", ""), kept("c", "another")] {
            assert_eq!(found(&claim(json!({})), &[volume("b", "9Gi", other)]), None);
        }
    }

    #[test]
    fn m7_a_volume_is_reached_from_the_nodes_that_it_names() {
        let expression = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let affinity = |terms: Value| json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
        let by_name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]);
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let rows = [
            (json!({}), true, true),
            (affinity(json!([{"matchExpressions": [expression]}])), true, false),
            (affinity(by_name), true, false),
            (affinity(json!([{}])), false, false),
        ];
        for (more, here, there) in rows {
            let volume = volume("a", "1Gi", more.clone());
            assert_eq!(
                (volume.is_reached("n1", &labels), volume.is_reached("n2", &BTreeMap::new())),
                (here, there),
                "{more}"
            );
        }
    }
}
