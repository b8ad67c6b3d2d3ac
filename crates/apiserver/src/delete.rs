//! `delete` and `deletecollection`.
//!
//! Rules
//!   R1 preconditions  a uid or resourceVersion named must be that of the stored object
//!   R2 propagation    Foreground and Orphan are written as finalizers, for the garbage collector; Background takes both off
//!   R3 finalizers     an object with finalizers stays, with the time of its deletion, until the last one is gone
//!   R4 grace          a pod bound to a node keeps running for its grace period: it stays until its node deletes it with
//!                     grace 0; asking again can only shorten the time. Pods on no node, or that have ended, go at once
//!   R5 namespaces     a namespace becomes Terminating and stays until its content is gone (`/finalize`)
//!   R6 collections    what matched when the request came is deleted one by one; what is gone meanwhile does not matter
//!
//! Source: API concepts, "Resource deletion"; Garbage collection; Pod lifecycle, "Termination of Pods".

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
use windlass_api::codec::Validation;
use windlass_api::resources::custom_resource_definition;
use windlass_api::{ApiError, Reason, kinds};
use windlass_store::{Entry, Expect, Op};

use crate::admit;
use crate::answer::{Answer, Payload};
use crate::change::{MODIFIED, is_finished};
use crate::config::{DELETE_COLLECTION_MAX, WRITE_ATTEMPTS_MAX};
use crate::convert;
use crate::decode;
use crate::form::Form;
use crate::key;
use crate::list;
use crate::request::{Query, short};
use crate::server::{Call, header};
use crate::write::{self, Refused, text};

const OPTIONS_MESSAGE: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// Objects of a collection that are being deleted at one time; their writes share syncs.
const REMOVALS_AT_ONCE_MAX: usize = 64;
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// How an object is to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub revision: Option<String>,
    pub dry_run: bool,
}

/// What becomes of the objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Foreground,
    Background,
    Orphan,
}

impl DeleteOptions {
    /// Options come in the body, or else as parameters.
    pub fn parse(call: Call<'_>, body: &Bytes) -> Result<DeleteOptions, ApiError> {
        let mut options = if body.is_empty() {
            DeleteOptions::from_query(call.query)?
        } else {
            let message = decode::message_named(OPTIONS_MESSAGE)?;
            let (value, _) = decode::decode(call.headers, body, message, Validation::Ignore)?;
            DeleteOptions::from_value(&value)?
        };
        options.dry_run |= write::WriteOptions::parse(call.query)?.dry_run;
        Ok(options)
    }

    /// The `DeleteOptions` object.
    pub fn from_value(value: &Value) -> Result<DeleteOptions, ApiError> {
        let precondition = |field: &str| value["preconditions"][field].as_str().map(str::to_owned);
        let mut options = DeleteOptions {
            grace_seconds: value["gracePeriodSeconds"].as_i64(),
            propagation: propagation(value["propagationPolicy"].as_str(), value["orphanDependents"].as_bool())?,
            uid: precondition("uid"),
            revision: precondition("resourceVersion"),
            dry_run: false,
        };
        for value in value["dryRun"].as_array().into_iter().flatten() {
            match value.as_str() {
                Some("All") => options.dry_run = true,
                other => return Err(write::unknown_dry_run(other.unwrap_or_default())),
            }
        }
        Ok(options)
    }

    /// The `DeleteOptions` object again.
    pub fn to_value(&self) -> Value {
        let mut options = json!({});
        if let Some(seconds) = self.grace_seconds {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(propagation) = self.propagation {
            options["propagationPolicy"] = json!(format!("{propagation:?}"));
        }
        for (field, value) in [("uid", &self.uid), ("resourceVersion", &self.revision)] {
            if let Some(value) = value {
                options["preconditions"][field] = json!(value);
            }
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    fn from_query(query: &Query) -> Result<DeleteOptions, ApiError> {
        Ok(DeleteOptions {
            grace_seconds: query.number("gracePeriodSeconds")?,
            propagation: propagation(query.get("propagationPolicy"), query.flag_if_set("orphanDependents")?)?,
            ..DeleteOptions::default()
        })
    }
}

fn propagation(policy: Option<&str>, orphans: Option<bool>) -> Result<Option<Propagation>, ApiError> {
    match (policy, orphans) {
        (Some(_), Some(_)) => Err(ApiError::bad_request("orphanDependents and propagationPolicy cannot be both set")),
        (None | Some(""), None) => Ok(None),
        (None, Some(true)) | (Some("Orphan"), None) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) | (Some("Background"), None) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some(other), _) => Err(ApiError::bad_request(format!(
            "propagationPolicy: expected Foreground, Background or Orphan, found {}",
            short(other)
        ))),
    }
}

pub(crate) async fn delete(call: Call<'_>, options: &DeleteOptions) -> Result<Answer, ApiError> {
    let gone = remove(call, &call.target.name, options).await?;
    Ok(match gone {
        // What stays for now is shown as it is; what is gone as well for the kinds whose clients look at it.
        Gone::NotYet(object) => Answer::object(object),
        Gone::Now(object) if call.target.resource.shows_deleted => Answer::object(object),
        Gone::Now(object) => Answer::tree(write::success(deleted_details(call, &object))),
    })
}

fn deleted_details(call: Call<'_>, object: &Bytes) -> Value {
    let kind = &call.target.resource.kind;
    let header = windlass_api::Header::parse(object).unwrap_or_default();
    let mut details = json!({"name": header.name(), "kind": kind.plural, "uid": header.uid()});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    details
}

pub(crate) async fn delete_collection(call: Call<'_>, options: &DeleteOptions) -> Result<Answer, ApiError> {
    let found = list::collect(call, Form::Json).await?;
    let matching = found.objects.take(DELETE_COLLECTION_MAX);
    let mut removals = futures::stream::iter(matching)
        .map(|entry| async move {
            let header = header(&entry);
            let place = Place { namespace: header.namespace(), name: header.name() };
            let outcome = remove_at(call, place, options, |_| Ok(Vec::new())).await;
            (entry, outcome)
        })
        .buffered(REMOVALS_AT_ONCE_MAX);
    let mut deleted: Vec<Arc<Entry>> = Vec::new();
    while let Some((entry, outcome)) = removals.next().await {
        match outcome {
            Ok(_) => deleted.push(entry),
            Err(error) if error.reason == Reason::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let metadata = json!({"resourceVersion": call.server.store.revision().to_string()});
    Ok(Answer {
        code: StatusCode::OK,
        payload: Payload::List { objects: deleted.into(), metadata },
        warnings: Vec::new(),
    })
}

/// What became of an object.
pub(crate) enum Gone {
    /// It is removed; this was it.
    Now(Bytes),
    /// It is ending; this is it.
    NotYet(Bytes),
}

/// Where an object is.
#[derive(Clone, Copy)]
struct Place<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// Deletes the object of this name in the target's namespace.
pub(crate) async fn remove(call: Call<'_>, name: &str, options: &DeleteOptions) -> Result<Gone, ApiError> {
    remove_at(call, Place { namespace: &call.target.namespace, name }, options, |_| Ok(Vec::new())).await
}

/// Deletes the target; `beside` looks at the object as it is, may add to what is stored while it ends, and gives what
/// else goes into the transaction. It is asked again when something changed meanwhile.
pub(crate) async fn remove_beside(
    call: Call<'_>,
    options: &DeleteOptions,
    beside: impl Fn(&mut Value) -> Result<Vec<Op>, ApiError>,
) -> Result<Gone, ApiError> {
    remove_at(call, Place { namespace: &call.target.namespace, name: &call.target.name }, options, beside).await
}

async fn remove_at(
    call: Call<'_>,
    place: Place<'_>,
    options: &DeleteOptions,
    beside: impl Fn(&mut Value) -> Result<Vec<Op>, ApiError>,
) -> Result<Gone, ApiError> {
    let kind = &call.target.resource.kind;
    let key = key::object(convert::stored_kind(&call.target.resource), place.namespace, place.name);
    let mut turn = call.server.turns.join(&key).await;
    for _ in 0..WRITE_ATTEMPTS_MAX {
        let entry = call.server.store.get(&key).ok_or_else(|| ApiError::not_found(kind, place.name))?;
        let old = write::tree(&entry);
        check_preconditions(call, place.name, &old, &entry, options)?;
        admit::delete(call, place.name, (&entry, &old), options).await?;
        let mut wished = old.clone();
        let others = beside(&mut wished)?;
        let ending = end(call, &wished, options);
        // What is shown is made before the commit: what happened is not told as an error.
        let expect = Expect::Revision(entry.revision);
        let (mut ops, shown) = match &ending {
            None => {
                let shown = served(call, entry).await?;
                if options.dry_run {
                    return Ok(Gone::Now(shown.shared()));
                }
                let mut ops = vec![Op::delete(key.as_str(), expect)];
                ops.extend(admit::release(call, &old).ops);
                (ops, shown)
            }
            Some(object) if *object == old => return Ok(Gone::NotYet(served(call, entry).await?.shared())),
            Some(object) => {
                let template = write::template(object)?;
                let shown = served(call, Arc::new(entry.in_form(&template))).await?;
                if options.dry_run {
                    return Ok(Gone::NotYet(shown.shared()));
                }
                (vec![Op::put(key.as_str(), template, expect)], shown)
            }
        };
        ops.extend(others);
        match call.server.commit(ops).await {
            Ok(committed) if ending.is_none() => return Ok(Gone::Now(shown.value_at(committed.revision))),
            Ok(committed) => return Ok(Gone::NotYet(shown.value_at(committed.revision))),
            Err(Refused::Conflict { .. }) if turn.is_none() => turn = Some(call.server.turns.wait(&key).await),
            Err(Refused::Conflict { .. }) => {}
            Err(Refused::Failed(error)) => return Err(error),
        }
    }
    Err(ApiError::conflict(kind, place.name, MODIFIED))
}

async fn served(call: Call<'_>, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
    convert::entry(call.server, &call.target.resource, entry).await
}

/// R1.
fn check_preconditions(
    call: Call<'_>,
    name: &str,
    old: &Value,
    entry: &Entry,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let kind = &call.target.resource.kind;
    let stored_uid = text(&old["metadata"], "uid");
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != stored_uid) {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {stored_uid}",
            short(uid).trim_matches('"')
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    let stored = entry.revision.to_string();
    if let Some(revision) = options.revision.as_deref().filter(|revision| *revision != stored) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {}, ResourceVersion in object meta: {stored}",
            short(revision).trim_matches('"')
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    Ok(())
}

/// The object as it is to be stored while it is ending; `None` when nothing keeps it.
fn end(call: Call<'_>, old: &Value, options: &DeleteOptions) -> Option<Value> {
    let resource = &call.target.resource;
    let mut object = old.clone();
    set_propagation(&mut object, options.propagation);
    let grace = grace_seconds(call, old, options);
    let metadata = write::metadata_mut(&mut object);
    let was_ending = metadata.contains_key("deletionTimestamp");
    let grace_before = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    if !was_ending || grace < grace_before {
        let now = call.server.world.now();
        let at = now.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
        metadata.insert("deletionTimestamp".to_owned(), json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    }
    if !was_ending && resource.generation {
        let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0) + 1;
        metadata.insert("generation".to_owned(), json!(generation));
    }
    if !was_ending && resource.kind == kinds::CUSTOM_RESOURCE_DEFINITION {
        custom_resource_definition::begin_deletion(&mut object, &call.server.world.now_rfc3339());
    }
    if resource.kind == kinds::NAMESPACE {
        object["status"]["phase"] = json!("Terminating");
    }
    (!is_finished(&object)).then_some(object)
}

/// R2.
fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let metadata = write::metadata_mut(object);
    let before: Vec<Value> = metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut after: Vec<Value> =
        before.iter().filter(|finalizer| **finalizer != FOREGROUND && **finalizer != ORPHAN).cloned().collect();
    match propagation {
        Propagation::Foreground => after.push(json!(FOREGROUND)),
        Propagation::Orphan => after.push(json!(ORPHAN)),
        Propagation::Background => {}
    }
    let is_same = after.len() == before.len() && after.iter().all(|finalizer| before.contains(finalizer));
    if is_same {
        return;
    }
    if after.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), Value::Array(after));
    }
}

/// R4.
fn grace_seconds(call: Call<'_>, old: &Value, options: &DeleteOptions) -> i64 {
    let Some(default) = call.target.resource.grace_seconds_default else { return 0 };
    let has_ended = matches!(text(&old["status"], "phase"), "Succeeded" | "Failed");
    if text(&old["spec"], "nodeName").is_empty() || has_ended {
        return 0;
    }
    let own = old["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(i64::from(default));
    match options.grace_seconds.unwrap_or(own) {
        // A negative time has always meant the shortest that still asks the containers to stop.
        negative if negative < 0 => 1,
        grace => grace,
    }
}
