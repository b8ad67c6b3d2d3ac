//! ResourceClaim: who uses it is known, and nobody's devices are free again.
//!
//! Goal        a claim is reserved only for pods that may still run; when the last of them is over its devices are given
//!             back, and a claim that was made for it goes
//! Watches     ResourceClaim; Pod (those that end)
//! Writes      ResourceClaim: reservedFor and allocation (taken away), finalizer (taken away), delete
//! Relies on   the scheduler puts the finalizer on before it allocates; a node says that a pod is over only when its
//!             devices are given back there
//!
//! Rules, in order
//!   R1 over        a pod that is over, gone or another one by now is no user any more; whether it is gone the API says
//!   R2 given back  with its last user a claim loses its devices
//!   R3 ending      a claim that ends and that nobody uses loses its devices, and then what keeps it
//!   R4 own         a claim that was made for a pod goes when that pod is over or has been replaced
//! Not here        the finalizer of a claim that goes on: it does no harm, and a claim that is allocated anew needs it
//! Source: Kubernetes documentation, "Dynamic Resource Allocation"; KEP-4381.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::device::{self, Claim, ClaimName, FINALIZER, User};
use windlass_api::{Header, kinds};
use windlass_client::{Cache, Caches, Key, Patch};

use crate::controller::{Controller, Look, Wake};
use crate::plan::{Guard, Plan, Target};

/// The controller of claims' users.
pub(crate) struct ResourceClaims {
    claims: Cache,
    pods: Cache,
}

/// What a decision about one claim depends on.
pub(crate) struct View {
    target: Target,
    claim: Arc<Claim>,
    /// Its users, and what has become of them.
    users: Vec<(User, Became)>,
    /// The pod that it was made for.
    owner: Option<Became>,
}

/// What has become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    /// It may run.
    Lives,
    /// It will not run any more.
    Over,
    /// Another one has its name.
    Replaced,
    /// We do not see it.
    Unseen,
}

impl ResourceClaims {
    pub(crate) fn new(caches: &Caches) -> ResourceClaims {
        ResourceClaims { claims: caches.of(&kinds::RESOURCE_CLAIM), pods: caches.of(&kinds::POD) }
    }

    fn became(&self, namespace: &str, name: &str, uid: &str) -> Became {
        match self.pods.get(namespace, name) {
            None => Became::Unseen,
            Some(pod) if pod.header.uid() != uid => Became::Replaced,
            Some(pod) if is_over(&pod.header) => Became::Over,
            Some(_) => Became::Lives,
        }
    }
}

/// Whether no container of a pod runs, nor ever will.
fn is_over(pod: &Header) -> bool {
    matches!(pod.phase(), "Succeeded" | "Failed") || pod.is_ending() && pod.node_name().is_empty()
}

impl Controller for ResourceClaims {
    type View = View;
    const NAME: &'static str = "resourceclaim";

    fn wakes(&self) -> Vec<Wake> {
        let of_pods = Wake::new(&kinds::POD, move |change, wake| {
            let uid = |pod: &Option<Arc<windlass_client::Cached>>| pod.as_ref().map(|pod| pod.header.uid().to_owned());
            let is_same = uid(&change.old) == uid(&change.new);
            if is_same && change.new.as_ref().is_some_and(|pod| !is_over(&pod.header)) {
                return;
            }
            for pod in [&change.old, &change.new].into_iter().flatten() {
                for claim in pod.memo(device::pod_claims).iter() {
                    if let ClaimName::Is(name) = &claim.claim {
                        wake(Key::new(pod.header.namespace(), name));
                    }
                }
            }
        });
        vec![Wake::itself(&kinds::RESOURCE_CLAIM), of_pods]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let object = self.claims.get_key(key.as_str())?;
        let (claim, namespace) = (object.memo(Claim::read), object.header.namespace());
        let became = |user: &User| match user.is_pod {
            true => self.became(namespace, &user.name, &user.uid),
            false => Became::Lives,
        };
        Some(View {
            target: Target::of(&kinds::RESOURCE_CLAIM, &object.header),
            users: claim.users.iter().map(|user| (user.clone(), became(user))).collect(),
            owner: claim.owner.as_ref().map(|(name, uid)| self.became(namespace, name, uid)),
            claim,
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        if view.users.iter().any(|(_, became)| *became != Became::Lives) {
            view.strike_off(&mut plan);
        } else if view.users.is_empty() {
            view.let_go(&mut plan);
        }
        plan
    }
}

impl View {
    /// A status that holds only for the claim as it was seen.
    fn status(&self, status: Value) -> Patch {
        Patch::Strategic(json!({"metadata": {"resourceVersion": self.claim.revision.to_string()}, "status": status}))
    }

    /// R1, R2.
    fn strike_off(&self, plan: &mut Plan) {
        let over: Vec<&User> =
            self.users.iter().filter(|(_, became)| *became != Became::Lives).map(|(user, _)| user).collect();
        let is_last = over.len() == self.users.len();
        let struck: Vec<Value> = over.iter().map(|user| json!({"$patch": "delete", "uid": user.uid})).collect();
        let status = match is_last {
            true => json!({"reservedFor": null, "allocation": null, "devices": null}),
            false => json!({"reservedFor": struck}),
        };
        let names: Vec<&str> = over.iter().map(|user| user.name.as_str()).collect();
        let why = format!("pod {} does not use it any more", names.join(", "));
        let gone = self.users.iter().filter(|(_, became)| matches!(became, Became::Unseen | Became::Replaced));
        let gone: Vec<Target> = gone
            .map(|(user, _)| Target {
                kind: kinds::POD.clone(),
                key: Key::new(self.target.key.namespace(), &user.name),
                uid: user.uid.clone(),
            })
            .collect();
        let item = plan.patch_status(self.target.clone(), self.status(status), why);
        if !gone.is_empty() {
            item.guard(Guard::Absent(gone));
        }
    }

    /// R3, R4.
    fn let_go(&self, plan: &mut Plan) {
        let claim = &self.claim;
        if claim.is_ending && claim.is_allocated {
            let status = self.status(json!({"allocation": null, "devices": null}));
            plan.patch_status(self.target.clone(), status, "it ends, and nobody uses it");
        } else if claim.is_ending && claim.finalizers.iter().any(|found| found == FINALIZER) {
            let left: Vec<&String> = claim.finalizers.iter().filter(|found| *found != FINALIZER).collect();
            let patch = json!({"metadata": {"finalizers": left, "resourceVersion": claim.revision.to_string()}});
            plan.patch(self.target.clone(), patch, "it has no devices any more");
        } else if !claim.is_ending && matches!(self.owner, Some(Became::Over | Became::Replaced)) {
            plan.delete(self.target.clone(), "the pod that it was made for is over");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Became, Controller, ResourceClaims, View};
    use crate::fixture::{check, object};
    use crate::plan::{Action, Plan, Target};
    use serde_json::{Value, json};
    use windlass_api::device::Claim;
    use windlass_api::kinds;
    use windlass_client::Patch;

    fn view(users: &[(&str, Became)], change: Value, owner: Option<Became>) -> View {
        let reserved: Vec<Value> =
            users.iter().map(|(name, _)| json!({"resource": "pods", "name": name, "uid": name})).collect();
        let mut claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
            "status": {"allocation": {"devices": {}}, "reservedFor": reserved}});
        crate::fixture::change(&mut claim, change);
        let object = object(&claim);
        let claim = object.memo(Claim::read);
        View {
            target: Target::of(&kinds::RESOURCE_CLAIM, &object.header),
            users: claim.users.iter().cloned().zip(users.iter().map(|(_, became)| *became)).collect(),
            claim,
            owner,
        }
    }

    fn patch(plan: &Plan) -> &Value {
        match &plan.items[0].action {
            Action::Patch { patch: Patch::Strategic(patch) | Patch::Merge(patch), .. } => patch,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn r1_who_is_over_is_no_user_any_more() {
        let plan = ResourceClaims::plan(&view(&[("a", Became::Lives), ("b", Became::Over)], json!({}), None));
        check(&plan, "patch resourceclaims ns/c status: pod b does not use it any more");
        assert_eq!(patch(&plan)["status"], json!({"reservedFor": [{"$patch": "delete", "uid": "b"}]}));
        assert_eq!(patch(&plan)["metadata"]["resourceVersion"], "7");
        assert!(plan.items[0].guard.is_none(), "it was seen to be over");
        for became in [Became::Unseen, Became::Replaced] {
            let plan = ResourceClaims::plan(&view(&[("a", Became::Lives), ("b", became)], json!({}), None));
            assert!(plan.items[0].guard.is_some(), "only the API knows whether it is gone");
        }
        check(&ResourceClaims::plan(&view(&[("a", Became::Lives)], json!({}), None)), "");
    }

    #[test]
    fn r2_with_its_last_user_a_claim_loses_its_devices() {
        let plan = ResourceClaims::plan(&view(&[("a", Became::Over)], json!({}), None));
        check(&plan, "patch resourceclaims ns/c status: pod a does not use it any more");
        assert_eq!(patch(&plan)["status"], json!({"reservedFor": null, "allocation": null, "devices": null}));
        check(&ResourceClaims::plan(&view(&[], json!({}), None)), "");
    }

    #[test]
    fn r3_a_claim_that_ends_loses_its_devices_and_then_what_keeps_it() {
        let ending = |allocation: Value| {
            json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z", "/status/allocation": allocation,
                "/metadata/finalizers": ["other", "resource.kubernetes.io/delete-protection"]})
        };
        let plan = ResourceClaims::plan(&view(&[], ending(json!({"devices": {}})), None));
        check(&plan, "patch resourceclaims ns/c status: it ends, and nobody uses it");
        let plan = ResourceClaims::plan(&view(&[], ending(Value::Null), None));
        check(&plan, "patch resourceclaims ns/c: it has no devices any more");
        assert_eq!(patch(&plan)["metadata"]["finalizers"], json!(["other"]));
        check(&ResourceClaims::plan(&view(&[("a", Became::Lives)], ending(json!({"devices": {}})), None)), "");
    }

    #[test]
    fn r4_a_claim_goes_when_the_pod_that_it_was_made_for_is_over() {
        for became in [Became::Over, Became::Replaced] {
            let plan = ResourceClaims::plan(&view(&[], json!({}), Some(became)));
            check(&plan, "delete resourceclaims ns/c: the pod that it was made for is over");
        }
        for became in [Became::Lives, Became::Unseen] {
            check(&ResourceClaims::plan(&view(&[], json!({}), Some(became))), "");
        }
    }
}
