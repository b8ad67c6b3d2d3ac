//! OpenAPI v3, from the rows of the registry and the schema table: what kubectl asks before it applies, and explains.
//!
//! Goal        per group version one document: every path that is served, every schema reachable from it
//! Relies on   the schema table; `descriptions.txt`, our own words for the main fields
//! Not here    OpenAPI v2: kubectl asks for it only where v3 is missing
//!
//! Source: API concepts, "OpenAPI V3"; the extensions `x-kubernetes-*` of the API reference.

mod components;
mod paths;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use crate::resource::{Registry, Resource};

/// One document, as it is sent.
#[derive(Debug)]
pub struct Document {
    /// The JSON.
    pub json: Vec<u8>,
    /// Changes when the content does; part of the URL, so that clients may keep the document for good.
    pub hash: String,
}

/// The documents of a registry, each built when it is first asked for. A changed registry makes new documents.
pub struct Documents {
    registry: Registry,
    built: BTreeMap<String, OnceLock<Arc<Document>>>,
}

impl Documents {
    /// The documents of these kinds.
    pub fn new(registry: Registry) -> Documents {
        let built = registry.iter().map(|resource| (path_of(resource), OnceLock::new())).collect();
        Documents { registry, built }
    }

    /// The document at `/openapi/v3/{path}`, such as `api/v1` or `apis/apps/v1`.
    pub fn get(&self, path: &str) -> Option<Arc<Document>> {
        let slot = self.built.get(path)?;
        let build = || {
            let json = document(&self.registry, path).to_string().into_bytes();
            let hash = content_hash(&json);
            Arc::new(Document { json, hash })
        };
        Some(Arc::clone(slot.get_or_init(build)))
    }

    /// The index at `/openapi/v3`. Builds every document, for its hash.
    pub fn index(&self) -> Value {
        let mut paths = Map::new();
        for path in self.built.keys() {
            let Some(document) = self.get(path) else { continue };
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            paths.insert(path.clone(), json!({"serverRelativeURL": url}));
        }
        json!({"paths": paths})
    }
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

/// FNV-1a, 64 bits: tells contents apart, keeps no secret.
fn content_hash(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016X}")
}

#[cfg(test)]
mod tests;
