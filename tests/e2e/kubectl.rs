//! kubectl's everyday commands.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use windlass_tests::Test;
use windlass_tests::cluster::{must, until};
use windlass_tests::suite::PATIENCE;

use crate::deployment::web;

pub fn get_in_every_form(test: &Test) {
    test.apply(&web("web", 1));
    test.rolled_out("web");
    let table = test.kubectl(&["get", "deployment", "web"]);
    let columns: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(columns, ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"], "{table}");
    assert!(table.contains("1/1"), "{table}");
    let wide = test.kubectl(&["get", "deployment", "web", "-o", "wide"]);
    assert!(wide.contains("windlass.local/demo:1") && wide.contains("app=web"), "{wide}");
    let yaml = test.kubectl(&["get", "deployment", "web", "-o", "yaml"]);
    assert!(yaml.contains("kind: Deployment") && yaml.contains("resourceVersion:"), "{yaml}");
    assert_eq!(test.get("deployment", "web")["spec"]["replicas"], 1);
    let pods = test.kubectl(&["get", "pods", "-o", "wide"]);
    assert!(pods.contains("Running") && pods.contains("node1"), "{pods}");
    let names = test.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]);
    assert!(names.starts_with("pod/web-"), "{names}");
    assert_eq!(test.kubectl(&["get", "pods", "-l", "app!=web", "-o", "name"]), "");
    assert_eq!(test.kubectl(&["get", "pods", "--field-selector", "status.phase=Failed", "-o", "name"]), "");
    let all = test.kubectl(&["get", "all"]);
    for what in ["pod/web-", "service/web", "deployment.apps/web", "replicaset.apps/web-"] {
        assert!(all.contains(what), "get all shows {what}: {all}");
    }
    let everywhere = test.kubectl(&["get", "deploy", "--all-namespaces", "--chunk-size=1"]);
    assert!(everywhere.contains(&test.namespace), "{everywhere}");
    let kinds = test.kubectl(&["api-resources"]);
    assert!(kinds.contains("deployments") && kinds.contains("endpointslices"), "{kinds}");
    let version = test.kubectl(&["version"]);
    assert!(version.contains("Server Version: v1.37"), "{version}");
}

pub fn get_watch_sees_changes(test: &Test) {
    test.kubectl(&["create", "configmap", "watched", "--from-literal=a=1"]);
    let mut command = test.command(&["get", "configmaps", "-w", "-o", "name"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("kubectl starts");
    let mut out = watch.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let mut byte = [0];
        while text.matches("configmap/later").count() < 2 && matches!(out.read(&mut byte), Ok(1)) {
            text.push(char::from(byte[0]));
        }
        text
    });
    test.kubectl(&["create", "configmap", "later", "--from-literal=a=1"]);
    test.kubectl(&["patch", "configmap", "later", "-p", r#"{"data":{"a":"2"}}"#]);
    let deadline = std::time::Instant::now() + PATIENCE;
    while !reader.is_finished() && std::time::Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    watch.kill().expect("our own child can be killed");
    watch.wait().expect("our own child can be waited for");
    let text = reader.join().expect("the reading thread does not panic");
    assert!(text.contains("configmap/watched"), "the watch starts with what is there: {text}");
    assert_eq!(text.matches("configmap/later").count(), 2, "created and changed: {text}");
}

pub fn describe_tells_events(test: &Test) {
    test.apply(&web("told", 1));
    test.rolled_out("told");
    let deployment = test.kubectl(&["describe", "deployment", "told"]);
    assert!(deployment.contains("ScalingReplicaSet") && deployment.contains("RollingUpdate"), "{deployment}");
    let pods = test.kubectl(&["describe", "pods"]);
    for word in ["Successfully assigned", "Started", "node1", "windlass.local/demo:1", "QoS Class"] {
        assert!(pods.contains(word), "describe says {word:?}: {pods}");
    }
    let node = must(&mut test.cluster.kubectl_command(&["describe", "node", "node1"]));
    assert!(node.contains("Allocatable") && node.contains("KubeletReady"), "{node}");
    let service = test.kubectl(&["describe", "service", "told"]);
    assert!(service.contains("Endpoints:") && service.contains(":8080"), "{service}");
}

pub fn patch_of_every_type(test: &Test) {
    test.apply(&web("patched", 1));
    test.kubectl(&["patch", "deployment", "patched", "--type=merge", "-p", r#"{"spec":{"replicas":2}}"#]);
    let strategic =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"MORE","value":"x"}]}]}}}}"#;
    test.kubectl(&["patch", "deployment", "patched", "-p", strategic]);
    let json =
        r#"[{"op":"replace","path":"/spec/replicas","value":1},{"op":"test","path":"/spec/replicas","value":1}]"#;
    test.kubectl(&["patch", "deployment", "patched", "--type=json", "-p", json]);
    let object = test.get("deployment", "patched");
    assert_eq!(object["spec"]["replicas"], 1);
    let container = &object["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "windlass.local/demo:1", "a strategic patch merges by name");
    let names: Vec<&str> =
        container["env"].as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str()).collect();
    assert!(names.contains(&"MORE") && names.contains(&"GREETING"), "{names:?}");
    let failing = r#"[{"op":"test","path":"/spec/replicas","value":9}]"#;
    let refused = test.refused(&["patch", "deployment", "patched", "--type=json", "-p", failing]);
    assert!(refused.to_lowercase().contains("test"), "{refused}");
}

pub fn label_and_annotate(test: &Test) {
    test.kubectl(&["create", "configmap", "marked", "--from-literal=a=1"]);
    test.kubectl(&["label", "configmap", "marked", "tier=gold"]);
    test.kubectl(&["annotate", "configmap", "marked", "note=hello"]);
    assert!(test.kubectl(&["get", "configmap", "-l", "tier in (gold)", "-o", "name"]).contains("marked"));
    let refused = test.refused(&["label", "configmap", "marked", "tier=silver"]);
    assert!(refused.contains("overwrite"), "{refused}");
    test.kubectl(&["label", "configmap", "marked", "tier-"]);
    assert_eq!(test.kubectl(&["get", "configmap", "-l", "tier", "-o", "name"]), "");
    let refused = test.refused(&["label", "configmap", "marked", "bad key=x"]);
    assert!(!refused.is_empty());
}

pub fn explain_knows_the_fields(test: &Test) {
    let text = test.kubectl(&["explain", "deployment.spec.strategy"]);
    assert!(text.contains("rollingUpdate") && text.contains("KIND:       Deployment"), "{text}");
    let text = test.kubectl(&["explain", "pod.spec.containers.resources"]);
    assert!(text.contains("limits"), "{text}");
    let refused = test.refused(&["explain", "pod.spec.nonsense"]);
    assert!(refused.contains("nonsense"), "{refused}");
}

pub fn edit_is_refused_on_a_stale_version(test: &Test) {
    test.kubectl(&["create", "configmap", "edited", "--from-literal=a=1"]);
    let stale = test.kubectl(&["get", "configmap", "edited", "-o", "json"]);
    test.kubectl(&["patch", "configmap", "edited", "-p", r#"{"data":{"a":"2"}}"#]);
    let file = test.file("json", &stale.replace("\"1\"", "\"3\""));
    let refused = test.refused(&["replace", "-f", &file]);
    assert!(refused.contains("Conflict") && refused.contains("the object has been modified"), "{refused}");
    let mut fresh: Value = serde_json::from_str(&stale).expect("kubectl prints JSON");
    fresh["metadata"].as_object_mut().expect("an object has metadata").remove("resourceVersion");
    fresh["data"]["a"] = Value::from("4");
    test.kubectl(&["replace", "-f", &test.file("json", &fresh.to_string())]);
    assert_eq!(test.get("configmap", "edited")["data"]["a"], "4");
}

pub fn namespaces_end_with_all_they_hold(test: &Test) {
    let name = format!("{}-x", test.namespace);
    must(&mut test.cluster.kubectl_command(&["create", "namespace", &name]));
    let manifest = test.file("yaml", &web("held", 2));
    must(&mut test.cluster.kubectl_command(&["apply", "-n", &name, "-f", &manifest]));
    must(&mut test.cluster.kubectl_command(&["create", "secret", "generic", "s", "--from-literal=k=v", "-n", &name]));
    must(&mut test.cluster.kubectl_command(&["delete", "namespace", &name, "--timeout=60s"]));
    let gone = test.cluster.kubectl(&["get", "namespace", &name]);
    assert!(gone.stderr.contains("NotFound"), "{}{}", gone.stdout, gone.stderr);
    let pods = must(&mut test.cluster.kubectl_command(&["get", "pods", "-n", &name, "-o", "name"]));
    assert_eq!(pods, "");
}

pub fn an_eviction_ends_a_pod(test: &Test) {
    test.sleeping_pod("evicted", "");
    let eviction = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"evicted","namespace":"{}"}}}}"#,
        test.namespace
    );
    let path = format!("/api/v1/namespaces/{}/pods/evicted/eviction", test.namespace);
    must(&mut test.cluster.kubectl_command(&["create", "--raw", &path, "-f", &test.file("json", &eviction)]));
    until("the pod is gone", PATIENCE, || {
        let pods = test.list("pods");
        if pods.is_empty() { Ok(()) } else { Err(format!("{}", pods[0]["status"])) }
    });
}

/// On a node that nobody runs: the shared one must stay in service.
pub fn drain_cordons_evicts_and_waits_for_budgets(test: &Test) {
    let node = format!("drained-{}", test.namespace);
    let manifest = format!(
        r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"{node}"}},"spec":{{"taints":[{{"key":"only-me","effect":"NoSchedule"}}]}}}}"#
    );
    must(&mut test.cluster.kubectl_command(&["create", "-f", &test.file("json", &manifest)]));
    for name in ["free", "kept"] {
        test.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  nodeName: {node}\n  \
             tolerations: [{{operator: Exists}}]\n  containers: [{{name: main, image: 'windlass.local/demo:1'}}]\n"
        ));
        let ready = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
        test.kubectl(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", ready]);
    }
    test.kubectl(&["create", "poddisruptionbudget", "kept", "--selector=app=kept", "--min-available=1"]);
    until("the budget is counted", PATIENCE, || {
        let status = test.get("poddisruptionbudget", "kept")["status"].clone();
        if status["currentHealthy"] == 1 { Ok(()) } else { Err(status.to_string()) }
    });
    let drain = ["drain", &node, "--force", "--ignore-daemonsets", "--grace-period=0", "--timeout=8s"];
    let refused = test.cluster.kubectl(&drain);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(!refused.ok && said.contains("violate the pod's disruption budget"), "{said}");
    assert!(said.contains(&format!("node/{node} cordoned")), "{said}");
    let left = test.kubectl(&["get", "pods", "-o", "name"]);
    assert_eq!(left, "pod/kept\n", "the pod without a budget is gone");
    test.kubectl(&["delete", "poddisruptionbudget", "kept"]);
    let drained = must(&mut test.cluster.kubectl_command(&drain));
    assert!(drained.contains("pod/kept evicted") && drained.contains(&format!("node/{node} drained")), "{drained}");
    assert_eq!(test.kubectl(&["get", "pods", "-o", "name"]), "");
    must(&mut test.cluster.kubectl_command(&["delete", "node", &node]));
}

pub fn discovery_lists_every_group_and_kind(test: &Test) {
    let versions = test.kubectl(&["api-versions"]);
    for version in [
        "v1",
        "apps/v1",
        "batch/v1",
        "autoscaling/v2",
        "events.k8s.io/v1",
        "rbac.authorization.k8s.io/v1",
        "networking.k8s.io/v1",
    ] {
        assert!(versions.lines().any(|line| line == version), "{version}: {versions}");
    }
    let kinds = test.kubectl(&["api-resources", "--verbs=list", "-o", "wide"]);
    for kind in ["CustomResourceDefinition", "ValidatingAdmissionPolicy", "ResourceClaim"] {
        assert!(kinds.contains(kind), "{kind}: {kinds}");
    }
    let fields = test.kubectl(&["explain", "pod", "--recursive"]);
    assert!(fields.contains("topologySpreadConstraints") && fields.contains("ephemeralContainers"), "{fields}");
}

pub fn events_and_wait_tell_what_happens(test: &Test) {
    test.apply(&web("awaited", 1));
    test.kubectl(&["wait", "--for=condition=Available", "deployment/awaited", "--timeout=60s"]);
    test.kubectl(&["wait", "--for=jsonpath={.status.readyReplicas}=1", "deployment/awaited", "--timeout=60s"]);
    let events = test.kubectl(&["events", "--for", "deployment/awaited"]);
    assert!(events.contains("ScalingReplicaSet"), "{events}");
    test.kubectl(&["delete", "deployment", "awaited", "--wait=false"]);
    test.kubectl(&["wait", "--for=delete", "deployment/awaited", "--timeout=60s"]);
}

pub fn replace_taint_and_cordon(test: &Test) {
    let map = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: replaced}}\ndata: {{a: '{value}'}}\n")
    };
    test.kubectl(&["create", "-f", &test.file("yaml", &map("1"))]);
    let before = test.get("configmap", "replaced");
    test.kubectl(&["replace", "-f", &test.file("yaml", &map("2"))]);
    assert_eq!(test.get("configmap", "replaced")["data"]["a"], "2");
    test.kubectl(&["replace", "--force", "-f", &test.file("yaml", &map("3"))]);
    let after = test.get("configmap", "replaced");
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"], "a forced replacement is another object");
    // A taint that keeps nobody away, so that the other tests' pods still find their node.
    test.kubectl(&["taint", "nodes", "node1", "test=yes:PreferNoSchedule"]);
    let tainted = test.get("node", "node1");
    assert!(tainted["spec"]["taints"].to_string().contains("PreferNoSchedule"), "{}", tainted["spec"]);
    test.kubectl(&["taint", "nodes", "node1", "test-"]);
    let said = test.kubectl(&["cordon", "node1", "--dry-run=server"]);
    assert!(said.contains("cordoned"), "{said}");
}
