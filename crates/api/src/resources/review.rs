//! Reviews: questions about who somebody is and what they may do. They are asked by creating them and never stored.
//!
//! Rules
//!   Q1 bare        a question about access has no metadata but, where it is asked in a namespace, that one
//!   Q2 one thing   access is asked for to a resource or to a path, not both
//!   Q3 somebody    a question about somebody else names a user or a group
//!   Q4 local       what is asked in a namespace is about a resource of that namespace
//!
//! Source: API reference, authentication.k8s.io/v1 and authorization.k8s.io/v1.
//! Not here    the answers (apiserver: `review`)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::{Kind, kinds};
use crate::resource::{Resource, Rules, Verbs};

/// The row of TokenReview.
pub(super) fn token_review() -> Resource {
    question(&kinds::TOKEN_REVIEW, Review::Plain)
}

/// The row of SelfSubjectReview.
pub(super) fn self_subject_review() -> Resource {
    question(&kinds::SELF_SUBJECT_REVIEW, Review::Plain)
}

/// The row of SubjectAccessReview.
pub(super) fn subject_access_review() -> Resource {
    question(&kinds::SUBJECT_ACCESS_REVIEW, Review::OfSomebody)
}

/// The row of LocalSubjectAccessReview.
pub(super) fn local_subject_access_review() -> Resource {
    question(&kinds::LOCAL_SUBJECT_ACCESS_REVIEW, Review::Local)
}

/// The row of SelfSubjectAccessReview.
pub(super) fn self_subject_access_review() -> Resource {
    question(&kinds::SELF_SUBJECT_ACCESS_REVIEW, Review::OfOneself)
}

/// The row of SelfSubjectRulesReview.
pub(super) fn self_subject_rules_review() -> Resource {
    question(&kinds::SELF_SUBJECT_RULES_REVIEW, Review::Plain)
}

fn question(kind: &Kind, review: Review) -> Resource {
    let columns = vec![name_column(), column("Created At", "date", "when it was asked")];
    Resource { verbs: Verbs::CreateOnly, ..row(kind, columns, review) }
}

/// What a review asks about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Review {
    /// Something without rules of its own.
    Plain,
    /// What the asker may do.
    OfOneself,
    /// What somebody may do.
    OfSomebody,
    /// What somebody may do in this namespace.
    Local,
}

impl Rules for Review {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        if *self == Review::Plain {
            return;
        }
        validate_bare(object, errors);
        let (spec, at) = (&object["spec"], Path::new("spec"));
        match (spec.is_set("resourceAttributes"), spec.is_set("nonResourceAttributes")) {
            (true, true) => {
                let detail = "cannot be specified in combination with resourceAttributes";
                errors.invalid(&at.child("nonResourceAttributes"), spec["nonResourceAttributes"].clone(), detail);
            }
            (false, false) => {
                let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                errors.invalid(&at.child("resourceAttributes"), Value::Null, detail);
            }
            _ => {}
        }
        if *self != Review::OfOneself && spec.text("user").is_empty() && spec.items("groups").is_empty() {
            errors.invalid(&at.child("user"), "", "at least one of user or group must be specified");
        }
        if *self == Review::Local {
            validate_local(object, errors);
        }
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let metadata = &object["metadata"];
        vec![json!(metadata.text("name")), json!(metadata.text("creationTimestamp"))]
    }
}

/// Q1.
fn validate_bare(object: &Value, errors: &mut Errors) {
    let said = |(field, value): &(&String, &Value)| {
        let is_empty = value.is_null()
            || *value == ""
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty);
        !is_empty && !matches!(field.as_str(), "namespace" | "managedFields")
    };
    if object.entries("metadata").iter().any(|entry| said(&entry)) {
        errors.invalid(&Path::new("metadata"), object["metadata"].clone(), "must be empty");
    }
}

/// Q4.
fn validate_local(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    if spec.is_set("nonResourceAttributes") {
        let detail = "disallowed on this kind of request";
        errors.invalid(&at.child("nonResourceAttributes"), spec["nonResourceAttributes"].clone(), detail);
    }
    let asked = spec["resourceAttributes"].text("namespace");
    if spec.is_set("resourceAttributes") && asked != object["metadata"].text("namespace") {
        errors.invalid(&at.child("resourceAttributes").child("namespace"), asked, "must match metadata.namespace");
    }
}

#[cfg(test)]
mod tests {
    use super::Review;
    use crate::field::Errors;
    use crate::resource::Rules;
    use serde_json::{Value, json};

    fn check(review: Review, object: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        review.validate(&object, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{object}");
    }

    #[test]
    fn q1_a_question_is_bare() {
        let ask = |metadata: Value| json!({"metadata": metadata, "spec": {"resourceAttributes": {}}});
        check(Review::OfOneself, ask(json!({"creationTimestamp": null, "labels": {}})), &[]);
        let named = ask(json!({"name": "a"}));
        check(Review::OfOneself, named, &["metadata: Invalid value: {\"name\":\"a\"}: must be empty"]);
    }

    #[test]
    fn q2_q3_access_is_one_thing_of_somebody() {
        check(Review::OfOneself, json!({"spec": {"resourceAttributes": {}}}), &[]);
        check(
            Review::OfOneself,
            json!({"spec": {}}),
            &["spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or \
               resourceAttributes must be specified"],
        );
        check(Review::OfSomebody, json!({"spec": {"user": "jane", "nonResourceAttributes": {}}}), &[]);
        check(
            Review::OfSomebody,
            json!({"spec": {"resourceAttributes": {}, "nonResourceAttributes": {}}}),
            &[
                "spec.nonResourceAttributes: Invalid value: {}: cannot be specified in combination with \
                 resourceAttributes",
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            ],
        );
    }

    #[test]
    fn q4_a_local_question_stays_in_its_namespace() {
        let ask = |namespace: &str| {
            json!({"metadata": {"namespace": "a"},
                "spec": {"user": "jane", "resourceAttributes": {"namespace": namespace}}})
        };
        check(Review::Local, ask("a"), &[]);
        check(
            Review::Local,
            ask("b"),
            &["spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace"],
        );
    }
}
