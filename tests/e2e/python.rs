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
    run_program(test, PROGRAM);
}

/// `kr8s`: another client, with its own way of finding kinds.
const KR8S: &str = r#"
import sys
import kr8s
from kr8s.objects import ConfigMap, Deployment

api = kr8s.api(kubeconfig=sys.argv[1], namespace=sys.argv[2])
assert api.version()["gitVersion"].startswith("v1.37"), api.version()
made = ConfigMap({"metadata": {"name": "kr8s", "labels": {"by": "kr8s"}}, "data": {"k": "v"}}, namespace=sys.argv[2], api=api)
made.create()
assert made.exists()
made.patch({"data": {"k": "changed"}})
made.refresh()
assert made.data.k == "changed", made.raw
made.label(seen="yes")
assert [found.name for found in api.get("cm", namespace=sys.argv[2], label_selector={"seen": "yes"})] == ["kr8s"]
made.delete()
made.wait("delete", timeout=30)
assert not made.exists()
container = {"name": "main", "image": "windlass.local/demo:1"}
template = {"metadata": {"labels": {"app": "kr8s"}}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
web = Deployment({"metadata": {"name": "kr8s"}, "spec": {
    "replicas": 1, "selector": {"matchLabels": {"app": "kr8s"}}, "template": template}}, namespace=sys.argv[2], api=api)
web.create()
web.wait("condition=Available", timeout=60)
web.scale(2)
assert web.raw["spec"]["replicas"] == 2, web.raw
pods = list(api.get("pods", namespace=sys.argv[2], label_selector="app=kr8s"))
assert pods, "the deployment has pods"
web.delete()
print("ok")
"#;

/// `lightkube`: typed models generated from the OpenAPI document, and server-side apply.
const LIGHTKUBE: &str = r#"
import sys
from lightkube import ApiError, Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import PatchType

config = KubeConfig.from_file(sys.argv[1])
client = Client(config=config, namespace=sys.argv[2], field_manager="lightkube")
wished = lambda value: ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="light", labels={"by": "lightkube"}), data={"k": value})
client.apply(wished("v"))
client.apply(wished("w"))
assert client.get(ConfigMap, "light").data == {"k": "w"}
try:
    client.apply(wished("x"), field_manager="other")
    raise AssertionError("two managers, one field")
except ApiError as refused:
    assert refused.status.code == 409, refused
client.apply(wished("x"), field_manager="other", force=True)
managers = {entry.manager for entry in client.get(ConfigMap, "light").metadata.managedFields}
assert managers == {"lightkube", "other"}, managers
client.patch(ConfigMap, "light", {"metadata": {"labels": {"more": "yes"}}}, patch_type=PatchType.MERGE)
assert [found.metadata.name for found in client.list(ConfigMap, labels={"more": "yes"})] == ["light"]
for event, found in client.watch(ConfigMap, labels={"by": "lightkube"}, server_timeout=30):
    assert (event, found.metadata.name) == ("ADDED", "light"), (event, found)
    break
client.delete(ConfigMap, "light")
try:
    client.get(ConfigMap, "light")
    raise AssertionError("the object is gone")
except ApiError as refused:
    assert refused.status.code == 404, refused
assert list(client.list(Pod, namespace="*")) is not None
scale = client.list(Deployment)
assert list(scale) == [], "nothing was deployed here"
print("ok")
"#;

fn run_program(test: &Test, program: &str) {
    let program = test.file("py", program);
    let mut python = Command::new(given("WINDLASS_PYTHON"));
    let said = must(python.arg(program).arg(test.cluster.kubeconfig()).arg(&test.namespace));
    assert_eq!(said.trim(), "ok");
}

pub fn kr8s_finds_creates_scales_and_deletes(test: &Test) {
    run_program(test, KR8S);
}

pub fn lightkube_applies_from_the_server_side(test: &Test) {
    run_program(test, LIGHTKUBE);
}
