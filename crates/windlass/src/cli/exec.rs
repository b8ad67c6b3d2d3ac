//! `windlass exec`: a command in a running container.
//!
//! Rules
//!   R1 words     what follows `--` is the command, word for word
//!   R2 streams   output and errors come apart; `-i` passes our input on and closes it where it ends
//!   R3 terminal  `-t` only where our input is one: it is raw while the command runs, is put back whatever happens, and
//!                its size is passed on as it changes
//!   R4 code      the command's exit code is ours

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::channel::{self, CHUNK_BYTES_MAX, CLOSE, RESIZE, STDERR, STDIN, STDOUT, Streams, on_channel};
use super::describe::sheet::text;
use super::failure::Exit;
use super::podset::{container, pods};
use super::session::{Session, SessionFlags};

/// `windlass exec`.
#[derive(Args)]
pub struct ExecFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// POD or KIND/NAME
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// The container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass our input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Our input is a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Only the command's own output
    #[arg(short, long)]
    pub quiet: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Does it.
pub async fn run(session: &Session, flags: &ExecFlags) -> Result<()> {
    if flags.command.is_empty() {
        bail!("you must specify at least one command for the container");
    }
    let pod = pods(session, &flags.what).await?.swap_remove(0);
    let phase = text(&pod["status"], "phase");
    if matches!(phase, "Succeeded" | "Failed") {
        bail!("cannot exec into a container in a completed pod; current phase is {phase}");
    }
    let container = container(&pod, flags.container.as_deref())?;
    let tty = flags.tty && flags.stdin && std::io::stdin().is_terminal();
    if flags.tty && !tty {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let command: Vec<&str> = flags.command.iter().map(String::as_str).collect();
    // A terminal has one output.
    let streams = Streams { stdin: flags.stdin, stdout: true, stderr: !tty, tty };
    let socket = channel::exec(session, &pod, &container, &command, streams).await?;
    let raw = if tty { Some(RawTerminal::enter()?) } else { None };
    let feed = |queue: mpsc::Sender<Bytes>| {
        if flags.stdin {
            tokio::spawn(read_input(queue.clone()));
        }
        if tty {
            tokio::spawn(follow_size(queue));
        }
    };
    let status = channel::carry(socket, feed, async |channel, content| match channel {
        STDOUT => write_all(std::io::stdout().lock(), &content),
        STDERR => write_all(std::io::stderr().lock(), &content),
        _ => Ok(()),
    });
    let status = status.await;
    drop(raw);
    finish(&status?, flags.quiet)
}

/// R2: at its end the channel is closed, so that the command sees the end too.
async fn read_input(queue: mpsc::Sender<Bytes>) {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    loop {
        let message = match input.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => on_channel(STDIN, &buffer[..count]),
        };
        if queue.send(message).await.is_err() {
            return;
        }
    }
    queue.send(on_channel(CLOSE, &[STDIN])).await.ok();
}

/// R3: the size now, and whenever it changes.
async fn follow_size(queue: mpsc::Sender<Bytes>) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Ok(size) = tcgetwinsize(std::io::stdin()) {
            let size = json!({"Width": size.ws_col, "Height": size.ws_row}).to_string();
            if queue.send(on_channel(RESIZE, size.as_bytes())).await.is_err() {
                return;
            }
        }
        changed.recv().await;
    }
}

fn write_all(mut out: impl Write, text: &[u8]) -> Result<()> {
    out.write_all(text)?;
    Ok(out.flush()?)
}

/// R4.
fn finish(status: &Value, quiet: bool) -> Result<()> {
    match channel::code(status)? {
        0 => Ok(()),
        code => {
            if !quiet {
                eprintln!("command terminated with exit code {code}");
            }
            Err(Exit(u8::try_from(code).unwrap_or(1)).into())
        }
    }
}

/// A terminal that passes every key on, until this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<RawTerminal> {
        let before = tcgetattr(std::io::stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // There is nobody left to tell.
        tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::finish;
    use crate::cli::failure::Exit;
    use serde_json::json;

    #[test]
    fn r4_the_commands_code_is_ours() {
        assert!(finish(&json!({"status": "Success"}), false).is_ok());
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "m",
            "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}});
        let error = finish(&failed, true).expect_err("42");
        assert_eq!(error.downcast_ref::<Exit>().map(|exit| exit.0), Some(42));
        let broken = finish(&json!({"status": "Failure", "message": "no such program"}), true).expect_err("broken");
        assert_eq!(broken.to_string(), "no such program");
    }
}
