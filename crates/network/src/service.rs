//! Services as the kernel sees them: a frontend address and the endpoints behind it; and what to change when they change.
//!
//! Rules
//!   R1 forbidden   endpoints that are no unicast address of another machine or pod are left out, and named
//!   R2 bounded     a frontend has at most ENDPOINTS_MAX endpoints, the table at most ELEMENTS_MAX map elements
//!   R3 stable      an endpoint that stays keeps its slot wherever its slot still exists
//!   R4 difference  only what differs is written

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The most endpoints one frontend is spread over; the kernel holds one map element for each.
pub const ENDPOINTS_MAX: usize = 4096;
/// The most map elements of all frontends together: bounds the one netlink batch that loads them.
pub const ELEMENTS_MAX: usize = 400_000;
/// The most reasons that are kept of one table; the rest are as many of the same.
const REFUSED_MAX: usize = 100;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number of the protocol in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address: a ClusterIP, external or load-balancer address; `None` for a NodePort, which is every
    /// address of the machine.
    pub address: Option<Ipv4Addr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// Where connections to a frontend go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// The endpoints, in any order; duplicates count once. Without any, connections are refused.
    pub endpoints: Vec<SocketAddrV4>,
    /// Connections of one client address go to one endpoint for as long as the endpoints do not change.
    pub client_affinity: bool,
}

/// Everything that is to be reachable by a frontend.
pub type ServiceTable = BTreeMap<Frontend, Backend>;

/// An endpoint that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whose endpoint.
    pub frontend: Frontend,
    /// The endpoint.
    pub endpoint: SocketAddrV4,
    /// The reason.
    pub why: &'static str,
}

/// How a frontend chooses among how many endpoints: the kernel has one chain of rules for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spread {
    pub(crate) endpoints: u16,
    pub(crate) client_affinity: bool,
}

/// A frontend as it stands in the kernel: the endpoint of each slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) endpoints: Vec<SocketAddrV4>,
    pub(crate) client_affinity: bool,
}

impl Slots {
    pub(crate) fn spread(&self) -> Spread {
        let endpoints = u16::try_from(self.endpoints.len()).expect("a frontend has at most ENDPOINTS_MAX endpoints");
        Spread { endpoints, client_affinity: self.client_affinity }
    }
}

/// All frontends that have endpoints.
pub(crate) type SlotTable = BTreeMap<Frontend, Slots>;

/// The difference between two tables, as map elements.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Slots to empty; a slot that gets another endpoint is also among these.
    pub(crate) slots_cleared: Vec<(Frontend, u16)>,
    pub(crate) slots_set: Vec<(Frontend, u16, SocketAddrV4)>,
    pub(crate) spreads_cleared: Vec<Frontend>,
    pub(crate) spreads_set: Vec<(Frontend, Spread)>,
    /// Endpoints that no longer serve a frontend: connections to them are to be forgotten.
    pub(crate) gone: BTreeSet<(Frontend, SocketAddrV4)>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.elements() == 0
    }

    pub(crate) fn elements(&self) -> usize {
        self.slots_cleared.len() + self.slots_set.len() + self.spreads_cleared.len() + self.spreads_set.len()
    }
}

/// The table that shall stand in the kernel after `desired` replaced `before` (R1, R2, R3).
pub(crate) fn place(before: &SlotTable, desired: &ServiceTable) -> (SlotTable, Vec<Refused>) {
    let mut table = SlotTable::new();
    let mut refused = Vec::new();
    let mut elements = 0;
    for (frontend, backend) in desired {
        let mut wanted = BTreeSet::new();
        for endpoint in &backend.endpoints {
            let full = wanted.len() >= ENDPOINTS_MAX || elements >= ELEMENTS_MAX;
            match forbidden(frontend, endpoint).or_else(|| full.then_some("there are too many endpoints")) {
                None if wanted.insert(*endpoint) => elements += 1,
                Some(why) if refused.len() < REFUSED_MAX => {
                    refused.push(Refused { frontend: *frontend, endpoint: *endpoint, why });
                }
                None | Some(_) => {}
            }
        }
        if !wanted.is_empty() {
            let kept = before.get(frontend).map(|slots| slots.endpoints.as_slice()).unwrap_or_default();
            let slots = Slots { endpoints: arrange(kept, wanted), client_affinity: backend.client_affinity };
            table.insert(*frontend, slots);
        }
    }
    (table, refused)
}

/// Why connections must not be sent there (R1): the endpoint would be the machine itself behind its own guard.
fn forbidden(frontend: &Frontend, endpoint: &SocketAddrV4) -> Option<&'static str> {
    let ip = endpoint.ip();
    if frontend.port == 0 || endpoint.port() == 0 {
        Some("port 0 is not a port")
    } else if ip.is_loopback() {
        Some("it is a loopback address")
    } else if ip.is_link_local() {
        Some("it is a link-local address")
    } else if ip.octets()[0] == 0 || ip.is_multicast() || ip.octets()[0] >= 240 {
        Some("it is not the address of one machine")
    } else {
        None
    }
}

/// Puts the wanted endpoints into as many slots, each that stays into the slot it had (R3).
fn arrange(kept: &[SocketAddrV4], mut wanted: BTreeSet<SocketAddrV4>) -> Vec<SocketAddrV4> {
    let count = wanted.len();
    let stays: Vec<Option<SocketAddrV4>> =
        (0..count).map(|slot| kept.get(slot).copied().filter(|endpoint| wanted.remove(endpoint))).collect();
    let mut fresh = wanted.into_iter();
    stays.into_iter().map(|stay| stay.or_else(|| fresh.next()).expect("as many endpoints as slots")).collect()
}

/// What has to be written to get from `before` to `after` (R4).
pub(crate) fn difference(before: &SlotTable, after: &SlotTable) -> Changes {
    let mut changes = Changes::default();
    for (frontend, old) in before {
        if !after.contains_key(frontend) {
            changes.spreads_cleared.push(*frontend);
            changes.slots_cleared.extend((0..old.spread().endpoints).map(|slot| (*frontend, slot)));
            changes.gone.extend(old.endpoints.iter().map(|endpoint| (*frontend, *endpoint)));
        }
    }
    for (frontend, new) in after {
        match before.get(frontend) {
            Some(old) if old == new => {}
            Some(old) => alter(&mut changes, *frontend, old, new),
            None => {
                changes.spreads_set.push((*frontend, new.spread()));
                changes
                    .slots_set
                    .extend((0..).zip(&new.endpoints).map(|(slot, endpoint)| (*frontend, slot, *endpoint)));
            }
        }
    }
    changes
}

fn alter(changes: &mut Changes, frontend: Frontend, old: &Slots, new: &Slots) {
    if old.spread() != new.spread() {
        changes.spreads_cleared.push(frontend);
        changes.spreads_set.push((frontend, new.spread()));
    }
    for slot in 0..old.endpoints.len().max(new.endpoints.len()) {
        let (was, is) = (old.endpoints.get(slot), new.endpoints.get(slot));
        let number = u16::try_from(slot).expect("a frontend has at most ENDPOINTS_MAX endpoints");
        if was != is && was.is_some() {
            changes.slots_cleared.push((frontend, number));
        }
        if let Some(is) = is.filter(|is| was != Some(*is)) {
            changes.slots_set.push((frontend, number, *is));
        }
    }
    let stay: BTreeSet<&SocketAddrV4> = new.endpoints.iter().collect();
    let gone = old.endpoints.iter().filter(|endpoint| !stay.contains(endpoint));
    changes.gone.extend(gone.map(|endpoint| (frontend, *endpoint)));
}

#[cfg(test)]
mod tests {
    use super::{Backend, Frontend, Protocol, ServiceTable, SlotTable, difference, place};

    const WEB: Frontend = Frontend { address: None, protocol: Protocol::Tcp, port: 30_080 };

    fn table(endpoints: &[&str]) -> ServiceTable {
        let endpoints = endpoints.iter().map(|text| text.parse().expect("an address")).collect();
        ServiceTable::from([(WEB, Backend { endpoints, client_affinity: false })])
    }

    #[test]
    fn r1_endpoints_on_the_machine_itself_are_left_out_and_named() {
        let given = ["127.0.0.1:80", "169.254.169.254:80", "0.0.0.0:80", "224.0.0.1:80", "10.0.0.1:0", "10.0.0.1:80"];
        let (placed, refused) = place(&SlotTable::new(), &table(&given));
        assert_eq!(placed[&WEB].endpoints, ["10.0.0.1:80".parse().expect("an address")]);
        assert_eq!(refused.len(), 5, "{refused:?}");
    }

    #[test]
    fn r3_and_r4_removing_one_of_three_rewrites_one_slot() {
        let (before, _) = place(&SlotTable::new(), &table(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]));
        let (after, _) = place(&before, &table(&["10.0.0.3:80", "10.0.0.2:80"]));
        let order: Vec<String> = after[&WEB].endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(order, ["10.0.0.3:80", "10.0.0.2:80"], "the hole is filled, the other stays");
        let changes = difference(&before, &after);
        assert_eq!(changes.slots_cleared, [(WEB, 0), (WEB, 2)]);
        assert_eq!(changes.slots_set.len(), 1);
        assert_eq!(changes.gone.len(), 1);
    }

    #[test]
    fn r4_the_same_table_again_changes_nothing() {
        let (before, _) = place(&SlotTable::new(), &table(&["10.0.0.2:80", "10.0.0.1:80"]));
        let (after, _) = place(&before, &table(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:80"]));
        assert!(difference(&before, &after).is_empty());
    }

    #[test]
    fn a_frontend_without_endpoints_is_not_in_the_table() {
        let (before, _) = place(&SlotTable::new(), &table(&["10.0.0.1:80"]));
        let (after, _) = place(&before, &table(&[]));
        assert!(after.is_empty());
        assert_eq!(difference(&before, &after).spreads_cleared, [WEB]);
    }
}
