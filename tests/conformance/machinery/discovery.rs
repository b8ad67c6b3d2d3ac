//! Discovery: groups, their versions and resources, one by one and all at once.

use http::Method;
use serde_json::{Value, json};

use crate::Test;
use crate::api::JSON;

const AGGREGATED: &str = "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io";

/// How the answer to it is called.
const AGGREGATE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What every cluster serves.
const BUILT_IN: &[(&str, &str, &[&str])] = &[
    (
        "",
        "v1",
        &[
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "podtemplates",
            "replicationcontrollers",
            "resourcequotas",
            "secrets",
            "serviceaccounts",
            "services",
        ],
    ),
    ("admissionregistration.k8s.io", "v1", &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]),
    ("apiextensions.k8s.io", "v1", &["customresourcedefinitions"]),
    ("apiregistration.k8s.io", "v1", &["apiservices"]),
    ("apps", "v1", &["controllerrevisions", "daemonsets", "deployments", "replicasets", "statefulsets"]),
    ("authentication.k8s.io", "v1", &["tokenreviews"]),
    (
        "authorization.k8s.io",
        "v1",
        &["localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"],
    ),
    ("autoscaling", "v1", &["horizontalpodautoscalers"]),
    ("autoscaling", "v2", &["horizontalpodautoscalers"]),
    ("batch", "v1", &["cronjobs", "jobs"]),
    ("certificates.k8s.io", "v1", &["certificatesigningrequests"]),
    ("coordination.k8s.io", "v1", &["leases"]),
    ("discovery.k8s.io", "v1", &["endpointslices"]),
    ("events.k8s.io", "v1", &["events"]),
    ("networking.k8s.io", "v1", &["ingressclasses", "ingresses", "networkpolicies"]),
    ("node.k8s.io", "v1", &["runtimeclasses"]),
    ("policy", "v1", &["poddisruptionbudgets"]),
    ("rbac.authorization.k8s.io", "v1", &["clusterrolebindings", "clusterroles", "rolebindings", "roles"]),
    ("scheduling.k8s.io", "v1", &["priorityclasses"]),
    (
        "storage.k8s.io",
        "v1",
        &["csidrivers", "csinodes", "csistoragecapacities", "storageclasses", "volumeattachments"],
    ),
];

fn items<'a>(object: &'a Value, list: &str) -> &'a [Value] {
    object[list].as_array().map_or(&[], Vec::as_slice)
}

pub async fn every_group_prefers_a_version_it_has(test: &Test) {
    let groups = test.api.get("/apis").await.ok();
    assert_eq!(groups["kind"], "APIGroupList");
    assert!(!items(&groups, "groups").is_empty());
    for group in items(&groups, "groups") {
        let name = group["name"].as_str().expect("a name");
        if name.ends_with("example.com") {
            continue;
        }
        let own = test.api.get(&format!("/apis/{name}")).await.ok();
        for described in [group, &own] {
            let preferred = &described["preferredVersion"];
            assert!(items(described, "versions").contains(preferred), "{described}");
            let version = preferred["version"].as_str().expect("a version");
            assert_eq!(preferred["groupVersion"], format!("{name}/{version}"));
        }
    }
}

pub async fn every_group_version_lists_its_resources(test: &Test) {
    let groups = test.api.get("/apis").await.ok();
    for group in items(&groups, "groups").iter().filter(|group| !is_of_a_test(group)) {
        for version in items(group, "versions") {
            let wanted = version["groupVersion"].as_str().expect("a group version");
            let list = test.api.get(&format!("/apis/{wanted}")).await.ok();
            assert_eq!((&list["kind"], &list["groupVersion"]), (&json!("APIResourceList"), &json!(wanted)));
            let is_whole = |resource: &Value| resource["name"].is_string() && resource["kind"].is_string();
            assert!(items(&list, "resources").iter().any(is_whole), "{list}");
        }
    }
}

/// Groups of custom kinds come and go while other tests run.
fn is_of_a_test(group: &Value) -> bool {
    group["name"].as_str().is_some_and(|name| name.ends_with("example.com"))
}

/// The aggregated documents of `/api` and `/apis`, as one list of groups.
pub async fn aggregated(test: &Test) -> Vec<Value> {
    let mut groups = Vec::new();
    for path in ["/api", "/apis"] {
        let reply = test.api.call(Method::GET, path, &[("accept", AGGREGATED)], "").await;
        assert_eq!(reply.headers["content-type"], AGGREGATE, "{path}");
        let list = reply.ok();
        assert_eq!(list["kind"], "APIGroupDiscoveryList");
        assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2");
        groups.extend(items(&list, "items").iter().cloned());
    }
    groups
}

/// A resource of an aggregated document.
pub fn find<'a>(groups: &'a [Value], group: &str, version: &str, plural: &str) -> Option<&'a Value> {
    // The core group has no name.
    let named = |found: &&Value| found["metadata"]["name"].as_str().unwrap_or_default() == group;
    let found = groups.iter().find(named)?;
    let found = items(found, "versions").iter().find(|found| found["version"] == version)?;
    items(found, "resources").iter().find(|resource| resource["resource"] == plural)
}

pub async fn one_document_names_every_built_in_resource(test: &Test) {
    let groups = aggregated(test).await;
    for (group, version, plurals) in BUILT_IN {
        for plural in *plurals {
            let resource = find(&groups, group, version, plural);
            let resource = resource.unwrap_or_else(|| panic!("{group}/{version} has no {plural}"));
            assert!(!items(resource, "verbs").is_empty(), "{resource}");
            assert!(matches!(resource["scope"].as_str(), Some("Cluster" | "Namespaced")), "{resource}");
        }
    }
    let pods = find(&groups, "", "v1", "pods").expect("pods");
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    assert_eq!((&pods["responseKind"], &pods["singularResource"]), (&kind, &json!("pod")));
    let subresources = items(pods, "subresources");
    assert!(subresources.iter().any(|sub| sub["subresource"] == "status"), "{pods}");
}

pub async fn who_does_not_ask_for_one_document_gets_the_old_ones(test: &Test) {
    let bogus = "application/json;as=BogusList;v=v2;g=apidiscovery.k8s.io";
    for (accept, form, kind) in [
        (JSON.to_owned(), JSON, "APIGroupList"),
        ("*/*".to_owned(), JSON, "APIGroupList"),
        (format!("{bogus},{JSON}"), JSON, "APIGroupList"),
        (AGGREGATED.to_owned(), AGGREGATE, "APIGroupDiscoveryList"),
        (format!("{AGGREGATED},{JSON}"), AGGREGATE, "APIGroupDiscoveryList"),
        (format!("{bogus},{AGGREGATED},{JSON}"), AGGREGATE, "APIGroupDiscoveryList"),
    ] {
        let reply = test.api.call(Method::GET, "/apis", &[("accept", &accept)], "").await;
        assert_eq!(reply.headers["content-type"], form, "{accept}");
        assert_eq!(reply.ok()["kind"], kind, "{accept}");
    }
    test.api.call(Method::GET, "/apis", &[("accept", bogus)], "").await.refused(406);
}
