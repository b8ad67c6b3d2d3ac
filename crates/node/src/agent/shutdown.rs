//! The machine goes down: pods end in order, within the time there is, and the API hears of it.
//!
//! Rules
//!   S1 told      the node is not Ready any more, so that no more pods come; those that come all the same are refused
//!   S2 order     ordinary pods first, then those of the critical priority classes; each part has its own time, and what
//!                the first leaves over is not lost to the second
//!   S3 grace     a pod gets the grace it wants, at most the time of its part; preStop hooks run within it
//!   S4 reported  ended pods are Failed with reason `Terminated`, and that is written before the agent ends, if it can be
//! Source: Kubernetes documentation, "Node shutdowns" (graceful node shutdown)
//! Not here       finding out that the machine goes down: whoever sends the signal knows

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{PodDirectory, PodEntry, Shared};
use crate::node;
use crate::pod::Dismissal;
use crate::steps::resources;

/// How often it is looked how far pods are.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long the API is waited for after the last container has ended.
const REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// What an ended pod's status says.
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";

/// Ends the pods of an agent. Cheap to clone.
#[derive(Clone)]
pub struct Shutdown {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: PodDirectory,
}

impl Shutdown {
    /// Ends all pods within `total`, of which the last `critical` belongs to the critical ones. The agent must run on
    /// until this returns.
    pub async fn run(&self, total: Duration, critical: Duration) {
        let end = Instant::now() + total;
        let critical = critical.min(total);
        tracing::info!(?total, ?critical, "the machine goes down: pods end");
        self.shared.begin_shutdown();
        if let Some(node) = self.shared.node.get("", &self.shared.config.name)
            && let Err(error) = node::report(&self.shared, &node.value()["status"]).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the API was not told that the node goes down");
        }
        self.end(end - critical, |priority| priority < resources::CRITICAL_PRIORITY).await;
        self.end(end, |_| true).await;
        let patience = Instant::now() + REPORT_TIMEOUT;
        self.wait(patience, is_over).await;
    }

    /// S2, S3.
    async fn end(&self, until: Instant, is_meant: impl Fn(i32) -> bool) {
        let is_meant = |entry: &PodEntry| is_meant(priority(entry));
        for entry in self.directory.list().iter().filter(|entry| is_meant(entry)) {
            let grace = until.saturating_duration_since(Instant::now());
            self.directory.dismiss(&entry.uid, Dismissal::Shutdown { message: MESSAGE.to_owned(), grace });
        }
        self.wait(until, |entry| !is_meant(entry) || !runs(entry)).await;
    }

    /// Waits until all pods are so, or it is too late.
    async fn wait(&self, until: Instant, is_so: impl Fn(&PodEntry) -> bool) {
        while Instant::now() < until && !self.directory.list().iter().all(&is_so) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

fn pod(entry: &PodEntry) -> Value {
    serde_json::from_slice(&entry.shown.json).unwrap_or_default()
}

fn priority(entry: &PodEntry) -> i32 {
    pod(entry)["spec"]["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok()).unwrap_or(0)
}

fn runs(entry: &PodEntry) -> bool {
    entry.shown.containers.values().flatten().any(|(_, runs)| *runs)
}

/// Whether the API knows that it is over.
fn is_over(entry: &PodEntry) -> bool {
    matches!(pod(entry)["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}
