//! The figures that autoscalers need, as Prometheus reads them.
//!
//! Source: Kubernetes documentation, "Node metrics data": kubelet's `/metrics/resource`.

use std::fmt::Write;

use super::sample::Sample;
use crate::machine::Usage;

/// A figure of what is used: its name, its kind, what it is, and where it is found.
type Figure = (&'static str, &'static str, &'static str, fn(&Usage) -> String);

const FIGURES: [Figure; 3] = [
    ("cpu_usage_seconds_total", "counter", "CPU time in seconds", |usage| seconds(usage.cpu_ns)),
    ("memory_working_set_bytes", "gauge", "working set in bytes", |usage| usage.working_set_bytes.to_string()),
    ("swap_usage_bytes", "gauge", "swap in bytes", |usage| usage.swap_bytes.to_string()),
];

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// All figures.
pub(super) fn of(sample: &Sample) -> String {
    let mut out = String::new();
    let at_ms = sample.at.as_millisecond();
    // Names hold neither quotes nor backslashes: the API has checked them.
    let place = |pod: &super::PodSample| format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name);
    for scope in ["node", "pod", "container"] {
        for (name, kind, what, pick) in FIGURES {
            head(&mut out, &format!("{scope}_{name}"), kind, &format!("{what} of the {scope}"));
            let mut line = |labels: &str, usage: &Usage| {
                line(&mut out, &format!("{scope}_{name}"), labels, &pick(usage), at_ms);
            };
            match scope {
                "node" => line("", &sample.machine.usage),
                "pod" => sample.pods.iter().for_each(|pod| line(&place(pod), &pod.usage)),
                _ => {
                    for pod in &sample.pods {
                        for container in &pod.containers {
                            let labels = format!("container=\"{}\",{}", container.name, place(pod));
                            line(&labels, &container.usage);
                        }
                    }
                }
            }
        }
    }
    let start = "container_start_time_seconds";
    head(&mut out, start, "gauge", "when the container began, in seconds since 1970");
    for pod in &sample.pods {
        for container in &pod.containers {
            let labels = format!("container=\"{}\",{}", container.name, place(pod));
            line(&mut out, start, &labels, &container.since.as_second().to_string(), at_ms);
        }
    }
    head(&mut out, "resource_scrape_error", "gauge", "1 when not everything could be read");
    writeln!(out, "resource_scrape_error {}", u8::from(sample.is_partial)).expect("a String takes everything");
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes everything");
}

fn line(out: &mut String, name: &str, labels: &str, value: &str, at_ms: i64) {
    let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    writeln!(out, "{name}{labels} {value} {at_ms}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn nanoseconds_are_told_in_seconds() {
        assert_eq!((seconds(1_500_000_001).as_str(), seconds(7).as_str()), ("1.500000001", "0.000000007"));
    }
}
