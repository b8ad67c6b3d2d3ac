//! Where things lie in the store. The only place that spells store keys.
//!
//! `o/<plural[.group]>/<namespace>/<name>` objects · `a/ip/<address>` Service addresses · `a/port/<number>` NodePorts
//!
//! `a/definitions` the names of custom kinds, written by whoever takes one
//!
//! Every part comes from a path segment or a validated name, and none of those holds a `/`.

use std::net::Ipv4Addr;

use windlass_api::Kind;

/// Who gives a definition its names writes this, so that two at once see each other.
pub(crate) const DEFINITION_NAMES: &str = "a/definitions";

/// What the keys of all objects start with.
pub(crate) const OBJECTS: &str = "o/";

/// The key of an object. `namespace` is ignored for cluster-scoped kinds.
pub(crate) fn object(kind: &Kind, namespace: &str, name: &str) -> String {
    assert!(!name.contains('/') && !namespace.contains('/'), "names are checked before they become keys");
    let mut key = prefix(kind, namespace);
    key.push_str(name);
    key
}

/// What the keys of all objects of a kind start with, in one namespace or (empty) in all.
pub(crate) fn prefix(kind: &Kind, namespace: &str) -> String {
    let mut key = String::with_capacity(96);
    key.push_str(OBJECTS);
    key.push_str(&kind.plural);
    if !kind.group.is_empty() {
        key.push('.');
        key.push_str(&kind.group);
    }
    key.push('/');
    if kind.namespaced && !namespace.is_empty() {
        key.push_str(namespace);
        key.push('/');
    }
    key
}

/// The namespace (empty for cluster-scoped kinds) and name of the object under this key.
pub(crate) fn place(key: &str) -> (&str, &str) {
    let (room, name) = key.rsplit_once('/').unwrap_or(("", key));
    // What is left is `o/<plural>` or `o/<plural>/<namespace>`.
    let namespace = room.splitn(3, '/').nth(2).unwrap_or_default();
    (namespace, name)
}

/// The key that a Service holds while it has this address.
pub(crate) fn cluster_ip(address: Ipv4Addr) -> String {
    format!("a/ip/{address}")
}

/// The key that a Service holds while it has this NodePort.
pub(crate) fn node_port(port: u16) -> String {
    format!("a/port/{port}")
}

#[cfg(test)]
mod tests {
    use super::{object, place};
    use windlass_api::kinds;

    #[test]
    fn a_key_says_where_its_object_is() {
        assert_eq!(place(&object(&kinds::POD, "ns", "p")), ("ns", "p"));
        assert_eq!(place(&object(&kinds::DEPLOYMENT, "ns", "d")), ("ns", "d"));
        assert_eq!(place(&object(&kinds::NODE, "", "n")), ("", "n"));
    }
}
