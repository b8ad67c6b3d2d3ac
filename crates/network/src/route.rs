//! Links, addresses and routes as rtnetlink messages (Linux `rtnetlink(7)`).

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::cidr::Cidr;
use crate::netlink::{Messages, NetlinkError, Protocol, Socket, attributes, text_of};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const FAMILY_INET: u8 = 2;
const FAMILY_INET6: u16 = 10;
const LINK_UP: u32 = 1;

mod link {
    pub(super) const NAME: u16 = 3;
    pub(super) const MTU: u16 = 4;
    pub(super) const INFO: u16 = 18;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_CONTENT: u16 = 2;
    pub(super) const AF_SPEC: u16 = 26;
    pub(super) const INET6_ADDRESS_MODE: u16 = 8;
    pub(super) const NAMESPACE_FD: u16 = 28;
    pub(super) const VETH_PEER: u16 = 1;
}

/// The loopback interface's index in every namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;

/// The two ends of a pod's cable.
pub(crate) struct Veth<'a> {
    /// The end in the namespace of the socket, and the index it shall have.
    pub(crate) inner: (&'a str, u32),
    /// The end that is put into `outer_namespace`.
    pub(crate) outer: &'a str,
    pub(crate) outer_namespace: BorrowedFd<'a>,
    pub(crate) mtu: u32,
}

/// Makes both ends at once, each in its namespace.
pub(crate) fn add_veth(messages: &mut Messages, veth: &Veth<'_>) {
    let fixed = link_header(veth.inner.1, 0, 0);
    messages.add("a pod's cable", (NEW_LINK, CREATE | EXCLUSIVE), &fixed, |top| {
        top.put_text(link::NAME, veth.inner.0);
        top.put_u32(link::MTU, veth.mtu);
        top.nest(link::INFO, |info| {
            info.put(link::INFO_KIND, b"veth");
            info.nest(link::INFO_CONTENT, |content| {
                content.nest(link::VETH_PEER, |peer| {
                    peer.raw(&link_header(0, 0, 0));
                    peer.put_text(link::NAME, veth.outer);
                    peer.put_u32(link::MTU, veth.mtu);
                    peer.put_u32(link::NAMESPACE_FD, veth.outer_namespace.as_raw_fd() as u32);
                });
            });
        });
    });
}

/// Makes a bridge without ports.
pub(crate) fn add_bridge(messages: &mut Messages, name: &str) {
    messages.add("the bridge", (NEW_LINK, CREATE | EXCLUSIVE), &link_header(0, 0, 0), |top| {
        top.put_text(link::NAME, name);
        top.nest(link::INFO, |info| info.put(link::INFO_KIND, b"bridge"));
    });
}

/// Sets a link up, without the link-local IPv6 address that would make it chatter.
pub(crate) fn set_up(messages: &mut Messages, index: u32) {
    const MODE_NONE: u8 = 1;
    messages.add("an interface without IPv6 autoconfiguration", (SET_LINK, 0), &link_header(index, 0, 0), |top| {
        top.nest(link::AF_SPEC, |families| {
            families.nest(FAMILY_INET6, |inet6| inet6.put(link::INET6_ADDRESS_MODE, &[MODE_NONE]));
        });
    });
    set_plain_up(messages, index);
}

/// Sets a link up.
pub(crate) fn set_plain_up(messages: &mut Messages, index: u32) {
    messages.add("an interface to be up", (SET_LINK, 0), &link_header(index, LINK_UP, LINK_UP), |_| {});
}

/// Deletes a link by its name.
pub(crate) fn delete_link(messages: &mut Messages, name: &str) {
    messages.add("deletion of an interface", (DELETE_LINK, 0), &link_header(0, 0, 0), |top| {
        top.put_text(link::NAME, name);
    });
}

/// Gives a link an address of its own, without a network around it; an address that is there stays.
pub(crate) fn add_address(messages: &mut Messages, index: u32, address: Ipv4Addr) {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let [a, b, c, d] = index.to_ne_bytes();
    let fixed = [FAMILY_INET, 32, 0, 0, a, b, c, d];
    messages.add("an address", (NEW_ADDRESS, CREATE | REPLACE), &fixed, |top| {
        top.put(LOCAL, &address.octets());
        top.put(ADDRESS, &address.octets());
    });
}

/// A route to `destination`: over `gateway`, or straight out of the link; `source` is what own packets carry.
pub(crate) struct Route {
    pub(crate) destination: Cidr,
    pub(crate) index: u32,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) source: Option<Ipv4Addr>,
}

/// Adds a route; one that is there is replaced.
pub(crate) fn add_route(messages: &mut Messages, route: &Route) {
    const DESTINATION: u16 = 1;
    const OUT_LINK: u16 = 4;
    const GATEWAY: u16 = 5;
    const PREFERRED_SOURCE: u16 = 7;
    const TABLE_MAIN: u8 = 254;
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_LINK: u8 = 253;
    const KIND_UNICAST: u8 = 1;
    let scope = if route.gateway.is_some() { 0 } else { SCOPE_LINK };
    let length = route.destination.prefix_length();
    let fixed = [FAMILY_INET, length, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, scope, KIND_UNICAST, 0, 0, 0, 0];
    messages.add("a route", (NEW_ROUTE, CREATE | REPLACE), &fixed, |top| {
        if length > 0 {
            top.put(DESTINATION, &route.destination.address().octets());
        }
        top.put_u32(OUT_LINK, route.index);
        if let Some(gateway) = route.gateway {
            top.put(GATEWAY, &gateway.octets());
        }
        if let Some(source) = route.source {
            top.put(PREFERRED_SOURCE, &source.octets());
        }
    });
}

/// The index of the link of this name; `None` when there is none.
pub(crate) fn link_index(socket: &mut Socket, name: &str) -> Result<Option<u32>, NetlinkError> {
    let mut question = Messages::new();
    question.add("an interface", (GET_LINK, 0), &link_header(0, 0, 0), |top| top.put_text(link::NAME, name));
    match socket.ask(question, false) {
        Ok(replies) => Ok(replies.iter().find_map(|reply| index_of(&reply.payload))),
        Err(error) if error.refusal() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of all links that begin with `prefix`.
pub(crate) fn link_names(prefix: &str) -> Result<Vec<String>, NetlinkError> {
    let mut question = Messages::new();
    question.add("all interfaces", (GET_LINK, 0), &link_header(0, 0, 0), |_| {});
    let replies = Socket::open(Protocol::Route)?.ask(question, true)?;
    let names = replies.iter().filter_map(|reply| {
        let (_, name) = attributes(reply.payload.get(16..)?).find(|(kind, _)| *kind == link::NAME)?;
        Some(text_of(name).to_owned())
    });
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

fn index_of(payload: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?))
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}
