//! ClusterRole: a role that is made of others holds what they hold.
//!
//! Goal        the rules of a role with an aggregationRule == those of the roles it selects, in order of their names
//! Watches     ClusterRole
//! Writes      ClusterRole: rules
//!
//! Rules, in order
//!   R1 plain      a role without an aggregationRule is left alone
//!   R2 union      rules of every role that any of its selectors takes, each once; a role never takes itself
//!   R3 settled    nothing is written where nothing differs
//! Source: authorization reference, "Aggregated ClusterRoles".

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::field::{Errors, Path};
use windlass_api::kinds;
use windlass_api::selector::LabelSelector;
use windlass_client::{Cache, Cached, Caches, Key};

use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};

/// The controller of ClusterRoles.
pub(crate) struct ClusterRoles {
    roles: Cache,
}

/// What a decision about one role depends on.
pub(crate) struct View {
    role: Arc<Cached>,
    /// All roles, by name.
    others: Vec<Arc<Cached>>,
}

impl ClusterRoles {
    pub(crate) fn new(caches: &Caches) -> ClusterRoles {
        ClusterRoles { roles: caches.of(&kinds::CLUSTER_ROLE) }
    }
}

impl Controller for ClusterRoles {
    type View = View;
    const NAME: &'static str = "clusterrole";

    fn wakes(&self) -> Vec<Wake> {
        let roles = self.roles.clone();
        // Whatever a role gains or loses, those that are made of others may gain or lose too.
        let all = Wake::new(&kinds::CLUSTER_ROLE, move |_, wake| {
            for role in roles.list() {
                if !selectors(&role).is_empty() {
                    wake(Key::of(&role.header));
                }
            }
        });
        vec![all]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let role = self.roles.get_key(key.as_str())?;
        let mut others = self.roles.list();
        others.sort_by(|left, right| left.header.name().cmp(right.header.name()));
        Some(View { role, others })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::nothing();
        let selectors = selectors(&view.role);
        if view.role.header.is_ending() || selectors.is_empty() {
            return plan;
        }
        let name = view.role.header.name();
        let taken = view.others.iter().filter(|other| other.header.name() != name);
        let taken = taken.filter(|other| selectors.iter().any(|selector| selector.matches(&other.header.labels())));
        let mut rules: Vec<Value> = Vec::new();
        for rule in taken.flat_map(|other| rules_of(other)) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        if rules != rules_of(&view.role) {
            let why = format!("clusterrole {name} is made of roles that hold {} rules", rules.len());
            plan.patch(Target::of(&kinds::CLUSTER_ROLE, &view.role.header), json!({ "rules": rules }), why);
        }
        plan
    }
}

/// The selectors of a role that is made of others; none of any other.
fn selectors(role: &Cached) -> Arc<Vec<LabelSelector>> {
    role.memo(|role| {
        let tree: Value = serde_json::from_slice(&role.json).unwrap_or_default();
        let found = tree["aggregationRule"]["clusterRoleSelectors"].as_array().cloned().unwrap_or_default();
        let mut errors = Errors::new();
        found.iter().map(|json| LabelSelector::from_json(json, &Path::root(), &mut errors)).collect()
    })
}

fn rules_of(role: &Cached) -> Vec<Value> {
    role.value()["rules"].as_array().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{ClusterRoles, View};
    use crate::controller::Controller;
    use crate::fixture::{check, object};
    use serde_json::{Value, json};

    fn role(name: &str, label: &str, verbs: &[&str]) -> Value {
        let rules: Vec<Value> =
            verbs.iter().map(|verb| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]})).collect();
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "uid": "u", "labels": {label: "true"}}, "rules": rules})
    }

    fn made_of(mut role: Value, label: &str) -> Value {
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        role
    }

    fn view(role: &Value, others: &[Value]) -> View {
        View { role: object(role), others: others.iter().map(object).collect() }
    }

    #[test]
    fn r1_a_plain_role_is_left_alone() {
        let plain = role("a", "x", &["get"]);
        check(&ClusterRoles::plan(&view(&plain, &[plain.clone(), role("b", "x", &["list"])])), "");
    }

    #[test]
    fn r2_a_role_holds_what_it_selects_once_and_never_itself() {
        let all = made_of(role("all", "to-all", &["eat"]), "to-all");
        let others = [
            all.clone(),
            role("b", "to-all", &["get", "list"]),
            role("c", "to-all", &["get"]),
            role("d", "other", &["watch"]),
        ];
        let plan = ClusterRoles::plan(&view(&all, &others));
        let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
        let crate::plan::Action::Patch { patch: windlass_client::Patch::Merge(patch), .. } = &plan.items[0].action
        else {
            panic!("expected a patch, found {plan}")
        };
        assert_eq!((plan.items.len(), &patch["rules"]), (1, &rules));
        assert_eq!(plan.items[0].why, "clusterrole all is made of roles that hold 2 rules");
    }

    #[test]
    fn r3_nothing_is_written_where_nothing_differs() {
        let all = made_of(role("all", "x", &["get"]), "to-all");
        check(&ClusterRoles::plan(&view(&all, &[all.clone(), role("b", "to-all", &["get"])])), "");
    }
}
