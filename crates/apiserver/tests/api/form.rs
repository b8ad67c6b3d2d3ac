//! Forms of answers, and the documents about what is served.

use http::Method;
use serde_json::{Value, json};

use crate::{Api, CONFIG_MAPS, PODS, Reply, admin, bind, config_map, pod};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

async fn accept(api: &Api, path: &str, accept: &str) -> Reply {
    api.call_as(admin(), Method::GET, path, &[("accept", accept)], "").await
}

#[tokio::test]
async fn lists_and_objects_become_tables() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    api.make(CONFIG_MAPS, &config_map("b")).await;
    let list = accept(&api, CONFIG_MAPS, TABLE).await.json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(list["columnDefinitions"][0]["name"], "Name");
    assert_eq!((&list["rows"][0]["cells"][0], &list["rows"][1]["cells"][1]), (&json!("a"), &json!(1)));
    assert_eq!(list["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(list["metadata"]["resourceVersion"], api.store.revision().to_string());
    let one = accept(&api, &format!("{CONFIG_MAPS}/a?includeObject=Object"), TABLE).await.json();
    assert_eq!((&one["rows"][0]["object"]["data"]["k"], one["rows"].as_array().map(Vec::len)), (&json!("v"), Some(1)));
    let bare = accept(&api, &format!("{CONFIG_MAPS}?includeObject=None"), TABLE).await.json();
    assert_eq!(bare["rows"][0].get("object"), None);
    assert_eq!(accept(&api, &format!("{CONFIG_MAPS}?includeObject=All"), TABLE).await.code, 400);
}

#[tokio::test]
async fn a_watch_may_be_of_tables() {
    let api = Api::start().await;
    api.make(PODS, &pod("p")).await;
    let path = format!("{PODS}?watch=1");
    let headers = [("accept", TABLE)];
    let response = api.send(admin(), Method::GET, &path, &headers, windlass_stdx::body_from("")).await;
    let mut lines = crate::Lines { body: response.into_body(), rest: Vec::new() };
    let added = lines.next().await.expect("an event");
    assert_eq!((&added["type"], &added["object"]["rows"][0]["cells"][0]), (&json!("ADDED"), &json!("p")));
    bind(&api, "p", "n1").await;
    let modified = lines.next().await.expect("an event");
    assert_eq!((&modified["type"], &modified["object"]["kind"]), (&json!("MODIFIED"), &json!("Table")));
    assert_eq!(modified["object"]["rows"][0]["object"]["metadata"]["name"], "p");
}

#[tokio::test]
async fn metadata_alone_can_be_asked_for() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    let list = accept(&api, CONFIG_MAPS, METADATA).await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!((&list["items"][0]["metadata"]["name"], list["items"][0].get("data")), (&json!("a"), None));
    assert_eq!(accept(&api, CONFIG_MAPS, "application/vnd.kubernetes.protobuf").await.code, 406);
}

#[tokio::test]
async fn discovery_is_served_in_both_forms() {
    let api = Api::start().await;
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let groups = accept(&api, "/apis", v2).await;
    assert_eq!(groups.json()["kind"], "APIGroupDiscoveryList");
    assert!(groups.headers["content-type"].to_str().expect("text").contains("as=APIGroupDiscoveryList"));
    assert_eq!(accept(&api, "/apis", "application/json").await.json()["kind"], "APIGroupList");
    assert_eq!(accept(&api, "/api", "application/json").await.json()["versions"], json!(["v1"]));
    assert_eq!(api.get("/apis/apps").await.json()["kind"], "APIGroup");
    let resources = api.get("/apis/apps/v1").await.json();
    assert_eq!((&resources["kind"], &resources["groupVersion"]), (&json!("APIResourceList"), &json!("apps/v1")));
    let etag = groups.headers["etag"].to_str().expect("text").to_owned();
    let headers = [("accept", v2), ("if-none-match", etag.as_str())];
    let again = api.call_as(admin(), Method::GET, "/apis", &headers, "").await;
    assert_eq!((again.code.as_u16(), again.body.len()), (304, 0));
    assert_eq!(api.get("/apis/nonsense").await.code, 404);
}

#[tokio::test]
async fn open_api_documents_are_found_by_the_hash_of_the_index() {
    let api = Api::start().await;
    let index = api.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    let document = api.get(&url).await;
    assert!(document.headers["cache-control"].to_str().expect("text").contains("immutable"));
    let patch = &document.json()["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let names: Vec<Value> = patch["parameters"].as_array().into_iter().flatten().map(|p| p["name"].clone()).collect();
    assert!(names.contains(&json!("fieldValidation")), "kubectl apply needs it: {names:?}");
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    assert_eq!(api.get("/openapi/v3/apis/nonsense/v1").await.code, 404);
}

#[tokio::test]
async fn health_says_what_it_checked() {
    let api = Api::start().await;
    assert_eq!(api.get("/livez").await.text(), "ok");
    let verbose = api.get("/readyz?verbose").await.text();
    assert_eq!(verbose, "[+]ping ok\n[+]store ok\n[+]etcd ok\n[+]shutdown ok\nreadyz check passed\n");
    let head = api.call_as(crate::admin(), Method::HEAD, "/livez", &[], "").await;
    assert_eq!((head.code.as_u16(), head.body.len()), (200, 0));
    let head = api.call_as(crate::admin(), Method::HEAD, "/api/v1/pods", &[], "").await;
    assert_eq!((head.code.as_u16(), head.body.len()), (405, 0));
    api.apiserver.close();
    let closing = api.get("/readyz").await;
    assert_eq!(closing.code, 500);
    assert!(closing.text().contains("[-]shutdown failed"), "{}", closing.text());
    assert_eq!(api.get("/livez").await.text(), "ok", "closing is not a reason to be killed");
    assert_eq!(api.get("/livez/nonsense").await.code, 404);
    let version = api.get("/version").await.json();
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("37")));
}
