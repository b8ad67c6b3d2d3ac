//! Server-side apply: a configuration of the fields that its manager wants to own, laid over what is stored.
//!
//! Rules
//!   R1 configuration  an object of the kind in YAML or JSON, without `managedFields`; every field known, every item named once
//!   R2 part           what the part of the object cannot write is left out of it: status, or all but status
//!   R3 create         an object that does not exist is created, by who may create it; a part of one is 404
//!   R4 condition      a resourceVersion or uid in it must be the stored object's
//!   R5 scale          what is applied to a scale is applied to the object's replicas
//!
//! Source: API concepts, "Server-Side Apply"; KEP-555.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use windlass_api::codec::{Decoded, Limits, Validation, check_fields, json as json_body, yaml};
use windlass_api::field::Errors;
use windlass_api::merge::apply::{self, Managers};
use windlass_api::schema::Message;
use windlass_api::{ApiError, Kind, Reason, Subresource, scale};

use crate::answer::Answer;
use crate::change::{MODIFIED, Part, change_owned};
use crate::config::WRITE_ATTEMPTS_MAX;
use crate::create::create_owned;
use crate::decode;
use crate::owners::{self, Ownership};
use crate::request::{Target, short};
use crate::server::Call;
use crate::update::authorize_create;
use crate::write::{self, WriteOptions, text};

/// An applied configuration that was checked.
struct Configuration {
    object: Value,
    warnings: Vec<String>,
}

impl Configuration {
    /// R1. `kind` and `message` are those of what is applied: the target's, or those of its part.
    fn parse(call: Call<'_>, body: &Bytes, kind: &Kind, message: Message<'_>) -> Result<Configuration, ApiError> {
        let validation = decode::validation(call.query)?;
        let Decoded { value: mut object, duplicates } = read(body)?;
        check_type(kind, &object)?;
        write::check_kind(kind, &mut object)?;
        if object["metadata"].get("managedFields").is_some_and(|managed| !managed.is_null()) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        apply::check(&object, message).map_err(|why| {
            let (group, version) = (&kind.group, &kind.version);
            let (namespace, name) = (&call.target.namespace, &call.target.name);
            ApiError::bad_request(format!(
                "failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={}): {why}",
                kind.kind
            ))
        })?;
        // Every field is known: what is left to find are fields written twice, and types.
        let warnings = check_fields(&mut object, message, &duplicates, validation)?;
        let warnings = if validation == Validation::Warn { warnings } else { Vec::new() };
        Ok(Configuration { object, warnings })
    }

    /// The object that the configuration makes of `old`, with its owners.
    fn over(&self, call: Call<'_>, old: &Value, force: bool) -> Result<Value, ApiError> {
        let mut live = old.clone();
        let managers = Managers::stored(owners::take(&mut live));
        let message = call.target.resource.message.get();
        let applied =
            owners::with_writer(call, |writer| apply::apply(&live, &self.object, managers, (writer, force), message))?;
        let applied = applied.map_err(|refusal| owners::refuse(call, refusal))?;
        let mut object = applied.object;
        owners::put(&mut object, applied.managers.into_value());
        Ok(object)
    }
}

/// JSON is YAML, and read faster and with fields written twice told.
fn read(body: &Bytes) -> Result<Decoded, ApiError> {
    let limits = Limits::default();
    let is_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if is_json && let Ok(decoded) = json_body::decode(body, limits) {
        return Ok(decoded);
    }
    Ok(yaml::decode(body, limits)?)
}

/// A configuration says what it is of: nothing is guessed of what somebody wants to own.
fn check_type(kind: &Kind, object: &Value) -> Result<(), ApiError> {
    let (version, name) = (text(object, "apiVersion"), text(object, "kind"));
    if version == kind.api_version() && name == kind.kind {
        return Ok(());
    }
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let found = format!("{group}/{version}, Kind={name}");
    Err(ApiError::bad_request(format!("invalid object type: {}", short(&found).trim_matches('"'))))
}

/// Applies a configuration to the target.
pub(crate) async fn apply(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    let options = WriteOptions::parse(call.query)?;
    let force = owners::force(call, true)?;
    let resource = &call.target.resource;
    let mut config = Configuration::parse(call, body, &resource.kind, resource.message.get())?;
    keep_part(call.target, &mut config.object);
    for _ in 0..WRITE_ATTEMPTS_MAX {
        let part = Part::of(call.target.sub);
        let over = |old: &Value, _: &_| config.over(call, old, force);
        match change_owned(call, part, (options.dry_run, Ownership::Settled), over).await {
            Err(error) if error.reason == Reason::NotFound && call.target.sub.is_none() => {}
            changed => return Ok(Answer::object(changed?).warn(config.warnings)),
        }
        match create(call, &config).await {
            // somebody else was faster: then there is something to apply to
            Err(error) if error.reason == Reason::AlreadyExists => {}
            created => return Ok(created?.warn(config.warnings)),
        }
    }
    Err(ApiError::conflict(&resource.kind, &call.target.name, MODIFIED))
}

/// R2.
fn keep_part(target: &Target, config: &mut Value) {
    let Some(fields) = config.as_object_mut() else { return };
    match target.sub {
        None if target.resource.has(Subresource::Status) => drop(fields.remove("status")),
        Some(Subresource::Status) => {
            fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|name, _| {
                    let conditions = ["name", "namespace", "uid", "resourceVersion"];
                    conditions.contains(&name.as_str()) || write::STATUS_METADATA.contains(&name.as_str())
                });
            }
        }
        _ => {}
    }
}

/// R3.
async fn create(call: Call<'_>, config: &Configuration) -> Result<Answer, ApiError> {
    authorize_create(call)?;
    let (kind, name) = (&call.target.resource.kind, &call.target.name);
    let metadata = &config.object["metadata"];
    for (field, said) in [
        ("uid", "uid mismatch: the provided object specified uid"),
        ("resourceVersion", "the provided object specified resourceVersion"),
    ] {
        let wanted = text(metadata, field);
        if !wanted.is_empty() {
            let why = format!("{said} {}, and no existing object was found", short(wanted).trim_matches('"'));
            return Err(ApiError::conflict(kind, name, &why));
        }
    }
    let mut object = config.over(call, &Value::Object(Map::new()), false)?;
    write::check_place(kind, &call.target.namespace, name, &mut object)?;
    create_owned(call, object, Ownership::Settled).await
}

/// Applies a Scale to the target's replicas (R5); gives the object's configuration and the warnings.
pub(crate) async fn apply_scale(
    call: Call<'_>,
    body: &Bytes,
    (scale_kind, message): (&Kind, Message<'_>),
) -> Result<(Bytes, Vec<String>), ApiError> {
    let options = WriteOptions::parse(call.query)?;
    let force = owners::force(call, true)?;
    let Configuration { object: applied, warnings } = Configuration::parse(call, body, scale_kind, message)?;
    let kind = &call.target.resource.kind;
    let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": applied["metadata"]});
    if let Some(replicas) = applied["spec"].get("replicas") {
        let mut errors = Errors::new();
        scale::set(&call.target.resource, &mut object, replicas.as_i64().unwrap_or(0), &mut errors);
        write::refuse_if_any(&call.target.resource, &object, &errors)?;
    }
    let config = Configuration { object, warnings };
    let over = |old: &Value, _: &_| config.over(call, old, force);
    let changed = change_owned(call, Part::Main, (options.dry_run, Ownership::Settled), over).await?;
    Ok((changed, config.warnings))
}
