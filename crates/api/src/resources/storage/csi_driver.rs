//! CSIDriver: what a storage driver can do and needs.
//!
//! Rules
//!   D1 words      modes and policies are of a few words
//!   D2 tokens     one for each audience, for ten minutes at least
//!   D3 kept       whether volumes are attached, and how they live, never changes
//! Source: API reference, storage.k8s.io/v1 CSIDriver.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::required_word;
use super::super::tree::{Tree, fill, fill_text};
use super::super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// Seconds that a token for a driver lasts at least and at most.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);
/// Seconds between two looks at how many volumes fit, at least.
const UPDATE_SECONDS_MIN: i64 = 10;

/// The row of CSIDriver.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("AttachRequired", "boolean", "whether volumes are attached before they are mounted"),
        column("PodInfoOnMount", "boolean", "whether it is told which pod a volume is for"),
        column("StorageCapacity", "boolean", "whether it says where how much room is left"),
        column("TokenRequests", "string", "the audiences it gets a token of the pod's account for"),
        column("RequiresRepublish", "boolean", "whether mounted volumes are brought up to date by it"),
        column("Modes", "string", "how its volumes live"),
        age_column(),
    ];
    row(&kinds::CSI_DRIVER, columns, CsiDriver).shows_deleted().needs_revision()
}

struct CsiDriver;

impl Rules for CsiDriver {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        fill(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            fill(spec, field, false);
        }
        fill_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.items("volumeLifecycleModes").is_empty() {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        required_word(spec, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"], &at, errors);
        validate_tokens(spec.items("tokenRequests"), &at.child("tokenRequests"), errors);
        let modes = spec.items("volumeLifecycleModes").iter().filter_map(Value::as_str);
        for mode in modes.filter(|mode| !matches!(*mode, "Persistent" | "Ephemeral")) {
            errors.not_supported(&at.child("volumeLifecycleModes"), mode, &["Ephemeral", "Persistent"]);
        }
        let field = "nodeAllocatableUpdatePeriodSeconds";
        if let Some(seconds) = spec.int(field).filter(|&seconds| seconds < UPDATE_SECONDS_MIN) {
            let detail = format!("must be greater than or equal to {UPDATE_SECONDS_MIN} seconds");
            errors.invalid(&at.child(field), seconds, &detail);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (spec, before, at) = (&object["spec"], &old["spec"], Path::new("spec"));
        // The path is spelled so in Kubernetes.
        for (field, shown) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            if spec[field] != before[field] {
                errors.immutable(&at.child(shown), spec[field].clone());
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let audiences: Vec<&str> = spec.items("tokenRequests").iter().map(|token| token.text("audience")).collect();
        let modes: Vec<&str> = spec.items("volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
        let or = |found: Vec<&str>, none: &str| if found.is_empty() { none.to_owned() } else { found.join(",") };
        vec![
            json!(object["metadata"].text("name")),
            json!(spec.get("attachRequired").and_then(Value::as_bool).unwrap_or(true)),
            json!(spec.flag("podInfoOnMount")),
            json!(spec.flag("storageCapacity")),
            json!(or(audiences, "<unset>")),
            json!(spec.flag("requiresRepublish")),
            json!(or(modes, "<none>")),
            age::of(object, now),
        ]
    }
}

/// D2.
fn validate_tokens(tokens: &[Value], at: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let at = at.index(index);
        if !seen.insert(token.text("audience")) {
            errors.duplicate(&at.child("audience"), token.text("audience"));
        }
        let (seconds, path) = (token.int("expirationSeconds"), at.child("expirationSeconds"));
        match seconds {
            Some(seconds) if seconds < TOKEN_SECONDS.0 => {
                errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
            }
            Some(seconds) if seconds > TOKEN_SECONDS.1 => {
                errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CsiDriver;
    use crate::resources::fixture::{cells, check, check_update, filled};
    use serde_json::{Value, json};

    fn of(spec: Value) -> Value {
        json!({"metadata": {"name": "d.example.com"}, "spec": spec})
    }

    #[test]
    fn d1_words_and_what_is_left_out() {
        let driver = filled(&CsiDriver, of(json!({})));
        check(&CsiDriver, driver.clone(), &[]);
        let shown = cells(&CsiDriver, &driver);
        assert_eq!(shown[1..4], [json!(true), json!(false), json!(false)]);
        assert_eq!(shown[4..7], [json!("<unset>"), json!(false), json!("Persistent")]);
        check(
            &CsiDriver,
            of(
                json!({"fsGroupPolicy": "Some", "volumeLifecycleModes": ["Short"], "nodeAllocatableUpdatePeriodSeconds": 9}),
            ),
            &[
                "spec.fsGroupPolicy: Unsupported value",
                "spec.volumeLifecycleModes: Unsupported value: \"Short\": supported values: \"Ephemeral\", \"Persistent\"",
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
            ],
        );
    }

    #[test]
    fn d2_tokens_last_a_while() {
        let tokens =
            json!([{"audience": "a", "expirationSeconds": 599}, {"audience": "a", "expirationSeconds": 1_i64 << 33}]);
        let at = "spec.tokenRequests";
        check(
            &CsiDriver,
            of(json!({ "tokenRequests": tokens })),
            &[
                &format!("{at}[0].expirationSeconds: Invalid value: 599: may not specify a duration less than"),
                &format!("{at}[1].audience: Duplicate value: \"a\""),
                &format!("{at}[1].expirationSeconds: Invalid value: 8589934592: may not specify a duration larger"),
            ],
        );
    }

    #[test]
    fn d3_how_volumes_are_attached_never_changes() {
        let (old, new) = (filled(&CsiDriver, of(json!({}))), of(json!({"attachRequired": false})));
        let expected =
            ["spec.attachedRequired: Invalid value: false: field is immutable", "spec.volumeLifecycleModes: Inv"];
        check_update(&CsiDriver, &new, &old, &expected);
    }
}
