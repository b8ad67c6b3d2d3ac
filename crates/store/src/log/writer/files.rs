//! The files beneath the writer: going on in a new one, having the next one ready, cutting and removing.

use std::io;
use std::path::PathBuf;

use super::{Writer, is_full};
use crate::consensus::LogId;
use crate::log::segment::{self, Segment, SegmentHeader, Spare};
use crate::log::{Space, segment_ref};

impl Writer {
    /// Goes on in a new segment that has space for `span` bytes.
    pub(super) fn roll(&mut self, span: u64, previous: Option<LogId>, is_jump: bool) -> io::Result<()> {
        let wanted = segment::size_for(span);
        let spare = match self.spare.take().filter(|spare| spare.size >= wanted) {
            Some(spare) => spare,
            None => self.prepare(wanted)?,
        };
        let number = self.active.header.number + 1;
        let header = SegmentHeader { number, cluster: self.config.cluster, previous, is_jump };
        self.active = spare.activate(&*self.disk, &self.config.dir, header)?;
        self.is_marked = false;
        let mut index = self.index.lock().expect("nothing panics while holding the log's index");
        index.segments.insert(number, segment_ref(&self.active));
        Ok(())
    }

    /// Prepares a segment of at least `wanted` bytes, and of the usual size if there is space for that.
    fn prepare(&mut self, wanted: u64) -> io::Result<Spare> {
        let mut size = self.next_size().max(wanted);
        loop {
            let path = self.next_spare_path();
            match Spare::prepare(&*self.disk, path, size) {
                Err(error) if is_full(&error) && size > wanted => size = (size / 2).max(wanted),
                result => return result,
            }
        }
    }

    fn next_size(&self) -> u64 {
        let limits = &self.config.limits;
        (self.active.size * 2).clamp(limits.segment_bytes_min, limits.segment_bytes_max)
    }

    fn next_spare_path(&mut self) -> PathBuf {
        self.prepared += 1;
        self.config.dir.join(format!("spare-{}.tmp", self.prepared))
    }

    /// Makes sure that `wanted` bytes are free in the active segment or the next one.
    pub(super) fn make_room(&mut self, wanted: u64) -> io::Result<Space> {
        let wanted_size = segment::size_for(wanted);
        if self.active.free() >= wanted || self.spare.as_ref().is_some_and(|spare| spare.size >= wanted_size) {
            return Ok(Space::Ready);
        }
        // Only tried when the file system says that it could succeed: a refusal must be cheap.
        if self.disk.free_bytes(&self.config.dir)? < wanted_size {
            return Ok(Space::Full);
        }
        match self.prepare(wanted_size) {
            Ok(spare) => {
                self.keep(spare)?;
                self.publish_room();
                Ok(Space::Ready)
            }
            Err(error) if is_full(&error) => Ok(Space::Full),
            Err(error) => Err(error),
        }
    }

    pub(super) fn take_prepared(&mut self, result: io::Result<Spare>) -> io::Result<()> {
        self.is_preparing = false;
        match result {
            Ok(spare) => self.keep(spare),
            Err(error) if is_full(&error) => {
                self.spare_refused = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Of two prepared segments the larger one is kept.
    fn keep(&mut self, spare: Spare) -> io::Result<()> {
        let (kept, other) = match self.spare.take() {
            Some(old) if old.size >= spare.size => (old, Some(spare)),
            old => (spare, old),
        };
        self.spare = Some(kept);
        other.map_or(Ok(()), |other| other.discard(&*self.disk))
    }

    /// R4: takes back whatever was written from `position` on. Cutting needs no space.
    pub(super) fn cut_back(&mut self, position: u64) -> io::Result<()> {
        self.active.file.set_len(position)?;
        self.active.file.sync_data()?;
        self.active.position = position;
        self.active.size = position;
        self.publish_room();
        Ok(())
    }

    pub(super) fn truncate(&mut self, last: Option<LogId>) -> io::Result<()> {
        let next = last.map_or(0, |id| id.index + 1);
        let mut index = self.index.lock().expect("nothing panics while holding the log's index");
        if index.last.is_none_or(|newest| newest.index < next) {
            return Ok(());
        }
        let place = index.place(next);
        index.truncate(next, last);
        self.durable = self.durable.min(next);
        self.durable_id = last;
        let Some(place) = place else { return Ok(()) };
        // From the newest back, so that whatever is left after a crash is a beginning of the log.
        while let Some((&number, _)) = index.segments.last_key_value().filter(|(number, _)| **number > place.segment) {
            let removed = index.segments.remove(&number).expect("the key was just seen");
            self.disk.remove(&removed.path)?;
        }
        self.disk.sync_dir(&self.config.dir)?;
        let kept = index.segments.get(&place.segment).expect("an entry's segment is listed").clone();
        drop(index);
        let header = SegmentHeader {
            number: place.segment,
            cluster: self.config.cluster,
            previous: kept.previous,
            is_jump: false,
        };
        let position = u64::from(place.offset);
        self.active = Segment { file: kept.file, path: kept.path, header, size: position, position };
        self.is_marked = false;
        self.cut_back(position)
    }

    pub(super) fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let is_beyond = {
            let index = self.index.lock().expect("nothing panics while holding the log's index");
            index.last.is_none_or(|last| last.index < upto.index)
        };
        if is_beyond {
            // A snapshot from elsewhere replaced what the log has: begin again after it.
            self.roll(0, Some(upto), true)?;
            self.durable = upto.index + 1;
            self.durable_id = Some(upto);
        }
        let mut index = self.index.lock().expect("nothing panics while holding the log's index");
        if is_beyond {
            index.reset(Some(upto));
        } else {
            index.purge(upto);
        }
        // A segment is free when the one after it begins at or before the first entry that is kept.
        let numbers: Vec<u64> = index.segments.keys().copied().collect();
        for pair in numbers.windows(2) {
            let next_begins_after = index.segments[&pair[1]].previous.map(|previous| previous.index);
            if !is_beyond && next_begins_after.is_none_or(|previous| previous > upto.index) {
                break;
            }
            let removed = index.segments.remove(&pair[0]).expect("the key was just listed");
            self.disk.remove(&removed.path)?;
        }
        self.disk.sync_dir(&self.config.dir)
    }

    /// R6: what to prepare now, if anything.
    pub(super) fn wants_spare(&mut self) -> Option<(PathBuf, u64)> {
        if self.is_preparing || self.spare_refused || self.spare.is_some() || self.active.free() > self.active.size / 2
        {
            return None;
        }
        self.is_preparing = true;
        let size = self.next_size();
        Some((self.next_spare_path(), size))
    }
}
