//! Bad input: refused with Kubernetes' reason and the path of the field, quickly, and nothing is stored.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_tests::Test;

fn post(test: &Test, media_type: &str, body: &str) -> (u16, Value) {
    let file = test.file("body", body);
    let url = test.cluster.url(&format!("/api/v1/namespaces/{}/configmaps", test.namespace));
    let media_type = format!("Content-Type: {media_type}");
    let (code, text) =
        test.cluster.curl(&["-X", "POST", "-H", &media_type, "--data-binary", &format!("@{file}"), &url]);
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub fn unknown_fields_strict_warn_ignore(test: &Test) {
    let manifest =
        "apiVersion: v1\nkind: Service\nmetadata: {name: odd}\nspec: {ports: [{port: 80, nonsense: 1}], wrong: true}\n";
    let file = test.file("yaml", manifest);
    let refused = test.refused(&["create", "-f", &file]);
    assert!(refused.contains("unknown field \"spec.ports[0].nonsense\""), "{refused}");
    assert!(refused.contains("unknown field \"spec.wrong\""), "{refused}");
    let warned = test.try_kubectl(&["create", "-f", &file, "--validate=warn"]);
    assert!(warned.ok && warned.stderr.contains("unknown field \"spec.wrong\""), "{}", warned.stderr);
    test.kubectl(&["delete", "service", "odd"]);
    let ignored = test.try_kubectl(&["create", "-f", &file, "--validate=ignore"]);
    assert!(ignored.ok && !ignored.stderr.contains("unknown field"), "{}", ignored.stderr);
    assert!(test.get("service", "odd")["spec"].get("wrong").is_none());
}

pub fn wrong_types_and_names_are_refused_with_their_path(test: &Test) {
    let (code, status) = post(test, "application/json", r#"{"metadata":{"name":"a"},"data":{"k":5}}"#);
    assert_eq!((code, status["reason"].as_str()), (400, Some("BadRequest")), "{status}");
    assert!(status["message"].as_str().unwrap_or_default().contains("data"), "{status}");
    let (code, status) = post(test, "application/json", r#"{"metadata":{"name":"Not_A_Name"}}"#);
    assert_eq!((code, status["reason"].as_str()), (422, Some("Invalid")), "{status}");
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.name", "{status}");
    let (code, status) = post(test, "application/json", r#"{"metadata":{"name":"a","labels":{"k":"no spaces"}}}"#);
    assert_eq!(code, 422, "{status}");
    assert!(
        status["details"]["causes"][0]["field"].as_str().unwrap_or_default().starts_with("metadata.labels"),
        "{status}"
    );
    let (code, status) = post(test, "application/json", r#"{"metadata":{"name":"a","namespace":"elsewhere"}}"#);
    assert_eq!(code, 400, "{status}");
    let (code, status) =
        post(test, "application/json", r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}"#);
    assert_eq!(code, 400, "{status}");
    let (code, status) = post(test, "text/plain", "hello");
    assert_eq!((code, status["reason"].as_str()), (415, Some("UnsupportedMediaType")), "{status}");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "a", "image": "x", "volumeMounts": [{"name": "none", "mountPath": "/x"}]}, {"name": "a"}]}});
    let refused = test.refused(&["create", "-f", &test.file("json", &pod.to_string())]);
    for path in ["spec.containers[0].volumeMounts[0].name", "spec.containers[1].name", "spec.containers[1].image"] {
        assert!(refused.contains(path), "{path} is named: {refused}");
    }
}

pub fn bodies_over_the_limit_are_413(test: &Test) {
    let limit = 3 * 1024 * 1024;
    let over = format!(r#"{{"metadata":{{"name":"big"}},"data":{{"k":"{}"}}}}"#, "x".repeat(limit));
    let (code, status) = post(test, "application/json", &over);
    assert_eq!((code, status["reason"].as_str()), (413, Some("RequestEntityTooLarge")), "{status}");
    let under = format!(r#"{{"metadata":{{"name":"big"}},"data":{{"k":"{}"}}}}"#, "x".repeat(limit / 2));
    let (code, status) = post(test, "application/json", &under);
    assert_eq!(code, 422, "a ConfigMap holds at most 1 MiB: {status}");
    assert!(test.list("configmaps").iter().all(|object| object["metadata"]["name"] != "big"));
}

pub fn yaml_bombs_are_refused_quickly(test: &Test) {
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (previous, next) in ('a'..='h').zip('b'..='i') {
        let aliases = vec![format!("*{previous}"); 9].join(",");
        bomb.push_str(&format!("{next}: &{next} [{aliases}]\n"));
    }
    let nested = "[".repeat(500_000);
    for body in [bomb.as_str(), nested.as_str()] {
        let started = Instant::now();
        let (code, status) = post(test, "application/yaml", body);
        assert_eq!(code, 400, "{status}");
        assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    }
}

pub fn deep_json_is_refused(test: &Test) {
    let deep = format!(r#"{{"metadata":{{"name":"deep"}},"data":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let (code, status) = post(test, "application/json", &deep);
    assert_eq!((code, status["reason"].as_str()), (400, Some("BadRequest")), "{status}");
}

pub fn json_patch_copy_bombs_are_refused(test: &Test) {
    test.kubectl(&["create", "configmap", "bombed", "--from-literal=a=0123456789"]);
    let copies: Vec<Value> =
        (0..24).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/c{n}")})).collect();
    let url = test.cluster.url(&format!("/api/v1/namespaces/{}/configmaps/bombed", test.namespace));
    let many = vec![json!({"op": "test", "path": "/data/a", "value": "0123456789"}); 10_001];
    for patch in [Value::Array(copies), Value::Array(many)] {
        let file = test.file("json", &patch.to_string());
        let data = format!("@{file}");
        let (code, text) = test.cluster.curl(&[
            "-X",
            "PATCH",
            "-H",
            "Content-Type: application/json-patch+json",
            "--data-binary",
            &data,
            &url,
        ]);
        assert!(matches!(code, 400 | 413 | 422), "{code}: {text}");
    }
    assert_eq!(test.get("configmap", "bombed")["data"], json!({"a": "0123456789"}));
}

pub fn path_traversal_finds_nothing(test: &Test) {
    test.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=k=canary"]);
    let namespace = &test.namespace;
    for path in [
        format!("/api/v1/namespaces/default/../{namespace}/secrets/hidden"),
        format!("/api/v1/namespaces/default/configmaps/..%2f..%2f{namespace}/secrets/hidden"),
        format!("/api/v1/namespaces/%2e%2e/{namespace}/secrets/hidden"),
        format!("/api/v1/namespaces/{namespace}/secrets/hidden%00"),
        format!("/api/v1//namespaces/{namespace}/secrets/hidden"),
        format!("/registry/secrets/{namespace}/hidden"),
    ] {
        let (code, text) = test.cluster.curl(&[&test.cluster.url(&path)]);
        assert!(matches!(code, 400 | 404), "{path}: {code} {text}");
        assert!(!text.contains("canary") && !text.contains("Y2FuYXJ5"), "{path}: {text}");
    }
}

pub fn nobody_gets_in_without_a_certificate(test: &Test) {
    for (path, expected) in [("/readyz", 200), ("/version", 200), ("/api/v1/secrets", 403), ("/metrics", 403)] {
        let mut curl = std::process::Command::new("/usr/bin/curl");
        curl.args([
            "--silent",
            "--insecure",
            "--max-time",
            "20",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        let out = windlass_tests::cluster::run(curl.arg(test.cluster.url(path)));
        assert_eq!(out.stdout, expected.to_string(), "{path}: {}", out.stderr);
    }
}
