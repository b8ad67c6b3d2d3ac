//! Admission policies: what expressions refuse, warn of and change.

use http::Method;
use serde_json::{Value, json};

use crate::{Api, CONFIG_MAPS, DEPLOYMENTS, admin, config_map, deployment};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

fn on(operations: &[&str], group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"operations": operations, "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}]})
}

/// A policy that acts through one binding, with these parts of their specs.
async fn act(api: &Api, kind: &str, policy: Value, binding: Value) {
    let mut spec = json!({"matchConstraints": on(&["CREATE", "UPDATE"], "apps", "deployments")});
    spec.as_object_mut().expect("a literal").extend(policy.as_object().expect("a literal").clone());
    let mut bound = json!({"policyName": "p"});
    if kind == "validating" {
        bound["validationActions"] = json!(["Deny"]);
    } else {
        spec["reinvocationPolicy"] = json!("Never");
    }
    bound.as_object_mut().expect("a literal").extend(binding.as_object().expect("a literal").clone());
    let policies = format!("{GROUP}/{kind}admissionpolicies");
    api.make(&policies, &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let bindings = format!("{GROUP}/{kind}admissionpolicybindings");
    api.make(&bindings, &json!({"metadata": {"name": "b"}, "spec": bound})).await;
}

async fn scaled(api: &Api, name: &str, replicas: i64) -> String {
    let mut object = deployment(name);
    object["spec"]["replicas"] = json!(replicas);
    api.post(DEPLOYMENTS, &object).await.said()
}

#[tokio::test]
async fn r5_a_deployment_is_validated() {
    let api = Api::start().await;
    let validations = json!([{"expression": "object.spec.replicas > 1"}]);
    act(&api, "validating", json!({"validations": validations}), json!({})).await;
    assert_eq!(
        scaled(&api, "one", 1).await,
        "422 Invalid: deployments.apps \"one\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied \
         request: failed expression: object.spec.replicas > 1"
    );
    assert_eq!(scaled(&api, "two", 2).await, "201");
    let reply = api.merge(&format!("{DEPLOYMENTS}/two"), &json!({"spec": {"replicas": 0}})).await;
    assert_eq!(reply.code, 422, "updates too");
    assert_eq!(api.delete(&format!("{GROUP}/validatingadmissionpolicybindings/b")).await.code, 200);
    assert_eq!(scaled(&api, "one", 1).await, "201", "R1: without a binding it does nothing");
}

#[tokio::test]
async fn expressions_refer_to_variables() {
    let api = Api::start().await;
    let policy = json!({
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
            {"name": "unused", "expression": "1 / 0"},
        ],
        "validations": [
            {"expression": "variables.replicas > 1", "reason": "Forbidden"},
            {"expression": "variables.oddReplicas", "messageExpression": "'even: ' + string(variables.replicas)"},
        ],
    });
    act(&api, "validating", policy, json!({})).await;
    assert!(scaled(&api, "one", 1).await.starts_with("403 Forbidden: "));
    let said = scaled(&api, "two", 2).await;
    assert!(said.ends_with("denied request: even: 2"), "{said}");
    assert_eq!(scaled(&api, "three", 3).await, "201");
}

#[tokio::test]
async fn r2_what_is_not_matched_is_left_alone() {
    let api = Api::start().await;
    let policy = json!({
        "matchConstraints": on(&["CREATE"], "", "configmaps"),
        "matchConditions": [
            {"name": "user", "expression": "request.userInfo.username == 'admin'"},
            {"name": "name", "expression": "object.metadata.name.startsWith('bad') && request.operation == 'CREATE'"},
            {"name": "namespace", "expression": "namespaceObject.metadata.name == 'default'"},
        ],
        "validations": [{"expression": "false", "message": "no"}],
    });
    let binding = json!({"matchResources": {"objectSelector": {"matchLabels": {"checked": "yes"}}}});
    act(&api, "validating", policy, binding).await;
    let named = |name: &str, label: &str| {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"checked": label});
        object
    };
    assert_eq!(api.post(CONFIG_MAPS, &named("good", "yes")).await.said(), "201");
    assert_eq!(api.post(CONFIG_MAPS, &named("bad-1", "no")).await.said(), "201");
    assert_eq!(api.post(CONFIG_MAPS, &named("bad-2", "yes")).await.code, 422);
    assert_eq!(scaled(&api, "bad", 2).await, "201");
}

#[tokio::test]
async fn r5_a_warning_lets_the_request_through() {
    let api = Api::start().await;
    let policy = json!({"validations": [{"expression": "object.spec.replicas < 3", "message": "that is many"}]});
    act(&api, "validating", policy, json!({"validationActions": ["Warn"]})).await;
    let mut object = deployment("d");
    object["spec"]["replicas"] = json!(5);
    let reply = api.post(DEPLOYMENTS, &object).await;
    assert_eq!(reply.said(), "201");
    let warning = reply.headers.get("warning").expect("a warning").to_str().expect("text").to_owned();
    assert!(
        warning.contains("Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': that is many"),
        "{warning}"
    );
}

#[tokio::test]
async fn r3_params_come_from_the_binding() {
    let api = Api::start().await;
    let mut limits = config_map("limits");
    limits["data"] = json!({"max": "3"});
    api.make(CONFIG_MAPS, &limits).await;
    let policy = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.max)"}],
    });
    let reference = json!({"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"});
    act(&api, "validating", policy, json!({"paramRef": reference})).await;
    assert_eq!(scaled(&api, "three", 3).await, "201");
    assert!(scaled(&api, "four", 4).await.starts_with("422 Invalid: "));
    api.merge(&format!("{CONFIG_MAPS}/limits"), &json!({"data": {"max": "4"}})).await;
    assert_eq!(scaled(&api, "four", 4).await, "201", "parameters are those of now");
    api.delete(&format!("{CONFIG_MAPS}/limits")).await;
    let said = scaled(&api, "two", 2).await;
    assert!(said.contains("no params found for policy binding with `Deny` parameterNotFoundAction"), "{said}");
}

#[tokio::test]
async fn r6_what_fails_refuses_unless_it_is_to_be_ignored() {
    for (policy, expected) in [
        (json!({"validations": [{"expression": "object.spec.nothing > 1"}]}), "422"),
        (json!({"validations": [{"expression": "object.spec.nothing > 1"}], "failurePolicy": "Ignore"}), "201"),
        (
            json!({"validations": [{"expression": "lists.range(10000).all(x, lists.range(10000).all(y, x + y >= 0))"}]}),
            "422",
        ),
    ] {
        let api = Api::start().await;
        act(&api, "validating", policy.clone(), json!({})).await;
        let said = scaled(&api, "two", 2).await;
        assert!(said.starts_with(expected), "{policy}: {said}");
    }
}

#[tokio::test]
async fn what_does_not_compile_is_refused_when_it_is_written() {
    let api = Api::start().await;
    let spec =
        json!({"matchConstraints": on(&["CREATE"], "apps", "deployments"), "validations": [{"expression": "x > 1"}]});
    let reply = api
        .post(&format!("{GROUP}/validatingadmissionpolicies"), &json!({"metadata": {"name": "p"}, "spec": spec}))
        .await;
    assert_eq!(reply.code, 422);
    assert!(reply.said().contains("undeclared reference to 'x' (in container '')"), "{}", reply.said());
}

#[tokio::test]
async fn policies_ask_the_authorizer() {
    let api = Api::start().await;
    let expression = "authorizer.group('apps').resource('deployments').namespace('default').check('delete').allowed() && \
                      !authorizer.serviceAccount('default', 'default').group('').resource('secrets').check('get').allowed()";
    act(&api, "validating", json!({"validations": [{"expression": expression}]}), json!({})).await;
    assert_eq!(scaled(&api, "two", 2).await, "201");
}

#[tokio::test]
async fn deletes_are_validated_too() {
    let api = Api::start().await;
    let policy = json!({
        "matchConstraints": on(&["DELETE"], "", "configmaps"),
        "validations": [{"expression": "object == null && oldObject.metadata.name != 'kept'", "message": "it is kept"}],
    });
    act(&api, "validating", policy, json!({})).await;
    for name in ["kept", "other"] {
        api.make(CONFIG_MAPS, &config_map(name)).await;
    }
    assert!(api.delete(&format!("{CONFIG_MAPS}/kept")).await.said().ends_with("it is kept"));
    assert_eq!(api.delete(&format!("{CONFIG_MAPS}/other")).await.code, 200);
}

#[tokio::test]
async fn r4_a_deployment_is_mutated_by_configurations_and_patches() {
    let api = Api::start().await;
    let apply = "Object{spec: Object.spec{replicas: object.spec.replicas + 1}, \
                 metadata: Object.metadata{annotations: {'changed-by': 'p'}}}";
    let patch = "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'a/b': request.userInfo.username}}, \
                 JSONPatch{op: 'test', path: '/metadata/annotations/changed-by', value: 'p'}]";
    let policy = json!({"mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}},
    ]});
    act(&api, "mutating", policy, json!({})).await;
    let made = api.make(DEPLOYMENTS, &deployment("d")).await;
    assert_eq!(made["spec"]["replicas"], 3);
    assert_eq!(made["metadata"]["annotations"]["changed-by"], "p");
    assert_eq!(made["metadata"]["labels"], json!({"a/b": "admin"}));
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["name"], "main", "the rest stays");
}

#[tokio::test]
async fn r4_what_a_mutation_makes_is_checked() {
    for (expression, part) in [
        ("[JSONPatch{op: 'add', path: '/spec/nonsense', value: 1}]", "unknown field"),
        ("[JSONPatch{op: 'replace', path: '/spec/replicas', value: 'many'}]", "cannot unmarshal"),
        ("[JSONPatch{op: 'replace', path: '/metadata/name', value: 'other'}]", "must not change metadata.name"),
        ("[JSONPatch{op: 'remove', path: '/spec/nothing'}]", "denied request"),
    ] {
        let api = Api::start().await;
        let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}});
        act(&api, "mutating", json!({"mutations": [mutation]}), json!({})).await;
        let said = scaled(&api, "two", 2).await;
        assert!(said.contains(part), "{expression}: {said}");
    }
}

#[tokio::test]
async fn r7_a_policy_cannot_lock_itself_in() {
    let api = Api::start().await;
    let everything =
        json!({"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]});
    let policy = json!({"matchConstraints": everything, "validations": [{"expression": "false"}]});
    act(&api, "validating", policy, json!({})).await;
    assert_eq!(api.post(CONFIG_MAPS, &config_map("c")).await.code, 422);
    let reply = api.call_as(admin(), Method::DELETE, &format!("{GROUP}/validatingadmissionpolicies/p"), &[], "").await;
    assert_eq!(reply.code, 200);
    assert_eq!(api.post(CONFIG_MAPS, &config_map("c")).await.code, 201);
}

#[tokio::test]
async fn policies_ask_about_what_the_request_is_for() {
    for (expression, expected) in [
        ("authorizer.requestResource.check('delete').allowed()", "201"),
        ("authorizer.requestResource.subresource('scale').check('get').allowed()", "201"),
        ("!authorizer.requestResource.check('delete').allowed()", "422"),
    ] {
        let api = Api::start().await;
        act(&api, "validating", json!({"validations": [{"expression": expression}]}), json!({})).await;
        let said = scaled(&api, "two", 2).await;
        assert!(said.starts_with(expected), "{expression}: {said}");
    }
}

#[tokio::test]
async fn r7_what_a_policy_gets_wrong_about_its_kinds_is_said_in_its_status() {
    let api = Api::start().await;
    act(&api, "validating", json!({"validations": [{"expression": "object.replicas > 1"}]}), json!({})).await;
    let path = format!("{GROUP}/validatingadmissionpolicies/p");
    let policy = api.get(&path).await.json();
    let warning = "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n";
    let expected = json!([{"fieldRef": "spec.validations[0].expression", "warning": warning}]);
    assert_eq!(
        (&policy["status"]["observedGeneration"], &policy["status"]["typeChecking"]["expressionWarnings"]),
        (&json!(1), &expected)
    );
    let mended = json!({"spec": {"validations": [{"expression": "object.spec.replicas > 1"}]}});
    let policy = api.merge(&path, &mended).await.json();
    assert_eq!(policy["status"], json!({"observedGeneration": 2, "typeChecking": {}}));
}
