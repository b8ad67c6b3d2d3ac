//! `list`: many objects as of one revision, filtered and in pages.
//!
//! Rules
//!   R1 revision     shown is the revision that the parameters mean (`options`); the list waits a little for one that is
//!                   not there yet, then says 504; one that is compacted is 410
//!   R2 pages        `limit` cuts after that many matches; `continue` goes on at the same revision (see `page`)
//!   R3 old pages    a page whose revision is compacted is 410, with a token for the rest of the list as it is now
//!   R4 remaining    how many objects follow is told where no selector leaves any out
//!   R5 whole        without a limit, what is stored as it is served is read while it is sent (see `listed`)
//!
//! Source: API concepts, "The resourceVersion parameter", "Retrieving large results sets in chunks".

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use windlass_api::{ApiError, Reason};
use windlass_store::{Entry, Range, ReadError, Revision, Scan};

use crate::answer::{Answer, Payload};
use crate::config::FUTURE_REVISION_WAIT;
use crate::convert;
use crate::failure::{commit_failed, later, read_failed};
use crate::form::Form;
use crate::listed::Listed;
use crate::options::{ListAt, ListOptions};
use crate::page::Position;
use crate::select::Selection;
use crate::server::{Call, Server};

/// Entries looked at in one read of the store while a selector leaves some out.
const PIECE: usize = 1000;

pub(crate) async fn list(call: Call<'_>, form: Form) -> Result<Answer, ApiError> {
    let found = collect(call, form).await?;
    let mut metadata = json!({"resourceVersion": found.revision.to_string()});
    if let Some(token) = found.next {
        metadata["continue"] = Value::String(token);
        if let Some(remaining) = found.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    let payload = Payload::List { objects: found.objects, metadata };
    Ok(Answer { code: StatusCode::OK, payload, warnings: Vec::new() })
}

/// What a list found.
pub(crate) struct Found {
    pub objects: Listed,
    revision: Revision,
    /// The token of the next page, if there is one.
    next: Option<String>,
    remaining: Option<u64>,
}

/// The objects that a collection request names.
pub(crate) async fn collect(call: Call<'_>, form: Form) -> Result<Found, ApiError> {
    let Call { server, target, query, .. } = call;
    let selection = Arc::new(Selection::parse(target, query)?.of_form(form));
    let options = ListOptions::parse(query)?;
    let scope_texts = scope(call);
    let scope: Vec<&str> = scope_texts.iter().map(String::as_str).collect();
    let mut range = Range { prefix: selection.prefix(target), limit: 0, ..Range::default() };
    (range.at, range.after) = begin(server, &options.at, &scope).await?;
    let mut scan = server.store.scan(&range).map_err(|error| match error {
        ReadError::Compacted { .. } => too_old(server, &options.at, &scope),
        other => read_failed(other),
    })?;
    let revision = scan.revision();
    if options.limit == 0 && target.resource.stored.is_none() {
        return Ok(Found { objects: Listed::of(scan, selection), revision, next: None, remaining: None });
    }
    let (entries, unread) = page(call, &mut scan, options.limit, &selection).await?;
    let remaining = selection.is_everything().then(|| unread + scan.remaining());
    let more = remaining.map_or_else(|| unread > 0 || !scan.is_done(), |remaining| remaining > 0);
    let next = more.then(|| {
        let after = entries.last().map_or_else(String::new, |entry| entry.key().to_owned());
        server.page_key.seal(&scope, &Position { revision: Some(revision), after })
    });
    Ok(Found { objects: entries.into(), revision, next, remaining: remaining.filter(|remaining| *remaining > 0) })
}

/// The revision to read at (`None`: the newest) and the key to read after, once the store has come so far.
async fn begin(server: &Server, at: &ListAt, scope: &[&str]) -> Result<(Option<Revision>, Option<String>), ApiError> {
    match at {
        ListAt::Newest => {
            server.store.read_barrier().await.map_err(commit_failed)?;
            Ok((None, None))
        }
        ListAt::AtLeast(revision) => {
            wait_for(server, *revision).await?;
            Ok((None, None))
        }
        ListAt::Exactly(revision) => {
            wait_for(server, *revision).await?;
            Ok((Some(*revision), None))
        }
        ListAt::After(token) => {
            let position = server.page_key.open(scope, token)?;
            if position.revision.is_none() {
                server.store.read_barrier().await.map_err(commit_failed)?;
            }
            Ok((position.revision, Some(position.after)))
        }
    }
}

/// The revision to show is compacted. Who read in pages may go on (R3).
fn too_old(server: &Server, at: &ListAt, scope: &[&str]) -> ApiError {
    let ListAt::After(token) = at else {
        return ApiError::expired("The resourceVersion for the provided list is too old.");
    };
    let mut error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    if let Ok(position) = server.page_key.open(scope, token) {
        error.details.continue_token = server.page_key.seal(scope, &Position { revision: None, ..position });
    }
    error
}

/// Reads until `limit` objects match (0: all) or there are no more; and how many were read that come after those.
async fn page(
    call: Call<'_>,
    scan: &mut Scan,
    limit: usize,
    selection: &Selection,
) -> Result<(Vec<Arc<Entry>>, u64), ApiError> {
    // Without a selector a page is read to the entry.
    let piece = if selection.is_everything() && limit > 0 { limit } else { PIECE };
    let mut matches: Vec<Arc<Entry>> = Vec::new();
    loop {
        let entries = scan.read(piece);
        if entries.is_empty() {
            return Ok((matches, 0));
        }
        let total = entries.len();
        let served = convert::entries(call.server, &call.target.resource, entries).await?;
        for (index, entry) in served.into_iter().enumerate() {
            if !selection.matches(&entry) {
                continue;
            }
            matches.push(entry);
            if limit > 0 && matches.len() == limit {
                return Ok((matches, (total - index - 1) as u64));
            }
        }
    }
}

/// What a continue token is bound to.
fn scope(call: Call<'_>) -> [String; 4] {
    let kind = &call.target.resource.kind;
    let text = |name: &str| call.query.get(name).unwrap_or_default().to_owned();
    [kind.qualified_plural(), call.target.namespace.clone(), text("labelSelector"), text("fieldSelector")]
}

/// Waits a little until the store has reached `revision` (R1).
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
