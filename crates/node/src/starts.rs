//! How the last pods came up on this node, step by step, for `windlass trace pod`.
//!
//! Guarantees  memory is bounded: [`PODS_MAX`] pods with [`SPANS_MAX`] spans each, the oldest pod forgotten first

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde::Serialize;

/// Pods that are remembered: as many as a node usually has.
const PODS_MAX: usize = 128;
/// Spans of one pod: a start of a pod with ten containers has some fifty.
const SPANS_MAX: usize = 64;

/// What took from when to when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// `sandbox`, `image`, `create`…
    pub what: &'static str,
    /// The container that it was done for; empty for the pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// From then.
    pub began: Timestamp,
    /// Until then.
    pub ended: Timestamp,
}

/// The last starts.
#[derive(Debug, Default)]
pub struct Starts(Mutex<VecDeque<Start>>);

#[derive(Debug)]
struct Start {
    uid: Arc<str>,
    spans: Vec<Span>,
    is_over: bool,
}

impl Starts {
    /// A pod was seen for the first time.
    pub fn begin(&self, uid: &Arc<str>, at: Timestamp) {
        let mut starts = self.0.lock().expect("nothing panics while holding it");
        if starts.len() == PODS_MAX {
            starts.pop_front();
        }
        let seen = Span { what: "seen", container: String::new(), began: at, ended: at };
        starts.push_back(Start { uid: Arc::clone(uid), spans: vec![seen], is_over: false });
    }

    /// Something was done for a pod that is coming up; of others nothing is kept.
    pub fn note(&self, uid: &str, (what, container): (&'static str, &str), (began, ended): (Timestamp, Timestamp)) {
        let mut starts = self.0.lock().expect("nothing panics while holding it");
        let found = starts.iter_mut().rev().find(|start| &*start.uid == uid);
        if let Some(start) = found.filter(|start| !start.is_over && start.spans.len() < SPANS_MAX) {
            start.spans.push(Span { what, container: container.to_owned(), began, ended });
        }
    }

    /// The pod is up, and the API knows it.
    pub fn over(&self, uid: &str) {
        let mut starts = self.0.lock().expect("nothing panics while holding it");
        if let Some(start) = starts.iter_mut().rev().find(|start| &*start.uid == uid) {
            start.is_over = true;
        }
    }

    /// What is known of a pod's start, in the order in which it ended.
    pub fn of(&self, uid: &str) -> Vec<Span> {
        let starts = self.0.lock().expect("nothing panics while holding it");
        starts.iter().rev().find(|start| &*start.uid == uid).map(|start| start.spans.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{PODS_MAX, SPANS_MAX, Starts};
    use jiff::Timestamp;
    use std::sync::Arc;

    #[test]
    fn what_is_kept_is_bounded_and_ends_with_the_start() {
        let (starts, now) = (Starts::default(), Timestamp::UNIX_EPOCH);
        for number in 0..=PODS_MAX {
            starts.begin(&Arc::from(number.to_string()), now);
        }
        assert!(starts.of("0").is_empty(), "the oldest is forgotten");
        for _ in 0..2 * SPANS_MAX {
            starts.note("5", ("create", "main"), (now, now));
        }
        assert_eq!(starts.of("5").len(), SPANS_MAX);
        starts.note("6", ("create", "main"), (now, now));
        starts.over("6");
        starts.note("6", ("create", "main"), (now, now));
        assert_eq!(starts.of("6").iter().map(|span| span.what).collect::<Vec<_>>(), ["seen", "create"]);
    }
}
