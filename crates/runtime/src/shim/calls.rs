//! What an agent asks of the shim, one function for each request.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use super::container::{Container, LAUNCH_MS_MAX, Stage};
use super::create::{self, Way};
use super::embedded;
use super::errand::Purpose;
use super::exec;
use super::fork::{Reports, fork};
use super::log::{Log, Source};
use super::oci::PidNamespace;
use super::output::Output;
use super::program::Program;
use super::user_namespace::UserNamespace;
use super::{Caller, ExecProcess, Shim};
use crate::error::in_full;
use crate::kernel;
use crate::layout::{self, ContainerDir};
use crate::protocol::{Answer, Call, Failure, Request, StreamKind};
use crate::spec::{ContainerSpec, ExecSpec, PidMode};

/// Most containers in one sandbox: each has an entry in every poll.
const CONTAINERS_MAX: usize = 256;
/// Most exec'd processes at a time in one sandbox.
const EXECS_MAX: usize = 256;

pub(super) type Outcome = Result<Option<(Answer, Vec<OwnedFd>)>, Failure>;

/// The request was carried out and has no result.
pub(super) const DONE: Outcome = Ok(Some((Answer::Done, Vec::new())));
/// The answer comes later.
pub(super) const LATER: Outcome = Ok(None);

pub(super) fn refused(why: impl Into<String>) -> Failure {
    Failure::Refused(why.into())
}

pub(super) fn io_refused(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| refused(format!("could not {what}: {error}"))
}

impl Shim {
    pub(super) fn call(&mut self, peer: u32, call: Call) {
        let caller = Caller { peer, serial: call.serial };
        match self.carry_out(caller, call.request) {
            Ok(Some((answer, fds))) => self.reply(caller, Ok(answer), fds),
            Ok(None) => {}
            Err(failure) => self.reply(caller, Err(failure), Vec::new()),
        }
    }

    fn carry_out(&mut self, caller: Caller, request: Request) -> Outcome {
        match request {
            Request::Hello => self.hello(caller),
            Request::Create { id } => self.create(caller, id),
            Request::Start { id } => self.start(caller, &id),
            Request::Signal { id, signal } => self.signal(caller, &id, signal),
            Request::Stop { id, signal, grace_ms } => self.stop(caller, &id, signal, grace_ms),
            Request::Remove { id } => self.remove(caller, &id),
            Request::Exec { id, exec, spec } => self.exec(caller, &id, exec, spec),
            Request::ExecSignal { exec, signal } => self.exec_signal(caller.peer, exec, signal),
            Request::Attach { id, stdin, stdout, stderr } => self.attach(&id, stdin, stdout, stderr),
            Request::Resize { id, size } => {
                let container = self.find(&id)?.1;
                let terminal = container.terminal.as_ref().ok_or_else(|| refused("it has no terminal"))?;
                kernel::set_terminal_size(terminal.as_raw_fd(), size).map_err(io_refused("set its terminal's size"))?;
                DONE
            }
            Request::Update { id, resources } => {
                let container = self.find(&id)?.1;
                container.resources = resources;
                container.cgroup.update(&resources).map_err(|error| refused(in_full(&error)))?;
                DONE
            }
            Request::Checkpoint { id, order } => self.checkpoint(caller, &id, &order),
            Request::Shutdown => self.shutdown(caller),
        }
    }

    /// The number and the container with this id.
    pub(super) fn find(&mut self, id: &str) -> Result<(u32, &mut Container), Failure> {
        let found = self.containers.iter_mut().find(|(_, container)| container.id == id);
        found.map(|(number, container)| (*number, container)).ok_or(Failure::NotFound)
    }

    fn hello(&mut self, caller: Caller) -> Outcome {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.number == caller.peer) {
            peer.is_subscribed = true;
        }
        let containers = self.containers.values().filter_map(Container::status).collect();
        let being_made = |container: &&Container| matches!(container.stage, Stage::Creating);
        let making = self.containers.values().filter(being_made).map(|container| container.id.clone()).collect();
        Ok(Some((Answer::Hello { pid: std::process::id(), containers, making, saves: true }, Vec::new())))
    }

    fn create(&mut self, caller: Caller, id: String) -> Outcome {
        if self.find(&id).is_ok() {
            return Err(Failure::Exists);
        }
        if self.containers.len() >= CONTAINERS_MAX {
            return Err(refused(format!("the sandbox has {CONTAINERS_MAX} containers; remove one first")));
        }
        let dir = self.dir.container(&id);
        let spec = layout::load::<ContainerSpec>(&dir.spec()).map_err(|error| refused(in_full(&error)))?;
        let spec = spec.filter(|spec| spec.id == id).ok_or_else(|| refused("its spec.json is missing or another's"))?;
        spec.check().map_err(|error| refused(error.to_string()))?;
        let pid_namespace = self.pid_namespace(spec.beside.as_deref())?;
        let cgroup = self.cgroup.container(&id);
        let log = spec.log.clone().map(Log::open).transpose().map_err(io_refused("open its log"))?;
        let (reports, report) = Reports::channel().map_err(io_refused("make a socket"))?;
        let streams = ContainerStreams::make(&spec, &dir).map_err(io_refused("make its standard streams"))?;
        let program = self.boot.spec.program.clone().map(Program);
        let (way, gate) = match program.clone() {
            Some(program) => {
                let (gate, opener) = kernel::pipe().map_err(io_refused("make a pipe"))?;
                (Way::Program { program, gate }, Some(opener))
            }
            None => (Way::Embedded, None),
        };
        let job = create::Job {
            way,
            id: id.clone(),
            dir: dir.clone(),
            data: self.boot.data.join(&id),
            shm: self.dir.shm(),
            cgroup: cgroup.clone(),
            pid_namespace,
            user: self
                .user
                .as_ref()
                .map(UserNamespace::try_clone)
                .transpose()
                .map_err(io_refused("copy a descriptor"))?,
            stdio: streams.theirs,
            spec: spec.clone(),
        };
        let mut keep = job.stdio.descriptors();
        keep.extend(job.user.iter().flat_map(UserNamespace::descriptors));
        keep.extend(self.user.iter().flat_map(UserNamespace::descriptors));
        if let Way::Program { gate, .. } = &job.way {
            keep.push(gate.as_raw_fd());
        }
        let maker = fork(&report, &keep, |report| create::make(job, report)).map_err(io_refused("fork"))?;
        let mut container = Container::new(id, maker, dir, cgroup);
        container.resources = spec.resources;
        (container.program, container.gate) = (program, gate);
        container.shares_pids = self.boot.spec.pid != PidMode::Container || spec.beside.is_some();
        (container.stdin, container.stdin_once) = (streams.stdin, spec.stdin_once);
        (container.outputs, container.console) = (streams.outputs, streams.console);
        (container.log, container.reports, container.caller) = (log, Some(reports), Some(caller));
        self.next_number += 1;
        self.containers.insert(self.next_number, container);
        LATER
    }

    fn pid_namespace(&mut self, beside: Option<&str>) -> Result<PidNamespace, Failure> {
        let of = |pid: i32| PidNamespace::Join(format!("/proc/{pid}/ns/pid").into());
        if let (PidMode::Container, Some(other)) = (self.boot.spec.pid, beside) {
            let container = self.find(other)?.1;
            let (Stage::Running { .. }, Some(init)) = (&container.stage, container.pid) else {
                return Err(refused(format!("container {other}, whose processes it shall see, does not run")));
            };
            return Ok(of(init));
        }
        let of_user = self.user.as_ref().and_then(|user| user.shared_pids.as_ref());
        Ok(match (self.boot.spec.pid, self.pause) {
            (PidMode::Container, _) => PidNamespace::New,
            // Root inside may not look into /proc of a process that was forked outside.
            (PidMode::Sandbox, Some(_)) if let Some((namespace, _)) = of_user => {
                PidNamespace::Join(format!("/proc/self/fd/{}", namespace.as_raw_fd()).into())
            }
            (PidMode::Sandbox, Some(pause)) => of(pause),
            (PidMode::Sandbox, None) | (PidMode::Host, _) => PidNamespace::Machine,
        })
    }

    fn start(&mut self, caller: Caller, id: &str) -> Outcome {
        let container = self.find(id)?.1;
        if !matches!(container.stage, Stage::Created) {
            return Err(refused("it has been started before, or is not made yet"));
        }
        let told = match container.gate.take() {
            Some(gate) => kernel::write(&gate, b"x").map(drop),
            None => embedded::begin(&container.dir, id),
        };
        told.map_err(io_refused("tell its first process to begin"))?;
        container.stage = Stage::Starting;
        container.caller = Some(caller);
        container.launch_until_ms = Some(kernel::monotonic_ms() + LAUNCH_MS_MAX);
        LATER
    }

    fn signal(&mut self, caller: Caller, id: &str, signal: i32) -> Outcome {
        let (number, container) = self.find(id)?;
        match (&container.stage, &container.program, container.pid) {
            (Stage::Running { .. }, Some(_), _) => return self.send(number, Purpose::Signal(Some(caller)), signal),
            (Stage::Running { .. }, None, Some(pid)) => {
                kernel::kill(pid, signal).map_err(io_refused("send the signal"))?;
            }
            _ => return Err(refused("it does not run")),
        }
        DONE
    }

    fn stop(&mut self, caller: Caller, id: &str, signal: i32, grace_ms: u64) -> Outcome {
        let (number, container) = self.find(id)?;
        let now_ms = kernel::monotonic_ms();
        let kill_at_ms = match container.stage {
            Stage::Exited(_) => return DONE,
            Stage::Creating => return Err(refused("it is still being made")),
            Stage::Created | Stage::Starting => now_ms,
            Stage::Running { .. } | Stage::Draining { .. } => now_ms.saturating_add(grace_ms),
        };
        container.stoppers.push(caller);
        if matches!(container.stage, Stage::Draining { .. }) {
            return LATER;
        }
        // A second, more impatient stop shortens the grace, never lengthens it.
        container.kill_at_ms = Some(container.kill_at_ms.map_or(kill_at_ms, |at| at.min(kill_at_ms)));
        let is_patient = kill_at_ms > now_ms;
        match (&container.program, container.pid) {
            // What does not come of it, the kill at the end of the grace does.
            (Some(_), _) if is_patient => drop(self.send(number, Purpose::Signal(None), signal)?),
            (None, Some(pid)) if is_patient => kernel::kill(pid, signal).map_err(io_refused("send the signal"))?,
            _ => {}
        }
        self.tick(number, now_ms);
        LATER
    }

    fn remove(&mut self, caller: Caller, id: &str) -> Outcome {
        let (number, container) = self.find(id)?;
        if !matches!(container.stage, Stage::Created | Stage::Exited(_)) {
            return Err(refused("it still runs; stop it first"));
        }
        if container.program.is_some() {
            if matches!(container.stage, Stage::Created) {
                container.kill();
            }
            return self.delete(number, caller);
        }
        self.forget(number)
    }

    /// The container leaves nothing behind.
    pub(super) fn forget(&mut self, number: u32) -> Outcome {
        if let Some(container) = self.containers.get(&number) {
            container.cgroup.destroy().map_err(|error| refused(in_full(&error)))?;
        }
        self.containers.remove(&number);
        DONE
    }

    fn exec(&mut self, caller: Caller, id: &str, exec: u64, spec: ExecSpec) -> Outcome {
        spec.check().map_err(|error| refused(error.to_string()))?;
        if self.execs.len() >= EXECS_MAX {
            return Err(refused(format!(
                "{EXECS_MAX} processes are exec'd in this sandbox already; wait for one to end"
            )));
        }
        let container = self.find(id)?.1;
        let (Stage::Running { .. }, Some(init)) = (&container.stage, container.pid) else {
            return Err(refused("it does not run"));
        };
        let (dir, cgroup, program) = (container.dir.clone(), container.cgroup.clone(), container.program.clone());
        let (reports, report) = Reports::channel().map_err(io_refused("make a socket"))?;
        let (stdio, ours) = exec_streams(&spec).map_err(io_refused("make its standard streams"))?;
        let first_id = self.boot.user_ids.unwrap_or(0);
        let files = program.is_some().then(|| dir.clone());
        let job = exec::Job { id: id.to_owned(), spec, dir, cgroup, init, program, stdio, first_id };
        let keep = job.stdio.descriptors();
        let joiner = fork(&report, &keep, |report| exec::join(job, report)).map_err(io_refused("fork"))?;
        self.execs.push(ExecProcess {
            exec,
            caller,
            joiner,
            files,
            pid: None,
            reports: Some(reports),
            streams: ours,
            failure: None,
            end: None,
            until_ms: Some(kernel::monotonic_ms() + LAUNCH_MS_MAX),
            is_abandoned: false,
        });
        LATER
    }

    fn exec_signal(&mut self, peer: u32, exec: u64, signal: i32) -> Outcome {
        let found = self.execs.iter().find(|process| process.exec == exec && process.caller.peer == peer);
        if let Some(pid) = found.filter(|process| process.end.is_none()).and_then(|process| process.pid) {
            kernel::kill(pid, signal).map_err(io_refused("send the signal"))?;
        }
        DONE
    }

    fn attach(&mut self, id: &str, stdin: bool, stdout: bool, stderr: bool) -> Outcome {
        let container = self.find(id)?.1;
        if !matches!(container.stage, Stage::Created | Stage::Starting | Stage::Running { .. }) {
            return Err(refused("it is over"));
        }
        let duplicate = |fd: &OwnedFd| fd.try_clone().map_err(io_refused("duplicate a stream"));
        let mut streams: Vec<(StreamKind, OwnedFd)> = Vec::new();
        if stdin && let Some(terminal) = &container.terminal {
            streams.push((StreamKind::Stdin, duplicate(terminal)?));
        } else if stdin && container.stdin_once {
            streams.extend(container.stdin.take().map(|fd| (StreamKind::Stdin, fd)));
        } else if stdin && let Some(fd) = &container.stdin {
            streams.push((StreamKind::Stdin, duplicate(fd)?));
        }
        let wanted = [(StreamKind::Stdout, stdout), (StreamKind::Stderr, stderr)];
        for (output, (kind, _)) in container.outputs.iter_mut().zip(wanted).filter(|(_, (_, wanted))| *wanted) {
            streams.push((kind, output.tap().map_err(refused)?));
        }
        if let Some(terminal) = &container.terminal {
            streams.push((StreamKind::Terminal, duplicate(terminal)?));
        }
        let (kinds, fds) = streams.into_iter().unzip();
        Ok(Some((Answer::Streams(kinds), fds)))
    }

    fn shutdown(&mut self, caller: Caller) -> Outcome {
        match self.boot.spec.program {
            Some(_) => self.delete_all(caller),
            None => self.finish(),
        }
    }

    /// The end of the sandbox.
    pub(super) fn finish(&mut self) -> Outcome {
        self.is_ending = true;
        self.cgroup.destroy().map_err(|error| refused(in_full(&error)))?;
        kernel::unmount(&self.dir.shm()).map_err(io_refused("unmount the shared memory"))?;
        DONE
    }
}

/// Both sides of a new container's standard streams.
struct ContainerStreams {
    theirs: create::Stdio,
    stdin: Option<OwnedFd>,
    outputs: Vec<Output>,
    console: Option<UnixListener>,
}

impl ContainerStreams {
    fn make(spec: &ContainerSpec, dir: &ContainerDir) -> std::io::Result<ContainerStreams> {
        if spec.tty {
            let directory = File::open(&dir.0)?;
            let console = UnixListener::bind(format!("/proc/self/fd/{}/console.sock", directory.as_raw_fd()))?;
            // Who says that the terminal has been sent may be wrong.
            console.set_nonblocking(true)?;
            let theirs = create::Stdio::Terminal;
            return Ok(ContainerStreams { theirs, stdin: None, outputs: Vec::new(), console: Some(console) });
        }
        let (theirs_in, ours_in) = match spec.stdin {
            true => kernel::pipe().map(|(reader, writer)| (Some(reader), Some(writer)))?,
            false => (None, None),
        };
        let (out, stdout) = kernel::pipe()?;
        let (err, stderr) = kernel::pipe()?;
        let outputs = vec![Output::new(out, Source::Stdout)?, Output::new(err, Source::Stderr)?];
        let theirs = create::Stdio::Pipes { stdin: theirs_in, stdout, stderr };
        Ok(ContainerStreams { theirs, stdin: ours_in, outputs, console: None })
    }
}

impl create::Stdio {
    fn descriptors(&self) -> Vec<i32> {
        match self {
            create::Stdio::Pipes { stdin, stdout, stderr } => {
                [stdout, stderr].into_iter().chain(stdin).map(AsRawFd::as_raw_fd).collect()
            }
            create::Stdio::Terminal => Vec::new(),
        }
    }
}

impl exec::Stdio {
    fn descriptors(&self) -> Vec<i32> {
        match self {
            exec::Stdio::Pipes { stdin, stdout, stderr } => {
                [stdout, stderr].into_iter().chain(stdin).map(AsRawFd::as_raw_fd).collect()
            }
            exec::Stdio::Terminal(_) => Vec::new(),
        }
    }
}

/// The process's side of an exec's streams, and the agent's.
fn exec_streams(spec: &ExecSpec) -> std::io::Result<(exec::Stdio, Vec<(StreamKind, OwnedFd)>)> {
    if spec.tty {
        return Ok((exec::Stdio::Terminal(spec.size), Vec::new()));
    }
    let mut ours = Vec::new();
    let stdin = match spec.stdin {
        true => {
            let (reader, writer) = kernel::pipe()?;
            ours.push((StreamKind::Stdin, writer));
            Some(reader)
        }
        false => None,
    };
    let (out, stdout) = kernel::pipe()?;
    let (err, stderr) = kernel::pipe()?;
    ours.extend([(StreamKind::Stdout, out), (StreamKind::Stderr, err)]);
    Ok((exec::Stdio::Pipes { stdin, stdout, stderr }, ours))
}
