//! Snapshots of CSI volumes, as a cluster takes part in them: the kinds are CRDs, and who snapshots and provisions are
//! programs beside the driver, played here through the API. What they rely on are finalizers, `dataSource`, status
//! subresources, rules in schemas, and a binder that leaves a claim to its provisioner.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use windlass_tests::Test;
use windlass_tests::cluster::{must, until};
use windlass_tests::suite::{PATIENCE, is_ready};

use crate::csi::{Site, by_claim, claim, pod};

/// What the programs of Kubernetes' storage group write on objects.
const OF_SOURCE: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
const OF_SNAPSHOT: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
const OF_CONTENT: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";

/// The kinds, with what matters of their schemas.
const KINDS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: volumesnapshotclasses.snapshot.storage.k8s.io
  labels: {windlass-test: snapshot}
  annotations: {api-approved.kubernetes.io: "unapproved, of the tests' own"}
spec:
  group: snapshot.storage.k8s.io
  scope: Cluster
  names: {plural: volumesnapshotclasses, singular: volumesnapshotclass, kind: VolumeSnapshotClass, shortNames: [vsclass]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        required: [driver, deletionPolicy]
        properties:
          driver: {type: string}
          deletionPolicy: {type: string, enum: [Delete, Retain]}
          parameters: {type: object, additionalProperties: {type: string}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: volumesnapshotcontents.snapshot.storage.k8s.io
  labels: {windlass-test: snapshot}
  annotations: {api-approved.kubernetes.io: "unapproved, of the tests' own"}
spec:
  group: snapshot.storage.k8s.io
  scope: Cluster
  names: {plural: volumesnapshotcontents, kind: VolumeSnapshotContent, shortNames: [vsc]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [driver, deletionPolicy, source, volumeSnapshotRef]
            properties:
              driver: {type: string}
              deletionPolicy: {type: string, enum: [Delete, Retain]}
              source:
                type: object
                properties: {volumeHandle: {type: string}, snapshotHandle: {type: string}}
                x-kubernetes-validations:
                - {rule: "has(self.volumeHandle) != has(self.snapshotHandle)", message: "exactly one of volumeHandle and snapshotHandle"}
                - {rule: "self == oldSelf", message: "source is immutable"}
              volumeSnapshotRef:
                type: object
                x-kubernetes-map-type: atomic
                properties: {apiVersion: {type: string}, kind: {type: string}, namespace: {type: string}, name: {type: string}, uid: {type: string}}
          status:
            type: object
            properties:
              snapshotHandle: {type: string}
              readyToUse: {type: boolean}
              restoreSize: {type: integer, format: int64, minimum: 0}
              creationTime: {type: integer, format: int64}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: volumesnapshots.snapshot.storage.k8s.io
  labels: {windlass-test: snapshot}
  annotations: {api-approved.kubernetes.io: "unapproved, of the tests' own"}
spec:
  group: snapshot.storage.k8s.io
  scope: Namespaced
  names: {plural: volumesnapshots, singular: volumesnapshot, kind: VolumeSnapshot, shortNames: [vs]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: ReadyToUse, type: boolean, jsonPath: .status.readyToUse}
    - {name: SourcePVC, type: string, jsonPath: .spec.source.persistentVolumeClaimName}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [source]
            properties:
              volumeSnapshotClassName: {type: string}
              source:
                type: object
                properties: {persistentVolumeClaimName: {type: string}, volumeSnapshotContentName: {type: string}}
                x-kubernetes-validations:
                - {rule: "has(self.persistentVolumeClaimName) != has(self.volumeSnapshotContentName)", message: "exactly one source is to be named"}
                - {rule: "self == oldSelf", message: "source is immutable"}
          status:
            type: object
            properties:
              boundVolumeSnapshotContentName: {type: string}
              readyToUse: {type: boolean}
              restoreSize: {type: string, pattern: "^[0-9]+(Ki|Mi|Gi)?$", x-kubernetes-int-or-string: true}
"#;

/// What the snapshot controller and the driver's snapshotter do, once.
pub(crate) fn sidecars(site: &Site) {
    let all = site.all("volumesnapshots,volumesnapshotcontents,volumesnapshotclasses,pvc,pv");
    for item in &all {
        match item["kind"].as_str() {
            Some("VolumeSnapshot") => follow_snapshot(site, item, &all),
            Some("VolumeSnapshotContent") if item["spec"]["driver"] == site.name() => follow_content(site, item),
            _ => {}
        }
    }
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn named<'a>(all: &'a [Value], kind: &str, namespace: &str, name: &str) -> Option<&'a Value> {
    all.iter().find(|item| {
        item["kind"] == kind && text(item, "/metadata/namespace") == namespace && text(item, "/metadata/name") == name
    })
}

fn patch(site: &Site, item: &Value, subresource: &[&str], patch: &Value) {
    let (kind, name) = (text(item, "/kind").to_lowercase(), text(item, "/metadata/name"));
    let patch = patch.to_string();
    let mut arguments = vec!["patch", kind.as_str(), name, "--type=merge", "-p", patch.as_str()];
    let namespace = text(item, "/metadata/namespace");
    if !namespace.is_empty() {
        arguments.extend(["-n", namespace]);
    }
    arguments.extend(subresource);
    site.kubectl(&arguments);
}

const STATUS: &[&str] = &["--subresource=status"];

/// Puts a finalizer on an object, or takes it away; nothing where it is as it should be.
fn keep(site: &Site, item: &Value, finalizer: &str, keeps: bool) {
    let all: Vec<&str> =
        item["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let others = all.iter().copied().filter(|found| *found != finalizer);
    let wanted: Vec<&str> = if keeps { others.chain([finalizer]).collect() } else { others.collect() };
    if all.contains(&finalizer) != keeps {
        let revision = &item["metadata"]["resourceVersion"];
        patch(site, item, &[], &json!({"metadata": {"finalizers": wanted, "resourceVersion": revision}}));
    }
}

/// Of a snapshot: its source is kept while it is taken, and its content is made and waited for.
fn follow_snapshot(site: &Site, snapshot: &Value, all: &[Value]) {
    let class = named(all, "VolumeSnapshotClass", "", text(snapshot, "/spec/volumeSnapshotClassName"));
    let Some(class) = class.filter(|class| class["driver"] == site.name()) else { return };
    let content_name = format!("snapcontent-{}", text(snapshot, "/metadata/uid"));
    let content = named(all, "VolumeSnapshotContent", "", &content_name);
    if !snapshot["metadata"]["deletionTimestamp"].is_null() {
        match content {
            Some(content) if content["metadata"]["deletionTimestamp"].is_null() => {
                site.kubectl(&["delete", "volumesnapshotcontent", &content_name, "--wait=false"]);
            }
            Some(_) => {}
            None => keep(site, snapshot, OF_SNAPSHOT, false),
        }
        return;
    }
    let namespace = text(snapshot, "/metadata/namespace");
    let claim =
        named(all, "PersistentVolumeClaim", namespace, text(snapshot, "/spec/source/persistentVolumeClaimName"));
    let is_ready = snapshot["status"]["readyToUse"] == true;
    if let Some(claim) = claim {
        keep(site, claim, OF_SOURCE, !is_ready);
    }
    if is_ready {
        return;
    }
    keep(site, snapshot, OF_SNAPSHOT, true);
    let Some(content) = content else {
        let Some(claim) = claim else { return };
        let Some(volume) = named(all, "PersistentVolume", "", text(claim, "/spec/volumeName")) else { return };
        site.apply(&json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": content_name, "finalizers": [OF_CONTENT]},
            "spec": {"driver": site.name(), "deletionPolicy": class["deletionPolicy"],
                "source": {"volumeHandle": volume["spec"]["csi"]["volumeHandle"]},
                "volumeSnapshotRef": {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                    "namespace": namespace, "name": snapshot["metadata"]["name"], "uid": snapshot["metadata"]["uid"]}}}));
        return;
    };
    if content["status"]["readyToUse"] == true {
        let status = json!({"boundVolumeSnapshotContentName": content_name, "readyToUse": true,
            "restoreSize": content["status"]["restoreSize"].to_string()});
        patch(site, snapshot, STATUS, &json!({"status": status}));
    }
}

/// Of a content: the driver takes the snapshot, and forgets it when it goes.
fn follow_content(site: &Site, content: &Value) {
    let handle = format!("snapshot-{}", text(content, "/metadata/uid"));
    if !content["metadata"]["deletionTimestamp"].is_null() {
        if content["spec"]["deletionPolicy"] == "Delete" {
            remove(site, &handle);
        }
        return keep(site, content, OF_CONTENT, false);
    }
    if !place(site, &handle).exists() {
        copy(site, text(content, "/spec/source/volumeHandle"), &handle);
    }
    let is_whole = *site.snapshots.lock().expect("not poisoned") == Some(true);
    if content["status"]["readyToUse"] != is_whole {
        let status = json!({"snapshotHandle": handle, "readyToUse": is_whole, "restoreSize": 1 << 30});
        // As the driver's snapshotter writes its first status, and its first annotation: there is nothing to replace yet.
        let operations = json!([{"op": "replace", "path": "/status", "value": status}]).to_string();
        let name = text(content, "/metadata/name");
        let patch = ["patch", "volumesnapshotcontent", name, "--type=json", "-p", &operations, "--subresource=status"];
        site.kubectl(&patch);
    }
}

/// Where the driver has a volume, or a snapshot.
fn place(site: &Site, handle: &str) -> PathBuf {
    site.state.root.join("volumes").join(handle)
}

/// Makes a volume, or a snapshot, that has what another has at this moment.
pub(crate) fn copy(site: &Site, from: &str, to: &str) {
    must(Command::new("cp").arg("-a").args([place(site, from), place(site, to)]));
}

/// Forgets a snapshot.
fn remove(site: &Site, handle: &str) {
    if place(site, handle).exists() {
        std::fs::remove_dir_all(place(site, handle)).expect("the driver's own");
    }
}

/// What the driver calls that which a claim's volume is to be filled from, once that is there.
pub(crate) fn source(site: &Site, claim: &Value) -> Option<String> {
    let from = &claim["spec"]["dataSourceRef"];
    assert_eq!(claim["spec"]["dataSource"], *from, "one follows the other");
    let all = site.all("volumesnapshots,volumesnapshotcontents,pvc,pv");
    let found = named(&all, text(from, "/kind"), text(claim, "/metadata/namespace"), text(from, "/name"))?;
    match text(from, "/kind") {
        "VolumeSnapshot" if found["status"]["readyToUse"] == true => {
            let content = text(found, "/status/boundVolumeSnapshotContentName");
            let content = named(&all, "VolumeSnapshotContent", "", content)?;
            Some(text(content, "/status/snapshotHandle").to_owned())
        }
        "PersistentVolumeClaim" => {
            let volume = named(&all, "PersistentVolume", "", text(found, "/spec/volumeName"))?;
            Some(text(volume, "/spec/csi/volumeHandle").to_owned())
        }
        _ => None,
    }
}

pub fn csi_snapshots_are_taken_restored_and_cloned(test: &Test) {
    test.apply(KINDS);
    test.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "-l", "windlass-test=snapshot"]);
    let site = Site::new(test.cluster, "csi-snap", &[1], 0);
    *site.snapshots.lock().expect("not poisoned") = Some(false);
    site.install(json!({"attachRequired": false}));
    site.apply(&json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": site.name()}, "driver": site.name(), "deletionPolicy": "Delete"}));
    let snapshot = |source: &str| {
        format!(
            "apiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshot\nmetadata: {{name: then}}\nspec: {{volumeSnapshotClassName: {}, source: {{{source}}}}}\n",
            site.name()
        )
    };
    let two_sources = test.file("yaml", &snapshot("persistentVolumeClaimName: first, volumeSnapshotContentName: x"));
    assert!(test.refused(&["apply", "-f", &two_sources]).contains("exactly one source is to be named"));

    // A claim that is to be a copy waits for what it is a copy of, whoever asks first.
    let from_snapshot = ", dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: then}";
    test.apply(&claim(&site, "restored", from_snapshot));
    let written = test.get("pvc", "restored");
    assert_eq!(written["spec"]["dataSourceRef"], written["spec"]["dataSource"], "{written:#}");
    test.apply(&pod("reader", &by_claim("restored"), "cat /data/file"));
    test.apply(&claim(&site, "first", ""));
    test.apply(&pod(
        "writer",
        &by_claim("first"),
        "echo then > /data/file; while ! test -e /data/go; do sleep 0.1; done; echo now > /data/file",
    ));
    site.wait(test, "pod", "writer", "Ready", is_ready);
    until("the file is written", PATIENCE, || match test.try_kubectl(&["exec", "writer", "--", "cat", "/data/file"]) {
        said if said.stdout == "then\n" => Ok(()),
        said => Err(said.stderr),
    });

    // While the snapshot is taken its source stays, although it is told to go.
    test.apply(&snapshot("persistentVolumeClaimName: first"));
    let has = |object: &Value, finalizer: &str| object["metadata"]["finalizers"].to_string().contains(finalizer);
    site.wait(test, "pvc", "first", "kept for its snapshot", |claim| has(claim, OF_SOURCE));
    site.wait(test, "volumesnapshotcontents", &content(test), "begun", |content| {
        content["status"]["readyToUse"] == false
    });
    test.kubectl(&["exec", "writer", "--", "touch", "/data/go"]);
    until("the file is changed", PATIENCE, || match test.try_kubectl(&["exec", "writer", "--", "cat", "/data/file"]) {
        said if said.stdout == "now\n" => Ok(()),
        said => Err(said.stderr),
    });
    assert!(test.get("pvc", "restored")["spec"]["volumeName"].is_null(), "there is nothing to restore yet");
    test.apply(&claim(&site, "cloned", ", dataSource: {kind: PersistentVolumeClaim, name: first}"));
    test.apply(&pod("twin", &by_claim("cloned"), "cat /data/file"));
    site.wait(test, "pod", "twin", "Ready", is_ready);
    assert_eq!(test.kubectl(&["logs", "twin"]), "now\n", "a clone has what its source has");
    test.kubectl(&["delete", "pod", "writer"]);
    test.kubectl(&["delete", "pvc", "first", "--wait=false"]);
    site.wait(test, "pvc", "first", "free of pods, and kept", |claim| {
        !has(claim, "kubernetes.io/pvc-protection") && has(claim, OF_SOURCE)
    });

    // Whole, it outlives its source.
    *site.snapshots.lock().expect("not poisoned") = Some(true);
    site.wait(test, "volumesnapshot", "then", "ready", |snapshot| snapshot["status"]["readyToUse"] == true);
    let row = test.kubectl(&["get", "vs", "then", "--no-headers"]);
    assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["then", "true", "first"], "{row}");
    site.wait(test, "pod", "reader", "Ready", is_ready);
    assert_eq!(test.kubectl(&["logs", "reader"]), "then\n", "a restored volume has what there was then");
    until("the source is gone", PATIENCE, || {
        site.sidecars();
        let out = test.try_kubectl(&["get", "pvc", "first"]);
        if out.ok { Err(out.stdout) } else { Ok(()) }
    });

    // Nobody else's volume is such a copy: least of all an empty one of our own.
    test.apply(&format!("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: empty}}\nspec: {{accessModes: [ReadWriteOnce], storageClassName: local, resources: {{requests: {{storage: 1Gi}}}}{from_snapshot}}}\n"));
    test.apply(&pod("never", &by_claim("empty"), "true"));
    until("the claim is told why", PATIENCE, || {
        let said = test.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        let why = "volumes of class local are made empty: none can be made from VolumeSnapshot then";
        if said.contains(why) { Ok(()) } else { Err(said) }
    });
    assert!(test.get("pvc", "empty")["spec"]["volumeName"].is_null());

    let content = content(test);
    test.kubectl(&["delete", "pod", "reader", "twin", "never"]);
    site.nothing_is_left();
    test.kubectl(&["delete", "volumesnapshot", "then", "--wait=false"]);
    until("the snapshot is gone with what the driver has of it", PATIENCE, || {
        site.sidecars();
        let left = test.try_kubectl(&["get", "volumesnapshots,volumesnapshotcontents", "-o", "name"]).stdout;
        if left.contains("then") || left.contains(&content) { Err(left) } else { Ok(()) }
    });
    let kept = std::fs::read_dir(site.state.root.join("volumes")).expect("the driver's own").flatten();
    let kept: Vec<_> = kept.map(|entry| entry.file_name()).collect();
    assert!(!kept.iter().any(|name| name.to_string_lossy().starts_with("snapshot-")), "{kept:?}");
    for name in ["restored", "cloned"] {
        let volume = test.get("pvc", name)["spec"]["volumeName"].as_str().expect("a volume").to_owned();
        test.kubectl(&["delete", "pvc", name]);
        test.kubectl(&["delete", "pv", &volume, "--ignore-not-found"]);
    }
    test.kubectl(&["delete", "pvc", "empty"]);
    test.kubectl(&["delete", "crd", "-l", "windlass-test=snapshot"]);
}

/// The name of the only snapshot's content, once there is one.
fn content(test: &Test) -> String {
    format!("snapcontent-{}", text(&test.get("volumesnapshot", "then"), "/metadata/uid"))
}
