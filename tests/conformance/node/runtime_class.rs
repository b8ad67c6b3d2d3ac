//! RuntimeClass: the walk, and what it means for a pod that names one.

use serde_json::{Value, json};

use crate::walk::Walk;
use crate::{Test, pod};

pub fn row(test: &Test) -> Walk {
    Walk::cluster(test, "node.k8s.io/v1", "runtimeclasses", json!({"handler": "conformance"}))
}

fn pod_of(class: &str) -> Value {
    let mut object = pod::named("classed", "classed");
    object["spec"]["runtimeClassName"] = json!(class);
    object
}

pub async fn a_pod_has_the_overhead_of_its_class(test: &Test) {
    let overhead = json!({"cpu": "10m", "memory": "1Mi"});
    let name = test.unique("overhead");
    let class = json!({"metadata": {"name": name}, "handler": "conformance", "overhead": {"podFixed": overhead}});
    let classes = test.everywhere("node.k8s.io/v1", "runtimeclasses");
    test.api.create(&classes, &class).await.ok();
    let made = test.api.create(&test.path("v1", "pods"), &pod_of(&name)).await.ok();
    assert_eq!(made["spec"]["overhead"], overhead);
    test.api.delete(&format!("{classes}/{name}")).await.ok();
}

pub async fn an_unknown_class_is_refused(test: &Test) {
    let message = test.api.create(&test.path("v1", "pods"), &pod_of(&test.unique("unknown"))).await.refused(403);
    assert!(message.contains("RuntimeClass"), "{message}");
}

pub async fn a_deleted_class_is_refused(test: &Test) {
    let name = test.unique("deleted");
    let classes = test.everywhere("node.k8s.io/v1", "runtimeclasses");
    test.api.create(&classes, &json!({"metadata": {"name": name}, "handler": "conformance"})).await.ok();
    let one = format!("{classes}/{name}");
    test.api.delete(&one).await.ok();
    test.api.until_gone(&one).await;
    let message = test.api.create(&test.path("v1", "pods"), &pod_of(&name)).await.refused(403);
    assert!(message.contains("RuntimeClass"), "{message}");
}

pub async fn a_pod_of_a_class_is_scheduled(test: &Test) {
    let name = test.unique("class");
    let class = json!({"metadata": {"name": name}, "handler": "conformance"});
    test.api.create(&test.everywhere("node.k8s.io/v1", "runtimeclasses"), &class).await.ok();
    let mut pod = crate::running::waiting("classy");
    pod["spec"]["runtimeClassName"] = json!(name);
    test.start(&pod).await;
    test.until_pod("classy", "scheduled", |pod| crate::running::condition(pod, "PodScheduled") == "True").await;
}
