//! Steps: the hooks of a container's life, postStart and preStop.

use std::net::IpAddr;
use std::time::Duration;

use windlass_api::types::core;

use super::PodContext;
use crate::machine::{Exec, HttpGet, Purpose};
use crate::probe::{Check, Place, ProbeResult};

/// A hook with no bound of its own (postStart) is given this long.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(600);

/// Runs a hook; the error is what the event says.
pub async fn run(
    pod: &PodContext,
    container: &core::Container,
    id: &str,
    hook: &core::LifecycleHandler,
    addresses: &[IpAddr],
) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    let place = Place { ips: addresses, host_network: pod.host_network() };
    let check = if let Some(exec) = &hook.exec {
        Check::Exec(Exec { args: exec.command.clone().unwrap_or_default(), timeout: HOOK_TIMEOUT })
    } else if let Some(get) = &hook.http_get {
        request(pod, get, container, place)
    } else {
        return Err("the hook names neither exec, httpGet nor sleep".to_owned());
    };
    if let Check::Http(get) = check {
        // Whoever answers has been told: what the status says is the caller's own affair.
        let told = pod.shared.machine.http_get(&HttpGet { purpose: Purpose::Hook, ..get }).await;
        return told.map(drop).map_err(|error| error.to_string());
    }
    match check.run(&*pod.shared.machine, &pod.uid, id).await {
        ProbeResult::Success => Ok(()),
        ProbeResult::Failure(why) | ProbeResult::Unknown(why) => Err(why),
    }
}

/// A hook may call somebody else. It does so from the pod's own network, so that it reaches what its containers reach and
/// nothing more.
fn request(pod: &PodContext, get: &core::HTTPGetAction, container: &core::Container, place: Place) -> Check {
    let other = get.host.as_ref().filter(|host| !host.is_empty());
    let own = core::HTTPGetAction { host: None, ..get.clone() };
    match (Check::http(&own, container, place, HOOK_TIMEOUT), other) {
        (Check::Http(asked), Some(host)) => {
            Check::Http(HttpGet { host: host.clone(), from: Some(pod.uid.to_string()), ..asked })
        }
        (check, _) => check,
    }
}

/// The postStart hook, if there is one.
pub fn post_start(container: &core::Container) -> Option<&core::LifecycleHandler> {
    container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
}

/// The preStop hook, if there is one.
pub fn pre_stop(container: &core::Container) -> Option<&core::LifecycleHandler> {
    container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
}
