//! PersistentVolumes: claims get their volumes, data outlives pods, and nothing outlives its volume.

use serde_json::Value;
use windlass_tests::Test;
use windlass_tests::cluster::until;
use windlass_tests::suite::PATIENCE;

/// A pod that runs a script over a claim mounted at `/data`.
fn pod(name: &str, claim: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  securityContext: {{fsGroup: 1234}}\n  volumes: [{{name: data, {claim}}}]\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, '{script}']\n    securityContext: {{runAsUser: 1000}}\n    volumeMounts: [{{name: data, mountPath: /data}}]\n"
    )
}

fn by_claim(name: &str) -> String {
    format!("persistentVolumeClaim: {{claimName: {name}}}")
}

fn succeeds(test: &Test, name: &str) -> String {
    test.wait("pod", name, "succeeds", |object| object["status"]["phase"] == "Succeeded");
    test.kubectl(&["logs", name])
}

fn is_bound(object: &Value) -> bool {
    object["status"]["phase"] == "Bound"
}

pub fn a_claim_gets_a_volume_that_outlives_pods_and_grows(test: &Test) {
    test.apply("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: kept}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n");
    test.wait("pvc", "kept", "has the default class", |object| object["spec"]["storageClassName"] == "local");
    test.apply(&pod("first", &by_claim("kept"), "echo written > /data/file; stat -c %g /data/file"));
    assert_eq!(succeeds(test, "first"), "1234\n");
    let claim = test.wait("pvc", "kept", "Bound", is_bound);
    let volume = claim["spec"]["volumeName"].as_str().expect("a volume").to_owned();
    test.kubectl(&["delete", "pod", "first"]);
    test.apply(&pod("second", &by_claim("kept"), "cat /data/file; sleep 1000"));
    test.wait("pod", "second", "runs", |object| object["status"]["phase"] == "Running");
    test.kubectl(&["patch", "pvc", "kept", "-p", r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#]);
    test.wait("pvc", "kept", "larger", |object| object["status"]["capacity"]["storage"] == "2Gi");
    // A claim in use stays until its pod is gone; then its volume and the directory go too.
    test.kubectl(&["delete", "pvc", "kept", "--wait=false"]);
    test.wait("pvc", "kept", "is ending and there", |object| !object["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(test.kubectl(&["logs", "second"]), "written\n");
    test.kubectl(&["delete", "pod", "second"]);
    until("claim and volume are gone", PATIENCE, || {
        let left = test.kubectl(&["get", "pvc,pv", "-o", "name"]);
        if left.contains("/kept") || left.contains(&volume) { Err(left) } else { Ok(()) }
    });
}

pub fn a_volume_made_by_hand_is_bound_by_its_claim_and_kept(test: &Test) {
    let directory = std::env::temp_dir().join(format!("windlass-e2e-{}", test.namespace));
    std::fs::create_dir_all(&directory).expect("a directory for the test");
    let volume = format!("{}-manual", test.namespace);
    let spec = |path: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {volume}}}\nspec:\n  accessModes: [ReadWriteOnce]\n  capacity: {{storage: 5Gi}}\n  storageClassName: {volume}\n  persistentVolumeReclaimPolicy: Retain\n  local: {{path: {path}}}\n  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: Exists}}]}}]}}}}\n"
        )
    };
    test.apply(&spec(&directory.display().to_string()));
    test.apply(&format!("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: manual}}\nspec: {{accessModes: [ReadWriteOnce], storageClassName: {volume}, resources: {{requests: {{storage: 1Gi}}}}}}\n"));
    test.wait("pvc", "manual", "Bound", is_bound);
    test.apply(&pod("writer", &by_claim("manual"), "echo kept > /data/file"));
    succeeds(test, "writer");
    assert_eq!(std::fs::read_to_string(directory.join("file")).expect("written"), "kept\n");
    test.kubectl(&["delete", "pod/writer", "pvc/manual"]);
    test.wait("pv", &volume, "Released", |object| object["status"]["phase"] == "Released");
    test.kubectl(&["delete", "pv", &volume]);
    assert!(directory.join("file").exists(), "what is retained stays");
    std::fs::remove_dir_all(&directory).expect("the test's own directory");
}

pub fn an_ephemeral_volume_goes_with_its_pod(test: &Test) {
    let template = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOncePod], resources: {requests: {storage: 1Mi}}}}}";
    test.apply(&pod("brief", template, "echo here > /data/file; cat /data/file"));
    assert_eq!(succeeds(test, "brief"), "here\n");
    test.wait("pvc", "brief-data", "Bound", is_bound);
    test.kubectl(&["delete", "pod", "brief"]);
    until("its claim is gone", PATIENCE, || {
        let left = test.kubectl(&["get", "pvc", "-o", "name"]);
        if left.contains("brief-data") { Err(left) } else { Ok(()) }
    });
}
