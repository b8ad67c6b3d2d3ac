//! From a Job to its end: every pod that has ended is counted, once.

use serde_json::json;
use windlass_api::{Subresource, kinds};
use windlass_client::{Cached, Patch};

use super::Cluster;

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

fn job(completions: u32) -> serde_json::Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sum", "namespace": "default"},
        "spec": {"parallelism": 3, "completions": completions, "completionMode": "Indexed",
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "sum:1"}]}}}})
}

/// Ends every pod, well.
async fn succeed_all(cluster: &Cluster) {
    let mut changes = cluster.caches.of(&kinds::POD).subscribe();
    loop {
        let windlass_client::Notice::Changed(change) = changes.next().await else { continue };
        let Some(pod) = change.new.filter(|pod| pod.header.phase() == "Pending") else { continue };
        let patch = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        let (namespace, name) = (pod.header.namespace(), pod.header.name());
        let patched = cluster.client.patch(&kinds::POD, namespace, name, &patch, Some(Subresource::Status)).await;
        patched.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn is_complete(job: &Cached) -> bool {
    let status = job.value()["status"].take();
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Complete" && condition["status"] == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_counts_every_success_once_and_lets_its_pods_go() {
    let cluster = Cluster::start().await;
    cluster.create(&kinds::JOB, job(7)).await;
    let complete = |jobs: &[std::sync::Arc<Cached>]| jobs.iter().any(|job| is_complete(job));
    let done = tokio::select! {
        done = cluster.until(&kinds::JOB, "a complete job", complete) => done,
        () = succeed_all(&cluster) => unreachable!("it goes on for ever"),
    };
    let status = done[0].value()["status"].take();
    assert_eq!((&status["succeeded"], &status["completedIndexes"]), (&json!(7), &json!("0-6")));
    let let_go = |pods: &[std::sync::Arc<Cached>]| {
        pods.len() == 7 && pods.iter().all(|pod| !pod.header.has_finalizer(FINALIZER))
    };
    cluster.until(&kinds::POD, "7 pods that may go", let_go).await;
    cluster.end().await;
}
