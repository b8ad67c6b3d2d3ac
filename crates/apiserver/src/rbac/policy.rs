//! All roles and bindings of the cluster, arranged so that a question looks only at the bindings of who asks.
//!
//! Rules
//!   B1 cluster     a ClusterRoleBinding gives its role's rules everywhere, and on what is in no namespace
//!   B2 namespace   a RoleBinding gives them in its namespace, whichever kind of role it names
//!   B3 subjects    users and groups by name; a service account is the user `system:serviceaccount:NAMESPACE:NAME`
//!   B4 missing     a binding to a role that is not there gives nothing, and the refusal says so

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use windlass_api::kinds;
use windlass_store::Entry;

use crate::authorize::Asked;
use crate::follow::Picture;
use crate::identity::{Identity, service_account_user};
use crate::key;
use crate::rbac::rule::Rule;

/// Who is bound where: by subject, then by namespace; the empty one is the whole cluster.
type Index = BTreeMap<String, BTreeMap<String, Vec<Bound>>>;

/// The roles and bindings of the store.
#[derive(Default)]
pub(crate) struct Policy {
    /// By their keys in the store.
    roles: BTreeMap<String, Arc<[Rule]>>,
    /// By their keys in the store.
    bindings: BTreeMap<String, Arc<Binding>>,
    users: Index,
    groups: Index,
}

/// A subject's place in a binding.
#[derive(Clone)]
struct Bound {
    binding: Arc<Binding>,
    subject: usize,
}

struct Binding {
    key: String,
    name: String,
    /// Empty for the whole cluster.
    namespace: String,
    role: RoleRef,
    /// The role's key in the store.
    role_key: String,
    subjects: Vec<Subject>,
}

/// What a policy says about a question.
pub(crate) enum Verdict {
    /// Allowed, by a binding that is told when it is asked for.
    Allowed(Grant),
    /// Not allowed; what could not be looked at.
    Denied(Vec<String>),
}

/// The binding that allows something.
pub(crate) struct Grant(Bound);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: Metadata,
    rules: Option<Vec<Rule>>,
    #[serde(rename = "roleRef")]
    role: RoleRef,
    subjects: Option<Vec<Subject>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: Option<String>,
}

impl Picture for Policy {
    fn prefixes() -> &'static [&'static str] {
        &[
            "o/clusterroles.rbac.authorization.k8s.io/",
            "o/clusterrolebindings.rbac.authorization.k8s.io/",
            "o/roles.rbac.authorization.k8s.io/",
            "o/rolebindings.rbac.authorization.k8s.io/",
        ]
    }

    fn put(&mut self, entry: &Entry) {
        // What is stored was checked against the schema; should it all the same not be read, it gives nothing.
        let wire: Wire = serde_json::from_slice(entry.value()).unwrap_or_default();
        self.remove(entry.key());
        if wire.role.kind.is_empty() {
            self.roles.insert(entry.key().to_owned(), wire.rules.unwrap_or_default().into());
        } else {
            self.bind(Binding::new(entry.key().to_owned(), wire));
        }
    }

    fn remove(&mut self, key: &str) {
        self.roles.remove(key);
        let Some(binding) = self.bindings.remove(key) else { return };
        for subject in &binding.subjects {
            let (index, name) = self.index_of(subject, &binding.namespace);
            let Some(by_namespace) = index.get_mut(&name) else { continue };
            if let Some(bound) = by_namespace.get_mut(&binding.namespace) {
                bound.retain(|bound| bound.binding.key != binding.key);
                if bound.is_empty() {
                    by_namespace.remove(&binding.namespace);
                }
            }
            if by_namespace.is_empty() {
                index.remove(&name);
            }
        }
    }
}

impl Policy {
    fn bind(&mut self, binding: Binding) {
        let binding = Arc::new(binding);
        for (subject, who) in binding.subjects.iter().enumerate() {
            let (index, name) = self.index_of(who, &binding.namespace);
            let bound = index.entry(name).or_default().entry(binding.namespace.clone()).or_default();
            bound.push(Bound { binding: Arc::clone(&binding), subject });
        }
        self.bindings.insert(binding.key.clone(), binding);
    }

    /// B3.
    fn index_of(&mut self, subject: &Subject, binding_namespace: &str) -> (&mut Index, String) {
        match subject.kind.as_str() {
            "Group" => (&mut self.groups, subject.name.clone()),
            "ServiceAccount" => {
                let namespace = subject.namespace.as_deref().filter(|found| !found.is_empty());
                let namespace = namespace.unwrap_or(binding_namespace);
                (&mut self.users, service_account_user(namespace, &subject.name))
            }
            _ => (&mut self.users, subject.name.clone()),
        }
    }

    /// The bindings of `who` that count in a namespace (or, empty, for the whole cluster).
    fn bound<'a>(&'a self, who: &'a Identity, namespace: &'a str) -> impl Iterator<Item = &'a Bound> {
        let scopes = std::iter::once("").chain(Some(namespace).filter(|namespace| !namespace.is_empty()));
        scopes.flat_map(move |scope| {
            let user = self.users.get(&who.name);
            let groups = who.groups.iter().filter_map(|group| self.groups.get(group));
            user.into_iter().chain(groups).filter_map(move |by| by.get(scope)).flatten()
        })
    }

    /// Whether `who` may do this.
    pub fn decide(&self, who: &Identity, asked: &Asked<'_>) -> Verdict {
        let mut missing = Vec::new();
        for bound in self.bound(who, asked.namespace()) {
            match self.roles.get(&bound.binding.role_key) {
                Some(rules) if rules.iter().any(|rule| rule.allows(asked)) => {
                    return Verdict::Allowed(Grant(bound.clone()));
                }
                Some(_) => {}
                None => note_missing(&bound.binding.role, &mut missing),
            }
        }
        Verdict::Denied(missing)
    }

    /// All rules that count for `who` in a namespace (or, empty, for the whole cluster), and what could not be looked at.
    pub fn rules_of(&self, who: &Identity, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        for bound in self.bound(who, namespace) {
            match self.roles.get(&bound.binding.role_key) {
                Some(found) => rules.extend(found.iter().cloned()),
                None => note_missing(&bound.binding.role, &mut missing),
            }
        }
        (rules, missing)
    }

    /// The rules of a role that a binding in `namespace` names; `None` when it is not there.
    pub fn rules_of_role(&self, kind: &str, name: &str, namespace: &str) -> Option<Vec<Rule>> {
        self.roles.get(&role_key(kind, name, namespace)).map(|rules| rules.to_vec())
    }
}

fn note_missing(role: &RoleRef, missing: &mut Vec<String>) {
    let text = format!("{}.rbac.authorization.k8s.io {:?} not found", role.kind.to_lowercase(), role.name);
    if !missing.contains(&text) {
        missing.push(text);
    }
}

fn role_key(kind: &str, name: &str, namespace: &str) -> String {
    match kind {
        "ClusterRole" => key::object(&kinds::CLUSTER_ROLE, "", name),
        _ => key::object(&kinds::ROLE, namespace, name),
    }
}

impl Binding {
    fn new(key: String, wire: Wire) -> Binding {
        let namespace = wire.metadata.namespace.unwrap_or_default();
        let role_key = role_key(&wire.role.kind, &wire.role.name, &namespace);
        let subjects = wire.subjects.unwrap_or_default();
        Binding { key, name: wire.metadata.name, namespace, role: wire.role, role_key, subjects }
    }
}

impl fmt::Display for Grant {
    /// The sentence of a SubjectAccessReview.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bound { binding, subject } = &self.0;
        let subject = &binding.subjects[*subject];
        let (kind, name) = match binding.namespace.as_str() {
            "" => ("ClusterRoleBinding", binding.name.clone()),
            namespace => ("RoleBinding", format!("{}/{namespace}", binding.name)),
        };
        let whom = match (subject.kind.as_str(), subject.namespace.as_deref()) {
            ("ServiceAccount", Some(namespace)) if !namespace.is_empty() => format!("{}/{namespace}", subject.name),
            ("ServiceAccount", _) => format!("{}/{}", subject.name, binding.namespace),
            _ => subject.name.clone(),
        };
        write!(
            out,
            "RBAC: allowed by {kind} {name:?} of {} {:?} to {} {whom:?}",
            binding.role.kind, binding.role.name, subject.kind
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Binding, Policy, Verdict};
    use crate::authorize::{Asked, AskedObject};
    use crate::follow::Picture;
    use crate::identity::Identity;
    use serde_json::{Value, json};

    fn policy(objects: &[(&str, Value)]) -> Policy {
        let mut policy = Policy::default();
        for (key, object) in objects {
            let wire: super::Wire = serde_json::from_value(object.clone()).expect("a role or binding");
            if wire.role.kind.is_empty() {
                policy.roles.insert((*key).to_owned(), wire.rules.unwrap_or_default().into());
            } else {
                policy.bind(Binding::new((*key).to_owned(), wire));
            }
        }
        policy
    }

    fn reads_pods() -> Value {
        json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]})
    }

    /// Asks to get a pod.
    fn said(policy: &Policy, who: &Identity, namespace: &str) -> String {
        let object = AskedObject { verb: "get", group: "", resource: "pods", sub: "", namespace, name: "p" };
        match policy.decide(who, &Asked::Object(object)) {
            Verdict::Allowed(grant) => grant.to_string(),
            Verdict::Denied(missing) => format!("no {}", missing.join(", ")).trim().to_owned(),
        }
    }

    const READER: &str = "o/clusterroles.rbac.authorization.k8s.io/reader";

    #[test]
    fn b1_b2_a_role_counts_where_it_is_bound() {
        let jane = Identity::new("jane", []);
        let binding = |namespace: &str| {
            json!({"metadata": {"name": "b", "namespace": namespace}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
                "subjects": [{"kind": "User", "name": "jane"}]})
        };
        let everywhere = policy(&[(READER, reads_pods()), ("b", binding(""))]);
        let allowed = "RBAC: allowed by ClusterRoleBinding \"b\" of ClusterRole \"reader\" to User \"jane\"";
        assert_eq!((said(&everywhere, &jane, "a").as_str(), said(&everywhere, &jane, "").as_str()), (allowed, allowed));
        let mut in_a = policy(&[(READER, reads_pods()), ("b", binding("a"))]);
        let allowed = "RBAC: allowed by RoleBinding \"b/a\" of ClusterRole \"reader\" to User \"jane\"";
        assert_eq!(said(&in_a, &jane, "a"), allowed);
        assert_eq!((said(&in_a, &jane, "b").as_str(), said(&in_a, &jane, "").as_str()), ("no", "no"));
        in_a.remove("b");
        assert_eq!(said(&in_a, &jane, "a"), "no");
        assert!(in_a.users.is_empty(), "nothing is left of what is gone");
    }

    #[test]
    fn b2_a_role_of_a_namespace_is_found_there() {
        let binding = json!({"metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "Group", "name": "dev"}]});
        let jane = Identity::new("jane", ["dev".to_owned()]);
        let found = policy(&[("o/roles.rbac.authorization.k8s.io/a/r", reads_pods()), ("b", binding.clone())]);
        assert_eq!(said(&found, &jane, "a"), "RBAC: allowed by RoleBinding \"b/a\" of Role \"r\" to Group \"dev\"");
        let elsewhere = policy(&[("o/roles.rbac.authorization.k8s.io/b/r", reads_pods()), ("b", binding)]);
        assert_eq!(said(&elsewhere, &jane, "a"), "no role.rbac.authorization.k8s.io \"r\" not found");
    }

    #[test]
    fn b3_a_service_account_is_a_user() {
        let binding = |subject: Value| {
            json!({"metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
                "subjects": [subject]})
        };
        let bot = Identity::service_account("a", "bot", "");
        for subject in [
            json!({"kind": "ServiceAccount", "name": "bot", "namespace": "a"}),
            json!({"kind": "ServiceAccount", "name": "bot"}),
        ] {
            let bound = policy(&[(READER, reads_pods()), ("b", binding(subject))]);
            let allowed = "RBAC: allowed by RoleBinding \"b/a\" of ClusterRole \"reader\" to ServiceAccount \"bot/a\"";
            assert_eq!(said(&bound, &bot, "a"), allowed);
            assert_eq!(said(&bound, &Identity::service_account("b", "bot", ""), "a"), "no");
        }
        let group = json!({"kind": "Group", "name": "system:serviceaccounts:a"});
        assert_ne!(said(&policy(&[(READER, reads_pods()), ("b", binding(group))]), &bot, "a"), "no");
    }

    #[test]
    fn b4_a_missing_role_gives_nothing_and_is_told() {
        let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "gone"},
            "subjects": [{"kind": "User", "name": "jane"}]});
        let jane = Identity::new("jane", []);
        let told = "no clusterrole.rbac.authorization.k8s.io \"gone\" not found";
        assert_eq!(said(&policy(&[("b", binding)]), &jane, "a"), told);
    }
}
