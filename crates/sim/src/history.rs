//! What has happened, in order: one line an event, and a hash over all of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// Events kept for reading; the hash covers all.
const EVENTS_KEPT_MAX: usize = 20_000;
/// Violations kept; the first ones tell the story.
const VIOLATIONS_MAX: usize = 20;
/// Events shown before a violation.
const EXCERPT_EVENTS: usize = 40;
/// So many events without any time passing mean that somebody runs in a circle.
const EVENTS_AT_ONCE_MAX: u64 = 200_000;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Since the beginning of the run.
    pub at: Duration,
    /// Who.
    pub actor: String,
    /// What.
    pub what: String,
}

impl Event {
    /// A sign of life that went well, or one more try to reach a server that is down: not told before a violation.
    fn is_routine(&self) -> bool {
        (self.what.contains("/leases/") && self.what.ends_with(": 200")) || self.what.ends_with("(connection refused)")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:>11.6} {:<12} {}", self.at.as_secs_f64(), self.actor, self.what)
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Since the beginning of the run.
    pub at: Duration,
    /// The invariant's file.
    pub invariant: &'static str,
    /// What was expected and what was found.
    pub what: String,
    /// The events before it.
    pub excerpt: Vec<Event>,
}

/// The history of one run. Clones are the same history.
#[derive(Clone)]
pub struct History {
    inner: Arc<Mutex<Inner>>,
    origin: Instant,
    /// Called with each event.
    tell: Option<fn(&Event)>,
}

struct Inner {
    hash: u64,
    count: u64,
    kept: VecDeque<Event>,
    violations: Vec<Violation>,
    last_at: Duration,
    at_once: u64,
}

impl History {
    /// An empty history that begins now.
    pub fn begin(tell: Option<fn(&Event)>) -> History {
        let inner = Inner {
            hash: FNV_OFFSET,
            count: 0,
            kept: VecDeque::new(),
            violations: Vec::new(),
            last_at: Duration::ZERO,
            at_once: 0,
        };
        History { inner: Arc::new(Mutex::new(inner)), origin: Instant::now(), tell }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while holding it, but for the end of the run")
    }

    /// Since the beginning of the run.
    pub fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Something happened.
    pub fn note(&self, actor: &str, what: impl fmt::Display) {
        let event = Event { at: self.elapsed(), actor: actor.to_owned(), what: what.to_string() };
        if let Some(tell) = self.tell {
            tell(&event);
        }
        let mut inner = self.inner();
        inner.hash = mix(inner.hash, &event.at.as_nanos().to_le_bytes());
        inner.hash = mix(inner.hash, event.actor.as_bytes());
        inner.hash = mix(inner.hash, event.what.as_bytes());
        inner.count += 1;
        inner.at_once = if inner.last_at == event.at { inner.at_once + 1 } else { 0 };
        inner.last_at = event.at;
        assert!(
            inner.at_once < EVENTS_AT_ONCE_MAX,
            "expected time to pass, found {EVENTS_AT_ONCE_MAX} events at {:?}; the last one: {event}",
            event.at
        );
        if inner.kept.len() == EVENTS_KEPT_MAX {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event);
    }

    /// Bytes that went over a link belong to the history, without a line of their own.
    pub fn mix(&self, bytes: &[u8]) {
        let mut inner = self.inner();
        inner.hash = mix(inner.hash, bytes);
    }

    /// A rule was broken.
    pub fn violate(&self, invariant: &'static str, what: impl fmt::Display) {
        let what = what.to_string();
        self.note("VIOLATION", format_args!("{invariant}: {what}"));
        let at = self.elapsed();
        let mut inner = self.inner();
        if inner.violations.len() < VIOLATIONS_MAX {
            let telling = inner.kept.iter().rev().filter(|event| !event.is_routine());
            let mut excerpt: Vec<Event> = telling.take(EXCERPT_EVENTS).cloned().collect();
            excerpt.reverse();
            inner.violations.push(Violation { at, invariant, what, excerpt });
        }
    }

    /// The broken rules so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.inner().violations.clone()
    }

    /// Hash and number of all events so far.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.hash, inner.count)
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): stable over builds, unlike std's hasher.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn mix(hash: u64, bytes: &[u8]) -> u64 {
    // The end of each piece counts too, so that "ab","c" differs from "a","bc".
    let length = (bytes.len() as u64).to_le_bytes();
    bytes.iter().chain(&length).fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

#[cfg(test)]
mod tests {
    use super::History;

    fn digest(notes: &[(&str, &str)]) -> (u64, u64) {
        let history = History::begin(None);
        notes.iter().for_each(|(actor, what)| history.note(actor, what));
        history.digest()
    }

    #[tokio::test(start_paused = true)]
    async fn the_hash_tells_what_happened_to_whom_and_in_which_order() {
        let same = digest(&[("a", "bc"), ("d", "e")]);
        assert_eq!(digest(&[("a", "bc"), ("d", "e")]), same);
        assert_ne!(digest(&[("ab", "c"), ("d", "e")]), same);
        assert_ne!(digest(&[("d", "e"), ("a", "bc")]), same);
    }

    #[tokio::test(start_paused = true)]
    async fn a_violation_comes_with_what_happened_before() {
        let history = History::begin(None);
        history.note("n1", "something odd");
        history.violate("single", "it runs twice");
        let violations = history.violations();
        assert_eq!(violations[0].invariant, "single");
        assert!(violations[0].excerpt.iter().any(|event| event.what == "something odd"));
    }
}
