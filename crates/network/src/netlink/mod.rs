//! Netlink: how the kernel is asked to change its network. Synchronous, because every call is a few microseconds.

mod message;
mod socket;

pub(crate) use message::{Attributes, Messages, attributes, be32_of, text_of};
pub(crate) use socket::{Protocol, Reply, Socket};

/// What the kernel said about one message of a request.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("the kernel refused {what}{}", detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default())]
    Refused {
        /// The message, in our words.
        what: &'static str,
        /// The kernel's own explanation, if it gave one.
        detail: Option<String>,
        /// The error code.
        #[source]
        source: std::io::Error,
    },
    /// The socket failed.
    #[error("netlink {doing} failed")]
    Socket {
        /// Open, send or receive.
        doing: &'static str,
        /// The error code.
        #[source]
        source: std::io::Error,
    },
    /// The kernel did not answer in time or answered something unreadable.
    #[error("expected an answer to {what}, found {found}")]
    Answer {
        /// The message, in our words.
        what: &'static str,
        /// What came instead.
        found: &'static str,
    },
}

impl NetlinkError {
    /// The kernel's error code, when it refused.
    pub(crate) fn refusal(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } => source.raw_os_error(),
            NetlinkError::Socket { .. } | NetlinkError::Answer { .. } => None,
        }
    }
}
