//! Whom a binding binds, and to which role: what both kinds of bindings share.
//!
//! Rules
//!   B1 role       named by group, kind and name; never changes, since a binding to another role is another decision
//!   B2 subjects   a user or group of this API group, or a service account with its namespace; a RoleBinding's own
//!                 namespace is meant where it names none
//!   B3 defaults   groups left out are filled in

use jiff::Timestamp;
use serde_json::{Value, json};

use super::GROUP;
use crate::field::{Errors, Path};
use crate::name;
use crate::resource::Column;
use crate::resources::check::named;
use crate::resources::tree::{Tree, fill_text, items_mut, part_mut};
use crate::resources::{age, age_column, column, name_column, wide};

/// Whose subjects they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Namespace,
    Cluster,
}

/// B3.
pub(super) fn default(binding: &mut Value) {
    if binding.is_set("roleRef")
        && let Some(role) = part_mut(binding, "roleRef")
    {
        fill_text(role, "apiGroup", GROUP);
    }
    for subject in items_mut(binding, "subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            fill_text(subject, "apiGroup", GROUP);
        }
    }
}

/// Adds an error for each broken rule of a binding.
pub(super) fn validate(binding: &Value, role_kinds: &[&str], scope: Scope, errors: &mut Errors) {
    let (role, path) = (&binding["roleRef"], Path::new("roleRef"));
    if role.text("apiGroup") != GROUP {
        errors.not_supported(&path.child("apiGroup"), role.text("apiGroup"), &[GROUP]);
    }
    if !role_kinds.contains(&role.text("kind")) {
        errors.not_supported(&path.child("kind"), role.text("kind"), role_kinds);
    }
    match role.text("name") {
        "" => errors.required(&path.child("name"), ""),
        text => named(name::path_segment, text, &path.child("name"), errors),
    }
    let path = Path::new("subjects");
    for (index, subject) in binding.items("subjects").iter().enumerate() {
        validate_subject(subject, scope, &path.index(index), errors);
    }
}

/// B1.
pub(super) fn validate_update(binding: &Value, old: &Value, errors: &mut Errors) {
    if binding["roleRef"] != old["roleRef"] {
        errors.invalid(&Path::new("roleRef"), binding["roleRef"].clone(), "cannot change roleRef");
    }
}

/// B2.
fn validate_subject(subject: &Value, scope: Scope, at: &Path, errors: &mut Errors) {
    let (subject_name, group) = (subject.text("name"), subject.text("apiGroup"));
    if subject_name.is_empty() {
        errors.required(&at.child("name"), "");
    }
    match subject.text("kind") {
        "ServiceAccount" => {
            if !subject_name.is_empty() {
                named(name::subdomain, subject_name, &at.child("name"), errors);
            }
            if !group.is_empty() {
                errors.not_supported(&at.child("apiGroup"), group, &[""]);
            }
            if scope == Scope::Cluster && subject.text("namespace").is_empty() {
                errors.required(&at.child("namespace"), "");
            }
        }
        "User" | "Group" if group != GROUP => errors.not_supported(&at.child("apiGroup"), group, &[GROUP]),
        "User" | "Group" => {}
        other => errors.not_supported(&at.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// The columns of both kinds of bindings.
pub(super) fn columns() -> Vec<Column> {
    vec![
        name_column(),
        column("Role", "string", "the role whose rights are given"),
        age_column(),
        wide("Users", "string", "users who get them"),
        wide("Groups", "string", "groups whose members get them"),
        wide("ServiceAccounts", "string", "service accounts that get them"),
    ]
}

/// The cells of both kinds of bindings.
pub(super) fn cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = &binding["roleRef"];
    let named = |kind: &str| {
        let subjects = binding.items("subjects").iter().filter(|subject| subject.text("kind") == kind);
        let shown = subjects.map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", subject.text("namespace"), subject.text("name")),
            _ => subject.text("name").to_owned(),
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    vec![
        json!(binding["metadata"].text("name")),
        json!(format!("{}/{}", role.text("kind"), role.text("name"))),
        age::of(binding, now),
        json!(named("User")),
        json!(named("Group")),
        json!(named("ServiceAccount")),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Scope, cells, default, validate, validate_update};
    use crate::field::Errors;
    use serde_json::{Value, json};

    fn check(scope: Scope, mut binding: Value, expected: &[&str]) {
        default(&mut binding);
        let mut errors = Errors::new();
        validate(&binding, &["Role", "ClusterRole"], scope, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{binding}");
    }

    #[test]
    fn b1_a_binding_names_a_role_for_good() {
        check(Scope::Namespace, json!({"roleRef": {"kind": "Role", "name": "r"}}), &[]);
        check(
            Scope::Namespace,
            json!({"roleRef": {"apiGroup": "x", "kind": "Pod", "name": "a/b"}}),
            &[
                "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                "roleRef.kind: Unsupported value: \"Pod\": supported values: \"Role\", \"ClusterRole\"",
                "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        );
        let (old, new) = (json!({"roleRef": {"name": "a"}}), json!({"roleRef": {"name": "b"}}));
        let mut errors = Errors::new();
        validate_update(&new, &old, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["roleRef: Invalid value: {\"name\":\"b\"}: cannot change roleRef"]);
    }

    #[test]
    fn b2_b3_subjects_are_whole_and_their_groups_filled_in() {
        let to = |subjects: Value| json!({"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": subjects});
        let fine = json!([{"kind": "User", "name": "jane"}, {"kind": "Group", "name": "dev"},
            {"kind": "ServiceAccount", "name": "bot", "namespace": "a"}]);
        check(Scope::Cluster, to(fine), &[]);
        let homeless = to(json!([{"kind": "ServiceAccount", "name": "bot"}]));
        check(Scope::Namespace, homeless.clone(), &[]);
        check(Scope::Cluster, homeless, &["subjects[0].namespace: Required value"]);
        check(
            Scope::Cluster,
            to(json!([{"kind": "User", "apiGroup": "x"}, {"kind": "ServiceAccount", "name": "A", "namespace": "a",
                "apiGroup": "x"}, {"kind": "Pod", "name": "p"}])),
            &[
                "subjects[0].name: Required value",
                "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                "subjects[1].name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case \
                 alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
                 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "subjects[1].apiGroup: Unsupported value: \"x\": supported values: \"\"",
                "subjects[2].kind: Unsupported value: \"Pod\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        );
    }

    #[test]
    fn the_printed_row() {
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
        let binding = json!({"metadata": {"name": "b", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "jane"}, {"kind": "User", "name": "joe"},
                {"kind": "ServiceAccount", "name": "bot", "namespace": "a"}]});
        let expected =
            [json!("b"), json!("ClusterRole/view"), json!("10m"), json!("jane, joe"), json!(""), json!("a/bot")];
        assert_eq!(cells(&binding, now), expected);
    }
}
