//! sig-scheduling: limits and priorities, which node suits a pod, and who makes way.

mod limit_range;
mod machine;
pub mod placement;
mod preemption;
mod priority_class;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(
            "LimitRange, list, patch and delete a LimitRange by collection",
            limit_range::ranges_are_listed_patched_and_deleted
        ),
        case!("LimitRange, resources", limit_range::pods_get_defaults_and_keep_to_the_limits),
        case!("Pod preemption verification", preemption::replicas_keep_their_room_by_priority),
        case!("Scheduler, Basic Preemption", preemption::the_least_important_pod_makes_way),
        case!("Scheduler, Preemption for critical pod", preemption::a_critical_pod_finds_room),
        case!("Scheduler, node selector matching", placement::a_pod_goes_to_the_node_it_selects),
        case!("Scheduler, resource limits", placement::a_node_takes_no_more_than_it_has),
        case!(
            "Scheduling, HostPort and Protocol match, HostIPs different but one is default HostIP (0.0.0.0)",
            placement::a_port_of_all_addresses_excludes_that_of_one
        ),
        case!(
            "Verify the DisruptionTarget condition is added to the preempted pod",
            preemption::a_pod_that_makes_way_says_so
        ),
        case!("Scheduler, Verify PriorityClass endpoints", priority_class::a_value_stays_and_the_rest_may_change),
        case!("Scheduler, node selector not matching", placement::a_pod_that_no_node_suits_waits_and_says_why),
    ]
}
