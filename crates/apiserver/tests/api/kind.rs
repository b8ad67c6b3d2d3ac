//! Every kind: from its sample, through every verb. A kind is tested here by having a row in `samples`.

use http::Method;
use serde_json::{Value, json};
use windlass_api::resource::Verbs;
use windlass_api::resources::samples::{Sample, samples};
use windlass_api::{Kind, Resource, Subresource};

use crate::{Api, Lines, PODS, admin, pod};

/// Kubernetes' typed clients read the answer to a delete of these as the object, and of all others as a Status
/// (Python client 36, `delete_*`).
const SHOWN_WHEN_DELETED: [&str; 16] = [
    "CSIDriver",
    "CSINode",
    "DeviceClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourceQuota",
    "ResourceSlice",
    "Service",
    "ServiceAccount",
    "StorageClass",
    "VolumeAttachment",
    "VolumeAttributesClass",
];
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

#[tokio::test]
async fn every_kind_is_created_read_listed_watched_changed_and_deleted() {
    let api = Api::start().await;
    let registry = windlass_api::resources::registry();
    for sample in samples() {
        let text = |field: &str| sample.object[field].as_str().expect("a sample says what it is");
        let resource = registry.find_kind(text("apiVersion"), text("kind")).expect("a sample is of a built-in kind");
        println!("{}", resource.kind.kind);
        match resource.verbs {
            Verbs::All => Life::of(&api, resource, &sample).await.live().await,
            Verbs::CreateOnly if resource.kind.kind == "Binding" => binds_its_pod(&api, resource, &sample).await,
            Verbs::CreateOnly => is_answered(&api, resource, &sample).await,
            Verbs::ReadOnly => panic!("{} has a sample, and cannot be created", resource.kind.kind),
        }
    }
}

/// What is only asked gets its own kind as an answer.
async fn is_answered(api: &Api, resource: &Resource, sample: &Sample) {
    let answer = api.make(&resource.kind.collection_path(Some("default")), &sample.object).await;
    assert_eq!((&answer["kind"], &answer["apiVersion"]), (&sample.object["kind"], &sample.object["apiVersion"]));
}

/// A binding is carried out on the pod that it names.
async fn binds_its_pod(api: &Api, resource: &Resource, sample: &Sample) {
    let collection = resource.kind.collection_path(Some("default"));
    let missing = api.post(&collection, &sample.object).await;
    assert_eq!(missing.said(), "404 NotFound: pods \"sample\" not found");
    api.make(PODS, &pod("sample")).await;
    let answer = api.make(&collection, &sample.object).await;
    assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(api.get(&format!("{PODS}/sample")).await.json()["spec"]["nodeName"], "sample");
    let again = api.post(&collection, &sample.object).await;
    assert!(again.said().contains("is already assigned to node \"sample\""), "{}", again.said());
    let mut nameless = sample.object.clone();
    nameless["metadata"] = json!({});
    assert_eq!(api.post(&collection, &nameless).await.code, 422);
    for (field, value, code) in [("name", "a/b", 422), ("namespace", "other", 400)] {
        let mut elsewhere = sample.object.clone();
        elsewhere["metadata"][field] = json!(value);
        assert_eq!(api.post(&collection, &elsewhere).await.code, code, "{field} {value}");
    }
    assert_eq!(api.delete(&format!("{PODS}/sample?gracePeriodSeconds=0")).await.code, 200);
}

/// The life of one object.
struct Life<'a> {
    api: &'a Api,
    resource: &'a Resource,
    sample: &'a Sample,
    collection: String,
    path: String,
    /// Finds the object alone, also where there are others of its kind.
    selector: String,
    events: Lines,
}

impl<'a> Life<'a> {
    async fn of(api: &'a Api, resource: &'a Resource, sample: &'a Sample) -> Life<'a> {
        let name = sample.object["metadata"]["name"].as_str().expect("a sample has a name");
        let collection = resource.kind.collection_path(Some("default"));
        let selector = format!("fieldSelector=metadata.name%3D{name}");
        let revision = api.get(&format!("{collection}?{selector}")).await.json()["metadata"]["resourceVersion"].clone();
        let revision = revision.as_str().expect("a list has a revision");
        let events = api.watch(&format!("{collection}?watch=true&{selector}&resourceVersion={revision}")).await;
        Life { api, resource, sample, path: format!("{collection}/{name}"), collection, selector, events }
    }

    async fn live(mut self) {
        let made = self.api.make(&self.collection, &self.sample.object).await;
        self.sees("ADDED", &made).await;
        self.is_read_back(&made).await;
        self.is_listed(&made).await;
        let updated = self.is_updated(&made).await;
        let patched = self.is_patched(&updated).await;
        if self.resource.has(Subresource::Status) {
            self.takes_a_status(&patched).await;
        }
        self.is_deleted().await;
    }

    /// The next event is of this type and shows the object as it was answered.
    async fn sees(&mut self, kind: &str, object: &Value) {
        let event = self.events.next().await.expect("the watch goes on");
        assert_eq!((&event["type"], &event["object"]), (&json!(kind), object));
    }

    async fn is_read_back(&self, made: &Value) {
        let Kind { kind, namespaced, .. } = &self.resource.kind;
        assert_eq!(&self.api.get(&self.path).await.json(), made);
        let metadata = &made["metadata"];
        assert_eq!(made["kind"], kind.as_ref());
        assert_eq!(made["apiVersion"], self.resource.kind.api_version());
        assert_eq!(metadata["namespace"], if *namespaced { json!("default") } else { json!(null) });
        assert!(metadata["uid"].is_string() && metadata["creationTimestamp"].is_string(), "{metadata}");
        let generation = if self.resource.generation { json!(1) } else { json!(null) };
        assert_eq!(metadata["generation"], generation, "{kind}");
        // The server's own form of the object is a fixed point: written again it changes nothing.
        let again = self.api.put(&self.path, made).await;
        assert_eq!((again.said().as_str(), &again.json()), ("200", made), "{kind}");
    }

    async fn is_listed(&self, made: &Value) {
        let path = format!("{}?{}", self.collection, self.selector);
        let list = self.api.get(&path).await.json();
        assert_eq!(list["kind"], format!("{}List", self.resource.kind.kind));
        assert_eq!(list["items"][0]["metadata"]["uid"], made["metadata"]["uid"]);
        let table = self.api.call_as(admin(), Method::GET, &path, &[("accept", TABLE)], "").await.json();
        assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
        let columns = table["columnDefinitions"].as_array().expect("a table has columns");
        let cells = table["rows"][0]["cells"].as_array().expect("a row has cells");
        assert_eq!(cells.len(), columns.len());
        let at = columns.iter().position(|column| column["format"] == "name").expect("one column is the name");
        assert_eq!(cells[at], made["metadata"]["name"]);
    }

    async fn is_updated(&mut self, made: &Value) -> Value {
        let mut wished = made.clone();
        wished["metadata"]["labels"]["step"] = json!("updated");
        let reply = self.api.put(&self.path, &wished).await;
        assert_eq!(reply.said(), "200", "updating {wished}");
        let updated = reply.json();
        assert_eq!(updated["metadata"]["labels"]["step"], "updated");
        assert_eq!(updated["metadata"]["generation"], made["metadata"]["generation"]);
        self.sees("MODIFIED", &updated).await;
        assert_eq!(self.api.put(&self.path, &wished).await.code, 409, "an update of an old revision is a conflict");
        updated
    }

    async fn is_patched(&mut self, updated: &Value) -> Value {
        let reply = self.api.merge(&self.path, &json!({"metadata": {"annotations": {"step": "patched"}}})).await;
        assert_eq!(reply.said(), "200", "patching {updated}");
        let patched = reply.json();
        assert_eq!(patched["metadata"]["annotations"]["step"], "patched");
        assert_eq!(patched["metadata"]["labels"]["step"], "updated");
        self.sees("MODIFIED", &patched).await;
        patched
    }

    /// Status is written through its own path only, and nothing else is written there.
    async fn takes_a_status(&mut self, patched: &Value) {
        let status = &self.sample.status;
        assert!(status.is_object(), "the sample of {} has no status", self.resource.kind.kind);
        let patch = json!({"metadata": {"annotations": {"step": "status"}}, "status": status});
        let reply = self.api.merge(&format!("{}/status", self.path), &patch).await;
        assert_eq!(reply.said(), "200", "patching the status of {patched}");
        let after = reply.json();
        for (field, value) in status.as_object().into_iter().flatten() {
            assert!(!after["status"][field].is_null(), "{field} of {value} is not in {}", after["status"]);
        }
        assert_eq!(after["spec"], patched["spec"]);
        assert_eq!(after["metadata"]["generation"], patched["metadata"]["generation"]);
        if after["metadata"]["resourceVersion"] != patched["metadata"]["resourceVersion"] {
            self.sees("MODIFIED", &after).await;
        }
        assert_eq!(self.api.get(&format!("{}/status", self.path)).await.json(), after);
        let reply = self.api.merge(&self.path, &json!({"status": null})).await;
        assert_eq!(
            reply.json()["status"],
            after["status"],
            "the main resource leaves the status alone: {}",
            reply.said()
        );
    }

    async fn is_deleted(&mut self) {
        let path = format!("{}?{}", self.collection, self.selector);
        let reply = self.api.delete(&path).await;
        assert_eq!(reply.said(), "200", "deleting {path}");
        assert_eq!(reply.json()["items"].as_array().map(Vec::len), Some(1), "{}", reply.text());
        let event = self.events.next().await.expect("the watch goes on");
        // What holds other objects is emptied first.
        if matches!(self.resource.kind.kind.as_ref(), "Namespace" | "CustomResourceDefinition") {
            assert!(event["object"]["metadata"]["deletionTimestamp"].is_string(), "{event}");
        } else {
            assert_eq!(event["type"], "DELETED", "{event}");
            assert_eq!(self.api.get(&self.path).await.code, 404);
            self.is_answered_by_its_type().await;
        }
    }

    /// The one that is deleted by name.
    async fn is_answered_by_its_type(&mut self) {
        let kind = self.resource.kind.kind.as_ref();
        let made = self.api.make(&self.collection, &self.sample.object).await;
        let answer = self.api.delete(&self.path).await.json();
        if SHOWN_WHEN_DELETED.contains(&kind) {
            assert_eq!((answer["kind"].as_str(), &answer["metadata"]["uid"]), (Some(kind), &made["metadata"]["uid"]));
        } else {
            assert_eq!((answer["kind"].as_str(), &answer["status"]), (Some("Status"), &json!("Success")), "{kind}");
        }
    }
}
