//! Making a container: a child of the shim prepares its file system, lets libcontainer build it, and ends.
//!
//! Flow        own mount namespace → overlay → who is the user → bind sources → control group → libcontainer → report
//! Relies on   the shim being a subreaper: the container's first process becomes its child when the maker ends
//! Guarantees  the shim itself never runs libcontainer, so it stays small and a hang there is only a child to kill

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use tracing::field::{Field, Visit};

use super::fork::{ReportKind, Reporter};
use super::oci::{self, PidNamespace, Plan};
use super::{rootfs, user};
use crate::capability::Capabilities;
use crate::cgroup::ContainerCgroup;
use crate::launch::{Identity, Launch, Prepared};
use crate::layout::{self, ContainerDir};
use crate::spec::{Bind, ContainerSpec, Mount, Propagation, Seccomp};

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
    let shared = shared_sources(&job)?;
    rootfs::leave_mount_namespace().map_err(|error| format!("could not take a mount namespace: {error}"))?;
    rootfs::mount_overlay(&job.spec.layers, &job.data, &job.dir.rootfs())
        .map_err(|error| format!("could not mount the image's layers: {error}"))?;
    let identity = user::resolve(&job.dir.rootfs(), &job.spec.user, &job.spec.additional_gids)?;
    stage_mounts(&job, shared)?;
    job.cgroup.create(&job.spec.resources, job.spec.privileged).map_err(|error| in_full(&error))?;
    let plan = Plan {
        spec: &job.spec,
        dir: &job.dir,
        cgroup: &job.cgroup,
        identity: &identity,
        shm: &job.shm,
        pid_namespace: job.pid_namespace.clone(),
    };
    let config = job.dir.0.join("config.json");
    layout::save(&config, &plan.config()).map_err(|error| in_full(&error))?;
    let launch = launch_of(&job.spec, identity);
    layout::save(&job.dir.launch(), &launch).map_err(|error| in_full(&error))?;
    let uid = launch.identity.uid;
    let prepared = launch.prepare().map_err(|error| error.to_string())?;
    let pid = build(job, Program { prepared: Rc::new(prepared), report }, uid)?;
    report.say(ReportKind::Process, &pid.to_string());
    Ok(())
}

fn launch_of(spec: &ContainerSpec, identity: Identity) -> Launch {
    let (capabilities, seccomp) = match spec.privileged {
        true => (Capabilities::all(), Seccomp::Unconfined),
        false => (spec.capabilities.clone(), spec.seccomp),
    };
    Launch {
        args: spec.args.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone(),
        identity,
        capabilities,
        seccomp,
        no_new_privileges: spec.no_new_privileges,
        rlimits: spec.rlimits.clone(),
        oom_score_adj: spec.oom_score_adj,
    }
}

/// What both sides shall see mounts of, picked up while this process still is where the machine mounts.
fn shared_sources(job: &Job) -> Result<BTreeMap<usize, OwnedFd>, String> {
    let mut found = BTreeMap::new();
    for (index, mount) in job.spec.mounts.iter().enumerate() {
        let Mount::Bind(Bind { source, propagation: Propagation::Both, .. }) = mount else { continue };
        found.insert(index, rootfs::pick_up(source)?);
    }
    Ok(found)
}

fn stage_mounts(job: &Job, mut shared: BTreeMap<usize, OwnedFd>) -> Result<(), String> {
    fs::create_dir_all(job.dir.staging()).map_err(|error| format!("could not make a directory: {error}"))?;
    for (index, mount) in job.spec.mounts.iter().enumerate() {
        let staging = job.dir.staging().join(index.to_string());
        match mount {
            Mount::Bind(bind) if oci::is_staged(&job.spec, bind) => stage_bind(bind, shared.remove(&index), &staging)?,
            Mount::Bind(Bind { source, .. }) if !source.exists() => {
                return Err(format!("mount source {} does not exist", source.display()));
            }
            Mount::Bind(_) => {}
            Mount::Layers { layers, sub_path, .. } => rootfs::stage_layers(layers, sub_path.as_deref(), &staging)?,
            Mount::Tmpfs { .. } => {}
        }
    }
    Ok(())
}

fn stage_bind(bind: &Bind, shared: Option<OwnedFd>, staging: &Path) -> Result<(), String> {
    match (&bind.sub_path, shared) {
        (_, Some(picked_up)) => return rootfs::put_down(&picked_up, staging),
        (Some(sub_path), None) => rootfs::stage(&bind.source, sub_path, staging)?,
        (None, None) => rootfs::put_down(&rootfs::pick_up(&bind.source)?, staging)?,
    }
    match bind.propagation {
        Propagation::Private => rootfs::cut_off(staging),
        Propagation::FromMachine | Propagation::Both => Ok(()),
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

/// An error with all its causes in one line.
pub(super) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
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
