//! PriorityClass: a name for how important pods are.
//!
//! Rules
//!   P1 reserved   names that begin with `system-` are the cluster's own, and so are values above a thousand million
//!   P2 kept       value and preemption never change: pods have copies
//! Source: API reference, scheduling.k8s.io/v1 PriorityClass.
//! Not here    one default at most, and what a pod takes from its class (admission)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::required_word;
use super::tree::{Tree, fill_text};
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// Whether pods of a class make others leave, where the class does not say.
pub const PREEMPTION_DEFAULT: &str = "PreemptLowerPriority";
/// The greatest value that users give.
const USER_VALUE_MAX: i64 = 1_000_000_000;
/// The classes of the cluster's own pods: name, value, and what they are for.
pub const SYSTEM_CLASSES: [(&str, i64, &str); 2] = [
    ("system-node-critical", 2_000_001_000, "For the cluster's own pods that a node cannot do without."),
    ("system-cluster-critical", 2_000_000_000, "For the cluster's own pods that it needs on some node."),
];

/// The row of PriorityClass.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Value", "integer", "how important its pods are"),
        column("Global-Default", "boolean", "whether pods that name no class are of this one"),
        age_column(),
        column("PreemptionPolicy", "string", "whether its pods make others leave"),
    ];
    row(&kinds::PRIORITY_CLASS, columns, PriorityClass).short_names(&["pc"]).counts_generations()
}

struct PriorityClass;

impl Rules for PriorityClass {
    fn default(&self, object: &mut Value) {
        fill_text(object, "preemptionPolicy", PREEMPTION_DEFAULT);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (name, value) = (object["metadata"].text("name"), object.int("value").unwrap_or(0));
        if name.starts_with("system-") {
            if let Some(fault) = system_fault(object) {
                let detail = "priority class names with 'system-' prefix are reserved for system use only. error:";
                errors.forbidden(&Path::new("metadata").child("name"), &format!("{detail} {fault}"));
            }
        } else if value > USER_VALUE_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}");
            errors.forbidden(&Path::new("value"), &detail);
        }
        required_word(object, "preemptionPolicy", &["Never", "PreemptLowerPriority"], &Path::root(), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if object.int("value").unwrap_or(0) != old.int("value").unwrap_or(0) {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        let policy = object.text("preemptionPolicy");
        if policy != old.text("preemptionPolicy") {
            errors.immutable(&Path::new("preemptionPolicy"), policy);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let policy = match object.text("preemptionPolicy") {
            "" => "<none>",
            policy => policy,
        };
        vec![
            json!(object["metadata"].text("name")),
            json!(object.int("value").unwrap_or(0)),
            json!(object.flag("globalDefault")),
            age::of(object, now),
            json!(policy),
        ]
    }
}

/// P1: why this is not one of the cluster's own classes.
fn system_fault(object: &Value) -> Option<String> {
    let name = object["metadata"].text("name");
    let Some((_, value, _)) = SYSTEM_CLASSES.iter().find(|(known, ..)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if object.int("value") != Some(*value) {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    object.flag("globalDefault").then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

#[cfg(test)]
mod tests {
    use super::PriorityClass;
    use crate::resources::fixture::{cells, check, check_update, filled};
    use serde_json::{Value, json};

    fn of(name: &str, value: i64) -> Value {
        json!({"metadata": {"name": name}, "value": value})
    }

    #[test]
    fn p1_some_names_and_values_are_the_clusters_own() {
        check(&PriorityClass, of("high", 1_000_000_000), &[]);
        check(
            &PriorityClass,
            of("high", 1_000_000_001),
            &["value: Forbidden: maximum allowed value of a user defined"],
        );
        check(&PriorityClass, of("system-node-critical", 2_000_001_000), &[]);
        let at =
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only.";
        let check_system = |name: &str, why: &str| check(&PriorityClass, of(name, 5), &[&format!("{at} error: {why}")]);
        check_system("system-mine", "system-mine is not a known system priority class");
        check_system("system-node-critical", "value of system-node-critical PriorityClass must be 2000001000");
        let mut odd = of("a", 1);
        odd["preemptionPolicy"] = json!("Maybe");
        check(&PriorityClass, odd, &["preemptionPolicy: Unsupported value: \"Maybe\""]);
    }

    #[test]
    fn p2_what_pods_have_copies_of_stays() {
        let old = filled(&PriorityClass, of("high", 5));
        let shown = [json!("high"), json!(5), json!(false), json!("<unknown>"), json!("PreemptLowerPriority")];
        assert_eq!(cells(&PriorityClass, &old), shown);
        let mut new = of("high", 6);
        new["preemptionPolicy"] = json!("Never");
        let expected =
            ["value: Forbidden: may not be changed in an update.", "preemptionPolicy: Invalid value: \"Never\""];
        check_update(&PriorityClass, &new, &old, &expected);
    }
}
