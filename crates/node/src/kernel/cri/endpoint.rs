//! Where a runtime serves CRI, as the node is told: `unix:///run/containerd/containerd.sock`, with `?handler=NAME` for one of
//! the runtime's own handlers.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the socket of a runtime begins.
pub const SCHEME: &str = "unix://";

/// A runtime of this machine that serves CRI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CriEndpoint {
    /// Its socket.
    pub socket: PathBuf,
    /// Which of its own handlers runs the pods; empty is its default.
    pub handler: String,
}

impl FromStr for CriEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<CriEndpoint, String> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| format!("expected {SCHEME}/PATH, found {text:?}"))?;
        let (socket, handler) = match rest.split_once('?') {
            None => (rest, ""),
            Some((socket, query)) => {
                let handler = query.strip_prefix("handler=").filter(|name| !name.is_empty());
                (socket, handler.ok_or_else(|| format!("expected ?handler=NAME behind the socket, found ?{query}"))?)
            }
        };
        match socket.starts_with('/') {
            true => Ok(CriEndpoint { socket: socket.into(), handler: handler.to_owned() }),
            false => Err(format!("expected the whole path of a socket, found {socket:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CriEndpoint;

    #[test]
    fn an_endpoint_is_a_whole_path_and_maybe_a_handler() {
        let read = |text: &str| text.parse::<CriEndpoint>();
        let endpoint = |socket: &str, handler: &str| CriEndpoint { socket: socket.into(), handler: handler.into() };
        assert_eq!(read("unix:///run/c.sock"), Ok(endpoint("/run/c.sock", "")));
        assert_eq!(read("unix:///run/c.sock?handler=kata"), Ok(endpoint("/run/c.sock", "kata")));
        for bad in ["/run/c.sock", "unix://c.sock", "unix:///c?handler=", "unix:///c?runtime=x", "tcp://1.2.3.4:1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
