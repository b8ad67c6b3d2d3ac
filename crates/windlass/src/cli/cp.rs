//! `windlass cp`: files and directories into a container and out of it. The container's tar does the other half.
//!
//! Rules
//!   R1 words     `[NAMESPACE/]POD:PATH` is in a container, all else is here; one of the two must be
//!   R2 into      what goes into a directory that is there keeps its name; else it becomes the destination
//!   R3 out       nothing is written outside the destination whatever the container sends, and no more than `--max-bytes`;
//!                symbolic links are told and passed over
//!   R4 told      what the container's tar complains of goes to standard error, its control characters shown
//! Not here       resuming (`--retries`), copies between two containers

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes};
use clap::Args;
use serde_json::Value;
use tokio::sync::mpsc;
use windlass_api::kinds;
use windlass_api::quantity::Quantity;
use windlass_runtime::image::{Destination, pack, take};

use super::channel::{self, CHUNK_BYTES_MAX, CLOSE, STDERR, STDIN, STDOUT, Streams, on_channel};
use super::describe::sheet::text;
use super::output::escape;
use super::podset::container;
use super::session::{Session, SessionFlags};

/// Chunks that wait to be unpacked.
const WAITING_MAX: usize = 8;
/// What may follow the end of an archive.
const PADDING_BYTES_MAX: u64 = 1 << 20;

/// `windlass cp`.
#[derive(Args)]
pub struct CpFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// What is copied: PATH or [NAMESPACE/]POD:PATH
    #[arg(value_name = "FROM")]
    pub from: String,
    /// Where it goes: PATH or [NAMESPACE/]POD:PATH
    #[arg(value_name = "TO")]
    pub to: String,
    /// The container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Owners and permissions are not kept in the container
    #[arg(long)]
    pub no_preserve: bool,
    /// No more is copied out of a container than this
    #[arg(long, value_name = "QUANTITY", default_value = "10Gi")]
    pub max_bytes: Quantity,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Here(PathBuf),
    There { namespace: Option<String>, pod: String, path: String },
}

/// Does it.
pub async fn run(session: &Session, flags: &CpFlags) -> Result<()> {
    match (End::read(&flags.from)?, End::read(&flags.to)?) {
        (End::There { .. }, End::There { .. }) => bail!("one of src or dest must be a local file specification"),
        (End::Here(_), End::Here(_)) => bail!("one of src or dest must be a remote file specification"),
        (End::Here(from), End::There { namespace, pod, path }) => {
            let place = find(session, flags, namespace.as_deref(), &pod).await?;
            into(session, flags, &place, &from, &path).await
        }
        (End::There { namespace, pod, path }, End::Here(to)) => {
            let place = find(session, flags, namespace.as_deref(), &pod).await?;
            out(session, flags, &place, &path, &to).await
        }
    }
}

impl End {
    /// R1.
    fn read(word: &str) -> Result<End> {
        let there = word.split_once(':').filter(|(pod, _)| !pod.starts_with(['.', '/']));
        let Some((pod, path)) = there else {
            if word.is_empty() {
                bail!("filepath can not be empty");
            }
            return Ok(End::Here(word.into()));
        };
        if path.is_empty() {
            bail!("filepath can not be empty");
        }
        let (namespace, pod) = match pod.split_once('/') {
            Some((namespace, pod)) => (Some(namespace.to_owned()), pod),
            None => (None, pod),
        };
        if pod.is_empty() || pod.contains('/') || namespace.as_deref() == Some("") {
            bail!("filespec must match the canonical format: [[namespace/]pod:]file/path");
        }
        Ok(End::There { namespace, pod: pod.to_owned(), path: path.to_owned() })
    }
}

/// A container.
struct Place {
    pod: Value,
    container: String,
}

async fn find(session: &Session, flags: &CpFlags, namespace: Option<&str>, pod: &str) -> Result<Place> {
    let pod = session.get(&kinds::POD, namespace.unwrap_or(&session.namespace), pod).await?;
    let phase = text(&pod["status"], "phase");
    if matches!(phase, "Succeeded" | "Failed") {
        bail!("cannot exec into a container in a completed pod; current phase is {phase}");
    }
    let container = container(&pod, flags.container.as_deref())?;
    Ok(Place { pod, container })
}

/// The directory of a path in a container and the name of what lies there; `.` where the path ends in no name.
fn split(path: &str) -> (&str, &str) {
    let trimmed = path.trim_end_matches('/');
    let (directory, name) = match trimmed.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => (".", trimmed),
    };
    match name {
        "" => ("/", "."),
        "." | ".." => (trimmed, "."),
        name => (directory, name),
    }
}

async fn into(session: &Session, flags: &CpFlags, place: &Place, from: &Path, path: &str) -> Result<()> {
    if !from.exists() {
        bail!("{} doesn't exist in local filesystem", from.display());
    }
    // R2.
    let own = std::path::absolute(from)?.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_directory = has_ended_well(session, place, &["test", "-d", path]).await?;
    let (directory, name) = match split(path) {
        (whole, ".") => (whole, own.context("the local path has no name")?),
        _ if is_directory => (path, own.context("the local path has no name")?),
        (directory, name) => (directory, name.to_owned()),
    };
    let mut command = vec!["tar"];
    if flags.no_preserve {
        command.extend(["--no-same-permissions", "--no-same-owner"]);
    }
    command.extend(["-xmf", "-", "-C", directory]);
    let streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
    let socket = channel::exec(session, &place.pod, &place.container, &command, streams).await?;
    let (from, (failed, failure)) = (from.to_owned(), tokio::sync::oneshot::channel());
    let feed = |queue: mpsc::Sender<Bytes>| {
        tokio::task::spawn_blocking(move || {
            let archive = io::BufWriter::with_capacity(CHUNK_BYTES_MAX, Sending(queue.clone()));
            match pack(&from, &name, archive) {
                // Nobody listens if the command has ended: then its status tells why.
                Ok(()) => drop(queue.blocking_send(on_channel(CLOSE, &[STDIN]))),
                Err(error) => drop(failed.send(error)),
            }
        });
    };
    let carried = channel::carry(socket, feed, async |channel, content| tell(channel, &content));
    let broken = async {
        match failure.await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        status = carried => ended_well(&status?),
        error = broken => Err(error.into()),
    }
}

async fn out(session: &Session, flags: &CpFlags, place: &Place, path: &str, to: &Path) -> Result<()> {
    let (directory, name) = split(path);
    // A name that begins with a dash is a name all the same.
    let asked = format!("./{name}");
    let command = ["tar", "-cf", "-", "-C", directory, &asked];
    let streams = Streams { stdin: false, stdout: true, stderr: true, tty: false };
    let socket = channel::exec(session, &place.pod, &place.container, &command, streams).await?;
    let (chunks, waiting) = mpsc::channel(WAITING_MAX);
    let bytes_max = u64::try_from(flags.max_bytes.units()).unwrap_or(0);
    let (to, name) = (to.to_owned(), if name == "." { String::new() } else { name.to_owned() });
    let taking = tokio::task::spawn_blocking(move || {
        let mut archive = Receiving { waiting, rest: Bytes::new() };
        let skipped = |path: &str, why: &str| {
            eprintln!("warning: skipping {}: {}", escape::text(path), escape::text(why));
        };
        let taken = take(&mut archive, &name, &Destination { path: &to, bytes_max }, skipped);
        // What follows the end of an archive is padding.
        if taken.is_ok() {
            io::copy(&mut io::Read::take(&mut archive, PADDING_BYTES_MAX), &mut io::sink()).ok();
        }
        taken
    });
    let carried = channel::carry(socket, drop, async move |channel, content| match channel {
        STDOUT => chunks.send(content).await.context("what came was not taken"),
        other => tell(other, &content),
    });
    let carried = carried.await;
    // Why nothing was taken is the better reason, unless the command itself failed.
    let taken = taking.await.context("the copy did not end in order")?;
    match carried {
        Ok(status) => {
            ended_well(&status)?;
            taken?;
        }
        Err(error) => {
            taken?;
            return Err(error);
        }
    }
    Ok(())
}

/// R4.
fn tell(channel: u8, content: &[u8]) -> Result<()> {
    if channel == STDERR {
        write!(io::stderr(), "{}", escape::text(&String::from_utf8_lossy(content)))?;
    }
    Ok(())
}

fn ended_well(status: &Value) -> Result<()> {
    match channel::code(status)? {
        0 => Ok(()),
        code => bail!("command terminated with exit code {code}"),
    }
}

/// Whether a command ends with 0.
async fn has_ended_well(session: &Session, place: &Place, command: &[&str]) -> Result<bool> {
    let streams = Streams { stdin: false, stdout: true, stderr: true, tty: false };
    let socket = channel::exec(session, &place.pod, &place.container, command, streams).await?;
    Ok(channel::code(&channel::carry(socket, drop, async |_, _| Ok(())).await?)? == 0)
}

/// Standard input of a command.
struct Sending(mpsc::Sender<Bytes>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(CHUNK_BYTES_MAX)];
        self.0.blocking_send(on_channel(STDIN, part)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output of a command.
struct Receiving {
    waiting: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Receiving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.waiting.blocking_recv() {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{End, split};

    #[test]
    fn r1_a_word_with_a_pod_before_the_colon_is_in_a_container() {
        let there = |namespace: Option<&str>, pod: &str, path: &str| End::There {
            namespace: namespace.map(str::to_owned),
            pod: pod.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(End::read("web:/tmp/x").expect("a pod"), there(None, "web", "/tmp/x"));
        assert_eq!(End::read("team/web:x").expect("a pod"), there(Some("team"), "web", "x"));
        for here in ["file", "/tmp/a:b", "./a:b"] {
            assert_eq!(End::read(here).expect("here"), End::Here(here.into()));
        }
        for wrong in ["", "web:", ":x", "a/b/c:x"] {
            assert!(End::read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn r2_a_path_is_a_directory_and_a_name() {
        let rows = [
            ("/tmp/x", ("/tmp", "x")),
            ("/tmp/x/", ("/tmp", "x")),
            ("/x", ("/", "x")),
            ("x", (".", "x")),
            ("/", ("/", ".")),
            (".", (".", ".")),
            ("/tmp/..", ("/tmp/..", ".")),
            ("-x", (".", "-x")),
        ];
        for (path, expected) in rows {
            assert_eq!(split(path), expected, "{path}");
        }
    }
}
