//! ComponentStatus: whether a part of the control plane is well. Nothing is stored: the server makes it up when asked.
//!
//! Source: API reference, core/v1 ComponentStatus; deprecated since Kubernetes 1.19.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{column, name_column, row};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of ComponentStatus.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Status", "string", "whether it is healthy"),
        column("Message", "string", "what it says"),
        column("Error", "string", "what went wrong when it was asked"),
    ];
    row(&kinds::COMPONENT_STATUS, columns, ComponentStatus)
        .short_names(&["cs"])
        .read_only()
        .deprecated("v1 ComponentStatus is deprecated in v1.19+")
}

struct ComponentStatus;

impl Rules for ComponentStatus {
    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let healthy = object.items("conditions").iter().find(|condition| condition.text("type") == "Healthy");
        let status = match healthy.map(|condition| condition.text("status")) {
            Some("True") => "Healthy",
            Some(_) => "Unhealthy",
            None => "Unknown",
        };
        let text = |field: &str| healthy.map_or("", |condition| condition.text(field));
        vec![json!(object["metadata"].text("name")), json!(status), json!(text("message")), json!(text("error"))]
    }
}

#[cfg(test)]
mod tests {
    use super::ComponentStatus;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    #[test]
    fn the_printed_row() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        let cells = |conditions: Value| {
            Value::from(ComponentStatus.cells(&json!({"metadata": {"name": "c"}, "conditions": conditions}), now))
        };
        let healthy = |status: &str| json!([{"type": "Healthy", "status": status, "message": "m", "error": "e"}]);
        assert_eq!(cells(healthy("True")), json!(["c", "Healthy", "m", "e"]));
        assert_eq!(cells(healthy("False")), json!(["c", "Unhealthy", "m", "e"]));
        assert_eq!(cells(json!([])), json!(["c", "Unknown", "", ""]));
    }
}
