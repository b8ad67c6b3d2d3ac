//! Our nftables tables, written by raw netlink: one transaction per change, whatever its size.
//!
//! Guarantees  a packet sees services and policies before a change or after it, never between
//! Relies on   nobody else writes to the tables; [`Nft::verify`] notices when somebody did

mod expression;
mod policy;
mod readback;
mod ruleset;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::cidr::Cidr;
use crate::netlink::{Attributes, Messages, NetlinkError, Protocol, Socket};
use crate::policy::{Policed, PolicyTable};
use crate::service::{Changes, Frontend, Refused, ServiceTable, Services, SlotTable, Slots, Spread};

use expression::put_jump;

const SUBSYSTEM: u16 = 10;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
const CREATE: u16 = 0x400;
const ACK: u16 = 0x4;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// A message of elements is one attribute, which is below 64 KiB; an element is at most 56 bytes.
const ELEMENTS_PER_MESSAGE_MAX: usize = 1000;
/// The pod addresses of one machine that can reach themselves through a service.
const POD_ADDRESSES_MAX: usize = 4096;

/// What the table is made from.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) table: String,
    /// What the names of the pods' interfaces begin with.
    pub(crate) pod_interfaces: String,
    pub(crate) pod_cidr: Cidr,
    pub(crate) cluster_cidr: Cidr,
    pub(crate) service_cidr: Cidr,
    pub(crate) gateway: Ipv4Addr,
}

/// What became of a service table.
#[derive(Debug, Default)]
pub struct Applied {
    /// How many map elements were written or cleared; 0 when the kernel already had it all.
    pub elements: usize,
    /// The table was written anew, because what stood in the kernel was not known.
    pub rebuilt: bool,
    /// Endpoints that are not used, of the frontends that changed.
    pub refused: Vec<Refused>,
    pub(crate) gone: BTreeSet<(Frontend, SocketAddrV4)>,
}

/// Whether the kernel still has what we wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It has.
    Intact,
    /// It had not, and was put right.
    Restored {
        /// What was wrong.
        why: &'static str,
    },
}

/// The tables and what we know of them.
pub(crate) struct Nft {
    socket: Socket,
    layout: Layout,
    /// The same for the table of policies.
    policy_layout: Layout,
    /// The ruleset's generation after our last change, if nobody else has changed anything since all was well.
    generation: Option<u32>,
    /// What stands in the kernel of the services' table, if that is known.
    known: Option<Known>,
    /// What stands there or should.
    services: Services,
    /// What stands in the kernel of the policies' table, if that is known.
    policies: Option<KnownPolicies>,
    /// What stands there or should.
    policed: Policed,
}

struct Known {
    spreads: BTreeSet<Spread>,
    /// A digest of chains, maps and rules as the kernel prints them.
    structure: u64,
}

struct KnownPolicies {
    /// A digest as that of the services; `None` when there is no table, because nobody is restricted.
    structure: Option<u64>,
}

impl Nft {
    /// Opens a conversation in the calling thread's network namespace. Nothing is changed yet.
    pub(crate) fn open(layout: Layout) -> Result<Nft, NetlinkError> {
        let socket = Socket::open(Protocol::Netfilter)?;
        let policy_layout = Layout { table: policy::table_name(&layout.table), ..layout.clone() };
        Ok(Nft {
            socket,
            layout,
            policy_layout,
            generation: None,
            known: None,
            services: Services::default(),
            policies: None,
            policed: Policed::default(),
        })
    }

    /// Whether the table of services is in the kernel.
    pub(crate) fn exists(&mut self) -> Result<bool, NetlinkError> {
        readback::table_exists(&mut self.socket, &self.layout.table)
    }

    /// Makes the kernel's services equal to `desired`.
    ///
    /// Errors      when the kernel refuses the difference, the whole table is tried; if that too is refused, the old one stays
    pub(crate) fn apply(&mut self, desired: ServiceTable) -> Result<Applied, NetlinkError> {
        let mut step = self.services.plan(&desired);
        let refused = std::mem::take(&mut step.refused);
        let mut applied = Applied { elements: step.changes.elements(), refused, ..Applied::default() };
        let written = match &self.known {
            Some(_) if step.changes.is_empty() => true,
            Some(_) => match self.write_difference(&step.changes) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "a change of services was refused, so the whole nft table is written anew");
                    false
                }
            },
            None => false,
        };
        if !written {
            let after = self.services.after(&step);
            self.rebuild(&after)?;
            applied.rebuilt = true;
        }
        applied.gone = self.services.take(desired, step);
        Ok(applied)
    }

    /// Makes the kernel's policies equal to `desired`.
    ///
    /// Errors      as [`Nft::apply`]
    pub(crate) fn apply_policies(&mut self, desired: &PolicyTable) -> Result<(), NetlinkError> {
        let new = Policed::of(desired, &self.policed);
        let is_there = self.policies.as_ref().is_some_and(|known| known.structure.is_some());
        if self.policies.is_some() && new == self.policed {
            return Ok(());
        }
        if is_there && !new.pods.is_empty() {
            match self.write_policy_difference(&new) {
                Ok(()) => {
                    self.policed = new;
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "a change of policies was refused, so the whole nft table is written anew");
                }
            }
        }
        self.rebuild_policies(&new)?;
        self.policed = new;
        Ok(())
    }

    fn write_policy_difference(&mut self, new: &Policed) -> Result<(), NetlinkError> {
        let Some(KnownPolicies { structure: Some(before) }) = self.policies.take() else { return Ok(()) };
        let mut messages = begin();
        policy::put_difference(&mut messages, &self.policy_layout, &self.policed, new);
        self.commit(messages)?;
        let same_groups = self.policed.groups.keys().eq(new.groups.keys());
        let structure = match same_groups {
            true => before,
            false => readback::structure(&mut self.socket, &self.policy_layout.table)?,
        };
        self.policies = Some(KnownPolicies { structure: Some(structure) });
        Ok(())
    }

    /// Writes the table anew; nobody restricted is no table.
    fn rebuild_policies(&mut self, new: &Policed) -> Result<(), NetlinkError> {
        self.policies = None;
        let table = self.policy_layout.table.clone();
        if new.pods.is_empty() {
            if readback::table_exists(&mut self.socket, &table)? {
                let mut messages = begin();
                message(&mut messages, "deletion of the nft table", (DELETE_TABLE, 0), |top| top.put_text(1, &table));
                self.commit(messages)?;
            }
            self.policies = Some(KnownPolicies { structure: None });
            return Ok(());
        }
        let mut messages = begin();
        policy::put_whole(&mut messages, &self.policy_layout, new);
        self.commit(messages)?;
        let structure = Some(readback::structure(&mut self.socket, &table)?);
        self.policies = Some(KnownPolicies { structure });
        Ok(())
    }

    /// Compares the kernel's tables with what we wrote, and writes anew what differs.
    pub(crate) fn verify(&mut self) -> Result<Verified, NetlinkError> {
        let generation = readback::generation(&mut self.socket)?;
        if self.generation == Some(generation) {
            return Ok(Verified::Intact);
        }
        // Whoever is restricted was free meanwhile, so policies come first.
        let policies = self.verify_policies()?;
        let services = self.verify_services()?;
        match policies.or(services) {
            Some(why) => Ok(Verified::Restored { why }),
            None => {
                self.generation = Some(generation);
                Ok(Verified::Intact)
            }
        }
    }

    /// What was wrong with the services and was put right.
    fn verify_services(&mut self) -> Result<Option<&'static str>, NetlinkError> {
        let (Some(known), table) = (&self.known, &self.layout.table) else { return Ok(None) };
        let why = if readback::structure(&mut self.socket, table)? != known.structure {
            "chains, maps or rules of the nft table were changed by somebody else"
        } else if readback::elements(&mut self.socket, table, &[ruleset::SERVICES, ruleset::ENDPOINTS])?
            != readback::expected(self.services.slots())
        {
            "services in the nft table were changed by somebody else"
        } else {
            return Ok(None);
        };
        let slots = self.services.slots().clone();
        self.rebuild(&slots)?;
        Ok(Some(why))
    }

    /// What was wrong with the policies and was put right.
    fn verify_policies(&mut self) -> Result<Option<&'static str>, NetlinkError> {
        let Some(KnownPolicies { structure: Some(known) }) = &self.policies else { return Ok(None) };
        let (table, names) = (&self.policy_layout.table, policy::set_names(&self.policed));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if readback::structure(&mut self.socket, table)? == *known
            && readback::elements(&mut self.socket, table, &names)? == policy::expected(&self.policed)
        {
            return Ok(None);
        }
        let policed = std::mem::take(&mut self.policed);
        let rebuilt = self.rebuild_policies(&policed);
        self.policed = policed;
        rebuilt.map(|()| Some("network policies in the nft table were changed by somebody else"))
    }

    fn write_difference(&mut self, changes: &Changes) -> Result<(), NetlinkError> {
        let Some(known) = self.known.take() else { return Ok(()) };
        let mut messages = begin();
        let wanted: BTreeSet<Spread> = changes.spreads_set.iter().map(|(_, spread)| *spread).collect();
        let fresh: BTreeSet<Spread> = wanted.difference(&known.spreads).copied().collect();
        for spread in &fresh {
            ruleset::put_spread(&mut messages, &self.layout, *spread);
        }
        put_changes(&mut messages, &self.layout, changes);
        self.commit(messages)?;
        let structure = match fresh.is_empty() {
            true => known.structure,
            false => readback::structure(&mut self.socket, &self.layout.table)?,
        };
        let spreads = known.spreads.union(&fresh).copied().collect();
        self.known = Some(Known { spreads, structure });
        Ok(())
    }

    fn rebuild(&mut self, table: &SlotTable) -> Result<(), NetlinkError> {
        self.known = None;
        let mut messages = begin();
        ruleset::put(&mut messages, &self.layout);
        let spreads: BTreeSet<Spread> = table.values().map(Slots::spread).collect();
        for spread in &spreads {
            ruleset::put_spread(&mut messages, &self.layout, *spread);
        }
        put_changes(&mut messages, &self.layout, &Changes::whole(table));
        self.commit(messages)?;
        let structure = readback::structure(&mut self.socket, &self.layout.table)?;
        self.known = Some(Known { spreads, structure });
        Ok(())
    }

    /// Sends a transaction. When nobody else changed anything before or meanwhile, what is known stays known.
    fn commit(&mut self, mut messages: Messages) -> Result<(), NetlinkError> {
        messages.flag_last(ACK);
        messages.add("the end of a transaction", (BATCH_END, 0), &batch_header(), |_| {});
        let known = self.generation.take();
        let before = readback::generation(&mut self.socket)?;
        self.socket.transact(messages)?;
        let after = readback::generation(&mut self.socket)?;
        self.generation = (known == Some(before) && after == before.wrapping_add(1)).then_some(after);
        Ok(())
    }
}

/// Removes the tables of an instance; none is fine.
pub(crate) fn remove(instance: &str) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    for table in [instance.to_owned(), policy::table_name(instance)] {
        let mut messages = begin();
        message(&mut messages, "deletion of the nft table", (DELETE_TABLE, 0), |top| top.put_text(1, &table));
        messages.flag_last(ACK);
        messages.add("the end of a transaction", (BATCH_END, 0), &batch_header(), |_| {});
        match socket.transact(messages) {
            Err(error) if error.refusal() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn begin() -> Messages {
    let mut messages = Messages::new();
    messages.add("the begin of a transaction", (BATCH_BEGIN, 0), &batch_header(), |_| {});
    messages
}

/// Family unspecified, version 0, and the subsystem the batch is for.
fn batch_header() -> [u8; 4] {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    [0, 0, high, low]
}

/// One nf_tables message of the IPv4 family.
fn message(
    messages: &mut Messages,
    label: &'static str,
    (kind, flags): (u16, u16),
    fill: impl FnOnce(&mut Attributes<'_>),
) {
    messages.add(label, (SUBSYSTEM << 8 | kind, flags), &[libc::NFPROTO_IPV4 as u8, 0, 0, 0], fill);
}

/// One message of map elements, set or cleared.
fn put_elements<T>(
    messages: &mut Messages,
    layout: &Layout,
    (map, clear): (&str, bool),
    elements: &[T],
    fill: impl Fn(&mut Attributes<'_>, &T),
) {
    const LIST_ELEMENT: u16 = 1;
    let kind = if clear { (DELETE_ELEMENT, 0) } else { (NEW_ELEMENT, CREATE) };
    message(messages, "elements of an nft map", kind, |top| {
        top.put_text(1, &layout.table);
        top.put_text(2, map);
        top.nest(3, |list| {
            for element in elements {
                list.nest(LIST_ELEMENT, |attributes| fill(attributes, element));
            }
        });
    });
}

fn put_key(element: &mut Attributes<'_>, key: &[u8]) {
    element.nest(1, |data| data.put(1, key));
}

fn put_value(element: &mut Attributes<'_>, value: &[u8]) {
    element.nest(2, |data| data.put(1, value));
}

fn put_changes(messages: &mut Messages, layout: &Layout, changes: &Changes) {
    for chunk in changes.slots_cleared.chunks(ELEMENTS_PER_MESSAGE_MAX) {
        put_elements(messages, layout, (ruleset::ENDPOINTS, true), chunk, |element, (frontend, slot)| {
            put_key(element, &slot_key(frontend, *slot));
        });
    }
    for chunk in changes.spreads_cleared.chunks(ELEMENTS_PER_MESSAGE_MAX) {
        put_elements(messages, layout, (ruleset::SERVICES, true), chunk, |element, frontend| {
            put_key(element, &frontend_key(frontend));
        });
    }
    for chunk in changes.slots_set.chunks(ELEMENTS_PER_MESSAGE_MAX) {
        put_elements(messages, layout, (ruleset::ENDPOINTS, false), chunk, |element, (frontend, slot, endpoint)| {
            put_key(element, &slot_key(frontend, *slot));
            put_value(element, &endpoint_value(endpoint));
        });
    }
    for chunk in changes.spreads_set.chunks(ELEMENTS_PER_MESSAGE_MAX) {
        put_elements(messages, layout, (ruleset::SERVICES, false), chunk, |element, (frontend, spread)| {
            put_key(element, &frontend_key(frontend));
            element.nest(2, |data| put_jump(data, &ruleset::chain_name(*spread)));
        });
    }
}

/// Address, protocol and port, each padded to four bytes.
fn frontend_key(frontend: &Frontend) -> [u8; 12] {
    let [a, b, c, d] = frontend.address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
    let [high, low] = frontend.port.to_be_bytes();
    [a, b, c, d, frontend.protocol.number(), 0, 0, 0, high, low, 0, 0]
}

fn slot_key(frontend: &Frontend, slot: u16) -> [u8; 16] {
    let mut key = [0; 16];
    key[..12].copy_from_slice(&frontend_key(frontend));
    key[12..].copy_from_slice(&u32::from(slot).to_ne_bytes());
    key
}

fn endpoint_value(endpoint: &SocketAddrV4) -> [u8; 8] {
    let [a, b, c, d] = endpoint.ip().octets();
    let [high, low] = endpoint.port().to_be_bytes();
    [a, b, c, d, high, low, 0, 0]
}
