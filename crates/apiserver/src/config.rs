//! What an API server is told at start, and the limits it keeps.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use windlass_api::Registry;

use crate::audit::Audit;
use crate::pki::Pki;

/// Largest request body in bytes (A01; etcd's and Kubernetes' own limit is the same).
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Memory that bodies of ordinary users may take together while they arrive and are decoded (A19).
pub const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a body may take to arrive.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a request may take that is neither a watch nor a stream.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a client may take no more of an answer, unless it is told otherwise (A16).
pub const STALL_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest a watch is served before its client has to ask again.
pub const WATCH_TIME_MAX: Duration = Duration::from_secs(3600);
/// Shortest time a watch is served whose client named no `timeoutSeconds`; spread up to [`WATCH_TIME_MAX`].
pub const WATCH_TIME_DEFAULT_MIN: Duration = Duration::from_secs(1800);
/// How often a quiet watch that allows bookmarks gets one.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Watches served at one time; each costs a few KiB.
pub const WATCHES_MAX: usize = 50_000;
/// Requests of ordinary users worked on at one time.
pub const INFLIGHT_MAX: usize = 400;
/// Requests of nodes and of the server's own parts worked on at one time, so that leases pass a flood of others.
pub const INFLIGHT_SYSTEM_MAX: usize = 2_000;
/// How often a write is tried again when the object changed under it and the client named no revision.
/// Those who lost take turns, so that only writers who have not lost yet can still come between.
pub const WRITE_ATTEMPTS_MAX: u32 = 16;
/// How many names are tried for one `generateName`.
pub const GENERATED_NAMES_MAX: u32 = 8;
/// How long a read waits for a revision that the store has not reached yet.
pub const FUTURE_REVISION_WAIT: Duration = Duration::from_secs(3);
/// Bytes of a list or of initial watch events that are joined into one chunk.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Warnings sent with one response.
pub const WARNINGS_MAX: usize = 32;
/// Objects deleted by one collection delete before it answers; the client asks again for the rest.
pub const DELETE_COLLECTION_MAX: usize = 100_000;

/// A range of IPv4 addresses that Services get theirs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// The network address.
    pub base: Ipv4Addr,
    /// Its prefix length, 8 to 30.
    pub prefix: u8,
}

/// Why a text is not an [`AddressRange`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected an IPv4 network with a prefix of 8 to 30 such as 10.43.0.0/16, found {found:?}")]
pub struct AddressRangeError {
    /// What was given.
    pub found: String,
}

impl std::str::FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<AddressRange, AddressRangeError> {
        let wrong = || AddressRangeError { found: text.to_owned() };
        let (base, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let base: Ipv4Addr = base.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(8..=30).contains(&prefix) {
            return Err(wrong());
        }
        let mask = u32::MAX << (32 - u32::from(prefix));
        Ok(AddressRange { base: Ipv4Addr::from(u32::from(base) & mask), prefix })
    }
}

impl AddressRange {
    /// The number of addresses, the network's own and the broadcast address included.
    pub fn size(&self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The address at this distance from the network's own.
    pub fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + offset)
    }

    /// Whether a Service may have this address: inside, and neither the network's own nor the broadcast address.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.base));
        offset > 0 && offset < self.size() - 1
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.base, self.prefix)
    }
}

/// How the server reaches node agents: their certificates must come from this cluster's CA.
#[derive(Clone)]
pub struct NodeLink {
    /// TLS with the server's own client certificate and the cluster CA as only root (see [`Pki::node_link`]).
    pub tls: Arc<rustls::ClientConfig>,
}

/// What a server is told at start.
#[derive(Clone)]
pub struct Config {
    /// The kinds that are served from the start.
    pub registry: Registry,
    /// Where Services get their addresses from; the first is the API's own.
    pub service_range: AddressRange,
    /// Where NodePorts come from.
    pub node_ports: RangeInclusive<u16>,
    /// Where clients outside this process reach the API; told to pods as the endpoint of `default/kubernetes` unless
    /// it is a loopback address.
    pub advertise: Option<SocketAddr>,
    /// How node agents are reached for logs, exec, attach and port-forward; `None` answers those with 503.
    pub node_link: Option<NodeLink>,
    /// The cluster's CA, for nodes that join; `None` answers joins with 404.
    pub pki: Option<Arc<Pki>>,
    /// Where requests leave their events; `None` keeps no audit log.
    pub audit: Option<Audit>,
    /// How long a client may take no more of an answer before its connection is cut.
    pub stall_time_max: Duration,
}

impl Config {
    /// The defaults of a cluster: Services in 10.43.0.0/16, NodePorts 30000–32767, no network.
    pub fn new(registry: Registry) -> Config {
        Config {
            registry,
            service_range: AddressRange { base: Ipv4Addr::new(10, 43, 0, 0), prefix: 16 },
            node_ports: 30_000..=32_767,
            advertise: None,
            node_link: None,
            pki: None,
            audit: None,
            stall_time_max: STALL_TIME_MAX,
        }
    }

    /// The address of Service `default/kubernetes`.
    pub fn kubernetes_address(&self) -> Ipv4Addr {
        self.service_range.at(1)
    }
}

#[cfg(test)]
mod tests {
    use super::AddressRange;

    #[test]
    fn a_range_holds_its_hosts_only() {
        let range: AddressRange = "10.43.7.9/24".parse().expect("a network");
        assert_eq!(range.to_string(), "10.43.7.0/24");
        let holds = |text: &str| range.contains(text.parse().expect("an address"));
        assert!(holds("10.43.7.1") && holds("10.43.7.254"));
        assert!(!holds("10.43.7.0") && !holds("10.43.7.255") && !holds("10.43.8.1") && !holds("10.43.6.255"));
        assert!("10.43.0.0/31".parse::<AddressRange>().is_err() && "10.43.0.0".parse::<AddressRange>().is_err());
    }
}
