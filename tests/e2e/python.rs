//! The Python package `kubernetes`: lists, watches, patches, execs.

use std::process::Command;

use windlass_tests::Test;
use windlass_tests::cluster::{given, must};

const PROGRAM: &str = r#"
import sys, threading
from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

config.load_kube_config(sys.argv[1])
namespace = sys.argv[2]
core, apps = client.CoreV1Api(), client.AppsV1Api()

core.create_namespaced_config_map(namespace, {"metadata": {"name": "first", "labels": {"by": "python"}}, "data": {"k": "v"}})
listed = core.list_namespaced_config_map(namespace, label_selector="by=python")
assert [item.metadata.name for item in listed.items] == ["first"], listed

seen = []
def look():
    for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, label_selector="by=python",
                                      resource_version=listed.metadata.resource_version, timeout_seconds=30):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            return
thread = threading.Thread(target=look)
thread.start()
core.patch_namespaced_config_map("first", namespace, {"data": {"k": "changed"}})
assert core.read_namespaced_config_map("first", namespace).data == {"k": "changed"}
core.delete_namespaced_config_map("first", namespace)
thread.join(60)
assert seen == [("MODIFIED", "first"), ("DELETED", "first")], seen

try:
    core.read_namespaced_config_map("first", namespace)
    raise AssertionError("the object is gone")
except ApiException as refused:
    assert refused.status == 404, refused

container = {"name": "main", "image": "windlass.local/demo:1"}
template = {"metadata": {"labels": {"app": "py"}}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
apps.create_namespaced_deployment(namespace, {"metadata": {"name": "py"}, "spec": {
    "replicas": 1, "selector": {"matchLabels": {"app": "py"}}, "template": template}})
for event in watch.Watch().stream(apps.list_namespaced_deployment, namespace, timeout_seconds=60):
    if event["object"].status.available_replicas == 1:
        break
else:
    raise AssertionError("not available in time")
# The only pod there is now is the one that is available.
pod = core.list_namespaced_pod(namespace, label_selector="app=py").items[0].metadata.name
apps.patch_namespaced_deployment_scale("py", namespace, {"spec": {"replicas": 2}})
assert apps.read_namespaced_deployment("py", namespace).spec.replicas == 2
said = stream(core.connect_get_namespaced_pod_exec, pod, namespace, command=["sh", "-c", "echo from exec"],
              stdout=True, stderr=True, stdin=False, tty=False)
assert said == "from exec\n", repr(said)
assert "listening" in core.read_namespaced_pod_log(pod, namespace)
print("ok")
"#;

pub fn the_python_client_lists_watches_and_patches(test: &Test) {
    let program = test.file("py", PROGRAM);
    let mut python = Command::new(given("WINDLASS_PYTHON"));
    let said = must(python.arg(program).arg(test.cluster.kubeconfig()).arg(&test.namespace));
    assert_eq!(said.trim(), "ok");
}
