//! OpenAPI v3, from the rows of the registry and the schema table: what kubectl asks before it applies, and explains.
//!
//! Goal        per group version one document: every path that is served, every schema reachable from it
//! Relies on   the schema table; `descriptions.txt`, our own words for the main fields
//! Not here    the hash and the form in which a document is sent (apiserver)
//!
//! Source: API concepts, "OpenAPI V3"; the extensions `x-kubernetes-*` of the API reference.

mod components;
mod paths;
pub mod v2;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::resource::{Registry, Resource};

/// The group versions of a registry as their documents' paths have them: `api/v1`, `apis/apps/v1`.
pub fn paths(registry: &Registry) -> BTreeSet<String> {
    registry.iter().map(|resource| path_of(resource)).collect()
}

fn path_of(resource: &Resource) -> String {
    let kind = &resource.kind;
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

/// The document of one group version, such as `apis/apps/v1`.
pub fn document(registry: &Registry, path: &str) -> Value {
    let rows: Vec<&Resource> = registry.iter().map(Arc::as_ref).filter(|resource| path_of(resource) == path).collect();
    let mut shown = paths::Paths::default();
    for resource in rows {
        shown.add(resource);
    }
    let paths::Paths { paths, used } = shown;
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Windlass", "version": "v1.37.0"},
        "paths": paths,
        "components": {"schemas": components::schemas(registry, used)},
    })
}

/// What `apiVersion` or `kind` of any object means.
pub(crate) fn type_meta(field: &str) -> &'static str {
    components::type_meta(field)
}

/// The metadata of any object.
pub(crate) fn metadata() -> Value {
    json!({"allOf": [components::meta("ObjectMeta")]})
}

#[cfg(test)]
mod tests;
