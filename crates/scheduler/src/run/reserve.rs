//! Claims get their devices and are reserved for their pod before it is bound; a pod that fits nowhere gives back what
//! hinders it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use windlass_api::device::FINALIZER;
use windlass_api::{ApiError, Object, Subresource, kinds};
use windlass_client::{Cached, Client, ClientError, Key, ObjectRef, Patch};

use super::{Scheduler, Written};
use crate::device::{Allocation, Hindrance};
use crate::pod::Pod;

/// How often it is asked what became of a write that had no answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is to be written of claims before a pod is bound.
#[derive(Default)]
pub(super) struct Reservation {
    pub(super) allocations: Vec<Allocation>,
    /// Claims that have their devices already, as they were when the node was chosen.
    pub(super) claims: Vec<Arc<Cached>>,
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
            // A store that lost its leader, or was too slow, may have carried it out all the same.
            Err(error) if error.reason().is_none() || error.is_retryable() => {
                written = found(client, &allocation.key).await.max(written);
                return (written, Err(error));
            }
            Err(error) => return (written, Err(error)),
        }
    }
    for claim in &reservation.claims {
        if let Err(error) = join(client, pod, claim).await {
            return (written, Err(error));
        }
    }
    (written, Ok(()))
}

/// From then on what the claim has stays; it must be what the node was chosen for.
async fn join(client: &Client, pod: &ObjectRef, claim: &Cached) -> Result<(), ClientError> {
    let patch =
        Patch::Strategic(json!({"metadata": {"uid": claim.header.uid()}, "status": {"reservedFor": [user(pod)]}}));
    let now = patch_status(client, &Key::of(&claim.header), &patch).await?;
    if now.value()["status"]["allocation"] != claim.value()["status"]["allocation"] {
        let why = "its devices are others now";
        return Err(ApiError::conflict(&kinds::RESOURCE_CLAIM, claim.header.name(), why).into());
    }
    Ok(())
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
    Ok(patch_status(client, &allocation.key, &patch).await?.header.revision)
}

async fn patch_status(client: &Client, claim: &Key, patch: &Patch) -> Result<Object, ClientError> {
    let (kind, status) = (&kinds::RESOURCE_CLAIM, Some(Subresource::Status));
    client.patch(kind, claim.namespace(), claim.name(), patch, status).await
}

/// D7: unless the pod has got a node after all, which an answer that was lost may have said.
async fn give_back(client: &Client, pod: &Key, uid: &str, hindrance: &Hindrance) -> Result<(), ClientError> {
    let now = client.get(&kinds::POD, pod.namespace(), pod.name()).await?;
    if now.is_none_or(|now| now.header.uid() != uid || !now.header.node_name().is_empty()) {
        return Ok(());
    }
    let metadata = json!({"resourceVersion": hindrance.revision.to_string()});
    let patch = match hindrance.is_only_ours {
        true => json!({"metadata": metadata, "status": {"allocation": null, "reservedFor": null, "devices": null}}),
        false => json!({"metadata": metadata, "status": {"reservedFor": [{"$patch": "delete", "uid": uid}]}}),
    };
    patch_status(client, &hindrance.claim, &Patch::Strategic(patch)).await.map(drop)
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
    /// A pod cannot go anywhere: a claim that hinders it is given back, so that devices may be found elsewhere. Not while
    /// others make way for it where it has its devices.
    pub(super) fn give_back(&mut self, key: &Key, pod: &Pod) {
        if self.leaving.contains_key(key) {
            return;
        }
        let Some(hindrance) = self.devices.hindrance(pod) else { return };
        let why = "its pod cannot go anywhere with it";
        tracing::info!(pod = %key, claim = %hindrance.claim, why, "a claim is given back");
        let (client, key, uid) = (self.client.clone(), key.clone(), pod.uid.clone());
        self.writes.push(Box::pin(async move {
            let done = give_back(&client, &key, &uid, &hindrance).await;
            Written::GivenBack(key, done)
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::{Allocation, Hindrance, Reservation, give_back, reserve};
    use bytes::Bytes;
    use futures::future::BoxFuture;
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};
    use windlass_api::device::FINALIZER;
    use windlass_api::{ApiError, Object, Reason};
    use windlass_client::{Client, Key, ObjectRef};
    use windlass_stdx::{Request, Response, Transport, TransportError, World, body_from};

    /// Answers in order, and what was asked.
    struct Script {
        answers: Mutex<Vec<(u16, Value)>>,
        asked: Mutex<Vec<String>>,
    }

    impl Transport for Script {
        fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
            let path = request.uri().path();
            let short = path.rsplit_once("/namespaces/ns/").map_or(path, |(_, short)| short);
            self.asked.lock().expect("a lock").push(format!("{} {short}", request.method()));
            let (code, answer) = self.answers.lock().expect("a lock").remove(0);
            let mut response = Response::new(body_from(answer.to_string()));
            *response.status_mut() = code.try_into().expect("a status code");
            Box::pin(async { Ok(response) })
        }
    }

    fn client(answers: Vec<(u16, Value)>) -> (Client, Arc<Script>) {
        let script = Arc::new(Script { answers: Mutex::new(answers), asked: Mutex::default() });
        (Client::new(Arc::clone(&script) as Arc<dyn Transport>, World::real()), script)
    }

    fn refused(reason: Reason) -> (u16, Value) {
        (reason.code(), ApiError::new(reason, "no").to_status())
    }

    fn claim(name: &str, revision: u64, device: &str) -> Value {
        let results = json!([{"request": "r", "driver": "d.e", "pool": "p", "device": device}]);
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": revision.to_string()},
            "status": {"allocation": {"devices": {"results": results}}}})
    }

    fn object(value: &Value) -> Object {
        Object::parse(Bytes::from(value.to_string())).expect("an object")
    }

    fn pod(node: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "uid": "1",
            "resourceVersion": "3"}, "spec": {"nodeName": node}})
    }

    fn allocation(name: &str) -> Allocation {
        let (key, uid, finalizers) = (Key::new("ns", name), name.to_owned(), vec![FINALIZER.to_owned()]);
        Allocation { key, uid, revision: 7, finalizers, result: json!({}), devices: Vec::new() }
    }

    #[tokio::test]
    async fn d6_a_write_of_unknown_outcome_is_looked_after_and_never_lowers_what_is_waited_for() {
        let about = ObjectRef::of(&object(&pod("")).header);
        for (reason, expected) in [(Reason::ServiceUnavailable, Some(20)), (Reason::Timeout, Some(20))] {
            let (client, script) = client(vec![refused(reason), (200, claim("a", 20, "x"))]);
            let reservation = Reservation { allocations: vec![allocation("a")], claims: Vec::new() };
            let (written, done) = reserve(&client, &about, &reservation).await;
            assert_eq!((written, done.is_err()), (expected, true), "{reason:?}");
            let asked = script.asked.lock().expect("a lock").clone();
            assert_eq!(asked, ["PATCH resourceclaims/a/status", "GET resourceclaims/a"]);
        }
        let answers = vec![(200, claim("a", 20, "x")), refused(Reason::ServiceUnavailable), (200, claim("b", 9, "x"))];
        let reservation = Reservation { allocations: vec![allocation("a"), allocation("b")], claims: Vec::new() };
        let (written, _) = reserve(&client(answers).0, &about, &reservation).await;
        assert_eq!(written, Some(20), "the first claim was written at 20");
        let (client, _) = client(vec![refused(Reason::Conflict)]);
        let reservation = Reservation { allocations: vec![allocation("a")], claims: Vec::new() };
        assert_eq!(reserve(&client, &about, &reservation).await.0, None, "a refusal is an answer");
    }

    #[tokio::test]
    async fn a_pod_joins_a_claim_only_with_the_devices_that_its_node_was_chosen_for() {
        let about = ObjectRef::of(&object(&pod("")).header);
        for (device, is_same) in [("x", true), ("y", false)] {
            let (client, _) = client(vec![(200, claim("a", 9, device))]);
            let claims = vec![Arc::new(object(&claim("a", 7, "x")))];
            let done = reserve(&client, &about, &Reservation { allocations: Vec::new(), claims }).await.1;
            assert_eq!(done.is_ok(), is_same, "{device}");
            assert!(done.err().is_none_or(|error| error.is_conflict()));
        }
    }

    #[tokio::test]
    async fn d7_a_pod_that_has_got_a_node_after_all_gives_nothing_back() {
        let hindrance = Hindrance { claim: Key::new("ns", "a"), revision: 7, is_only_ours: true };
        let mut namesake = pod("");
        namesake["metadata"]["uid"] = json!("2");
        for (now, expected) in [
            (pod("n1"), vec!["GET pods/p"]),
            (namesake, vec!["GET pods/p"]),
            (pod(""), vec!["GET pods/p", "PATCH resourceclaims/a/status"]),
        ] {
            let (client, script) = client(vec![(200, now), (200, claim("a", 8, "x"))]);
            give_back(&client, &Key::new("ns", "p"), "1", &hindrance).await.expect("it is answered");
            assert_eq!(*script.asked.lock().expect("a lock"), expected);
        }
    }
}
