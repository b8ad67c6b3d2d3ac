//! Exec'd processes as the shim sees them: from the joiner's first report to the agent being told how they ended.

use std::os::fd::OwnedFd;

use super::container::End;
use super::fork::{Received, ReportKind, Reports};
use super::{Caller, Shim, program};
use crate::error::in_full;
use crate::kernel;
use crate::layout::{self, ContainerDir};
use crate::protocol::{Answer, Failure, Message, StreamKind};

/// One exec'd process.
#[derive(Debug)]
pub(super) struct ExecProcess {
    /// The agent's name for it, unique on its connection.
    pub exec: u64,
    pub caller: Caller,
    pub joiner: i32,
    /// Where its joiner leaves files, if a program of the machine runs it.
    pub files: Option<ContainerDir>,
    pub pid: Option<i32>,
    /// Open until it has become its program or failed to.
    pub reports: Option<Reports>,
    /// The agent's ends of its streams, until they are handed over.
    pub streams: Vec<(StreamKind, OwnedFd)>,
    pub failure: Option<String>,
    pub end: Option<End>,
    /// When it must have become its program.
    pub until_ms: Option<u64>,
    /// Nobody is left who could see its result: it is killed, as soon as it is known if it is not yet.
    pub is_abandoned: bool,
}

impl ExecProcess {
    /// Leaves nothing running.
    pub fn abandon(&mut self) {
        self.is_abandoned = true;
        self.kill();
    }

    fn kill(&self) {
        // It is a session of its own; the number is still its own as long as the shim has not seen it end.
        if let (Some(pid), None) = (self.pid, self.end) {
            let _ = kernel::kill(-pid, libc::SIGKILL);
            let _ = kernel::kill(pid, libc::SIGKILL);
        }
    }
}

impl Shim {
    /// Reads what an exec's joiner or process reports, and draws the conclusions.
    pub(super) fn read_exec_reports(&mut self, index: usize) {
        while let Some(process) = self.execs.get_mut(index) {
            let Some(reports) = &process.reports else { return };
            match reports.receive() {
                Received::Nothing => return,
                Received::Report(report) => match (report.kind, report.fd) {
                    // Once: after that the channel is open in a process that is about to be the container's own.
                    (ReportKind::Process, _) if process.pid.is_none() => {
                        process.pid = report.text.parse().ok();
                        if process.is_abandoned {
                            process.kill();
                        }
                    }
                    (ReportKind::Failure, _) => process.failure = Some(report.text),
                    (ReportKind::Terminal, Some(fd)) if process.streams.is_empty() => {
                        process.streams.push((StreamKind::Terminal, fd))
                    }
                    _ => {}
                },
                Received::End => {
                    (process.reports, process.until_ms) = (None, None);
                    self.exec_began(index);
                }
            }
        }
    }

    /// Everyone who could report has become the program or ended.
    fn exec_began(&mut self, index: usize) {
        let Some(process) = self.execs.get_mut(index) else { return };
        let (caller, streams) = (process.caller, std::mem::take(&mut process.streams));
        for file in process.files.iter().flat_map(|dir| program::exec_files(dir, process.joiner)) {
            if let Err(error) = layout::remove_file(&file) {
                eprintln!("shim: {}", in_full(&error));
            }
        }
        if process.pid.is_none() && process.failure.is_none() {
            process.failure = Some("its process ended without a word; the container may have ended".to_owned());
        }
        match process.failure.clone() {
            Some(why) => self.reply(caller, Err(Failure::Refused(why)), Vec::new()),
            None => {
                let (kinds, fds) = streams.into_iter().unzip();
                self.reply(caller, Ok(Answer::Streams(kinds)), fds);
            }
        }
    }

    /// An exec'd process is over; its reports have been read before.
    pub(super) fn exec_ended(&mut self, index: usize, end: End) {
        if let Some(process) = self.execs.get_mut(index) {
            process.end = Some(end);
        }
    }

    /// Tells agents of processes that are over, after the reply that they began, and forgets them.
    pub(super) fn report_ended_execs(&mut self) {
        let is_over =
            |process: &ExecProcess| process.reports.is_none() && (process.end.is_some() || process.pid.is_none());
        while let Some(index) = self.execs.iter().position(is_over) {
            let process = self.execs.swap_remove(index);
            let (None, Some(End { code, signal })) = (process.failure, process.end) else { continue };
            if let Some(peer) = self.peers.iter_mut().find(|peer| peer.number == process.caller.peer) {
                peer.say(&Message::ExecExit { exec: process.exec, code, signal }, Vec::new());
            }
        }
    }

    /// Ends those that take too long to begin.
    pub(super) fn tick_execs(&mut self, now_ms: u64) {
        for process in self.execs.iter_mut().filter(|process| process.until_ms.is_some_and(|until| until <= now_ms)) {
            process.failure.get_or_insert_with(|| "it took too long to begin and was killed".to_owned());
            process.until_ms = None;
            let _ = kernel::kill(process.joiner, libc::SIGKILL);
            process.abandon();
        }
    }
}
