//! The body of a record: a log entry in bytes.
//!
//! Form  term u64, tag u8, then for a group its own form, for a membership: configurations u32 (each: voters u32, ids
//!       u64), members u32 (each: id u64, address)

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::BasicNode;

use crate::consensus::{LogEntry, Membership, Payload, log_id};
use crate::group::Group;
use crate::wire::{Reader, put_bytes};

const TAG_BLANK: u8 = 0;
const TAG_GROUP: u8 = 1;
const TAG_MEMBERSHIP: u8 = 2;

/// An entry's body in two parts: its own head, and the payload that is in bytes already.
pub(crate) struct Body {
    pub(crate) head: Vec<u8>,
    pub(crate) payload: Bytes,
}

/// Bytes of a group's body besides the group.
pub(crate) const HEAD_BYTES: usize = 9;

impl Body {
    pub(crate) fn of(entry: &LogEntry) -> Body {
        let mut head = entry.log_id.leader_id.term.to_le_bytes().to_vec();
        let payload = match &entry.payload {
            Payload::Blank => {
                head.push(TAG_BLANK);
                Bytes::new()
            }
            Payload::Normal(group) => {
                head.push(TAG_GROUP);
                group.encoded().clone()
            }
            Payload::Membership(membership) => {
                head.push(TAG_MEMBERSHIP);
                encode_membership(membership).into()
            }
        };
        Body { head, payload }
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// Reads the entry at `index`; `None` when the bytes are not a body.
pub(crate) fn decode(index: u64, body: Bytes) -> Option<LogEntry> {
    let mut reader = Reader::new(body);
    let term = reader.u64()?;
    let tag = reader.u8()?;
    let rest = reader.take(reader.remaining())?;
    let payload = match tag {
        TAG_BLANK if rest.is_empty() => Payload::Blank,
        TAG_GROUP => Payload::Normal(Group::decode(rest)?),
        TAG_MEMBERSHIP => Payload::Membership(decode_membership(rest)?),
        _ => return None,
    };
    Some(LogEntry { log_id: log_id(term, index), payload })
}

pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    let mut out = Vec::new();
    let configs = membership.get_joint_config();
    out.extend_from_slice(&(configs.len() as u32).to_le_bytes());
    for voters in configs {
        out.extend_from_slice(&(voters.len() as u32).to_le_bytes());
        voters.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    }
    let members: Vec<_> = membership.nodes().collect();
    out.extend_from_slice(&(members.len() as u32).to_le_bytes());
    for (id, node) in members {
        out.extend_from_slice(&id.to_le_bytes());
        put_bytes(&mut out, node.addr.as_bytes());
    }
    out
}

pub(crate) fn decode_membership(bytes: Bytes) -> Option<Membership> {
    let mut reader = Reader::new(bytes);
    let mut configs = Vec::new();
    for _ in 0..reader.u32()? {
        let mut voters = BTreeSet::new();
        for _ in 0..reader.u32()? {
            voters.insert(reader.u64()?);
        }
        configs.push(voters);
    }
    let mut members = BTreeMap::new();
    for _ in 0..reader.u32()? {
        let id = reader.u64()?;
        members.insert(id, BasicNode { addr: reader.text()? });
    }
    if !reader.is_empty() {
        return None;
    }
    if configs.is_empty() && members.is_empty() {
        return Some(Membership::default());
    }
    Membership::new(configs, members).ok()
}
