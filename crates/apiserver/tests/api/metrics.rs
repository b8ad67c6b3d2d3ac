//! `/metrics`: Kubernetes' names, each with HELP and TYPE, labels that no request can add to.

use http::Method;
use serde_json::json;

use crate::{Api, CONFIG_MAPS, admin, config_map};

async fn metrics(api: &Api) -> String {
    api.get("/metrics").await.text()
}

fn has_line(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "expected {line} in\n{text}");
}

#[tokio::test]
async fn requests_are_counted_by_verb_resource_and_code() {
    let api = Api::start().await;
    api.get(&format!("{CONFIG_MAPS}/none")).await;
    api.call(Method::POST, &format!("{CONFIG_MAPS}?dryRun=All"), "application/json", config_map("a").to_string()).await;
    let text = metrics(&api).await;
    let labels = |verb: &str, code: &str, dry_run: &str, scope: &str| {
        format!(
            "apiserver_request_total{{component=\"apiserver\",code=\"{code}\",group=\"\",dry_run=\"{dry_run}\",\
             resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\"}} 1"
        )
    };
    has_line(&text, &labels("GET", "404", "", "resource"));
    has_line(&text, &labels("POST", "201", "All", "namespace"));
    has_line(&text, "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0");
    assert!(text.contains("apiserver_request_duration_seconds_bucket{"), "{text}");
    assert!(text.contains(",le=\"0.005\"}") && text.contains("apiserver_request_sli_duration_seconds_count{"));
}

#[tokio::test]
async fn watchers_and_what_they_are_told_are_counted() {
    let api = Api::start().await;
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1")).await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(lines.said().await, "ADDED a");
    let text = metrics(&api).await;
    let of_kind = "{group=\"\",resource=\"configmaps\",version=\"v1\"}";
    has_line(&text, &format!("apiserver_registered_watchers{of_kind} 1"));
    has_line(&text, &format!("apiserver_watch_events_total{of_kind} 1"));
    has_line(&text, &format!("apiserver_watch_events_sizes_count{of_kind} 1"));
    let longrunning = "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",\
                       scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1";
    has_line(&text, longrunning);
    drop(lines);
    let text = metrics(&api).await;
    has_line(&text, &format!("apiserver_registered_watchers{of_kind} 0"));
    assert!(!text.contains("apiserver_request_sli_duration_seconds_count{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\""));
}

#[tokio::test]
async fn objects_are_counted_by_resource() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    let text = metrics(&api).await;
    has_line(&text, "apiserver_storage_objects{resource=\"configmaps\"} 1");
}

#[tokio::test]
async fn every_family_says_what_it_is_before_its_lines() {
    let api = Api::start().await;
    let hostile = "/api/v1/namespaces/default/configmaps/x%22%7D%0A?dryRun=%22%7D";
    api.call_as(admin(), Method::GET, hostile, &[], json!({}).to_string()).await;
    let text = metrics(&api).await;
    for family in [
        "apiserver_request_total",
        "apiserver_request_duration_seconds",
        "apiserver_storage_objects",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "kubernetes_build_info",
    ] {
        let help = text.find(&format!("# HELP {family} ")).unwrap_or_else(|| panic!("{family} has a HELP line"));
        let kind = text.find(&format!("# TYPE {family} ")).unwrap_or_else(|| panic!("{family} has a TYPE line"));
        let first = text.find(&format!("\n{family}")).unwrap_or_else(|| panic!("{family} has lines"));
        assert!(help < kind && kind < first, "{family}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').expect("a line has a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}
