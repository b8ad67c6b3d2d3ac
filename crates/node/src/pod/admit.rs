//! A pod that comes new to this node is taken or refused; one that runs here already is only noted.

use futures::FutureExt;
use windlass_client::EventKind;

use super::PodTask;
use crate::admission::{self, NodeView, Refusal};
use crate::cpus::TooFew;
use crate::manifest;
use crate::plan::Ground;
use crate::status::Failure;
use crate::steps::{PodContext, resources};

impl PodTask {
    /// Takes the pod, or lets it fail before anything of it has begun. Whether it was given what nobody else may have.
    pub(super) async fn admit(&mut self) -> bool {
        let is_over = matches!(self.current["phase"].as_str(), Some("Succeeded" | "Failed"));
        if is_over || self.ground == Ground::Left {
            return false;
        }
        // What has a start time was taken before, by this agent or an earlier one.
        if self.saved.is_some() || self.current["startTime"].is_string() {
            self.context.shared.budget.note(&self.context.uid, resources::promised(self.context.spec()));
            return false;
        }
        let context = self.context.clone();
        let given = match refusal(&context) {
            Some(refused) => Err(refused),
            None => give(&context).boxed().await,
        };
        if let Err(Refusal { reason, message }) = &given {
            let (reason, message) = (*reason, message.clone());
            self.give_back();
            tracing::info!(pod = self.header.key(), reason, why = message, "the pod is refused");
            self.context.note(EventKind::Warning, reason, message.clone());
            let message = format!("Pod was rejected: {message}");
            self.failure = Some(Failure { reason, message, is_disruption: false });
            self.ground = Ground::Left;
        }
        given.unwrap_or(false)
    }
}

/// Why the pod cannot run here, or there is no room; else the room is its own from now on.
fn refusal(pod: &PodContext) -> Option<Refusal> {
    let (shared, node) = (&pod.shared, pod.shared.node_facts());
    if shared.is_shutting_down() {
        let message = "Pod was rejected as the node is shutting down.".to_owned();
        return Some(Refusal { reason: "NodeShutdown", message });
    }
    let view = NodeView {
        name: &shared.config.name,
        labels: shared.node_labels(),
        unsafe_sysctls: &shared.config.unsafe_sysctls,
        app_armor: node.facts.app_armor,
        pressure: shared.pressure(),
        is_static: manifest::is_static(&pod.uid, pod.pod.metadata.annotations.as_ref()),
    };
    admission::refusal(pod.spec(), &view).or_else(|| {
        let wanted = resources::promised(pod.spec());
        let taken = shared.budget.take(&pod.uid, wanted, node.allocatable, shared.config.pods_max);
        taken.err().map(|short| Refusal {
            reason: short.reason,
            message: format!(
                "Node didn't have enough resource: {}, requested: {}, used: {}, capacity: {}",
                short.resource, short.requested, short.used, short.capacity
            ),
        })
    })
}

/// Gives the pod's containers what nobody else may have; whether there is anything.
async fn give(pod: &PodContext) -> Result<bool, Refusal> {
    let (shared, spec) = (&pod.shared, pod.spec());
    let devices = shared.devices.take(&*shared.machine, &pod.uid, spec).await?;
    let cpus = shared.cpus.take(&pod.uid, spec).map_err(too_few)?;
    Ok(!devices.is_empty() || !cpus.is_empty())
}

/// As kubelet words it.
fn too_few(few: TooFew) -> Refusal {
    let TooFew { requested, available } = few;
    let why = format!("not enough cpus available to satisfy request: requested={requested}, available={available}");
    Refusal {
        reason: "UnexpectedAdmissionError",
        message: format!("Allocate failed due to {why}, which is unexpected"),
    }
}
