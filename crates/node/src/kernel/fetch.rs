//! Looking at a pod from outside: a command in a container, a request, a connection. Answers are hostile and bounded.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use windlass_runtime::{ExecSpec, Sandbox, Stream};

use super::{failed, namespace, of_runtime};
use crate::machine::{Exec, ExecResult, HttpAnswer, HttpGet, MachineError, OUTPUT_BYTES_MAX, Purpose};

const SIGKILL: i32 = 9;
/// As many as Go's client follows, and with it kubelet.
const REDIRECTS_MAX: usize = 10;

/// Runs a command; what it says beyond the bound is read and dropped, so that it does not stall.
pub async fn exec(sandbox: Sandbox, container: &str, exec: &Exec) -> Result<ExecResult, MachineError> {
    let doing = format!("run {:?} in container {container}", exec.args);
    let spec = ExecSpec { args: exec.args.clone(), ..ExecSpec::default() };
    let mut process = sandbox.exec(container, spec).await.map_err(|error| of_runtime(&doing, &error))?;
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let run = async {
        let said = async {
            let (mut out, err) = tokio::join!(read_some(stdout), read_some(stderr));
            out.extend(err);
            out
        };
        // A child left behind may hold the pipes open; the command itself is over when it is over.
        let mut said = Box::pin(said);
        let mut output = None;
        let exit = loop {
            tokio::select! {
                biased;
                out = &mut said, if output.is_none() => output = Some(out),
                exit = process.wait() => break exit,
            }
        };
        let output = match output {
            Some(output) => output,
            None => tokio::time::timeout(Duration::from_millis(200), said).await.unwrap_or_default(),
        };
        exit.map(|exit| (exit.code, output))
    };
    match tokio::time::timeout(exec.timeout, run).await {
        Ok(Ok((code, mut output))) => {
            output.truncate(OUTPUT_BYTES_MAX);
            Ok(ExecResult { code, output: String::from_utf8_lossy(&output).into_owned() })
        }
        Ok(Err(error)) => Err(of_runtime(&doing, &error)),
        Err(_) => {
            process.signal(SIGKILL).await.map_err(|error| of_runtime(&doing, &error))?;
            Err(MachineError::TimedOut { operation: doing, after: exec.timeout })
        }
    }
}

async fn read_some(stream: Option<Stream>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return kept,
            Ok(count) => {
                let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&chunk[..count.min(room)]);
            }
        }
    }
}

/// Opens a connection and closes it.
pub async fn connect(address: SocketAddr, timeout: Duration) -> Result<(), MachineError> {
    let doing = || format!("connect to {address}");
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(&doing(), &error)),
        Err(_) => Err(MachineError::TimedOut { operation: doing(), after: timeout }),
    }
}

/// One request, one answer, and what its purpose has follow on that. `namespace` is the network it is sent from.
pub async fn http_get(get: &HttpGet, namespace: Option<&Path>) -> Result<HttpAnswer, MachineError> {
    let doing = format!("Get \"{}://{}:{}{}\"", get.scheme, get.host, get.port, get.path);
    let all = async {
        match get.purpose {
            Purpose::Probe => follow(get.clone(), namespace).await,
            Purpose::Hook => tell(get, namespace).await,
        }
    };
    match tokio::time::timeout(get.timeout, all).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(&doing, &*error)),
        Err(_) => Err(MachineError::TimedOut { operation: doing, after: get.timeout }),
    }
}

/// The answer that redirects to the same host lead to.
async fn follow(mut get: HttpGet, namespace: Option<&Path>) -> Result<HttpAnswer, windlass_stdx::BoxError> {
    for _ in 0..=REDIRECTS_MAX {
        let (answer, location) = ask(&get, namespace).await?;
        let is_redirect = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
        match location.filter(|_| is_redirect).and_then(|location| redirected(&get, &location)) {
            Some(next) => get = next,
            None => return Ok(answer),
        }
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects").into())
}

/// The request that a redirect asks for; `None` where it leads to another host, or nowhere.
fn redirected(get: &HttpGet, location: &str) -> Option<HttpGet> {
    let whole = if location.starts_with("//") {
        format!("{}:{location}", get.scheme)
    } else if location.starts_with('/') || location.contains("://") {
        location.to_owned()
    } else {
        let path = get.path.split('?').next().unwrap_or_default();
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{directory}/{location}")
    };
    let uri: http::Uri = whole.parse().ok()?;
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let Some(host) = uri.host() else { return Some(HttpGet { path, ..get.clone() }) };
    if host.trim_matches(['[', ']']) != get.host {
        return None;
    }
    let scheme = uri.scheme_str()?.to_owned();
    let usual = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    // Whom the request was for is said by the redirect now.
    let headers = get.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")).cloned().collect();
    Some(HttpGet { scheme, port: uri.port_u16().unwrap_or(usual), path, headers, ..get.clone() })
}

/// Whoever does not speak TLS is told without (Kubernetes: LifecycleHTTPFallback).
async fn tell(get: &HttpGet, namespace: Option<&Path>) -> Result<HttpAnswer, windlass_stdx::BoxError> {
    match ask(get, namespace).await {
        Err(error) if get.scheme == "https" && is_no_tls(&*error) => {
            let is_secret = |name: &str| name.eq_ignore_ascii_case("authorization");
            let headers = get.headers.iter().filter(|(name, _)| !is_secret(name)).cloned().collect();
            let plain = HttpGet { scheme: "http".to_owned(), headers, ..get.clone() };
            ask(&plain, namespace).await.map(|(answer, _)| answer)
        }
        other => other.map(|(answer, _)| answer),
    }
}

/// What a server says that was asked by TLS and answers in another tongue.
fn is_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

/// An answer, and where it says that there is more.
async fn ask(get: &HttpGet, namespace: Option<&Path>) -> Result<(HttpAnswer, Option<String>), windlass_stdx::BoxError> {
    let address = tokio::net::lookup_host((get.host.as_str(), get.port)).await?.next();
    let address = address.ok_or_else(|| format!("{} has no address", get.host))?;
    let stream = namespace::socket(namespace, address).await?.connect(address).await?;
    if get.scheme != "https" {
        return speak(get, stream).await;
    }
    let name = ServerName::try_from(get.host.clone())?;
    let stream = TlsConnector::from(Arc::new(trusting_all()?)).connect(name, stream).await?;
    speak(get, stream).await
}

async fn speak(
    get: &HttpGet,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(HttpAnswer, Option<String>), windlass_stdx::BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let host = if get.host.contains(':') {
        format!("[{}]:{}", get.host, get.port)
    } else {
        format!("{}:{}", get.host, get.port)
    };
    let mut request = http::Request::get(&get.path);
    let named = |wanted: &str| get.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    for (name, default) in [("host", host.as_str()), ("user-agent", "kube-probe/1.37"), ("accept", "*/*")] {
        if !named(name) {
            request = request.header(name, default);
        }
    }
    for (name, value) in &get.headers {
        request = request.header(name, value);
    }
    let request = request.header(http::header::CONNECTION, "close").body(Empty::<bytes::Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let location = response.headers().get(http::header::LOCATION).and_then(|place| place.to_str().ok());
        let location = location.map(str::to_owned);
        let mut body = response.into_body();
        let mut kept = Vec::new();
        while kept.len() < OUTPUT_BYTES_MAX {
            let Some(frame) = body.frame().await else { break };
            if let Some(chunk) = frame?.data_ref() {
                kept.extend_from_slice(&chunk[..chunk.len().min(OUTPUT_BYTES_MAX - kept.len())]);
            }
        }
        Ok((HttpAnswer { status, body: String::from_utf8_lossy(&kept).into_owned() }, location))
    };
    // The connection does its part only while it is polled, and ends with this future.
    let connection = async {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a probe's connection ended");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answer = exchange => answer,
        () = connection => unreachable!("the connection's future never ends"),
    }
}

/// A probe asks whether somebody answers, not who (API reference, HTTPGetAction: no verification).
pub(super) fn trusting_all() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(TrustAll(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::redirected;
    use super::{connect, http_get};
    use crate::machine::{HttpGet, MachineError, OUTPUT_BYTES_MAX, Purpose};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn answered(answer: Vec<u8>) -> (Result<crate::machine::HttpAnswer, MachineError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("the probe comes");
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.expect("a request");
            // A probe that has enough hangs up.
            let _ = stream.write_all(&answer).await;
            String::from_utf8_lossy(&request[..count]).into_owned()
        };
        let get = HttpGet {
            scheme: "http".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            path: "/healthz?x=1".to_owned(),
            headers: vec![("X-Own".to_owned(), "yes".to_owned()), ("Host".to_owned(), "web.example".to_owned())],
            from: None,
            purpose: Purpose::Probe,
            timeout: Duration::from_secs(10),
        };
        tokio::join!(http_get(&get, None), server)
    }

    #[tokio::test]
    async fn a_request_carries_its_headers_and_a_redirect_elsewhere_is_an_answer() {
        let (answer, request) = answered(
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        )
        .await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (302, "ok"));
        assert!(request.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.to_lowercase().contains("x-own: yes") && request.contains("web.example"), "{request}");
    }

    /// A server that answers each request with the next of these; what it was asked, first lines and hosts.
    async fn serve(answers: Vec<&'static str>, get: impl FnOnce(u16) -> HttpGet) -> (Result<u16, String>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("somebody comes");
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).await.expect("a request");
                let text = String::from_utf8_lossy(&request[..count]).to_lowercase();
                let kept = |line: &&str| line.starts_with("get ") || line.starts_with("authorization");
                asked.push(text.lines().filter(kept).collect::<Vec<_>>().join(" "));
                let answer = answer.replace("PORT", &port.to_string());
                stream.write_all(answer.as_bytes()).await.expect("written");
            }
            asked
        });
        let answer = http_get(&get(port), None).await.map(|answer| answer.status).map_err(|error| error.to_string());
        let asked = match answer {
            Ok(_) => served.await.expect("it was asked as often as that"),
            Err(_) => Vec::new(),
        };
        (answer, asked)
    }

    fn of(scheme: &str, purpose: Purpose) -> impl FnOnce(u16) -> HttpGet {
        let headers = vec![("Authorization".to_owned(), "Bearer x".to_owned())];
        let (scheme, host) = (scheme.to_owned(), "127.0.0.1".to_owned());
        let timeout = Duration::from_secs(10);
        move |port| HttpGet { scheme, host, port, path: "/a/b?c".to_owned(), headers, from: None, purpose, timeout }
    }

    const END: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";

    #[tokio::test]
    async fn b11_a_probe_follows_redirects_to_the_same_host_up_to_a_bound() {
        let to = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:PORT/x\r\nContent-Length: 0\r\n\r\n";
        let (answer, asked) = serve(vec![to, END], of("http", Purpose::Probe)).await;
        assert_eq!(answer, Ok(503), "what the redirect leads to counts");
        assert!(asked[1].starts_with("get /x "), "{asked:?}");
        let (answer, _) = serve(vec![to; 12], of("http", Purpose::Probe)).await;
        assert!(answer.is_err_and(|why| why.contains("10 redirects")));
        let get = of("http", Purpose::Probe)(81);
        let path = |location: &str| {
            redirected(&get, location).map(|next| format!("{}:{}{}", next.scheme, next.port, next.path))
        };
        let rows = [
            ("/x?y", Some("http:81/x?y")),
            ("x", Some("http:81/a/x")),
            ("https://127.0.0.1/z", Some("https:443/z")),
            ("http://169.254.169.254/", None),
            ("ftp://127.0.0.1/", None),
            ("//other/x", None),
        ];
        for (location, expected) in rows {
            assert_eq!(path(location).as_deref(), expected, "{location}");
        }
    }

    #[tokio::test]
    async fn b8_a_hook_tells_and_who_speaks_no_tls_is_told_without_and_without_secrets() {
        let (answer, asked) = serve(vec![END], of("http", Purpose::Hook)).await;
        assert_eq!(answer, Ok(503));
        assert!(asked[0].contains("bearer x"), "{asked:?}");
        let plain = "HTTP/1.1 400 Bad Request\r\n\r\n";
        let (answer, asked) = serve(vec![plain, END], of("https", Purpose::Hook)).await;
        assert_eq!(answer, Ok(503), "{asked:?}");
        assert_eq!(asked[1], "get /a/b?c http/1.1");
        assert!(serve(vec![plain], of("https", Purpose::Probe)).await.0.is_err(), "a probe asks as it was told");
    }

    #[tokio::test]
    async fn a_huge_body_is_cut() {
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec();
        answer.extend(vec![b'x'; 1_000_000]);
        assert_eq!(answered(answer).await.0.expect("an answer").body.len(), OUTPUT_BYTES_MAX);
    }

    /// A88: what a pod asks for in its probe cannot become another request, and what it answers cannot hold the node up.
    #[tokio::test]
    async fn a88_a_probe_is_one_request_and_ends_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let get = |path: &str, header: (&str, &str)| HttpGet {
            scheme: "http".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            path: path.to_owned(),
            headers: vec![(header.0.to_owned(), header.1.to_owned())],
            from: None,
            purpose: Purpose::Probe,
            timeout: Duration::from_millis(500),
        };
        for (path, header) in [
            ("/x\r\nX-Injected: yes", ("A", "b")),
            ("/x HTTP/1.1\r\n\r\nGET /y", ("A", "b")),
            ("/", ("A", "b\r\nX-Injected: yes")),
            ("/", ("A: b\r\nX-Injected", "yes")),
        ] {
            let silent = async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut said = Vec::new();
                stream.read_to_end(&mut said).await.expect("it ends");
                said
            };
            let asked = get(path, header);
            let (answer, said) = tokio::join!(http_get(&asked, None), silent);
            assert!(matches!(answer, Err(MachineError::Failed { .. })), "{path:?} {header:?}: {answer:?}");
            assert_eq!(said, b"", "nothing was sent");
        }
        // A server that says nothing, one that never ends its headers, one whose body drips.
        for beginning in ["", "HTTP/1.1 200 OK\r\nA: b\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"] {
            let begun = tokio::time::Instant::now();
            let dripping = async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                stream.write_all(beginning.as_bytes()).await.expect("sent");
                while stream.write_all(b"x").await.is_ok() && begun.elapsed() < Duration::from_secs(5) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let asked = get("/", ("A", "b"));
            let (answer, ()) = tokio::join!(http_get(&asked, None), dripping);
            assert!(answer.is_err(), "{beginning:?}: {answer:?}");
            assert!(begun.elapsed() < Duration::from_secs(4), "{beginning:?}: {:?}", begun.elapsed());
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        connect(address, Duration::from_secs(10)).await.expect("somebody listens");
        drop(listener);
        assert!(connect(address, Duration::from_secs(10)).await.is_err());
    }
}
