//! sig-apps: the objects of workloads, and what their controllers do where no container need run.

mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod job;
mod pod_disruption_budget;
mod replica_set;
mod replication_controller;
mod scale;
mod stateful_set;

use serde_json::{Value, json};

use crate::running::server;
use crate::{Case, Test, case, on_node, row};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!("ControllerRevision, resource lifecycle", controller_revision::revisions_live),
        row!("CronJob API Operations", cron_job::row),
        case!("CronJob AllowConcurrent", cron_job::jobs_run_beside_each_other),
        case!("CronJob ForbidConcurrent", cron_job::a_job_that_runs_forbids_the_next),
        case!("CronJob ReplaceConcurrent", cron_job::a_new_job_replaces_the_one_that_runs),
        case!("CronJob Suspend", cron_job::a_suspended_one_makes_no_jobs),
        case!("DaemonSet, list and delete a collection of DaemonSets", daemon_set::many_are_listed_and_deleted),
        case!("DaemonSet, status sub-resource", daemon_set::the_status_is_read_patched_and_replaced),
        on_node!("DaemonSet-Creation", daemon_set::every_node_has_a_pod),
        on_node!("DaemonSet-FailedPodCreation", daemon_set::a_failed_pod_is_made_again),
        on_node!("DaemonSet-NodeSelection", daemon_set::labels_choose_the_nodes),
        on_node!("DaemonSet-Rollback", daemon_set::a_rollback_raises_the_earlier_revision),
        on_node!("DaemonSet-RollingUpdate", daemon_set::a_rolling_update_replaces_the_pods),
        case!("Deployment, status sub-resource", deployment::the_status_is_read_patched_and_replaced),
        case!("Deployment, completes the scaling of a Deployment subresource", deployment::the_scale_is_the_replicas),
        case!("Deployment, completes the lifecycle of a Deployment", deployment::a_deployment_lives),
        case!("Deployment Proportional Scaling", deployment::scaling_keeps_the_share_of_each_set),
        case!("Deployment Recreate", deployment::recreate_never_runs_old_beside_new),
        case!("Deployment RevisionHistoryLimit", deployment::old_sets_go_beyond_the_history_limit),
        case!("Deployment RollingUpdate", deployment::a_rolling_update_replaces_the_older_set),
        case!("Deployment Rollover", deployment::a_rollout_under_way_gives_way_to_the_next),
        on_node!("Ensure Pods of an Indexed Job get a unique index.", job::every_index_has_a_pod_of_its_own),
        on_node!(
            "Ensure pod failure policy allows to ignore failure matching on the DisruptionTarget condition",
            job::an_eviction_is_ignored
        ),
        on_node!(
            "Ensure that all indexes are executed for an indexed job with backoffLimitPerIndex despite some failing",
            job::every_index_is_executed_despite_failures
        ),
        on_node!("Ensure that job with successPolicy succeeded when all indexes succeeded", job::all_indexes_succeed),
        on_node!(
            "Ensure that job with successPolicy succeededCount rule succeeded even when some indexes remain pending",
            job::enough_indexes_succeed
        ),
        on_node!(
            "Ensure that job with successPolicy succeededIndexes rule succeeded even when some indexes remain pending",
            job::the_named_indexes_succeed
        ),
        on_node!("Jobs, active pods, graceful termination", job::a_deleted_job_takes_its_pods_along),
        on_node!("Jobs, completion after task failure", job::tasks_that_fail_are_restarted),
        on_node!("Jobs, orphan pods, re-adoption", job::orphans_are_adopted_and_strangers_released),
        on_node!(
            "Mark indexes as failed when the FailIndex action is matched in podFailurePolicy",
            job::a_rule_fails_an_index_at_once
        ),
        on_node!(
            "Terminate job execution when the maxFailedIndexes is exceeded",
            job::too_many_failed_indexes_end_the_job
        ),
        on_node!(
            "Verify Pod Failure policy allows to fail job early on exit code.",
            job::an_exit_code_fails_the_job_early
        ),
        case!("Jobs, apply changes to status", job::the_status_is_read_patched_and_replaced),
        case!("Jobs, manage lifecycle", job::a_suspended_job_lives),
        case!("PodDisruptionBudget: create, update, patch, and delete object", pod_disruption_budget::a_budget_lives),
        case!("PodDisruptionBudget: list and delete collection", pod_disruption_budget::many_are_listed_and_deleted),
        case!("PodDisruptionBudget: Status updates", pod_disruption_budget::the_status_counts_the_pods),
        case!(
            "PodDisruptionBudget: block an eviction until the PDB is updated to allow it",
            pod_disruption_budget::an_eviction_waits_for_its_budget
        ),
        case!(
            "PodDisruptionBudget: update and patch status",
            pod_disruption_budget::the_status_is_read_patched_and_replaced
        ),
        case!("ReplicaSet, status sub-resource", replica_set::the_status_is_read_patched_and_replaced),
        case!("ReplicaSet, list and delete a collection of ReplicaSets", replica_set::many_are_listed_and_deleted),
        case!("ReplicaSet, completes the scaling of a ReplicaSet subresource", replica_set::the_scale_is_the_replicas),
        case!("ReplicaSet, is created, Replaced and Patched", replica_set::a_set_is_replaced_and_patched),
        case!(
            "Replica Set, adopt matching pods and release non matching pods",
            replica_set::matching_pods_are_adopted_and_others_released
        ),
        on_node!("Replica Set, run basic image", replica_set::a_set_runs_its_image),
        case!("Replication Controller, adopt matching pods", replication_controller::matching_pods_are_adopted),
        case!(
            "Replication Controller, check for issues like exceeding allocated quota",
            replication_controller::a_quota_that_is_exceeded_is_a_condition
        ),
        case!("Replication Controller, release pods", replication_controller::pods_that_match_no_more_are_released),
        on_node!("Replication Controller, run basic image", replication_controller::a_controller_runs_its_image),
        case!(
            "Replication Controller, get and update ReplicationController scale",
            replication_controller::the_scale_is_the_replicas
        ),
        case!("Replication Controller, lifecycle", replication_controller::a_controller_lives),
        case!("StatefulSet resource Replica scaling", stateful_set::the_scale_is_the_replicas),
        on_node!("StatefulSet, Burst Scaling", stateful_set::a_burst_waits_for_nobody),
        on_node!("StatefulSet, Recreate Failed Pod", stateful_set::a_failed_pod_is_made_again),
        on_node!("StatefulSet, Rolling Update", stateful_set::a_rolling_update_goes_and_comes_back),
        on_node!("StatefulSet, Rolling Update with Partition", stateful_set::a_partition_holds_the_update_back),
        on_node!("StatefulSet, Scaling", stateful_set::pods_come_and_go_in_order),
        case!("StatefulSet, list, patch and delete a collection of StatefulSets", stateful_set::many_live_and_end),
        case!("StatefulSet, status sub-resource", stateful_set::the_status_is_read_patched_and_replaced),
    ]
}

/// The pods of a workload run, and each answers who it is.
async fn replicas_run(test: &Test, version: &str, plural: &str) {
    const REPLICAS: usize = 2;
    let mut pod = server("run", &["http=8080"]);
    pod["metadata"] = json!({"labels": {"app": "run"}});
    let mut spec = json!({"replicas": REPLICAS, "template": pod});
    if version != "v1" {
        spec["selector"] = json!({"matchLabels": {"app": "run"}});
    }
    let path = test.path(version, plural);
    test.api.create(&path, &json!({"metadata": {"name": "run"}, "spec": spec})).await.ok();
    let are_ready = |reply: &crate::api::Reply| reply.json()["status"]["readyReplicas"] == REPLICAS;
    test.api.until(&format!("{path}/run"), "ready", are_ready).await;
    let pods = test.api.get(&format!("{}?labelSelector=app%3Drun", test.path("v1", "pods"))).await.ok();
    let pods: &Vec<Value> = pods["items"].as_array().expect("a list");
    assert_eq!(pods.len(), REPLICAS);
    for pod in pods {
        assert_eq!(pod["metadata"]["ownerReferences"][0]["name"], "run");
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let answer = |reply: &crate::api::Reply| reply.code.is_success() && *reply.body == *name.as_bytes();
        let asked = format!("{}/{name}:8080/proxy/hostname", test.path("v1", "pods"));
        test.api.until(&asked, "answered with its name", answer).await;
    }
}
