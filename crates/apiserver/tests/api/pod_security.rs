//! Pod security: what namespaces forbid, in every kind that makes pods and by every way.

use http::Method;
use serde_json::{Value, json};

use crate::Api;

const SPACES: &str = "/api/v1/namespaces";

async fn space(api: &Api, labels: Value) {
    api.make(SPACES, &json!({"metadata": {"name": "guarded", "labels": labels}})).await;
    let account = json!({"metadata": {"name": "default"}});
    api.make("/api/v1/namespaces/guarded/serviceaccounts", &account).await;
}

fn enforce(level: &str) -> Value {
    json!({"pod-security.kubernetes.io/enforce": level})
}

fn good_spec() -> Value {
    json!({"restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "image": "x", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]})
}

fn pod(name: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": spec})
}

#[tokio::test]
async fn a85_every_kind_of_container_of_a_pod_is_refused_and_every_workload_is_told() {
    let api = Api::start().await;
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "baseline"});
    space(&api, labels).await;
    let bad = json!({"name": "b", "image": "x", "securityContext": {"privileged": true}});
    for list in ["containers", "initContainers"] {
        let mut spec = good_spec();
        match list {
            "containers" => spec["containers"].as_array_mut().expect("a list").push(bad.clone()),
            other => spec[other] = json!([bad]),
        }
        let said = api.post("/api/v1/namespaces/guarded/pods", &pod("p", &spec)).await.said();
        assert_eq!(
            said,
            "403 Forbidden: pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"b\" \
             must not set securityContext.privileged=true)"
        );
        let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": spec});
        let selector = json!({"matchLabels": {"app": "x"}});
        let mut always = template.clone();
        always["spec"]["restartPolicy"] = json!("Always");
        let set = json!({"selector": selector, "template": always});
        let rows = [
            ("/apis/apps/v1/namespaces/guarded/deployments", json!({"spec": set})),
            ("/apis/apps/v1/namespaces/guarded/replicasets", json!({"spec": set})),
            ("/apis/apps/v1/namespaces/guarded/daemonsets", json!({"spec": set})),
            (
                "/apis/apps/v1/namespaces/guarded/statefulsets",
                json!({"spec": {"serviceName": "s", "selector": selector, "template": always}}),
            ),
            (
                "/api/v1/namespaces/guarded/replicationcontrollers",
                json!({"spec": {"selector": {"app": "x"}, "template": always}}),
            ),
            ("/apis/batch/v1/namespaces/guarded/jobs", json!({"spec": {"template": template}})),
            (
                "/apis/batch/v1/namespaces/guarded/cronjobs",
                json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}}),
            ),
            ("/api/v1/namespaces/guarded/podtemplates", json!({"template": always})),
        ];
        for (path, mut object) in rows {
            object["metadata"] = json!({"name": list.to_lowercase()});
            let reply = api.post(path, &object).await;
            assert_eq!(reply.code, 201, "{path}: {}", reply.said());
            let warned = format!("{:?}", reply.headers.get_all("warning"));
            assert!(warned.contains("would violate PodSecurity") && warned.contains("privileged"), "{path}: {warned}");
        }
    }
}

#[tokio::test]
async fn p1_what_a_change_brings_is_judged_too() {
    let api = Api::start().await;
    space(&api, enforce("restricted")).await;
    let pods = "/api/v1/namespaces/guarded/pods";
    api.make(pods, &pod("p", &good_spec())).await;
    let visitor = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "x"}]}});
    let path = format!("{pods}/p/ephemeralcontainers");
    let patch = "application/strategic-merge-patch+json";
    let said = api.call(Method::PATCH, &path, patch, visitor.to_string()).await.said();
    assert!(said.starts_with("403") && said.contains("allowPrivilegeEscalation != false (container \"e\""), "{said}");
    let labelled = api.merge(&format!("{pods}/p"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled.said(), "200");
}

#[tokio::test]
async fn p4_labels_have_known_values_and_versions_count() {
    let api = Api::start().await;
    for (key, value) in [("enforce", "strict"), ("warn-version", "1.20"), ("audit", "")] {
        let label = format!("pod-security.kubernetes.io/{key}");
        let object = json!({"metadata": {"name": "wrong", "labels": {label: value}}});
        let said = api.post(SPACES, &object).await.said();
        assert!(said.starts_with("422") && said.contains("must be"), "{key}: {said}");
    }
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.33"});
    space(&api, labels).await;
    let mut spec = good_spec();
    spec["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"host": "10.0.0.1", "port": 80}});
    api.make("/api/v1/namespaces/guarded/pods", &pod("p", &spec)).await;
}

#[tokio::test]
async fn p5_who_tightens_a_namespace_is_told_what_violates_it() {
    let api = Api::start().await;
    space(&api, json!({})).await;
    let mut spec = good_spec();
    spec["hostNetwork"] = json!(true);
    api.make("/api/v1/namespaces/guarded/pods", &pod("p", &spec)).await;
    let reply = api.merge(&format!("{SPACES}/guarded"), &json!({"metadata": {"labels": enforce("baseline")}})).await;
    assert_eq!(reply.code, 200);
    let warned = format!("{:?}", reply.headers.get_all("warning"));
    assert!(
        warned.contains("violate the new PodSecurity enforce level") && warned.contains("hostNetwork=true"),
        "{warned}"
    );
}
