//! Commits of many tasks become groups: one log entry and one sync for all that waited meanwhile.
//!
//! Rules
//!   R1 groups are proposed one after the other; what arrives while one is under way forms the next
//!   R2 a group is proposed only when its bytes have a place on disk; otherwise its commits are refused as a whole,
//!      but for those that only delete
//!   R3 nothing is answered before it is durable and applied

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::config::{GROUP_BYTES_MAX, GROUP_COMMITS_MAX};
use crate::consensus::{Consensus, ProposeError};
use crate::error::CommitError;
use crate::group::{Group, Outcomes, encoded_len};
use crate::log::{Log, Space};
use crate::op::{Committed, Conflict, Op};
use crate::shared::Shared;

/// How long a store that is being closed waits for the group under way.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// A transaction that waits to be committed.
pub(crate) struct Proposal {
    pub(crate) ops: Vec<Op>,
    pub(crate) reply: oneshot::Sender<Result<Committed, CommitError>>,
}

impl Proposal {
    fn only_deletes(&self) -> bool {
        self.ops.iter().all(|op| !matches!(op, Op::Put { .. }))
    }

    fn answer(self, result: Result<Committed, CommitError>) {
        answer(self.reply, result);
    }
}

pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) consensus: Arc<Consensus>,
    pub(crate) log: Log,
    pub(crate) dir: PathBuf,
}

/// Commits until the store ends.
pub(crate) async fn run(committer: Committer, mut queue: mpsc::Receiver<Proposal>) {
    loop {
        let first = tokio::select! {
            biased;
            _ = committer.shared.end.ended() => break,
            first = queue.recv() => match first {
                Some(first) => first,
                None => break,
            },
        };
        let group = gather(first, &mut queue);
        committer.commit(group).await;
    }
    queue.close();
    let why = committer.shared.end.reason().unwrap_or_else(|| "its last handle was dropped".into());
    while let Some(proposal) = queue.recv().await {
        proposal.answer(Err(CommitError::Closed(why.clone())));
    }
}

/// Takes what waits already, up to the bounds of a group.
fn gather(first: Proposal, queue: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let mut bytes = encoded_len(&first.ops);
    let mut group = vec![first];
    while group.len() < GROUP_COMMITS_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(next) = queue.try_recv() else { break };
        bytes += encoded_len(&next.ops);
        group.push(next);
    }
    group
}

impl Committer {
    async fn commit(&self, group: Vec<Proposal>) {
        let group = match self.place(group).await {
            Ok(group) if group.is_empty() => return,
            Ok(group) => group,
            Err(why) => {
                tracing::debug!(%why, "commits refused");
                return;
            }
        };
        let (transactions, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|it| (it.ops, it.reply)).unzip();
        match self.propose(Group::new(transactions)).await {
            Ok(Outcomes(outcomes)) => {
                replies.into_iter().zip(outcomes).for_each(|(reply, outcome)| {
                    answer(
                        reply,
                        outcome.map_err(|Conflict { index, key, found }| CommitError::Conflict { index, key, found }),
                    );
                });
            }
            Err(error) => replies.into_iter().for_each(|reply| answer(reply, Err(error.clone()))),
        }
    }

    /// R2. What comes back has its place; the others have been answered.
    async fn place(&self, group: Vec<Proposal>) -> Result<Vec<Proposal>, Arc<str>> {
        let (deletions, others): (Vec<_>, Vec<_>) = match self.make_room(&group).await {
            Ok(Space::Ready) => return Ok(group),
            Ok(Space::Full) => group.into_iter().partition(Proposal::only_deletes),
            Err(why) => return Err(refuse(group, why)),
        };
        let needed = Log::bytes_needed(group_len(&others));
        let full = CommitError::StorageFull { dir: self.dir.clone(), needed };
        others.into_iter().for_each(|proposal| proposal.answer(Err(full.clone())));
        if deletions.is_empty() {
            return Ok(deletions);
        }
        match self.make_room(&deletions).await {
            Ok(Space::Ready) => Ok(deletions),
            Ok(Space::Full) => {
                deletions.into_iter().for_each(|proposal| proposal.answer(Err(full.clone())));
                Ok(Vec::new())
            }
            Err(why) => Err(refuse(deletions, why)),
        }
    }

    async fn make_room(&self, group: &[Proposal]) -> Result<Space, Arc<str>> {
        let may_use_reserve = group.iter().all(Proposal::only_deletes);
        let room = self.log.make_room(group_len(group), may_use_reserve).await;
        room.map_err(|error| self.shared.end.reason().unwrap_or_else(|| error.to_string().into()))
    }

    async fn propose(&self, group: Group) -> Result<Outcomes, CommitError> {
        let given_up = async {
            let why = self.shared.end.ended().await;
            if self.shared.end.failure().is_none() {
                tokio::time::sleep(CLOSE_GRACE).await;
            }
            why
        };
        tokio::select! {
            biased;
            result = self.consensus.propose(group) => result.map_err(|error| match error {
                ProposeError::NotLeader(leader) => CommitError::NotLeader { leader },
                ProposeError::Unknown(why) => CommitError::Closed(why.into()),
                ProposeError::Stopped(why) => {
                    // The first reason counts: if it was the log's, it says more.
                    self.shared.end.fail(&why);
                    CommitError::Closed(self.shared.end.reason().unwrap_or_else(|| why.into()))
                }
            }),
            why = given_up => Err(CommitError::Closed(why)),
        }
    }
}

fn group_len(group: &[Proposal]) -> usize {
    4 + group.iter().map(|proposal| encoded_len(&proposal.ops)).sum::<usize>()
}

fn refuse(group: Vec<Proposal>, why: Arc<str>) -> Arc<str> {
    group.into_iter().for_each(|proposal| proposal.answer(Err(CommitError::Closed(why.clone()))));
    why
}

fn answer(reply: oneshot::Sender<Result<Committed, CommitError>>, result: Result<Committed, CommitError>) {
    // A caller that went away does not want to know; its transaction stands.
    let _unwanted = reply.send(result);
}
