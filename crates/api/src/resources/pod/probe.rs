//! Probes and lifecycle actions: how a container is asked how it is, and what it is told when it starts and stops.

use serde_json::Value;

use super::super::check::{self, not_negative, optional_word, required_text};
use super::super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;

const PROBE_ACTIONS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const LIFECYCLE_ACTIONS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// Signals that a container of Linux may be stopped with, in the order in which they are named to whoever chose another.
const STOP_SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];
const STOP_SIGNALS_WINDOWS: [&str; 2] = ["SIGKILL", "SIGTERM"];

/// Checks the probes and the lifecycle of a container of this pod spec.
pub(super) fn validate(container: &Value, spec: &Value, at: &Path, errors: &mut Errors) {
    let grace_seconds = spec.int("terminationGracePeriodSeconds");
    let (lifecycle, path) = (&container["lifecycle"], at.child("lifecycle"));
    for moment in ["postStart", "preStop"] {
        if lifecycle.is_set(moment) {
            validate_action(&lifecycle[moment], &LIFECYCLE_ACTIONS, grace_seconds, &path.child(moment), errors);
        }
    }
    if lifecycle.is_set("stopSignal") {
        validate_stop_signal(lifecycle.text("stopSignal"), spec, &path.child("stopSignal"), errors);
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container.is_set(kind) {
            validate_probe(kind, &container[kind], &at.child(kind), errors);
        }
    }
}

fn validate_stop_signal(signal: &str, spec: &Value, path: &Path, errors: &mut Errors) {
    let known: &[&str] = match spec["os"].text("name") {
        _ if !spec.is_set("os") => {
            errors.forbidden(path, "may not be set for containers with empty `spec.os.name`");
            return;
        }
        "linux" => &STOP_SIGNALS,
        "windows" => &STOP_SIGNALS_WINDOWS,
        _ => return,
    };
    if !known.contains(&signal) {
        errors.not_supported(path, signal, known);
    }
}

fn validate_probe(kind: &str, probe: &Value, path: &Path, errors: &mut Errors) {
    validate_action(probe, &PROBE_ACTIONS, None, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(probe, field, path, errors);
    }
    if let Some(seconds) = probe.int("terminationGracePeriodSeconds") {
        let path = path.child("terminationGracePeriodSeconds");
        if seconds <= 0 {
            errors.invalid(&path, seconds, "must be greater than 0");
        }
        if kind == "readinessProbe" {
            errors.invalid(&path, seconds, "must not be set for readinessProbes");
        }
    }
    let successes = probe.int("successThreshold").unwrap_or(1);
    if kind != "readinessProbe" && successes != 1 {
        errors.invalid(&path.child("successThreshold"), successes, "must be 1");
    }
}

fn validate_action(action: &Value, allowed: &[&str], grace_seconds: Option<i64>, path: &Path, errors: &mut Errors) {
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

/// Kubernetes says less than, and lets a sleep last as long as the pod has.
fn validate_sleep(sleep: &Value, grace_seconds: Option<i64>, path: &Path, errors: &mut Errors) {
    let Some(grace_seconds) = grace_seconds else { return };
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
        let spec = json!({"terminationGracePeriodSeconds": 30});
        validate(&container, &spec, &Path::new("c"), &mut errors);
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

    #[test]
    fn a_probe_has_a_grace_of_its_own_unless_it_only_asks_for_readiness() {
        let exec = json!({"command": ["a"]});
        check(json!({"livenessProbe": {"exec": exec, "terminationGracePeriodSeconds": 1}}), &[]);
        check(
            json!({"readinessProbe": {"exec": exec, "terminationGracePeriodSeconds": 0}}),
            &[
                "c.readinessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
                "c.readinessProbe.terminationGracePeriodSeconds: Invalid value: 0: must not be set for readinessProbes",
            ],
        );
        check(
            json!({"startupProbe": {"grpc": {"port": 65_536}}}),
            &["c.startupProbe.grpc.port: Invalid value: 65536: must be between 1 and 65535, inclusive"],
        );
    }

    #[test]
    fn a_stop_signal_is_one_of_the_systems() {
        let check = |os: Value, signal: &str, expected: &[&str]| {
            let mut errors = Errors::new();
            let container = json!({"lifecycle": {"stopSignal": signal}});
            validate(&container, &json!({"os": os}), &Path::new("c"), &mut errors);
            crate::resources::fixture::compare(&errors, expected);
        };
        check(json!({"name": "linux"}), "SIGRTMIN+3", &[]);
        check(json!({"name": "windows"}), "SIGTERM", &[]);
        check(
            json!({"name": "windows"}),
            "SIGUSR1",
            &["c.lifecycle.stopSignal: Unsupported value: \"SIGUSR1\": supported values: \"SIGKILL\", \"SIGTERM\""],
        );
        check(
            json!({"name": "linux"}),
            "TERM",
            &["c.lifecycle.stopSignal: Unsupported value: \"TERM\": supported values: \"SIGABRT\", \"SIGALRM\""],
        );
        check(
            json!(null),
            "SIGTERM",
            &["c.lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"],
        );
    }
}
