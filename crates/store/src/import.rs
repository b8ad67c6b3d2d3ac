//! Import: the directory of a store, made from an [`Export`](crate::Export).
//!
//! Goal        the same entries in the same cluster, and no client who knows the future that is undone is ever misled
//! Relies on   the clock, as far as it is not behind by more than what was done since
//!
//! Rules
//!   R1 whole first    nothing is written before every byte was read and fits the rest
//!   R2 new revision   all entries are as if written at one revision, which is later than any that this cluster can ever
//!                     have had, before or after the export: one for every ten microseconds since 2020 ([`revision_at`])
//!   R3 forgotten      the history begins there, so that whoever watches or lists from before is told to list anew
//!   R4 alone          the member that has the directory is the only voter, whoever was one
//!   R5 empty          only a directory that has nothing in it is written to
//!
//! Why R2: a client may have seen revisions after the export. Were they given out again for other changes, it would take
//! these for what it knows. A store commits fewer than 100,000 transactions a second, so that its revision stays below the
//! one that an import would give at the same moment, and two imports of whatever exports do not share any.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_stdx::World;

use crate::config::{Config, KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
use crate::consensus::{LogId, Membership, StoredMembership, Vote, log_id};
use crate::disk::Disk;
use crate::entry::{Entry, Revision};
use crate::error::OpenError;
use crate::hard_state;
use crate::identity::{self, Identity, cluster_hash};
use crate::log::segment::{Segment, SegmentHeader};
use crate::opening::LOCK_FILE;
use crate::snapshot::{self, Fault, Image};
use crate::snapshots::write_file;
use crate::state::size;

/// Revisions that a millisecond has.
const REVISIONS_PER_MS: u64 = 100;
/// 2020-01-01T00:00:00Z, before which no cluster was made.
const EPOCH_MS: i64 = 1_577_836_800_000;
/// How far the revision goes on where the clock must be wrong.
const REVISIONS_SKIPPED: u64 = 1_000_000_000;
/// More than any store counts: what comes after it is still a number.
const COUNT_MAX: u64 = 1 << 60;
/// The digits of a revision that a value may have beyond its limit.
const DIGITS_MAX: usize = 20;

/// Why an export cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It could not be read.
    #[error("cannot read the exported state")]
    Read(#[source] io::Error),
    /// It is not as it was written.
    #[error("the exported state is damaged at its byte {offset}: {what}")]
    Damaged {
        /// Where, from its beginning.
        offset: u64,
        /// What was expected and what was found.
        what: String,
    },
    /// There is something in the directory already.
    #[error("{} is not empty", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory could not be written.
    #[error(transparent)]
    Write(#[from] OpenError),
}

/// A state that was read whole.
pub struct Import {
    image: Image,
    bytes: u64,
}

impl Import {
    /// Reads an export of the cluster of this name to its end, and looks that nothing follows. Its keys and values take
    /// at most `bytes_max`.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn read(
        from: &mut dyn io::Read,
        cluster: &str,
        (entries_max, bytes_max): (u64, u64),
    ) -> Result<Import, ImportError> {
        let cluster = cluster_hash(cluster);
        let is_it = |image: &Image| match image.cluster == cluster {
            true => Ok(()),
            false => Err(format!("expected cluster {cluster:x}, found {:x}", image.cluster)),
        };
        let image = snapshot::decode(from, (entries_max, bytes_max), is_it).map_err(|fault| match fault {
            Fault::Io(source) => ImportError::Read(source),
            Fault::Damaged { offset, what } => ImportError::Damaged { offset, what },
        })?;
        let LogId { leader_id, index } = image.applied;
        if leader_id.term.max(index).max(image.revision) > COUNT_MAX {
            let what = format!("entry {} and revision {} are none of a store", image.applied, image.revision);
            return Err(ImportError::Damaged { offset: 0, what });
        }
        let wrong = image.entries.iter().find_map(|entry| Some((entry, what_is_wrong(entry, image.revision)?)));
        if let Some((entry, what)) = wrong {
            let what = format!("the entry {:?}: {what}", entry.key());
            return Err(ImportError::Damaged { offset: 0, what });
        }
        let bytes = image.entries.iter().map(|entry| size(entry)).sum();
        Ok(Import { image, bytes })
    }

    /// The revision that was exported.
    pub fn revision(&self) -> Revision {
        self.image.revision
    }

    /// The entries.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Arc<Entry>> {
        self.image.entries.iter()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the store's directory; it is durable when this returns, but for its own name in its parent. Returns the
    /// revision that the entries have there.
    ///
    /// # Errors
    /// `NotEmpty` and `Write`; what was written of it then stays.
    pub fn write(self, config: &Config, disk: &dyn Disk, world: &World) -> Result<Revision, ImportError> {
        let dir = &config.dir;
        let io_error = |verb| move |source| OpenError::Io { verb, path: dir.clone(), source };
        disk.create_dir(dir).map_err(io_error("make"))?;
        if !disk.list(dir).map_err(io_error("list"))?.is_empty() {
            return Err(ImportError::NotEmpty { dir: dir.clone() });
        }
        let identity =
            Identity { cluster: config.cluster.clone().unwrap_or_else(|| world.uuid()), member: config.member };
        let image = self.image_for(&identity, revision_at(world, self.image.revision));
        identity::save(disk, dir, &identity)?;
        write_file(disk, dir, &image, &[image.applied]).map_err(io_error("write a snapshot in"))?;
        write_log(disk, dir, &image, (&config.limits, identity.member)).map_err(io_error("write the log in"))?;
        Ok(image.revision)
    }

    /// R2, R4. The entry that it ends with is in a term of its own, after all that whoever exported it had then.
    fn image_for(&self, identity: &Identity, revision: Revision) -> Image {
        let applied = log_id(self.image.applied.leader_id.term + 1, self.image.applied.index + 1);
        let membership = Membership::new_with_defaults(vec![[identity.member].into()], []);
        let moved = self.image.entries.iter().map(|entry| Arc::new(entry.moved_to(revision)));
        Image {
            cluster: identity.cluster_hash(),
            revision,
            applied,
            membership: StoredMembership::new(Some(applied), membership),
            entries: moved.collect(),
        }
    }
}

/// A log that begins after the snapshot, and the vote that its entry had.
fn write_log(disk: &dyn Disk, dir: &Path, image: &Image, (limits, member): (&Limits, u64)) -> io::Result<()> {
    let applied: LogId = image.applied;
    let header = SegmentHeader { number: 1, cluster: image.cluster, previous: Some(applied), is_jump: false };
    Segment::first(disk, dir, header, limits.segment_bytes_min)?;
    let leader_id = openraft::impls::leader_id_std::LeaderId { term: applied.leader_id.term, voted_for: member };
    hard_state::save(disk, dir, Vote { leader_id, committed: true })
}

/// R2: a revision that is later than all that this cluster can have had by now.
fn revision_at(world: &World, exported: Revision) -> Revision {
    let since = u64::try_from(world.now().as_millisecond() - EPOCH_MS).unwrap_or(0);
    let now = since.saturating_mul(REVISIONS_PER_MS);
    if now > exported { now } else { exported.saturating_add(REVISIONS_SKIPPED) }
}

/// What no store would have written.
fn what_is_wrong(entry: &Entry, newest: Revision) -> Option<String> {
    if entry.key().is_empty() || entry.key().len() > KEY_BYTES_MAX {
        return Some(format!("expected a key of 1 to {KEY_BYTES_MAX} bytes"));
    }
    if entry.value().len() > VALUE_BYTES_MAX + DIGITS_MAX {
        return Some(format!("expected at most {VALUE_BYTES_MAX} bytes, found {}", entry.value().len()));
    }
    if entry.created > entry.revision || entry.revision > newest {
        return Some(format!("it is of revision {}, and the state of {newest}", entry.revision));
    }
    (!entry.holds_its_revision()).then(|| format!("it does not say its revision {}", entry.revision))
}

/// A directory that some store has.
pub struct Occupied {
    /// The cluster's id, if it can be told.
    pub cluster: Option<String>,
    /// Keeps others from opening it.
    pub lock: Box<dyn Any + Send + Sync>,
}

/// Whose directory this is; `None` where nothing is. Nobody opens it as long as the answer is held.
///
/// # Errors
/// `Locked` when somebody has it open, `Damaged` when it cannot be told whose it is.
pub fn occupied(dir: &Path, disk: &dyn Disk) -> Result<Option<Occupied>, OpenError> {
    let io_error = |verb| move |source| OpenError::Io { verb, path: dir.to_owned(), source };
    match disk.list(dir) {
        Ok(names) if names.is_empty() => return Ok(None),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("list")(error)),
    }
    let path = dir.join(LOCK_FILE);
    let lock = disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path: path.clone() },
        _ => io_error("lock")(error),
    })?;
    Ok(Some(Occupied { cluster: identity::load(disk, dir)?.map(|identity| identity.cluster), lock }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Import, ImportError, cluster_hash};
    use crate::consensus::{StoredMembership, log_id};
    use crate::entry::{Entry, Splice, Template};
    use crate::snapshot::{Encoder, Image};
    use crate::state::Entries;

    fn image(entries: Vec<Entry>, revision: u64) -> Image {
        let entries: Entries = entries.into_iter().map(Arc::new).collect();
        let membership = StoredMembership::default();
        Image { cluster: cluster_hash("blue"), revision, applied: log_id(1, 5), membership, entries }
    }

    fn bytes(image: Image) -> Vec<u8> {
        let mut encoder = Encoder::new(image);
        let mut bytes = Vec::new();
        while let Some(piece) = encoder.next().expect("memory") {
            bytes.extend_from_slice(&piece);
        }
        bytes
    }

    fn entry(key: &str, value: &[u8], revision: u64) -> Entry {
        Entry::from_template(key, &Template::plain(value.to_vec()), revision, revision)
    }

    fn refused(bytes: &[u8], bytes_max: u64) -> String {
        match Import::read(&mut &bytes[..], "blue", (u64::MAX, bytes_max)) {
            Err(ImportError::Damaged { what, .. }) => what,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it was taken in"),
        }
    }

    /// A snapshot whose only frame says that it holds `plain_len` bytes.
    fn framed(count: u64, plain_len: u32, compressed: &[u8]) -> Vec<u8> {
        let empty = bytes(image(Vec::new(), 9));
        let mut header = empty[..empty.len() - 12].to_vec();
        let at = header.len() - 8;
        header[at..].copy_from_slice(&count.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..20]), &header[24..]);
        header[20..24].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c_append(plain_len, compressed);
        let closing = crc32c::crc32c(&crc.to_le_bytes());
        for number in [compressed.len() as u32, plain_len, crc] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        [&header[..], compressed, &[0; 8], &closing.to_le_bytes()].concat()
    }

    #[test]
    fn a70_a_bomb_takes_no_more_than_it_says_and_that_is_bounded() {
        let zeros = vec![0; 512 << 20];
        let bomb = zstd::bulk::compress(&zeros, 1).expect("memory");
        drop(zeros);
        assert!(bomb.len() < 100 << 10, "{}", bomb.len());
        assert!(refused(&framed(1, 512 << 20, &bomb), u64::MAX).contains("none of ours"), "one that says what it is");
        assert_eq!(refused(&framed(1, 1 << 20, &bomb), u64::MAX), "a frame cannot be decoded", "one that lies");
        let value = vec![0; 3 << 20];
        let large = bytes(image((0..20).map(|n| entry(&format!("k{n:02}"), &value, 1)).collect(), 9));
        assert!(large.len() < 100 << 10, "{}", large.len());
        assert_eq!(refused(&large, 5 << 20), format!("there are more than {} bytes", 5 << 20));
        assert!(Import::read(&mut &large[..], "blue", (u64::MAX, 61 << 20)).is_ok());
        let mut truncated = framed(1, 1 << 20, &bomb);
        truncated.truncate(200);
        assert!(refused(&truncated, u64::MAX).contains("then the end"), "what is said to come is not waited for");
    }

    #[test]
    fn a70_an_entry_that_no_store_would_write_is_refused() {
        let good = entry("k", b"v", 3);
        let one = bytes(image(vec![good], 9));
        assert!(Import::read(&mut &one[..], "blue", (1, 100)).is_ok());
        assert!(Import::read(&mut &one[..], "blue", (0, 100)).is_err(), "more entries than there is memory for");
        for (what, wrong) in [
            ("expected a key", image(vec![entry("", b"v", 3)], 9)),
            ("expected a key", image(vec![entry(&"k".repeat(1025), b"v", 3)], 9)),
            ("expected at most", image(vec![entry("k", &vec![0; (3 << 20) + 21], 3)], 9)),
            ("and the state of 9", image(vec![entry("k", b"v", 10)], 9)),
            ("none of a store", image(vec![entry("k", b"v", 3)], u64::MAX)),
        ] {
            let said = refused(&bytes(wrong), u64::MAX);
            assert!(said.contains(what), "{said}");
        }
        let lying = Entry::restored("k", b"\"4\"", 3, 3, Splice { at: 1, digits: 1 });
        assert!(refused(&bytes(image(vec![lying], 9)), u64::MAX).contains("does not say its revision 3"));
        let mut twice = Vec::new();
        for _ in 0..2 {
            crate::snapshot::encode_entry(&mut twice, &entry("k", b"v", 3));
        }
        let compressed = zstd::bulk::compress(&twice, 1).expect("memory");
        assert!(
            refused(&framed(2, twice.len() as u32, &compressed), u64::MAX).contains("keys of their own"),
            "a key twice"
        );
    }
}
