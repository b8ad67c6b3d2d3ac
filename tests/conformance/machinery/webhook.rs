//! Admission webhooks: what a server of the test's own refuses and changes.

use std::future::pending;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Method;
use serde_json::{Value, json};

use super::definition::{Definition, anything, v1};
use super::hook::Hook;
use crate::api::{JSON_PATCH, MERGE, STRATEGIC};
use crate::{Test, pod};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

fn allow() -> Value {
    json!({"allowed": true})
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64.encode(operations.to_string())})
}

/// Refuses objects that say so, wherever it is that they hold data.
async fn deny_what_says_so(_: String, request: Value) -> Value {
    let object = if request["object"].is_null() { &request["oldObject"] } else { &request["object"] };
    let says_so = |fields: &Value| fields["webhook-e2e-test"] == "webhook-disallow";
    match says_so(&object["data"]) || says_so(&object["metadata"]["labels"]) {
        true => json!({"allowed": false, "status": {"code": 403, "reason": "it contains unwanted data"}}),
        false => allow(),
    }
}

/// A chain: who has `start` gets `stage-1`, who has that gets `stage-2`.
async fn add_stages(_: String, request: Value) -> Value {
    let data = &request["object"]["data"];
    let add = |stage: &str| patch(&json!([{"op": "add", "path": format!("/data/mutation-{stage}"), "value": "yes"}]));
    match (data["mutation-start"] == "yes", data["mutation-stage-1"] == "yes") {
        (true, false) => add("stage-1"),
        (true, true) if data["mutation-stage-2"].is_null() => add("stage-2"),
        _ => allow(),
    }
}

fn rule(group: &str, resource: &str, operations: &[&str]) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": operations})
}

/// A configuration of webhooks for the test's namespace.
struct Configuration<'a> {
    test: &'a Test,
    collection: &'static str,
    object: Value,
}

impl<'a> Configuration<'a> {
    fn new(test: &'a Test, collection: &'static str, name: &str) -> Configuration<'a> {
        let metadata = json!({"name": test.unique(name), "labels": {"test": test.namespace}});
        Configuration { test, collection, object: json!({"metadata": metadata, "webhooks": []}) }
    }

    fn validating(test: &'a Test) -> Configuration<'a> {
        Configuration::new(test, "validatingwebhookconfigurations", "validate")
    }

    fn mutating(test: &'a Test) -> Configuration<'a> {
        Configuration::new(test, "mutatingwebhookconfigurations", "mutate")
    }

    /// One webhook more.
    fn hook(mut self, client: Value, rules: &[Value], more: Value) -> Configuration<'a> {
        let webhooks = self.object["webhooks"].as_array_mut().expect("a list");
        let mut webhook = json!({
            "name": format!("hook-{}.example.com", webhooks.len()), "clientConfig": client, "rules": rules,
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 30,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.test.namespace}},
        });
        webhook.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
        webhooks.push(webhook);
        self
    }

    fn collection_path(&self) -> String {
        format!("{CONFIGURATIONS}/{}", self.collection)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection_path(), self.object["metadata"]["name"].as_str().expect("a name"))
    }

    async fn make(self) -> Configuration<'a> {
        self.test.api.create(&self.collection_path(), &self.object).await.ok();
        self
    }

    async fn end(self) {
        self.test.api.delete(&self.path()).await.ok();
    }
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn unwanted() -> Value {
    json!({"webhook-e2e-test": "webhook-disallow"})
}

pub async fn the_kinds_are_discovered(test: &Test) {
    let groups = test.api.get("/apis").await.ok();
    let group = groups["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .find(|group| group["name"] == "admissionregistration.k8s.io");
    let group = group.expect("the group");
    assert!(
        group["versions"].as_array().expect("versions").iter().any(|version| version["version"] == "v1"),
        "{group}"
    );
    let resources = test.api.get(CONFIGURATIONS).await.ok();
    for wanted in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        assert!(resources["resources"].as_array().expect("resources").iter().any(|found| found["name"] == wanted));
    }
}

pub async fn objects_are_refused(test: &Test) {
    let hook = Hook::start(|path, request| async move {
        if request["object"]["metadata"]["name"] == "hangs" {
            pending().await
        } else {
            deny_what_says_so(path, request).await
        }
    })
    .await;
    let rules = [rule("", "configmaps", &["CREATE", "UPDATE"]), rule("", "pods", &["CREATE", "UPDATE"])];
    let made =
        Configuration::validating(test).hook(hook.client("/"), &rules, json!({"timeoutSeconds": 1})).make().await;
    let (maps, pods) = (test.path("v1", "configmaps"), test.path("v1", "pods"));
    let denied = "admission webhook \"hook-0.example.com\" denied the request: it contains unwanted data";
    assert_eq!(test.api.create(&maps, &config_map("a", unwanted())).await.refused(403), denied);
    let labelled = |name: &str, labels: Value| {
        let mut pod = pod::named(name, name);
        pod["metadata"]["labels"] = labels;
        pod
    };
    assert_eq!(test.api.create(&pods, &labelled("a", unwanted())).await.refused(403), denied);
    let hung = test.api.create(&pods, &labelled("hangs", json!({}))).await.refused(500);
    assert!(hung.contains("failed calling webhook \"hook-0.example.com\"") && hung.contains("deadline"), "{hung}");
    test.api.create(&maps, &config_map("b", json!({"ok": "yes"}))).await.ok();
    let mut changed = test.api.get(&format!("{maps}/b")).await.ok();
    changed["data"] = unwanted();
    assert_eq!(test.api.update(&format!("{maps}/b"), &changed).await.refused(403), denied);
    let merged = test.api.patch(&format!("{maps}/b"), STRATEGIC, &json!({"data": unwanted()})).await;
    assert_eq!(merged.refused(403), denied);
    let elsewhere = test.api.make_namespace().await;
    let other = format!("/api/v1/namespaces/{elsewhere}/configmaps");
    test.api.create(&other, &config_map("a", unwanted())).await.ok();
    test.api.delete(&format!("/api/v1/namespaces/{elsewhere}")).await.ok();
    made.end().await;
}

/// The API half: the pod runs nowhere, and is not asked.
pub async fn attaching_is_refused(test: &Test) {
    let hook = Hook::start(|_, request| async move {
        let is_it = request["operation"] == "CONNECT" && request["object"]["kind"] == "PodAttachOptions";
        json!({"allowed": !is_it, "status": {"message": "attaching is not allowed"}})
    })
    .await;
    let rules = [rule("", "pods/attach", &["CONNECT"])];
    let made = Configuration::validating(test).hook(hook.client("/attach"), &rules, json!({})).make().await;
    let pods = test.path("v1", "pods");
    test.api.create(&pods, &pod::named("a", "a")).await.ok();
    let refused = test.api.call(Method::GET, &format!("{pods}/a/attach?stdin=true&stdout=true"), &[], "").await;
    let message = refused.refused(400);
    assert_eq!(message, "admission webhook \"hook-0.example.com\" denied the request: attaching is not allowed");
    made.end().await;
}

pub async fn custom_objects_are_refused(test: &Test) {
    let definition = Definition::new(test, v1(anything()));
    definition.make(test).await;
    let hook = Hook::start(deny_what_says_so).await;
    let rules = [rule(&definition.group, "foos", &["CREATE", "UPDATE", "DELETE"])];
    let made = Configuration::validating(test).hook(hook.client("/"), &rules, json!({})).make().await;
    let path = definition.objects(test);
    let refused = test.api.create(&path, &definition.object("a", json!({"data": unwanted()}))).await.refused(403);
    assert!(refused.ends_with("denied the request: it contains unwanted data"), "{refused}");
    test.api.create(&path, &definition.object("a", json!({"data": {"ok": "yes"}}))).await.ok();
    let one = format!("{path}/a");
    test.api.patch(&one, MERGE, &json!({"data": unwanted()})).await.refused(403);
    made.end().await;
    test.api.patch(&one, MERGE, &json!({"data": unwanted()})).await.ok();
    let made = Configuration::validating(test).hook(hook.client("/"), &rules, json!({})).make().await;
    test.api.delete(&one).await.refused(403);
    made.end().await;
    test.api.delete(&one).await.ok();
    test.api.delete(&definition.path()).await.ok();
}

pub async fn a_definition_is_refused(test: &Test) {
    let hook = Hook::start(deny_what_says_so).await;
    let rules = [rule("apiextensions.k8s.io", "customresourcedefinitions", &["CREATE"])];
    let selector = json!({"objectSelector": {"matchLabels": {"test": test.namespace}}, "namespaceSelector": {}});
    let made = Configuration::validating(test).hook(hook.client("/"), &rules, selector).make().await;
    let mut definition = Definition::new(test, v1(anything()));
    definition.object["metadata"]["labels"] = json!({"test": test.namespace, "webhook-e2e-test": "webhook-disallow"});
    let refused = test.api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition.object).await;
    assert!(refused.refused(403).contains("denied the request"));
    made.end().await;
}

pub async fn a_webhook_that_is_not_there_refuses_everything(test: &Test) {
    let service = json!({"service": {"namespace": test.namespace, "name": "not-there", "path": "/configmaps"}});
    let rules = [rule("", "configmaps", &["CREATE", "DELETE"])];
    let maps = test.path("v1", "configmaps");
    test.api.create(&maps, &config_map("before", json!({}))).await.ok();
    let made = Configuration::validating(test).hook(service, &rules, json!({})).make().await;
    let refused = test.api.create(&maps, &config_map("a", json!({}))).await.refused(500);
    let expected = format!(
        "Internal error occurred: failed calling webhook \"hook-0.example.com\": failed to call webhook: Post \
         \"https://not-there.{}.svc:443/configmaps?timeout=30s\": service \"not-there\" not found",
        test.namespace
    );
    assert_eq!(refused, expected);
    test.api.delete(&format!("{maps}/before")).await.refused(500);
    made.end().await;
    test.api.create(&maps, &config_map("a", json!({}))).await.ok();
}

pub async fn a_time_that_is_given_is_kept(test: &Test) {
    let hook = Hook::start(|path, _| async move { if path == "/never" { pending().await } else { allow() } }).await;
    let rules = [rule("", "configmaps", &["CREATE"])];
    let maps = test.path("v1", "configmaps");
    for (name, path, failure, code) in
        [("a", "/never", "Fail", 500), ("b", "/never", "Ignore", 201), ("c", "/soon", "Fail", 201)]
    {
        let more = json!({"timeoutSeconds": if path == "/never" { 1 } else { 10 }, "failurePolicy": failure});
        let made = Configuration::validating(test).hook(hook.client(path), &rules, more).make().await;
        let reply = test.api.create(&maps, &config_map(name, json!({}))).await;
        assert_eq!(reply.code.as_u16(), code, "{name}: {}", String::from_utf8_lossy(&reply.body));
        if code == 500 {
            assert!(reply.refused(500).contains("?timeout=1s\": context deadline exceeded"));
        }
        made.end().await;
    }
    let mut unsaid = Configuration::validating(test).hook(hook.client("/soon"), &rules, json!({}));
    unsaid.object["webhooks"][0].as_object_mut().expect("a webhook").remove("timeoutSeconds");
    let made = test.api.create(&unsaid.collection_path(), &unsaid.object).await.ok();
    assert_eq!(made["webhooks"][0]["timeoutSeconds"], 10);
    test.api.create(&maps, &config_map("d", json!({}))).await.ok();
    unsaid.end().await;
}

pub async fn mutations_come_in_order(test: &Test) {
    let hook = Hook::start(add_stages).await;
    let rules = [rule("", "configmaps", &["CREATE"])];
    let made = Configuration::mutating(test).hook(hook.client("/1"), &rules, json!({}));
    let made = made.hook(hook.client("/2"), &rules, json!({})).make().await;
    let maps = test.path("v1", "configmaps");
    let map = test.api.create(&maps, &config_map("a", json!({"mutation-start": "yes"}))).await.ok();
    let expected = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    assert_eq!(map["data"], expected);
    made.end().await;
}

pub async fn defaults_follow_a_mutation(test: &Test) {
    let hook = Hook::start(|_, _| async {
        let container = json!({"name": "added", "image": "example.com/added:1"});
        patch(&json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}]))
    })
    .await;
    let made =
        Configuration::mutating(test).hook(hook.client("/"), &[rule("", "pods", &["CREATE"])], json!({})).make().await;
    let pod = test.api.create(&test.path("v1", "pods"), &pod::named("a", "a")).await.ok();
    let added = &pod["spec"]["initContainers"][0];
    assert_eq!((&added["name"], &added["terminationMessagePolicy"]), (&json!("added"), &json!("File")));
    made.end().await;
}

pub async fn configurations_themselves_are_left_alone(test: &Test) {
    let hook = Hook::start(|path, _| async move {
        match path.as_str() {
            "/deny" => json!({"allowed": false}),
            _ => patch(&json!([{"op": "add", "path": "/metadata/labels/changed", "value": "yes"}])),
        }
    })
    .await;
    let everything = |operations: &[&str]| {
        ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]
            .map(|resource| rule("admissionregistration.k8s.io", resource, operations))
    };
    let cluster = json!({"namespaceSelector": {}});
    let deny = Configuration::validating(test)
        .hook(hook.client("/deny"), &everything(&["DELETE"]), cluster.clone())
        .make()
        .await;
    let change =
        Configuration::mutating(test).hook(hook.client("/change"), &everything(&["CREATE"]), cluster).make().await;
    for collection in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
        let dummy = Configuration::new(test, collection, "dummy").hook(
            hook.client("/deny"),
            &[rule("", "nothing", &["CREATE"])],
            json!({}),
        );
        let made = test.api.create(&dummy.collection_path(), &dummy.object).await.ok();
        assert_eq!(made["metadata"]["labels"], dummy.object["metadata"]["labels"]);
        dummy.end().await;
    }
    deny.end().await;
    change.end().await;
}

/// Adds two fields to a custom object.
async fn add_fields(_: String, request: Value) -> Value {
    let data = &request["object"]["data"];
    let add = |stage: &str| patch(&json!([{"op": "add", "path": format!("/data/mutation-{stage}"), "value": "yes"}]));
    match data["mutation-start"] == "yes" && data["mutation-stage-1"].is_null() {
        true => add("stage-1"),
        false if data["mutation-start"] == "yes" => add("stage-2"),
        false => allow(),
    }
}

async fn mutated_object(test: &Test, definition: &Definition) -> Value {
    let hook = Hook::start(add_fields).await;
    let rules = [rule(&definition.group, "foos", &["CREATE", "UPDATE"])];
    let made = Configuration::mutating(test).hook(hook.client("/1"), &rules, json!({}));
    let made = made.hook(hook.client("/2"), &rules, json!({})).make().await;
    let object = definition.object("a", json!({"data": {"mutation-start": "yes"}}));
    let object = test.api.create(&definition.objects(test), &object).await.ok();
    made.end().await;
    object["data"].clone()
}

pub async fn a_custom_object_is_changed(test: &Test) {
    let definition = Definition::new(test, v1(anything()));
    definition.make(test).await;
    let expected = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    assert_eq!(mutated_object(test, &definition).await, expected);
    test.api.delete(&definition.path()).await.ok();
}

pub async fn what_a_schema_does_not_have_is_pruned(test: &Test) {
    let text = json!({"type": "string"});
    let fields = json!({"mutation-start": text, "mutation-stage-1": text});
    let schema = json!({"type": "object", "properties": {"data": {"type": "object", "properties": fields}}});
    let definition = Definition::new(test, v1(schema));
    definition.make(test).await;
    let expected = json!({"mutation-start": "yes", "mutation-stage-1": "yes"});
    assert_eq!(mutated_object(test, &definition).await, expected);
    test.api.delete(&definition.path()).await.ok();
}

pub async fn an_object_is_changed_while_its_stored_version_changes(test: &Test) {
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": anything()}});
    let definition = Definition::new(test, json!([version("v1", true), version("v2", false)]));
    definition.make(test).await;
    let hook = Hook::start(add_fields).await;
    let rules = [rule(&definition.group, "foos", &["CREATE", "UPDATE"])];
    let made = Configuration::mutating(test).hook(hook.client("/"), &rules, json!({})).make().await;
    let path = definition.objects(test);
    test.api.create(&path, &definition.object("a", json!({"data": {"mutation-start": "yes"}}))).await.ok();
    let patch = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    test.api.patch(&definition.path(), JSON_PATCH, &patch).await.ok();
    let changed = test.api.patch(&format!("{path}/a"), MERGE, &json!({"dummy": "test"})).await.ok();
    assert_eq!(changed["dummy"], "test");
    assert_eq!(changed["data"]["mutation-stage-2"], "yes", "asked again: {changed}");
    made.end().await;
    test.api.delete(&definition.path()).await.ok();
}

/// What shows that a webhook works: it refuses or changes a ConfigMap.
#[derive(Clone, Copy)]
enum Effect {
    Refuses,
    Changes,
}

impl Effect {
    async fn hook(self) -> Hook {
        match self {
            Effect::Refuses => Hook::start(deny_what_says_so).await,
            Effect::Changes => Hook::start(add_stages).await,
        }
    }

    fn configuration<'a>(self, test: &'a Test, name: &str) -> Configuration<'a> {
        match self {
            Effect::Refuses => Configuration::new(test, "validatingwebhookconfigurations", name),
            Effect::Changes => Configuration::new(test, "mutatingwebhookconfigurations", name),
        }
    }

    async fn shows(self, test: &Test, name: &str) -> bool {
        let maps = test.path("v1", "configmaps");
        match self {
            Effect::Refuses => test.api.create(&maps, &config_map(name, unwanted())).await.code.as_u16() == 403,
            Effect::Changes => {
                let map = test.api.create(&maps, &config_map(name, json!({"mutation-start": "yes"}))).await.ok();
                map["data"]["mutation-stage-1"] == "yes"
            }
        }
    }
}

/// Ten configurations, found and deleted by their label.
async fn listed_and_deleted(test: &Test, effect: Effect) {
    let hook = effect.hook().await;
    let rules = [rule("", "configmaps", &["CREATE"])];
    let mut path = String::new();
    for number in 0..10 {
        let one = effect.configuration(test, &format!("many-{number}"));
        path = one.hook(hook.client("/"), &rules, json!({})).make().await.collection_path();
    }
    let selected = format!("{path}?labelSelector=test%3D{}", test.namespace);
    assert_eq!(test.api.get(&selected).await.ok()["items"].as_array().map(Vec::len), Some(10));
    assert!(effect.shows(test, "during").await);
    test.api.delete(&selected).await.ok();
    assert_eq!(test.api.get(&selected).await.ok()["items"].as_array().map(Vec::len), Some(0));
    assert!(!effect.shows(test, "after").await);
}

pub async fn validating_configurations_are_listed_and_deleted(test: &Test) {
    listed_and_deleted(test, Effect::Refuses).await;
}

pub async fn mutating_configurations_are_listed_and_deleted(test: &Test) {
    listed_and_deleted(test, Effect::Changes).await;
}

/// A webhook works, not after an update to other operations, and again after a patch.
async fn changed(test: &Test, effect: Effect) {
    let hook = effect.hook().await;
    let rules = [rule("", "configmaps", &["CREATE"])];
    let made = effect.configuration(test, "changed").hook(hook.client("/"), &rules, json!({})).make().await;
    let path = made.path();
    assert!(effect.shows(test, "before").await);
    test.api.replace(&path, |object| object["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"])).await;
    assert!(!effect.shows(test, "updated").await);
    let patch = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]);
    test.api.patch(&path, JSON_PATCH, &patch).await.ok();
    assert!(effect.shows(test, "patched").await);
    made.end().await;
    assert!(!effect.shows(test, "gone").await);
}

pub async fn a_validating_configuration_is_changed(test: &Test) {
    changed(test, Effect::Refuses).await;
}

pub async fn a_mutating_configuration_is_changed(test: &Test) {
    changed(test, Effect::Changes).await;
}

fn conditions(expression: &str) -> Value {
    json!({"matchConditions": [{"name": "expected-condition", "expression": expression}]})
}

fn nowhere() -> Value {
    json!({"url": "https://127.0.0.1:1/"})
}

async fn conditions_are_kept(test: &Test, configuration: Configuration<'_>) {
    let only = "object.metadata.namespace == 'nowhere'";
    let rules = [rule("", "configmaps", &["CREATE"])];
    let made = configuration.hook(nowhere(), &rules, conditions(only)).make().await;
    let found = test.api.get(&made.path()).await.ok();
    assert_eq!(found["webhooks"][0]["matchConditions"], conditions(only)["matchConditions"]);
    let newer = conditions("object.metadata.namespace == 'elsewhere'")["matchConditions"].clone();
    test.api.replace(&made.path(), |object| object["webhooks"][0]["matchConditions"] = newer.clone()).await;
    assert_eq!(test.api.get(&made.path()).await.ok()["webhooks"][0]["matchConditions"], newer);
    test.api.create(&test.path("v1", "configmaps"), &config_map("a", json!({}))).await.ok();
    made.end().await;
}

pub async fn conditions_of_a_validating_configuration_are_kept(test: &Test) {
    conditions_are_kept(test, Configuration::validating(test)).await;
}

pub async fn conditions_of_a_mutating_configuration_are_kept(test: &Test) {
    conditions_are_kept(test, Configuration::mutating(test)).await;
}

async fn bad_conditions_are_refused(test: &Test, configuration: Configuration<'_>) {
    let rules = [rule("", "configmaps", &["CREATE"])];
    let bad = configuration.hook(nowhere(), &rules, conditions("... [] bad expression"));
    let refused = test.api.create(&bad.collection_path(), &bad.object).await.refused(422);
    assert!(refused.contains("webhooks[0].matchConditions[0].expression") && refused.contains("compilation failed"));
}

pub async fn bad_conditions_of_a_validating_configuration_are_refused(test: &Test) {
    bad_conditions_are_refused(test, Configuration::validating(test)).await;
}

pub async fn bad_conditions_of_a_mutating_configuration_are_refused(test: &Test) {
    bad_conditions_are_refused(test, Configuration::mutating(test)).await;
}

pub async fn a_condition_leaves_out_one_name(test: &Test) {
    let hook = Hook::start(add_stages).await;
    let rules = [rule("", "configmaps", &["CREATE"])];
    let condition = conditions("object.metadata.name != 'skip-me'");
    let made = Configuration::mutating(test).hook(hook.client("/"), &rules, condition).make().await;
    let maps = test.path("v1", "configmaps");
    for (name, expected) in [("skip-me", Value::Null), ("mutate-me", json!("yes"))] {
        let map = test.api.create(&maps, &config_map(name, json!({"mutation-start": "yes"}))).await.ok();
        assert_eq!(map["data"]["mutation-stage-1"], expected, "{name}");
    }
    made.end().await;
}
