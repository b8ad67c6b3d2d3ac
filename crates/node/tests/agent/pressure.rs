//! A node that is short of memory says so, lets pods go in their order, and takes none that promise nothing.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use windlass_api::{Subresource, kinds};
use windlass_client::{Cache, Patch, Scope};
use windlass_node::config::ImageCollection;
use windlass_runtime::image::build::Entry;
use windlass_runtime::image::{Credentials, ImageRecord, Images, PullOptions};
use windlass_stdx::World;

use crate::image::{HOST, Registry};
use crate::stage::{
    Cluster, IMAGE, NODE, NOTHING, PATIENCE, READS, WHOLE, condition, make_image_with, on_a_node, on_containerd, shell,
    status, until_so,
};

const STAYS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

#[test]
fn a_node_short_of_memory_evicts_who_was_promised_nothing_first() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let pod = |memory: Option<&str>| {
            let mut container = shell("a", STAYS);
            if let Some(memory) = memory {
                let amounts = json!({"cpu": "10m", "memory": memory});
                container["resources"] = json!({"requests": amounts, "limits": amounts});
            }
            json!({"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container]})
        };
        cluster.pod("promised", pod(Some("64Mi"))).await;
        cluster.pod("nothing", pod(None)).await;
        for name in ["promised", "nothing"] {
            cluster.until(name, |pod| condition(pod, "Ready")).await;
        }
        cluster.stop_agent().await;
        cluster.memory_free_bytes_min = Some(1 << 50);
        cluster.start_agent().await;
        let nothing = cluster.until("nothing", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(nothing["status"]["reason"], "Evicted");
        let message = nothing["status"]["message"].as_str().expect("a message");
        assert!(message.starts_with("The node was low on resource: memory. "), "{message}");
        cluster.pod("late", pod(None)).await;
        let late = cluster.until("late", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(late["status"]["reason"], "Evicted");
        assert!(late["status"]["message"].as_str().expect("a message").contains("MemoryPressure"), "{late:#}");
        // It is short of memory still, so in the end even this one goes, after the other.
        let promised = cluster.until("promised", |pod| pod["status"]["phase"] == "Failed").await;
        let ended = |pod: &serde_json::Value| {
            pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"].clone()
        };
        assert!(ended(&nothing).as_str() <= ended(&promised).as_str(), "{nothing:#} {promised:#}");
        for name in ["nothing", "late", "promised"] {
            cluster.delete(name).await;
        }
    });
}

/// Makes an image of busybox with a file of its own, and has the node fetch it.
async fn pulled(cluster: &Cluster, registry: &Registry, name: &str) -> String {
    let (image, archive) = (format!("{HOST}/{name}:1"), cluster.dir.join(format!("{name}.tar")));
    make_image_with(&archive, &image, &[Entry::file("name", name)]);
    registry.hold(&archive, &image);
    let credentials = Credentials { username: "user".to_owned(), password: "secret".to_owned(), owner: None };
    let options = PullOptions { credentials: vec![credentials], ..PullOptions::default() };
    cluster.kernel().images().pull(&image, options).await.expect("an image of the test's own registry");
    image
}

fn has(cluster: &Cluster, image: &str) -> bool {
    cluster.kernel().images().find(image).expect("a store").is_some()
}

fn made_of(image: &str) -> serde_json::Value {
    let mut container = shell("a", STAYS);
    (container["image"], container["imagePullPolicy"]) = (json!(image), json!("IfNotPresent"));
    container
}

#[test]
fn a_node_short_of_disk_gives_up_images_before_pods() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let registry = Registry::start(&cluster.dir.clone()).await;
        let (used, unused) = (pulled(&cluster, &registry, "used").await, pulled(&cluster, &registry, "unused").await);
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [made_of(&used)]});
        cluster.pod("runs", spec).await;
        cluster.until("runs", |pod| condition(pod, "Ready")).await;
        cluster.stop_agent().await;
        cluster.disk_free_bytes_min = Some(1 << 60);
        cluster.start_agent().await;
        let evicted = cluster.until("runs", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(evicted["status"]["reason"], "Evicted");
        assert!(condition(&evicted, "DisruptionTarget"), "{evicted:#}");
        assert!(evicted["status"]["message"].as_str().expect("a message").contains("ephemeral-storage"), "{evicted:#}");
        assert!(!has(&cluster, &unused), "it went before the pod, though they share a layer");
        assert!(has(&cluster, &used), "a container was made of it");
        assert!(has(&cluster, IMAGE), "nobody could fetch again what was imported");
        cluster.delete("runs").await;
    });
}

/// Has the agent think of its disk as too full of images, of which those go that nobody uses and that are four seconds old.
async fn collecting(cluster: &mut Cluster) -> Registry {
    cluster.stop_agent().await;
    cluster.tune = |config| {
        let age_min = Duration::from_secs(4);
        config.image_collection = ImageCollection { high_percent: 0, low_percent: 0, age_min };
        config.lease_duration = Duration::from_secs(4);
    };
    cluster.start_agent().await;
    Registry::start(&cluster.dir.clone()).await
}

#[test]
fn from_the_higher_mark_on_images_that_nobody_uses_go_when_they_are_old_enough() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let registry = collecting(&mut cluster).await;
        let (shown, run) = (pulled(&cluster, &registry, "shown").await, pulled(&cluster, &registry, "run").await);
        let mut container = made_of(&run);
        container["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        let volume = json!({"name": "v", "image": {"reference": shown, "pullPolicy": "IfNotPresent"}});
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [volume]});
        cluster.pod("runs", spec).await;
        cluster.until("runs", |pod| condition(pod, "Ready")).await;
        let unused = pulled(&cluster, &registry, "unused").await;
        let began = Instant::now();
        until_so("the unused image goes", || async { !has(&cluster, &unused) }).await;
        assert!(began.elapsed() > Duration::from_secs(3), "it went after {:?}", began.elapsed());
        assert!(has(&cluster, &run) && has(&cluster, &shown) && has(&cluster, IMAGE));
        cluster.delete("runs").await;
    });
}

#[test]
fn c1_an_image_that_a_container_of_another_runtime_is_made_of_stays() {
    on_containerd(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let registry = collecting(&mut cluster).await;
        let run = pulled(&cluster, &registry, "run").await;
        cluster.pod("runs", json!({"terminationGracePeriodSeconds": 1, "containers": [made_of(&run)]})).await;
        cluster.until("runs", |pod| condition(pod, "Ready")).await;
        // What was there before an agent began was asked for by nobody, and is old.
        cluster.stop_agent().await;
        cluster.start_agent().await;
        let unused = pulled(&cluster, &registry, "unused").await;
        until_so("the unused image goes", || async { !has(&cluster, &unused) }).await;
        assert!(has(&cluster, &run), "a container is made of it");
        cluster.delete("runs").await;
    });
}

#[test]
fn a_node_short_of_memory_and_of_disk_gives_up_images_too() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let registry = Registry::start(&cluster.dir.clone()).await;
        let unused = pulled(&cluster, &registry, "unused").await;
        // One that cannot be read keeps no other.
        let broken = pulled(&cluster, &registry, "broken").await;
        let found = cluster.kernel().images().find(&broken).expect("a store").expect("it was fetched a line ago");
        let config = cluster.dir.join("data/images/configs").join(found.id.trim_start_matches("sha256:"));
        std::fs::remove_file(config).expect("it has one");
        cluster.stop_agent().await;
        (cluster.memory_free_bytes_min, cluster.disk_free_bytes_min) = (Some(1 << 50), Some(1 << 60));
        cluster.start_agent().await;
        until_so("the unused image goes", || async { !has(&cluster, &unused) }).await;
        let names = |record: ImageRecord| record.names;
        let left = cluster.kernel().images().list().expect("a store").into_iter().flat_map(names).collect::<Vec<_>>();
        assert!(left.contains(&broken), "what is made of it is not known: {left:?}");
    });
}

#[test]
fn who_takes_all_inodes_is_evicted_and_the_agent_goes_on_keeping_its_records() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        cluster.stop_agent().await;
        let data = cluster.dir.join("data");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256m,nr_inodes=3000", "few"]).arg(&data);
        assert!(mount.status().expect("mount is there").success());
        let images = Images::open(data.join("images"), World::real()).expect("a store of images");
        images.import(&cluster.dir.join("busybox.tar"), Some(IMAGE)).await.expect("an image of our own");
        cluster.tune = |config| config.lease_duration = Duration::from_secs(4);
        cluster.start_agent().await;
        let pod = |line: &str| {
            let mut container = shell("a", line);
            container["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
            json!({"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container],
                "volumes": [{"name": "v", "emptyDir": {}}]})
        };
        cluster.pod("modest", pod(STAYS)).await;
        cluster.until("modest", |pod| condition(pod, "Ready")).await;
        let greedy = "cd /v; i=0; while touch $i; do i=$((i+1)); done; echo full; while true; do sleep 0.1; done";
        cluster.pod("greedy", pod(greedy)).await;
        let evicted = cluster.until("greedy", |pod| pod["status"]["phase"] == "Failed").await;
        let message = evicted["status"]["message"].as_str().expect("a message");
        assert!(message.starts_with("The node was low on resource: inodes. "), "{message}");
        let said = cluster.log(&evicted, "a", 0);
        assert!(said.contains("No space left on device"), "there were none left: {said}");
        let uid = evicted["metadata"]["uid"].as_str().expect("a uid");
        let record = std::fs::read_to_string(data.join(format!("records/{uid}.json"))).expect("a record");
        assert!(record.contains("\"ended\":{"), "its end was kept: {record}");
        let nodes = Cache::start(cluster.client.clone(), &kinds::NODE, Scope::all());
        cluster.delete("greedy").await;
        let calm = nodes.until(NODE, |node| {
            let status = node.map(|node| node.value()["status"].clone()).unwrap_or_default();
            let mut all = status["conditions"].as_array().into_iter().flatten();
            all.any(|condition| condition["type"] == "DiskPressure" && condition["status"] == "False")
        });
        tokio::time::timeout(PATIENCE, calm).await.expect("what was taken is given back");
        cluster.until("modest", |pod| condition(pod, "Ready")).await;
        cluster.delete("modest").await;
    });
}

#[test]
fn a_node_goes_by_what_it_sees_whatever_the_api_has_of_it() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        cluster.stop_agent().await;
        cluster.tune = |config| config.lease_duration = Duration::from_secs(4);
        cluster.start_agent().await;
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [shell("a", STAYS)]});
        cluster.pod("stays", spec).await;
        let pod = cluster.until("stays", |pod| condition(pod, "Ready")).await;
        let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let states =
            |cluster: &Cluster| cluster.kernel().sandbox(&uid).map(|sandbox| format!("{:?}", sandbox.states()));
        let before = states(&cluster);
        // The agent cannot put this right, and sees it.
        cluster.reach.store(READS, Ordering::Relaxed);
        let says = json!({"status": {"conditions": [{"type": "MemoryPressure", "status": "True", "reason": "Said"}]}});
        let (patch, status) = (Patch::Strategic(says), Some(Subresource::Status));
        cluster.client.patch(&kinds::NODE, "", NODE, &patch, status).await.expect("the Node can be written");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(before.is_some() && states(&cluster) == before, "nobody is short of anything: {:?}", states(&cluster));
        // The other way round: it is short, and can neither hear nor say so.
        cluster.stop_agent().await;
        cluster.reach.store(NOTHING, Ordering::Relaxed);
        cluster.memory_free_bytes_min = Some(1 << 50);
        cluster.start_agent().await;
        until_so("the pod is evicted without the API", || async { states(&cluster).is_none() }).await;
        cluster.reach.store(WHOLE, Ordering::Relaxed);
        let evicted = cluster.until("stays", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(evicted["status"]["reason"], "Evicted", "{evicted:#}");
        cluster.delete("stays").await;
    });
}

#[test]
fn a_static_pod_is_not_evicted_and_comes_to_a_node_that_is_short() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        cluster.pod("goes", json!({"terminationGracePeriodSeconds": 1, "containers": [shell("a", STAYS)]})).await;
        crate::static_pod::write(&cluster, "web", &crate::static_pod::manifest("one"));
        for name in ["goes", "web-n1"] {
            cluster.until(name, |pod| condition(pod, "Ready")).await;
        }
        cluster.stop_agent().await;
        cluster.memory_free_bytes_min = Some(1 << 50);
        cluster.start_agent().await;
        cluster.until("goes", |pod| pod["status"]["phase"] == "Failed").await;
        crate::static_pod::write(&cluster, "late", &crate::static_pod::manifest("late").replace("web", "late"));
        cluster.until("late-n1", |pod| condition(pod, "Ready")).await;
        // There is nobody else to evict, and some looks have passed.
        tokio::time::sleep(Duration::from_secs(3)).await;
        for name in ["late-n1", "web-n1"] {
            let pod = cluster.until(name, |pod| condition(pod, "Ready")).await;
            assert_eq!(status(&pod)["restartCount"], 0, "{pod:#}");
        }
        for name in ["late", "web"] {
            crate::static_pod::remove(&cluster, name);
            cluster.until(&format!("{name}-n1"), serde_json::Value::is_null).await;
        }
        cluster.delete("goes").await;
    });
}
