//! sig-apps: the objects of workloads, and what their controllers do where no container need run.

mod cron_job;
mod daemon_set;
mod deployment;
mod job;
mod pod_disruption_budget;
mod replica_set;
mod replication_controller;
mod scale;
mod stateful_set;

use crate::{Case, case, row};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        row!("CronJob API Operations", cron_job::row),
        case!("DaemonSet, list and delete a collection of DaemonSets", daemon_set::many_are_listed_and_deleted),
        case!("DaemonSet, status sub-resource", daemon_set::the_status_is_read_patched_and_replaced),
        case!("Deployment, status sub-resource", deployment::the_status_is_read_patched_and_replaced),
        case!("Deployment, completes the scaling of a Deployment subresource", deployment::the_scale_is_the_replicas),
        case!("Deployment, completes the lifecycle of a Deployment", deployment::a_deployment_lives),
        case!("Jobs, apply changes to status", job::the_status_is_read_patched_and_replaced),
        case!("Jobs, manage lifecycle", job::a_suspended_job_lives),
        case!("PodDisruptionBudget: create, update, patch, and delete object", pod_disruption_budget::a_budget_lives),
        case!("PodDisruptionBudget: list and delete collection", pod_disruption_budget::many_are_listed_and_deleted),
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
        case!(
            "Replication Controller, get and update ReplicationController scale",
            replication_controller::the_scale_is_the_replicas
        ),
        case!("Replication Controller, lifecycle", replication_controller::a_controller_lives),
        case!("StatefulSet resource Replica scaling", stateful_set::the_scale_is_the_replicas),
        case!("StatefulSet, list, patch and delete a collection of StatefulSets", stateful_set::many_live_and_end),
        case!("StatefulSet, status sub-resource", stateful_set::the_status_is_read_patched_and_replaced),
    ]
}
