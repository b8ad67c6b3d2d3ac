//! Helm 4, with a chart of our own.

use std::fs;
use std::process::Command;

use windlass_tests::Test;
use windlass_tests::cluster::{given, must};

const DEPLOYMENT: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: windlass.local/demo:1
        env: [{name: GREETING, value: {{ .Values.greeting | quote }}}]
"#;

pub fn a_chart_is_installed_upgraded_rolled_back_and_uninstalled(test: &Test) {
    let chart = std::path::PathBuf::from(test.file("d", "")).with_extension("chart");
    fs::create_dir_all(chart.join("templates")).expect("the cluster's directory is writable");
    fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: demo\nversion: 0.1.0\n").expect("writable");
    fs::write(chart.join("values.yaml"), "replicas: 1\ngreeting: ahoy\n").expect("writable");
    fs::write(chart.join("templates/deployment.yaml"), DEPLOYMENT).expect("writable");
    let chart = chart.to_string_lossy().into_owned();
    let helm = |arguments: &[&str]| {
        let mut command = Command::new(given("WINDLASS_HELM"));
        command.args(arguments).args(["--namespace", &test.namespace, "--kubeconfig"]).arg(test.cluster.kubeconfig());
        command.env("HELM_CACHE_HOME", format!("{chart}/cache")).env("HELM_CONFIG_HOME", format!("{chart}/config"));
        command
    };
    must(&mut helm(&["install", "rel", &chart, "--wait", "--timeout", "90s", "--server-side=false"]));
    assert_eq!(test.get("deployment", "rel")["status"]["availableReplicas"], 1);
    must(&mut helm(&[
        "upgrade",
        "rel",
        &chart,
        "--set",
        "replicas=2",
        "--wait",
        "--timeout",
        "90s",
        "--server-side=false",
    ]));
    assert_eq!(test.get("deployment", "rel")["spec"]["replicas"], 2);
    let history = must(&mut helm(&["history", "rel"]));
    assert!(history.contains("superseded") && history.contains("deployed"), "{history}");
    must(&mut helm(&["rollback", "rel", "1", "--wait", "--timeout", "90s", "--server-side=false"]));
    assert_eq!(test.get("deployment", "rel")["spec"]["replicas"], 1);
    must(&mut helm(&["uninstall", "rel", "--wait", "--timeout", "90s"]));
    let gone = test.try_kubectl(&["get", "deployment", "rel"]);
    assert!(gone.stderr.contains("NotFound"), "{}{}", gone.stdout, gone.stderr);
}

const HOOK: &str = r#"apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-HOOK
  annotations: {"helm.sh/hook": HOOK, "helm.sh/hook-delete-policy": before-hook-creation}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "windlass.local/demo:1", command: [sh, -c, "echo HOOK of {{ .Release.Name }}"]}]
"#;

const DEFINITION: &str = r#"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: anchors.charts.windlass.test}
spec:
  group: charts.windlass.test
  scope: Namespaced
  names: {plural: anchors, singular: anchor, kind: Anchor}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {weight: {type: integer, minimum: 1}}}
"#;

const ANCHOR: &str = "apiVersion: charts.windlass.test/v1\nkind: Anchor\nmetadata: {name: {{ .Release.Name }}}\nspec: {weight: {{ .Values.weight }}}\n";

pub fn a_chart_with_crds_hooks_and_tests(test: &Test) {
    let chart = std::path::PathBuf::from(test.file("d", "")).with_extension("chart");
    fs::create_dir_all(chart.join("templates/tests")).expect("the cluster's directory is writable");
    fs::create_dir_all(chart.join("crds")).expect("the cluster's directory is writable");
    let hook = |hook: &str| HOOK.replace("HOOK", hook);
    for (path, text) in [
        ("Chart.yaml", "apiVersion: v2\nname: anchors\nversion: 0.1.0\n".to_owned()),
        ("values.yaml", "weight: 3\n".to_owned()),
        ("crds/anchor.yaml", DEFINITION.to_owned()),
        ("templates/anchor.yaml", ANCHOR.to_owned()),
        ("templates/before.yaml", hook("pre-install")),
        ("templates/after.yaml", hook("post-upgrade")),
        ("templates/tests/test.yaml", hook("test")),
    ] {
        fs::write(chart.join(path), text).expect("writable");
    }
    let chart = chart.to_string_lossy().into_owned();
    let helm = |arguments: &[&str]| {
        let mut command = Command::new(given("WINDLASS_HELM"));
        command.args(arguments).args(["--namespace", &test.namespace, "--kubeconfig"]).arg(test.cluster.kubeconfig());
        command.env("HELM_CACHE_HOME", format!("{chart}/cache")).env("HELM_CONFIG_HOME", format!("{chart}/config"));
        command
    };
    must(&mut helm(&["install", "rel", &chart, "--wait", "--timeout", "90s"]));
    assert_eq!(test.kubectl(&["logs", "rel-pre-install"]), "pre-install of rel\n");
    assert_eq!(test.get("anchor", "rel")["spec"]["weight"], 3);
    must(&mut helm(&["upgrade", "rel", &chart, "--set", "weight=5", "--wait", "--timeout", "90s"]));
    assert_eq!(test.get("anchor", "rel")["spec"]["weight"], 5);
    assert_eq!(test.kubectl(&["logs", "rel-post-upgrade"]), "post-upgrade of rel\n");
    let said = must(&mut helm(&["test", "rel", "--logs", "--timeout", "90s"]));
    assert!(said.contains("Succeeded") && said.contains("test of rel"), "{said}");
    let refused = windlass_tests::cluster::run(&mut helm(&["upgrade", "rel", &chart, "--set", "weight=0"]));
    assert!(!refused.ok && refused.stderr.contains("spec.weight"), "{}", refused.stderr);
    must(&mut helm(&["rollback", "rel", "1", "--wait", "--timeout", "90s"]));
    assert_eq!(test.get("anchor", "rel")["spec"]["weight"], 3);
    must(&mut helm(&["uninstall", "rel", "--wait", "--timeout", "90s"]));
    let gone = test.refused(&["get", "anchor", "rel"]);
    assert!(gone.contains("NotFound"), "{gone}");
    test.kubectl(&["delete", "crd", "anchors.charts.windlass.test"]);
}
