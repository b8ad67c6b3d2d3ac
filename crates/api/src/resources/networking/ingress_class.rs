//! IngressClass: who carries Ingresses out.
//!
//! Rules
//!   C1 controller   a path below a domain, which never changes
//!   C2 parameters   an object of the cluster, or of a namespace that is named
//! Source: API reference, networking.k8s.io/v1 IngressClass.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{named, required_word};
use super::super::tree::{Tree, fill_text};
use super::super::{age, age_column, column, name_column, row};
use super::{shown_reference, validate_reference};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules};

/// Bytes of a controller's name.
const CONTROLLER_BYTES_MAX: usize = 250;

/// The row of IngressClass.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Controller", "string", "who carries out Ingresses of the class"),
        column("Parameters", "string", "what else the controller is told"),
        age_column(),
    ];
    row(&kinds::INGRESS_CLASS, columns, IngressClass).counts_generations()
}

struct IngressClass;

impl Rules for IngressClass {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec")
            && spec.is_set("parameters")
        {
            fill_text(&mut spec["parameters"], "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        let (controller, path) = (spec.text("controller"), at.child("controller"));
        if controller.len() > CONTROLLER_BYTES_MAX {
            errors.too_long(&path, CONTROLLER_BYTES_MAX);
        }
        match controller {
            "" => errors.required(&path, ""),
            _ => named(name::domain_path, controller, &path, errors),
        }
        if spec.is_set("parameters") {
            validate_parameters(&spec["parameters"], &at.child("parameters"), errors);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let controller = object["spec"].text("controller");
        if controller != old["spec"].text("controller") {
            errors.immutable(&Path::new("spec").child("controller"), controller);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let parameters = if spec.is_set("parameters") { shown_reference(&spec["parameters"]) } else { "<none>".into() };
        vec![
            json!(object["metadata"].text("name")),
            json!(spec.text("controller")),
            json!(parameters),
            age::of(object, now),
        ]
    }
}

/// C2.
fn validate_parameters(parameters: &Value, at: &Path, errors: &mut Errors) {
    validate_reference(parameters, at, errors);
    required_word(parameters, "scope", &["Cluster", "Namespace"], at, errors);
    let (namespace, path) = (parameters.text("namespace"), at.child("namespace"));
    match parameters.text("scope") {
        "Namespace" if namespace.is_empty() => errors.required(&path, "`parameters.scope` is set to 'Namespace'"),
        "Namespace" => named(name::label, namespace, &path, errors),
        "Cluster" if parameters.is_set("namespace") => {
            errors.forbidden(&path, "`parameters.scope` is set to 'Cluster'");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::IngressClass;
    use crate::resources::fixture::{cells, check, check_update, filled};
    use serde_json::json;

    #[test]
    fn c1_the_controller_is_named_once_and_for_all() {
        let class = json!({"spec": {"controller": "example.com/fast"}});
        check(&IngressClass, class.clone(), &[]);
        check(&IngressClass, json!({"spec": {}}), &["spec.controller: Required value"]);
        let plain = json!({"spec": {"controller": "fast"}});
        check(
            &IngressClass,
            plain.clone(),
            &["spec.controller: Invalid value: \"fast\": must be a domain-prefixed path"],
        );
        check_update(&IngressClass, &plain, &class, &["spec.controller: Invalid value: \"fast\": field is immutable"]);
    }

    #[test]
    fn c2_parameters_are_somewhere() {
        let with =
            |parameters| json!({"metadata": {"name": "c"}, "spec": {"controller": "a.b/c", "parameters": parameters}});
        let cluster = with(json!({"kind": "K", "name": "n", "apiGroup": "x.y"}));
        assert_eq!(filled(&IngressClass, cluster.clone())["spec"]["parameters"]["scope"], "Cluster");
        assert_eq!(cells(&IngressClass, &cluster)[2], "K.x.y/n");
        let at = "spec.parameters.namespace";
        check(&IngressClass, cluster, &[]);
        check(
            &IngressClass,
            with(json!({"kind": "K", "name": "n", "scope": "Namespace"})),
            &[&format!("{at}: Required value: `parameters.scope` is set to 'Namespace'")],
        );
        check(
            &IngressClass,
            with(json!({"kind": "K", "name": "n", "namespace": "x"})),
            &[&format!("{at}: Forbidden: `parameters.scope` is set to 'Cluster'")],
        );
    }
}
