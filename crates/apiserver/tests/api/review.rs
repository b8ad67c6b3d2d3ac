//! Reviews: what somebody may do, asked without doing it.

use http::Method;
use serde_json::{Value, json};
use windlass_apiserver::Identity;

use crate::{Api, PODS, admin};

const ACCESS: &str = "/apis/authorization.k8s.io/v1";
const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";

fn jane() -> Identity {
    Identity::new("jane", ["dev".to_owned()])
}

async fn ask(api: &Api, who: &Identity, path: &str, body: &Value) -> (String, Value) {
    let reply =
        api.call_as(who.clone(), Method::POST, path, &[("content-type", "application/json")], body.to_string()).await;
    (reply.said(), reply.json())
}

async fn bind_view(api: &Api, user: &str) {
    let binding = json!({"metadata": {"name": user}, "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": user}]});
    api.make("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding).await;
}

fn pods(verb: &str) -> Value {
    json!({"namespace": "default", "verb": verb, "resource": "pods"})
}

#[tokio::test]
async fn a_review_says_what_the_request_itself_would_meet() {
    let api = Api::start().await;
    bind_view(&api, "jane").await;
    for (verb, method, allowed) in [("list", Method::GET, true), ("deletecollection", Method::DELETE, false)] {
        let own = json!({"spec": {"resourceAttributes": pods(verb)}});
        let (said, review) = ask(&api, &jane(), &format!("{ACCESS}/selfsubjectaccessreviews"), &own).await;
        assert_eq!((said.as_str(), &review["status"]["allowed"]), ("201", &json!(allowed)), "{review}");
        let of_jane = json!({"spec": {"user": "jane", "resourceAttributes": pods(verb)}});
        for path in ["subjectaccessreviews", "namespaces/default/localsubjectaccessreviews"] {
            let (said, review) = ask(&api, &admin(), &format!("{ACCESS}/{path}"), &of_jane).await;
            assert_eq!((said.as_str(), &review["status"]["allowed"]), ("201", &json!(allowed)), "{path} {review}");
        }
        let met = api.call_as(jane(), method, PODS, &[], "").await;
        assert_eq!(met.code != 403, allowed, "{verb}");
    }
    let (_, review) = ask(
        &api,
        &admin(),
        &format!("{ACCESS}/subjectaccessreviews"),
        &json!({"spec": {"user": "jane", "resourceAttributes": pods("get")}}),
    )
    .await;
    let reason = "RBAC: allowed by RoleBinding \"jane/default\" of ClusterRole \"view\" to User \"jane\"";
    assert_eq!(review["status"]["reason"], reason);
    let path = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}});
    let (_, review) = ask(&api, &jane(), &format!("{ACCESS}/selfsubjectaccessreviews"), &path).await;
    assert_eq!(review["status"], json!({"allowed": false}));
}

#[tokio::test]
async fn only_who_may_ask_about_others_does() {
    let api = Api::start().await;
    let of_joe = json!({"spec": {"user": "joe", "resourceAttributes": pods("get")}});
    let (said, _) = ask(&api, &jane(), &format!("{ACCESS}/subjectaccessreviews"), &of_joe).await;
    assert!(said.starts_with("403"), "{said}");
    let (said, _) = ask(&api, &admin(), &format!("{ACCESS}/subjectaccessreviews"), &json!({"spec": {}})).await;
    assert!(said.starts_with("422"), "{said}");
    let own = json!({"spec": {"resourceAttributes": pods("get")}});
    let stranger = Identity::anonymous();
    let (said, _) = ask(&api, &stranger, &format!("{ACCESS}/selfsubjectaccessreviews"), &own).await;
    assert!(said.starts_with("403"), "{said}");
}

#[tokio::test]
async fn reviews_are_created_and_nothing_else() {
    let api = Api::start().await;
    let revision = api.store.revision();
    let own = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": pods("get")}});
    let path = format!("{ACCESS}/selfsubjectaccessreviews");
    assert_eq!(ask(&api, &jane(), &path, &own).await.0, "201");
    assert_eq!(api.store.revision(), revision, "nothing is stored");
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(api.call(method, &path, "application/json", "").await.code, 405);
    }
    let resources = api.get(ACCESS).await.json();
    let verbs: Vec<&Value> = resources["resources"].as_array().expect("a list").iter().map(|r| &r["verbs"]).collect();
    assert_eq!(verbs, [&json!(["create"]); 4]);
}

#[tokio::test]
async fn somebody_learns_who_they_are_and_all_they_may_do() {
    let api = Api::start().await;
    bind_view(&api, "jane").await;
    let (said, review) = ask(&api, &jane(), &format!("{AUTHENTICATION}/selfsubjectreviews"), &json!({})).await;
    let user = json!({"username": "jane", "groups": ["dev", "system:authenticated"]});
    assert_eq!((said.as_str(), &review["status"]["userInfo"]), ("201", &user));
    let rules = format!("{ACCESS}/selfsubjectrulesreviews");
    let (said, _) = ask(&api, &jane(), &rules, &json!({"spec": {}})).await;
    assert_eq!(said, "400 BadRequest: no namespace on request");
    let (_, review) = ask(&api, &jane(), &rules, &json!({"spec": {"namespace": "default"}})).await;
    let status = &review["status"];
    let resources = status["resourceRules"].as_array().expect("rules");
    let may = |resource: &str| {
        resources.iter().any(|rule| rule["resources"].as_array().is_some_and(|all| all.contains(&json!(resource))))
    };
    assert!(may("pods") && may("selfsubjectreviews") && !may("secrets"), "{status}");
    assert_eq!((status["nonResourceRules"].as_array().map(Vec::len), &status["incomplete"]), (Some(2), &json!(false)));
}
