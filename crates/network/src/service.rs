//! Services as the kernel sees them: a frontend address and the endpoints behind it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The most endpoints one frontend is spread over; the kernel holds one map element for each.
pub const ENDPOINTS_MAX: usize = 4096;
/// The most map elements of all frontends together: bounds the one netlink batch that loads them.
pub const ELEMENTS_MAX: usize = 400_000;

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
