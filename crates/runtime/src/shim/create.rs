//! Making a container: a child of the shim prepares its file system, has it built, and ends.
//!
//! Flow        own mount namespace → overlay → who is the user → bind sources → control group → the bundle of OCI's runtime
//!             specification → one of the two ways that containers are run: [`embedded`] or [`program`]
//! Relies on   the shim being a subreaper: the container's first process becomes its child when the maker ends
//! Guarantees  the shim itself never builds a container, so it stays small and a hang there is only a child to kill

use std::os::fd::{AsRawFd, OwnedFd};

use super::fork::Reporter;
use super::oci::{PidNamespace, Plan};
use super::program::Program;
use super::user_namespace::UserNamespace;
use super::{embedded, machine_devices, program, rootfs, stage, user};
use crate::capability::Capabilities;
use crate::cgroup::ContainerCgroup;
use crate::error::in_full;
use crate::launch::{Identity, Launch};
use crate::layout::{self, ContainerDir};
use crate::spec::{ContainerSpec, Device, Seccomp, USER_IDS};

/// What the maker is given.
pub(super) struct Job {
    pub id: String,
    pub spec: ContainerSpec,
    pub dir: ContainerDir,
    /// Where the writable layer goes.
    pub data: std::path::PathBuf,
    pub shm: std::path::PathBuf,
    pub cgroup: ContainerCgroup,
    pub pid_namespace: PidNamespace,
    /// The user namespace, the maker's copy of the shim's.
    pub user: Option<UserNamespace>,
    pub stdio: Stdio,
    pub way: Way,
}

/// What builds the container.
pub(super) enum Way {
    Embedded,
    /// A program of the machine; it starts the container when the gate opens.
    Program {
        program: Program,
        gate: OwnedFd,
    },
}

/// The container's ends of its standard streams.
pub(super) enum Stdio {
    /// `None` is `/dev/null`.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// The terminal is sent to the socket in the container's directory.
    Terminal,
}

/// The maker's work, in the child.
pub(super) fn make(job: Job, report: Reporter) -> Result<(), String> {
    let shared = stage::shared_sources(&job)?;
    rootfs::leave_mount_namespace().map_err(|error| format!("could not take a mount namespace: {error}"))?;
    // Before the stage: with a user namespace the control groups are part of it.
    job.limit()?;
    let staged = stage::stage(&job, shared)?;
    let wanted = user::Wanted {
        user: &job.spec.user,
        additional: &job.spec.additional_gids,
        image_groups: job.spec.image_groups,
        ids: if job.user.is_some() { USER_IDS } else { u32::MAX },
    };
    let identity = user::resolve(&staged.rootfs, &wanted)?;
    let plan = Plan {
        staged: &staged,
        devices_later: matches!(job.way, Way::Embedded),
        user_namespace: job.user.as_ref().map(|user| user.user.as_raw_fd()),
        spec: &job.spec,
        cgroup: &job.cgroup,
        identity: &identity,
        pid_namespace: job.pid_namespace.clone(),
    };
    let config = plan.config();
    let launch = launch_of(&job.spec, identity);
    layout::save(&job.dir.launch(), &launch).map_err(|error| in_full(&error))?;
    job.give_pipes(&launch)?;
    match job.way {
        Way::Embedded => {
            layout::save(&job.dir.config(), &config).map_err(|error| in_full(&error))?;
            let devices = machine_devices::pick_up(&job.spec, &staged)?;
            embedded::build(job, launch, devices, report)
        }
        Way::Program { .. } => {
            let config = program::complete(config, &job, &launch);
            layout::save(&job.dir.config(), &config).map_err(|error| in_full(&error))?;
            program::build(job, report)
        }
    }
}

impl Job {
    /// Makes the control group with its limits, or sets those anew that somebody else has changed.
    pub fn limit(&self) -> Result<(), String> {
        let devices: Vec<String> = self.spec.devices.iter().map(Device::rule).collect();
        let made = self.cgroup.create(&self.spec.resources, self.spec.privileged, &devices);
        made.map_err(|error| in_full(&error))
    }

    /// Programs that run as somebody reopen /dev/stdout by name.
    fn give_pipes(&self, launch: &Launch) -> Result<(), String> {
        let Stdio::Pipes { stdin, stdout, stderr } = &self.stdio else { return Ok(()) };
        let uid = self.user.as_ref().map_or(launch.identity.uid, |user| user.outside(launch.identity.uid));
        let given = [stdout, stderr]
            .into_iter()
            .chain(stdin)
            .try_for_each(|pipe| std::os::unix::fs::fchown(pipe, Some(uid), None));
        given.map_err(|error| format!("could not give a pipe to the user: {error}"))
    }
}

fn launch_of(spec: &ContainerSpec, identity: Identity) -> Launch {
    let (capabilities, seccomp) = match spec.privileged {
        true => (Capabilities::all(), Seccomp::Unconfined),
        false => (spec.capabilities.clone(), spec.seccomp.clone()),
    };
    Launch {
        args: spec.args.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone(),
        identity,
        capabilities,
        seccomp,
        no_new_privileges: spec.no_new_privileges,
        app_armor: spec.app_armor.clone(),
        rlimits: spec.rlimits.clone(),
        oom_score_adj: spec.oom_score_adj,
    }
}
