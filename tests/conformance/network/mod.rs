//! sig-network: the objects of the network, and what of Services is decided before a packet moves.

mod endpoint_slice;
mod endpoints;
mod ingress;
mod ip_address;
mod service;
mod service_cidr;

use crate::{Case, case, row};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        row!("EndpointSlice API", endpoint_slice::row),
        case!("EndpointSlice, \"empty\" Service", endpoint_slice::a_service_without_pods_has_an_empty_slice),
        case!("EndpointSlice, creation/deletion", endpoint_slice::ready_pods_of_a_service_are_in_its_slices),
        case!("Endpoint resource lifecycle", endpoints::endpoints_live),
        row!("Ingress API", ingress::row),
        row!("IngressClass API", ingress::class_row),
        row!("IPAddress API", ip_address::row),
        case!("Find Kubernetes Service in default Namespace", service::kubernetes_is_among_all_services),
        case!("Kubernetes Service", service::kubernetes_is_a_service),
        case!("Service, change type, ClusterIP to ExternalName", service::from_cluster_ip_to_external_name),
        case!("Service, change type, ExternalName to ClusterIP", service::from_external_name_to_cluster_ip),
        case!("Service, change type, ExternalName to NodePort", service::from_external_name_to_node_port),
        case!("Service, change type, NodePort to ExternalName", service::from_node_port_to_external_name),
        case!("Service, complete ServiceStatus lifecycle", service::the_status_is_read_patched_and_replaced),
        case!("Service, deletes a collection of services", service::many_are_listed_and_deleted),
        row!("ServiceCIDR API", service_cidr::row),
    ]
}
