//! The built-in kinds: one file each, and this list of them.
//!
//! Goal        a kind is a row of data plus the rules that are not data, both in the file named after it
//! Source      API reference, Kubernetes 1.37; columns as its server prints them
//! Not here    rules that need to look at another object or allocate something (apiserver: admission, allocation)

pub mod age;
mod check;
mod config_map;
mod deployment;
mod endpoint_slice;
mod event;
pub(crate) mod label_selector;
mod lease;
mod metadata;
mod namespace;
mod node;
pub mod pod;
mod rbac;
mod replica_set;
mod review;
mod same;
pub mod samples;
mod secret;
mod service;
mod service_account;
pub(crate) mod tree;
mod workload;

use std::sync::Arc;

use crate::convert::{Convert, Stored};
use crate::kind::Kind;
use crate::resource::{Column, Registry, Resource, Rules, Subresource, Verbs};
use crate::schema::MessageRef;

pub use metadata::{keep_system_metadata, validate_metadata, validate_metadata_update};

/// Every built-in kind.
pub fn all() -> Vec<Resource> {
    vec![
        namespace::resource(),
        node::resource(),
        pod::resource(),
        service::resource(),
        config_map::resource(),
        secret::resource(),
        service_account::resource(),
        event::resource(),
        deployment::resource(),
        replica_set::resource(),
        endpoint_slice::resource(),
        lease::resource(),
        rbac::role::resource(),
        rbac::role_binding::resource(),
        rbac::cluster_role::resource(),
        rbac::cluster_role_binding::resource(),
        review::self_subject_review(),
        review::subject_access_review(),
        review::local_subject_access_review(),
        review::self_subject_access_review(),
        review::self_subject_rules_review(),
    ]
}

/// The registry of the built-in kinds.
pub fn registry() -> Registry {
    Registry::new(all())
}

/// A row with the columns and rules of a kind; the file of the kind fills in what else it has.
fn row(kind: &Kind, columns: Vec<Column>, rules: impl Rules) -> Resource {
    Resource {
        kind: kind.clone(),
        singular: kind.kind.to_lowercase(),
        short_names: Vec::new(),
        categories: Vec::new(),
        message: MessageRef::built_in(&kind.api_version(), &kind.kind)
            .expect("each built-in kind is in the schema table"),
        verbs: Verbs::All,
        stored: None,
        subresources: Vec::new(),
        columns,
        selectable_fields: Vec::new(),
        generation: false,
        grace_seconds_default: None,
        rules: Arc::new(rules),
    }
}

impl Resource {
    fn short_names(mut self, names: &[&str]) -> Resource {
        self.short_names = names.iter().map(ToString::to_string).collect();
        self
    }

    fn in_all(mut self) -> Resource {
        self.categories.push("all".to_owned());
        self
    }

    fn subresources(mut self, subresources: &[Subresource]) -> Resource {
        self.subresources = subresources.to_vec();
        self
    }

    fn selectable(mut self, fields: &[&str]) -> Resource {
        self.selectable_fields = fields.iter().map(ToString::to_string).collect();
        self
    }

    /// The objects lie in the store as `kind`, and are converted on the way.
    #[expect(dead_code, reason = "the first kinds of several versions are on their way")]
    fn stored_as(mut self, kind: &Kind, convert: impl Convert) -> Resource {
        self.stored = Some(Stored { kind: kind.clone(), convert: Arc::new(convert) });
        self
    }

    fn counts_generations(mut self) -> Resource {
        self.generation = true;
        self
    }
}

/// The column that every kind has: the object's name.
fn name_column() -> Column {
    Column { format: "name", ..column("Name", "string", "the object's name, unique in its namespace") }
}

/// The column of the time since creation.
fn age_column() -> Column {
    column("Age", "string", "time since the object was created")
}

fn column(name: &str, kind: &'static str, description: &str) -> Column {
    Column { name: name.to_owned(), kind, format: "", description: description.to_owned(), priority: 0 }
}

/// A column that only `-o wide` shows.
fn wide(name: &str, kind: &'static str, description: &str) -> Column {
    Column { priority: 1, ..column(name, kind, description) }
}

#[cfg(test)]
mod tests;
