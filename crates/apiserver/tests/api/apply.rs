//! Server-side apply and the owners of fields: who owns what after which write, conflicts, parts, conditions, bounds.

use http::Method;
use serde_json::{Value, json};
use windlass_apiserver::Identity;

use crate::{Api, CONFIG_MAPS, DEPLOYMENTS, PODS, Reply, admin, bind, config_map, deployment, pod};

const APPLY: &str = "application/apply-patch+yaml";

impl Api {
    /// Applies a configuration as this manager. `path` may bring parameters of its own.
    async fn apply(&self, path: &str, manager: &str, config: &Value) -> Reply {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}fieldManager={manager}");
        self.call(Method::PATCH, &path, APPLY, config.to_string()).await
    }
}

/// `manager Operation [subresource]: path path` of each entry.
fn owners(object: &Value) -> Vec<String> {
    fn paths(fields: &Value, path: &str, out: &mut Vec<String>) {
        let fields = fields.as_object().expect("a set of fields is an object");
        for (name, below) in fields {
            match name.as_str() {
                "." => out.push(path.to_owned()),
                name => {
                    let step = name.strip_prefix("f:").map_or(format!("[{name}]"), |name| format!(".{name}"));
                    paths(below, &format!("{path}{step}"), out);
                }
            }
        }
        if fields.is_empty() {
            out.push(path.to_owned());
        }
    }
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let shown = entries.map(|entry| {
        assert_eq!(entry["fieldsType"], "FieldsV1");
        assert!(entry["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{entry}");
        let mut found = Vec::new();
        paths(&entry["fieldsV1"], "", &mut found);
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let part = if text("subresource").is_empty() { String::new() } else { format!(" {}", text("subresource")) };
        format!("{} {}{part}: {}", text("manager"), text("operation"), found.join(" "))
    });
    shown.collect()
}

fn data(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn an_apply_creates_what_does_not_exist_and_says_nothing_the_second_time() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let reply = api.apply(&path, "me", &data("c", &json!({"a": "1"}))).await;
    assert_eq!(reply.said(), "201");
    let made = reply.json();
    assert_eq!(owners(&made), ["me Apply: .data.a"]);
    assert_eq!(made["metadata"]["managedFields"][0]["apiVersion"], "v1");
    let reply = api.apply(&path, "me", &data("c", &json!({"a": "1"}))).await;
    assert_eq!((reply.said().as_str(), reply.json()), ("200", made), "the same object, its revision and times too");
    let reply = api.apply(&path, "me", &data("c", &json!({"a": "2"}))).await;
    assert_eq!((reply.said().as_str(), &reply.json()["data"]), ("200", &json!({"a": "2"})));
    let reply = api.apply(&format!("{CONFIG_MAPS}/dry?dryRun=All"), "me", &data("dry", &json!({}))).await;
    assert_eq!(reply.said(), "201");
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/dry")).await.code, 404);
    let reply = api.apply("/api/v1/namespaces/none/configmaps/c", "me", &data("c", &json!({}))).await;
    assert_eq!(reply.code, 404, "{}", reply.said());
}

#[tokio::test]
async fn what_is_applied_no_more_is_removed() {
    let api = Api::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut config = deployment("web");
    config["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]);
    assert_eq!(api.apply(&path, "me", &config).await.said(), "201");
    let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"x": "y"}}, "spec": {"template": {"spec": {
        "containers": [{"name": "main", "env": [{"name": "C", "value": "1"}]}]}}}});
    assert_eq!(api.apply(&path, "other", &other).await.said(), "200");
    config["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "B", "value": "2"}]);
    config["spec"].as_object_mut().expect("a spec").remove("replicas");
    let object = api.apply(&path, "me", &config).await.json();
    let env = &object["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env, &json!([{"name": "B", "value": "2"}, {"name": "C", "value": "1"}]));
    assert_eq!(object["spec"]["replicas"], 1, "back to the default, which nobody owns");
    assert_eq!(object["metadata"]["labels"], json!({"x": "y"}));
    assert!(!owners(&object).join("\n").contains("replicas"), "{:?}", owners(&object));
}

#[tokio::test]
async fn a_conflict_says_who_owns_what_and_can_be_forced() {
    let api = Api::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    api.call(
        Method::POST,
        &format!("{DEPLOYMENTS}?fieldManager=maker"),
        "application/json",
        deployment("web").to_string(),
    )
    .await;
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 5}});
    let reply = api.apply(&path, "me", &config).await;
    assert_eq!(
        reply.said(),
        "409 Conflict: Apply failed with 1 conflict: conflict with \"maker\" using apps/v1: .spec.replicas"
    );
    let status = reply.json();
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"maker\" using apps/v1", "field": ".spec.replicas"});
    assert_eq!((&status["details"]["causes"], &status["code"]), (&json!([cause]), &json!(409)));
    let object = api.apply(&format!("{path}?force=true"), "me", &config).await.json();
    assert_eq!(object["spec"]["replicas"], 5);
    let owners = owners(&object);
    assert_eq!(owners[0], "me Apply: .spec.replicas");
    assert!(
        owners.len() == 2 && owners[1].starts_with("maker Update:") && !owners[1].contains("replicas"),
        "{owners:?}"
    );
}

#[tokio::test]
async fn every_write_records_who_changed_what() {
    let api = Api::start().await;
    let agent = [("content-type", "application/json"), ("user-agent", "kubectl/v1.37.1 (linux/amd64)")];
    let made = api.call_as(admin(), Method::POST, CONFIG_MAPS, &agent, config_map("c").to_string()).await.json();
    assert_eq!(owners(&made), ["kubectl Update: .data .data.k"]);
    let path = format!("{CONFIG_MAPS}/c");
    let merge = json!({"data": {"b": "1"}, "metadata": {"labels": {"x": "y"}}});
    let changed = api
        .call(Method::PATCH, &format!("{path}?fieldManager=second"), "application/merge-patch+json", merge.to_string())
        .await;
    let changed = changed.json();
    assert_eq!(
        owners(&changed),
        ["kubectl Update: .data .data.k", "second Update: .data.b .metadata.labels .metadata.labels.x"]
    );
    let mut wished = changed.clone();
    wished["data"] = json!({"b": "2"});
    let changed = api.put(&path, &wished).await.json();
    assert_eq!(
        owners(&changed),
        ["kubectl Update: .data", "second Update: .metadata.labels .metadata.labels.x", "unknown Update: .data.b"]
    );
    let reply = api.merge(&path, &json!({"data": {"b": "2"}})).await;
    assert_eq!(reply.json(), changed, "what changes nothing changes no owners");
}

#[tokio::test]
async fn status_and_scale_have_managers_of_their_own() {
    let api = Api::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut config = deployment("web");
    config["status"] = json!({"replicas": 7});
    let made = api.apply(&path, "me", &config).await.json();
    assert!(made["status"]["replicas"].is_null() && !owners(&made)[0].contains(".status"), "{made}");
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 9}, "status": {"replicas": 3}});
    let object = api.apply(&format!("{path}/status"), "controller", &status).await.json();
    assert_eq!((&object["spec"]["replicas"], &object["status"]["replicas"]), (&json!(2), &json!(3)));
    // Appliers stand in the order of their times, which a second may tell apart or not.
    assert!(owners(&object).contains(&"controller Apply status: .status.replicas".to_owned()), "{:?}", owners(&object));
    let merge = json!({"status": {"readyReplicas": 1, "replicas": 3}});
    let object = api.merge(&format!("{path}/status"), &merge).await.json();
    assert!(
        owners(&object).contains(&"unknown Update status: .status.readyReplicas".to_owned()),
        "{:?}",
        owners(&object)
    );
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}});
    let reply = api.apply(&format!("{path}/scale"), "scaler", &scale).await;
    assert_eq!(reply.said(), "409 Conflict: Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
    let reply = api.apply(&format!("{path}/scale?force=true"), "scaler", &scale).await;
    assert_eq!((reply.said().as_str(), &reply.json()["spec"]["replicas"]), ("200", &json!(4)));
    let object = api.get(&path).await.json();
    assert!(owners(&object).contains(&"scaler Apply scale: .spec.replicas".to_owned()), "{:?}", owners(&object));
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 6}});
    assert_eq!(api.put(&format!("{path}/scale?fieldManager=hpa"), &scale).await.said(), "200");
    let object = api.get(&path).await.json();
    assert!(owners(&object).contains(&"hpa Update scale: .spec.replicas".to_owned()), "{:?}", owners(&object));
    let refused = api.apply(&path, "me", &deployment("web")).await.said();
    assert_eq!(
        refused,
        "409 Conflict: Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    for part in ["status", "scale"] {
        assert_eq!(
            api.apply(
                &format!("{DEPLOYMENTS}/none/{part}"),
                "me",
                &if part == "scale" { scale.clone() } else { status.clone() }
            )
            .await
            .code,
            404
        );
    }
}

#[tokio::test]
async fn a_configuration_is_checked() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let with = |change: fn(&mut Value)| {
        let mut config = data("c", &json!({"a": "1"}));
        change(&mut config);
        config.to_string()
    };
    for (body, said) in [
        (
            with(|config| config["metadata"]["managedFields"] = json!([])),
            "400 BadRequest: metadata.managedFields must be nil",
        ),
        (with(|config| config["apiVersion"] = json!("v2")), "400 BadRequest: invalid object type: /v2, Kind=ConfigMap"),
        (
            with(|config| drop(config.as_object_mut().map(|config| config.remove("apiVersion")))),
            "400 BadRequest: invalid object type: /, Kind=ConfigMap",
        ),
        (
            with(|config| drop(config.as_object_mut().map(|config| config.remove("kind")))),
            "400 BadRequest: invalid object type: /v1, Kind=",
        ),
        (
            with(|config| config["dota"] = json!({})),
            "400 BadRequest: failed to create typed patch object (default/c; /v1, Kind=ConfigMap): .dota: field not declared in schema",
        ),
        (
            with(|config| config["metadata"]["finalizers"] = json!(["a/b", "a/b"])),
            "400 BadRequest: failed to create typed patch object (default/c; /v1, Kind=ConfigMap): .metadata.finalizers: duplicate entries for key [=\"a/b\"]",
        ),
        (
            with(|config| config["metadata"]["name"] = json!("d")),
            "400 BadRequest: the name of the provided object (\"d\") does not match the name on the URL (c)",
        ),
        (
            with(|config| config["metadata"]["uid"] = json!("u")),
            "409 Conflict: Operation cannot be fulfilled on configmaps \"c\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
        (with(|config| *config = json!([])), "400"),
        ("a: [".to_owned(), "400"),
        (String::new(), "400"),
        (with(|config| config["data"] = json!({"a": 1})), "400"),
    ] {
        let reply = api.call(Method::PATCH, &format!("{path}?fieldManager=me"), APPLY, body.clone()).await;
        let found = if said.len() == 3 { reply.code.as_u16().to_string() } else { reply.said() };
        assert_eq!(found, said, "{body}: {}", reply.said());
    }
    assert_eq!(api.get(&path).await.code, 404, "nothing was created");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: |\n    text\n";
    let reply = api.call(Method::PATCH, &format!("{path}?fieldManager=me"), APPLY, yaml).await;
    assert_eq!((reply.said().as_str(), &reply.json()["data"]["a"]), ("201", &json!("text\n")));
    let reply = api
        .call(
            Method::PATCH,
            &format!("{path}?fieldManager=me"),
            "application/apply-patch+json",
            data("c", &json!({"a": "2"})).to_string(),
        )
        .await;
    assert_eq!(reply.said(), "200");
}

#[tokio::test]
async fn fields_written_twice_are_told_as_asked() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c?fieldManager=me");
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1","a":"2"}}"#;
    let reply = api.call(Method::PATCH, &format!("{path}&fieldValidation=Strict"), APPLY, body).await;
    assert!(reply.said().ends_with("strict decoding error: duplicate field \"data.a\""), "{}", reply.said());
    let reply = api.call(Method::PATCH, &format!("{path}&fieldValidation=Warn"), APPLY, body).await;
    let warning = reply.headers.get("warning").and_then(|warning| warning.to_str().ok()).unwrap_or_default();
    assert!(reply.code == 201 && warning.contains("duplicate field"), "{} {warning}", reply.said());
    let reply = api.call(Method::PATCH, &format!("{path}&fieldValidation=Ignore"), APPLY, body).await;
    assert!(reply.code == 200 && reply.headers.get("warning").is_none(), "{}", reply.said());
}

#[tokio::test]
async fn parameters_say_who_applies_and_only_applies_may_be_forced() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let config = data("c", &json!({"a": "1"})).to_string();
    let long = "m".repeat(129);
    for (media, query, said) in [
        (APPLY, String::new(), "422 Invalid: PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch".to_owned()),
        (APPLY, format!("?fieldManager={long}"), "422 Invalid: PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes".to_owned()),
        (
            "application/merge-patch+json",
            "?force=true".to_owned(),
            "422 Invalid: PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch".to_owned(),
        ),
    ] {
        assert_eq!(api.call(Method::PATCH, &format!("{path}{query}"), media, config.clone()).await.said(), said);
    }
    let reply = api
        .call(
            Method::POST,
            &format!("{CONFIG_MAPS}?fieldManager=a%0Ab"),
            "application/json",
            config_map("c").to_string(),
        )
        .await;
    assert_eq!(
        reply.said(),
        "422 Invalid: CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\nb\": should only contain printable characters"
    );
}

#[tokio::test]
async fn a_revision_in_the_configuration_is_a_condition() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let made = api.apply(&path, "me", &data("c", &json!({"a": "1"}))).await.json();
    let mut config = data("c", &json!({"a": "2"}));
    config["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    assert_eq!(api.apply(&path, "me", &config).await.said(), "200");
    let reply = api.apply(&path, "me", &config).await;
    assert_eq!(reply.code, 409, "{}", reply.said());
    assert!(reply.said().contains("the object has been modified"), "{}", reply.said());
    let absent = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "1"}});
    assert_eq!(api.apply(&format!("{CONFIG_MAPS}/d"), "me", &absent).await.code, 409);
}

#[tokio::test]
async fn clients_may_edit_the_owners_and_start_afresh() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let made = api.apply(&path, "me", &data("c", &json!({"a": "1"}))).await.json();
    let rename = json!([{"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "you"}]);
    let reply = api.call(Method::PATCH, &path, "application/json-patch+json", rename.to_string()).await;
    assert_eq!(owners(&reply.json()), ["you Apply: .data.a"], "{}", reply.said());
    for (managed, expected) in [
        (json!([]), vec!["you Apply: .data.a"]),
        (json!([{"manager": "x"}]), vec!["you Apply: .data.a"]),
        (json!([{}]), vec![]),
    ] {
        let reply = api.merge(&path, &json!({"metadata": {"managedFields": managed}})).await;
        assert_eq!(owners(&reply.json()), expected, "{managed}: {}", reply.said());
    }
    let object = api.merge(&path, &json!({"data": {"b": "1"}})).await.json();
    assert_eq!(owners(&object), [""; 0], "nobody tracks it");
    let reply = api.apply(&path, "me", &data("c", &json!({"a": "2"}))).await;
    assert_eq!(
        reply.said(),
        "409 Conflict: Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    let object = api.apply(&path, "me", &data("c", &json!({"a": "1"}))).await.json();
    assert_eq!(owners(&object), ["me Apply: .data.a", "before-first-apply Update: .data .data.a .data.b"]);
    assert_eq!(object["metadata"]["uid"], made["metadata"]["uid"]);
}

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_itself() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let mut config = data("c", &json!({"a": "1"}));
    let last = config.to_string();
    config["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    let maker = format!("{CONFIG_MAPS}?fieldManager=kubectl-client-side-apply");
    assert_eq!(api.call(Method::POST, &maker, "application/json", config.to_string()).await.said(), "201");
    let object = api.apply(&path, "kubectl", &data("c", &json!({"a": "2"}))).await.json();
    assert_eq!(object["data"]["a"], "2", "{object}");
    let kept = object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    assert!(kept.is_some_and(|kept| kept.contains("\"a\":\"2\"")), "{kept:?}");
}

#[tokio::test]
async fn what_the_server_decides_has_no_owner() {
    let api = Api::start().await;
    api.make(PODS, &pod("p")).await;
    assert_eq!(bind(&api, "p", "n1").await.code, 201);
    let object = api.get(&format!("{PODS}/p")).await.json();
    assert_eq!(object["spec"]["nodeName"], "n1");
    let owners = owners(&object);
    assert!(owners.len() == 1 && !owners[0].contains("nodeName") && !owners[0].contains(".metadata.uid"), "{owners:?}");
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}});
    let made = api.apply(&format!("{services}/s"), "me", &service).await.json();
    assert!(made["spec"]["clusterIP"].is_string(), "{made}");
    assert_eq!(
        self::owners(&made),
        [
            "me Apply: .spec.ports[k:{\"port\":80,\"protocol\":\"TCP\"}] .spec.ports[k:{\"port\":80,\"protocol\":\"TCP\"}].port"
        ]
    );
    let again = api.apply(&format!("{services}/s"), "me", &service).await.json();
    assert_eq!(again, made);
}

#[tokio::test]
async fn managers_of_one_object_are_bounded() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let config = data("c", &json!({"a": "1"}));
    for n in 0..100 {
        assert!(api.apply(&path, &format!("m{n}"), &config).await.code.is_success());
    }
    let reply = api.apply(&path, "one-more", &config).await;
    assert_eq!(reply.code, 422, "{}", reply.said());
    for n in 0..30 {
        let merge = json!({"data": {format!("k{n}"): "1"}}).to_string();
        let path = format!("{path}?fieldManager=u{n}");
        assert_eq!(api.call(Method::PATCH, &path, "application/merge-patch+json", merge).await.code, 200);
    }
    let object = api.get(&path).await.json();
    assert_eq!(owners(&object).len(), 110, "ten updaters are told apart");
    assert_eq!(object["data"].as_object().map(serde_json::Map::len), Some(31));
}

#[tokio::test]
async fn patches_of_many_keys_are_bounded_by_the_size_of_an_object() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    let many = |from: u32, to: u32| -> Value {
        (from..to).map(|n| (format!("key-{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into()
    };
    for (media, query) in [
        ("application/merge-patch+json", ""),
        ("application/strategic-merge-patch+json", ""),
        (APPLY, "?fieldManager=me"),
    ] {
        let patch = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data}).to_string();
        let path = format!("{path}{query}");
        let reply = api.call(Method::PATCH, &path, media, patch(many(0, 100_000))).await;
        assert_eq!(reply.code, 413, "{media}: {}", reply.said());
        let reply = api.call(Method::PATCH, &path, media, patch(many(0, 5_000))).await;
        assert_eq!(reply.code, 200, "{media}: {}", reply.said());
    }
}

#[tokio::test]
async fn who_may_not_create_may_not_create_by_applying() {
    let api = Api::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"verbs": ["patch"], "apiGroups": [""], "resources": ["configmaps"]}]);
    api.make(&format!("{roles}/roles"), &json!({"metadata": {"name": "patcher"}, "rules": rules})).await;
    let subject = json!({"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"});
    let bound = json!({"kind": "Role", "name": "patcher", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "b"}, "roleRef": bound, "subjects": [subject]});
    api.make(&format!("{roles}/rolebindings"), &binding).await;
    api.make(CONFIG_MAPS, &config_map("c")).await;
    for (name, code) in [("c", 200), ("d", 403)] {
        let path = format!("{CONFIG_MAPS}/{name}?fieldManager=me");
        let config = data(name, &json!({"a": "1"})).to_string();
        let jane = Identity::new("jane", []);
        let reply = api.call_as(jane, Method::PATCH, &path, &[("content-type", APPLY)], config).await;
        assert_eq!(reply.code, code, "{}", reply.said());
    }
}
