//! Ingress: which service answers for a host and path of HTTP.
//!
//! Rules
//!   I1 something   a default backend or rules; the class is named by the field or by the old annotation, not by both
//!   I2 hosts       DNS names, the first part may be `*`; never addresses
//!   I3 paths       absolute, and without a second way to say the same, unless the class decides what they mean
//!   I4 backends    a service with one port, by name or number, or another resource
//!   I5 status      addresses and names of whatever balances
//! Source: API reference, networking.k8s.io/v1 Ingress.
//! Not here    the class of an Ingress that names none (admission)

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{self, named, optional_name, required_name};
use super::super::tree::{Tree, carry_over, remove};
use super::super::{age, age_column, column, name_column, row};
use super::{validate_host, validate_reference};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules, Subresource};

/// Named the class before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Hosts that the printed row names.
const HOSTS_SHOWN_MAX: usize = 3;

/// The row of Ingress.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Class", "string", "who carries it out"),
        column("Hosts", "string", "the hosts it answers for"),
        column("Address", "string", "where it is reached"),
        column("Ports", "string", "80, and 443 where TLS is set up"),
        age_column(),
    ];
    row(&kinds::INGRESS, columns, Ingress)
        .short_names(&["ing"])
        .subresources(&[Subresource::Status])
        .counts_generations()
}

struct Ingress;

impl Rules for Ingress {
    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        let class = object["metadata"]["annotations"].text(CLASS_ANNOTATION);
        if !class.is_empty() && spec.is_set("ingressClassName") {
            let path = Path::new("metadata").child("annotations").child(CLASS_ANNOTATION);
            errors.invalid(&path, class, "can not be set when the class field is also set");
        }
        if spec.items("rules").is_empty() && !spec.is_set("defaultBackend") {
            errors.invalid(&at, spec["rules"].clone(), "either `defaultBackend` or `rules` must be specified");
        }
        if spec.is_set("defaultBackend") {
            validate_backend(&spec["defaultBackend"], &at.child("defaultBackend"), errors);
        }
        for (index, rule) in spec.items("rules").iter().enumerate() {
            validate_rule(rule, &at.child("rules").index(index), errors);
        }
        for (index, tls) in spec.items("tls").iter().enumerate() {
            let path = at.child("tls").index(index);
            for (index, host) in tls.items("hosts").iter().enumerate() {
                validate_host(host.as_str().unwrap_or_default(), &path.child("hosts").index(index), errors);
            }
            optional_name(tls, "secretName", name::subdomain, &path, errors);
        }
        optional_name(spec, "ingressClassName", name::subdomain, &at, errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let at = Path::new("status").child("loadBalancer").child("ingress");
        for (index, point) in object["status"]["loadBalancer"].items("ingress").iter().enumerate() {
            validate_point(point, &at.index(index), errors);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let class = spec.get("ingressClassName").and_then(Value::as_str).unwrap_or("<none>");
        vec![
            json!(object["metadata"].text("name")),
            json!(class),
            json!(hosts(spec.items("rules"))),
            json!(addresses(&object["status"]["loadBalancer"])),
            json!(if spec.items("tls").is_empty() { "80" } else { "80, 443" }),
            age::of(object, now),
        ]
    }
}

/// I2 and I3.
fn validate_rule(rule: &Value, at: &Path, errors: &mut Errors) {
    let (host, path) = (rule.text("host"), at.child("host"));
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(&path, host, "must be a DNS name, not an IP address");
    } else if !host.is_empty() {
        validate_host(host, &path, errors);
    }
    if !rule.is_set("http") {
        return;
    }
    let (paths, at) = (rule["http"].items("paths"), at.child("http").child("paths"));
    if paths.is_empty() {
        errors.required(&at, "");
    }
    for (index, path) in paths.iter().enumerate() {
        let at = at.index(index);
        validate_path(path, &at, errors);
        validate_backend(&path["backend"], &at.child("backend"), errors);
    }
}

/// I3.
fn validate_path(path: &Value, at: &Path, errors: &mut Errors) {
    let (text, path_at) = (path.text("path"), at.child("path"));
    match path.text("pathType") {
        "" => errors.required(&at.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.invalid(&path_at, text, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(part) {
                    errors.invalid(&path_at, text, &format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if text.ends_with(end) {
                    errors.invalid(&path_at, text, &format!("cannot end with '{end}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(&path_at, text, "must be an absolute path");
            }
        }
        other => {
            errors.not_supported(&at.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]);
        }
    }
}

/// I4.
fn validate_backend(backend: &Value, at: &Path, errors: &mut Errors) {
    match (backend.is_set("resource"), backend.is_set("service")) {
        (true, true) => errors.invalid(at, "", "cannot set both resource and service backends"),
        (true, false) => validate_reference(&backend["resource"], &at.child("resource"), errors),
        (false, true) => {
            let (service, path) = (&backend["service"], at.child("service"));
            required_name(service, "name", name::label, &path, errors);
            let (port, path) = (&service["port"], path.child("port"));
            match (port.text("name"), port.int("number").unwrap_or(0)) {
                ("", 0) => errors.required(at, "port name or number is required"),
                (name, 0) => named(name::port_name, name, &path.child("name"), errors),
                ("", _) => check::within(port, "number", check::PORTS, &path, errors),
                _ => errors.invalid(at, "", "cannot set both port name & port number"),
            }
        }
        (false, false) => errors.invalid(at, "", "resource or service backend is required"),
    }
}

/// I5.
fn validate_point(point: &Value, at: &Path, errors: &mut Errors) {
    let (address, host) = (point.text("ip"), point.text("hostname"));
    if !address.is_empty() {
        check::address(address, &at.child("ip"), errors);
    }
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(&at.child("hostname"), host, "must be a DNS name, not an IP address");
    } else if !host.is_empty() {
        named(name::subdomain, host, &at.child("hostname"), errors);
    }
}

fn hosts(rules: &[Value]) -> String {
    let named: Vec<&str> = rules.iter().map(|rule| rule.text("host")).filter(|host| !host.is_empty()).collect();
    match named.len() {
        0 => "*".to_owned(),
        found if found > HOSTS_SHOWN_MAX => {
            format!("{} + {} more...", named[..HOSTS_SHOWN_MAX].join(","), rules.len() - HOSTS_SHOWN_MAX)
        }
        _ => named.join(","),
    }
}

fn addresses(balancer: &Value) -> String {
    let points = balancer.items("ingress").iter().map(|point| match point.text("ip") {
        "" => point.text("hostname"),
        address => address,
    });
    points.filter(|address| !address.is_empty()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::Ingress;
    use crate::resources::fixture::{cells, check, check_status};
    use serde_json::{Value, json};

    fn of(spec: Value) -> Value {
        json!({"metadata": {"name": "web"}, "spec": spec})
    }

    fn with_path(path: Value) -> Value {
        let mut path = path;
        path["backend"] = json!({"service": {"name": "s", "port": {"number": 80}}});
        of(json!({"rules": [{"http": {"paths": [path]}}]}))
    }

    #[test]
    fn i1_it_leads_somewhere_by_one_class() {
        check(&Ingress, with_path(json!({"path": "/", "pathType": "Prefix"})), &[]);
        check(&Ingress, of(json!({})), &["spec: Invalid value: null: either `defaultBackend` or `rules`"]);
        let mut both = with_path(json!({"path": "/", "pathType": "Prefix"}));
        both["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "a"});
        both["spec"]["ingressClassName"] = json!("A");
        let annotation = "metadata.annotations.kubernetes.io/ingress.class: Invalid value: \"a\": can not be set";
        check(&Ingress, both, &[annotation, "spec.ingressClassName: Invalid value: \"A\""]);
    }

    #[test]
    fn i2_hosts_are_names() {
        let rule = |host: &str| of(json!({"rules": [{"host": host}]}));
        check(&Ingress, rule("*.example.com"), &[]);
        check(&Ingress, rule("10.0.0.1"), &["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name"]);
        check(&Ingress, rule("a.*.com"), &["spec.rules[0].host: Invalid value: \"a.*.com\": a wildcard DNS-1123"]);
        let tls = of(json!({"rules": [{}], "tls": [{"hosts": ["a_b"], "secretName": "S"}]}));
        check(
            &Ingress,
            tls,
            &["spec.tls[0].hosts[0]: Invalid value: \"a_b\"", "spec.tls[0].secretName: Invalid value: \"S\""],
        );
    }

    #[test]
    fn i3_a_path_is_said_in_one_way() {
        let at = "spec.rules[0].http.paths[0]";
        check(&Ingress, with_path(json!({"path": "x"})), &[&format!("{at}.pathType: Required value: pathType must")]);
        check(
            &Ingress,
            with_path(json!({"path": "a//b/..", "pathType": "Exact"})),
            &[
                &format!("{at}.path: Invalid value: \"a//b/..\": must be an absolute path"),
                &format!("{at}.path: Invalid value: \"a//b/..\": must not contain '//'"),
                &format!("{at}.path: Invalid value: \"a//b/..\": cannot end with '/..'"),
            ],
        );
        check(&Ingress, with_path(json!({"path": "/a//b", "pathType": "ImplementationSpecific"})), &[]);
        check(&Ingress, with_path(json!({"pathType": "Like"})), &[&format!("{at}.pathType: Unsupported value")]);
        check(&Ingress, of(json!({"rules": [{"http": {}}]})), &["spec.rules[0].http.paths: Required value"]);
    }

    #[test]
    fn i4_a_backend_is_one_thing() {
        let backend = |backend: Value| of(json!({ "defaultBackend": backend }));
        let at = "spec.defaultBackend";
        check(&Ingress, backend(json!({"resource": {"apiGroup": "a.b", "kind": "Bucket", "name": "x"}})), &[]);
        check(&Ingress, backend(json!({})), &[&format!("{at}: Invalid value: \"\": resource or service backend")]);
        let both = json!({"service": {"name": "s", "port": {"name": "a", "number": 1}}});
        check(&Ingress, backend(both), &[&format!("{at}: Invalid value: \"\": cannot set both port name")]);
        let none = json!({"service": {"name": ""}});
        check(
            &Ingress,
            backend(none),
            &[&format!("{at}.service.name: Required"), &format!("{at}: Required value: port")],
        );
    }

    #[test]
    fn i5_a_status_says_where_it_is_reached() {
        let point = json!({"status": {"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "10.0.0.1"}]}}});
        let at = "status.loadBalancer.ingress";
        let expected = [format!("{at}[0].ip: Invalid value"), format!("{at}[1].hostname: Invalid value")];
        check_status(&Ingress, &point, &json!({}), &expected.each_ref().map(String::as_str));
    }

    #[test]
    fn the_printed_row() {
        let mut ingress = of(json!({
            "ingressClassName": "fast", "tls": [{}], "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}],
        }));
        ingress["status"]["loadBalancer"] = json!({"ingress": [{"ip": "1.2.3.4"}, {"hostname": "lb"}]});
        let shown = cells(&Ingress, &ingress);
        let expected = ["web", "fast", "a,b,c + 1 more...", "1.2.3.4,lb", "80, 443", "<unknown>"];
        assert_eq!(shown, expected.map(Value::from));
    }
}
