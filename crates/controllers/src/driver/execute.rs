//! Carries out a plan's items, tells people, and says what our copy must show before the next plan.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use windlass_api::{Kind, Object, Reason, kinds};
use windlass_client::{Cache, Client, ClientError, DeleteOptions, EventKind, Key, ListOptions, Note, Propagation};

use super::Shared;
use crate::plan::{Action, Guard, Item, Left, Target};

/// Items of one burst that are under way at a time. A burst begins with one and doubles as long as all succeed, so
/// that a thing that is refused (a full quota) is refused once and not a hundred times.
const BURST_PARALLEL_MAX: usize = 64;
/// Objects deleted at a time by one `DeleteAll`.
const DELETE_ALL_PAGE: u32 = 500;

/// What our copy must show before the key is planned again: the key's own last writes.
#[derive(Debug, Clone)]
pub(super) enum Barrier {
    /// The copy has come as far as this write.
    Seen(Cached, u64),
    /// The object with this uid is gone or ending.
    Ended(Cached, Key, String),
}

/// A cache in a barrier.
#[derive(Clone)]
pub(super) struct Cached(Cache);

impl std::fmt::Debug for Cached {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "cache of {}", self.0.kind().plural)
    }
}

/// Whether all barriers are passed before the timeout.
pub(super) async fn passed(barriers: &[Barrier], timeout: Duration) -> bool {
    let all = async {
        for barrier in barriers {
            match barrier {
                Barrier::Seen(cache, revision) => cache.0.caught_up(*revision).await,
                Barrier::Ended(cache, key, uid) => {
                    let ended = |found: Option<&windlass_client::Cached>| {
                        found.is_none_or(|object| object.header.uid() != *uid || object.header.is_ending())
                    };
                    cache.0.until(key.as_str(), ended).await;
                }
            }
        }
    };
    tokio::time::timeout(timeout, all).await.is_ok()
}

/// What became of a plan's items.
#[derive(Default)]
pub(super) struct Execution {
    pub(super) barriers: Vec<Barrier>,
    /// An item found its object changed: the items after it were left out.
    pub(super) conflict: bool,
    /// Why the first failed item failed.
    pub(super) failure: Option<String>,
    /// What stayed of the kinds of which all was deleted; `None` if nothing was asked for.
    pub(super) left: Option<Vec<Left>>,
}

/// What a single item came to.
enum Done {
    /// Written; this is the object now.
    Written(Box<Object>),
    /// The object is on its way out.
    Ended,
    /// The namespace takes nothing any more.
    Late,
    /// All objects of a kind that could go went.
    Emptied(Left),
    /// There was nothing to do, or what was done is not in any cache.
    Nothing,
}

/// Carries out the items in order. A refused item does not keep the others from being tried; a conflict does, because
/// then the plan was made on an old view.
pub(super) async fn carry_out(controller: &'static str, shared: &Shared, items: Vec<Item>) -> Execution {
    let mut execution = Execution::default();
    let mut items = items.into_iter().peekable();
    while let Some(item) = items.next() {
        let mut burst = vec![item];
        while let Some(next) = items.next_if(|next| same_burst(&burst[0].action, &next.action)) {
            burst.push(next);
        }
        run_burst(controller, shared, burst, &mut execution).await;
        if execution.conflict {
            return execution;
        }
    }
    execution
}

fn same_burst(first: &Action, next: &Action) -> bool {
    match (first, next) {
        (Action::Create { kind, .. }, Action::Create { kind: next, .. }) => kind == next,
        (Action::Delete { target, .. }, Action::Delete { target: next, .. }) => target.kind == next.kind,
        _ => false,
    }
}

async fn run_burst(controller: &'static str, shared: &Shared, burst: Vec<Item>, execution: &mut Execution) {
    let mut parallel = 1;
    let mut rest = burst.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(parallel.min(rest.len()));
        let mut runs = Vec::with_capacity(now.len());
        for item in now {
            runs.push(run(shared, item));
        }
        let results = join_all(runs).await;
        let mut all_worked = true;
        for (item, result) in now.iter().zip(results) {
            all_worked &= note_result(controller, shared, item, result, execution);
        }
        if !all_worked {
            return;
        }
        parallel = (parallel * 2).min(BURST_PARALLEL_MAX);
        rest = later;
    }
}

/// Logs, counts and tells one item's result; `true` when it worked.
fn note_result(
    controller: &'static str,
    shared: &Shared,
    item: &Item,
    result: Result<Done, ClientError>,
    execution: &mut Execution,
) -> bool {
    match result {
        // The guard did not hold: nothing was done, so nothing is told.
        Ok(Done::Nothing) if item.guard.is_some() => true,
        Ok(Done::Late) => {
            tracing::debug!(controller, action = %item.action, "its namespace is ending: left out");
            false
        }
        Ok(Done::Emptied(left)) => {
            let all = execution.left.get_or_insert_default();
            all.extend(Some(left).filter(|left| left.count > 0));
            true
        }
        Ok(done) => {
            shared.counters.items.fetch_add(1, Ordering::Relaxed);
            let name = match &done {
                Done::Written(object) => object.header.name(),
                Done::Ended | Done::Emptied(_) | Done::Late | Done::Nothing => "",
            };
            let why = item.why.replace("{name}", name);
            tracing::info!(controller, action = %item.action, %why, "carried out");
            tell(shared, item, why);
            execution.barriers.extend(barrier(shared, &item.action, &done));
            true
        }
        // It went before us, or it is there already: the next view will show it.
        Err(error) if error.is_conflict() || error.is_not_found() => {
            execution.conflict = true;
            false
        }
        Err(error) => {
            let failure = format!("{}: {}", item.action, with_sources(&error));
            tell_failure(shared, item, &error);
            execution.failure.get_or_insert(failure);
            false
        }
    }
}

fn with_sources(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn tell(shared: &Shared, item: &Item, why: String) {
    if let Some(event) = &item.event
        && let Some(reason) = event.reason
    {
        let (about, reason) = (event.about.clone(), reason.to_owned());
        shared.recorder.note(Note { about, kind: event.kind, reason, message: why });
    }
}

fn tell_failure(shared: &Shared, item: &Item, error: &ClientError) {
    if let Some(event) = &item.event
        && let Some(reason) = event.failed_reason
    {
        let verb = match item.action {
            Action::Create { .. } => "creating",
            Action::Patch { .. } | Action::Finalize { .. } | Action::Tell => "updating",
            Action::Delete { .. } | Action::DeleteAll { .. } => "deleting",
        };
        let message = format!("Error {verb}: {error}");
        let (about, reason) = (event.about.clone(), reason.to_owned());
        shared.recorder.note(Note { about, kind: EventKind::Warning, reason, message });
    }
}

fn barrier(shared: &Shared, action: &Action, done: &Done) -> Option<Barrier> {
    let kind = match action {
        Action::Create { kind, .. } => kind,
        Action::Patch { target, .. } | Action::Delete { target, .. } => &target.kind,
        // What goes by these is waited for by the next plan, which looks at what is left.
        Action::DeleteAll { .. } | Action::Finalize { .. } | Action::Tell => return None,
    };
    let cache = Cached(shared.caches.find(kind)?);
    match (done, action) {
        (Done::Written(object), _) => Some(Barrier::Seen(cache, object.header.revision)),
        (Done::Ended, Action::Delete { target, .. }) => {
            Some(Barrier::Ended(cache, target.key.clone(), target.uid.clone()))
        }
        (Done::Ended | Done::Emptied(_) | Done::Late | Done::Nothing, _) => None,
    }
}

async fn run(shared: &Shared, item: &Item) -> Result<Done, ClientError> {
    let client = &shared.client;
    if let Some(guard) = &item.guard
        && !holds(client, guard).await?
    {
        return Ok(Done::Nothing);
    }
    match &item.action {
        Action::Create { kind, namespace, object } => match client.create(kind, namespace, object).await {
            Ok(created) => Ok(Done::Written(Box::new(created))),
            // Its maker goes with the namespace soon.
            Err(error) if is_namespace_ending(&error) => Ok(Done::Late),
            Err(error) => Err(error),
        },
        Action::Patch { target, patch, subresource } => {
            let (namespace, name) = (target.key.namespace(), target.key.name());
            let patched = client.patch(&target.kind, namespace, name, patch, *subresource).await?;
            Ok(Done::Written(Box::new(patched)))
        }
        Action::Delete { target, options } => delete(client, target, options).await,
        Action::DeleteAll { kind, namespace } => delete_all(shared, kind, namespace).await.map(Done::Emptied),
        Action::Finalize { namespace } => finalize(client, namespace).await,
        Action::Tell => Ok(Done::Nothing),
    }
}

/// Deletes what the namespace has of a kind, page by page, and gives what stays.
async fn delete_all(shared: &Shared, kind: &Kind, namespace: &str) -> Result<Left, ClientError> {
    let mut left = Left::of(kind);
    let mut options = ListOptions { limit: DELETE_ALL_PAGE, ..ListOptions::default() };
    loop {
        let page = shared.client.list(kind, Some(namespace), &options).await?;
        for objects in page.items.chunks(BURST_PARALLEL_MAX) {
            // What ends already is only waited for: there may be very much of it, and this comes again and again.
            let (ending, others): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object.header.is_ending());
            ending.iter().for_each(|object| left.count(&object.header));
            let deletes: Vec<_> = others.iter().map(|object| end(&shared.client, kind, object)).collect();
            for stayed in join_all(deletes).await {
                if let Some(object) = stayed? {
                    left.count(&object.header);
                }
            }
        }
        let deleted = page.items.len();
        if deleted > 0 {
            shared.counters.items.fetch_add(deleted as u64, Ordering::Relaxed);
            tracing::info!(kind = %kind.plural, namespace, deleted, left = left.count, "deleted all of a kind");
        }
        if page.continue_from.is_empty() {
            return Ok(left);
        }
        options.continue_from = page.continue_from;
    }
}

/// Deletes an object; `Some` if it stays for now.
async fn end(client: &Client, kind: &Kind, object: &Object) -> Result<Option<Object>, ClientError> {
    let header = &object.header;
    let options = DeleteOptions::of_uid(header.uid()).propagate(Propagation::Background);
    match client.delete(kind, header.namespace(), header.name(), &options).await {
        Ok(shown) => Ok(shown.filter(|shown| shown.header.is_ending())),
        // It is gone, or a namesake is in its place, which the next pass sees.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes an object; one that is gone, or has a namesake in its place, counts as deleted.
async fn delete(client: &Client, target: &Target, options: &DeleteOptions) -> Result<Done, ClientError> {
    match client.delete(&target.kind, target.key.namespace(), target.key.name(), options).await {
        Ok(_) => Ok(Done::Ended),
        Err(error) if error.is_not_found() => Ok(Done::Ended),
        Err(error) => Err(error),
    }
}

async fn finalize(client: &Client, namespace: &Value) -> Result<Done, ClientError> {
    let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
    match client.update_sub(&kinds::NAMESPACE, "", name, "finalize", namespace).await {
        Ok(_) => Ok(Done::Nothing),
        Err(error) if error.is_not_found() => Ok(Done::Nothing),
        Err(error) => Err(error),
    }
}

fn is_namespace_ending(error: &ClientError) -> bool {
    let ClientError::Api(refusal) = error else { return false };
    refusal.reason == Reason::Forbidden
        && refusal.details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Whether the guard holds in the API itself.
async fn holds(client: &Client, guard: &Guard) -> Result<bool, ClientError> {
    match guard {
        Guard::Absent(targets) => {
            for target in targets {
                let found = client.get(&target.kind, target.key.namespace(), target.key.name()).await?;
                if found.is_some_and(|object| target.uid.is_empty() || object.header.uid() == target.uid) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Guard::Empty(namespace, kinds) => {
            let options = ListOptions { limit: 1, ..ListOptions::default() };
            for kind in kinds {
                if !client.list(kind, Some(namespace), &options).await?.items.is_empty() {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}
