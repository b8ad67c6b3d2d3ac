//! The control groups of a sandbox whose containers somebody else makes: limits, what is used, and the end of all of it.
//!
//! Guarantees  limits that the other runtime has no word for (process numbers) hold before a container's program begins
//! Assumes     the other runtime puts a container into `PATH/ID`, and leaves what is limited there as it is

use std::collections::BTreeMap;

use crate::cgroup::SandboxCgroup;
use crate::error::RuntimeError;
use crate::spec::Resources;
use crate::state::SandboxUsage;

/// The groups of one sandbox. All calls look at the kernel's files, or wait for it.
#[derive(Clone, Debug)]
pub struct Groups(pub(crate) SandboxCgroup);

impl Groups {
    /// The path below the root of each hierarchy.
    pub fn path(&self) -> String {
        self.0.path()
    }

    /// Sets limits on all containers together.
    pub fn limit(&self, resources: &Resources) -> Result<(), RuntimeError> {
        self.0.limit(resources)
    }

    /// Makes the group that a container will be put into. Devices are for the other runtime to allow.
    pub fn make(&self, container: &str, resources: &Resources) -> Result<(), RuntimeError> {
        let group = self.0.container(container);
        group.create(resources, true, &[])?;
        group.limit_cpu_time(resources)
    }

    /// Sets the limits of a container that runs.
    pub fn update(&self, container: &str, resources: &Resources) -> Result<(), RuntimeError> {
        self.0.container(container).update(resources)
    }

    /// Removes the group of a container that is over, and kills what is left in it.
    pub fn remove(&self, container: &str) -> Result<(), RuntimeError> {
        self.0.container(container).destroy()
    }

    /// What the sandbox uses, and each of these containers: the key of the answer, and the name of the group.
    pub fn usage(&self, containers: &BTreeMap<String, String>) -> SandboxUsage {
        let of = |(key, group): (&String, &String)| (key.clone(), self.0.container(group).usage());
        SandboxUsage { whole: self.0.usage(), containers: containers.iter().map(of).collect() }
    }

    /// Kills everything in them and removes them.
    pub fn destroy(&self) -> Result<(), RuntimeError> {
        self.0.destroy()
    }
}
