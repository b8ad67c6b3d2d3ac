//! A registry, spoken to over HTTP/1.1 (OCI distribution spec 1.1, Docker token authentication).
//!
//! Rules
//!   R1 https     plain HTTP only where the owner says so, and on loopback addresses without authorities of their own
//!   R2 own host  credentials go to the registry, and to the token server it names over https, never to a redirect's host
//!   R3 outward   a registry that is not on this machine cannot send us to this machine
//!   R4 bounded   documents have a largest size; whoever sends less than PROGRESS_BYTES in PROGRESS_WINDOW is left
//!   R5 again     what may pass is tried again after a growing, jittered pause; a host that says when is not asked before
//! Not here       proxies

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HOST, LOCATION, RANGE, RETRY_AFTER, USER_AGENT,
    WWW_AUTHENTICATE,
};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use windlass_stdx::World;

use super::config::short;
use super::error::ImageError;
use super::keyring::Credentials;
use super::pull::Peer;
use super::registries::{Place, Registries};
use crate::error::in_full;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const PROGRESS_WINDOW: Duration = Duration::from_secs(30);
const PROGRESS_BYTES: u64 = 64 << 10;
const REDIRECTS_MAX: usize = 5;
const ATTEMPTS_MAX: u32 = 3;
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(20);
const TOKEN_BYTES_MAX: u64 = 1 << 20;

/// The longest that a host is left alone because it said so.
const HOLD_MAX: Duration = Duration::from_secs(600);
/// Hosts that are left alone at one time.
const HOLDS_MAX: usize = 1000;

/// Hosts that asked to be left alone, and until when; shared by all pulls.
#[derive(Default)]
pub(super) struct Holds(Mutex<BTreeMap<String, Instant>>);

impl Holds {
    /// How much longer this host is left alone.
    fn left(&self, host: &str) -> Option<Duration> {
        let mut holds = self.0.lock().expect("nothing panics while holding it");
        let now = Instant::now();
        holds.retain(|_, until| *until > now);
        holds.get(host).map(|until| *until - now)
    }

    fn hold(&self, host: &str, pause: Duration) {
        let mut holds = self.0.lock().expect("nothing panics while holding it");
        if holds.len() < HOLDS_MAX {
            holds.insert(host.to_owned(), Instant::now() + pause.min(HOLD_MAX));
        }
    }
}

/// One registry and what we may do there.
pub(super) struct Registry {
    /// A peer knows us by our certificate: it leads us nowhere.
    redirects_max: usize,
    host: String,
    repository: String,
    registries: Arc<Registries>,
    /// It is spoken to without TLS.
    plain: bool,
    tls: tokio_rustls::TlsConnector,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
    holds: Arc<Holds>,
    world: World,
}

/// A body that has to keep coming.
pub(super) struct Content {
    body: Incoming,
    host: String,
    /// When PROGRESS_BYTES more must have come.
    deadline: Instant,
    missing: u64,
}

enum Failure {
    /// Worth another attempt, after this pause at least.
    Passing(ImageError, Duration),
    Final(ImageError),
}

impl Registry {
    /// How a place is spoken to. Reads this machine's authorities, so once for all who are tried there.
    pub(super) fn connector(place: &Place, registries: &Registries) -> Result<tokio_rustls::TlsConnector, ImageError> {
        tls(registries.ca_pem(place)).map_err(|why| ImageError::Registry {
            host: place.host.clone(),
            doing: "prepare TLS".to_owned(),
            why,
            passing: false,
        })
    }

    pub(super) fn new(
        place: &Place,
        (registries, tls): (Arc<Registries>, tokio_rustls::TlsConnector),
        credentials: Option<Credentials>,
        (holds, world): (Arc<Holds>, World),
    ) -> Registry {
        let on_loopback = is_loopback(without_port(&place.host));
        let plain = registries.plain_http(place).unwrap_or(on_loopback && registries.ca_pem(place).is_none());
        Registry {
            redirects_max: REDIRECTS_MAX,
            host: place.host.clone(),
            repository: place.path.clone(),
            registries,
            plain,
            tls,
            credentials,
            authorization: Mutex::default(),
            holds,
            world,
        }
    }

    /// Another machine that has layers, and knows us by a certificate.
    pub(super) fn peer(peer: &Peer, (holds, world): (Arc<Holds>, World)) -> Registry {
        Registry {
            redirects_max: 0,
            host: peer.host.clone(),
            repository: "layers".to_owned(),
            registries: Arc::default(),
            plain: false,
            tls: tokio_rustls::TlsConnector::from(peer.tls.clone()),
            credentials: None,
            authorization: Mutex::default(),
            holds,
            world,
        }
    }

    /// Host and port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Who it is asked for.
    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// A document of at most `bytes_max` bytes, and what the registry calls its kind.
    pub(super) async fn document(
        &self,
        path: &str,
        accept: &str,
        bytes_max: u64,
    ) -> Result<(Bytes, Option<String>), ImageError> {
        let response = self.get(path, accept, 0).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or(kind).trim().to_owned());
        let mut content = Content::new(response.into_body(), &self.host);
        let mut bytes = Vec::new();
        while let Some(chunk) = content.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > bytes_max {
                return Err(self.failed(path, format!("it is larger than {bytes_max} bytes"), false));
            }
        }
        Ok((bytes.into(), kind))
    }

    /// A blob from this byte on, chunk by chunk, and how many bytes come again because the registry sends it from its
    /// beginning. Its digest is the caller's to check.
    pub(super) async fn blob(&self, digest: &str, from: u64) -> Result<(Content, u64), ImageError> {
        let path = format!("blobs/{digest}");
        let response = self.get(&path, "*/*", from).await?;
        let mut again = from;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {from}-")) {
                let why = format!("expected bytes from {from} on, found {:?}", short(range));
                return Err(self.failed(&path, why, false));
            }
            again = 0;
        }
        Ok((Content::new(response.into_body(), &self.host), again))
    }

    /// The pause before what broke off is asked for again.
    pub(super) async fn pause(&self) {
        tokio::time::sleep(self.world.jitter(PAUSE_FIRST)).await;
    }

    /// The good answer for `/v2/<repository>/<path>`, from this byte on (R5).
    async fn get(&self, path: &str, accept: &str, from: u64) -> Result<Response<Incoming>, ImageError> {
        let mut pause = PAUSE_FIRST;
        for attempt in 1.. {
            if let Some(left) = self.holds.left(&self.host) {
                let why = format!("it asked to be left alone for {} s more", left.as_secs() + 1);
                return Err(self.failed(path, why, true));
            }
            match self.attempt(path, accept, from).await {
                Ok(response) => return Ok(response),
                Err(Failure::Passing(_, at_least)) if attempt < ATTEMPTS_MAX && at_least <= PAUSE_MAX => {
                    tokio::time::sleep(self.world.jitter(pause).max(at_least)).await;
                    pause = (pause * 3).min(PAUSE_MAX);
                }
                Err(Failure::Passing(error, at_least)) => {
                    if !at_least.is_zero() {
                        self.holds.hold(&self.host, at_least);
                    }
                    return Err(error);
                }
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Err(self.failed(path, "it was tried too often", true))
    }

    /// One attempt: authenticates where asked to, and follows redirects (R2).
    async fn attempt(&self, path: &str, accept: &str, from: u64) -> Result<Response<Incoming>, Failure> {
        let scheme = if self.plain { "http" } else { "https" };
        let start: Uri = format!("{scheme}://{}/v2/{}/{path}", self.host, self.repository)
            .parse()
            .map_err(|_| Failure::Final(self.failed(path, "it has no address", false)))?;
        let mut authenticated = false;
        let mut uri = start.clone();
        let mut redirects = 0;
        loop {
            let own = uri.authority() == start.authority() && uri.scheme() == start.scheme();
            let authorization = if own { self.known_authorization() } else { None };
            let response = self.send(&uri, accept, (authorization, from)).await;
            let response = response.map_err(|error| self.passing(path, &error))?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && own && !authenticated {
                authenticated = true;
                self.authenticate(path, &response).await?;
            } else if status.is_redirection() && redirects < self.redirects_max {
                redirects += 1;
                uri = self.redirect(path, &uri, &response)?;
            } else if status == StatusCode::OK || (from > 0 && status == StatusCode::PARTIAL_CONTENT) {
                return Ok(response);
            } else {
                return Err(self.refused(path, response).await);
            }
        }
    }

    /// Why an answer is not a good one, with what the registry says about it.
    async fn refused(&self, path: &str, response: Response<Incoming>) -> Failure {
        let status = response.status();
        let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let pause = pause.and_then(|text| retry_after(text, self.world.now())).unwrap_or_default();
        let mut content = Content::new(response.into_body(), &self.host);
        // The reason is a courtesy; without one, the status says enough.
        let said = content.chunk().await.ok().flatten().unwrap_or_default();
        let why = format!("{status} {}", short(String::from_utf8_lossy(&said).trim()));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Final(ImageError::Unauthorized {
                host: self.host.clone(),
                doing: format!("{}/{path}", self.repository),
                why,
            }),
            _ if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                Failure::Passing(self.failed(path, why, true), pause)
            }
            _ => Failure::Final(self.failed(path, why, false)),
        }
    }

    fn redirect(&self, path: &str, from: &Uri, response: &Response<Incoming>) -> Result<Uri, Failure> {
        let refuse = |why: &str| Failure::Final(self.failed(path, why, false));
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| refuse("it is said to be elsewhere, but not where"))?;
        let target = match location.starts_with('/') {
            true => {
                let mut parts = from.clone().into_parts();
                parts.path_and_query = location.parse().ok();
                Uri::from_parts(parts).ok()
            }
            false => location.parse::<Uri>().ok(),
        };
        let plain = |uri: &Uri| uri.authority().is_some_and(|host| self.may_be_plain(host.as_str()));
        match target {
            Some(target) if target.scheme_str() == Some("https") => Ok(target),
            Some(target) if target.scheme_str() == Some("http") && plain(&target) => Ok(target),
            Some(_) | None => Err(refuse(&format!("it is said to be at {}, which is not https", short(location)))),
        }
    }

    /// Gets the right to read, as the registry's challenge says (R2).
    async fn authenticate(&self, path: &str, response: &Response<Incoming>) -> Result<(), Failure> {
        let refuse = |why: String| {
            let doing = format!("{}/{path}", self.repository);
            Failure::Final(ImageError::Unauthorized { host: self.host.clone(), doing, why })
        };
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        for challenge in challenges {
            let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
            if scheme.eq_ignore_ascii_case("basic") {
                let credentials = self.credentials.as_ref();
                let basic = basic(credentials.ok_or_else(|| refuse("it wants a user and password".to_owned()))?);
                self.remember(basic);
                return Ok(());
            }
            if scheme.eq_ignore_ascii_case("bearer") {
                let parameter = |name: &str| parameter_of(parameters, name);
                let realm = parameter("realm").ok_or_else(|| refuse("it names no token server".to_owned()))?;
                return self.fetch_token(path, &realm, parameter("service")).await;
            }
        }
        Err(refuse("it wants an authentication we do not know".to_owned()))
    }

    async fn fetch_token(&self, path: &str, realm: &str, service: Option<String>) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let refuse =
            |why: String| Failure::Final(self.failed(path, format!("its token server {}: {why}", short(realm)), false));
        let mut address = format!("{realm}{}", if realm.contains('?') { '&' } else { '?' });
        if let Some(service) = service {
            address.push_str(&format!("service={}&", encoded(&service)));
        }
        // What we ask for is our own word, not the registry's.
        address.push_str(&format!("scope={}", encoded(&format!("repository:{}:pull", self.repository))));
        let uri: Uri = address.parse().map_err(|_| refuse("it is no address".to_owned()))?;
        let host = uri.authority().map(|host| host.as_str().to_owned()).unwrap_or_default();
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if self.may_be_plain(&host) => {}
            _ => return Err(refuse("it is not reached by https".to_owned())),
        }
        let basic = self.credentials.as_ref().map(basic);
        let response = self.send(&uri, "application/json", (basic, 0)).await;
        let response = response.map_err(|error| self.passing(path, &error))?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(path, response).await);
        }
        let mut content = Content::new(response.into_body(), &host);
        let mut bytes = Vec::new();
        while let Some(chunk) = content.chunk().await.map_err(|error| Failure::Passing(error, Duration::ZERO))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > TOKEN_BYTES_MAX {
                return Err(refuse("its answer is too long".to_owned()));
            }
        }
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
        let token = answer.token.or(answer.access_token).ok_or_else(|| refuse("it gave no token".to_owned()))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| refuse(error.to_string()))?;
        value.set_sensitive(true);
        self.remember(value);
        Ok(())
    }

    async fn send(
        &self,
        uri: &Uri,
        accept: &str,
        (authorization, from): (Option<HeaderValue>, u64),
    ) -> Result<Response<Incoming>, String> {
        let authority = uri.authority().ok_or("it has no host")?;
        let plain = uri.scheme_str() == Some("http");
        let port = authority.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = self.connect(&host, port).await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path)
            .header(HOST, authority.as_str())
            .header(USER_AGENT, concat!("windlass/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, accept);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        if plain {
            return exchange(stream, request).await.map_err(|error| in_full(&*error));
        }
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let secured = timeout(CONNECT_TIMEOUT, self.tls.connect(name, stream)).await;
        let secured =
            secured.map_err(|_| "the TLS handshake took too long".to_owned())?.map_err(|error| in_full(&error))?;
        exchange(secured, request).await.map_err(|error| in_full(&*error))
    }

    /// Connects to one of the host's addresses; to this machine only if the registry is on it (R3).
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let own_host = without_port(&self.host);
        let trusted = is_loopback(own_host) || host == own_host || self.registries.names(host);
        let found = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((host, port))).await;
        let found =
            found.map_err(|_| "resolving its name took too long".to_owned())?.map_err(|error| error.to_string())?;
        let addresses: Vec<SocketAddr> = found.filter(|address| trusted || is_outward(address.ip())).collect();
        let mut why = format!("{host} has no address outside this machine");
        for address in addresses {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => why = format!("{address}: {error}"),
                Err(_) => why = format!("{address}: no connection within {CONNECT_TIMEOUT:?}"),
            }
        }
        Err(why)
    }

    fn may_be_plain(&self, authority: &str) -> bool {
        if authority == self.host {
            return self.plain;
        }
        let place = Place { host: authority.to_owned(), path: String::new() };
        let on_loopback = is_loopback(without_port(authority)) && is_loopback(without_port(&self.host));
        self.registries.plain_http(&place).unwrap_or(on_loopback)
    }

    fn known_authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().expect("nothing panics while holding the token").clone()
    }

    fn remember(&self, value: HeaderValue) {
        *self.authorization.lock().expect("nothing panics while holding the token") = Some(value);
    }

    fn failed(&self, path: &str, why: impl Into<String>, passing: bool) -> ImageError {
        let doing = format!("fetch {}/{path}", self.repository);
        ImageError::Registry { host: self.host.clone(), doing, why: why.into(), passing }
    }

    fn passing(&self, path: &str, why: &str) -> Failure {
        Failure::Passing(self.failed(path, why, true), Duration::ZERO)
    }
}

/// One request over a fresh connection, which ends with its answer's body.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // What goes wrong with the connection is also what the reader of the answer is told.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a registry connection ended");
        }
    });
    let answer = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
    Ok(answer.map_err(|_| format!("no answer within {ANSWER_TIMEOUT:?}"))??)
}

impl Content {
    fn new(body: Incoming, host: &str) -> Content {
        Content { body, host: host.to_owned(), deadline: Instant::now() + PROGRESS_WINDOW, missing: PROGRESS_BYTES }
    }

    /// The next bytes; `None` at the end (R4).
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ImageError> {
        let failed = |why: String| ImageError::Registry {
            host: self.host.clone(),
            doing: "read what it sends".to_owned(),
            why,
            passing: true,
        };
        loop {
            let frame = tokio::time::timeout_at(self.deadline, self.body.frame()).await;
            let frame =
                frame.map_err(|_| failed(format!("less than {PROGRESS_BYTES} bytes came in {PROGRESS_WINDOW:?}")))?;
            let Some(frame) = frame else { return Ok(None) };
            let Ok(bytes) = frame.map_err(|error| failed(error.to_string()))?.into_data() else { continue };
            self.missing = self.missing.saturating_sub(bytes.len() as u64);
            if self.missing == 0 {
                (self.missing, self.deadline) = (PROGRESS_BYTES, Instant::now() + PROGRESS_WINDOW);
            }
            return Ok(Some(bytes));
        }
    }
}

fn basic(credentials: &Credentials) -> HeaderValue {
    let pair = format!("{}:{}", credentials.username, credentials.password);
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let mut value = HeaderValue::from_str(&text).expect("base64 is printable");
    value.set_sensitive(true);
    value
}

/// `name="value"` among the parameters of a challenge (RFC 9110 §11.2).
fn parameter_of(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value.trim().to_owned());
        }
        rest = next.trim_start().trim_start_matches(',').trim_start();
    }
    None
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn without_port(authority: &str) -> &str {
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// How long to wait: seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an address can be another machine's.
fn is_outward(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// The authorities this machine trusts, as its distribution keeps them.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn tls(extra_ca_pem: Option<&str>) -> Result<tokio_rustls::TlsConnector, String> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(bundle) = AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok()) {
        // One that cannot be read is one that is not trusted.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).filter_map(Result::ok));
    }
    if let Some(pem) = extra_ca_pem {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("the extra authority: {error}"))?;
            roots.add(certificate).map_err(|error| format!("the extra authority: {error}"))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{is_outward, parameter_of, retry_after};

    #[test]
    fn a_pause_is_said_in_seconds_or_as_a_date() {
        let now = "2026-11-30T12:00:00Z".parse().expect("a time");
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Mon, 30 Nov 2026 12:01:30 GMT", now), Some(Duration::from_secs(90)));
        assert_eq!(retry_after("Mon, 30 Nov 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn challenges_are_read_quoted_or_not() {
        let text = r#"realm="https://auth.example/token?a=b,c",service=reg.example, scope="repository:a:pull""#;
        assert_eq!(parameter_of(text, "realm").as_deref(), Some("https://auth.example/token?a=b,c"));
        assert_eq!(parameter_of(text, "service").as_deref(), Some("reg.example"));
        assert_eq!(parameter_of(text, "scope").as_deref(), Some("repository:a:pull"));
        assert_eq!(parameter_of(text, "absent"), None);
        assert_eq!(parameter_of("realm=\"open", "realm"), None);
    }

    #[test]
    fn addresses_of_this_machine_are_not_outward() {
        for text in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254", "fe80::1"] {
            assert!(!is_outward(text.parse().expect("an address")), "{text}");
        }
        assert!(is_outward("10.0.0.1".parse().expect("an address")));
    }
}
