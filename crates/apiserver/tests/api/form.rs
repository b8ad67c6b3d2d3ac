//! Forms of answers: tables, metadata alone, compressed lists.

use std::io::Read;

use http::Method;
use serde_json::json;

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
async fn a_large_list_is_compressed_for_who_takes_it() {
    let api = Api::start().await;
    let mut object = config_map("big");
    object["data"]["k"] = json!("x".repeat(200_000));
    api.make(CONFIG_MAPS, &object).await;
    let gzip = [("accept-encoding", "gzip")];
    let plain = api.get(CONFIG_MAPS).await;
    let packed = api.call_as(admin(), Method::GET, CONFIG_MAPS, &gzip, "").await;
    assert_eq!(
        (packed.headers["content-encoding"].to_str().ok(), plain.headers.get("content-encoding")),
        (Some("gzip"), None)
    );
    assert!(packed.body.len() < 10_000, "{}", packed.body.len());
    let mut back = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut back).expect("gzip");
    assert_eq!(back, plain.body);
    let small = api.call_as(admin(), Method::GET, "/api/v1/namespaces", &gzip, "").await;
    assert_eq!(small.headers.get("content-encoding"), None, "a small one is not worth it");
}
