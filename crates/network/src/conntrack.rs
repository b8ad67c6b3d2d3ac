//! Connections the kernel remembers: those to endpoints that no longer serve are forgotten, so that the next packet
//! meets a living endpoint. Only UDP needs this: a TCP client notices by itself.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::netlink::{Messages, NetlinkError, Protocol as Family, Socket, attributes};
use crate::service::{Frontend, Protocol};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const FAMILY_HEADER: [u8; 4] = [libc::NFPROTO_IPV4 as u8, 0, 0, 0];

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
/// Connections forgotten with one request.
const FORGET_MAX: usize = 10_000;

/// One direction of a connection.
struct Tuple {
    protocol: u8,
    source: SocketAddrV4,
    destination: SocketAddrV4,
}

/// Forgets the UDP connections that go to these endpoints by way of these frontends.
pub(crate) fn forget(gone: &BTreeSet<(Frontend, SocketAddrV4)>) -> Result<(), NetlinkError> {
    if !gone.iter().any(|(frontend, _)| frontend.protocol == Protocol::Udp) {
        return Ok(());
    }
    let mut socket = Socket::open(Family::Netfilter)?;
    let mut question = Messages::new();
    question.add("connections", (SUBSYSTEM << 8 | GET, 0), &FAMILY_HEADER, |_| {});
    let mut deletions = Messages::new();
    for reply in socket.ask(question, true)? {
        let content = reply.payload.get(4..).unwrap_or_default();
        if let Some(original) = doomed(content, gone).filter(|_| deletions.len() < FORGET_MAX) {
            deletions.add("deletion of a connection", (SUBSYSTEM << 8 | DELETE, 0), &FAMILY_HEADER, |top| {
                top.put(TUPLE_ORIGINAL | 0x8000, original);
            });
        }
    }
    if deletions.len() == 0 {
        return Ok(());
    }
    match socket.change(deletions) {
        // It ended by itself in between.
        Err(error) if error.refusal() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// The original tuple, still encoded, when the connection goes to an endpoint that is gone.
fn doomed<'a>(content: &'a [u8], gone: &BTreeSet<(Frontend, SocketAddrV4)>) -> Option<&'a [u8]> {
    let find = |wanted| attributes(content).find(|(kind, _)| *kind == wanted).map(|(_, payload)| payload);
    let encoded = find(TUPLE_ORIGINAL)?;
    let (original, reply) = (tuple_of(encoded)?, tuple_of(find(TUPLE_REPLY)?)?);
    if original.protocol != Protocol::Udp.number() || original.destination == reply.source {
        return None;
    }
    let frontend = |address| Frontend { address, protocol: Protocol::Udp, port: original.destination.port() };
    let by_address = frontend(Some(*original.destination.ip()));
    let is_gone = gone.contains(&(by_address, reply.source)) || gone.contains(&(frontend(None), reply.source));
    is_gone.then_some(encoded)
}

fn tuple_of(encoded: &[u8]) -> Option<Tuple> {
    let part = |wanted| attributes(encoded).find(|(kind, _)| *kind == wanted).map(|(_, payload)| payload);
    let (addresses, transport) = (part(1)?, part(2)?);
    let address = |wanted| {
        let octets: [u8; 4] = attributes(addresses).find(|(kind, _)| *kind == wanted)?.1.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let port = |wanted| {
        let bytes: [u8; 2] = attributes(transport).find(|(kind, _)| *kind == wanted)?.1.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    let protocol = *attributes(transport).find(|(kind, _)| *kind == 1)?.1.first()?;
    Some(Tuple {
        protocol,
        source: SocketAddrV4::new(address(1)?, port(2)?),
        destination: SocketAddrV4::new(address(2)?, port(3)?),
    })
}
