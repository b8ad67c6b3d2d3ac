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
        // Server-side apply is a later capability of the server; Helm's three-way merge is the one meant here.
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
