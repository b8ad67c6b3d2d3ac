//! Acknowledged: what the API said is done stays done, and nobody is shown anything older.
//!
//! Source: store, Guarantees ("`Ok` from commit means durable and visible to every later read"); Kubernetes API
//! concepts, "Resource versions": a write that was answered has a revision, and the object never goes back behind it.
//!
//! Rules
//!   R1 kept     an object is as its last acknowledged write left it, or as a later write of unknown outcome would have
//!   R2 forward  its revision, and the store's, is not older than any that was acknowledged
//! Asked       when the server has started, before anybody else is served; at every read of a user; at the end

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use windlass_api::{Kind, Object, kinds};
use windlass_client::{Client, ClientError, ListOptions};
use windlass_store::Store;

use crate::history::History;

/// Says which write an object shows; every write of a user has a number of its own.
pub const STEP: &str = "sim.windlass.dev/step";
/// Where users work.
pub const NAMESPACE: &str = "default";
/// The kinds users work on.
pub const KINDS: [&Kind; 3] = [&kinds::CONFIG_MAP, &kinds::SERVICE, &kinds::DEPLOYMENT];
/// A server that just started answers; a read that fails is tried again, so often.
const READS_MAX: u32 = 5;

/// An object of a user: the plural of its kind, and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// `deployments`.
    pub plural: String,
    /// `u1-web0`.
    pub name: String,
}

/// What a user can tell of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// There is none.
    Absent,
    /// It is being deleted; it may go any time.
    Ending,
    /// It is there, as this write left it.
    Present(String),
}

impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Absent => out.write_str("absent"),
            Shape::Ending => out.write_str("ending"),
            Shape::Present(what) => out.write_str(what),
        }
    }
}

impl Shape {
    /// The shape of what was read.
    pub fn of(object: Option<&Object>) -> Shape {
        let Some(object) = object else { return Shape::Absent };
        if object.header.is_ending() {
            return Shape::Ending;
        }
        let value = object.value();
        let step = value["metadata"]["annotations"][STEP].as_str().unwrap_or_default();
        Shape::present(step, value["spec"]["replicas"].as_u64())
    }

    /// The shape that this step leaves.
    pub fn present(step: &str, replicas: Option<u64>) -> Shape {
        match replicas {
            Some(replicas) => Shape::Present(format!("step {step}, {replicas} replicas")),
            None => Shape::Present(format!("step {step}")),
        }
    }
}

/// What is known of one object.
#[derive(Clone, Debug)]
struct Record {
    acked: Shape,
    revision: u64,
    /// Writes of unknown outcome since then.
    maybe: Vec<Shape>,
}

impl Record {
    fn allows(&self, found: &Shape) -> bool {
        let may_be = |shape: &Shape| self.acked == *shape || self.maybe.contains(shape);
        may_be(found) || (*found == Shape::Absent && may_be(&Shape::Ending))
    }
}

/// Everything that was acknowledged to users. Clones are the same ledger.
#[derive(Clone, Default)]
pub struct Ledger {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    records: BTreeMap<ObjectId, Record>,
    newest: u64,
    acks: u64,
    forget_next: bool,
}

impl Ledger {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while holding it")
    }

    /// A write is sent that would leave this.
    pub fn begin(&self, id: &ObjectId, leaves: &[Shape]) {
        let mut inner = self.inner();
        let absent = Record { acked: Shape::Absent, revision: 0, maybe: Vec::new() };
        inner.records.entry(id.clone()).or_insert(absent).maybe.extend_from_slice(leaves);
    }

    /// The write that was begun last was refused: it has no effect.
    pub fn refused(&self, id: &ObjectId, would_have_left: &[Shape]) {
        if let Some(record) = self.inner().records.get_mut(id) {
            let kept = record.maybe.len().saturating_sub(would_have_left.len());
            record.maybe.truncate(kept);
        }
    }

    /// The write that was begun last was acknowledged.
    pub fn acked(&self, id: &ObjectId, left: Shape, revision: u64) {
        let mut inner = self.inner();
        inner.acks += 1;
        inner.newest = inner.newest.max(revision);
        if std::mem::take(&mut inner.forget_next) {
            let record = inner.records.get_mut(id).expect("a write is begun before it is acknowledged");
            record.maybe.clear();
            return;
        }
        inner.settle(id, left, revision);
    }

    /// The object's owner, who has no write under way, was shown this.
    ///
    /// # Errors
    /// It contradicts what was acknowledged.
    pub fn seen(&self, id: &ObjectId, object: Option<&Object>) -> Result<(), String> {
        let mut inner = self.inner();
        let checked = inner.check(id, object);
        let revision = object.map_or(0, |object| object.header.revision);
        inner.newest = inner.newest.max(revision);
        inner.settle(id, Shape::of(object), revision);
        checked
    }

    /// The next acknowledgement is struck from the record.
    pub fn forget_next(&self) {
        self.inner().forget_next = true;
    }

    /// How many writes were acknowledged.
    pub fn acks(&self) -> u64 {
        self.inner().acks
    }

    /// What contradicts the record in these objects, which are all that users may have made.
    pub fn check(&self, found: &BTreeMap<ObjectId, Object>, store_revision: u64) -> Vec<String> {
        let inner = self.inner();
        let mut wrong: Vec<String> =
            inner.records.keys().filter_map(|id| inner.check(id, found.get(id)).err()).collect();
        let strangers = found.keys().filter(|id| !inner.records.contains_key(id));
        wrong.extend(strangers.map(|id| format!("{}/{} is there, but nobody made it", id.plural, id.name)));
        if store_revision < inner.newest {
            wrong.push(format!("the store is at revision {store_revision}, but {} was acknowledged", inner.newest));
        }
        wrong
    }
}

impl Inner {
    fn settle(&mut self, id: &ObjectId, shape: Shape, revision: u64) {
        let record = Record { acked: shape, revision, maybe: Vec::new() };
        self.records.insert(id.clone(), record);
    }

    fn check(&self, id: &ObjectId, object: Option<&Object>) -> Result<(), String> {
        let Some(record) = self.records.get(id) else { return Ok(()) };
        let (found, revision) = (Shape::of(object), object.map_or(0, |object| object.header.revision));
        let ObjectId { plural, name } = id;
        if !record.allows(&found) {
            let maybe: String = record.maybe.iter().map(|shape| format!(", or maybe {shape}")).collect();
            let Record { acked, revision: at, .. } = record;
            return Err(format!(
                "{plural}/{name}: acknowledged {acked} at revision {at}{maybe}; found {found} at {revision}"
            ));
        }
        if found == record.acked && object.is_some() && revision < record.revision {
            return Err(format!(
                "{plural}/{name}: acknowledged revision {}, found the older {revision}",
                record.revision
            ));
        }
        Ok(())
    }
}

/// Asks a server about everything that was acknowledged.
pub async fn check_server(reader: &Client, store: &Store, ledger: &Ledger, history: &History) {
    let mut found = BTreeMap::new();
    for kind in KINDS {
        match read_all(reader, kind).await {
            Ok(objects) => found.extend(objects.into_iter().map(|object| (id_of(kind, &object), object))),
            Err(error) => {
                return history.violate("acked", format_args!("what was acknowledged cannot be read: {error}"));
            }
        }
    }
    for wrong in ledger.check(&found, store.revision()) {
        history.violate("acked", wrong);
    }
}

fn id_of(kind: &Kind, object: &Object) -> ObjectId {
    ObjectId { plural: kind.plural.to_string(), name: object.header.name().to_owned() }
}

/// The objects of users: what controllers and the server make has no step.
async fn read_all(reader: &Client, kind: &Kind) -> Result<Vec<Object>, ClientError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match reader.list(kind, Some(NAMESPACE), &ListOptions::default()).await {
            Ok(list) => {
                let of_users = |object: &Object| object.value()["metadata"]["annotations"][STEP].is_string();
                return Ok(list.items.into_iter().map(Arc::unwrap_or_clone).filter(of_users).collect());
            }
            Err(error) if attempt == READS_MAX || !error.is_retryable() => return Err(error),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, ObjectId, STEP, Shape};
    use std::collections::BTreeMap;
    use windlass_api::Object;

    fn object(step: &str, revision: u64) -> Object {
        let json = format!(
            r#"{{"metadata":{{"name":"c","resourceVersion":"{revision}","annotations":{{"{STEP}":"{step}"}}}}}}"#
        );
        Object::parse(json.into_bytes().into()).expect("an object")
    }

    fn id() -> ObjectId {
        ObjectId { plural: "configmaps".to_owned(), name: "c".to_owned() }
    }

    /// Step 1 is acknowledged at revision 7, step 2 is of unknown outcome.
    fn check(found: Option<Object>, store_revision: u64) -> Vec<String> {
        let ledger = Ledger::default();
        ledger.begin(&id(), &[Shape::present("1", None)]);
        ledger.acked(&id(), Shape::present("1", None), 7);
        ledger.begin(&id(), &[Shape::present("2", None)]);
        ledger.check(&found.into_iter().map(|object| (id(), object)).collect::<BTreeMap<_, _>>(), store_revision)
    }

    #[test]
    fn r1_what_was_acknowledged_or_sent_after_it_may_be_found() {
        assert_eq!(check(Some(object("1", 7)), 7), [""; 0]);
        assert_eq!(check(Some(object("2", 8)), 8), [""; 0]);
    }

    #[test]
    fn r1_a_lost_write_is_found() {
        assert_eq!(
            check(None, 7),
            ["configmaps/c: acknowledged step 1 at revision 7, or maybe step 2; found absent at 0"]
        );
        assert_eq!(check(Some(object("0", 8)), 8).len(), 1);
    }

    #[test]
    fn r2_an_older_revision_is_found() {
        assert_eq!(check(Some(object("1", 6)), 7), ["configmaps/c: acknowledged revision 7, found the older 6"]);
        assert_eq!(check(Some(object("1", 7)), 6), ["the store is at revision 6, but 7 was acknowledged"]);
    }

    #[test]
    fn r1_a_refused_write_must_not_be_found() {
        let ledger = Ledger::default();
        ledger.begin(&id(), &[Shape::present("1", None)]);
        ledger.refused(&id(), &[Shape::present("1", None)]);
        assert!(ledger.seen(&id(), Some(&object("1", 3))).is_err());
    }

    #[test]
    fn r1_what_is_ending_may_go() {
        let ledger = Ledger::default();
        ledger.begin(&id(), &[Shape::Ending]);
        assert_eq!(ledger.seen(&id(), None), Ok(()));
    }
}
