//! Network: pod addresses, service rules and DNS. Plain tables in, kernel state out.
//!
//! Goal        every attached pod reaches every other, every service and the outside, by address and by name
//! Writes      links, addresses, routes, network namespaces, one nft table; its run directory; nothing else
//! Relies on   nobody else writes to the nft table and interfaces named after the instance
//!
//! Not here    which pods and services exist (node), containers (runtime)

mod cidr;
mod network;
mod service;

pub use cidr::{Cidr, CidrError};
pub use network::{AttachSpec, Attachment, NetworkConfig};
pub use service::{Backend, ELEMENTS_MAX, ENDPOINTS_MAX, Frontend, Protocol, ServiceTable};
