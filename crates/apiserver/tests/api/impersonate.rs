//! Acting as somebody else.

use http::Method;
use serde_json::{Value, json};
use windlass_apiserver::Identity;

use crate::{Api, PODS, admin};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Who a request is taken to be.
async fn who(api: &Api, as_whom: Identity, headers: &[(&str, &str)]) -> (String, Value) {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let reply = api.call_as(as_whom, Method::POST, path, &all, "{}").await;
    (reply.said(), reply.json()["status"]["userInfo"].clone())
}

async fn allow(api: &Api, user: &str, rules: Value) {
    api.make(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": user}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": user}, "roleRef": {"kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "name": user}]});
    api.make(&format!("{RBAC}/clusterrolebindings"), &binding).await;
}

#[tokio::test]
async fn an_admin_acts_as_anybody_and_is_then_nobody_else() {
    let api = Api::start().await;
    let headers = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-group", "ops"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-scopes%2fall", "a"),
        ("impersonate-extra-scopes%2fall", "b"),
    ];
    let (said, user) = who(&api, admin(), &headers).await;
    let expected = json!({"username": "jane", "uid": "7", "groups": ["dev", "ops", "system:authenticated"],
        "extra": {"scopes/all": ["a", "b"]}});
    assert_eq!((said.as_str(), &user), ("201", &expected));
    let refused = api.call_as(admin(), Method::GET, PODS, &[("impersonate-user", "jane")], "").await.said();
    assert!(refused.contains("User \"jane\" cannot list resource \"pods\""), "{refused}");
    let (_, account) = who(&api, admin(), &[("impersonate-user", "system:serviceaccount:a:bot")]).await;
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    assert_eq!(account["groups"], groups);
    let (said, _) = who(&api, admin(), &[("impersonate-user", "system:anonymous")]).await;
    assert!(said.starts_with("403"), "the anonymous user asks nothing about itself: {said}");
}

#[tokio::test]
async fn a32_each_part_needs_its_own_right() {
    let api = Api::start().await;
    let jane = || Identity::new("jane", []);
    let may = |resource: &str, group: &str, name: &str| json!({"verbs": ["impersonate"], "apiGroups": [group], "resources": [resource], "resourceNames": [name]});
    let authentication = "authentication.k8s.io";
    allow(
        &api,
        "jane",
        json!([
            may("users", "", "joe"),
            may("groups", "", "dev"),
            may("serviceaccounts", "", "bot"),
            may("uids", authentication, "7"),
            may("userextras/scopes", authentication, "a")
        ]),
    )
    .await;
    let allowed: [&[(&str, &str)]; 4] = [
        &[("impersonate-user", "joe")],
        &[("impersonate-user", "joe"), ("impersonate-group", "dev")],
        &[("impersonate-user", "joe"), ("impersonate-uid", "7"), ("impersonate-extra-scopes", "a")],
        &[("impersonate-user", "system:serviceaccount:default:bot")],
    ];
    for headers in allowed {
        assert_eq!(who(&api, jane(), headers).await.0, "201", "{headers:?}");
    }
    let refused: [&[(&str, &str)]; 8] = [
        &[("impersonate-user", "root")],
        &[("impersonate-user", "joe"), ("impersonate-group", "system:masters")],
        &[("impersonate-user", "joe"), ("impersonate-uid", "8")],
        &[("impersonate-user", "joe"), ("impersonate-extra-scopes", "b")],
        &[("impersonate-user", "joe"), ("impersonate-extra-others", "a")],
        &[("impersonate-user", "system:serviceaccount:default:other")],
        &[("impersonate-user", "joe"), ("impersonate-user", "root")],
        &[("impersonate-user", "joe"), ("impersonate-other", "x")],
    ];
    for headers in refused {
        let (said, _) = who(&api, jane(), headers).await;
        assert!(said.starts_with("403"), "{headers:?}: {said}");
    }
    assert_eq!(
        who(&api, jane(), &[("impersonate-user", "root")]).await.0,
        "403 Forbidden: users \"root\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at \
         the cluster scope"
    );
    assert!(who(&api, admin(), &[("impersonate-group", "dev")]).await.0.starts_with("400"));
    let forged = [("x-remote-user", "admin"), ("x-remote-group", "system:masters"), ("x-remote-extra-a", "b")];
    assert_eq!(who(&api, jane(), &forged).await.1["username"], "jane");
}
