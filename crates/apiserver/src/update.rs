//! `update` and `patch`: the object as the client wants it, whole or as a difference to what is stored.
//!
//! Rules
//!   R1 update       the body is the whole object; one that does not exist is 404
//!   R2 patch        JSON patch, merge patch, strategic merge patch or apply (`apply`), by Content-Type, applied to what is
//!                   stored and again when that changed meanwhile; a patch that names a resourceVersion is not tried again
//!   R3 checked      a patched object is checked against the schema like one that was sent whole
//!
//! Source: API concepts, "Patch"; RFC 6902, RFC 7386.

use bytes::Bytes;
use serde_json::Value;
use windlass_api::ApiError;
use windlass_api::codec::{Validation, check_fields};
use windlass_api::merge::{self, PatchType};
use windlass_api::schema::Message;

use crate::answer::Answer;
use crate::apply::apply;
use crate::change::{Part, change};
use crate::decode;
use crate::owners;
use crate::server::Call;
use crate::write::WriteOptions;

pub(crate) async fn update(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    let options = WriteOptions::parse(call.query)?;
    let validation = decode::validation(call.query)?;
    let message = call.target.resource.message.get();
    let (object, warnings) = decode::decode(call.headers, body, message, validation)?;
    let changed = change(call, Part::of(call.target.sub), options.dry_run, |_, _| Ok(object.clone())).await?;
    Ok(Answer::object(changed).warn(warnings))
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
