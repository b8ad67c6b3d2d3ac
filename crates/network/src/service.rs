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

/// The services as they stand in the kernel.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// What was asked for when the slots were filled: what is asked for again needs no second look.
    wanted: ServiceTable,
    slots: SlotTable,
    elements: usize,
    /// Something was left out for want of room, so that any change may make room for it.
    full: bool,
}

/// A way from the services as they stand to those desired.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// Every frontend that changes, with its new slots if it still has endpoints.
    placed: Vec<(Frontend, Option<Slots>)>,
    pub(crate) changes: Changes,
    pub(crate) refused: Vec<Refused>,
    elements: usize,
    full: bool,
}

impl Services {
    /// The frontends that have endpoints.
    pub(crate) fn slots(&self) -> &SlotTable {
        &self.slots
    }

    /// How to get to `desired` (R1, R2, R3, R4).
    pub(crate) fn plan(&self, desired: &ServiceTable) -> Step {
        let mut step = Step { elements: self.elements, ..Step::default() };
        let ended = self.wanted.keys().filter(|frontend| !desired.contains_key(frontend));
        for frontend in ended {
            self.put(&mut step, *frontend, &Backend::default());
        }
        for (frontend, backend) in desired {
            if self.full || self.wanted.get(frontend) != Some(backend) {
                self.put(&mut step, *frontend, backend);
            }
        }
        step
    }

    /// Every slot as it will be after the step.
    pub(crate) fn after(&self, step: &Step) -> SlotTable {
        let mut slots = self.slots.clone();
        for (frontend, placed) in &step.placed {
            match placed {
                Some(placed) => slots.insert(*frontend, placed.clone()),
                None => slots.remove(frontend),
            };
        }
        slots
    }

    /// Notes that the step was taken; which endpoints nobody serves any more.
    pub(crate) fn take(&mut self, desired: ServiceTable, step: Step) -> BTreeSet<(Frontend, SocketAddrV4)> {
        for (frontend, placed) in step.placed {
            match placed {
                Some(placed) => self.slots.insert(frontend, placed),
                None => self.slots.remove(&frontend),
            };
        }
        (self.wanted, self.elements, self.full) = (desired, step.elements, step.full);
        step.changes.gone
    }

    fn put(&self, step: &mut Step, frontend: Frontend, backend: &Backend) {
        let before = self.slots.get(&frontend);
        step.elements -= before.map_or(0, |slots| slots.endpoints.len());
        let mut wanted = BTreeSet::new();
        for endpoint in &backend.endpoints {
            let full = wanted.len() >= ENDPOINTS_MAX || step.elements + wanted.len() >= ELEMENTS_MAX;
            step.full |= full;
            match forbidden(&frontend, endpoint).or_else(|| full.then_some("there are too many endpoints")) {
                None => drop(wanted.insert(*endpoint)),
                Some(why) if step.refused.len() < REFUSED_MAX => {
                    step.refused.push(Refused { frontend, endpoint: *endpoint, why });
                }
                Some(_) => {}
            }
        }
        step.elements += wanted.len();
        let kept = before.map(|slots| slots.endpoints.as_slice()).unwrap_or_default();
        let placed = (!wanted.is_empty())
            .then(|| Slots { endpoints: arrange(kept, wanted), client_affinity: backend.client_affinity });
        step.changes.alter(frontend, before, placed.as_ref());
        step.placed.push((frontend, placed));
    }
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

impl Changes {
    /// Everything that has to be written to get from nothing to `slots`.
    pub(crate) fn whole(slots: &SlotTable) -> Changes {
        let mut changes = Changes::default();
        for (frontend, new) in slots {
            changes.alter(*frontend, None, Some(new));
        }
        changes
    }

    /// Adds what has to be written for one frontend to get from `old` to `new` (R4).
    fn alter(&mut self, frontend: Frontend, old: Option<&Slots>, new: Option<&Slots>) {
        let (was, is) = (old.map(Slots::spread), new.map(Slots::spread));
        if was != is {
            self.spreads_cleared.extend(was.map(|_| frontend));
            self.spreads_set.extend(is.map(|spread| (frontend, spread)));
        }
        let old = old.map(|slots| slots.endpoints.as_slice()).unwrap_or_default();
        let new = new.map(|slots| slots.endpoints.as_slice()).unwrap_or_default();
        for slot in 0..old.len().max(new.len()) {
            let (was, is) = (old.get(slot), new.get(slot));
            let number = u16::try_from(slot).expect("a frontend has at most ENDPOINTS_MAX endpoints");
            if was != is {
                self.slots_cleared.extend(was.map(|_| (frontend, number)));
                self.slots_set.extend(is.map(|endpoint| (frontend, number, *endpoint)));
            }
        }
        if old != new {
            let stay: BTreeSet<&SocketAddrV4> = new.iter().collect();
            let gone = old.iter().filter(|endpoint| !stay.contains(endpoint));
            self.gone.extend(gone.map(|endpoint| (frontend, *endpoint)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Backend, Frontend, Protocol, ServiceTable, Services, Step};

    const WEB: Frontend = Frontend { address: None, protocol: Protocol::Tcp, port: 30_080 };

    fn table(endpoints: &[&str]) -> ServiceTable {
        let endpoints = endpoints.iter().map(|text| text.parse().expect("an address")).collect();
        ServiceTable::from([(WEB, Backend { endpoints, client_affinity: false })])
    }

    /// Goes through the tables in turn; the last step, and the endpoints of WEB's slots after it.
    fn check(tables: &[&[&str]]) -> (Step, Vec<String>) {
        let mut services = Services::default();
        let (last, before) = tables.split_last().expect("at least one table");
        for endpoints in before {
            let step = services.plan(&table(endpoints));
            services.take(table(endpoints), step);
        }
        let step = services.plan(&table(last));
        let slots = services.after(&step).remove(&WEB).map(|slots| slots.endpoints).unwrap_or_default();
        (step, slots.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn r1_endpoints_on_the_machine_itself_are_left_out_and_named() {
        let given = ["127.0.0.1:80", "169.254.169.254:80", "0.0.0.0:80", "224.0.0.1:80", "10.0.0.1:0", "10.0.0.1:80"];
        let (step, slots) = check(&[&given]);
        assert_eq!(slots, ["10.0.0.1:80"]);
        assert_eq!(step.refused.len(), 5, "{:?}", step.refused);
    }

    #[test]
    fn r2_a_frontend_has_bounded_endpoints() {
        let many: Vec<String> = (0..5000).map(|port| format!("10.0.0.1:{}", port + 1)).collect();
        let (step, slots) = check(&[&many.iter().map(String::as_str).collect::<Vec<_>>()]);
        assert_eq!((slots.len(), step.refused.len()), (super::ENDPOINTS_MAX, super::REFUSED_MAX));
    }

    #[test]
    fn r3_and_r4_removing_one_of_three_rewrites_one_slot() {
        let (step, slots) = check(&[&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"], &["10.0.0.3:80", "10.0.0.2:80"]]);
        assert_eq!(slots, ["10.0.0.3:80", "10.0.0.2:80"], "the hole is filled, the other stays");
        assert_eq!(step.changes.slots_cleared, [(WEB, 0), (WEB, 2)]);
        assert_eq!(step.changes.slots_set.len(), 1);
        assert_eq!(step.changes.gone.len(), 1);
    }

    #[test]
    fn r4_the_same_endpoints_again_change_nothing() {
        let (step, _) = check(&[&["10.0.0.2:80", "10.0.0.1:80"], &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:80"]]);
        assert!(step.changes.is_empty());
    }

    #[test]
    fn a_frontend_without_endpoints_is_not_in_the_table() {
        let (step, slots) = check(&[&["10.0.0.1:80"], &[]]);
        assert!(slots.is_empty());
        assert_eq!(step.changes.spreads_cleared, [WEB]);
    }
}
