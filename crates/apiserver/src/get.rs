//! `get`: one object, the bytes as they are stored.

use windlass_api::ApiError;

use crate::answer::Answer;
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
    match server.store.get(&key::object(kind, &target.namespace, &target.name)) {
        Some(entry) => Ok(Answer::object(entry.value.clone())),
        None => Err(ApiError::not_found(kind, &target.name)),
    }
}
