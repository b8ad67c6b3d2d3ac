//! `/metrics`: what the server counts, under Kubernetes' names, so that existing dashboards and alerts read it.
//!
//! Source: Kubernetes metrics reference (apiserver_request_*, apiserver_watch_events_*, apiserver_current_inflight_requests).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

use windlass_api::Kind;

use crate::request::{Route, Target};
use crate::server::Server;

/// Upper bounds of the duration histogram in seconds.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
/// Series kept: labels come from a closed set of kinds, verbs and codes, so this is never reached honestly.
const SERIES_MAX: usize = 10_000;

/// What a request is counted under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Labels {
    verb: &'static str,
    group: Cow<'static, str>,
    version: Cow<'static, str>,
    resource: Cow<'static, str>,
    subresource: &'static str,
    scope: &'static str,
}

#[derive(Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum_seconds: f64,
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(Labels, u16), u64>,
    durations: BTreeMap<Labels, Durations>,
    watch_events: BTreeMap<(Cow<'static, str>, Cow<'static, str>), (u64, u64)>,
    panics: u64,
}

/// The counts of a server.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<Counts>);

impl Labels {
    /// The labels of what a path led to; `None` is a path that leads nowhere.
    pub fn of(route: Option<&Route>) -> Labels {
        let mut labels = Labels {
            verb: "GET",
            group: Cow::Borrowed(""),
            version: Cow::Borrowed(""),
            resource: Cow::Borrowed(""),
            subresource: "",
            scope: "",
        };
        match route {
            Some(Route::Target(target)) => labels.set_target(target),
            Some(Route::Endpoint(_)) => {}
            None => labels.verb = "other",
        }
        labels
    }

    fn set_target(&mut self, target: &Target) {
        use crate::request::Verb::{Create, Delete, DeleteCollection, Get, List, Patch, Update, Watch};
        let kind = &target.resource.kind;
        self.verb = match target.verb {
            Get => "GET",
            List => "LIST",
            Watch => "WATCH",
            Create => "POST",
            Update => "PUT",
            Patch => "PATCH",
            Delete => "DELETE",
            DeleteCollection => "DELETECOLLECTION",
        };
        self.group = kind.group.clone();
        self.version = kind.version.clone();
        self.resource = kind.plural.clone();
        self.subresource = target.sub.map_or("", |sub| sub.as_str());
        self.scope = match (target.name.is_empty(), target.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
    }
}

impl Metrics {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().expect("nothing panics while holding the counts")
    }

    /// A request was answered with `code` after `took`.
    pub fn request(&self, labels: Labels, code: u16, took: Duration) {
        let mut counts = self.counts();
        if counts.requests.len() >= SERIES_MAX {
            return;
        }
        *counts.requests.entry((labels.clone(), code)).or_default() += 1;
        let seconds = took.as_secs_f64();
        let durations = counts.durations.entry(labels).or_default();
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            durations.buckets[bucket] += 1;
        }
        durations.count += 1;
        durations.sum_seconds += seconds;
    }

    /// A watcher was told of so many events at once.
    pub fn watch_events(&self, kind: &Kind, told: u64, bytes: usize) {
        let mut counts = self.counts();
        let (events, sum_bytes) = counts.watch_events.entry((kind.group.clone(), kind.kind.clone())).or_default();
        *events += told;
        *sum_bytes += bytes as u64;
    }

    /// A request ended in a panic.
    pub fn panic(&self) {
        self.counts().panics += 1;
    }
}

/// All metrics in the text form.
pub(crate) fn text(server: &Server) -> String {
    let mut out = String::with_capacity(16 * 1024);
    write_requests(&mut out, &server.metrics.counts());
    let (users, system, watches) = server.lanes.counts();
    head(&mut out, "apiserver_current_inflight_requests", "gauge", "Requests worked on now, by lane.");
    line(&mut out, "apiserver_current_inflight_requests", &[("request_kind", "users")], users);
    line(&mut out, "apiserver_current_inflight_requests", &[("request_kind", "system")], system);
    head(&mut out, "apiserver_longrunning_requests", "gauge", "Watches and streams served now.");
    line(&mut out, "apiserver_longrunning_requests", &[("verb", "WATCH")], watches);
    let stats = server.store.stats();
    head(&mut out, "apiserver_storage_objects", "gauge", "Keys in the store.");
    line(&mut out, "apiserver_storage_objects", &[], stats.keys);
    head(&mut out, "apiserver_storage_size_bytes", "gauge", "Bytes of keys and values in the store.");
    line(&mut out, "apiserver_storage_size_bytes", &[], stats.bytes);
    head(&mut out, "windlass_store_revision", "gauge", "The newest revision.");
    line(&mut out, "windlass_store_revision", &[], stats.revision);
    out
}

fn write_requests(out: &mut String, counts: &Counts) {
    head(out, "apiserver_request_total", "counter", "Requests answered.");
    for ((labels, code), count) in &counts.requests {
        let code = code.to_string();
        let mut pairs = pairs(labels).to_vec();
        pairs.push(("code", &code));
        line(out, "apiserver_request_total", &pairs, count);
    }
    head(out, "apiserver_request_duration_seconds", "histogram", "Time until the answer began.");
    for (labels, durations) in &counts.durations {
        let mut pairs = pairs(labels).to_vec();
        let mut below = 0;
        for (bound, count) in BUCKETS.iter().zip(durations.buckets) {
            below += count;
            let bound = bound.to_string();
            let mut with_bound = pairs.clone();
            with_bound.push(("le", &bound));
            line(out, "apiserver_request_duration_seconds_bucket", &with_bound, below);
        }
        pairs.push(("le", "+Inf"));
        line(out, "apiserver_request_duration_seconds_bucket", &pairs, durations.count);
        pairs.pop();
        line(out, "apiserver_request_duration_seconds_sum", &pairs, durations.sum_seconds);
        line(out, "apiserver_request_duration_seconds_count", &pairs, durations.count);
    }
    head(out, "apiserver_watch_events_total", "counter", "Events told to watchers.");
    for ((group, kind), (events, _)) in &counts.watch_events {
        line(out, "apiserver_watch_events_total", &[("group", group), ("kind", kind)], events);
    }
    head(out, "apiserver_watch_events_bytes_total", "counter", "Bytes of events told to watchers.");
    for ((group, kind), (_, bytes)) in &counts.watch_events {
        line(out, "apiserver_watch_events_bytes_total", &[("group", group), ("kind", kind)], bytes);
    }
    head(out, "apiserver_panics_total", "counter", "Requests that ended in a panic.");
    line(out, "apiserver_panics_total", &[], counts.panics);
}

fn pairs(labels: &Labels) -> [(&'static str, &str); 6] {
    [
        ("verb", labels.verb),
        ("group", &labels.group),
        ("version", &labels.version),
        ("resource", &labels.resource),
        ("subresource", labels.subresource),
        ("scope", labels.scope),
    ]
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("writing to a String does not fail");
}

/// Label values come from kinds and code, never from requests, so nothing needs escaping.
fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    out.push_str(name);
    if !labels.is_empty() {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        write!(out, "{{{}}}", labels.join(",")).expect("writing to a String does not fail");
    }
    writeln!(out, " {value}").expect("writing to a String does not fail");
}
