//! Reviews: who somebody is and what they may do, answered on the spot.
//!
//! Rules
//!   V1 asked once   a review is checked like any object and never stored
//!   V2 access       is decided by what decides about requests, for whomever the question names
//!   V3 rules        of oneself in one namespace: those of roles; who has rights that are no rules is told so
//!   V4 token        says whom it proves now, and for which of the audiences asked about
//!
//! Source: API reference, authorization.k8s.io/v1 and authentication.k8s.io/v1.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};
use windlass_api::field::Errors;
use windlass_api::{ApiError, kinds};

use crate::answer::Answer;
use crate::authenticate::by_token;
use crate::authorize::{Asked, AskedObject, may};
use crate::identity::Identity;
use crate::rbac::Rule;
use crate::server::Call;
use crate::token::ISSUER;
use crate::write::{self, WriteOptions, text};

/// Answers a review.
pub(crate) async fn answer(call: Call<'_>, mut review: Value) -> Result<Answer, ApiError> {
    WriteOptions::parse(call.query)?;
    let resource = &call.target.resource;
    write::check_kind(&resource.kind, &mut review)?;
    write::check_place(&resource.kind, &call.target.namespace, "", &mut review)?;
    resource.rules.default(&mut review);
    let mut errors = Errors::new();
    resource.rules.validate(&review, &mut errors);
    write::refuse_if_any(resource, &review, &errors)?;
    write::metadata_mut(&mut review).remove("managedFields");
    let kind = &resource.kind;
    review["status"] = if *kind == kinds::SELF_SUBJECT_REVIEW {
        json!({"userInfo": user_info(call.who)})
    } else if *kind == kinds::TOKEN_REVIEW {
        token(call, &review["spec"])?
    } else if *kind == kinds::SELF_SUBJECT_RULES_REVIEW {
        rules(call, &review["spec"])?
    } else if *kind == kinds::SELF_SUBJECT_ACCESS_REVIEW {
        access(call, call.who, &review["spec"])
    } else {
        access(call, &named(&review["spec"]), &review["spec"])
    };
    Ok(Answer::tree(review).code(StatusCode::CREATED))
}

/// An identity as reviews show it.
pub(crate) fn user_info(who: &Identity) -> Value {
    let mut info = json!({"username": who.name, "groups": who.groups});
    if !who.uid.is_empty() {
        info["uid"] = json!(who.uid);
    }
    if !who.extra.is_empty() {
        info["extra"] = json!(who.extra);
    }
    info
}

/// Whom a question names. Unlike who proves a name, they are in the groups named and no other.
fn named(spec: &Value) -> Identity {
    let extra = spec["extra"].as_object().into_iter().flatten();
    Identity {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.to_lowercase(), texts(values))).collect::<BTreeMap<_, _>>(),
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// V2.
fn access(call: Call<'_>, who: &Identity, spec: &Value) -> Value {
    let (path, object) = (&spec["nonResourceAttributes"], &spec["resourceAttributes"]);
    let asked = if path.is_object() {
        Asked::Path { verb: text(path, "verb"), path: text(path, "path") }
    } else {
        Asked::Object(AskedObject {
            verb: text(object, "verb"),
            group: text(object, "group"),
            resource: text(object, "resource"),
            sub: text(object, "subresource"),
            namespace: text(object, "namespace"),
            name: text(object, "name"),
        })
    };
    let (allowed, reason) = match may(call.server, who, &asked) {
        Ok(grounds) => (true, grounds.to_string()),
        Err(unread) => (false, unread),
    };
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    status
}

/// V4.
fn token(call: Call<'_>, spec: &Value) -> Result<Value, ApiError> {
    let text = text(spec, "token");
    if text.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let mut audiences = texts(&spec["audiences"]);
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    // Which of them it is for: what is not is left out, as long as something is.
    let mut meant = Vec::new();
    let mut why = String::new();
    let mut user = None;
    for audience in audiences {
        match by_token(call.server, text, std::slice::from_ref(&audience)) {
            Ok(who) => {
                user = Some(user_info(&who));
                meant.push(audience);
            }
            Err(error) => why = error.to_string(),
        }
    }
    Ok(match user {
        Some(user) => json!({"authenticated": true, "user": user, "audiences": meant}),
        None => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
    })
}

/// V3.
fn rules(call: Call<'_>, spec: &Value) -> Result<Value, ApiError> {
    let namespace = text(spec, "namespace");
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let Call { server, who, .. } = call;
    let (rules, unread) = server.policy.look(&server.store, |policy| policy.rules_of(who, namespace));
    let (paths, resources): (Vec<Rule>, Vec<Rule>) = rules.into_iter().partition(|rule| !rule.paths.is_empty());
    let resource_rule = |rule: Rule| {
        let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
        if !rule.resource_names.is_empty() {
            shown["resourceNames"] = json!(rule.resource_names);
        }
        shown
    };
    let path_rule = |rule: Rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths});
    let mut status = json!({
        "resourceRules": resources.into_iter().map(resource_rule).collect::<Vec<_>>(),
        "nonResourceRules": paths.into_iter().map(path_rule).collect::<Vec<_>>(),
        "incomplete": who.node_name().is_some() || !unread.is_empty(),
    });
    let mut untold = unread;
    if who.node_name().is_some() {
        untold.insert(0, "node authorizer does not support user rule resolution".to_owned());
    }
    if !untold.is_empty() {
        status["evaluationError"] = json!(untold.join(", "));
    }
    Ok(status)
}
