//! Exec: one more process in a running container, with exactly the rights of its first.
//!
//! Flow        the joiner (a child of the shim) enters the control groups and all namespaces of the first process, then
//!             clones the process itself as the shim's own child, because entering a pid namespace takes a fork
//! Guarantees  the same steps as for the first process follow ([`crate::launch`]): same user, filter, capabilities
//! Not here    containers that a program of the machine runs ([`super::program`]); libcontainer: its exec drops the filter and does not join the user namespace

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, openat};

use super::fork::{ReportKind, Reporter, exit_now};
use super::program::{self, Program};
use crate::cgroup::ContainerCgroup;
use crate::error::in_full;
use crate::kernel::{self, check};
use crate::launch::{Launch, Prepared};
use crate::layout::{self, ContainerDir};
use crate::spec::{ExecSpec, TerminalSize};

/// What the joiner is given.
pub(super) struct Job {
    pub id: String,
    pub spec: ExecSpec,
    pub dir: ContainerDir,
    pub cgroup: ContainerCgroup,
    /// The container's first process; the shim is its parent and has not seen it end, so the number is its own.
    pub init: i32,
    /// The program that runs the container, if it is not embedded.
    pub program: Option<Program>,
    pub stdio: Stdio,
    /// The id outside that is 0 in the container's user namespace.
    pub first_id: u32,
}

/// The process's ends of its standard streams.
pub(super) enum Stdio {
    /// `None` is `/dev/null`.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// It opens a terminal inside and hands it over.
    Terminal(Option<TerminalSize>),
}

/// The joiner's work. Reports the process's number; the process itself reports a failure to become the program.
pub(super) fn join(job: Job, report: Reporter) -> Result<(), String> {
    let launch = layout::load::<Launch>(&job.dir.launch()).map_err(|error| in_full(&error))?;
    let launch = overlay(launch.ok_or("the container has no launch.json: it was never made")?, &job.spec);
    give_pipes(&job.stdio, job.first_id + launch.identity.uid)
        .map_err(|error| format!("could not give a pipe to the user: {error}"))?;
    if let Some(program) = &job.program {
        return program::join(program, &job, &launch, report);
    }
    let adjustment = kernel::allowed_oom_score(launch.oom_score_adj).to_string();
    let prepared = launch.prepare().map_err(|error| error.to_string())?;
    fs::write("/proc/self/oom_score_adj", adjustment)
        .map_err(|error| format!("could not set the out-of-memory score: {error}"))?;
    job.cgroup.join().map_err(|error| in_full(&error))?;
    enter_namespaces(job.init).map_err(|error| format!("could not enter the container's namespaces: {error}"))?;
    let (gate, opener) = kernel::pipe().map_err(|error| format!("could not make a pipe: {error}"))?;
    match clone_sibling().map_err(|error| format!("could not fork in the container: {error}"))? {
        Some(pid) => {
            report.say(ReportKind::Process, &pid.to_string());
            // The process waits for this, so that its number is known before anything else of it is.
            drop(opener);
            Ok(())
        }
        None => {
            drop(opener);
            let _ = kernel::read(&gate, &mut [0]);
            drop(gate);
            let error = become_process(&job.stdio, &prepared, report).err().unwrap_or_default();
            report.say(ReportKind::Failure, &error);
            exit_now(126)
        }
    }
}

/// The container's launch with what the exec changes.
fn overlay(mut launch: Launch, spec: &ExecSpec) -> Launch {
    launch.args.clone_from(&spec.args);
    launch.env.extend(spec.env.iter().cloned());
    if let Some(cwd) = &spec.cwd {
        launch.cwd.clone_from(cwd);
    }
    launch
}

/// Programs that run as somebody reopen /dev/stdout by name.
fn give_pipes(stdio: &Stdio, uid: u32) -> io::Result<()> {
    let Stdio::Pipes { stdin, stdout, stderr } = stdio else { return Ok(()) };
    [stdout, stderr].into_iter().chain(stdin).try_for_each(|pipe| std::os::unix::fs::fchown(pipe, Some(uid), None))
}

fn enter_namespaces(init: i32) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(init).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let mut kinds = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET;
    // Entering the user namespace one is already in is an error, unlike with all others.
    let user = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/user")).map(|found| found.ino());
    if user(&init.to_string())? != user("self")? {
        kinds |= libc::CLONE_NEWUSER;
    }
    // SAFETY: setns has no memory arguments.
    check(unsafe { libc::setns(pidfd.as_raw_fd(), kinds) })?;
    Ok(())
}

/// Forks a child of our parent; `None` in the child.
fn clone_sibling() -> io::Result<Option<i32>> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: without CLONE_VM and with no new stack this is fork(2) with another parent; the caller has one thread.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) })?;
    Ok(i32::try_from(pid).ok().filter(|pid| *pid > 0))
}

/// The process itself, now in all namespaces. Comes back only to say what went wrong.
fn become_process(stdio: &Stdio, prepared: &Prepared, report: Reporter) -> Result<(), String> {
    let failed = |error: io::Error| format!("could not set up standard streams: {error}");
    // SAFETY: setsid has no memory arguments.
    check(unsafe { libc::setsid() }).map_err(failed)?;
    match stdio {
        Stdio::Pipes { stdin, stdout, stderr } => {
            place(stdin.as_ref(), 0)
                .and_then(|()| place(Some(stdout), 1))
                .and_then(|()| place(Some(stderr), 2))
                .map_err(failed)?;
        }
        Stdio::Terminal(size) => open_terminal(*size, report)?,
    }
    Err(prepared.run().to_string())
}

/// Puts a descriptor, or the container's `/dev/null`, in the place of a standard one.
fn place(fd: Option<&OwnedFd>, number: i32) -> io::Result<()> {
    let null;
    let fd = match fd {
        Some(fd) => fd,
        None => {
            null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            &null
        }
    };
    // SAFETY: dup2 has no memory arguments; nothing in this process owns 0, 1 or 2.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    Ok(())
}

/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Opens a terminal of the container's own and makes it this session's. The container could have put anything in its
/// place, so it is used only when it is what it must be.
fn open_terminal(size: Option<TerminalSize>, report: Reporter) -> Result<(), String> {
    let failed = |error: io::Error| format!("could not open a terminal in the container: {error}");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let controller =
        openat(CWD, "/dev/pts/ptmx", flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|error| failed(error.into()))?;
    let open = || -> io::Result<OwnedFd> {
        let (found, filesystem) = (fstat(&controller)?, fstatfs(&controller)?);
        if filesystem.f_type != DEVPTS_MAGIC || found.st_rdev != libc::makedev(5, 2) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "/dev/pts/ptmx is not a terminal multiplexer"));
        }
        rustix::pty::unlockpt(&controller)?;
        if let Some(size) = size {
            kernel::set_terminal_size(controller.as_raw_fd(), size)?;
        }
        // SAFETY: TIOCGPTPEER takes open flags as a number and returns a new descriptor, which is then ours alone.
        unsafe {
            let peer = check(libc::ioctl(
                controller.as_raw_fd(),
                libc::TIOCGPTPEER,
                libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
            ))?;
            Ok(OwnedFd::from_raw_fd(peer))
        }
    };
    let user_side = open().map_err(failed)?;
    // SAFETY: TIOCSCTTY takes a number.
    check(unsafe { libc::ioctl(user_side.as_raw_fd(), libc::TIOCSCTTY, 0) }).map_err(failed)?;
    (0..3).try_for_each(|number| place(Some(&user_side), number)).map_err(failed)?;
    report.hand_over(ReportKind::Terminal, controller.as_fd());
    Ok(())
}
