//! The scheduler: finds a node for each pod that has none, and says why that one, or why none.
//!
//! Goal        every pod that fits a node is bound to a good one; every other pod says what keeps it from each node
//! Watches     Pod; Node; Namespace (its labels); PodDisruptionBudget; PersistentVolumeClaim, PersistentVolume, StorageClass;
//!             ResourceClaim, DeviceClass, ResourceSlice
//! Writes      Pod: binding, condition PodScheduled (False only), nominatedNodeName · of pods that make way: condition
//!             DisruptionTarget, delete · of volume claims: the annotation that names their node · ResourceClaim: finalizer,
//!             allocation, reservedFor · Events on pods
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
//!   R7 neighbours  what pods say of each other is looked up in counts that are kept as pods come and go
//!   R8 preemption  a pod that fits nowhere is nominated to the node where the least important pods make way for it, as
//!                  few disruption budgets as can be are broken, and pods as important or less find that room taken
//!   R9 volumes     a pod goes where its volumes are; a claim that waits for its first pod is told the node (`storage`)
//!   R10 devices    a pod goes where its claims have their devices or can get them; they are written before it is bound
//!                  (`device`)

mod budget;
mod cluster;
mod device;
mod filter;
mod near;
mod neighbours;
mod node;
mod place;
mod pod;
mod preempt;
mod queue;
mod resource;
mod run;
mod score;
mod storage;
mod term;

pub use run::{SchedulerConfig, run};

#[cfg(test)]
mod fixture;
