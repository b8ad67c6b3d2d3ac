//! Namespace: an ending namespace is emptied, in order, and then goes.
//!
//! Goal        an ending namespace holds nothing, and a namespace that holds nothing and is ending is gone
//! Watches     Namespace; Pod and what else often stays a while (what goes makes room for the next step)
//! Writes      everything in an ending namespace: delete · Namespace: status conditions, finalize
//! Relies on   the API refuses new objects in an ending namespace
//!
//! Rules, in order
//!   R1 alive       a namespace that is not being deleted is left alone
//!   R2 phase       it says that it is Terminating
//!   R3 order       pods go first, and all else only when the last pod is gone: it may still need it (KEP-5080)
//!   R4 conditions  it says what is left, of whichever kind, and which finalizers it waits for; once something was tried
//!   R5 the rest    then all objects of every other kind go, those of custom kinds last
//!   R6 finalize    when the API itself says that nothing is left the finalizer goes, and with it the namespace
//! Not here       finalizers of the objects inside (their own controllers)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use windlass_api::{Kind, kinds};
use windlass_client::{Cache, Cached, Caches, DeleteOptions, Key, Patch, Propagation};

use crate::condition::{self, Wanted};
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Action, Guard, Left, Plan, Target};
use crate::served::{custom_kind, stored_kinds};

/// Pods deleted by one pass; the next goes on.
const BURST_MAX: usize = 500;
/// How long until what is left is looked at again, should no change wake us.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Kinds whose objects often stay a while: when one goes the namespace is looked at again at once.
const SLOW: [&Kind; 3] = [&kinds::POD, &kinds::PERSISTENT_VOLUME_CLAIM, &kinds::RESOURCE_CLAIM];

/// The controller of Namespaces.
pub(crate) struct Namespaces {
    namespaces: Cache,
    pods: Cache,
    definitions: Cache,
    built_in: Vec<Kind>,
}

/// What a decision about one ending namespace depends on.
pub(crate) struct View {
    namespace: Arc<Cached>,
    pods: Vec<Arc<Cached>>,
    /// The kinds that live in namespaces, the custom ones last.
    kinds: Vec<Kind>,
    /// What the last pass could not get rid of.
    left: Option<Vec<Left>>,
    failure: Option<String>,
    now: Timestamp,
}

impl Namespaces {
    pub(crate) fn new(caches: &Caches) -> Namespaces {
        Namespaces {
            namespaces: caches.of(&kinds::NAMESPACE),
            pods: caches.of(&kinds::POD),
            definitions: caches.of(&kinds::CUSTOM_RESOURCE_DEFINITION),
            built_in: built_in(),
        }
    }
}

fn built_in() -> Vec<Kind> {
    stored_kinds().into_iter().filter(|kind| kind.namespaced).collect()
}

impl Controller for Namespaces {
    type View = View;
    const NAME: &'static str = "namespace";

    fn wakes(&self) -> Vec<Wake> {
        let mut wakes = vec![Wake::itself(&kinds::NAMESPACE)];
        for kind in SLOW {
            let namespaces = self.namespaces.clone();
            wakes.push(Wake::new(kind, move |change, wake| {
                let ending = |name: &str| namespaces.get("", name).is_some_and(|found| found.header.is_ending());
                if change.new.is_none() && ending(change.key.namespace()) {
                    wake(Key::new("", change.key.namespace()));
                }
            }));
        }
        wakes
    }

    fn view(&self, key: &Key, look: &Look) -> Option<View> {
        let namespace = self.namespaces.get_key(key.as_str()).filter(|found| found.header.is_ending())?;
        let definitions = self.definitions.list();
        let custom = definitions.iter().filter_map(|definition| custom_kind(&definition.value()));
        let custom = custom.filter(|kind| kind.namespaced);
        let kinds = self.built_in.iter().cloned().chain(custom).collect();
        Some(View {
            namespace,
            pods: self.pods.in_namespace(key.name()),
            kinds,
            left: look.left.map(<[Left]>::to_vec),
            failure: look.failure.map(str::to_owned),
            now: look.now,
        })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        if !view.namespace.header.is_ending() {
            return plan;
        }
        plan_status(view, &mut plan);
        if view.pods.is_empty() {
            empty(view, &mut plan);
            finalize(view, &mut plan);
        } else {
            end_pods(view, &mut plan);
        }
        plan.look_again(LOOK_AGAIN, "whether the namespace is empty by then");
        plan
    }
}

/// R3: pods go before all else, which they may need to end in order.
fn end_pods(view: &View, plan: &mut Plan) {
    let name = view.namespace.header.name();
    for pod in view.pods.iter().filter(|pod| !pod.header.is_ending()).take(BURST_MAX) {
        let target = Target::of(&kinds::POD, &pod.header);
        let options = DeleteOptions::of_uid(&target.uid).propagate(Propagation::Background);
        plan.add(Action::Delete { target, options }, format!("namespace {name} is being deleted"));
    }
}

/// R5.
fn empty(view: &View, plan: &mut Plan) {
    let name = view.namespace.header.name();
    for kind in &view.kinds {
        let why = format!("namespace {name} is being deleted");
        plan.add(Action::DeleteAll { kind: kind.clone(), namespace: name.to_owned() }, why);
    }
}

/// R6.
fn finalize(view: &View, plan: &mut Plan) {
    let name = view.namespace.header.name();
    let is_empty = Guard::Empty(name.to_owned(), view.kinds.clone());
    let mut namespace = view.namespace.value();
    let has_finalizers = namespace["spec"]["finalizers"].as_array().is_some_and(|left| !left.is_empty());
    if has_finalizers {
        namespace["spec"]["finalizers"] = json!([]);
        plan.add(Action::Finalize { namespace }, format!("namespace {name} is empty")).guard(is_empty);
    } else if view.namespace.header.finalizers().len() == 0 {
        let target = Target::of(&kinds::NAMESPACE, &view.namespace.header);
        plan.delete(target, format!("namespace {name} is empty and nothing holds it")).guard(is_empty);
    }
}

/// R2 and R4.
fn plan_status(view: &View, plan: &mut Plan) {
    let namespace = view.namespace.value();
    let mut conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let before = conditions.clone();
    let left = left(view);
    for wanted in left.iter().flat_map(|left| wanted_conditions(view, left)) {
        condition::set(&mut conditions, &wanted, view.now, false);
    }
    if conditions != before || view.namespace.header.phase() != "Terminating" {
        let left = left.as_deref().map(remaining).filter(|left| !left.is_empty());
        let left = left.unwrap_or_else(|| "nothing is known to be left".to_owned());
        let patch = Patch::Merge(json!({"status": {"phase": "Terminating", "conditions": conditions}}));
        plan.patch_status(Target::of(&kinds::NAMESPACE, &view.namespace.header), patch, format!("ending: {left}"));
    }
}

/// What is left; `None` while that is not known. Nobody looks at the rest while there are pods.
fn left(view: &View) -> Option<Vec<Left>> {
    if view.pods.is_empty() {
        let unknown = || view.failure.as_ref().map(|_| Vec::new());
        return view.left.clone().or_else(unknown);
    }
    let mut pods = Left::of(&kinds::POD);
    for pod in &view.pods {
        pods.count(&pod.header);
    }
    Some(vec![pods])
}

fn wanted_conditions(view: &View, left: &[Left]) -> Vec<Wanted<'static>> {
    let wanted = |kind, status, reason, message| Wanted { kind, status, reason, message };
    let failure = match &view.failure {
        Some(failure) => {
            let message = format!("Failed to delete all resource types, 1 remaining: {failure}");
            wanted("NamespaceDeletionContentFailure", "True", "ContentDeletionFailed", message)
        }
        None => {
            let message = "All content successfully deleted, may be waiting on finalization".to_owned();
            wanted("NamespaceDeletionContentFailure", "False", "ContentDeleted", message)
        }
    };
    let remaining = remaining(left);
    let content = if remaining.is_empty() {
        let message = "All content successfully removed".to_owned();
        wanted("NamespaceContentRemaining", "False", "ContentRemoved", message)
    } else {
        let message = format!("Some resources are remaining: {remaining}");
        wanted("NamespaceContentRemaining", "True", "SomeResourcesRemain", message)
    };
    let held = finalizers(left);
    let held = if held.is_empty() {
        let message = "All content-preserving finalizers finished".to_owned();
        wanted("NamespaceFinalizersRemaining", "False", "ContentHasNoFinalizers", message)
    } else {
        let message = format!("Some content in the namespace has finalizers remaining: {held}");
        wanted("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", message)
    };
    vec![failure, content, held]
}

/// `pods. has 2 resource instances, …` as Kubernetes says it.
fn remaining(left: &[Left]) -> String {
    let parts = left
        .iter()
        .map(|left| format!("{}.{} has {} resource instances", left.kind.plural, left.kind.group, left.count));
    parts.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

fn finalizers(left: &[Left]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in left.iter().flat_map(|left| &left.finalizers) {
        *counts.entry(finalizer).or_default() += count;
    }
    let parts = counts.into_iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Controller, Left, Namespaces, View, built_in};
    use crate::fixture::{check, now, object};
    use crate::plan::{Action, Guard, Plan};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use windlass_api::{Kind, kinds};
    use windlass_client::Patch;

    fn foo() -> Kind {
        Kind { kind: "Foo".into(), plural: "foos".into(), group: "x.io".into(), ..kinds::CONFIG_MAP.clone() }
    }

    fn view(namespace: Value, pods: &[Value], left: Option<Vec<Left>>) -> View {
        let (namespace, pods) = (object(&namespace), pods.iter().map(object).collect());
        let kinds = vec![kinds::EVENT.clone(), kinds::JOB.clone(), foo()];
        View { namespace, pods, kinds, left, failure: None, now: now() }
    }

    fn ending() -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "a", "uid": "n", "deletionTimestamp": "2026-01-01T12:00:00Z"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}})
    }

    fn thing(name: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "a", "uid": name}})
    }

    /// The plan without its status and its next look.
    fn deletions(plan: &Plan) -> Vec<String> {
        let text = plan.to_string();
        let lines = text.lines().filter(|line| !line.contains(" status: ") && !line.starts_with("again"));
        lines.map(str::to_owned).collect()
    }

    /// The conditions that the plan writes: status and message of each.
    fn conditions(plan: &Plan) -> Vec<(String, String)> {
        let Action::Patch { patch: Patch::Merge(patch), .. } = &plan.items[0].action else { panic!("a status") };
        let conditions = patch["status"]["conditions"].as_array().expect("conditions");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        conditions.iter().map(|condition| (text(&condition["status"]), text(&condition["message"]))).collect()
    }

    #[test]
    fn r1_a_namespace_that_is_not_ending_is_left_alone() {
        let alive = json!({"kind": "Namespace", "metadata": {"name": "a"}, "status": {"phase": "Active"}});
        check(&Namespaces::plan(&view(alive, &[thing("p")], None)), "");
    }

    #[test]
    fn r3_pods_go_first_whoever_makes_them() {
        let plan = Namespaces::plan(&view(ending(), &[thing("p"), thing("q")], None));
        let why = "namespace a is being deleted";
        assert_eq!(deletions(&plan), [format!("delete pods a/p: {why}"), format!("delete pods a/q: {why}")]);
    }

    #[test]
    fn r4_it_says_which_pods_are_left_and_what_holds_them() {
        let mut held = thing("p");
        held["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:00:00Z");
        held["metadata"]["finalizers"] = json!(["x.io/keep"]);
        let plan = Namespaces::plan(&view(ending(), &[held], None));
        let said = conditions(&plan);
        assert_eq!(said[1].1, "Some resources are remaining: pods. has 1 resource instances");
        assert_eq!(
            said[2].1,
            "Some content in the namespace has finalizers remaining: x.io/keep in 1 resource instances"
        );
        assert!(deletions(&plan).is_empty(), "what is ending is not deleted again");
    }

    #[test]
    fn r4_it_says_what_is_left_of_any_kind() {
        let left = |kind: &Kind, count, finalizers: &[(&str, usize)]| {
            let finalizers: BTreeMap<String, usize> =
                finalizers.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            Left { kind: kind.clone(), count, finalizers }
        };
        let left = vec![
            left(&kinds::JOB, 2, &[("x.io/keep", 1), ("y.io/keep", 2)]),
            left(&foo(), 3, &[("x.io/keep", 3)]),
            left(&kinds::EVENT, 1, &[]),
        ];
        let said = conditions(&Namespaces::plan(&view(ending(), &[], Some(left))));
        assert_eq!(
            said[1],
            (
                "True".to_owned(),
                "Some resources are remaining: events. has 1 resource instances, foos.x.io has 3 resource instances, \
                 jobs.batch has 2 resource instances"
                    .to_owned()
            )
        );
        assert_eq!(
            said[2].1,
            "Some content in the namespace has finalizers remaining: x.io/keep in 4 resource instances, y.io/keep in 2 \
             resource instances"
        );
        let plan = Namespaces::plan(&view(ending(), &[], None));
        assert!(!plan.to_string().contains(" status: "), "nothing is said before anything was tried: {plan}");
    }

    #[test]
    fn r5_no_kind_is_forgotten() {
        let known = built_in();
        for kind in [&kinds::EVENT, &kinds::JOB, &kinds::RESOURCE_QUOTA, &kinds::POD, &kinds::NETWORK_POLICY] {
            assert_eq!(known.iter().filter(|known| *known == kind).count(), 1, "{}", kind.plural);
        }
        assert!(!known.contains(&kinds::LOCAL_SUBJECT_ACCESS_REVIEW), "nothing is stored of a review");
    }

    #[test]
    fn r6_an_empty_namespace_goes_once_the_api_says_it_is_empty() {
        let plan = Namespaces::plan(&view(ending(), &[], None));
        assert_eq!(
            deletions(&plan),
            [
                "delete events a/*: namespace a is being deleted",
                "delete jobs a/*: namespace a is being deleted",
                "delete foos a/*: namespace a is being deleted",
                "finalize namespaces a: namespace a is empty"
            ]
        );
        let last = plan.items.last().expect("finalize");
        assert!(matches!(&last.guard, Some(Guard::Empty(name, kinds)) if name == "a" && kinds.len() == 3));
        assert!(matches!(&last.action, Action::Finalize { namespace } if namespace["spec"]["finalizers"] == json!([])));
    }
}
