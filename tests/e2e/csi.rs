//! CSI: a driver of the tests' own serves its socket on this machine; what its sidecars do in a cluster (provision, attach,
//! resize) is done here through the API, as they do it. The node, the scheduler and the controllers are the real ones.

#[path = "../../crates/node/src/kernel/csi/driver.rs"]
mod driver;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use driver::{Driver, Manner, State};
use serde_json::{Value, json};
use windlass_tests::cluster::{must, until};
use windlass_tests::suite::{PATIENCE, is_ready};
use windlass_tests::{Cluster, Test};

use crate::snapshot;

/// A driver and where it registers.
pub(crate) struct Site<'a> {
    cluster: &'a Cluster,
    runtime: tokio::runtime::Runtime,
    registry: PathBuf,
    pub(crate) state: Arc<State>,
    driver: Option<Driver>,
    /// Whether snapshots are taken of its volumes, and whether they are whole yet.
    pub(crate) snapshots: Mutex<Option<bool>>,
}

impl<'a> Site<'a> {
    pub(crate) fn new(cluster: &'a Cluster, name: &str, can: &[i64], volumes_max: i64) -> Site<'a> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let root = cluster.data_dir().parent().expect("it has one").join(name);
        let registry = cluster.data_dir().join("kubelet/plugins_registry");
        let node = "n-1".to_owned();
        let manner = Manner { name: format!("{name}.example.com"), node, can: can.to_vec(), volumes_max };
        let inside = runtime.enter();
        let driver = Driver::start(manner, &root, &registry);
        drop(inside);
        Site {
            cluster,
            registry,
            state: Arc::clone(&driver.state),
            driver: Some(driver),
            runtime,
            snapshots: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.state.manner.name
    }

    pub(crate) fn driver(&self) -> &Driver {
        self.driver.as_ref().expect("it serves")
    }

    /// The driver dies, and another instance of it is started.
    fn restart(&mut self) {
        self.driver = None;
        let _inside = self.runtime.enter();
        self.driver = Some(Driver::serve(Arc::clone(&self.state), &self.registry));
    }

    fn hang(&self, method: &str, hangs: bool) {
        let mut all = self.state.hangs.lock().expect("not poisoned");
        if hangs {
            all.insert(method.to_owned())
        } else {
            all.remove(method)
        };
    }

    fn hung(&self, method: &str) {
        let wanted = format!("{method} hangs");
        until(&wanted, PATIENCE, || match self.state.calls.lock().expect("not poisoned").contains(&wanted) {
            true => Ok(()),
            false => Err("it was not asked".to_owned()),
        });
        self.state.calls.lock().expect("not poisoned").retain(|call| *call != wanted);
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        must(&mut self.cluster.kubectl_command(arguments))
    }

    /// All objects of some kinds.
    pub(crate) fn all(&self, kinds: &str) -> Vec<Value> {
        let all = self.kubectl(&["get", kinds, "-A", "-o", "json"]);
        let all: Value = serde_json::from_str(&all).expect("kubectl prints JSON");
        all["items"].as_array().cloned().unwrap_or_default()
    }

    /// What the driver's sidecars do, once: claims get volumes, attachments are made, volumes grow; of volumes where the
    /// kinds are there, snapshots are taken.
    pub(crate) fn sidecars(&self) {
        if self.snapshots.lock().expect("not poisoned").is_some() {
            snapshot::sidecars(self);
        }
        let items = self.all("pvc,pv,volumeattachments");
        let volumes: Vec<&Value> = items.iter().filter(|item| item["kind"] == "PersistentVolume").collect();
        for item in &items {
            match item["kind"].as_str() {
                Some("PersistentVolumeClaim") => self.provision(item, &volumes),
                Some("VolumeAttachment") if item["spec"]["attacher"] == self.name() => self.attach(item),
                _ => {}
            }
        }
    }

    fn provision(&self, claim: &Value, volumes: &[&Value]) {
        let (metadata, spec) = (&claim["metadata"], &claim["spec"]);
        let annotations = &metadata["annotations"];
        if annotations["volume.kubernetes.io/storage-resizer"] == self.name() {
            self.resize(claim, volumes);
        }
        let is_asked = annotations["volume.kubernetes.io/storage-provisioner"] == self.name();
        let is_chosen = annotations["volume.kubernetes.io/selected-node"].is_string();
        if !is_asked || !is_chosen || !spec["volumeName"].is_null() {
            return;
        }
        let handle = format!("pvc-{}", metadata["uid"].as_str().expect("a uid"));
        if volumes.iter().any(|volume| volume["metadata"]["name"] == handle.as_str()) {
            return;
        }
        let block = (spec["volumeMode"] == "Block").then_some(4 << 20);
        match spec["dataSourceRef"].is_null() {
            true => self.driver().make(&handle, block),
            // What it is to be filled from is not there yet: it is asked again.
            false => match snapshot::source(self, claim) {
                Some(source) => snapshot::copy(self, &source, &handle),
                None => return,
            },
        }
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": handle,
                "annotations": {"pv.kubernetes.io/provisioned-by": self.name()}},
            "spec": {"accessModes": spec["accessModes"], "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "volumeMode": spec["volumeMode"], "storageClassName": spec["storageClassName"],
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": metadata["namespace"],
                    "name": metadata["name"], "uid": metadata["uid"]},
                "csi": {"driver": self.name(), "volumeHandle": handle, "fsType": "ext4",
                    "volumeAttributes": {"made": "by the test"}}}});
        self.apply(&volume);
    }

    /// The volume grows, and the node is to let what is on it grow.
    fn resize(&self, claim: &Value, volumes: &[&Value]) {
        let wanted = &claim["spec"]["resources"]["requests"]["storage"];
        let volume = volumes.iter().find(|volume| volume["metadata"]["name"] == claim["spec"]["volumeName"]);
        let Some(volume) = volume.filter(|volume| volume["spec"]["capacity"]["storage"] != *wanted) else { return };
        let name = volume["metadata"]["name"].as_str().expect("a name");
        let patch = json!({"spec": {"capacity": {"storage": wanted}}}).to_string();
        self.kubectl(&["patch", "pv", name, "--type=merge", "-p", &patch]);
        let condition = json!([{"type": "FileSystemResizePending", "status": "True"}]);
        let patch = json!({"status": {"conditions": condition}}).to_string();
        let (name, namespace) = (&claim["metadata"]["name"], &claim["metadata"]["namespace"]);
        let (name, namespace) = (name.as_str().expect("a name"), namespace.as_str().expect("a namespace"));
        self.kubectl(&["patch", "pvc", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", &patch]);
    }

    fn attach(&self, attachment: &Value) {
        let metadata = &attachment["metadata"];
        let name = metadata["name"].as_str().expect("a name");
        let is_kept = metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if !metadata["deletionTimestamp"].is_null() {
            self.state.calls.lock().expect("not poisoned").push(format!("detach {name}"));
            self.kubectl(&[
                "patch",
                "volumeattachment",
                name,
                "--type=merge",
                "-p",
                r#"{"metadata":{"finalizers":null}}"#,
            ]);
        } else if attachment["status"]["attached"] != true {
            if !is_kept {
                let kept = r#"{"metadata":{"finalizers":["external-attacher/test"]}}"#;
                self.kubectl(&["patch", "volumeattachment", name, "--type=merge", "-p", kept]);
            }
            let said = r#"{"status":{"attached":true,"attachmentMetadata":{"device":"one"}}}"#;
            let patch = ["patch", "volumeattachment", name, "--subresource=status", "--type=merge", "-p", said];
            self.kubectl(&patch);
        }
    }

    pub(crate) fn apply(&self, object: &Value) {
        let directory = self.state.root.join("object.json");
        std::fs::write(&directory, object.to_string()).expect("writable");
        self.kubectl(&["apply", "-f", &directory.display().to_string()]);
    }

    /// CSIDriver and StorageClass.
    pub(crate) fn install(&self, spec: Value) {
        self.apply(&json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": self.name()},
            "spec": spec}));
        self.apply(
            &json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": self.name()},
            "provisioner": self.name(), "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true}),
        );
        until("the driver is registered", PATIENCE, || {
            let node = self.kubectl(&["get", "csinode", "node1", "-o", "json"]);
            if node.contains(self.name()) { Ok(()) } else { Err(node) }
        });
    }

    /// Waits, while the sidecars work.
    pub(crate) fn wait(
        &self,
        test: &Test,
        kind: &str,
        name: &str,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        until(&format!("{kind}/{name}: {what}"), PATIENCE, || {
            self.sidecars();
            let out = test.try_kubectl(&["get", kind, name, "-o", "json"]);
            let value: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr.clone())?;
            if holds(&value) { Ok(value) } else { Err(format!("{:#}", value["status"])) }
        })
    }

    /// Nothing of the driver is mounted, attached or named any more, and it can go.
    pub(crate) fn nothing_is_left(&self) {
        until("nothing of the driver is left", PATIENCE, || {
            self.sidecars();
            let mut left = self.driver().left();
            let attached = self.kubectl(&["get", "volumeattachments", "-o", "json"]);
            left.extend(attached.contains(self.name()).then_some(attached));
            let node = self.kubectl(&[
                "get",
                "node",
                "node1",
                "-o",
                "jsonpath={.status.volumesInUse}{.status.volumesAttached}",
            ]);
            left.extend(node.contains(self.name()).then_some(node));
            if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
        });
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        self.driver = None;
        let _ = std::fs::remove_file(self.registry.join(format!("{}-reg.sock", self.name())));
        for kind in ["csidriver", "storageclass"] {
            let _ = self.cluster.kubectl(&["delete", kind, self.name(), "--ignore-not-found"]);
        }
        Driver::clear(&self.state);
    }
}

pub(crate) fn claim(site: &Site, name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: {{accessModes: [ReadWriteOnce], storageClassName: {}, resources: {{requests: {{storage: 1Gi}}}}{more}}}\n",
        site.name()
    )
}

pub(crate) fn pod(name: &str, volume: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  securityContext: {{fsGroup: 1234}}\n  volumes: [{{name: data, {volume}}}]\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, '{script}; sleep 1000']\n    securityContext: {{runAsUser: 1000}}\n    volumeMounts: [{{name: data, mountPath: /data}}]\n"
    )
}

pub(crate) fn by_claim(name: &str) -> String {
    format!("persistentVolumeClaim: {{claimName: {name}}}")
}

pub fn csi_volumes_are_made_attached_staged_shared_and_grown(test: &Test) {
    let mut site = Site::new(test.cluster, "csi-whole", &[1, 2, 3, 4], 1);
    site.install(json!({"attachRequired": true, "podInfoOnMount": true, "fsGroupPolicy": "File"}));
    test.apply(&claim(&site, "kept", ""));
    test.apply(&pod("first", &by_claim("kept"), "echo written > /data/file; stat -c %g /data/file"));
    site.wait(test, "pod", "first", "Ready", is_ready);
    assert_eq!(test.kubectl(&["logs", "first"]), "1234\n");
    let told = site.state.told.lock().expect("not poisoned").clone();
    assert_eq!(told["context"]["csi.storage.k8s.io/pod.name"], "first");
    assert_eq!(told["context"]["made"], "by the test");
    assert_eq!(told["attachment"]["device"], "one", "what the attacher has said");
    let volume = test.get("pvc", "kept")["spec"]["volumeName"].as_str().expect("a volume").to_owned();
    // Another pod shares it, and the driver that comes between does not matter.
    site.restart();
    test.apply(&pod("second", &by_claim("kept"), "cat /data/file"));
    site.wait(test, "pod", "second", "Ready", is_ready);
    assert_eq!(test.kubectl(&["logs", "second"]), "written\n");
    assert_eq!(site.driver().count("NodeStageVolume", &volume), 1, "staged once for both");
    // The node takes one volume of the driver.
    test.apply(&claim(&site, "surplus", ""));
    test.apply(&pod("third", &by_claim("surplus"), "true"));
    until("the third pod is told why", PATIENCE, || {
        let said = test.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        if said.contains("node(s) exceed max volume count") { Ok(()) } else { Err(said) }
    });
    test.kubectl(&["patch", "pvc", "kept", "-p", r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#]);
    let grown = site.wait(test, "pvc", "kept", "larger", |claim| claim["status"]["capacity"]["storage"] == "2Gi");
    assert!(grown["status"]["conditions"].as_array().is_none_or(Vec::is_empty), "{:#}", grown["status"]);
    assert!(site.driver().count("NodeExpandVolume", &volume) >= 1);
    test.kubectl(&["delete", "pod", "first", "third"]);
    test.kubectl(&["delete", "pod", "second", "--force", "--grace-period=0"]);
    site.nothing_is_left();
    assert_eq!(site.driver().count("NodeUnstageVolume", &volume), 1);
    test.kubectl(&["delete", "pvc", "kept", "surplus"]);
    test.kubectl(&["delete", "pv", &volume, "--ignore-not-found"]);
}

pub fn csi_devices_and_inline_volumes_reach_their_pods(test: &Test) {
    let site = Site::new(test.cluster, "csi-other", &[1], 0);
    let tokens = json!([{"audience": "vault"}]);
    site.install(json!({"attachRequired": false, "podInfoOnMount": true, "fsGroupPolicy": "None",
        "volumeLifecycleModes": ["Persistent", "Ephemeral"], "tokenRequests": tokens, "requiresRepublish": true}));
    test.apply(&claim(&site, "device", ", volumeMode: Block"));
    test.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: blocks}\nspec:\n  terminationGracePeriodSeconds: 1\n  volumes: [{name: data, persistentVolumeClaim: {claimName: device}}]\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, 'test -b /dev/data && echo on the device > /dev/data && head -n 1 /dev/data; sleep 1000']\n    volumeDevices: [{name: data, devicePath: /dev/data}]\n");
    site.wait(test, "pod", "blocks", "Ready", is_ready);
    until("the device is written", PATIENCE, || match test.kubectl(&["logs", "blocks"]).as_str() {
        "on the device\n" => Ok(()),
        said => Err(said.to_owned()),
    });
    let inline = format!("csi: {{driver: {}, volumeAttributes: {{size: small}}}}", site.name());
    test.apply(&pod("brief", &inline, "ls -d /data"));
    site.wait(test, "pod", "brief", "Ready", is_ready);
    let told = site.state.told.lock().expect("not poisoned").clone();
    assert_eq!(
        (told["context"]["csi.storage.k8s.io/ephemeral"].as_str(), told["context"]["size"].as_str()),
        ("true", "small")
    );
    let tokens: Value =
        serde_json::from_str(&told["context"]["csi.storage.k8s.io/serviceAccount.tokens"]).expect("JSON");
    assert!(tokens["vault"]["token"].is_string() && tokens["vault"]["expirationTimestamp"].is_string(), "{tokens:#}");
    test.kubectl(&["delete", "pod", "blocks", "brief"]);
    site.nothing_is_left();
    let volume = test.get("pvc", "device")["spec"]["volumeName"].as_str().expect("a volume").to_owned();
    test.kubectl(&["delete", "pvc", "device"]);
    test.kubectl(&["delete", "pv", &volume, "--ignore-not-found"]);
}

pub fn f74_a_csi_driver_that_hangs_keeps_no_other_pod(test: &Test) {
    let mut site = Site::new(test.cluster, "csi-hang", &[1], 0);
    site.install(json!({"attachRequired": false, "volumeLifecycleModes": ["Persistent", "Ephemeral"]}));
    let inline = format!("csi: {{driver: {}}}", site.name());
    site.hang("NodePublishVolume", true);
    test.apply(&pod("stuck", &inline, "true"));
    site.hung("NodePublishVolume");
    test.apply(&pod("free", "emptyDir: {}", "true"));
    site.wait(test, "pod", "free", "Ready", is_ready);
    // It ends although its volume was never there; and a driver that comes back serves the next at once.
    test.kubectl(&["delete", "pod", "stuck"]);
    site.hang("NodePublishVolume", false);
    site.restart();
    test.apply(&pod("next", &inline, "true"));
    site.wait(test, "pod", "next", "Ready", is_ready);
    site.hang("NodeUnpublishVolume", true);
    test.kubectl(&["delete", "pod", "next", "--force", "--grace-period=0"]);
    site.hung("NodeUnpublishVolume");
    test.kubectl(&["delete", "pod", "free"]);
    site.hang("NodeUnpublishVolume", false);
    site.restart();
    site.nothing_is_left();
}

/// The agent is killed while a driver has a call in its hands, each call in turn.
pub fn csi_the_agent_is_killed_in_each_step_and_nothing_is_left() {
    let mut cluster = Cluster::start(1);
    cluster.import_image();
    let methods = ["NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"];
    let root = cluster.data_dir().parent().expect("it has one").join("csi-killed");
    let registry = cluster.data_dir().join("kubelet/plugins_registry");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let inside = runtime.enter();
    let manner = Manner { name: "killed.example.com".to_owned(), node: "n".to_owned(), can: vec![1], volumes_max: 0 };
    let driver = Driver::start(manner, &root, &registry);
    drop(inside);
    driver.make("v", None);
    let file = root.join("objects.yaml");
    std::fs::write(&file, KILLED).expect("writable");
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
    let pod = root.join("pod.yaml");
    std::fs::write(&pod, self::pod("user", &by_claim("v"), "true")).expect("writable");
    for method in methods {
        let is_start = matches!(method, "NodeStageVolume" | "NodePublishVolume");
        driver.state.calls.lock().expect("not poisoned").clear();
        let hang = |hangs: bool| {
            let mut all = driver.state.hangs.lock().expect("not poisoned");
            if hangs {
                all.insert(method.to_owned())
            } else {
                all.remove(method)
            };
        };
        let hung = || {
            until(method, PATIENCE, || {
                let calls = driver.state.calls.lock().expect("not poisoned").clone();
                if calls.contains(&format!("{method} hangs")) { Ok(()) } else { Err(calls.join("\n")) }
            });
        };
        let ready = |cluster: &Cluster| {
            until(&format!("{method}: the pod runs"), PATIENCE, || {
                let out = cluster.kubectl(&["get", "pod", "user", "-o", "json"]);
                let value: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr.clone())?;
                if is_ready(&value) { Ok(()) } else { Err(format!("{:#}", value["status"])) }
            });
        };
        if is_start {
            hang(true);
        }
        must(cluster.kubectl_command(&["apply", "-f"]).arg(&pod));
        if !is_start {
            ready(&cluster);
            hang(true);
            must(&mut cluster.kubectl_command(&["delete", "pod", "user", "--wait=false"]));
        }
        hung();
        cluster.kill();
        hang(false);
        cluster.up();
        if is_start {
            ready(&cluster);
            assert_eq!(driver.left().len(), 2, "{method}: staged once and published once: {:#?}", driver.left());
            must(&mut cluster.kubectl_command(&["delete", "pod", "user"]));
        }
        until(&format!("{method}: nothing is left"), PATIENCE, || {
            let mut left = driver.left();
            left.extend(cluster.kubectl(&["get", "pods", "-o", "name"]).stdout.lines().map(str::to_owned));
            if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
        });
    }
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
}

const KILLED: &str = "apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: killed.example.com}
spec: {attachRequired: false}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: v}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  storageClassName: ''
  persistentVolumeReclaimPolicy: Retain
  csi: {driver: killed.example.com, volumeHandle: v}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: v}
spec: {accessModes: [ReadWriteOnce], storageClassName: '', volumeName: v, resources: {requests: {storage: 1Gi}}}
";
