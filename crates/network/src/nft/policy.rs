//! Our nft table of network policies: there only while somebody is restricted.
//!
//! ```text
//! chain between  (forwarded packets)       source → egress, destination → ingress
//! chain to-node  (packets to the machine)  source → egress
//! egress, ingress   pod address → jump to the chain of its group
//! chain group-N     replies leave; so do packets that one of the group's three sets knows; the others go to `refuse`
//! peers-N           address                          ports-N   address . protocol . port
//! regions-N         addresses . protocols . ports    (ranges)
//! ```
//! A packet of a pod that is not restricted costs two lookups that find nothing, one that is restricted at most three
//! more for each end, however many policies and peers there are. What the machine itself sends is not looked at.
//!
//! Only packets of the direction in which the connection was begun are judged, each of them: a policy that comes cuts
//! off what it does not allow, at once.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::netlink::{Attributes, Messages};
use crate::policy::{Direction, Elements, Group, Policed, Region};
use crate::service::Protocol;

use super::expression::{End, R0, put_jump};
use super::ruleset::{BaseChain, Set, datatype, hook, put_base_chain, put_chain, put_rule, put_set, put_table};
use super::{DELETE_CHAIN, DELETE_SET, ELEMENTS_PER_MESSAGE_MAX, Layout, message, put_elements, put_key};

const EGRESS: &str = "egress";
const INGRESS: &str = "ingress";
const SELF: &str = "self";
const REFUSE: &str = "refuse";

const BETWEEN: BaseChain = ("between", "filter", hook::FORWARD, -10);
const TO_NODE: BaseChain = ("to-node", "filter", hook::INPUT, -10);

/// The table's name beside that of the services.
pub(super) fn table_name(instance: &str) -> String {
    format!("{instance}-policy")
}

fn map_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => INGRESS,
        Direction::Egress => EGRESS,
    }
}

fn chain_of(group: u32) -> String {
    format!("group-{group}")
}

fn sets_of(group: u32) -> [String; 3] {
    ["peers", "ports", "regions"].map(|what| format!("{what}-{group}"))
}

/// The names of all sets and maps.
pub(super) fn set_names(policed: &Policed) -> Vec<String> {
    let fixed = [EGRESS, INGRESS, SELF].map(str::to_owned);
    fixed.into_iter().chain(policed.groups.keys().flat_map(|group| sets_of(*group))).collect()
}

/// The table in the place of whatever there is.
pub(super) fn put_whole(messages: &mut Messages, layout: &Layout, policed: &Policed) {
    use datatype::{ADDRESS, VERDICT};
    put_table(messages, layout);
    let map = |name, id| Set { name, id, key: &[ADDRESS], value: Some((VERDICT, 0)), ranges: false };
    put_set(messages, layout, &map(EGRESS, 1));
    put_set(messages, layout, &map(INGRESS, 2));
    put_set(messages, layout, &Set { name: SELF, id: 3, key: &[ADDRESS, ADDRESS], value: None, ranges: false });
    put_base_chain(messages, layout, &BETWEEN);
    put_base_chain(messages, layout, &TO_NODE);
    for chain in [BETWEEN.0, TO_NODE.0] {
        put_rule(messages, layout, chain, |rule| {
            rule.load_address(End::Source, R0).jump_by(EGRESS, R0);
        });
    }
    put_rule(messages, layout, BETWEEN.0, |rule| {
        rule.load_address(End::Destination, R0).jump_by(INGRESS, R0);
    });
    put_chain(messages, layout, REFUSE);
    put_rule(messages, layout, REFUSE, |rule| {
        rule.is_about_a_connection().leave();
    });
    // Nobody is kept from speaking with itself.
    put_rule(messages, layout, REFUSE, |rule| {
        rule.load_address(End::Source, R0).load_address(End::Destination, R0 + 1).is_in(SELF, R0).leave();
    });
    put_rule(messages, layout, REFUSE, |rule| {
        rule.drop();
    });
    put_difference(messages, layout, &Policed::default(), policed);
}

/// What leads from one table to the other.
pub(super) fn put_difference(messages: &mut Messages, layout: &Layout, old: &Policed, new: &Policed) {
    put_pods(messages, layout, old, new, true);
    for (number, elements) in &old.groups {
        match new.groups.get(number) {
            None => delete_group(messages, layout, *number),
            Some(found) => put_group_difference(messages, layout, *number, (elements, found), true),
        }
    }
    for (number, elements) in &new.groups {
        match old.groups.get(number) {
            None => {
                put_group(messages, layout, (*number, elements.group.direction));
                let nothing = Elements { group: Group::new(elements.group.direction).into(), regions: BTreeSet::new() };
                put_group_difference(messages, layout, *number, (&nothing, elements), false);
            }
            Some(known) => put_group_difference(messages, layout, *number, (known, elements), false),
        }
    }
    put_pods(messages, layout, old, new, false);
}

/// Clears the pods that leave their group, or sets those that come to one.
fn put_pods(messages: &mut Messages, layout: &Layout, old: &Policed, new: &Policed, clear: bool) {
    let (from, other) = if clear { (old, new) } else { (new, old) };
    for direction in [Direction::Egress, Direction::Ingress] {
        let moved = from.pods.iter().filter(|(pod, group)| pod.0 == direction && other.pods.get(pod) != Some(group));
        let moved: Vec<(Ipv4Addr, u32)> = moved.map(|((_, address), group)| (*address, *group)).collect();
        put_chunks(messages, layout, (map_of(direction), clear), &moved, |element, (address, group)| {
            put_key(element, &address.octets());
            element.nest(2, |data| put_jump(data, &chain_of(*group)));
        });
    }
    let moved: Vec<Ipv4Addr> = from.addresses().difference(&other.addresses()).copied().collect();
    put_chunks(messages, layout, (SELF, clear), &moved, |element, address| {
        put_key(element, &[address.octets(), address.octets()].concat());
    });
}

fn put_group(messages: &mut Messages, layout: &Layout, (number, direction): (u32, Direction)) {
    use datatype::{ADDRESS, PORT, PROTOCOL};
    let end = match direction {
        Direction::Ingress => End::Source,
        Direction::Egress => End::Destination,
    };
    let [peers, ports, regions] = sets_of(number);
    // Three were taken by the fixed ones.
    let id = |index: u32| 4 + 3 * number + index;
    let set = |name, id, key, ranges| Set { name, id, key, value: None, ranges };
    put_set(messages, layout, &set(&peers, id(0), &[ADDRESS], false));
    put_set(messages, layout, &set(&ports, id(1), &[ADDRESS, PROTOCOL, PORT], false));
    put_set(messages, layout, &set(&regions, id(2), &[ADDRESS, PROTOCOL, PORT], true));
    let chain = chain_of(number);
    put_chain(messages, layout, &chain);
    put_rule(messages, layout, &chain, |rule| {
        rule.is_reply().leave();
    });
    put_rule(messages, layout, &chain, |rule| {
        rule.load_address(end, R0).is_in(&peers, R0).leave();
    });
    for set in [&ports, &regions] {
        put_rule(messages, layout, &chain, |rule| {
            rule.load_address(end, R0).load_protocol(R0 + 1).load_port(R0 + 2).is_in(set, R0).leave();
        });
    }
    put_rule(messages, layout, &chain, |rule| {
        rule.go_to(REFUSE);
    });
}

/// Nothing leads to the chain any more.
fn delete_group(messages: &mut Messages, layout: &Layout, number: u32) {
    message(messages, "deletion of an nft chain", (DELETE_CHAIN, 0), |top| {
        top.put_text(1, &layout.table);
        top.put_text(3, &chain_of(number));
    });
    for set in sets_of(number) {
        message(messages, "deletion of an nft set", (DELETE_SET, 0), |top| {
            top.put_text(1, &layout.table);
            top.put_text(2, &set);
        });
    }
}

/// Clears what the group has no more, or sets what it has not had.
fn put_group_difference(
    messages: &mut Messages,
    layout: &Layout,
    number: u32,
    (old, new): (&Elements, &Elements),
    clear: bool,
) {
    if old == new {
        return;
    }
    let (from, other) = if clear { (old, new) } else { (new, old) };
    let [peers, ports, regions] = sets_of(number);
    let moved: Vec<Ipv4Addr> = from.group.peers.difference(&other.group.peers).copied().collect();
    put_chunks(messages, layout, (&peers, clear), &moved, |element, address| put_key(element, &address.octets()));
    let moved: Vec<(Ipv4Addr, Protocol, u16)> = from.group.ports.difference(&other.group.ports).copied().collect();
    put_chunks(messages, layout, (&ports, clear), &moved, |element, (address, protocol, port)| {
        put_key(element, &key_of(*address, protocol.number(), *port));
    });
    let moved: Vec<Region> = from.regions.difference(&other.regions).copied().collect();
    put_chunks(messages, layout, (&regions, clear), &moved, |element, region| {
        let (first, last) = corners(region);
        put_key(element, &first);
        element.nest(10, |data| data.put(1, &last));
    });
}

fn put_chunks<T>(
    messages: &mut Messages,
    layout: &Layout,
    (set, clear): (&str, bool),
    elements: &[T],
    fill: impl Fn(&mut Attributes<'_>, &T),
) {
    for chunk in elements.chunks(ELEMENTS_PER_MESSAGE_MAX) {
        put_elements(messages, layout, (set, clear), chunk, &fill);
    }
}

/// Address, protocol and port, each padded to four bytes.
fn key_of(address: Ipv4Addr, protocol: u8, port: u16) -> [u8; 12] {
    let ([a, b, c, d], [high, low]) = (address.octets(), port.to_be_bytes());
    [a, b, c, d, protocol, 0, 0, 0, high, low, 0, 0]
}

fn corners(region: &Region) -> ([u8; 12], [u8; 12]) {
    let Region { addresses, protocols, ports } = region;
    (key_of(addresses.0, protocols.0, ports.0), key_of(addresses.1, protocols.1, ports.1))
}

/// What reading all sets gives when the kernel has this table: the set's name, then the element.
pub(super) fn expected(policed: &Policed) -> BTreeSet<Vec<u8>> {
    let mut elements = BTreeSet::new();
    let mut add = |set: &str, parts: &[&[u8]]| elements.insert([&[set.as_bytes()], parts].concat().concat());
    for ((direction, address), group) in &policed.pods {
        let value = Attributes::collect(|data| put_jump(data, &chain_of(*group)));
        let verdict: Vec<u8> = crate::netlink::attributes(&value).flat_map(|(_, verdict)| verdict.to_vec()).collect();
        add(map_of(*direction), &[&address.octets(), &verdict]);
    }
    for address in policed.addresses() {
        add(SELF, &[&address.octets(), &address.octets()]);
    }
    for (number, found) in &policed.groups {
        let [peers, ports, regions] = sets_of(*number);
        for address in &found.group.peers {
            add(&peers, &[&address.octets()]);
        }
        for (address, protocol, port) in &found.group.ports {
            add(&ports, &[&key_of(*address, protocol.number(), *port)]);
        }
        for region in &found.regions {
            let (first, last) = corners(region);
            add(&regions, &[&first, &last]);
        }
    }
    elements
}
