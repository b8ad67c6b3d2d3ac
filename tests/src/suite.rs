//! Runs a hand-written list of tests, a few at a time, and says how each ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, Output, must, run, until};

/// How long an ordinary change may take to show, in a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One test of a suite.
pub struct Case {
    /// Its name: the rule it holds.
    pub name: &'static str,
    /// What it does.
    pub body: fn(&Test),
}

/// What a test has: the shared cluster and a namespace of its own.
pub struct Test<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The test's own namespace.
    pub namespace: String,
}

impl Test<'_> {
    /// kubectl in the test's namespace.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.cluster.kubectl_command(&[&["-n", self.namespace.as_str()], arguments].concat())
    }

    /// Runs kubectl in the test's namespace; it must end well. Returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        must(&mut self.command(arguments))
    }

    /// Runs kubectl in the test's namespace, however it ends.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// Runs kubectl in the test's namespace; it must be refused. Returns what it complained.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let out = self.try_kubectl(arguments);
        assert!(!out.ok, "kubectl {arguments:?} should have been refused, but printed: {}", out.stdout);
        out.stderr
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> String {
        let file = self.file("yaml", manifest);
        self.kubectl(&["apply", "-f", &file])
    }

    /// Writes a file for a client to read and returns its path.
    pub fn file(&self, ending: &str, content: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = self.cluster.data_dir().parent().expect("a data directory has a parent").join("files");
        std::fs::create_dir_all(&directory).expect("the cluster's directory is writable");
        let path = directory.join(format!("{}-{number}.{ending}", self.namespace));
        std::fs::write(&path, content).expect("the cluster's directory is writable");
        path.to_string_lossy().into_owned()
    }

    /// One object as JSON.
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.kubectl(&["get", kind, name, "-o", "json"]);
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// All objects of a kind in the namespace.
    pub fn list(&self, kind: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", kind, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until an object satisfies a condition, and returns it.
    pub fn wait(&self, kind: &str, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{kind}/{name}: {what}"), PATIENCE, || {
            let out = self.try_kubectl(&["get", kind, name, "-o", "json"]);
            let value: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr.clone())?;
            if condition(&value) { Ok(value) } else { Err(format!("{:#}", value["status"])) }
        })
    }

    /// Waits until all replicas of a Deployment are available.
    pub fn rolled_out(&self, deployment: &str) {
        let name = format!("deployment/{deployment}");
        let out = self.try_kubectl(&["rollout", "status", &name, "--timeout=90s"]);
        if !out.ok {
            let pods = self.try_kubectl(&["describe", "pods"]).stdout;
            panic!("{name} did not roll out: {}{}\n{pods}", out.stdout, out.stderr);
        }
    }

    /// A pod that runs until told otherwise, with the demo image.
    pub fn sleeping_pod(&self, name: &str, extra: &str) -> Value {
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, 'trap \"exit 0\" TERM; echo started; while true; do sleep 1 & wait $!; done']\n{extra}"
        ));
        self.wait("pod", name, "Ready", is_ready)
    }
}

/// Whether a pod's Ready condition holds.
pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").as_deref() == Some("True")
}

/// The status of a condition of an object.
pub fn condition(object: &Value, name: &str) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == name)?;
    Some(found["status"].as_str()?.to_owned())
}

/// Whether a test is asked for: its name contains the filter, or one of several with `|` between them.
pub fn is_chosen(name: &str, filter: &str) -> bool {
    filter.split('|').any(|part| name.contains(part))
}

/// Runs the cases that are [chosen](is_chosen), `lanes` at a time; returns how many failed.
pub fn run_cases(cluster: &Cluster, cases: &[Case], filter: &str, lanes: usize) -> (usize, usize) {
    let chosen: Vec<&Case> = cases.iter().filter(|case| is_chosen(case.name, filter)).collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !run_case(cluster, case) {
                        failed.lock().expect("no test panics while holding the list").push(case.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("all lanes have ended");
    (chosen.len() - failed.len(), failed.len())
}

fn run_case(cluster: &Cluster, case: &Case) -> bool {
    let started = Instant::now();
    let namespace = case.name.replace('_', "-");
    let namespace = namespace[..namespace.len().min(60)].trim_end_matches('-').to_owned();
    let result = catch_unwind(AssertUnwindSafe(|| {
        must(&mut cluster.kubectl_command(&["create", "namespace", &namespace]));
        let test = Test { cluster, namespace: namespace.clone() };
        (case.body)(&test);
    }));
    let took = started.elapsed().as_secs_f64();
    eprintln!("{} {} ({took:.1} s)", if result.is_ok() { "ok    " } else { "FAILED" }, case.name);
    run(&mut cluster.kubectl_command(&["delete", "namespace", &namespace, "--wait=false"]));
    result.is_ok()
}
