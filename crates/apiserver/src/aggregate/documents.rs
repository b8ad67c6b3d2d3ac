//! Aggregated APIs in this server's documents: discovery in both forms, the index of OpenAPI v3, and OpenAPI v2.
//!
//! Rules
//!   D1 added      a group that is served elsewhere is listed after this server's own; a version of an own group after its
//!                 own versions
//!   D2 away       one that is not available is still listed, and said to be stale; OpenAPI does not speak of it

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Aggregated, all};
use crate::documents::Document;
use crate::server::Server;
use crate::write::text;

/// What an aggregated API said of itself.
pub(crate) struct Found {
    /// Its APIResourceList.
    pub resources: Value,
    /// Where its OpenAPI v3 is, with its hash.
    pub open_api: Option<String>,
    /// Its OpenAPI v2, if it has any, and when that was read.
    pub open_api_v2: (Instant, Option<Arc<Document>>),
}

/// What an aggregated API's server says in OpenAPI v2, of this group version and maybe of others.
pub(crate) struct OpenApiV2 {
    pub group: String,
    pub version: String,
    pub document: Arc<Document>,
}

fn items<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    value.get_mut(field).and_then(Value::as_array_mut)
}

/// D1: adds to an APIGroupList. Whether there was something to add.
pub(crate) fn add_groups(server: &Server, list: &mut Value) -> bool {
    let all = all(server);
    for api in &all {
        let Some(groups) = items(list, "groups") else { return false };
        match groups.iter_mut().find(|group| group["name"] == *api.group) {
            Some(group) => add_version(group, api),
            None => groups.push(group(api)),
        }
    }
    !all.is_empty()
}

fn version(api: &Aggregated) -> Value {
    json!({"groupVersion": format!("{}/{}", api.group, api.version), "version": api.version})
}

fn group(api: &Aggregated) -> Value {
    json!({"name": api.group, "versions": [version(api)], "preferredVersion": version(api)})
}

fn add_version(group: &mut Value, api: &Aggregated) {
    if let Some(versions) = items(group, "versions") {
        versions.push(version(api));
    }
}

/// D1: the APIGroup of this name: this server's own, if it has one, with the versions served elsewhere.
pub(crate) fn api_group(server: &Server, name: &str, own: Option<Value>) -> Option<Value> {
    all(server).iter().filter(|api| api.group == name).fold(own, |found, api| match found {
        Some(mut found) => {
            add_version(&mut found, api);
            Some(found)
        }
        None => {
            let mut found = group(api);
            found["kind"] = json!("APIGroup");
            found["apiVersion"] = json!("v1");
            Some(found)
        }
    })
}

/// D1 and D2: adds to an APIGroupDiscoveryList. Whether there was something to add.
pub(crate) fn add_aggregated(server: &Server, list: &mut Value) -> bool {
    let all = all(server);
    for api in &all {
        let version = discovered(api);
        let Some(groups) = items(list, "items") else { return false };
        match groups.iter_mut().find(|group| group["metadata"]["name"] == *api.group) {
            Some(group) => {
                if let Some(versions) = items(group, "versions") {
                    versions.push(version);
                }
            }
            None => {
                groups.push(json!({"metadata": {"name": api.group, "creationTimestamp": null}, "versions": [version]}))
            }
        }
    }
    !all.is_empty()
}

/// One version in the aggregated form, made of its APIResourceList.
fn discovered(api: &Arc<Aggregated>) -> Value {
    let found = api.found();
    let listed = found.as_ref().and_then(|found| found.resources["resources"].as_array()).cloned().unwrap_or_default();
    let kind = |resource: &Value| {
        let text = |field: &str, otherwise: &str| match text(resource, field) {
            "" => otherwise.to_owned(),
            said => said.to_owned(),
        };
        json!({"group": text("group", &api.group), "version": text("version", &api.version), "kind": text("kind", "")})
    };
    let mut resources: Vec<Value> = Vec::new();
    for resource in listed.iter().filter(|resource| !text(resource, "name").contains('/')) {
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut shown = json!({
            "resource": resource["name"], "responseKind": kind(resource), "scope": scope,
            "singularResource": text(resource, "singularName"), "verbs": resource["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if resource[field].is_array() {
                shown[field] = resource[field].clone();
            }
        }
        let prefix = format!("{}/", text(resource, "name"));
        let parts = listed.iter().filter_map(|part| Some((part, text(part, "name").strip_prefix(&prefix)?)));
        let parts: Vec<Value> = parts
            .map(|(part, name)| json!({"subresource": name, "responseKind": kind(part), "verbs": part["verbs"]}))
            .collect();
        if !parts.is_empty() {
            shown["subresources"] = Value::Array(parts);
        }
        resources.push(shown);
    }
    let freshness = if api.is_available && found.is_some() { "Current" } else { "Stale" };
    json!({"version": api.version, "resources": resources, "freshness": freshness})
}

/// D1: adds to the paths of the index of OpenAPI v3. Whether there was something to add.
pub(crate) fn add_open_api(server: &Server, paths: &mut Map<String, Value>) -> bool {
    let before = paths.len();
    for api in all(server).iter().filter(|api| api.is_available) {
        if let Some(url) = api.found().and_then(|found| found.open_api.clone()) {
            paths.insert(format!("apis/{}/{}", api.group, api.version), json!({"serverRelativeURL": url}));
        }
    }
    paths.len() > before
}

/// The documents of OpenAPI v2 of those that are available.
pub(crate) fn open_api_v2(server: &Server) -> Vec<OpenApiV2> {
    let all = all(server);
    let available = all.iter().filter(|api| api.is_available);
    let said = available.filter_map(|api| {
        let document = api.found()?.open_api_v2.1.clone()?;
        Some(OpenApiV2 { group: api.group.clone(), version: api.version.clone(), document })
    });
    said.collect()
}
