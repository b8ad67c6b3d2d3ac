//! Program: a container's process as a session sees it: one that is run for the client, or the one that runs anyway.

use std::time::Duration;

use windlass_runtime::{Attachment, ContainerState, Events, ExecSpec, Process, Resizer, Sandbox};

use super::exit::Ending;
use super::session::{Program, Sizer, Streams};
use crate::grpc::words as in_full;
use crate::server::StreamOptions;

const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
/// How long a process may take to end when its client is gone.
const GRACE: Duration = Duration::from_secs(5);
/// How long a container's end may become known after the end of its output.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process run for the client; it ends with it.
pub(super) struct Exec {
    process: Process,
    is_over: bool,
}

impl Exec {
    /// Runs a command in a running container.
    pub async fn start(sandbox: Sandbox, container: String, options: StreamOptions) -> Result<Exec, String> {
        let StreamOptions { command: args, stdin, tty, .. } = options;
        let spec = ExecSpec { args, stdin, tty, ..ExecSpec::default() };
        match sandbox.exec(&container, spec).await {
            Ok(process) => Ok(Exec { process, is_over: false }),
            Err(error) => Err(format!("error executing command in container: {}", in_full(&error))),
        }
    }

    async fn signal(&self, signal: i32) {
        if let Err(error) = self.process.signal(signal).await {
            tracing::warn!(%error, signal, "a process without a client could not be told to end");
        }
    }
}

impl Program for Exec {
    fn streams(&mut self) -> Result<Streams, String> {
        let process = &mut self.process;
        let sizer = process.resizer().map_err(|error| in_full(&error))?;
        Ok(Streams {
            stdin: process.stdin.take().map(|stream| Box::new(stream) as _),
            stdout: process.stdout.take().map(|stream| Box::new(stream) as _),
            stderr: process.stderr.take().map(|stream| Box::new(stream) as _),
            sizer: Some(sizer_of(sizer)),
        })
    }

    async fn wait(&mut self) -> Ending {
        let ended = self.process.wait().await;
        self.is_over = true;
        match ended {
            Ok(exit) => Ending::Exited(exit.code),
            Err(error) => Ending::Failed(in_full(&error)),
        }
    }

    fn patience(&self) -> Option<(Duration, &'static str)> {
        None
    }

    async fn abandon(mut self) {
        if self.is_over {
            return;
        }
        self.signal(SIGHUP).await;
        if tokio::time::timeout(GRACE, self.wait()).await.is_err() {
            self.signal(SIGKILL).await;
        }
    }
}

/// The container's own process; it does not care whether anyone is attached.
pub(super) struct Attached {
    sandbox: Sandbox,
    container: String,
    events: Events,
    attachment: Attachment,
}

impl Attached {
    /// Attaches to a running container.
    pub async fn start(sandbox: Sandbox, container: String, options: StreamOptions) -> Result<Attached, String> {
        let StreamOptions { stdin, stdout, stderr, .. } = options;
        let events = sandbox.events();
        match sandbox.attach(&container, stdin, stdout, stderr).await {
            Ok(attachment) => Ok(Attached { sandbox, container, events, attachment }),
            Err(error) => Err(format!("error attaching to container: {}", in_full(&error))),
        }
    }
}

impl Program for Attached {
    fn streams(&mut self) -> Result<Streams, String> {
        let attachment = &mut self.attachment;
        let sizer = attachment.resizer().map_err(|error| in_full(&error))?;
        Ok(Streams {
            stdin: attachment.stdin.take().map(|stream| Box::new(stream) as _),
            stdout: attachment.stdout.take().map(|stream| Box::new(stream) as _),
            stderr: attachment.stderr.take().map(|stream| Box::new(stream) as _),
            sizer: Some(sizer_of(sizer)),
        })
    }

    async fn wait(&mut self) -> Ending {
        loop {
            match self.sandbox.state(&self.container) {
                Some(ContainerState::Created | ContainerState::Running { .. }) => {}
                Some(ContainerState::Exited(_)) | None => return Ending::Over,
            }
            if self.events.next().await.is_none() {
                return Ending::Over;
            }
        }
    }

    fn patience(&self) -> Option<(Duration, &'static str)> {
        Some((PATIENCE, "detached, because the container's output was not read for too long; attach again"))
    }

    async fn abandon(self) {}
}

fn sizer_of(resizer: Resizer) -> Sizer {
    Box::new(move |size| {
        if let Err(error) = resizer.resize(size) {
            tracing::debug!(%error, ?size, "a terminal does not take its size");
        }
    })
}
