//! ServiceAccount: every namespace has what its pods prove themselves and the API by.
//!
//! Goal        each namespace that is not ending has the ServiceAccount `default` and the cluster's root certificate
//! Watches     Namespace; ServiceAccount and ConfigMap (of these names)
//! Writes      ServiceAccount `default`: create · ConfigMap `kube-root-ca.crt`: create
//!
//! Rules
//!   R1 account     a namespace without ServiceAccount `default` gets one
//!   R2 root        a namespace without ConfigMap `kube-root-ca.crt` gets one, when there is a certificate to publish
//!   R3 ending      an ending namespace gets nothing
//! Not here       tokens (API)

use std::sync::Arc;

use serde_json::json;
use windlass_api::kinds;
use windlass_client::{Cache, Caches, Key};

use crate::controller::{Controller, Look, Wake};
use crate::plan::Plan;

const ACCOUNT: &str = "default";
const ROOT: &str = "kube-root-ca.crt";

/// The controller of what every namespace has.
pub(crate) struct ServiceAccounts {
    namespaces: Cache,
    accounts: Cache,
    config_maps: Cache,
    root_ca_pem: Arc<str>,
}

/// What a decision about one namespace depends on.
pub(crate) struct View {
    namespace: String,
    is_ending: bool,
    has_account: bool,
    has_root: bool,
    root_ca_pem: Arc<str>,
}

impl ServiceAccounts {
    pub(crate) fn new(caches: &Caches, root_ca_pem: &str) -> ServiceAccounts {
        ServiceAccounts {
            namespaces: caches.of(&kinds::NAMESPACE),
            accounts: caches.of(&kinds::SERVICE_ACCOUNT),
            config_maps: caches.of(&kinds::CONFIG_MAP),
            root_ca_pem: root_ca_pem.into(),
        }
    }
}

/// A namespace is looked at when its object of this name goes.
fn gone(kind: &windlass_api::Kind, name: &'static str) -> Wake {
    Wake::new(kind, move |change, wake| {
        if change.new.is_none() && change.key.name() == name {
            wake(Key::new("", change.key.namespace()));
        }
    })
}

impl Controller for ServiceAccounts {
    type View = View;
    const NAME: &'static str = "serviceaccount";

    fn wakes(&self) -> Vec<Wake> {
        vec![Wake::itself(&kinds::NAMESPACE), gone(&kinds::SERVICE_ACCOUNT, ACCOUNT), gone(&kinds::CONFIG_MAP, ROOT)]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let namespace = self.namespaces.get_key(key.as_str())?;
        Some(View {
            namespace: key.name().to_owned(),
            is_ending: namespace.header.is_ending(),
            has_account: self.accounts.get(key.name(), ACCOUNT).is_some(),
            has_root: self.config_maps.get(key.name(), ROOT).is_some(),
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
        if !view.has_root && !view.root_ca_pem.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::{Controller, ServiceAccounts, View};
    use crate::fixture::check;

    fn view() -> View {
        View {
            namespace: "a".to_owned(),
            is_ending: false,
            has_account: true,
            has_root: true,
            root_ca_pem: "PEM".into(),
        }
    }

    #[test]
    fn r1_r2_a_namespace_gets_its_account_and_root() {
        check(&ServiceAccounts::plan(&view()), "");
        check(
            &ServiceAccounts::plan(&View { has_account: false, has_root: false, ..view() }),
            "create serviceaccounts a/default: pods of namespace a that name no account need one
             create configmaps a/kube-root-ca.crt: pods of namespace a need the cluster's root certificate",
        );
        check(&ServiceAccounts::plan(&View { has_root: false, root_ca_pem: "".into(), ..view() }), "");
    }

    #[test]
    fn r3_an_ending_namespace_gets_nothing() {
        check(&ServiceAccounts::plan(&View { is_ending: true, has_account: false, ..view() }), "");
    }
}
