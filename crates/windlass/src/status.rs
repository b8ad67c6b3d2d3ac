//! `windlass status`: how the cluster is, in a few lines.

use anyhow::{Context, Result};
use windlass_api::types::core::{Node, Pod};
use windlass_api::{Kind, kinds};
use windlass_client::{Client, ListOptions};

use crate::admin;
use crate::place::{Place, Running};

/// Prints the status.
pub fn run(place: &Place) -> Result<()> {
    let running = admin::running(place)?;
    println!("windlass {}  pid {}  {}", running.role, running.pid, running.server);
    if running.role == "node" {
        println!("this machine is a node; ask the server for the state of the cluster");
        return Ok(());
    }
    let client = admin::client(place, &running)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(print(&client, place, &running))
}

async fn print(client: &Client, place: &Place, running: &Running) -> Result<()> {
    let everything = ListOptions::default();
    let nodes = client
        .list(&kinds::NODE, None, &everything)
        .await
        .with_context(|| format!("{} does not answer; its log is in {}", running.server, place.log().display()))?;
    println!("\n{:<24} {:<10} {:<16} {:>5}", "NODE", "STATUS", "ADDRESS", "PODS");
    let pods = client.list(&kinds::POD, None, &everything).await?;
    for object in &nodes.items {
        let node: Node = object.decode()?;
        let name = object.header.name();
        let mine = pods.items.iter().filter(|pod| pod.header.node_name() == name).count();
        println!("{name:<24} {:<10} {:<16} {mine:>5}", readiness(&node), address(&node));
    }
    let mut waiting = Vec::new();
    for object in &pods.items {
        let pod: Pod = object.decode()?;
        if let Some(why) = why_not_ready(&pod) {
            waiting.push(format!("{}/{}: {why}", object.header.namespace(), object.header.name()));
        }
    }
    println!("\n{} pods, {} not Ready", pods.items.len(), waiting.len());
    for line in &waiting {
        println!("  {line}");
    }
    for kind in [&kinds::DEPLOYMENT, &kinds::SERVICE, &kinds::NAMESPACE] {
        println!("{:>5} {}", count(client, kind).await?, kind.plural);
    }
    Ok(())
}

async fn count(client: &Client, kind: &Kind) -> Result<usize> {
    Ok(client.list(kind, None, &ListOptions::default()).await?.items.len())
}

fn readiness(node: &Node) -> &'static str {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    }
}

fn address(node: &Node) -> &str {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let internal = addresses.into_iter().flatten().find(|address| address.type_ == "InternalIP");
    internal.map_or("", |address| &address.address)
}

/// Why a pod that should be Ready is not, in the words of its own status.
fn why_not_ready(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded")) {
        return None;
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return None;
    }
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let waiting = containers.iter().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let message = waiting.message.as_deref().unwrap_or_default();
        Some(format!("{} {message}", waiting.reason.as_deref().unwrap_or_default()))
    });
    let unmet = conditions.iter().find(|condition| condition.status == "False");
    let unmet = unmet.map(|condition| {
        let message = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
        format!("{} {message}", condition.type_)
    });
    Some(waiting.or(unmet).unwrap_or_else(|| status.phase.clone().unwrap_or_default()))
}
