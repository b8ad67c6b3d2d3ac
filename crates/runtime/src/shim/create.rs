//! Making a container: a child of the shim prepares its file system, lets libcontainer build it, and ends.
//!
//! Flow        own mount namespace → overlay → who is the user → bind sources → control group → libcontainer → report
//! Relies on   the shim being a subreaper: the container's first process becomes its child when the maker ends
//! Guarantees  the shim itself never runs libcontainer, so it stays small and a hang there is only a child to kill

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use tracing::field::{Field, Visit};

use super::fork::{ReportKind, Reporter};
use super::oci::{PidNamespace, Plan};
use super::user_namespace::UserNamespace;
use super::{rootfs, stage, user};
use crate::capability::Capabilities;
use crate::cgroup::ContainerCgroup;
use crate::error::in_full;
use crate::launch::{Identity, Launch, Prepared};
use crate::layout::{self, ContainerDir};
use crate::spec::{ContainerSpec, Seccomp, USER_IDS};

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
}

/// The container's ends of its standard streams.
pub(super) enum Stdio {
    /// `None` is `/dev/null`.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// The terminal is sent to the socket in the container's directory.
    Terminal,
}

/// The maker's work, in the child. Reports the first process's number.
pub(super) fn make(job: Job, report: Reporter) -> Result<(), String> {
    // It fails only when there is a subscriber already, and a shim has none.
    let _ = tracing::subscriber::set_global_default(Details(report));
    let shared = stage::shared_sources(&job)?;
    rootfs::leave_mount_namespace().map_err(|error| format!("could not take a mount namespace: {error}"))?;
    // Before the stage: with a user namespace the control groups are part of it.
    let devices: Vec<String> = job.spec.devices.iter().map(crate::spec::Device::rule).collect();
    job.cgroup.create(&job.spec.resources, job.spec.privileged, &devices).map_err(|error| in_full(&error))?;
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
        user_namespace: job.user.as_ref().map(|user| user.user.as_raw_fd()),
        spec: &job.spec,
        cgroup: &job.cgroup,
        identity: &identity,
        pid_namespace: job.pid_namespace.clone(),
    };
    let config = job.dir.0.join("config.json");
    layout::save(&config, &plan.config()).map_err(|error| in_full(&error))?;
    let launch = launch_of(&job.spec, identity);
    layout::save(&job.dir.launch(), &launch).map_err(|error| in_full(&error))?;
    let uid = job.user.as_ref().map_or(launch.identity.uid, |user| user.outside(launch.identity.uid));
    let prepared = launch.prepare().map_err(|error| error.to_string())?;
    let pid = build(job, Program { prepared: Rc::new(prepared), report }, uid)?;
    report.say(ReportKind::Process, &pid.to_string());
    Ok(())
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

fn build(job: Job, program: Program, uid: u32) -> Result<i32, String> {
    let failed = |error: libcontainer::error::LibcontainerError| in_full(&error);
    let mut builder = ContainerBuilder::new(job.id, SyscallType::default())
        .with_root_path(job.dir.state())
        .map_err(failed)?
        .with_executor(program);
    builder = match job.stdio {
        Stdio::Terminal => builder.with_console_socket(Some(job.dir.console())),
        Stdio::Pipes { stdin, stdout, stderr } => {
            for pipe in [&stdout, &stderr].into_iter().chain(stdin.as_ref()) {
                // Programs that run as somebody reopen /dev/stdout by name.
                std::os::unix::fs::fchown(pipe, Some(uid), None)
                    .map_err(|error| format!("could not give a pipe to the user: {error}"))?;
            }
            let builder = builder.with_stdout(stdout).with_stderr(stderr);
            match stdin {
                Some(stdin) => builder.with_stdin(stdin),
                None => builder,
            }
        }
    };
    let container = builder.as_init(&job.dir.0).with_systemd(false).with_detach(true).build().map_err(failed)?;
    let pid = container.pid().ok_or("libcontainer made a container without a process")?;
    Ok(pid.as_raw())
}

/// What libcontainer calls when everything else is done, in the container's first process.
#[derive(Clone)]
struct Program {
    prepared: Rc<Prepared>,
    report: Reporter,
}

impl Executor for Program {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // A program that is not there is found out when it is started: then the container is known, as one that failed.
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment goes to the program by execve; this process needs none.
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let error = self.prepared.run();
        self.report.say(ReportKind::Failure, &error.to_string());
        Err(ExecutorError::Other(error.to_string()))
    }
}

/// libcontainer's errors lose their causes on the way between its processes, but it traces them: these go to the shim.
struct Details(Reporter);

impl tracing::Subscriber for Details {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let text = RefCell::new(String::new());
        event.record(&mut Line(&text));
        self.0.say(ReportKind::Detail, &text.borrow());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Line<'a>(&'a RefCell<String>);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = self.0.borrow_mut();
        let part = if field.name() == "message" { format!("{value:?}") } else { format!("{}={value:?}", field.name()) };
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&part);
    }
}
