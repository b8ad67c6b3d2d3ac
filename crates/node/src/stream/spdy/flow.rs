//! Flow: what the two halves of a connection and its streams share: windows, credits, ends.
//!
//! Rules
//!   R1 sending    a client's windows are honoured once it has shown that it has any. The SPDY client of Kubernetes' own
//!                 tools never says so and never opens a window again; the connection's own back-pressure is what it has
//!   R2 receiving  a client gets its credit back when the session has taken the bytes; one that sends more than fits makes
//!                 the whole connection wait
//!   R3 ends       a stream is forgotten when both sides have ended it, or either has reset it; one that we let go of
//!                 without having ended it is reset
//!   R4 flood      control frames that a client makes us write and does not read are bounded

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::frame::{Control, WINDOW_MAX};
use super::headers::Headers;
use crate::stream::channel::{Activity, Chunk, Gone};

/// Streams of one connection that are open at a time: 500 forwarded connections.
pub(in crate::stream) const STREAMS_MAX: usize = 1000;
/// Control frames that wait to be written.
const CONTROL_MAX: usize = 4096;
/// Bytes of one connection that wait to be read by its sessions.
const RECEIVED_BYTES_MAX: usize = 4 << 20;
/// A window before anyone has said otherwise.
const WINDOW_BYTES: i64 = 64 << 10;
/// Credit is given back in pieces of at least this size.
const CREDIT_BYTES: u32 = 16 << 10;
/// Status codes of RST_STREAM.
const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;

/// A control frame to be written; headers are compressed only then, because their order counts.
#[derive(Debug)]
pub(super) enum Order {
    Reply { stream: u32, headers: Headers },
    Open { stream: u32, headers: Headers },
    Frame(Control),
}

/// What all parts of one connection share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// A window grew or a stream ended.
    changed: Notify,
    /// Control frames wait.
    ordered: Notify,
    /// Room for what is received.
    room: Arc<Semaphore>,
    pub activity: Activity,
    gone: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<u32, StreamState>,
    orders: VecDeque<Order>,
    is_flooded: bool,
    is_over: bool,
    has_windows: bool,
    send_window: i64,
    initial_window: i64,
    taken: u32,
    last_stream: u32,
}

#[derive(Debug)]
struct StreamState {
    /// Where its bytes go; none after its end, or when nobody wants them.
    inbound: Option<mpsc::Sender<Chunk>>,
    send_window: i64,
    taken: u32,
    ours: Side,
    /// The client has ended its side.
    ended_by_client: bool,
    is_reset: bool,
    /// Nobody of us holds it any more.
    is_released: bool,
}

/// Our side of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Open,
    /// Its last frame waits to be written.
    Ending,
    Ended,
}

impl StreamState {
    fn is_finished(&self) -> bool {
        self.is_reset || (self.ours == Side::Ended && self.ended_by_client)
    }
}

impl Shared {
    pub fn new(gone: watch::Sender<bool>) -> Shared {
        let state = State { send_window: WINDOW_BYTES, initial_window: WINDOW_BYTES, ..State::default() };
        Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
            ordered: Notify::new(),
            room: Arc::new(Semaphore::new(RECEIVED_BYTES_MAX)),
            activity: Activity::new(),
            gone,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }

    /// Begins a stream of the client's; its bytes go to `inbound`. `None` when it is refused (too many).
    ///
    /// An error is a stream the client may not open.
    pub fn open(
        self: &Arc<Shared>,
        stream: u32,
        inbound: Option<mpsc::Sender<Chunk>>,
        is_one_way: bool,
    ) -> Result<Option<Arc<Lease>>, &'static str> {
        let mut state = self.state();
        if stream.is_multiple_of(2) || stream <= state.last_stream {
            return Err("a stream is numbered out of order");
        }
        state.last_stream = stream;
        if state.streams.len() >= STREAMS_MAX {
            state.order(Order::Frame(Control::Reset { stream, status: REFUSED_STREAM }));
            self.ordered.notify_one();
            return Ok(None);
        }
        let begun = StreamState {
            ended_by_client: inbound.is_none(),
            inbound,
            send_window: state.initial_window,
            taken: 0,
            ours: if is_one_way { Side::Ended } else { Side::Open },
            is_reset: false,
            is_released: false,
        };
        state.streams.insert(stream, begun);
        if !is_one_way {
            state.order(Order::Reply { stream, headers: Headers::new() });
            self.ordered.notify_one();
        }
        Ok(Some(Arc::new(Lease { shared: Arc::clone(self), stream })))
    }

    /// Begins a stream of ours, towards a server; what comes by it goes to `inbound`. `None` when the connection is over.
    pub fn dial(self: &Arc<Shared>, headers: Headers, inbound: mpsc::Sender<Chunk>) -> Option<(u32, Arc<Lease>)> {
        let mut state = self.state();
        if state.is_over || state.streams.len() >= STREAMS_MAX {
            return None;
        }
        let stream = if state.last_stream == 0 { 1 } else { state.last_stream + 2 };
        state.last_stream = stream;
        let begun = StreamState {
            ended_by_client: false,
            inbound: Some(inbound),
            send_window: state.initial_window,
            taken: 0,
            ours: Side::Open,
            is_reset: false,
            is_released: false,
        };
        state.streams.insert(stream, begun);
        state.order(Order::Open { stream, headers });
        self.ordered.notify_one();
        drop(state);
        Some((stream, Arc::new(Lease { shared: Arc::clone(self), stream })))
    }

    /// Where a stream's bytes go.
    pub fn inbound(&self, stream: u32) -> Option<mpsc::Sender<Chunk>> {
        self.state().streams.get(&stream).and_then(|stream| stream.inbound.clone())
    }

    /// Waits for room for received bytes. R2.
    pub async fn credit(self: &Arc<Shared>, stream: u32, bytes: u32) -> Credit {
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let room = room.expect("the semaphore is never closed");
        Credit { shared: Arc::clone(self), stream, bytes, _room: room }
    }

    /// The client has ended its side of a stream.
    pub fn ended_by_client(&self, stream: u32) {
        let mut state = self.state();
        if let Some(found) = state.streams.get_mut(&stream) {
            (found.inbound, found.ended_by_client) = (None, true);
            state.forget_finished(stream);
        }
    }

    /// The client has reset a stream.
    pub fn reset_by_client(&self, stream: u32) {
        let mut state = self.state();
        if let Some(found) = state.streams.get_mut(&stream) {
            (found.inbound, found.is_reset) = (None, true);
            state.forget_finished(stream);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The client lets us send more. R1.
    pub fn widen(&self, stream: u32, delta: u32) {
        let mut state = self.state();
        state.has_windows = true;
        let window = match stream {
            0 => Some(&mut state.send_window),
            stream => state.streams.get_mut(&stream).map(|found| &mut found.send_window),
        };
        if let Some(window) = window {
            *window = (*window + i64::from(delta)).min(WINDOW_MAX);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The client names the window of each stream. R1.
    pub fn set_initial_window(&self, bytes: u32) {
        let mut state = self.state();
        let delta = i64::from(bytes) - state.initial_window;
        (state.has_windows, state.initial_window) = (true, i64::from(bytes));
        for stream in state.streams.values_mut() {
            stream.send_window = (stream.send_window + delta).min(WINDOW_MAX);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Has a control frame written.
    pub fn order(&self, control: Control) {
        self.state().order(Order::Frame(control));
        self.ordered.notify_one();
    }

    /// The control frames that wait.
    pub fn take_orders(&self) -> VecDeque<Order> {
        std::mem::take(&mut self.state().orders)
    }

    /// Whether the client makes us write more control frames than it reads. R4.
    pub fn is_flooded(&self) -> bool {
        self.state().is_flooded
    }

    /// Waits until control frames may wait.
    pub async fn ordered(&self) {
        self.ordered.notified().await;
    }

    /// Whether bytes for this stream are still to be written.
    pub fn is_writable(&self, stream: u32) -> bool {
        self.state().streams.get(&stream).is_some_and(|found| !found.is_reset)
    }

    /// The end of our side has been written.
    pub fn ended(&self, stream: u32) {
        let mut state = self.state();
        if let Some(found) = state.streams.get_mut(&stream) {
            found.ours = Side::Ended;
            state.forget_finished(stream);
        }
    }

    pub fn last_stream(&self) -> u32 {
        self.state().last_stream
    }

    /// The connection is over: everyone who reads or writes learns it.
    pub fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.streams.clear();
        state.orders.clear();
        drop(state);
        self.gone.send_replace(true);
        self.changed.notify_waiters();
    }
}

impl State {
    fn order(&mut self, order: Order) {
        match self.orders.len() < CONTROL_MAX {
            true => self.orders.push_back(order),
            false => self.is_flooded = true,
        }
    }

    /// R3. It is kept while someone of us holds it, so that they learn how it ended.
    fn forget_finished(&mut self, stream: u32) {
        if self.streams.get(&stream).is_some_and(|found| found.is_released && found.is_finished()) {
            self.streams.remove(&stream);
        }
    }
}

/// A stream as its reader and writer hold it. R3.
#[derive(Debug)]
pub(in crate::stream) struct Lease {
    shared: Arc<Shared>,
    stream: u32,
}

impl Lease {
    /// Waits until some of `wanted` bytes may be sent, and how many. They must be sent then. R1.
    pub async fn reserve(&self, wanted: usize) -> Result<usize, Gone> {
        self.when_changed(|state| {
            let (has_windows, whole) = (state.has_windows, state.send_window);
            let found = state.streams.get_mut(&self.stream).filter(|found| !found.is_reset && found.ours == Side::Open);
            let Some(found) = found else { return Some(Err(Gone)) };
            let window = usize::try_from(found.send_window.min(whole)).unwrap_or(0);
            let count = if has_windows { wanted.min(window) } else { wanted };
            if count == 0 {
                return None;
            }
            found.send_window -= count as i64;
            state.send_window -= count as i64;
            Some(Ok(count))
        })
        .await
    }

    /// Waits until the client has reset the stream or is gone.
    pub async fn gone(&self) {
        let is_gone = |state: &mut State| state.streams.get(&self.stream).is_none_or(|found| found.is_reset);
        self.when_changed(|state| is_gone(state).then_some(())).await;
    }

    /// We end our side; its last frame follows.
    pub fn finish(&self) -> Result<(), Gone> {
        let mut state = self.shared.state();
        let found = state.streams.get_mut(&self.stream).filter(|found| !found.is_reset && found.ours == Side::Open);
        found.map(|found| found.ours = Side::Ending).ok_or(Gone)
    }

    async fn when_changed<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let seen = look(&mut self.shared.state());
            match seen {
                Some(seen) => return seen,
                None => changed.await,
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let Some(found) = state.streams.get_mut(&self.stream) else { return };
        found.is_released = true;
        found.inbound = None;
        if found.is_finished() {
            state.forget_finished(self.stream);
        } else if found.ours == Side::Open {
            state.streams.remove(&self.stream);
            state.order(Order::Frame(Control::Reset { stream: self.stream, status: CANCEL }));
            self.shared.ordered.notify_one();
        }
    }
}

/// Received bytes that are not taken yet. Dropping it gives the client its credit back. R2.
#[derive(Debug)]
pub(in crate::stream) struct Credit {
    shared: Arc<Shared>,
    stream: u32,
    bytes: u32,
    _room: OwnedSemaphorePermit,
}

impl Drop for Credit {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if state.is_over {
            return;
        }
        let stream = self.stream;
        let due = |taken: &mut u32| {
            *taken += self.bytes;
            (*taken >= CREDIT_BYTES).then(|| std::mem::take(taken))
        };
        if let Some(delta) = due(&mut state.taken) {
            state.order(Order::Frame(Control::WindowUpdate { stream: 0, delta }));
        }
        let found = state.streams.get_mut(&stream).filter(|found| found.inbound.is_some());
        if let Some(delta) = found.and_then(|found| due(&mut found.taken)) {
            state.order(Order::Frame(Control::WindowUpdate { stream, delta }));
        }
        self.shared.ordered.notify_one();
    }
}
