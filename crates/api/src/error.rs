//! What the API answers when it refuses: a reason, a sentence, and the fields at fault. One value, one `Status`.
//!
//! Source: API reference, meta/v1 Status; reasons and codes as Kubernetes pairs them.

use serde_json::{Value, json};

use crate::field::Errors;
use crate::kind::Kind;

/// The machine-readable reason of a refusal; each has one HTTP code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// 400: the request cannot be understood.
    BadRequest,
    /// 401: nobody knows who asks.
    Unauthorized,
    /// 403: who asks may not.
    Forbidden,
    /// 404: there is no such object or path.
    NotFound,
    /// 405: the path exists but not with this method.
    MethodNotAllowed,
    /// 406: no acceptable answer form.
    NotAcceptable,
    /// 409: an object of this name exists.
    AlreadyExists,
    /// 409: the object changed since it was read.
    Conflict,
    /// 410: the revision asked for is no longer kept.
    Gone,
    /// 410: a continue token or watch position is too old.
    Expired,
    /// 413: the body is too large.
    RequestEntityTooLarge,
    /// 415: the body's media type is not known.
    UnsupportedMediaType,
    /// 422: the object breaks its kind's rules.
    Invalid,
    /// 429: try again later.
    TooManyRequests,
    /// 500: our fault.
    InternalError,
    /// 503: not ready to serve this.
    ServiceUnavailable,
    /// 504: it did not finish in time.
    Timeout,
    /// 507: the disk is full; reads go on.
    StorageFull,
}

impl Reason {
    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::InternalError => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
            Reason::StorageFull => 507,
        }
    }

    /// The `reason` of a Status.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Expired => "Expired",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::Invalid => "Invalid",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::InternalError => "InternalError",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Timeout => "Timeout",
            Reason::StorageFull => "StorageFull",
        }
    }

    /// The reason with this text, if it is one of ours.
    pub fn parse(text: &str) -> Option<Reason> {
        const ALL: [Reason; 18] = [
            Reason::BadRequest,
            Reason::Unauthorized,
            Reason::Forbidden,
            Reason::NotFound,
            Reason::MethodNotAllowed,
            Reason::NotAcceptable,
            Reason::AlreadyExists,
            Reason::Conflict,
            Reason::Gone,
            Reason::Expired,
            Reason::RequestEntityTooLarge,
            Reason::UnsupportedMediaType,
            Reason::Invalid,
            Reason::TooManyRequests,
            Reason::InternalError,
            Reason::ServiceUnavailable,
            Reason::Timeout,
            Reason::StorageFull,
        ];
        ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// One cause in `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid` and its like.
    pub reason: String,
    /// What is wrong, for people.
    pub message: String,
    /// The field's path.
    pub field: String,
}

/// What the refusal is about: `details` of a Status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The resource's group.
    pub group: String,
    /// The resource's plural (or, for `Invalid`, its kind), as Kubernetes fills it.
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// The fields at fault.
    pub causes: Vec<Cause>,
    /// When to try again, in seconds; zero for never said.
    pub retry_after_seconds: u32,
    /// Where a list may go on though not consistently: `metadata.continue`; empty for nowhere.
    pub continue_token: String,
}

/// A refusal by the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Machine-readable reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Box<Details>,
}

impl ApiError {
    /// A refusal that is about no object.
    pub fn new(reason: Reason, message: impl Into<String>) -> ApiError {
        ApiError { reason, message: message.into(), details: Box::default() }
    }

    fn about(reason: Reason, kind: &Kind, name: &str, message: String) -> ApiError {
        let details = Details {
            name: name.to_owned(),
            group: kind.group.to_string(),
            kind: kind.plural.to_string(),
            ..Details::default()
        };
        ApiError { reason, message, details: Box::new(details) }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(Reason::BadRequest, message)
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// 404 for an object.
    pub fn not_found(kind: &Kind, name: &str) -> ApiError {
        ApiError::about(Reason::NotFound, kind, name, format!("{} {name:?} not found", kind.qualified_plural()))
    }

    /// 409 on create.
    pub fn already_exists(kind: &Kind, name: &str) -> ApiError {
        let message = format!("{} {name:?} already exists", kind.qualified_plural());
        ApiError::about(Reason::AlreadyExists, kind, name, message)
    }

    /// 409 on update.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> ApiError {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified_plural());
        ApiError::about(Reason::Conflict, kind, name, message)
    }

    /// 403 about an object.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> ApiError {
        let message = format!("{} {name:?} is forbidden: {why}", kind.qualified_plural());
        ApiError::about(Reason::Forbidden, kind, name, message)
    }

    /// 504: the revision asked for has not been reached; `message` says which, and which is the newest.
    pub fn revision_too_large(message: &str) -> ApiError {
        let mut error = ApiError::new(Reason::Timeout, format!("Timeout: {message}"));
        error.details.causes.push(Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        });
        error
    }

    /// 410: the revision asked for is compacted.
    pub fn expired(message: impl Into<String>) -> ApiError {
        ApiError::new(Reason::Expired, message)
    }

    /// 422 with the fields at fault.
    pub fn invalid(kind: &Kind, name: &str, errors: &Errors) -> ApiError {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let listed = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        let subject =
            if kind.group.is_empty() { kind.kind.to_string() } else { format!("{}.{}", kind.kind, kind.group) };
        let mut error =
            ApiError::about(Reason::Invalid, kind, name, format!("{subject} {name:?} is invalid: {listed}"));
        error.details.kind = kind.kind.to_string();
        error.details.causes = errors
            .iter()
            .map(|error| Cause {
                reason: error.reason.as_str().to_owned(),
                message: error.message.clone(),
                field: error.path.to_string(),
            })
            .collect();
        error
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.reason.code()
    }

    /// The `Status` object that goes over the wire.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason.as_str(), "code": self.code(),
        });
        if !self.details.continue_token.is_empty() {
            status["metadata"]["continue"] = json!(self.details.continue_token);
        }
        let details = self.details.to_json();
        if details.as_object().is_some_and(|details| !details.is_empty()) {
            status["details"] = details;
        }
        status
    }

    /// Reads a `Status` that came over the wire; `None` when it is not a failure Status.
    pub fn from_status(status: &Value) -> Option<ApiError> {
        if status["kind"] != "Status" || status["status"] == "Success" {
            return None;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reason = Reason::parse(status["reason"].as_str().unwrap_or_default());
        let reason = reason.unwrap_or_else(|| reason_of_code(status["code"].as_u64().unwrap_or(500)));
        let found = &status["details"];
        let causes = found["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let details = Details {
            name: text(&found["name"]),
            group: text(&found["group"]),
            kind: text(&found["kind"]),
            uid: text(&found["uid"]),
            causes: causes
                .iter()
                .map(|cause| Cause {
                    reason: text(&cause["reason"]),
                    message: text(&cause["message"]),
                    field: text(&cause["field"]),
                })
                .collect(),
            retry_after_seconds: found["retryAfterSeconds"].as_u64().unwrap_or(0) as u32,
            continue_token: text(&status["metadata"]["continue"]),
        };
        Some(ApiError { reason, message: text(&status["message"]), details: Box::new(details) })
    }
}

impl Details {
    fn to_json(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes: Vec<Value> = self
                .causes
                .iter()
                .map(|cause| match cause.field.as_str() {
                    "" => json!({"reason": cause.reason, "message": cause.message}),
                    field => json!({"reason": cause.reason, "message": cause.message, "field": field}),
                })
                .collect();
            out.insert("causes".to_owned(), Value::Array(causes));
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        Value::Object(out)
    }
}

fn reason_of_code(code: u64) -> Reason {
    match code {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        406 => Reason::NotAcceptable,
        409 => Reason::Conflict,
        410 => Reason::Gone,
        413 => Reason::RequestEntityTooLarge,
        415 => Reason::UnsupportedMediaType,
        422 => Reason::Invalid,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        507 => Reason::StorageFull,
        _ => Reason::InternalError,
    }
}

#[cfg(test)]
mod tests {
    use super::{ApiError, Reason};
    use crate::field::{Errors, Path};
    use crate::kind::kinds;

    #[test]
    fn a_refusal_survives_the_wire() {
        let mut errors = Errors::new();
        errors.required(&Path::new("spec").child("selector"), "");
        let refusal = ApiError::invalid(&kinds::DEPLOYMENT, "web", &errors);
        assert_eq!(refusal.message, "Deployment.apps \"web\" is invalid: spec.selector: Required value");
        assert_eq!(ApiError::from_status(&refusal.to_status()), Some(refusal));
        let mut expired = ApiError::expired("too old");
        expired.details.continue_token = "abc".to_owned();
        assert_eq!(expired.to_status()["metadata"]["continue"], "abc");
        assert_eq!(expired.to_status().get("details"), None);
        assert_eq!(ApiError::from_status(&expired.to_status()), Some(expired));
    }

    #[test]
    fn every_reason_is_read_back_as_itself() {
        for reason in [Reason::Conflict, Reason::AlreadyExists, Reason::Expired, Reason::StorageFull] {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(ApiError::not_found(&kinds::POD, "p").message, "pods \"p\" not found");
    }
}
