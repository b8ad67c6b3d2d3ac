//! LimitRange: its collections, and what it means for new pods.

use serde_json::json;

use crate::walk::{Walk, holds};
use crate::{Test, pod};

pub async fn ranges_are_listed_patched_and_deleted(test: &Test) {
    let limit = |cpu: &str| json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": cpu}}]}});
    let row = Walk::namespaced(test, "v1", "limitranges", limit("1")).change(limit("2"));
    row.whole(test).await;
}

pub async fn pods_get_defaults_and_keep_to_the_limits(test: &Test) {
    let limits = json!([{"type": "Container", "min": {"cpu": "50m", "memory": "100Mi"},
        "max": {"cpu": "500m", "memory": "500Mi"}, "default": {"cpu": "500m", "memory": "500Mi"},
        "defaultRequest": {"cpu": "100m", "memory": "200Mi"}}]);
    let object = json!({"metadata": {"name": "limits"}, "spec": {"limits": limits}});
    let ranges = test.path("v1", "limitranges");
    let made = test.api.create(&ranges, &object).await.ok();
    holds(&made["spec"]["limits"], &limits);

    let pods = test.path("v1", "pods");
    let resources = [
        (
            "none",
            json!({}),
            json!({"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m", "memory": "500Mi"}}),
        ),
        (
            "partial",
            json!({"requests": {"cpu": "60m"}, "limits": {"cpu": "300m"}}),
            json!({"requests": {"cpu": "60m", "memory": "200Mi"}, "limits": {"cpu": "300m", "memory": "500Mi"}}),
        ),
    ];
    for (name, wished, expected) in resources {
        let mut object = pod::named(name, "limited");
        object["spec"]["containers"][0]["resources"] = wished;
        let made = test.api.create(&pods, &object).await.ok();
        holds(&made["spec"]["containers"][0]["resources"], &expected);
    }
    for (name, cpu, word) in [("little", "10m", "minimum"), ("much", "600m", "maximum")] {
        let mut object = pod::named(name, "limited");
        object["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let message = test.api.create(&pods, &object).await.refused(403);
        assert!(message.contains(word), "{message}");
    }
    let less = json!({"cpu": "9m", "memory": "100Mi"});
    test.api.replace(&format!("{ranges}/limits"), |range| range["spec"]["limits"][0]["min"] = less.clone()).await;
    let mut object = pod::named("little", "limited");
    object["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "10m"}});
    test.api.create(&pods, &object).await.ok();
    test.api.delete(&format!("{ranges}/limits")).await.ok();
    test.api.until_gone(&format!("{ranges}/limits")).await;
}
