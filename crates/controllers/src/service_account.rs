//! ServiceAccount: every namespace has what its pods prove themselves and the API by.
//!
//! Goal        each namespace that is not ending has the ServiceAccount `default` and the cluster's root certificate
//! Watches     Namespace; ServiceAccount and ConfigMap (of these names)
//! Writes      ServiceAccount `default`: create · ConfigMap `kube-root-ca.crt`: create, data
//!
//! Rules
//!   R1 account     a namespace without ServiceAccount `default` gets one
//!   R2 root        a namespace without ConfigMap `kube-root-ca.crt` gets one, when there is a certificate to publish; one
//!                  that holds another certificate gets ours back
//!   R3 ending      an ending namespace gets nothing
//! Not here       tokens (API)

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use windlass_api::kinds;
use windlass_client::{Cache, Caches, Key, Scope};

use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};

const ACCOUNT: &str = "default";
const ROOT: &str = "kube-root-ca.crt";
/// How long until certificates are looked at again that have not come yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The controller of what every namespace has.
pub(crate) struct ServiceAccounts {
    namespaces: Cache,
    accounts: Cache,
    /// The published certificates: the only ConfigMaps that are looked into.
    roots: Cache,
    root_ca_pem: Arc<str>,
}

/// What a decision about one namespace depends on.
pub(crate) struct View {
    namespace: String,
    is_ending: bool,
    has_account: bool,
    root: Root,
    root_ca_pem: Arc<str>,
}

/// The published certificate of a namespace.
enum Root {
    Missing,
    /// Which there are has not come yet.
    Unseen,
    AsPublished,
    Changed(Target),
}

impl ServiceAccounts {
    pub(crate) fn new(caches: &Caches, root_ca_pem: &str) -> ServiceAccounts {
        ServiceAccounts {
            namespaces: caches.of(&kinds::NAMESPACE),
            accounts: caches.of(&kinds::SERVICE_ACCOUNT),
            roots: Cache::start(caches.client().clone(), &kinds::CONFIG_MAP, Scope::named(None, ROOT)),
            root_ca_pem: root_ca_pem.into(),
        }
    }
}

/// A namespace is looked at when its object of this name changes or goes.
fn named(kind: &windlass_api::Kind, name: &'static str) -> Wake {
    Wake::new(kind, move |change, wake| {
        if change.key.name() == name {
            wake(Key::new("", change.key.namespace()));
        }
    })
}

impl Controller for ServiceAccounts {
    type View = View;
    const NAME: &'static str = "serviceaccount";

    fn wakes(&self) -> Vec<Wake> {
        vec![
            Wake::itself(&kinds::NAMESPACE),
            named(&kinds::SERVICE_ACCOUNT, ACCOUNT),
            named(&kinds::CONFIG_MAP, ROOT).of(self.roots.clone()),
        ]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let namespace = self.namespaces.get_key(key.as_str())?;
        Some(View {
            namespace: key.name().to_owned(),
            is_ending: namespace.header.is_ending(),
            has_account: self.accounts.get(key.name(), ACCOUNT).is_some(),
            root: self.root(key.name()),
            root_ca_pem: Arc::clone(&self.root_ca_pem),
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        if view.is_ending {
            return plan;
        }
        let namespace = &view.namespace;
        if !view.has_account {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": ACCOUNT, "namespace": namespace}});
            let why = format!("pods of namespace {namespace} that name no account need one");
            plan.create(&kinds::SERVICE_ACCOUNT, namespace, account, why);
        }
        if view.root_ca_pem.is_empty() {
            return plan;
        }
        if let Root::Changed(target) = &view.root {
            let why = format!("pods of namespace {namespace} need the cluster's root certificate, not another");
            plan.patch(target.clone(), json!({"data": {"ca.crt": &*view.root_ca_pem}}), why);
        }
        if let Root::Unseen = view.root {
            plan.look_again(LOOK_AGAIN, "the published certificates have come by then");
        }
        if let Root::Missing = view.root {
            let root = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": ROOT, "namespace": namespace,
                    "annotations": {"kubernetes.io/description":
                        "The certificate authority of this cluster's API, for pods to check it by."}},
                "data": {"ca.crt": &*view.root_ca_pem}});
            let why = format!("pods of namespace {namespace} need the cluster's root certificate");
            plan.create(&kinds::CONFIG_MAP, namespace, root, why);
        }
        plan
    }
}

impl ServiceAccounts {
    fn root(&self, namespace: &str) -> Root {
        if !self.roots.is_synced() {
            return Root::Unseen;
        }
        let Some(found) = self.roots.get(namespace, ROOT) else { return Root::Missing };
        let is_ours = found.value()["data"]["ca.crt"] == *self.root_ca_pem;
        if is_ours { Root::AsPublished } else { Root::Changed(Target::of(&kinds::CONFIG_MAP, &found.header)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Controller, Root, ServiceAccounts, View};
    use crate::fixture::check;
    use crate::plan::Target;
    use windlass_api::kinds;
    use windlass_client::Key;

    fn view() -> View {
        View {
            namespace: "a".to_owned(),
            is_ending: false,
            has_account: true,
            root: Root::AsPublished,
            root_ca_pem: "PEM".into(),
        }
    }

    #[test]
    fn r1_r2_a_namespace_gets_its_account_and_root() {
        check(&ServiceAccounts::plan(&view()), "");
        check(
            &ServiceAccounts::plan(&View { has_account: false, root: Root::Missing, ..view() }),
            "create serviceaccounts a/default: pods of namespace a that name no account need one
             create configmaps a/kube-root-ca.crt: pods of namespace a need the cluster's root certificate",
        );
        check(&ServiceAccounts::plan(&View { root: Root::Missing, root_ca_pem: "".into(), ..view() }), "");
        let target =
            Target { kind: kinds::CONFIG_MAP.clone(), key: Key::new("a", "kube-root-ca.crt"), uid: "u".to_owned() };
        let plan = ServiceAccounts::plan(&View { root: Root::Changed(target), ..view() });
        assert_eq!(plan.items[0].why, "pods of namespace a need the cluster's root certificate, not another");
        assert!(ServiceAccounts::plan(&View { root: Root::Unseen, ..view() }).again.is_some());
    }

    #[test]
    fn r3_an_ending_namespace_gets_nothing() {
        check(&ServiceAccounts::plan(&View { is_ending: true, has_account: false, ..view() }), "");
    }
}
