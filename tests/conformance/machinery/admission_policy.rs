//! Admission policies: their kinds, and what their expressions refuse and change.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::api::{JSON, PATIENCE, Reply};
use crate::walk::{Walk, condition};
use crate::{Test, pod};

const VERSION: &str = "admissionregistration.k8s.io/v1";
/// How often a write is tried until a policy is enforced.
const PERIOD: Duration = Duration::from_millis(20);

/// Deployments of the test's namespace and no others.
fn deployments(test: &Test) -> Value {
    json!({
        "resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"],
            "resources": ["deployments"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": test.namespace}},
    })
}

fn mutation(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

pub fn validating_policies(test: &Test) -> Walk {
    let spec = json!({"matchConstraints": deployments(test), "validations": [{"expression": "true"}]});
    Walk::cluster(test, VERSION, "validatingadmissionpolicies", json!({"spec": spec}))
        .change(json!({"spec": {"failurePolicy": "Ignore"}}))
        .status(condition("Patched"), condition("Replaced"))
}

pub fn validating_bindings(test: &Test) -> Walk {
    let spec = json!({"policyName": test.unique("nothing"), "validationActions": ["Deny"]});
    Walk::cluster(test, VERSION, "validatingadmissionpolicybindings", json!({"spec": spec}))
        .change(json!({"spec": {"validationActions": ["Warn"]}}))
}

pub fn mutating_policies(test: &Test) -> Walk {
    let label = mutation("Object{metadata: Object.metadata{labels: {'a': 'b'}}}");
    let spec = json!({"matchConstraints": deployments(test), "reinvocationPolicy": "Never", "mutations": [label]});
    Walk::cluster(test, VERSION, "mutatingadmissionpolicies", json!({"spec": spec}))
        .change(json!({"spec": {"failurePolicy": "Ignore"}}))
}

pub fn mutating_bindings(test: &Test) -> Walk {
    let spec = json!({"policyName": test.unique("nothing")});
    Walk::cluster(test, VERSION, "mutatingadmissionpolicybindings", json!({"spec": spec}))
        .change(json!({"spec": {"policyName": test.unique("another")}}))
}

/// A policy and its binding, both of the test's own name.
struct Policy {
    name: String,
    word: &'static str,
}

impl Policy {
    /// Makes a policy with these fields, on the test's Deployments, and binds it.
    async fn make(test: &Test, word: &'static str, fields: Value) -> Policy {
        let policy = Policy { name: test.unique("policy"), word };
        let mut spec = json!({"matchConstraints": deployments(test)});
        spec.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        let mut binding = json!({"policyName": policy.name});
        if word == "validating" {
            binding["validationActions"] = json!(["Deny"]);
        }
        let [policies, bindings] = policy.collections(test);
        test.api.create(&policies, &json!({"metadata": {"name": policy.name}, "spec": spec})).await.ok();
        test.api.create(&bindings, &json!({"metadata": {"name": policy.name}, "spec": binding})).await.ok();
        policy
    }

    fn collections(&self, test: &Test) -> [String; 2] {
        ["policies", "policybindings"]
            .map(|plural| test.everywhere(VERSION, &format!("{}admission{plural}", self.word)))
    }

    async fn end(&self, test: &Test) {
        for collection in self.collections(test) {
            test.api.delete(&format!("{collection}/{}", self.name)).await.ok();
        }
    }
}

fn deployment(name: &str, replicas: i64) -> Value {
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": pod::template(name)});
    json!({"metadata": {"name": name}, "spec": spec})
}

/// Tries a write without its effect until the answer shows that the policy is enforced.
async fn enforced(test: &Test, object: &Value, shows: impl Fn(&Reply) -> bool) -> Reply {
    let path = format!("{}?dryRun=All", test.path("apps/v1", "deployments"));
    let trying = async {
        loop {
            let reply = test.api.call(Method::POST, &path, &[("content-type", JSON)], object.to_string()).await;
            if shows(&reply) {
                return reply;
            }
            // A server may take its time to read its policies.
            tokio::time::sleep(PERIOD).await;
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.expect("the policy is enforced in time")
}

pub async fn a_deployment_is_validated(test: &Test) {
    let validations = json!([{"expression": "object.spec.replicas > 1", "messageExpression":
        "'wants ' + string(object.spec.replicas) + ' replicas'"}]);
    let policy = Policy::make(test, "validating", json!({"validations": validations})).await;
    let refused = enforced(test, &deployment("marker", 1), |reply| !reply.code.is_success()).await.refused(422);
    assert!(refused.contains("wants 1 replicas") && refused.contains(&policy.name), "{refused}");
    let path = test.path("apps/v1", "deployments");
    test.api.create(&path, &deployment("enough", 2)).await.ok();
    let mut fewer = test.api.get(&format!("{path}/enough")).await.ok();
    fewer["spec"]["replicas"] = json!(1);
    fewer["metadata"]["resourceVersion"] = json!("");
    test.api.update(&format!("{path}/enough"), &fewer).await.refused(422);
    policy.end(test).await;
}

pub async fn expressions_refer_to_variables(test: &Test) {
    let fields = json!({
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "isOdd", "expression": "variables.replicas % 2 == 1"}],
        "validations": [{"expression": "variables.replicas > 1"}, {"expression": "variables.isOdd"}],
    });
    let policy = Policy::make(test, "validating", fields).await;
    enforced(test, &deployment("marker", 1), |reply| !reply.code.is_success()).await.refused(422);
    let path = test.path("apps/v1", "deployments");
    let refused = test.api.create(&path, &deployment("even", 4)).await.refused(422);
    assert!(refused.contains("variables.isOdd"), "{refused}");
    test.api.create(&path, &deployment("odd", 3)).await.ok();
    policy.end(test).await;
}

pub async fn a_deployment_is_changed(test: &Test) {
    let expression = "Object{spec: Object.spec{replicas: object.spec.replicas + 4}}";
    let fields = json!({"reinvocationPolicy": "Never", "mutations": [mutation(expression)]});
    let policy = Policy::make(test, "mutating", fields).await;
    enforced(test, &deployment("marker", 0), |reply| reply.json()["spec"]["replicas"] == 4).await;
    let made = test.api.create(&test.path("apps/v1", "deployments"), &deployment("more", 1)).await.ok();
    assert_eq!(made["spec"]["replicas"], 5);
    policy.end(test).await;
}

pub async fn a_deployment_is_annotated(test: &Test) {
    let expression = "Object{metadata: Object.metadata{annotations: {'my-foo-annotation': 'myAnnotationValue'}}}";
    let fields = json!({"reinvocationPolicy": "Never", "mutations": [mutation(expression)]});
    let policy = Policy::make(test, "mutating", fields).await;
    let annotation = |object: &Value| object["metadata"]["annotations"]["my-foo-annotation"] == "myAnnotationValue";
    enforced(test, &deployment("marker", 0), |reply| annotation(&reply.json())).await;
    let path = test.path("apps/v1", "deployments");
    test.api.create(&path, &deployment("noted", 0)).await.ok();
    assert!(annotation(&test.api.get(&format!("{path}/noted")).await.ok()));
    policy.end(test).await;
}
