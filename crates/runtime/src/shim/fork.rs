//! Children of the shim: how they are forked, what they inherit, and how they report.
//!
//! The shim has one thread, so a forked child may run any code before it ends or becomes another program.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::kernel::{self, check};
use crate::launch::prctl;

/// The longest report; what is longer is cut.
const REPORT_BYTES_MAX: usize = 4096;

/// What one of our children says about its work. The first byte of its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportKind {
    /// The program of the machine has refused to make the container; why is told when it is started.
    Refused = b'R' as isize,
    /// It made a process: its number in decimal.
    Process = b'P' as isize,
    /// The program of the machine has started the container.
    Started = b'S' as isize,
    /// It failed for good, and why.
    Failure = b'E' as isize,
    /// A detail that may explain a failure.
    Detail = b'D' as isize,
    /// A terminal; its descriptor comes along.
    Terminal = b'T' as isize,
}

/// One report.
#[derive(Debug)]
pub(super) struct Report {
    pub kind: ReportKind,
    pub text: String,
    pub fd: Option<OwnedFd>,
}

/// The child's end. It closes when the child becomes another program, which is how the shim learns that it did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reporter(RawFd);

impl Reporter {
    pub fn say(self, kind: ReportKind, text: &str) {
        self.send(kind, text, &[]);
    }

    pub fn hand_over(self, kind: ReportKind, fd: BorrowedFd<'_>) {
        self.send(kind, "", &[fd]);
    }

    fn send(self, kind: ReportKind, text: &str, fds: &[BorrowedFd<'_>]) {
        let mut packet = vec![kind as u8];
        packet.extend(text.bytes().take(REPORT_BYTES_MAX - 1));
        // SAFETY: the descriptor was open when the child was forked and is never closed in it.
        let socket = unsafe { BorrowedFd::borrow_raw(self.0) };
        // If nobody listens any more, the shim is gone and this process about to be killed.
        let _ = kernel::send(socket, &packet, fds);
    }
}

/// The shim's end.
#[derive(Debug)]
pub(super) struct Reports(OwnedFd);

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What reading a report may find.
#[derive(Debug)]
pub(super) enum Received {
    Report(Report),
    /// Nothing now.
    Nothing,
    /// All who could report have ended or become other programs.
    End,
}

impl Reports {
    /// The two ends of a channel.
    pub fn channel() -> io::Result<(Reports, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        kernel::set_nonblocking(&ours)?;
        Ok((Reports(ours), theirs))
    }

    pub fn receive(&self) -> Received {
        let mut packet = [0; REPORT_BYTES_MAX];
        let mut fds = VecDeque::new();
        loop {
            return match kernel::receive(&self.0, &mut packet, &mut fds) {
                Ok(0) => Received::End,
                Ok(count) => {
                    let kinds = [
                        ReportKind::Refused,
                        ReportKind::Process,
                        ReportKind::Started,
                        ReportKind::Failure,
                        ReportKind::Detail,
                        ReportKind::Terminal,
                    ];
                    let kind = kinds.into_iter().find(|kind| *kind as u8 == packet[0]).unwrap_or(ReportKind::Detail);
                    let text = String::from_utf8_lossy(&packet[1..count]).into_owned();
                    Received::Report(Report { kind, text, fd: fds.pop_front() })
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
                Err(_) => Received::End,
            };
        }
    }
}

/// Forks a child that does `work` and ends. It keeps standard input, output and error, the reporter and `keep`; every
/// other descriptor is closed, so that no container ever holds a socket or a pipe of another one.
pub(super) fn fork(
    report: &OwnedFd,
    keep: &[RawFd],
    work: impl FnOnce(Reporter) -> Result<(), String>,
) -> io::Result<i32> {
    let reporter = Reporter(report.as_raw_fd());
    // SAFETY: the shim has one thread, so the child's memory is whole and no lock is held by anyone who is not there.
    let pid = check(unsafe { libc::fork() })?;
    if pid > 0 {
        return Ok(pid);
    }
    let worked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut kept = vec![reporter.0];
        kept.extend_from_slice(keep);
        prepare_child(kept).map_err(|error| format!("could not prepare a child process: {error}"))?;
        work(reporter)
    }));
    let code = match worked {
        Ok(Ok(())) => 0,
        Ok(Err(why)) => {
            reporter.say(ReportKind::Failure, &why);
            1
        }
        Err(_panic) => {
            reporter.say(ReportKind::Failure, "a bug in the runtime; its message is in the sandbox's shim.log");
            70
        }
    };
    exit_now(code)
}

/// Ends without running anything that the parent has registered or would drop.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Undoes what the shim has set up for itself and a program must not inherit.
fn prepare_child(keep: Vec<RawFd>) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    // On its way into a container it must not be traced by those who are there already.
    prctl(libc::PR_SET_DUMPABLE, 0)?;
    reset_signals()?;
    // SAFETY: setpgid has no memory arguments.
    check(unsafe { libc::setpgid(0, 0) })?;
    close_all_but(keep)
}

/// All signals as a fresh program expects them. Rust ignores SIGPIPE and the shim blocks some; both would be inherited.
pub(super) fn reset_signals() -> io::Result<()> {
    // SAFETY: the set is initialized by sigemptyset before it is used; setting default actions touches no memory of ours.
    unsafe {
        for signal in 1..=64 {
            // KILL, STOP and the C library's own two cannot be changed.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
    }
    Ok(())
}

pub(super) fn close_all_but(mut keep: Vec<RawFd>) -> io::Result<()> {
    keep.sort_unstable();
    let mut first: u32 = 3;
    for fd in keep.into_iter().filter_map(|fd| u32::try_from(fd).ok()).filter(|fd| *fd >= 3) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the child owns its copies of the descriptors; it never drops the values that name them in the parent.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}
