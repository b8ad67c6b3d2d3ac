//! IPAddress: an address of the cluster, and who has it.
//!
//! Rules
//!   A1 name     the address itself, in its one usual form
//!   A2 parent   who has it: always somebody, and never somebody else
//! Source: API reference, networking.k8s.io/v1 IPAddress.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{optional_name, required_name};
use super::super::same::same;
use super::super::tree::Tree;
use super::super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name::{self, NameRule};
use crate::resource::{Resource, Rules};

/// The row of IPAddress.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![name_column(), column("ParentRef", "string", "who has the address"), age_column()];
    row(&kinds::IP_ADDRESS, columns, IpAddress).short_names(&["ip"])
}

struct IpAddress;

impl Rules for IpAddress {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let name = object["metadata"].text("name");
        if !name.parse::<IpAddr>().is_ok_and(|address| address.to_string() == name) {
            let detail = "must be a valid IP address in canonical form";
            errors.invalid(&Path::new("metadata").child("name"), name, detail);
        }
        let (parent, at) = (&object["spec"]["parentRef"], Path::new("spec").child("parentRef"));
        if !parent.is_object() {
            errors.required(&at, "");
            return;
        }
        optional_name(parent, "group", name::subdomain, &at, errors);
        required_name(parent, "resource", name::path_segment, &at, errors);
        optional_name(parent, "namespace", name::path_segment, &at, errors);
        required_name(parent, "name", name::path_segment, &at, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let parent = &object["spec"]["parentRef"];
        if !same(parent, &old["spec"]["parentRef"]) {
            errors.immutable(&Path::new("spec").child("parentRef"), parent.clone());
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), json!(parent(&object["spec"])), age::of(object, now)]
    }
}

fn parent(spec: &Value) -> String {
    if !spec.is_set("parentRef") {
        return "<none>".to_owned();
    }
    let parent = &spec["parentRef"];
    let mut shown = parent.text("resource").to_owned();
    for (mark, part) in [('.', parent.text("group")), ('/', parent.text("namespace")), ('/', parent.text("name"))] {
        if !part.is_empty() {
            shown.push(mark);
            shown.push_str(part);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::IpAddress;
    use crate::resources::fixture::{cells, check, check_update};
    use serde_json::{Value, json};

    fn of(name: &str, parent: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": {"parentRef": parent}})
    }

    #[test]
    fn a1_the_name_is_the_address() {
        let parent = json!({"resource": "services", "namespace": "ns", "name": "web"});
        check(&IpAddress, of("10.43.0.9", parent.clone()), &[]);
        check(&IpAddress, of("2001:db8::1", parent.clone()), &[]);
        check(&IpAddress, of("2001:db8:0::1", parent.clone()), &["metadata.name: Invalid value: \"2001:db8:0::1\""]);
        assert_eq!(cells(&IpAddress, &of("10.43.0.9", parent))[1], "services/ns/web");
    }

    #[test]
    fn a2_somebody_has_it_for_good() {
        check(&IpAddress, of("10.0.0.1", json!(null)), &["spec.parentRef: Required value"]);
        let odd = json!({"group": "A"});
        let at = "spec.parentRef";
        let expected =
            [format!("{at}.group: Invalid"), format!("{at}.resource: Required"), format!("{at}.name: Required")];
        check(&IpAddress, of("10.0.0.1", odd.clone()), &expected.each_ref().map(String::as_str));
        let (new, old) = (of("10.0.0.1", odd), of("10.0.0.1", json!({"resource": "services", "name": "a"})));
        check_update(&IpAddress, &new, &old, &["spec.parentRef: Invalid value: {\"group\":\"A\"}: field is immutable"]);
    }
}
