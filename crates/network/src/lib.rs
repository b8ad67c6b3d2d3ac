//! Network: pod addresses, service rules, network policies and DNS. Plain tables in, kernel state out.
//!
//! Goal        every attached pod reaches every other, every service and the outside, by address and by name
//! Writes      links, addresses, routes, network namespaces, two nft tables; its run directory; nothing else
//! Relies on   nobody else writes to the nft tables and interfaces named after the instance
//!
//! Not here    which pods and services exist (node), containers (runtime)
#![allow(unsafe_code, reason = "leaving a network namespace and one socket option have no safe call")]

mod attach;
mod cidr;
mod conntrack;
mod dns;
mod lease;
mod namespace;
mod netlink;
mod network;
mod nft;
mod policy;
mod route;
mod service;
mod sysctl;

pub use cidr::{Cidr, CidrError};
pub use dns::{DnsConfig, DnsEndpoint, DnsError, DnsPort, DnsServer, DnsService, DnsTable, resolvers_of};
pub use lease::LeaseError;
pub use namespace::NamespaceError;
pub use netlink::NetlinkError;
pub use network::{AttachSpec, Attachment, Network, NetworkConfig, NetworkError};
pub use nft::{Applied, Verified};
pub use policy::{BLOCKS_MAX, Block, Direction, Group, PolicyTable};
pub use service::{Backend, ELEMENTS_MAX, ENDPOINTS_MAX, Frontend, Protocol, Refused, ServiceTable};
