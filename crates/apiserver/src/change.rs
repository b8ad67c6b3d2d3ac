//! The way of every change of an object that exists: read, change, check, commit, and again if it changed meanwhile.
//!
//! Rules
//!   R1 conflict     an object that names a resourceVersion or uid must be the one that is stored; one that names none is
//!                   applied to whatever is stored, and again when that changed meanwhile, in turn with others who lost;
//!                   some kinds want one named
//!   R2 identity     name, namespace, uid and times stay; only a delete sets deletionTimestamp
//!   R3 parts        the main resource leaves status as it is; `/status` changes only status, labels, annotations and
//!                   finalizers; `/approval` only conditions; what `/ephemeralcontainers` and `/resize` of a pod change,
//!                   and the rest, is the kind's own rules
//!   R4 generation   counts changes of what is neither metadata nor a status with a part of its own
//!   R5 no-op        what changes nothing writes nothing and keeps its resourceVersion, unless it lies in the store in a
//!                   version that is no longer the stored one
//!   R6 last         removing the last finalizer of an ending object removes the object
//!   R7 owners       the writer owns what it changed (`owners`), but not what admission made of it
//!
//! Source: API concepts, "Updates to existing resources", "Finalizers"; KEP-2162 on status and generation.

use bytes::Bytes;
use serde_json::{Value, json};
use windlass_api::field::Errors;
use windlass_api::resources::{validate_metadata, validate_metadata_update};
use windlass_api::{ApiError, Subresource};
use windlass_store::{Committed, Entry, Expect, Op};

use crate::admit::{self, Admission};
use crate::config::WRITE_ATTEMPTS_MAX;
use crate::convert;
use crate::key;
use crate::owners::{self, Owners, Ownership};
use crate::server::Call;
use crate::write::{self, Refused, text};

/// The sentence clients look for.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Which part of an object is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The main resource.
    Main,
    /// `/status`.
    Status,
    /// `/finalize` of a namespace.
    Finalize,
    /// `/approval` of a certificate signing request: its conditions.
    Approval,
    /// The scheduler's decision, which writes what the main resource may not.
    Binding,
    /// `/ephemeralcontainers` of a pod.
    EphemeralContainers,
    /// `/resize` of a pod.
    Resize,
}

impl Part {
    /// The part that a target names.
    pub fn of(sub: Option<Subresource>) -> Part {
        match sub {
            Some(Subresource::Status) => Part::Status,
            Some(Subresource::Finalize) => Part::Finalize,
            Some(Subresource::Approval) => Part::Approval,
            Some(Subresource::Binding) => Part::Binding,
            Some(Subresource::EphemeralContainers) => Part::EphemeralContainers,
            Some(Subresource::Resize) => Part::Resize,
            _ => Part::Main,
        }
    }

    /// The subresource of a part that the kind's own rules know; `None` for the parts that are alike in all kinds.
    fn of_kind(self) -> Option<Subresource> {
        match self {
            Part::Main | Part::Status | Part::Approval => None,
            Part::Finalize => Some(Subresource::Finalize),
            Part::Binding => Some(Subresource::Binding),
            Part::EphemeralContainers => Some(Subresource::EphemeralContainers),
            Part::Resize => Some(Subresource::Resize),
        }
    }
}

/// Changes the target: `change` makes the wished object from the stored one, and may be asked again. Gives the object
/// as it is then, or as it would be were it not removed.
pub(crate) async fn change(
    call: Call<'_>,
    part: Part,
    dry_run: bool,
    change: impl FnMut(&Value, &Entry) -> Result<Value, ApiError>,
) -> Result<Bytes, ApiError> {
    owners::manager(call)?;
    change_owned(call, part, (dry_run, Ownership::Changed), change).await
}

/// Changes the target and says what the change means for the owners of its fields.
pub(crate) async fn change_owned(
    call: Call<'_>,
    part: Part,
    (dry_run, ownership): (bool, Ownership),
    mut change: impl FnMut(&Value, &Entry) -> Result<Value, ApiError>,
) -> Result<Bytes, ApiError> {
    let resource = &call.target.resource;
    let kind = &resource.kind;
    let key = key::object(convert::stored_kind(resource), &call.target.namespace, &call.target.name);
    let mut turn = call.server.turns.join(&key).await;
    for _ in 0..WRITE_ATTEMPTS_MAX {
        let entry = call.server.store.get(&key).ok_or_else(|| ApiError::not_found(kind, &call.target.name))?;
        let shown = convert::entry(call.server, resource, entry.clone()).await?;
        let mut old = write::tree(&shown);
        // Most changes do not look at the owners, and would only copy them.
        let aside = if owners::are_seen(call, ownership) { None } else { owners::take(&mut old) };
        let mut wished = change(&old, &shown)?;
        let stored = aside.or_else(|| owners::take(&mut old));
        let owners = Owners::take(call, ownership, stored, &mut wished);
        let step = plan(call, part, (&old, &entry), wished, owners).await?;
        let (object, admission, ends) = match step {
            Step::Nothing => return Ok(shown.shared()),
            Step::Put { object, admission } => (object, admission, false),
            Step::Remove { object, admission } => (object, admission, true),
        };
        if dry_run {
            return Ok(write::tried(&write::template(&object)?, Some(entry.revision)));
        }
        let expect = Expect::Revision(entry.revision);
        let mut ops = Vec::with_capacity(1 + admission.ops.len());
        ops.push(match ends {
            true => Op::delete(key.as_str(), expect),
            false => Op::put(key.as_str(), convert::template(call.server, resource, &object).await?, expect),
        });
        ops.extend(admission.ops);
        match call.server.commit(ops).await {
            Ok(committed) => return written(call, &committed, &object).await,
            // Whatever it was that changed, the next round looks at it again; a client that named a revision is told.
            Err(Refused::Conflict { .. }) if turn.is_none() => turn = Some(call.server.turns.wait(&key).await),
            Err(Refused::Conflict { .. }) => {}
            Err(Refused::Failed(error)) => return Err(error),
        }
    }
    Err(ApiError::conflict(kind, &call.target.name, MODIFIED))
}

/// The object that a transaction wrote first, or removed first: then as it would have been written.
async fn written(call: Call<'_>, committed: &Committed, object: &Value) -> Result<Bytes, ApiError> {
    match committed.entries.first() {
        Some(Some(entry)) if entry.revision == committed.revision => {
            Ok(convert::entry(call.server, &call.target.resource, entry.clone()).await?.shared())
        }
        _ => Ok(write::tried(&write::template(object)?, Some(committed.revision))),
    }
}

/// What is to be written.
enum Step {
    Nothing,
    Put { object: Value, admission: Admission },
    Remove { object: Value, admission: Admission },
}

async fn plan(
    call: Call<'_>,
    part: Part,
    (old, entry): (&Value, &Entry),
    mut object: Value,
    owners: Owners,
) -> Result<Step, ApiError> {
    let target = call.target;
    let resource = &target.resource;
    write::check_kind(&resource.kind, &mut object)?;
    write::check_place(&resource.kind, &target.namespace, &target.name, &mut object)?;
    check_preconditions(call, old, entry, &object)?;
    keep_identity(old, &mut object);
    keep_other_parts(call, part, old, &mut object);
    resource.rules.default(&mut object);
    write::drop_disabled(resource, &mut object, Some(old));
    match (part, part.of_kind()) {
        (Part::Main, _) => resource.rules.prepare_update(&mut object, old),
        (Part::Status, _) => resource.rules.prepare_status(&mut object, old),
        (_, Some(sub)) => resource.rules.prepare_part(sub, &mut object, old),
        (_, None) => {}
    }
    let are_owners_new = owners.are_new();
    let managed = owners.after(call, old, &object)?;
    let admission = admit::update(call, part, old, &mut object).await?;
    // What a webhook or a policy added is dropped like what was sent.
    write::drop_disabled(resource, &mut object, Some(old));
    count_generation(call, part, old, &mut object);
    admit::complete_changed(call, part, &mut object);
    // The stored form holds its revision; the wished one gets the same, so that equal objects are equal.
    write::metadata_mut(&mut object).insert("resourceVersion".to_owned(), old["metadata"]["resourceVersion"].clone());
    let ends = is_finished(&object);
    let is_nothing = object == *old && !ends && !are_owners_new && convert::lies_as_stored(resource, entry);
    if !is_nothing {
        validate(call, part, old, &object)?;
    }
    admit::validate_changed(call, part, old, &object).await?;
    if is_nothing {
        return Ok(Step::Nothing);
    }
    owners::put(&mut object, managed);
    if ends {
        Ok(Step::Remove { admission: admit::release(call, old), object })
    } else {
        Ok(Step::Put { object, admission })
    }
}

/// R1.
fn check_preconditions(call: Call<'_>, old: &Value, entry: &Entry, object: &Value) -> Result<(), ApiError> {
    let kind = &call.target.resource.kind;
    let metadata = &object["metadata"];
    let (uid, stored_uid) = (text(metadata, "uid"), text(&old["metadata"], "uid"));
    if !uid.is_empty() && uid != stored_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored_uid}");
        return Err(ApiError::conflict(kind, &call.target.name, &why));
    }
    match text(metadata, "resourceVersion") {
        "" | "0" if call.target.resource.needs_revision => {
            let mut errors = Errors::new();
            let path = windlass_api::field::Path::new("metadata").child("resourceVersion");
            errors.invalid_printed(&path, "0x0", "must be specified for an update");
            Err(ApiError::invalid(kind, &call.target.name, &errors))
        }
        "" | "0" => Ok(()),
        revision if revision.parse() == Ok(entry.revision) => Ok(()),
        revision if revision.parse::<u64>().is_err() => {
            let mut errors = Errors::new();
            let path = windlass_api::field::Path::new("metadata").child("resourceVersion");
            errors.invalid(&path, revision, "must be a resourceVersion that this server gave");
            Err(ApiError::invalid(kind, &call.target.name, &errors))
        }
        _ => Err(ApiError::conflict(kind, &call.target.name, MODIFIED)),
    }
}

/// R2.
fn keep_identity(old: &Value, object: &mut Value) {
    write::strip(object);
    let metadata = write::metadata_mut(object);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
}

/// R3.
fn keep_other_parts(call: Call<'_>, part: Part, old: &Value, object: &mut Value) {
    match part {
        Part::Main if call.target.resource.has(Subresource::Status) => carry(object, old, "status"),
        Part::Main | Part::Binding | Part::EphemeralContainers | Part::Resize => {}
        Part::Status => {
            let mut kept = old.clone();
            for field in write::STATUS_METADATA {
                carry(&mut kept["metadata"], &object["metadata"], field);
            }
            carry(&mut kept, object, "status");
            carry(&mut kept["metadata"], &object["metadata"], "resourceVersion");
            *object = kept;
        }
        Part::Approval => {
            let mut kept = old.clone();
            if object["status"]["conditions"].is_array() {
                kept["status"]["conditions"] = object["status"]["conditions"].take();
            }
            carry(&mut kept["metadata"], &object["metadata"], "resourceVersion");
            *object = kept;
        }
        Part::Finalize => {
            let finalizers = object["spec"]["finalizers"].clone();
            let mut kept = old.clone();
            if !kept["spec"].is_object() {
                kept["spec"] = json!({});
            }
            kept["spec"]["finalizers"] = if finalizers.is_array() { finalizers } else { json!([]) };
            *object = kept;
        }
    }
}

/// Takes a field over from another object, absence included.
fn carry(into: &mut Value, from: &Value, field: &str) {
    let Some(fields) = into.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

/// R4.
fn count_generation(call: Call<'_>, part: Part, old: &Value, object: &mut Value) {
    if !call.target.resource.generation || matches!(part, Part::Status | Part::Approval | Part::Binding) {
        return;
    }
    let has_status = call.target.resource.has(Subresource::Status);
    let is_counted = |key: &str| key != "metadata" && !(key == "status" && has_status);
    let is_same = |key: &String| !is_counted(key) || old.get(key) == object.get(key);
    let fields =
        |value: &Value| value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    if !fields(old).iter().chain(&fields(object)).all(is_same) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        write::metadata_mut(object).insert("generation".to_owned(), json!(generation));
    }
}

fn validate(call: Call<'_>, part: Part, old: &Value, object: &Value) -> Result<(), ApiError> {
    let resource = &call.target.resource;
    let mut errors = Errors::new();
    validate_metadata(resource, object, &mut errors);
    validate_metadata_update(object, old, &mut errors);
    match (part, part.of_kind()) {
        (_, Some(sub)) => resource.rules.validate_part(sub, object, old, &mut errors),
        (Part::Main, None) => resource.rules.validate_changed(object, old, &mut errors),
        (_, None) => resource.rules.validate_status(object, old, &mut errors),
    }
    write::refuse_if_any(resource, object, &errors)?;
    if part == Part::Main {
        write::warn(call, object, Some(old));
    }
    Ok(())
}

/// R6: whether nothing keeps an ending object any more.
pub(crate) fn is_finished(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    metadata.get("deletionTimestamp").is_some()
        && is_empty(&metadata["finalizers"])
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (object["kind"] != "Namespace" || is_empty(&object["spec"]["finalizers"]))
}
