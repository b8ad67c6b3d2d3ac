//! A write that is no apply: whoever changes a field owns it.
//!
//! Rules
//!   R1 own        a writer owns what it adds and changes, beside what it owned
//!   R2 lost       others own it no more, appliers too; what a write removes nobody owns
//!   R3 nobody     what the server gives (name, uid, times, revision) has no owner
//!   R4 time       an entry's time is that of its manager's last change
//!   R5 untracked  an object whose fields nobody owns stays so until something is applied to it
//!   R6 ancient    of more than `UPDATERS_MAX` updaters the oldest become one, `ancient-changes`
//!
//! Source: API concepts, "Field management"; KEP-555.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::compare::{Changes, compare};
use super::entry::{Entry, Managers, Operation, Writer};
use super::set::FieldSet;
use super::wire;
use crate::schema::Message;

/// Updaters of one object that are told apart: more say little, and every one is in every object that is sent.
pub const UPDATERS_MAX: usize = 10;
/// The name of all older updaters.
pub const ANCIENT: &str = "ancient-changes";

/// R3.
pub(super) static NOBODYS: LazyLock<FieldSet<'static>> = LazyLock::new(|| {
    FieldSet::of([
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// Who owns what after a write that made `after` of `before`, both without `managedFields`.
pub fn update(
    before: &Value,
    after: &Value,
    mut managers: Managers,
    writer: &Writer<'_>,
    message: Message<'_>,
) -> Managers {
    if managers.is_empty() {
        return managers; // R5
    }
    own(&mut managers, compare(before, after, message), writer);
    managers
}

/// Who owns what of a new object: its creator, unless the client sent who does.
pub fn create(object: &Value, sent: Option<Managers>, writer: &Writer<'_>, message: Message<'_>) -> Managers {
    let mut managers = sent.unwrap_or_default();
    own(&mut managers, compare(&Value::Object(serde_json::Map::new()), object, message), writer);
    managers
}

/// R1 to R4, R6.
pub(super) fn own(managers: &mut Managers, changes: Changes<'_>, writer: &Writer<'_>) {
    let Changes { added, modified, removed } = changes;
    let mut changed = added.union(modified);
    changed.subtract(&NOBODYS);
    let is_own = |entry: &Entry| entry.is_of(writer, Operation::Update);
    lose(managers, &removed, |_| true);
    lose(managers, &changed, |entry| !is_own(entry));
    if changed.is_empty() {
        return;
    }
    match managers.0.iter_mut().find(|entry| is_own(entry)) {
        Some(entry) => {
            let fields = entry.fields();
            let grown = (!fields.contains(&changed)).then(|| wire::print(&fields.union(changed)));
            if let Some(grown) = grown {
                entry.set_fields(grown);
            }
            entry.set("time", writer.now);
        }
        None => {
            managers.0.push(Entry::new(writer, Operation::Update, &changed));
            fold_oldest(managers);
        }
    }
}

/// R2: takes fields from some managers. Who owns nothing then is none any more.
pub(super) fn lose(managers: &mut Managers, lost: &FieldSet<'_>, loses: impl Fn(&Entry) -> bool) {
    managers.0.retain_mut(|entry| {
        if !loses(entry) || !entry.owns_any(lost) {
            return true;
        }
        let mut fields = entry.fields();
        fields.subtract(lost);
        let is_left = !fields.is_empty();
        let printed = wire::print(&fields);
        entry.set_fields(printed);
        is_left
    });
}

/// R6.
fn fold_oldest(managers: &mut Managers) {
    let mut updaters: Vec<usize> = (0..managers.0.len()).filter(|at| !managers.0[*at].is_applied()).collect();
    let mut surplus = updaters.len().saturating_sub(UPDATERS_MAX);
    if surplus == 0 {
        return;
    }
    updaters.sort_by_key(|at| {
        let entry = &managers.0[*at];
        (entry.time(), entry.manager(), entry.subresource())
    });
    // the entry of each API version into which older ones go
    let mut buckets: BTreeMap<String, usize> = BTreeMap::new();
    for at in updaters.iter().filter(|at| managers.0[**at].manager() == ANCIENT) {
        buckets.insert(managers.0[*at].api_version().to_owned(), *at);
    }
    let mut folded = vec![false; managers.0.len()];
    for at in updaters {
        if surplus == 0 {
            break;
        }
        let bucket = *buckets.entry(managers.0[at].api_version().to_owned()).or_insert(at);
        if bucket == at {
            continue;
        }
        let all = wire::print(&managers.0[bucket].fields().union(managers.0[at].fields()));
        let time = managers.0[at].time().max(managers.0[bucket].time()).to_owned();
        let entry = &mut managers.0[bucket];
        entry.set("manager", ANCIENT);
        entry.remove("subresource");
        entry.set("time", &time);
        entry.set_fields(all);
        folded[at] = true;
        surplus -= 1;
    }
    let mut folded = folded.into_iter();
    managers.0.retain(|_| !folded.next().unwrap_or(false));
}
