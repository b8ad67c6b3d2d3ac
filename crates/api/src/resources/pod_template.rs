//! PodTemplate: a pod to be made later, kept as an object of its own.
//!
//! Source: API reference, core/v1 PodTemplate.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::{Tree, part_mut};
use super::{column, label_selector, name_column, pod, row, workload};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of PodTemplate.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Containers", "string", "the names of the template's containers"),
        column("Images", "string", "the images of the template's containers"),
        column("Pod Labels", "string", "the labels of pods made from it"),
    ];
    row(&kinds::POD_TEMPLATE, columns, PodTemplate).shows_deleted().counts_generations()
}

struct PodTemplate;

impl Rules for PodTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(template) = part_mut(object, "template") {
            pod::fill_template(template);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        pod::validate_template(&object["template"], &Path::new("template"), errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings_at(object, old, &["template"], false)
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let template = &object["template"];
        let (names, images) = pod::template_columns(template);
        vec![
            json!(object["metadata"].text("name")),
            json!(names),
            json!(images),
            json!(label_selector::shown_labels(template["metadata"].entries("labels"))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::PodTemplate;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    #[test]
    fn its_pod_is_filled_in_and_valid() {
        let mut template = json!({"metadata": {"name": "t"}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c"}]}}});
        PodTemplate.default(&mut template);
        assert_eq!(template["template"]["spec"]["restartPolicy"], "Always");
        let mut errors = Errors::new();
        PodTemplate.validate(&template, &mut errors);
        compare(&errors, &["template.spec.containers[0].image: Required value"]);
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(Value::from(PodTemplate.cells(&template, now)), json!(["t", "c", "", "a=b"]));
    }
}
