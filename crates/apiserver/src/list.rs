//! `list`: many objects as of one revision, filtered and in pages.
//!
//! Rules
//!   R1 newest       without `resourceVersion` everything acknowledged before the request is seen
//!   R2 at least     with one, what is shown is at least that new: the list waits a little for a revision that is not
//!                   there yet, then says 504; `0` waits for nothing
//!   R3 exact        `resourceVersionMatch=Exact` shows that revision, or 410 when it is compacted
//!   R4 pages        `limit` cuts after that many matches; `continue` goes on at the same revision (see `page`)
//!
//! Source: API concepts, "The resourceVersion parameter", "Retrieving large results sets in chunks".

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use windlass_api::{ApiError, Reason};
use windlass_store::{Entry, Page, Range, ReadError, Revision};

use crate::answer::{Answer, Payload};
use crate::config::FUTURE_REVISION_WAIT;
use crate::convert;
use crate::failure::{commit_failed, later, read_failed};
use crate::page::Position;
use crate::request::{Query, short};
use crate::select::Selection;
use crate::server::{Call, Server};

/// Entries looked at in one read of the store while a selector leaves some out.
const SCAN_PAGE: usize = 1000;

pub(crate) async fn list(call: Call<'_>) -> Result<Answer, ApiError> {
    let found = collect(call).await?;
    let mut metadata = json!({"resourceVersion": found.revision.to_string()});
    if let Some(token) = found.next {
        metadata["continue"] = Value::String(token);
        if let Some(remaining) = found.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    let payload = Payload::List { entries: found.entries, metadata };
    Ok(Answer { code: StatusCode::OK, payload, warnings: Vec::new() })
}

/// What a list found.
pub(crate) struct Found {
    pub entries: Vec<Arc<Entry>>,
    pub revision: Revision,
    /// The token of the next page, if there is one.
    next: Option<String>,
    remaining: Option<u64>,
}

/// The objects that a collection request names.
pub(crate) async fn collect(call: Call<'_>) -> Result<Found, ApiError> {
    let Call { server, target, query, .. } = call;
    let selection = Selection::parse(target, query)?;
    let limit = limit(query)?;
    let scope_texts = scope(call);
    let scope: Vec<&str> = scope_texts.iter().map(String::as_str).collect();
    let prefix = selection.prefix(target);
    let (at, after) = match query.get("continue") {
        Some(token) => {
            if query.get("resourceVersion").is_some_and(|revision| revision != "0") {
                return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
            }
            let position = server.page_key.open(&scope, token)?;
            (Some(position.revision), Some(position.after))
        }
        None => (revision_to_show(server, query).await?, None),
    };
    let mut range = Range { prefix, after, limit: 0, at };
    let (entries, page) = scan(call, &mut range, limit, &selection).await?;
    let more = page.remaining > 0;
    let next = more.then(|| {
        let after = entries.last().map_or_else(String::new, |entry| entry.key.to_string());
        server.page_key.seal(&scope, &Position { revision: page.revision, after })
    });
    let remaining = (more && selection.is_everything()).then_some(page.remaining);
    Ok(Found { entries, revision: page.revision, next, remaining })
}

/// Reads until `limit` objects match (0: all) or there are no more; the last page read says what remains.
async fn scan(
    call: Call<'_>,
    range: &mut Range,
    limit: usize,
    selection: &Selection,
) -> Result<(Vec<Arc<Entry>>, Page), ApiError> {
    let mut matches: Vec<Arc<Entry>> = Vec::new();
    loop {
        // A full page is read to the entry; behind a selector reads are larger, and end early when enough match.
        range.limit = match (limit, selection.is_everything()) {
            (0, _) => 0,
            (limit, true) => limit,
            (_, false) => SCAN_PAGE,
        };
        let mut page = call.server.store.range(range).map_err(page_failed)?;
        range.at = Some(page.revision);
        let total = page.entries.len();
        let served = convert::entries(&call.target.resource, std::mem::take(&mut page.entries)).await?;
        for (index, entry) in served.into_iter().enumerate() {
            range.after = Some(entry.key.to_string());
            if !selection.matches(&entry) {
                continue;
            }
            matches.push(entry);
            if limit > 0 && matches.len() == limit {
                page.remaining += (total - index - 1) as u64;
                return Ok((matches, page));
            }
        }
        if page.remaining == 0 {
            return Ok((matches, page));
        }
    }
}

fn page_failed(error: ReadError) -> ApiError {
    match error {
        ReadError::Compacted { .. } => ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter.",
        ),
        other => read_failed(other),
    }
}

/// What a continue token is bound to.
fn scope(call: Call<'_>) -> [String; 4] {
    let kind = &call.target.resource.kind;
    let text = |name: &str| call.query.get(name).unwrap_or_default().to_owned();
    [kind.qualified_plural(), call.target.namespace.clone(), text("labelSelector"), text("fieldSelector")]
}

fn limit(query: &Query) -> Result<usize, ApiError> {
    match query.number("limit")? {
        None => Ok(0),
        Some(limit) => usize::try_from(limit)
            .map_err(|_| ApiError::bad_request(format!("expected a limit of at least 0, found {limit}"))),
    }
}

/// The revision a list or watch asks for; `None` when it names none.
pub(crate) fn asked_revision(query: &Query) -> Result<Option<Revision>, ApiError> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    let revision = text.parse().map_err(|_| {
        ApiError::bad_request(format!("Invalid value: {}: expected resourceVersion to be a whole number", short(text)))
    })?;
    Ok(Some(revision))
}

/// Where a list reads: `None` is the newest.
async fn revision_to_show(server: &Server, query: &Query) -> Result<Option<Revision>, ApiError> {
    let asked = asked_revision(query)?;
    let exact = match query.get("resourceVersionMatch") {
        None | Some("NotOlderThan") => false,
        Some("Exact") => true,
        Some(other) => {
            let message = format!("expected Exact or NotOlderThan for resourceVersionMatch, found {}", short(other));
            return Err(ApiError::bad_request(message));
        }
    };
    match (asked, exact) {
        (None, true) | (Some(0), true) => {
            Err(ApiError::bad_request("resourceVersionMatch Exact is forbidden without a resourceVersion above 0"))
        }
        (None, false) => {
            if query.get("resourceVersionMatch").is_some() {
                let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                return Err(ApiError::bad_request(message));
            }
            server.store.read_barrier().await.map_err(commit_failed)?;
            Ok(None)
        }
        (Some(0), false) => Ok(None),
        (Some(revision), exact) => {
            wait_for(server, revision).await?;
            Ok(exact.then_some(revision))
        }
    }
}

/// Waits a little until the store has reached `revision` (R2).
pub(crate) async fn wait_for(server: &Server, revision: Revision) -> Result<(), ApiError> {
    if server.store.revision() >= revision {
        return Ok(());
    }
    let deadline = tokio::time::Instant::now() + FUTURE_REVISION_WAIT;
    let mut watch = server.store.watch("", server.store.revision()).map_err(read_failed)?;
    while server.store.revision() < revision {
        match tokio::time::timeout_at(deadline, watch.next()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(later(Reason::ServiceUnavailable, error.to_string())),
            Err(_) => {
                let newest = server.store.revision();
                return Err(read_failed(ReadError::Future { wanted: revision, newest }));
            }
        }
    }
    Ok(())
}
