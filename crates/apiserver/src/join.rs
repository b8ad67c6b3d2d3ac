//! `POST /windlass/v1/join`: a machine with a join token gets its node's certificate.
//!
//! Rules
//!   R1 token        compared in constant time; wrong ones are 401 and counted
//!   R2 knocks       a few wrong ones a minute are heard, then all wait: 429
//!   R3 own name     a name that is taken by a Node object is refused (A47): its owner renews with its certificate, anybody
//!                   else has to have the Node deleted first
//!   R4 little       the certificate names the node and the addresses it says it has; nothing else of the request is signed
//!
//! The joiner has checked that the server's CA is the one its token names before it sends the token (A46).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_api::{ApiError, Reason, kinds};
use windlass_stdx::Body;

use crate::decode;
use crate::failure::{commit_failed, later};
use crate::identity::{GROUP_MASTERS, Identity};
use crate::key;
use crate::pki::PkiError;
use crate::request::not_found;
use crate::server::Server;

/// Largest join request: a signing request is under 2 KiB.
const BODY_BYTES_MAX: usize = 32 * 1024;
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Wrong tokens heard in one window.
const KNOCKS_MAX: usize = 20;
const KNOCKS_WINDOW: Duration = Duration::from_secs(60);
/// Addresses of one node.
const ADDRESSES_MAX: usize = 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JoinRequest {
    token: String,
    node_name: String,
    csr: String,
    #[serde(default)]
    addresses: Vec<IpAddr>,
}

/// When wrong tokens were given lately.
#[derive(Default)]
pub(crate) struct Knocks(Mutex<VecDeque<Instant>>);

impl Knocks {
    fn lately(&self) -> usize {
        let mut knocks = self.0.lock().expect("nothing panics while holding the knocks");
        while knocks.front().is_some_and(|at| at.elapsed() >= KNOCKS_WINDOW) {
            knocks.pop_front();
        }
        knocks.len()
    }

    fn wrong(&self) {
        let mut knocks = self.0.lock().expect("nothing panics while holding the knocks");
        if knocks.len() < KNOCKS_MAX {
            knocks.push_back(Instant::now());
        }
    }
}

/// Answers a join with the node's certificate and the CA.
pub(crate) async fn join(server: &Server, who: &Identity, body: Body) -> Result<Value, ApiError> {
    let pki = server.config.pki.as_ref().ok_or_else(not_found)?;
    if server.knocks.lately() >= KNOCKS_MAX {
        return Err(later(Reason::TooManyRequests, "too many wrong join tokens lately, please try again in a minute"));
    }
    let bytes = decode::read_within(body, BODY_BYTES_MAX, BODY_TIME_MAX).await?;
    let request: JoinRequest = serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::bad_request(format!("expected token, nodeName, csr and addresses, found an error: {error}"))
    })?;
    if !pki.is_join_token(&request.token) {
        server.knocks.wrong();
        tracing::warn!(node = %request.node_name.escape_debug(), "refused a join: wrong token");
        return Err(ApiError::new(Reason::Unauthorized, "the join token is not valid for this cluster"));
    }
    if request.addresses.len() > ADDRESSES_MAX {
        return Err(ApiError::bad_request(format!("expected at most {ADDRESSES_MAX} addresses")));
    }
    server.store.read_barrier().await.map_err(commit_failed)?;
    let is_owner = who.node_name() == Some(&request.node_name) || who.is_in(GROUP_MASTERS);
    if !is_owner && !request.node_name.contains('/') {
        let key = key::object(&kinds::NODE, "", &request.node_name);
        if server.store.get(&key).is_some() {
            let why = "a node of this name has joined already; delete it first, or join with its certificate";
            return Err(ApiError::conflict(&kinds::NODE, &request.node_name, why));
        }
    }
    let certificate =
        pki.sign_node(&request.csr, &request.node_name, &request.addresses).map_err(|error| match error {
            PkiError::Name { .. } | PkiError::Certificate { .. } => ApiError::bad_request(error.to_string()),
            other => ApiError::internal(other),
        })?;
    tracing::info!(node = %request.node_name, "a node joins");
    Ok(json!({"certificate": certificate, "ca": pki.ca_pem()}))
}
