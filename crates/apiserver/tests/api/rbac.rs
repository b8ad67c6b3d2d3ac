//! Roles and bindings: what they give, from when on, and who may give it.

use http::Method;
use serde_json::{Value, json};
use windlass_apiserver::Identity;

use crate::{Api, CONFIG_MAPS, PODS, config_map, pod};

const GROUP: &str = "/apis/rbac.authorization.k8s.io/v1";

fn jane() -> Identity {
    Identity::new("jane", ["dev".to_owned()])
}

async fn said(api: &Api, who: &Identity, method: Method, path: &str, body: &Value) -> String {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    api.call_as(who.clone(), method, path, &[("content-type", media)], text).await.said()
}

async fn get(api: &Api, who: &Identity, path: &str) -> String {
    said(api, who, Method::GET, path, &Value::Null).await
}

fn role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user}]})
}

fn in_default(plural: &str) -> String {
    format!("{GROUP}/namespaces/default/{plural}")
}

#[tokio::test]
async fn a_binding_counts_from_its_answer_to_that_of_its_end() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("c")).await;
    let map = format!("{CONFIG_MAPS}/c");
    for round in 0..20 {
        assert!(get(&api, &jane(), &map).await.starts_with("403"), "round {round}");
        api.make(&in_default("rolebindings"), &binding("b", "ClusterRole", "view", "jane")).await;
        assert_eq!(get(&api, &jane(), &map).await, "200", "round {round}");
        assert_eq!(api.delete(&format!("{}/b", in_default("rolebindings"))).await.said(), "200");
    }
    assert!(get(&api, &jane(), &map).await.starts_with("403"));
}

#[tokio::test]
async fn a_role_counts_as_it_is_now() {
    let api = Api::start().await;
    api.make(PODS, &pod("p")).await;
    let roles = in_default("roles");
    api.make(&in_default("rolebindings"), &binding("b", "Role", "r", "jane")).await;
    assert_eq!(
        get(&api, &jane(), &format!("{PODS}/p")).await,
        "403 Forbidden: pods \"p\" is forbidden: User \"jane\" cannot get resource \"pods\" in API group \"\" in the \
         namespace \"default\": RBAC: role.rbac.authorization.k8s.io \"r\" not found"
    );
    api.make(&roles, &role("r", json!([rule(&["get"], "", &["pods"])]))).await;
    assert_eq!(get(&api, &jane(), &format!("{PODS}/p")).await, "200");
    for (path, allowed) in
        [(PODS.to_owned(), false), (format!("{PODS}/p/log"), false), ("/api/v1/pods".to_owned(), false)]
    {
        assert_eq!(!get(&api, &jane(), &path).await.starts_with("403"), allowed, "{path}");
    }
    let wider = json!({"rules": [rule(&["get", "list", "watch"], "", &["pods", "pods/status"])]});
    assert_eq!(api.merge(&format!("{roles}/r"), &wider).await.said(), "200");
    assert_eq!(get(&api, &jane(), PODS).await, "200");
    assert_eq!(get(&api, &jane(), &format!("{PODS}/p/status")).await, "200");
    assert!(get(&api, &jane(), "/api/v1/namespaces/kube-system/pods").await.starts_with("403"));
}

#[tokio::test]
async fn one_object_is_listed_and_watched_by_who_may_do_that_to_it() {
    let api = Api::start().await;
    let named =
        json!({"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["c"]});
    api.make(&in_default("roles"), &role("r", json!([named]))).await;
    api.make(&in_default("rolebindings"), &binding("b", "Role", "r", "jane")).await;
    assert_eq!(get(&api, &jane(), &format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc")).await, "200");
    assert!(get(&api, &jane(), &format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dd")).await.starts_with("403"));
    assert!(get(&api, &jane(), CONFIG_MAPS).await.starts_with("403"));
    let namespace = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["namespaces"]});
    api.make(&in_default("roles"), &role("n", json!([namespace]))).await;
    api.make(&in_default("rolebindings"), &binding("n", "Role", "n", "jane")).await;
    assert_eq!(get(&api, &jane(), "/api/v1/namespaces/default").await, "200", "a namespace is in itself");
    assert!(get(&api, &jane(), "/api/v1/namespaces/kube-system").await.ends_with("in the namespace \"kube-system\""));
}

#[tokio::test]
async fn default_roles_give_people_what_their_names_say() {
    let api = Api::start().await;
    for name in ["view", "edit", "admin"] {
        api.make(&in_default("rolebindings"), &binding(name, "ClusterRole", name, name)).await;
    }
    api.make(&format!("{GROUP}/clusterrolebindings"), &binding("root", "ClusterRole", "cluster-admin", "root")).await;
    let as_user = |name: &str| Identity::new(name, []);
    let secrets = "/api/v1/namespaces/default/secrets";
    let bindings = in_default("rolebindings");
    for (user, path, method, allowed) in [
        ("view", PODS, Method::GET, true),
        ("view", secrets, Method::GET, false),
        ("view", PODS, Method::POST, false),
        ("edit", secrets, Method::GET, true),
        ("edit", PODS, Method::POST, true),
        ("edit", bindings.as_str(), Method::GET, false),
        ("admin", bindings.as_str(), Method::GET, true),
        ("admin", "/api/v1/nodes", Method::GET, false),
        ("admin", "/metrics", Method::GET, false),
        ("root", "/api/v1/nodes", Method::GET, true),
        ("root", "/metrics", Method::GET, true),
    ] {
        let body = if method == Method::POST { pod(&format!("of-{user}")) } else { Value::Null };
        let answer = said(&api, &as_user(user), method.clone(), path, &body).await;
        assert_eq!(!answer.starts_with("403"), allowed, "{user} {method} {path}: {answer}");
    }
    let monitor = Identity::new("prometheus", ["system:monitoring".to_owned()]);
    assert_eq!(get(&api, &monitor, "/metrics").await, "200");
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let api = Api::start().await;
    api.make(&in_default("rolebindings"), &binding("b", "ClusterRole", "admin", "jane")).await;
    let roles = in_default("roles");
    let held = role("held", json!([rule(&["get", "list"], "", &["pods"])]));
    assert_eq!(said(&api, &jane(), Method::POST, &roles, &held).await, "201");
    let more = role(
        "more",
        json!([
            rule(&["get", "list"], "", &["nodes", "pods"]),
            rule(&["bind"], "rbac.authorization.k8s.io", &["roles"])
        ]),
    );
    assert_eq!(
        said(&api, &jane(), Method::POST, &roles, &more).await,
        "403 Forbidden: roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"dev\" \
         \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}\n\
         {APIGroups:[\"rbac.authorization.k8s.io\"], Resources:[\"roles\"], Verbs:[\"bind\"]}"
    );
    let widened = json!({"rules": more["rules"]});
    assert!(said(&api, &jane(), Method::PATCH, &format!("{roles}/held"), &widened).await.starts_with("403"));
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(said(&api, &jane(), Method::PATCH, &format!("{roles}/held"), &labelled).await, "200");
    let bindings = in_default("rolebindings");
    for (role, code) in [("view", "201"), ("admin", "201"), ("cluster-admin", "403"), ("nothing", "404")] {
        let answer = said(&api, &jane(), Method::POST, &bindings, &binding(role, "ClusterRole", role, "joe")).await;
        assert!(answer.starts_with(code), "{role}: {answer}");
    }
}

#[tokio::test]
async fn who_may_escalate_or_bind_gives_more_than_they_have() {
    let api = Api::start().await;
    let rights = json!([
        rule(&["create", "update", "patch", "get"], "rbac.authorization.k8s.io", &["clusterroles", "clusterrolebindings"]),
        {"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["view"]},
    ]);
    let (roles, bindings) = (format!("{GROUP}/clusterroles"), format!("{GROUP}/clusterrolebindings"));
    api.make(&roles, &role("keeper", rights)).await;
    api.make(&bindings, &binding("keeper", "ClusterRole", "keeper", "jane")).await;
    let bind = |role: &str| binding(role, "ClusterRole", role, "joe");
    assert_eq!(said(&api, &jane(), Method::POST, &bindings, &bind("view")).await, "201");
    assert!(said(&api, &jane(), Method::POST, &bindings, &bind("edit")).await.starts_with("403"));
    let all = role("all", json!([rule(&["*"], "*", &["*"])]));
    assert!(said(&api, &jane(), Method::POST, &roles, &all).await.starts_with("403"));
    let gathers = json!({"metadata": {"name": "gathers"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    assert!(
        said(&api, &jane(), Method::POST, &roles, &gathers)
            .await
            .ends_with("must have cluster-admin privileges to use the aggregationRule")
    );
    let escalate = role("escalate", json!([rule(&["escalate"], "rbac.authorization.k8s.io", &["clusterroles"])]));
    api.make(&roles, &escalate).await;
    api.make(&bindings, &binding("escalate", "ClusterRole", "escalate", "jane")).await;
    assert_eq!(said(&api, &jane(), Method::POST, &roles, &all).await, "201");
    assert_eq!(said(&api, &jane(), Method::POST, &roles, &gathers).await, "201");
}

#[tokio::test]
async fn a_bindings_role_never_changes() {
    let api = Api::start().await;
    let path = format!("{}/b", in_default("rolebindings"));
    api.make(&in_default("rolebindings"), &binding("b", "ClusterRole", "view", "jane")).await;
    let other = json!({"roleRef": {"name": "edit"}});
    let answer = api.merge(&path, &other).await.said();
    assert!(answer.starts_with("422") && answer.ends_with("cannot change roleRef"), "{answer}");
    let rows = api
        .call_as(crate::admin(), Method::GET, &path, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "")
        .await
        .json();
    assert_eq!(rows["rows"][0]["cells"][1], "ClusterRole/view");
}

#[tokio::test]
async fn what_somebody_took_from_the_default_roles_comes_back_at_start() {
    let api = Api::start().await;
    let roles = format!("{GROUP}/clusterroles");
    let rules = |name: &str| {
        let path = format!("{roles}/{name}");
        let api = &api;
        async move { api.get(&path).await.json()["rules"].as_array().map_or(0, Vec::len) }
    };
    let before = rules("system:discovery").await;
    for name in ["system:discovery", "system:monitoring"] {
        assert_eq!(api.merge(&format!("{roles}/{name}"), &json!({"rules": []})).await.said(), "200");
    }
    let keep = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    assert_eq!(api.merge(&format!("{roles}/system:monitoring"), &keep).await.said(), "200");
    assert_eq!(api.delete(&format!("{GROUP}/clusterrolebindings/system:basic-user")).await.said(), "200");
    api.apiserver.bootstrap().await.expect("nothing is in its way");
    assert_eq!((rules("system:discovery").await, rules("system:monitoring").await), (before, 0));
    assert_eq!(api.get(&format!("{GROUP}/clusterrolebindings/system:basic-user")).await.said(), "200");
    let revision = api.store.revision();
    api.apiserver.bootstrap().await.expect("nothing is in its way");
    assert_eq!(api.store.revision(), revision, "what is as it should be is left alone");
}
