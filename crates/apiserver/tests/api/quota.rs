//! What a namespace may use: quotas and limit ranges.

use serde_json::{Value, json};

use crate::{Api, CONFIG_MAPS, PODS, SERVICES, config_map, pod, service};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const LIMIT_RANGES: &str = "/api/v1/namespaces/default/limitranges";

/// A quota that has been counted, as its controller has it done.
async fn bound(api: &Api, name: &str, hard: Value) {
    api.make(QUOTAS, &json!({"metadata": {"name": name}, "spec": {"hard": hard}})).await;
    count(api, name, &hard).await;
}

async fn count(api: &Api, name: &str, hard: &Value) -> Value {
    let reply =
        api.merge(&format!("{QUOTAS}/{name}/status"), &json!({"status": {"hard": hard, "used": {"pods": "77"}}})).await;
    assert_eq!(reply.said(), "200");
    reply.json()["status"]["used"].clone()
}

fn asking(name: &str, cpu: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    pod
}

#[tokio::test]
async fn q1_and_q2_of_pods_racing_for_what_is_left_as_many_get_it_as_fit() {
    let api = Api::start().await;
    bound(&api, "q", json!({"requests.cpu": "1", "pods": "50"})).await;
    let attempts = (0..20).map(|index| {
        let (api, pod) = (&api, asking(&format!("p{index}"), "100m"));
        async move { api.post(PODS, &pod).await.code.as_u16() }
    });
    let codes = futures::future::join_all(attempts).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 10, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 403).count(), 10, "{codes:?}");
    let quota = api.get(&format!("{QUOTAS}/q")).await.json();
    assert_eq!(quota["status"]["used"], json!({"requests.cpu": "1", "pods": "10"}));
    let said = api.post(PODS, &asking("late", "1")).await.said();
    let expected = "403 Forbidden: pods \"late\" is forbidden: exceeded quota: q, requested: requests.cpu=1, used: \
                    requests.cpu=1, limited: requests.cpu=1";
    assert_eq!(said, expected);
}

#[tokio::test]
async fn q4_and_q5_a_quota_is_counted_before_it_lets_anything_in() {
    let api = Api::start().await;
    api.make(PODS, &asking("there", "1")).await;
    api.make(QUOTAS, &json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}})).await;
    let said = api.post(PODS, &asking("p", "1")).await.said();
    assert!(said.contains("status unknown for quota: q, resources: pods"), "{said}");
    let hard = json!({"pods": "2"});
    assert_eq!(count(&api, "q", &hard).await, json!({"pods": "1"}), "the server counts for itself");
    api.make(PODS, &asking("p", "1")).await;
    assert_eq!(api.post(PODS, &asking("q", "1")).await.code, 403);
    api.delete(&format!("{PODS}/there?gracePeriodSeconds=0")).await;
    assert_eq!(count(&api, "q", &hard).await, json!({"pods": "1"}));
    api.make(PODS, &asking("q", "1")).await;
}

#[tokio::test]
async fn q2_objects_and_ports_are_bounded_too() {
    let api = Api::start().await;
    bound(&api, "q", json!({"count/configmaps": "1", "services.nodeports": "1", "services.loadbalancers": "0"})).await;
    let mut exposed = service("exposed");
    exposed["spec"]["type"] = json!("NodePort");
    api.make(SERVICES, &exposed).await;
    api.make(SERVICES, &service("inner")).await;
    let opened = api.merge(&format!("{SERVICES}/inner"), &json!({"spec": {"type": "NodePort"}})).await.said();
    assert!(opened.contains("exceeded quota: q, requested: services.nodeports=1"), "{opened}");
    api.make(CONFIG_MAPS, &config_map("one")).await;
    let said = api.post(CONFIG_MAPS, &config_map("two")).await.said();
    assert!(said.contains("exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1"), "{said}");
}

#[tokio::test]
async fn q3_a_pod_says_how_much_it_uses_of_what_is_bounded() {
    let api = Api::start().await;
    bound(&api, "q", json!({"limits.memory": "1Gi"})).await;
    let expected = "403 Forbidden: pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: main";
    assert_eq!(api.post(PODS, &pod("p")).await.said(), expected);
}

#[tokio::test]
async fn l1_to_l3_a_limit_range_fills_in_and_bounds() {
    let api = Api::start().await;
    let limit = json!({"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "250m"}});
    api.make(LIMIT_RANGES, &json!({"metadata": {"name": "l"}, "spec": {"limits": [limit]}})).await;
    let made = api.make(PODS, &pod("silent")).await;
    let expected = json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "500m"}});
    assert_eq!(made["spec"]["containers"][0]["resources"], expected);
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let said = api.post(PODS, &asking("greedy", "2")).await.said();
    assert!(said.contains("maximum cpu usage per Container is 1, but request is 2"), "{said}");
}
