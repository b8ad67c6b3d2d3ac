//! The counts in Prometheus' text form (version 0.0.4): a family at a time, HELP and TYPE first.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use super::process::{Process, process};
use super::{Counts, DURATION_BUCKETS, Durations, Labels, SCOPES, SIZE_BUCKETS, SLI_BUCKETS_SKIPPED, Told, Watched};
use crate::health;
use crate::server::Server;

type Pairs<'a> = Vec<(&'static str, &'a str)>;

/// All metrics.
pub(crate) fn text(server: &Server) -> String {
    let mut out = Out(String::with_capacity(64 * 1024));
    {
        let counts = server.metrics.counts();
        write_requests(&mut out, &counts);
        write_watches(&mut out, &counts);
        out.family("apiserver_panics_total", "counter", "Requests that ended in a panic.");
        out.line("apiserver_panics_total", &[], counts.panics);
    }
    out.family(
        "apiserver_current_inflight_requests",
        "gauge",
        "Requests worked on now that are neither watch nor stream.",
    );
    for (lane, kind) in ["readOnly", "mutating"].into_iter().enumerate() {
        let now = server.metrics.inflight[lane].load(Ordering::Relaxed);
        out.line("apiserver_current_inflight_requests", &[("request_kind", kind)], now);
    }
    if let Some(audit) = &server.config.audit {
        let (written, lost) = audit.counts();
        out.family("apiserver_audit_event_total", "counter", "Audit events written.");
        out.line("apiserver_audit_event_total", &[], written);
        out.family("apiserver_audit_error_total", "counter", "Audit events lost.");
        out.line("apiserver_audit_error_total", &[("plugin", "log")], lost);
    }
    write_store(&mut out, server);
    write_build(&mut out);
    if let Some(process) = process() {
        write_process(&mut out, &process);
    }
    out.0
}

fn write_requests(out: &mut Out, counts: &Counts) {
    out.family("apiserver_request_total", "counter", "Requests answered.");
    for ((labels, code), count) in &counts.requests {
        let code = code.to_string();
        let mut pairs = pairs(labels);
        pairs.insert(1, ("code", &code));
        pairs.insert(3, ("dry_run", labels.dry_run));
        out.line("apiserver_request_total", &pairs, count);
    }
    let name = "apiserver_request_duration_seconds";
    out.family(name, "histogram", "Seconds until the answer began.");
    for (labels, durations) in &counts.durations {
        let mut pairs = pairs(labels);
        pairs.insert(2, ("dry_run", labels.dry_run));
        out.durations(name, &pairs, durations, 0);
    }
    let name = "apiserver_request_sli_duration_seconds";
    out.family(name, "histogram", "Seconds until the answer began, of requests whose length the server sets.");
    for (labels, durations) in counts.durations.iter().filter(|(labels, _)| !labels.is_long_running()) {
        out.durations(name, &pairs(labels), durations, SLI_BUCKETS_SKIPPED);
    }
}

fn pairs(labels: &Labels) -> Pairs<'_> {
    vec![
        ("component", labels.component),
        ("group", &labels.group),
        ("resource", &labels.resource),
        ("scope", labels.scope),
        ("subresource", labels.subresource),
        ("verb", labels.verb),
        ("version", &labels.version),
    ]
}

fn write_watches(out: &mut Out, counts: &Counts) {
    let all: Vec<(&Watched, &Told)> = counts.watches.iter().map(|(watched, told)| (watched, told.as_ref())).collect();
    let pairs = |watched: &'_ Watched| -> [(&'static str, String); 3] {
        [
            ("group", watched.group.to_string()),
            ("resource", watched.resource.to_string()),
            ("version", watched.version.to_string()),
        ]
    };
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    out.family("apiserver_longrunning_requests", "gauge", "Watches served now.");
    for (watched, told) in &all {
        for (scope, now) in SCOPES.iter().zip(&told.watchers) {
            let now = now.load(Ordering::Relaxed);
            if now > 0 {
                let of_kind = pairs(watched);
                let mut labels =
                    vec![("component", "apiserver"), ("scope", *scope), ("subresource", ""), ("verb", "WATCH")];
                labels.extend(of_kind.iter().map(|(name, value)| (*name, value.as_str())));
                labels.sort_unstable();
                out.line("apiserver_longrunning_requests", &labels, now);
            }
        }
    }
    let each = |out: &mut Out, name: &str, value: &dyn Fn(&Told) -> u64| {
        for (watched, told) in &all {
            let of_kind = pairs(watched);
            let labels: Pairs = of_kind.iter().map(|(name, value)| (*name, value.as_str())).collect();
            out.line(name, &labels, value(told));
        }
    };
    out.family("apiserver_registered_watchers", "gauge", "Watchers now.");
    each(out, "apiserver_registered_watchers", &|told| {
        told.watchers.iter().map(|now| now.load(Ordering::Relaxed) as u64).sum()
    });
    out.family("apiserver_watch_events_total", "counter", "Events told to watchers.");
    each(out, "apiserver_watch_events_total", &|told| load(&told.events));
    out.family("apiserver_watch_events_sizes", "histogram", "Bytes of events told to watchers.");
    for (watched, told) in &all {
        let of_kind = pairs(watched);
        let labels: Pairs = of_kind.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let buckets = SIZE_BUCKETS.iter().zip(&told.buckets).map(|(bound, count)| (bound.to_string(), load(count)));
        out.histogram("apiserver_watch_events_sizes", &labels, buckets, (load(&told.events), &load(&told.bytes)));
    }
}

fn write_store(out: &mut Out, server: &Server) {
    out.family("apiserver_storage_objects", "gauge", "Objects in the store, by kind.");
    for (resource, count) in server.store.count_by_segment("o/") {
        out.line("apiserver_storage_objects", &[("resource", &resource)], count);
    }
    let stats = server.store.stats();
    out.family("apiserver_storage_size_bytes", "gauge", "Bytes of keys and values in the store.");
    out.line("apiserver_storage_size_bytes", &[("storage_cluster_id", server.store.cluster())], stats.bytes);
    out.family("windlass_store_revision", "gauge", "The newest revision.");
    out.line("windlass_store_revision", &[], stats.revision);
    let (users, system, _) = server.lanes.counts();
    out.family("windlass_lane_requests", "gauge", "Requests worked on now, by lane.");
    out.line("windlass_lane_requests", &[("lane", "users")], users);
    out.line("windlass_lane_requests", &[("lane", "system")], system);
}

fn write_build(out: &mut Out) {
    let version = health::version();
    let text = |field: &str| version[field].as_str().unwrap_or_default();
    out.family("kubernetes_build_info", "gauge", "1, with what this program was built from.");
    let labels = [
        ("build_date", text("buildDate")),
        ("compiler", text("compiler")),
        ("git_commit", text("gitCommit")),
        ("git_tree_state", text("gitTreeState")),
        ("git_version", text("gitVersion")),
        ("go_version", text("goVersion")),
        ("major", text("major")),
        ("minor", text("minor")),
        ("platform", text("platform")),
    ];
    out.line("kubernetes_build_info", &labels, 1);
}

fn write_process(out: &mut Out, process: &Process) {
    let mut one = |name: &str, kind: &str, help: &str, value: &dyn Display| {
        out.family(name, kind, help);
        out.line(name, &[], value);
    };
    one("process_cpu_seconds_total", "counter", "Seconds of CPU used.", &process.cpu_seconds);
    one("process_open_fds", "gauge", "Open file descriptors.", &process.open_fds);
    one("process_max_fds", "gauge", "Most file descriptors that may be open.", &process.fds_max);
    one("process_resident_memory_bytes", "gauge", "Resident memory in bytes.", &process.resident_bytes);
    one("process_virtual_memory_bytes", "gauge", "Virtual memory in bytes.", &process.virtual_bytes);
    one("process_start_time_seconds", "gauge", "When the process began, seconds after 1970.", &process.started_seconds);
}

struct Out(String);

impl Out {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("writing to a String does not fail");
    }

    /// Label values come from kinds and code, never from requests, so nothing needs escaping.
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (key, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            write!(self.0, "{before}{key}=\"{value}\"").expect("writing to a String does not fail");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").expect("writing to a String does not fail");
    }

    fn durations(&mut self, name: &str, labels: &[(&'static str, &str)], durations: &Durations, skipped: usize) {
        let all = DURATION_BUCKETS.iter().zip(durations.buckets).map(|(bound, count)| (bound.to_string(), count));
        let mut buckets: Vec<(String, u64)> = all.collect();
        let below: u64 = buckets.drain(..skipped).map(|(_, count)| count).sum();
        buckets[0].1 += below;
        self.histogram(name, labels, buckets, (durations.count, &durations.sum_seconds));
    }

    /// `buckets` count what is in each alone; the form adds up.
    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&'static str, &str)],
        buckets: impl IntoIterator<Item = (String, u64)>,
        (count, sum): (u64, &dyn Display),
    ) {
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, in_bucket) in buckets {
            below += in_bucket;
            self.line(&bucket, &with_bound(labels, &bound), below);
        }
        self.line(&bucket, &with_bound(labels, "+Inf"), count);
        self.line(&format!("{name}_sum"), labels, sum);
        self.line(&format!("{name}_count"), labels, count);
    }
}

fn with_bound<'a>(labels: &[(&'static str, &'a str)], bound: &'a str) -> Pairs<'a> {
    labels.iter().copied().chain([("le", bound)]).collect()
}

#[cfg(test)]
mod tests {
    use super::Out;

    #[test]
    fn a_histogram_adds_up_and_ends_with_everything() {
        let mut out = Out(String::new());
        let buckets = [("1".to_owned(), 2), ("2".to_owned(), 3)];
        out.histogram("x", &[("a", "b")], buckets, (6, &9.5));
        assert_eq!(
            out.0,
            "x_bucket{a=\"b\",le=\"1\"} 2\nx_bucket{a=\"b\",le=\"2\"} 5\nx_bucket{a=\"b\",le=\"+Inf\"} 6\n\
             x_sum{a=\"b\"} 9.5\nx_count{a=\"b\"} 6\n"
        );
    }

    #[test]
    fn a_line_without_labels_has_no_braces() {
        let mut out = Out(String::new());
        out.family("x", "gauge", "What x is.");
        out.line("x", &[], 1);
        assert_eq!(out.0, "# HELP x What x is.\n# TYPE x gauge\nx 1\n");
    }
}
