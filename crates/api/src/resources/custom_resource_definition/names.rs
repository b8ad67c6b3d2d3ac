//! Which of the names that a definition asks for it has.
//!
//! Rules
//!   N1 first      a name that another definition or a built-in kind of the group has is not given again
//!   N2 each       each name is decided by itself; one that is refused leaves what was accepted before
//!   N3 together   plural, singular and short names are one set, kind and list kind another
//!   N4 conditions NamesAccepted says whether all were given; Established becomes true with the first time and stays so
//!   N5 approval   a group of Kubernetes itself says by whose leave (KubernetesAPIApprovalPolicyConformant)
//!   N6 ending     a definition that is being deleted says how far that is (Terminating) and holds its names until it goes
//! Source: API reference, CustomResourceDefinitionCondition; KEP-1111 on protected groups.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::resources::tree::Tree;

/// The annotation by which a protected group is used.
pub(super) const APPROVAL: &str = "api-approved.kubernetes.io";

/// Names that are taken in one group.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// Adds the names of a built-in kind.
    pub fn add_built_in(&mut self, resource: &crate::Resource) {
        let own = [resource.kind.plural.to_string(), resource.singular.clone()];
        self.resources.extend(own.into_iter().chain(resource.short_names.iter().cloned()));
        self.kinds.extend([resource.kind.kind.to_string(), resource.list_kind.clone()]);
    }

    /// Adds the names that another definition has.
    pub fn add_definition(&mut self, definition: &Value) {
        let names = &definition["status"]["acceptedNames"];
        let texts = |fields: [&str; 2]| fields.map(|field| names.text(field).to_owned());
        let short = names.items("shortNames").iter().filter_map(Value::as_str).map(str::to_owned);
        let is_name = |text: &String| !text.is_empty();
        self.resources.extend(texts(["plural", "singular"]).into_iter().chain(short).filter(is_name));
        self.kinds.extend(texts(["kind", "listKind"]).into_iter().filter(is_name));
    }
}

/// Whether a group is Kubernetes' own.
pub(super) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// Whether the kinds of a definition are served.
pub fn is_established(definition: &Value) -> bool {
    has_condition(definition, "Established")
}

fn has_condition(definition: &Value, kind: &str) -> bool {
    let conditions = definition["status"].items("conditions");
    conditions.iter().any(|condition| condition.text("type") == kind && condition.text("status") == "True")
}

/// The status of a definition whose group has these names taken by others, as of `now` (RFC 3339).
pub fn decide(definition: &Value, taken: &Taken, now: &str) -> Value {
    let mut status = definition["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let asked = &definition["spec"]["names"];
    let (accepted, conflict) = accept(asked, &definition["status"]["acceptedNames"], taken);
    status["acceptedNames"] = accepted;
    let mut conditions = Conditions::of(&status, now);
    match &conflict {
        None => conditions.set("NamesAccepted", true, "NoConflicts", "no conflicts found"),
        Some((reason, message)) => conditions.set("NamesAccepted", false, reason, message),
    }
    if !is_established(definition) {
        match &conflict {
            None => {
                conditions.set("Established", true, "InitialNamesAccepted", "the initial names have been accepted");
            }
            Some(_) => conditions.set("Established", false, "NotAccepted", "not all names are accepted"),
        }
    }
    approve(definition, &mut conditions);
    status["conditions"] = Value::Array(conditions.list);
    status
}

/// The status of a definition that is being deleted.
pub fn ending(definition: &Value, reason: &str, message: &str, now: &str) -> Value {
    let mut status = definition["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let mut conditions = Conditions::of(&status, now);
    conditions.set("Terminating", true, reason, message);
    status["conditions"] = Value::Array(conditions.list);
    status
}

/// N1 to N3: the names that are given, and the last conflict.
fn accept(asked: &Value, before: &Value, taken: &Taken) -> (Value, Option<(&'static str, String)>) {
    let mut accepted = Map::new();
    let mut conflict = None;
    for (field, reason, set) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let name = asked.text(field);
        if set.contains(name) {
            conflict = Some((reason, format!("{name:?} is already in use")));
            if before.is_set(field) {
                accepted.insert(field.to_owned(), before[field].clone());
            }
        } else if !name.is_empty() {
            accepted.insert(field.to_owned(), json!(name));
        }
    }
    let short: Vec<&Value> = asked.items("shortNames").iter().collect();
    let in_use = |name: &&Value| name.as_str().is_some_and(|name| taken.resources.contains(name));
    let refused: Vec<String> =
        short.iter().copied().filter(in_use).map(|name| format!("{name} is already in use")).collect();
    if refused.is_empty() {
        if !short.is_empty() {
            accepted.insert("shortNames".to_owned(), json!(short));
        }
    } else {
        conflict = Some(("ShortNamesConflict", refused.join(", ")));
        if before.is_set("shortNames") {
            accepted.insert("shortNames".to_owned(), before["shortNames"].clone());
        }
    }
    if asked.is_set("categories") {
        accepted.insert("categories".to_owned(), asked["categories"].clone());
    }
    // The two that every client reads.
    for field in ["plural", "kind"] {
        accepted.entry(field).or_insert_with(|| json!(""));
    }
    (Value::Object(accepted), conflict)
}

/// N5.
fn approve(definition: &Value, conditions: &mut Conditions) {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    if !is_protected(definition["spec"].text("group")) {
        return conditions.remove(KIND);
    }
    let approval = Approval::of(definition);
    let reason = match approval {
        Approval::Given(_) => "ApprovedAnnotation",
        Approval::Bypassed(_) => "UnapprovedAnnotation",
        Approval::Missing => "MissingAnnotation",
        Approval::Invalid(_) => "InvalidAnnotation",
    };
    conditions.set(KIND, matches!(approval, Approval::Given(_)), reason, &approval.detail());
}

/// N5: by whose leave a definition adds to a group of Kubernetes itself.
#[derive(Clone, Copy)]
pub(super) enum Approval<'a> {
    /// Where it was reviewed.
    Given(&'a str),
    /// It says that it was not.
    Bypassed(&'a str),
    Missing,
    Invalid(&'a str),
}

impl<'a> Approval<'a> {
    pub(super) fn of(definition: &'a Value) -> Approval<'a> {
        match definition["metadata"]["annotations"].text(APPROVAL) {
            "" => Approval::Missing,
            text if text.starts_with("unapproved") => Approval::Bypassed(text),
            text if has_host(text) => Approval::Given(text),
            text => Approval::Invalid(text),
        }
    }

    /// What is said of it.
    pub(super) fn detail(self) -> String {
        const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
        let wanted = format!("protected groups must have approval annotation {APPROVAL:?}");
        match self {
            Approval::Given(url) => format!("approved in {url}"),
            Approval::Bypassed(text) => format!("not approved: {text:?}"),
            Approval::Missing => format!("{wanted}, {SEE}"),
            Approval::Invalid(_) => {
                format!("{wanted} with either a URL or a reason starting with \"unapproved\", {SEE}")
            }
        }
    }
}

/// A URL of something that somebody serves.
fn has_host(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.chars().all(is_word)
        && !host.is_empty()
        && !host.contains(char::is_whitespace)
}

/// Conditions, each type once.
struct Conditions<'a> {
    list: Vec<Value>,
    now: &'a str,
}

impl<'a> Conditions<'a> {
    fn of(status: &Value, now: &'a str) -> Conditions<'a> {
        Conditions { list: status.items("conditions").to_vec(), now }
    }

    fn set(&mut self, kind: &str, is_true: bool, reason: &str, message: &str) {
        let status = if is_true { "True" } else { "False" };
        let before = self.list.iter_mut().find(|condition| condition.text("type") == kind);
        let since = match &before {
            Some(before) if before.text("status") == status => before["lastTransitionTime"].clone(),
            _ => json!(self.now),
        };
        let condition = json!({
            "type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
        });
        match before {
            Some(before) => *before = condition,
            None => self.list.push(condition),
        }
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.text("type") != kind);
    }
}

#[cfg(test)]
mod tests {
    use super::{Taken, decide, is_established};
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn definition(plural: &str, kind: &str) -> Value {
        json!({"spec": {"group": "example.com", "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": ["f"]}}})
    }

    fn condition(status: &Value, kind: &str) -> String {
        let conditions = status["conditions"].as_array().expect("conditions");
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        found.map_or_else(String::new, |found| {
            let text = |field: &str| found[field].as_str().expect("a text").to_owned();
            format!("{} {}: {}", text("status"), text("reason"), text("message"))
        })
    }

    #[test]
    fn n1_to_n4_the_first_has_the_name() {
        let mut first = definition("foos", "Foo");
        first["status"] = decide(&first, &Taken::default(), NOW);
        assert!(is_established(&first));
        assert_eq!(condition(&first["status"], "NamesAccepted"), "True NoConflicts: no conflicts found");
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        let mut taken = Taken::default();
        taken.add_definition(&first);
        let mut second = definition("bars", "Foo");
        second["status"] = decide(&second, &taken, NOW);
        assert!(!is_established(&second));
        assert_eq!(condition(&second["status"], "Established"), "False NotAccepted: not all names are accepted");
        assert_eq!(condition(&second["status"], "NamesAccepted"), "False ShortNamesConflict: \"f\" is already in use");
        assert_eq!(second["status"]["acceptedNames"], json!({"plural": "bars", "kind": ""}));
        second["status"] = decide(&second, &Taken::default(), "2026-01-01T00:00:01Z");
        assert!(is_established(&second), "once the other is gone the name is free");
    }

    #[test]
    fn n4_what_was_established_stays_so() {
        let mut own = definition("foos", "Foo");
        own["status"] = decide(&own, &Taken::default(), NOW);
        let mut taken = Taken::default();
        taken.add_definition(&own);
        own["status"] = decide(&own, &taken, NOW);
        assert!(is_established(&own));
        assert_eq!(own["status"]["acceptedNames"]["kind"], "Foo");
    }

    #[test]
    fn n5_a_group_of_kubernetes_says_by_whose_leave() {
        let mut own = definition("foos", "Foo");
        own["spec"]["group"] = json!("example.k8s.io");
        own["metadata"] = json!({"annotations": {"api-approved.kubernetes.io": "https://example.com/1"}});
        let status = decide(&own, &Taken::default(), NOW);
        assert_eq!(
            condition(&status, "KubernetesAPIApprovalPolicyConformant"),
            "True ApprovedAnnotation: approved in https://example.com/1"
        );
        for (text, said) in [
            ("unapproved, only tried", "False UnapprovedAnnotation: not approved: \"unapproved, only tried\""),
            (
                "by me",
                "False InvalidAnnotation: protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
            ),
            (
                "",
                "False MissingAnnotation: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
            ),
        ] {
            own["metadata"]["annotations"]["api-approved.kubernetes.io"] = json!(text);
            assert_eq!(condition(&decide(&own, &Taken::default(), NOW), "KubernetesAPIApprovalPolicyConformant"), said);
        }
    }
}
