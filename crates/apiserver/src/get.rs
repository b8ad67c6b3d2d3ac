//! `get`: one object; the bytes as they are stored, unless it is served in another version.
//!
//! Rules
//!   R1 newest    without `resourceVersion` everything acknowledged before the request is seen
//!   R2 at least  with one, what is shown is at least that new: the get waits a little for a revision that is not there
//!                yet, then says 504; `0` takes whatever this member has
//!
//! Source: API concepts, "Semantics for get and list".

use windlass_api::ApiError;

use crate::answer::Answer;
use crate::convert;
use crate::failure::commit_failed;
use crate::key;
use crate::list::wait_for;
use crate::options::asked_revision;
use crate::server::Call;

pub(crate) async fn get(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { server, target, .. } = call;
    match asked_revision(call.query)? {
        None => server.store.read_barrier().await.map_err(commit_failed)?,
        Some(revision) => wait_for(server, revision).await?,
    }
    let kind = &target.resource.kind;
    let key = key::object(convert::stored_kind(&target.resource), &target.namespace, &target.name);
    let entry = server.store.get(&key).ok_or_else(|| ApiError::not_found(kind, &target.name))?;
    Ok(Answer::object(convert::entry(server, &target.resource, entry).await?.shared()))
}
