//! The table of services, and the names it gives rise to.
//!
//! Rules       (`S` is `<service>.<namespace>.svc.<domain>`)
//!   R1 ClusterIP    S → A the ClusterIP; `_port._proto.S` → SRV to S; the ClusterIP's PTR → S
//!   R2 headless     S → A every endpoint; `<host>.S` → A that endpoint; SRV and PTR to `<host>.S`, where the host is the
//!                   endpoint's hostname or else its address with dashes
//!   R3 external     S → CNAME
//!   R4 in between   a name that others lie under exists, without records

use std::collections::HashMap;
use std::net::Ipv4Addr;

use hickory_proto::rr::Name;

use crate::service::Protocol;

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsPort {
    /// The port's name; a port without one has no SRV record.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number clients connect to: the service's port, or the endpoints' when the service is headless.
    pub port: u16,
}

/// One endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsEndpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// The pod's hostname, when its subdomain is this service.
    pub hostname: Option<String>,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its ClusterIP; without one, and without `external_name`, it is headless.
    pub cluster_ip: Option<Ipv4Addr>,
    /// The name it stands for, when its type is ExternalName.
    pub external_name: Option<String>,
    /// Its ports.
    pub ports: Vec<DnsPort>,
    /// Its endpoints that are to be found; only of interest when it is headless.
    pub endpoints: Vec<DnsEndpoint>,
}

/// Every service of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsTable {
    /// In any order.
    pub services: Vec<DnsService>,
}

/// What one name has.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// Port and target.
    pub(crate) servers: Vec<(u16, Name)>,
    pub(crate) pointers: Vec<Name>,
    pub(crate) alias: Option<Name>,
    pub(crate) texts: Vec<String>,
}

/// Every name of the cluster, in lower case with its final dot.
#[derive(Debug)]
pub(crate) struct Names {
    domain: String,
    nodes: HashMap<String, Node>,
}

impl Names {
    /// The names that `table` gives rise to below `domain`.
    pub(crate) fn build(domain: &str, table: &DnsTable) -> Names {
        let domain = format!("{}.", domain.trim_end_matches('.').to_ascii_lowercase());
        let mut names = Names { domain, nodes: HashMap::new() };
        let version = format!("dns-version.{}", names.domain);
        names.node(&version).texts.push("1.1.0".to_owned());
        let services = format!("svc.{}", names.domain);
        names.node(&services);
        for service in &table.services {
            names.add(service);
        }
        for node in names.nodes.values_mut() {
            node.addresses.sort_unstable();
            node.addresses.dedup();
        }
        names
    }

    /// The domain all names lie under.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// What `name` has; `None` when it does not exist.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    fn add(&mut self, service: &DnsService) {
        let own = format!("{}.{}.svc.{}", service.name, service.namespace, self.domain).to_ascii_lowercase();
        let Ok(target) = Name::from_ascii(&own) else { return };
        if let Some(external) = &service.external_name {
            let fully = format!("{}.", external.trim_end_matches('.'));
            self.node(&own).alias = Name::from_ascii(fully).ok();
        } else if let Some(address) = service.cluster_ip {
            self.node(&own).addresses.push(address);
            self.add_servers(&own, &service.ports, &target);
            self.node(&reverse_name(address)).pointers.push(target);
        } else {
            self.node(&own);
            for endpoint in &service.endpoints {
                self.add_endpoint(&own, endpoint, &service.ports);
            }
        }
    }

    fn add_endpoint(&mut self, own: &str, endpoint: &DnsEndpoint, ports: &[DnsPort]) {
        let dashed = || endpoint.address.to_string().replace('.', "-");
        let host = endpoint.hostname.as_ref().filter(|host| !host.is_empty()).cloned().unwrap_or_else(dashed);
        let named = format!("{host}.{own}").to_ascii_lowercase();
        let Ok(target) = Name::from_ascii(&named) else { return };
        self.node(own).addresses.push(endpoint.address);
        self.node(&named).addresses.push(endpoint.address);
        self.add_servers(own, ports, &target);
        self.node(&reverse_name(endpoint.address)).pointers.push(target);
    }

    fn add_servers(&mut self, own: &str, ports: &[DnsPort], target: &Name) {
        for port in ports.iter().filter(|port| !port.name.is_empty()) {
            let protocol = match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            let name = format!("_{}._{protocol}.{own}", port.name).to_ascii_lowercase();
            self.node(&name).servers.push((port.port, target.clone()));
        }
    }

    /// The node of a name, made with every name above it when it is new (R4).
    fn node(&mut self, name: &str) -> &mut Node {
        let mut above = name;
        while let Some((_, rest)) = above.split_once('.') {
            if rest.len() < self.domain.len() || self.nodes.contains_key(rest) {
                break;
            }
            self.nodes.insert(rest.to_owned(), Node::default());
            above = rest;
        }
        self.nodes.entry(name.to_owned()).or_default()
    }
}

/// `10.43.0.1` → `1.0.43.10.in-addr.arpa.`
pub(crate) fn reverse_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
}

/// The address that a reverse name asks about; `None` for anything else.
pub(crate) fn reversed(name: &str) -> Option<Ipv4Addr> {
    let mut parts = name.strip_suffix(".in-addr.arpa.")?.split('.').map(|part| part.parse::<u8>().ok());
    let (d, c, b, a) = (parts.next()??, parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then(|| Ipv4Addr::new(a, b, c, d))
}
