//! Server-side apply: who set which field of an object, and what that means for the next write.
//!
//! Goal        an applied configuration changes what it says, removes what its manager applied before and says no more, and
//!             takes nothing from others without being told to
//! Relies on   the schema table: which lists merge, by which keys, and what is one value
//!
//! Rules of an apply, in order
//!   R1 first      on an object whose fields nobody owns, all there is belongs to `before-first-apply`
//!   R2 merge      the configuration is laid over the object (`combine`)
//!   R3 prune      what the manager applied before and does not now goes, unless somebody else owns it
//!   R4 own        the manager owns exactly what the configuration says, together with who owned it and wants the same
//!   R5 conflict   changing what others own is refused and says who owns what, unless forced; then they own it no more
//!   R6 kubectl    what kubectl set by client-side apply is no conflict for kubectl (`last_applied`)
//!   R7 time       an apply that changes neither the object nor what its manager owns leaves no trace
//!   R8 bound      at most `APPLIERS_MAX` appliers
//! All other writes are in `track`.
//! Not here      the sets of managers who wrote another API version of the kind are taken as they stand: versions of one
//!               kind have the same fields · a list or map that became one value in a later schema keeps the owners that its
//!               parts had
//!
//! Source: API concepts, "Server-Side Apply"; KEP-555.

mod check;
mod combine;
mod compare;
mod conflict;
mod entry;
mod gather;
mod last_applied;
mod place;
mod set;
mod track;
mod wire;

use serde_json::Value;

use crate::schema::Message;
use combine::{prune, with_fields};
use entry::Entry;

pub use check::check;
pub use combine::combine;
pub use compare::{Changes, compare};
pub use conflict::Conflicts;
pub use entry::{Managers, Operation, Writer, differ_only_in_time};
pub use gather::gather;
pub use last_applied::LAST_APPLIED;
pub use set::{Element, FieldSet};
pub use track::{ANCIENT, UPDATERS_MAX, create, update};
pub use wire::{FieldsError, parse, print};

/// Who owns what was there before anything was applied (R1).
pub const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Appliers of one object (R8): every one is in every object that is sent.
pub const APPLIERS_MAX: usize = 100;

/// Why an apply is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Others own what it would change.
    #[error("{0}")]
    Conflicts(Conflicts),
    /// The object has as many appliers as it may have.
    #[error("Too many: {found}: must have at most {APPLIERS_MAX} items")]
    TooManyAppliers {
        /// How many there would be.
        found: usize,
    },
}

/// What an apply makes of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The object, without `managedFields`.
    pub object: Value,
    /// Who owns what of it.
    pub managers: Managers,
}

/// Applies a configuration that `check` found fit to an object, both without `managedFields`. An object that does not
/// exist yet is one without fields.
pub fn apply(
    live: &Value,
    config: &Value,
    managers: Managers,
    (writer, force): (&Writer<'_>, bool),
    message: Message<'_>,
) -> Result<Applied, Refusal> {
    let mut managers = managers;
    if managers.is_empty() {
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        managers = create(live, None, &before, message);
    }
    let mut fields = gather(config, message);
    fields.subtract(&track::NOBODYS);
    let own = managers.0.iter().position(|entry| entry.is_of(writer, Operation::Apply)).map(|at| managers.0.remove(at));
    let mut object = combine(live.clone(), config, message);
    if let Some(own) = &own {
        prune(&mut object, &dropped(own, &fields, &managers, message), config, message);
    }
    let changes = compare(live, &object, message);
    let changed = changes.added.union(changes.modified);
    let mut conflicts = Conflicts::default();
    for entry in managers.0.iter().filter(|_| !force).filter(|entry| entry.owns_any(&changed)) {
        conflicts.add(entry, entry.fields().intersection(&changed));
    }
    if writer.manager == last_applied::KUBECTL
        && !conflicts.is_empty()
        && let Some(allowed) = last_applied::allowed(live, writer.api_version, message)
    {
        conflicts.allow(&allowed);
    }
    if !conflicts.is_empty() {
        return Err(Refusal::Conflicts(conflicts));
    }
    track::lose(&mut managers, &changed, |_| true);
    track::lose(&mut managers, &changes.removed, |_| true);
    if writer.manager == last_applied::KUBECTL {
        last_applied::keep(&mut object, config);
    }
    if !fields.is_empty() {
        let entry = next_entry(own, &fields, (writer, object != *live));
        managers.0.push(entry);
    }
    let found = managers.0.iter().filter(|entry| entry.is_applied()).count();
    if found > APPLIERS_MAX {
        return Err(Refusal::TooManyAppliers { found });
    }
    Ok(Applied { object, managers })
}

/// R3: what the manager owned, and now neither it nor anybody else does.
fn dropped(own: &Entry, fields: &FieldSet<'_>, others: &Managers, message: Message<'_>) -> FieldSet<'static> {
    let mut dropped = with_fields(own.fields(), message);
    dropped.subtract(&with_fields(fields.clone(), message));
    for other in &others.0 {
        if dropped.is_empty() {
            break;
        }
        dropped.subtract(&with_fields(other.fields(), message));
    }
    dropped.into_owned()
}

/// R4 and R7.
fn next_entry(own: Option<Entry>, fields: &FieldSet<'_>, (writer, has_changed): (&Writer<'_>, bool)) -> Entry {
    match own {
        Some(own) if !has_changed && own.api_version() == writer.api_version && own.fields() == *fields => own,
        _ => Entry::new(writer, Operation::Apply, fields),
    }
}

#[cfg(test)]
mod tests;
