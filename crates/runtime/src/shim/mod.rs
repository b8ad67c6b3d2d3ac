//! The shim: one small process for each sandbox that makes its containers, holds their output, and sees them end.
//!
//! Goal        containers do not notice when the agent comes and goes, and nothing about them is lost meanwhile
//! Relies on   being started by [`crate::Runtime`] with its listening socket as standard input
//! Guarantees  one thread, no heap to speak of when idle; how a container ended is on disk before anyone is told
//!
//! It is in the sandbox's network, UTS and IPC namespaces itself, so its containers inherit them and no other process has
//! to hold them. It stays in the machine's mount namespace and mounts nothing there but the sandbox's `/dev/shm`.
//!
//! Not here    anything that waits: whatever could (libcontainer, a program of the machine, entering a container) is done by
//!             a child

mod calls;
mod checkpoint;
mod container;
mod create;
mod embedded;
mod errand;
mod exec;
mod execs;
mod fork;
mod log;
mod machine_devices;
mod mend;
mod oci;
mod output;
mod peer;
mod program;
mod rootfs;
mod setup;
mod stage;
mod user;
mod user_namespace;

pub(crate) use self::program::describe;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

pub use self::oci::{MASKED_PATHS, READ_ONLY_PATHS};
pub use self::rootfs::open_beneath;

use self::container::{Container, End};
use self::errand::Errand;
use self::execs::ExecProcess;
use self::peer::Peer;
use self::user_namespace::UserNamespace;
use crate::cgroup::SandboxCgroup;
use crate::kernel;
use crate::layout::{Boot, SandboxDir};
use crate::protocol::{Answer, Failure, Message};

/// Most agents connected at a time: one, and one that is just being replaced, and a few curious.
const PEERS_MAX: usize = 16;
/// Milliseconds without anything to do after which memory is given back.
const IDLE_MS: u64 = 100;

/// The shim's whole program. `args` is what follows `shim` on the command line: the sandbox's directory.
///
/// Must be called first thing in `main`, before there is a thread, an async runtime or a logger.
pub fn shim_main(args: impl Iterator<Item = OsString>) -> ! {
    let code = match setup::shim(args) {
        Ok(shim) => shim.run(),
        Err(error) => {
            eprintln!("shim: {error}");
            1
        }
    };
    std::process::exit(code)
}

/// Who is to be answered.
#[derive(Clone, Copy, Debug)]
struct Caller {
    peer: u32,
    serial: u64,
}

/// All a shim knows.
struct Shim {
    boot: Boot,
    dir: SandboxDir,
    cgroup: SandboxCgroup,
    listener: UnixListener,
    signals: OwnedFd,
    /// The user namespace of the sandbox's own, if it has one.
    user: Option<UserNamespace>,
    /// The first process of the process namespace that all containers share, if they do.
    pause: Option<i32>,
    peers: Vec<Peer>,
    containers: BTreeMap<u32, Container>,
    execs: Vec<ExecProcess>,
    errands: Vec<Errand>,
    next_number: u32,
    is_ending: bool,
    /// Something has happened since memory was last given back.
    is_untidy: bool,
}

/// What a polled descriptor stands for.
#[derive(Clone, Copy, Debug)]
enum Watched {
    Reports(u32),
    ExecReports(i32),
    Output(u32, usize),
    Tap(u32, usize, usize),
    Signals,
    Peer(u32),
    Listener,
}

impl Shim {
    fn run(mut self) -> i32 {
        loop {
            let (mut polled, watched) = self.watch();
            let timeout = self.timeout_ms();
            let count = libc::nfds_t::try_from(polled.len()).expect("a bounded number of descriptors");
            // SAFETY: `polled` has `count` entries and lives until the call returns.
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), count, timeout) };
            if ready == 0 && self.is_untidy {
                self.tidy();
            } else if ready > 0 {
                self.is_untidy = true;
                for (entry, watched) in polled.iter().zip(watched).filter(|(entry, _)| entry.revents != 0) {
                    self.handle(watched, entry.revents);
                }
            }
            self.settle();
            if self.is_ending && !self.peers.iter().any(Peer::is_waiting) {
                return 0;
            }
        }
    }

    /// Everything to wait for. Reports come first, so that a process is known before its end is seen.
    fn watch(&self) -> (Vec<libc::pollfd>, Vec<Watched>) {
        let mut list = WatchList::default();
        for (number, container) in &self.containers {
            if let Some(reports) = &container.reports {
                list.add(reports.as_fd(), libc::POLLIN, Watched::Reports(*number));
            }
            // Until it is made only a program that fails to make it writes there, and it says so in its own log too.
            let is_made = !matches!(container.stage, container::Stage::Creating);
            for (index, output) in container.outputs.iter().enumerate().filter(|_| is_made) {
                if let Some(source) = output.source.as_ref().filter(|_| output.wants_more()) {
                    list.add(source.as_fd(), libc::POLLIN, Watched::Output(*number, index));
                }
                for (tap_index, tap) in output.taps.iter().enumerate() {
                    let events = if tap.is_waiting() { libc::POLLOUT } else { 0 };
                    list.add(tap.pipe.as_fd(), events, Watched::Tap(*number, index, tap_index));
                }
            }
        }
        for process in &self.execs {
            if let Some(reports) = &process.reports {
                list.add(reports.as_fd(), libc::POLLIN, Watched::ExecReports(process.joiner));
            }
        }
        list.add(self.signals.as_fd(), libc::POLLIN, Watched::Signals);
        for peer in &self.peers {
            let events = if peer.is_waiting() { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN };
            list.add(peer.socket.as_fd(), events, Watched::Peer(peer.number));
        }
        if self.peers.len() < PEERS_MAX {
            list.add(self.listener.as_fd(), libc::POLLIN, Watched::Listener);
        }
        (list.polled, list.watched)
    }

    /// Milliseconds until something is due by the clock; -1 is never.
    fn timeout_ms(&self) -> i32 {
        let containers = self.containers.values().filter_map(Container::wake_at_ms);
        let execs = self.execs.iter().filter_map(|process| process.until_ms);
        let errands = self.errands.iter().map(|errand| errand.until_ms);
        let now_ms = kernel::monotonic_ms();
        let idle = self.is_untidy.then_some(now_ms + IDLE_MS);
        let next = containers.chain(execs).chain(errands).chain(idle).min();
        next.map_or(-1, |at| i32::try_from(at.saturating_sub(now_ms)).unwrap_or(i32::MAX))
    }

    fn handle(&mut self, watched: Watched, events: i16) {
        match watched {
            Watched::Reports(number) => self.read_reports(number),
            Watched::ExecReports(joiner) => {
                if let Some(index) = self.execs.iter().position(|process| process.joiner == joiner) {
                    self.read_exec_reports(index);
                }
            }
            Watched::Output(number, index) => self.pump(number, index),
            Watched::Tap(number, index, tap) => {
                let output = self.containers.get_mut(&number).and_then(|container| container.outputs.get_mut(index));
                if let Some(output) = output.filter(|_| events & libc::POLLERR != 0) {
                    output.detach(tap);
                }
            }
            Watched::Signals => self.reap(),
            Watched::Peer(number) => self.converse(number),
            Watched::Listener => self.accept(),
        }
    }

    /// What is due after every round, whatever happened in it.
    fn settle(&mut self) {
        let now_ms = kernel::monotonic_ms();
        for number in self.containers.keys().copied().collect::<Vec<_>>() {
            self.tick(number, now_ms);
        }
        self.tick_execs(now_ms);
        self.tick_errands(now_ms);
        self.report_ended_execs();
        for peer in self.peers.extract_if(.., |peer| peer.is_gone) {
            // Nobody is left who could see the result, so nothing is left running for it.
            self.execs.iter_mut().filter(|process| process.caller.peer == peer.number).for_each(ExecProcess::abandon);
        }
    }

    fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else { return };
        self.next_number += 1;
        match Peer::accept(self.next_number, socket) {
            Ok(peer) => self.peers.push(peer),
            Err(error) => eprintln!("shim: a connection is refused: {error}"),
        }
    }

    fn converse(&mut self, number: u32) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.number == number) else { return };
        peer.flush();
        for call in peer.receive() {
            self.call(number, call);
        }
    }

    fn reply(&mut self, caller: Caller, result: Result<Answer, Failure>, fds: Vec<OwnedFd>) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.number == caller.peer) {
            peer.say(&Message::Reply { serial: caller.serial, result }, fds);
        }
    }

    /// Takes note of every process that has ended.
    fn reap(&mut self) {
        // One notice may stand for many ends, so it is only a reason to look.
        while kernel::read(&self.signals, &mut [0; 128]).is_ok() {}
        loop {
            let mut status = 0;
            // SAFETY: waitpid writes one int, which lives until the call returns.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            self.process_ended(pid, End::of(status));
        }
    }

    fn process_ended(&mut self, pid: i32, end: End) {
        // What it or its maker had to say was said before its end, but may not have been read yet.
        for number in self.containers.keys().copied().collect::<Vec<_>>() {
            self.read_reports(number);
        }
        for index in 0..self.execs.len() {
            self.read_exec_reports(index);
        }
        let is_maker =
            |container: &Container| container.maker == pid && matches!(container.stage, container::Stage::Creating);
        let failed = self.containers.iter().find(|(_, container)| is_maker(container)).map(|(number, _)| *number);
        if let Some(number) = failed {
            return self.not_created(number);
        }
        let first = self.containers.iter().find(|(_, container)| container.pid == Some(pid)).map(|(number, _)| *number);
        if let Some(number) = first {
            return self.ended(number, end);
        }
        if let Some(index) = self.execs.iter().position(|process| process.pid == Some(pid)) {
            return self.exec_ended(index, end);
        }
        if let Some(index) = self.errands.iter().position(|errand| errand.pid == pid) {
            self.errand_ended(index, end);
        }
        // Anything else was an orphan of a container or a child that has done its work.
    }

    /// Gives back memory that the last piece of work needed.
    fn tidy(&mut self) {
        self.is_untidy = false;
        // SAFETY: malloc_trim touches only the allocator's own free memory.
        unsafe { libc::malloc_trim(0) };
    }
}

#[derive(Default)]
struct WatchList {
    polled: Vec<libc::pollfd>,
    watched: Vec<Watched>,
}

impl WatchList {
    fn add(&mut self, fd: BorrowedFd<'_>, events: i16, watched: Watched) {
        self.polled.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
        self.watched.push(watched);
    }
}
