//! One container as its shim sees it: its stages, all transitions between them, and what each has to be told.
//!
//! ```text
//! Creating → Created → Starting → Running → Draining → Exited
//!     └─ gone    └─────────┴──────────────────┘
//! ```
//!
//! The maker of one that a program of the machine runs stays until it is Running. Where the program has refused, that is
//! all there is of the container.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use jiff::Timestamp;

use super::fork::{Received, ReportKind, Reports};
use super::log::{Log, Source};
use super::output::{CHUNK_BYTES, Output};
use super::program::{self, Program};
use super::{Caller, Shim};
use crate::cgroup::ContainerCgroup;
use crate::kernel;
use crate::layout::{self, ContainerDir};
use crate::protocol::{Answer, Failure, Message};
use crate::spec::Resources;
use crate::state::{ContainerEvent, ContainerState, ContainerStatus, Exit, ExitReason};

/// Milliseconds for making a container, and again for its program to begin. A machine under heavy load takes a second.
pub(super) const LAUNCH_MS_MAX: u64 = 30_000;
/// Milliseconds for which output of an ended container is waited for: someone attached may still be reading.
const DRAIN_MS_MAX: u64 = 2_000;
/// Details kept of a failure.
const DETAILS_MAX: usize = 3;
/// Milliseconds after which what should be dead is killed again.
const KILL_AGAIN_MS: u64 = 1_000;

/// Where a container is.
#[derive(Debug)]
pub(super) enum Stage {
    /// A child of the shim is making it.
    Creating,
    /// It waits to be started.
    Created,
    /// Its first process has been told to become its program.
    Starting,
    /// Its program runs.
    Running { at: Timestamp },
    /// Its first process is over; its last output is being read.
    Draining { exit: Exit, until_ms: u64 },
    /// It is over.
    Exited(Exit),
}

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub id: String,
    pub stage: Stage,
    pub dir: ContainerDir,
    pub cgroup: ContainerCgroup,
    pub resources: Resources,
    /// Its processes share their numbers with others, so killing the first does not kill the rest.
    pub shares_pids: bool,
    /// The first process.
    pub pid: Option<i32>,
    /// Who makes it, or made it.
    pub maker: i32,
    /// The program that runs it, if it is not embedded, and the gate at which its maker waits.
    pub program: Option<Program>,
    pub gate: Option<OwnedFd>,
    pub reports: Option<Reports>,
    failure: Option<String>,
    details: Vec<String>,
    pub log: Option<Log>,
    pub outputs: Vec<Output>,
    pub stdin: Option<OwnedFd>,
    pub stdin_once: bool,
    /// Where its terminal will arrive.
    pub console: Option<UnixListener>,
    pub terminal: Option<OwnedFd>,
    /// Who waits for it to be made or started.
    pub caller: Option<Caller>,
    /// Who waits for it to be over.
    pub stoppers: Vec<Caller>,
    pub launch_until_ms: Option<u64>,
    pub kill_at_ms: Option<u64>,
}

impl Container {
    pub fn new(id: String, maker: i32, dir: ContainerDir, cgroup: ContainerCgroup) -> Container {
        Container {
            id,
            stage: Stage::Creating,
            dir,
            cgroup,
            resources: Resources::default(),
            shares_pids: false,
            pid: None,
            maker,
            program: None,
            gate: None,
            reports: None,
            failure: None,
            details: Vec::new(),
            log: None,
            outputs: Vec::new(),
            stdin: None,
            stdin_once: false,
            console: None,
            terminal: None,
            caller: None,
            stoppers: Vec::new(),
            launch_until_ms: Some(kernel::monotonic_ms() + LAUNCH_MS_MAX),
            kill_at_ms: None,
        }
    }

    /// What an agent is told; nothing while it is being made or when its making failed.
    pub fn status(&self) -> Option<ContainerStatus> {
        let state = match &self.stage {
            Stage::Creating => return None,
            Stage::Created | Stage::Starting => ContainerState::Created,
            Stage::Running { at } => {
                ContainerState::Running { pid: self.pid.unwrap_or_default().unsigned_abs(), at: *at }
            }
            // Not over for others before its output is complete.
            Stage::Draining { exit, .. } => ContainerState::Running {
                pid: self.pid.unwrap_or_default().unsigned_abs(),
                at: exit.started_at.unwrap_or(exit.finished_at),
            },
            Stage::Exited(exit) => ContainerState::Exited(exit.clone()),
        };
        Some(ContainerStatus { id: self.id.clone(), state })
    }

    /// Why it could not be made or started, as well as it is known.
    fn trouble(&self) -> String {
        let mut text = self.failure.clone().unwrap_or_else(|| "its process ended without a word".to_owned());
        for detail in self.details.iter().filter(|detail| !detail.is_empty()) {
            if !text.contains(detail.as_str()) {
                text = format!("{text}; {detail}");
            }
        }
        text
    }

    /// Its first process and its group, while it runs.
    pub fn living(&self) -> Option<(i32, &ContainerCgroup)> {
        let is_running = matches!(self.stage, Stage::Running { .. });
        self.pid.filter(|_| is_running).map(|pid| (pid, &self.cgroup))
    }

    /// When something must be done about it although nothing happens.
    pub fn wake_at_ms(&self) -> Option<u64> {
        let drain = match self.stage {
            Stage::Draining { until_ms, .. } => Some(until_ms),
            _ => None,
        };
        let stalled = self.outputs.iter().flat_map(|output| &output.taps).filter_map(|tap| tap.stalled_since_ms);
        let stalled = stalled.map(|since| since + super::output::STALL_MS_MAX).min();
        [self.launch_until_ms, self.kill_at_ms, drain, stalled].into_iter().flatten().min()
    }

    pub fn kill(&self) {
        // As long as it can report it has not been seen to end, so the number is its own.
        if let (Some(_), Some(_)) = (&self.program, &self.reports) {
            let _ = kernel::kill(self.maker, libc::SIGKILL);
        }
        // What cannot be killed now is killed again in a second.
        let _ = self.cgroup.kill();
        if let Some(pid) = self.pid {
            let _ = kernel::kill(pid, libc::SIGKILL);
        }
    }

    /// Takes the terminal that the first process has sent.
    fn take_terminal(&mut self) -> io::Result<()> {
        let Some(console) = self.console.take() else { return Ok(()) };
        let terminal = program::take_terminal(&console)?;
        self.outputs.push(Output::new(terminal.try_clone()?, Source::Stdout)?);
        self.terminal = Some(terminal);
        Ok(())
    }
}

impl Shim {
    /// Reads what a container's maker or first process reports, and draws the conclusions.
    pub(super) fn read_reports(&mut self, number: u32) {
        loop {
            let Some(container) = self.containers.get_mut(&number) else { return };
            let Some(reports) = &container.reports else { return };
            match reports.receive() {
                Received::Nothing => return,
                Received::Report(report) => match report.kind {
                    ReportKind::Refused => self.refused_by_program(number),
                    // Once: after that the channel is open in a process that is about to be the container's own.
                    ReportKind::Process if container.pid.is_none() => {
                        container.pid = report.text.parse().ok();
                        self.created(number);
                    }
                    ReportKind::Failure => container.failure = Some(report.text),
                    ReportKind::Detail if container.details.len() < DETAILS_MAX => container.details.push(report.text),
                    // Of its maker only: an embedded first process says it by becoming its program.
                    ReportKind::Started
                        if container.program.is_some() && matches!(container.stage, Stage::Starting) =>
                    {
                        self.running(number);
                    }
                    ReportKind::Process | ReportKind::Started | ReportKind::Detail | ReportKind::Terminal => {}
                },
                Received::End => {
                    container.reports = None;
                    match (&container.stage, &container.program) {
                        (Stage::Starting, None) if container.failure.is_none() => self.running(number),
                        // Its maker has failed or was killed, and what the program has made may wait for ever.
                        (Stage::Starting, Some(_)) => {
                            let why = container.trouble();
                            container.failure.get_or_insert(why);
                            container.kill();
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// Creating → Created: its maker waits to be told to begin, and will then fail.
    fn refused_by_program(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        if !matches!(container.stage, Stage::Creating) {
            return;
        }
        container.pid = Some(container.maker);
        // What is in its pipes is the program's complaint, which is known.
        container.outputs.clear();
        self.made(number);
    }

    /// Creating → Created: its first process waits to become the program.
    fn created(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        if !matches!(container.stage, Stage::Creating) {
            return;
        }
        if let Err(error) = container.take_terminal() {
            container.failure = Some(format!("could not take over its terminal: {error}"));
            self.not_created(number);
            return;
        }
        self.made(number);
    }

    fn made(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        container.stage = Stage::Created;
        container.launch_until_ms = None;
        let (caller, status) = (container.caller.take(), container.status());
        self.publish(status);
        if let Some(caller) = caller {
            self.reply(caller, Ok(Answer::Done), Vec::new());
        }
    }

    /// Creating → gone.
    pub(super) fn not_created(&mut self, number: u32) {
        let Some(mut container) = self.containers.remove(&number) else { return };
        if matches!(container.stage, Stage::Creating) {
            let _ = kernel::kill(container.maker, libc::SIGKILL);
        }
        let mut trouble = container.trouble();
        if let Err(error) = container.cgroup.destroy() {
            trouble = format!("{trouble}; and then: {}", crate::error::in_full(&error));
        }
        // The agent that asked may be gone, and the id must be free again.
        for path in [self.boot.data.join(&container.id), container.dir.0.clone()] {
            if let Err(error) = layout::remove_tree(&path) {
                eprintln!("container {}: {}", container.id, crate::error::in_full(&error));
            }
        }
        if let Some(caller) = container.caller.take() {
            self.reply(caller, Err(Failure::Refused(trouble)), Vec::new());
        }
    }

    /// Starting → Running: the first process has become its program.
    fn running(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        container.stage = Stage::Running { at: kernel::now() };
        container.launch_until_ms = None;
        // Only now: the limit would have slowed the way here by whole scheduling periods.
        if let Err(error) = container.cgroup.limit_cpu_time(&container.resources) {
            container.failure = Some(crate::error::in_full(&error));
            container.kill();
        }
        let (caller, status, failure) = (container.caller.take(), container.status(), container.failure.clone());
        self.publish(status);
        if let Some(caller) = caller {
            self.reply(caller, failure.map_or(Ok(Answer::Done), |why| Err(Failure::Refused(why))), Vec::new());
        }
    }

    /// Created, Starting, Running → Draining: the first process is over.
    pub(super) fn ended(&mut self, number: u32, end: End) {
        self.read_reports(number);
        let Some(container) = self.containers.get_mut(&number) else { return };
        let started_at = match container.stage {
            Stage::Running { at } => Some(at),
            _ => None,
        };
        if container.shares_pids || started_at.is_none() && container.program.is_some() {
            let _ = container.cgroup.kill();
        }
        let exit = exit_of(container, end, started_at);
        // On disk before anyone is told: whoever was not listening finds it there.
        if let Err(error) = layout::save(&container.dir.exit(), &exit) {
            eprintln!("container {}: {}", container.id, crate::error::in_full(&error));
        }
        container.launch_until_ms = None;
        container.kill_at_ms = None;
        container.stage = Stage::Draining { exit, until_ms: kernel::monotonic_ms() + DRAIN_MS_MAX };
        for index in 0..container.outputs.len() {
            self.pump(number, index);
        }
        self.finish_drain(number);
    }

    /// Reads one output until there is nothing more for now.
    pub(super) fn pump(&mut self, number: u32, index: usize) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        let Some(output) = container.outputs.get_mut(index) else { return };
        let mut chunk = [0; CHUNK_BYTES];
        let is_over = matches!(container.stage, Stage::Draining { .. });
        // A living container is read once each round, so that one that writes without end does not keep the others waiting.
        while output.wants_more() && output.pump(container.log.as_mut(), &mut chunk) && is_over {}
        if is_over && output.wants_more() && !container.shares_pids && container.terminal.is_none() {
            // Everyone who could have written is dead, so empty is the end even if some copy of the pipe is still open.
            output.drain(container.log.as_mut(), &mut chunk);
        }
    }

    /// Draining → Exited, once all output is read and delivered or it takes too long.
    pub(super) fn finish_drain(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        let Stage::Draining { exit, until_ms } = &container.stage else { return };
        let is_late = kernel::monotonic_ms() >= *until_ms;
        if !is_late && !container.outputs.iter().all(Output::is_done) {
            return;
        }
        let exit = exit.clone();
        for output in &mut container.outputs {
            output.drain(container.log.as_mut(), &mut [0; CHUNK_BYTES]);
        }
        container.outputs = Vec::new();
        (container.log, container.stdin, container.terminal, container.reports) = (None, None, None, None);
        container.stage = Stage::Exited(exit.clone());
        let (caller, stoppers, status) =
            (container.caller.take(), std::mem::take(&mut container.stoppers), container.status());
        self.publish(status);
        if let Some(caller) = caller {
            self.reply(caller, Err(Failure::Refused(exit.message)), Vec::new());
        }
        for stopper in stoppers {
            self.reply(stopper, Ok(Answer::Done), Vec::new());
        }
    }

    /// Does what is due by the clock.
    pub(super) fn tick(&mut self, number: u32, now_ms: u64) {
        let Some(container) = self.containers.get_mut(&number) else { return };
        container.outputs.iter_mut().for_each(|output| output.flush_taps(now_ms));
        if container.kill_at_ms.is_some_and(|at| at <= now_ms) {
            container.kill();
            container.kill_at_ms = Some(now_ms + KILL_AGAIN_MS);
        }
        if container.launch_until_ms.is_some_and(|until| until <= now_ms) {
            container.failure = Some(format!("it took longer than {LAUNCH_MS_MAX} ms and was killed"));
            container.launch_until_ms = None;
            match container.stage {
                Stage::Creating => return self.not_created(number),
                _ => container.kill_at_ms = Some(now_ms),
            }
        }
        self.finish_drain(number);
    }

    fn publish(&mut self, status: Option<ContainerStatus>) {
        let Some(ContainerStatus { id, state }) = status else { return };
        for peer in self.peers.iter_mut().filter(|peer| peer.is_subscribed) {
            peer.say(&Message::Event(ContainerEvent { id: id.clone(), state: state.clone() }), Vec::new());
        }
    }
}

/// How a process ended, as waitpid(2) has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub code: i32,
    pub signal: Option<i32>,
}

impl End {
    pub fn of(status: i32) -> End {
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            return End { code: 128 + signal, signal: Some(signal) };
        }
        End { code: libc::WEXITSTATUS(status), signal: None }
    }
}

fn exit_of(container: &Container, end: End, started_at: Option<Timestamp>) -> Exit {
    let End { code, signal } = end;
    let finished_at = kernel::now();
    // A worker may have been killed and the container have gone on to end well; then memory did not end it.
    let oom = code == 128 + libc::SIGKILL && container.cgroup.oom_kills() > 0;
    let not_started = started_at.is_none() && container.failure.is_some();
    let (reason, message) = match &container.failure {
        Some(failure) if not_started => (ExitReason::StartFailed, failure.clone()),
        Some(failure) => (ExitReason::Ended, failure.clone()),
        None if oom => (ExitReason::OutOfMemory, "it reached its memory limit".to_owned()),
        None => (ExitReason::Ended, String::new()),
    };
    let code = if not_started { 128 } else { code };
    Exit { code, signal, oom, reason, message, started_at, finished_at }
}
