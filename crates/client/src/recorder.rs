//! Events: what a part did or found, told to people, without making the part wait.
//!
//! Source: API reference, core/v1 Event. A repeated event is counted up in the object that exists already.
//!
//! Flow        note → bounded queue → counted together with its like → create, or patch of the count
//! Guarantees  [`Recorder::note`] never waits and never fails; what does not fit is counted as dropped
//! Caveats     Events are for people: a lost one is logged, not sent again

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use windlass_api::{Header, OwnerRef, kinds};
use windlass_stdx::World;

use crate::client::Client;
use crate::options::Patch;

/// Notes that wait to be written.
const QUEUE_MAX: usize = 8192;
/// Notes written at a time.
const BATCH_MAX: usize = 32;
/// Different events remembered for counting up.
const REMEMBERED_MAX: usize = 4096;
/// Events about one object in a burst; one more every [`REFILL_SECONDS`]. As Kubernetes' spam filter has it.
const BURST_PER_OBJECT_MAX: u32 = 25;
/// See [`BURST_PER_OBJECT_MAX`].
const REFILL_SECONDS: u64 = 300;
/// Characters of a message; the API takes 1,024.
const MESSAGE_CHARS_MAX: usize = 1024;

/// Whether an event is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody may want to act.
    Warning,
}

impl EventKind {
    /// `type` of the Event.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        }
    }
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// The part of the object, such as `spec.containers{web}`; empty for all of it.
    pub field_path: String,
}

impl ObjectRef {
    /// All of this object.
    pub fn of(header: &Header) -> ObjectRef {
        ObjectRef {
            api_version: header.api_version().to_owned(),
            kind: header.kind().to_owned(),
            namespace: header.namespace().to_owned(),
            name: header.name().to_owned(),
            uid: header.uid().to_owned(),
            field_path: String::new(),
        }
    }

    /// An owner of an object in this namespace.
    pub fn of_owner(owner: &OwnerRef, namespace: &str) -> ObjectRef {
        ObjectRef {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            namespace: namespace.to_owned(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            field_path: String::new(),
        }
    }

    /// One container of a pod.
    #[must_use]
    pub fn container(self, name: &str) -> ObjectRef {
        ObjectRef { field_path: format!("spec.containers{{{name}}}"), ..self }
    }

    /// Events about cluster-scoped objects live in `default`.
    fn event_namespace(&self) -> &str {
        if self.namespace.is_empty() { "default" } else { &self.namespace }
    }
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// About which object.
    pub about: ObjectRef,
    /// Normal or warning.
    pub kind: EventKind,
    /// One CamelCase word, such as `FailedScheduling`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// Writes Events in the background. Cheap to clone; ends with its last clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
    _task: Arc<TaskGuard>,
}

struct TaskGuard(AbortHandle);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Recorder {
    /// A recorder for a part (`source.component`) on a machine (`source.host`, may be empty).
    /// Must be called inside a tokio runtime.
    pub fn new(client: Client, component: &str, host: &str) -> Recorder {
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            client,
            component: component.to_owned(),
            host: host.to_owned(),
            known: Known::default(),
            budgets: Budgets::default(),
            names: Names::default(),
        };
        let task = tokio::spawn(writer.run(notes));
        let dropped = Arc::default();
        Recorder { queue, dropped, _task: Arc::new(TaskGuard(task.abort_handle())) }
    }

    /// Tells something. Never waits.
    pub fn note(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many notes found the queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    known: Known,
    budgets: Budgets,
    names: Names,
}

/// A note of a batch: how often it was told, and what its event is called if it has none yet.
struct Times {
    name: String,
    count: u64,
}

/// An event that exists in the API.
#[derive(Debug, Clone)]
struct Written {
    name: String,
    count: u64,
}

impl Writer {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while notes.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let mut counted: Vec<(Note, Times)> = Vec::with_capacity(batch.len());
            let mut places: BTreeMap<Note, usize> = BTreeMap::new();
            for mut note in batch.drain(..) {
                truncate(&mut note.message);
                if !self.budgets.take(&note.about, Instant::now()) {
                    continue;
                }
                if let Some(place) = places.get(&note) {
                    counted[*place].1.count += 1;
                    continue;
                }
                let name = self.names.next(&note.about.name, self.client.world());
                places.insert(note.clone(), counted.len());
                counted.push((note, Times { name, count: 1 }));
            }
            let written = join_all(counted.iter().map(|(note, times)| self.write(note, times))).await;
            for ((note, _), written) in counted.into_iter().zip(written) {
                match written {
                    Ok(written) => self.known.insert(note, written),
                    // A namespace that is ending takes no new events: that is as it should be.
                    Err(error) => {
                        let subject = format!("{} {}/{}", note.about.kind, note.about.namespace, note.about.name);
                        tracing::debug!(%subject, reason = note.reason, %error, "an event was not written");
                    }
                }
            }
        }
    }

    async fn write(&self, note: &Note, times: &Times) -> Result<Written, crate::ClientError> {
        let now = self.client.world().now_rfc3339();
        let namespace = note.about.event_namespace();
        if let Some(known) = self.known.get(note) {
            let count = known.count + times.count;
            let patch = Patch::Merge(json!({"count": count, "lastTimestamp": now}));
            match self.client.patch(&kinds::EVENT, namespace, &known.name, &patch, None).await {
                Ok(_) => return Ok(Written { name: known.name.clone(), count }),
                // It has expired meanwhile: begin a new one.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.event(note, &times.name, times.count, &now);
        self.client.create(&kinds::EVENT, namespace, &event).await?;
        Ok(Written { name: times.name.clone(), count: times.count })
    }

    fn event(&self, note: &Note, name: &str, count: u64, now: &str) -> Value {
        let about = &note.about;
        let mut involved = json!({"apiVersion": about.api_version, "kind": about.kind, "name": about.name});
        for (field, text) in [("namespace", &about.namespace), ("uid", &about.uid), ("fieldPath", &about.field_path)] {
            if !text.is_empty() {
                involved[field] = json!(text);
            }
        }
        let mut source = json!({"component": self.component});
        if !self.host.is_empty() {
            source["host"] = json!(self.host);
        }
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": about.event_namespace()},
            "involvedObject": involved, "type": note.kind.as_str(), "reason": note.reason, "message": note.message,
            "source": source, "reportingComponent": self.component, "reportingInstance": self.host,
            "firstTimestamp": now, "lastTimestamp": now, "count": count,
        })
    }
}

fn truncate(message: &mut String) {
    if let Some((at, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
        message.truncate(at);
    }
}

/// Names of events: by the object they are about and then by time, so that a list shows them in the order in which things
/// happened, which their times, in whole seconds, do not tell.
#[derive(Default)]
struct Names {
    last: u64,
}

/// Bits of a name that are random, so that two recorders do not choose the same: their names differ by 65 µs of time.
const NAME_RANDOM_BITS: u32 = 16;
/// Characters of a name: what the API takes.
const NAME_CHARS_MAX: usize = 253;

impl Names {
    fn next(&mut self, about: &str, world: &World) -> String {
        let now = u64::try_from(world.now().as_nanosecond()).unwrap_or(0) >> NAME_RANDOM_BITS;
        self.last = now.max(self.last + 1);
        let number = self.last << NAME_RANDOM_BITS | world.random_below(1 << NAME_RANDOM_BITS);
        let suffix = format!(".{number:016x}");
        let about: String = about.chars().take(NAME_CHARS_MAX - suffix.len()).collect();
        format!("{}{suffix}", about.trim_end_matches(['-', '.']))
    }
}

/// The events written lately, oldest forgotten first.
#[derive(Default)]
struct Known {
    by_note: BTreeMap<Note, Written>,
    order: VecDeque<Note>,
}

impl Known {
    fn get(&self, note: &Note) -> Option<&Written> {
        self.by_note.get(note)
    }

    fn insert(&mut self, note: Note, written: Written) {
        if self.by_note.insert(note.clone(), written).is_none() {
            self.order.push_back(note);
            if self.order.len() > REMEMBERED_MAX {
                let oldest = self.order.pop_front().expect("it is longer than its limit");
                self.by_note.remove(&oldest);
            }
        }
    }
}

/// How many events each object may still have.
#[derive(Default)]
struct Budgets {
    by_object: BTreeMap<ObjectRef, Budget>,
    order: VecDeque<ObjectRef>,
}

struct Budget {
    left: u32,
    refilled: Instant,
}

impl Budgets {
    /// Takes one from the object's budget; `false` when it is used up.
    fn take(&mut self, about: &ObjectRef, now: Instant) -> bool {
        if !self.by_object.contains_key(about) {
            self.by_object.insert(about.clone(), Budget { left: BURST_PER_OBJECT_MAX, refilled: now });
            self.order.push_back(about.clone());
            if self.order.len() > REMEMBERED_MAX {
                let oldest = self.order.pop_front().expect("it is longer than its limit");
                self.by_object.remove(&oldest);
            }
        }
        let budget = self.by_object.get_mut(about).expect("inserted above when it was missing");
        let refills = now.duration_since(budget.refilled).as_secs() / REFILL_SECONDS;
        if refills > 0 {
            let more = u32::try_from(refills).unwrap_or(u32::MAX);
            budget.left = budget.left.saturating_add(more).min(BURST_PER_OBJECT_MAX);
            budget.refilled = now;
        }
        let may = budget.left > 0;
        budget.left = budget.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST_PER_OBJECT_MAX, Budgets, NAME_CHARS_MAX, Names, ObjectRef, REFILL_SECONDS, truncate};
    use std::time::Duration;
    use tokio::time::Instant;
    use windlass_api::Header;
    use windlass_stdx::World;

    fn named(name: &str) -> Header {
        Header::parse(&format!("{{\"metadata\":{{\"name\":\"{name}\"}}}}").into()).expect("a header")
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_one_object_are_listed_in_the_order_in_which_they_happened() {
        let world = World::seeded(1, "2026-01-01T00:00:00Z".parse().expect("a time"));
        let mut names = Names::default();
        let mut made: Vec<String> = (0..100).map(|_| names.next("web", &world)).collect();
        tokio::time::advance(Duration::from_secs(1)).await;
        made.push(names.next("web", &world));
        assert!(made.is_sorted(), "{made:?}");
        assert!(made[0].len() == "web.".len() + 16 && made[0] != made[1], "{made:?}");
        let long = names.next(&format!("{}-{}", "a".repeat(235), "b".repeat(17)), &world);
        assert!(long.len() <= NAME_CHARS_MAX && long.starts_with(&format!("{}.", "a".repeat(235))), "{long}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_has_a_burst_and_a_trickle_of_events() {
        let about = ObjectRef::of(&named("p"));
        let other = ObjectRef::of(&named("q"));
        let mut budgets = Budgets::default();
        for _ in 0..BURST_PER_OBJECT_MAX {
            assert!(budgets.take(&about, Instant::now()));
        }
        assert!(!budgets.take(&about, Instant::now()));
        assert!(budgets.take(&other, Instant::now()), "each object has its own");
        tokio::time::advance(Duration::from_secs(REFILL_SECONDS)).await;
        assert!(budgets.take(&about, Instant::now()));
        assert!(!budgets.take(&about, Instant::now()));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut message = "ä".repeat(2000);
        truncate(&mut message);
        assert_eq!(message.chars().count(), 1024);
    }
}
