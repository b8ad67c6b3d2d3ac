//! Admission webhooks: what they are asked, and what becomes of their answers.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Method;
use serde_json::{Value, json};
use windlass_apiserver::Identity;

use crate::hook::Hook;
use crate::{Api, CONFIG_MAPS, DEPLOYMENTS, PODS, SERVICES, bind, config_map, deployment, pod};

const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// The requests that a webhook was asked about.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Value>>>);

impl Asked {
    fn add(&self, path: &str, mut request: Value) {
        request["path"] = json!(path);
        self.0.lock().expect("no test panics while it holds it").push(request);
    }

    /// Those since the last time.
    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.0.lock().expect("no test panics while it holds it"))
    }
}

/// A webhook that allows everything and remembers it.
async fn allowing() -> (Hook, Asked) {
    answering(|_, _| json!({"allowed": true})).await
}

async fn answering(answer: impl Fn(&str, &Value) -> Value + Clone + Send + Sync + 'static) -> (Hook, Asked) {
    let asked = Asked::default();
    let kept = asked.clone();
    let hook = Hook::start(move |path, request| {
        let reply = answer(&path, &request);
        kept.add(&path, request);
        async move { reply }
    });
    (hook.await, asked)
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64.encode(operations.to_string())})
}

fn webhook(name: &str, client: Value, (group, version, resources): (&str, &str, &[&str]), more: Value) -> Value {
    let rule = json!({"operations": ["*"], "apiGroups": [group], "apiVersions": [version], "resources": resources});
    let mut webhook = json!({
        "name": format!("{name}.example.com"), "clientConfig": client, "rules": [rule], "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    });
    webhook.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
    webhook
}

async fn configure(api: &Api, collection: &str, webhooks: Value) {
    api.make(collection, &json!({"metadata": {"name": "hooks"}, "webhooks": webhooks})).await;
}

#[tokio::test]
async fn a_review_tells_all_about_a_request() {
    let api = Api::start().await;
    let (hook, asked) = allowing().await;
    let maps = ("", "v1", &["configmaps"][..]);
    configure(&api, VALIDATING, json!([webhook("a.b", hook.client("/x"), maps, json!({}))])).await;
    let who = Identity { uid: "u1".to_owned(), ..Identity::new("eve", ["system:masters".to_owned()]) };
    let path = format!("{CONFIG_MAPS}?fieldManager=test&dryRun=All");
    let json = [("content-type", "application/json")];
    let reply = api.call_as(who, Method::POST, &path, &json, config_map("m").to_string()).await;
    assert_eq!(reply.said(), "201");
    let request = asked.take().pop().expect("it was asked");
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
    let options =
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"], "fieldManager": "test"});
    let expected = json!({
        "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource, "name": "m",
        "namespace": "default", "operation": "CREATE", "dryRun": true, "options": options, "oldObject": null,
        "userInfo": {"username": "eve", "uid": "u1", "groups": ["system:masters", "system:authenticated"], "extra": {}},
    });
    for (field, value) in expected.as_object().expect("fields") {
        assert_eq!(&request[field], value, "{field}");
    }
    assert_eq!((&request["object"]["data"]["k"], &request["path"]), (&json!("v"), &json!("/x")));

    api.make(CONFIG_MAPS, &config_map("m")).await;
    api.merge(&format!("{CONFIG_MAPS}/m"), &json!({"data": {"k": "w"}})).await;
    let options = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
    api.call(Method::DELETE, &format!("{CONFIG_MAPS}/m"), "application/json", options.to_string()).await;
    let said = |request: &Value| {
        let value = |object: &str| request[object]["data"]["k"].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", request["operation"].as_str().expect("a text"), value("oldObject"), value("object"))
    };
    let all = asked.take();
    assert_eq!(all.iter().map(said).collect::<Vec<_>>(), ["CREATE - v", "UPDATE v w", "DELETE w -"]);
    let kind = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 0, "propagationPolicy": "Background"});
    assert_eq!((&all[1]["options"]["kind"], &all[2]["options"]), (&json!("UpdateOptions"), &kind));
}

#[tokio::test]
async fn w1_an_object_is_shown_in_the_version_that_the_rules_name() {
    let api = Api::start().await;
    let (hook, asked) = answering(|_, _| {
        patch(&json!([{"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 70}]))
    })
    .await;
    let older = ("autoscaling", "v1", &["horizontalpodautoscalers"][..]);
    let exact = webhook("b.c", hook.client("/exact"), older, json!({"matchPolicy": "Exact"}));
    configure(&api, MUTATING, json!([webhook("a.b", hook.client("/any"), older, json!({})), exact])).await;
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
    let spec = json!({"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": [metric]});
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let made = api.make(path, &json!({"metadata": {"name": "a"}, "spec": spec})).await;
    assert_eq!(made["apiVersion"], "autoscaling/v2");
    assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    let all = asked.take();
    let [request] = all.as_slice() else { panic!("asked once: {all:#?}") };
    assert_eq!((&request["path"], &request["kind"]["version"]), (&json!("/any"), &json!("v1")));
    assert_eq!((&request["requestKind"]["version"], &request["resource"]["version"]), (&json!("v2"), &json!("v1")));
    assert_eq!(request["object"]["spec"]["targetCPUUtilizationPercentage"], 50);
}

#[tokio::test]
async fn w1_what_no_selector_selects_is_not_asked_about() {
    let api = Api::start().await;
    let (hook, asked) = allowing().await;
    let maps = ("", "v1", &["configmaps"][..]);
    let labelled = json!({"objectSelector": {"matchLabels": {"a": "b"}}});
    configure(&api, VALIDATING, json!([webhook("a.b", hook.client("/"), maps, labelled)])).await;
    api.make(CONFIG_MAPS, &config_map("m")).await;
    api.make(PODS, &pod("p")).await;
    assert!(asked.take().is_empty());
    api.merge(&format!("{CONFIG_MAPS}/m"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(asked.take().len(), 1);
    api.merge(&format!("{CONFIG_MAPS}/m"), &json!({"metadata": {"labels": {"a": null}}})).await;
    assert_eq!(asked.take().len(), 1, "it had the label");
}

#[tokio::test]
async fn w2_and_w3_who_may_be_asked_again_is_when_the_object_changed() {
    let api = Api::start().await;
    let (hook, asked) = answering(|path, request| {
        let add = json!([{"op": "add", "path": "/data/added", "value": "yes"}]);
        if path == "/add" && request["object"]["data"]["added"].is_null() {
            patch(&add)
        } else {
            json!({"allowed": true})
        }
    })
    .await;
    let maps = ("", "v1", &["configmaps"][..]);
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let hooks = json!([
        webhook("a.b", hook.client("/first"), maps, again.clone()),
        webhook("b.c", hook.client("/once"), maps, json!({})),
        webhook("c.d", hook.client("/add"), maps, again),
    ]);
    configure(&api, MUTATING, hooks).await;
    api.make(CONFIG_MAPS, &config_map("m")).await;
    let paths: Vec<Value> = asked.take().iter().map(|request| request["path"].clone()).collect();
    assert_eq!(paths, ["/first", "/once", "/add", "/first"]);
}

#[tokio::test]
async fn w5_a_failure_refuses_unless_it_is_ignored_but_a_bad_patch_always_does() {
    let api = Api::start().await;
    let (hook, _) = answering(|path, _| match path {
        "/patch" => patch(&json!([{"op": "remove", "path": "/nothing"}])),
        "/rename" => patch(&json!([{"op": "replace", "path": "/metadata/name", "value": "other"}])),
        _ => json!({"allowed": true, "patchType": "None", "patch": "AAAA"}),
    })
    .await;
    let maps = ("", "v1", &["configmaps"][..]);
    for (path, policy, code, said) in [
        ("/bad", "Fail", 500, "failed calling webhook \"a.b.example.com\": received invalid webhook response"),
        ("/bad", "Ignore", 201, ""),
        ("/patch", "Ignore", 500, "admission webhook \"a.b.example.com\": "),
        ("/rename", "Ignore", 422, "must not change metadata.name"),
    ] {
        let more = json!({"failurePolicy": policy});
        configure(&api, MUTATING, json!([webhook("a.b", hook.client(path), maps, more)])).await;
        let reply = api.post(CONFIG_MAPS, &config_map("m")).await;
        assert_eq!(reply.code.as_u16(), code, "{path} {policy}: {}", reply.text());
        assert!(reply.text().replace("\\\"", "\"").contains(said), "{}", reply.text());
        api.delete(&format!("{MUTATING}/hooks")).await;
        api.delete(&format!("{CONFIG_MAPS}/m")).await;
    }
}

#[tokio::test]
async fn w6_warnings_go_to_the_client() {
    let api = Api::start().await;
    let (hook, _) = answering(|_, _| json!({"allowed": true, "warnings": ["mind the gap"]})).await;
    let maps = ("", "v1", &["configmaps"][..]);
    configure(&api, VALIDATING, json!([webhook("a.b", hook.client("/"), maps, json!({}))])).await;
    let reply = api.post(CONFIG_MAPS, &config_map("m")).await;
    let warning = reply.headers.get("warning").and_then(|value| value.to_str().ok());
    assert_eq!((reply.said().as_str(), warning), ("201", Some("299 - \"mind the gap\"")));
}

#[tokio::test]
async fn what_is_not_of_the_resources_kind_is_shown_as_itself() {
    let api = Api::start().await;
    let (hook, asked) = answering(|_, request| match request["kind"]["kind"].as_str() {
        Some("Scale") => patch(&json!([{"op": "replace", "path": "/spec/replicas", "value": 5}])),
        _ => json!({"allowed": true}),
    })
    .await;
    let pods = ("", "*", &["pods/*"][..]);
    let scales = ("apps", "*", &["deployments/scale"][..]);
    let hooks =
        json!(
            [webhook("a.b", hook.client("/"), pods, json!({})), webhook("b.c", hook.client("/"), scales, json!({})),]
        );
    configure(&api, MUTATING, hooks).await;
    api.make(DEPLOYMENTS, &deployment("d")).await;
    let scaled = api.merge(&format!("{DEPLOYMENTS}/d/scale"), &json!({"spec": {"replicas": 3}})).await;
    assert_eq!((scaled.said().as_str(), &scaled.json()["spec"]["replicas"]), ("200", &json!(5)));
    api.make(PODS, &pod("p")).await;
    assert_eq!(bind(&api, "p", "n1").await.said(), "201");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(api.post(&format!("{PODS}/p/eviction"), &eviction).await.said(), "201");
    let exec = api.call(Method::GET, &format!("{PODS}/p/exec?command=ls&stdout=1"), "application/json", "").await;
    assert_eq!(exec.code, 400, "there is no upgrade: {}", exec.text());
    let said = |request: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", text(&request["operation"]), text(&request["kind"]["kind"]), text(&request["subResource"]))
    };
    let all: Vec<String> = asked.take().iter().map(said).collect();
    let expected = ["UPDATE Scale scale", "CREATE Pod -", "CREATE Binding binding", "CREATE Eviction eviction"];
    assert_eq!(all[..4], expected);
    assert_eq!(all[4..], ["CONNECT PodExecOptions exec"]);
}

#[tokio::test]
async fn a_service_is_reached_under_its_own_name() {
    let api = Api::start().await;
    let (hook, asked) = allowing().await;
    let client = hook.client("/");
    let port = client["url"].as_str().and_then(|url| url.trim_end_matches('/').rsplit(':').next()).expect("a port");
    let port: u16 = port.parse().expect("a number");
    let maps = ("", "v1", &["configmaps"][..]);
    for (name, code) in [("hook", 201), ("other", 500)] {
        let spec = json!({"type": "ExternalName", "externalName": "localhost"});
        api.make(SERVICES, &json!({"metadata": {"name": name}, "spec": spec})).await;
        let service = json!({"namespace": "default", "name": name, "port": port});
        let client = json!({"service": service, "caBundle": client["caBundle"]});
        configure(&api, VALIDATING, json!([webhook("a.b", client, maps, json!({}))])).await;
        let reply = api.post(CONFIG_MAPS, &config_map(name)).await;
        assert_eq!(reply.code.as_u16(), code, "{}", reply.text());
        api.delete(&format!("{VALIDATING}/hooks")).await;
    }
    assert_eq!(asked.take().len(), 1, "a certificate for another name is none");
}
