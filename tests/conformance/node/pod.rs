//! Pod: what happens to its object while no node has it.

use serde_json::{Value, json};

use crate::api::STRATEGIC;
use crate::walk::{Walk, condition};
use crate::{Test, pod};

fn row(test: &Test) -> Walk {
    Walk::namespaced(test, "v1", "pods", json!({"spec": pod::spec()}))
        .change(json!({"spec": {"activeDeadlineSeconds": 3600}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn a_pod_and_its_status_live(test: &Test) {
    row(test).whole(test).await;
}

pub async fn many_are_listed_and_deleted(test: &Test) {
    row(test).collection(test).await;
}

pub async fn a_label_is_changed(test: &Test) {
    let path = test.path("v1", "pods");
    test.api.create(&path, &pod::named("labelled", "before")).await.ok();
    let names = |list: Value| list["items"].as_array().map_or(0, Vec::len);
    assert_eq!(names(test.api.get(&format!("{path}?labelSelector=app%3Dbefore")).await.ok()), 1);
    test.api.replace(&format!("{path}/labelled"), |pod| pod["metadata"]["labels"]["app"] = json!("after")).await;
    assert_eq!(names(test.api.get(&format!("{path}?labelSelector=app%3Dafter")).await.ok()), 1);
    assert_eq!(names(test.api.get(&format!("{path}?labelSelector=app%3Dbefore")).await.ok()), 0);
}

pub async fn the_class_follows_from_the_resources(test: &Test) {
    let quantity = json!({"cpu": "100m", "memory": "100Mi"});
    let cases = [
        ("guaranteed", json!({"requests": quantity, "limits": quantity}), "Guaranteed"),
        ("burstable", json!({"requests": {"cpu": "50m"}, "limits": quantity}), "Burstable"),
        ("best-effort", json!({}), "BestEffort"),
    ];
    for (name, resources, class) in cases {
        let mut object = pod::named(name, "class");
        object["spec"]["containers"][0]["resources"] = resources;
        let made = test.api.create(&test.path("v1", "pods"), &object).await.ok();
        assert_eq!(made["status"]["qosClass"], class, "{name}");
    }
}

/// A pod that no node takes: an image may be wished that nobody has.
pub async fn images_and_times_count_generations(test: &Test) {
    let path = test.path("v1", "pods");
    let made = test.api.create(&path, &pod::named("counted", "counted")).await.ok();
    assert_eq!(made["metadata"]["generation"], 1);
    let one = format!("{path}/counted");
    let tolerates = json!([{"key": "a", "operator": "Exists"}]);
    let changes = [
        (json!({"spec": {"tolerations": tolerates}}), 2),
        (json!({"metadata": {"labels": {"a": "b"}}}), 2),
        (json!({"spec": {"containers": [{"name": "main", "image": "example.com/none:2"}]}}), 3),
        (json!({"spec": {"activeDeadlineSeconds": 100}}), 4),
    ];
    for (patch, generation) in changes {
        let after = test.api.patch(&one, STRATEGIC, &patch).await.ok();
        assert_eq!(after["metadata"]["generation"], generation, "{patch}");
    }
    let status = json!({"status": {"message": "a status is no wish"}});
    let after = test.api.patch(&format!("{one}/status"), STRATEGIC, &status).await.ok();
    assert_eq!(after["metadata"]["generation"], 4);
}

pub async fn names_of_sysctls_are_checked(test: &Test) {
    let mut object = pod::named("sysctls", "sysctls");
    let sysctls = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."].map(|name| json!({"name": name, "value": "1"}));
    object["spec"]["securityContext"] = json!({"sysctls": sysctls});
    let message = test.api.create(&test.path("v1", "pods"), &object).await.refused(422);
    assert!(message.contains("foo-") && message.contains("bar.."), "{message}");
    assert!(!message.contains("kernel.shmmax"), "{message}");
}
