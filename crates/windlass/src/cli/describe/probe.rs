//! Probes, on one line: how it asks, and how often.

use serde_json::Value;

use super::sheet::{items, number, plain, text};

/// `http-get http://:8080/ delay=0s timeout=1s period=10s successThreshold=1 failureThreshold=3`.
pub(super) fn probe(probe: &Value) -> String {
    let seconds = |key: &str| number(probe, key);
    format!(
        "{} delay={}s timeout={}s period={}s successThreshold={} failureThreshold={}",
        how(probe),
        seconds("initialDelaySeconds"),
        seconds("timeoutSeconds"),
        seconds("periodSeconds"),
        seconds("successThreshold"),
        seconds("failureThreshold")
    )
}

fn how(probe: &Value) -> String {
    if let Some(exec) = probe.get("exec") {
        let command: Vec<&str> = items(exec, "command").iter().filter_map(Value::as_str).collect();
        return format!("exec [{}]", command.join(" "));
    }
    if let Some(http) = probe.get("httpGet") {
        let scheme = text(http, "scheme").to_lowercase();
        return format!("http-get {scheme}://{}:{}{}", text(http, "host"), plain(&http["port"]), text(http, "path"));
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        return format!("tcp-socket {}:{}", text(tcp, "host"), plain(&tcp["port"]));
    }
    if let Some(grpc) = probe.get("grpc") {
        return format!("grpc <pod>:{} {}", plain(&grpc["port"]), text(grpc, "service"));
    }
    "unknown".to_owned()
}
