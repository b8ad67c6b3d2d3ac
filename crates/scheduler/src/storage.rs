//! What a pod's claims ask of its node.
//!
//! Rules, in order
//!   S1 there      a pod whose claim does not exist, is lost or is going waits
//!   S2 alone      a claim for one pod at a time keeps every other pod waiting
//!   S3 bound      the node must reach the volume that the claim is bound to
//!   S4 at once    a pod whose claim is to be bound without it waits until that is done
//!   S5 first pod  the node must reach a volume that fits the claim, or the claim's class must have a provisioner that can
//!                 make one there; then the claim is told the node, and the pod waits until it is bound
//!   S6 topology   a volume is made only where its class allows it, and where its driver, if it says, has room for it
//!   S7 count      a node takes as many volumes of a driver as its CSINode says, those still attached to it included
//!
//! Source: Kubernetes documentation, "Storage Classes", volumeBindingMode and allowedTopologies, "Storage Capacity",
//! "Node-specific Volume Limits"; the words are those of its events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::binding::{Claim, LOCAL_DRIVER, Reach, Volume};
use windlass_api::field::{Errors, Path};
use windlass_api::quantity::Quantity;
use windlass_api::selector::LabelSelector;
use windlass_api::{Object, kinds};
use windlass_client::{Cache, Cached, Caches, Key, Notice, Subscription};

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
    drivers: Cache,
    driver_nodes: Cache,
    capacities: Cache,
    attachments: Cache,
    changes: [Subscription; 6],
}

/// What a pod's claims ask.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// Each must be met by the node.
    pub(crate) needs: Vec<Need>,
    /// The claims that wait to be told the node.
    pub(crate) undecided: Vec<Key>,
}

/// The volumes of a pod, by their drivers: handles, and names of claims that have none yet.
type Drivers = BTreeMap<String, BTreeSet<String>>;

/// Where a pod's node must be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Within one of these reaches.
    Within(Vec<Reach>),
    /// Where its labels are selected by one of these.
    Selected(Vec<LabelSelector>),
    /// Not one of these.
    Not(BTreeSet<String>),
}

/// What a node must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    place: Place,
    /// What is said of a node that is not.
    pub(crate) why: &'static str,
}

impl Need {
    /// Whether a node is within reach.
    pub(crate) fn is_met(&self, node: &Node, facts: &NodeFacts) -> bool {
        match &self.place {
            Place::Within(reaches) => reaches.iter().any(|reach| reach.includes(&node.name, &facts.labels)),
            Place::Selected(selectors) => selectors.iter().any(|selector| selector.matches(&facts.labels)),
            Place::Not(nodes) => !nodes.contains(&*node.name),
        }
    }
}

/// What is said of a node where no volume can be had.
const NONE_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";

/// Counts a volume to its driver.
fn count(drivers: &mut Drivers, volume: &Volume) {
    if !volume.driver.is_empty() && volume.driver != LOCAL_DRIVER {
        drivers.entry(volume.driver.clone()).or_default().insert(volume.handle.clone());
    }
}

/// The claims that a pod uses, read once.
struct Uses(Vec<String>);

impl Uses {
    fn read(pod: &Object) -> Uses {
        Uses(Pod::read(pod).volume_claims)
    }
}

/// The node and the volume of a VolumeAttachment.
struct Attached {
    node: String,
    volume: String,
}

impl Attached {
    fn read(object: &Object) -> Attached {
        let value = object.value();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spec = &value["spec"];
        Attached { node: text(&spec["nodeName"]), volume: text(&spec["source"]["persistentVolumeName"]) }
    }
}

/// How many volumes of which driver a node takes, as its CSINode says.
fn limits_of(object: &Object) -> BTreeMap<String, usize> {
    let value = object.value();
    let rows = value["spec"]["drivers"].as_array().into_iter().flatten();
    let limit = |row: &Value| {
        let count = usize::try_from(row["allocatable"]["count"].as_u64()?).ok()?;
        Some((row["name"].as_str()?.to_owned(), count))
    };
    rows.filter_map(limit).collect()
}

/// What a class says about where its volumes can be.
#[derive(Default)]
struct Class {
    name: String,
    waits: bool,
    makes: bool,
    provisioner: String,
    /// Where its volumes may be made; `None` is everywhere.
    topology: Option<Reach>,
}

impl Class {
    fn read(object: &Object) -> Class {
        let value = object.value();
        let terms = value["allowedTopologies"].as_array().filter(|terms| !terms.is_empty());
        let topology = terms.and_then(|terms| {
            let terms: Vec<Value> = terms.iter().map(topology_term).collect();
            Reach::read(&json!({"nodeSelectorTerms": terms}))
        });
        Class {
            name: object.header.name().to_owned(),
            waits: value["volumeBindingMode"] == "WaitForFirstConsumer",
            makes: value["provisioner"] != NO_PROVISIONER,
            provisioner: value["provisioner"].as_str().unwrap_or_default().to_owned(),
            topology,
        }
    }
}

/// A term of allowedTopologies as one of a node selector.
fn topology_term(term: &Value) -> Value {
    let expressions = term["matchLabelExpressions"].as_array().into_iter().flatten();
    let expressions: Vec<Value> =
        expressions.map(|found| json!({"key": found["key"], "operator": "In", "values": found["values"]})).collect();
    json!({"matchExpressions": expressions})
}

/// Where a driver has how much room for volumes of a class.
#[derive(Default)]
struct Capacity {
    class: String,
    selector: Option<LabelSelector>,
    bytes: i64,
}

impl Capacity {
    fn read(object: &Object) -> Capacity {
        let value = object.value();
        let bytes = |field: &str| Quantity::from_json(&value[field]).map(Quantity::units).ok();
        let selector = value.get("nodeTopology").filter(|selector| selector.is_object());
        let mut errors = Errors::new();
        Capacity {
            class: value["storageClassName"].as_str().unwrap_or_default().to_owned(),
            selector: selector.map(|found| LabelSelector::from_json(found, &Path::new("nodeTopology"), &mut errors)),
            bytes: bytes("maximumVolumeSize").or_else(|| bytes("capacity")).unwrap_or(0),
        }
    }
}

impl Storage {
    pub(crate) fn new(caches: &Caches) -> Storage {
        let [claims, volumes, classes] =
            [&kinds::PERSISTENT_VOLUME_CLAIM, &kinds::PERSISTENT_VOLUME, &kinds::STORAGE_CLASS]
                .map(|kind| caches.of(kind));
        let [drivers, driver_nodes, capacities, attachments] =
            [&kinds::CSI_DRIVER, &kinds::CSI_NODE, &kinds::CSI_STORAGE_CAPACITY, &kinds::VOLUME_ATTACHMENT]
                .map(|kind| caches.of(kind));
        let changes =
            [&claims, &volumes, &classes, &driver_nodes, &capacities, &attachments].map(|cache| cache.subscribe());
        let pods = caches.of(&kinds::POD);
        Storage { claims, volumes, classes, pods, drivers, driver_nodes, capacities, attachments, changes }
    }

    /// Resolves once everything has been seen.
    pub(crate) async fn synced(&self) {
        let own = [&self.claims, &self.volumes, &self.classes];
        let of_drivers = [&self.drivers, &self.driver_nodes, &self.capacities, &self.attachments];
        for cache in own.into_iter().chain(of_drivers) {
            cache.synced().await;
        }
    }

    /// Waits for a change that may let a pod go on. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Notice {
        let [claims, volumes, classes, nodes, capacities, attachments] = &mut self.changes;
        tokio::select! {
            biased;
            notice = claims.next() => notice,
            notice = volumes.next() => notice,
            notice = classes.next() => notice,
            notice = nodes.next() => notice,
            notice = capacities.next() => notice,
            notice = attachments.next() => notice,
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

    /// What this pod's claims ask, or why it cannot go anywhere yet, and what may change that. `placed` are pods on their way
    /// to their nodes.
    pub(crate) fn wants<'a>(
        &self,
        pod: &Pod,
        placed: impl Iterator<Item = (&'a Key, &'a str)> + Clone,
    ) -> Result<Wants, (Cure, String)> {
        let mut wants = Wants::default();
        let mut drivers = Drivers::new();
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
            if claim.is_for_one_pod() && self.is_taken(pod, name, placed.clone()) {
                let why =
                    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
                return Err((Cure::PodLeft, why.to_owned()));
            }
            self.ask(&claim, &Key::of(&object.header), &mut wants, &mut drivers).map_err(waits)?;
        }
        let full = self.full(&drivers, placed);
        if !full.is_empty() {
            wants.needs.push(Need { place: Place::Not(full), why: "node(s) exceed max volume count" });
        }
        Ok(wants)
    }

    fn ask(&self, claim: &Claim, key: &Key, wants: &mut Wants, drivers: &mut Drivers) -> Result<(), String> {
        if claim.phase == "Bound" {
            let volume = self.volumes.get("", &claim.volume);
            let volume = volume.ok_or_else(|| format!("persistentvolume {:?} not found", claim.volume))?;
            let volume = volume.memo(Volume::read);
            if let Some(reach) = &volume.reach {
                let why = "node(s) had volume node affinity conflict";
                wants.needs.push(Need { place: Place::Within(vec![reach.clone()]), why });
            }
            count(drivers, &volume);
            return Ok(());
        }
        let class = claim.class.as_deref().and_then(|class| self.classes.get("", class));
        let class = class.map(|class| class.memo(Class::read)).unwrap_or_default();
        if !class.waits || !claim.volume.is_empty() {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        wants.undecided.push(key.clone());
        if class.makes {
            drivers.entry(class.provisioner.clone()).or_default().insert(key.as_str().to_owned());
            wants.needs.extend(self.made_where(claim, &class));
            return Ok(());
        }
        let volumes: Vec<Arc<Volume>> = self.volumes.list().iter().map(|volume| volume.memo(Volume::read)).collect();
        let fitting: Vec<_> = volumes.iter().filter(|volume| volume.fits(claim)).collect();
        if fitting.is_empty() || fitting.iter().all(|volume| volume.reach.is_some()) {
            let reaches = fitting.iter().filter_map(|volume| volume.reach.clone()).collect();
            wants.needs.push(Need { place: Place::Within(reaches), why: NONE_TO_BIND });
        }
        Ok(())
    }

    /// S6.
    fn made_where(&self, claim: &Claim, class: &Class) -> Vec<Need> {
        let topology = class.topology.clone();
        let mut needs: Vec<Need> =
            topology.map(|reach| Need { place: Place::Within(vec![reach]), why: NONE_TO_BIND }).into_iter().collect();
        let driver = self.drivers.get("", &class.provisioner);
        if driver.is_some_and(|driver| driver.value()["spec"]["storageCapacity"] == true) {
            let all: Vec<Arc<Capacity>> = self.capacities.list().iter().map(|it| it.memo(Capacity::read)).collect();
            let enough = all.iter().filter(|room| room.class == class.name && room.bytes >= claim.bytes);
            let place = Place::Selected(enough.filter_map(|room| room.selector.clone()).collect());
            needs.push(Need { place, why: "node(s) did not have enough free storage" });
        }
        needs
    }

    /// S7: the nodes that would have more volumes of one of these drivers than they take.
    fn full<'a>(&self, drivers: &Drivers, placed: impl Iterator<Item = (&'a Key, &'a str)>) -> BTreeSet<String> {
        let mut full = BTreeSet::new();
        let mut limited = self.driver_nodes.list();
        limited.retain(|object| object.memo(limits_of).keys().any(|driver| drivers.contains_key(driver)));
        if limited.is_empty() {
            return full;
        }
        let mut on_nodes = self.not_yet_there(placed);
        for object in limited {
            let (limits, node) = (object.memo(limits_of), object.header.name());
            let mut there = on_nodes.remove(node).unwrap_or_default();
            for pod in self.pods.on_node(node) {
                self.count_pod(&pod, &mut there);
            }
            for (driver, new) in drivers {
                let all = there.entry(driver.clone()).or_default();
                let before = all.len();
                all.extend(new.iter().cloned());
                // What is there already asks for no more room.
                if all.len() > before && limits.get(driver).is_some_and(|limit| all.len() > *limit) {
                    full.insert(node.to_owned());
                }
            }
        }
        full
    }

    /// By node: the volumes that are attached there, and those of pods on their way.
    fn not_yet_there<'a>(&self, placed: impl Iterator<Item = (&'a Key, &'a str)>) -> BTreeMap<String, Drivers> {
        let mut on_nodes: BTreeMap<String, Drivers> = BTreeMap::new();
        for attachment in self.attachments.list() {
            let attached = attachment.memo(Attached::read);
            if let Some(volume) = self.volumes.get("", &attached.volume) {
                count(on_nodes.entry(attached.node.clone()).or_default(), &volume.memo(Volume::read));
            }
        }
        for (key, node) in placed {
            if let Some(pod) = self.pods.get_key(key.as_str()) {
                self.count_pod(&pod, on_nodes.entry(node.to_owned()).or_default());
            }
        }
        on_nodes
    }

    /// Adds the volumes of drivers that a pod has.
    fn count_pod(&self, pod: &Cached, drivers: &mut Drivers) {
        if matches!(pod.header.phase(), "Succeeded" | "Failed") {
            return;
        }
        for name in &pod.memo(Uses::read).0 {
            let claim = self.claims.get(pod.header.namespace(), name).map(|claim| claim.memo(Claim::read));
            if let Some(volume) = claim.and_then(|claim| self.volumes.get("", &claim.volume)) {
                count(drivers, &volume.memo(Volume::read));
            }
        }
    }

    /// S2. A pod on its way to its node has its claims already.
    fn is_taken<'a>(&self, pod: &Pod, claim: &str, placed: impl Iterator<Item = (&'a Key, &'a str)> + Clone) -> bool {
        self.pods.in_namespace(pod.key.namespace()).iter().any(|other| {
            let header = &other.header;
            header.uid() != pod.uid
                && !matches!(header.phase(), "Succeeded" | "Failed")
                && other.memo(Uses::read).0.iter().any(|name| name == claim)
                && (!header.node_name().is_empty() || placed.clone().any(|(key, _)| *key == Key::of(header)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Capacity, Class, Need, Place, limits_of};
    use crate::fixture::node;
    use serde_json::{Value, json};
    use windlass_api::Object;

    fn object(value: Value) -> Object {
        Object::parse(value.to_string().into_bytes().into()).expect("an object")
    }

    fn is_met(place: Place, labels: Value) -> bool {
        let node = node("n1", json!({"/metadata/labels": labels}));
        let facts = node.facts.clone().expect("the fixture's node says something");
        Need { place, why: "" }.is_met(&node, &facts)
    }

    #[test]
    fn s6_a_volume_is_made_only_where_its_class_allows_it_and_there_is_room() {
        let terms = json!([{"matchLabelExpressions": [{"key": "zone", "values": ["a", "b"]}]}]);
        let class = object(json!({"metadata": {"name": "c"}, "provisioner": "d", "allowedTopologies": terms}));
        let reach = Class::read(&class).topology.expect("it says where");
        assert!(is_met(Place::Within(vec![reach.clone()]), json!({"zone": "b"})));
        assert!(!is_met(Place::Within(vec![reach]), json!({"zone": "c"})));
        let room = object(json!({"metadata": {"name": "r"}, "storageClassName": "c", "capacity": "10Gi",
            "maximumVolumeSize": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}}));
        let room = Capacity::read(&room);
        assert_eq!((room.class.as_str(), room.bytes), ("c", 1 << 30), "no volume is larger than the largest");
        let selector = || room.selector.clone().into_iter().collect();
        assert!(is_met(Place::Selected(selector()), json!({"zone": "a"})));
        assert!(!is_met(Place::Selected(selector()), json!({"zone": "b"})));
        let nowhere = Capacity::read(&object(json!({"metadata": {"name": "r"}, "capacity": "10Gi"})));
        assert!(nowhere.selector.is_none(), "without a topology no node is meant");
    }

    #[test]
    fn s7_a_node_takes_as_many_volumes_as_its_csi_node_says() {
        let drivers = json!([{"name": "d", "nodeID": "n", "allocatable": {"count": 2}}, {"name": "e", "nodeID": "n"}]);
        let limits = limits_of(&object(json!({"metadata": {"name": "n1"}, "spec": {"drivers": drivers}})));
        assert_eq!(limits.into_iter().collect::<Vec<_>>(), [("d".to_owned(), 2)]);
        assert!(!is_met(Place::Not(["n1".to_owned()].into()), json!({})));
        assert!(is_met(Place::Not(["n2".to_owned()].into()), json!({})));
    }
}
