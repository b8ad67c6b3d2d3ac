//! kubectl 1.20, as Debian ships it: what an old client sends and expects still works.

use std::process::Command;

use windlass_tests::Test;
use windlass_tests::cluster::{given, must, run};

const MANIFEST: &str = r#"apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: old}
  data: {k: v}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: old}
  spec:
    replicas: 1
    selector: {matchLabels: {app: old}}
    template:
      metadata: {labels: {app: old}}
      spec:
        terminationGracePeriodSeconds: 1
        containers: [{name: web, image: "windlass.local/demo:1"}]
"#;

pub fn kubectl_of_2020_applies_scales_rolls_and_deletes(test: &Test) {
    let file = test.file("yaml", MANIFEST);
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new(given("WINDLASS_OLD_KUBECTL"));
        command.arg("--kubeconfig").arg(test.cluster.kubeconfig()).args(["-n", &test.namespace]).args(arguments);
        command.env("KUBECACHEDIR", format!("{file}.cache")).env("HOME", format!("{file}.home"));
        command
    };
    let said = must(&mut kubectl(&["apply", "-f", &file]));
    assert!(said.contains("configmap/old created") && said.contains("deployment.apps/old created"), "{said}");
    let again = must(&mut kubectl(&["apply", "-f", &file]));
    assert!(again.contains("configmap/old unchanged") && again.contains("deployment.apps/old unchanged"), "{again}");
    must(&mut kubectl(&["rollout", "status", "deployment/old", "--timeout=90s"]));
    must(&mut kubectl(&["scale", "deployment", "old", "--replicas=2"]));
    must(&mut kubectl(&["wait", "--for=condition=Available", "deployment/old", "--timeout=90s"]));
    let shown = must(&mut kubectl(&["get", "deploy,rs,pods", "-o", "wide"]));
    assert!(shown.contains("deployment.apps/old") && shown.contains("windlass.local/demo:1"), "{shown}");
    let described = must(&mut kubectl(&["describe", "deployment", "old"]));
    assert!(described.contains("NewReplicaSet:") && described.contains("Scaled up replica set"), "{described}");
    let explained = must(&mut kubectl(&["explain", "deployment.spec.replicas"]));
    assert!(explained.contains("FIELD:") && explained.contains("replicas"), "{explained}");
    let pod = must(&mut kubectl(&["get", "pods", "-l", "app=old", "-o", "jsonpath={.items[0].metadata.name}"]));
    let told = must(&mut kubectl(&["exec", &pod, "--", "echo", "from exec"]));
    assert_eq!(told, "from exec\n");
    assert!(must(&mut kubectl(&["logs", &pod])).contains("listening"));
    must(&mut kubectl(&["patch", "configmap", "old", "--type=merge", "-p", r#"{"data":{"k":"w"}}"#]));
    must(&mut kubectl(&["label", "configmap", "old", "seen=yes"]));
    assert_eq!(must(&mut kubectl(&["get", "cm", "-l", "seen=yes", "-o", "name"])), "configmap/old\n");
    let wrong = test.file("yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong}\ndatum: {k: v}\n");
    let refused = run(&mut kubectl(&["apply", "-f", &wrong]));
    assert!(!refused.ok && refused.stderr.contains("datum"), "the client checks by OpenAPI v2: {}", refused.stderr);
    must(&mut kubectl(&["delete", "-f", &file]));
    let gone = run(&mut kubectl(&["get", "deployment", "old"]));
    assert!(gone.stderr.contains("NotFound"), "{}", gone.stderr);
}
