//! The scheduler: finds a node for each pod that has none, and says why that one, or why none.
//!
//! Goal        every pod that fits a node is bound to a good one; every other pod says what keeps it from each node
//! Watches     Pod; Node
//! Writes      Pod: binding, condition PodScheduled (False only) · Events on pods
//! Relies on   the API binds a pod once, so a decision made on an old view is refused and made again
//!
//! Rules, in order
//!   R1 gates       a pod with scheduling gates waits and says so
//!   R2 priority    pods are taken by priority, then in the order they came
//!   R3 filters     a node that any filter refuses is out; filters are asked in the order of `filter::LIST`
//!   R4 scores      of the nodes left the one with the highest weighted score is taken (`score::LIST`)
//!   R5 assumed     a pod counts on its node from the decision on, before the API and our copy show it
//!   R6 back-off    a pod that fits nowhere is tried again when something it was refused for changes, not earlier than
//!                  its back-off; one whose binding failed after its back-off
//! Not here       preemption, inter-pod affinity, topology spread constraints, volumes (none of them is looked at)

mod cluster;
mod filter;
mod node;
mod place;
mod pod;
mod queue;
mod resource;
mod run;
mod score;

pub use run::{SchedulerConfig, run};

#[cfg(test)]
mod fixture;
