//! Who asks: a name and groups, however they were proven.
//!
//! Source: Kubernetes' user model (authentication reference): client certificates give CN as name and O as groups,
//! service account tokens name their account.

use std::collections::BTreeMap;

/// Group whose members may do everything.
pub const GROUP_MASTERS: &str = "system:masters";
/// Group of node agents.
pub const GROUP_NODES: &str = "system:nodes";
/// Group of everybody who proved who they are.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// Group of those who did not.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group of all service accounts; those of one namespace have this, a colon and its name too.
pub const GROUP_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Start of a service account's name; its namespace, a colon and its own name follow.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Name of who proved nothing.
pub const ANONYMOUS: &str = "system:anonymous";
/// Start of a node agent's name; the node's own name follows.
pub const NODE_NAME_PREFIX: &str = "system:node:";
/// Start of the name of a part that runs inside the server process.
pub const PART_NAME_PREFIX: &str = "system:windlass:";

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub name: String,
    /// What tells users of one name apart; empty where the proof does not say.
    pub uid: String,
    /// The user's groups, in the order proven.
    pub groups: Vec<String>,
    /// What else the proof says, such as the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The user that a service account is.
pub(crate) fn service_account_user(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

impl Identity {
    /// A user who proved to be `name` in `groups`; joins `system:authenticated`.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Identity {
        let mut groups: Vec<String> = groups.into_iter().collect();
        if !groups.iter().any(|group| group == GROUP_AUTHENTICATED) {
            groups.push(GROUP_AUTHENTICATED.to_owned());
        }
        Identity { name: name.into(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// Somebody who proved nothing.
    pub fn anonymous() -> Identity {
        Identity {
            name: ANONYMOUS.to_owned(),
            uid: String::new(),
            groups: vec![GROUP_UNAUTHENTICATED.to_owned()],
            extra: BTreeMap::new(),
        }
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Identity {
        let groups = [GROUP_SERVICE_ACCOUNTS.to_owned(), format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}")];
        Identity { uid: uid.to_owned(), ..Identity::new(service_account_user(namespace, name), groups) }
    }

    /// A part of this server process, such as `scheduler`: `system:windlass:scheduler`, which may do everything.
    pub fn part(part: &str) -> Identity {
        Identity::new(format!("{PART_NAME_PREFIX}{part}"), [GROUP_MASTERS.to_owned()])
    }

    /// The agent of this node.
    pub fn node(node: &str) -> Identity {
        Identity::new(format!("{NODE_NAME_PREFIX}{node}"), [GROUP_NODES.to_owned()])
    }

    /// Whether the user is in this group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node whose agent this is, if it is one.
    pub fn node_name(&self) -> Option<&str> {
        if !self.is_in(GROUP_NODES) {
            return None;
        }
        self.name.strip_prefix(NODE_NAME_PREFIX).filter(|node| !node.is_empty())
    }

    /// Whether this is the server itself, which keeps what every cluster has.
    pub(crate) fn is_server(&self) -> bool {
        let part = self.name.strip_prefix(PART_NAME_PREFIX).filter(|_| self.is_in(GROUP_MASTERS));
        part.is_some_and(|part| matches!(part, "bootstrap" | "definitions"))
    }

    /// Whether this is a node agent or a part of the server, whose traffic keeps the cluster alive.
    pub fn is_system(&self) -> bool {
        self.node_name().is_some() || (self.name.starts_with(PART_NAME_PREFIX) && self.is_in(GROUP_MASTERS))
    }
}
