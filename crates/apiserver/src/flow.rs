//! What is under way on one connection: how many answers are, and whether their reader still reads.
//!
//! Rules
//!   C1 idle       a connection on which no answer is under way may end at any time
//!   C2 stalled    an answer of which a piece has been given to the connection, and which is not asked for the next within
//!                 the limit, has a client that does not read (A16): its connection is cut, and what it holds is given back
//!   C3 unhurried  who reads logs may stop and think: such an answer is held for him, and there are only so many of them
//! Not here        an answer that waits for something to tell, such as a watch, is no stalled one

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio::time::Instant;
use windlass_stdx::{Body, BoxError, Response};

/// The answers that are under way on a connection.
pub(crate) struct Flow(Arc<Shared>);

struct Shared {
    under_way: watch::Sender<usize>,
    pieces: Mutex<Pieces>,
}

/// When each answer gave away a piece after which nothing was asked for yet.
#[derive(Default)]
struct Pieces {
    next: u64,
    given: BTreeMap<u64, Instant>,
}

/// Marks a response whose reader may take all the time he wants (C3).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unhurried;

/// An answer is under way until this is dropped.
pub(crate) struct Busy {
    shared: Arc<Shared>,
    id: u64,
}

impl Flow {
    pub fn new() -> Flow {
        Flow(Arc::new(Shared { under_way: watch::Sender::new(0), pieces: Mutex::default() }))
    }

    /// A request has come.
    pub fn begin(&self) -> Busy {
        self.0.under_way.send_modify(|count| *count += 1);
        let mut pieces = self.0.pieces();
        pieces.next += 1;
        Busy { id: pieces.next, shared: Arc::clone(&self.0) }
    }

    /// C1: waits until no answer is under way.
    pub async fn idle(&self) {
        let mut under_way = self.0.under_way.subscribe();
        // The sender is ours, so there is no error to see.
        let _always_there = under_way.wait_for(|count| *count == 0).await;
    }

    /// C2: waits until an answer has stalled for this long.
    pub async fn stalled(&self, limit: Duration) {
        loop {
            let oldest = self.0.pieces().given.values().min().copied();
            match oldest.map(|given| given + limit) {
                Some(at) if at <= Instant::now() => return,
                Some(at) => tokio::time::sleep_until(at).await,
                None => tokio::time::sleep(limit).await,
            }
        }
    }
}

impl Shared {
    fn pieces(&self) -> std::sync::MutexGuard<'_, Pieces> {
        self.pieces.lock().expect("nothing panics while holding the pieces")
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.shared.pieces().given.remove(&self.id);
        self.shared.under_way.send_modify(|count| *count -= 1);
    }
}

impl Busy {
    /// The answer, which is under way until its body has been sent.
    pub fn with(self, response: Response) -> Response {
        let is_unhurried = response.extensions().get::<Unhurried>().is_some();
        response.map(|body| BodyExt::boxed_unsync(Flowing { body, busy: self, is_unhurried }))
    }
}

/// A body that is under way.
struct Flowing {
    body: Body,
    busy: Busy,
    is_unhurried: bool,
}

impl http_body::Body for Flowing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if self.is_unhurried {
            return polled;
        }
        let mut pieces = self.busy.shared.pieces();
        match &polled {
            Poll::Ready(Some(Ok(_))) => pieces.given.insert(self.busy.id, Instant::now()),
            _ => pieces.given.remove(&self.busy.id),
        };
        drop(pieces);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures::FutureExt;
    use http_body_util::BodyExt;
    use windlass_stdx::{Response, body_from};

    use super::{Flow, Unhurried};

    #[tokio::test(start_paused = true)]
    async fn c1_a_connection_is_idle_when_its_answers_have_been_sent() {
        let flow = Flow::new();
        assert!(flow.idle().now_or_never().is_some());
        let response = flow.begin().with(Response::new(body_from("text")));
        assert!(flow.idle().now_or_never().is_none());
        let bytes: Bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        assert_eq!(bytes, "text");
        assert!(flow.idle().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn c2_only_an_answer_that_is_not_asked_for_more_has_stalled() {
        let flow = Flow::new();
        let limit = Duration::from_secs(60);
        let is_stalled =
            async |seconds: u64| tokio::time::timeout(Duration::from_secs(seconds), flow.stalled(limit)).await.is_ok();
        let response = flow.begin().with(Response::new(body_from("text")));
        assert!(!is_stalled(300).await, "nothing was given yet");
        let mut body = response.into_body();
        body.frame().await.expect("a piece").expect("whole");
        assert!(!is_stalled(59).await);
        assert!(is_stalled(121).await);
        drop(body);
        assert!(!is_stalled(300).await);
    }

    #[tokio::test(start_paused = true)]
    async fn c3_who_reads_logs_may_stop_and_think() {
        let flow = Flow::new();
        let mut logs = Response::new(body_from("text"));
        logs.extensions_mut().insert(Unhurried);
        let mut body = flow.begin().with(logs).into_body();
        body.frame().await.expect("a piece").expect("whole");
        let stalled = flow.stalled(Duration::from_secs(60));
        assert!(tokio::time::timeout(Duration::from_secs(3600), stalled).await.is_err());
    }
}
