//! Step: the pod's place in the network.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Ground, PodContext, Step, StepError};
use crate::machine::MachineError;

/// Up: the pod has its address, or the machine's when it is in the machine's network.
pub struct Network;

impl Step for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn up<'a>(&'a self, pod: &'a PodContext, ground: &'a mut Ground) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            if pod.host_network() {
                ground.addresses = pod.shared.node_facts().addresses.clone();
                return Ok(());
            }
            let attached = pod.shared.machine.attach(&pod.uid).await;
            ground.addresses = attached.map_err(|error| StepError {
                reason: "FailedCreatePodSandBox",
                message: format!("Failed to create pod sandbox: {error}"),
            })?;
            Ok(())
        }
        .boxed()
    }

    fn down<'a>(&'a self, pod: &'a PodContext) -> BoxFuture<'a, Result<(), MachineError>> {
        pod.shared.machine.detach(&pod.uid)
    }
}
