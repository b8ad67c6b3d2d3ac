//! Streams as clients use them: a client in memory on one side, real processes and real sockets on the other.

mod command;
mod forward;
mod hostile;

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use windlass_runtime::TerminalSize;

use super::command::{NoSession, serve};
use super::exit::Ending;
use super::negotiate::Protocol;
use super::session::{Program, Streams};
use crate::server::StreamOptions;

/// What the connection itself holds: little, so that back-pressure is felt.
const PIPE_BYTES: usize = 16 << 10;

/// A child process of the test.
struct Shell {
    child: Child,
    notes: Notes,
}

/// What happened to a program.
#[derive(Clone)]
struct Notes {
    sizes: Arc<Mutex<Vec<TerminalSize>>>,
    abandoned: mpsc::UnboundedSender<()>,
}

impl Shell {
    fn start(line: &str, notes: Notes) -> Result<Shell, String> {
        let child = Command::new("sh")
            .args(["-c", line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        child.map(|child| Shell { child, notes }).map_err(|error| error.to_string())
    }
}

impl Program for Shell {
    fn streams(&mut self) -> Result<Streams, String> {
        let sizes = Arc::clone(&self.notes.sizes);
        Ok(Streams {
            stdin: self.child.stdin.take().map(|stream| Box::new(stream) as _),
            stdout: self.child.stdout.take().map(|stream| Box::new(stream) as _),
            stderr: self.child.stderr.take().map(|stream| Box::new(stream) as _),
            sizer: Some(Box::new(move |size| sizes.lock().expect("nothing panics with it").push(size))),
        })
    }

    async fn wait(&mut self) -> Ending {
        let status = self.child.wait().await.expect("our own child");
        Ending::Exited(status.code().unwrap_or(137))
    }

    fn patience(&self) -> Option<(Duration, &'static str)> {
        None
    }

    async fn abandon(mut self) {
        self.child.kill().await.expect("our own child");
        self.notes.abandoned.send(()).expect("the test listens");
    }
}

/// A session that is being served.
struct Served {
    task: JoinHandle<Result<(), NoSession>>,
    sizes: Arc<Mutex<Vec<TerminalSize>>>,
    abandoned: mpsc::UnboundedReceiver<()>,
}

/// `stdin,stdout,stderr,tty` in any combination.
fn options(names: &str) -> StreamOptions {
    let has = |name: &str| names.split(',').any(|found| found == name);
    StreamOptions {
        command: Vec::new(),
        stdin: has("stdin"),
        stdout: has("stdout"),
        stderr: has("stderr"),
        tty: has("tty"),
    }
}

/// Serves a shell line on one end of a connection and gives the other.
fn serve_shell(protocol: Protocol, names: &str, line: &str) -> (DuplexStream, Served) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (sender, abandoned) = mpsc::unbounded_channel();
    let notes = Notes { sizes: Arc::default(), abandoned: sender };
    let (options, line, sizes) = (options(names), line.to_owned(), Arc::clone(&notes.sizes));
    let task =
        tokio::spawn(async move { serve(theirs, protocol, &options, async move { Shell::start(&line, notes) }).await });
    (ours, Served { task, sizes, abandoned })
}
