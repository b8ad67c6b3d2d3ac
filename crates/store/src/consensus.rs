//! The names of the consensus engine's types, as this store uses them. Only `consensus` and `log` know the engine.

#[cfg(test)]
mod conformance;
mod log_storage;
mod member;
mod network;
mod state_machine;

pub(crate) use log_storage::LogStorage;
pub(crate) use member::{Consensus, ProposeError};
pub(crate) use state_machine::Machine;

use openraft::impls::leader_id_std;
use openraft_rt::deterministic_rng::DeterministicRng;

use crate::group::{Group, Outcomes};

openraft::declare_raft_types!(
    /// The engine's types. One leader a term; every draw of randomness follows a seed.
    pub(crate) Types:
        D = Group,
        R = Outcomes,
        NodeId = u64,
        Node = openraft::BasicNode,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = DeterministicRng<openraft_rt_tokio::TokioRuntime>,
);

pub(crate) type CommittedLeader = <leader_id_std::LeaderId<u64, u64> as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<CommittedLeader>;
pub(crate) type Vote = openraft::Vote<leader_id_std::LeaderId<u64, u64>>;
pub(crate) type Payload = openraft::EntryPayload<Group, u64, openraft::BasicNode>;
pub(crate) type LogEntry = openraft::Entry<CommittedLeader, Payload>;
pub(crate) type Membership = openraft::Membership<u64, openraft::BasicNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeader, u64, openraft::BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeader, u64, openraft::BasicNode>;
pub(crate) type Snapshot =
    openraft::Snapshot<CommittedLeader, u64, openraft::BasicNode, crate::snapshots::SnapshotFile>;

/// A log id from its parts.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeader::new(term), index)
}
