//! The other way to run containers: a program of the machine that has the command line of OCI runtimes (runc, crun).
//!
//! Flow        the maker prepares the bundle, has the program `create` the container and waits at its gate; told to begin, it
//!             has it `start`, and ends. Processes are `exec`ed by a joiner; signals go by `kill`; what is over is taken away by
//!             `delete` ([`super::errand`])
//! Relies on   the program leaving its children to whoever is the nearest subreaper: the maker or the joiner while it works,
//!             so that the shim sees no process end before it knows its number; the shim from then on
//! Guarantees  the program is told all that the embedded way does itself ([`crate::launch`]); groups, limits and streams stay
//!             ours. It dies with the shim
//!
//! What the program refuses is told when the container is started, as under the usual container engines: it is then one
//! that failed to start.
//!
//! Source: OCI runtime specification, "Configuration" and "Runtime and Lifecycle"; OCI runtime command line interface.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as StandardStream};

use serde_json::{Value, json};

use super::create::{self, Way};
use super::exec;
use super::fork::{ReportKind, Reporter, reset_signals};
use super::stage;
use crate::capability::Capability;
use crate::error::in_full;
use crate::kernel::{self, check};
use crate::launch::{Launch, PATH_DEFAULT, prctl, read_permitted};
use crate::layout::{self, ContainerDir};
use crate::seccomp;
use crate::spec::{TerminalSize, USER_IDS};

/// The most that is read of what the program says about a failure.
const LOG_BYTES_MAX: u64 = 16 << 10;

/// An OCI runtime.
#[derive(Clone, Debug)]
pub(super) struct Program(pub PathBuf);

impl Program {
    /// The program with its settings for a container, ready for a command.
    pub fn command(&self, dir: &ContainerDir, verb: &str) -> Command {
        let mut command = Command::new(&self.0);
        command.env_clear().env("PATH", PATH_DEFAULT).current_dir(&dir.0);
        command.arg("--root").arg(dir.state()).arg("--log").arg(log_of(dir, verb)).args(["--log-format", "json", verb]);
        command.stdin(StandardStream::null()).stdout(StandardStream::null()).stderr(StandardStream::null());
        // SAFETY: the shim and its children have one thread, so what runs between fork and execve may be any code.
        unsafe { command.pre_exec(before_program) };
        command
    }

    fn run(&self, mut command: Command, (dir, verb): (&ContainerDir, &str)) -> Result<(), String> {
        let failed = |error: io::Error| format!("could not run {}: {error}", self.0.display());
        let status = command.status().map_err(failed)?;
        if status.success() { Ok(()) } else { Err(self.last_words(dir, verb, &status.to_string())) }
    }

    /// Why a command failed, as the program has written it down.
    pub fn last_words(&self, dir: &ContainerDir, verb: &str, otherwise: &str) -> String {
        let name = self.0.file_name().unwrap_or_default().display();
        let said = read_end(&log_of(dir, verb)).unwrap_or_default();
        let errors = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let errors = errors.filter(|line| line["level"] == "error" || line["level"] == "fatal");
        let last = errors.filter_map(|line| Some(line["msg"].as_str()?.trim().to_owned())).next_back();
        match last {
            Some(why) if why.starts_with(&*name.to_string()) => why,
            Some(why) => format!("{name} {verb}: {why}"),
            None => format!("{name} {verb}: {otherwise}"),
        }
    }
}

/// Where a command that this process gives is told to write what went wrong.
pub(super) fn log_of(dir: &ContainerDir, verb: &str) -> PathBuf {
    dir.0.join(format!("{verb}-{}.log", std::process::id()))
}

/// What a joiner and the program tell each other: the process, its number, its terminal, and what went wrong ([`log_of`]). The
/// shim removes them: a joiner may be killed.
pub(super) fn exec_files(dir: &ContainerDir, joiner: impl std::fmt::Display) -> [PathBuf; 4] {
    ["json", "pid", "sock", "log"].map(|ending| dir.0.join(format!("exec-{joiner}.{ending}")))
}

pub(super) fn read_end(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
    let mut text = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The program begins like one that a person has started, and ends with whoever started it.
pub(super) fn before_program() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    reset_signals()?;
    let (first, last, flags) = (3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: close_range has no memory arguments; descriptors are only marked.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })?;
    Ok(())
}

/// Adds what the embedded way does without libcontainer: who the process is and what it may do.
pub(super) fn complete(mut config: Value, job: &create::Job, launch: &Launch) -> Value {
    describe(&mut config, launch, job.spec.tty);
    config["linux"]["resources"] = json!({"devices": devices(job)});
    // The descriptors are the maker's, the program is another process.
    for namespace in config["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
        if let Some(path) = namespace["path"].as_str().and_then(|path| path.strip_prefix("/proc/self/")) {
            namespace["path"] = json!(format!("/proc/{}/{path}", std::process::id()));
        }
    }
    if let Some(user) = &job.user {
        let map = json!([{"containerID": 0, "hostID": user.first, "size": USER_IDS}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    }
    config
}

/// Adds to a configuration who the first process is and which calls it may make.
pub(crate) fn describe(config: &mut Value, launch: &Launch, tty: bool) {
    config["process"] = process(launch, tty, None);
    if let Some(filter) = seccomp::to_oci(&launch.seccomp, &launch.capabilities) {
        config["linux"]["seccomp"] = filter;
    }
}

/// A process in the words of the specification.
fn process(launch: &Launch, tty: bool, size: Option<TerminalSize>) -> Value {
    // What this machine does not give to root, it would refuse to the program.
    let permitted = read_permitted().unwrap_or(u64::MAX) & launch.capabilities.mask();
    let kept = Capability::ALL.iter().filter(|capability| permitted >> (**capability as u64) & 1 == 1);
    let kept: Vec<String> = kept.map(|capability| format!("CAP_{capability}")).collect();
    let limits = launch.rlimits.iter().map(|limit| {
        let name = format!("RLIMIT_{}", limit.name.to_uppercase());
        json!({"type": name, "soft": limit.soft, "hard": limit.hard})
    });
    let mut process = json!({
        "terminal": tty,
        "user": {"uid": launch.identity.uid, "gid": launch.identity.gid, "additionalGids": launch.identity.groups},
        "args": launch.args,
        "env": launch.full_env().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "cwd": if launch.cwd.is_empty() { "/" } else { &launch.cwd },
        "capabilities": {"bounding": kept, "effective": kept, "permitted": kept},
        "rlimits": limits.collect::<Vec<_>>(),
        "noNewPrivileges": launch.no_new_privileges,
        "oomScoreAdj": kernel::allowed_oom_score(launch.oom_score_adj),
    });
    if let Some(profile) = &launch.app_armor {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(size) = size.filter(|_| tty) {
        process["consoleSize"] = json!({"height": size.rows, "width": size.columns});
    }
    process
}

/// What the container may open, beside what the program lets all containers open.
fn devices(job: &create::Job) -> Vec<Value> {
    if job.spec.privileged {
        return vec![json!({"allow": true, "access": "rwm"})];
    }
    let given = job.spec.devices.iter().map(|device| {
        let kind = if device.is_block { "b" } else { "c" };
        let (major, minor) = device.number;
        json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": device.access})
    });
    [json!({"allow": false, "access": "rwm"})].into_iter().chain(given).collect()
}

/// The rest of a maker's work. Reports the first process's number, and stays until that has become its program.
pub(super) fn build(job: create::Job, report: Reporter) -> Result<(), String> {
    let Way::Program { program, gate } = &job.way else { return Err("there is no program to build with".to_owned()) };
    adopt_orphans()?;
    let created = create_with(program, &job);
    match &created {
        Ok(pid) => {
            // It has opinions of its own about devices.
            job.limit()?;
            report.say(ReportKind::Process, &pid.to_string());
        }
        Err(_) => report.say(ReportKind::Refused, ""),
    }
    let told = kernel::read(gate, &mut [0]).map_err(|error| format!("could not wait to begin: {error}"))?;
    if told == 0 {
        // It is not to begin any more.
        return Ok(());
    }
    created?;
    let mut start = program.command(&job.dir, "start");
    start.arg(&job.id);
    program.run(start, (&job.dir, "start"))?;
    report.say(ReportKind::Started, "");
    Ok(())
}

/// Has the program make the container, and gives the number of its first process.
fn create_with(program: &Program, job: &create::Job) -> Result<i32, String> {
    let pid_file = job.dir.0.join("pid");
    let mut command = program.command(&job.dir, "create");
    command.args(["--bundle", "."]).arg("--pid-file").arg(&pid_file);
    match &job.stdio {
        create::Stdio::Terminal => {
            // Named beneath the working directory: the whole path may be longer than an address.
            command.args(["--console-socket", "console.sock"]);
        }
        create::Stdio::Pipes { stdin, stdout, stderr } => give(&mut command, (stdin.as_ref(), stdout, stderr))?,
    }
    command.arg(&job.id);
    program.run(command, (&job.dir, "create"))?;
    read_pid(&pid_file)
}

/// Processes that the program leaves behind become this one's children, and the shim's when this one ends.
fn adopt_orphans() -> Result<(), String> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(|error| format!("could not become a subreaper: {error}"))
}

fn give(command: &mut Command, streams: (Option<&OwnedFd>, &OwnedFd, &OwnedFd)) -> Result<(), String> {
    let copy = |fd: &OwnedFd| {
        let copy = fd.try_clone().map(StandardStream::from);
        copy.map_err(|error| format!("could not copy a stream: {error}"))
    };
    let (stdin, stdout, stderr) = streams;
    if let Some(stdin) = stdin {
        command.stdin(copy(stdin)?);
    }
    command.stdout(copy(stdout)?).stderr(copy(stderr)?);
    Ok(())
}

fn read_pid(path: &Path) -> Result<i32, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("could not read {}: {error}", path.display()))?;
    text.trim().parse().map_err(|_| format!("{} has {text:?}, expected a process's number", path.display()))
}

/// The joiner's work: has one more process run in the container. Reports its number and its terminal.
pub(super) fn join(program: &Program, job: &exec::Job, launch: &Launch, report: Reporter) -> Result<(), String> {
    adopt_orphans()?;
    if job.first_id > 0 {
        stage::show_root()?;
    }
    let [process_file, pid_file, ..] = exec_files(&job.dir, std::process::id());
    let (tty, size) = match &job.stdio {
        exec::Stdio::Terminal(size) => (true, *size),
        exec::Stdio::Pipes { .. } => (false, None),
    };
    layout::save(&process_file, &process(launch, tty, size)).map_err(|error| in_full(&error))?;
    let mut command = program.command(&job.dir, "exec");
    command.arg("--detach").arg("--process").arg(&process_file).arg("--pid-file").arg(&pid_file);
    let mut terminals = None;
    match &job.stdio {
        exec::Stdio::Terminal(_) => {
            let failed = |error: io::Error| format!("could not listen for a terminal: {error}");
            std::env::set_current_dir(&job.dir.0).map_err(failed)?;
            let short = format!("exec-{}.sock", std::process::id());
            terminals = Some(UnixListener::bind(&short).map_err(failed)?);
            command.arg("--console-socket").arg(short);
        }
        exec::Stdio::Pipes { stdin, stdout, stderr } => give(&mut command, (stdin.as_ref(), stdout, stderr))?,
    }
    command.arg(&job.id);
    program.run(command, (&job.dir, "exec"))?;
    let pid = read_pid(&pid_file)?;
    if let Some(terminals) = terminals {
        let terminal = take_terminal(&terminals).map_err(|error| format!("could not take its terminal: {error}"))?;
        report.hand_over(ReportKind::Terminal, terminal.as_fd());
        if let Some(size) = size {
            let set = kernel::set_terminal_size(terminal.as_raw_fd(), size);
            set.map_err(|error| format!("could not set its terminal's size: {error}"))?;
        }
    }
    report.say(ReportKind::Process, &pid.to_string());
    Ok(())
}

/// The terminal that has been sent to a socket.
pub(super) fn take_terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (socket, _) = listener.accept()?;
    let mut fds = std::collections::VecDeque::new();
    kernel::receive(&socket, &mut [0; 64], &mut fds)?;
    fds.pop_front().ok_or_else(|| io::Error::other("no terminal was sent"))
}
