//! Converge: when nothing breaks any more, the cluster becomes what was declared.
//!
//! Source: API reference, DeploymentStatus; the Goal lines of the controllers, the scheduler and the node agent.
//!
//! Rules
//!   R1 observed    each Deployment's observedGeneration is its generation
//!   R2 replicas    all its replicas are there, up to date, ready and available, and no others
//!   R3 pods        every pod is bound, runs and is ready; none is ending
//!   R4 running     what runs in the machines is what the pods say, on the machine they are bound to
//!   R5 left        a machine holds nothing of pods that are not bound to it
//! Not here    the pods' owners (owner), addresses of services (service)

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use windlass_api::Object;

use super::single::Whose;

/// Everything there is, in the API and in the machines.
#[derive(Debug, Default)]
pub struct View {
    /// All Deployments.
    pub deployments: Vec<Object>,
    /// All ReplicaSets.
    pub replica_sets: Vec<Object>,
    /// All Pods.
    pub pods: Vec<Object>,
    /// All Services.
    pub services: Vec<Object>,
    /// All EndpointSlices.
    pub slices: Vec<Object>,
    /// By machine: the containers that run.
    pub running: BTreeMap<String, BTreeSet<Whose>>,
    /// By machine: the uids of pods of which there is anything.
    pub held: BTreeMap<String, BTreeSet<String>>,
    /// By machine: the services as the machine serves them, `address:port` → endpoints.
    pub served: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// What is not (yet) as it should be.
pub fn check(view: &View) -> Vec<String> {
    let mut wrong = Vec::new();
    view.deployments.iter().for_each(|deployment| check_deployment(deployment, &mut wrong));
    view.pods.iter().for_each(|pod| check_pod(pod, &mut wrong));
    check_running(view, &mut wrong);
    for (machine, held) in &view.held {
        let bound: BTreeSet<&str> = bound_to(view, machine).map(|pod| pod.header.uid()).collect();
        let left = held.iter().filter(|uid| !bound.contains(uid.as_str()));
        wrong.extend(left.map(|uid| format!("R5 {machine} holds something of {uid}, which is not bound to it")));
    }
    wrong
}

fn bound_to<'a>(view: &'a View, machine: &str) -> impl Iterator<Item = &'a Object> {
    view.pods.iter().filter(move |pod| pod.header.node_name() == machine)
}

fn check_deployment(deployment: &Object, wrong: &mut Vec<String>) {
    let (value, key) = (deployment.value(), deployment.header.key());
    let status = &value["status"];
    if deployment.header.is_ending() {
        wrong.push(format!("R2 deployment {key} is still ending"));
        return;
    }
    if status["observedGeneration"].as_i64().unwrap_or(0) != deployment.header.generation {
        let observed = &status["observedGeneration"];
        wrong.push(format!("R1 deployment {key}: observed {observed} of generation {}", deployment.header.generation));
    }
    let want = value["spec"]["replicas"].as_u64().unwrap_or(1);
    for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        let found = status[field].as_u64().unwrap_or(0);
        if found != want {
            wrong.push(format!("R2 deployment {key}: expected {field} {want}, found {found}"));
        }
    }
}

/// Whether a condition of an object holds.
pub fn holds(value: &Value, condition: &str) -> bool {
    let conditions = value["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|found| found["type"] == condition && found["status"] == "True")
}

fn check_pod(pod: &Object, wrong: &mut Vec<String>) {
    let (value, key) = (pod.value(), pod.header.key());
    let phase = value["status"]["phase"].as_str().unwrap_or("none");
    if pod.header.is_ending() {
        wrong.push(format!("R3 pod {key} on {:?} is still ending", pod.header.node_name()));
    } else if phase != "Running" || !holds(&value, "Ready") || pod.header.node_name().is_empty() {
        let statuses = &value["status"]["containerStatuses"];
        wrong.push(format!(
            "R3 pod {key} on {:?} is {phase}, not running and ready: {statuses}",
            pod.header.node_name()
        ));
    }
}

/// R4.
fn check_running(view: &View, wrong: &mut Vec<String>) {
    for (machine, running) in &view.running {
        let declared: BTreeSet<Whose> = bound_to(view, machine).flat_map(containers).collect();
        for (pod, container) in declared.difference(running) {
            wrong.push(format!("R4 {container} of pod {pod} does not run on {machine}"));
        }
        for (pod, container) in running.difference(&declared) {
            wrong.push(format!("R4 {container} of pod {pod} runs on {machine}, but no pod there has it"));
        }
    }
}

fn containers(pod: &Object) -> Vec<Whose> {
    let value = pod.value();
    let list = value["spec"]["containers"].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|one| Some((pod.header.uid().to_owned(), one["name"].as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::{View, check};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;
    use windlass_api::Object;

    fn object(value: &Value) -> Object {
        Object::parse(value.to_string().into_bytes().into()).expect("an object")
    }

    fn deployment() -> Value {
        json!({"metadata": {"namespace": "d", "name": "web", "generation": 2}, "spec": {"replicas": 1}, "status": {
            "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}})
    }

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": "web-1", "uid": "u1"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn view(deployment: &Value, pod: &Value) -> View {
        let mut view = View { deployments: vec![object(deployment)], pods: vec![object(pod)], ..View::default() };
        view.running.insert("n1".to_owned(), BTreeSet::from([("u1".to_owned(), "c".to_owned())]));
        view.held.insert("n1".to_owned(), BTreeSet::from(["u1".to_owned()]));
        view
    }

    /// The rules that say something.
    fn rules(view: &View) -> String {
        check(view).iter().map(|wrong| wrong[..2].to_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_cluster_that_is_as_declared_has_nothing_wrong() {
        assert_eq!(check(&view(&deployment(), &pod())), [""; 0]);
    }

    #[test]
    fn r1_r2_a_deployment_that_is_behind_is_found() {
        let mut behind = deployment();
        behind["status"]["observedGeneration"] = json!(1);
        assert_eq!(rules(&view(&behind, &pod())), "R1");
        behind["status"]["readyReplicas"] = json!(0);
        assert_eq!(rules(&view(&behind, &pod())), "R1 R2");
    }

    #[test]
    fn r3_a_pod_that_is_not_ready_is_found() {
        let mut pending = pod();
        pending["status"]["conditions"][0]["status"] = json!("False");
        assert_eq!(rules(&view(&deployment(), &pending)), "R3");
        let mut ending = pod();
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(rules(&view(&deployment(), &ending)), "R3");
    }

    #[test]
    fn r4_what_does_not_run_or_runs_for_nobody_is_found() {
        let mut idle = view(&deployment(), &pod());
        idle.running.insert("n1".to_owned(), BTreeSet::new());
        assert_eq!(rules(&idle), "R4");
        let mut undead = view(&deployment(), &pod());
        undead.running.insert("n2".to_owned(), BTreeSet::from([("u1".to_owned(), "c".to_owned())]));
        assert_eq!(rules(&undead), "R4");
    }

    #[test]
    fn r5_what_is_left_of_a_pod_is_found() {
        let mut left = view(&deployment(), &pod());
        left.held.insert("n2".to_owned(), BTreeSet::from(["u1".to_owned()]));
        assert_eq!(rules(&left), "R5");
    }
}
