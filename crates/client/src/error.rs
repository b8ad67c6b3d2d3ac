//! Why a call brought no object.

use std::time::Duration;

use windlass_api::{ApiError, Reason};
use windlass_stdx::{BoxError, TransportError};

/// Why a call failed. `what` is always the method and path.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The API refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// There is no answer: the link failed.
    #[error("{what}: no answer from the API")]
    Transport {
        /// Method and path.
        what: String,
        /// What happened to the link.
        #[source]
        source: TransportError,
    },
    /// The answer did not come in time: a write may or may not have been carried out.
    #[error("{what}: expected an answer within {after:?}, found none; it may have been carried out")]
    TimedOut {
        /// Method and path.
        what: String,
        /// The deadline.
        after: Duration,
    },
    /// The answer broke off.
    #[error("{what}: the answer broke off")]
    Body {
        /// Method and path.
        what: String,
        /// What the link said.
        #[source]
        source: BoxError,
    },
    /// The answer is not what this call expects.
    #[error("{what}: expected {expected}, found something else")]
    Decode {
        /// Method and path.
        what: String,
        /// The expected shape.
        expected: &'static str,
        /// Where it differs.
        #[source]
        source: BoxError,
    },
    /// The answer is longer than this call takes.
    #[error("{what}: expected at most {bytes_max} bytes, found more; narrow the request")]
    TooLarge {
        /// Method and path.
        what: String,
        /// The limit.
        bytes_max: usize,
    },
    /// The request could not be written down.
    #[error("{what}: the request is not valid HTTP")]
    Request {
        /// Method and path.
        what: String,
        /// Why.
        #[source]
        source: BoxError,
    },
}

impl ClientError {
    /// The API's reason, when the API answered.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            ClientError::Api(refusal) => Some(refusal.reason),
            _ => None,
        }
    }

    /// The object changed since it was read: read again and decide again.
    pub fn is_conflict(&self) -> bool {
        self.reason() == Some(Reason::Conflict)
    }

    /// An object of this name exists.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == Some(Reason::AlreadyExists)
    }

    /// There is no such object.
    pub fn is_not_found(&self) -> bool {
        self.reason() == Some(Reason::NotFound)
    }

    /// The revision asked for is no longer kept: list again.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason(), Some(Reason::Gone | Reason::Expired))
    }

    /// The same request may succeed later. A write may have been carried out already.
    pub fn is_retryable(&self) -> bool {
        match self {
            ClientError::Api(refusal) => matches!(
                refusal.reason,
                Reason::TooManyRequests
                    | Reason::InternalError
                    | Reason::ServiceUnavailable
                    | Reason::Timeout
                    | Reason::StorageFull
            ),
            ClientError::Transport { .. } | ClientError::TimedOut { .. } | ClientError::Body { .. } => true,
            ClientError::Decode { .. } | ClientError::TooLarge { .. } | ClientError::Request { .. } => false,
        }
    }
}
