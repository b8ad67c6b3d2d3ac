//! PersistentVolumeClaim: storage that pods ask for by what they need, not by where it is.
//!
//! Rules
//!   C1 access     at least one known mode; ReadWriteOncePod stands alone
//!   C2 size       more than nothing; grows once bound, and shrinks only down to what is there
//!   C3 words      class, mode and selector are well-formed
//!   C4 source     an object of a kind that can fill volumes, said in both fields alike
//!   C5 constant   the rest never changes; the volume and a first class may be filled in
//! Source: API reference, core/v1 PersistentVolumeClaim; KEP-1790 on shrinking, KEP-3751 on attribute classes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::{self, optional_name, optional_word};
use super::same::same;
use super::tree::{Tree, carry_over, fill_text, part_mut, remove};
use super::{age, age_column, column, name_column, row, wide};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::quantity::Quantity;
use crate::resource::{Resource, Rules, Subresource};
use crate::selector::LabelSelector;

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Where the class was said before it had a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// How far a claim is on its way to another size.
const RESIZE_WORDS: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
const CONSTANT: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                        bound claims";

/// The row of PersistentVolumeClaim.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Status", "string", "whether a volume is bound to it"),
        column("Volume", "string", "the volume that is bound to it"),
        column("Capacity", "string", "how much the volume holds"),
        column("Access Modes", "string", "how the volume may be mounted"),
        column("StorageClass", "string", "what kind of storage it asks for"),
        column("VolumeAttributesClass", "string", "how the storage behaves"),
        age_column(),
        wide("VolumeMode", "string", "a file system, or a bare device"),
    ];
    row(&kinds::PERSISTENT_VOLUME_CLAIM, columns, PersistentVolumeClaim)
        .shows_deleted()
        .short_names(&["pvc"])
        .subresources(&[Subresource::Status])
}

struct PersistentVolumeClaim;

/// Fills in a claim, also one that is the template of a StatefulSet.
pub(super) fn fill_claim(claim: &mut Value) {
    if let Some(spec) = part_mut(claim, "spec") {
        fill_spec(spec);
    }
    if let Some(status) = part_mut(claim, "status") {
        fill_text(status, "phase", "Pending");
    }
}

/// Fills in the spec of a claim, wherever it stands.
pub(super) fn fill_spec(spec: &mut Value) {
    fill_text(spec, "volumeMode", "Filesystem");
}

impl Rules for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        fill_claim(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        if object.is_object() {
            object["status"] = json!({"phase": "Pending"});
        }
        if let Some(spec) = part_mut(object, "spec") {
            align_sources(spec);
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
        if let Some(spec) = part_mut(object, "spec") {
            align_sources(spec);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate_spec(&object["spec"], &Path::new("spec"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        validate_change(object, old, errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let (status, at) = (&object["status"], Path::new("status"));
        if object["spec"].items("accessModes").is_empty() {
            errors.required(&Path::new("Spec").child("accessModes"), "");
        }
        for (resource, amount) in status.entries("capacity") {
            validate_amount(amount, &at.child("capacity").key(resource), errors);
        }
        let path = at.child("allocatedResourceStatuses");
        for (resource, word) in status.entries("allocatedResourceStatuses") {
            validate_resource(resource, &path, errors);
            if !RESIZE_WORDS.contains(&word.as_str().unwrap_or_default()) {
                errors.not_supported(&path, resource, RESIZE_WORDS);
            }
        }
        let path = at.child("allocatedResources");
        for (resource, amount) in status.entries("allocatedResources") {
            let before = errors.len();
            validate_resource(resource, &path, errors);
            if errors.len() == before {
                validate_amount(amount, &path.key(resource), errors);
            }
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut all = class_warning(object);
        all.extend(size_warning(&object["spec"], &Path::new("spec")));
        all
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let is_bound = !spec.text("volumeName").is_empty();
        let (capacity, modes) = match is_bound {
            true => (amount_text(&status["capacity"]["storage"]), shown_modes(status)),
            false => (String::new(), String::new()),
        };
        vec![
            json!(object["metadata"].text("name")),
            json!(phase(object)),
            json!(spec.text("volumeName")),
            json!(capacity),
            json!(modes),
            json!(class(object)),
            json!(or_unset(spec, "volumeAttributesClassName")),
            age::of(object, now),
            json!(or_unset(spec, "volumeMode")),
        ]
    }
}

/// That the class is said where it used to be.
pub(super) fn class_warning(object: &Value) -> Vec<String> {
    let is_old = object["metadata"].entries("annotations").contains_key(CLASS_ANNOTATION);
    let path = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
    let warning = || format!("{path}: deprecated since v1.8; use \"storageClassName\" attribute instead");
    is_old.then(warning).into_iter().collect()
}

/// That part of a byte is asked for, by the spec of a claim at `at`.
pub(super) fn size_warning(spec: &Value, at: &Path) -> Option<String> {
    let size = Quantity::from_json(spec["resources"]["requests"].get("storage")?).ok()?;
    let path = at.child("resources").child("requests").key("storage");
    (Quantity::from_units(size.units(), size.notation()) != size)
        .then(|| format!("{path}: fractional byte value {:?} is invalid, must be an integer", size.to_string()))
}

/// Terminating while it is being deleted, else the phase.
pub(super) fn phase(object: &Value) -> &str {
    if object["metadata"].is_set("deletionTimestamp") { "Terminating" } else { object["status"].text("phase") }
}

/// The class of a claim or a volume.
pub(super) fn class(object: &Value) -> &str {
    match object["metadata"]["annotations"].text(CLASS_ANNOTATION) {
        "" => object["spec"].text("storageClassName"),
        class => class,
    }
}

/// A text, or what is shown where nothing is said.
pub(super) fn or_unset<'a>(spec: &'a Value, field: &str) -> &'a str {
    if spec.is_set(field) { spec.text(field) } else { "<unset>" }
}

/// A quantity as columns show it.
pub(super) fn amount_text(amount: &Value) -> String {
    Quantity::from_json(amount).map(|amount| amount.to_string()).unwrap_or_default()
}

/// `RWO,ROX`: each mode once, in this order.
pub(super) fn shown_modes(object: &Value) -> String {
    let modes = object.items("accessModes");
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let shown = short.iter().filter(|(mode, _)| modes.iter().any(|given| given == mode));
    shown.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// C4: the older field follows the newer and the other way round; what the older cannot say it does not say.
fn align_sources(spec: &mut Value) {
    let (old_form, new_form) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    let old_form_fits = matches!(
        (old_form.text("apiGroup"), old_form.text("kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    );
    if old_form.is_object() && !old_form_fits && new_form.is_null() {
        remove(spec, "dataSource");
    } else if old_form.is_object() && new_form.is_null() {
        spec["dataSourceRef"] = old_form;
    } else if new_form.is_object() && old_form.is_null() && new_form.text("namespace").is_empty() {
        let mut source = new_form;
        remove(&mut source, "namespace");
        spec["dataSource"] = source;
    }
}

/// C1 to C4, of a claim or of a template for claims.
pub(super) fn validate_spec(spec: &Value, at: &Path, errors: &mut Errors) {
    if spec.items("accessModes").is_empty() {
        errors.required(&at.child("accessModes"), "at least 1 access mode is required");
    }
    if spec.is_set("selector") {
        LabelSelector::from_json(&spec["selector"], &at.child("selector"), errors);
    }
    validate_modes(spec, at, errors);
    let path = at.child("resources").key("storage");
    match spec["resources"]["requests"].get("storage") {
        None => errors.required(&path, ""),
        Some(size) => {
            check::positive_quantity(size, &path, errors);
        }
    }
    for field in ["storageClassName", "volumeAttributesClassName"] {
        optional_name(spec, field, name::subdomain, at, errors);
    }
    optional_word(spec, "volumeMode", &["Block", "Filesystem"], at, errors);
    validate_sources(spec, at, errors);
}

/// C1, also of a volume.
pub(super) fn validate_modes(spec: &Value, at: &Path, errors: &mut Errors) {
    let (modes, path) = (spec.items("accessModes"), at.child("accessModes"));
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !MODES.contains(mode)) {
        errors.not_supported(&path, mode, MODES);
    }
    let is_other = |mode: &Value| mode != "ReadWriteOncePod" && MODES.iter().any(|known| mode == known);
    if modes.iter().any(|mode| mode == "ReadWriteOncePod") && modes.iter().any(is_other) {
        errors.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// C4.
fn validate_sources(spec: &Value, at: &Path, errors: &mut Errors) {
    for field in ["dataSource", "dataSourceRef"] {
        let (source, path) = (&spec[field], at.child(field));
        if source.is_null() {
            continue;
        }
        for field in ["name", "kind"] {
            check::required_text(source, field, &path, errors);
        }
        let (group, kind) = (source.text("apiGroup"), source.text("kind"));
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.invalid(&path, kind, detail);
        }
        optional_name(source, "apiGroup", name::subdomain, &path, errors);
        optional_name(source, "namespace", name::label, &path, errors);
    }
    let (old_form, new_form) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if old_form.is_null() || new_form.is_null() {
        return;
    }
    let path = at.child("dataSource");
    if !new_form.text("namespace").is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.invalid(at, path.as_str(), detail);
    } else if !same(old_form, new_form) {
        errors.invalid(at, path.as_str(), "must match dataSourceRef");
    }
}

/// A size that a status speaks of.
fn validate_amount(amount: &Value, path: &Path, errors: &mut Errors) {
    match Quantity::from_json(amount) {
        Ok(amount) if amount.is_negative() => {
            errors.invalid(path, amount.units(), "must be a valid resource quantity");
        }
        Ok(_) => {}
        Err(error) => errors.invalid(path, amount.clone(), &error.to_string()),
    }
}

/// What a claim is counted in: storage, and what drivers know.
fn validate_resource(resource: &str, path: &Path, errors: &mut Errors) {
    let reasons = name::label_key(resource);
    let is_native = !resource.contains('/') || resource.contains("kubernetes.io/");
    for reason in &reasons {
        errors.invalid(path, resource, reason);
    }
    if reasons.is_empty() && is_native && resource != "storage" {
        errors.not_supported(path, resource, &["storage"]);
    }
}

/// C5: whether the class moves from the annotation, where it used to be said, into its field.
fn upgrades_class(claim: &Value, old: &Value) -> bool {
    let annotation = |claim: &Value| claim["metadata"].entries("annotations").get(CLASS_ANNOTATION).cloned();
    let said = annotation(old);
    said.is_some()
        && !old["spec"].is_set("storageClassName")
        && claim["spec"].get("storageClassName") == said.as_ref()
        && annotation(claim).is_none_or(|now| Some(now) == said)
}

/// C2 and C5.
fn validate_change(claim: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before, at) = (&claim["spec"], &old["spec"], Path::new("spec"));
    let mut then = before.clone();
    if before.text("volumeName").is_empty() {
        carry_over(&mut then, spec, "volumeName");
    }
    let annotation = |claim: &Value| claim["metadata"]["annotations"].text(CLASS_ANNOTATION).to_owned();
    let (class_now, class_then) = (annotation(claim), annotation(old));
    let upgrades = upgrades_class(claim, old);
    if !upgrades && class_now != class_then {
        let path = Path::new("metadata").child("annotations").child(CLASS_ANNOTATION);
        errors.immutable(&path, class_now);
    }
    let fits = class_then.is_empty() || class_then == spec.text("storageClassName");
    if upgrades || (!before.is_set("storageClassName") && spec.is_set("storageClassName") && fits) {
        carry_over(&mut then, spec, "storageClassName");
    }
    if old["status"].text("phase") == "Bound" {
        carry_over(&mut then, spec, "volumeAttributesClassName");
    }
    let size = |spec: &Value| Quantity::from_json(&spec["resources"]["requests"]["storage"]).ok();
    if old["status"].text("phase") == "Bound"
        && let Some(requests) = then.get_mut("resources").and_then(|resources| resources.get_mut("requests"))
    {
        carry_over(requests, &spec["resources"]["requests"], "storage");
    }
    if !same(spec, &then) {
        errors.forbidden(&at, CONSTANT);
    }
    let there = Quantity::from_json(&old["status"]["capacity"]["storage"]).unwrap_or(Quantity::ZERO);
    if let (Some(now), Some(asked)) = (size(spec), size(before))
        && now < asked
        && now <= there
    {
        let path = at.child("resources").child("requests").child("storage");
        errors.forbidden(&path, "field can not be less than status.capacity");
    }
    if spec.text("volumeMode") != before.text("volumeMode") {
        errors.immutable(&Path::new("volumeMode"), spec["volumeMode"].clone());
    }
    if old["status"].is_set("currentVolumeAttributesClassName") {
        let what = match spec.get("volumeAttributesClassName").and_then(Value::as_str) {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return,
        };
        let detail = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.forbidden(&at.child("volumeAttributesClassName"), &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::PersistentVolumeClaim;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn good() -> Value {
        let mut claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        PersistentVolumeClaim.default(&mut claim);
        PersistentVolumeClaim.prepare_create(&mut claim);
        claim
    }

    fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
        let mut claim = good();
        change(&mut claim["spec"]);
        let mut errors = Errors::new();
        PersistentVolumeClaim.validate(&claim, &mut errors);
        compare(&errors, expected);
    }

    fn check_update(status: Value, change: impl FnOnce(&mut Value), expected: &[&str]) {
        let mut old = good();
        old["status"] = status;
        let mut new = old.clone();
        change(&mut new["spec"]);
        let mut errors = Errors::new();
        PersistentVolumeClaim.validate_update(&new, &old, &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn c1_to_c3_a_claim_says_what_it_needs() {
        assert_eq!(
            (&good()["spec"]["volumeMode"], &good()["status"]),
            (&json!("Filesystem"), &json!({"phase": "Pending"}))
        );
        check(|_| {}, &[]);
        check(
            |spec| *spec = json!({"accessModes": ["ReadOnce", "ReadWriteOncePod"], "volumeMode": "Tape", "storageClassName": "A b"}),
            &[
                "spec.accessModes: Unsupported value: \"ReadOnce\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\"",
                "spec.resources[storage]: Required value",
                "spec.storageClassName: Invalid value: \"A b\"",
                "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
            ],
        );
        check(
            |spec| spec["accessModes"] = json!(["ReadWriteMany", "ReadWriteOncePod"]),
            &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        );
        check(
            |spec| spec["accessModes"] = json!([]),
            &["spec.accessModes: Required value: at least 1 access mode is required"],
        );
        check(
            |spec| spec["resources"]["requests"]["storage"] = json!("0"),
            &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
        );
    }

    #[test]
    fn c4_both_fields_name_the_same_source() {
        let mut claim = good();
        claim["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        PersistentVolumeClaim.prepare_create(&mut claim);
        assert_eq!(claim["spec"]["dataSourceRef"], json!({"kind": "PersistentVolumeClaim", "name": "a"}));
        let mut claim = good();
        claim["spec"]["dataSourceRef"] = json!({"apiGroup": "a.b", "kind": "K", "name": "a"});
        PersistentVolumeClaim.prepare_create(&mut claim);
        assert_eq!(claim["spec"]["dataSource"]["kind"], "K");
        check(
            |spec| {
                spec["dataSource"] = json!({"kind": "Pod", "name": "a"});
                spec["dataSourceRef"] = json!({"kind": "PersistentVolumeClaim"});
            },
            &[
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim'",
                "spec.dataSourceRef.name: Required value",
                "spec: Invalid value: \"spec.dataSource\": must match dataSourceRef",
            ],
        );
    }

    #[test]
    fn c2_and_c5_only_a_bound_claim_grows() {
        let bound = || json!({"phase": "Bound", "capacity": {"storage": "500Mi"}});
        let grow = |spec: &mut Value| spec["resources"]["requests"]["storage"] = json!("2Gi");
        check_update(bound(), grow, &[]);
        check_update(json!({"phase": "Pending"}), grow, &["spec: Forbidden: spec is immutable after creation except"]);
        check_update(bound(), |spec| spec["resources"]["requests"]["storage"] = json!("700Mi"), &[]);
        check_update(
            bound(),
            |spec| spec["resources"]["requests"]["storage"] = json!("100Mi"),
            &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
        );
        check_update(json!({}), |spec| spec["volumeName"] = json!("v"), &[]);
        check_update(json!({}), |spec| spec["storageClassName"] = json!("fast"), &[]);
        check_update(bound(), |spec| spec["accessModes"] = json!(["ReadWriteMany"]), &["spec: Forbidden"]);
        check_update(
            bound(),
            |spec| spec["volumeMode"] = json!("Block"),
            &["spec: Forbidden", "volumeMode: Invalid value: \"Block\": field is immutable"],
        );
    }

    #[test]
    fn c5_a_bound_claim_keeps_a_class_of_attributes() {
        let bound = || json!({"phase": "Bound", "currentVolumeAttributesClassName": "gold"});
        let class = |class: Value| move |spec: &mut Value| spec["volumeAttributesClassName"] = class;
        check_update(bound(), class(json!("silver")), &[]);
        let at = "spec.volumeAttributesClassName: Forbidden: update to";
        check_update(
            bound(),
            |_| {},
            &[&format!("{at} nil is forbidden when status.currentVolumeAttributesClassName")],
        );
        check_update(bound(), class(json!("")), &[&format!("{at} empty string is forbidden when")]);
        check_update(
            json!({"phase": "Pending"}),
            class(json!("silver")),
            &["spec: Forbidden: spec is immutable after"],
        );
    }

    #[test]
    fn c5_the_class_moves_from_the_annotation_into_its_field() {
        const ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
        let of = |annotation: &str, class: Value| {
            let mut claim = good();
            claim["metadata"]["annotations"] = json!({ANNOTATION: annotation});
            claim["spec"]["storageClassName"] = class;
            claim
        };
        let update = |now: Value, then: Value, expected: &[&str]| {
            let mut errors = Errors::new();
            PersistentVolumeClaim.validate_update(&now, &then, &mut errors);
            compare(&errors, expected);
        };
        update(of("fast", json!("fast")), of("fast", json!(null)), &[]);
        update(of("fast", json!("slow")), of("fast", json!(null)), &["spec: Forbidden"]);
        update(
            of("slow", json!(null)),
            of("fast", json!(null)),
            &[
                "metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: \"slow\": field is immutable",
            ],
        );
    }

    #[test]
    fn a_status_speaks_of_sizes_and_how_far_they_are() {
        let mut claim = good();
        claim["status"] = json!({"capacity": {"storage": "-1"}, "allocatedResources": {"cpu": "1", "example.com/iops": "5"},
            "allocatedResourceStatuses": {"storage": "Growing"}});
        let mut errors = Errors::new();
        PersistentVolumeClaim.validate_status(&claim, &good(), &mut errors);
        compare(
            &errors,
            &[
                "status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                "status.allocatedResourceStatuses: Unsupported value: \"storage\": supported values: \"ControllerResizeInProgress\"",
                "status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\"",
            ],
        );
    }

    #[test]
    fn the_printed_row() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(
            Value::from(PersistentVolumeClaim.cells(&good(), now)),
            json!(["c", "Pending", "", "", "", "", "<unset>", "<unknown>", "Filesystem"])
        );
        let mut claim = good();
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        claim["spec"]["volumeName"] = json!("v");
        claim["spec"]["storageClassName"] = json!("fast");
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]});
        assert_eq!(
            Value::from(PersistentVolumeClaim.cells(&claim, now)),
            json!(["c", "Terminating", "v", "1Gi", "RWO,RWX", "fast", "<unset>", "<unknown>", "Filesystem"])
        );
    }
}
