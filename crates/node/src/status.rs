//! What a pod's status says: a pure function of the pod and its containers.
//!
//! Source: Kubernetes documentation, "Pod Lifecycle"; API reference, PodStatus.
//!
//! Rules
//!   R1 phase        Pending until every container has begun once; then Running; Succeeded or Failed once it is over
//!   R2 waiting      a container that is not there says why in the words kubectl users know
//!   R3 conditions   a condition's time moves only when its status does; conditions of others are left alone
//!   R4 final        what is Succeeded or Failed stays so
//!   R5 little       only what differs is written

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use windlass_api::types::core;

use crate::machine::{ExitReason, lost_exit};
use crate::plan::{Ended, Ground, Stage, TROUBLE_SHOWN, Track, is_initialized, is_over, is_sidecar, runs_again};
use crate::steps::mount::is_recursive;

/// What the status is made from.
pub struct StatusView<'a> {
    /// The pod.
    pub pod: &'a core::Pod,
    /// Its ephemeral containers.
    pub visitors: &'a [core::Container],
    /// The status it has now.
    pub current: &'a Value,
    /// Its containers.
    pub tracks: &'a BTreeMap<String, Track>,
    /// What all containers rely on.
    pub ground: &'a Ground,
    /// The pod is on its way out.
    pub ending: bool,
    /// How far a change of its resources is.
    pub resizing: &'a Resizing,
    /// Why the pod has failed as a whole.
    pub failure: Option<&'a Failure>,
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// Wall clock.
    pub now: Timestamp,
    /// The clock that back-offs are measured by.
    pub instant: Instant,
}

/// Why a pod has failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In one word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// It is nothing that the pod has done: its node is short of something, or goes down (Kubernetes documentation,
    /// "Pod disruption conditions").
    pub is_disruption: bool,
}

/// How far a change of a pod's resources is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resizing {
    /// All is as it is wished.
    #[default]
    Done,
    /// The node cannot promise it: never (`Infeasible`), or not now (`Deferred`).
    Pending {
        /// The one or the other.
        reason: &'static str,
        /// What there is too little of.
        message: String,
    },
    /// It is promised and being carried out.
    InProgress {
        /// Why that has not worked so far.
        trouble: Option<String>,
    },
}

/// Conditions that are gone when what they tell of is.
const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// The status as this node has it: the fields this node writes, and no others.
pub fn status(view: &StatusView) -> Value {
    let spec = view.pod.spec.as_ref().expect("a pod without a spec is not taken in");
    let phase = phase(view, spec);
    let mut out = Map::new();
    out.insert("phase".to_owned(), json!(phase));
    if let Some(failure) = view.failure {
        out.insert("reason".to_owned(), json!(failure.reason));
        out.insert("message".to_owned(), json!(failure.message));
    }
    if let Some(generation) = view.pod.metadata.generation {
        out.insert("observedGeneration".to_owned(), json!(generation));
    }
    let start = view.current["startTime"].as_str().map_or_else(|| rfc3339(view.now), str::to_owned);
    out.insert("startTime".to_owned(), json!(start));
    if let Some(first) = view.host_ips.first() {
        out.insert("hostIP".to_owned(), json!(first.to_string()));
        let all: Vec<Value> = view.host_ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        out.insert("hostIPs".to_owned(), json!(all));
    }
    // A pod that was refused never had a container.
    let is_refused = phase == "Failed"
        && *view.ground == Ground::Left
        && !view.ending
        && view.tracks.values().all(|track| track.stage == Stage::Absent && track.attempt == 0);
    if is_refused {
        return Value::Object(out);
    }
    if let Ground::Up(addresses) = view.ground
        && let Some(first) = addresses.first()
    {
        out.insert("podIP".to_owned(), json!(first.to_string()));
        let all: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        out.insert("podIPs".to_owned(), json!(all));
    }
    let init: Vec<Value> =
        spec.init_containers.iter().flatten().map(|container| container_status(view, spec, container, true)).collect();
    if !init.is_empty() {
        out.insert("initContainerStatuses".to_owned(), json!(init));
    }
    let main: Vec<Value> =
        spec.containers.iter().map(|container| container_status(view, spec, container, false)).collect();
    out.insert("containerStatuses".to_owned(), json!(main));
    let visitors = view.visitors.iter().map(|container| {
        let mut status = container_status(view, spec, container, false);
        // Nobody's requests go to a visitor.
        status["ready"] = json!(false);
        status
    });
    let visitors: Vec<Value> = visitors.collect();
    if !visitors.is_empty() {
        out.insert("ephemeralContainerStatuses".to_owned(), json!(visitors));
    }
    out.insert("conditions".to_owned(), json!(conditions(view, spec, phase)));
    Value::Object(out)
}

/// R1, R4.
fn phase(view: &StatusView, spec: &core::PodSpec) -> &'static str {
    match view.current["phase"].as_str() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    let any_running = view.tracks.values().any(Track::is_running);
    let codes = || spec.containers.iter().filter_map(|container| view.tracks.get(&container.name)?.ended());
    if view.failure.is_some() && !any_running {
        return "Failed";
    }
    let all_ended = codes().count() == spec.containers.len();
    let is_finished = view.ending && (all_ended || *view.ground == Ground::Left);
    if !any_running && (is_over(spec, view.tracks) || is_finished) {
        let failed = !all_ended || codes().any(|ended| ended.exit.code != 0);
        return if failed { "Failed" } else { "Succeeded" };
    }
    let begun = |container: &core::Container| {
        view.tracks.get(&container.name).is_some_and(|track| track.attempt > 0 || track.stage != Stage::Absent)
    };
    if spec.containers.iter().all(begun) { "Running" } else { "Pending" }
}

fn container_status(view: &StatusView, spec: &core::PodSpec, container: &core::Container, is_init: bool) -> Value {
    let track = view.tracks.get(&container.name).expect("every container of the spec has its track");
    let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
    let id = |attempt: u32| container_id(uid, &container.name, attempt);
    let goes_on = !view.ending && view.failure.is_none() && !is_over(spec, view.tracks);
    let mut last = track.last.as_ref();
    let mut shown_id = None;
    let state = match &track.stage {
        Stage::Running { since } => {
            shown_id = Some(id(track.attempt));
            json!({"running": {"startedAt": rfc3339(*since)}})
        }
        Stage::Absent if view.ending && *view.ground == Ground::Left => {
            let lost = Ended { attempt: track.attempt, exit: lost_exit(view.now), message: String::new() };
            json!({"terminated": terminated(&lost, "")})
        }
        Stage::Absent => json!({"waiting": waiting(view, spec, container, track, is_init)}),
        Stage::Ended(ended) => {
            shown_id = Some(id(ended.attempt));
            let again = goes_on && (track.anew || runs_again(spec, container, is_init, ended.exit.code));
            let waits = track.restart_at.is_some_and(|at| at > view.instant) || track.trouble.is_some();
            if again && waits {
                last = Some(ended);
                json!({"waiting": waiting(view, spec, container, track, is_init)})
            } else {
                json!({"terminated": terminated(ended, &id(ended.attempt))})
            }
        }
    };
    let done =
        is_init && !is_sidecar(container) && !track.anew && track.ended().is_some_and(|ended| ended.exit.code == 0);
    let mut out = json!({
        "name": container.name, "image": container.image.clone().unwrap_or_default(), "imageID": track.image.digest,
        "state": state, "ready": done || track.is_ready(), "started": track.is_started(), "restartCount": track.attempt,
        "lastState": last.map_or_else(|| json!({}), |ended| json!({"terminated": terminated(ended, &id(ended.attempt))})),
    });
    if let Some(shown_id) = shown_id {
        out["containerID"] = json!(shown_id);
        out["stopSignal"] = json!(stop_signal(container, track));
    }
    if let Some(user) = track.image.user.as_ref().filter(|_| track.stage != Stage::Absent) {
        out["user"] = json!({"linux": {"uid": user.uid, "gid": user.gid, "supplementalGroups": user.groups}});
    }
    if let Some(applied) = track.applied.as_ref().filter(|_| track.is_running()) {
        out["resources"] = json!(applied);
        let promised = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        if let Some(promised) = promised.filter(|promised| !promised.is_empty()) {
            out["allocatedResources"] = json!(promised);
        }
    }
    let mounts: Vec<Value> = container.volume_mounts.iter().flatten().map(mount_status).collect();
    if !mounts.is_empty() {
        out["volumeMounts"] = json!(mounts);
    }
    out
}

/// The signal the container is stopped with: its own, its image's, or what all are.
fn stop_signal<'a>(container: &'a core::Container, track: &'a Track) -> &'a str {
    let own = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    let image = Some(track.image.stop_signal.as_str()).filter(|signal| signal.starts_with("SIG"));
    own.or(image).unwrap_or("SIGTERM")
}

/// What has become of a mount: whether what lies beneath it is read-only is only known here.
fn mount_status(mount: &core::VolumeMount) -> Value {
    let mut out = json!({"name": mount.name, "mountPath": mount.mount_path});
    if mount.read_only == Some(true) {
        out["readOnly"] = json!(true);
        out["recursiveReadOnly"] = json!(if is_recursive(mount) { "Enabled" } else { "Disabled" });
    }
    out
}

/// What a container is called by those who look at the status: `windlass://UID.NAME.ATTEMPT`.
fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    format!("windlass://{uid}.{name}.{attempt}")
}

/// R2.
fn waiting(
    view: &StatusView,
    spec: &core::PodSpec,
    container: &core::Container,
    track: &Track,
    is_init: bool,
) -> Value {
    if let Some(trouble) = &track.trouble {
        let shown_long = trouble.since + TROUBLE_SHOWN <= view.instant;
        if trouble.reason == "ErrImagePull" && shown_long {
            let image = container.image.as_deref().unwrap_or_default();
            let message = format!("Back-off pulling image {image:?}: ErrImagePull: {}", trouble.message);
            return json!({"reason": "ImagePullBackOff", "message": message});
        }
        let is_crash = trouble.reason == "RunContainerError" && track.ended().is_some();
        if !(is_crash && shown_long) {
            return json!({"reason": trouble.reason, "message": trouble.message});
        }
    }
    if let (Stage::Ended(_), Some(_)) = (&track.stage, track.restart_at) {
        let metadata = &view.pod.metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let wait = in_words(track.restart_wait);
        let message = format!(
            "back-off {wait} restarting failed container={} pod={}_{}({})",
            container.name,
            text(&metadata.name),
            text(&metadata.namespace),
            text(&metadata.uid)
        );
        return json!({"reason": "CrashLoopBackOff", "message": message});
    }
    let has_init = spec.init_containers.as_ref().is_some_and(|init| !init.is_empty());
    let initializing = has_init && (is_init || !is_initialized(spec, view.tracks));
    json!({"reason": if initializing { "PodInitializing" } else { "ContainerCreating" }})
}

/// `10s` or `2m40s`.
fn in_words(wait: Duration) -> String {
    match (wait.as_secs() / 60, wait.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

fn terminated(ended: &Ended, id: &str) -> Value {
    let exit = &ended.exit;
    let reason = match (exit.reason, exit.code) {
        (ExitReason::OutOfMemory, _) => "OOMKilled",
        (ExitReason::StartFailed, _) => "StartError",
        (ExitReason::Unknown, _) => "ContainerStatusUnknown",
        (ExitReason::Ended, _) if exit.oom => "OOMKilled",
        (ExitReason::Ended, 0) => "Completed",
        (ExitReason::Ended, _) => "Error",
    };
    let mut out = json!({
        "exitCode": exit.code, "reason": reason, "finishedAt": rfc3339(exit.finished_at),
    });
    if !id.is_empty() {
        out["containerID"] = json!(id);
    }
    out["startedAt"] = json!(rfc3339(exit.started_at.unwrap_or(exit.finished_at)));
    if let Some(signal) = exit.signal {
        out["signal"] = json!(signal);
    }
    let message = if ended.message.is_empty() { &exit.message } else { &ended.message };
    if !message.is_empty() {
        out["message"] = json!(message);
    }
    out
}

fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A condition before its times are known.
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

fn conditions(view: &StatusView, spec: &core::PodSpec, phase: &str) -> Vec<Value> {
    let is_up = matches!(view.ground, Ground::Up(_));
    let mut wanted = vec![
        Condition { kind: "PodReadyToStartContainers", holds: is_up, reason: "", message: String::new() },
        initialized(view, spec, phase),
    ];
    let containers = containers_ready(view, spec, phase);
    let gates = ready(view, spec, &containers);
    wanted.push(gates);
    wanted.push(containers);
    wanted.push(Condition { kind: "PodScheduled", holds: true, reason: "", message: String::new() });
    if let Some(failure) = view.failure.filter(|failure| failure.is_disruption) {
        let (reason, message) = ("TerminationByKubelet", failure.message.clone());
        wanted.push(Condition { kind: "DisruptionTarget", holds: true, reason, message });
    }
    match view.resizing {
        Resizing::Done => {}
        Resizing::Pending { reason, message } => {
            wanted.push(Condition { kind: PASSING[0], holds: true, reason, message: message.clone() });
        }
        Resizing::InProgress { trouble } => {
            let reason = if trouble.is_some() { "Error" } else { "" };
            let message = trouble.clone().unwrap_or_default();
            wanted.push(Condition { kind: PASSING[1], holds: true, reason, message });
        }
    }
    wanted.into_iter().map(|condition| timed(view, condition)).collect()
}

/// R3.
fn timed(view: &StatusView, wanted: Condition) -> Value {
    let status = if wanted.holds { "True" } else { "False" };
    let found = condition_of(view.current, wanted.kind);
    let since = found.filter(|found| found["status"] == status).and_then(|found| found["lastTransitionTime"].as_str());
    let since = since.map_or_else(|| rfc3339(view.now), str::to_owned);
    let mut out = json!({"type": wanted.kind, "status": status, "lastTransitionTime": since});
    if let Some(generation) = view.pod.metadata.generation {
        out["observedGeneration"] = json!(generation);
    }
    if !wanted.reason.is_empty() {
        out["reason"] = json!(wanted.reason);
    }
    if !wanted.message.is_empty() {
        out["message"] = json!(wanted.message);
    }
    out
}

fn condition_of<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn initialized(view: &StatusView, spec: &core::PodSpec, phase: &str) -> Condition {
    let kind = "Initialized";
    if phase == "Succeeded" {
        return Condition { kind, holds: true, reason: "PodCompleted", message: String::new() };
    }
    if is_initialized(spec, view.tracks) {
        return Condition { kind, holds: true, reason: "", message: String::new() };
    }
    let left = spec.init_containers.iter().flatten().filter(|container| {
        let track = &view.tracks[&container.name];
        !match is_sidecar(container) {
            true => track.is_started(),
            false => track.ended().is_some_and(|ended| ended.exit.code == 0),
        }
    });
    let message = format!("containers with incomplete status: [{}]", names(left));
    Condition { kind, holds: false, reason: "ContainersNotInitialized", message }
}

fn containers_ready(view: &StatusView, spec: &core::PodSpec, phase: &str) -> Condition {
    let kind = "ContainersReady";
    match phase {
        "Succeeded" => return Condition { kind, holds: false, reason: "PodCompleted", message: String::new() },
        "Failed" => return Condition { kind, holds: false, reason: "PodFailed", message: String::new() },
        _ => {}
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let unready: Vec<&core::Container> =
        sidecars.chain(&spec.containers).filter(|container| !view.tracks[&container.name].is_ready()).collect();
    if unready.is_empty() {
        return Condition { kind, holds: true, reason: "", message: String::new() };
    }
    let message = format!("containers with unready status: [{}]", names(unready.into_iter()));
    Condition { kind, holds: false, reason: "ContainersNotReady", message }
}

fn ready(view: &StatusView, spec: &core::PodSpec, containers: &Condition) -> Condition {
    let kind = "Ready";
    if !containers.holds {
        let message = containers.message.clone();
        return Condition { kind, holds: false, reason: containers.reason, message };
    }
    let unmet: Vec<String> = spec
        .readiness_gates
        .iter()
        .flatten()
        .filter(|gate| condition_of(view.current, &gate.condition_type).is_none_or(|found| found["status"] != "True"))
        .map(|gate| {
            format!(
                "corresponding condition of pod readiness gate {:?} does not exist or is not True.",
                gate.condition_type
            )
        })
        .collect();
    if unmet.is_empty() {
        return Condition { kind, holds: true, reason: "", message: String::new() };
    }
    Condition { kind, holds: false, reason: "ReadinessGatesNotReady", message: unmet.join(", ") }
}

fn names<'a>(containers: impl Iterator<Item = &'a core::Container>) -> String {
    containers.map(|container| container.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// R5: the strategic merge patch that makes `current` what `desired` says; `None` when nothing differs.
pub fn patch(desired: &Value, current: &Value, uid: &str) -> Option<Value> {
    let desired = desired.as_object().expect("a status is an object");
    let mut changed = Map::new();
    for (field, value) in desired {
        let found = &current[field.as_str()];
        match field.as_str() {
            "conditions" => {
                let differs = |condition: &&Value| {
                    let kind = condition["type"].as_str().unwrap_or_default();
                    condition_of(current, kind) != Some(*condition)
                };
                let mut differing: Vec<Value> =
                    value.as_array().into_iter().flatten().filter(differs).map(without_leftovers).collect();
                let is_over = |kind: &&&str| {
                    let mut wanted = value.as_array().into_iter().flatten();
                    condition_of(current, kind).is_some() && !wanted.any(|one| one["type"] == **kind)
                };
                differing.extend(PASSING.iter().filter(is_over).map(|kind| json!({"$patch": "delete", "type": kind})));
                if !differing.is_empty() {
                    changed.insert(field.clone(), json!(differing));
                }
            }
            // Lists merged by address would keep the old ones.
            "podIPs" | "hostIPs" if found != value && found.as_array().is_some_and(|found| !found.is_empty()) => {
                let mut list = vec![json!({"$patch": "replace"})];
                list.extend(value.as_array().into_iter().flatten().cloned());
                changed.insert(field.clone(), json!(list));
            }
            _ if found != value => {
                changed.insert(field.clone(), value.clone());
            }
            _ => {}
        }
    }
    for field in ["reason", "message"] {
        // Only what this node may have written itself is taken back.
        if !desired.contains_key(field) && current[field].is_string() && desired["phase"] != "Failed" {
            changed.insert(field.to_owned(), Value::Null);
        }
    }
    (!changed.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changed}))
}

/// A condition is merged by its type, so what it has no more must be said to be gone.
fn without_leftovers(condition: &Value) -> Value {
    let mut condition = condition.clone();
    for field in ["reason", "message"] {
        if condition.get(field).is_none() {
            condition[field] = Value::Null;
        }
    }
    condition
}

#[cfg(test)]
mod tests {
    use super::{Failure, Resizing, StatusView, patch, status};
    use crate::backoff::RetryBackoff;
    use crate::plan::tests::{ended, running};
    use crate::plan::{Ground, Stage, Track, Trouble};
    use crate::probe::{ProbeKind, ProbeState};
    use jiff::Timestamp;
    use serde_json::{Value, json};
    use std::time::Duration;
    use tokio::time::Instant;

    struct Case {
        spec: Value,
        tracks: Vec<(&'static str, Track)>,
        current: Value,
        ending: bool,
    }

    impl Case {
        fn new(spec: Value, tracks: Vec<(&'static str, Track)>) -> Case {
            Case { spec, tracks, current: json!({}), ending: false }
        }
    }

    fn check(case: Case) -> Value {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 3}, "spec": case.spec});
        let pod = serde_json::from_value(pod).expect("a pod");
        let tracks = case.tracks.into_iter().map(|(name, track)| (name.to_owned(), track)).collect();
        let ground = Ground::Up(vec!["10.42.0.5".parse().expect("an address")]);
        status(&StatusView {
            visitors: &[],
            pod: &pod,
            current: &case.current,
            tracks: &tracks,
            ground: &ground,
            ending: case.ending,
            failure: None,
            resizing: &Resizing::Done,
            host_ips: &["192.0.2.1".parse().expect("an address")],
            now: Timestamp::UNIX_EPOCH,
            instant: Instant::now(),
        })
    }

    fn one() -> Value {
        json!({"containers": [{"name": "a", "image": "web:1"}]})
    }

    fn over(code: i32) -> Track {
        Track { stage: Stage::Ended(ended(0, code)), ..Track::new() }
    }

    fn conditions(status: &Value) -> String {
        let list = status["conditions"].as_array().expect("a list").iter();
        list.filter(|condition| condition["status"] == "True")
            .map(|condition| condition["type"].as_str().expect("a type"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn r1_phase_follows_the_containers() {
        let policy = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
        let rows = [
            (one(), Track::new(), "Pending"),
            (one(), running(), "Running"),
            (one(), over(1), "Running"),
            (policy("Never"), over(1), "Failed"),
            (policy("Never"), over(0), "Succeeded"),
            (policy("OnFailure"), over(1), "Running"),
            (policy("OnFailure"), over(0), "Succeeded"),
        ];
        for (spec, track, expected) in rows {
            assert_eq!(check(Case::new(spec.clone(), vec![("a", track)]))["phase"], expected, "{spec}");
        }
        let deleted = Case { ending: true, ..Case::new(one(), vec![("a", over(143))]) };
        assert_eq!(check(deleted)["phase"], "Failed");
    }

    #[test]
    fn who_fails_for_the_sake_of_its_node_is_told_to_be_disrupted() {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": one()}));
        let (pod, tracks) = (pod.expect("a pod"), [("a".to_owned(), over(137))].into());
        let with = |reason: &'static str, is_disruption: bool| {
            let failure = Failure { reason, message: "why".to_owned(), is_disruption };
            let status = status(&StatusView {
                visitors: &[],
                pod: &pod,
                current: &Value::Null,
                tracks: &tracks,
                ground: &Ground::Down,
                ending: true,
                failure: Some(&failure),
                resizing: &Resizing::Done,
                host_ips: &[],
                now: Timestamp::UNIX_EPOCH,
                instant: Instant::now(),
            });
            assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!(reason)));
            conditions(&status).contains("DisruptionTarget")
        };
        assert!(with("Evicted", true) && with("Terminated", true));
        assert!(!with("Evicted", false), "it has taken more than its limits");
    }

    #[test]
    fn r2_a_container_that_waits_says_why() {
        let state = |track: Track| {
            let status = check(Case::new(one(), vec![("a", track)]));
            status["containerStatuses"][0].clone()
        };
        assert_eq!(state(Track::new())["state"]["waiting"]["reason"], "ContainerCreating");
        let trouble = |reason, ago| Trouble { reason, message: "no route".to_owned(), since: Instant::now() - ago };
        let failed =
            |reason, ago| Track { trouble: Some(trouble(reason, ago)), retry: RetryBackoff::pull(), ..Track::new() };
        assert_eq!(state(failed("ErrImagePull", Duration::ZERO))["state"]["waiting"]["reason"], "ErrImagePull");
        let later = state(failed("ErrImagePull", Duration::from_secs(3)));
        assert_eq!(later["state"]["waiting"]["reason"], "ImagePullBackOff");
        assert_eq!(later["state"]["waiting"]["message"], "Back-off pulling image \"web:1\": ErrImagePull: no route");
        let crashed = Track {
            attempt: 2,
            restart_at: Some(Instant::now() + Duration::from_secs(20)),
            restart_wait: Duration::from_secs(160),
            stage: Stage::Ended(ended(2, 1)),
            last: Some(ended(1, 7)),
            ..Track::new()
        };
        let crashed = state(crashed);
        assert_eq!(crashed["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(crashed["state"]["waiting"]["message"], "back-off 2m40s restarting failed container=a pod=p_ns(u)");
        assert_eq!(crashed["lastState"]["terminated"]["exitCode"], 1, "the last attempt, not the one before");
        assert_eq!(crashed["restartCount"], 2);
    }

    #[test]
    fn init_containers_hold_the_others_back() {
        let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        let status = check(Case::new(spec.clone(), vec![("i", running()), ("a", Track::new())]));
        assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
        assert_eq!(conditions(&status), "PodReadyToStartContainers PodScheduled");
        let done = check(Case::new(spec, vec![("i", over(0)), ("a", running())]));
        assert_eq!(done["initContainerStatuses"][0]["ready"], true);
        assert_eq!(conditions(&done), "PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled");
    }

    #[test]
    fn readiness_decides_ready_and_startup_decides_started() {
        let probe = serde_json::from_value(json!({})).expect("a probe");
        let with = |kind, verdict| {
            let mut track = running();
            let mut state = ProbeState::begin(&probe, Instant::now());
            state.verdict = verdict;
            track.probes.insert(kind, state);
            let status = check(Case::new(one(), vec![("a", track)]));
            let container = &status["containerStatuses"][0];
            (container["ready"] == true, container["started"] == true)
        };
        assert_eq!(with(ProbeKind::Readiness, None), (false, true));
        assert_eq!(with(ProbeKind::Readiness, Some(true)), (true, true));
        assert_eq!(with(ProbeKind::Startup, None), (false, false));
        assert_eq!(with(ProbeKind::Liveness, None), (true, true));
    }

    #[test]
    fn a_readiness_gate_of_others_is_waited_for() {
        let spec = json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "a"}]});
        let unmet = check(Case::new(spec.clone(), vec![("a", running())]));
        assert!(!conditions(&unmet).contains(" Ready "), "{unmet}");
        let current = json!({"conditions": [{"type": "x/y", "status": "True"}]});
        let met = check(Case { current, ..Case::new(spec, vec![("a", running())]) });
        assert!(conditions(&met).contains(" Ready "), "{met}");
    }

    #[test]
    fn r3_a_conditions_time_moves_only_with_its_status() {
        let old = "2020-01-01T00:00:00Z";
        let current = json!({"startTime": old, "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": old},
            {"type": "Initialized", "status": "False", "lastTransitionTime": old}]});
        let status = check(Case { current, ..Case::new(one(), vec![("a", running())]) });
        let time = |kind: &str| super::condition_of(&status, kind).expect("there")["lastTransitionTime"].clone();
        assert_eq!((time("Ready"), time("Initialized")), (json!(old), json!("1970-01-01T00:00:00Z")));
        assert_eq!(status["startTime"], old);
    }

    #[test]
    fn r4_what_is_over_stays_over() {
        let current = json!({"phase": "Succeeded"});
        assert_eq!(check(Case { current, ..Case::new(one(), vec![("a", running())]) })["phase"], "Succeeded");
    }

    #[test]
    fn a_resize_that_is_over_takes_its_condition_along() {
        let status = check(Case::new(one(), vec![("a", running())]));
        let mut current = status.clone();
        let pending = json!({"type": "PodResizePending", "status": "True", "reason": "Deferred"});
        current["conditions"].as_array_mut().expect("a list").push(pending);
        let patch = patch(&status, &current, "u").expect("it differs");
        assert_eq!(patch["status"]["conditions"], json!([{"$patch": "delete", "type": "PodResizePending"}]));
    }

    #[test]
    fn r5_only_what_differs_is_written() {
        let status = check(Case::new(one(), vec![("a", running())]));
        assert_eq!(patch(&status, &status, "u"), None);
        let mut current = status.clone();
        current["conditions"][2]["status"] = json!("False");
        current["conditions"].as_array_mut().expect("a list").push(json!({"type": "x/y", "status": "True"}));
        current["podIPs"] = json!([{"ip": "10.42.0.4"}]);
        current["reason"] = json!("Evicted");
        let patch = patch(&status, &current, "u").expect("it differs");
        assert_eq!(patch["metadata"]["uid"], "u");
        let changed = patch["status"].as_object().expect("an object");
        assert_eq!(changed.keys().collect::<Vec<_>>(), ["conditions", "podIPs", "reason"]);
        assert_eq!(changed["conditions"].as_array().expect("a list").len(), 1);
        assert_eq!(changed["podIPs"], json!([{"$patch": "replace"}, {"ip": "10.42.0.5"}]));
        assert_eq!(changed["reason"], Value::Null);
    }
}
