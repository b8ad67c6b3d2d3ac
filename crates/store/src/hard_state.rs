//! The vote: what a member promised in an election. Losing or reverting it would elect two leaders.
//!
//! The file is replaced whole (write, sync, rename, sync of the directory), so it is never torn: anything wrong with
//! it is damage.
//!
//! Form (32 bytes, little-endian)  0 magic · 8 term u64 · 16 member u64 · 24 committed u8 · 28 crc32c u32 of the 28
//!                                 bytes before

use std::io;
use std::path::Path;

use openraft::impls::leader_id_std::LeaderId;

use crate::consensus::Vote;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::wire::{u32_at, u64_at};

const FILE: &str = "vote";
const FILE_NEW: &str = "vote.tmp";
const MAGIC: &[u8; 8] = b"WLSTVOT1";
const BYTES: usize = 32;

/// Makes a vote durable. On an error the old one still stands.
pub(crate) fn save(disk: &dyn Disk, dir: &Path, vote: Vote) -> io::Result<()> {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&vote.leader_id.term.to_le_bytes());
    bytes[16..24].copy_from_slice(&vote.leader_id.voted_for.to_le_bytes());
    bytes[24] = u8::from(vote.committed);
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    replace(disk, dir, (FILE, FILE_NEW), &bytes)?;
    disk.sync_dir(dir)
}

/// The vote of a directory, if it has one.
pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Vote>, OpenError> {
    let path = dir.join(FILE);
    let damaged = |what: &str| OpenError::Damaged { path: path.clone(), offset: 0, what: what.to_owned() };
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { verb: "open", path, source }),
    };
    let mut bytes = [0; BYTES];
    let mut read = || {
        let len = file.len()?;
        if len == BYTES as u64 { file.read_at(0, &mut bytes).map(|()| len) } else { Ok(len) }
    };
    let len = read().map_err(|source| OpenError::Io { verb: "read", path: path.clone(), source })?;
    if len != BYTES as u64 {
        return Err(damaged(&format!("expected {BYTES} bytes, found {len}")));
    }
    if &bytes[..8] != MAGIC || u32_at(&bytes, 28) != crc32c::crc32c(&bytes[..28]) {
        return Err(damaged("the checksum does not match"));
    }
    let leader_id = LeaderId { term: u64_at(&bytes, 8), voted_for: u64_at(&bytes, 16) };
    Ok(Some(Vote { leader_id, committed: bytes[24] != 0 }))
}

/// Replaces a small file whole: after a crash it is the old one or the new one. Which one is only certain once the
/// directory is synced.
pub(crate) fn replace(disk: &dyn Disk, dir: &Path, (name, name_new): (&str, &str), bytes: &[u8]) -> io::Result<()> {
    let path_new = dir.join(name_new);
    let file = disk.create(&path_new)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&path_new, &dir.join(name))
}
