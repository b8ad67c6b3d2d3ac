//! Discovery: both forms, for every group, with tags that tell when something changed.

use http::Method;
use serde_json::{Value, json};

use crate::{Api, Reply, admin};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

async fn accept(api: &Api, path: &str, accept: &str) -> Reply {
    api.call_as(admin(), Method::GET, path, &[("accept", accept)], "").await
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("a list of {field} in {value}"))
}

/// Conformance: "Discovery, confirm the PreferredVersion for each api group", "… the groupVerion and a resource…".
#[tokio::test]
async fn every_group_prefers_a_version_that_it_serves_with_resources() {
    let api = Api::start().await;
    let groups = accept(&api, "/apis", "application/json").await.json();
    assert_eq!((&groups["kind"], &groups["apiVersion"]), (&json!("APIGroupList"), &json!("v1")));
    for group in list(&groups, "groups") {
        let name = group["name"].as_str().expect("a name");
        let alone = api.get(&format!("/apis/{name}")).await.json();
        assert_eq!((&alone["kind"], &alone["preferredVersion"]), (&json!("APIGroup"), &group["preferredVersion"]));
        assert!(list(group, "versions").contains(&group["preferredVersion"]), "{group}");
        for version in list(group, "versions") {
            let group_version = version["groupVersion"].as_str().expect("a group version");
            let resources = api.get(&format!("/apis/{group_version}")).await.json();
            assert_eq!(
                (&resources["kind"], &resources["groupVersion"]),
                (&json!("APIResourceList"), &json!(group_version))
            );
            assert!(!list(&resources, "resources").is_empty());
        }
    }
    assert_eq!(api.get("/apis/nonsense").await.code, 404);
    assert_eq!(accept(&api, "/api", "application/json").await.json()["versions"], json!(["v1"]));
}

#[tokio::test]
async fn a_resource_says_its_names_verbs_and_parts() {
    let api = Api::start().await;
    let core = api.get("/api/v1").await.json();
    let find = |name: &str| list(&core, "resources").iter().find(|found| found["name"] == name).expect(name).clone();
    let pods = find("pods");
    assert_eq!(
        (&pods["singularName"], &pods["shortNames"], &pods["categories"]),
        (&json!("pod"), &json!(["po"]), &json!(["all"]))
    );
    assert!(pods["storageVersionHash"].as_str().is_some_and(|hash| hash.len() == 12), "{pods}");
    assert_eq!(
        pods["verbs"],
        json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"])
    );
    let eviction = find("pods/eviction");
    assert_eq!(
        (&eviction["kind"], &eviction["group"], &eviction["version"]),
        (&json!("Eviction"), &json!("policy"), &json!("v1"))
    );
    let scale = api.get("/apis/apps/v1").await.json();
    let scale =
        list(&scale, "resources").iter().find(|found| found["name"] == "deployments/scale").expect("scale").clone();
    assert_eq!(
        (&scale["kind"], &scale["group"], &scale["version"]),
        (&json!("Scale"), &json!("autoscaling"), &json!("v1"))
    );
}

/// Conformance: "Aggregated Discovery Interface", "Aggregated Discovery Endpoint Accept Headers".
#[tokio::test]
async fn the_aggregated_form_holds_every_plain_resource() {
    let api = Api::start().await;
    for (path, root) in [("/api", "/api"), ("/apis", "/apis/{group}")] {
        let whole = accept(&api, path, AGGREGATED).await;
        let media = whole.headers["content-type"].to_str().expect("text").to_owned();
        assert_eq!(media, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
        let whole = whole.json();
        assert_eq!(
            (&whole["kind"], &whole["apiVersion"]),
            (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
        );
        for group in list(&whole, "items") {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            for version in list(group, "versions") {
                assert_eq!(version["freshness"], "Current");
                let text = version["version"].as_str().expect("a version");
                let plain = api.get(&format!("{}/{text}", root.replace("{group}", name))).await.json();
                let mut named = Vec::new();
                for resource in list(version, "resources") {
                    let plural = resource["resource"].as_str().expect("a plural");
                    assert!(resource["responseKind"]["kind"].is_string() && resource["singularResource"].is_string());
                    named.push(plural.to_owned());
                    for part in resource["subresources"].as_array().into_iter().flatten() {
                        named.push(format!("{plural}/{}", part["subresource"].as_str().expect("a part")));
                        assert!(part["responseKind"]["kind"].is_string(), "{part}");
                    }
                }
                let plain: Vec<&str> =
                    list(&plain, "resources").iter().filter_map(|found| found["name"].as_str()).collect();
                assert_eq!(named, plain, "{name}/{text}");
            }
        }
    }
    assert_eq!(accept(&api, "/apis", "application/json").await.json()["kind"], "APIGroupList");
    assert_eq!(accept(&api, "/apis", "application/yaml").await.code, 406);
}

#[tokio::test]
async fn a_document_that_is_known_is_not_sent_again() {
    let api = Api::start().await;
    for path in ["/api", "/apis", "/openapi/v3", "/openapi/v2"] {
        let first = accept(&api, path, AGGREGATED).await;
        let etag = first.headers["etag"].to_str().expect("text").to_owned();
        let headers = [("accept", AGGREGATED), ("if-none-match", etag.as_str())];
        let again = api.call_as(admin(), Method::GET, path, &headers, "").await;
        assert_eq!((again.code.as_u16(), again.body.len()), (304, 0), "{path}");
    }
}
