//! Whose directory it is: the cluster and the member, written once and checked ever after.

use std::io;
use std::path::Path;

use windlass_stdx::World;

use crate::config::Config;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::hard_state::replace;

const FILE: &str = "identity";
const FILE_NEW: &str = "identity.tmp";
const TITLE: &str = "windlass store 1";
/// An identity is four short lines.
const BYTES_MAX: u64 = 4096;

/// The identity of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) member: u64,
}

impl Identity {
    /// The cluster in the form in which segments and snapshots carry it.
    pub(crate) fn cluster_hash(&self) -> u64 {
        cluster_hash(&self.cluster)
    }

    fn encode(&self) -> String {
        let text = format!("{TITLE}\ncluster {}\nmember {}\n", self.cluster, self.member);
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc32c {crc:08x}\n")
    }

    fn decode(text: &str) -> Option<Identity> {
        let mut lines = text.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let cluster = lines.next()?.strip_prefix("cluster ")?.to_owned();
        let member = lines.next()?.strip_prefix("member ")?.parse().ok()?;
        let identity = Identity { cluster, member };
        (identity.encode() == text).then_some(identity)
    }
}

/// A cluster's id in the form in which segments and snapshots carry it.
pub(crate) fn cluster_hash(cluster: &str) -> u64 {
    let low = crc32c::crc32c(cluster.as_bytes());
    let high = crc32c::crc32c_append(!0, cluster.as_bytes());
    u64::from(high) << 32 | u64::from(low)
}

/// The identity of a directory, if it has one.
pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>, OpenError> {
    let path = dir.join(FILE);
    match read(disk, &path) {
        Ok(None) => Ok(None),
        Ok(Some(text)) => match Identity::decode(&text) {
            Some(identity) => Ok(Some(identity)),
            None => Err(OpenError::Damaged { path, offset: 0, what: "the checksum does not match".to_owned() }),
        },
        Err(source) => Err(OpenError::Io { verb: "read", path, source }),
    }
}

/// The identity of `config.dir`, and whether it was made just now.
pub(crate) fn load_or_make(disk: &dyn Disk, config: &Config, world: &World) -> Result<(Identity, bool), OpenError> {
    if let Some(found) = load(disk, &config.dir)? {
        check(&found, config, &config.dir.join(FILE))?;
        return Ok((found, false));
    }
    let cluster = config.cluster.clone().unwrap_or_else(|| world.uuid());
    let identity = Identity { cluster, member: config.member };
    Ok((identity, true))
}

/// Writes the identity of a new directory. It is durable with the first log segment, which syncs the directory.
pub(crate) fn save(disk: &dyn Disk, dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    replace(disk, dir, (FILE, FILE_NEW), identity.encode().as_bytes()).map_err(|source| OpenError::Io {
        verb: "write",
        path: dir.join(FILE),
        source,
    })
}

fn check(found: &Identity, config: &Config, path: &Path) -> Result<(), OpenError> {
    let expected_cluster = config.cluster.as_ref().unwrap_or(&found.cluster);
    if expected_cluster == &found.cluster && config.member == found.member {
        return Ok(());
    }
    Err(OpenError::Foreign {
        path: path.to_owned(),
        expected: format!("member {} of cluster {expected_cluster}", config.member),
        found: format!("member {} of cluster {}", found.member, found.cluster),
    })
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<String>> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; file.len()?.min(BYTES_MAX) as usize];
    file.read_at(0, &mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn an_identity_is_read_back_and_any_change_of_it_is_noticed() {
        let identity = Identity { cluster: "blue".to_owned(), member: 3 };
        let text = identity.encode();
        assert_eq!(Identity::decode(&text), Some(identity));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(Identity::decode(&String::from_utf8_lossy(&bytes)), None, "byte {at}");
        }
    }
}
