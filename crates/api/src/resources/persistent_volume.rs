//! PersistentVolume: a piece of storage that exists, to be bound to a claim.
//!
//! Rules
//!   V1 capacity   storage, and nothing else
//!   V2 access     at least one known mode; ReadWriteOncePod stands alone
//!   V3 source     exactly one, which never changes; what is on one machine says on which
//!   V4 words      reclaim policy, class and mode are well-formed
//!   V5 constant   the mode and the nodes it can be reached from never change once said
//! Not here        when its phase last changed (that needs a clock)
//! Source: API reference, core/v1 PersistentVolume.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::check::{optional_name, optional_word};
use super::persistent_volume_claim::{amount_text, class, class_warning, or_unset, phase, shown_modes, validate_modes};
use super::same::same;
use super::tree::{Tree, carry_over, fill_text, items_mut, part_mut, remove};
use super::{age, age_column, column, name_column, pod, row, wide};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::quantity::Quantity;
use crate::resource::{Resource, Rules, Subresource};

/// Fields of a spec that are not its source.
const NO_SOURCES: &[&str] = &[
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

/// The row of PersistentVolume.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Capacity", "string", "how much it holds"),
        column("Access Modes", "string", "how it may be mounted"),
        column("Reclaim Policy", "string", "what becomes of it when its claim goes"),
        column("Status", "string", "whether it is bound"),
        column("Claim", "string", "the claim it is bound to"),
        column("StorageClass", "string", "what kind of storage it is"),
        column("VolumeAttributesClass", "string", "how the storage behaves"),
        column("Reason", "string", "why it is in this state"),
        age_column(),
        wide("VolumeMode", "string", "a file system, or a bare device"),
    ];
    row(&kinds::PERSISTENT_VOLUME, columns, PersistentVolume)
        .shows_deleted()
        .short_names(&["pv"])
        .subresources(&[Subresource::Status])
}

struct PersistentVolume;

impl Rules for PersistentVolume {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = part_mut(object, "spec") {
            fill_text(spec, "persistentVolumeReclaimPolicy", "Retain");
            fill_text(spec, "volumeMode", "Filesystem");
            pod::fill_volume_source(spec);
        }
        if let Some(status) = part_mut(object, "status") {
            fill_text(status, "phase", "Pending");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        if object.is_object() {
            object["status"] = json!({"phase": "Pending"});
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        if spec.items("accessModes").is_empty() {
            errors.required(&at.child("accessModes"), "");
        }
        validate_modes(spec, &at, errors);
        validate_capacity(spec.entries("capacity"), &at.child("capacity"), errors);
        optional_word(spec, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], &at, errors);
        validate_nodes(spec, &at, errors);
        validate_source(spec, object["metadata"].text("name"), &at, errors);
        optional_name(spec, "storageClassName", name::subdomain, &at, errors);
        optional_word(spec, "volumeMode", &["Block", "Filesystem"], &at, errors);
        if spec.get("volumeAttributesClassName") == Some(&json!("")) {
            errors.required(&at.child("volumeAttributesClassName"), "an empty string is disallowed");
        }
        optional_name(spec, "volumeAttributesClassName", name::subdomain, &at, errors);
        if spec.is_set("volumeAttributesClassName") && !spec.is_set("csi") {
            errors.required(&at.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }

    /// V3 and V5.
    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (spec, before) = (&object["spec"], &old["spec"]);
        let mut now = Value::Object(source(spec));
        // The secret for growing came later than the drivers: it may be added once.
        if now["csi"].is_object() && before["csi"].is_object() && !before["csi"].is_set("controllerExpandSecretRef") {
            remove(&mut now["csi"], "controllerExpandSecretRef");
        }
        if !same(&now, &Value::Object(source(before))) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.forbidden(&Path::new("spec").child("persistentvolumesource"), detail);
        }
        if spec.text("volumeMode") != before.text("volumeMode") {
            errors.immutable(&Path::new("volumeMode"), spec["volumeMode"].clone());
        }
        if before.is_set("nodeAffinity") && !same(&spec["nodeAffinity"], &renamed(&before["nodeAffinity"], spec)) {
            let detail = "field is immutable, except for updating from beta label to GA";
            errors.invalid(&Path::new("nodeAffinity"), spec["nodeAffinity"].clone(), detail);
        }
        if before.is_set("volumeAttributesClassName") && !spec.is_set("volumeAttributesClassName") {
            let path = Path::new("spec").child("volumeAttributesClassName");
            errors.forbidden(&path, "update from non-nil value to nil is forbidden");
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        let mut all = class_warning(object);
        if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
            all.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
                 approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        let terms = at.child("nodeAffinity").child("required").child("nodeSelectorTerms");
        for (index, term) in spec["nodeAffinity"]["required"].items("nodeSelectorTerms").iter().enumerate() {
            all.extend(pod::warning::of_node_term(term, &terms.index(index)));
        }
        for kind in source(spec).keys() {
            all.extend(pod::warning::of_source(kind).map(|what| format!("{}: {what}", at.child(kind))));
        }
        all
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let claim = &spec["claimRef"];
        let claim = if claim.is_object() {
            format!("{}/{}", claim.text("namespace"), claim.text("name"))
        } else {
            String::new()
        };
        vec![
            json!(object["metadata"].text("name")),
            json!(amount_text(&spec["capacity"]["storage"])),
            json!(shown_modes(spec)),
            json!(spec.text("persistentVolumeReclaimPolicy")),
            json!(phase(object)),
            json!(claim),
            json!(class(object)),
            json!(or_unset(spec, "volumeAttributesClassName")),
            json!(status.text("reason")),
            age::of(object, now),
            json!(or_unset(spec, "volumeMode")),
        ]
    }
}

/// The part of a spec that says where the storage is.
fn source(spec: &Value) -> Map<String, Value> {
    let fields = spec.as_object().into_iter().flatten();
    let sources = fields.filter(|(field, value)| !NO_SOURCES.contains(&field.as_str()) && !value.is_null());
    sources.map(|(field, value)| (field.clone(), value.clone())).collect()
}

/// Which nodes a volume was reached from, as if whoever changes it had said so with the labels of today: for each old
/// label that `spec` replaced by its new name, the new one.
fn renamed(affinity: &Value, spec: &Value) -> Value {
    let mut affinity = affinity.clone();
    let now = spec["nodeAffinity"]["required"].items("nodeSelectorTerms");
    let Some(required) = affinity.get_mut("required") else { return affinity };
    for (term, now) in items_mut(required, "nodeSelectorTerms").iter_mut().zip(now) {
        for (then, now) in items_mut(term, "matchExpressions").iter_mut().zip(now.items("matchExpressions")) {
            if pod::warning::new_node_label(then.text("key")) == Some(now.text("key")) {
                then["key"] = now["key"].clone();
            }
        }
    }
    affinity
}

/// V1.
fn validate_capacity(capacity: &Map<String, Value>, path: &Path, errors: &mut Errors) {
    if capacity.is_empty() {
        errors.required(path, "");
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        let names: Vec<&str> = capacity.keys().map(String::as_str).collect();
        errors.not_supported(path, &names.join(","), &["storage"]);
    }
    for (resource, amount) in capacity {
        let path = path.key(resource);
        match Quantity::from_json(amount) {
            Err(error) => errors.invalid(&path, amount.clone(), &error.to_string()),
            Ok(amount) => {
                if amount.is_negative() {
                    errors.invalid(&path, amount.units(), "must be a valid resource quantity");
                }
                if amount.is_negative() || amount.is_zero() {
                    errors.invalid(&path, amount.to_string(), "must be greater than zero");
                }
            }
        }
    }
}

/// V5.
fn validate_nodes(spec: &Value, at: &Path, errors: &mut Errors) {
    if !spec.is_set("nodeAffinity") {
        return;
    }
    let path = at.child("nodeAffinity").child("required");
    if spec["nodeAffinity"].is_set("required") {
        pod::validate_node_selector(&spec["nodeAffinity"]["required"], &path, errors);
    } else {
        errors.required(&path, "must specify required node constraints");
    }
}

/// V3.
fn validate_source(spec: &Value, name: &str, at: &Path, errors: &mut Errors) {
    let given = source(spec);
    if given.is_empty() {
        errors.required(at, "must specify a volume type");
    }
    for (index, (kind, source)) in given.iter().enumerate() {
        let path = at.child(kind);
        if index > 0 {
            errors.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        pod::validate_volume_source(kind, source, pod::VolumeHolder::Persistent(name), &path, errors);
        if kind == "local" && !spec.is_set("nodeAffinity") {
            errors.required(&at.child("nodeAffinity"), "Local volume requires node affinity");
        }
        let is_root = kind == "hostPath" && source.text("path").trim_end_matches('/').is_empty();
        if is_root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
            let detail = "may not be 'recycle' for a hostPath mount of '/'";
            errors.forbidden(&at.child("persistentVolumeReclaimPolicy"), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PersistentVolume;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn good() -> Value {
        let mut volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}}});
        PersistentVolume.default(&mut volume);
        volume
    }

    fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
        let mut volume = good();
        change(&mut volume["spec"]);
        let mut errors = Errors::new();
        PersistentVolume.validate(&volume, &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn v1_and_v2_how_much_and_for_whom() {
        let spec = &good()["spec"];
        assert_eq!(
            (&spec["persistentVolumeReclaimPolicy"], &spec["volumeMode"]),
            (&json!("Retain"), &json!("Filesystem"))
        );
        check(|_| {}, &[]);
        check(
            |spec| {
                spec["accessModes"] = json!([]);
                spec["capacity"] = json!({});
            },
            &[
                "spec.accessModes: Required value",
                "spec.capacity: Required value",
                "spec.capacity: Unsupported value: \"\": supported values: \"storage\"",
            ],
        );
        check(
            |spec| spec["capacity"] = json!({"cpu": "0"}),
            &[
                "spec.capacity: Unsupported value: \"cpu\": supported values: \"storage\"",
                "spec.capacity[cpu]: Invalid value: \"0\": must be greater than zero",
            ],
        );
    }

    #[test]
    fn v3_and_v4_there_is_one_source() {
        check(|spec| spec["hostPath"] = json!(null), &["spec: Required value: must specify a volume type"]);
        check(
            |spec| spec["nfs"] = json!({"server": "s", "path": "/p"}),
            &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        );
        check(
            |spec| {
                spec["hostPath"] = json!(null);
                spec["local"] = json!({"path": "/a/../b"});
                spec["persistentVolumeReclaimPolicy"] = json!("Burn");
            },
            &[
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Burn\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
                "spec.local.path: Invalid value: \"/a/../b\": must not contain '..'",
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            ],
        );
        check(
            |spec| {
                spec["hostPath"]["path"] = json!("/");
                spec["persistentVolumeReclaimPolicy"] = json!("Recycle");
            },
            &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle'"],
        );
        check(
            |spec| {
                spec["hostPath"] = json!(null);
                spec["csi"] = json!({});
                spec["nodeAffinity"] = json!({});
            },
            &[
                "spec.nodeAffinity.required: Required value: must specify required node constraints",
                "spec.csi.driver: Required value",
                "spec.csi.volumeHandle: Required value",
            ],
        );
    }

    #[test]
    fn v5_where_it_is_never_changes() {
        let mut new = good();
        new["spec"]["hostPath"]["path"] = json!("/other");
        new["spec"]["volumeMode"] = json!("Block");
        new["spec"]["capacity"]["storage"] = json!("2Gi");
        let mut errors = Errors::new();
        PersistentVolume.validate_update(&new, &good(), &mut errors);
        compare(
            &errors,
            &["spec.persistentvolumesource: Forbidden", "volumeMode: Invalid value: \"Block\": field is immutable"],
        );
    }

    #[test]
    fn v5_labels_may_be_called_by_their_new_names_and_a_secret_be_added() {
        let term = |key: &str| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "Exists"}]}]}});
        let of = |key: &str, secret: Value| {
            let mut volume = good();
            volume["spec"]["hostPath"] = json!(null);
            volume["spec"]["csi"] = json!({"driver": "d", "volumeHandle": "h", "controllerExpandSecretRef": secret});
            volume["spec"]["nodeAffinity"] = term(key);
            volume
        };
        let old = of("failure-domain.beta.kubernetes.io/zone", json!(null));
        let secret = json!({"name": "s", "namespace": "n"});
        let mut errors = Errors::new();
        PersistentVolume.validate_update(&of("topology.kubernetes.io/zone", secret.clone()), &old, &mut errors);
        compare(&errors, &[]);
        PersistentVolume.validate_update(
            &of("zone", json!({})),
            &of("topology.kubernetes.io/zone", secret),
            &mut errors,
        );
        compare(
            &errors,
            &[
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
                "nodeAffinity: Invalid value: {\"required\":{\"nodeSelectorTerms\":[{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"Exists\"}]}]}}: field is immutable, except for updating from beta label to GA",
            ],
        );
    }

    #[test]
    fn the_printed_row() {
        let mut volume = good();
        volume["spec"]["claimRef"] = json!({"namespace": "n", "name": "c"});
        volume["spec"]["storageClassName"] = json!("fast");
        volume["status"] = json!({"phase": "Bound"});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(
            Value::from(PersistentVolume.cells(&volume, now)),
            json!(["v", "1Gi", "RWO", "Retain", "Bound", "n/c", "fast", "<unset>", "", "<unknown>", "Filesystem"])
        );
    }
}
