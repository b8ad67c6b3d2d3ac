//! Groups as libcontainer sees them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{error, fmt};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use crate::stats::Stats;

/// Where hierarchies are mounted.
pub const DEFAULT_CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// What went wrong.
#[derive(Debug)]
pub enum Error {
    /// At a path.
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
    /// Something that this crate does not do.
    Unsupported(&'static str),
}

macro_rules! wrapped {
    ($($name:ident, $what:literal;)*) => {$(
        #[doc = $what]
        #[derive(Debug)]
        pub struct $name(pub Error);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }

        impl error::Error for $name {
            fn source(&self) -> Option<&(dyn error::Error + 'static)> {
                self.0.source()
            }
        }

        impl From<Error> for $name {
            fn from(error: Error) -> $name {
                $name(error)
            }
        }

        impl From<$name> for Error {
            fn from(error: $name) -> Error {
                error.0
            }
        }
    )*};
}

wrapped! {
    AnyManagerError, "What went wrong with a group.";
    CreateCgroupSetupError, "Why there is no manager.";
    GetCgroupSetupError, "Why it is not known how hierarchies are mounted.";
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { path, .. } => write!(out, "control group {}", path.display()),
            Error::Unsupported(what) => write!(out, "control groups: {what} is not supported here"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Unsupported(_) => None,
        }
    }
}

/// How hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupSetup {
    /// Version 1, and version 2 beside it.
    Hybrid,
    /// Version 1.
    Legacy,
    /// Version 2.
    Unified,
}

/// How they are mounted on this machine.
pub fn get_cgroup_setup() -> Result<CgroupSetup, GetCgroupSetupError> {
    let root = Path::new(DEFAULT_CGROUP_ROOT);
    Ok(match (is_version_2(root)?, root.join("unified")) {
        (true, _) => CgroupSetup::Unified,
        (false, beside) if beside.exists() && is_version_2(&beside)? => CgroupSetup::Hybrid,
        (false, _) => CgroupSetup::Legacy,
    })
}

fn is_version_2(path: &Path) -> Result<bool, Error> {
    Ok(statfs(path).map_err(|errno| at(path, errno.into()))?.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The hierarchies of version 1 below a directory. A controller's other name is a link, and is not one of them.
pub(crate) fn hierarchies(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(|error| at(root, error))? {
        let entry = entry.map_err(|error| at(root, error))?;
        let path = entry.path();
        if entry.file_type().map_err(|error| at(&path, error))?.is_dir()
            && statfs(&path).map_err(|errno| at(&path, errno.into()))?.filesystem_type() == CGROUP_SUPER_MAGIC
        {
            found.push(path);
        }
    }
    Ok(found)
}

fn at(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

/// Which group.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct CgroupConfig {
    /// Its path below each hierarchy.
    pub cgroup_path: PathBuf,
    /// Whether systemd is to make it; it is there already, whoever has made it.
    pub systemd_cgroup: bool,
    /// What it is called there.
    pub container_name: String,
}

/// What is done with a group.
pub trait CgroupManager {
    /// Why not.
    type Error;

    /// Puts a process into it.
    fn add_task(&self, pid: Pid) -> Result<(), Self::Error>;

    /// Limits it.
    fn apply(&self, options: &ControllerOpt<'_>) -> Result<(), Self::Error>;

    /// Removes it.
    fn remove(&self) -> Result<(), Self::Error>;

    /// Suspends or resumes what is in it.
    fn freeze(&self, state: FreezerState) -> Result<(), Self::Error>;

    /// What it uses.
    fn stats(&self) -> Result<Stats, Self::Error>;

    /// Who is in it.
    fn get_all_pids(&self) -> Result<Vec<Pid>, Self::Error>;
}

/// Limits.
#[derive(Clone, Debug)]
pub struct ControllerOpt<'a> {
    /// What is in the container's specification.
    pub resources: &'a LinuxResources,
    /// What is short of memory waits instead of being killed.
    pub disable_oom_killer: bool,
    /// Who goes first.
    pub oom_score_adj: Option<i32>,
    /// Suspended or not.
    pub freezer_state: Option<FreezerState>,
}

/// Whether the processes of a group run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezerState {
    /// Nobody knows.
    Undefined,
    /// They do not.
    Frozen,
    /// They do.
    Thawed,
}

/// A group that somebody else has made, limits and removes.
#[derive(Clone, Debug)]
pub struct AnyCgroupManager {
    /// Its directories.
    places: Vec<PathBuf>,
}

/// The group of this path.
pub fn create_cgroup_manager(config: CgroupConfig) -> Result<AnyCgroupManager, CreateCgroupSetupError> {
    let setup = get_cgroup_setup().map_err(Error::from)?;
    let root = Path::new(DEFAULT_CGROUP_ROOT);
    let roots = if setup == CgroupSetup::Unified { vec![root.to_owned()] } else { hierarchies(root)? };
    let path = config.cgroup_path.strip_prefix("/").unwrap_or(&config.cgroup_path);
    let places: Vec<PathBuf> = roots.iter().map(|root| root.join(path)).filter(|place| place.is_dir()).collect();
    match places.is_empty() {
        true => Err(Error::Unsupported("to make a group").into()),
        false => Ok(AnyCgroupManager { places }),
    }
}

impl AnyCgroupManager {
    /// What may fail without root; with it, nothing may.
    #[must_use]
    pub fn with_rootless(self, _rootless: bool) -> AnyCgroupManager {
        self
    }
}

impl CgroupManager for AnyCgroupManager {
    type Error = AnyManagerError;

    fn add_task(&self, pid: Pid) -> Result<(), AnyManagerError> {
        for place in &self.places {
            let list = place.join("cgroup.procs");
            let opened = OpenOptions::new().write(true).open(&list);
            let written = opened.and_then(|mut file| file.write_all(pid.to_string().as_bytes()));
            written.map_err(|error| at(&list, error))?;
        }
        Ok(())
    }

    fn apply(&self, _options: &ControllerOpt<'_>) -> Result<(), AnyManagerError> {
        Err(Error::Unsupported("to limit a group").into())
    }

    /// Who has made it removes it.
    fn remove(&self) -> Result<(), AnyManagerError> {
        Ok(())
    }

    fn freeze(&self, _state: FreezerState) -> Result<(), AnyManagerError> {
        Err(Error::Unsupported("to freeze a group").into())
    }

    fn stats(&self) -> Result<Stats, AnyManagerError> {
        Err(Error::Unsupported("to count what a group uses").into())
    }

    fn get_all_pids(&self) -> Result<Vec<Pid>, AnyManagerError> {
        Err(Error::Unsupported("to list who is in a group").into())
    }
}
