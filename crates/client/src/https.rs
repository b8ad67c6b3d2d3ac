//! The link from another machine: HTTPS with both sides' certificates checked, HTTP/2 where the server speaks it.
//!
//! Flow        first call connects; HTTP/2 calls share the connection, HTTP/1.1 calls each take an idle one
//! Guarantees  a request that could not be written is sent once more on a new connection; one that may have been
//!             written is not
//! Caveats     deadlines are the client's; here only connecting has its own

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::{Authority, Scheme, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use windlass_stdx::{Body, BoxError, Request, Response, Transport, TransportError};

/// How long connecting and the TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is asked for a sign of life this often …
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and given up when there is none for this long, so a cut link is noticed within 15 s.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow-control windows: a list of a few MB should not wait for window updates.
const WINDOW_BYTES: u32 = 2 << 20;
/// HTTP/1.1 connections kept for reuse.
const IDLE_MAX: usize = 16;

/// Where the API is and who we are.
#[derive(Clone)]
pub struct HttpsConfig {
    /// `https://host:port`.
    pub server: String,
    /// The certificates we trust, PEM. Nothing else is trusted.
    pub ca_pem: Vec<u8>,
    /// Our certificate chain and key, PEM; `None` for an anonymous client (joining).
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why there can be no link.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The server's address is not one.
    #[error("server {server:?}: expected https://host:port")]
    Address {
        /// What was given.
        server: String,
    },
    /// A PEM file does not hold what it should.
    #[error("{what}: expected PEM of {expected}")]
    Pem {
        /// Which file.
        what: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What the reader said.
        #[source]
        source: BoxError,
    },
    /// Certificate and key cannot be used.
    #[error("the client certificate and key cannot be used together")]
    Identity(#[source] rustls::Error),
    /// The trusted certificates cannot be used.
    #[error("the certificate authority cannot be used")]
    Authority(#[source] rustls::Error),
}

/// The link. Connects when first used and again whenever the connection is gone.
#[derive(Clone)]
pub struct HttpsTransport {
    pub(crate) link: Arc<Link>,
}

pub(crate) struct Link {
    server: String,
    host: String,
    port: u16,
    pub(crate) authority: Authority,
    name: ServerName<'static>,
    tls: TlsConnector,
    open: Mutex<Open>,
    /// Held while connecting, so that many callers make one connection.
    connecting: tokio::sync::Mutex<()>,
}

/// The connections that are open and free.
#[derive(Default)]
struct Open {
    shared: Option<http2::SendRequest<Body>>,
    idle: Vec<http1::SendRequest<Body>>,
}

/// A connection to send one request on.
enum Sender {
    Shared(http2::SendRequest<Body>),
    Own(http1::SendRequest<Body>),
}

/// A request that did not go through.
enum Failed {
    /// It was not written: here it is again.
    Unsent(Box<Request>, hyper::Error),
    /// It may have been written.
    Broken(hyper::Error),
}

impl HttpsTransport {
    /// A link that is not connected yet.
    pub fn new(config: HttpsConfig) -> Result<HttpsTransport, HttpsError> {
        let address = Address::parse(&config.server)?;
        let tls = tls_config(&config)?;
        Ok(HttpsTransport::with_tls(config, address, tls))
    }

    /// A link to whoever answers at the address: its certificate is not looked at. Only a person may ask for this.
    pub fn new_unverified(config: HttpsConfig) -> Result<HttpsTransport, HttpsError> {
        let address = Address::parse(&config.server)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(HttpsError::Authority)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified { provider }));
        let tls = with_identity(builder, &config)?;
        Ok(HttpsTransport::with_tls(config, address, tls))
    }

    fn with_tls(config: HttpsConfig, address: Address, tls: rustls::ClientConfig) -> HttpsTransport {
        let Address { authority, host, name } = address;
        let tls = TlsConnector::from(Arc::new(tls));
        let link = Link {
            server: config.server,
            host,
            port: authority.port_u16().unwrap_or(443),
            authority,
            name,
            tls,
            open: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        };
        HttpsTransport { link: Arc::new(link) }
    }
}

/// Where a link leads.
struct Address {
    authority: Authority,
    host: String,
    name: ServerName<'static>,
}

impl Address {
    fn parse(server: &str) -> Result<Address, HttpsError> {
        let wrong = || HttpsError::Address { server: server.to_owned() };
        let uri: Uri = server.parse().map_err(|_| wrong())?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(wrong());
        }
        let authority = uri.authority().ok_or_else(wrong)?.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        Ok(Address { authority, host, name })
    }
}

impl Transport for HttpsTransport {
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let link = Arc::clone(&self.link);
        Box::pin(async move { link.call(request).await })
    }
}

impl Link {
    async fn call(self: Arc<Self>, mut request: Request) -> Result<Response, TransportError> {
        self.address(&mut request)?;
        let sender = self.sender().await?;
        match self.send(sender, request).await {
            Ok(response) => Ok(response),
            Err(Failed::Broken(error)) => Err(TransportError::Broken(error.into())),
            Err(Failed::Unsent(request, _)) => {
                // The kept connection was dead. A new one is not, or the server is away.
                let sender = self.connect().await?;
                match self.send(sender, *request).await {
                    Ok(response) => Ok(response),
                    Err(Failed::Broken(error)) => Err(TransportError::Broken(error.into())),
                    Err(Failed::Unsent(_, error)) => Err(self.unreachable(error)),
                }
            }
        }
    }

    /// Completes the request's address with ours.
    fn address(&self, request: &mut Request) -> Result<(), TransportError> {
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| self.unreachable(error))?;
        Ok(())
    }

    async fn sender(&self) -> Result<Sender, TransportError> {
        if let Some(sender) = self.open_sender() {
            return Ok(sender);
        }
        let _one_at_a_time = self.connecting.lock().await;
        match self.open_sender() {
            Some(sender) => Ok(sender),
            None => self.connect().await,
        }
    }

    fn open_sender(&self) -> Option<Sender> {
        let mut open = self.open.lock().expect("nothing panics while holding it");
        if let Some(shared) = open.shared.take_if(|shared| shared.is_closed()) {
            drop(shared);
        }
        if let Some(shared) = &open.shared {
            return Some(Sender::Shared(shared.clone()));
        }
        while let Some(own) = open.idle.pop() {
            if !own.is_closed() {
                return Some(Sender::Own(own));
            }
        }
        None
    }

    async fn connect(&self) -> Result<Sender, TransportError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect_tls());
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(error)),
            Err(_) => return Err(self.unreachable(format!("no connection within {CONNECT_TIMEOUT:?}"))),
        };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if is_http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES);
            let (shared, connection) = builder.handshake(io).await.map_err(|error| self.unreachable(error))?;
            self.spawn(connection);
            self.open.lock().expect("nothing panics while holding it").shared = Some(shared.clone());
            Ok(Sender::Shared(shared))
        } else {
            let (own, connection) = http1::handshake(io).await.map_err(|error| self.unreachable(error))?;
            self.spawn(connection);
            Ok(Sender::Own(own))
        }
    }

    async fn connect_tls(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = self.connect_tcp().await?;
        self.tls.connect(self.name.clone(), tcp).await
    }

    async fn connect_tcp(&self) -> std::io::Result<TcpStream> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        windlass_stdx::expect_life(&tcp)?;
        Ok(tcp)
    }

    /// An HTTP/1.1 connection that no other request uses: the only kind that can be upgraded.
    pub(crate) async fn connect_own(&self) -> Result<http1::SendRequest<Body>, TransportError> {
        let connecting = async {
            let tcp = self.connect_tcp().await?;
            self.tls.with_alpn(vec![b"http/1.1".to_vec()]).connect(self.name.clone(), tcp).await
        };
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(error)),
            Err(_) => return Err(self.unreachable(format!("no connection within {CONNECT_TIMEOUT:?}"))),
        };
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (own, connection) = shaken.map_err(|error| self.unreachable(error))?;
        self.spawn(connection.with_upgrades());
        Ok(own)
    }

    /// Drives a connection until it ends; it ends when its senders are gone or the link breaks.
    fn spawn(&self, connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static) {
        let server = self.server.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%server, error = &error as &dyn std::error::Error, "the connection to the API ended");
            }
        });
    }

    async fn send(self: &Arc<Self>, sender: Sender, request: Request) -> Result<Response, Failed> {
        match sender {
            Sender::Shared(mut shared) => {
                if let Err(error) = shared.ready().await {
                    return Err(Failed::Unsent(Box::new(request), error));
                }
                let sent = shared.try_send_request(request).await;
                sent.map(|response| response.map(boxed)).map_err(failed)
            }
            Sender::Own(mut own) => {
                if let Err(error) = own.ready().await {
                    return Err(Failed::Unsent(Box::new(request), error));
                }
                let response = own.try_send_request(request).await.map_err(failed)?;
                Ok(response.map(|body| self.lent(own, body)))
            }
        }
    }

    /// A body whose connection goes back to the idle ones when it has ended.
    fn lent(self: &Arc<Self>, mut own: http1::SendRequest<Body>, body: Incoming) -> Body {
        let link = Arc::clone(self);
        tokio::spawn(async move {
            // Ready again means: the whole answer was read. An error means: the connection is gone.
            if own.ready().await.is_ok() {
                let mut open = link.open.lock().expect("nothing panics while holding it");
                if open.idle.len() < IDLE_MAX {
                    open.idle.push(own);
                }
            }
        });
        boxed(body)
    }

    fn unreachable(&self, source: impl Into<BoxError>) -> TransportError {
        TransportError::Unreachable { address: self.server.clone(), source: source.into() }
    }
}

fn failed(mut error: hyper::client::conn::TrySendError<Request>) -> Failed {
    match error.take_message() {
        Some(request) => Failed::Unsent(Box::new(request), error.into_error()),
        None => Failed::Broken(error.into_error()),
    }
}

fn boxed(body: Incoming) -> Body {
    body.map_err(|error| Box::new(error) as BoxError).boxed_unsync()
}

fn tls_config(config: &HttpsConfig) -> Result<rustls::ClientConfig, HttpsError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates("the certificate authority", &config.ca_pem)? {
        roots.add(certificate).map_err(HttpsError::Authority)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(HttpsError::Authority)?
        .with_root_certificates(roots);
    with_identity(builder, config)
}

fn with_identity(
    builder: rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>,
    config: &HttpsConfig,
) -> Result<rustls::ClientConfig, HttpsError> {
    let mut tls = match &config.identity {
        None => builder.with_no_client_auth(),
        Some((certificate_pem, key_pem)) => {
            let chain = certificates("the client certificate", certificate_pem)?;
            let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|source| HttpsError::Pem {
                what: "the client key",
                expected: "a private key",
                source: source.into(),
            })?;
            builder.with_client_auth_cert(chain, key).map_err(HttpsError::Identity)?
        }
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// Takes any certificate; the signatures of the handshake are still checked.
#[derive(Debug)]
struct Unverified {
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, HttpsError> {
    let expected = "at least one certificate";
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|source| HttpsError::Pem { what, expected, source: source.into() })?;
    if found.is_empty() {
        return Err(HttpsError::Pem { what, expected, source: "there is none".into() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{HttpsConfig, HttpsError, HttpsTransport};

    #[test]
    fn what_cannot_be_used_is_refused_with_its_name() {
        let config = |server: &str| HttpsConfig { server: server.to_owned(), ca_pem: b"x".to_vec(), identity: None };
        for server in ["127.0.0.1:6443", "http://127.0.0.1:6443", "https://", ""] {
            assert!(matches!(HttpsTransport::new(config(server)), Err(HttpsError::Address { .. })), "{server}");
        }
        let refused = HttpsTransport::new(config("https://127.0.0.1:6443")).err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some("the certificate authority: expected PEM of at least one certificate"));
    }
}
