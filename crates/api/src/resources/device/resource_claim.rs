//! ResourceClaim: devices that somebody asks for, and who uses them.
//!
//! Rules (what is asked for: `claim`)
//!   R1 kept         what is asked for never changes
//!   R2 allocation   once given, it is kept or taken back, never exchanged
//!   R3 reserved     only what is allocated is reserved, for at most 256, each once; nobody joins once it ends
//! Source: API reference, resource.k8s.io/v1 ResourceClaim; KEP-4381.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{conditions, required_text};
use super::super::same::same;
use super::super::tree::{Tree, carry_over, remove};
use super::super::{age, age_column, column, name_column, row};
use super::{claim, validate_driver};
use crate::device::USERS_MAX;
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of ResourceClaim.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![name_column(), column("State", "string", "whether it is met, and used"), age_column()];
    row(&kinds::RESOURCE_CLAIM, columns, ResourceClaim).shows_deleted().subresources(&[Subresource::Status])
}

struct ResourceClaim;

impl Rules for ResourceClaim {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            claim::fill(spec);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        claim::validate(&object["spec"], &Path::new("spec"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if !same(&object["spec"], &old["spec"]) {
            errors.immutable(&Path::new("spec"), object["spec"].clone());
        }
    }

    fn validate_status(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (status, before, at) = (&object["status"], &old["status"], Path::new("status"));
        let (given, kept) = (status.is_set("allocation"), before.is_set("allocation"));
        if given && kept && !same(&status["allocation"], &before["allocation"]) {
            errors.immutable(&at.child("allocation"), status["allocation"].clone());
        }
        let results = status["allocation"]["devices"].items("results");
        for (index, result) in results.iter().enumerate() {
            let at = at.child("allocation").child("devices").child("results").index(index);
            validate_driver(result, &at, errors);
            ["request", "pool", "device"].iter().for_each(|field| required_text(result, field, &at, errors));
        }
        validate_users(object, old, &at.child("reservedFor"), errors);
        for (index, device) in status.items("devices").iter().enumerate() {
            let at = at.child("devices").index(index);
            conditions(device.items("conditions"), &at.child("conditions"), errors);
            validate_driver(device, &at, errors);
            ["pool", "device"].iter().for_each(|field| required_text(device, field, &at, errors));
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (status, ending) = (&object["status"], object["metadata"].is_set("deletionTimestamp"));
        let mut states = Vec::new();
        if ending {
            states.push("deleted");
        }
        if status.is_set("allocation") {
            states.push("allocated");
            if !status.items("reservedFor").is_empty() {
                states.push("reserved");
            }
        } else if !ending {
            states.push("pending");
        }
        vec![json!(object["metadata"].text("name")), json!(states.join(",")), age::of(object, now)]
    }
}

/// R3.
fn validate_users(object: &Value, old: &Value, at: &Path, errors: &mut Errors) {
    let (users, before) = (object["status"].items("reservedFor"), old["status"].items("reservedFor"));
    if users.len() > USERS_MAX {
        errors.too_many(at, users.len(), USERS_MAX);
        return;
    }
    if !users.is_empty() && !object["status"].is_set("allocation") {
        errors.forbidden(at, "may not be specified when `allocated` is not set");
    }
    for (index, user) in users.iter().enumerate() {
        let at = at.index(index);
        ["resource", "name", "uid"].iter().for_each(|field| required_text(user, field, &at, errors));
        let is_same = |other: &Value| other.text("uid") == user.text("uid");
        if users[..index].iter().any(is_same) {
            errors.duplicate(&at.child("uid"), user.text("uid"));
        }
        if object["metadata"].is_set("deletionTimestamp") && !before.iter().any(is_same) {
            errors.forbidden(&at, "new entries may not be added while `deletionTimestamp` is set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ResourceClaim;
    use crate::resources::fixture::{cells, check, check_status, check_update, filled};
    use serde_json::{Value, json};

    fn of(devices: Value) -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"devices": devices}})
    }

    fn requests(requests: Value) -> Value {
        of(json!({ "requests": requests }))
    }

    #[test]
    fn q1_and_q2_requests_are_met_in_one_way() {
        let good = filled(&ResourceClaim, requests(json!([{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}])));
        assert_eq!(good["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
        check(&ResourceClaim, good, &[]);
        let at = "spec.devices.requests";
        let class = json!({"deviceClassName": "gpu", "allocationMode": "All", "count": 2});
        check(
            &ResourceClaim,
            requests(json!([{"name": "a", "exactly": class}, {"name": "a"}, {"name": "b", "exactly": class,
                "firstAvailable": [{"name": "x", "deviceClassName": "y"}]}])),
            &[
                &format!("{at}[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"),
                &format!("{at}[1].name: Duplicate value: \"a\""),
                &format!("{at}[1]: Required value: exactly one of `exactly` or `firstAvailable` is required"),
                &format!("{at}[2]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but"),
            ],
        );
    }

    #[test]
    fn q3_and_q4_what_is_said_of_requests_is_of_those_there_are() {
        let devices = json!({"requests": [{"name": "a", "firstAvailable": [{"name": "x", "deviceClassName": "y"}]}],
            "constraints": [{"requests": ["a/x", "a/z", "b"], "matchAttribute": "model"}],
            "config": [{"requests": ["a"], "opaque": {"driver": "d", "parameters": {}}}]});
        let at = "spec.devices.constraints[0]";
        check(
            &ResourceClaim,
            of(devices),
            &[
                &format!("{at}.requests[1]: Invalid value: \"a/z\": must be the name of a request"),
                &format!("{at}.requests[2]: Invalid value: \"b\": must be the name of a request"),
                &format!("{at}.matchAttribute: Invalid value: \"model\": must include a domain"),
            ],
        );
    }

    #[test]
    fn r1_what_is_asked_for_never_changes() {
        let (one, two) = (requests(json!([{"name": "a"}])), requests(json!([{"name": "b"}])));
        check_update(&ResourceClaim, &two, &one, &["spec: Invalid value"]);
    }

    fn with(status: Value) -> Value {
        json!({"metadata": {"name": "c"}, "status": status})
    }

    #[test]
    fn r2_and_r3_what_is_given_is_kept_while_it_is_used() {
        let given = |device: &str| json!({"devices": {"results": [{"request": "a", "driver": "d.e", "pool": "p", "device": device}]}});
        let user = |uid: &str| json!({"resource": "pods", "name": "p", "uid": uid});
        let used = with(json!({"allocation": given("x"), "reservedFor": [user("1")]}));
        assert_eq!(cells(&ResourceClaim, &used)[1], "allocated,reserved");
        assert_eq!(cells(&ResourceClaim, &with(json!({})))[1], "pending");
        check_status(&ResourceClaim, &used, &with(json!({})), &[]);
        let other = with(json!({"allocation": given("y")}));
        check_status(&ResourceClaim, &other, &used, &["status.allocation: Invalid value"]);
        let taken_back = with(json!({"reservedFor": [user("1"), user("1")]}));
        let at = "status.reservedFor";
        let expected = [
            format!("{at}: Forbidden: may not be specified when `allocated` is not set"),
            format!("{at}[1].uid: Duplicate value: \"1\""),
        ];
        check_status(&ResourceClaim, &taken_back, &used, &expected.each_ref().map(String::as_str));
        let mut ending = with(json!({"allocation": given("x"), "reservedFor": [user("1"), user("2")]}));
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        check_status(
            &ResourceClaim,
            &ending,
            &used,
            &["status.reservedFor[1]: Forbidden: new entries may not be added"],
        );
    }
}
