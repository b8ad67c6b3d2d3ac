//! The name of an object inside its kind.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use windlass_api::Header;

/// `namespace/name`, or `name` for cluster-scoped kinds. Cheap to clone. Neither part can hold a slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of this name; the namespace is empty for cluster-scoped kinds.
    pub fn new(namespace: &str, name: &str) -> Key {
        if namespace.is_empty() { Key(name.into()) } else { Key(format!("{namespace}/{name}").into()) }
    }

    /// The key of this object.
    pub fn of(header: &Header) -> Key {
        Key::new(header.namespace(), header.name())
    }

    /// Its namespace; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The whole.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Key {
    /// The key of nothing: no object has an empty name.
    fn default() -> Key {
        Key("".into())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Key {
        Key(text.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn a_key_splits_into_namespace_and_name() {
        let pod = Key::new("ns", "p");
        assert_eq!((pod.as_str(), pod.namespace(), pod.name()), ("ns/p", "ns", "p"));
        let node = Key::new("", "n");
        assert_eq!((node.as_str(), node.namespace(), node.name()), ("n", "", "n"));
    }
}
