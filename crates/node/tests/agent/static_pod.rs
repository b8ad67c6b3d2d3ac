//! Static pods: files of the machine that say what runs, and their likenesses in the API.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use windlass_api::kinds;
use windlass_client::DeleteOptions;
use windlass_node::Machine;

use crate::stage::{Cluster, IMAGE, NOTHING, WHOLE, condition, on_a_node, status, until_so};

pub fn manifest(word: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {IMAGE}\n    command: [sh, -c, 'trap \"exit 0\" TERM; echo {word}; while true; do sleep 0.1; done']\n"
    )
}

/// Longer than two looks at the files are apart.
const LOOKS: Duration = Duration::from_secs(5);

/// Writes the file of a static pod.
pub fn write(cluster: &Cluster, name: &str, text: &str) {
    let directory = cluster.dir.join("manifests");
    fs::create_dir_all(&directory).expect("the test's own directory");
    fs::write(directory.join(format!("{name}.yaml")), text).expect("the test's own directory");
}

pub fn remove(cluster: &Cluster, name: &str) {
    fs::remove_file(cluster.dir.join(format!("manifests/{name}.yaml"))).expect("the test's own file");
}

fn container(pod: &Value) -> String {
    status(pod)["containerID"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_file_is_a_pod_with_a_mirror_until_it_goes() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let file = cluster.dir.join("manifests/web.yaml");
        fs::create_dir_all(cluster.dir.join("manifests")).expect("the test's own directory");
        fs::write(&file, manifest("one")).expect("the test's own directory");
        let mirror = cluster.until("web-n1", |pod| condition(pod, "Ready")).await;
        assert_eq!(mirror["metadata"]["annotations"]["kubernetes.io/config.source"], "file");
        assert_eq!(mirror["metadata"]["ownerReferences"][0]["kind"], "Node");
        // Who deletes the mirror does not touch the pod.
        let running = container(&mirror);
        let options = DeleteOptions::default();
        cluster.client.delete(&kinds::POD, "default", "web-n1", &options).await.expect("a mirror can be deleted");
        let uid = mirror["metadata"]["uid"].clone();
        let again = cluster.until("web-n1", |pod| condition(pod, "Ready") && pod["metadata"]["uid"] != uid).await;
        assert_eq!(container(&again), running, "the same container as before");
        // Another text is another pod.
        fs::write(&file, manifest("two")).expect("the test's own directory");
        let changed = cluster
            .until("web-n1", |pod| condition(pod, "Ready") && !container(pod).is_empty() && container(pod) != running)
            .await;
        assert_eq!(changed["status"]["phase"], "Running");
        fs::remove_file(&file).expect("the test's own file");
        cluster.until("web-n1", Value::is_null).await;
    });
}

#[test]
fn a_damaged_file_and_an_unreadable_directory_take_no_pod_away() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        write(&cluster, "web", &manifest("one"));
        let is_told = |pod: &Value| condition(pod, "Ready") && status(pod)["imageID"] != "";
        let running = container(&cluster.until("web-n1", is_told).await);
        let same = |pod: &Value| is_told(pod) && container(pod) == running;
        // Half of it is written, longer than a look takes.
        write(&cluster, "web", &manifest("one")[..60]);
        tokio::time::sleep(LOOKS).await;
        cluster.until("web-n1", same).await;
        // An agent that never saw the whole of it goes on with the pod as well, and one that cannot read the directory.
        cluster.stop_agent().await;
        cluster.start_agent().await;
        tokio::time::sleep(LOOKS).await;
        cluster.until("web-n1", same).await;
        cluster.stop_agent().await;
        let directory = cluster.dir.join("manifests");
        fs::remove_dir_all(&directory).expect("the test's own directory");
        fs::write(&directory, "no directory").expect("the test's own directory");
        cluster.start_agent().await;
        tokio::time::sleep(LOOKS).await;
        cluster.until("web-n1", same).await;
        // A file that is understood and says another pod ends what no file says any more.
        fs::remove_file(&directory).expect("the test's own file");
        write(&cluster, "other", &manifest("other").replace("web", "other"));
        cluster.until("other-n1", |pod| condition(pod, "Ready")).await;
        cluster.until("web-n1", Value::is_null).await;
        remove(&cluster, "other");
        cluster.until("other-n1", Value::is_null).await;
    });
}

#[test]
fn static_pods_come_and_go_without_the_api() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        for name in ["web", "goes"] {
            write(&cluster, name, &manifest(name).replace("{name: web}", &format!("{{name: {name}}}")));
        }
        let is_told = |pod: &Value| condition(pod, "Ready") && status(pod)["imageID"] != "";
        let web = container(&cluster.until("web-n1", is_told).await);
        cluster.until("goes-n1", is_told).await;
        cluster.stop_agent().await;
        cluster.reach.store(NOTHING, Ordering::Relaxed);
        remove(&cluster, "goes");
        write(&cluster, "late", &manifest("late").replace("{name: web}", "{name: late}"));
        cluster.start_agent().await;
        let runs = |cluster: &Cluster| {
            let kernel = cluster.kernel();
            let logs = cluster.dir.join("data/pods");
            async move {
                let mut words = Vec::new();
                for uid in kernel.pods().await.expect("the machine can be looked at") {
                    let log = fs::read_to_string(logs.join(&uid).join("logs/main/0.log")).unwrap_or_default();
                    let said = log.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or("nothing");
                    words.push(said.to_owned());
                }
                words.sort();
                words.join(" ")
            }
        };
        until_so("one has gone and one has come", || async { runs(&cluster).await == "late web" }).await;
        cluster.reach.store(WHOLE, Ordering::Relaxed);
        cluster.until("late-n1", is_told).await;
        cluster.until("goes-n1", Value::is_null).await;
        assert_eq!(container(&cluster.until("web-n1", is_told).await), web, "it was never touched");
        for name in ["web", "late"] {
            remove(&cluster, name);
            cluster.until(&format!("{name}-n1"), Value::is_null).await;
        }
    });
}
