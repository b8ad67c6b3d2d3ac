//! Between the version that objects are stored in and the one they are served in: entries, events and whole pages.
//!
//! Goal        everything behind this file sees served objects only, as if they had been stored so
//! Rules
//!   R1 as stored    of a kind that is stored as it is served, and of an object that lies there in the served version,
//!                   nothing is read, copied or waited for
//!   R2 an entry     a converted entry keeps its key and revision, so that selectors, forms and lists need not know
//!   R3 shared       an event is converted once for each version, by the first watcher that needs it, and kept with it
//! Source      `windlass_api::convert`

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use windlass_api::convert::{Stored, name_kind};
use windlass_api::{ApiError, Kind, Resource};
use windlass_store::{Entry, Event, Template};

use crate::server::header;
use crate::write;

/// Versions of one event that are kept with it; a kind serves a few.
const EVENT_VERSIONS_MAX: usize = 8;

/// The kind whose keys the objects of a resource lie under.
pub(crate) fn stored_kind(resource: &Resource) -> &Kind {
    resource.stored.as_ref().map_or(&resource.kind, |stored| &stored.kind)
}

/// Whether the entry lies in the store in the version that would be written today.
pub(crate) fn lies_as_stored(resource: &Resource, entry: &Entry) -> bool {
    resource.stored.as_ref().is_none_or(|stored| header(entry).api_version() == stored.kind.api_version())
}

/// How to convert this entry; `None` where it is served as it lies there (R1).
fn needed<'a>(resource: &'a Resource, entry: &Entry) -> Option<&'a Stored> {
    let stored = resource.stored.as_ref()?;
    let is_older = entry.revision < stored.current_since;
    (is_older || header(entry).api_version() != resource.kind.api_version()).then_some(stored)
}

/// An entry as it is served.
pub(crate) async fn entry(resource: &Resource, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
    match needed(resource, &entry) {
        None => Ok(entry),
        Some(stored) => Ok(Arc::new(converted(resource, stored, &entry)?)),
    }
}

/// Entries as they are served, in their order.
pub(crate) async fn entries(resource: &Resource, found: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, ApiError> {
    if resource.stored.is_none() {
        return Ok(found);
    }
    let mut served = Vec::with_capacity(found.len());
    for found in found {
        served.push(entry(resource, found).await?);
    }
    Ok(served)
}

/// R2.
fn converted(resource: &Resource, stored: &Stored, entry: &Entry) -> Result<Entry, ApiError> {
    let mut object = write::tree(entry);
    stored.convert.to_served(&mut object);
    name_kind(&mut object, &resource.kind);
    Ok(entry.in_form(&write::template(&object)?))
}

/// The events of one change, by the resource they were converted for.
#[derive(Default)]
struct Versions(Mutex<Vec<(Arc<Resource>, Arc<Event>)>>);

/// An event as it is served (R3).
pub(crate) async fn event(resource: &Arc<Resource>, event: Arc<Event>) -> Result<Arc<Event>, ApiError> {
    let is_needed = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|entry| needed(resource, entry).is_some());
    if resource.stored.is_none() || !(is_needed(&event.entry) || is_needed(&event.previous)) {
        return Ok(event);
    }
    let versions = event.memo(|_| Versions::default());
    // A panic elsewhere leaves a list that is whole: it only ever grows by one.
    let kept = || versions.0.lock().unwrap_or_else(PoisonError::into_inner);
    let known = kept().iter().find(|(owner, _)| Arc::ptr_eq(owner, resource)).map(|(_, event)| event.clone());
    if let Some(known) = known {
        return Ok(known);
    }
    let served = Arc::new(event.in_form(one(resource, &event.entry).await?, one(resource, &event.previous).await?));
    let mut kept = kept();
    if let Some((_, first)) = kept.iter().find(|(owner, _)| Arc::ptr_eq(owner, resource)) {
        return Ok(first.clone());
    }
    if kept.len() < EVENT_VERSIONS_MAX {
        kept.push((resource.clone(), served.clone()));
    }
    Ok(served)
}

async fn one(resource: &Resource, found: &Option<Arc<Entry>>) -> Result<Option<Arc<Entry>>, ApiError> {
    match found {
        Some(found) => Ok(Some(entry(resource, found.clone()).await?)),
        None => Ok(None),
    }
}

/// The stored form of a served object.
pub(crate) async fn template(resource: &Resource, object: &Value) -> Result<Template, ApiError> {
    let Some(stored) = &resource.stored else { return write::template(object) };
    let mut object = object.clone();
    stored.convert.to_stored(&mut object);
    name_kind(&mut object, &stored.kind);
    write::template(&object)
}
