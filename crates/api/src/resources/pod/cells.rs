//! What `kubectl get pods` says of a pod: how many containers are ready, and one word for what it is doing.
//!
//! Rules for the word, each overruling those before it
//!   R1 phase     the phase, or the status' own reason
//!   R2 gated     SchedulingGated while a gate holds it back
//!   R3 init      `Init:…` of the first init container that has not finished
//!   R4 main      unless R3 spoke: why the first container that is not running waits or ended
//!   R5 mixed     Completed beside a running container is Running, or NotReady
//!   R6 ending    Terminating while it is being deleted; Unknown if its node is lost

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::age;
use super::super::tree::Tree;

/// The cells of a pod, one per column.
pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let seen = Seen::of(pod);
    let address = status.items("podIPs").first().map_or(status.text("podIP"), |address| address.text("ip"));
    vec![
        json!(pod["metadata"].text("name")),
        json!(format!("{}/{}", seen.ready, seen.total)),
        json!(seen.word),
        json!(seen.restarts.shown(now)),
        age::of(pod, now),
        json!(or_none(address)),
        json!(or_none(spec.text("nodeName"))),
        json!(or_none(status.text("nominatedNodeName"))),
        json!(readiness_gates(pod)),
    ]
}

/// Restarts, and when the last one was.
#[derive(Clone, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += container.int("restartCount").unwrap_or(0);
        let ended = container["lastState"]["terminated"].text("finishedAt").parse::<Timestamp>().ok();
        self.last = self.last.max(ended);
    }

    fn shown(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, age::between(last, now))
            }
            _ => self.count.to_string(),
        }
    }
}

struct Seen {
    total: usize,
    ready: usize,
    word: String,
    restarts: Restarts,
}

impl Seen {
    fn of(pod: &Value) -> Seen {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let sidecars = spec.items("initContainers").iter().filter(|container| is_sidecar(container)).count();
        let mut seen = Seen {
            total: spec.items("containers").len() + sidecars,
            ready: 0,
            word: word_of_status(status),
            restarts: Restarts::default(),
        };
        let (initializing, restarts_of_sidecars) = seen.init_containers(pod);
        if !initializing || has_condition(status, "Initialized") {
            seen.restarts = restarts_of_sidecars;
            seen.main_containers(status);
        }
        if pod["metadata"].is_set("deletionTimestamp") {
            let ended = matches!(status.text("phase"), "Succeeded" | "Failed");
            if status.text("reason") == "NodeLost" {
                "Unknown".clone_into(&mut seen.word);
            } else if !ended {
                "Terminating".clone_into(&mut seen.word);
            }
        }
        seen
    }

    /// R3. Gives whether initialisation goes on, and the restarts of sidecars, which go on counting when it is over.
    fn init_containers(&mut self, pod: &Value) -> (bool, Restarts) {
        let specs = pod["spec"].items("initContainers");
        let mut of_sidecars = Restarts::default();
        for (index, container) in pod["status"].items("initContainerStatuses").iter().enumerate() {
            let spec = specs.iter().find(|spec| spec.text("name") == container.text("name"));
            let sidecar = spec.is_some_and(is_sidecar);
            self.restarts.add(container);
            if sidecar {
                of_sidecars.add(container);
            }
            let (ended, waiting) = (&container["state"]["terminated"], container["state"]["waiting"].text("reason"));
            if ended.is_object() && ended.int("exitCode").unwrap_or(0) == 0 {
                continue;
            }
            if sidecar && container.flag("started") {
                self.ready += usize::from(container.flag("ready"));
                continue;
            }
            self.word = if ended.is_object() {
                format!("Init:{}", word_of_end(ended))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", specs.len())
            };
            return (true, of_sidecars);
        }
        (false, of_sidecars)
    }

    /// R4 and R5.
    fn main_containers(&mut self, status: &Value) {
        let mut running = false;
        for container in status.items("containerStatuses").iter().rev() {
            self.restarts.add(container);
            let state = &container["state"];
            match state["waiting"].text("reason") {
                "" if state["terminated"].is_object() => self.word = word_of_end(&state["terminated"]),
                "" => {
                    if container.flag("ready") && state["running"].is_object() {
                        running = true;
                        self.ready += 1;
                    }
                }
                reason => reason.clone_into(&mut self.word),
            }
        }
        if running && self.word == "Completed" {
            self.word = if has_condition(status, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

/// R1 and R2.
fn word_of_status(status: &Value) -> String {
    let gated = status
        .items("conditions")
        .iter()
        .any(|condition| condition.text("type") == "PodScheduled" && condition.text("reason") == "SchedulingGated");
    match status.text("reason") {
        _ if gated => "SchedulingGated".to_owned(),
        "" => status.text("phase").to_owned(),
        reason => reason.to_owned(),
    }
}

fn word_of_end(ended: &Value) -> String {
    match (ended.text("reason"), ended.int("signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.int("exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

fn has_condition(status: &Value, kind: &str) -> bool {
    let mut conditions = status.items("conditions").iter();
    conditions.any(|condition| condition.text("type") == kind && condition.text("status") == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod["spec"].items("readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let met = gates.iter().filter(|gate| has_condition(&pod["status"], gate.text("conditionType"))).count();
    format!("{met}/{}", gates.len())
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}
