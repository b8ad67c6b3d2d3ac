//! `update`, `patch` and the parts of an object: conflicts, generation, no-ops, status, scale, binding.

use http::Method;
use serde_json::json;

use crate::{Api, CONFIG_MAPS, DEPLOYMENTS, PODS, bind, config_map, deployment, pod};

#[tokio::test]
async fn an_update_with_an_old_revision_is_a_conflict_and_one_without_is_not() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let first = api.make(CONFIG_MAPS, &config_map("c")).await;
    let mut second = first.clone();
    second["data"]["k"] = json!("2");
    assert_eq!(api.put(&path, &second).await.said(), "200");
    let reply = api.put(&path, &first).await;
    assert_eq!(
        reply.said(),
        "409 Conflict: Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
    let mut third = first.clone();
    third["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    third["data"]["k"] = json!("3");
    let reply = api.put(&path, &third).await;
    assert_eq!(reply.said(), "200");
    assert_eq!(reply.json()["data"]["k"], "3");
    assert_eq!(reply.json()["metadata"]["uid"], first["metadata"]["uid"]);
    third["metadata"]["uid"] = json!("another");
    assert_eq!(api.put(&path, &third).await.code, 409);
    third["metadata"]["resourceVersion"] = json!("abc");
    third["metadata"]["uid"] = json!("");
    assert_eq!(api.put(&path, &third).await.code, 422);
    assert_eq!(api.put(&format!("{CONFIG_MAPS}/none"), &config_map("none")).await.code, 404);
    assert_eq!(api.put(&path, &config_map("other")).await.code, 400);
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let api = Api::start().await;
    let made = api.make(DEPLOYMENTS, &deployment("web")).await;
    let before = api.store.revision();
    let path = format!("{DEPLOYMENTS}/web");
    let reply = api.put(&path, &deployment("web")).await;
    assert_eq!(reply.json(), made, "the same manifest again");
    let reply = api.merge(&path, &json!({"spec": {"replicas": 2}})).await;
    assert_eq!(reply.json()["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(api.store.revision(), before);
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec_and_status_stays_with_its_own_path() {
    let api = Api::start().await;
    let made = api.make(DEPLOYMENTS, &deployment("web")).await;
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{DEPLOYMENTS}/web");
    let patch = json!({"spec": {"replicas": 5}, "status": {"replicas": 9}});
    let changed = api.merge(&path, &patch).await.json();
    assert_eq!((&changed["metadata"]["generation"], &changed["status"]["replicas"]), (&json!(2), &json!(null)));
    let labelled = api.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await.json();
    assert_eq!(labelled["metadata"]["generation"], 2);
    let status = api.merge(&format!("{path}/status"), &patch).await.json();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(5), &json!(9)));
    let patch = json!({"spec": {"replicas": 1}, "status": {"replicas": 3}});
    let status = api.merge(&format!("{path}/status"), &patch).await.json();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(5), &json!(3)));
    assert_eq!(status["metadata"]["generation"], 2);
}

#[tokio::test]
async fn patches_come_in_three_forms_beside_apply() {
    let api = Api::start().await;
    api.make(DEPLOYMENTS, &deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    let json_patch = json!([{"op": "test", "path": "/spec/replicas", "value": 2}, {"op": "replace", "path": "/spec/replicas", "value": 3}]);
    let reply = api.call(Method::PATCH, &path, "application/json-patch+json", json_patch.to_string()).await;
    assert_eq!(reply.json()["spec"]["replicas"], 3, "{}", reply.said());
    let reply = api.call(Method::PATCH, &path, "application/json-patch+json", json_patch.to_string()).await;
    assert_eq!(reply.code, 422, "the test does not hold any more: {}", reply.said());
    let strategic =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "example.com/side:1"}]}}}});
    let media = "application/strategic-merge-patch+json";
    let reply = api.call(Method::PATCH, &path, media, strategic.to_string()).await;
    let containers = reply.json()["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len);
    assert_eq!(containers, Some(2), "a strategic merge adds to a list by name: {}", reply.said());
    let reply = api.call(Method::PATCH, &path, "application/xml", "{}").await;
    assert_eq!(reply.code, 415);
    let reply = api.merge(&path, &json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}})).await;
    assert_eq!(reply.code, 409);
    let reply = api.merge(&path, &json!({"metadata": {"name": "other"}})).await;
    assert_eq!(reply.code, 400);
}

#[tokio::test]
async fn patches_without_a_revision_are_all_applied_however_they_race() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    let patches = (0..4).map(|index| {
        let patch = json!({"data": {format!("k{index}"): "set"}});
        let (api, path) = (&api, &path);
        async move { api.merge(path, &patch).await.said() }
    });
    for said in futures::future::join_all(patches).await {
        assert_eq!(said, "200");
    }
    let data = api.get(&path).await.json()["data"].as_object().map(serde_json::Map::len);
    assert_eq!(data, Some(5));
}

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let api = Api::start().await;
    api.make(DEPLOYMENTS, &deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web/scale");
    let mut scale = api.get(&path).await.json();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    scale["spec"]["replicas"] = json!(4);
    let reply = api.put(&path, &scale).await;
    assert_eq!(reply.json()["spec"]["replicas"], 4, "{}", reply.said());
    assert_eq!(api.put(&path, &scale).await.code, 409, "the scale was read before the change");
    let reply = api.merge(&path, &json!({"spec": {"replicas": 6}})).await;
    assert_eq!(reply.json()["spec"]["replicas"], 6, "{}", reply.said());
    let deployment = api.get(&format!("{DEPLOYMENTS}/web")).await.json();
    assert_eq!((&deployment["spec"]["replicas"], &deployment["metadata"]["generation"]), (&json!(6), &json!(3)));
    assert_eq!(api.merge(&path, &json!({"spec": {"replicas": -1}})).await.code, 422);
    let reply = api.merge(&path, &json!({"spec": {"replicas": 6, "nonsense": 1}})).await;
    let warning = reply.headers.get("warning").map(|warning| warning.to_str().expect("a text").to_owned());
    assert_eq!(
        (reply.said().as_str(), warning.as_deref()),
        ("200", Some("299 - \"unknown field \\\"spec.nonsense\\\"\""))
    );
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = Api::start().await;
    api.make(PODS, &pod("p")).await;
    assert_eq!(bind(&api, "p", "n1").await.said(), "201");
    let bound = api.get(&format!("{PODS}/p")).await.json();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let conditions = bound["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().any(|c| c["type"] == "PodScheduled" && c["status"] == "True"), "{conditions:?}");
    let again = bind(&api, "p", "n2").await;
    assert_eq!(again.code, 409);
    assert!(again.said().contains("pod p is already assigned to node \"n1\""), "{}", again.said());
    assert_eq!(bind(&api, "none", "n1").await.code, 404);
    assert_eq!(bind(&api, "p", "").await.code, 422);
}

#[tokio::test]
async fn of_many_patches_at_once_none_is_lost_and_none_is_told_of_a_conflict() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    let patches = (0..100).map(|index| {
        let (api, path) = (&api, &path);
        async move { api.merge(path, &json!({"data": {format!("by-{index}"): "x"}})).await.said() }
    });
    let said = futures::future::join_all(patches).await;
    assert!(said.iter().all(|said| said == "200"), "{said:?}");
    let data = api.get(&path).await.json()["data"].clone();
    let written = data.as_object().expect("data").keys().filter(|key| key.starts_with("by-")).count();
    assert_eq!(written, 100);
}

/// The kinds whose updates must name a revision, as Kubernetes' strategies have it.
const NEED_A_REVISION: [&str; 19] = [
    "APIService",
    "CSIDriver",
    "CSINode",
    "CSIStorageCapacity",
    "ClusterTrustBundle",
    "CustomResourceDefinition",
    "DeviceTaintRule",
    "Lease",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "PodCertificateRequest",
    "PodDisruptionBudget",
    "RuntimeClass",
    "StorageVersionMigration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];
/// The kinds whose updates create what does not exist.
const CREATED_BY_UPDATE: [&str; 10] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "Endpoints",
    "Event",
    "Lease",
    "LimitRange",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Service",
];

#[tokio::test]
async fn some_kinds_take_no_update_without_a_revision_and_some_are_created_by_one() {
    use windlass_api::Verbs;
    use windlass_api::resources::samples::samples;
    let api = Api::start().await;
    let registry = windlass_api::resources::registry();
    for sample in samples() {
        let text = |field: &str| sample.object[field].as_str().expect("a text");
        let resource = registry.find_kind(text("apiVersion"), text("kind")).expect("a built-in kind");
        if resource.verbs != Verbs::All || resource.kind.kind == "Namespace" {
            continue;
        }
        let kind = resource.kind.kind.as_ref();
        let collection = resource.kind.collection_path(Some("default"));
        let path = format!("{collection}/{}", sample.object["metadata"]["name"].as_str().expect("a name"));
        let put = api.put(&path, &sample.object).await;
        if CREATED_BY_UPDATE.contains(&kind) {
            assert_eq!(put.said(), "201", "{kind}");
        } else {
            assert_eq!(put.code, 404, "{kind}: {}", put.said());
            api.make(&collection, &sample.object).await;
        }
        let mut wished = api.get(&path).await.json();
        wished["metadata"]["labels"]["step"] = json!("updated");
        wished["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
        let put = api.put(&path, &wished).await.said();
        if NEED_A_REVISION.contains(&kind) {
            let why = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
            assert!(put.starts_with("422 Invalid: ") && put.ends_with(why), "{kind}: {put}");
        } else {
            assert_eq!(put, "200", "{kind}");
        }
        assert_eq!(api.delete(&path).await.code, 200, "{kind}");
    }
}

#[tokio::test]
async fn who_creates_by_an_update_must_be_one_who_may_create() {
    let api = Api::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "r"}, "rules": [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["update"]}]});
    api.make(&format!("{roles}/roles"), &role).await;
    let binding = json!({"metadata": {"name": "r"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}});
    api.make(&format!("{roles}/rolebindings"), &binding).await;
    let jane = windlass_apiserver::Identity::new("jane", ["dev".to_owned()]);
    let json = [("content-type", "application/json")];
    let path = format!("{leases}/l");
    let refused = api.call_as(jane, Method::PUT, &path, &json, lease.to_string()).await;
    assert!(refused.said().starts_with("403 Forbidden: leases.coordination.k8s.io"), "{}", refused.said());
    assert!(refused.said().contains("cannot create resource \"leases\""), "{}", refused.said());
    let mut known = lease.clone();
    known["metadata"]["uid"] = json!("u");
    assert!(api.put(&path, &known).await.said().contains("UID in precondition: u, UID in object meta: "));
    assert_eq!(api.put(&format!("{path}?dryRun=All"), &lease).await.said(), "201");
    assert_eq!(api.get(&path).await.code, 404, "a dry run creates nothing");
    assert_eq!(api.put(&path, &lease).await.said(), "201");
    let bare = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"});
    let made = api.put(&format!("{leases}/named-by-its-path"), &bare).await;
    assert_eq!((made.said().as_str(), &made.json()["metadata"]["name"]), ("201", &json!("named-by-its-path")));
    for odd in [json!({"metadata": 5}), json!({"metadata": []}), json!({"kind": "Pod"})] {
        assert_eq!(api.put(&format!("{leases}/odd"), &odd).await.code, 400, "{odd}");
    }
}

#[tokio::test]
async fn the_time_of_a_device_taint_is_of_its_effect() {
    let api = Api::start().await;
    let rules = "/apis/resource.k8s.io/v1/devicetaintrules";
    let old = "2020-01-01T00:00:00Z";
    let rule = |effect: &str| json!({"metadata": {"name": "r"}, "spec": {"taint": {"key": "a/b", "effect": effect}}});
    let mut dated = rule("None");
    dated["spec"]["taint"]["timeAdded"] = json!(old);
    let made = api.make(rules, &dated).await;
    assert_eq!(made["spec"]["taint"]["timeAdded"], old);
    let path = format!("{rules}/r");
    let same = api.merge(&path, &json!({"spec": {"taint": {"value": "x"}}})).await.json();
    assert_eq!(same["spec"]["taint"]["timeAdded"], old);
    let changed = api.merge(&path, &json!({"spec": {"taint": {"effect": "NoExecute"}}})).await.json();
    assert!(changed["spec"]["taint"]["timeAdded"].as_str().is_some_and(|time| time > old), "{changed}");
    assert_eq!(changed["metadata"]["generation"], 3);
    api.delete(&path).await;
    let made = api.make(rules, &rule("NoSchedule")).await;
    assert!(made["spec"]["taint"]["timeAdded"].is_string(), "{made}");
}
