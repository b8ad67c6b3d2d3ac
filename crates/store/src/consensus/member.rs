//! This member of the cluster: propose, read in order, change members. Nothing outside knows the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::{BasicNode, Raft, ReadPolicy, SnapshotPolicy};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use windlass_stdx::World;

use super::network::Links;
use super::{LogId, LogStorage, Machine, Types};
use crate::error::OpenError;
use crate::group::{Group, Outcomes};

/// Time between two signs of life of a leader.
const HEARTBEAT_MS: u64 = 500;
/// A member that hears nothing for this long stands for election: a draw between the two.
const ELECTION_MIN_MS: u64 = 1500;
const ELECTION_MAX_MS: u64 = 3000;
/// A sole voter elects itself at once; if that takes longer, its disk does not answer.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// We purge the log ourselves, behind the older snapshot; the engine keeps everything.
const ENTRIES_KEPT: u64 = 1 << 62;

/// Why a group was not, or may not have been, applied.
#[derive(Debug)]
pub(crate) enum ProposeError {
    /// It was refused and has no effect.
    NotLeader(Option<u64>),
    /// The leader changed meanwhile; it may or may not have an effect.
    Unknown(String),
    /// The engine has stopped for good; it may or may not have an effect.
    Stopped(String),
}

/// The consensus engine of this member.
pub(crate) struct Consensus {
    raft: Raft<Types, Machine>,
    member: u64,
}

impl Consensus {
    /// Starts the engine. A new cluster has this member as its only voter; a sole voter leads when this returns.
    pub(crate) async fn open(
        member: u64,
        storage: LogStorage,
        machine: Machine,
        world: &World,
        is_sole_voter: bool,
    ) -> Result<Consensus, OpenError> {
        let config = openraft::Config {
            cluster_name: "windlass".to_owned(),
            heartbeat_interval: HEARTBEAT_MS,
            election_timeout_min: ELECTION_MIN_MS,
            election_timeout_max: ELECTION_MAX_MS,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            // A sole voter has nobody to hear from or to convince: it needs no clock, and does not wake when idle.
            enable_tick: !is_sole_voter,
            ..openraft::Config::default()
        };
        let config = Arc::new(config.validate().map_err(|error| OpenError::Consensus(error.to_string()))?);
        let start = Raft::new(member, config, Links, storage, machine);
        // The engine's own tasks inherit the seed.
        let start = DeterministicRng::<TokioRuntime>::scope(world.random_u64(), start);
        let raft = Box::pin(start).await.map_err(|error| OpenError::Consensus(error.to_string()))?;
        let consensus = Consensus { raft, member };
        consensus.take_office(is_sole_voter).await?;
        Ok(consensus)
    }

    async fn take_office(&self, is_sole_voter: bool) -> Result<(), OpenError> {
        let failed = |error: &dyn std::fmt::Display| OpenError::Consensus(error.to_string());
        if !self.raft.is_initialized().await.map_err(|error| failed(&error))? {
            let members = BTreeMap::from([(self.member, BasicNode::default())]);
            self.raft.initialize(members).await.map_err(|error| failed(&error))?;
        } else if is_sole_voter && !self.raft.is_leader() {
            self.raft.trigger().elect(false).await.map_err(|error| failed(&error))?;
        }
        if is_sole_voter {
            let wait = self.raft.wait(Some(ELECTION_TIMEOUT));
            wait.current_leader(self.member, "sole voter").await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Puts a group into the log; returns when it is durable on a majority and applied here.
    pub(crate) async fn propose(&self, group: Group) -> Result<Outcomes, ProposeError> {
        match self.raft.client_write(group).await {
            Ok(response) => Ok(response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader(forward.leader_id))
            }
            Err(RaftError::APIError(error)) => Err(ProposeError::Unknown(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(ProposeError::Stopped(error.to_string())),
        }
    }

    /// Returns when everything that was committed anywhere before the call is applied here.
    pub(crate) async fn read_barrier(&self) -> Result<(), ProposeError> {
        if self.is_sole_voter() {
            // What is acknowledged is applied: a commit is answered after it was applied here, and nobody else commits.
            return Ok(());
        }
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader(forward.leader_id))
            }
            Err(RaftError::APIError(error)) => Err(ProposeError::Unknown(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(ProposeError::Stopped(error.to_string())),
        }
    }

    fn is_sole_voter(&self) -> bool {
        let mut voters = self.raft.voter_ids();
        voters.next() == Some(self.member) && voters.next().is_none()
    }

    /// Whether this member leads.
    pub(crate) fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// The ids of the voters.
    pub(crate) fn voters(&self) -> Vec<u64> {
        self.raft.voter_ids().collect()
    }

    /// Tells the engine that there is a new snapshot, and that the log up to `purge` is not needed any more.
    pub(crate) async fn snapshot_written(&self, purge: Option<LogId>) {
        let told = async {
            self.raft.trigger().snapshot().await?;
            match purge {
                Some(upto) => self.raft.trigger().purge_log(upto.index).await,
                None => Ok(()),
            }
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "the engine has stopped before it took the snapshot");
        }
    }

    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the consensus engine did not stop cleanly");
        }
    }
}
