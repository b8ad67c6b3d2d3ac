//! List, then watch, then list again when the watch has lost its place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use windlass_api::Object;

use super::key::Key;
use super::{Keep, Progress, Scope, Shared};
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::ClientError;
use crate::options::{ListOptions, WatchOptions};
use crate::watch::WatchEvent;

/// Objects asked for in one page of a list: a few MB of JSON at a time.
const PAGE_ITEMS_MAX: u32 = 500;
/// The server is asked to end each watch after this long (and up to a quarter more), so that watches spread over
/// servers again after one was away.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);
/// A watch without even a bookmark for this long counts as broken.
const WATCH_IDLE: Duration = Duration::from_secs(90);
/// First wait after a failed list or watch.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest wait after failed lists or watches.
const BACKOFF_MOST: Duration = Duration::from_secs(10);

/// Where the reflector is.
enum State {
    /// Nothing is known, or what is known may have gaps: list everything.
    List,
    /// Everything up to this revision is known: watch what comes after.
    Watch(u64),
}

/// Keeps the cache up to date for ever.
pub(super) async fn run(client: Client, scope: Scope, shared: Arc<Shared>) {
    let mut state = State::List;
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MOST);
    loop {
        let outcome = match state {
            State::List => list(&client, &scope, &shared).await,
            State::Watch(revision) => watch(&client, &scope, &shared, revision).await,
        };
        match outcome {
            Ok(Step::Went(next)) => {
                backoff.reset();
                state = next;
            }
            Ok(Step::Idled(next)) => {
                tokio::time::sleep(backoff.next(client.world())).await;
                state = next;
            }
            Err(error) => {
                let kind = shared.kind.qualified_plural();
                let wait = backoff.next(client.world());
                tracing::debug!(%kind, ?wait, error = &error as &dyn std::error::Error, "a list or watch failed");
                if error.is_expired() {
                    state = State::List;
                } else if let State::Watch(_) = state {
                    // Events may have come before the watch broke.
                    state = State::Watch(shared.progress.borrow().revision);
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// How a step ended.
enum Step {
    /// It brought something.
    Went(State),
    /// It ended in order and brought nothing: do not hurry to the next.
    Idled(State),
}

/// Lists everything, page by page.
async fn list(client: &Client, scope: &Scope, shared: &Shared) -> Result<Step, ClientError> {
    let mut options = ListOptions {
        labels: scope.labels.clone(),
        fields: scope.fields.clone(),
        limit: PAGE_ITEMS_MAX,
        continue_from: String::new(),
        linked_only: scope.linked_only,
    };
    let mut seen = BTreeSet::new();
    let mut revision = 0;
    loop {
        let page = client.list(&shared.kind, scope.namespace.as_deref(), &options).await?;
        if revision == 0 {
            // Changes after the first page come again by the watch.
            revision = page.revision;
        }
        {
            let mut store = shared.store.lock().expect("no store operation panics");
            for object in page.items {
                if holds(scope, &object) {
                    seen.insert(Key::of(&object.header));
                    store.put(keep(scope, object));
                }
            }
        }
        if page.continue_from.is_empty() {
            break;
        }
        options.continue_from = page.continue_from;
    }
    shared.store.lock().expect("no store operation panics").retain(&seen, revision);
    shared.progress.send_replace(Progress { synced: true, revision });
    Ok(Step::Went(State::Watch(revision)))
}

/// Watches until the watch ends.
async fn watch(client: &Client, scope: &Scope, shared: &Shared, from: u64) -> Result<Step, ClientError> {
    let options = WatchOptions {
        labels: scope.labels.clone(),
        fields: scope.fields.clone(),
        revision: from,
        timeout: client.world().jitter(WATCH_TIMEOUT),
        idle: WATCH_IDLE,
        linked_only: scope.linked_only,
    };
    let mut watch = client.watch(&shared.kind, scope.namespace.as_deref(), &options).await?;
    let mut revision = from;
    while let Some(event) = watch.next().await? {
        revision = revision.max(take_in(scope, shared, event));
        shared.progress.send_if_modified(|progress| {
            let moved = revision > progress.revision;
            progress.revision = progress.revision.max(revision);
            moved
        });
    }
    if revision > from { Ok(Step::Went(State::Watch(revision))) } else { Ok(Step::Idled(State::Watch(revision))) }
}

/// Takes in one event and gives its revision.
fn take_in(scope: &Scope, shared: &Shared, event: WatchEvent) -> u64 {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) if holds(scope, &object) => {
            let revision = object.header.revision;
            shared.store.lock().expect("no store operation panics").put(keep(scope, object));
            revision
        }
        WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
            let revision = object.header.revision;
            shared.store.lock().expect("no store operation panics").remove(&Key::of(&object.header), revision);
            revision
        }
        WatchEvent::Bookmark(revision) => revision,
    }
}

fn holds(scope: &Scope, object: &Object) -> bool {
    !scope.linked_only || object.header.is_linked()
}

/// An object that is shared with the server costs nothing whole; another is kept as the scope says.
fn keep(scope: &Scope, object: Arc<Object>) -> Arc<Object> {
    match scope.keep {
        Keep::Header if Arc::strong_count(&object) == 1 => Arc::new(object.without_contents()),
        Keep::Digest(digest) if Arc::strong_count(&object) == 1 => Arc::new(digest(&object)),
        Keep::Whole | Keep::Header | Keep::Digest(_) => object,
    }
}
