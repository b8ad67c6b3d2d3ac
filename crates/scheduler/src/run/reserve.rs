//! Claims get their devices and are reserved for their pod before it is bound; a claim that keeps its pod from every node
//! loses them.

use std::time::Duration;

use serde_json::json;
use windlass_api::device::FINALIZER;
use windlass_api::{Subresource, kinds};
use windlass_client::{Client, ClientError, Key, ObjectRef, Patch};

use super::{Scheduler, Written};
use crate::device::Allocation;
use crate::pod::Pod;

/// How often it is asked what became of a write that had no answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is to be written of claims before a pod is bound.
#[derive(Debug, Clone, Default)]
pub(super) struct Reservation {
    pub(super) allocations: Vec<Allocation>,
    /// Claims that have their devices already, with their uids.
    pub(super) claims: Vec<(Key, String)>,
}

/// Writes it all. Gives the last revision at which something was written, and whether everything was.
pub(super) async fn reserve(
    client: &Client,
    pod: &ObjectRef,
    reservation: &Reservation,
) -> (Option<u64>, Result<(), ClientError>) {
    let mut written = None;
    for allocation in &reservation.allocations {
        match allocate(client, pod, allocation).await {
            Ok(revision) => written = Some(revision),
            Err(error) if error.reason().is_none() => {
                // It may have been carried out.
                written = found(client, &allocation.key).await.or(written);
                return (written, Err(error));
            }
            Err(error) => return (written, Err(error)),
        }
    }
    for (claim, uid) in &reservation.claims {
        let patch = Patch::Strategic(json!({"metadata": {"uid": uid}, "status": {"reservedFor": [user(pod)]}}));
        if let Err(error) = patch_status(client, claim, &patch).await {
            return (written, Err(error));
        }
    }
    (written, Ok(()))
}

fn user(pod: &ObjectRef) -> serde_json::Value {
    json!({"resource": "pods", "name": pod.name, "uid": pod.uid})
}

/// The finalizer first: what has devices does not go.
async fn allocate(client: &Client, pod: &ObjectRef, allocation: &Allocation) -> Result<u64, ClientError> {
    let mut revision = allocation.revision;
    if !allocation.finalizers.iter().any(|found| found == FINALIZER) {
        let all: Vec<&str> = allocation.finalizers.iter().map(String::as_str).chain([FINALIZER]).collect();
        let patch = Patch::Merge(json!({"metadata": {"uid": allocation.uid, "resourceVersion": revision.to_string(),
            "finalizers": all}}));
        let key = &allocation.key;
        let kept = client.patch(&kinds::RESOURCE_CLAIM, key.namespace(), key.name(), &patch, None).await?;
        revision = kept.header.revision;
    }
    let patch = Patch::Merge(json!({"metadata": {"uid": allocation.uid, "resourceVersion": revision.to_string()},
        "status": {"allocation": allocation.result, "reservedFor": [user(pod)]}}));
    patch_status(client, &allocation.key, &patch).await
}

async fn patch_status(client: &Client, claim: &Key, patch: &Patch) -> Result<u64, ClientError> {
    let (kind, status) = (&kinds::RESOURCE_CLAIM, Some(Subresource::Status));
    let patched = client.patch(kind, claim.namespace(), claim.name(), patch, status).await?;
    Ok(patched.header.revision)
}

/// The revision of a claim as it is now; asked until it is known.
async fn found(client: &Client, claim: &Key) -> Option<u64> {
    loop {
        match client.get(&kinds::RESOURCE_CLAIM, claim.namespace(), claim.name()).await {
            Ok(found) => return found.map(|object| object.header.revision),
            Err(error) => tracing::warn!(%claim, %error, "whether a claim has its devices is not known yet"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Scheduler {
    /// A pod fits nowhere: what only it has is given back, so that it may be found elsewhere.
    pub(super) fn take_back(&mut self, key: &Key, pod: &Pod) {
        let Some((claim, revision)) = self.devices.hindrance(pod) else { return };
        tracing::info!(pod = %key, %claim, why = "its pod fits nowhere with it", "a claim loses its devices");
        let (client, key) = (self.client.clone(), key.clone());
        self.writes.push(Box::pin(async move {
            let patch = Patch::Merge(json!({"metadata": {"resourceVersion": revision.to_string()},
                "status": {"allocation": null, "reservedFor": null, "devices": null}}));
            Written::TakenBack(key, patch_status(&client, &claim, &patch).await.map(drop))
        }));
    }
}
