//! What the kernel says stands in our table.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::netlink::{Attributes, Messages, NetlinkError, Reply, Socket, attributes, be32_of, text_of};
use crate::service::SlotTable;

use super::expression::put_jump;
use super::ruleset::{ENDPOINTS, SERVICES, chain_name};
use super::{endpoint_value, frontend_key, message, slot_key};

const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_SET: u16 = 10;
const GET_ELEMENT: u16 = 13;
const GET_GENERATION: u16 = 16;
/// The fixed header before a reply's attributes.
const FAMILY_HEADER_BYTES: usize = 4;

fn question(kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> Messages {
    let mut messages = Messages::new();
    message(&mut messages, "a question about nft", (kind, 0), fill);
    messages
}

fn content(reply: &Reply) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(reply.payload.get(FAMILY_HEADER_BYTES..).unwrap_or_default())
}

pub(super) fn table_exists(socket: &mut Socket, table: &str) -> Result<bool, NetlinkError> {
    match socket.ask(question(GET_TABLE, |top| top.put_text(1, table)), false) {
        Ok(replies) => Ok(!replies.is_empty()),
        Err(error) if error.refusal() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The number that counts every change of any table in this network namespace.
pub(super) fn generation(socket: &mut Socket) -> Result<u32, NetlinkError> {
    let replies = socket.ask(question(GET_GENERATION, |_| {}), false)?;
    let number =
        replies.iter().flat_map(content).find(|(kind, _)| *kind == 1).and_then(|(_, payload)| be32_of(payload));
    number.ok_or(NetlinkError::Answer { what: "the nft generation", found: "no number" })
}

/// A digest of the table's chains, maps and rules, in the kernel's own words; handles and counters do not count.
pub(super) fn structure(socket: &mut Socket, table: &str) -> Result<u64, NetlinkError> {
    /// Kind of question, and which attributes say what the object is.
    const OBJECTS: [(u16, &[u16]); 3] = [(GET_CHAIN, &[3, 4, 5, 7]), (GET_SET, &[2, 3, 5, 7]), (GET_RULE, &[2, 4])];
    let mut hasher = DefaultHasher::new();
    for (kind, telling) in OBJECTS {
        let replies = match socket.ask(question(kind, |top| top.put_text(1, table)), true) {
            Err(error) if error.refusal() == Some(libc::ENOENT) => Vec::new(),
            other => other?,
        };
        for reply in &replies {
            let ours = content(reply).any(|(kind, payload)| kind == 1 && text_of(payload) == table);
            for (kind, payload) in content(reply).filter(|(kind, _)| ours && telling.contains(kind)) {
                (kind, payload).hash(&mut hasher);
            }
        }
    }
    Ok(hasher.finish())
}

/// Every element of these sets and maps: the name, the key with its end, and the value.
pub(super) fn elements(socket: &mut Socket, table: &str, sets: &[&str]) -> Result<BTreeSet<Vec<u8>>, NetlinkError> {
    const KEY: u16 = 1;
    const VALUE: u16 = 2;
    const KEY_END: u16 = 10;
    let mut elements = BTreeSet::new();
    for set in sets {
        let ask = question(GET_ELEMENT, |top| {
            top.put_text(1, table);
            top.put_text(2, set);
        });
        for reply in &socket.ask(ask, true)? {
            let lists = content(reply).filter(|(kind, _)| *kind == 3);
            let found = lists.flat_map(|(_, list)| attributes(list)).map(|(_, element)| {
                let mut whole = set.as_bytes().to_vec();
                for wanted in [KEY, KEY_END, VALUE] {
                    let parts = attributes(element).filter(|(kind, _)| *kind == wanted);
                    parts.flat_map(|(_, part)| attributes(part)).for_each(|(_, bytes)| whole.extend_from_slice(bytes));
                }
                whole
            });
            elements.extend(found);
        }
    }
    Ok(elements)
}

/// What [`elements`] gives of the services' maps when the kernel has this table.
pub(super) fn expected(table: &SlotTable) -> BTreeSet<Vec<u8>> {
    let mut elements = BTreeSet::new();
    for (frontend, slots) in table {
        let mut element = [SERVICES.as_bytes(), &frontend_key(frontend)].concat();
        let value = Attributes::collect(|data| put_jump(data, &chain_name(slots.spread())));
        element.extend(attributes(&value).flat_map(|(_, verdict)| verdict.to_vec()));
        elements.insert(element);
        for (slot, endpoint) in (0..).zip(&slots.endpoints) {
            elements.insert([ENDPOINTS.as_bytes(), &slot_key(frontend, slot), &endpoint_value(endpoint)].concat());
        }
    }
    elements
}
