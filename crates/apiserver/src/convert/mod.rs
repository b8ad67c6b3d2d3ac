//! Between the version that objects are stored in and the one they are served in: entries, events and whole pages.
//!
//! Goal        everything behind this file sees served objects only, as if they had been stored so
//! Rules
//!   R1 as stored    of a kind that is stored as it is served, and of an object that lies there in the served version,
//!                   nothing is read, copied or waited for
//!   R2 an entry     a converted entry keeps its key and revision, so that selectors, forms and lists need not know
//!   R3 shared       an event is converted once for each version, by the first watcher that needs it, and kept with it
//!   R4 asked        where versions differ by more than their schemas a webhook is asked (`review`), for so many objects at
//!                   a time that neither side has to hold more than a few megabytes
//! Source      `windlass_api::convert`

mod review;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::OnceCell;
use windlass_api::convert::{Stored, name_kind};
use windlass_api::{ApiError, Kind, Resource};
use windlass_store::{Entry, Event, Template};

use crate::server::{Server, header};
use crate::write;

pub(crate) use review::Converter;

/// Versions of one event that are kept with it; a kind serves a few.
const EVENT_VERSIONS_MAX: usize = 8;

/// Objects that are converted together, and their bytes.
const BATCH_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

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
pub(crate) async fn entry(server: &Server, resource: &Resource, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
    match needed(resource, &entry) {
        None => Ok(entry),
        Some(stored) => {
            let mut object = write::tree(&entry);
            to_served(server, resource, stored, &mut [&mut object]).await?;
            Ok(Arc::new(entry.in_form(&write::template(&object)?)))
        }
    }
}

/// Entries as they are served, in their order.
pub(crate) async fn entries(
    server: &Server,
    resource: &Resource,
    mut found: Vec<Arc<Entry>>,
) -> Result<Vec<Arc<Entry>>, ApiError> {
    let Some(stored) = &resource.stored else { return Ok(found) };
    let mut rest = found.as_mut_slice();
    while !rest.is_empty() {
        let (batch, after) = rest.split_at_mut(batch_len(rest));
        let mut trees: Vec<(&mut Arc<Entry>, Value)> = batch
            .iter_mut()
            .filter(|entry| needed(resource, entry).is_some())
            .map(|entry| (write::tree(entry), entry))
            .map(|(tree, entry)| (entry, tree))
            .collect();
        let mut objects: Vec<&mut Value> = trees.iter_mut().map(|(_, tree)| tree).collect();
        to_served(server, resource, stored, &mut objects).await?;
        for (entry, tree) in trees {
            *entry = Arc::new(entry.in_form(&write::template(&tree)?));
        }
        rest = after;
    }
    Ok(found)
}

/// R4: how many of these entries are converted together.
fn batch_len(entries: &[Arc<Entry>]) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take(BATCH_MAX).take_while(|entry| {
        bytes += entry.value().len();
        bytes <= BATCH_BYTES_MAX
    });
    fits.count().max(1)
}

/// R2: objects from the version they were stored in to the one that is served.
async fn to_served(
    server: &Server,
    resource: &Resource,
    stored: &Stored,
    objects: &mut [&mut Value],
) -> Result<(), ApiError> {
    if let Some(rest) = &stored.rest {
        let (at_rest, wanted) = (stored.kind.api_version(), resource.kind.api_version());
        let lying = objects.iter_mut().filter(|object| object["apiVersion"] == at_rest && at_rest != wanted);
        lying.for_each(|object| rest.to_served(object));
        review::convert(server, resource, objects, &wanted).await?;
    }
    for object in objects {
        stored.convert.to_served(object);
        name_kind(object, &resource.kind);
    }
    Ok(())
}

/// An object of one version of a kind in another.
pub(crate) async fn between(
    server: &Server,
    (from, to): (&Resource, &Resource),
    object: &mut Value,
) -> Result<(), ApiError> {
    if object.is_null() || from.kind == to.kind {
        return Ok(());
    }
    if let Some(stored) = from.stored.as_ref().filter(|stored| stored.rest.is_none()) {
        stored.convert.to_stored(object);
        name_kind(object, &stored.kind);
    }
    match &to.stored {
        Some(stored) => to_served(server, to, stored, &mut [object]).await,
        None => {
            name_kind(object, &to.kind);
            Ok(())
        }
    }
}

/// The events of one change, by the resource they are converted for.
#[derive(Default)]
struct Versions(Mutex<Vec<(Arc<Resource>, Version)>>);

/// An event in one version, once somebody has converted it.
type Version = Arc<OnceCell<Arc<Event>>>;

impl Versions {
    fn of(&self, resource: &Arc<Resource>) -> Version {
        // A panic elsewhere leaves a list that is whole: it only ever grows by one.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, version)) = kept.iter().find(|(owner, _)| Arc::ptr_eq(owner, resource)) {
            return version.clone();
        }
        let version = Version::default();
        if kept.len() < EVENT_VERSIONS_MAX {
            kept.push((resource.clone(), version.clone()));
        }
        version
    }
}

/// An event as it is served (R3).
pub(crate) async fn event(
    server: &Server,
    resource: &Arc<Resource>,
    event: Arc<Event>,
) -> Result<Arc<Event>, ApiError> {
    let is_needed = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|entry| needed(resource, entry).is_some());
    if resource.stored.is_none() || !(is_needed(&event.entry) || is_needed(&event.previous)) {
        return Ok(event);
    }
    let version = event.memo(|_| Versions::default()).of(resource);
    let served = version.get_or_try_init(|| served_event(server, resource, &event)).await?;
    Ok(served.clone())
}

async fn served_event(server: &Server, resource: &Resource, event: &Event) -> Result<Arc<Event>, ApiError> {
    let both: Vec<Arc<Entry>> = [&event.entry, &event.previous].into_iter().flatten().cloned().collect();
    let mut served = entries(server, resource, both).await?.into_iter();
    let mut next = |found: &Option<Arc<Entry>>| found.as_ref().and_then(|_| served.next());
    let (entry, previous) = (next(&event.entry), next(&event.previous));
    Ok(Arc::new(event.in_form(entry, previous)))
}

/// The stored form of a served object.
pub(crate) async fn template(server: &Server, resource: &Resource, object: &Value) -> Result<Template, ApiError> {
    let Some(stored) = &resource.stored else { return write::template(object) };
    let mut object = object.clone();
    match &stored.rest {
        None => stored.convert.to_stored(&mut object),
        Some(_) if stored.kind == resource.kind => {}
        Some(rest) => {
            review::convert(server, resource, &mut [&mut object], &stored.kind.api_version()).await?;
            rest.to_served(&mut object);
        }
    }
    name_kind(&mut object, &stored.kind);
    write::template(&object)
}
