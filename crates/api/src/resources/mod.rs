//! The built-in kinds: one file each, and this list of them.
//!
//! Goal        a kind is a row of data plus the rules that are not data, both in the file named after it
//! Source      API reference, Kubernetes 1.37; columns as its server prints them
//! Not here    rules that need to look at another object or allocate something (apiserver: admission, allocation)

mod admission_registration;
pub mod age;
mod amount;
mod api_service;
mod binding;
mod certificate_signing_request;
mod check;
pub mod cluster_trust_bundle;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
pub mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device;
mod endpoint_slice;
mod endpoints;
mod event;
#[cfg(test)]
mod fixture;
mod flow_control;
mod horizontal_pod_autoscaler;
mod job;
pub(crate) mod label_selector;
mod lease;
mod limit_range;
mod metadata;
mod metrics;
mod namespace;
mod networking;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
pub mod pod;
mod pod_certificate_request;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod review;
mod runtime_class;
mod same;
pub mod samples;
mod secret;
mod service;
mod service_account;
mod stateful_set;
mod storage;
mod storage_version_migration;
pub(crate) mod tree;
mod workload;

use std::sync::Arc;

use serde_json::Value;

use crate::convert::{Convert, Stored};
use crate::kind::Kind;
use crate::resource::{Column, Registry, Resource, Rules, ScalePaths, Subresource, Verbs};
use crate::schema::MessageRef;

pub use admission_registration::expression::{policy_environment, policy_variables, webhook_environment};
pub use admission_registration::type_check::check_types;
pub use flow_control::flow_schema::{catch_all as catch_all_schema, everything_by, exempt as exempt_schema};
pub use flow_control::priority_level_configuration::catch_all as catch_all_level;
pub use metadata::{keep_system_metadata, metadata_warnings, validate_metadata, validate_metadata_update};
pub use priority_class::{PREEMPTION_DEFAULT, SYSTEM_CLASSES as SYSTEM_PRIORITY_CLASSES};

/// Every built-in kind.
pub fn all() -> Vec<Resource> {
    vec![
        component_status::resource(),
        namespace::resource(),
        node::resource(),
        pod::resource(),
        binding::resource(),
        service::resource(),
        config_map::resource(),
        secret::resource(),
        service_account::resource(),
        event::resource(),
        event::newer::resource(),
        deployment::resource(),
        replica_set::resource(),
        endpoint_slice::resource(),
        lease::resource(),
        replication_controller::resource(),
        endpoints::resource(),
        persistent_volume::resource(),
        persistent_volume_claim::resource(),
        limit_range::resource(),
        resource_quota::resource(),
        pod_template::resource(),
        stateful_set::resource(),
        daemon_set::resource(),
        controller_revision::resource(),
        job::resource(),
        cron_job::resource(),
        pod_disruption_budget::resource(),
        horizontal_pod_autoscaler::resource(),
        horizontal_pod_autoscaler::v1::resource(),
        rbac::role::resource(),
        rbac::role_binding::resource(),
        rbac::cluster_role::resource(),
        rbac::cluster_role_binding::resource(),
        review::token_review(),
        review::self_subject_review(),
        review::subject_access_review(),
        review::local_subject_access_review(),
        review::self_subject_access_review(),
        review::self_subject_rules_review(),
        networking::ingress::resource(),
        networking::ingress_class::resource(),
        networking::network_policy::resource(),
        networking::ip_address::resource(),
        networking::service_cidr::resource(),
        storage::storage_class::resource(),
        storage::volume_attachment::resource(),
        storage::volume_attributes_class::resource(),
        storage::csi_driver::resource(),
        storage::csi_node::resource(),
        storage::csi_storage_capacity::resource(),
        priority_class::resource(),
        runtime_class::resource(),
        certificate_signing_request::resource(),
        cluster_trust_bundle::resource(),
        pod_certificate_request::resource(),
        admission_registration::webhook::validating(),
        admission_registration::webhook::mutating(),
        admission_registration::policy::validating(),
        admission_registration::policy::mutating(),
        admission_registration::binding::validating(),
        admission_registration::binding::mutating(),
        api_service::resource(),
        flow_control::flow_schema::resource(),
        flow_control::priority_level_configuration::resource(),
        device::device_class::resource(),
        device::device_taint_rule::resource(),
        device::resource_claim::resource(),
        device::resource_claim_template::resource(),
        device::resource_slice::resource(),
        storage_version_migration::resource(),
        metrics::node(),
        metrics::pod(),
        custom_resource_definition::resource(),
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
        list_kind: format!("{}List", kind.kind),
        scale: ScalePaths::default(),
        custom: None,
        deprecation: None,
        subresources: Vec::new(),
        columns,
        selectable_fields: Vec::new(),
        generation: false,
        grace_seconds_default: None,
        shows_deleted: false,
        created_by_update: false,
        needs_revision: false,
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
    fn stored_as(mut self, kind: &Kind, convert: impl Convert) -> Resource {
        self.stored = Some(Stored::new(kind.clone(), Arc::new(convert)));
        self
    }

    /// Every answer tells clients that they should not use it any more.
    fn deprecated(mut self, warning: &str) -> Resource {
        self.deprecation = Some(warning.to_owned());
        self
    }

    /// Objects are made up by the server when somebody asks for them.
    fn read_only(mut self) -> Resource {
        self.verbs = Verbs::ReadOnly;
        self
    }

    /// A delete is answered with the object that is gone, not with a Status.
    fn shows_deleted(mut self) -> Resource {
        self.shows_deleted = true;
        self
    }

    /// An update of an object that does not exist creates it.
    fn created_by_update(mut self) -> Resource {
        self.created_by_update = true;
        self
    }

    /// An update that names no revision is refused, not applied to whatever is there.
    fn needs_revision(mut self) -> Resource {
        self.needs_revision = true;
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

/// The column of the kinds that Kubernetes has no columns for.
fn created_column() -> Column {
    column("Created At", "date", "when the object was created")
}

/// The cell of [`created_column`].
fn created_cell(object: &Value) -> Value {
    object["metadata"]["creationTimestamp"].clone()
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
