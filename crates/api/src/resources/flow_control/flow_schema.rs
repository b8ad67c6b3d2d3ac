//! FlowSchema: which requests go to which priority level.
//!
//! Rules
//!   F1 order       a precedence of 1 to 10,000; 1 is for the schema `exempt` alone
//!   F2 level       the level is named, and a flow is told from others by user or namespace
//!   F3 subjects    a user, a group or an account, exactly what the kind says
//!   F4 rules       verbs, groups, resources and namespaces, or paths; `*` stands alone
//!   F5 fixed       `exempt` and `catch-all` are as they are in every cluster
//! Source: API reference, flowcontrol.apiserver.k8s.io/v1 FlowSchema.
//! Not here    whether the level exists (condition Dangling, by whoever sorts requests)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{named, required_text};
use super::super::same::same;
use super::super::tree::{Tree, carry_over, fill_number, remove};
use super::super::{age, age_column, column, name_column, row};
use super::{CATCH_ALL, EXEMPT, validate_conditions};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules, Subresource};

/// The least important precedence, and the one of schemas that say none.
const PRECEDENCE_MAX: i64 = 10_000;
const PRECEDENCE_DEFAULT: i64 = 1_000;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// The row of FlowSchema.
pub(in super::super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("PriorityLevel", "string", "the level its requests go to"),
        column("MatchingPrecedence", "integer", "which schema is asked first"),
        column("DistinguisherMethod", "string", "what tells its flows apart"),
        age_column(),
        column("MissingPL", "string", "whether the level does not exist"),
    ];
    row(&kinds::FLOW_SCHEMA, columns, FlowSchema).subresources(&[Subresource::Status]).counts_generations()
}

/// The spec of the schema `exempt`: masters never wait.
pub fn exempt() -> Value {
    json!({"matchingPrecedence": 1, "priorityLevelConfiguration": {"name": EXEMPT},
        "rules": [everything(&["system:masters"])]})
}

/// The spec of the schema `catch-all`: whoever no other schema knows.
pub fn catch_all() -> Value {
    json!({"matchingPrecedence": PRECEDENCE_MAX, "priorityLevelConfiguration": {"name": CATCH_ALL},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [everything(&["system:unauthenticated", "system:authenticated"])]})
}

fn everything(groups: &[&str]) -> Value {
    everything_by(groups.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect())
}

/// A rule for all that these subjects ask.
pub fn everything_by(subjects: Vec<Value>) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

struct FlowSchema;

impl Rules for FlowSchema {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            fill_number(spec, "matchingPrecedence", PRECEDENCE_DEFAULT);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at, name) = (&object["spec"], Path::new("spec"), object["metadata"].text("name"));
        validate_precedence(spec, name, &at, errors);
        if spec.is_set("distinguisherMethod") {
            let method = spec["distinguisherMethod"].text("type");
            if !matches!(method, "ByNamespace" | "ByUser") {
                let path = at.child("distinguisherMethod").child("type");
                errors.not_supported(&path, method, &["ByNamespace", "ByUser"]);
            }
        }
        let path = at.child("priorityLevelConfiguration").child("name");
        match spec["priorityLevelConfiguration"].text("name") {
            "" => errors.required(&path, "must reference a priority level"),
            level => named(name::subdomain, level, &path, errors),
        }
        for (index, rule) in spec.items("rules").iter().enumerate() {
            validate_rule(rule, &at.child("rules").index(index), errors);
        }
        let fixed = match name {
            EXEMPT => exempt(),
            CATCH_ALL => catch_all(),
            _ => return,
        };
        if !same(spec, &fixed) {
            errors.invalid(&at, spec.clone(), &format!("spec of '{name}' must equal the fixed value"));
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        validate_conditions(&object["status"], errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let method = match spec["distinguisherMethod"].text("type") {
            "" => "<none>",
            method => method,
        };
        let mut conditions = object["status"].items("conditions").iter();
        let dangling = conditions.find(|condition| condition.text("type") == "Dangling");
        vec![
            json!(object["metadata"].text("name")),
            json!(spec["priorityLevelConfiguration"].text("name")),
            json!(spec.int("matchingPrecedence").unwrap_or(0)),
            json!(method),
            age::of(object, now),
            json!(dangling.map_or("?", |condition| condition.text("status"))),
        ]
    }
}

/// F1.
fn validate_precedence(spec: &Value, name: &str, at: &Path, errors: &mut Errors) {
    let (precedence, path) = (spec.int("matchingPrecedence").unwrap_or(0), at.child("matchingPrecedence"));
    if precedence <= 0 {
        errors.invalid(&path, precedence, "must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        errors.invalid(&path, precedence, &format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && name != EXEMPT {
        errors.invalid(&path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
}

/// F3 and F4.
fn validate_rule(rule: &Value, at: &Path, errors: &mut Errors) {
    if rule.items("subjects").is_empty() {
        errors.required(&at.child("subjects"), "subjects must contain at least one value");
    }
    for (index, subject) in rule.items("subjects").iter().enumerate() {
        validate_subject(subject, &at.child("subjects").index(index), errors);
    }
    let (resources, paths) = (rule.items("resourceRules"), rule.items("nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        errors.required(at, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (index, rule) in resources.iter().enumerate() {
        validate_resources(rule, &at.child("resourceRules").index(index), errors);
    }
    for (index, rule) in paths.iter().enumerate() {
        let at = at.child("nonResourceRules").index(index);
        validate_verbs(rule, &at, errors);
        let (none, star) = ("nonResourceURLs must contain at least one value", "other non-resource URLs");
        let alone = validate_list(rule, "nonResourceURLs", (none, star), &at, errors);
        for (index, url) in rule.items("nonResourceURLs").iter().enumerate().filter(|_| !alone) {
            let url = url.as_str().unwrap_or_default();
            if !url.starts_with('/') {
                let path = at.child("nonResourceURLs").index(index);
                errors.invalid(&path, url, "must start with slash");
            }
        }
    }
}

/// F3.
fn validate_subject(subject: &Value, at: &Path, errors: &mut Errors) {
    let kinds = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = subject.text("kind");
    let Some((_, own)) = kinds.iter().find(|(known, _)| *known == kind) else {
        errors.not_supported(&at.child("kind"), kind, &kinds.map(|(kind, _)| kind));
        return;
    };
    for (other_kind, field) in kinds.iter().filter(|(_, field)| field != own && subject.is_set(field)) {
        let detail = format!("{field} is forbidden when subject kind is not '{other_kind}'");
        errors.forbidden(&at.child(field), &detail);
    }
    let path = at.child(own);
    if !subject.is_set(own) {
        errors.required(&path, &format!("{own} is required when subject kind is '{kind}'"));
        return;
    }
    required_text(&subject[own], "name", &path, errors);
    if kind == "ServiceAccount" {
        match subject[own].text("namespace") {
            "" => errors.required(&path.child("namespace"), "must specify namespace for service account"),
            namespace => named(name::label, namespace, &path.child("namespace"), errors),
        }
    }
}

/// F4.
fn validate_resources(rule: &Value, at: &Path, errors: &mut Errors) {
    validate_verbs(rule, at, errors);
    let none = ("resource rules must supply at least one api group", "other api groups");
    validate_list(rule, "apiGroups", none, at, errors);
    let none = ("resource rules must supply at least one resource", "other resources");
    validate_list(rule, "resources", none, at, errors);
    let namespaces = rule.items("namespaces");
    if namespaces.is_empty() && rule.flag("clusterScope") {
        return;
    }
    let none = ("resource rules that are not cluster scoped must supply at least one namespace", "other namespaces");
    let alone = validate_list(rule, "namespaces", none, at, errors);
    for (index, namespace) in namespaces.iter().enumerate().filter(|_| !alone) {
        let namespace = namespace.as_str().unwrap_or_default();
        named(name::label, namespace, &at.child("namespaces").index(index), errors);
    }
}

fn validate_verbs(rule: &Value, at: &Path, errors: &mut Errors) {
    let words = ("verbs must contain at least one value", "other verbs");
    if validate_list(rule, "verbs", words, at, errors) {
        return;
    }
    for verb in rule.items("verbs").iter().filter_map(Value::as_str).filter(|verb| !VERBS.contains(verb)) {
        errors.not_supported(&at.child("verbs"), verb, &VERBS);
    }
}

/// A list that is not empty, and in which `*` stands alone. Gives whether it has a `*`.
fn validate_list(rule: &Value, field: &str, (none, others): (&str, &str), at: &Path, errors: &mut Errors) -> bool {
    let (list, path) = (rule.items(field), at.child(field));
    let has_star = list.iter().any(|item| item == "*");
    if list.is_empty() {
        errors.required(&path, none);
    } else if has_star && list.len() > 1 {
        errors.invalid(&path, json!(list), &format!("if '*' is present, must not specify {others}"));
    }
    has_star
}

#[cfg(test)]
mod tests {
    use super::{FlowSchema, catch_all, exempt};
    use crate::resources::fixture::{cells, check, filled};
    use serde_json::{Value, json};

    fn of(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": spec})
    }

    fn with_rule(rule: Value) -> Value {
        of("f", json!({"priorityLevelConfiguration": {"name": "p"}, "rules": [rule]}))
    }

    #[test]
    fn f1_and_f2_an_order_and_a_level() {
        let schema = filled(&FlowSchema, with_rule(super::everything(&["g"])));
        check(&FlowSchema, schema.clone(), &[]);
        let expected = [json!("f"), json!("p"), json!(1000), json!("<none>"), json!("<unknown>"), json!("?")];
        assert_eq!(cells(&FlowSchema, &schema), expected);
        check(
            &FlowSchema,
            of("f", json!({"matchingPrecedence": 1, "distinguisherMethod": {"type": "ByAge"}})),
            &[
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt'",
                "spec.distinguisherMethod.type: Unsupported value: \"ByAge\"",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ],
        );
    }

    #[test]
    fn f3_subjects_are_what_their_kind_says() {
        let subject = |subject: Value| {
            let mut rule = super::everything(&["g"]);
            rule["subjects"] = json!([subject]);
            with_rule(rule)
        };
        let at = "spec.rules[0].subjects[0]";
        check(&FlowSchema, subject(json!({"kind": "Robot"})), &[&format!("{at}.kind: Unsupported value: \"Robot\"")]);
        check(
            &FlowSchema,
            subject(json!({"kind": "User", "group": {"name": "g"}})),
            &[
                &format!("{at}.group: Forbidden: group is forbidden when subject kind is not 'Group'"),
                &format!("{at}.user: Required value: user is required when subject kind is 'User'"),
            ],
        );
        check(
            &FlowSchema,
            subject(json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*"}})),
            &[&format!("{at}.serviceAccount.namespace: Required value: must specify namespace")],
        );
    }

    #[test]
    fn f4_a_star_stands_alone() {
        let rule = json!({"subjects": [{"kind": "User", "user": {"name": "u"}}], "resourceRules": [
            {"verbs": ["*", "get"], "apiGroups": [], "resources": ["pods"]}, {"verbs": ["look"], "apiGroups": [""],
            "resources": ["x"], "namespaces": ["A"]}], "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["x"]}]});
        let at = "spec.rules[0]";
        check(
            &FlowSchema,
            with_rule(rule),
            &[
                &format!("{at}.resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not"),
                &format!("{at}.resourceRules[0].apiGroups: Required value: resource rules must supply at least one"),
                &format!("{at}.resourceRules[0].namespaces: Required value: resource rules that are not cluster"),
                &format!("{at}.resourceRules[1].verbs: Unsupported value: \"look\""),
                &format!("{at}.resourceRules[1].namespaces[0]: Invalid value: \"A\""),
                &format!("{at}.nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"x\": must start with slash"),
            ],
        );
    }

    #[test]
    fn f5_what_the_cluster_depends_on_is_fixed() {
        check(&FlowSchema, of("exempt", exempt()), &[]);
        check(&FlowSchema, of("catch-all", catch_all()), &[]);
        let mut narrow = catch_all();
        narrow["rules"] = json!([]);
        let expected = ["spec: Invalid value"];
        check(&FlowSchema, of("catch-all", narrow), &expected);
    }
}
