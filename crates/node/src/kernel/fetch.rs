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
use crate::machine::{Exec, ExecResult, HttpAnswer, HttpGet, MachineError, OUTPUT_BYTES_MAX};

const SIGKILL: i32 = 9;

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

/// One request, one answer; redirects are not followed. `namespace` is the network it is sent from.
pub async fn http_get(get: &HttpGet, namespace: Option<&Path>) -> Result<HttpAnswer, MachineError> {
    let doing = format!("Get \"{}://{}:{}{}\"", get.scheme, get.host, get.port, get.path);
    match tokio::time::timeout(get.timeout, ask(get, namespace)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(&doing, &*error)),
        Err(_) => Err(MachineError::TimedOut { operation: doing, after: get.timeout }),
    }
}

async fn ask(get: &HttpGet, namespace: Option<&Path>) -> Result<HttpAnswer, windlass_stdx::BoxError> {
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
) -> Result<HttpAnswer, windlass_stdx::BoxError> {
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
        let mut body = response.into_body();
        let mut kept = Vec::new();
        while kept.len() < OUTPUT_BYTES_MAX {
            let Some(frame) = body.frame().await else { break };
            if let Some(chunk) = frame?.data_ref() {
                kept.extend_from_slice(&chunk[..chunk.len().min(OUTPUT_BYTES_MAX - kept.len())]);
            }
        }
        Ok(HttpAnswer { status, body: String::from_utf8_lossy(&kept).into_owned() })
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
    use super::{connect, http_get};
    use crate::machine::{HttpGet, MachineError, OUTPUT_BYTES_MAX};
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
            timeout: Duration::from_secs(10),
        };
        tokio::join!(http_get(&get, None), server)
    }

    #[tokio::test]
    async fn a_request_carries_its_headers_and_a_redirect_is_an_answer() {
        let (answer, request) = answered(
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        )
        .await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (302, "ok"));
        assert!(request.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.to_lowercase().contains("x-own: yes") && request.contains("web.example"), "{request}");
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
