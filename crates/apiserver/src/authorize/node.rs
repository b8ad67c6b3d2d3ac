//! What a node's agent may do: what it needs for the pods that are bound to it, and nothing else.
//!
//! Rules
//!   N1 itself       its own Node, Lease and CSINode; it reads other nodes, whose addresses it needs
//!   N2 pods         reads them; whether one is bound to it is checked in `admit` before it is changed
//!   N3 secrets      and ConfigMaps, claims and accounts: one by one, by name, and only those that a pod bound to it names
//!   N4 tokens       of the accounts of its pods; for which pod is checked in `admit`
//!   N5 traffic      reads services, endpoints, namespaces and network policies
//!   N6 volumes      reads, one by one, the PersistentVolumes behind the claims of N3, and the Secrets that these name
//!                  and how these claims are, which it says when it has grown into a volume; the VolumeAttachments of its own,
//!                  one by one, and what drivers want
//!   N7 certificates asks for its own, and for those of its pods (which is checked in `admit`), reads, one by one, what
//!                   became of its requests, and whom pods may trust
//!   N8 directories  reads, one by one, the PersistentVolumes that are directories of its own; what it changes of them is
//!                   checked in `admit`
//!   N9 runtimes     reads RuntimeClasses, which say what runs a pod
//!   N10 devices     reads, one by one, the ResourceClaims of its pods; lists the ResourceSlices of its own
//!
//! Source: node authorization reference; ATTACKS of a node's credential.
//! Not here        mirror pods: an agent creates no pods at all

use windlass_api::{binding, kinds};

use crate::authorize::AskedObject;
use crate::key;
use crate::server::Server;
use crate::write::tree;

/// Whether the agent of `node` may do this.
pub(super) fn may(server: &Server, node: &str, asked: &AskedObject<'_>) -> bool {
    let own = asked.name == node;
    let write = matches!(asked.verb, "update" | "patch");
    let read = matches!(asked.verb, "get" | "list" | "watch");
    match (asked.group, asked.resource, asked.sub) {
        // The name of a created one is checked in `admit`.
        ("", "nodes", "") => read || asked.verb == "create" || (own && write),
        ("", "nodes", "status") => own && (write || asked.verb == "get"),
        ("coordination.k8s.io", "leases", "") => {
            asked.namespace == "kube-node-lease"
                && (asked.verb == "create" || (own && (write || matches!(asked.verb, "get" | "delete"))))
        }
        ("storage.k8s.io", "csinodes", "") => {
            asked.verb == "create" || (own && (write || matches!(asked.verb, "get" | "delete")))
        }
        // The name is that of the node whose slices are listed; whose a single one is, is checked in `admit`.
        ("resource.k8s.io", "resourceslices", "") => {
            write || matches!(asked.verb, "create" | "delete") || (own && matches!(asked.verb, "list" | "watch"))
        }
        ("resource.k8s.io", "resourceclaims", "") => asked.verb == "get" && is_named(server, node, asked),
        ("", "pods", "") => read || asked.verb == "delete",
        ("", "pods", "status") => write || asked.verb == "get",
        ("" | "events.k8s.io", "events", "") => write || asked.verb == "create",
        ("", "secrets" | "configmaps", "") => read && is_named(server, node, asked),
        ("", "persistentvolumeclaims" | "serviceaccounts", "") => asked.verb == "get" && is_named(server, node, asked),
        ("", "persistentvolumeclaims", "status") => (write || asked.verb == "get") && is_named(server, node, asked),
        ("storage.k8s.io", "csidrivers", "") | ("node.k8s.io", "runtimeclasses", "") => read,
        ("storage.k8s.io", "volumeattachments", "") => asked.verb == "get" && is_attached(server, node, asked),
        ("", "persistentvolumes", "") => {
            (asked.verb == "get" && is_named(server, node, asked))
                || ((read || asked.verb == "patch") && is_here(server, node, asked))
        }
        ("certificates.k8s.io", "clustertrustbundles", "") => read,
        ("certificates.k8s.io", "certificatesigningrequests", "") => read || asked.verb == "create",
        ("certificates.k8s.io", "certificatesigningrequests", "selfnodeclient") => asked.verb == "create",
        ("certificates.k8s.io", "podcertificaterequests", "") => {
            asked.verb == "create" || (read && is_own_request(server, node, asked))
        }
        ("", "serviceaccounts", "token") => asked.verb == "create" && is_named(server, node, asked),
        ("", "services" | "namespaces", "")
        | ("discovery.k8s.io", "endpointslices", "")
        | ("networking.k8s.io", "networkpolicies", "") => read,
        _ => false,
    }
}

/// N8.
fn is_here(server: &Server, node: &str, asked: &AskedObject<'_>) -> bool {
    if asked.name.is_empty() || asked.name.contains('/') {
        return false;
    }
    let entry = server.store.get(&key::object(&kinds::PERSISTENT_VOLUME, "", asked.name));
    entry.is_some_and(|entry| binding::is_local_on(&tree(&entry), node))
}

/// N7.
fn is_own_request(server: &Server, node: &str, asked: &AskedObject<'_>) -> bool {
    if asked.name.is_empty() || asked.name.contains('/') || asked.namespace.contains('/') {
        return false;
    }
    let entry = server.store.get(&key::object(&kinds::POD_CERTIFICATE_REQUEST, asked.namespace, asked.name));
    entry.is_some_and(|entry| tree(&entry)["spec"]["nodeName"] == node)
}

/// N6: one that is not there is nobody's, and may be somebody else's in a moment.
fn is_attached(server: &Server, node: &str, asked: &AskedObject<'_>) -> bool {
    if asked.name.is_empty() || asked.name.contains('/') {
        return false;
    }
    let entry = server.store.get(&key::object(&kinds::VOLUME_ATTACHMENT, "", asked.name));
    entry.is_some_and(|entry| tree(&entry)["spec"]["nodeName"] == node)
}

/// N3.
fn is_named(server: &Server, node: &str, asked: &AskedObject<'_>) -> bool {
    !asked.name.is_empty()
        && server.graph.look(&server.store, |graph| graph.names(node, asked.resource, asked.namespace, asked.name))
}
