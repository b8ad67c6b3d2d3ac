//! A pod that comes new to this node is taken or refused; one that runs here already is only noted.

use windlass_client::EventKind;

use super::PodTask;
use crate::admission::{self, NodeView, Refusal};
use crate::plan::Ground;
use crate::steps::resources;

impl PodTask {
    /// Takes the pod, or lets it fail before anything of it has begun.
    pub(super) fn admit(&mut self) {
        let shared = &self.context.shared;
        let wanted = resources::promised(self.context.spec());
        let is_over = matches!(self.current["phase"].as_str(), Some("Succeeded" | "Failed"));
        if is_over || self.ground == Ground::Left {
            return;
        }
        // What has a start time was taken before, by this agent or an earlier one.
        if self.saved.is_some() || self.current["startTime"].is_string() {
            shared.budget.note(&self.context.uid, wanted);
            return;
        }
        let node = shared.node_facts();
        let going = shared.is_shutting_down().then(|| Refusal {
            reason: "NodeShutdown",
            message: "Pod was rejected as the node is shutting down.".to_owned(),
        });
        let view = NodeView {
            name: &shared.config.name,
            labels: shared.node_labels(),
            unsafe_sysctls: &shared.config.unsafe_sysctls,
            app_armor: node.facts.app_armor,
            pressure: shared.pressure(),
        };
        let refused = going.or_else(|| admission::refusal(self.context.spec(), &view)).or_else(|| {
            let taken = shared.budget.take(&self.context.uid, wanted, node.allocatable, shared.config.pods_max);
            taken.err().map(|short| Refusal {
                reason: short.reason,
                message: format!(
                    "Node didn't have enough resource: {}, requested: {}, used: {}, capacity: {}",
                    short.resource, short.requested, short.used, short.capacity
                ),
            })
        });
        if let Some(Refusal { reason, message }) = refused {
            tracing::info!(pod = self.header.key(), reason, why = message, "the pod is refused");
            self.context.note(EventKind::Warning, reason, message.clone());
            self.failure = Some((reason, format!("Pod was rejected: {message}")));
            self.ground = Ground::Left;
        }
    }
}
