//! A sandbox's own user namespace: root inside is nobody outside.
//!
//! Flow        the shim clones a *holder* into new user, IPC and UTS namespaces (and one of processes, if the containers share
//!             one), maps its ids, lets it set what only root inside may set, and joins IPC and UTS. The user namespace
//!             itself it keeps open for the containers: it stays outside, where it can limit and mount for them
//! Guarantees  no id inside is an id of the machine or of another sandbox
//! Caveats     the network belongs to the machine's user namespace: a container cannot configure it, with any capability

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::fork::{close_all_but, exit_now};
use super::setup::{pause_for_ever, set_sysctl};
use crate::kernel::{self, check};
use crate::launch::prctl;
use crate::spec::{IpcMode, PidMode, SandboxSpec, USER_IDS};

/// A sandbox's user namespace and what belongs to it, held open by its shim.
#[derive(Debug)]
pub(super) struct UserNamespace {
    /// The id outside that is 0 inside; [`USER_IDS`] follow.
    pub first: u32,
    pub user: OwnedFd,
    /// The namespace of processes that all containers share, if they do, and its first process.
    pub shared_pids: Option<(OwnedFd, i32)>,
}

impl UserNamespace {
    /// Another hold on the same.
    pub fn try_clone(&self) -> io::Result<UserNamespace> {
        let shared_pids = match &self.shared_pids {
            Some((namespace, pid)) => Some((namespace.try_clone()?, *pid)),
            None => None,
        };
        Ok(UserNamespace { first: self.first, user: self.user.try_clone()?, shared_pids })
    }

    /// The id outside.
    pub fn outside(&self, id: u32) -> u32 {
        self.first + id
    }

    /// The descriptors that a container's maker must inherit.
    pub fn descriptors(&self) -> Vec<i32> {
        let pids = self.shared_pids.iter().map(|(namespace, _)| namespace.as_raw_fd());
        pids.chain([self.user.as_raw_fd()]).collect()
    }
}

/// Makes the namespaces and joins those that the shim lives in.
pub(super) fn make(spec: &SandboxSpec, first: u32) -> Result<UserNamespace, String> {
    let failed = |what: &'static str| move |error: io::Error| format!("could not {what}: {error}");
    let (gate, opener) = kernel::pipe().map_err(failed("make a pipe"))?;
    let (answer, say) = kernel::pipe().map_err(failed("make a pipe"))?;
    let ipc = if spec.ipc == IpcMode::Sandbox { libc::CLONE_NEWIPC } else { 0 };
    let pids = if spec.pid == PidMode::Sandbox { libc::CLONE_NEWPID } else { 0 };
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::CLONE_NEWUTS | ipc | pids | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: without CLONE_VM and with no new stack this is fork(2) into new namespaces; there is one thread.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) })
        .map_err(failed("make a user namespace; does this kernel allow them (user.max_user_namespaces)?"))?;
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else {
        drop((opener, answer));
        hold(spec, &gate, say)
    };
    drop((gate, say));
    for file in ["uid_map", "gid_map"] {
        let map = format!("0 {first} {USER_IDS}\n");
        fs::write(format!("/proc/{pid}/{file}"), map).map_err(failed("map the ids of a user namespace"))?;
    }
    kernel::write(&opener, b"x").map_err(failed("let the holder of a user namespace go on"))?;
    let mut said = [0; 512];
    let count = kernel::read(&answer, &mut said).map_err(failed("hear from the holder of a user namespace"))?;
    match &said[..count] {
        b"ok" => {}
        [] => return Err("the holder of a user namespace ended without a word".to_owned()),
        why => return Err(String::from_utf8_lossy(why).into_owned()),
    }
    let open = |kind: &str| fs::File::open(format!("/proc/{pid}/ns/{kind}")).map(OwnedFd::from);
    let user = open("user").map_err(failed("open a user namespace"))?;
    for (kind, flag) in [("uts", libc::CLONE_NEWUTS), ("ipc", ipc)] {
        let namespace = open(kind).map_err(failed("open a namespace"))?;
        if flag != 0 {
            // SAFETY: setns has no memory arguments.
            check(unsafe { libc::setns(namespace.as_raw_fd(), flag) }).map_err(failed("join a namespace"))?;
        }
    }
    let shared_pids = match pids {
        0 => None,
        _ => Some((open("pid").map_err(failed("open a namespace"))?, pid)),
    };
    // The holder has done its work when its gate closes, unless it is the first of the processes.
    drop(opener);
    Ok(UserNamespace { first, user, shared_pids })
}

/// The holder: root inside.
fn hold(spec: &SandboxSpec, gate: &OwnedFd, say: OwnedFd) -> ! {
    let settled = settle(spec, gate, &say);
    let word = settled.as_ref().err().map_or("ok", String::as_str);
    // If nobody listens any more, the shim is gone and this process about to end.
    let _ = kernel::write(&say, &word.as_bytes()[..word.len().min(512)]);
    drop(say);
    if settled.is_err() {
        exit_now(1);
    }
    let _ = kernel::read(gate, &mut [0]);
    if spec.pid == PidMode::Sandbox {
        pause_for_ever();
    }
    exit_now(0)
}

fn settle(spec: &SandboxSpec, gate: &OwnedFd, say: &OwnedFd) -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("could not {what}: {error}");
    close_all_but(vec![gate.as_raw_fd(), say.as_raw_fd()]).map_err(failed("close files"))?;
    kernel::read(gate, &mut [0]).map_err(failed("wait for the map of ids"))?;
    let none: libc::c_long = 0;
    // SAFETY: setgroups with no groups reads nothing; the raw calls change this one thread, the only one.
    unsafe {
        check(libc::setgroups(0, std::ptr::null())).map_err(failed("drop groups"))?;
        check(libc::syscall(libc::SYS_setresgid, none, none, none)).map_err(failed("become root inside"))?;
        check(libc::syscall(libc::SYS_setresuid, none, none, none)).map_err(failed("become root inside"))?;
    }
    // A change of user forgets this, so it comes after.
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).map_err(failed("bind the holder to its shim"))?;
    if !spec.hostname.is_empty() {
        // SAFETY: the name is as long as is said and outlives the call.
        let named = check(unsafe { libc::sethostname(spec.hostname.as_ptr().cast(), spec.hostname.len()) });
        named.map_err(failed("set the host name"))?;
    }
    spec.sysctls
        .iter()
        .filter(|(name, _)| !name.starts_with("net."))
        .try_for_each(|(name, value)| set_sysctl(name, value))
}

/// Where in a maker's own mount namespace root inside can find what was prepared for it: a directory that everyone may
/// pass through, which the ways to our own directories are not.
pub(super) fn meeting_place() -> Result<&'static Path, String> {
    let candidates = ["/mnt", "/srv", "/opt", "/media", "/home"].map(Path::new);
    let found = candidates.into_iter().find(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()));
    found.ok_or_else(|| {
        "none of /mnt, /srv, /opt, /media, /home is a directory; one is needed to prepare a user namespace".to_owned()
    })
}
