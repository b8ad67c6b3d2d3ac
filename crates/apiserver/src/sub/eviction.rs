//! `pods/eviction`: a deletion that budgets may refuse. There are no budgets yet, so it is a deletion.
//!
//! Source: API reference, policy/v1 Eviction.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use windlass_api::ApiError;

use crate::answer::Answer;
use crate::decode;
use crate::delete::{DeleteOptions, remove};
use crate::server::Call;
use crate::write::{self, WriteOptions, text};

const MESSAGE: &str = "k8s.io.api.policy.v1.Eviction";

pub(crate) async fn create(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    let message = decode::message_named(MESSAGE)?;
    let (eviction, warnings) = decode::decode(call.headers, body, message, decode::validation(call.query)?)?;
    let name = text(&eviction["metadata"], "name");
    if !name.is_empty() && name != call.target.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = DeleteOptions::from_value(&eviction["deleteOptions"])?;
    options.dry_run |= WriteOptions::parse(call.query)?.dry_run;
    remove(call, &call.target.name, &options).await?;
    Ok(Answer::tree(write::success(Value::Null)).code(StatusCode::CREATED).warn(warnings))
}
