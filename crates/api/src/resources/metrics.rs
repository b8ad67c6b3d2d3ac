//! NodeMetrics and PodMetrics: what nodes and pods use. Nothing is stored: the server asks the nodes when it is asked.
//!
//! Source: API reference, metrics.k8s.io/v1beta1; columns as metrics-server prints them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{column, name_column, row};
use crate::kind::{Kind, kinds};
use crate::quantity::Quantity;
use crate::resource::{Resource, Rules};

/// The row of NodeMetrics.
pub(super) fn node() -> Resource {
    of(&kinds::NODE_METRICS)
}

/// The row of PodMetrics.
pub(super) fn pod() -> Resource {
    of(&kinds::POD_METRICS)
}

fn of(kind: &Kind) -> Resource {
    let columns = vec![
        name_column(),
        column("CPU", "string", "CPUs that it keeps busy"),
        column("Memory", "string", "memory that it works with"),
        column("Window", "string", "the time over which this was measured"),
    ];
    row(kind, columns, Metrics).read_only()
}

struct Metrics;

impl Rules for Metrics {
    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let parts = match object.items("containers") {
            [] => std::slice::from_ref(object),
            containers => containers,
        };
        let sum = |resource: &str| -> Quantity {
            parts.iter().filter_map(|part| Quantity::from_json(&part["usage"][resource]).ok()).sum()
        };
        let name = object["metadata"].text("name");
        vec![json!(name), json!(sum("cpu").to_string()), json!(sum("memory").to_string()), json!(object.text("window"))]
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    #[test]
    fn a_pod_uses_what_its_containers_use() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        let usage = |cpu: &str, memory: &str| json!({"usage": {"cpu": cpu, "memory": memory}});
        let mut node = usage("1500n", "10Ki");
        (node["metadata"], node["window"]) = (json!({"name": "n"}), json!("10s"));
        assert_eq!(Value::from(Metrics.cells(&node, now)), json!(["n", "1500n", "10Ki", "10s"]));
        let pod =
            json!({"metadata": {"name": "p"}, "window": "1s", "containers": [usage("1m", "1Ki"), usage("2m", "2Ki")]});
        assert_eq!(Value::from(Metrics.cells(&pod, now)), json!(["p", "3m", "3Ki", "1s"]));
    }
}
