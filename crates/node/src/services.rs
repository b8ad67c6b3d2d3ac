//! Services and EndpointSlices as this machine's network takes them: who answers where, and under which name.
//!
//! Source: Kubernetes documentation, "Virtual IPs and Service Proxies" and "DNS for Services and Pods".
//!
//! Rules
//!   R1 frontends   ClusterIP, external and load-balancer addresses by the service's port; NodePort by its own
//!   R2 backends    endpoints that are ready; when there is none, those that end but still serve
//!   R3 local       a traffic policy of Local leaves only this node's endpoints
//!   R4 hostPort    a pod's hostPort is a frontend of this machine; a service of the same port wins
//!   R5 names       every service has its name; a headless one the addresses behind it

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use windlass_api::types::{core, discovery};
use windlass_network::{Backend, DnsEndpoint, DnsPort, DnsService, DnsTable, Frontend, Protocol, ServiceTable};

/// The label that says which service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What the tables are made from.
pub struct ServicesView<'a> {
    /// Every Service.
    pub services: &'a [&'a core::Service],
    /// Every EndpointSlice.
    pub slices: &'a [&'a discovery::EndpointSlice],
    /// The ports that pods of this machine want on it.
    pub host_ports: &'a [HostPort],
    /// This node's name.
    pub node: &'a str,
}

/// A port of the machine that leads into a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The address of the machine; `None` is all.
    pub address: Option<Ipv4Addr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The machine's port.
    pub port: u16,
    /// The pod and its port.
    pub target: SocketAddrV4,
}

/// The tables of services and of names.
pub fn tables(view: &ServicesView) -> (ServiceTable, DnsTable) {
    let mut by_service: BTreeMap<(&str, &str), Vec<&discovery::EndpointSlice>> = BTreeMap::new();
    for slice in view.slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let labels = slice.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            by_service.entry((namespace, service)).or_default().push(slice);
        }
    }
    let mut table = ServiceTable::new();
    let mut names = DnsTable::default();
    for service in view.services {
        let key = (text(&service.metadata.namespace), text(&service.metadata.name));
        let slices = by_service.get(&key).map(Vec::as_slice).unwrap_or_default();
        let Some(spec) = &service.spec else { continue };
        add_frontends(&mut table, view.node, (service, spec), slices);
        names.services.push(name_of(key, spec, slices));
    }
    for host_port in view.host_ports {
        let frontend = Frontend { address: host_port.address, protocol: host_port.protocol, port: host_port.port };
        let backend = || Backend { endpoints: vec![host_port.target], client_affinity: false };
        table.entry(frontend).or_insert_with(backend);
    }
    (table, names)
}

/// The ports a pod with this address wants on the machine.
pub fn host_ports(spec: &core::PodSpec, address: Ipv4Addr) -> Vec<HostPort> {
    if spec.host_network == Some(true) {
        return Vec::new();
    }
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let mapped = ports.filter_map(|port| {
        Some(HostPort {
            address: port
                .host_ip
                .as_deref()
                .and_then(|ip| ip.parse().ok())
                .filter(|ip: &Ipv4Addr| !ip.is_unspecified()),
            protocol: protocol(port.protocol.as_deref())?,
            port: number(port.host_port?)?,
            target: SocketAddrV4::new(address, number(port.container_port)?),
        })
    });
    mapped.collect()
}

/// R1.
fn add_frontends(
    table: &mut ServiceTable,
    node: &str,
    (service, spec): (&core::Service, &core::ServiceSpec),
    slices: &[&discovery::EndpointSlice],
) {
    if spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let ingress = ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.as_ref());
    let outside: Vec<Ipv4Addr> =
        spec.external_ips.iter().flatten().chain(ingress).filter_map(|ip| ip.parse().ok()).collect();
    let inside: BTreeSet<Ipv4Addr> =
        spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten()).filter_map(|ip| ip.parse().ok()).collect();
    let client_affinity = spec.session_affinity.as_deref() == Some("ClientIP");
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Some(own)) = (protocol(port.protocol.as_deref()), number(port.port)) else { continue };
        let name = port.name.as_deref().unwrap_or_default();
        let backend = |policy: &Option<String>| {
            let only = (policy.as_deref() == Some("Local")).then_some(node);
            Backend { endpoints: endpoints(slices, name, protocol, only), client_affinity }
        };
        for address in &inside {
            let frontend = Frontend { address: Some(*address), protocol, port: own };
            table.insert(frontend, backend(&spec.internal_traffic_policy));
        }
        for address in &outside {
            let frontend = Frontend { address: Some(*address), protocol, port: own };
            table.insert(frontend, backend(&spec.external_traffic_policy));
        }
        if let Some(port) = port.node_port.and_then(number).filter(|_| spec.type_.as_deref() != Some("ClusterIP")) {
            table.insert(Frontend { address: None, protocol, port }, backend(&spec.external_traffic_policy));
        }
    }
}

/// R2, R3.
fn endpoints(
    slices: &[&discovery::EndpointSlice],
    port_name: &str,
    wanted: Protocol,
    only: Option<&str>,
) -> Vec<SocketAddrV4> {
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let ports = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == port_name && protocol(port.protocol.as_deref()) == Some(wanted)
        });
        for port in ports.filter_map(|port| number(port.port?)) {
            for endpoint in slice.endpoints.iter().flatten() {
                if only.is_some_and(|node| endpoint.node_name.as_deref() != Some(node)) {
                    continue;
                }
                let addresses = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok());
                let addresses = addresses.map(|ip| SocketAddrV4::new(ip, port));
                match standing(endpoint) {
                    Standing::Ready => ready.extend(addresses),
                    Standing::EndingButServing => ending.extend(addresses),
                    Standing::Out => {}
                }
            }
        }
    }
    if ready.is_empty() { ending.into_iter().collect() } else { ready.into_iter().collect() }
}

enum Standing {
    Ready,
    EndingButServing,
    Out,
}

fn standing(endpoint: &discovery::Endpoint) -> Standing {
    let Some(conditions) = &endpoint.conditions else { return Standing::Ready };
    let ready = conditions.ready.unwrap_or(true);
    match (ready, conditions.serving.unwrap_or(ready), conditions.terminating.unwrap_or(false)) {
        (true, _, _) => Standing::Ready,
        (false, true, true) => Standing::EndingButServing,
        _ => Standing::Out,
    }
}

/// R5.
fn name_of(
    (namespace, name): (&str, &str),
    spec: &core::ServiceSpec,
    slices: &[&discovery::EndpointSlice],
) -> DnsService {
    let cluster_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    let is_headless = cluster_ip.is_none() && !is_external;
    let unready_too = spec.publish_not_ready_addresses == Some(true);
    let mut endpoints = Vec::new();
    for slice in slices.iter().filter(|_| is_headless) {
        for endpoint in slice.endpoints.iter().flatten() {
            if unready_too || matches!(standing(endpoint), Standing::Ready) {
                let of = |address: &String| {
                    Some(DnsEndpoint { address: address.parse().ok()?, hostname: endpoint.hostname.clone() })
                };
                endpoints.extend(endpoint.addresses.iter().filter_map(of));
            }
        }
    }
    let own_ports = spec.ports.iter().flatten().filter_map(|port| {
        let name = port.name.clone().unwrap_or_default();
        Some(DnsPort { name, protocol: protocol(port.protocol.as_deref())?, port: number(port.port)? })
    });
    let slice_ports = slices.iter().flat_map(|slice| slice.ports.iter().flatten()).filter_map(|port| {
        let name = port.name.clone().unwrap_or_default();
        Some(DnsPort { name, protocol: protocol(port.protocol.as_deref())?, port: number(port.port?)? })
    });
    let mut ports: Vec<DnsPort> =
        if is_headless && !slices.is_empty() { slice_ports.collect() } else { own_ports.collect() };
    ports.sort_by(|a, b| (&a.name, a.protocol, a.port).cmp(&(&b.name, b.protocol, b.port)));
    ports.dedup();
    DnsService {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        cluster_ip: cluster_ip.filter(|_| !is_external),
        external_name: spec.external_name.clone().filter(|_| is_external),
        ports,
        endpoints,
    }
}

fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

/// The protocol that a word of the API means; none is TCP.
pub(crate) fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::{HostPort, ServicesView, host_ports, tables};
    use serde_json::{Value, json};
    use windlass_api::types::{core, discovery};
    use windlass_network::DnsTable;

    fn make(services: Value, slices: Value, host_ports: &[HostPort]) -> (Vec<String>, DnsTable) {
        let services: Vec<core::Service> = serde_json::from_value(services).expect("services");
        let slices: Vec<discovery::EndpointSlice> = serde_json::from_value(slices).expect("slices");
        let (services, slices): (Vec<_>, Vec<_>) = (services.iter().collect(), slices.iter().collect());
        let view = ServicesView { services: &services, slices: &slices, host_ports, node: "n1" };
        let (table, names) = tables(&view);
        let shown = table.iter().map(|(frontend, backend)| {
            let address = frontend.address.map_or("*".to_owned(), |address| address.to_string());
            let affinity = if backend.client_affinity { " sticky" } else { "" };
            let ends: Vec<String> = backend.endpoints.iter().map(ToString::to_string).collect();
            format!("{:?} {address}:{} -> {}{affinity}", frontend.protocol, frontend.port, ends.join(","))
        });
        (shown.collect(), names)
    }

    fn check(service: Value, endpoints: Value) -> Vec<String> {
        make(json!([service]), slices(endpoints), &[]).0
    }

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec})
    }

    fn slices(endpoints: Value) -> Value {
        json!([{"metadata": {"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}])
    }

    fn http() -> Value {
        json!([{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}])
    }

    fn two_nodes() -> Value {
        json!([{"addresses": ["10.42.0.1"], "nodeName": "n1"}, {"addresses": ["10.42.1.1"], "nodeName": "n2"}])
    }

    #[test]
    fn r1_every_address_of_a_service_leads_to_its_endpoints() {
        let spec = json!({"type": "NodePort", "clusterIP": "10.43.0.9", "externalIPs": ["192.0.2.9"], "ports": http(),
            "sessionAffinity": "ClientIP"});
        let expected = [
            "Tcp *:30080 -> 10.42.0.1:8080,10.42.1.1:8080 sticky",
            "Tcp 10.43.0.9:80 -> 10.42.0.1:8080,10.42.1.1:8080 sticky",
            "Tcp 192.0.2.9:80 -> 10.42.0.1:8080,10.42.1.1:8080 sticky",
        ];
        assert_eq!(check(service(spec), two_nodes()), expected);
    }

    #[test]
    fn r2_ready_endpoints_come_first_and_ending_ones_help_out() {
        let spec = || service(json!({"clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80}]}));
        let with = |first: Value, second: Value| {
            check(
                spec(),
                json!([{"addresses": ["10.42.0.1"], "conditions": first}, {"addresses": ["10.42.0.2"], "conditions": second}]),
            )
        };
        let ready = || json!({"ready": true});
        let ending = || json!({"ready": false, "serving": true, "terminating": true});
        let unready = || json!({"ready": false, "serving": false});
        assert_eq!(with(ready(), ending()), ["Tcp 10.43.0.9:80 -> 10.42.0.1:8080"]);
        assert_eq!(with(unready(), ending()), ["Tcp 10.43.0.9:80 -> 10.42.0.2:8080"]);
        assert_eq!(with(unready(), unready()), ["Tcp 10.43.0.9:80 -> "]);
    }

    #[test]
    fn r3_local_traffic_stays_on_this_node() {
        let spec =
            json!({"type": "NodePort", "clusterIP": "10.43.0.9", "externalTrafficPolicy": "Local", "ports": http()});
        let expected = ["Tcp *:30080 -> 10.42.0.1:8080", "Tcp 10.43.0.9:80 -> 10.42.0.1:8080,10.42.1.1:8080"];
        assert_eq!(check(service(spec), two_nodes()), expected);
    }

    #[test]
    fn r4_a_host_port_leads_into_its_pod() {
        let spec = json!({"containers": [{"name": "c", "ports": [
            {"containerPort": 80, "hostPort": 8000}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"},
            {"containerPort": 81}]}]});
        let spec: core::PodSpec = serde_json::from_value(spec).expect("a spec");
        let ports = host_ports(&spec, "10.42.0.7".parse().expect("an address"));
        let (shown, _) = make(json!([]), json!([]), &ports);
        assert_eq!(shown, ["Tcp *:8000 -> 10.42.0.7:80", "Udp 192.0.2.1:53 -> 10.42.0.7:53"]);
    }

    #[test]
    fn r5_names_follow_the_kind_of_service() {
        let services = json!([
            service(json!({"clusterIP": "10.43.0.9", "ports": http()})),
            {"metadata": {"name": "far", "namespace": "ns"}, "spec": {"type": "ExternalName", "externalName": "example.org"}},
        ]);
        let (_, names) = make(services, slices(two_nodes()), &[]);
        assert_eq!(names.services[0].cluster_ip, Some("10.43.0.9".parse().expect("an address")));
        assert!(names.services[0].endpoints.is_empty());
        assert_eq!(names.services[0].ports[0].port, 80);
        assert_eq!(names.services[1].external_name.as_deref(), Some("example.org"));
        let headless = json!([service(json!({"clusterIP": "None", "ports": http()}))]);
        let (table, names) = make(headless, slices(two_nodes()), &[]);
        assert!(table.iter().all(|line| line.starts_with("Tcp *")), "{table:?}");
        assert_eq!(names.services[0].endpoints.len(), 2);
        assert_eq!(names.services[0].ports[0].port, 8080);
    }
}
