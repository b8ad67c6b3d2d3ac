//! A webhook server, or another one, in this process: HTTPS on loopback, with an authority of its own.
//!
//! The server under test must reach it at 127.0.0.1, which is so in process and for a cluster on this machine.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use windlass_apiserver::Pki;
use windlass_stdx::World;

/// A running server; it ends with this value.
pub struct Hook {
    address: std::net::SocketAddr,
    authority: String,
    serving: JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Hook {
    /// A server that answers each review by what this function makes of its path and request.
    pub async fn start<F, R>(answer: F) -> Hook
    where
        F: Fn(String, Value) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Value> + Send,
    {
        Hook::serve("hook.default.svc", None, move |request| respond(request, answer.clone())).await
    }

    /// A server that is called `name`. With an authority (PEM) it serves only clients that this one vouches for.
    pub async fn serve<F, R>(name: &str, clients: Option<&str>, answer: F) -> Hook
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Full<Bytes>>> + Send,
    {
        let world = World::real();
        let directory = std::env::temp_dir().join(format!("windlass-hook-{}", world.uuid()));
        let pki = Pki::open(&directory, &world).expect("a new authority");
        let credential = pki.issue_serving("hook", &["127.0.0.1", name].map(str::to_owned)).expect("a certificate");
        std::fs::remove_dir_all(&directory).expect("the test's own directory");
        let (chain, key) = credential.to_tls().expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let tls = tls.expect("ring has the default versions");
        let tls = match clients {
            None => tls.with_no_client_auth(),
            Some(pem) => {
                let mut roots = rustls::RootCertStore::empty();
                let authority = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
                roots.add(authority).expect("a certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                tls.with_client_cert_verifier(verifier.expect("an authority"))
            }
        };
        let tls = tls.with_single_cert(chain, key).expect("the key belongs to the certificate");
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| {
                        let answer = answer.clone();
                        async move { Ok::<_, Infallible>(answer(request).await) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    // A client that goes away in between is no concern of this server.
                    let _ended = connection.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Hook { address, authority: BASE64.encode(pki.ca_pem()), serving }
    }

    /// How a webhook configuration or definition names a path of this server.
    pub fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.authority})
    }
}

async fn respond<F, R>(request: Request<Incoming>, answer: F) -> Response<Full<Bytes>>
where
    F: Fn(String, Value) -> R,
    R: Future<Output = Value>,
{
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let uid = review["request"]["uid"].clone();
    let mut response = answer(path, review["request"].take()).await;
    response["uid"] = uid;
    review["response"] = response;
    Response::new(Full::from(review.to_string()))
}
