//! APIService: who serves a version of a group.
//!
//! Rules
//!   A1 name       the version and the group
//!   A2 order      priorities within bounds
//!   A3 trust      a service that serves is trusted by one way; what this server serves itself needs none
//!   A4 local      what this server serves itself is always available
//! Source: API reference, apiregistration.k8s.io/v1 APIService.
//! Not here    handing requests over to the services, and whether they answer (apiserver/aggregate)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::{PORTS, named, required_text, required_word};
use super::tree::{Tree, carry_over, fill_number, remove};
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name::{self, NameRule};
use crate::resource::{Resource, Rules, Subresource};

/// The greatest priorities of a group and of a version.
const PRIORITIES_MAX: [(&str, i64); 2] = [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)];

/// The row of APIService.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Service", "string", "the service that serves it, Local for this server"),
        column("Available", "string", "whether it is served"),
        age_column(),
    ];
    let mut row = row(&kinds::API_SERVICE, columns, ApiService).needs_revision().subresources(&[Subresource::Status]);
    row.categories.push("api-extensions".to_owned());
    row
}

struct ApiService;

impl Rules for ApiService {
    /// The version of the core group has a name that ends with a dot.
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn default(&self, object: &mut Value) {
        if let Some(service) = object.get_mut("spec").and_then(|spec| spec.get_mut("service")) {
            fill_number(service, "port", 443);
        }
    }

    /// A4.
    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
        if object.is_object() && !object["spec"].is_set("service") {
            let created = object["metadata"].text("creationTimestamp");
            object["status"] = json!({"conditions": [{
                "type": "Available", "status": "True", "lastTransitionTime": created, "reason": "Local",
                "message": "Local APIServices are always available",
            }]});
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        let (group, version, name) = (spec.text("group"), spec.text("version"), object["metadata"].text("name"));
        let wanted = format!("{version}.{group}");
        if name != wanted {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.invalid(&Path::new("metadata").child("name"), name, &detail);
        }
        if !group.is_empty() {
            named(name::subdomain, group, &at.child("group"), errors);
        }
        named(name::letter_label, version, &at.child("version"), errors);
        for (field, most) in PRIORITIES_MAX {
            let priority = spec.int(field).unwrap_or(0);
            if !(1..=most).contains(&priority) {
                errors.invalid(&at.child(field), priority, &format!("must be positive and less than {most}"));
            }
        }
        validate_trust(spec, &at, errors);
        if spec.is_set("service") {
            validate_service(&spec["service"], &at.child("service"), errors);
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let at = Path::new("status").child("conditions");
        for (index, condition) in object["status"].items("conditions").iter().enumerate() {
            required_word(condition, "status", &["False", "True", "Unknown"], &at.index(index), errors);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = &object["spec"]["service"];
        let served = if service.is_object() {
            format!("{}/{}", service.text("namespace"), service.text("name"))
        } else {
            "Local".to_owned()
        };
        let mut conditions = object["status"].items("conditions").iter();
        let available = match conditions.find(|condition| condition.text("type") == "Available") {
            None => "Unknown".to_owned(),
            Some(condition) if condition.text("status") == "True" => "True".to_owned(),
            Some(condition) => format!("{} ({})", condition.text("status"), condition.text("reason")),
        };
        vec![json!(object["metadata"].text("name")), json!(served), json!(available), age::of(object, now)]
    }
}

/// A3.
fn validate_trust(spec: &Value, at: &Path, errors: &mut Errors) {
    let (bundle, careless) = (!spec.text("caBundle").is_empty(), spec.flag("insecureSkipTLSVerify"));
    if !spec.is_set("service") {
        if bundle {
            errors.invalid(&at.child("caBundle"), "<bundle>", "local APIServices may not have a caBundle");
        }
        if careless {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.invalid(&at.child("insecureSkipTLSVerify"), true, detail);
        }
    } else if bundle && careless {
        errors.invalid(&at.child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present");
    }
}

fn validate_service(service: &Value, at: &Path, errors: &mut Errors) {
    required_text(service, "namespace", at, errors);
    required_text(service, "name", at, errors);
    if let Some(port) = service.int("port").filter(|port| !(PORTS.0..=PORTS.1).contains(port)) {
        errors.invalid(&at.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
}

#[cfg(test)]
mod tests {
    use super::ApiService;
    use crate::resource::Rules;
    use crate::resources::fixture::{cells, check, filled};
    use serde_json::{Value, json};

    fn of(name: &str, more: Value) -> Value {
        let mut spec = json!({"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100});
        spec.as_object_mut().expect("a literal").extend(more.as_object().expect("a literal").clone());
        json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec})
    }

    #[test]
    fn a1_and_a2_the_name_says_what_is_served_and_in_which_order() {
        check(&ApiService, of("v1beta1.metrics.k8s.io", json!({})), &[]);
        check(&ApiService, of("v1.", json!({"group": "", "version": "v1"})), &[]);
        check(
            &ApiService,
            of("metrics", json!({"groupPriorityMinimum": 0, "versionPriority": 1001})),
            &[
                "metadata.name: Invalid value: \"metrics\": must be `spec.version+\".\"+spec.group`: \"v1beta1.metrics.k8s.io\"",
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
            ],
        );
    }

    #[test]
    fn a3_a_service_is_trusted_by_one_way() {
        let name = "v1beta1.metrics.k8s.io";
        let service = filled(&ApiService, of(name, json!({"service": {"namespace": "ns", "name": "m"}})));
        assert_eq!(service["spec"]["service"]["port"], 443);
        assert_eq!(cells(&ApiService, &service)[1..3], ["ns/m", "Unknown"].map(Value::from));
        check(&ApiService, of(name, json!({"caBundle": "QQ=="})), &["spec.caBundle: Invalid value"]);
        let both = json!({"caBundle": "QQ==", "insecureSkipTLSVerify": true, "service": {"port": 70000}});
        check(
            &ApiService,
            of(name, both),
            &[
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 70000: port is not valid",
            ],
        );
    }

    #[test]
    fn a4_what_this_server_serves_is_available() {
        let mut local = of("v1beta1.metrics.k8s.io", json!({}));
        ApiService.prepare_create(&mut local);
        assert_eq!(cells(&ApiService, &local)[1..3], ["Local", "True"].map(Value::from));
        assert_eq!(local["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }
}
