//! The log as the consensus engine wants to see it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use super::{LogEntry, LogId, Types, Vote};
use crate::log::Log;

/// The log, with what recovery knows about it.
#[derive(Clone)]
pub(crate) struct LogStorage {
    log: Log,
    /// This member alone decides: whatever its log holds is committed.
    is_sole_voter: bool,
}

impl LogStorage {
    pub(crate) fn new(log: Log, is_sole_voter: bool) -> LogStorage {
        LogStorage { log, is_sole_voter }
    }
}

impl RaftLogReader<Types> for LogStorage {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<LogEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let sources = self.log.index().read(start, end);
        sources.into_iter().map(|source| source.load()).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.index().vote)
    }
}

impl RaftLogStorage<Types> for LogStorage {
    type LogReader = LogStorage;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let index = self.log.index();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last })
    }

    async fn get_log_reader(&mut self) -> LogStorage {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log.save_vote(*vote).await
    }

    /// Costs no write: the next record carries it.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut index = self.log.index();
        index.committed = index.committed.max(committed.map_or(0, |id| id.index + 1));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let last = {
            let index = self.log.index();
            let next = if self.is_sole_voter { u64::MAX } else { index.committed };
            match index.last {
                Some(last) if last.index < next => return Ok(Some(last)),
                None => return Ok(None),
                Some(_) => next,
            }
        };
        let found = self.try_get_log_entries(last.saturating_sub(1)..last).await?;
        Ok(found.first().map(|entry| entry.log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        self.log.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(last_log_id).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.log.purge(log_id).await
    }
}
