//! The roles and bindings that every cluster has, read from `default_roles.txt`.
//!
//! Rules
//!   D1 whole        every line of the table is an object or a rule of the role above it
//!   D2 aggregated   `admin`, `edit` and `view` begin with what their parts hold, so that they work before a controller
//!                   looks at them
//! Source: authorization reference, "Default roles and role bindings".

use serde_json::{Value, json};
use windlass_api::{Kind, kinds};

const TABLE: &str = include_str!("default_roles.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
/// Roles that are made of others, each holding those after it.
const AGGREGATED: [&str; 3] = ["admin", "edit", "view"];

/// A role or binding.
pub(crate) struct DefaultObject {
    pub kind: &'static Kind,
    pub namespace: String,
    pub object: Value,
}

/// All of them, in an order in which each can be created.
pub(super) fn defaults() -> Vec<DefaultObject> {
    read(TABLE)
}

fn read(table: &str) -> Vec<DefaultObject> {
    let mut defaults: Vec<DefaultObject> = Vec::new();
    for line in table.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if let Some(rule) = line.strip_prefix("  ") {
            let role = defaults.last_mut().expect("a rule follows its role");
            let rules = role.object["rules"].as_array_mut().expect("only roles have rules");
            rules.push(read_rule(rule));
        } else if let Some(role) = line.strip_prefix("role ") {
            defaults.push(read_role(role));
        } else {
            let binding = line.strip_prefix("bind ").expect("a line is a role, a rule or a binding");
            defaults.push(read_binding(binding));
        }
    }
    fill_aggregated(&mut defaults);
    defaults
}

/// `NAME [in NAMESPACE] [adds to ROLE] [made of those that add to ROLE]`
fn read_role(text: &str) -> DefaultObject {
    let (text, made_of) = cut(text, " made of those that add to ");
    let (text, adds_to) = cut(text, " adds to ");
    let (name, namespace) = cut(text, " in ");
    let kind = if namespace.is_some() { &kinds::ROLE } else { &kinds::CLUSTER_ROLE };
    let mut role = named(kind, name, namespace);
    role.object["rules"] = json!([]);
    if let Some(role_name) = adds_to {
        role.object["metadata"]["labels"][label(role_name)] = json!("true");
    }
    if let Some(role_name) = made_of {
        let selector = json!({"matchLabels": {label(role_name): "true"}});
        role.object["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
    }
    role
}

/// `VERBS GROUP RESOURCES [named NAMES]` or `VERBS paths PATHS`
fn read_rule(text: &str) -> Value {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut verbs: Vec<&str> = Vec::new();
    for verb in words[0].split(',') {
        match verb {
            "read" => verbs.extend(READ),
            "write" => verbs.extend(WRITE),
            verb => verbs.push(verb),
        }
    }
    if words[1] == "paths" {
        return json!({"verbs": verbs, "nonResourceURLs": &words[2..]});
    }
    let group = if words[1] == "core" { "" } else { words[1] };
    let resources: Vec<&str> = words[2].split(',').collect();
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
    if let [_, _, _, "named", names] = words.as_slice() {
        rule["resourceNames"] = json!(names.split(',').collect::<Vec<_>>());
    }
    rule
}

/// `NAME [in NAMESPACE] to [role] ROLE: SUBJECTS`
fn read_binding(text: &str) -> DefaultObject {
    let (head, subjects) = text.split_once(": ").unwrap_or((text.trim_end_matches(':'), ""));
    let (head, role) = head.split_once(" to ").expect("a binding names a role");
    let (name, namespace) = cut(head, " in ");
    let (role_kind, role) = match role.strip_prefix("role ") {
        Some(role) => ("Role", role),
        None => ("ClusterRole", role),
    };
    let kind = if namespace.is_some() { &kinds::ROLE_BINDING } else { &kinds::CLUSTER_ROLE_BINDING };
    let mut binding = named(kind, name, namespace);
    binding.object["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
    let subjects: Vec<Value> = subjects.split_whitespace().map(read_subject).collect();
    if !subjects.is_empty() {
        binding.object["subjects"] = json!(subjects);
    }
    binding
}

fn read_subject(text: &str) -> Value {
    let (kind, name) = text.split_once(':').expect("a subject has a kind");
    match kind {
        "user" => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        "group" => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        _ => {
            let (namespace, name) = name.split_once('/').expect("an account has a namespace");
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    }
}

fn named(kind: &'static Kind, name: &str, namespace: Option<&str>) -> DefaultObject {
    let mut object = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind,
        "metadata": {
            "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {super::restore::AUTOUPDATE: "true"},
        },
    });
    let namespace = namespace.unwrap_or_default().to_owned();
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    DefaultObject { kind, namespace, object }
}

fn cut<'a>(text: &'a str, at: &str) -> (&'a str, Option<&'a str>) {
    text.split_once(at).map_or((text, None), |(head, tail)| (head, Some(tail)))
}

fn label(role: &str) -> String {
    format!("{GROUP}/aggregate-to-{role}")
}

/// D2. From the last to the first, since each holds those after it.
fn fill_aggregated(defaults: &mut [DefaultObject]) {
    for name in AGGREGATED.iter().rev() {
        let label = label(name);
        let parts = defaults.iter().filter(|part| part.object["metadata"]["labels"][&label] == "true");
        let rules: Vec<Value> =
            parts.flat_map(|part| part.object["rules"].as_array().into_iter().flatten().cloned()).collect();
        let role = defaults.iter_mut().find(|role| role.object["metadata"]["name"] == **name);
        if let Some(role) = role {
            role.object["rules"] = json!(rules);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::defaults;
    use std::collections::BTreeSet;
    use windlass_api::field::Errors;
    use windlass_api::resources;

    #[test]
    fn d1_every_line_is_a_valid_object_and_every_binding_has_its_role() {
        let (registry, defaults) = (resources::registry(), defaults());
        let mut names = BTreeSet::new();
        for default in &defaults {
            let object = &default.object;
            let kind = default.kind;
            let resource = registry.get(&kind.group, &kind.version, &kind.plural).expect("a built-in kind");
            let mut errors = Errors::new();
            resources::validate_metadata(resource, object, &mut errors);
            resource.rules.validate(object, &mut errors);
            assert!(errors.is_empty(), "{object}: {:?}", errors.iter().next());
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let name = text(&object["metadata"]["name"]);
            assert!(names.insert((kind.kind.to_string(), default.namespace.clone(), name.clone())), "{name} twice");
            let role = &object["roleRef"];
            if role.is_object() {
                let namespace = if role["kind"] == "Role" { default.namespace.clone() } else { String::new() };
                let role = (text(&role["kind"]), namespace, text(&role["name"]));
                assert!(names.contains(&role), "{name} binds {role:?}, which is not there");
            }
        }
    }

    #[test]
    fn d2_people_s_roles_hold_their_parts() {
        let defaults = defaults();
        let rules = |name: &str| {
            let found = defaults.iter().find(|role| role.object["metadata"]["name"] == name).expect("a role");
            found.object["rules"].as_array().expect("rules").clone()
        };
        let parts = [
            "system:aggregate-to-admin",
            "system:aggregate-to-edit",
            "system:aggregate-to-view",
            "system:aggregated-metrics-reader",
        ];
        let all: usize = parts.iter().map(|part| rules(part).len()).sum();
        assert_eq!((rules("admin").len(), rules("view")), (all, [rules(parts[2]), rules(parts[3])].concat()));
        assert!(parts.iter().all(|part| rules(part).iter().all(|rule| rules("admin").contains(rule))));
    }
}
