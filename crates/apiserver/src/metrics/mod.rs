//! `/metrics`: what the server counts, under Kubernetes' names, so that existing dashboards and alerts read it.
//!
//! Rules
//!   R1 requests     every answer is counted by verb, kind, scope and code; a watch counts when its answer begins
//!   R2 durations    the time until an answer began; the SLI leaves out watches and streams, whose length the client sets
//!   R3 watches      watchers, and the events and bytes they were told, by kind, at the cost of one atomic addition
//!   R4 bounded      labels come from kinds and from code, never from a request; beyond `SERIES_MAX` nothing is added
//!
//! Not here        what the store writes to disk, and the node's figures
//! Source: Kubernetes metrics reference.

mod process;
mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use windlass_api::Subresource;

use crate::request::{Endpoint, Route, Target, Verb};

pub(crate) use text::text;

/// Upper bounds of the durations in seconds.
const DURATION_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// The SLI has the same bounds without the first ones.
const SLI_BUCKETS_SKIPPED: usize = 2;
/// Upper bounds of the sizes of watch events in bytes.
const SIZE_BUCKETS: [u64; 8] = [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10];
/// Series kept: labels come from a closed set of kinds, verbs and codes, so this is never reached honestly.
const SERIES_MAX: usize = 10_000;

/// What a request is counted under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Labels {
    verb: &'static str,
    dry_run: &'static str,
    group: Cow<'static, str>,
    version: Cow<'static, str>,
    resource: Cow<'static, str>,
    /// Of a path that is no object: the path itself.
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
}

/// A kind, as watch metrics name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Watched {
    group: Cow<'static, str>,
    version: Cow<'static, str>,
    resource: Cow<'static, str>,
}

#[derive(Default, Clone, Copy)]
struct Durations {
    buckets: [u64; DURATION_BUCKETS.len()],
    count: u64,
    sum_seconds: f64,
}

/// What the watchers of a kind were told.
#[derive(Default)]
struct Told {
    buckets: [AtomicU64; SIZE_BUCKETS.len()],
    events: AtomicU64,
    bytes: AtomicU64,
    /// Watchers now, by scope: one object, a namespace, the cluster.
    watchers: [AtomicUsize; 3],
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(Labels, u16), u64>,
    durations: BTreeMap<Labels, Durations>,
    watches: BTreeMap<Watched, Arc<Told>>,
    panics: u64,
}

/// The counts of a server.
#[derive(Default)]
pub(crate) struct Metrics {
    counts: Mutex<Counts>,
    /// Requests worked on now: those that read, those that may change something.
    inflight: [Arc<AtomicUsize>; 2],
}

/// A request while it is worked on.
pub(crate) struct Inflight(Arc<AtomicUsize>);

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A watch while it is served, and what it tells.
pub(crate) struct Watcher {
    told: Arc<Told>,
    scope: usize,
}

impl Watcher {
    /// An event of so many bytes was told.
    pub fn told(&self, bytes: usize) {
        let bytes = bytes as u64;
        if let Some(bucket) = SIZE_BUCKETS.iter().position(|bound| bytes <= *bound) {
            self.told.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.told.events.fetch_add(1, Ordering::Relaxed);
        self.told.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.told.watchers[self.scope].fetch_sub(1, Ordering::Relaxed);
    }
}

/// The scopes of requests, in the order of [`Told::watchers`].
const SCOPES: [&str; 3] = ["resource", "namespace", "cluster"];

fn scope(target: &Target) -> usize {
    match (target.name.is_empty(), target.namespace.is_empty()) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    }
}

impl Labels {
    /// The labels of what a path led to; `None` is a path that leads nowhere.
    pub fn of(route: Option<&Route>, is_dry_run: bool) -> Labels {
        let mut labels = Labels {
            verb: "GET",
            dry_run: if is_dry_run { "All" } else { "" },
            group: Cow::Borrowed(""),
            version: Cow::Borrowed(""),
            resource: Cow::Borrowed(""),
            subresource: "",
            scope: "",
            component: "",
        };
        match route {
            Some(Route::Target(target)) => labels.set_target(target),
            Some(Route::Endpoint(endpoint)) => labels.subresource = path(endpoint),
            None => labels.verb = "other",
        }
        labels
    }

    fn set_target(&mut self, target: &Target) {
        let kind = &target.resource.kind;
        self.verb = match (target.sub, target.verb) {
            (Some(Subresource::Exec | Subresource::Attach | Subresource::PortForward | Subresource::Proxy), _) => {
                "CONNECT"
            }
            (_, Verb::Get) => "GET",
            (_, Verb::List) => "LIST",
            (_, Verb::Watch) => "WATCH",
            (_, Verb::Create) => "POST",
            (_, Verb::Update) => "PUT",
            (_, Verb::Patch) => "PATCH",
            (_, Verb::Delete) => "DELETE",
            (_, Verb::DeleteCollection) => "DELETECOLLECTION",
        };
        self.group = kind.group.clone();
        self.version = kind.version.clone();
        self.resource = kind.plural.clone();
        self.subresource = target.sub.map_or("", |sub| sub.as_str());
        self.scope = SCOPES[scope(target)];
        self.component = "apiserver";
    }

    /// Whether the client sets how long the request takes (R2).
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb, "WATCH" | "CONNECT") || self.subresource == "log"
    }
}

fn path(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Livez(_) => "/livez",
        Endpoint::Readyz(_) => "/readyz",
        Endpoint::Healthz(_) => "/healthz",
        Endpoint::Version => "/version",
        Endpoint::Metrics => "/metrics",
        Endpoint::Backup => "/windlass/v1/backup",
        _ => "",
    }
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("nothing panics while holding the counts")
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
        if let Some(bucket) = DURATION_BUCKETS.iter().position(|bound| seconds <= *bound) {
            durations.buckets[bucket] += 1;
        }
        durations.count += 1;
        durations.sum_seconds += seconds;
    }

    /// A request is worked on until what is given back is dropped.
    pub fn inflight(&self, verb: Verb) -> Inflight {
        let lane = usize::from(!matches!(verb, Verb::Get | Verb::List | Verb::Watch));
        self.inflight[lane].fetch_add(1, Ordering::Relaxed);
        Inflight(self.inflight[lane].clone())
    }

    /// A watch begins.
    pub fn watcher(&self, target: &Target) -> Watcher {
        let kind = &target.resource.kind;
        let watched =
            Watched { group: kind.group.clone(), version: kind.version.clone(), resource: kind.plural.clone() };
        let told = {
            let mut counts = self.counts();
            if counts.watches.len() >= SERIES_MAX {
                Arc::default()
            } else {
                counts.watches.entry(watched).or_default().clone()
            }
        };
        let scope = scope(target);
        told.watchers[scope].fetch_add(1, Ordering::Relaxed);
        Watcher { told, scope }
    }

    /// A request ended in a panic.
    pub fn panic(&self) {
        self.counts().panics += 1;
    }
}
