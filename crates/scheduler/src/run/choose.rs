//! The node of a claim that waits for its first pod: the scheduler names it, and the pod waits until the claim is bound.

use serde_json::json;
use tokio::time::Instant;
use windlass_api::binding::SELECTED_NODE;
use windlass_api::kinds;
use windlass_client::{Key, Patch};

use super::{Scheduler, Written};

impl Scheduler {
    /// Tells these claims the node that their pod will run on.
    pub(super) fn choose(&mut self, pod: &Key, node: &str, claims: Vec<Key>) {
        tracing::info!(pod = %pod, node, why = "its claims wait for their first pod", "chosen");
        self.queue.hold(pod, Instant::now());
        let (client, pod, node) = (self.client.clone(), pod.clone(), node.to_owned());
        self.writes.push(Box::pin(async move {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {SELECTED_NODE: node}}}));
            for claim in claims {
                let kind = &kinds::PERSISTENT_VOLUME_CLAIM;
                let told = client.patch(kind, claim.namespace(), claim.name(), &patch, None).await;
                if let Err(error) = told {
                    return Written::Chosen(pod, Err(error));
                }
            }
            Written::Chosen(pod, Ok(()))
        }));
    }

    /// A claim that could not be told is told when its pod is tried again.
    pub(super) fn settle_choice(&mut self, pod: &Key, told: Result<(), windlass_client::ClientError>) {
        if let Err(error) = told {
            tracing::warn!(%pod, %error, "a claim was not told its node");
            self.queue.retry(pod, Instant::now());
        }
    }
}
