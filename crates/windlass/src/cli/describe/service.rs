//! Service: its addresses and ports, and who answers behind them.

use anyhow::Result;
use serde_json::Value;
use windlass_api::kinds;

use super::sheet::{Sheet, items, number, pairs, plain, text};
use crate::cli::session::Session;

/// Endpoints shown of a port.
const ENDPOINTS_SHOWN_MAX: usize = 3;

pub(super) async fn describe(sheet: &mut Sheet, session: &Session, object: &Value) -> Result<bool> {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let labels = format!("kubernetes.io/service-name={}", text(metadata, "name"));
    let slices =
        session.list(&kinds::ENDPOINT_SLICE, metadata["namespace"].as_str(), &[("labelSelector", &labels)]).await?;
    sheet.identity(object);
    let selector: Vec<String> = pairs(&spec["selector"]).map(|(key, value)| format!("{key}={value}")).collect();
    sheet.field_or_none(0, "Selector", &selector.join(","));
    sheet.field(0, "Type", text(spec, "type"));
    optional(sheet, spec, "IP Family Policy", "ipFamilyPolicy");
    list(sheet, spec, "IP Families", "ipFamilies");
    sheet.field(0, "IP", text(spec, "clusterIP"));
    sheet.field_or_none(0, "IPs", &joined(spec, "clusterIPs"));
    list(sheet, spec, "External IPs", "externalIPs");
    optional(sheet, spec, "Desired LoadBalancer IP", "loadBalancerIP");
    optional(sheet, spec, "External Name", "externalName");
    let ingress = items(&object["status"]["loadBalancer"], "ingress").iter();
    let ingress: Vec<&str> = ingress.map(|at| at["ip"].as_str().unwrap_or_else(|| text(at, "hostname"))).collect();
    if !ingress.is_empty() {
        sheet.field(0, "LoadBalancer Ingress", ingress.join(", "));
    }
    for port in items(spec, "ports") {
        describe_port(sheet, port, &slices);
    }
    sheet.field(0, "Session Affinity", text(spec, "sessionAffinity"));
    optional(sheet, spec, "External Traffic Policy", "externalTrafficPolicy");
    optional(sheet, spec, "Internal Traffic Policy", "internalTrafficPolicy");
    if number(spec, "healthCheckNodePort") != 0 {
        sheet.field(0, "HealthCheck NodePort", number(spec, "healthCheckNodePort"));
    }
    list(sheet, spec, "LoadBalancer Source Ranges", "loadBalancerSourceRanges");
    Ok(true)
}

fn optional(sheet: &mut Sheet, spec: &Value, title: &str, key: &str) {
    if !text(spec, key).is_empty() {
        sheet.field(0, title, text(spec, key));
    }
}

fn list(sheet: &mut Sheet, spec: &Value, title: &str, key: &str) {
    if !items(spec, key).is_empty() {
        sheet.field(0, title, joined(spec, key));
    }
}

fn joined(spec: &Value, key: &str) -> String {
    items(spec, key).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn describe_port(sheet: &mut Sheet, port: &Value, slices: &[Value]) {
    let name = match text(port, "name") {
        "" => "<unset>",
        name => name,
    };
    let protocol = text(port, "protocol");
    sheet.field(0, "Port", format_args!("{name}\t{}/{protocol}", number(port, "port")));
    sheet.field(0, "TargetPort", format_args!("{}/{protocol}", plain(&port["targetPort"])));
    if number(port, "nodePort") != 0 {
        sheet.field(0, "NodePort", format_args!("{name}\t{}/{protocol}", number(port, "nodePort")));
    }
    sheet.field(0, "Endpoints", endpoints(slices, text(port, "name")));
}

/// `10.42.0.2:80,10.42.0.3:80 + 1 more...`: those that are ready.
fn endpoints(slices: &[Value], port_name: &str) -> String {
    if slices.is_empty() {
        return super::sheet::NONE.to_owned();
    }
    let mut found = Vec::new();
    for slice in slices {
        for port in items(slice, "ports").iter().filter(|port| text(port, "name") == port_name) {
            for endpoint in items(slice, "endpoints").iter().filter(|endpoint| endpoint["conditions"]["ready"] != false)
            {
                let addresses = items(endpoint, "addresses").iter().filter_map(Value::as_str);
                found.extend(addresses.map(|address| match address.contains(':') {
                    true => format!("[{address}]:{}", number(port, "port")),
                    false => format!("{address}:{}", number(port, "port")),
                }));
            }
        }
    }
    let more = found.len().saturating_sub(ENDPOINTS_SHOWN_MAX);
    found.truncate(ENDPOINTS_SHOWN_MAX);
    let shown = found.join(",");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::endpoints;
    use serde_json::json;

    #[test]
    fn only_ready_endpoints_of_the_port_are_shown() {
        let slice = json!({"ports": [{"name": "a", "port": 80}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.3"]}, {"addresses": ["fd00::1"]}, {"addresses": ["10.0.0.5"]}]});
        assert_eq!(endpoints(std::slice::from_ref(&slice), "a"), "10.0.0.1:80,10.0.0.3:80,[fd00::1]:80 + 1 more...");
        assert_eq!(endpoints(&[slice], "b"), "");
        assert_eq!(endpoints(&[], "a"), "<none>");
    }
}
