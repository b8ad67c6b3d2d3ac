//! `get`: one object; the bytes as they are stored, unless it is served in another version.

use windlass_api::ApiError;

use crate::answer::Answer;
use crate::convert;
use crate::failure::commit_failed;
use crate::key;
use crate::server::Call;

pub(crate) async fn get(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { server, target, .. } = call;
    // `resourceVersion=0` takes whatever this member has; everything else sees all that was acknowledged before.
    if call.query.get("resourceVersion") != Some("0") {
        server.store.read_barrier().await.map_err(commit_failed)?;
    }
    let kind = &target.resource.kind;
    let key = key::object(convert::stored_kind(&target.resource), &target.namespace, &target.name);
    let entry = server.store.get(&key).ok_or_else(|| ApiError::not_found(kind, &target.name))?;
    Ok(Answer::object(convert::entry(&target.resource, entry).await?.value.clone()))
}
