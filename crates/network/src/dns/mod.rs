//! The cluster's DNS: services by name, everything else from the machine's own resolvers.
//!
//! Source      Kubernetes DNS-Based Service Discovery 1.1.0
//! Goal        `<service>.<namespace>.svc.<domain>` is what the last table says, within one packet
//! Relies on   the table's names having been validated by the API

mod answer;
mod server;
mod table;
mod upstream;

pub use server::{DnsConfig, DnsError, DnsServer};
pub use table::{DnsEndpoint, DnsPort, DnsService, DnsTable};
pub use upstream::resolvers_of;
