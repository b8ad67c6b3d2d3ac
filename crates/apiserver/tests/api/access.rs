//! Who may do what: anonymous, users without rights, nodes.

use http::Method;
use serde_json::{Value, json};
use windlass_apiserver::Identity;

use crate::{Api, CONFIG_MAPS, PODS, bind, config_map, pod};

async fn said(api: &Api, who: &Identity, method: Method, path: &str, body: &Value) -> String {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    api.call_as(who.clone(), method, path, &[("content-type", media)], text).await.said()
}

async fn get(api: &Api, who: &Identity, path: &str) -> String {
    said(api, who, Method::GET, path, &Value::Null).await
}

#[tokio::test]
async fn strangers_learn_health_and_version_only() {
    let api = Api::start().await;
    let stranger = Identity::anonymous();
    for open in ["/livez", "/readyz", "/healthz", "/version", "/livez/ping", "/readyz?verbose"] {
        assert_eq!(get(&api, &stranger, open).await, "200", "{open}");
    }
    for closed in [
        "/",
        "/api",
        "/apis",
        "/apis/apps/v1",
        "/openapi/v3",
        "/metrics",
        "/nonsense",
        "/api/v1/nonsense",
        "/api/v1/pods/../x",
    ] {
        assert_eq!(
            get(&api, &stranger, closed).await,
            format!("403 Forbidden: forbidden: User \"system:anonymous\" cannot get path {closed:?}"),
        );
    }
    assert_eq!(
        get(&api, &stranger, CONFIG_MAPS).await,
        "403 Forbidden: configmaps is forbidden: User \"system:anonymous\" cannot list resource \"configmaps\" in API group \
         \"\" in the namespace \"default\""
    );
    let verbs = [Method::GET, Method::PUT, Method::PATCH, Method::DELETE];
    for resource in windlass_api::resources::all() {
        let path = resource.kind.object_path("default", "x");
        for method in verbs.clone() {
            let answer = said(&api, &stranger, method.clone(), &path, &json!({})).await;
            assert!(answer.starts_with("403 Forbidden"), "{method} {path}: {answer}");
        }
        let path = resource.kind.collection_path(Some("default"));
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = said(&api, &stranger, method.clone(), &path, &json!({})).await;
            assert!(answer.starts_with("403 Forbidden"), "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_known_user_without_rights_reads_discovery_only() {
    let api = Api::start().await;
    let user = Identity::new("jane", ["dev".to_owned()]);
    assert_eq!(get(&api, &user, "/api").await, "200");
    assert_eq!(get(&api, &user, "/apis/apps/v1").await, "200");
    assert_eq!(
        get(&api, &user, "/metrics").await,
        "403 Forbidden: forbidden: User \"jane\" cannot get path \"/metrics\""
    );
    assert_eq!(
        get(&api, &user, "/apis/apps/v1/namespaces/a/deployments/web/scale").await,
        "403 Forbidden: deployments.apps \"web\" is forbidden: User \"jane\" cannot get resource \"deployments/scale\" in API \
         group \"apps\" in the namespace \"a\""
    );
    assert!(get(&api, &user, "/api/v1/nodes").await.ends_with("at the cluster scope"));
}

#[tokio::test]
async fn exec_is_create_whatever_the_method() {
    let api = Api::start().await;
    let user = Identity::new("jane", []);
    let answer = get(&api, &user, &format!("{PODS}/p/exec?command=sh")).await;
    assert!(answer.contains("cannot create resource \"pods/exec\""), "{answer}");
}

#[tokio::test]
async fn proofs_that_nobody_can_check_are_refused() {
    let api = Api::start().await;
    for proof in ["Bearer abc", "Bearer ", "bearer a.b.c", "Basic YTpi", "", "Bearer"] {
        for who in [crate::admin(), Identity::anonymous()] {
            let reply = api.call_as(who, Method::GET, "/version", &[("authorization", proof)], "").await;
            assert_eq!(reply.said(), "401 Unauthorized: Unauthorized", "{proof:?}");
        }
    }
    let forged = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];
    let reply = api.call_as(Identity::anonymous(), Method::GET, CONFIG_MAPS, &forged, "").await;
    assert_eq!(reply.code, 403);
}

#[tokio::test]
async fn a_node_writes_its_own_things_only() {
    let api = Api::start().await;
    let n1 = Identity::node("n1");
    let node = |name: &str| json!({"metadata": {"name": name}});
    let lease =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    api.make("/api/v1/nodes", &node("n2")).await;
    api.make(PODS, &pod("mine")).await;
    api.make(PODS, &pod("theirs")).await;
    bind(&api, "mine", "n1").await;
    bind(&api, "theirs", "n2").await;
    let running = json!({"status": {"phase": "Running"}});
    let owner =
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}});
    for (method, path, body, allowed) in [
        (Method::POST, "/api/v1/nodes".to_owned(), node("n1"), true),
        (Method::POST, "/api/v1/nodes".to_owned(), node("n3"), false),
        (Method::PATCH, "/api/v1/nodes/n1".to_owned(), label("zone"), true),
        (Method::PATCH, "/api/v1/nodes/n2".to_owned(), label("zone"), false),
        (Method::PATCH, "/api/v1/nodes/n1/status".to_owned(), running.clone(), true),
        (Method::PATCH, "/api/v1/nodes/n2/status".to_owned(), running.clone(), false),
        (Method::PATCH, "/api/v1/nodes/n1".to_owned(), label("node-restriction.kubernetes.io/x"), false),
        (Method::PATCH, "/api/v1/nodes/n1/status".to_owned(), label("a.node-restriction.kubernetes.io/x"), false),
        (Method::PATCH, "/api/v1/nodes/n1".to_owned(), owner, false),
        (
            Method::PATCH,
            "/api/v1/nodes/n1".to_owned(),
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
            false,
        ),
        (Method::DELETE, "/api/v1/nodes/n1".to_owned(), Value::Null, false),
        (Method::POST, leases.to_owned(), lease("n1"), true),
        (Method::POST, leases.to_owned(), lease("n2"), false),
        (Method::GET, format!("{leases}/n1"), Value::Null, true),
        (Method::GET, format!("{leases}/n2"), Value::Null, false),
        (Method::PATCH, format!("{PODS}/mine/status"), running.clone(), true),
        (Method::PATCH, format!("{PODS}/theirs/status"), running, false),
        (Method::DELETE, format!("{PODS}/theirs?gracePeriodSeconds=0"), Value::Null, false),
        (Method::DELETE, format!("{PODS}/mine?gracePeriodSeconds=0"), Value::Null, true),
        (Method::POST, PODS.to_owned(), pod("static"), false),
        (Method::GET, "/api/v1/pods".to_owned(), Value::Null, true),
        (Method::GET, "/api/v1/secrets".to_owned(), Value::Null, false),
        (Method::POST, CONFIG_MAPS.to_owned(), config_map("c"), false),
        (Method::GET, "/apis/apps/v1/deployments".to_owned(), Value::Null, false),
        (Method::POST, format!("{PODS}/theirs/exec?command=sh"), Value::Null, false),
        (Method::GET, "/metrics".to_owned(), Value::Null, false),
    ] {
        let answer = said(&api, &n1, method.clone(), &path, &body).await;
        assert_eq!(!answer.starts_with("403"), allowed, "{method} {path} {body}: {answer}");
        assert!(!allowed || answer.starts_with('2'), "{method} {path} {body}: {answer}");
    }
}

/// What strangers get, by path: nothing of what is here depends on which kinds there are.
const STRANGERS: &str = "
/ GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/livez GET 200 HEAD 200 POST 403 PUT 403 PATCH 403 DELETE 403
/readyz GET 200 HEAD 200 POST 403 PUT 403 PATCH 403 DELETE 403
/healthz GET 200 HEAD 200 POST 403 PUT 403 PATCH 403 DELETE 403
/livez/ping GET 200 HEAD 200 POST 403 PUT 403 PATCH 403 DELETE 403
/readyz/ping GET 200 HEAD 200 POST 403 PUT 403 PATCH 403 DELETE 403
/readyz/nonsense GET 404 HEAD 404 POST 403 PUT 403 PATCH 403 DELETE 403
/version GET 200 HEAD 200 POST 403 PUT 403 PATCH 403 DELETE 403
/metrics GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/api GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/apis GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/apis/apps GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/api/v1 GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/openapi/v2 GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/openapi/v3 GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/openapi/v3/api/v1 GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/.well-known/openid-configuration GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/openid/v1/jwks GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/windlass/v1/join GET 403 HEAD 403 POST 404 PUT 403 PATCH 403 DELETE 403
/api/v1/watch/pods GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/api/v1/watch/namespaces/default/secrets/x GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/apis/apps/v1/watch/deployments GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/apis/nonsense.io GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/apis/nonsense.io/v1/things GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/windlass/v1 GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/windlass GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/logs GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
/debug/pprof GET 403 HEAD 403 POST 403 PUT 403 PATCH 403 DELETE 403
";

#[tokio::test]
async fn a28_strangers_get_nothing_on_any_route_by_any_verb() {
    let api = Api::start().await;
    let stranger = Identity::anonymous();
    for line in STRANGERS.lines().filter(|line| !line.is_empty()) {
        let (path, _) = line.split_once(' ').expect("a path");
        let mut found = path.to_owned();
        for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let reply = api.call_as(stranger.clone(), method.clone(), path, &[], "").await;
            found.push_str(&format!(" {method} {}", reply.code.as_u16()));
        }
        assert_eq!(found, line);
    }
    for resource in windlass_api::resources::all() {
        let (version, path) = (&resource.kind.version, resource.kind.object_path("default", "x"));
        let watched = path.replacen(&format!("/{version}/"), &format!("/{version}/watch/"), 1);
        let answer = get(&api, &stranger, &watched).await;
        assert!(watched != path && answer.starts_with("403 Forbidden"), "{watched}: {answer}");
        for sub in &resource.subresources {
            let path = format!("{}/{}", resource.kind.object_path("default", "x"), sub.as_str());
            for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                let answer = said(&api, &stranger, method.clone(), &path, &json!({})).await;
                assert!(answer.starts_with("403 Forbidden"), "{method} {path}: {answer}");
            }
        }
    }
}
