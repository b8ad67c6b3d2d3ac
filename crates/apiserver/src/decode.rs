//! Bodies in: bounded while they are read, decoded by their Content-Type, checked against the schema table.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use windlass_api::codec::{self, Media, Validation};
use windlass_api::schema::{self, Message};
use windlass_api::{ApiError, Reason};
use windlass_stdx::{Body, read_body};

use crate::config::{BODY_BYTES_MAX, BODY_TIME_MAX};
use crate::request::{Query, short};

/// Reads a whole body, or says that it is too large or too slow. Nothing is read beyond the limit.
pub(crate) async fn read(body: Body) -> Result<Bytes, ApiError> {
    read_within(body, BODY_BYTES_MAX, BODY_TIME_MAX).await
}

/// Reads a whole body within these limits.
pub(crate) async fn read_within(body: Body, bytes_max: usize, time_max: Duration) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(time_max, read_body(body, bytes_max)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            let message = format!("Request entity too large: limit is {bytes_max}");
            Err(ApiError::new(Reason::RequestEntityTooLarge, message))
        }
        Ok(Err(error)) => Err(ApiError::bad_request(format!("the body ended early: {error}"))),
        Err(_) => Err(ApiError::new(Reason::Timeout, format!("the body did not arrive within {time_max:?}"))),
    }
}

/// A built-in schema by its full name.
pub(crate) fn message_named(name: &str) -> Result<Message<'static>, ApiError> {
    schema::kubernetes().find(name).ok_or_else(|| ApiError::internal(format!("no schema named {name}")))
}

/// What is done about unknown and duplicate fields. The server's default is to warn.
pub(crate) fn validation(query: &Query) -> Result<Validation, ApiError> {
    Validation::parse(query.get("fieldValidation"))
}

/// The media type of a body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    headers
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().map_err(|_| unsupported("", "application/json, application/yaml")))
        .transpose()
}

/// 415.
pub(crate) fn unsupported(found: &str, accepted: &str) -> ApiError {
    let found = short(found);
    ApiError::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}; found {found}"
        ),
    )
}

/// Decodes a body that holds a message; gives the tree and warnings.
pub(crate) fn decode(
    headers: &HeaderMap,
    bytes: &[u8],
    message: Message<'_>,
    validation: Validation,
) -> Result<(Value, Vec<String>), ApiError> {
    let content_type = content_type(headers)?;
    let media = Media::of_content_type(content_type).ok_or_else(|| {
        let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
        unsupported(content_type.unwrap_or_default(), accepted)
    })?;
    if bytes.is_empty() {
        return Err(ApiError::bad_request("expected an object in the body, found nothing"));
    }
    let body = codec::decode(media, bytes, message, validation)?;
    Ok((body.value, body.warnings))
}
