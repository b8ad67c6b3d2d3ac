//! The edge where every refusal becomes a `Status`: one function, and how the store's refusals are worded.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use windlass_api::codec::watch_frame;
use windlass_api::{ApiError, Reason};
use windlass_stdx::{Response, body_from};
use windlass_store::{CommitError, ReadError};

use crate::form::{self, Form};

/// Seconds after which a client that was refused for load may come back.
const RETRY_SECONDS: u32 = 1;

/// A refusal as a response in this form.
pub(crate) fn refuse(error: &ApiError, form: Form) -> Response {
    let (body, form) = form::tree(form, &error.to_status());
    let mut response = Response::new(body_from(body));
    *response.status_mut() = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if error.details.retry_after_seconds > 0 {
        headers.insert(RETRY_AFTER, HeaderValue::from(error.details.retry_after_seconds));
    }
    response
}

/// A refusal that says when to come back.
pub(crate) fn later(reason: Reason, message: impl Into<String>) -> ApiError {
    let mut error = ApiError::new(reason, message);
    error.details.retry_after_seconds = RETRY_SECONDS;
    error
}

/// A transaction that did not take effect, for a reason that has nothing to do with its object.
pub(crate) fn commit_failed(error: CommitError) -> ApiError {
    match error {
        CommitError::Conflict { .. } => ApiError::internal(format!("an unexpected conflict in the store: {error}")),
        CommitError::StorageFull { .. } => ApiError::new(Reason::StorageFull, error.to_string()),
        CommitError::TooLarge { .. } => ApiError::new(Reason::RequestEntityTooLarge, error.to_string()),
        CommitError::Invalid(_) => ApiError::internal(error),
        CommitError::Busy(_) => later(Reason::TooManyRequests, error.to_string()),
        CommitError::NotLeader { .. } | CommitError::Closed(_) => later(Reason::ServiceUnavailable, error.to_string()),
    }
}

/// A read that the store cannot answer.
pub(crate) fn read_failed(error: ReadError) -> ApiError {
    match error {
        ReadError::Compacted { wanted, oldest } => ApiError::expired(format!(
            "The resourceVersion for the provided request is too old: {wanted} is not kept any more, the oldest is {oldest}"
        )),
        ReadError::Future { wanted, newest } => {
            let message = format!("Too large resource version: {wanted}, current: {newest}");
            let mut error = ApiError::revision_too_large(&message);
            error.details.retry_after_seconds = RETRY_SECONDS;
            error
        }
        ReadError::Closed(_) => later(Reason::ServiceUnavailable, error.to_string()),
    }
}

/// The watch form of a refusal: the object of an `ERROR` event.
pub(crate) fn error_event(error: &ApiError, form: Form) -> Vec<u8> {
    if let (status, Form::Protobuf) = form::tree(form, &error.to_status()) {
        return watch_frame("ERROR", &status);
    }
    let mut event = serde_json::json!({"type": "ERROR", "object": error.to_status()}).to_string().into_bytes();
    event.push(b'\n');
    event
}

#[cfg(test)]
mod tests {
    use super::{commit_failed, refuse};
    use crate::form::Form;
    use windlass_store::CommitError;

    #[test]
    fn refusals_of_the_store_say_what_to_do() {
        let full = CommitError::StorageFull { dir: "/data".into(), needed: 10 };
        for (error, code, retry) in [
            (full, 507, None),
            (CommitError::NotLeader { leader: None }, 503, Some("1")),
            (CommitError::Closed("it has stopped".into()), 503, Some("1")),
            (CommitError::Busy(9), 429, Some("1")),
            (CommitError::TooLarge { what: "a value".to_owned(), found: 2, limit: 1 }, 413, None),
        ] {
            let response = refuse(&commit_failed(error.clone()), Form::Json);
            let found = response.headers().get("retry-after").map(|value| value.to_str().expect("digits"));
            assert_eq!((response.status().as_u16(), found), (code, retry), "{error}");
        }
    }
}
