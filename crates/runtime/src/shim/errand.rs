//! What programs of the machine are asked to do beside making containers, without waiting for them: `kill` and `delete` of
//! an OCI runtime, `dump` of CRIU ([`super::checkpoint`]).
//!
//! Guarantees  one that takes too long is killed; whoever asked is told why it failed
//! Caveats     a container that the program cannot delete is removed all the same when its sandbox ends: its processes are
//!             in our groups and its files in our directories

use super::calls::{DONE, LATER, Outcome, refused};
use super::container::{Container, End, LAUNCH_MS_MAX, Stage};
use super::program::{self, Program};
use super::{Caller, Shim, checkpoint, mend};
use crate::error::in_full;
use crate::kernel;
use crate::layout::{self, ContainerDir};
use crate::protocol::{Answer, Failure};

/// A command under way.
#[derive(Debug)]
pub(super) struct Errand {
    pub pid: i32,
    pub until_ms: u64,
    pub container: u32,
    pub purpose: Purpose,
    pub verb: &'static str,
    pub program: Program,
    /// Where it writes down what went wrong.
    pub dir: ContainerDir,
    /// It took too long and was killed.
    pub is_late: bool,
}

/// What a command is for, and who waits for it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Signal(Option<Caller>),
    /// The container is to be gone.
    Delete(Caller),
    /// All containers are to be gone, and the sandbox.
    DeleteAll(Caller),
    /// The container is to be saved.
    Checkpoint(Caller),
}

impl Errand {
    fn is_of_the_end(&self) -> bool {
        matches!(self.purpose, Purpose::DeleteAll(_))
    }
}

impl Shim {
    /// Has the program send a container's first process a signal.
    pub(super) fn send(&mut self, number: u32, purpose: Purpose, signal: i32) -> Outcome {
        self.begin(number, purpose, ("kill", &[signal.to_string()]))
    }

    /// Has the program forget a container, which then is gone.
    pub(super) fn delete(&mut self, number: u32, caller: Caller) -> Outcome {
        if self.errands.iter().any(|errand| errand.container == number && errand.verb == "delete") {
            return Err(refused("it is being removed already"));
        }
        self.begin(number, Purpose::Delete(caller), ("delete", &[]))
    }

    /// Has the program forget all containers, with whatever runs in them; then the sandbox ends.
    pub(super) fn delete_all(&mut self, caller: Caller) -> Outcome {
        // Killed by ourselves first: not every program kills what it deletes, and none as surely.
        self.cgroup.kill().map_err(|error| refused(in_full(&error)))?;
        for number in self.containers.keys().copied().collect::<Vec<_>>() {
            let is_waiting = |container: &&Container| matches!(container.stage, Stage::Created | Stage::Starting);
            self.containers.get(&number).filter(is_waiting).into_iter().for_each(Container::kill);
            if let Err(why) = self.begin(number, Purpose::DeleteAll(caller), ("delete", &[])) {
                eprintln!("shim: {why:?}");
            }
        }
        if self.errands.iter().any(Errand::is_of_the_end) { LATER } else { self.finish() }
    }

    fn begin(&mut self, number: u32, purpose: Purpose, (verb, rest): (&'static str, &[String])) -> Outcome {
        let Some(container) = self.containers.get(&number) else { return Err(Failure::NotFound) };
        let Some(program) = container.program.clone() else { return Err(refused("no program runs it")) };
        let dir = container.dir.clone();
        let mut command = program.command(&dir, verb);
        if verb == "delete" {
            command.arg("--force");
        }
        command.arg(&container.id).args(rest);
        let child = command.spawn();
        let child = child.map_err(|error| refused(format!("could not run {}: {error}", program.0.display())))?;
        let pid = i32::try_from(child.id()).expect("process numbers are positive and small");
        let until_ms = kernel::monotonic_ms() + LAUNCH_MS_MAX;
        self.errands.push(Errand { pid, until_ms, container: number, purpose, verb, program, dir, is_late: false });
        LATER
    }

    /// The program has done what it was asked to, or failed.
    pub(super) fn errand_ended(&mut self, index: usize, end: End) {
        let errand = self.errands.swap_remove(index);
        let Errand { container, purpose, verb, program, dir, is_late, .. } = errand;
        let done = match (end, purpose) {
            (End { code: 0, .. }, _) => Ok(()),
            (End { code, .. }, Purpose::Checkpoint(_)) => {
                // What fails by itself cleans up by itself; but it may have been killed by others too.
                if let Some((init, group)) = self.containers.get(&container).and_then(Container::living) {
                    mend::mend(init, group);
                }
                Err(if is_late { checkpoint::TOO_LATE.to_owned() } else { checkpoint::last_words(&dir, code) })
            }
            (End { code, .. }, _) => Err(program.last_words(&dir, verb, &format!("it ended with {code}"))),
        };
        if let Err(error) = layout::remove_file(&program::log_of(&dir, verb)) {
            eprintln!("shim: {}", in_full(&error));
        }
        let outcome = match (purpose, done) {
            (Purpose::Signal(_) | Purpose::Checkpoint(_), Ok(())) => DONE,
            (Purpose::Signal(_) | Purpose::Delete(_) | Purpose::Checkpoint(_), Err(why)) => Err(refused(why)),
            (Purpose::Delete(_), Ok(())) => self.forget(container),
            (Purpose::DeleteAll(_), done) => {
                if let Err(why) = done {
                    eprintln!("shim: {why}");
                }
                if self.errands.iter().any(Errand::is_of_the_end) {
                    return;
                }
                self.finish()
            }
        };
        match (purpose, outcome) {
            (Purpose::Signal(None), Err(why)) => eprintln!("shim: {why:?}"),
            (Purpose::Signal(None), Ok(_)) | (_, Ok(None)) => {}
            (Purpose::Signal(Some(caller)), outcome)
            | (Purpose::Delete(caller) | Purpose::DeleteAll(caller) | Purpose::Checkpoint(caller), outcome) => {
                self.reply(caller, outcome.map(|_| Answer::Done), Vec::new());
            }
        }
    }

    /// Ends those that take too long; their end is then seen.
    pub(super) fn tick_errands(&mut self, now_ms: u64) {
        for errand in self.errands.iter_mut().filter(|errand| errand.until_ms <= now_ms) {
            (errand.until_ms, errand.is_late) = (now_ms + LAUNCH_MS_MAX, true);
            let _ = kernel::kill(errand.pid, libc::SIGKILL);
            if matches!(errand.purpose, Purpose::Checkpoint(_)) {
                // It leads a group of its own, with the programs that it runs.
                let _ = kernel::kill(-errand.pid, libc::SIGKILL);
            }
        }
    }
}
