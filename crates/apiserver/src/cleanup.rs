//! What follows when a definition goes: its objects go first, and its names are free for others.
//!
//! Goal        no object outlives its definition, no definition waits for a name that is free
//! Watches     CustomResourceDefinition
//! Writes      objects of an ending definition's kind: delete · CustomResourceDefinition: cleanup finalizer, status
//!
//! Rules
//!   R1 objects    of an ending definition are deleted; those with finalizers end when their owners let go
//!   R2 last       when none is left the finalizer goes, and with it the definition
//!   R3 names      a definition that was refused a name is looked at again when another one changes
//!   R4 told       whoever watches a custom kind is told of every change of definitions
//! Not here       who may delete a definition, and when one begins to end (`delete`)
//!
//! Source: custom resources guide, "Delete a CustomResourceDefinition"; "Finalizers".

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, Method};
use serde_json::json;
use windlass_api::resources::custom_resource_definition::{CLEANUP_FINALIZER, names};
use windlass_api::{ApiError, Reason, Resource, kinds};
use windlass_store::{Range, Watch};

use crate::audit::Record;
use crate::bootstrap;
use crate::convert;
use crate::definitions::{Known, PREFIX};
use crate::delete::{DeleteOptions, remove};
use crate::failure::read_failed;
use crate::identity::Identity;
use crate::key;
use crate::request::{Query, Target, Verb};
use crate::server::{Call, Server, Warned, header};

/// How long until an ending definition that still has objects is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Objects looked at in one go.
const SWEEP_PAGE: usize = 500;

/// Goes on until the server is gone or closes. Holds the server only while it works.
pub(crate) async fn run(server: Weak<Server>) {
    let mut changes: Option<Watch> = None;
    loop {
        let Some(now) = server.upgrade() else { return };
        if changes.is_none() {
            changes = now.store.watch(PREFIX, now.store.revision()).ok();
        }
        let is_waiting = pass(&now).await;
        let mut closing = now.closing.subscribe();
        drop(now);
        let Some(events) = &mut changes else {
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        };
        let is_lost = tokio::select! {
            biased;
            // An error means that the server itself is gone.
            _ = closing.wait_for(|closing| *closing) => return,
            event = events.next() => event.is_err(),
            () = tokio::time::sleep(LOOK_AGAIN), if is_waiting => false,
        };
        if is_lost {
            changes = None;
        }
        if let Some(now) = server.upgrade() {
            now.definitions_changed.send_replace(()); // R4.
        }
    }
}

/// Looks at every definition once; whether one of them must be looked at again soon.
async fn pass(server: &Arc<Server>) -> bool {
    let mut is_waiting = false;
    for known in server.known_definitions() {
        let done = match known.is_ending {
            true => empty(server, &known).await,
            false => settle(server, &known).await.map(|()| true),
        };
        match done {
            Ok(done) => is_waiting |= !done,
            Err(error) => {
                tracing::debug!(definition = %known.name, %error, "trying again");
                is_waiting = true;
            }
        }
    }
    is_waiting
}

/// R3.
async fn settle(server: &Arc<Server>, known: &Known) -> Result<(), ApiError> {
    let group = known.outline["spec"]["group"].as_str().unwrap_or_default();
    let taken = server.taken_names(group, &known.name);
    let status = names::decide(&known.outline, &taken, &server.world.now_rfc3339());
    if status == known.outline["status"] {
        return Ok(());
    }
    let path = format!("{}/status", path(known));
    let patch = json!({"metadata": {"resourceVersion": known.revision.to_string()}, "status": status});
    patched(bootstrap::call(server, Method::PATCH, &path, "application/merge-patch+json", &patch).await)
}

/// R1 and R2; whether the definition is gone.
async fn empty(server: &Arc<Server>, known: &Known) -> Result<bool, ApiError> {
    let finalizers = known.outline["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER) {
        return Ok(true);
    }
    if let Some(row) = server.served().storage_row(known)
        && delete_all(server, Arc::new(row)).await? > 0
    {
        return Ok(false);
    }
    let left: Vec<_> = finalizers.into_iter().filter(|finalizer| finalizer != CLEANUP_FINALIZER).collect();
    let metadata = json!({"finalizers": left, "resourceVersion": known.revision.to_string()});
    let patch = json!({"metadata": metadata});
    patched(bootstrap::call(server, Method::PATCH, &path(known), "application/merge-patch+json", &patch).await)?;
    Ok(true)
}

fn path(known: &Known) -> String {
    kinds::CUSTOM_RESOURCE_DEFINITION.object_path("", &known.name)
}

/// Somebody else changed it meanwhile: the change wakes us.
fn patched(done: Result<(), ApiError>) -> Result<(), ApiError> {
    match done {
        Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => Ok(()),
        done => done,
    }
}

/// R1; how many there are still.
async fn delete_all(server: &Arc<Server>, resource: Arc<Resource>) -> Result<u64, ApiError> {
    let prefix = key::prefix(convert::stored_kind(&resource), "");
    let mut range = Range { prefix: prefix.clone(), limit: SWEEP_PAGE, ..Range::default() };
    let (who, query, headers) = (Identity::part("definitions"), Query::default(), HeaderMap::new());
    loop {
        let page = server.store.range(&range).map_err(read_failed)?;
        for entry in &page.entries {
            let found = header(entry);
            if found.is_ending() {
                continue;
            }
            let target = Target {
                resource: resource.clone(),
                verb: Verb::Delete,
                namespace: found.namespace().to_owned(),
                name: found.name().to_owned(),
                sub: None,
            };
            let warned = Warned::default();
            let record = Record::off();
            let call = Call {
                server,
                who: &who,
                target: &target,
                query: &query,
                headers: &headers,
                warned: &warned,
                record: &record,
            };
            match remove(call, found.name(), &DeleteOptions::default()).await {
                Ok(_) => {}
                Err(error) if error.reason == Reason::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let last = page.entries.last().map(|entry| entry.key().to_owned());
        if page.remaining == 0 || last.is_none() {
            break;
        }
        range.after = last;
        range.at = None;
        tokio::task::yield_now().await;
    }
    let left = server.store.range(&Range { prefix, limit: 1, ..Range::default() }).map_err(read_failed)?;
    Ok(left.entries.len() as u64 + left.remaining)
}
