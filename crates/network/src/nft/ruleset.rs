//! The fixed part of our nft table of services: chains, maps and rules, laid out so that no service ever needs a rule of its own.
//!
//! ```text
//! services    address . protocol . port           → jump to the chain that chooses among so many
//! endpoints   address . protocol . port . number  → endpoint address . port
//! own         pod address . pod address             (a pod that reaches itself through a service)
//! ```
//! A NodePort has the address 0.0.0.0 in the maps and is asked for when the destination is this machine.
//! (A map from service to number and one from number to chain would spare the kernel its loop check when a service
//! grows, but `nft list` of Debian 12 aborts on a map that is looked up by another map's value.)

use std::net::Ipv4Addr;

use crate::cidr::Cidr;
use crate::netlink::{Attributes, Messages};
use crate::service::Spread;

use super::expression::{End, R0, Rule, Way};
use super::{CREATE, Layout, message};

pub(super) const SERVICES: &str = "services";
pub(super) const ENDPOINTS: &str = "endpoints";
const OWN: &str = "own";

const APPEND: u16 = 0x800;
/// Type numbers as the nft program names them, so that it can print our maps.
pub(super) mod datatype {
    pub(in super::super) const ADDRESS: u32 = 7;
    pub(in super::super) const PROTOCOL: u32 = 12;
    pub(in super::super) const PORT: u32 = 13;
    pub(super) const MARK: u32 = 19;
    pub(in super::super) const VERDICT: u32 = 0xffff_ff00;

    /// How many bytes a key's part has.
    pub(super) fn bytes(kind: u32) -> u32 {
        match kind {
            PROTOCOL => 1,
            PORT => 2,
            _ => 4,
        }
    }
}

fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |whole, one| whole << 6 | one)
}

/// Replaces the whole table, if there is one, by a fresh one without services.
pub(super) fn put(messages: &mut Messages, layout: &Layout) {
    put_table(messages, layout);
    put_sets(messages, layout);
    for chain in &CHAINS {
        put_base_chain(messages, layout, chain);
    }
    put_guard_rules(messages, layout);
    put_service_rules(messages, layout);
    put_source_rules(messages, layout);
}

/// An empty table in the place of whatever there is of its name.
pub(super) fn put_table(messages: &mut Messages, layout: &Layout) {
    const NEW_TABLE: u16 = 0;
    let name = |top: &mut Attributes<'_>| top.put_text(1, &layout.table);
    message(messages, "the nft table", (NEW_TABLE, CREATE), name);
    message(messages, "deletion of the nft table", (super::DELETE_TABLE, 0), name);
    message(messages, "the nft table", (NEW_TABLE, CREATE), name);
}

pub(super) struct Set<'a> {
    pub(super) name: &'a str,
    /// Unlike any other of the same transaction.
    pub(super) id: u32,
    pub(super) key: &'a [u32],
    /// Type and bytes of the value.
    pub(super) value: Option<(u32, u32)>,
    /// A key is a range in each of its parts.
    pub(super) ranges: bool,
}

fn put_sets(messages: &mut Messages, layout: &Layout) {
    use datatype::{ADDRESS, MARK, PORT, PROTOCOL, VERDICT};
    let sets = [
        Set { name: SERVICES, id: 1, key: &[ADDRESS, PROTOCOL, PORT], value: Some((VERDICT, 0)), ranges: false },
        Set {
            name: ENDPOINTS,
            id: 2,
            key: &[ADDRESS, PROTOCOL, PORT, MARK],
            value: Some((concatenated(&[ADDRESS, PORT]), 8)),
            ranges: false,
        },
        Set { name: OWN, id: 3, key: &[ADDRESS, ADDRESS], value: None, ranges: false },
    ];
    for set in sets {
        put_set(messages, layout, &set);
    }
    let addresses: Vec<Ipv4Addr> =
        (2..).map_while(|index| layout.pod_cidr.nth(index)).take(super::POD_ADDRESSES_MAX).collect();
    for chunk in addresses.chunks(super::ELEMENTS_PER_MESSAGE_MAX) {
        super::put_elements(messages, layout, (OWN, false), chunk, |element, address| {
            let octets = address.octets();
            super::put_key(element, &[octets, octets].concat());
        });
    }
}

pub(super) fn put_set(messages: &mut Messages, layout: &Layout, set: &Set<'_>) {
    const NEW_SET: u16 = 9;
    const FLAG_MAP: u32 = 8;
    const FLAG_RANGES_OF_PARTS: u32 = 0x4 | 0x80;
    message(messages, "an nft map", (NEW_SET, CREATE), |top| {
        top.put_text(1, &layout.table);
        top.put_text(2, set.name);
        let flags = if set.value.is_some() { FLAG_MAP } else { 0 };
        top.put_be32(3, if set.ranges { flags | FLAG_RANGES_OF_PARTS } else { flags });
        top.put_be32(4, concatenated(set.key));
        top.put_be32(5, 4 * set.key.len() as u32);
        if let Some((kind, bytes)) = set.value {
            top.put_be32(6, kind);
            if bytes > 0 {
                top.put_be32(7, bytes);
            }
        }
        if set.ranges {
            top.nest(9, |description| {
                description.nest(2, |parts| {
                    for kind in set.key {
                        parts.nest(1, |part| part.put_be32(1, datatype::bytes(*kind)));
                    }
                });
            });
        }
        top.put_be32(10, set.id);
    });
}

/// Name, type, hook and priority of a chain that packets come through.
pub(super) type BaseChain = (&'static str, &'static str, u32, i32);

const CHAINS: [BaseChain; 6] = [
    ("guard", "filter", hook::PREROUTING, -300),
    ("arriving", "nat", hook::PREROUTING, -100),
    ("own-output", "nat", hook::OUTPUT, -100),
    ("leaving", "nat", hook::POSTROUTING, 100),
    ("refuse-forward", "filter", hook::FORWARD, 0),
    ("refuse-output", "filter", hook::OUTPUT, 0),
];

pub(super) mod hook {
    pub(super) const PREROUTING: u32 = 0;
    pub(in super::super) const INPUT: u32 = 1;
    pub(in super::super) const FORWARD: u32 = 2;
    pub(super) const OUTPUT: u32 = 3;
    pub(super) const POSTROUTING: u32 = 4;
}

pub(super) fn put_base_chain(messages: &mut Messages, layout: &Layout, (name, kind, hook, priority): &BaseChain) {
    message(messages, "an nft chain", (super::NEW_CHAIN, CREATE), |top| {
        top.put_text(1, &layout.table);
        top.put_text(3, name);
        top.nest(4, |place| {
            place.put_be32(1, *hook);
            place.put_be32(2, *priority as u32);
        });
        top.put_text(7, kind);
    });
}

/// A chain that packets come to by a jump.
pub(super) fn put_chain(messages: &mut Messages, layout: &Layout, name: &str) {
    message(messages, "an nft chain", (super::NEW_CHAIN, CREATE), |top| {
        top.put_text(1, &layout.table);
        top.put_text(3, name);
    });
}

pub(super) fn put_rule(messages: &mut Messages, layout: &Layout, chain: &str, fill: impl FnOnce(&mut Rule<'_, '_>)) {
    const NEW_RULE: u16 = 6;
    message(messages, "an nft rule", (NEW_RULE, CREATE | APPEND), |top| {
        top.put_text(1, &layout.table);
        top.put_text(2, chain);
        top.nest(4, |list| fill(&mut Rule::new(list)));
    });
}

/// Addresses of what a cloud tells its machines about themselves, credentials included (RFC 3927).
fn link_local() -> Cidr {
    Cidr::containing(Ipv4Addr::new(169, 254, 0, 0), 16).expect("16 bits are a prefix")
}

/// What a pod may not send: packets to the machine's loopback addresses, packets in another's name, and questions about
/// the machine to those who answer the machine.
fn put_guard_rules(messages: &mut Messages, layout: &Layout) {
    let loopback = Cidr::containing(Ipv4Addr::LOCALHOST, 8).expect("8 bits are a prefix");
    put_rule(messages, layout, "guard", |rule| {
        rule.interface_begins(Way::In, &layout.pod_interfaces).address_in(End::Destination, loopback, true).drop();
    });
    put_rule(messages, layout, "guard", |rule| {
        rule.interface_begins(Way::In, &layout.pod_interfaces).source_is_forged().drop();
    });
    // Behind a service's address too, hence twice.
    for chain in ["guard", "refuse-forward"] {
        put_rule(messages, layout, chain, |rule| {
            rule.interface_begins(Way::In, &layout.pod_interfaces).address_in(End::Destination, link_local(), true);
            rule.refuse();
        });
    }
}

/// Services, for packets that arrive and for those of the machine itself; what is left of the service network after
/// that has no endpoint.
fn put_service_rules(messages: &mut Messages, layout: &Layout) {
    for chain in ["arriving", "own-output"] {
        put_rule(messages, layout, chain, |rule| {
            rule.load_address(End::Destination, R0).load_protocol(R0 + 1).load_port(R0 + 2);
            rule.jump_by(SERVICES, R0);
        });
        put_rule(messages, layout, chain, |rule| {
            rule.destination_is_local();
            load_any_address(rule).load_protocol(R0 + 1).load_port(R0 + 2);
            rule.jump_by(SERVICES, R0);
        });
    }
    for chain in ["refuse-forward", "refuse-output"] {
        put_rule(messages, layout, chain, |rule| {
            rule.address_in(End::Destination, layout.service_cidr, true).refuse();
        });
    }
}

fn load_any_address<'r, 'a, 'b>(rule: &'r mut Rule<'a, 'b>) -> &'r mut Rule<'a, 'b> {
    rule.load_value(Ipv4Addr::UNSPECIFIED.octets(), R0)
}

/// Whose name packets carry where the true one would not find its way back.
fn put_source_rules(messages: &mut Messages, layout: &Layout) {
    let loopback = Cidr::containing(Ipv4Addr::LOCALHOST, 8).expect("8 bits are a prefix");
    let chain = "leaving";
    put_rule(messages, layout, chain, |rule| {
        rule.load_address(End::Source, R0).load_address(End::Destination, R0 + 1).is_in(OWN, R0);
        rule.source_becomes(layout.gateway);
    });
    put_rule(messages, layout, chain, |rule| {
        rule.interface_begins(Way::Out, &layout.pod_interfaces).address_in(End::Source, loopback, true);
        rule.source_becomes(layout.gateway);
    });
    put_rule(messages, layout, chain, |rule| {
        rule.address_in(End::Source, layout.pod_cidr, true).address_in(End::Destination, layout.cluster_cidr, false);
        rule.masquerade();
    });
    put_rule(messages, layout, chain, |rule| {
        rule.connection_is_redirected().address_in(End::Source, layout.cluster_cidr, false);
        rule.address_in(End::Destination, layout.pod_cidr, false).masquerade();
    });
}

/// The chain that chooses one of so many endpoints.
pub(super) fn put_spread(messages: &mut Messages, layout: &Layout, spread: Spread) {
    let name = chain_name(spread);
    put_chain(messages, layout, &name);
    for any_address in [false, true] {
        put_rule(messages, layout, &name, |rule| {
            match any_address {
                false => rule.load_address(End::Destination, R0),
                true => load_any_address(rule),
            };
            rule.load_protocol(R0 + 1).load_port(R0 + 2);
            match spread.client_affinity {
                false => rule.load_random(u32::from(spread.endpoints), R0 + 3),
                true => rule.load_source_hash(u32::from(spread.endpoints), R0 + 3),
            };
            rule.look_up(ENDPOINTS, R0).redirect();
        });
    }
}

/// The chain that chooses among so many.
pub(super) fn chain_name(spread: Spread) -> String {
    let how = if spread.client_affinity { "by-client" } else { "random" };
    format!("{how}-of-{}", spread.endpoints)
}
