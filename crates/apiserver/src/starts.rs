//! When the last pods were asked for and bound, to the microsecond: objects say it in seconds. For `windlass trace pod`.
//!
//! Guarantees  memory is bounded: the last [`PODS_MAX`] pods, two spans each · `/debug/starts/UID` tells those who may
//!             read that path
//! Caveats     of several servers each knows what it was asked itself; a server that was started anew knows nothing

use std::collections::VecDeque;
use std::sync::Mutex;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Pods that are remembered.
const PODS_MAX: usize = 1024;

/// From when to when.
type Span = (Timestamp, Timestamp);

/// The last pods.
#[derive(Default)]
pub(crate) struct Starts(Mutex<VecDeque<Start>>);

struct Start {
    uid: String,
    created: Option<Span>,
    bound: Option<Span>,
}

impl Starts {
    /// A pod was created.
    pub fn created(&self, uid: &str, span: Span) {
        self.add(Start { uid: uid.to_owned(), created: Some(span), bound: None });
    }

    /// A pod was bound to a node.
    pub fn bound(&self, uid: &str, span: Span) {
        let mut starts = self.0.lock().expect("nothing panics while holding it");
        match starts.iter_mut().rev().find(|start| start.uid == uid) {
            Some(start) => start.bound = Some(span),
            None => {
                drop(starts);
                self.add(Start { uid: uid.to_owned(), created: None, bound: Some(span) });
            }
        }
    }

    fn add(&self, start: Start) {
        let mut starts = self.0.lock().expect("nothing panics while holding it");
        if starts.len() == PODS_MAX {
            starts.pop_front();
        }
        starts.push_back(start);
    }

    /// What is known of a pod; no spans for one that is not.
    pub fn of(&self, uid: &str) -> Value {
        let starts = self.0.lock().expect("nothing panics while holding it");
        let found = starts.iter().rev().find(|start| start.uid == uid);
        let spans = found.map(|start| {
            let named = [("create", start.created), ("bind", start.bound)];
            let spans = named.into_iter().filter_map(|(what, span)| Some((what, span?)));
            spans.map(|(what, (began, ended))| json!({"what": what, "began": began, "ended": ended})).collect()
        });
        json!({"spans": spans.unwrap_or_else(Vec::new)})
    }
}

#[cfg(test)]
mod tests {
    use super::{PODS_MAX, Starts};
    use jiff::Timestamp;

    #[test]
    fn the_last_pods_are_remembered_and_no_more() {
        let (starts, span) = (Starts::default(), (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH));
        starts.created("first", span);
        starts.bound("first", span);
        let whats = |uid: &str| -> Vec<String> {
            let found = starts.of(uid);
            let spans = found["spans"].as_array().expect("a list").iter();
            spans.map(|span| span["what"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(whats("first"), ["create", "bind"]);
        starts.bound("of another server", span);
        assert_eq!(whats("of another server"), ["bind"]);
        (0..PODS_MAX).for_each(|number| starts.created(&number.to_string(), span));
        assert!(whats("first").is_empty());
    }
}
