//! `/windlass/v1/backup`: who gets it, and that it is one moment's and whole.

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use windlass_apiserver::Identity;
use windlass_apiserver::backup::{Manifest, SCHEMA, what_is_wrong};
use windlass_stdx::{Body, body_from};
use windlass_store::Import;

use crate::{Api, CONFIG_MAPS, admin, config_map};

const PATH: &str = "/windlass/v1/backup";

async fn begun(api: &Api) -> http::Response<Body> {
    api.send(admin(), Method::GET, PATH, &[], body_from("")).await
}

#[tokio::test]
async fn only_who_may_ask_for_any_path_gets_a_backup() {
    let api = Api::start().await;
    for who in [
        Identity::new("jane", ["system:authenticated".to_owned()]),
        Identity::new("system:anonymous", ["system:unauthenticated".to_owned()]),
        Identity::new("system:node:n", ["system:nodes".to_owned(), "system:authenticated".to_owned()]),
    ] {
        let said = api.call_as(who, Method::GET, PATH, &[], "").await.said();
        assert!(said.starts_with("403"), "{said}");
    }
    assert_eq!(api.get(PATH).await.said(), "200");
    assert!(api.post(PATH, &json!({})).await.said().starts_with("405"));
}

#[tokio::test]
async fn r1_a_manifest_says_what_follows_and_it_is_of_one_moment() {
    let api = Api::start().await;
    for number in 0..50 {
        let mut map = config_map(&format!("c{number:02}"));
        map["data"]["k"] = json!("x".repeat(20_000));
        api.make(CONFIG_MAPS, &map).await;
    }
    let revision = api.store.revision();
    let entries = api.store.stats().keys as u64;
    let mut body = begun(&api).await.into_body();
    let mut bytes = body.frame().await.expect("a piece").expect("whole").into_data().expect("bytes").to_vec();
    api.make(CONFIG_MAPS, &config_map("later")).await;
    api.delete(&format!("{CONFIG_MAPS}/c00")).await;
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(&frame.expect("whole").into_data().expect("bytes"));
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').expect("a line");
    let manifest: Manifest = serde_json::from_slice(&bytes[..end]).expect("a manifest");
    assert_eq!((manifest.revision, manifest.entries, manifest.schema), (revision, entries, SCHEMA));
    assert_eq!(manifest.cluster, api.store.cluster());
    let state =
        Import::read(&mut &bytes[end + 1..], &manifest.cluster, (manifest.entries, manifest.bytes)).expect("whole");
    assert_eq!((state.revision(), state.bytes()), (revision, manifest.bytes));
    assert!(state.entries().all(|entry| what_is_wrong(entry).is_none()));
    let has = |name: &str| state.entries().any(|entry| entry.key().ends_with(name));
    assert!(has("/c00") && !has("/later"));
}

#[tokio::test(start_paused = true)]
async fn r2_two_are_under_way_and_who_does_not_read_on_is_given_up() {
    let api = Api::start().await;
    for number in 0..40 {
        let mut map = config_map(&format!("c{number:02}"));
        map["data"]["k"] = json!("x".repeat(50_000));
        api.make(CONFIG_MAPS, &map).await;
    }
    let (first, second) = (begun(&api).await, begun(&api).await);
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let said = api.get(PATH).await.said();
    assert!(said.starts_with("429"), "{said}");
    tokio::time::sleep(std::time::Duration::from_secs(70)).await;
    assert_eq!(api.get(PATH).await.said(), "200", "their places are free");
    let mut body = first.into_body();
    let mut last = Ok(());
    while let Some(frame) = body.frame().await {
        last = frame.map(drop);
    }
    assert!(last.is_err(), "R3: what is not whole does not end well");
}

#[test]
fn a_value_that_no_server_could_live_with_is_found() {
    let entry = |key: &str, value: &str| windlass_store::Entry::made_up(key, value);
    let map = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","namespace":"n"}}"#;
    assert_eq!(what_is_wrong(&entry("o/configmaps/n/c", map)), None);
    assert_eq!(what_is_wrong(&entry("a/port/1", "anything")), None);
    for (key, value) in [("o/configmaps/n/c", "{"), ("o/configmaps/n/d", map), ("o/configmaps/m/c", map), ("o/x", "[]")]
    {
        assert!(what_is_wrong(&entry(key, value)).is_some(), "{key} {value}");
    }
}
