//! Each rule of the deployment controller, by its number.

use serde_json::{Value, json};
use windlass_client::Patch;

use super::{Controller, Deployments, Round, View, facts, pods_of, set};
use crate::fixture::{change, check, now, object};
use crate::plan::{Action, Plan};

const TEMPLATE: &str = "web:1";

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// A finished deployment of three, except for `changes`.
fn deployment(changes: Value) -> Value {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "a", "uid": "d", "generation": 1, "resourceVersion": "50",
            "annotations": {"deployment.kubernetes.io/revision": "1"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template(TEMPLATE),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600},
        "status": {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
            "availableReplicas": 3, "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable",
                    "message": "Deployment has minimum availability."},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable",
                    "message": "done", "lastUpdateTime": "2026-01-01T11:00:00Z"}]},
    });
    change(&mut deployment, changes);
    deployment
}

/// A set with this many replicas, `available` of them available.
fn sized(name: &str, image: &str, revision: u32, replicas: u32, available: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}, "resourceVersion": "40",
            "creationTimestamp": format!("2026-01-01T10:{revision:02}:00Z"),
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": "3", "deployment.kubernetes.io/max-replicas": "4"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]},
        "spec": {"replicas": replicas, "template": template(image)},
        "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available},
    })
}

fn view(deployment: &Value, sets: &[Value]) -> View {
    let deployment = object(deployment);
    let sets: Vec<_> = sets.iter().map(object).collect();
    let name = set::name(&deployment.header, &facts(&deployment));
    View {
        header: deployment.header.clone(),
        namesake: sets.iter().find(|set| set.header.name() == name).cloned(),
        deployment: facts(&deployment),
        sets,
        old_pods_run: false,
        now: now(),
    }
}

fn plan(deployment: Value, sets: &[Value]) -> Plan {
    Deployments::plan(&view(&deployment, sets))
}

/// The plan without its status line.
fn moves(plan: &Plan) -> Vec<String> {
    let text = plan.to_string();
    let lines = text.lines().filter(|line| !line.contains("deployments a/web status") && !line.starts_with("again"));
    lines.map(str::to_owned).collect()
}

fn status(plan: &Plan) -> &Value {
    let mut patches = plan.items.iter().filter_map(|item| match &item.action {
        Action::Patch { patch: Patch::Merge(patch), subresource: Some(_), .. } => Some(&patch["status"]),
        _ => None,
    });
    patches.next_back().unwrap_or(&Value::Null)
}

fn progressing(plan: &Plan) -> (String, String) {
    let conditions = status(plan)["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == "Progressing").cloned().unwrap_or(Value::Null);
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

#[test]
fn in_order_nothing_is_done() {
    check(&plan(deployment(json!({})), &[sized("web-1", TEMPLATE, 1, 3, 3)]), "");
}

#[test]
fn r1_a_deployment_being_deleted_moves_nothing() {
    let ending = deployment(json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"}));
    assert!(moves(&plan(ending, &[sized("web-1", "other", 1, 3, 3)])).is_empty());
}

#[test]
fn r2_orphan_sets_are_adopted() {
    let mut orphan = sized("web-1", TEMPLATE, 1, 3, 3);
    change(&mut orphan, json!({"/metadata/ownerReferences": null}));
    check(
        &plan(deployment(json!({})), &[orphan]),
        "patch replicasets a/web-1: ReplicaSet web-1 is selected and nobody's",
    );
}

#[test]
fn r3_while_paused_nothing_is_rolled_out_and_it_says_so() {
    let paused = deployment(json!({"/spec/paused": true, "/spec/template": template("web:2")}));
    let plan = plan(paused, &[sized("web-1", TEMPLATE, 1, 3, 3)]);
    assert!(moves(&plan).is_empty(), "{plan}");
    assert_eq!(progressing(&plan), ("Unknown".to_owned(), "DeploymentPaused".to_owned()));
}

#[test]
fn r3_while_paused_replicas_still_follow() {
    let paused = deployment(json!({"/spec/paused": true, "/spec/replicas": 5}));
    let moves = moves(&plan(paused, &[sized("web-1", TEMPLATE, 1, 3, 3)]));
    assert_eq!(moves, ["patch replicasets a/web-1: Scaled up replica set web-1 from 3 to 5"]);
}

#[test]
fn r4_the_first_set_is_created_with_its_hash_revision_and_size() {
    let new = deployment(json!({"/metadata/annotations": {"note": "kept"}, "/status": {}}));
    let plan = plan(new, &[]);
    let Action::Create { object, .. } = &plan.items[0].action else { panic!("a set is created:\n{plan}") };
    let hash = object["metadata"]["labels"]["pod-template-hash"].as_str().expect("a hash");
    assert_eq!(object["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(object["spec"]["selector"]["matchLabels"]["pod-template-hash"], hash);
    assert_eq!(object["spec"]["template"]["metadata"]["labels"]["pod-template-hash"], hash);
    assert_eq!(object["spec"]["replicas"], 3);
    let annotations = &object["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "1");
    assert_eq!(annotations["deployment.kubernetes.io/desired-replicas"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/max-replicas"], "4");
    assert_eq!(annotations["note"], "kept");
    assert_eq!(plan.items[0].why, format!("Scaled up replica set web-{hash} from 0 to 3"));
    assert!(plan.items[1].why.contains("revision 1"), "the deployment gets the revision too:\n{plan}");
    assert_eq!(progressing(&plan), ("True".to_owned(), "NewReplicaSetCreated".to_owned()));
}

#[test]
fn r4_people_are_told_of_a_set_that_has_pods_and_of_one_that_cannot_be_made() {
    let reasons = |deployment: Value, sets: &[Value]| {
        let plan = plan(deployment, sets);
        let made = plan.items.iter().find(|item| matches!(item.action, Action::Create { .. })).expect("a set is made");
        made.event.as_ref().map(|event| (event.reason, event.failed_reason))
    };
    let failed = Some("ReplicaSetCreateError");
    assert_eq!(reasons(deployment(json!({})), &[]), Some((Some("ScalingReplicaSet"), failed)));
    let no_room_yet = [sized("web-1", "other", 1, 4, 4)];
    assert_eq!(reasons(deployment(json!({})), &no_room_yet), Some((None, failed)));
}

#[test]
fn r4_a_taken_name_counts_as_a_collision_and_makes_another_name() {
    let deployment = deployment(json!({}));
    let cached = object(&deployment);
    let mut stranger = sized(&set::name(&cached.header, &facts(&cached)), "other", 1, 0, 0);
    change(&mut stranger, json!({"/metadata/ownerReferences/0/uid": "somebody"}));
    let plan = Deployments::plan(&view(&deployment, &[stranger.clone()]));
    assert!(moves(&plan).is_empty(), "{plan}");
    assert_eq!(status(&plan)["collisionCount"], 1);
    let mut next = deployment.clone();
    change(&mut next, json!({"/status/collisionCount": 1}));
    let plan = Deployments::plan(&view(&next, &[stranger]));
    assert!(matches!(plan.items[0].action, Action::Create { .. }), "{plan}");
}

#[test]
fn r4_a_template_that_comes_back_raises_its_old_set() {
    let back = deployment(json!({"/metadata/annotations": {"deployment.kubernetes.io/revision": "2"}}));
    let plan = plan(back, &[sized("web-1", TEMPLATE, 1, 0, 0), sized("web-2", "web:2", 2, 3, 3)]);
    let Action::Patch { patch: Patch::Merge(patch), .. } = &plan.items[0].action else { panic!("{plan}") };
    assert_eq!(patch["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(patch["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
    let moves = moves(&plan);
    assert_eq!(moves[1], "patch deployments a/web: the rollout is revision 3");
    assert_eq!(moves[2], "patch replicasets a/web-1: Scaled up replica set web-1 from 0 to 1");
}

#[test]
fn r5_a_scale_in_the_middle_is_shared_by_size() {
    let half = deployment(json!({"/spec/replicas": 10, "/spec/template": template("web:2")}));
    let mut old = sized("web-1", TEMPLATE, 1, 4, 4);
    let mut new = sized("web-2", "web:2", 2, 2, 2);
    for set in [&mut old, &mut new] {
        set["metadata"]["annotations"] = json!({"deployment.kubernetes.io/desired-replicas": "5",
            "deployment.kubernetes.io/max-replicas": "7", "deployment.kubernetes.io/revision":
            if set["metadata"]["name"] == "web-1" { "1" } else { "2" }});
    }
    let moves = moves(&plan(half, &[old, new]));
    // 13 pods may be: 4 · 13/7 ≈ 7 and 2 · 13/7 ≈ 4; what is left over goes to the larger.
    assert!(
        moves.contains(&"patch replicasets a/web-1: Scaled up replica set web-1 from 4 to 9".to_owned()),
        "{moves:?}"
    );
    assert!(
        moves.contains(&"patch replicasets a/web-2: Scaled up replica set web-2 from 2 to 4".to_owned()),
        "{moves:?}"
    );
}

#[test]
fn r5_a_scale_of_a_single_set_is_simply_followed() {
    let moves = moves(&plan(deployment(json!({"/spec/replicas": 1})), &[sized("web-1", TEMPLATE, 1, 3, 3)]));
    assert_eq!(moves, ["patch replicasets a/web-1: Scaled down replica set web-1 from 3 to 1"]);
}

#[test]
fn r6_a_rolling_update_moves_within_its_bounds() {
    // (old replicas, old available, new replicas, new available) → the one move of the pass
    for (old, old_available, new, new_available, expected) in [
        (3, 3, 0, 0, "patch replicasets a/web-2: Scaled up replica set web-2 from 0 to 1"),
        (3, 3, 1, 0, ""),
        (3, 3, 1, 1, "patch replicasets a/web-1: Scaled down replica set web-1 from 3 to 2"),
        (2, 2, 1, 1, "patch replicasets a/web-2: Scaled up replica set web-2 from 1 to 2"),
        (2, 2, 2, 1, ""),
        (3, 1, 1, 1, "patch replicasets a/web-1: Scaled down replica set web-1 from 3 to 2"),
        (1, 1, 3, 3, "patch replicasets a/web-1: Scaled down replica set web-1 from 1 to 0"),
    ] {
        let changes = json!({"/spec/template": template("web:2"),
            "/metadata/annotations": {"deployment.kubernetes.io/revision": "2"}});
        let sets = [sized("web-1", TEMPLATE, 1, old, old_available), sized("web-2", "web:2", 2, new, new_available)];
        let moves = moves(&plan(deployment(changes), &sets));
        let case = format!("{old}/{old_available} → {new}/{new_available}");
        assert_eq!(moves.join("; "), expected, "{case}");
    }
}

#[test]
fn r6_percentages_round_for_progress_and_for_safety() {
    for (value, replicas, up, down) in [
        (json!("25%"), 3, 1, 0),
        (json!("25%"), 10, 3, 2),
        (json!(2), 3, 2, 2),
        (Value::Null, 4, 1, 1),
        (json!("0%"), 5, 0, 0),
    ] {
        assert_eq!(pods_of(&value, replicas, Round::Up), up, "{value} of {replicas} up");
        assert_eq!(pods_of(&value, replicas, Round::Down), down, "{value} of {replicas} down");
    }
}

#[test]
fn r6_when_both_bounds_are_nothing_one_may_be_unavailable() {
    let stuck = deployment(json!({"/spec/template": template("web:2"),
        "/metadata/annotations": {"deployment.kubernetes.io/revision": "2"},
        "/spec/strategy/rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}));
    let moves = moves(&plan(stuck, &[sized("web-1", TEMPLATE, 1, 3, 3), sized("web-2", "web:2", 2, 0, 0)]));
    assert_eq!(
        moves.last().map(String::as_str),
        Some("patch replicasets a/web-1: Scaled down replica set web-1 from 3 to 2")
    );
}

#[test]
fn r7_recreate_waits_until_old_pods_are_gone() {
    let recreate = deployment(json!({"/spec/strategy": {"type": "Recreate"}, "/spec/template": template("web:2")}));
    let shrinking = moves(&plan(recreate.clone(), &[sized("web-1", TEMPLATE, 1, 3, 3)]));
    assert_eq!(shrinking, ["patch replicasets a/web-1: Scaled down replica set web-1 from 3 to 0"]);
    let mut waiting = view(&recreate, &[sized("web-1", TEMPLATE, 1, 0, 0)]);
    waiting.old_pods_run = true;
    assert!(moves(&Deployments::plan(&waiting)).is_empty());
    waiting.old_pods_run = false;
    let plan = Deployments::plan(&waiting);
    assert!(matches!(plan.items[0].action, Action::Create { .. }), "{plan}");
}

#[test]
fn r8_old_empty_sets_beyond_the_limit_go_oldest_first() {
    let short = deployment(json!({"/spec/revisionHistoryLimit": 1,
        "/metadata/annotations": {"deployment.kubernetes.io/revision": "9"}}));
    let sets = [
        sized("web-7", "web:7", 7, 0, 0),
        sized("web-3", "web:3", 3, 0, 0),
        sized("web-5", "web:5", 5, 0, 0),
        sized("web-9", TEMPLATE, 9, 3, 3),
    ];
    check(
        &plan(short, &sets),
        "delete replicasets a/web-3: revision 3 is beyond the last 1 kept
         delete replicasets a/web-5: revision 5 is beyond the last 1 kept",
    );
}

#[test]
fn r9_progress_is_said_in_the_words_that_kubectl_knows() {
    let rolling = |reason: &str, updated: &str| {
        deployment(json!({"/spec/template": template("web:2"),
            "/metadata/annotations": {"deployment.kubernetes.io/revision": "2"},
            "/status/updatedReplicas": 1, "/status/replicas": 4,
            "/status/conditions/1": {"type": "Progressing", "status": "True", "reason": reason, "message": "m",
                "lastUpdateTime": updated, "lastTransitionTime": updated}}))
    };
    let sets = |available| [sized("web-1", TEMPLATE, 1, 3, 3), sized("web-2", "web:2", 2, 1, available)];
    let moved = plan(rolling("NewReplicaSetCreated", "2026-01-01T11:59:00Z"), &sets(1));
    assert_eq!(progressing(&moved), ("True".to_owned(), "ReplicaSetUpdated".to_owned()));
    let waiting = plan(rolling("ReplicaSetUpdated", "2026-01-01T11:59:00Z"), &sets(0));
    assert_eq!(waiting.again.map(|again| again.after.as_secs()), Some(540), "looked at again at the deadline");
    let late = plan(rolling("ReplicaSetUpdated", "2026-01-01T11:40:00Z"), &sets(0));
    assert_eq!(progressing(&late), ("False".to_owned(), "ProgressDeadlineExceeded".to_owned()));
    let done = deployment(json!({"/status/conditions/1/reason": "ReplicaSetUpdated"}));
    let done = plan(done, &[sized("web-1", TEMPLATE, 1, 3, 3)]);
    assert_eq!(progressing(&done), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
}

#[test]
fn r9_too_few_available_replicas_are_said() {
    let plan = plan(deployment(json!({})), &[sized("web-1", TEMPLATE, 1, 3, 1)]);
    let conditions = status(&plan)["conditions"].as_array().expect("conditions change");
    assert_eq!(conditions[0]["reason"], "MinimumReplicasUnavailable");
    assert_eq!(status(&plan)["availableReplicas"], 1);
    assert_eq!(status(&plan)["unavailableReplicas"], 2);
}
