//! What containers find in their volumes, and what becomes of those who take too much.

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::Patch;

use crate::stage::{IMAGE, NODE, PATIENCE, condition, on_a_node, shell, status, until_so};

fn phase(pod: &Value, wanted: &str) -> bool {
    pod["status"]["phase"] == wanted
}

#[test]
fn volumes_hold_images_and_files_left_by_others_and_pass_through_a_path_from_the_environment() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut init =
            shell("init", "mkdir /v/d; echo \"A='from a file'\" > /v/d/env; ln -s /etc/passwd /v/link; chmod 777 /v/d");
        init["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        let line = "echo $FROM_FILE; ls -ld /v /image/bin/sh /sub; cat /image/etc/passwd | head -1; \
            touch /image/x 2>/dev/null || echo refused; echo mine > /sub/file; cat /v/web/file";
        let mut web = shell("web", line);
        web["env"] = json!([
            {"name": "FROM_FILE", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "d/env", "key": "A"}}},
            {"name": "OWN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]);
        web["volumeMounts"] = json!([
            {"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/sub", "subPathExpr": "$(OWN)"},
            {"name": "i", "mountPath": "/image"},
        ]);
        let volumes =
            json!([{"name": "v", "emptyDir": {}}, {"name": "i", "image": {"reference": IMAGE, "pullPolicy": "Never"}}]);
        let spec = json!({"restartPolicy": "Never", "initContainers": [init], "containers": [web], "volumes": volumes});
        cluster.pod("web", spec).await;
        let pod = cluster.until("web", |pod| phase(pod, "Succeeded") || phase(pod, "Failed")).await;
        let log = cluster.log(&pod, "web", 0);
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines[0], "from a file", "{log}");
        assert!(lines[1].ends_with("/image/bin/sh -> busybox") && lines[4].starts_with("root:"), "{log}");
        assert!(lines[2..4].iter().all(|line| line.starts_with("drwxrwxrwx")), "{log}");
        assert_eq!(lines[5..], ["refused", "mine"], "{log}");
        assert_eq!(status(&pod)["volumeMounts"][2]["mountPath"], "/image");
        cluster.delete("web").await;
        // A pod that is over is gone from the API at once, and from the machine soon.
        let is_free = || async { !cluster.mounts().iter().any(|mount| mount.contains("/pods/")) };
        until_so("nothing stays mounted", is_free).await;
    });
}

#[test]
fn what_a_pod_says_of_itself_is_seen_when_it_changes() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut web = shell("web", "until grep new /about/labels; do sleep 0.1; done; echo seen; ls /sub");
        web["env"] =
            json!([{"name": "PLACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['place']"}}}]);
        web["volumeMounts"] = json!([
            {"name": "about", "mountPath": "/about"}, {"name": "v", "mountPath": "/sub", "subPathExpr": "$(PLACE)/x"},
        ]);
        let items = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]);
        let volumes = json!([{"name": "about", "downwardAPI": {"items": items}}, {"name": "v", "emptyDir": {}}]);
        cluster.pod("web", json!({"restartPolicy": "Never", "containers": [web], "volumes": volumes})).await;
        // Without the annotation the path begins with a slash.
        let waiting = |pod: &Value| status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError";
        cluster.until("web", waiting).await;
        let change = async |what: Value| {
            let patch = Patch::Merge(json!({"metadata": what}));
            cluster.client.patch(&kinds::POD, "default", "web", &patch, None).await.expect("a change");
        };
        change(json!({"annotations": {"place": "here"}})).await;
        cluster.until("web", |pod| condition(pod, "Ready")).await;
        change(json!({"labels": {"app": "new"}})).await;
        let pod = cluster.until("web", |pod| phase(pod, "Succeeded")).await;
        assert_eq!(cluster.log(&pod, "web", 0), "app=\"new\"\nseen");
        cluster.delete("web").await;
    });
}

#[test]
fn who_puts_more_into_a_volume_than_its_limit_is_evicted() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut hog = shell("hog", "head -c 3000000 /dev/zero > /v/file; sleep 1000");
        hog["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]);
        cluster.pod("hog", json!({"containers": [hog], "volumes": volumes})).await;
        let pod = tokio::time::timeout(PATIENCE, cluster.until("hog", |pod| phase(pod, "Failed"))).await;
        let pod = pod.expect("volumes are counted every ten seconds");
        assert_eq!(pod["status"]["reason"], "Evicted");
        assert_eq!(pod["status"]["message"], "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
        cluster.delete("hog").await;
    });
}

#[test]
fn a_claims_directory_outlives_pods_and_goes_with_its_volume() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let (claim_kind, volume_kind) = (&kinds::PERSISTENT_VOLUME_CLAIM, &kinds::PERSISTENT_VOLUME);
        let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "volumeName": "pv",
            "resources": {"requests": {"storage": "1Gi"}}});
        cluster
            .create(
                claim_kind,
                json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "default"}, "spec": spec}),
            )
            .await;
        let claim = cluster.client.get(claim_kind, "default", "c").await.expect("an answer").expect("a claim");
        let reach = json!({"required": {"nodeSelectorTerms": [{"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": [NODE]}]}]}});
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "local",
                "claimRef": {"namespace": "default", "name": "c", "uid": claim.header.uid()}, "nodeAffinity": reach,
                "csi": {"driver": "local.windlass.dev", "volumeHandle": "pv"}}});
        cluster.client.create(volume_kind, "", &volume).await.expect("a volume");
        let bound = Patch::Merge(json!({"status": {"phase": "Bound"}}));
        let status = Some(windlass_api::Subresource::Status);
        cluster.client.patch(claim_kind, "default", "c", &bound, status).await.expect("bound");
        let run = async |name: &str, line: &str| {
            let mut container = shell("main", line);
            container["volumeMounts"] = json!([{"name": "v", "mountPath": "/data"}]);
            let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
            let spec = json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes});
            cluster.pod(name, spec).await;
            let pod = cluster.until(name, |pod| phase(pod, "Succeeded") || phase(pod, "Failed")).await;
            let said = cluster.log(&pod, "main", 0);
            cluster.delete(name).await;
            said
        };
        run("first", "echo kept > /data/file").await;
        assert_eq!(run("second", "cat /data/file").await, "kept");
        let directory = cluster.dir.join("data/volumes/pv");
        assert!(directory.join("file").exists());
        cluster.client.delete(volume_kind, "", "pv", &Default::default()).await.expect("it ends");
        let is_gone = || async { cluster.client.get(volume_kind, "", "pv").await.expect("an answer").is_none() };
        until_so("the node lets its volume go", is_gone).await;
        assert!(!directory.exists(), "the directory goes first");
    });
}

/// The kernel's pages of 2 MiB, as many as a test needs; they are given back.
struct Pages(String);

const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

impl Pages {
    fn take(count: u32) -> Option<Pages> {
        let before = std::fs::read_to_string(PAGES).ok()?;
        let pages = Pages(before);
        std::fs::write(PAGES, count.to_string()).ok()?;
        let found = std::fs::read_to_string(PAGES).ok()?;
        (found.trim() == count.to_string()).then_some(pages)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        std::fs::write(PAGES, &self.0).expect("it could be written before");
    }
}

#[test]
fn huge_pages_are_told_given_and_bounded() {
    let Some(pages) = Pages::take(8) else {
        eprintln!("this machine has no huge pages to give");
        return;
    };
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let node = cluster.client.get(&kinds::NODE, "", NODE).await.expect("an answer").expect("a node").value();
        assert_eq!(node["status"]["allocatable"]["hugepages-2Mi"], "16Mi", "{node:#}");
        let line = "trap 'exit 0' TERM; grep hugetlbfs /proc/mounts; while true; do sleep 0.1; done";
        let mut container = shell("a", line);
        container["resources"] = json!({"limits": {"hugepages-2Mi": "4Mi", "memory": "32Mi", "cpu": "100m"}});
        container["volumeMounts"] = json!([{"name": "v", "mountPath": "/huge"}]);
        let volumes = json!([{"name": "v", "emptyDir": {"medium": "HugePages"}}]);
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": volumes});
        cluster.pod("huge", spec).await;
        let pod = cluster.until("huge", |pod| condition(pod, "Ready")).await;
        until_so("it sees its pages", || async {
            let said = cluster.log(&pod, "a", 0);
            said.contains(" /huge hugetlbfs ") && said.contains("pagesize=2M")
        })
        .await;
        let uid = pod["metadata"]["uid"].as_str().expect("a uid");
        let instance = cluster.dir.file_name().expect("a name").to_string_lossy().into_owned();
        let group = format!("/sys/fs/cgroup/hugetlb/{instance}/{uid}/a.0/hugetlb.2MB.limit_in_bytes");
        // Not every machine has the controller.
        if let Ok(limit) = std::fs::read_to_string(&group) {
            assert_eq!(limit.trim(), (4 << 20).to_string());
        }
        cluster
            .pod("more", {
                let mut container = shell("a", "true");
                container["resources"] = json!({"limits": {"hugepages-2Mi": "14Mi", "memory": "32Mi", "cpu": "100m"}});
                json!({"containers": [container]})
            })
            .await;
        let more = cluster.until("more", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(more["status"]["reason"], "OutOfhugepages-2Mi", "{more:#}");
        for name in ["more", "huge"] {
            cluster.delete(name).await;
        }
    });
    drop(pages);
}

#[test]
fn what_a_drivers_pod_mounts_beneath_kubelets_directory_the_machine_and_other_pods_see() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let plugins = cluster.dir.join("kubelet/plugins");
        // As the manifests of drivers have it, the machine's devices included.
        let line = "mkdir /plugins/own && mount -t tmpfs own /plugins/own && echo theirs > /plugins/own/file && test -c /dev/null && sleep 1000";
        let mut driver = shell("driver", line);
        driver["securityContext"] = json!({"privileged": true});
        driver["readinessProbe"] = json!({"exec": {"command": ["cat", "/plugins/own/file"]}, "periodSeconds": 1});
        driver["volumeMounts"] = json!([
            {"name": "plugins", "mountPath": "/plugins", "mountPropagation": "Bidirectional"},
            {"name": "dev", "mountPath": "/dev"},
        ]);
        let volumes = json!([{"name": "plugins", "hostPath": {"path": &plugins, "type": "Directory"}},
            {"name": "dev", "hostPath": {"path": "/dev", "type": "Directory"}}]);
        let spec = |containers: Value| json!({"terminationGracePeriodSeconds": 0, "containers": containers, "volumes": volumes});
        cluster.pod("driver", spec(json!([driver]))).await;
        cluster.until("driver", |pod| condition(pod, "Ready")).await;
        assert_eq!(std::fs::read_to_string(plugins.join("own/file")).expect("the machine sees it"), "theirs\n");
        let mut other = shell("other", "cat /plugins/own/file; sleep 1000");
        other["volumeMounts"] =
            json!([{"name": "plugins", "mountPath": "/plugins", "mountPropagation": "HostToContainer"}]);
        cluster.pod("other", spec(json!([other]))).await;
        let pod = cluster.until("other", |pod| condition(pod, "Ready")).await;
        until_so("another pod sees it", || async { cluster.log(&pod, "other", 0) == "theirs" }).await;
        for name in ["other", "driver"] {
            cluster.delete(name).await;
        }
        // What it mounted is the machine's to take away.
        rustix::mount::unmount(plugins.join("own"), rustix::mount::UnmountFlags::DETACH).expect("it outlives the pod");
    });
}

#[test]
fn mounts_that_nobody_would_see_are_refused_with_the_reason() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let place = cluster.dir.join("alone");
        std::fs::create_dir(&place).expect("a directory");
        rustix::mount::mount_bind(&place, &place).expect("a mount");
        let cut = rustix::mount::MountPropagationFlags::PRIVATE;
        rustix::mount::mount_change(&place, cut).expect("a mount of the test's own");
        let mut container = shell("a", "sleep 1000");
        container["securityContext"] = json!({"privileged": true});
        container["volumeMounts"] =
            json!([{"name": "alone", "mountPath": "/alone", "mountPropagation": "Bidirectional"}]);
        let volumes = json!([{"name": "alone", "hostPath": {"path": &place}}]);
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes});
        cluster.pod("alone", spec).await;
        let pod =
            cluster.until("alone", |pod| status(pod)["state"]["waiting"]["reason"] == "CreateContainerError").await;
        let message = status(&pod)["state"]["waiting"]["message"].as_str().expect("a message");
        assert!(message.contains("but it is not a shared mount"), "{message}");
        cluster.delete("alone").await;
    });
}
