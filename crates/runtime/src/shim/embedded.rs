//! The embedded way to run containers: libcontainer, within this program.
//!
//! Flow        the maker has libcontainer build the container up to its last step, where its first process waits at a
//!             socket; told to begin, it takes the steps of [`crate::launch`] and becomes the program
//! Guarantees  that first process holds the maker's channel open until it is the program or has said why it is not

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use tracing::field::{Field, Visit};

use super::create::{Job, Stdio};
use super::fork::{ReportKind, Reporter};
use super::machine_devices;
use crate::error::in_full;
use crate::launch::{Launch, Prepared};
use crate::layout::ContainerDir;

/// Has the container built from the bundle in its directory. Reports the first process's number.
pub(super) fn build(job: Job, launch: Launch, devices: Option<OwnedFd>, report: Reporter) -> Result<(), String> {
    // It fails only when there is a subscriber already, and a shim has none.
    let _ = tracing::subscriber::set_global_default(Details(report));
    let failed = |error: libcontainer::error::LibcontainerError| in_full(&error);
    let prepared = launch.prepare().map_err(|error| error.to_string())?;
    let program = Program { prepared: Rc::new(prepared), devices: devices.map(Rc::new), report };
    let mut builder = ContainerBuilder::new(job.id, SyscallType::default())
        .with_root_path(job.dir.state())
        .map_err(failed)?
        .with_executor(program);
    builder = match job.stdio {
        Stdio::Terminal => builder.with_console_socket(Some(job.dir.console())),
        Stdio::Pipes { stdin, stdout, stderr } => {
            let builder = builder.with_stdout(stdout).with_stderr(stderr);
            match stdin {
                Some(stdin) => builder.with_stdin(stdin),
                None => builder,
            }
        }
    };
    let container = builder.as_init(&job.dir.0).with_systemd(false).with_detach(true).build().map_err(failed)?;
    let pid = container.pid().ok_or("libcontainer made a container without a process")?;
    report.say(ReportKind::Process, &pid.as_raw().to_string());
    Ok(())
}

/// Tells the first process to begin.
pub(super) fn begin(dir: &ContainerDir, id: &str) -> io::Result<()> {
    // libcontainer's own socket; named through a descriptor because its path may be longer than an address.
    let state = File::open(dir.state().join(id))?;
    let socket = format!("/proc/self/fd/{}/notify.sock", state.as_raw_fd());
    UnixStream::connect(socket).and_then(|mut socket| socket.write_all(b"start container"))
}

/// What libcontainer calls when everything else is done, in the container's first process.
#[derive(Clone)]
struct Program {
    prepared: Rc<Prepared>,
    /// The machine's `/dev`.
    devices: Option<Rc<OwnedFd>>,
    report: Reporter,
}

impl Executor for Program {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // A program that is not there is found out when it is started: then the container is known, as one that failed.
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment goes to the program by execve; this process needs none.
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let error = match self.devices.as_deref().map_or(Ok(()), machine_devices::put_over) {
            Ok(()) => self.prepared.run().to_string(),
            Err(error) => format!("could not mount the machine's /dev: {error}"),
        };
        self.report.say(ReportKind::Failure, &error);
        Err(ExecutorError::Other(error))
    }
}

/// libcontainer's errors lose their causes on the way between its processes, but it traces them: these go to the shim.
struct Details(Reporter);

impl tracing::Subscriber for Details {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let text = RefCell::new(String::new());
        event.record(&mut Line(&text));
        self.0.say(ReportKind::Detail, &text.borrow());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Line<'a>(&'a RefCell<String>);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = self.0.borrow_mut();
        let part = if field.name() == "message" { format!("{value:?}") } else { format!("{}={value:?}", field.name()) };
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&part);
    }
}
