//! Stands in for the crate `libcgroups` under libcontainer, which is to put a process into control groups that exist.
//!
//! The published crate looks for the mount of each controller by itself: fourteen times for one container it mounts a
//! `/proc` of its own and reads the whole table of mounts, of which every pod of the machine adds three. Our runtime makes
//! and limits groups itself, below `/sys/fs/cgroup` only; what is left is to write a number into a few files. What this
//! crate does not do it refuses by name. Decision: docs/decisions/013-joining-groups.md.

mod group;
pub mod stats;

/// Groups, under the name that libcontainer looks for them.
pub mod common {
    pub use crate::group::*;
}

/// What libcontainer asks about hierarchies of version 1.
pub mod v1 {
    /// Their mounts.
    pub mod util {
        use std::path::PathBuf;

        use crate::group::{DEFAULT_CGROUP_ROOT, Error, hierarchies};

        /// The hierarchies of version 1.
        pub fn list_subsystem_mount_points() -> Result<Vec<PathBuf>, Error> {
            hierarchies(DEFAULT_CGROUP_ROOT.as_ref())
        }
    }
}

/// What libcontainer asks about the hierarchy of version 2.
pub mod v2 {
    /// Its mount.
    pub mod util {
        use std::path::PathBuf;

        use crate::group::{CgroupSetup, DEFAULT_CGROUP_ROOT, Error, get_cgroup_setup};

        /// The hierarchy of version 2.
        pub fn get_unified_mount_point() -> Result<PathBuf, Error> {
            match get_cgroup_setup()? {
                CgroupSetup::Unified => Ok(DEFAULT_CGROUP_ROOT.into()),
                CgroupSetup::Hybrid => Ok([DEFAULT_CGROUP_ROOT, "unified"].iter().collect()),
                CgroupSetup::Legacy => Err(Error::Unsupported("a mount of version 2 where there is none")),
            }
        }
    }
}
