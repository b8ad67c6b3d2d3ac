//! subPathExpr: the part of a volume that a variable names.

use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;
use crate::running::{phase, script, status, waiting};

/// A container of the pod mounts the part that `expression` names at `/part`, and the whole volume at `/whole`.
fn with_part(mut pod: Value, expression: &str, env: Value) -> Value {
    pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["env"] = env;
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "v", "mountPath": "/part", "subPathExpr": expression}, {"name": "v", "mountPath": "/whole"},
    ]);
    pod
}

fn own_name() -> Value {
    json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
}

pub async fn a_variable_names_the_part(test: &Test) {
    let line = "echo text > /part/test.log; test -f /whole/part/test.log && test -d /whole/part/ && echo found";
    let pod = with_part(script("part", line), "$(POD_NAME)", json!([own_name()]));
    assert_eq!(test.run(&pod).await, "found\n");
}

async fn refused(test: &Test, value: &str) {
    let pod = with_part(waiting("part"), "$(PLACE)", json!([{"name": "PLACE", "value": value}]));
    let name = test.start(&pod).await;
    let waits = |pod: &Value| status(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    test.until_pod(&name, "refused", waits).await;
    test.stop(&name).await;
}

pub async fn a_path_with_backsteps_is_refused(test: &Test) {
    refused(test, "..").await;
}

pub async fn an_absolute_path_is_refused(test: &Test) {
    refused(test, "/tmp").await;
}

fn annotated(annotations: Value) -> Value {
    let annotation =
        json!({"name": "PLACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['place']"}}});
    let mut pod = with_part(waiting("part"), "$(PLACE)/$(POD_NAME)", json!([own_name(), annotation]));
    pod["metadata"]["annotations"] = annotations;
    pod
}

pub async fn a_refused_path_may_become_a_good_one(test: &Test) {
    let name = test.start(&annotated(json!({"another": "mypath"}))).await;
    let waits = |pod: &Value| status(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    let refused = test.until_pod(&name, "refused", waits).await;
    assert_eq!(phase(&refused), "Pending");
    test.api.patch(&test.pod(&name), MERGE, &json!({"metadata": {"annotations": {"place": "mypath"}}})).await.ok();
    test.until_pod(&name, "running", |pod| phase(pod) == "Running").await;
    test.stop(&name).await;
}

pub async fn what_is_written_through_a_part_is_in_the_volume(test: &Test) {
    let name = test.start(&annotated(json!({"place": "mypath"}))).await;
    test.until_pod(&name, "running", |pod| phase(pod) == "Running").await;
    test.shell(&name, "touch /whole/mypath/part/test.log; test -f /part/test.log").await;
    // What the variable says now is of no matter: neither to the container that runs nor to its end.
    test.api.patch(&test.pod(&name), MERGE, &json!({"metadata": {"annotations": {"place": "newpath"}}})).await.ok();
    assert_eq!(test.shell(&name, "ls /part /whole").await, "/part:\ntest.log\n\n/whole:\nmypath\n");
    test.stop(&name).await;
}
