//! The gRPC health checking protocol, its one question: is this service serving? Answers are hostile and bounded.
//!
//! Source: gRPC documentation, "Health Checking"; "gRPC over HTTP2"; RFC 9113.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use windlass_stdx::BoxError;

use super::{failed, fetch};
use crate::machine::{HealthCheck, MachineError, OUTPUT_BYTES_MAX};

/// The longest name of a service that is asked about: its length is one byte of the message.
const SERVICE_BYTES_MAX: usize = 127;
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Field 1 of a message, as a string and as a number.
const STRING_1: u8 = 0x0a;
const NUMBER_1: u8 = 0x08;

/// Asks once.
pub async fn check(ask: &HealthCheck) -> Result<(), MachineError> {
    let doing = format!("health check of {:?} at {}", ask.service, ask.address);
    match tokio::time::timeout(ask.timeout, connect_and_ask(ask)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(&doing, &*error)),
        Err(_) => Err(MachineError::TimedOut { operation: doing, after: ask.timeout }),
    }
}

async fn connect_and_ask(ask: &HealthCheck) -> Result<(), BoxError> {
    let stream = TcpStream::connect(ask.address).await?;
    stream.set_nodelay(true)?;
    if !ask.tls {
        return speak(ask, stream).await;
    }
    let mut tls = fetch::trusting_all()?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::from(ask.address.ip());
    speak(ask, TlsConnector::from(Arc::new(tls)).connect(name, stream).await?).await
}

async fn speak(ask: &HealthCheck, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<(), BoxError> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    let scheme = if ask.tls { "https" } else { "http" };
    let request = http::Request::post(format!("{scheme}://{}/grpc.health.v1.Health/Check", ask.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(question(&ask.service)?))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("expected an answer of gRPC, found HTTP status {status}").into());
        }
        let early = response.headers().get("grpc-status").cloned();
        let answer = Limited::new(response.into_body(), OUTPUT_BYTES_MAX).collect().await?;
        let late = answer.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
        match early.or(late) {
            Some(code) if code == "0" => is_serving(&answer.to_bytes()),
            Some(code) if code == "5" => Err("the server does not know this service".into()),
            Some(code) if code == "12" => Err("the server does not implement grpc.health.v1.Health".into()),
            code => Err(format!("expected grpc-status 0, found {code:?}").into()),
        }
    };
    // The connection does its part only while it is polled, and ends with this future.
    tokio::select! {
        biased;
        answer = exchange => answer,
        ended = connection => Err(ended.err().map_or_else(|| "the connection was closed".into(), BoxError::from)),
    }
}

/// `HealthCheckRequest`: field 1 is the service.
fn question(service: &str) -> Result<Bytes, BoxError> {
    let length = u8::try_from(service.len()).ok().filter(|length| usize::from(*length) <= SERVICE_BYTES_MAX);
    let length = length.ok_or_else(|| format!("the service's name is longer than {SERVICE_BYTES_MAX} bytes"))?;
    let mut out = BytesMut::new();
    let message_bytes = if service.is_empty() { 0 } else { u32::from(length) + 2 };
    out.put_u8(0);
    out.put_u32(message_bytes);
    if !service.is_empty() {
        out.put_slice(&[STRING_1, length]);
        out.put_slice(service.as_bytes());
    }
    Ok(out.freeze())
}

/// `HealthCheckResponse`: field 1 is the status; one that is left out is 0.
fn is_serving(answer: &[u8]) -> Result<(), BoxError> {
    let status = match answer.get(PREFIX_BYTES..) {
        Some([NUMBER_1, status, ..]) => *status,
        Some(_) => 0,
        None => return Err("the answer is too short".into()),
    };
    let word = match status {
        1 => return Ok(()),
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "a status that is not known",
    };
    Err(format!("service unhealthy (responded with {word:?})").into())
}

#[cfg(test)]
mod tests {
    use super::{check, is_serving, question};
    use crate::machine::HealthCheck;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn the_question_names_the_service() {
        assert_eq!(&question("").expect("fits")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab").expect("fits")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert!(question(&"x".repeat(128)).is_err());
    }

    #[test]
    fn only_serving_is_well() {
        let answer = |message: &[u8]| is_serving(&[&[0, 0, 0, 0, 2][..], message].concat());
        assert!(answer(&[0x08, 1]).is_ok());
        for bad in [&[0x08, 2][..], &[0x08, 3], &[0x08, 0], &[], &[0x10, 1]] {
            assert!(answer(bad).is_err(), "{bad:?}");
        }
        assert!(is_serving(&[]).is_err());
    }

    #[tokio::test]
    async fn who_does_not_speak_grpc_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("the probe comes");
            let mut said = [0; 24];
            stream.read_exact(&mut said).await.expect("a preface");
            // A probe that has enough hangs up.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            said
        };
        let ask = HealthCheck { address, service: String::new(), tls: false, timeout: Duration::from_secs(10) };
        let (answer, said) = tokio::join!(check(&ask), server);
        assert!(answer.is_err());
        assert_eq!(&said, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        drop(listener);
        assert!(check(&ask).await.is_err(), "nobody listens");
    }
}
