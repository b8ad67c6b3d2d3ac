//! Probes and lifecycle actions: how a container is asked how it is, and what it is told when it starts and stops.

use serde_json::Value;

use super::super::check::{self, not_negative, optional_word, required_text};
use super::super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;

const PROBE_ACTIONS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const LIFECYCLE_ACTIONS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// Checks the probes and the lifecycle of a container. `grace_seconds` is what the pod has to stop.
pub(super) fn validate(container: &Value, grace_seconds: i64, at: &Path, errors: &mut Errors) {
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container.is_set(kind) {
            validate_probe(kind, &container[kind], &at.child(kind), errors);
        }
    }
    let lifecycle = &container["lifecycle"];
    for moment in ["postStart", "preStop"] {
        if lifecycle.is_set(moment) {
            let path = at.child("lifecycle").child(moment);
            validate_action(&lifecycle[moment], &LIFECYCLE_ACTIONS, grace_seconds, &path, errors);
        }
    }
}

fn validate_probe(kind: &str, probe: &Value, path: &Path, errors: &mut Errors) {
    validate_action(probe, &PROBE_ACTIONS, 0, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(probe, field, path, errors);
    }
    let grace = probe.int("terminationGracePeriodSeconds");
    let grace_path = path.child("terminationGracePeriodSeconds");
    match grace {
        Some(seconds) if seconds <= 0 => errors.invalid(&grace_path, seconds, "must be greater than 0"),
        Some(seconds) if kind == "readinessProbe" => {
            errors.invalid(&grace_path, seconds, "must not be set for readinessProbes");
        }
        _ => {}
    }
    let successes = probe.int("successThreshold").unwrap_or(1);
    if kind != "readinessProbe" && successes != 1 {
        errors.invalid(&path.child("successThreshold"), successes, "must be 1");
    }
}

fn validate_action(action: &Value, allowed: &[&str], grace_seconds: i64, path: &Path, errors: &mut Errors) {
    let mut found = 0;
    for kind in allowed.iter().filter(|kind| action.is_set(kind)) {
        let (part, path) = (&action[*kind], path.child(kind));
        found += 1;
        if found > 1 {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if part.items("command").is_empty() => errors.required(&path.child("command"), ""),
            "exec" => {}
            "httpGet" => validate_http(part, &path, errors),
            "tcpSocket" => check::port(part, "port", &path, errors),
            "grpc" => match part.int("port") {
                Some(_) => check::within(part, "port", check::PORTS, &path, errors),
                None => errors.invalid(&path.child("port"), 0, "must be between 1 and 65535, inclusive"),
            },
            _ => validate_sleep(part, grace_seconds, &path, errors),
        }
    }
    if found == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn validate_http(http: &Value, path: &Path, errors: &mut Errors) {
    required_text(http, "path", path, errors);
    check::port(http, "port", path, errors);
    optional_word(http, "scheme", &["HTTP", "HTTPS"], path, errors);
    let headers = path.child("httpHeaders");
    for header in http.items("httpHeaders") {
        check::named(name::http_header, header.text("name"), &headers, errors);
        if header.text("value").contains(['\r', '\n', '\0']) {
            errors.invalid(&headers, header.text("value"), "a header's value must be one line");
        }
    }
}

fn validate_sleep(sleep: &Value, grace_seconds: i64, path: &Path, errors: &mut Errors) {
    let seconds = sleep.int("seconds").unwrap_or(0);
    if seconds < 0 || seconds > grace_seconds {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})");
        errors.invalid(path, seconds, &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::validate;
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn check(container: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate(&container, 30, &Path::new("c"), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{container}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    #[test]
    fn a_probe_asks_in_one_way() {
        check(json!({"livenessProbe": {"tcpSocket": {"port": "http"}}}), &[]);
        check(
            json!({"readinessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "successThreshold": 2}}),
            &[],
        );
        check(json!({"livenessProbe": {}}), &["c.livenessProbe: Required value: must specify a handler type"]);
        check(
            json!({"livenessProbe": {"exec": {"command": ["a"]}, "grpc": {"port": 1}}}),
            &["c.livenessProbe.grpc: Forbidden: may not specify more than 1 handler type"],
        );
        check(
            json!({"startupProbe": {"httpGet": {"port": 0, "scheme": "FTP", "httpHeaders": [{"name": "A:B"}]},
                "successThreshold": 2, "periodSeconds": -1, "terminationGracePeriodSeconds": 0}}),
            &[
                "c.startupProbe.httpGet.path: Required value",
                "c.startupProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "c.startupProbe.httpGet.scheme: Unsupported value: \"FTP\"",
                "c.startupProbe.httpGet.httpHeaders: Invalid value: \"A:B\"",
                "c.startupProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "c.startupProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
                "c.startupProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        );
    }

    #[test]
    fn a_sleep_ends_before_the_pod_does() {
        check(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}), &[]);
        check(
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}, "postStart": {"grpc": {"port": 1}}}}),
            &[
                "c.lifecycle.postStart: Required value: must specify a handler type",
                "c.lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than",
            ],
        );
    }
}
