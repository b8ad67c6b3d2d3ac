//! Connections to other servers: TCP, TLS and HTTP/1.1, each bounded in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use windlass_stdx::{Body, BoxError};

use super::RemoteError;

/// How long the way to one address may take: connection and TLS.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Addresses of a remote that are tried for one call.
const ADDRESSES_MAX: usize = 4;
/// Bytes of an answer's headers.
const HEADERS_BYTES_MAX: usize = 256 * 1024;

/// A connection: one request at a time.
pub(crate) type Sender = SendRequest<Body>;

/// How a connection is secured: by what is trusted, and the name that it must be trusted as.
pub(crate) type Secured = (Arc<rustls::ClientConfig>, ServerName<'static>);

/// Connects to the first of these addresses that answers.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    tls: Option<Secured>,
) -> Result<(SocketAddr, Sender), RemoteError> {
    let mut last = None;
    for address in addresses.iter().take(ADDRESSES_MAX) {
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, connect_one(*address, tls.clone())).await;
        let connected = connected.unwrap_or_else(|_| Err(format!("no connection within {CONNECT_TIME_MAX:?}").into()));
        match connected {
            Ok(sender) => return Ok((*address, sender)),
            Err(source) => last = Some(RemoteError::Connect { address: address.to_string(), source }),
        }
    }
    Err(last.unwrap_or_else(|| RemoteError::Connect { address: "nowhere".to_owned(), source: "no address".into() }))
}

async fn connect_one(address: SocketAddr, tls: Option<Secured>) -> Result<Sender, BoxError> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    match tls {
        None => shake_hands(tcp).await,
        Some((config, name)) => shake_hands(tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?).await,
    }
}

async fn shake_hands(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender, BoxError> {
    let (sender, connection) =
        http1::Builder::new().max_buf_size(HEADERS_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to another server ended");
        }
    });
    Ok(sender)
}
