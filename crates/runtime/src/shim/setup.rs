//! How a shim comes to be: its socket, its signals, its namespaces, and what its sandbox asks for.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use super::Shim;
use super::fork::{close_all_but, exit_now};
use super::peer::Peer;
use super::user_namespace::UserNamespace;
use crate::cgroup::Cgroups;
use crate::error::in_full;
use crate::kernel::{self, check};
use crate::launch::prctl;
use crate::layout::{self, Boot, SandboxDir};
use crate::protocol::{Failure, Message};
use crate::spec::{IpcMode, NetworkMode, PidMode, SandboxSpec};

/// The size of `/dev/shm` when the sandbox does not say.
const SHM_BYTES_DEFAULT: u64 = 64 << 20;
/// How much less likely than others a shim is killed when the machine is out of memory: it must see the rest end.
const OOM_SCORE: &str = "-998";
/// How long a shim that could not be set up waits to tell someone why.
const CONFESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the shim out of the freshly started process.
pub(super) fn shim(mut args: impl Iterator<Item = OsString>) -> Result<Shim, String> {
    let dir = args.next().ok_or("expected the sandbox's directory as argument; shims are started by the node agent")?;
    let dir = SandboxDir(dir.into());
    layout::save(&dir.shim_pid(), &std::process::id()).map_err(|error| in_full(&error))?;
    let listener = take_listener().map_err(|error| format!("standard input is not a listening socket: {error}"))?;
    let ready = set_up(dir);
    match ready {
        Ok(Ready { boot, dir, cgroups, signals, user, pause }) => Ok(Shim {
            cgroup: cgroups.sandbox(&boot.spec.id),
            boot,
            dir,
            listener,
            signals,
            user,
            pause,
            peers: Vec::new(),
            containers: std::collections::BTreeMap::new(),
            execs: Vec::new(),
            errands: Vec::new(),
            next_number: 0,
            is_ending: false,
            is_untidy: true,
        }),
        Err(why) => {
            confess(&listener, &why).map_err(|error| format!("{why}; nobody could be told: {error}"))?;
            Err(why)
        }
    }
}

struct Ready {
    boot: Boot,
    dir: SandboxDir,
    cgroups: Cgroups,
    signals: OwnedFd,
    user: Option<UserNamespace>,
    pause: Option<i32>,
}

fn set_up(dir: SandboxDir) -> Result<Ready, String> {
    let step = |what: &'static str| move |error: std::io::Error| format!("could not {what}: {error}");
    let boot = layout::load::<Boot>(&dir.boot()).map_err(|error| in_full(&error))?.ok_or("boot.json is missing")?;
    std::env::set_current_dir("/").map_err(step("enter /"))?;
    // SAFETY: setsid has no memory arguments.
    check(unsafe { libc::setsid() }).map_err(step("begin a session"))?;
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(step("become a subreaper"))?;
    let signals = take_signals().map_err(step("take signals"))?;
    // Not every root may; then the shim is as likely to be killed as others.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        eprintln!("shim: could not lower the out-of-memory score: {error}");
    }
    // SAFETY: setgroups with no groups reads nothing; umask cannot fail.
    unsafe {
        check(libc::setgroups(0, std::ptr::null())).map_err(step("drop groups"))?;
        libc::umask(0o022);
    }
    let cgroups = Cgroups::detect(&boot.cgroup_parent).map_err(|error| in_full(&error))?;
    cgroups.join_shims().map_err(|error| in_full(&error))?;
    cgroups.sandbox(&boot.spec.id).limit(&boot.spec.resources).map_err(|error| in_full(&error))?;
    let bytes = boot.spec.shm_bytes.unwrap_or(SHM_BYTES_DEFAULT);
    mount_shm(&dir, bytes, boot.user_ids.unwrap_or(0)).map_err(step("mount the shared memory"))?;
    let user = enter_namespaces(&boot.spec, boot.user_ids)?;
    let pause = match (boot.spec.pid, &user) {
        (PidMode::Sandbox, Some(user)) => user.shared_pids.as_ref().map(|(_, pid)| *pid),
        (PidMode::Sandbox, None) => Some(start_pause().map_err(step("make a process namespace"))?),
        (PidMode::Container | PidMode::Host, _) => None,
    };
    Ok(Ready { boot, dir, cgroups, signals, user, pause })
}

/// The agent hands the listening socket over as standard input; programs must find `/dev/null` there.
fn take_listener() -> std::io::Result<UnixListener> {
    // SAFETY: descriptor 0 was given to this process for itself; duplicating it makes a new one that is ours alone.
    let listener = unsafe {
        let fd = check(libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3))?;
        UnixListener::from(OwnedFd::from_raw_fd(fd))
    };
    listener.set_nonblocking(true)?;
    listener.local_addr()?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // SAFETY: dup2 has no memory arguments; nothing in this process owns descriptor 0.
    check(unsafe { libc::dup2(null.as_raw_fd(), 0) })?;
    Ok(listener)
}

/// Children's ends arrive on the returned descriptor. Signals that mean "end" are ignored: a shim ends when its sandbox
/// is stopped, or by force.
fn take_signals() -> std::io::Result<OwnedFd> {
    // SAFETY: the set is initialized by sigemptyset before it is used; the descriptor returned is new and ours alone.
    unsafe {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut children = std::mem::zeroed();
        libc::sigemptyset(&raw mut children);
        libc::sigaddset(&raw mut children, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const children, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &raw const children, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn mount_shm(dir: &SandboxDir, bytes: u64, owner: u32) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir.shm())?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let options = format!("mode=1777,size={bytes},uid={owner},gid={owner}");
    kernel::mount(Path::new("shm"), &dir.shm(), "tmpfs", flags, &options)
}

/// Which ports root may listen on is the network's to say, and it is not the user namespace's; so all are free.
const PORTS: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "0");

fn enter_namespaces(spec: &SandboxSpec, user_ids: Option<u32>) -> Result<Option<UserNamespace>, String> {
    if let NetworkMode::Path(path) = &spec.network {
        let failed = |error| format!("could not enter the network namespace {}: {error}", path.display());
        let file = fs::File::open(path).map_err(failed)?;
        // SAFETY: setns has no memory arguments.
        check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }).map_err(failed)?;
    }
    if let Some(first) = user_ids {
        if spec.network != NetworkMode::Host {
            set_sysctl(PORTS.0, PORTS.1)?;
        }
        let net = spec.sysctls.iter().filter(|(name, _)| name.starts_with("net."));
        net.into_iter().try_for_each(|(name, value)| set_sysctl(name, value))?;
        return super::user_namespace::make(spec, first).map(Some);
    }
    let ipc = if spec.ipc == IpcMode::Sandbox { libc::CLONE_NEWIPC } else { 0 };
    // SAFETY: unshare has no memory arguments.
    check(unsafe { libc::unshare(libc::CLONE_NEWUTS | ipc) })
        .map_err(|error| format!("could not make namespaces: {error}"))?;
    if !spec.hostname.is_empty() {
        // SAFETY: the name is as long as is said and outlives the call.
        let named = check(unsafe { libc::sethostname(spec.hostname.as_ptr().cast(), spec.hostname.len()) });
        named.map_err(|error| format!("could not set the host name to {:?}: {error}", spec.hostname))?;
    }
    spec.sysctls.iter().try_for_each(|(name, value)| set_sysctl(name, value))?;
    Ok(None)
}

/// Sets a kernel parameter in the namespaces of this process.
pub(super) fn set_sysctl(name: &str, value: &str) -> Result<(), String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    fs::write(&path, value).map_err(|error| format!("could not set {name} to {value:?}: {error}"))
}

/// Starts the first process of a new process namespace; it only reaps. When the shim dies it dies too, and the kernel
/// then kills everything in the namespace.
fn start_pause() -> std::io::Result<i32> {
    let flags = libc::c_long::from(libc::CLONE_NEWPID | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: without CLONE_VM and with no new stack this is fork(2) into a new namespace; there is one thread.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) })?;
    if let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) {
        return Ok(pid);
    }
    let _ = prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).and_then(|()| close_all_but(Vec::new()));
    pause_for_ever()
}

/// What the first process of a namespace of processes does: it reaps.
pub(super) fn pause_for_ever() -> ! {
    // SAFETY: the set is initialized before use; sigwaitinfo and waitpid are told to return nothing but a number.
    unsafe {
        let mut children = std::mem::zeroed();
        libc::sigemptyset(&raw mut children);
        libc::sigaddset(&raw mut children, libc::SIGCHLD);
        while libc::sigwaitinfo(&raw const children, std::ptr::null_mut()) > 0
            || std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
        {
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        }
    }
    exit_now(1)
}

/// Tells the agent that connects why there will be no sandbox.
fn confess(listener: &UnixListener, why: &str) -> std::io::Result<()> {
    listener.set_nonblocking(false)?;
    rustix::net::sockopt::set_socket_timeout(listener, rustix::net::sockopt::Timeout::Recv, Some(CONFESS_TIMEOUT))?;
    let (socket, _) = listener.accept()?;
    socket.set_read_timeout(Some(CONFESS_TIMEOUT))?;
    let mut peer = Peer::accept(0, socket)?;
    peer.socket.set_nonblocking(false)?;
    for call in peer.receive() {
        peer.say(&Message::Reply { serial: call.serial, result: Err(Failure::Refused(why.to_owned())) }, Vec::new());
    }
    Ok(())
}
