//! `serviceaccounts/token`: a token for an account, for a while, bound to something if that is wished.
//!
//! Rules
//!   K1 while        ten minutes to 2^32 seconds, an hour unless said
//!   K2 audience     the API itself unless others are named
//!   K3 bound        to a Pod that acts as this account, a Secret of its namespace, or a Node; of the uid named, if one is
//!   K4 nodes        a node's agent gets tokens only for pods that are bound to it, and names their uid (A35)
//!
//! Source: API reference, authentication.k8s.io/v1 TokenRequest; admission controllers reference, NodeRestriction.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::field::{Errors, Path};
use windlass_api::{ApiError, Kind, Reason, kinds};

use crate::admit;
use crate::answer::Answer;
use crate::decode;
use crate::failure::commit_failed;
use crate::identity::service_account_user;
use crate::key;
use crate::server::{Call, header};
use crate::token::{Claims, ISSUER, Private, Ref};
use crate::write::{self, WriteOptions, text, tree};

const MESSAGE: &str = "k8s.io.api.authentication.v1.TokenRequest";
const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;

pub(crate) async fn create(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    WriteOptions::parse(call.query)?;
    let message = decode::message_named(MESSAGE)?;
    let (mut request, warnings) = decode::decode(call.headers, body, message, decode::validation(call.query)?)?;
    check_place(call, &request)?;
    let server = call.server;
    server.store.read_barrier().await.map_err(commit_failed)?;
    let account = find(call, &kinds::SERVICE_ACCOUNT, &call.target.namespace, &call.target.name)?;
    default(&mut request);
    write::complete(call, &mut request, ("authentication.k8s.io/v1", "TokenRequest"));
    admit::part(call, "CREATE", &mut request).await?;
    check_seconds(&request)?;
    let private = bind(call, &request["spec"]["boundObjectRef"], account)?;
    let now = server.world.now();
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT);
    let end = now.as_second().saturating_add(seconds);
    let audiences = request["spec"]["audiences"].as_array().into_iter().flatten();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        sub: service_account_user(&call.target.namespace, &call.target.name),
        aud: audiences.filter_map(Value::as_str).map(str::to_owned).collect(),
        iat: now.as_second(),
        nbf: now.as_second(),
        exp: Some(end),
        jti: server.world.uuid(),
        private,
    };
    let end = Timestamp::from_second(end).map_err(ApiError::internal)?;
    request["status"] = json!({
        "token": server.tokens.sign(&claims),
        "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    Ok(Answer::tree(request).code(StatusCode::CREATED).warn(warnings))
}

/// The request is about the account of the URL.
fn check_place(call: Call<'_>, request: &Value) -> Result<(), ApiError> {
    for (field, expected) in [("name", &call.target.name), ("namespace", &call.target.namespace)] {
        let found = text(&request["metadata"], field);
        if !found.is_empty() && found != expected {
            let why = format!("the {field} of the provided object does not match the {field} on the URL ({expected})");
            return Err(ApiError::bad_request(why));
        }
    }
    Ok(())
}

/// K1 and K2.
fn default(request: &mut Value) {
    if !request["spec"].is_object() {
        request["spec"] = json!({});
    }
    let spec = &mut request["spec"];
    if spec["expirationSeconds"].is_null() {
        spec["expirationSeconds"] = json!(SECONDS_DEFAULT);
    }
    if spec["audiences"].as_array().is_none_or(Vec::is_empty) {
        spec["audiences"] = json!([ISSUER]);
    }
}

/// K1.
fn check_seconds(request: &Value) -> Result<(), ApiError> {
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT);
    let mut errors = Errors::new();
    let path = Path::new("spec").child("expirationSeconds");
    if seconds < SECONDS_MIN {
        errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > SECONDS_MAX {
        errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if errors.is_empty() {
        return Ok(());
    }
    let kind = Kind {
        group: "authentication.k8s.io".into(),
        version: "v1".into(),
        kind: "TokenRequest".into(),
        plural: "tokenrequests".into(),
        namespaced: true,
    };
    Err(ApiError::invalid(&kind, "", &errors))
}

/// K3 and K4.
fn bind(call: Call<'_>, bound: &Value, account: Found) -> Result<Private, ApiError> {
    let namespace = &call.target.namespace;
    let mut private = Private { namespace: namespace.clone(), account: account.reference, ..Private::default() };
    if bound.is_null() {
        return match call.who.node_name() {
            Some(_) => Err(refuse(call, "node requested token not bound to a pod")),
            None => Ok(private),
        };
    }
    let (kind, name, uid) = (text(bound, "kind"), text(bound, "name"), text(bound, "uid"));
    if let Some(node) = call.who.node_name() {
        check_node(call, node, bound)?;
    }
    let kind = match (text(bound, "apiVersion"), kind) {
        ("v1", "Pod") => &kinds::POD,
        ("v1", "Secret") => &kinds::SECRET,
        ("v1", "Node") => &kinds::NODE,
        (version, kind) => {
            let why = format!("cannot bind token for object of type {version}, Kind={kind}");
            return Err(ApiError::bad_request(why));
        }
    };
    let found = find(call, kind, namespace, name)?;
    if !uid.is_empty() && uid != found.reference.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    if *kind == kinds::SECRET {
        private.secret = Some(found.reference);
    } else if *kind == kinds::NODE {
        private.node = Some(found.reference);
    } else {
        let account = match text(&found.object["spec"], "serviceAccountName") {
            "" => "default",
            account => account,
        };
        if account != call.target.name {
            let why = format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                call.target.name
            );
            return Err(ApiError::bad_request(why));
        }
        let node = text(&found.object["spec"], "nodeName");
        private.node =
            (!node.is_empty()).then(|| find(call, &kinds::NODE, "", node).ok()).flatten().map(|n| n.reference);
        private.pod = Some(found.reference);
    }
    Ok(private)
}

/// K4.
fn check_node(call: Call<'_>, node: &str, bound: &Value) -> Result<(), ApiError> {
    if (text(bound, "apiVersion"), text(bound, "kind")) != ("v1", "Pod") {
        return Err(refuse(call, "node requested token not bound to a pod"));
    }
    if text(bound, "uid").is_empty() {
        return Err(refuse(call, "node requested token with a pod binding without a uid"));
    }
    let pod = find(call, &kinds::POD, &call.target.namespace, text(bound, "name"))?;
    if text(&pod.object["spec"], "nodeName") != node {
        return Err(refuse(call, "node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}

fn refuse(call: Call<'_>, why: &str) -> ApiError {
    ApiError::forbidden(&call.target.resource.kind, &call.target.name, why)
}

/// An object that is there.
struct Found {
    reference: Ref,
    object: Value,
}

fn find(call: Call<'_>, kind: &Kind, namespace: &str, name: &str) -> Result<Found, ApiError> {
    if name.is_empty() || name.contains('/') {
        return Err(ApiError::new(Reason::BadRequest, "expected boundObjectRef.name to be the name of an object"));
    }
    let entry = call.server.store.get(&key::object(kind, namespace, name));
    let entry = entry.ok_or_else(|| ApiError::not_found(kind, name))?;
    let reference = Ref { name: name.to_owned(), uid: header(&entry).uid().to_owned() };
    Ok(Found { reference, object: tree(&entry) })
}
