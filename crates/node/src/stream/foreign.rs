//! Foreign: a stream with a container of another runtime, which serves it by SPDY at an address that it names by CRI.
//!
//! Rules
//!   F1 through   every byte goes through this node, both ways; the runtime's server is for this machine alone
//!   F2 end       the runtime says how a command ended, in the words of the remote command protocol v4
//!   F3 gone      when the client goes, the runtime is hung up on; what the command does then is the runtime's doing
//! Source: Kubernetes container runtime interface v1, Exec and Attach; the remote command protocol v4.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::watch;
use windlass_runtime::TerminalSize;

use super::channel::{CHUNK_BYTES_MAX, Link, Reader, Writer};
use super::exit::Ending;
use super::session::{Program, Streams};
use super::spdy::{Connection, Headers};
use crate::kernel::StreamAsk;
use crate::server::{StreamOptions, Target};

/// How long the runtime may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The most of what a runtime says about an end.
const ENDING_BYTES_MAX: usize = 64 << 10;
/// How long an end may take to be told when the output has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream with another runtime.
pub(super) struct Foreign {
    stdin: Option<Writer>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    resize: Option<Writer>,
    error: Reader,
    is_attached: bool,
    link: Link,
}

impl Foreign {
    /// Has the runtime run a command, or show the container's own process when there is none.
    pub async fn start(target: Target, container: String, options: StreamOptions) -> Result<Foreign, String> {
        let StreamOptions { command, stdin, stdout, stderr, tty } = options;
        let is_attached = command.is_empty();
        let doing = if is_attached { "attaching to container" } else { "executing command in container" };
        let ask = StreamAsk { command, stdin, stdout, stderr, tty };
        let opened = async {
            let url = target.kernel.foreign_stream(&target.pod.uid, &container, &ask).await;
            let url = url.ok_or("the pod is another runtime's no more")?.map_err(|error| error.to_string())?;
            let io = tokio::time::timeout(ANSWER_TIME_MAX, upgrade(&url)).await;
            let io = io.map_err(|_| format!("the runtime does not answer within {ANSWER_TIME_MAX:?}"))?;
            Foreign::open(io.map_err(|error| error.to_string())?, &ask)
        };
        opened.await.map_err(|why: String| format!("error {doing}: {why}"))
    }

    fn open(io: TcpStream, ask: &StreamAsk) -> Result<Foreign, String> {
        let connection = Connection::dial(io);
        let open = |name: &str| {
            let headers = Headers::from([("streamtype".to_owned(), name.to_owned())]);
            connection.open(headers).ok_or_else(|| "the runtime has hung up".to_owned())
        };
        let wanted = |name: &str, wanted: bool| wanted.then(|| open(name)).transpose();
        let (error, _) = open("error")?;
        let stdin = wanted("stdin", ask.stdin)?.map(|(_, writer)| writer);
        let stdout = wanted("stdout", ask.stdout)?.map(|(reader, _)| reader);
        let stderr = wanted("stderr", ask.stderr && !ask.tty)?.map(|(reader, _)| reader);
        let resize = wanted("resize", ask.tty)?.map(|(_, writer)| writer);
        let is_attached = ask.command.is_empty();
        Ok(Foreign { stdin, stdout, stderr, resize, error, is_attached, link: connection.into_link() })
    }
}

/// Connects to the runtime's server and has the connection made one of SPDY (F1).
async fn upgrade(url: &str) -> io::Result<TcpStream> {
    // The address lets whoever has it in once: it is not said.
    let rest =
        url.strip_prefix("http://").ok_or_else(|| io::Error::other("the runtime's address is not one of http://"))?;
    let (authority, path) =
        rest.split_once('/').ok_or_else(|| io::Error::other("the runtime's address has no path"))?;
    let mut io = TcpStream::connect(authority).await?;
    io.set_nodelay(true)?;
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(io::Error::other("the head of the runtime's answer is too long"));
        }
        // What follows is SPDY's already.
        head.push(io.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("101") => Ok(io),
        _ => Err(io::Error::other(format!("expected the runtime to switch to SPDY, found {line:?}"))),
    }
}

impl Program for Foreign {
    fn streams(&mut self) -> Result<Streams, String> {
        let readable = |reader: Reader| {
            let (ours, theirs) = tokio::io::duplex(CHUNK_BYTES_MAX);
            tokio::spawn(pass_out(reader, theirs));
            Box::new(ours) as _
        };
        let stdin = self.stdin.take().map(|writer| {
            let (ours, theirs) = tokio::io::duplex(CHUNK_BYTES_MAX);
            tokio::spawn(pass_in(theirs, writer));
            Box::new(ours) as Box<dyn AsyncWrite + Send + Unpin>
        });
        let sizer = self.resize.take().map(|writer| {
            let (sizes, wanted) = watch::channel(None);
            tokio::spawn(pass_sizes(wanted, writer));
            Box::new(move |size: TerminalSize| {
                sizes.send_replace(Some(size));
            }) as _
        });
        let (stdout, stderr) = (self.stdout.take().map(readable), self.stderr.take().map(readable));
        Ok(Streams { stdin, stdout, stderr, sizer })
    }

    /// F2.
    async fn wait(&mut self) -> Ending {
        let mut said = Vec::new();
        while let Some(bytes) = self.error.next().await {
            let room = ENDING_BYTES_MAX.saturating_sub(said.len());
            said.extend(bytes.iter().take(room));
        }
        ending(&said, self.is_attached)
    }

    fn patience(&self) -> Option<(Duration, &'static str)> {
        Some((PATIENCE, "the runtime does not say how it ended"))
    }

    /// F3.
    async fn abandon(self) {
        drop(self.link);
    }
}

fn ending(said: &[u8], is_attached: bool) -> Ending {
    let status: Value = serde_json::from_slice(said).unwrap_or_default();
    let cause = || {
        let causes = status["details"]["causes"].as_array().into_iter().flatten();
        let code = causes.into_iter().find(|cause| cause["reason"] == "ExitCode");
        code.and_then(|cause| cause["message"].as_str()?.parse().ok())
    };
    match (status["status"].as_str(), status["reason"].as_str()) {
        (Some("Success"), _) if is_attached => Ending::Over,
        (Some("Success"), _) => Ending::Exited(0),
        (Some(_), Some("NonZeroExitCode")) => match cause() {
            Some(code) => Ending::Exited(code),
            None => Ending::Failed("the runtime names no exit code".to_owned()),
        },
        (Some(_), _) => Ending::Failed(status["message"].as_str().unwrap_or("it failed").to_owned()),
        (None, _) if said.is_empty() && is_attached => Ending::Over,
        (None, _) if said.is_empty() => Ending::Failed("the runtime has hung up".to_owned()),
        (None, _) => Ending::Failed(String::from_utf8_lossy(said).into_owned()),
    }
}

async fn pass_out(mut from: Reader, mut to: DuplexStream) {
    while let Some(bytes) = from.next().await {
        if to.write_all(&bytes).await.is_err() {
            // Who does not read any more does not keep what comes from coming to its end.
            while from.next().await.is_some() {}
            return;
        }
    }
}

async fn pass_in(mut from: DuplexStream, to: Writer) {
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if to.write(Bytes::copy_from_slice(&chunk[..count])).await.is_err() {
                    return;
                }
            }
        }
    }
    // The runtime may have hung up first.
    let _ = to.finish().await;
}

async fn pass_sizes(mut sizes: watch::Receiver<Option<TerminalSize>>, to: Writer) {
    while sizes.changed().await.is_ok() {
        let Some(size) = *sizes.borrow_and_update() else { continue };
        let text = json!({"Width": size.columns, "Height": size.rows}).to_string();
        if to.write(text.into()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ending;
    use crate::stream::exit::{Ending, Wording};

    #[test]
    fn f2_an_ending_is_read_as_it_is_written() {
        for said in [Ending::Exited(0), Ending::Exited(42)] {
            assert_eq!(ending(said.text(Wording::Status).as_bytes(), false), said);
        }
        let failed = ending(Ending::Failed("no such file".to_owned()).text(Wording::Status).as_bytes(), false);
        assert!(matches!(&failed, Ending::Failed(why) if why.contains("no such file")), "{failed:?}");
        assert_eq!(ending(b"", true), Ending::Over);
        assert!(matches!(ending(b"", false), Ending::Failed(_)));
        assert_eq!(ending(b"words", false), Ending::Failed("words".to_owned()));
    }
}
