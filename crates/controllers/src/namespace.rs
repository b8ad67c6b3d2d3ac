//! Namespace: an ending namespace is emptied, in order, and then goes.
//!
//! Goal        an ending namespace holds nothing, and a namespace that holds nothing and is ending is gone
//! Watches     Namespace; the kinds that go in order (what goes makes room for the next step)
//! Writes      everything in an ending namespace: delete · Namespace: status conditions, finalize
//! Relies on   the API refuses new objects in an ending namespace
//!
//! Rules, in order
//!   R1 alive       a namespace that is not being deleted is left alone
//!   R2 phase       it says that it is Terminating
//!   R3 order       first what makes pods, then pods, and what pods may still need only when the last pod is gone; objects
//!                  of custom kinds go last
//!   R4 conditions  it says what is left and which finalizers it waits for
//!   R5 the rest    then all objects of every other kind go
//!   R6 finalize    when the API itself says that nothing is left the finalizer goes, and with it the namespace
//! Not here       finalizers of the objects inside (their own controllers)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use windlass_api::{Kind, kinds};
use windlass_client::{Cache, Cached, Caches, DeleteOptions, Key, Patch, Propagation, is_leaf};

use crate::condition::{self, Wanted};
use crate::controller::{Controller, Look, Wake};
use crate::plan::{Action, Guard, Plan, Target};
use crate::served::{custom_kind, stored_kinds};

/// Objects deleted by one pass; the next goes on.
const BURST_MAX: usize = 500;
/// How long until what is left is looked at again, should no change wake us.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What goes in order. Each group waits for the one before.
fn order() -> [Vec<&'static Kind>; 3] {
    [
        vec![&kinds::DEPLOYMENT, &kinds::REPLICA_SET, &kinds::REPLICATION_CONTROLLER],
        vec![&kinds::POD],
        vec![
            &kinds::SERVICE,
            &kinds::ENDPOINT_SLICE,
            &kinds::CONFIG_MAP,
            &kinds::SECRET,
            &kinds::SERVICE_ACCOUNT,
            &kinds::LEASE,
            &kinds::ROLE,
            &kinds::ROLE_BINDING,
        ],
    ]
}

/// The controller of Namespaces.
pub(crate) struct Namespaces {
    namespaces: Cache,
    definitions: Cache,
    content: BTreeMap<Kind, Cache>,
    /// The other kinds with objects in namespaces, of which there are no copies here.
    others: Vec<Kind>,
}

/// What a decision about one ending namespace depends on.
pub(crate) struct View {
    namespace: Arc<Cached>,
    /// What is left, by kind.
    content: BTreeMap<Kind, Vec<Arc<Cached>>>,
    /// The custom kinds that live in namespaces, and the built-in ones of which something may be left that is not seen.
    others: Vec<Kind>,
    failure: Option<String>,
    now: Timestamp,
}

impl Namespaces {
    pub(crate) fn new(caches: &Caches) -> Namespaces {
        let content = order().into_iter().flatten().map(|kind| (kind.clone(), caches.of(kind))).collect();
        let definitions = caches.of(&kinds::CUSTOM_RESOURCE_DEFINITION);
        Namespaces { namespaces: caches.of(&kinds::NAMESPACE), definitions, content, others: others() }
    }
}

/// The built-in kinds that [`order`] leaves out, and those of which it sees only what holds them up.
fn others() -> Vec<Kind> {
    let ordered: BTreeSet<Kind> = order().into_iter().flatten().cloned().collect();
    let stored = stored_kinds().into_iter().filter(|kind| kind.namespaced);
    stored.filter(|kind| !ordered.contains(kind) || is_leaf(kind)).collect()
}

impl Controller for Namespaces {
    type View = View;
    const NAME: &'static str = "namespace";

    fn wakes(&self) -> Vec<Wake> {
        let mut wakes = vec![Wake::itself(&kinds::NAMESPACE)];
        for kind in self.content.keys() {
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
        let left = |cache: &Cache| cache.in_namespace(key.name());
        let content = self.content.iter().map(|(kind, cache)| (kind.clone(), left(cache)));
        let content = content.filter(|(_, left)| !left.is_empty()).collect();
        let definitions = self.definitions.list();
        let custom = definitions.iter().filter_map(|definition| custom_kind(&definition.value()));
        let custom = custom.filter(|kind| kind.namespaced);
        let others = custom.chain(self.others.iter().cloned()).collect();
        Some(View { namespace, content, others, failure: look.failure.map(str::to_owned), now: look.now })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::default();
        if !view.namespace.header.is_ending() {
            return plan;
        }
        plan_status(view, &mut plan);
        let group = order().into_iter().find(|group| group.iter().any(|kind| view.content.contains_key(*kind)));
        match group {
            Some(group) => empty(view, &group, &mut plan),
            None => finalize(view, &mut plan),
        }
        plan.look_again(LOOK_AGAIN, "whether the namespace is empty by then");
        plan
    }
}

/// R3: deletes what is left of one group.
fn empty(view: &View, group: &[&Kind], plan: &mut Plan) {
    let name = view.namespace.header.name();
    for kind in group {
        for object in view.content.get(*kind).into_iter().flatten() {
            if !object.header.is_ending() && plan.items.len() < BURST_MAX {
                let target = Target::of(kind, &object.header);
                let options = DeleteOptions::of_uid(&target.uid).propagate(Propagation::Background);
                plan.add(Action::Delete { target, options }, format!("namespace {name} is being deleted"));
            }
        }
    }
}

/// R5 and R6: the last step.
fn finalize(view: &View, plan: &mut Plan) {
    let name = view.namespace.header.name();
    for kind in &view.others {
        let why = format!("namespace {name} is being deleted");
        plan.add(Action::DeleteAll { kind: kind.clone(), namespace: name.to_owned() }, why);
    }
    let kinds: Vec<Kind> = order().into_iter().flatten().chain(&view.others).cloned().collect();
    let mut namespace = view.namespace.value();
    let has_finalizers = namespace["spec"]["finalizers"].as_array().is_some_and(|left| !left.is_empty());
    if has_finalizers {
        namespace["spec"]["finalizers"] = json!([]);
        plan.add(Action::Finalize { namespace }, format!("namespace {name} is empty"))
            .guard(Guard::Empty(name.to_owned(), kinds));
    } else if view.namespace.header.finalizers().len() == 0 {
        let target = Target::of(&kinds::NAMESPACE, &view.namespace.header);
        plan.delete(target, format!("namespace {name} is empty and nothing holds it"))
            .guard(Guard::Empty(name.to_owned(), kinds));
    }
}

/// R2 and R4.
fn plan_status(view: &View, plan: &mut Plan) {
    let namespace = view.namespace.value();
    let mut conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let before = conditions.clone();
    for wanted in wanted_conditions(view) {
        condition::set(&mut conditions, &wanted, view.now, false);
    }
    if conditions != before || view.namespace.header.phase() != "Terminating" {
        let left = remaining(view);
        let left = if left.is_empty() { "nothing is left".to_owned() } else { left };
        let patch = Patch::Merge(json!({"status": {"phase": "Terminating", "conditions": conditions}}));
        plan.patch_status(Target::of(&kinds::NAMESPACE, &view.namespace.header), patch, format!("ending: {left}"));
    }
}

fn wanted_conditions(view: &View) -> Vec<Wanted<'static>> {
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
    let left = remaining(view);
    let content = if left.is_empty() {
        let message = "All content successfully removed".to_owned();
        wanted("NamespaceContentRemaining", "False", "ContentRemoved", message)
    } else {
        let message = format!("Some resources are remaining: {left}");
        wanted("NamespaceContentRemaining", "True", "SomeResourcesRemain", message)
    };
    let held = finalizers(view);
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
fn remaining(view: &View) -> String {
    let parts = view
        .content
        .iter()
        .map(|(kind, left)| format!("{}.{} has {} resource instances", kind.plural, kind.group, left.len()));
    parts.collect::<Vec<_>>().join(", ")
}

fn finalizers(view: &View) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for object in view.content.values().flatten().filter(|object| object.header.is_ending()) {
        for finalizer in object.header.finalizers() {
            *counts.entry(finalizer).or_default() += 1;
        }
    }
    let parts = counts.into_iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Controller, Namespaces, View, order, others};
    use crate::fixture::{check, now, object};
    use crate::plan::{Action, Guard, Plan};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use windlass_api::{Kind, kinds};
    use windlass_client::Patch;

    fn plan(namespace: Value, content: &[(&Kind, Value)]) -> Plan {
        let mut by_kind: BTreeMap<Kind, Vec<_>> = BTreeMap::new();
        for (kind, found) in content {
            by_kind.entry((*kind).clone()).or_default().push(object(found));
        }
        let (namespace, others) = (object(&namespace), vec![kinds::EVENT.clone(), kinds::JOB.clone()]);
        Namespaces::plan(&View { namespace, content: by_kind, others, failure: None, now: now() })
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

    #[test]
    fn r1_a_namespace_that_is_not_ending_is_left_alone() {
        let alive = json!({"kind": "Namespace", "metadata": {"name": "a"}, "status": {"phase": "Active"}});
        check(&plan(alive, &[(&kinds::POD, thing("p"))]), "");
    }

    #[test]
    fn r3_makers_go_before_pods_and_pods_before_the_rest() {
        let all = [(&kinds::CONFIG_MAP, thing("c")), (&kinds::POD, thing("p")), (&kinds::REPLICA_SET, thing("r"))];
        assert_eq!(deletions(&plan(ending(), &all)), ["delete replicasets a/r: namespace a is being deleted"]);
        assert_eq!(deletions(&plan(ending(), &all[..2])), ["delete pods a/p: namespace a is being deleted"]);
        assert_eq!(deletions(&plan(ending(), &all[..1])), ["delete configmaps a/c: namespace a is being deleted"]);
    }

    #[test]
    fn r4_it_says_what_is_left_and_what_holds_it() {
        let mut held = thing("p");
        held["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:00:00Z");
        held["metadata"]["finalizers"] = json!(["x.io/keep"]);
        let plan = plan(ending(), &[(&kinds::POD, held)]);
        let Action::Patch { patch: Patch::Merge(patch), .. } = &plan.items[0].action else { panic!("a status") };
        let messages: Vec<&str> = patch["status"]["conditions"]
            .as_array()
            .expect("conditions")
            .iter()
            .map(|condition| condition["message"].as_str().expect("a message"))
            .collect();
        assert_eq!(messages[1], "Some resources are remaining: pods. has 1 resource instances");
        assert_eq!(
            messages[2],
            "Some content in the namespace has finalizers remaining: x.io/keep in 1 resource instances"
        );
        assert!(deletions(&plan).is_empty(), "what is ending is not deleted again");
    }

    #[test]
    fn r3_objects_of_custom_kinds_go_last_and_are_waited_for() {
        let foo = Kind { kind: "Foo".into(), plural: "foos".into(), ..kinds::CONFIG_MAP.clone() };
        let custom = vec![foo];
        let namespace = object(&ending());
        let view = View { namespace, content: BTreeMap::new(), others: custom.clone(), failure: None, now: now() };
        let plan = Namespaces::plan(&view);
        assert_eq!(deletions(&plan)[0], "delete foos a/*: namespace a is being deleted");
        let last = plan.items.last().expect("finalize");
        assert!(matches!(&last.guard, Some(Guard::Empty(_, kinds)) if kinds.contains(&custom[0])));
    }

    #[test]
    fn r5_no_kind_is_forgotten() {
        let known: Vec<Kind> = order().into_iter().flatten().cloned().chain(others()).collect();
        for kind in [&kinds::EVENT, &kinds::JOB, &kinds::RESOURCE_QUOTA, &kinds::POD, &kinds::NETWORK_POLICY] {
            assert_eq!(known.iter().filter(|known| *known == kind).count(), 1, "{}", kind.plural);
        }
        assert!(!known.contains(&kinds::LOCAL_SUBJECT_ACCESS_REVIEW), "nothing is stored of a review");
    }

    #[test]
    fn r6_an_empty_namespace_goes_once_the_api_says_it_is_empty() {
        let plan = plan(ending(), &[]);
        assert_eq!(
            deletions(&plan),
            [
                "delete events a/*: namespace a is being deleted",
                "delete jobs a/*: namespace a is being deleted",
                "finalize namespaces a: namespace a is empty"
            ]
        );
        let last = plan.items.last().expect("finalize");
        assert!(
            matches!(&last.guard, Some(Guard::Empty(name, kinds)) if name == "a" && kinds.len() == order().concat().len() + 2)
        );
        assert!(matches!(&last.action, Action::Finalize { namespace } if namespace["spec"]["finalizers"] == json!([])));
    }
}
