//! Forms of answers: tables, metadata alone, compressed lists.

use std::io::Read;

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use windlass_api::codec::{Limits, protobuf, yaml};
use windlass_api::resources::samples::samples;
use windlass_api::schema::kubernetes;
use windlass_api::{Subresource, Verbs};

use crate::{Api, CONFIG_MAPS, PODS, Reply, admin, bind, config_map, pod};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const YAML: &str = "application/yaml";
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
    assert_eq!(accept(&api, CONFIG_MAPS, "text/html").await.code, 406);
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

fn media(reply: &Reply) -> &str {
    reply.headers["content-type"].to_str().expect("a text")
}

/// A body as this project's own reader reads it. `expected` is what an envelope without a kind holds.
fn read(body: &[u8], expected: Option<&str>) -> Value {
    let expected = expected.map(|name| kubernetes().find(name).expect("in the table"));
    protobuf::decode(body, expected, Limits::default()).expect("protobuf").value
}

/// A tree without what protobuf leaves out: what a field holds that nobody set.
fn bare(value: Value) -> Value {
    let is_nothing =
        |value: &Value| [json!(null), json!([]), json!({}), json!(""), json!(0), json!(false)].contains(value);
    match value {
        Value::Object(map) => {
            map.into_iter().map(|(key, value)| (key, bare(value))).filter(|(_, value)| !is_nothing(value)).collect()
        }
        Value::Array(items) => items.into_iter().map(bare).collect(),
        other => other,
    }
}

/// An object without what its objects say of their own kind, which has no tag.
fn unsaid(mut object: Value) -> Value {
    let claims = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
    for claim in claims.into_iter().flatten() {
        claim.as_object_mut().expect("a claim").retain(|name, _| name != "kind" && name != "apiVersion");
    }
    object
}

#[tokio::test]
async fn every_kind_is_the_same_in_json_yaml_and_protobuf() {
    let api = Api::start().await;
    let registry = windlass_api::resources::registry();
    for sample in samples() {
        let text = |field: &str| sample.object[field].as_str().expect("a text");
        let row = registry.find_kind(text("apiVersion"), text("kind")).expect("a built-in kind");
        if row.verbs != Verbs::All {
            continue;
        }
        let (kind, collection) = (&row.kind.kind, row.kind.collection_path(Some("default")));
        let path = format!("{collection}/{}", sample.object["metadata"]["name"].as_str().expect("a name"));
        api.make(&collection, &sample.object).await;
        if row.has(Subresource::Status) {
            let status = json!({"status": sample.status});
            assert_eq!(api.merge(&format!("{path}/status"), &status).await.code, 200, "{kind}");
        }
        let object = api.get(&path).await.json();
        let reply = accept(&api, &path, PROTOBUF).await;
        assert_eq!((reply.code.as_u16(), media(&reply)), (200, PROTOBUF), "{kind}");
        assert_eq!(bare(read(&reply.body, None)), bare(unsaid(object.clone())), "{kind}");
        let reply = accept(&api, &path, YAML).await;
        assert_eq!(media(&reply), YAML);
        assert_eq!(yaml::decode(&reply.body, Limits::default()).expect("YAML").value, object, "{kind}");

        let list = api.get(&collection).await.json();
        let reply = accept(&api, &collection, YAML).await;
        assert_eq!(yaml::decode(&reply.body, Limits::default()).expect("YAML").value, list, "{kind}");
        let reply = accept(&api, &collection, PROTOBUF).await;
        assert_eq!(media(&reply), PROTOBUF);
        // Items say their kind in JSON only.
        let mut untyped = list.clone();
        for item in untyped["items"].as_array_mut().expect("items") {
            item.as_object_mut().expect("an object").retain(|name, _| name != "kind" && name != "apiVersion");
            *item = unsaid(item.take());
        }
        assert_eq!(bare(read(&reply.body, None)), bare(untyped), "{kind}");
        let metadata = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
        let list = read(&accept(&api, &collection, &metadata).await.body, None);
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1"))
        );
        let found = list["items"]
            .as_array()
            .expect("items")
            .iter()
            .find(|item| item["metadata"]["uid"] == object["metadata"]["uid"]);
        assert_eq!(bare(found.expect("it is listed").clone()), bare(json!({"metadata": object["metadata"]})), "{kind}");
        api.delete(&path).await;
    }
}

/// The next frame of a watch in protobuf: its length, then the event.
async fn framed(body: &mut windlass_stdx::Body, rest: &mut Vec<u8>) -> Value {
    loop {
        if let Some((length, after)) = rest.split_at_checked(4) {
            let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            if let Some(event) = after.get(..length) {
                let envelope = [b"k8s\0\x0a\x00\x12".to_vec(), varint(length), event.to_vec()].concat();
                let event = read(&envelope, Some("k8s.io.apimachinery.pkg.apis.meta.v1.WatchEvent"));
                rest.drain(..4 + length);
                return event;
            }
        }
        let frame = tokio::time::timeout(crate::PATIENCE, body.frame()).await.expect("in time").expect("it goes on");
        rest.extend(frame.expect("a frame").into_data().expect("data"));
    }
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

#[tokio::test]
async fn a_watch_in_protobuf_is_of_frames_with_their_length() {
    let api = Api::start().await;
    let made = api.make(PODS, &pod("p")).await;
    let path =
        format!("{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let headers = [("accept", "application/vnd.kubernetes.protobuf;stream=watch")];
    let response = api.send(admin(), Method::GET, &path, &headers, windlass_stdx::body_from("")).await;
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let (mut body, mut rest) = (response.into_body(), Vec::new());
    let added = framed(&mut body, &mut rest).await;
    assert_eq!((&added["type"], bare(added["object"].clone())), (&json!("ADDED"), bare(made)));
    let end = framed(&mut body, &mut rest).await;
    assert_eq!((&end["type"], &end["object"]["kind"]), (&json!("BOOKMARK"), &json!("Pod")));
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    bind(&api, "p", "n1").await;
    let modified = framed(&mut body, &mut rest).await;
    assert_eq!((&modified["type"], &modified["object"]["spec"]["nodeName"]), (&json!("MODIFIED"), &json!("n1")));
    api.delete(&format!("{PODS}/p?gracePeriodSeconds=0")).await;
    assert_eq!(framed(&mut body, &mut rest).await["type"], "DELETED");
    assert_eq!(accept(&api, &path, YAML).await.code, 406, "YAML has no frames");
}

#[tokio::test]
async fn refusals_and_answers_have_the_form_of_the_client() {
    let api = Api::start().await;
    let missing = format!("{CONFIG_MAPS}/none");
    let reply = accept(&api, &missing, PROTOBUF).await;
    assert_eq!((reply.code.as_u16(), media(&reply)), (404, PROTOBUF));
    let status = read(&reply.body, None);
    assert_eq!(
        (&status["kind"], &status["reason"], &status["code"]),
        (&json!("Status"), &json!("NotFound"), &json!(404))
    );
    assert_eq!(status["details"]["name"], "none");
    let reply = accept(&api, &missing, YAML).await;
    assert!(reply.text().contains("reason: NotFound\n"), "{}", reply.text());
    api.make(CONFIG_MAPS, &config_map("c")).await;
    let deleted = api.call_as(admin(), Method::DELETE, &format!("{CONFIG_MAPS}/c"), &[("accept", PROTOBUF)], "").await;
    assert_eq!(read(&deleted.body, None)["status"], "Success");
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let headers = [("accept", PROTOBUF), ("content-type", "application/json")];
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = api.call_as(admin(), Method::POST, path, &headers, review).await;
    assert_eq!(read(&review.body, None)["status"]["userInfo"]["username"], "admin");
    // What takes both gets what costs less.
    let both = accept(&api, CONFIG_MAPS, "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(media(&both), "application/json");
    let definition = json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    api.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    let foos = "/apis/example.com/v1/namespaces/default/foos";
    assert_eq!(accept(&api, foos, PROTOBUF).await.code, 406, "a custom kind has no message");
    assert_eq!(accept(&api, foos, YAML).await.text().lines().next(), Some("apiVersion: example.com/v1"));
}
