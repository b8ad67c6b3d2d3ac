//! `create`: a new object, all or nothing.
//!
//! Rules
//!   R1 identity     uid, creationTimestamp, generation and resourceVersion are the server's to give
//!   R2 names        the name is given, or made from `generateName`; a made name that is taken is made again, a few times
//!   R3 one write    the namespace is not ending, the name is free and every address or port taken is free: all in the
//!                   transaction that stores the object, so that no race lets a second one through
//!   R4 owners       the creator owns what it wrote and what was filled in for it (`owners`), but not what admission gave
//!
//! Source: API concepts, "Object names and IDs", "Generated values".

use http::StatusCode;
use serde_json::{Value, json};
use windlass_api::field::Errors;
use windlass_api::resources::validate_metadata;
use windlass_api::{ApiError, Reason, kinds, name};
use windlass_store::{Committed, Expect, Op, Template};

use crate::admit::{self, Admission};
use crate::answer::Answer;
use crate::config::{GENERATED_NAMES_MAX, WRITE_ATTEMPTS_MAX};
use crate::convert;
use crate::key;
use crate::owners::{self, Ownership};
use crate::server::Call;
use crate::write::{self, Refused, WriteOptions, text};

pub(crate) async fn create(call: Call<'_>, object: Value) -> Result<Answer, ApiError> {
    owners::manager(call)?;
    create_owned(call, object, Ownership::Changed).await
}

/// Creates an object and says whether its creator owns what it wrote, or it comes with its owners.
pub(crate) async fn create_owned(call: Call<'_>, mut object: Value, ownership: Ownership) -> Result<Answer, ApiError> {
    let began = call.server.world.now();
    let options = WriteOptions::parse(call.query)?;
    let target = call.target;
    let resource = &target.resource;
    write::check_kind(&resource.kind, &mut object)?;
    write::check_place(&resource.kind, &target.namespace, "", &mut object)?;
    let sent = owners::take(&mut object);
    give_identity(call, &mut object)?;
    admit::service_account::ready(call, &object).await;
    let generates_name = text(&object["metadata"], "name").is_empty();
    let attempts = if generates_name { GENERATED_NAMES_MAX } else { WRITE_ATTEMPTS_MAX };
    // What is chosen for one attempt must not look like a wish in the next.
    let keeps_original = generates_name || resource.kind == kinds::SERVICE;
    // Objects that draw on one quota at the same time do so one after the other.
    let quota = key::prefix(&kinds::RESOURCE_QUOTA, &target.namespace);
    let mut turn = None;
    for _ in 0..attempts {
        if generates_name {
            make_name(call, &mut object)?;
        }
        let mut candidate = if keeps_original { object.clone() } else { std::mem::take(&mut object) };
        resource.rules.default(&mut candidate);
        write::drop_disabled(resource, &mut candidate, None);
        owners::take(&mut candidate); // those of the attempt before
        let managed = owners::of_new(call, ownership, &candidate, sent.as_ref())?;
        let admission = admit::create(call, &mut candidate).await?;
        // What a webhook or a policy added is dropped like what was sent.
        write::drop_disabled(resource, &mut candidate, None);
        resource.rules.prepare_create(&mut candidate);
        admit::complete(call, &mut candidate);
        let mut errors = Errors::new();
        validate_metadata(resource, &candidate, &mut errors);
        resource.rules.validate(&candidate, &mut errors);
        write::refuse_if_any(resource, &candidate, &errors)?;
        write::warn(call, &candidate, None);
        admit::validate_new(call, &candidate).await?;
        owners::put(&mut candidate, managed);
        if options.dry_run {
            return try_only(call, &candidate);
        }
        let template = convert::template(call.server, resource, &candidate).await?;
        match commit(call, &candidate, template, admission).await? {
            Attempt::Done(committed) => {
                let stored = committed.entries.last().cloned().flatten();
                let stored = stored.expect("the object is the last thing its transaction writes");
                if resource.kind == kinds::POD {
                    let span = (began, call.server.world.now());
                    call.server.starts.created(crate::server::header(&stored).uid(), span);
                }
                let served = convert::entry(call.server, resource, stored).await?;
                return Ok(Answer::object(served.shared()).code(StatusCode::CREATED));
            }
            Attempt::Taken if !generates_name => {
                return Err(ApiError::already_exists(&resource.kind, text(&candidate["metadata"], "name")));
            }
            Attempt::Taken | Attempt::Again if keeps_original => {}
            Attempt::Taken | Attempt::Again => object = candidate,
        }
        if turn.is_none() {
            turn = Some(call.server.turns.wait(&quota).await);
        }
    }
    Err(exhausted(call, &object, generates_name))
}

enum Attempt {
    Done(Committed),
    /// The name is taken.
    Taken,
    /// Something the object depends on changed: look at it again.
    Again,
}

async fn commit(call: Call<'_>, object: &Value, template: Template, admission: Admission) -> Result<Attempt, ApiError> {
    let mut ops = admission.ops;
    let own = ops.len();
    let key = key::object(
        convert::stored_kind(&call.target.resource),
        &call.target.namespace,
        text(&object["metadata"], "name"),
    );
    ops.push(Op::put(key, template, Expect::Absent));
    match call.server.commit(ops).await {
        Ok(committed) => Ok(Attempt::Done(committed)),
        Err(Refused::Conflict { index }) if index == own => Ok(Attempt::Taken),
        Err(Refused::Conflict { .. }) => Ok(Attempt::Again),
        Err(Refused::Failed(error)) => Err(error),
    }
}

/// R1.
fn give_identity(call: Call<'_>, object: &mut Value) -> Result<(), ApiError> {
    write::strip(object);
    let world = &call.server.world;
    let metadata = write::metadata_mut(object);
    if metadata.get("resourceVersion").is_some_and(|found| *found != Value::Null && *found != "") {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(world.uuid()));
    metadata.insert("creationTimestamp".to_owned(), json!(world.now_rfc3339()));
    if call.target.resource.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    Ok(())
}

/// R2.
fn make_name(call: Call<'_>, object: &mut Value) -> Result<(), ApiError> {
    let metadata = write::metadata_mut(object);
    let prefix = match metadata.get("generateName") {
        Some(Value::String(prefix)) if !prefix.is_empty() => prefix.clone(),
        _ => {
            let mut errors = Errors::new();
            validate_metadata(&call.target.resource, object, &mut errors);
            return Err(ApiError::invalid(&call.target.resource.kind, "", &errors));
        }
    };
    metadata.insert("name".to_owned(), json!(name::generate(&prefix, call.server.world.random_u64())));
    Ok(())
}

fn try_only(call: Call<'_>, object: &Value) -> Result<Answer, ApiError> {
    let kind = &call.target.resource.kind;
    let stored_kind = convert::stored_kind(&call.target.resource);
    let name = text(&object["metadata"], "name");
    if call.server.store.get(&key::object(stored_kind, &call.target.namespace, name)).is_some() {
        return Err(ApiError::already_exists(kind, name));
    }
    Ok(Answer::object(write::tried(&write::template(object)?, None)).code(StatusCode::CREATED))
}

fn exhausted(call: Call<'_>, object: &Value, generates_name: bool) -> ApiError {
    if !generates_name {
        let why = "what the object depends on kept changing; please try again";
        return ApiError::conflict(&call.target.resource.kind, text(&object["metadata"], "name"), why);
    }
    let mut error = ApiError::already_exists(&call.target.resource.kind, text(&object["metadata"], "generateName"));
    error.reason = Reason::AlreadyExists;
    error.message = format!("{}, the server was not able to generate a unique name for the object", error.message);
    error.details.retry_after_seconds = 1;
    error
}
