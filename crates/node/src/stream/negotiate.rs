//! Negotiation: which protocol a client and we speak after the upgrade. Pure.
//!
//! Source: RFC 9110 7.8 (Upgrade), RFC 6455 4.2 (WebSocket), KEP-4006; `X-Stream-Protocol-Version` as Kubernetes' SPDY has it

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use windlass_stdx::{Body, body_empty};

use crate::server::Refusal;

/// Where SPDY clients say what they speak, and are told.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// The most protocols of a request that are looked at.
const PROTOCOLS_MAX: usize = 32;
/// The length of a WebSocket key: 16 bytes in base64.
const KEY_BYTES: usize = 24;

/// What travels on the upgraded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// WebSocket messages that begin with their channel, errors as sentences.
    Channels,
    /// The same, errors as `Status`.
    ChannelsV4,
    /// The same, and a client can close a channel.
    ChannelsV5,
    /// SPDY, one stream a channel.
    Spdy,
    /// SPDY inside WebSocket messages.
    SpdyInWebSocket,
}

/// How a log travels in WebSocket messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogForm {
    /// Its bytes.
    Binary,
    /// Its bytes in base64, for clients that take only text.
    Base64,
}

/// What can be asked for, by its name on the wire.
pub(super) struct Offer<P: 'static> {
    /// WebSocket subprotocols.
    pub websocket: &'static [(&'static str, P)],
    /// What a WebSocket client speaks that names none.
    pub unnamed: Option<P>,
    /// SPDY stream protocols.
    pub spdy: &'static [(&'static str, P)],
}

/// For exec and attach.
pub(super) const COMMAND: Offer<Protocol> = Offer {
    websocket: &[
        ("v5.channel.k8s.io", Protocol::ChannelsV5),
        ("v4.channel.k8s.io", Protocol::ChannelsV4),
        ("channel.k8s.io", Protocol::Channels),
    ],
    unnamed: Some(Protocol::Channels),
    spdy: &[("v5.channel.k8s.io", Protocol::Spdy), ("v4.channel.k8s.io", Protocol::Spdy)],
};

/// For port-forward.
pub(super) const PORT_FORWARD: Offer<Protocol> = Offer {
    websocket: &[
        ("SPDY/3.1+portforward.k8s.io", Protocol::SpdyInWebSocket),
        ("v5.channel.k8s.io", Protocol::ChannelsV5),
        ("v4.channel.k8s.io", Protocol::ChannelsV4),
        ("portforward.k8s.io", Protocol::ChannelsV4),
    ],
    unnamed: None,
    spdy: &[("portforward.k8s.io", Protocol::Spdy)],
};

/// For logs.
pub(super) const LOG: Offer<LogForm> = Offer {
    websocket: &[("binary.k8s.io", LogForm::Binary), ("base64.binary.k8s.io", LogForm::Base64)],
    unnamed: Some(LogForm::Binary),
    spdy: &[],
};

/// The protocol, and the answer that begins it.
pub(super) fn agree<P: Copy>(headers: &HeaderMap, offer: &Offer<P>) -> Result<(P, Response<Body>), Refusal> {
    let is_upgrade = values(headers, &CONNECTION).any(|value| value.eq_ignore_ascii_case("upgrade"));
    let upgrades: Vec<&str> = values(headers, &UPGRADE).collect();
    let is_to = |name: &str| is_upgrade && upgrades.iter().any(|upgrade| upgrade.eq_ignore_ascii_case(name));
    match () {
        () if is_to("websocket") => websocket(headers, offer),
        () if is_to("SPDY/3.1") => spdy(headers, offer),
        () if is_upgrade && !upgrades.is_empty() => Err(Refusal::bad_request(format!(
            "cannot upgrade to {}; expected websocket or SPDY/3.1",
            upgrades.join(", ").escape_debug()
        ))),
        () => Err(Refusal::bad_request("Upgrade request required: websocket or SPDY/3.1")),
    }
}

fn websocket<P: Copy>(headers: &HeaderMap, offer: &Offer<P>) -> Result<(P, Response<Body>), Refusal> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::bad_request("expected Sec-WebSocket-Version: 13"));
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == KEY_BYTES) else {
        return Err(Refusal::bad_request("expected Sec-WebSocket-Key with 16 bytes in base64"));
    };
    let wanted: Vec<&str> = values(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    let (name, protocol) = match (wanted.as_slice(), offer.unnamed) {
        ([], Some(protocol)) => (None, protocol),
        (wanted, _) => {
            let find = |name: &&str| offer.websocket.iter().find(|(offered, _)| offered == name);
            let found = wanted.iter().find_map(find);
            let names = offer.websocket.iter().map(|(name, _)| *name);
            let (name, protocol) = found.ok_or_else(|| nothing_common("Sec-WebSocket-Protocol", wanted, names))?;
            (Some(*name), *protocol)
        }
    };
    let mut response = switching("websocket");
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is plain text");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(name) = name {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok((protocol, response))
}

fn spdy<P: Copy>(headers: &HeaderMap, offer: &Offer<P>) -> Result<(P, Response<Body>), Refusal> {
    let wanted: Vec<&str> = values(headers, &STREAM_PROTOCOL).collect();
    let found = wanted.iter().find_map(|wanted| offer.spdy.iter().find(|(offered, _)| offered == wanted));
    let Some((name, protocol)) = found else {
        let names = offer.spdy.iter().map(|(name, _)| *name);
        return Err(nothing_common("X-Stream-Protocol-Version", &wanted, names));
    };
    let mut response = switching("SPDY/3.1");
    response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(name));
    Ok((*protocol, response))
}

fn nothing_common(header: &str, wanted: &[&str], offered: impl Iterator<Item = &'static str>) -> Refusal {
    let offered: Vec<&str> = offered.collect();
    Refusal::bad_request(format!(
        "unable to upgrade: client supports [{}], server accepts [{}] as {header}",
        wanted.join(", ").escape_debug(),
        offered.join(", ")
    ))
}

fn switching(to: &'static str) -> Response<Body> {
    let mut response = Response::new(body_empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

/// The members of a header's lists.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lists = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).filter(|value| !value.is_empty()).take(PROTOCOLS_MAX)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{COMMAND, Offer, PORT_FORWARD, Protocol, agree};

    /// The protocol and what the client is told of it, or the refusal.
    fn agreed(headers: &[(&'static str, &'static str)], offer: &Offer<Protocol>) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        match agree(&map, offer) {
            Ok((protocol, response)) => {
                let told = |name: &str| response.headers().get(name).map_or("-", |value| value.to_str().expect("text"));
                format!(
                    "{protocol:?} {} {} {} {}",
                    response.status().as_u16(),
                    told("upgrade"),
                    told("sec-websocket-protocol"),
                    told("x-stream-protocol-version")
                )
            }
            Err(refusal) => refusal.error.to_status()["message"].as_str().unwrap_or_default().to_owned(),
        }
    }

    const SOCKET: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn socket(protocols: &'static str, offer: &Offer<Protocol>) -> String {
        let mut headers = SOCKET.to_vec();
        headers.push(("sec-websocket-protocol", protocols));
        agreed(&headers, offer)
    }

    #[test]
    fn the_first_protocol_of_the_client_that_we_speak_is_taken() {
        assert_eq!(
            socket("v9, v5.channel.k8s.io,v4.channel.k8s.io", &COMMAND),
            "ChannelsV5 101 websocket v5.channel.k8s.io -"
        );
        assert_eq!(socket("v4.channel.k8s.io", &COMMAND), "ChannelsV4 101 websocket v4.channel.k8s.io -");
        assert_eq!(agreed(&SOCKET, &COMMAND), "Channels 101 websocket - -");
        let tunnel = "SPDY/3.1+portforward.k8s.io";
        assert_eq!(socket(tunnel, &PORT_FORWARD), format!("SpdyInWebSocket 101 websocket {tunnel} -"));
        let mut headers = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        headers.extend([("x-stream-protocol-version", "v9"), ("x-stream-protocol-version", "v4.channel.k8s.io")]);
        assert_eq!(agreed(&headers, &COMMAND), "Spdy 101 SPDY/3.1 - v4.channel.k8s.io");
    }

    #[test]
    fn what_we_do_not_speak_is_refused_in_words() {
        assert_eq!(
            socket("v9", &COMMAND),
            "unable to upgrade: client supports [v9], server accepts [v5.channel.k8s.io, v4.channel.k8s.io, channel.k8s.io] as Sec-WebSocket-Protocol"
        );
        assert!(agreed(&SOCKET, &PORT_FORWARD).contains("server accepts [SPDY/3.1+portforward.k8s.io"));
        assert_eq!(agreed(&[], &COMMAND), "Upgrade request required: websocket or SPDY/3.1");
        assert_eq!(agreed(&SOCKET[..3], &COMMAND), "expected Sec-WebSocket-Key with 16 bytes in base64");
        assert_eq!(agreed(&SOCKET[..2], &COMMAND), "expected Sec-WebSocket-Version: 13");
        let other = [("connection", "upgrade"), ("upgrade", "h2c")];
        assert_eq!(agreed(&other, &COMMAND), "cannot upgrade to h2c; expected websocket or SPDY/3.1");
        let spdy =
            [("connection", "upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "channel.k8s.io")];
        assert!(agreed(&spdy, &COMMAND).contains("client supports [channel.k8s.io]"));
    }
}
