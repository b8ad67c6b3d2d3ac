//! NodeMetrics and PodMetrics: what nodes and pods use now, as their nodes count it.
//!
//! Rules
//!   M1 asked      nothing is stored, and nobody counts while nobody asks: the nodes' agents are asked for their summary
//!   M2 once       what an agent said is good for a while, an answer that did not come too; who asks meanwhile waits for the
//!                 same answer
//!   M3 few        only nodes are asked that have something of what is wanted: the pods that the selectors leave
//!   M4 away       what a node that does not answer would have said is missing in lists; alone it is 503
//!   M5 running    a pod that does not run, or of which its node does not know yet, uses nothing that could be told
//!
//! Relies on        `sub::stream` for the way to an agent
//! Not here         metrics of programs' own (custom.metrics.k8s.io): another server's, behind the aggregation layer
//! Source: metrics.k8s.io/v1beta1; Kubernetes documentation, "Resource metrics pipeline".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use http::header::HOST;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_api::{ApiError, Kind, kinds};
use windlass_stdx::body_empty;
use windlass_store::{Entry, Range};

use crate::answer::{Answer, Payload};
use crate::failure::{commit_failed, read_failed};
use crate::key;
use crate::select::Selection;
use crate::server::{Call, Server, header};
use crate::sub::stream::{connect, unreachable};

/// How long an answer is good for: autoscalers ask every 15 s, and shall get another one each time.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// How long an agent may take to answer: it looks twice, a second apart.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(8);
/// Agents asked at a time.
const ASKED_MAX: usize = 32;
/// The longest summary that is taken: of some thousand pods.
const SUMMARY_BYTES_MAX: usize = 16 << 20;
const SUMMARY: &str = "/stats/summary?only_cpu_and_memory=true";

/// What nodes have said, by their names.
#[derive(Default)]
pub(crate) struct Usage(Mutex<BTreeMap<String, Arc<Said>>>);

/// M2. Held while the agent is asked.
type Said = tokio::sync::Mutex<Option<(Instant, Result<Arc<Summary>, ApiError>)>>;

/// What of an agent's summary is used.
#[derive(Deserialize)]
struct Summary {
    node: Part,
    pods: Vec<PodPart>,
    #[serde(rename = "windowSeconds")]
    window_seconds: f64,
}

#[derive(Deserialize)]
struct PodPart {
    #[serde(rename = "podRef")]
    pod: PodName,
    containers: Vec<Part>,
}

#[derive(Deserialize)]
struct PodName {
    uid: String,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    name: String,
    cpu: Cpu,
    memory: Memory,
    #[serde(default)]
    swap: Swap,
}

#[derive(Deserialize)]
struct Cpu {
    time: String,
    #[serde(rename = "usageNanoCores")]
    rate: Option<u64>,
}

#[derive(Deserialize)]
struct Memory {
    #[serde(rename = "workingSetBytes")]
    working_set_bytes: u64,
}

#[derive(Deserialize, Default)]
struct Swap {
    #[serde(rename = "swapUsageBytes", default)]
    bytes: u64,
}

/// One object.
pub(crate) async fn get(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { server, target, .. } = call;
    server.store.read_barrier().await.map_err(commit_failed)?;
    let kind = &target.resource.kind;
    let missing = || ApiError::not_found(kind, &target.name);
    let of = if *kind == kinds::NODE_METRICS { &kinds::NODE } else { &kinds::POD };
    let entry = server.store.get(&key::object(of, &target.namespace, &target.name)).ok_or_else(missing)?;
    let node = if *of == kinds::NODE { target.name.clone() } else { header(&entry).node_name().to_owned() };
    if node.is_empty() {
        return Err(missing());
    }
    let summary = ask(server, &node).await?;
    let metrics = metrics(server, kind, &entry, &summary).ok_or_else(missing)?;
    Ok(Answer::object(metrics.to_string().into()))
}

/// All that are asked for, of nodes that answer.
pub(crate) async fn list(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { server, target, .. } = call;
    let selection = Selection::parse(target, call.query)?;
    server.store.read_barrier().await.map_err(commit_failed)?;
    let kind = &target.resource.kind;
    let of = if *kind == kinds::NODE_METRICS { &kinds::NODE } else { &kinds::POD };
    let range = Range::prefix(key::prefix(of, &target.namespace));
    let found = server.store.range(&range).map_err(read_failed)?;
    let found: Vec<Arc<Entry>> = found.entries.into_iter().filter(|entry| selection.matches(entry)).collect();
    // M3
    let node_of = |entry: &Entry| match *of == kinds::NODE {
        true => header(entry).name().to_owned(),
        false => header(entry).node_name().to_owned(),
    };
    let nodes: BTreeSet<String> = found.iter().map(|entry| node_of(entry)).filter(|node| !node.is_empty()).collect();
    let said: BTreeMap<String, Arc<Summary>> = stream::iter(nodes)
        .map(|node| async move {
            let said = ask(server, &node).await;
            // M4
            let said = said.inspect_err(|error| tracing::debug!(node, error = error.message, "a node says nothing"));
            Some((node, said.ok()?))
        })
        .buffer_unordered(ASKED_MAX)
        .filter_map(|said| async move { said })
        .collect()
        .await;
    let entries = found.iter().filter_map(|entry| {
        let metrics = metrics(server, kind, entry, said.get(&node_of(entry))?)?;
        let (namespace, name) = key::place(entry.key());
        Some(Arc::new(Entry::made_up(&key::object(kind, namespace, name), metrics.to_string())))
    });
    let entries: Vec<Arc<Entry>> = entries.collect();
    Ok(Answer {
        code: StatusCode::OK,
        payload: Payload::List { objects: entries.into(), metadata: json!({}) },
        warnings: Vec::new(),
    })
}

/// M5: the metrics of a Node or a Pod, from what its node has said.
fn metrics(server: &Server, kind: &Kind, entry: &Entry, summary: &Summary) -> Option<Value> {
    let of = header(entry);
    let now = server.world.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut metadata = json!({"name": of.name(), "creationTimestamp": now});
    if !of.namespace().is_empty() {
        metadata["namespace"] = json!(of.namespace());
    }
    let labels = of.labels().to_map();
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    let mut out = json!({
        "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata,
        "window": format!("{:.3}s", summary.window_seconds),
    });
    if *kind == kinds::NODE_METRICS {
        out["timestamp"] = json!(summary.node.cpu.time);
        out["usage"] = usage(&summary.node)?;
        return Some(out);
    }
    let pod = summary.pods.iter().find(|pod| pod.pod.uid == of.uid())?;
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .filter_map(|container| Some(json!({"name": container.name, "usage": usage(container)?})))
        .collect();
    out["timestamp"] = json!(pod.containers.first()?.cpu.time);
    out["containers"] = Value::Array(containers);
    Some(out)
}

fn usage(part: &Part) -> Option<Value> {
    let mut usage =
        json!({"cpu": format!("{}n", part.cpu.rate?), "memory": format!("{}Ki", part.memory.working_set_bytes / 1024)});
    if part.swap.bytes > 0 {
        usage["swap"] = json!(format!("{}Ki", part.swap.bytes / 1024));
    }
    Some(usage)
}

/// M2.
async fn ask(server: &Server, node: &str) -> Result<Arc<Summary>, ApiError> {
    let said = {
        let mut all = server.usage.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(node) {
            // As many as there are nodes.
            all.retain(|known, _| server.store.get(&key::object(&kinds::NODE, "", known)).is_some());
        }
        Arc::clone(all.entry(node.to_owned()).or_default())
    };
    let mut said = said.lock().await;
    if let Some((_, answer)) = said.as_ref().filter(|(at, _)| at.elapsed() < GOOD_FOR) {
        return answer.clone();
    }
    let asked = tokio::time::timeout(ANSWER_TIME_MAX, fetch(server, node)).await;
    let late = |_| Err(unreachable(node, &format!("no answer within {ANSWER_TIME_MAX:?}")));
    let answer = asked.unwrap_or_else(late);
    *said = Some((Instant::now(), answer.clone()));
    answer
}

async fn fetch(server: &Server, node: &str) -> Result<Arc<Summary>, ApiError> {
    let failed = |error: &dyn std::fmt::Display| unreachable(node, error);
    let mut sender = connect(server, node).await?;
    let host = HeaderValue::from_str(node).map_err(ApiError::internal)?;
    let request = Request::get(SUMMARY).header(HOST, host).body(body_empty()).map_err(ApiError::internal)?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    if response.status() != StatusCode::OK {
        return Err(failed(&format!("it answered {} to {SUMMARY}", response.status())));
    }
    let body = BodyExt::boxed_unsync(response.into_body().map_err(Into::into));
    let read = windlass_stdx::read_body(body, SUMMARY_BYTES_MAX).await.map_err(|error| failed(&error))?;
    let bytes = read.ok_or_else(|| failed(&format!("its summary is longer than {SUMMARY_BYTES_MAX} bytes")))?;
    serde_json::from_slice(&bytes).map(Arc::new).map_err(|error| failed(&format!("its summary is not one: {error}")))
}
