//! The ResourceClaims of pods: a pod that names the template of a claim gets a claim of its own, which goes with it.
//!
//! Goal        for each claim of a pod that is to be made from a template there is a ResourceClaim that the pod owns, and
//!             the pod's status names it
//! Watches     Pod; ResourceClaim (of these pods); ResourceClaimTemplate
//! Writes      ResourceClaim: create, reservedFor of pods that were bound by somebody else · Pod: status.resourceClaimStatuses
//! Relies on   `garbage` deletes what belonged to a pod that is gone; `resource_claim` what one that is over leaves
//!
//! Rules
//!   R1 made       a missing claim is made from the template, with its labels and annotations, under a name of its own
//!   R2 named      the pod's status names the claim that was made
//!   R3 strange    a claim that the status names and that is not the pod's does not count: another one is made
//!   R4 waiting    without the template nothing is made, and the pod is told
//!   R5 reserved   a bound pod that nobody has reserved its allocated claim for gets that, if there is room
//! Not here        which devices a claim gets (scheduler) · what becomes of it when its pods are over (resource_claim)
//! Source: Kubernetes documentation, "Dynamic Resource Allocation"; KEP-4381.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::device::{self, Claim, ClaimName, POD_CLAIM, PodClaim, USERS_MAX};
use windlass_api::{Header, kinds};
use windlass_client::{Cache, Cached, Caches, Key, ObjectRef, Patch};

use crate::controller::{Controller, Look, Wake};
use crate::plan::{Plan, Target};

/// The longest beginning of a generated name: a hyphen and five characters follow, and all of it is a label.
const BASE_BYTES_MAX: usize = 57;
const FAILED: &str = "FailedResourceClaimCreation";

/// The controller of claims that are made for pods.
pub(crate) struct PodResourceClaims {
    pods: Cache,
    claims: Cache,
    templates: Cache,
}

/// What a decision about one pod depends on.
pub(crate) struct View {
    about: ObjectRef,
    target: Target,
    wanted: Vec<Wanted>,
    /// Claims that are the pod's and not reserved for it although it is bound.
    unreserved: Vec<Target>,
}

/// A claim that is to be made from a template.
struct Wanted {
    /// What the pod calls it.
    name: String,
    template: String,
    /// What the template says; `None` where there is none.
    spec: Option<Value>,
    /// The claim that there is.
    made: Option<String>,
    /// The claim that the status names.
    named: Option<String>,
}

impl PodResourceClaims {
    pub(crate) fn new(caches: &Caches) -> PodResourceClaims {
        PodResourceClaims {
            pods: caches.of(&kinds::POD),
            claims: caches.of(&kinds::RESOURCE_CLAIM),
            templates: caches.of(&kinds::RESOURCE_CLAIM_TEMPLATE),
        }
    }

    /// R1, R3.
    fn wanted(&self, pod: &Header, asked: &PodClaim) -> Option<Wanted> {
        let template = asked.template.clone()?;
        let named = match &asked.claim {
            ClaimName::Is(name) => Some(name.clone()),
            ClaimName::NotYet => None,
            ClaimName::NoNeed => return None,
        };
        let mut own = self.claims.owned_by(pod.uid());
        own.retain(|claim| claim.header.namespace() == pod.namespace());
        let is_named = |claim: &&Arc<Cached>| named.as_deref() == Some(claim.header.name());
        let is_meant = |claim: &&Arc<Cached>| claim.memo(Claim::read).pod_claim == asked.name;
        let found = own.iter().find(is_named).or_else(|| own.iter().find(is_meant));
        let spec = || Some(self.templates.get(pod.namespace(), &template)?.value()["spec"].take());
        Some(Wanted {
            name: asked.name.clone(),
            spec: if found.is_none() { spec() } else { None },
            made: found.map(|claim| claim.header.name().to_owned()),
            named,
            template,
        })
    }

    /// R5.
    fn unreserved(&self, pod: &Header, asked: &PodClaim) -> Option<Target> {
        let ClaimName::Is(name) = &asked.claim else { return None };
        let object = self.claims.get(pod.namespace(), name).filter(|_| !pod.node_name().is_empty())?;
        let claim = object.memo(Claim::read);
        let is_own = asked.template.is_none() || claim.owner.as_ref().is_some_and(|(_, uid)| uid == pod.uid());
        let may = claim.is_allocated && !claim.is_ending && claim.users.len() < USERS_MAX;
        (is_own && may && !claim.is_used_by(pod.uid())).then(|| Target::of(&kinds::RESOURCE_CLAIM, &object.header))
    }
}

fn is_over(header: &Header) -> bool {
    header.is_ending() || matches!(header.phase(), "Succeeded" | "Failed")
}

impl Controller for PodResourceClaims {
    type View = View;
    const NAME: &'static str = "podresourceclaim";

    fn wakes(&self) -> Vec<Wake> {
        let pods = self.pods.clone();
        let of_templates = Wake::new(&kinds::RESOURCE_CLAIM_TEMPLATE, move |change, wake| {
            for pod in pods.in_namespace(change.key.namespace()) {
                let is_meant = |claim: &PodClaim| {
                    claim.claim == ClaimName::NotYet && claim.template.as_deref() == Some(change.key.name())
                };
                if pod.memo(device::pod_claims).iter().any(is_meant) {
                    wake(Key::of(&pod.header));
                }
            }
        });
        let pods = self.pods.clone();
        // Only R5 waits for a claim that is not the pod's own.
        let of_claims = Wake::new(&kinds::RESOURCE_CLAIM, move |change, wake| {
            let Some(claim) = change.new.as_ref().map(|claim| claim.memo(Claim::read)) else { return };
            if !claim.is_allocated || claim.owner.is_some() {
                return;
            }
            for pod in pods.in_namespace(change.key.namespace()) {
                let waits = !pod.header.node_name().is_empty() && !claim.is_used_by(pod.header.uid());
                let named = ClaimName::Is(change.key.name().to_owned());
                if waits && pod.memo(device::pod_claims).iter().any(|claim| claim.claim == named) {
                    wake(Key::of(&pod.header));
                }
            }
        });
        let of_own = Wake::owner(&kinds::RESOURCE_CLAIM, &kinds::POD);
        vec![Wake::itself(&kinds::POD), of_own, of_templates, of_claims]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let pod = self.pods.get_key(key.as_str())?;
        let header = &pod.header;
        let claims = pod.memo(device::pod_claims);
        if claims.is_empty() || is_over(header) {
            return None;
        }
        Some(View {
            about: ObjectRef::of(header),
            target: Target::of(&kinds::POD, header),
            wanted: claims.iter().filter_map(|asked| self.wanted(header, asked)).collect(),
            unreserved: claims.iter().filter_map(|asked| self.unreserved(header, asked)).collect(),
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        for wanted in view.wanted.iter().filter(|wanted| wanted.made.is_none()) {
            view.make(wanted, &mut plan);
        }
        view.name(&mut plan);
        for claim in &view.unreserved {
            let user = json!({"resource": "pods", "name": view.about.name, "uid": view.about.uid});
            let patch = json!({"metadata": {"uid": claim.uid}, "status": {"reservedFor": [user]}});
            let why = format!("pod {} was bound without it", view.about.name);
            plan.patch_status(claim.clone(), Patch::Strategic(patch), why);
        }
        plan
    }
}

impl View {
    /// R1, R4.
    fn make(&self, wanted: &Wanted, plan: &mut Plan) {
        let (about, name) = (&self.about, &wanted.name);
        let Some(spec) = &wanted.spec else {
            let why = format!(
                "PodResourceClaim {name}: resource claim template {:?}: resourceclaimtemplate.resource.k8s.io {:?} not found",
                wanted.template, wanted.template
            );
            plan.say(about.clone(), FAILED, why).as_warning();
            return;
        };
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": about.name, "uid": about.uid,
            "controller": true, "blockOwnerDeletion": true});
        let mut annotations = spec["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        annotations.insert(POD_CLAIM.to_owned(), json!(name));
        let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"generateName": base(&about.name, name), "namespace": about.namespace,
                "ownerReferences": [owner], "labels": spec["metadata"]["labels"], "annotations": annotations},
            "spec": spec["spec"]});
        let why = format!("pod {} brings its claim {name} along", about.name);
        let item = plan.create(&kinds::RESOURCE_CLAIM, &about.namespace, claim, why);
        item.tell_only_failure(about.clone(), FAILED);
    }

    /// R2.
    fn name(&self, plan: &mut Plan) {
        let news = self.wanted.iter().filter(|wanted| wanted.made.is_some() && wanted.made != wanted.named);
        let statuses: Vec<Value> =
            news.map(|wanted| json!({"name": wanted.name, "resourceClaimName": wanted.made})).collect();
        if statuses.is_empty() {
            return;
        }
        let patch = json!({"metadata": {"uid": self.about.uid}, "status": {"resourceClaimStatuses": statuses}});
        let why = "its claims are made";
        plan.patch_status(self.target.clone(), Patch::Strategic(patch), why);
    }
}

/// How the name of a claim begins: where both names are too long, each gives up its share.
fn base(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= BASE_BYTES_MAX {
        return whole;
    }
    let part = |name: &str| name[..name.floor_char_boundary(name.len() * BASE_BYTES_MAX / whole.len())].to_owned();
    format!("{}-{}", part(pod), part(claim))
}

#[cfg(test)]
mod tests {
    use super::{Controller, PodResourceClaims, View, Wanted, base};
    use crate::fixture::{check, object};
    use crate::plan::{Action, Target};
    use serde_json::{Value, json};
    use windlass_api::kinds;
    use windlass_client::ObjectRef;

    fn view(spec: Option<Value>, made: Option<&str>, named: Option<&str>) -> View {
        let pod = object(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "uid": "u"}}),
        );
        let wanted = Wanted {
            name: "gpu".to_owned(),
            template: "t".to_owned(),
            spec,
            made: made.map(str::to_owned),
            named: named.map(str::to_owned),
        };
        View {
            about: ObjectRef::of(&pod.header),
            target: Target::of(&kinds::POD, &pod.header),
            wanted: vec![wanted],
            unreserved: Vec::new(),
        }
    }

    #[test]
    fn r1_and_r3_a_missing_claim_is_made_with_what_its_template_says() {
        let spec = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"devices": {}}});
        for named in [None, Some("somebody-elses")] {
            let plan = PodResourceClaims::plan(&view(Some(spec.clone()), None, named));
            check(&plan, "create resourceclaims ns/p-gpu-: pod p brings its claim gpu along");
            let Action::Create { object, .. } = &plan.items[0].action else { panic!("{plan}") };
            assert_eq!(object["metadata"]["annotations"]["resource.kubernetes.io/pod-claim-name"], "gpu");
            assert_eq!(object["metadata"]["annotations"]["c"], "d");
            assert_eq!(object["metadata"]["labels"], json!({"a": "b"}));
            assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u");
        }
    }

    #[test]
    fn r2_the_status_names_what_was_made() {
        let made = view(None, Some("p-gpu-x"), None);
        check(&PodResourceClaims::plan(&made), "patch pods ns/p status: its claims are made");
        check(&PodResourceClaims::plan(&view(None, Some("p-gpu-x"), Some("p-gpu-x"))), "");
    }

    #[test]
    fn r4_without_the_template_the_pod_is_told() {
        let plan = PodResourceClaims::plan(&view(None, None, None));
        check(
            &plan,
            "tell ns/p FailedResourceClaimCreation: PodResourceClaim gpu: resource claim template \"t\": \
             resourceclaimtemplate.resource.k8s.io \"t\" not found",
        );
    }

    #[test]
    fn r5_a_bound_pods_claim_is_reserved_for_it() {
        let claim = Target { kind: kinds::RESOURCE_CLAIM.clone(), key: "ns/c".into(), uid: "c".to_owned() };
        let bound = View { wanted: Vec::new(), unreserved: vec![claim], ..view(None, None, None) };
        check(&PodResourceClaims::plan(&bound), "patch resourceclaims ns/c status: pod p was bound without it");
    }

    #[test]
    fn r1_long_names_give_up_their_shares() {
        assert_eq!(base("p", "gpu"), "p-gpu-");
        let long = base(&"p".repeat(60), &"c".repeat(30));
        assert!(long.len() <= 57 && long.contains("pppp-cccc"), "{long}");
    }
}
