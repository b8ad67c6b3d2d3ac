//! Each rule of the garbage collector, by its number.

use serde_json::{Value, json};
use windlass_api::{Kind, OwnerRef, kinds};
use windlass_client::{DeleteOptions, Key, Patch, Propagation};

use super::{Controller, Garbage, Owner, View};
use crate::fixture::{check, object};
use crate::plan::{Action, Guard, Plan, Target};

fn owner(name: &str, blocks: bool) -> OwnerRef {
    OwnerRef {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: name.to_owned(),
        uid: name.to_owned(),
        controller: false,
        block_owner_deletion: blocks,
    }
}

fn absent(name: &str) -> Owner {
    Owner::Absent(Target { kind: kinds::REPLICA_SET.clone(), key: Key::new("a", name), uid: name.to_owned() })
}

fn thing(name: &str, finalizers: &[&str], owners: &[OwnerRef]) -> Value {
    let owners: Vec<Value> = owners.iter().map(crate::claim::owner_json).collect();
    let mut thing = json!({"metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "4",
        "finalizers": finalizers, "ownerReferences": owners}});
    if !finalizers.is_empty() {
        thing["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:00:00Z");
    }
    thing
}

fn plan(kind: &Kind, thing: &Value, owners: Vec<(OwnerRef, Owner)>, dependents: &[(&Kind, Value)]) -> Plan {
    Garbage::plan(&view(kind, thing, owners, dependents))
}

fn view(kind: &Kind, thing: &Value, owners: Vec<(OwnerRef, Owner)>, dependents: &[(&Kind, Value)]) -> View {
    let dependents = dependents.iter().map(|(kind, found)| ((*kind).clone(), object(found))).collect();
    View { kind: kind.clone(), object: object(thing), owners, dependents, is_partial: false }
}

#[test]
fn r1_orphans_are_released_and_then_the_owner_goes() {
    let set = thing("rs", &["orphan"], &[]);
    let pod = thing("p", &[], &[owner("rs", true)]);
    let first = plan(&kinds::REPLICA_SET, &set, Vec::new(), &[(&kinds::POD, pod)]);
    check(&first, "patch pods a/p: ReplicaSet rs is deleted without its dependents");
    let Action::Patch { patch: Patch::Merge(patch), .. } = &first.items[0].action else { panic!("a patch") };
    assert_eq!(patch["metadata"]["ownerReferences"], Value::Null);
    check(
        &plan(&kinds::REPLICA_SET, &set, Vec::new(), &[]),
        "patch replicasets a/rs: no dependent refers to it any more",
    );
}

#[test]
fn r2_in_the_foreground_the_owner_waits_for_what_blocks_it() {
    let deployment = thing("d", &["foregroundDeletion"], &[]);
    let set = thing("rs", &[], &[owner("d", true)]);
    let first = plan(&kinds::DEPLOYMENT, &deployment, Vec::new(), &[(&kinds::REPLICA_SET, set)]);
    check(&first, "delete replicasets a/rs: its owner Deployment d is deleted in the foreground");
    let Action::Delete { options, .. } = &first.items[0].action else { panic!("a delete") };
    assert_eq!(*options, DeleteOptions::of_uid("rs").propagate(Propagation::Foreground));
    let ending = thing("rs", &["foregroundDeletion"], &[owner("d", true)]);
    check(&plan(&kinds::DEPLOYMENT, &deployment, Vec::new(), &[(&kinds::REPLICA_SET, ending)]), "");
    let unblocking = thing("rs", &["x"], &[owner("d", false)]);
    check(
        &plan(&kinds::DEPLOYMENT, &deployment, Vec::new(), &[(&kinds::REPLICA_SET, unblocking)]),
        "patch deployments a/d: no dependent blocks its deletion",
    );
}

#[test]
fn r2_a_dependent_of_two_owners_only_loses_the_one_that_goes() {
    let set = thing("rs", &["foregroundDeletion"], &[]);
    let shared = thing("p", &[], &[owner("rs", true), owner("other", false)]);
    check(
        &plan(&kinds::REPLICA_SET, &set, Vec::new(), &[(&kinds::POD, shared)]),
        "patch pods a/p: it has another owner than ReplicaSet rs",
    );
}

#[test]
fn r3_an_object_without_any_owner_left_is_deleted_if_the_api_agrees() {
    let pod = thing("p", &[], &[owner("rs", true)]);
    let found = plan(&kinds::POD, &pod, vec![(owner("rs", true), absent("rs"))], &[]);
    check(
        &found,
        "delete pods a/p: its owner ReplicaSet rs is gone
         again after 5s: whether the owners are gone by then",
    );
    assert!(matches!(&found.items[0].guard, Some(Guard::Absent(targets)) if targets[0].uid == "rs"));
    check(&plan(&kinds::POD, &pod, vec![(owner("rs", true), Owner::Present)], &[]), "");
}

#[test]
fn r4_a_reference_to_a_gone_owner_beside_a_present_one_goes() {
    let pod = thing("p", &[], &[owner("gone", false), owner("rs", true)]);
    let owners = vec![(owner("gone", false), absent("gone")), (owner("rs", true), Owner::Present)];
    let found = plan(&kinds::POD, &pod, owners, &[]);
    assert_eq!(found.items[0].why, "of its owners ReplicaSet gone is gone");
    let Action::Patch { patch: Patch::Merge(patch), .. } = &found.items[0].action else { panic!("a patch") };
    assert_eq!(patch["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
}

#[test]
fn r5_what_an_unknown_kind_owns_stays() {
    let pod = thing("p", &[], &[owner("gone", false), owner("odd", true)]);
    let again = "again after 5s: whether all kinds are seen by then";
    check(&plan(&kinds::POD, &pod, vec![(owner("odd", true), Owner::Unknown)], &[]), again);
    let owners = vec![(owner("gone", false), absent("gone")), (owner("odd", true), Owner::Unknown)];
    assert!(plan(&kinds::POD, &pod, owners, &[]).items.is_empty());
}

#[test]
fn r6_what_a_kind_without_definition_owned_goes_if_the_api_agrees() {
    let key = Key::new("", "foos.example.com");
    let definition = Target { kind: kinds::CUSTOM_RESOURCE_DEFINITION.clone(), key, uid: String::new() };
    let map = thing("m", &[], &[owner("foo", true)]);
    let found = plan(&kinds::CONFIG_MAP, &map, vec![(owner("foo", true), Owner::Absent(definition.clone()))], &[]);
    assert_eq!(found.items[0].why, "its owner CustomResourceDefinition foos.example.com is gone");
    assert!(matches!(&found.items[0].guard, Some(Guard::Absent(targets)) if *targets == [definition]));
}

#[test]
fn r7_while_a_kind_is_unseen_finalizers_stay_and_its_owners_may_exist() {
    let again = "again after 5s: whether all kinds are seen by then";
    for finalizer in ["orphan", "foregroundDeletion"] {
        let set = thing("rs", &[finalizer], &[]);
        let view = View { is_partial: true, ..view(&kinds::REPLICA_SET, &set, Vec::new(), &[]) };
        check(&Garbage::plan(&view), again);
    }
    let pod = thing("p", &[], &[owner("odd", true)]);
    let owners = vec![(owner("odd", true), Owner::Unknown)];
    let view = View { is_partial: true, ..view(&kinds::POD, &pod, owners, &[]) };
    check(&Garbage::plan(&view), again);
}
