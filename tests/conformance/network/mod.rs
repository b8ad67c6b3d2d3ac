//! sig-network: the objects of the network, what of Services is decided before a packet moves, and the packets.

pub mod balance;
mod dns;
mod endpoint_slice;
mod endpoints;
mod ingress;
mod ip_address;
mod latency;
mod proxy;
mod service;
mod service_cidr;
mod traffic;

use crate::{Case, case, on_node, row};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        row!("EndpointSlice API", endpoint_slice::row),
        case!("EndpointSlice Mirroring", endpoint_slice::endpoints_that_a_user_writes_are_mirrored),
        case!("EndpointSlice, \"empty\" Service", endpoint_slice::a_service_without_pods_has_an_empty_slice),
        case!("EndpointSlice, creation/deletion", endpoint_slice::ready_pods_of_a_service_are_in_its_slices),
        case!("Endpoint resource lifecycle", endpoints::endpoints_live),
        case!("Endpoints, \"empty\" Service", endpoints::a_service_without_pods_has_empty_endpoints),
        case!("Endpoints, creation/deletion", endpoints::endpoints_are_the_pods_of_a_service),
        on_node!("EndpointSlice, multiple IPs, multiple ports", balance::slices_of_many_addresses_and_ports_are_served),
        on_node!("EndpointSlice, single IP, multiple ports", balance::slices_of_one_address_and_many_ports_are_served),
        case!("Service endpoint latency, thresholds", latency::endpoints_follow_their_services_quickly),
        row!("Ingress API", ingress::row),
        row!("IngressClass API", ingress::class_row),
        row!("IPAddress API", ip_address::row),
        on_node!("Proxy through apiserver to a Service", proxy::ports_are_named_in_every_way),
        on_node!("Proxy, validate Proxy responses", proxy::every_method_reaches_what_is_proxied),
        on_node!("Proxy, validate ProxyWithPath responses", proxy::every_method_reaches_a_path),
        case!("Find Kubernetes Service in default Namespace", service::kubernetes_is_among_all_services),
        case!("Kubernetes Service", service::kubernetes_is_a_service),
        on_node!("Service, change type, ClusterIP to ExternalName", service::from_cluster_ip_to_external_name),
        on_node!("Service, change type, ExternalName to ClusterIP", service::from_external_name_to_cluster_ip),
        on_node!("Service, change type, ExternalName to NodePort", service::from_external_name_to_node_port),
        on_node!("Service, change type, NodePort to ExternalName", service::from_node_port_to_external_name),
        case!("Service, complete ServiceStatus lifecycle", service::the_status_is_read_patched_and_replaced),
        case!("Service, deletes a collection of services", service::many_are_listed_and_deleted),
        case!("Service, endpoints", endpoints::a_service_leads_to_its_pods_as_they_come_and_go),
        case!("Service, endpoints with multiple ports", endpoints::each_port_leads_to_the_pods_that_have_it),
        on_node!(
            "Service, should serve endpoints on same port and different protocols.",
            endpoints::one_port_is_served_in_two_protocols
        ),
        row!("ServiceCIDR API", service_cidr::row),
        case!("kubernetes.default Endpoints and EndpointSlices", endpoints::the_server_itself_has_endpoints),
        on_node!("DNS, PQDN for services", dns::parts_of_names_are_enough),
        on_node!(
            "DNS, cluster (DNS should provide /etc/hosts entries for the cluster)",
            dns::a_pod_finds_itself_in_its_hosts_file
        ),
        on_node!("DNS, cluster (DNS should provide DNS for the cluster)", dns::the_cluster_has_its_names),
        on_node!("DNS, custom dnsConfig", dns::a_pod_has_the_resolver_it_asks_for),
        on_node!("DNS, for ExternalName Services", dns::an_external_name_is_an_alias),
        on_node!("DNS, resolve the hostname", dns::a_pod_is_found_by_its_host_name),
        on_node!("DNS, resolve the subdomain", dns::a_pod_is_found_by_its_subdomain),
        on_node!("DNS, services", dns::services_have_addresses_servers_and_pointers),
        on_node!("Service, ClusterIP type, session affinity to ClientIP", balance::a_client_stays_with_its_server),
        on_node!("Service, ClusterIP type, session affinity to None", balance::clients_are_spread_once_asked),
        on_node!("Service, NodePort Service", balance::a_node_port_is_reached_every_way),
        on_node!(
            "Service, NodePort type, session affinity to ClientIP",
            balance::a_client_of_the_node_stays_with_its_server
        ),
        on_node!(
            "Service, NodePort type, session affinity to None",
            balance::clients_of_the_node_are_spread_once_asked
        ),
        on_node!(
            "Networking, intra pod http, from node (Networking Granular Checks: Pods should function for node-pod communication: http)",
            balance::the_node_reaches_pods_over_http
        ),
        on_node!(
            "Networking, intra pod http, from node (Networking Granular Checks: Pods should function for node-pod communication: udp)",
            balance::the_node_reaches_pods_over_udp
        ),
        on_node!(
            "Scheduling, HostPort matching and HostIP and Protocol not-matching",
            balance::one_host_port_serves_addresses_and_protocols
        ),
        on_node!("Networking, intra pod http", traffic::pods_answer_over_http),
        on_node!("Networking, intra pod udp", traffic::pods_answer_over_udp),
    ]
}
