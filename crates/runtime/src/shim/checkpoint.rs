//! Having CRIU save a running container: its processes and all they have in memory, while they go on.
//!
//! Flow        CRIU stops the first process and its descendants, has each tell what it has, writes it all into images, and
//!             lets them go on. It is a child of the shim because the shim is in the network, names and IPC that the
//!             container shares with its neighbours: what CRIU shares with a process it leaves alone
//! Rules
//!   R1 running   only what runs can be saved
//!   R2 once      a container is saved once at a time
//!   R3 outside   what is mounted from outside is noted by where it is seen, not copied, as OCI runtimes do
//!   R4 bounded   in time, by its end; each of its files in size, by a write that fails
//!   R5 unharmed  what CRIU leaves in the container when it is ended is undone ([`super::mend`])
//! Not here    processes that were exec'd into the container: they are no descendants of its first one
//!
//! Source: criu(8); CRIU wiki, "External bind mounts", "External TTY".

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::calls::{LATER, Outcome, io_refused, refused};
use super::container::Stage;
use super::errand::{Errand, Purpose};
use super::program::{self, Program};
use super::{Caller, Shim};
use crate::error::in_full;
use crate::kernel::{self, check};
use crate::launch::PATH_DEFAULT;
use crate::layout::ContainerDir;
use crate::protocol::CheckpointOrder;

/// What the errand is called.
const VERB: &str = "checkpoint";
/// CRIU's own log, in the directory that it works in.
const LOG: &str = "dump.log";
/// Most mounts from outside; each is an argument.
const BINDS_MAX: usize = 1024;
/// Files that are open and have no name any more are part of the images up to this size, in bytes.
const GHOST_BYTES_MAX: u64 = 64 << 20;
/// What its log says when it has looked what the kernel can.
const BEGIN: &str = "Dumping processes (pid: ";
/// Lines of CRIU's complaints that are told: the first is the cause, the others say what it was needed for.
const COMPLAINTS_MAX: usize = 3;

impl Shim {
    /// Has CRIU save a container into the directory of the order. The answer comes when it is saved.
    pub(super) fn checkpoint(&mut self, caller: Caller, id: &str, order: &CheckpointOrder) -> Outcome {
        let (number, container) = self.find(id)?;
        // R1
        let (Stage::Running { .. }, Some(pid)) = (&container.stage, container.pid) else {
            return Err(refused("it does not run"));
        };
        let (bundle, has_terminal) = (container.dir.clone(), container.terminal.is_some());
        // R2
        if self.errands.iter().any(|errand| errand.container == number && errand.verb == VERB) {
            return Err(refused("it is being checkpointed already"));
        }
        let binds = bundle.binds().map_err(|error| refused(in_full(&error)))?;
        let points = kernel::mount_points(&pid.to_string()).map_err(io_refused("read its mounts"))?;
        // The terminal's other end is ours.
        let console = has_terminal.then(|| PathBuf::from("/dev/console"));
        let outside = outside(points, &binds.into_iter().map(|(seen, _)| seen).chain(console).collect::<Vec<_>>());
        if outside.len() > BINDS_MAX {
            return Err(refused(format!("{} mounts from outside, at most {BINDS_MAX} can be saved", outside.len())));
        }
        let images = order.directory.join("checkpoint");
        fs::DirBuilder::new().mode(0o700).create(&images).map_err(io_refused("make a directory for images"))?;
        let dir = ContainerDir(order.directory.clone());
        let complaints = File::create(program::log_of(&dir, VERB)).map_err(io_refused("make a log"))?;
        let mut command = dump(order, pid, &outside);
        if has_terminal {
            let terminal = terminal(pid).map_err(io_refused("look at its terminal"))?;
            command.args(["--shell-job", "--external", &terminal]);
        }
        command.stderr(complaints);
        let child = command.spawn();
        let child = child.map_err(|error| refused(format!("could not run {}: {error}", order.program.display())))?;
        let pid = i32::try_from(child.id()).expect("process numbers are positive and small");
        let until_ms = kernel::monotonic_ms().saturating_add(order.timeout_ms);
        let (program, purpose) = (Program(order.program.clone()), Purpose::Checkpoint(caller));
        self.errands.push(Errand {
            pid,
            until_ms,
            container: number,
            purpose,
            verb: VERB,
            program,
            dir,
            is_late: false,
        });
        LATER
    }
}

fn dump(order: &CheckpointOrder, pid: i32, outside: &[PathBuf]) -> Command {
    let mut command = Command::new(&order.program);
    command.env_clear().env("PATH", PATH_DEFAULT).current_dir(&order.directory);
    command.args(["dump", "--leave-running", "--tree"]).arg(pid.to_string());
    command.args(["--images-dir", "checkpoint", "--work-dir", ".", "--log-file", LOG, "-v3"]);
    command.args(["--manage-cgroups=ignore", "--file-locks", "--ext-unix-sk", "--ghost-limit"]);
    command.arg(GHOST_BYTES_MAX.to_string());
    // Connections are held for the moment by rules of nft, which the node needs anyway, not of iptables.
    command.args(["--tcp-established", "--network-lock", "nftables"]);
    // R3
    command.args(["--enable-external-sharing", "--enable-external-masters"]);
    for point in outside {
        let point = point.display();
        command.arg("--external").arg(format!("mnt[{point}]:{point}"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let file_bytes_max = order.file_bytes_max;
    // SAFETY: the shim has one thread, so what runs between fork and execve may be any code.
    unsafe { command.pre_exec(move || before_criu(file_bytes_max)) };
    command
}

/// R4. A group of its own, so that the programs that it runs can be ended with it.
fn before_criu(file_bytes_max: u64) -> io::Result<()> {
    program::before_program()?;
    let limit = libc::rlimit { rlim_cur: file_bytes_max, rlim_max: file_bytes_max };
    // SAFETY: the structure lives until the call returns; the others have no memory arguments.
    unsafe {
        check(libc::setpgid(0, 0))?;
        check(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit))?;
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::umask(0o077);
    }
    Ok(())
}

/// R3: the mount points at or beneath those of binds.
fn outside(points: Vec<PathBuf>, binds: &[PathBuf]) -> Vec<PathBuf> {
    let mut outside = points;
    outside.retain(|point| binds.iter().any(|bind| point.starts_with(bind)));
    outside.sort();
    outside.dedup();
    outside
}

/// The container's end of its terminal; the other end is ours.
fn terminal(pid: i32) -> io::Result<String> {
    let found = fs::metadata(format!("/proc/{pid}/fd/0"))?;
    if !found.file_type().is_char_device() {
        return Err(io::Error::other("its standard input is no terminal any more"));
    }
    Ok(format!("tty[{:x}:{:x}]", found.rdev(), found.dev()))
}

/// Why CRIU failed, by its own log, or by what it said before it had one.
pub(super) fn last_words(dir: &ContainerDir, code: i32) -> String {
    let said = |path: &Path| program::read_end(path).unwrap_or_default();
    let complaints = complaints(&said(&dir.0.join(LOG)));
    let complaints =
        if complaints.is_empty() { said(&program::log_of(dir, VERB)).trim().to_owned() } else { complaints };
    match complaints.is_empty() {
        true => format!("criu ended with {code} and did not say why"),
        false => format!("criu: {complaints}"),
    }
}

/// What is told of one that was ended.
pub(super) const TOO_LATE: &str = "criu took too long and was killed";

/// The first errors of a log, without the times and lines of code before them. What CRIU finds missing while it looks what the
/// kernel can is no error of its work.
fn complaints(log: &str) -> String {
    let work = log.split_once(BEGIN).map_or(log, |(_, work)| work);
    let errors = work.lines().filter_map(|line| Some(line.split_once("Error (")?.1.split_once("): ")?.1.trim()));
    errors.take(COMPLAINTS_MAX).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::{complaints, outside};
    use std::path::PathBuf;

    #[test]
    fn what_is_mounted_from_outside_and_beneath_it_is_named_and_nothing_else() {
        let points =
            ["/", "/proc", "/dev", "/dev/shm", "/data", "/data/inner", "/database"].map(PathBuf::from).to_vec();
        let binds = ["/dev/shm", "/data", "/etc/hosts"].map(PathBuf::from);
        assert_eq!(outside(points, &binds), ["/data", "/data/inner", "/dev/shm"].map(PathBuf::from));
    }

    #[test]
    fn crius_own_reason_is_told_without_its_lines_of_code() {
        let log = "(00.000100) Version: 3.17.1\n(00.001) Error (criu/vdso.c:381): vdso: Unexpected bounds\n\
                   Warn  (criu/x.c:1): w\nError (criu/crtools.c:260): Could not initialize.\n";
        assert_eq!(complaints(log), "vdso: Unexpected bounds; Could not initialize.");
        assert_eq!(complaints("all is well\n"), "");
        let log =
            "Error (criu/util.c:1): exited, status=1\nDumping processes (pid: 7)\nError (criu/tty.c:1): tty: no\n";
        assert_eq!(complaints(log), "tty: no");
    }
}
