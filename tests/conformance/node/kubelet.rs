//! What the node's agent makes of a pod: its log, its hosts file, its root file system, and its end.

use serde_json::json;

use crate::Test;
use crate::running::{container, has_lines, is_ready, phase, script, status, waiting};

/// What a hosts file that the agent writes begins with.
const MANAGED: &str = "# Kubernetes-managed hosts file.";

pub async fn output_is_in_the_log(test: &Test) {
    let text = test.run(&script("printing", "echo Hello World; echo and errors >&2")).await;
    has_lines(&text, &["Hello World", "and errors"]);
}

pub async fn a_failed_pod_says_why(test: &Test) {
    let mut pod = script("failing", "");
    pod["spec"]["containers"][0]["command"] = json!(["/bin/false"]);
    pod["spec"]["restartPolicy"] = json!("Always");
    test.start(&pod).await;
    let seen = test.until_pod("failing", "terminated", |pod| {
        let status = status(pod, "main");
        status["state"]["terminated"].is_object() || status["lastState"]["terminated"].is_object()
    });
    let status = status(&seen.await, "main").clone();
    let ended = [&status["state"]["terminated"], &status["lastState"]["terminated"]];
    let ended = ended.into_iter().find(|ended| ended.is_object()).expect("waited for");
    assert_eq!(ended["reason"], "Error");
    assert_eq!(ended["exitCode"], 1);
}

pub async fn a_failed_pod_is_deleted(test: &Test) {
    let mut pod = script("failing", "");
    pod["spec"]["containers"][0]["command"] = json!(["/bin/false"]);
    pod["spec"]["restartPolicy"] = json!("Always");
    test.start(&pod).await;
    test.until_pod("failing", "restarted", |pod| status(pod, "main")["restartCount"].as_u64() >= Some(1)).await;
    test.stop("failing").await;
}

pub async fn aliases_are_in_the_hosts_file(test: &Test) {
    let mut pod = script("aliases", "cat /etc/hosts");
    pod["spec"]["hostAliases"] = json!([{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]);
    let text = test.run(&pod).await;
    assert!(text.starts_with(MANAGED), "{text}");
    has_lines(&text, &["123.45.67.89\tfoo\tbar"]);
}

pub async fn the_hosts_file_is_the_agents_where_it_should_be(test: &Test) {
    let mut pod = waiting("hosts");
    let idle = pod["spec"]["containers"][0]["command"][2].as_str().expect("a script").to_owned();
    let mut own = container("own", &idle);
    own["volumeMounts"] = json!([{"name": "host", "mountPath": "/etc/hosts"}]);
    pod["spec"]["containers"] = json!([container("main", &idle), container("second", &idle), own]);
    pod["spec"]["volumes"] = json!([{"name": "host", "hostPath": {"path": "/etc/hosts", "type": "File"}}]);
    test.start(&pod).await;
    let mut host = waiting("host-network");
    host["spec"]["hostNetwork"] = json!(true);
    test.start(&host).await;
    test.until_pod("hosts", "ready", is_ready).await;
    test.until_pod("host-network", "ready", is_ready).await;
    assert!(test.shell("hosts", "cat /etc/hosts").await.contains("\thosts\n"), "the pod's own name");
    for (pod, container, managed) in
        [("hosts", "main", true), ("hosts", "second", true), ("hosts", "own", false), ("host-network", "main", false)]
    {
        let text = test.exec(pod, container, &["cat", "/etc/hosts"]).await.stdout;
        assert_eq!(text.starts_with(MANAGED), managed, "{pod} {container}: {text}");
    }
}

pub async fn a_read_only_root_is_not_written(test: &Test) {
    let mut pod = script("read-only", "echo test > /file; sleep 0.1; [ -e /file ] && echo written");
    pod["spec"]["containers"][0]["securityContext"] = json!({"readOnlyRootFilesystem": true});
    let ended = test.run_to_end(&pod).await;
    assert_eq!(phase(&ended), "Failed");
    let text = test.log("read-only", "").await;
    assert!(text.contains("Read-only file system") && !text.contains("written"), "{text}");
}
