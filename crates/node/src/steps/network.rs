//! Step: the pod's place in the network.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Ground, PodContext, Step, StepError};
use crate::machine::MachineError;

/// Up: the pod has its address and what restricts it is in force, or it has the machine's address when it is in the
/// machine's network.
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
            let failed = |why: String| StepError {
                reason: "FailedCreatePodSandBox",
                message: format!("Failed to create pod sandbox: {why}"),
            };
            let attached = pod.shared.machine.attach(&pod.uid).await;
            ground.addresses = attached.map_err(|error| failed(error.to_string()))?;
            let change = pod.shared.locals.set(&pod.uid, &pod.pod, &ground.addresses);
            // A static pod runs without an API that could say what restricts it.
            if crate::manifest::is_static(&pod.uid, pod.pod.metadata.annotations.as_ref()) {
                return Ok(());
            }
            pod.shared.locals.in_force(change).await.map_err(failed)
        }
        .boxed()
    }

    fn down<'a>(&'a self, pod: &'a PodContext) -> BoxFuture<'a, Result<(), MachineError>> {
        async move {
            pod.shared.machine.detach(&pod.uid).await?;
            pod.shared.locals.remove(&pod.uid);
            Ok(())
        }
        .boxed()
    }
}
