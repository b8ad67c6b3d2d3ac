//! Step: the devices that the pod claims are prepared by their drivers.
//!
//! Rules
//!   V1 allowed    only a claim that is reserved for the pod is prepared, and one that was made for a pod only for that pod
//!   V2 kept       while the API is away, what was prepared before stays as it is
//!   V3 given      a container gets what its resources.claims name: of a claim all, or what is for the request that it names
//!   V4 undone     what was prepared is undone when the pod has left, and only then is it said to be over
//! Source: API reference, PodResourceClaim, core/v1 ResourceClaim; KEP-4381; the words are kubelet's.
//! Not here    the calls (`kernel::dra`) · which device a claim gets (scheduler)

use futures::FutureExt;
use futures::future::BoxFuture;
use windlass_api::device::{Claim, ClaimName, PodClaim, claims_of};
use windlass_api::kinds;
use windlass_api::types::core;

use super::{Ground, PodContext, Step, StepError};
use crate::machine::{ClaimToPrepare, MachineError, PreparedDevice};

/// Up: every claim of the pod is prepared.
pub struct Devices;

impl Step for Devices {
    fn name(&self) -> &'static str {
        "devices"
    }

    fn up<'a>(&'a self, pod: &'a PodContext, _ground: &'a mut Ground) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            if !has_claims(pod.spec()) {
                return Ok(());
            }
            prepare(pod).await.map_err(|why| StepError {
                reason: "FailedPrepareDynamicResources",
                message: format!("Failed to prepare dynamic resources: {why}"),
            })
        }
        .boxed()
    }

    fn down<'a>(&'a self, pod: &'a PodContext) -> BoxFuture<'a, Result<(), MachineError>> {
        async move {
            match has_claims(pod.spec()) {
                true => pod.shared.machine.unprepare_claims(&pod.uid).await,
                false => Ok(()),
            }
        }
        .boxed()
    }
}

/// Whether the pod claims devices.
pub fn has_claims(spec: &core::PodSpec) -> bool {
    spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
}

fn claims(pod: &PodContext) -> Vec<PodClaim> {
    serde_json::to_value(&*pod.pod).map(|pod| claims_of(&pod)).unwrap_or_default()
}

async fn prepare(pod: &PodContext) -> Result<(), String> {
    let mut wanted = Vec::new();
    for asked in claims(pod) {
        match find(pod, &asked).await {
            Ok(found) => wanted.extend(found),
            Err(Trouble::Unheard(why)) => return kept(pod, why).await,
            Err(Trouble::Refused(why)) => return Err(why),
        }
    }
    pod.shared.machine.prepare_claims(&pod.uid, &wanted).await.map_err(|error| error.to_string())
}

/// Why a claim is not to be prepared.
enum Trouble {
    /// The API does not say what it is.
    Unheard(String),
    /// It is not the pod's to use.
    Refused(String),
}

/// V2.
async fn kept(pod: &PodContext, why: String) -> Result<(), String> {
    let prepared = pod.shared.machine.prepared(&pod.uid).await.map_err(|error| error.to_string())?;
    let is_there = |asked: &PodClaim| match &asked.claim {
        ClaimName::Is(name) => prepared.iter().any(|device| device.claim == *name),
        ClaimName::NotYet => false,
        ClaimName::NoNeed => true,
    };
    if pod.is_known && claims(pod).iter().all(is_there) { Ok(()) } else { Err(why) }
}

/// V1.
async fn find(pod: &PodContext, asked: &PodClaim) -> Result<Option<ClaimToPrepare>, Trouble> {
    let (namespace, refused) = (pod.namespace(), |why: String| Err(Trouble::Refused(why)));
    let name = match &asked.claim {
        ClaimName::Is(name) => name,
        ClaimName::NoNeed => return Ok(None),
        ClaimName::NotYet => {
            return refused(format!("pod \"{namespace}/{}\": ResourceClaim not created yet", pod.name()));
        }
    };
    let found = pod.shared.client.get(&kinds::RESOURCE_CLAIM, namespace, name).await;
    let object = match found {
        Ok(Some(object)) => object,
        Ok(None) => return refused(format!("failed to fetch ResourceClaim {name} referenced by pod {}", pod.name())),
        Err(error) => {
            let why = format!("failed to fetch ResourceClaim {name} referenced by pod {}: {error}", pod.name());
            return Err(if error.reason().is_some() { Trouble::Refused(why) } else { Trouble::Unheard(why) });
        }
    };
    let claim = Claim::read(&object);
    if asked.template.is_some() && claim.owner.as_ref().is_none_or(|(_, uid)| **uid != *pod.uid) {
        return refused(format!(
            "ResourceClaim {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
            pod.name()
        ));
    }
    if !claim.is_allocated || !claim.is_used_by(&pod.uid) {
        let why =
            format!("pod {} ({}) is not allowed to use resource claim {name} ({})", pod.name(), pod.uid, claim.uid);
        return refused(why);
    }
    Ok(Some(ClaimToPrepare {
        namespace: namespace.to_owned(),
        name: name.clone(),
        uid: claim.uid,
        drivers: claim.drivers.into_iter().collect(),
    }))
}

/// V3: the names for CDI of what a container gets.
pub async fn of_container(pod: &PodContext, container: &core::Container) -> Result<Vec<String>, MachineError> {
    let named = container.resources.as_ref().and_then(|resources| resources.claims.as_deref()).unwrap_or_default();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let prepared = pod.shared.machine.prepared(&pod.uid).await?;
    select(&claims(pod), named, &prepared)
        .map_err(|why| MachineError::Failed { operation: "find the devices of the container's claims".to_owned(), why })
}

fn select(
    claims: &[PodClaim],
    named: &[core::ResourceClaim],
    prepared: &[PreparedDevice],
) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for named in named {
        let claim = claims.iter().find(|claim| claim.name == named.name);
        let claim = match claim.map(|claim| &claim.claim) {
            Some(ClaimName::Is(claim)) => claim,
            Some(ClaimName::NoNeed) => continue,
            _ => return Err(format!("ResourceClaim of {} is not known", named.name)),
        };
        let mut own = prepared.iter().filter(|device| device.claim == *claim).peekable();
        if own.peek().is_none() {
            return Err(format!("unable to get claim info for ResourceClaim {claim}"));
        }
        let request = named.request.as_deref().unwrap_or_default();
        // A driver may name the way by which a request was met.
        let is_for = |found: &String| found.split('/').next() == Some(request);
        let is_meant = |device: &&PreparedDevice| {
            request.is_empty() || device.requests.is_empty() || device.requests.iter().any(is_for)
        };
        for cdi in own.filter(is_meant).flat_map(|device| &device.cdi) {
            if !out.contains(cdi) {
                out.push(cdi.clone());
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::select;
    use crate::machine::PreparedDevice;
    use serde_json::{Value, json};
    use windlass_api::device::{ClaimName, PodClaim};

    #[test]
    fn v3_a_container_gets_what_it_names_of_a_claim() {
        let claims: Vec<PodClaim> = [("gpu", ClaimName::Is("p-gpu-x".to_owned())), ("none", ClaimName::NoNeed)]
            .map(|(name, claim)| PodClaim { name: name.to_owned(), template: None, claim })
            .into();
        let device = |claim: &str, requests: &[&str], cdi: &[&str]| PreparedDevice {
            claim: claim.to_owned(),
            requests: requests.iter().map(|request| (*request).to_owned()).collect(),
            cdi: cdi.iter().map(|name| (*name).to_owned()).collect(),
            ..PreparedDevice::default()
        };
        let prepared = [
            device("p-gpu-x", &["big/best"], &["v/c=big", "v/c=common"]),
            device("p-gpu-x", &["small"], &["v/c=small", "v/c=common"]),
            device("p-gpu-x", &[], &["v/c=all"]),
            device("other", &["small"], &["v/c=other"]),
        ];
        let check = |named: Value, expected: &[&str]| {
            let named = serde_json::from_value::<Vec<_>>(named.clone()).expect("claims of a container");
            assert_eq!(select(&claims, &named, &prepared).expect("known"), expected, "{named:?}");
        };
        check(json!([{"name": "gpu"}]), &["v/c=big", "v/c=common", "v/c=small", "v/c=all"]);
        check(json!([{"name": "gpu", "request": "small"}]), &["v/c=small", "v/c=common", "v/c=all"]);
        check(json!([{"name": "gpu", "request": "big"}]), &["v/c=big", "v/c=common", "v/c=all"]);
        check(json!([{"name": "none"}]), &[]);
        let named = serde_json::from_value::<Vec<_>>(json!([{"name": "gpu"}])).expect("claims of a container");
        assert!(select(&claims, &named, &[]).is_err(), "what is not prepared is not left out in silence");
    }
}
