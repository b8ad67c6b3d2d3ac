//! Connections that stop being HTTP: what exec, attach and port-forward run on.
//!
//! Guarantees  a server that refuses is heard: its Status becomes the error
//! Not here    what is spoken afterwards (WebSocket and its channels)

use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use windlass_stdx::{Request, TransportError};

use crate::client::read_refusal;
use crate::error::ClientError;
use crate::https::HttpsTransport;

/// Bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// A connection after the server has agreed to speak something else on it.
pub struct Upgraded {
    /// The bytes.
    pub io: TokioIo<hyper::upgrade::Upgraded>,
    /// The header `Sec-WebSocket-Accept`: proof that the server understood.
    pub accept: Option<HeaderValue>,
    /// The header `Sec-WebSocket-Protocol`: what it wants to speak.
    pub protocol: Option<HeaderValue>,
}

impl HttpsTransport {
    /// Sends a request that asks for an upgrade, on a connection of its own.
    pub async fn upgrade(&self, mut request: Request) -> Result<Upgraded, ClientError> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let transport = |source| ClientError::Transport { what: what.clone(), source };
        let mut own = self.link.connect_own().await.map_err(transport)?;
        let host = HeaderValue::from_str(self.link.authority.as_str());
        let host = host.map_err(|source| ClientError::Request { what: what.clone(), source: source.into() })?;
        request.headers_mut().insert(header::HOST, host);
        let sent = own.send_request(request).await;
        let response = sent.map_err(|error| transport(TransportError::Broken(error.into())))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let limited = http_body_util::Limited::new(response.into_body(), REFUSAL_BYTES_MAX);
            let body = limited.collect().await.map_err(|source| ClientError::Body { what: what.clone(), source })?;
            return Err(ClientError::Api(read_refusal(status, &body.to_bytes())));
        }
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).cloned();
        let protocol = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL).cloned();
        let upgraded = hyper::upgrade::on(response).await;
        let io = TokioIo::new(upgraded.map_err(|error| transport(TransportError::Broken(error.into())))?);
        Ok(Upgraded { io, accept, protocol })
    }
}
