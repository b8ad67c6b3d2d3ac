//! Fields behind gates that Kubernetes 1.37 has off unless somebody turns them on. Nobody can here: they are dropped.
//!
//! Rules
//!   G1 dropped   who writes such a field is not refused; the object is stored without it
//!   G2 in use    an object that had a field of a gate before, wherever in it, may have fields of that gate
//! Not here       values behind gates (they are refused by the rules of their kind) · kinds behind gates (they are not served)
//!
//! Source: the feature gates of Kubernetes 1.37 that are alpha, or beta and off, and the API's `+featureGate` markers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::Value;

use crate::schema::{Message, MessageId, kubernetes};

/// A field that is off.
struct Off {
    gate: &'static str,
    /// The API group's package, of whatever version.
    package: &'static str,
    message: &'static str,
    field: &'static str,
    /// Only where the value has a field of this name; empty for any.
    with: &'static str,
}

const fn off(gate: &'static str, package: &'static str, message: &'static str, field: &'static str) -> Off {
    Off { gate, package, message, field, with: "" }
}

const BATCH: &str = "k8s.io.api.batch.";
const COORDINATION: &str = "k8s.io.api.coordination.";
const CORE: &str = "k8s.io.api.core.";
const RESOURCE: &str = "k8s.io.api.resource.";
const STORAGE: &str = "k8s.io.api.storage.";
const USER_FIELDS: &str = "AtomicWriteVolumeUserFields";

/// All of them.
static ALL: &[Off] = &[
    off(USER_FIELDS, CORE, "ClusterTrustBundleProjection", "user"),
    off(USER_FIELDS, CORE, "ConfigMapVolumeSource", "defaultUser"),
    off(USER_FIELDS, CORE, "DownwardAPIVolumeFile", "user"),
    off(USER_FIELDS, CORE, "DownwardAPIVolumeSource", "defaultUser"),
    off(USER_FIELDS, CORE, "KeyToPath", "user"),
    off(USER_FIELDS, CORE, "PodCertificateProjection", "user"),
    off(USER_FIELDS, CORE, "ProjectedVolumeSource", "defaultUser"),
    off(USER_FIELDS, CORE, "SecretVolumeSource", "defaultUser"),
    off(USER_FIELDS, CORE, "ServiceAccountTokenProjection", "user"),
    off("CSIVolumeHealth", CORE, "PersistentVolumeClaimStatus", "healthStatus"),
    off("CSIVolumeHealth", CORE, "PodStatus", "volumeHealth"),
    off("CSIVolumeHealth", STORAGE, "CSINodeStatus", "storageHealth"),
    off("CoordinatedLeaderElection", COORDINATION, "LeaseSpec", "preferredHolder"),
    off("CoordinatedLeaderElection", COORDINATION, "LeaseSpec", "strategy"),
    Off {
        with: "namespace",
        ..off("CrossNamespaceVolumeDataSource", CORE, "PersistentVolumeClaimSpec", "dataSourceRef")
    },
    off("DRAListTypeAttributes", RESOURCE, "DeviceAttribute", "bools"),
    off("DRAListTypeAttributes", RESOURCE, "DeviceAttribute", "ints"),
    off("DRAListTypeAttributes", RESOURCE, "DeviceAttribute", "strings"),
    off("DRAListTypeAttributes", RESOURCE, "DeviceAttribute", "versions"),
    off("DRANodeAllocatableResources", CORE, "PodStatus", "nodeAllocatableResourceClaimStatuses"),
    off("DRANodeAllocatableResources", RESOURCE, "Device", "nodeAllocatableResources"),
    off("DRANodeAllocatableResources", RESOURCE, "BasicDevice", "nodeAllocatableResources"),
    off("DRAOptionalNodeOperations", RESOURCE, "DeviceRequestAllocationResult", "skipNodeOperations"),
    off("DRAOptionalNodeOperations", RESOURCE, "ResourceSliceSpec", "skipNodeOperations"),
    off("DRAPartitionableDevicesType", RESOURCE, "ResourceSliceSpec", "partitionTypeAttribute"),
    off("EmptyDirVolumeMode", CORE, "EmptyDirVolumeSource", "mode"),
    off("EvictionRequestAPI", CORE, "PodSpec", "evictionResponders"),
    off("GRPCContainerProbeTLS", CORE, "GRPCAction", "mode"),
    off("GenericWorkload", CORE, "PodSpec", "schedulingGroup"),
    off("H2CContainerProbe", CORE, "HTTPGetAction", "protocol"),
    off("InPlacePodVerticalScalingSchedulerPreemption", CORE, "NodeSpec", "podPreemptionPolicy"),
    off("VolumeBindMountOptions", CORE, "VolumeMount", "bindMountOptions"),
    off("WorkloadWithJob", BATCH, "JobSpec", "scheduling"),
];

/// Where fields that are off are, by message; and which messages lead there.
struct Places {
    fields: BTreeMap<MessageId, Vec<&'static Off>>,
    reaching: BTreeSet<MessageId>,
}

fn places() -> &'static Places {
    static PLACES: OnceLock<Places> = OnceLock::new();
    PLACES.get_or_init(|| {
        let mut fields: BTreeMap<MessageId, Vec<&'static Off>> = BTreeMap::new();
        for message in kubernetes().messages() {
            let of_message = |off: &&Off| off.message == message.name() && message.package().starts_with(off.package);
            let found: Vec<&Off> = ALL.iter().filter(of_message).collect();
            if !found.is_empty() {
                fields.insert(message.id(), found);
            }
        }
        let mut reaching: BTreeSet<MessageId> = fields.keys().copied().collect();
        loop {
            let before = reaching.len();
            for message in kubernetes().messages() {
                let leads = |inner: Message| reaching.contains(&inner.id());
                if message.fields().filter_map(|field| message.of(field)).any(leads) {
                    reaching.insert(message.id());
                }
            }
            if reaching.len() == before {
                return Places { fields, reaching };
            }
        }
    })
}

/// Takes out of an object of a built-in kind what is off. `old` is what it was before, if it was there.
pub fn drop_disabled(object: &mut Value, old: Option<&Value>, message: Message<'static>) {
    let places = places();
    if !places.reaching.contains(&message.id()) {
        return;
    }
    let mut used = BTreeSet::new();
    if let Some(old) = old {
        note_used(old, message, places, &mut used);
    }
    remove(object, message, places, &used);
}

/// The fields of a message that are off.
fn of<'p>(places: &'p Places, message: Message) -> &'p [&'static Off] {
    places.fields.get(&message.id()).map(Vec::as_slice).unwrap_or_default()
}

impl Off {
    fn counts(&self, value: &Value) -> bool {
        !value.is_null() && (self.with.is_empty() || value[self.with].as_str().is_some_and(|text| !text.is_empty()))
    }
}

/// G2.
fn note_used(value: &Value, message: Message<'static>, places: &Places, used: &mut BTreeSet<&'static str>) {
    for off in of(places, message) {
        if value.get(off.field).is_some_and(|value| off.counts(value)) {
            used.insert(off.gate);
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let Some(inner) = inner(message, name, places) else { continue };
        match value {
            Value::Array(items) => items.iter().for_each(|item| note_used(item, inner, places, used)),
            Value::Object(entries) if is_map(message, name) => {
                entries.values().for_each(|entry| note_used(entry, inner, places, used));
            }
            value => note_used(value, inner, places, used),
        }
    }
}

/// G1.
fn remove(value: &mut Value, message: Message<'static>, places: &Places, used: &BTreeSet<&'static str>) {
    let Some(fields) = value.as_object_mut() else { return };
    for off in of(places, message).iter().filter(|off| !used.contains(off.gate)) {
        if fields.get(off.field).is_some_and(|value| off.counts(value)) {
            fields.remove(off.field);
        }
    }
    for (name, value) in fields {
        let Some(inner) = inner(message, name, places) else { continue };
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| remove(item, inner, places, used)),
            Value::Object(entries) if is_map(message, name) => {
                entries.values_mut().for_each(|entry| remove(entry, inner, places, used));
            }
            value => remove(value, inner, places, used),
        }
    }
}

/// The message of a field's values, if fields that are off are below it.
fn inner(message: Message<'static>, name: &str, places: &Places) -> Option<Message<'static>> {
    message.of(message.field(name)?).filter(|inner| places.reaching.contains(&inner.id()))
}

fn is_map(message: Message, name: &str) -> bool {
    message.field(name).is_some_and(|field| field.shape == crate::schema::Shape::Map)
}

#[cfg(test)]
mod tests {
    use super::{ALL, drop_disabled, places};
    use crate::schema::{MessageId, kubernetes};
    use serde_json::{Value, json};

    fn check(api_version: &str, kind: &str, mut object: Value, old: Option<&Value>, expected: &Value) {
        let message = kubernetes().find_kind(api_version, kind).expect("a kind");
        drop_disabled(&mut object, old, message);
        assert_eq!(object, *expected);
    }

    #[test]
    fn every_field_that_is_off_is_one_of_the_schema() {
        for off in ALL {
            let in_messages: Vec<_> =
                places().fields.iter().filter(|(_, found)| found.iter().any(|one| std::ptr::eq(*one, off))).collect();
            let has_field = |id: &MessageId| kubernetes().message(*id).field(off.field).is_some();
            let name = format!("{}*.{}.{}", off.package, off.message, off.field);
            assert!(in_messages.iter().any(|(id, _)| has_field(id)), "{name} is no field");
        }
    }

    fn pod(mode: Option<i64>, options: Option<Value>) -> Value {
        let mut pod = json!({"spec": {
            "containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}]}});
        if let Some(mode) = mode {
            pod["spec"]["volumes"][0]["emptyDir"]["mode"] = json!(mode);
        }
        if let Some(options) = options {
            pod["spec"]["containers"][0]["volumeMounts"][0]["bindMountOptions"] = options;
        }
        pod
    }

    #[test]
    fn g1_what_is_off_is_dropped_however_deep_it_is() {
        check("v1", "Pod", pod(Some(0o755), Some(json!(["noexec"]))), None, &pod(None, None));
        let in_template = |pod: Value| json!({"spec": {"template": pod}});
        let deployment = in_template(pod(Some(0o755), None));
        check("apps/v1", "Deployment", deployment, None, &in_template(pod(None, None)));
        let lease =
            json!({"spec": {"holderIdentity": "a", "strategy": "OldestEmulationVersion", "preferredHolder": "b"}});
        check("coordination.k8s.io/v1", "Lease", lease, None, &json!({"spec": {"holderIdentity": "a"}}));
        let map = json!({"data": {"mode": "1", "protocol": "2"}});
        check("v1", "ConfigMap", map.clone(), None, &map);
        let slice = json!({"spec": {"devices": [{"name": "d", "attributes": {"a": {"ints": [1]}, "b": {"int": 1}}}]}});
        let kept = json!({"spec": {"devices": [{"name": "d", "attributes": {"a": {}, "b": {"int": 1}}}]}});
        check("resource.k8s.io/v1", "ResourceSlice", slice, None, &kept);
    }

    #[test]
    fn g1_a_source_of_another_namespace_goes_as_a_whole() {
        let claim = |source: Value| json!({"spec": {"dataSourceRef": source}});
        let near = claim(json!({"kind": "PersistentVolumeClaim", "name": "a"}));
        check("v1", "PersistentVolumeClaim", near.clone(), None, &near);
        let far = claim(json!({"kind": "PersistentVolumeClaim", "name": "a", "namespace": "far"}));
        check("v1", "PersistentVolumeClaim", far, None, &json!({"spec": {}}));
    }

    #[test]
    fn g2_an_object_that_used_a_gate_may_go_on() {
        let options = || Some(json!(["noexec"]));
        check("v1", "Pod", pod(Some(0o700), options()), Some(&pod(Some(0o755), None)), &pod(Some(0o700), None));
        check("v1", "Pod", pod(Some(0o700), None), Some(&pod(None, options())), &pod(None, None));
    }
}
