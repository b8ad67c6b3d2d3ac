//! `/checkpoint/NAMESPACE/POD/CONTAINER`: a running container saved as an archive on this node, which it does not notice.
//!
//! Rules
//!   R1 there     404 where the container is not, or where CRIU is not, as a kubelet without the feature answers
//!   R2 why       what cannot be saved is 500 with the reason of who tried, CRIU's own where it was CRIU
//!   R3 bounded   in time by `timeout` (seconds; 0 or nothing is two minutes); one at a time on a node; an archive takes at
//!                most half of what is free beyond what the node keeps for itself
//!
//! Not here       who may ask for it: the API server has decided that before it asks (`nodes/proxy`); removing archives: they
//!                are whose who asked for them
//! Source: Kubernetes documentation, "Kubelet Checkpoint API"; KEP-2008.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use windlass_runtime::{CheckpointSpec, ContainerState, RuntimeError, Sandbox};
use windlass_stdx::Body;

use super::{Query, Refusal, Site, Target, json_answer};

/// What a request that names no time gets: what kubelet gives its runtime for any request.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);
/// The longest: nobody waits for an answer longer than this, and the container's processes may stand still meanwhile.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Disk space that is left free in any case, in bytes: with less, pods are evicted.
const KEPT_BYTES: u64 = 1 << 30;

/// R3: one at a time.
#[derive(Clone)]
pub(super) struct Turn(Arc<Semaphore>);

impl Default for Turn {
    fn default() -> Turn {
        Turn(Arc::new(Semaphore::new(1)))
    }
}

/// Answers with the archive's path.
pub(super) async fn answer(site: &Site, query: &Query, target: Target) -> Result<Response<Body>, Refusal> {
    let missing = "containers of this node cannot be checkpointed: criu was not on the PATH when its agent started";
    let program = target.kernel.criu().ok_or_else(|| Refusal::not_found(missing))?;
    let timeout = timeout(query)?;
    let id = target.running().map_err(|refusal| Refusal::internal(refusal.error.message))?;
    let foreign = "another runtime runs this container; only what the node runs itself can be checkpointed";
    let sandbox = target.sandbox()?.ok_or_else(|| Refusal::internal(foreign))?;
    let turn = Arc::clone(&site.checkpointing.0).try_acquire_owned();
    let turn =
        turn.map_err(|_| Refusal::internal("a checkpoint is being made on this node; ask again when it is done"))?;
    let (directory, free_bytes) = target.kernel.checkpoint_room().map_err(Refusal::internal)?;
    let bytes_max = free_bytes.saturating_sub(KEPT_BYTES) / 2;
    let in_memory = sandbox.usage().await.map_err(|error| of_runtime(&error))?;
    let in_memory = in_memory.containers.get(&id).map_or(0, |usage| usage.rss_bytes);
    if in_memory >= bytes_max {
        return Err(Refusal::internal(format!(
            "too little room for a checkpoint in {}: the container has {in_memory} bytes in memory, {free_bytes} are \
             free, of which {KEPT_BYTES} stay so and half of the rest is for the archive",
            directory.display()
        )));
    }
    let now = target.kernel.world().now();
    let archive = directory.join(name(&target, now));
    let config = config(&target, &sandbox, (&id, now))?;
    let annotations = annotations(&target);
    let spec = CheckpointSpec { program, archive: archive.clone(), timeout, bytes_max, config, annotations };
    // It is made to the end, whether or not somebody waits for it.
    let made = tokio::spawn(async move {
        let made = sandbox.checkpoint(&id, spec).await;
        drop(turn);
        made
    });
    made.await.map_err(Refusal::internal)?.map_err(|error| of_runtime(&error))?;
    Ok(json_answer(&json!({"items": [archive]})))
}

/// R2. An error with its causes.
fn of_runtime(error: &RuntimeError) -> Refusal {
    Refusal::internal(crate::grpc::words(error))
}

/// R3.
fn timeout(query: &Query) -> Result<Duration, Refusal> {
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty()) else { return Ok(TIMEOUT_DEFAULT) };
    let seconds = text.parse::<u64>().ok().map(Duration::from_secs).filter(|timeout| *timeout <= TIMEOUT_MAX);
    match seconds {
        Some(Duration::ZERO) => Ok(TIMEOUT_DEFAULT),
        Some(timeout) => Ok(timeout),
        None => Err(Refusal::bad_request(format!(
            "timeout: expected a number of seconds, at most {}, found {text:?}",
            TIMEOUT_MAX.as_secs()
        ))),
    }
}

/// kubelet's name for it.
fn name(target: &Target, now: Timestamp) -> PathBuf {
    let (namespace, pod) = target.title.split_once('/').unwrap_or_default();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    format!("checkpoint-{pod}_{namespace}-{}-{now}.tar", target.container).into()
}

/// `config.dump`: which container of which image, as Podman and CRI-O write it.
fn config(target: &Target, sandbox: &Sandbox, (id, now): (&str, Timestamp)) -> Result<Value, Refusal> {
    let status = status(target);
    let created = match sandbox.state(id) {
        Some(ContainerState::Running { at, .. }) => at,
        _ => now,
    };
    let runtime = sandbox.spec().program.as_ref().and_then(|program| program.file_name());
    let container = status["containerID"].as_str().unwrap_or_default();
    Ok(json!({
        "id": container.rsplit('/').next().unwrap_or_default(),
        "name": format!("k8s_{}_{}", target.container, target.title.replace('/', "_")),
        "rootfsImage": status["image"],
        "rootfsImageName": status["image"],
        "rootfsImageRef": status["imageID"],
        "runtime": runtime.map_or("windlass".into(), |name| name.to_string_lossy()),
        "createdTime": created,
        "checkpointedTime": now,
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": false,
    }))
}

/// How the pod's status tells of the container.
fn status(target: &Target) -> Value {
    let pod: Value = serde_json::from_slice(&target.pod.now().json).unwrap_or_default();
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    all.into_iter().find(|status| status["name"] == *target.container).cloned().unwrap_or_default()
}

/// By these, tools that show archives know whose it is.
fn annotations(target: &Target) -> BTreeMap<String, String> {
    let (namespace, pod) = target.title.split_once('/').unwrap_or_default();
    let image = status(target)["image"].as_str().unwrap_or_default().to_owned();
    let named = [
        ("container-name", target.container.clone()),
        ("image-name", image),
        ("sandbox-name", pod.to_owned()),
        ("sandbox-namespace", namespace.to_owned()),
        ("sandbox-uid", target.pod.uid.to_string()),
    ];
    named.into_iter().map(|(name, text)| (format!("io.kubernetes.cri.{name}"), text)).collect()
}

#[cfg(test)]
mod tests {
    use super::timeout;
    use crate::server::Query;
    use std::time::Duration;

    #[test]
    fn a_timeout_is_seconds_within_bounds_or_refused_with_its_name() {
        let read = |text: &str| timeout(&Query::parse(Some(text)));
        for (text, seconds) in
            [("", 120), ("timeout=", 120), ("timeout=0", 120), ("timeout=5", 5), ("timeout=3600", 3600)]
        {
            assert_eq!(read(text).expect(text), Duration::from_secs(seconds), "{text}");
        }
        for text in ["timeout=-1", "timeout=x", "timeout=3601", "timeout=1.5", "timeout=99999999999999999999"] {
            let refusal = read(text).expect_err(text);
            assert_eq!(refusal.error.code(), 400, "{text}");
            assert!(refusal.error.message.starts_with("timeout: "), "{text}");
        }
    }
}
