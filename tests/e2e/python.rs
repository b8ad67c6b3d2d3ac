//! The Python package `kubernetes`: lists, watches, patches, execs, and typed deletes of many kinds.

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

/// Every kind that a test may make and delete, through its typed methods: what a delete answers is read as the type that
/// the package was generated with, and is refused when it is another.
const TYPED: &str = r#"
import sys
from kubernetes import client, config

config.load_kube_config(sys.argv[1])
namespace = sys.argv[2]
name = ("typed-" + namespace)[:40].rstrip("-")
core, apps, batch, storage = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api(), client.StorageV1Api()
resource, rbac, networking = client.ResourceV1Api(), client.RbacAuthorizationV1Api(), client.NetworkingV1Api()

container = {"name": "main", "image": "windlass.local/demo:1"}
template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
once = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], "restartPolicy": "Never"}}
select = {"matchLabels": {"app": name}}
claim = {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": name}}]}}
rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
role = lambda kind: {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}}
asked = {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}
volume = {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp"}}

# What counts replicas is not here: a new one says its count only once its controller has.
# api, noun, whether it is in a namespace, body, the type that a delete gives (None: a Status)
kinds = [
    (core, "config_map", True, {"data": {"a": "b"}}, None),
    (core, "secret", True, {"stringData": {"a": "b"}}, None),
    (core, "endpoints", True, {}, None),
    (core, "limit_range", True, {"spec": {"limits": []}}, None),
    (core, "pod", True, {"spec": {"containers": [container], "schedulerName": "nobody"}}, "V1Pod"),
    (core, "pod_template", True, {"template": template}, "V1PodTemplate"),
    (core, "resource_quota", True, {"spec": {"hard": {"services.loadbalancers": "9"}}}, "V1ResourceQuota"),
    (core, "service", True, {"spec": {"ports": [{"port": 80}]}}, "V1Service"),
    (core, "service_account", True, {}, "V1ServiceAccount"),
    (core, "persistent_volume_claim", True, {"spec": asked}, "V1PersistentVolumeClaim"),
    (core, "persistent_volume", False, {"spec": volume}, "V1PersistentVolume"),
    (apps, "deployment", True, {"spec": {"replicas": 0, "selector": select, "template": template}}, None),
    (apps, "controller_revision", True, {"revision": 1, "data": {"a": 1}}, None),
    (batch, "job", True, {"spec": {"suspend": True, "template": once}}, None),
    (batch, "cron_job", True, {"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": once}}}}, None),
    (client.PolicyV1Api(), "pod_disruption_budget", True, {"spec": {"minAvailable": 1, "selector": select}}, None),
    (client.AutoscalingV2Api(), "horizontal_pod_autoscaler", True, {"spec": {"maxReplicas": 2,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}}}, None),
    (client.CoordinationV1Api(), "lease", True, {"spec": {"holderIdentity": "me"}}, None),
    (client.DiscoveryV1Api(), "endpoint_slice", True, {"addressType": "IPv4", "endpoints": []}, None),
    (networking, "network_policy", True, {"spec": {"podSelector": {}}}, None),
    (networking, "ingress", True, {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}, None),
    (networking, "ingress_class", False, {"spec": {"controller": "example.com/c"}}, None),
    (rbac, "role", True, {"rules": [rule]}, None),
    (rbac, "role_binding", True, role("Role"), None),
    (rbac, "cluster_role", False, {"rules": [rule]}, None),
    (rbac, "cluster_role_binding", False, role("ClusterRole"), None),
    (client.SchedulingV1Api(), "priority_class", False, {"value": 1}, None),
    (client.NodeV1Api(), "runtime_class", False, {"handler": "runc"}, None),
    (storage, "storage_class", False, {"provisioner": "example.com/p"}, "V1StorageClass"),
    (storage, "volume_attributes_class", False, {"driverName": "example.com", "parameters": {"a": "b"}}, "V1VolumeAttributesClass"),
    (storage, "csi_driver", False, {"spec": {}}, "V1CSIDriver"),
    (storage, "csi_node", False, {"spec": {"drivers": []}}, "V1CSINode"),
    (storage, "volume_attachment", False, {"spec": {"attacher": "example.com", "nodeName": "none",
        "source": {"persistentVolumeName": name}}}, "V1VolumeAttachment"),
    (resource, "device_class", False, {"spec": {}}, "V1DeviceClass"),
    (resource, "resource_claim", True, {"spec": claim}, "ResourceV1ResourceClaim"),
    (resource, "resource_claim_template", True, {"spec": {"spec": claim}}, "V1ResourceClaimTemplate"),
    (resource, "resource_slice", False, {"spec": {"driver": "gpu.example.com", "nodeName": "none", "devices": [],
        "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}}}, "V1ResourceSlice"),
    (resource, "device_taint_rule", False, {"spec": {"taint": {"key": "example.com/a", "effect": "None"}}}, None),
    (client.StoragemigrationV1Api(), "storage_version_migration", False,
        {"spec": {"resource": {"group": "", "resource": "none"}}}, None),
]
for api, noun, is_namespaced, body, shown in kinds:
    place = (namespace,) if is_namespaced else ()
    scope = "namespaced_" if is_namespaced else ""
    body = dict(body, metadata={"name": name})
    made = getattr(api, "create_" + scope + noun)(*place, body)
    read = getattr(api, "read_" + scope + noun)(name, *place)
    assert read.metadata.uid == made.metadata.uid, noun
    gone = getattr(api, "delete_" + scope + noun)(name, *place)
    if shown is None and isinstance(gone, dict) and gone["kind"] == "Status":
        assert gone["status"] == "Success", (noun, gone)
    elif shown is None:
        # It is ending: something holds it.
        assert gone["metadata"]["deletionTimestamp"], (noun, gone)
    else:
        assert (type(gone).__name__, gone.metadata.uid) == (shown, made.metadata.uid), (noun, gone)
print("ok")
"#;

pub fn the_python_client_reads_what_deletes_answer_as_the_types_it_knows(test: &Test) {
    run_program(test, TYPED);
}

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
