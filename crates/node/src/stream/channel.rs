//! Channel: what a client and a session exchange bytes on, the same for WebSocket and SPDY.
//!
//! Goal        a session does not know which protocol carries it
//! Guarantees  whoever writes waits until there is room, so a client that does not read costs [`OUTGOING_MAX`] chunks and
//!             no more; what a session does not read makes the client wait in the same way

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::exit::{Ending, Wording};
use super::spdy::{Credit, Lease};

/// The most bytes that travel in one piece: what a pipe is read with at once.
pub(super) const CHUNK_BYTES_MAX: usize = 32 << 10;
/// Chunks of one connection that wait to be written.
pub(super) const OUTGOING_MAX: usize = 8;
/// Chunks of one channel that wait to be read.
pub(super) const INCOMING_MAX: usize = 4;
/// How long a connection may carry nothing (the kubelet's streaming idle timeout).
pub(super) const IDLE_MAX: Duration = Duration::from_secs(4 * 3600);
/// How often a connection is tried, so that a client that vanished is noticed.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may take to hang up after the last word.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(10);

/// The client is not there any more, or has closed this channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has closed the stream")]
pub(super) struct Gone;

/// Bytes from the client; the credit goes back to it when they are taken.
#[derive(Debug)]
pub(super) struct Chunk {
    pub bytes: Bytes,
    pub credit: Option<Credit>,
}

/// What a connection is given to write.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// Bytes for a channel; `last` closes our side of it.
    Bytes { channel: u32, bytes: Bytes, last: bool },
    /// The last word.
    Goodbye,
}

/// The reading side of a channel.
#[derive(Debug)]
pub(super) struct Reader {
    chunks: mpsc::Receiver<Chunk>,
    _lease: Option<Arc<Lease>>,
}

impl Reader {
    pub fn new(chunks: mpsc::Receiver<Chunk>, lease: Option<Arc<Lease>>) -> Reader {
        Reader { chunks, _lease: lease }
    }

    /// The next bytes; `None` when the client has closed its side or is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        let Chunk { bytes, credit } = self.chunks.recv().await?;
        drop(credit);
        Some(bytes)
    }
}

/// The writing side of a channel.
#[derive(Debug)]
pub(super) struct Writer {
    channel: u32,
    queue: mpsc::Sender<Outgoing>,
    lease: Option<Arc<Lease>>,
}

impl Writer {
    pub fn new(channel: u32, queue: mpsc::Sender<Outgoing>, lease: Option<Arc<Lease>>) -> Writer {
        Writer { channel, queue, lease }
    }

    /// Hands bytes to the connection, when it has room for them.
    pub async fn write(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let wanted = bytes.len().min(CHUNK_BYTES_MAX);
            let count = match &self.lease {
                Some(lease) => lease.reserve(wanted).await?,
                None => wanted,
            };
            self.send(bytes.split_to(count), false).await?;
        }
        Ok(())
    }

    /// Lets the client know that the channel is there.
    pub async fn greet(&self) -> Result<(), Gone> {
        self.send(Bytes::new(), false).await
    }

    /// Closes our side of the channel; nothing can be written after it.
    pub async fn finish(&self) -> Result<(), Gone> {
        if let Some(lease) = &self.lease {
            lease.finish()?;
        }
        self.send(Bytes::new(), true).await
    }

    /// Waits until the client has given the channel up; for ever where the protocol has no word for that.
    pub async fn gone(&self) {
        match &self.lease {
            Some(lease) => lease.gone().await,
            None => std::future::pending().await,
        }
    }

    async fn send(&self, bytes: Bytes, last: bool) -> Result<(), Gone> {
        self.queue.send(Outgoing::Bytes { channel: self.channel, bytes, last }).await.map_err(|_| Gone)
    }
}

/// A connection as a session holds it. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Link {
    queue: mpsc::Sender<Outgoing>,
    gone: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Link {
    /// `task` ends when the connection does, and with it the sender of `gone`.
    pub fn new(queue: mpsc::Sender<Outgoing>, gone: watch::Receiver<bool>, task: JoinHandle<()>) -> Link {
        Link { queue, gone, task }
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) {
        // An error is the end of the task, which is the same.
        let _ = self.gone.clone().wait_for(|gone| *gone).await;
    }

    /// Writes what waits, says goodbye, and waits until the client hangs up, for at most [`LINGER_MAX`].
    pub async fn close(mut self) {
        if self.queue.send(Outgoing::Goodbye).await.is_ok()
            && let Err(error) = (&mut self.task).await
        {
            tracing::error!(%error, "a stream's connection did not end in order");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The channels of an exec or attach.
#[derive(Debug)]
pub(super) struct Channels {
    pub stdin: Option<Reader>,
    pub stdout: Option<Writer>,
    pub stderr: Option<Writer>,
    pub resize: Option<Reader>,
    pub error: Writer,
    pub wording: Wording,
    pub link: Link,
}

impl Channels {
    /// Says how it ended and hangs up.
    pub async fn end(error: Writer, wording: Wording, link: Link, ending: &Ending) {
        let said = async {
            error.write(ending.text(wording).into()).await?;
            error.finish().await
        };
        if said.await.is_ok() {
            link.close().await;
        }
    }
}

/// Steps of a copying loop after which it pauses, if nothing else made it.
const TURN_STEPS: u32 = 16;

/// Gives the other half of a connection, which is the same task's, its turn; or neither would a client that never stops
/// to send be answered, nor one that never stops to read be read.
#[derive(Debug, Default)]
pub(super) struct Turns(u32);

impl Turns {
    /// One step is done.
    pub async fn take(&mut self) {
        self.0 = (self.0 + 1) % TURN_STEPS;
        if self.0 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// When a connection last carried something.
#[derive(Debug)]
pub(super) struct Activity(Mutex<Instant>);

impl Activity {
    pub fn new() -> Activity {
        Activity(Mutex::new(Instant::now()))
    }

    pub fn touch(&self) {
        *self.0.lock().expect("nothing panics while holding it") = Instant::now();
    }

    /// Waits until nothing has been carried for this long.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let until = *self.0.lock().expect("nothing panics while holding it") + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Activity;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_a_limit_after_it_last_carried_something() {
        let activity = Arc::new(Activity::new());
        let begin = Instant::now();
        let touched = Arc::clone(&activity);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(40)).await;
            touched.touch();
        });
        activity.idle(Duration::from_secs(60)).await;
        assert_eq!(begin.elapsed().as_secs(), 100);
    }
}
