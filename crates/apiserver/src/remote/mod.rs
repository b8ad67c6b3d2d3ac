//! A remote end: another server that this one calls, such as a webhook or an aggregated API.
//!
//! Rules
//!   R1 where       a Service of the cluster (`route`) or the host of a URL; nothing that a response says leads elsewhere:
//!                  redirects are answers like others
//!   R2 trust       a Service is `NAME.NAMESPACE.svc`, a URL is its host; proven by the bundle given, or else by the
//!                  machine's own roots (`trust`)
//!   R3 reused      connections are kept for the next call as long as the address is still one of the remote's
//!   R4 bounded     connecting, the whole call and the answer's size; what lies past a bound is not read
//!   R5 once        a call that may have been received is not sent again
//!
//! Not here         HTTP/2: a connection carries one call at a time · what is asked (`review` in `admit/webhook`, `convert`)
//!
//! Source: API reference, WebhookClientConfig; kube-aggregator's ServiceReference.

pub(crate) mod forward;
pub(crate) mod route;
mod trust;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde_json::Value;
use windlass_stdx::{Body, BoxError, body_empty, body_from, read_body};

use crate::identity::GROUP_MASTERS;
use crate::pki::Credential;
use crate::server::Server;
use crate::write::text;
use route::RouteError;

pub(crate) use trust::Trust;
pub(crate) use wire::{Secured, Sender, connect};

/// Idle connections kept for one remote.
const IDLE_MAX: usize = 8;
/// Bytes of an answer to a review: the largest object twice, in base64.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Characters of a refusal that are told.
const REFUSAL_CHARS_MAX: usize = 512;
/// What this server calls itself.
pub(crate) const AGENT: HeaderValue = HeaderValue::from_static(concat!("windlass/", env!("CARGO_PKG_VERSION")));

/// Why a remote did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// There is no way to it.
    #[error("{0}")]
    Route(#[from] RouteError),
    /// Its certificate could not be checked against anything.
    #[error("{0}")]
    Trust(String),
    /// It was not reached; nothing was sent.
    #[error("dial tcp {address}: {source}")]
    Connect {
        /// The last address that was tried.
        address: String,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// It did not answer in time.
    #[error("context deadline exceeded")]
    TimedOut,
    /// The connection broke.
    #[error("{0}")]
    Broken(#[source] BoxError),
    /// It answered something else than 200.
    #[error("expected an answer of 200, found {code}: {said}")]
    Refused {
        /// Its code.
        code: StatusCode,
        /// The start of what it said.
        said: String,
    },
    /// It answered too much.
    #[error("expected an answer of at most {ANSWER_BYTES_MAX} bytes, found more")]
    TooLarge,
    /// It answered something that is not JSON.
    #[error("expected an answer in JSON: {0}")]
    Json(#[source] serde_json::Error),
}

/// Where a remote is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Service { namespace: String, name: String, port: u16 },
    Host { host: String, port: u16 },
}

/// A remote end.
pub(crate) struct Remote {
    place: Place,
    /// Empty, or what the path of every call begins with.
    path: String,
    trust: Trust,
    /// What we prove to it who we are by.
    credential: Option<Arc<Credential>>,
    tls: OnceLock<Result<Arc<rustls::ClientConfig>, String>>,
    idle: Mutex<Vec<(SocketAddr, Sender)>>,
}

impl Remote {
    /// The remote of a `WebhookClientConfig` that passed its kind's validation.
    pub fn of_client_config(config: &Value) -> Remote {
        let trust = Trust::of_bundle(text(config, "caBundle"));
        let service = &config["service"];
        if service.is_object() {
            return Remote::of_service(service, trust);
        }
        let rest = text(config, "url").trim_start_matches("https://");
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(443)),
            _ => (authority, 443),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Remote::new(Place::Host { host, port }, path, trust)
    }

    /// The remote of a reference to a Service.
    pub fn of_service(service: &Value, trust: Trust) -> Remote {
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let place = Place::Service {
            namespace: text(service, "namespace").to_owned(),
            name: text(service, "name").to_owned(),
            port,
        };
        Remote::new(place, text(service, "path"), trust)
    }

    fn new(place: Place, path: &str, trust: Trust) -> Remote {
        let path = if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Remote { place, path, trust, credential: None, tls: OnceLock::new(), idle: Mutex::default() }
    }

    /// The same, where we prove who we are.
    pub fn proving(mut self, credential: Option<Arc<Credential>>) -> Remote {
        self.credential = credential;
        self
    }

    /// Its name in its certificate, and in `Host`.
    pub fn host(&self) -> String {
        match &self.place {
            Place::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
            Place::Host { host, .. } => host.clone(),
        }
    }

    fn authority(&self) -> String {
        let (Place::Service { port, .. } | Place::Host { port, .. }) = &self.place;
        let host = self.host();
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Its URL, as errors name it.
    pub fn url(&self) -> String {
        format!("https://{}{}", self.authority(), self.path)
    }

    /// Asks by POST and gives the JSON that was answered; all within `time`.
    pub async fn ask(&self, server: &Server, review: &impl Serialize, time: Duration) -> Result<Value, RemoteError> {
        let query = format!("?timeout={}s", time.as_secs());
        let review = serde_json::to_vec(review).map_err(RemoteError::Json)?;
        let asked = async {
            let path = if self.path.is_empty() { "/" } else { &self.path };
            let request = Request::builder()
                .method(Method::POST)
                .uri(format!("{path}{query}"))
                .header(HOST, self.authority())
                .header(USER_AGENT, AGENT)
                .header(ACCEPT, "application/json")
                .header(CONTENT_TYPE, "application/json")
                .body(body_from(review));
            let request = request.map_err(|error| RemoteError::Broken(error.into()))?;
            self.exchange(server, request).await
        };
        let bytes = tokio::time::timeout(time, asked).await.unwrap_or(Err(RemoteError::TimedOut))?;
        serde_json::from_slice(&bytes).map_err(RemoteError::Json)
    }

    /// Reads a document, as this server itself; all within `time`.
    pub async fn get(&self, server: &Server, path: &str, time: Duration) -> Result<bytes::Bytes, RemoteError> {
        let request = Request::builder()
            .uri(path)
            .header(HOST, self.authority())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json")
            .header("x-remote-user", "system:kube-aggregator")
            .header("x-remote-group", GROUP_MASTERS)
            .body(body_empty());
        let request = request.map_err(|error| RemoteError::Broken(error.into()))?;
        let read = self.exchange(server, request);
        tokio::time::timeout(time, read).await.unwrap_or(Err(RemoteError::TimedOut))
    }

    /// Sends a request and reads the whole answer of 200 (R4).
    async fn exchange(&self, server: &Server, request: Request<Body>) -> Result<bytes::Bytes, RemoteError> {
        let (address, mut sender, response) = self.send(server, request).await?;
        let code = response.status();
        let body = response.into_body().map_err(Into::into).boxed_unsync();
        let bytes = read_body(body, ANSWER_BYTES_MAX).await.map_err(RemoteError::Broken)?;
        let bytes = bytes.ok_or(RemoteError::TooLarge)?;
        // Ready again means that the whole answer was read.
        if sender.ready().await.is_ok() {
            let mut idle = self.idle.lock().expect("nothing panics while holding connections");
            if idle.len() < IDLE_MAX {
                idle.push((address, sender));
            }
        }
        if code == StatusCode::OK {
            return Ok(bytes);
        }
        let said = String::from_utf8_lossy(&bytes);
        let said = said.trim().chars().filter(|character| !character.is_control()).take(REFUSAL_CHARS_MAX).collect();
        Err(RemoteError::Refused { code, said })
    }

    /// Sends on a kept connection, or else on a new one (R3, R5).
    async fn send(
        &self,
        server: &Server,
        mut request: Request<Body>,
    ) -> Result<(SocketAddr, Sender, Response<hyper::body::Incoming>), RemoteError> {
        let addresses = self.addresses(server).await?;
        while let Some((address, mut sender)) = self.kept(&addresses) {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((address, sender, response)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(RemoteError::Broken(failed.into_error().into())),
                },
            }
        }
        let (address, mut sender) = self.connect_to(&addresses).await?;
        let response = sender.send_request(request).await.map_err(|error| RemoteError::Broken(error.into()))?;
        Ok((address, sender, response))
    }

    fn kept(&self, addresses: &[SocketAddr]) -> Option<(SocketAddr, Sender)> {
        let mut idle = self.idle.lock().expect("nothing panics while holding connections");
        idle.retain(|(address, sender)| !sender.is_closed() && addresses.contains(address));
        idle.pop()
    }

    /// R1.
    async fn addresses(&self, server: &Server) -> Result<Vec<SocketAddr>, RemoteError> {
        match &self.place {
            Place::Service { namespace, name, port } => Ok(route::service(server, namespace, name, *port).await?),
            Place::Host { host, port } => Ok(route::host(host, *port).await?),
        }
    }

    /// A connection of its own, for who speaks for longer than one call.
    pub async fn connect(&self, server: &Server) -> Result<Sender, RemoteError> {
        let addresses = self.addresses(server).await?;
        Ok(self.connect_to(&addresses).await?.1)
    }

    /// R2.
    async fn connect_to(&self, addresses: &[SocketAddr]) -> Result<(SocketAddr, Sender), RemoteError> {
        let tls = self.tls.get_or_init(|| self.trust.client_config(self.credential.as_deref()).map(Arc::new));
        let tls = tls.clone().map_err(RemoteError::Trust)?;
        let name = ServerName::try_from(self.host()).map_err(|error| RemoteError::Trust(error.to_string()))?;
        wire::connect(addresses, Some((tls, name))).await
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Remote};
    use serde_json::json;

    #[test]
    fn r1_a_client_config_says_where() {
        let remote = |config| Remote::of_client_config(&config);
        let service = remote(json!({"service": {"namespace": "ns", "name": "hook", "path": "check", "port": 8443}}));
        assert_eq!((service.url(), service.host()), ("https://hook.ns.svc:8443/check".into(), "hook.ns.svc".into()));
        let url = remote(json!({"url": "https://example.com/a/b"}));
        assert_eq!(url.url(), "https://example.com:443/a/b");
        let address = remote(json!({"url": "https://[::1]:9443"}));
        assert_eq!(address.place, Place::Host { host: "::1".into(), port: 9443 });
        assert_eq!(address.url(), "https://[::1]:9443");
    }
}
