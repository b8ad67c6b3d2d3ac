//! Disruption budgets as the scheduler reads them: how many pods of each may still make way.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use windlass_api::Object;
use windlass_api::selector::LabelSelector;
use windlass_client::{Cached, Key};

use crate::pod::Footprint;
use crate::term;

/// One budget.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    pub(crate) namespace: String,
    selector: LabelSelector,
    allowed: i64,
    /// Pods that it has let go already.
    gone: BTreeSet<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Wire {
    spec: WireSpec,
    status: WireStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireSpec {
    selector: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    disruptions_allowed: i64,
    disrupted_pods: Option<std::collections::BTreeMap<String, Value>>,
}

impl Budget {
    /// Reads a budget, once for each version of it; one that cannot be read covers no pod.
    pub(crate) fn of(budget: &Cached) -> Arc<Budget> {
        budget.memo(Budget::read)
    }

    pub(crate) fn read(object: &Object) -> Budget {
        let wire: Wire = object.decode().unwrap_or_default();
        Budget {
            namespace: object.header.namespace().to_owned(),
            selector: term::read(&wire.spec.selector),
            allowed: wire.status.disruptions_allowed,
            gone: wire.status.disrupted_pods.into_iter().flatten().map(|(name, _)| name).collect(),
        }
    }

    fn covers(&self, key: &Key, pod: &Footprint) -> bool {
        self.namespace == pod.namespace && self.selector.matches(&pod.labels) && !self.gone.contains(key.name())
    }
}

/// Which of these pods, should they go in this order, would break a budget.
pub(crate) fn breaking<'a>(
    pods: impl IntoIterator<Item = (&'a Key, &'a Footprint)>,
    budgets: &[Arc<Budget>],
) -> BTreeSet<Key> {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.allowed).collect();
    let mut breaking = BTreeSet::new();
    for (key, pod) in pods {
        for (budget, left) in budgets.iter().zip(&mut left).filter(|(budget, _)| budget.covers(key, pod)) {
            *left -= 1;
            if *left < 0 {
                tracing::trace!(pod = %key, budget = budget.namespace, "would break a budget");
                breaking.insert(key.clone());
            }
        }
    }
    breaking
}
