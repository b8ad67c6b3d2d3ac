//! Discovery: what is served, for clients that ask before they speak.
//!
//! Source: API concepts, "Discovery API": the aggregated form (apidiscovery.k8s.io/v2) and the plain one (v1).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::resource::{Registry, Resource, Subresource, Verbs};

/// The media type of the aggregated form.
pub const AGGREGATED_MEDIA_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api` in the aggregated form: the core group.
pub fn aggregated_core(registry: &Registry) -> Value {
    aggregated(registry, |group| group.is_empty())
}

/// `/apis` in the aggregated form: all groups but the core.
pub fn aggregated_groups(registry: &Registry) -> Value {
    aggregated(registry, |group| !group.is_empty())
}

/// `/api` in the plain form. `server_address` is `host:port` of this server.
pub fn core_versions(registry: &Registry, server_address: &str) -> Value {
    let versions: Vec<&str> =
        groups(registry).remove("").unwrap_or_default().into_iter().map(|(version, _)| version).collect();
    json!({
        "kind": "APIVersions", "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis` in the plain form.
pub fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = groups(registry)
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, versions)| group_body(name, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP` in the plain form; `None` if there is no such group.
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let groups = groups(registry);
    let mut body = group_body(name, groups.get(name).filter(|_| !name.is_empty())?);
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    Some(body)
}

/// `/api/VERSION` or `/apis/GROUP/VERSION` in the plain form; `None` if there is no such version.
pub fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let found: Vec<&Resource> = registry
        .iter()
        .map(AsRef::as_ref)
        .filter(|resource| resource.kind.group == group && resource.kind.version == version)
        .collect();
    let group_version = found.first()?.kind.api_version();
    let resources: Vec<Value> = found.into_iter().flat_map(plain_resource).collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    }))
}

type Versions<'a> = Vec<(&'a str, Vec<&'a Resource>)>;

/// Groups by name; their versions with the preferred one first.
fn groups(registry: &Registry) -> BTreeMap<&str, Versions<'_>> {
    let mut groups: BTreeMap<&str, BTreeMap<&str, Vec<&Resource>>> = BTreeMap::new();
    for resource in registry.iter() {
        let versions = groups.entry(&resource.kind.group).or_default();
        versions.entry(&resource.kind.version).or_default().push(resource);
    }
    let mut sorted = BTreeMap::new();
    for (name, versions) in groups {
        let mut versions: Versions = versions.into_iter().collect();
        versions.sort_by_key(|(version, _)| Reverse(stability(version)));
        sorted.insert(name, versions);
    }
    sorted
}

/// How much a version is preferred: stable over beta over alpha, then the greater number. Other names come last.
fn stability(version: &str) -> (u8, u32, u32) {
    let parse = |version: &str| -> Option<(u8, u32, u32)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|byte: char| !byte.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..digits].parse().ok()?;
        match &rest[digits..] {
            "" => Some((3, major, 0)),
            beta if beta.starts_with("beta") => Some((2, major, beta[4..].parse().ok()?)),
            alpha if alpha.starts_with("alpha") => Some((1, major, alpha[5..].parse().ok()?)),
            _ => None,
        }
    };
    parse(version).unwrap_or((0, 0, 0))
}

fn group_body(name: &str, versions: &Versions) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn plain_resource(resource: &Resource) -> Vec<Value> {
    let kind = &resource.kind;
    let mut main = json!({
        "name": kind.plural, "singularName": resource.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": resource.verbs.words(),
    });
    insert_names(&mut main, resource);
    if resource.verbs == Verbs::All {
        main["storageVersionHash"] = json!(storage_version_hash(resource));
    }
    let mut shown = vec![main];
    for subresource in &resource.subresources {
        let served = served(resource, *subresource);
        let mut part = json!({
            "name": format!("{}/{}", kind.plural, subresource.as_str()), "singularName": "",
            "namespaced": kind.namespaced, "kind": served.kind, "verbs": served.verbs,
        });
        if served.group != kind.group || served.version != kind.version {
            part["group"] = json!(served.group);
            part["version"] = json!(served.version);
        }
        shown.push(part);
    }
    shown
}

/// Changes when objects of the kind are stored in another version: clients that migrate them compare it.
fn storage_version_hash(resource: &Resource) -> String {
    let stored = resource.stored.as_ref().map_or(&resource.kind, |stored| &stored.kind);
    let text = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    // FNV-1a, 64 bits: tells versions apart, keeps no secret.
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    BASE64.encode(hash.to_be_bytes())
}

fn insert_names(shown: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        shown["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        shown["categories"] = json!(resource.categories);
    }
}

fn aggregated(registry: &Registry, wanted: impl Fn(&str) -> bool) -> Value {
    let mut items = Vec::new();
    for (name, versions) in groups(registry) {
        if !wanted(name) {
            continue;
        }
        let versions: Vec<Value> = versions
            .iter()
            .map(|(version, resources)| {
                let resources: Vec<Value> = resources.iter().map(|resource| aggregated_resource(resource)).collect();
                json!({"version": version, "freshness": "Current", "resources": resources})
            })
            .collect();
        let mut metadata = Map::new();
        if !name.is_empty() {
            metadata.insert("name".to_owned(), json!(name));
        }
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = &resource.kind;
    let mut shown = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs.words(),
    });
    insert_names(&mut shown, resource);
    let parts: Vec<Value> = resource
        .subresources
        .iter()
        .map(|subresource| {
            let served = served(resource, *subresource);
            json!({
                "subresource": subresource.as_str(), "verbs": served.verbs,
                "responseKind": {"group": served.group, "version": served.version, "kind": served.kind},
            })
        })
        .collect();
    if !parts.is_empty() {
        shown["subresources"] = Value::Array(parts);
    }
    shown
}

/// What a subresource speaks.
struct Served<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    verbs: &'static [&'static str],
}

fn served(resource: &Resource, subresource: Subresource) -> Served<'_> {
    const READ_WRITE: &[&str] = &["get", "patch", "update"];
    const STREAM: &[&str] = &["create", "get"];
    let kind = &resource.kind;
    let own = |verbs| Served { group: &kind.group, version: &kind.version, kind: &kind.kind, verbs };
    let core = |kind, verbs| Served { group: "", version: "v1", kind, verbs };
    match subresource {
        Subresource::Status | Subresource::EphemeralContainers | Subresource::Resize | Subresource::Approval => {
            own(READ_WRITE)
        }
        Subresource::Token => {
            Served { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest", verbs: &["create"] }
        }
        Subresource::Scale => Served { group: "autoscaling", version: "v1", kind: "Scale", verbs: READ_WRITE },
        Subresource::Binding => core("Binding", &["create"]),
        Subresource::Eviction => Served { group: "policy", version: "v1", kind: "Eviction", verbs: &["create"] },
        Subresource::Log => own(&["get"]),
        Subresource::Exec => core("PodExecOptions", STREAM),
        Subresource::Attach => core("PodAttachOptions", STREAM),
        Subresource::PortForward => core("PodPortForwardOptions", STREAM),
        Subresource::Proxy => core(proxy_options(&kind.kind), &["create", "delete", "get", "patch", "update"]),
        Subresource::Finalize => own(&["update"]),
    }
}

/// The kind of the options of a proxy.
pub(crate) fn proxy_options(kind: &str) -> &'static str {
    match kind {
        "Pod" => "PodProxyOptions",
        "Service" => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    }
}

#[cfg(test)]
mod tests {
    use super::{aggregated_core, aggregated_groups, core_versions, group, group_list, resource_list, stability};
    use crate::resources;
    use serde_json::{Value, json};

    fn find<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
        let items = list.as_array().expect("a list");
        items.iter().find(|item| item[key] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
    }

    #[test]
    fn the_aggregated_form_says_all_of_a_kind() {
        let registry = resources::registry();
        let groups = aggregated_groups(&registry);
        let apps = groups["items"].as_array().expect("items").iter().find(|item| item["metadata"]["name"] == "apps");
        let deployments = find(&apps.expect("apps")["versions"][0]["resources"], "resource", "deployments");
        assert_eq!(
            *deployments,
            json!({
                "resource": "deployments", "singularResource": "deployment", "scope": "Namespaced",
                "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                "shortNames": ["deploy"], "categories": ["all"],
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "subresources": [
                    {"subresource": "status", "verbs": ["get", "patch", "update"],
                     "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
                    {"subresource": "scale", "verbs": ["get", "patch", "update"],
                     "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}},
                ],
            })
        );
        let core = aggregated_core(&registry);
        assert_eq!(core["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(core["items"][0]["metadata"], json!({}));
        let nodes = find(&core["items"][0]["versions"][0]["resources"], "resource", "nodes");
        assert_eq!(nodes["scope"], "Cluster");
    }

    #[test]
    fn the_plain_form_lists_subresources_as_resources() {
        let registry = resources::registry();
        let core = resource_list(&registry, "", "v1").expect("the core group");
        assert_eq!(core["groupVersion"], "v1");
        assert_eq!(find(&core["resources"], "name", "pods/eviction")["group"], "policy");
        assert_eq!(find(&core["resources"], "name", "pods/log").get("group"), None);
        assert_eq!(find(&core["resources"], "name", "services")["shortNames"], json!(["svc"]));
        assert_eq!(resource_list(&registry, "apps", "v9"), None);
        assert_eq!(core_versions(&registry, "127.0.0.1:6443")["versions"], json!(["v1"]));
        let apps = group(&registry, "apps").expect("apps");
        assert_eq!(apps["preferredVersion"], json!({"groupVersion": "apps/v1", "version": "v1"}));
        assert_eq!(group(&registry, ""), None);
        let groups = group_list(&registry);
        let names: Vec<&Value> =
            groups["groups"].as_array().expect("groups").iter().map(|group| &group["name"]).collect();
        assert!(names.is_sorted_by_key(|name| name.as_str()) && names.iter().all(|name| **name != ""), "{names:?}");
        assert!(names.contains(&&json!("apps")) && names.contains(&&json!("storage.k8s.io")), "{names:?}");
    }

    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["v1alpha1", "v2", "v1", "v1beta2", "v10", "foo", "v1beta1"];
        versions.sort_by_key(|version| std::cmp::Reverse(stability(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
