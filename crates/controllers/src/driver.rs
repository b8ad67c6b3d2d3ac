//! The one driver: runs every controller, and does all that waits.
//!
//! Flow        change → keys, each queued once → view → plan → carried out → look again
//! Guarantees  one pass at a time per key, never on a view older than the key's own last writes · a failed, refused or
//!             panicking pass is planned again after a back-off · a key is not forgotten while its controller runs · a
//!             change whose keys cannot be told without a panic is passed over
//! Assumes     views read caches only, so a pass before its writes costs no waiting

mod execute;
mod metrics;
mod queue;
mod sources;

pub use metrics::{Counters, Metrics};

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;
use windlass_client::{Caches, Client, Key, Recorder};

use crate::controller::{Controller, Look};
use crate::plan::{Left, Plan};
use execute::{Barrier, Execution};
use queue::Queue;
use sources::Sources;

/// Passes of one controller that may run (wait for their writes) at a time.
const PASSES_MAX: usize = 64;
/// First wait after a pass failed.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// Longest wait after failed passes.
const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// How soon a key is looked at again when what stayed of what it deletes is news.
const LEFT_AGAIN: Duration = Duration::from_millis(100);
/// How long a pass waits for our copy to show what the pass before wrote, before it lets others go first.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);

/// What all drivers of a process share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) caches: Caches,
    /// What is written is written in the controller's name.
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) counters: Arc<Counters>,
}

/// What is remembered of a key between its passes.
#[derive(Default)]
struct Memory {
    failures: u32,
    failure: Option<String>,
    left: Option<Vec<Left>>,
    barriers: Vec<Barrier>,
}

/// How a pass over a key ended.
struct Outcome {
    key: Key,
    end: End,
    left: Option<Vec<Left>>,
    barriers: Vec<Barrier>,
}

enum End {
    /// Planned and carried out, or nothing to do. Look again after this long, if at all.
    Done(Option<Duration>),
    /// Somebody else changed an object meanwhile.
    Conflict,
    /// An item was refused or had no answer.
    Failed(String),
    /// The view or the plan panicked: a bug, but only of this key's pass.
    Panicked(String),
    /// Our copy does not show the last writes yet.
    Behind,
}

/// Runs a controller until `shutdown` says true.
pub(crate) async fn drive<C: Controller>(controller: C, shared: Shared, mut shutdown: watch::Receiver<bool>) {
    let mut sources = Sources::new(shared.clone());
    let mut queue = Queue::default();
    let mut memory: BTreeMap<Key, Memory> = BTreeMap::new();
    let mut passes = FuturesUnordered::new();
    loop {
        while sources.drain(&mut queue) || controller.has_new_wakes() {
            sources.follow(controller.wakes(), &mut queue);
        }
        queue.ripen(Instant::now());
        while passes.len() < PASSES_MAX
            && let Some(key) = queue.start()
        {
            let remembered = memory.entry(key.clone()).or_default();
            let barriers = std::mem::take(&mut remembered.barriers);
            let before = (remembered.failure.clone(), remembered.left.clone());
            passes.push(pass(&controller, &shared, key, before, barriers));
        }
        let timer = queue.next_ripe();
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            Some(outcome) = passes.next() => settle::<C>(outcome, &shared, &mut queue, &mut memory),
            (index, notice) = sources.next() => sources.take_in(index, notice, &mut queue),
            () = sleep_until(timer) => {}
        }
    }
}

async fn sleep_until(timer: Option<Instant>) {
    match timer {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// One pass: see, decide, carry out.
async fn pass<C: Controller>(
    controller: &C,
    shared: &Shared,
    key: Key,
    (failure, left): (Option<String>, Option<Vec<Left>>),
    barriers: Vec<Barrier>,
) -> Outcome {
    if !execute::passed(&barriers, BARRIER_TIMEOUT).await {
        return Outcome { key, end: End::Behind, left, barriers };
    }
    let plan = catch_unwind(AssertUnwindSafe(|| {
        let now = shared.caches.client().world().now();
        let look = Look { now, instant: Instant::now(), failure: failure.as_deref(), left: left.as_deref() };
        controller.view(&key, &look).map_or_else(Plan::nothing, |view| C::plan(&view))
    }));
    shared.counters.passes.fetch_add(1, Ordering::Relaxed);
    let plan = match plan {
        Ok(plan) => plan,
        Err(panic) => return Outcome { key, end: End::Panicked(panic_text(&*panic)), left, barriers: Vec::new() },
    };
    let again = plan.again.map(|again| again.after);
    let execution = execute::carry_out(C::NAME, shared, plan.items).await;
    let Execution { barriers, conflict, failure, left } = execution;
    let end = match (failure, conflict) {
        (Some(failure), _) => End::Failed(failure),
        (None, true) => End::Conflict,
        (None, false) => End::Done(again),
    };
    Outcome { key, end, left, barriers }
}

/// The longest wait for a look: what is due later than this, as users may write, is looked at in between.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Remembers how a pass ended and when its key is due again.
fn settle<C: Controller>(outcome: Outcome, shared: &Shared, queue: &mut Queue, memory: &mut BTreeMap<Key, Memory>) {
    let Outcome { key, end, left, barriers } = outcome;
    let wrote = !barriers.is_empty() && !matches!(end, End::Behind);
    queue.finish(&key, wrote, Instant::now());
    let remembered = memory.entry(key.clone()).or_default();
    remembered.barriers = barriers;
    let is_news = left.as_ref().is_some_and(|left| !left.is_empty() && remembered.left.as_ref() != Some(left));
    remembered.left = left;
    let world = shared.caches.client().world();
    let counters = &shared.counters;
    match end {
        End::Done(again) => {
            remembered.failures = 0;
            remembered.failure = None;
            if let Some(after) = again {
                let after = if is_news { after.min(LEFT_AGAIN) } else { after.min(LOOK_AGAIN_MAX) };
                queue.add_later(key.clone(), Instant::now() + after);
            }
            if remembered.barriers.is_empty() && remembered.left.is_none() {
                memory.remove(&key);
            }
            return;
        }
        // Our copy is behind and not the key at fault: nothing is counted against it.
        End::Behind => {
            tracing::warn!(controller = C::NAME, %key, "waiting for the cache to show our last writes");
            queue.add_later(key, Instant::now());
            return;
        }
        End::Conflict => {
            counters.conflicts.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(controller = C::NAME, %key, "somebody else changed an object meanwhile: planning again");
        }
        End::Failed(failure) => {
            counters.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(controller = C::NAME, %key, %failure, "a pass failed: planning again");
            remembered.failure = Some(failure);
        }
        End::Panicked(panic) => {
            counters.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(controller = C::NAME, %key, %panic, "a pass panicked: this is a bug");
            remembered.failure = Some(format!("internal error: {panic}"));
        }
    }
    let doubled = BACKOFF_FIRST.saturating_mul(1 << remembered.failures.min(16)).min(BACKOFF_MOST);
    remembered.failures = remembered.failures.saturating_add(1);
    queue.add_later(key, Instant::now() + world.jitter(doubled));
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests;
