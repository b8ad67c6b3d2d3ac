//! The gRPC health checking protocol, its one question: is this service serving? Answers are hostile and bounded.
//!
//! Source: gRPC documentation, "Health Checking"; "gRPC over HTTP2"; RFC 9113.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use windlass_api::codec::wire::{Reader, Writer};
use windlass_stdx::BoxError;

use super::{failed, fetch};
use crate::grpc::{self, Call, CallError, Io, code};
use crate::machine::{HealthCheck, MachineError, OUTPUT_BYTES_MAX};

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
    let (io, scheme): (Box<dyn Io>, _) = match ask.tls {
        false => (Box::new(stream), "http"),
        true => {
            let mut tls = fetch::trusting_all()?;
            tls.alpn_protocols = vec![b"h2".to_vec()];
            let name = ServerName::from(ask.address.ip());
            (Box::new(TlsConnector::from(Arc::new(tls)).connect(name, stream).await?), "https")
        }
    };
    // `HealthCheckRequest`: field 1 is the service.
    let message = Writer::new().text(1, &ask.service).finish();
    let call = Call::new("/grpc.health.v1.Health/Check", message, ask.timeout);
    let call = Call { bytes_max: OUTPUT_BYTES_MAX, ..call };
    match grpc::ask(io, &format!("{scheme}://{}", ask.address), &call).await {
        Ok(answer) => is_serving(&answer),
        Err(CallError::Refused { code: code::NOT_FOUND, .. }) => Err("the server does not know this service".into()),
        Err(CallError::Refused { code: code::UNIMPLEMENTED, .. }) => {
            Err("the server does not implement grpc.health.v1.Health".into())
        }
        Err(error) => Err(error.into()),
    }
}

/// `HealthCheckResponse`: field 1 is the status; one that is left out is 0.
fn is_serving(answer: &[u8]) -> Result<(), BoxError> {
    let (mut reader, mut status) = (Reader::new(answer), 0);
    while let Some((tag, wire)) = reader.field()? {
        if tag == 1 {
            status = wire.number()?;
        }
    }
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
    use super::{check, is_serving};
    use crate::machine::HealthCheck;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn only_serving_is_well() {
        assert!(is_serving(&[0x08, 1]).is_ok());
        for bad in [&[0x08, 2][..], &[0x08, 3], &[0x08, 0], &[], &[0x10, 1], &[0x08], &[0x0a, 1, 1]] {
            assert!(is_serving(bad).is_err(), "{bad:?}");
        }
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
