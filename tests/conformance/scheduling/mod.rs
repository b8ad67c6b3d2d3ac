//! sig-scheduling: limits and priorities, and pods that no node suits.

mod limit_range;
mod placement;
mod priority_class;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(
            "LimitRange, list, patch and delete a LimitRange by collection",
            limit_range::ranges_are_listed_patched_and_deleted
        ),
        case!("LimitRange, resources", limit_range::pods_get_defaults_and_keep_to_the_limits),
        case!("Scheduler, Verify PriorityClass endpoints", priority_class::a_value_stays_and_the_rest_may_change),
        case!("Scheduler, node selector not matching", placement::a_pod_that_no_node_suits_waits_and_says_why),
    ]
}
