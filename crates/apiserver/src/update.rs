//! `update` and `patch`: the object as the client wants it, whole or as a difference to what is stored.
//!
//! Rules
//!   R1 update       the body is the whole object; one that does not exist is 404, or created where its kind has it so, by
//!                   who may create it
//!   R2 patch        JSON patch, merge patch, strategic merge patch or apply (`apply`), by Content-Type, applied to what is
//!                   stored and again when that changed meanwhile; a patch that names a resourceVersion is not tried again
//!   R3 checked      a patched object is checked against the schema like one that was sent whole
//!
//! Source: API concepts, "Patch"; RFC 6902, RFC 7386.

use bytes::Bytes;
use serde_json::Value;
use windlass_api::codec::{Validation, check_fields};
use windlass_api::merge::{self, PatchType};
use windlass_api::schema::Message;
use windlass_api::{ApiError, Reason};

use crate::answer::Answer;
use crate::apply::apply;
use crate::authorize::authorize;
use crate::change::{MODIFIED, Part, change};
use crate::config::WRITE_ATTEMPTS_MAX;
use crate::convert;
use crate::create::create;
use crate::decode;
use crate::key;
use crate::owners;
use crate::request::{Route, Target, Verb, short};
use crate::server::Call;
use crate::write::{self, WriteOptions, text};

pub(crate) async fn update(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    let options = WriteOptions::parse(call.query)?;
    let validation = decode::validation(call.query)?;
    let message = call.target.resource.message.get();
    let (object, warnings) = decode::decode(call.headers, body, message, validation)?;
    for _ in 0..WRITE_ATTEMPTS_MAX {
        let changed = change(call, Part::of(call.target.sub), options.dry_run, |_, _| Ok(object.clone())).await;
        match changed {
            Err(error) if error.reason == Reason::NotFound && is_created_by_update(call.target) && is_missing(call) => {
            }
            changed => return Ok(Answer::object(changed?).warn(warnings)),
        }
        match create_missing(call, object.clone()).await {
            // Somebody else was faster: then there is something to update.
            Err(error) if error.reason == Reason::AlreadyExists => {}
            created => return Ok(created?.warn(warnings)),
        }
    }
    Err(ApiError::conflict(&call.target.resource.kind, &call.target.name, MODIFIED))
}

/// Something else that the update speaks of may be what was not found.
fn is_missing(call: Call<'_>) -> bool {
    let Target { resource, namespace, name, .. } = call.target;
    call.server.store.get(&key::object(convert::stored_kind(resource), namespace, name)).is_none()
}

fn is_created_by_update(target: &Target) -> bool {
    target.sub.is_none() && target.resource.created_by_update
}

/// R1.
async fn create_missing(call: Call<'_>, mut object: Value) -> Result<Answer, ApiError> {
    authorize_create(call)?;
    let (kind, name) = (&call.target.resource.kind, &call.target.name);
    write::check_kind(kind, &mut object)?;
    write::check_place(kind, &call.target.namespace, name, &mut object)?;
    let uid = text(&object["metadata"], "uid");
    if !uid.is_empty() {
        let why =
            format!("Precondition failed: UID in precondition: {}, UID in object meta: ", short(uid).trim_matches('"'));
        return Err(ApiError::conflict(kind, name, &why));
    }
    create(call, object).await
}

/// Who changes what does not exist must be one who may create it.
pub(crate) fn authorize_create(call: Call<'_>) -> Result<(), ApiError> {
    let target = Target { verb: Verb::Create, ..call.target.clone() };
    let path = target.resource.kind.collection_path(Some(&target.namespace));
    authorize(call.server, call.who, &Route::Target(target), call.query, ("POST", &path)).map(drop)
}

pub(crate) async fn patch(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    if is_apply(call)? {
        return apply(call, body).await;
    }
    let options = WriteOptions::parse(call.query)?;
    let patch = Patch::parse(call, body, call.target.resource.message.get())?;
    let mut warnings = Vec::new();
    let changed = change(call, Part::of(call.target.sub), options.dry_run, |old, _| {
        let (object, found) = patch.apply(old)?;
        warnings = found;
        Ok(object)
    })
    .await?;
    Ok(Answer::object(changed).warn(warnings))
}

/// Whether the body is the configuration of an apply.
pub(crate) fn is_apply(call: Call<'_>) -> Result<bool, ApiError> {
    let content_type = decode::content_type(call.headers)?.unwrap_or_default();
    Ok(PatchType::of_content_type(content_type) == Some(PatchType::Apply))
}

/// A patch, and the schema of what it is applied to.
pub(crate) struct Patch<'a> {
    form: PatchType,
    body: &'a Bytes,
    message: Message<'a>,
    validation: Validation,
}

impl<'a> Patch<'a> {
    pub fn parse(call: Call<'_>, body: &'a Bytes, message: Message<'a>) -> Result<Patch<'a>, ApiError> {
        let content_type = decode::content_type(call.headers)?.unwrap_or_default();
        let all = [PatchType::Json, PatchType::Merge, PatchType::Strategic, PatchType::Apply];
        // Schemas of custom kinds do not say how lists merge strategically.
        let is_served = |form: &PatchType| *form != PatchType::Strategic || !message.is_custom();
        let form = PatchType::of_content_type(content_type).filter(is_served);
        let form = form.ok_or_else(|| {
            let accepted: Vec<&str> = all.iter().filter(|form| is_served(form)).map(|form| form.as_str()).collect();
            decode::unsupported(content_type, &accepted.join(", "))
        })?;
        owners::force(call, false)?;
        Ok(Patch { form, body, message, validation: decode::validation(call.query)? })
    }

    /// The patched object and warnings.
    pub fn apply(&self, old: &Value) -> Result<(Value, Vec<String>), ApiError> {
        let mut patched = merge::patch(self.form, old, self.body, Some(self.message))?;
        let warnings = check_fields(&mut patched.value, self.message, &patched.duplicates, self.validation)?;
        Ok((patched.value, warnings))
    }
}
