//! Health endpoints and `/version`.

use http::Method;
use serde_json::json;

use crate::{Api, admin};

#[tokio::test]
async fn health_says_what_it_checked() {
    let api = Api::start().await;
    assert_eq!(api.get("/livez").await.text(), "ok");
    let verbose = api.get("/readyz?verbose").await.text();
    assert_eq!(verbose, "[+]ping ok\n[+]store ok\n[+]etcd ok\n[+]shutdown ok\nreadyz check passed\n");
    let without = api.get("/readyz?verbose&exclude=etcd&exclude=nonsense").await.text();
    let expected = "[+]ping ok\n[+]store ok\n[+]etcd excluded: ok\n[+]shutdown ok\nwarn: some health checks cannot be \
                    excluded: no matches for \"nonsense\"\nreadyz check passed\n";
    assert_eq!(without, expected);
    assert_eq!(api.get("/readyz/etcd").await.text(), "ok");
    assert_eq!(api.get("/livez/nonsense").await.code, 404);
}

#[tokio::test]
async fn a_closing_server_is_alive_and_not_ready() {
    let api = Api::start().await;
    api.apiserver.close();
    let closing = api.get("/readyz").await;
    assert_eq!(closing.code, 500);
    let expected = "[+]ping ok\n[+]store ok\n[+]etcd ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n";
    assert_eq!(closing.text(), expected);
    assert_eq!(api.get("/readyz?exclude=shutdown").await.text(), "ok");
    let one = api.get("/readyz/shutdown").await;
    assert_eq!((one.code.as_u16(), one.text().as_str()), (500, "internal server error: reason withheld\n"));
    assert_eq!(api.get("/livez").await.text(), "ok", "closing is not a reason to be killed");
}

#[tokio::test]
async fn a_head_has_no_body() {
    let api = Api::start().await;
    let head = api.call_as(admin(), Method::HEAD, "/livez", &[], "").await;
    assert_eq!((head.code.as_u16(), head.body.len()), (200, 0));
    let head = api.call_as(admin(), Method::HEAD, "/api/v1/pods", &[], "").await;
    assert_eq!((head.code.as_u16(), head.body.len()), (405, 0));
}

/// Conformance: "Confirm a server version".
#[tokio::test]
async fn the_version_is_two_whole_numbers() {
    let api = Api::start().await;
    let version = api.get("/version").await.json();
    for part in ["major", "minor"] {
        assert!(version[part].as_str().is_some_and(|text| text.parse::<u32>().is_ok()), "{part} of {version}");
    }
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("37")));
    assert!(version["gitVersion"].as_str().is_some_and(|text| text.starts_with("v1.37.")));
}

#[tokio::test]
async fn components_are_well_as_long_as_they_run() {
    let api = Api::start().await;
    let scheduler = api.apiserver.part("scheduler");
    let path = "/api/v1/componentstatuses";
    let shown = |list: serde_json::Value| -> Vec<String> {
        let text = |item: &serde_json::Value| {
            let condition = &item["conditions"][0];
            format!("{} {} {}", item["metadata"]["name"], condition["status"], condition["message"]).replace('"', "")
        };
        list["items"].as_array().expect("items").iter().map(text).collect()
    };
    let list = api.get(path).await;
    let warning = list.headers.get("warning").and_then(|warning| warning.to_str().ok()).unwrap_or_default().to_owned();
    assert!(warning.contains("v1 ComponentStatus is deprecated in v1.19+"), "{warning}");
    let list = list.json();
    assert_eq!(list["kind"], "ComponentStatusList");
    assert_eq!(shown(list), ["etcd-0 True ok", "scheduler True ok"]);
    drop(scheduler);
    assert_eq!(shown(api.get(path).await.json()), ["etcd-0 True ok", "scheduler False it has stopped"]);
    let one = format!("{path}?fieldSelector=metadata.name%3Detcd-0");
    assert_eq!(shown(api.get(&one).await.json()), ["etcd-0 True ok"]);
    assert_eq!(api.get(&format!("{path}/scheduler")).await.json()["conditions"][0]["status"], "False");
    assert_eq!(api.get(&format!("{path}/other")).await.code, 404);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = api.call_as(admin(), Method::GET, path, &table, "").await.json();
    assert_eq!(table["rows"][1]["cells"], json!(["scheduler", "Unhealthy", "it has stopped", ""]));
    for (method, path) in [(Method::POST, path.to_owned()), (Method::DELETE, format!("{path}/etcd-0"))] {
        assert_eq!(api.call_as(admin(), method, &path, &[], "{}").await.code, 405);
    }
    assert_eq!(api.get(&format!("{path}?watch=true")).await.code, 405);
}
