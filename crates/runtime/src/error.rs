//! Why the runtime could not do what it was asked.

use std::path::PathBuf;
use std::time::Duration;

/// Why the runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The spec was refused before anything was made.
    #[error("{field}: {why}")]
    Invalid {
        /// The field, as a path into the spec.
        field: &'static str,
        /// What was expected and what was found.
        why: String,
    },
    /// The sandbox or container already exists.
    #[error("{what} {id} already exists; remove it first or choose another id")]
    Exists {
        /// `sandbox` or `container`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// There is no such sandbox or container.
    #[error("{what} {id} does not exist")]
    NotFound {
        /// `sandbox` or `container`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The shim did what it could and says why it was not enough.
    #[error("{operation} {id}: {why}")]
    Refused {
        /// What was asked: `create container`, `start container`, …
        operation: &'static str,
        /// The container or sandbox.
        id: String,
        /// What went wrong, from the one who saw it.
        why: String,
    },
    /// The shim of this sandbox is gone, and its containers with it.
    #[error("the shim of sandbox {id} is gone; its containers have been killed, remove the sandbox")]
    ShimLost {
        /// The sandbox.
        id: String,
    },
    /// The shim did not answer.
    #[error("{operation} {id}: no answer from its shim within {after:?}")]
    TimedOut {
        /// What was asked.
        operation: &'static str,
        /// The container or sandbox.
        id: String,
        /// How long was waited.
        after: Duration,
    },
    /// A file operation failed.
    #[error("could not {operation} {path}")]
    File {
        /// `read`, `write`, `make`, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another operation of the system failed.
    #[error("could not {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The shim spoke in a way this program does not understand.
    #[error("the shim of sandbox {id} sent {found}, which this version does not understand")]
    Protocol {
        /// The sandbox.
        id: String,
        /// What came.
        found: String,
    },
}

impl RuntimeError {
    pub(crate) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> RuntimeError {
        let path = path.into();
        move |source| RuntimeError::File { operation, path, source }
    }

    pub(crate) fn system(operation: &'static str) -> impl FnOnce(std::io::Error) -> RuntimeError {
        move |source| RuntimeError::System { operation, source }
    }
}

/// An error with all its causes in one line.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
