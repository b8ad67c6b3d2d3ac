//! Dynamic resource allocation: a driver of the tests' own offers two GPUs that are none. What it publishes is published here
//! through the API, as its program would; everything else is the real thing.

#[path = "../../crates/node/src/kernel/dra/driver.rs"]
mod driver;

use std::path::PathBuf;
use std::process::Command;

use driver::{Driver, Look};
use serde_json::Value;
use windlass_tests::Test;
use windlass_tests::cluster::{given, until};
use windlass_tests::suite::{PATIENCE, is_ready};

const NAME: &str = "gpu.e2e.example.com";
const OBJECTS: &str = "apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: gpu.e2e.example.com}
spec:
  selectors: [{cel: {expression: device.driver == 'gpu.e2e.example.com'}}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: node1-gpu.e2e.example.com}
spec:
  driver: gpu.e2e.example.com
  nodeName: node1
  pool: {name: node1, generation: 1, resourceSliceCount: 1}
  devices:
  - name: gpu-0
    attributes: {model: {string: fast}, version: {version: 1.2.0}}
    capacity: {memory: {value: 40Gi}}
  - name: gpu-1
    attributes: {model: {string: slow}, version: {version: 1.1.0}}
    capacity: {memory: {value: 20Gi}}
";

/// A template of claims: one device that the expression selects.
fn template(name: &str, expression: &str) -> String {
    format!(
        "apiVersion: resource.k8s.io/v1\nkind: ResourceClaimTemplate\nmetadata: {{name: {name}}}\nspec:\n  spec:\n    devices:\n      requests:\n      - name: gpu\n        exactly:\n          deviceClassName: {NAME}\n          selectors: [{{cel: {{expression: \"{expression}\"}}}}]\n"
    )
}

fn pod(name: &str, template: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  resourceClaims: [{{name: gpu, resourceClaimTemplateName: {template}}}]\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, 'env | grep ^GPU_ | sort; ls /dev | grep ^gpu; sleep 1000']\n    resources: {{claims: [{{name: gpu, request: gpu}}]}}\n"
    )
}

/// The driver, and what it leaves on the machine.
struct Site<'a> {
    test: &'a Test<'a>,
    driver: Option<Driver>,
    registry: PathBuf,
    /// What the driver runs on.
    _runtime: tokio::runtime::Runtime,
}

impl<'a> Site<'a> {
    fn new(test: &'a Test<'a>) -> Site<'a> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let root = test.cluster.data_dir().parent().expect("it has one").join("dra");
        let registry = test.cluster.data_dir().join("kubelet/plugins_registry");
        let inside = runtime.enter();
        let driver = Driver::start(NAME, (&root, "/var/run/cdi".as_ref()), &registry, looks(test));
        drop(inside);
        Site { test, driver: Some(driver), registry, _runtime: runtime }
    }

    fn driver(&self) -> &Driver {
        self.driver.as_ref().expect("it serves")
    }
}

/// What the driver's program reads of a claim.
fn looks(test: &Test) -> Look {
    let (program, kubeconfig) = (given("WINDLASS_KUBECTL"), test.cluster.kubeconfig());
    Box::new(move |namespace, name| {
        let mut command = Command::new(&program);
        command.arg("--kubeconfig").arg(&kubeconfig).args([
            "get",
            "resourceclaim",
            "-o",
            "json",
            "-n",
            namespace,
            name,
        ]);
        let output = command.output().expect("kubectl is installed");
        let claim: Value = serde_json::from_slice(&output.stdout).expect("kubectl prints JSON");
        let results = claim["status"]["allocation"]["devices"]["results"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        results.iter().map(|one| [&one["request"], &one["pool"], &one["device"]].map(text)).collect()
    })
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        self.driver = None;
        let _ = std::fs::remove_file(self.registry.join(format!("{NAME}-reg.sock")));
        for (kind, name) in [("deviceclass", NAME), ("resourceslice", "node1-gpu.e2e.example.com")] {
            let _ = self.test.cluster.kubectl(&["delete", kind, name, "--ignore-not-found"]);
        }
    }
}

pub fn dra_devices_are_claimed_allocated_prepared_and_given_back(test: &Test) {
    let site = Site::new(test);
    test.apply(OBJECTS);
    test.apply(&template("fast", "device.attributes['gpu.e2e.example.com'].model == 'fast'"));
    test.apply(&template(
        "large-enough",
        "device.capacity['gpu.e2e.example.com'].memory.compareTo(quantity('20Gi')) >= 0",
    ));
    test.apply(&pod("first", "fast"));
    test.wait("pod", "first", "Ready", is_ready);
    until("the first container sees its device", PATIENCE, || match test.kubectl(&["logs", "first"]).as_str() {
        "GPU_0=given\ngpu-0\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    test.apply(&pod("second", "large-enough"));
    test.wait("pod", "second", "Ready", is_ready);
    until("the second container sees the other device", PATIENCE, || {
        match test.kubectl(&["logs", "second"]).as_str() {
            "GPU_1=given\ngpu-1\n" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    assert_eq!(site.driver().prepared().len(), 2);
    let claim =
        test.kubectl(&["get", "pod", "first", "-o", "jsonpath={.status.resourceClaimStatuses[0].resourceClaimName}"]);
    assert_eq!(site.driver().count("NodePrepareResources", &claim), 1);
    test.apply(&pod("third", "large-enough"));
    let says = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["message"] == "0/1 nodes are available: 1 cannot allocate all claims.")
    };
    test.wait("pod", "third", "it says why it waits", says);
    let claims = test.kubectl(&["get", "resourceclaims", "--no-headers"]);
    assert_eq!(claims.lines().filter(|line| line.contains("allocated,reserved")).count(), 2, "{claims}");
    assert_eq!(claims.lines().filter(|line| line.contains("pending")).count(), 1, "{claims}");
    // One that goes lets the next go on, with its device.
    test.kubectl(&["delete", "pod", "first"]);
    test.wait("pod", "third", "Ready", is_ready);
    until("the third container sees the device of the first", PATIENCE, || {
        match test.kubectl(&["logs", "third"]).as_str() {
            "GPU_0=given\ngpu-0\n" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    test.kubectl(&["delete", "pod", "second", "third"]);
    until("no claim is left, and nothing is prepared", PATIENCE, || {
        let claims = test.kubectl(&["get", "resourceclaims", "-o", "name"]);
        let prepared = site.driver().prepared();
        if claims.is_empty() && prepared.is_empty() { Ok(()) } else { Err(format!("{claims}{prepared:?}")) }
    });
}
