//! What an apply would take from others: who owns which field, in the words that people and clients know.
//!
//! Source: API concepts, "Conflicts"; Status with reason Conflict and causes FieldManagerConflict.

use std::collections::BTreeMap;
use std::fmt;

use super::entry::Entry;
use super::set::FieldSet;
use crate::ApiError;
use crate::error::{Cause, Reason};

/// Fields reported of one apply: enough to decide, bounded against hostile input.
const CONFLICTS_MAX: usize = 256;

/// The fields that an apply would take, by who owns them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conflicts(BTreeMap<String, FieldSet<'static>>);

impl Conflicts {
    /// Adds the fields of a manager that an apply would change.
    pub(super) fn add(&mut self, owner: &Entry, taken: FieldSet<'_>) {
        let mut shown = format!("{:?}", owner.manager());
        if !owner.subresource().is_empty() {
            shown = format!("{shown} with subresource {:?}", owner.subresource());
        }
        if !owner.is_applied() {
            shown = format!("{shown} using {}", owner.api_version());
        }
        self.0.entry(shown).or_default().add(taken.leaves().into_owned());
    }

    /// Takes fields out about which there is no conflict after all.
    pub(super) fn allow(&mut self, allowed: &FieldSet<'_>) {
        self.0.retain(|_, taken| {
            taken.subtract(allowed);
            !taken.is_empty()
        });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owners: Vec<(&String, Vec<String>)> = self.0.iter().map(|(owner, taken)| (owner, taken.paths())).collect();
        let count: usize = owners.iter().map(|(_, paths)| paths.len()).sum();
        if let ([(owner, paths)], 1) = (owners.as_slice(), count) {
            return write!(out, "Apply failed with 1 conflict: conflict with {owner}: {}", paths[0]);
        }
        let mut lines = Vec::new();
        for (owner, paths) in owners {
            lines.push(format!("conflicts with {owner}:"));
            lines.extend(paths.iter().map(|path| format!("- {path}")));
        }
        let left_off = lines.len().saturating_sub(CONFLICTS_MAX);
        lines.truncate(CONFLICTS_MAX);
        if left_off > 0 {
            lines.push(format!("- and {left_off} more"));
        }
        write!(out, "Apply failed with {count} conflicts: {}", lines.join("\n"))
    }
}

impl From<Conflicts> for ApiError {
    fn from(conflicts: Conflicts) -> ApiError {
        let mut error = ApiError::new(Reason::Conflict, conflicts.to_string());
        let causes = conflicts.0.iter().flat_map(|(owner, taken)| {
            taken.paths().into_iter().map(move |field| Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {owner}"),
                field,
            })
        });
        error.details.causes = causes.take(CONFLICTS_MAX).collect();
        error
    }
}
