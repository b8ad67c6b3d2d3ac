//! A request carried to another server, and its answer back.
//!
//! Rules
//!   F1 upgrades    are carried byte for byte, as those of exec are
//!   F2 bounded     the start of an answer in time; bodies are streamed both ways and never held
//!   F3 headers     say where the request was sent (`X-Forwarded-*`); those of one hop, and credentials, go no further
//!
//! Source: RFC 9110 on hop-by-hop headers; what kube-apiserver's proxy adds.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use windlass_api::{ApiError, Reason};
use windlass_stdx::{Body, Response, body_empty};

use super::Sender;
use crate::failure::later;
use crate::lanes::Permit;
use crate::server::Server;
use crate::sub::stream::tunnel;

/// How long what is called may take to begin its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);

/// Headers that are between two ends of one connection.
const OF_ONE_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What is carried where.
pub(crate) struct Sent<'a> {
    /// The request as it came.
    pub parts: &'a Parts,
    /// Its path there; the query stays.
    pub path: &'a str,
    /// What the server is called there.
    pub host: &'a str,
    /// The path that clients know it by; empty where it is the same.
    pub prefix: &'a str,
}

/// The refusal of what could not be carried.
pub(crate) fn unreachable(why: &dyn std::fmt::Display) -> ApiError {
    later(Reason::ServiceUnavailable, format!("error trying to reach service: {why}"))
}

/// Carries a request over a connection; both count until the answer is sent or the stream has ended.
pub(crate) async fn forward(
    server: &Arc<Server>,
    sent: Sent<'_>,
    (mut sender, permit): (Sender, Permit),
    (body, upgrade): (Body, Option<OnUpgrade>),
) -> Result<Response, ApiError> {
    let request = outgoing(&sent, upgrade.is_some(), body)?;
    let response = match tokio::time::timeout(ANSWER_TIME_MAX, sender.send_request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(unreachable(&format!("no answer within {ANSWER_TIME_MAX:?}"))),
    };
    let mut answer = http::Response::new(body_empty());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = passed(response.headers());
    match (response.status(), upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) => {
            for name in [CONNECTION, UPGRADE] {
                if let Some(value) = response.headers().get(&name) {
                    answer.headers_mut().insert(name, value.clone());
                }
            }
            let closing = server.clone();
            tokio::spawn(async move {
                tunnel(upgrade, hyper::upgrade::on(response), closing).await;
                drop((sender, permit));
            });
        }
        (StatusCode::SWITCHING_PROTOCOLS, None) => return Err(unreachable(&"it upgraded what was no upgrade")),
        _ => {
            let body = response.into_body().map_err(Into::into).map_frame(move |frame| {
                let _held_while_sent = (&sender, &permit);
                frame
            });
            *answer.body_mut() = BodyExt::boxed_unsync(body);
        }
    }
    Ok(answer)
}

/// The request as it is sent there.
fn outgoing(sent: &Sent<'_>, upgrades: bool, body: Body) -> Result<Request<Body>, ApiError> {
    let parts = sent.parts;
    let uri = parts.uri.query().map_or_else(|| sent.path.to_owned(), |query| format!("{}?{query}", sent.path));
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri.parse().map_err(|_| ApiError::bad_request("the path is not one"))?;
    let mut headers = passed(&parts.headers);
    headers.remove(AUTHORIZATION);
    let asked = parts.headers.get(HOST).cloned();
    let asked = asked.or_else(|| HeaderValue::from_str(parts.uri.authority()?.as_str()).ok());
    if let Some(asked) = asked {
        headers.insert(HeaderName::from_static("x-forwarded-host"), asked);
    }
    let prefix = if sent.prefix.is_empty() { parts.uri.path() } else { sent.prefix };
    let forwarded = HeaderValue::from_str(prefix).map_err(ApiError::internal)?;
    headers.insert(HeaderName::from_static("x-forwarded-uri"), forwarded);
    headers.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"));
    headers.insert(HOST, HeaderValue::from_str(sent.host).map_err(ApiError::internal)?);
    if upgrades {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(protocol) = parts.headers.get(UPGRADE) {
            headers.insert(UPGRADE, protocol.clone());
        }
    }
    *request.headers_mut() = headers;
    Ok(request)
}

/// F3: the headers that are not of one hop.
pub(crate) fn passed(headers: &HeaderMap) -> HeaderMap {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let mut passed = headers.clone();
    for name in OF_ONE_HOP {
        passed.remove(name);
    }
    for name in named {
        passed.remove(&name);
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::passed;
    use http::HeaderMap;
    use http::header::HeaderName;

    #[test]
    fn f3_headers_of_one_hop_go_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close, x-own"), ("x-own", "1"), ("te", "trailers"), ("x-other", "2")] {
            headers.insert(HeaderName::from_static(name), value.parse().expect("a header value"));
        }
        assert_eq!(passed(&headers).keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
