//! A node's credential in the wrong hands: it reads what its pods name, and nothing else.

use http::Method;
use serde_json::{Value, json};
use windlass_apiserver::Identity;

use crate::{Api, CONFIG_MAPS, PODS, bind, config_map, pod};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

async fn said(api: &Api, who: &Identity, method: Method, path: &str, body: &Value) -> String {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    api.call_as(who.clone(), method, path, &[("content-type", "application/json")], text).await.said()
}

#[tokio::test]
async fn a34_a_node_reads_what_its_pods_name_while_they_are_there() {
    let api = Api::start().await;
    for name in ["used", "other"] {
        api.make(SECRETS, &json!({"metadata": {"name": name}})).await;
        api.make(CONFIG_MAPS, &config_map(name)).await;
    }
    let mut wished = pod("p");
    wished["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "used"}}]);
    wished["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "used"}}]);
    api.make(PODS, &wished).await;
    let node = Identity::node("n1");
    let by_name = |collection: &str, name: &str| {
        [format!("{collection}/{name}"), format!("{collection}?fieldSelector=metadata.name%3D{name}")]
    };
    let all = [by_name(SECRETS, "used"), by_name(CONFIG_MAPS, "used"), by_name(SECRETS, "other")].concat();
    for path in &all {
        assert!(said(&api, &node, Method::GET, path, &Value::Null).await.starts_with("403"), "before: {path}");
    }
    bind(&api, "p", "n1").await;
    for path in &all {
        let answer = said(&api, &node, Method::GET, path, &Value::Null).await;
        assert_eq!(answer == "200", !path.contains("other"), "{path}: {answer}");
        let stranger = said(&api, &Identity::node("n2"), Method::GET, path, &Value::Null).await;
        assert!(stranger.starts_with("403"), "another node, {path}: {stranger}");
    }
    for path in [SECRETS, "/api/v1/secrets", CONFIG_MAPS, ACCOUNTS] {
        assert!(said(&api, &node, Method::GET, path, &Value::Null).await.starts_with("403"), "{path}");
    }
    assert_eq!(said(&api, &node, Method::GET, &format!("{ACCOUNTS}/default"), &Value::Null).await, "200");
    assert_eq!(api.delete(&format!("{PODS}/p?gracePeriodSeconds=0")).await.said(), "200");
    for path in &all {
        assert!(said(&api, &node, Method::GET, path, &Value::Null).await.starts_with("403"), "after: {path}");
    }
}

#[tokio::test]
async fn a35_nobody_makes_a_mirror_pod_that_names_what_is_the_clusters() {
    let api = Api::start().await;
    let mirror = |spec: Value| {
        let mut wished = pod("m");
        wished["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        wished["spec"].as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
        wished
    };
    let volume = |source: Value| {
        let mut volume = source;
        volume["name"] = json!("v");
        json!({ "volumes": [volume] })
    };
    let token = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
    for spec in [
        json!({"serviceAccountName": "bot"}),
        volume(json!({"secret": {"secretName": "s"}})),
        volume(json!({"configMap": {"name": "c"}})),
        volume(json!({"persistentVolumeClaim": {"claimName": "d"}})),
        volume(token),
    ] {
        let answer = api.post(PODS, &mirror(spec.clone())).await.said();
        assert!(answer.contains("a mirror pod may not"), "{spec}: {answer}");
    }
    let node = Identity::node("n1");
    let answer = said(&api, &node, Method::POST, PODS, &mirror(json!({"nodeName": "n1"}))).await;
    assert!(answer.starts_with("403"), "a node's agent makes no pods: {answer}");
}

#[tokio::test]
async fn n6_a_node_reads_the_volumes_behind_its_claims() {
    const VOLUMES: &str = "/api/v1/persistentvolumes";
    let api = Api::start().await;
    for name in ["used", "other"] {
        api.make(SECRETS, &json!({"metadata": {"name": name}})).await;
        let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": "default", "name": name},
            "csi": {"driver": "example.com", "volumeHandle": name,
                "nodeStageSecretRef": {"namespace": "default", "name": name}}});
        api.make(VOLUMES, &json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    let mut wished = pod("p");
    wished["spec"]["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "used"}}]);
    api.make(PODS, &wished).await;
    bind(&api, "p", "n1").await;
    for (node, name, expected) in [("n1", "used", "200"), ("n1", "other", "403"), ("n2", "used", "403")] {
        for path in [format!("{VOLUMES}/{name}"), format!("{SECRETS}/{name}")] {
            let answer = said(&api, &Identity::node(node), Method::GET, &path, &Value::Null).await;
            assert!(answer.starts_with(expected), "{node} {path}: {answer}");
        }
    }
    let all = said(&api, &Identity::node("n1"), Method::GET, VOLUMES, &Value::Null).await;
    assert!(all.starts_with("403"), "{all}");
    assert_eq!(api.delete(&format!("{VOLUMES}/used")).await.said(), "200");
    let gone = said(&api, &Identity::node("n1"), Method::GET, &format!("{SECRETS}/used"), &Value::Null).await;
    assert!(gone.starts_with("403"), "{gone}");
}

#[tokio::test]
async fn n8_a_node_keeps_its_own_volumes_and_changes_nothing_else_of_them() {
    const VOLUMES: &str = "/api/v1/persistentvolumes";
    let api = Api::start().await;
    let on = |node: &str| {
        json!({"required": {"nodeSelectorTerms": [{"matchFields":
        [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}})
    };
    for (name, driver) in [("local", "local.windlass.dev"), ("foreign", "example.com")] {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "csi": {"driver": driver, "volumeHandle": name}, "nodeAffinity": on("n1")});
        api.make(VOLUMES, &json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    let keep = json!({"metadata": {"finalizers": ["windlass.dev/local-volume"]}});
    let patched = async |node: &str, name: &str, patch: &Value| {
        let media = [("content-type", "application/merge-patch+json")];
        let path = format!("{VOLUMES}/{name}");
        api.call_as(Identity::node(node), Method::PATCH, &path, &media, patch.to_string()).await.said()
    };
    assert_eq!(patched("n1", "local", &keep).await, "200");
    assert!(patched("n2", "local", &keep).await.starts_with("403"), "it lies on another node");
    assert!(patched("n1", "foreign", &keep).await.starts_with("403"), "it is of another driver");
    for more in [
        json!({"metadata": {"finalizers": ["windlass.dev/local-volume", "another.example.com/one"]}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"spec": {"capacity": {"storage": "9Gi"}}}),
    ] {
        assert!(patched("n1", "local", &more).await.starts_with("403"), "{more}");
    }
    for (node, name, expected) in [("n1", "local", "200"), ("n1", "foreign", "403"), ("n2", "local", "403")] {
        let path = format!("{VOLUMES}?fieldSelector=metadata.name%3D{name}");
        let answer = said(&api, &Identity::node(node), Method::GET, &path, &Value::Null).await;
        assert!(answer.starts_with(expected), "{node} {name}: {answer}");
    }
}

#[tokio::test]
async fn n6_r5_a_node_reads_its_attachments_and_says_how_large_its_claims_have_become() {
    const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
    const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
    let api = Api::start().await;
    for node in ["n1", "n2"] {
        let spec = json!({"attacher": "example.com", "nodeName": node, "source": {"persistentVolumeName": "v"}});
        api.make(ATTACHMENTS, &json!({"metadata": {"name": format!("of-{node}")}, "spec": spec})).await;
    }
    let node = Identity::node("n1");
    let get = async |path: String| said(&api, &node, Method::GET, &path, &Value::Null).await;
    assert_eq!(get(format!("{ATTACHMENTS}/of-n1")).await, "200");
    for path in [format!("{ATTACHMENTS}/of-n2"), format!("{ATTACHMENTS}/none"), ATTACHMENTS.to_owned()] {
        assert!(get(path.clone()).await.starts_with("403"), "{path}");
    }
    assert_eq!(get("/apis/storage.k8s.io/v1/csidrivers".to_owned()).await, "200");
    for name in ["used", "other"] {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        api.make(CLAIMS, &json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    let mut wished = pod("p");
    wished["spec"]["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "used"}}]);
    api.make(PODS, &wished).await;
    bind(&api, "p", "n1").await;
    let patched = async |node: &str, path: &str, patch: Value| {
        let media = [("content-type", "application/merge-patch+json")];
        let path = format!("{CLAIMS}/{path}");
        api.call_as(Identity::node(node), Method::PATCH, &path, &media, patch.to_string()).await.said()
    };
    let larger = || json!({"status": {"capacity": {"storage": "2Gi"}, "conditions": null}});
    assert_eq!(patched("n1", "used/status", larger()).await, "200");
    for (node, path, patch) in [
        ("n2", "used/status", larger()),
        ("n1", "other/status", larger()),
        ("n1", "used", json!({"metadata": {"labels": {"a": "b"}}})),
        ("n1", "used/status", json!({"status": {"phase": "Lost"}})),
    ] {
        let answer = patched(node, path, patch.clone()).await;
        assert!(answer.starts_with("403"), "{node} {path} {patch}: {answer}");
    }
}

#[tokio::test]
async fn r6_r10_a_node_asks_for_certificates_of_its_own_pods_and_who_may_sign_decides() {
    use windlass_api::resources::samples::samples;
    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests";
    let api = Api::start().await;
    for name in ["n1", "n2"] {
        api.make("/api/v1/nodes", &json!({"metadata": {"name": name}})).await;
    }
    api.make(PODS, &pod("p")).await;
    bind(&api, "p", "n1").await;
    let sample = samples().into_iter().find(|sample| sample.object["kind"] == "PodCertificateRequest");
    let mut good = sample.expect("every kind has a sample").object;
    good["metadata"] = json!({"generateName": "r-"});
    for (name, uid, path) in [
        ("podName", "podUID", format!("{PODS}/p")),
        ("serviceAccountName", "serviceAccountUID", format!("{ACCOUNTS}/default")),
        ("nodeName", "nodeUID", "/api/v1/nodes/n1".to_owned()),
    ] {
        let metadata = api.get(&path).await.json()["metadata"].take();
        (good["spec"][name], good["spec"][uid]) = (metadata["name"].clone(), metadata["uid"].clone());
    }
    let (own, other) = (Identity::node("n1"), Identity::node("n2"));
    for (field, value, why) in [
        ("nodeName", json!("n2"), "which is not the requesting node"),
        ("podName", json!("q"), "is not running on node"),
        ("podUID", json!("x"), "contains pod UID"),
        ("serviceAccountName", json!("bot"), "contains serviceAccountName"),
        ("serviceAccountUID", json!("x"), "contains serviceAccountUID"),
        ("nodeUID", json!("x"), "contains nodeUID"),
        ("stubPKCS10Request", json!("MIIB"), "signed by its own key"),
    ] {
        let mut bad = good.clone();
        bad["spec"][field] = value;
        let answer = said(&api, &own, Method::POST, REQUESTS, &bad).await;
        assert!(answer.contains(why), "{field}: {answer}");
    }
    let answer = said(&api, &other, Method::POST, REQUESTS, &good).await;
    assert!(answer.contains("which is not the requesting node"), "{answer}");
    good["metadata"] = json!({"name": "r"});
    assert_eq!(said(&api, &own, Method::POST, REQUESTS, &good).await, "201");
    let one = format!("{REQUESTS}/r");
    assert_eq!(said(&api, &own, Method::GET, &one, &Value::Null).await, "200");
    for (who, path) in [(&other, one.as_str()), (&own, REQUESTS)] {
        assert!(said(&api, who, Method::GET, path, &Value::Null).await.starts_with("403"), "{path}");
    }

    let roles = "/apis/rbac.authorization.k8s.io/v1";
    let rules =
        json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["podcertificaterequests/status"], "verbs": ["*"]}]);
    api.make(&format!("{roles}/clusterroles"), &json!({"metadata": {"name": "decides"}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": "decides"}, "subjects": [{"kind": "User", "name": "jane",
        "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "decides"}});
    api.make(&format!("{roles}/clusterrolebindings"), &binding).await;
    let denied = json!({"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "No",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let jane = Identity::new("jane", Vec::new());
    let merge = [("content-type", "application/merge-patch+json")];
    let path = format!("{one}/status");
    let answer = api.call_as(jane, Method::PATCH, &path, &merge, denied.to_string()).await.said();
    assert!(answer.contains("not permitted to sign requests with signerName"), "{answer}");
    assert_eq!(api.merge(&path, &denied).await.said(), "200");
}

#[tokio::test]
async fn n9_a_node_reads_runtime_classes_and_changes_none() {
    const CLASSES: &str = "/apis/node.k8s.io/v1/runtimeclasses";
    let api = Api::start().await;
    api.make(CLASSES, &json!({"metadata": {"name": "vm"}, "handler": "kata"})).await;
    let node = Identity::node("n1");
    for path in [CLASSES.to_owned(), format!("{CLASSES}/vm")] {
        assert_eq!(said(&api, &node, Method::GET, &path, &Value::Null).await, "200");
    }
    let other = json!({"metadata": {"name": "other"}, "handler": "runc"});
    for (method, path) in [(Method::POST, CLASSES.to_owned()), (Method::DELETE, format!("{CLASSES}/vm"))] {
        assert!(said(&api, &node, method.clone(), &path, &other).await.starts_with("403"), "{method} {path}");
    }
}

const DEVICES: &str = "/apis/resource.k8s.io/v1";

#[tokio::test]
async fn n10_a_node_reads_the_claims_of_its_pods_and_lists_its_own_slices() {
    let api = Api::start().await;
    let claims = format!("{DEVICES}/namespaces/default/resourceclaims");
    let devices = json!({"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}});
    for name in ["used", "made", "other"] {
        api.make(&claims, &json!({"metadata": {"name": name}, "spec": devices})).await;
    }
    let mut wished = pod("p");
    wished["spec"]["resourceClaims"] = json!([{"name": "a", "resourceClaimName": "used"},
        {"name": "b", "resourceClaimTemplateName": "t"}]);
    api.make(PODS, &wished).await;
    bind(&api, "p", "n1").await;
    let node = Identity::node("n1");
    let reads = async |name: &str| said(&api, &node, Method::GET, &format!("{claims}/{name}"), &Value::Null).await;
    assert_eq!(reads("used").await, "200");
    for name in ["made", "other"] {
        assert!(reads(name).await.starts_with("403"), "{name}");
    }
    // Its status names another one later, which the node itself does not write.
    let status = json!({"status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "made"}]}});
    let merge = [("content-type", "application/merge-patch+json")];
    let own = async |status: &Value| {
        let path = format!("{PODS}/p/status");
        api.call_as(node.clone(), Method::PATCH, &path, &merge, status.to_string()).await.said()
    };
    let refused = own(&status).await;
    assert!(refused.contains("node \"n1\" cannot update resourceClaimStatuses of pod \"p\""), "{refused}");
    assert!(reads("made").await.starts_with("403"));
    assert_eq!(own(&json!({"status": {"message": "it is here"}})).await, "200");
    assert_eq!(api.merge(&format!("{PODS}/p/status"), &status).await.said(), "200");
    assert_eq!(reads("made").await, "200");
    assert!(reads("other").await.starts_with("403"));
    assert!(said(&api, &node, Method::GET, &claims, &Value::Null).await.starts_with("403"), "one by one");
    let slices = format!("{DEVICES}/resourceslices");
    let own = format!("{slices}?fieldSelector=spec.nodeName%3Dn1");
    assert_eq!(said(&api, &node, Method::GET, &own, &Value::Null).await, "200");
    for path in [slices.clone(), format!("{slices}?fieldSelector=spec.nodeName%3Dn2"), format!("{slices}/n1")] {
        assert!(said(&api, &node, Method::GET, &path, &Value::Null).await.starts_with("403"), "{path}");
    }
}

#[tokio::test]
async fn an_admins_access_to_devices_is_claimed_only_where_admins_are() {
    let api = Api::start().await;
    api.make(
        "/api/v1/namespaces",
        &json!({"metadata": {"name": "admins", "labels": {"resource.kubernetes.io/admin-access": "true"}}}),
    )
    .await;
    let spec =
        json!({"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu", "adminAccess": true}}]}});
    let claim = json!({"metadata": {"name": "c"}, "spec": spec});
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": spec}});
    for (plural, object, at) in [("resourceclaims", claim, "spec"), ("resourceclaimtemplates", template, "spec.spec")] {
        let refused = api.post(&format!("{DEVICES}/namespaces/default/{plural}"), &object).await.said();
        let expected = format!(
            "{at}.devices.requests[0].exactly.adminAccess: Forbidden: admin access to devices requires the \
             `resource.kubernetes.io/admin-access: true` label on the containing namespace"
        );
        assert!(refused.contains(&expected), "{refused}");
        api.make(&format!("{DEVICES}/namespaces/admins/{plural}"), &object).await;
    }
    // Nor is it given there by who writes what a claim was given.
    let requests = json!([{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]);
    let plain = json!({"metadata": {"name": "p"}, "spec": {"devices": {"requests": requests}}});
    let result =
        json!({"request": "gpu", "driver": "d.example.com", "pool": "n1", "device": "gpu-0", "adminAccess": true});
    let status = json!({"status": {"allocation": {"devices": {"results": [result]}}}});
    for (namespace, is_refused) in [("default", true), ("admins", false)] {
        api.make(&format!("{DEVICES}/namespaces/{namespace}/resourceclaims"), &plain).await;
        let path = format!("{DEVICES}/namespaces/{namespace}/resourceclaims/p/status");
        let said = api.merge(&path, &status).await.said();
        let why = "status.allocation.devices.results[0].adminAccess: Forbidden: admin access to devices requires";
        assert_eq!(said.contains(why), is_refused, "{namespace}: {said}");
    }
}
