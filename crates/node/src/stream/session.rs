//! Session: copies between a process and the channels of a client until either is over.
//!
//! Rules
//!   R1 input     the client's end of standard input is the process's; bytes for a process that does not read wait
//!   R2 output    the process waits for a client that does not read; output nobody asked for is read and dropped
//!   R3 end       the process is over and its output is delivered: the client is told how it ended, then hung up on
//!   R4 leavings  output that something left behind holds open is waited for only while it says something
//!   R5 gone      the client is gone: the process is told to end (or what was attached to is left alone)

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use windlass_runtime::TerminalSize;

use super::channel::{CHUNK_BYTES_MAX, Channels, Reader, Turns, Writer};
use super::exit::Ending;

/// How long output may say nothing after the process is over, before it is taken to be somebody else's.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// The longest message that sets a terminal's size.
const SIZE_BYTES_MAX: usize = 1024;

/// Sets the size of a terminal.
pub(super) type Sizer = Box<dyn Fn(TerminalSize) + Send + Sync>;

/// The standard streams of a process.
#[derive(Default)]
pub(super) struct Streams {
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub sizer: Option<Sizer>,
}

/// What a client is connected to.
pub(super) trait Program: Send {
    /// Its streams; once.
    fn streams(&mut self) -> Result<Streams, String>;

    /// Waits until it is over.
    fn wait(&mut self) -> impl Future<Output = Ending> + Send;

    /// How long it may take to be over when its output has ended; `None` for as long as it likes.
    fn patience(&self) -> Option<(Duration, &'static str)>;

    /// The client is gone.
    fn abandon(self) -> impl Future<Output = ()> + Send;
}

/// Connects a client and a program until either is over.
pub(super) async fn run(mut program: impl Program, channels: Channels) {
    let Channels { stdin, stdout, stderr, resize, error, wording, link } = channels;
    let streams = match program.streams() {
        Ok(streams) => streams,
        Err(why) => {
            Channels::end(error, wording, link, &Ending::Failed(why)).await;
            return program.abandon().await;
        }
    };
    let (over, is_over) = watch::channel(false);
    let patience = program.patience().filter(|_| streams.stdout.is_some() || streams.stderr.is_some());
    let ending = {
        let outputs = async {
            tokio::join!(
                copy_output(streams.stdout, stdout, is_over.clone()),
                copy_output(streams.stderr, stderr, is_over)
            );
        };
        let wait = async {
            let ending = program.wait().await;
            over.send_replace(true);
            ending
        };
        let inputs = async {
            tokio::join!(copy_input(stdin, streams.stdin), copy_sizes(resize, streams.sizer));
            std::future::pending::<()>().await
        };
        tokio::select! {
            biased;
            // First, because a program that never pauses leaves the rest no turn.
            () = link.gone() => None,
            ending = both(outputs, wait, patience) => Some(ending),
            () = inputs => None,
        }
    };
    match ending {
        Some(ending) => Channels::end(error, wording, link, &ending).await,
        // R5
        None => {
            drop(link);
            program.abandon().await;
        }
    }
}

/// R3.
async fn both(
    outputs: impl Future<Output = ()>,
    wait: impl Future<Output = Ending>,
    patience: Option<(Duration, &'static str)>,
) -> Ending {
    let mut wait = std::pin::pin!(wait);
    let mut outputs = std::pin::pin!(outputs);
    tokio::select! {
        biased;
        ending = &mut wait => {
            outputs.await;
            ending
        }
        () = &mut outputs => match patience {
            None => wait.await,
            Some((limit, why)) => match tokio::time::timeout(limit, wait).await {
                Ok(ending) => ending,
                Err(_) => Ending::Failed(why.to_owned()),
            },
        },
    }
}

/// R2 and R4.
async fn copy_output(
    from: Option<Box<dyn AsyncRead + Send + Unpin>>,
    mut to: Option<Writer>,
    mut is_over: watch::Receiver<bool>,
) {
    let Some(mut from) = from else { return };
    let mut buffer = BytesMut::new();
    let mut turns = Turns::default();
    loop {
        turns.take().await;
        buffer.reserve(CHUNK_BYTES_MAX);
        let silence = async {
            // The sender lives as long as the program is waited for.
            let _ = is_over.wait_for(|over| *over).await;
            tokio::time::sleep(SILENCE_MAX).await;
        };
        let mut room = bytes::BufMut::limit(&mut buffer, CHUNK_BYTES_MAX);
        let read = tokio::select! {
            biased;
            read = from.read_buf(&mut room) => read,
            () = silence => break,
        };
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "output of a process broke");
                break;
            }
        }
        let bytes = buffer.split().freeze();
        if let Some(writer) = &to
            && writer.write(bytes).await.is_err()
        {
            // The client does not want it any more; the process still has to get rid of it.
            to = None;
        }
    }
    if let Some(writer) = to {
        // A client that is gone is noticed elsewhere.
        let _ = writer.finish().await;
    }
}

/// R1.
async fn copy_input(from: Option<Reader>, to: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(bytes) = from.next().await {
        if let Err(error) = to.write_all(&bytes).await {
            // It has closed its input; that is its right.
            tracing::debug!(%error, "a process takes no more input");
            return;
        }
    }
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

async fn copy_sizes(from: Option<Reader>, sizer: Option<Sizer>) {
    let (Some(mut from), Some(sizer)) = (from, sizer) else { return };
    let mut text = BytesMut::new();
    while let Some(bytes) = from.next().await {
        for size in sizes(&mut text, &bytes) {
            sizer(size);
        }
    }
}

/// Takes whole messages `{"Width":80,"Height":24}` off what has come, which may be cut anywhere.
fn sizes(text: &mut BytesMut, more: &Bytes) -> Vec<TerminalSize> {
    let mut found = Vec::new();
    for byte in more.iter().copied() {
        text.extend_from_slice(&[byte]);
        if byte != b'}' && text.len() < SIZE_BYTES_MAX {
            continue;
        }
        match serde_json::from_slice::<Size>(text) {
            Ok(Size { width: columns, height: rows }) => found.push(TerminalSize { columns, rows }),
            Err(error) => tracing::debug!(%error, "a client's terminal size is not understood"),
        }
        text.advance(text.len());
    }
    found
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::{SIZE_BYTES_MAX, sizes};

    #[test]
    fn sizes_are_read_however_they_are_cut() {
        let mut text = BytesMut::new();
        let mut read = |more: &'static str| -> Vec<(u16, u16)> {
            let found = sizes(&mut text, &Bytes::from_static(more.as_bytes()));
            found.into_iter().map(|size| (size.columns, size.rows)).collect()
        };
        assert_eq!(read("{\"Width\":80,\"Height\":24}\n{\"Width\":1,\"Hei"), [(80, 24)]);
        assert_eq!(read("ght\":2}"), [(1, 2)]);
        assert_eq!(read("{\"Width\":-1,\"Height\":70000}"), []);
        assert_eq!(read("{}\n{\"Width\":3,\"Height\":4}"), [(3, 4)]);
    }

    #[test]
    fn what_is_no_size_does_not_pile_up() {
        let mut text = BytesMut::new();
        assert!(sizes(&mut text, &Bytes::from(vec![b'x'; 3 * SIZE_BYTES_MAX + 5])).is_empty());
        assert_eq!(text.len(), 5);
    }
}
