//! `/scale`: the replicas of whatever has replicas, as autoscaling/v1 Scale.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;
use windlass_api::field::Errors;
use windlass_api::{ApiError, Kind, scale};

use crate::answer::Answer;
use crate::apply::apply_scale;
use crate::change::{MODIFIED, Part, change};
use crate::convert;
use crate::decode;
use crate::failure::commit_failed;
use crate::key;
use crate::server::Call;
use crate::update::{Patch, is_apply};
use crate::write::{self, WriteOptions, text};

const MESSAGE: &str = "k8s.io.api.autoscaling.v1.Scale";
static SCALE: Kind = Kind {
    group: Cow::Borrowed("autoscaling"),
    version: Cow::Borrowed("v1"),
    kind: Cow::Borrowed("Scale"),
    plural: Cow::Borrowed("scales"),
    namespaced: true,
};

pub(crate) async fn get(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { server, target, .. } = call;
    server.store.read_barrier().await.map_err(commit_failed)?;
    let kind = &target.resource.kind;
    let entry = server.store.get(&key::object(convert::stored_kind(&target.resource), &target.namespace, &target.name));
    let entry = entry.ok_or_else(|| ApiError::not_found(kind, &target.name))?;
    let entry = convert::entry(server, &target.resource, entry).await?;
    Ok(Answer::tree(scale::of(&target.resource, &write::tree(&entry))))
}

pub(crate) async fn update(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    let message = decode::message_named(MESSAGE)?;
    let (wished, warnings) = decode::decode(call.headers, body, message, decode::validation(call.query)?)?;
    set(call, |_| Ok((wished.clone(), warnings.clone()))).await
}

pub(crate) async fn patch(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    if is_apply(call)? {
        let (changed, warnings) = apply_scale(call, body, (&SCALE, decode::message_named(MESSAGE)?)).await?;
        return shown(call, &changed, warnings);
    }
    let patch = Patch::parse(call, body, decode::message_named(MESSAGE)?)?;
    set(call, |before| patch.apply(before)).await
}

/// Writes the replicas of the scale that `wish` makes of the present one; it also gives warnings.
async fn set(
    call: Call<'_>,
    wish: impl Fn(&Value) -> Result<(Value, Vec<String>), ApiError>,
) -> Result<Answer, ApiError> {
    let options = WriteOptions::parse(call.query)?;
    let resource = &call.target.resource;
    let mut warnings = Vec::new();
    let changed = change(call, Part::Main, options.dry_run, |old, _| {
        let (wished, found) = wish(&scale::of(resource, old))?;
        warnings = found;
        let mut object = old.clone();
        let metadata = &wished["metadata"];
        let differs = |field: &str| {
            let asked = text(metadata, field);
            !asked.is_empty() && asked != text(&old["metadata"], field)
        };
        if differs("resourceVersion") || differs("uid") {
            return Err(ApiError::conflict(&resource.kind, &call.target.name, MODIFIED));
        }
        let mut errors = Errors::new();
        scale::apply(resource, &mut object, &wished, &mut errors);
        write::refuse_if_any(resource, old, &errors)?;
        Ok(object)
    })
    .await?;
    shown(call, &changed, warnings)
}

/// The scale of the object as it is now.
fn shown(call: Call<'_>, object: &Bytes, warnings: Vec<String>) -> Result<Answer, ApiError> {
    let object: Value = serde_json::from_slice(object).map_err(ApiError::internal)?;
    Ok(Answer::tree(scale::of(&call.target.resource, &object)).warn(warnings))
}
