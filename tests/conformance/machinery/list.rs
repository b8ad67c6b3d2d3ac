//! Lists: in pages, and as tables.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::json;

use crate::Test;
use crate::api::{JSON, MERGE};

const OBJECTS: usize = 60;
const PAGE: usize = 17;

async fn make_secrets(test: &Test) -> String {
    let path = test.path("v1", "secrets");
    for number in 0..OBJECTS {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("secret-{number:04}")}});
        test.api.create(&path, &object).await.ok();
    }
    path
}

pub async fn lists_come_in_pages_of_one_revision(test: &Test) {
    let path = make_secrets(test).await;
    let (mut names, mut revisions) = (BTreeSet::new(), BTreeSet::new());
    let mut query = format!("{path}?limit={PAGE}");
    loop {
        let page = test.api.get(&query).await.ok();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= PAGE, "{} items", items.len());
        names.extend(items.iter().map(|item| item["metadata"]["name"].to_string()));
        revisions.insert(page["metadata"]["resourceVersion"].to_string());
        let Some(token) = page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) else {
            assert!(page["metadata"].get("remainingItemCount").is_none(), "{}", page["metadata"]);
            break;
        };
        assert_eq!(items.len(), PAGE);
        assert_eq!(page["metadata"]["remainingItemCount"], OBJECTS - names.len());
        query = format!("{path}?limit={PAGE}&continue={token}");
    }
    assert_eq!((names.len(), revisions.len()), (OBJECTS, 1));
    let whole = test.api.get(&format!("{path}?limit=1000")).await.ok();
    assert_eq!(whole["items"].as_array().map(Vec::len), Some(OBJECTS));
    assert!(whole["metadata"].get("continue").is_none(), "{}", whole["metadata"]);
}

/// Bytes of one write that makes history.
const WRITE_BYTES: usize = 1_000_000;
/// More writes than any server keeps the history of.
const WRITES_MAX: usize = 500;

pub async fn a_list_goes_on_after_its_revision_is_compacted(test: &Test) {
    let path = make_secrets(test).await;
    let first = test.api.get(&format!("{path}?limit={PAGE}")).await.ok();
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let next = format!("{path}?limit={PAGE}&continue={token}");
    let maps = test.path("v1", "configmaps");
    test.api.create(&maps, &json!({"metadata": {"name": "large"}})).await.ok();
    let mut writes = 0;
    let expired = loop {
        let reply = test.api.get(&next).await;
        if !reply.code.is_success() {
            break reply;
        }
        assert!(writes < WRITES_MAX, "the token is still good after {writes} large writes");
        let noise = format!("{writes}{}", "0".repeat(WRITE_BYTES));
        test.api.patch(&format!("{maps}/large"), MERGE, &json!({"data": {"noise": noise}})).await.ok();
        writes += 1;
    };
    assert_eq!(expired.code, StatusCode::GONE);
    let status = expired.json();
    assert_eq!(status["reason"], "Expired");
    let token = status["metadata"]["continue"].as_str().expect("a token to go on inconsistently");
    let second = test.api.get(&format!("{path}?limit={PAGE}&continue={token}")).await.ok();
    assert_eq!(second["items"].as_array().map(Vec::len), Some(PAGE));
    assert_eq!(second["metadata"]["remainingItemCount"], OBJECTS - 2 * PAGE);
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let mut page = second.clone();
    let mut names: Vec<String> = Vec::new();
    loop {
        let items = page["items"].as_array().expect("items");
        names.extend(items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()));
        assert_eq!(page["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        page = test.api.get(&format!("{path}?limit={PAGE}&continue={token}")).await.ok();
    }
    let expected: Vec<String> = (PAGE..OBJECTS).map(|number| format!("secret-{number:04}")).collect();
    assert_eq!(names, expected);
}

pub async fn lists_are_tables_for_who_asks(test: &Test) {
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let pods = test.path("v1", "pods");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shown"},
        "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "none:1"}]}});
    test.api.create(&pods, &pod).await.ok();
    let table = test.api.call(Method::GET, &pods, &[("accept", accept)], "").await;
    assert_eq!(table.headers["content-type"], JSON);
    let table = table.ok();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "shown");
    let secrets = make_secrets(test).await;
    let page = test.api.call(Method::GET, &format!("{secrets}?limit=2"), &[("accept", accept)], "").await.ok();
    assert_eq!(page["rows"].as_array().map(Vec::len), Some(2));
    assert!(page["metadata"]["continue"].is_string() && page["metadata"]["resourceVersion"].is_string());
    let refused = [("accept", "application/json;as=Table;v=v1alpha1;g=meta.k8s.io")];
    let refused = test.api.call(Method::GET, &pods, &refused, "").await.refused(406);
    assert!(refused.contains("application/json"), "{refused}");
}
