//! Bodies as bytes, by an encoder of a few lines that knows nothing of the table.

use serde_json::{Value, json};

use super::{MAGIC, decode};
use crate::codec::{DecodeError, Limits, Validation, check_fields, encode_protobuf};
use crate::schema::kubernetes;

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn int(tag: u64, value: i64) -> Vec<u8> {
    [varint(tag << 3), varint(value as u64)].concat()
}

fn bytes(tag: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(tag << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version), bytes(2, kind)].concat();
    [MAGIC.to_vec(), bytes(1, meta), bytes(2, raw), bytes(3, ""), bytes(4, "")].concat()
}

fn read(body: &[u8]) -> Result<Value, DecodeError> {
    decode(body, None, Limits::default()).map(|decoded| decoded.value)
}

#[test]
fn a_body_of_kubectl_create_deployment() {
    let meta = [
        bytes(1, "web"),
        bytes(2, ""),
        bytes(3, ""),
        bytes(5, ""),
        int(7, 0),
        bytes(8, ""),
        bytes(11, [bytes(1, "app"), bytes(2, "web")].concat()),
    ]
    .concat();
    let container =
        [bytes(1, "nginx"), bytes(2, "nginx:1"), bytes(5, ""), bytes(8, ""), bytes(13, ""), int(16, 0), int(17, 0)]
            .concat();
    let pod_spec = [bytes(2, container), bytes(3, ""), bytes(6, ""), int(11, 0)].concat();
    let template = [bytes(1, bytes(8, "")), bytes(2, pod_spec)].concat();
    let selector = bytes(1, [bytes(1, "app"), bytes(2, "web")].concat());
    let spec =
        [int(1, 0), bytes(2, selector), bytes(3, template), bytes(4, bytes(1, "")), int(5, 0), int(7, 0)].concat();
    let raw = [bytes(1, meta), bytes(2, spec), bytes(3, int(1, 0))].concat();
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "nginx", "image": "nginx:1"}]}}},
    });
    assert_eq!(read(&envelope("apps/v1", "Deployment", &raw)), Ok(expected));
}

#[test]
fn special_forms_become_their_json() {
    let port = |target: Vec<u8>| [bytes(1, "p"), int(3, 80), bytes(4, target)].concat();
    let spec = [
        bytes(1, port([int(1, 1), int(2, 0), bytes(3, "http")].concat())),
        bytes(1, port([int(1, 0), int(2, 8080), bytes(3, "")].concat())),
        bytes(1, port(int(1, 0))),
    ]
    .concat();
    let service = read(&envelope("v1", "Service", &bytes(2, spec))).expect("a service");
    let targets: Vec<&Value> =
        service["spec"]["ports"].as_array().expect("ports").iter().map(|port| &port["targetPort"]).collect();
    assert_eq!(targets, [&json!("http"), &json!(8080), &Value::Null]);

    let secret = bytes(2, [bytes(1, "k"), bytes(2, b"\x00\xff")].concat());
    assert_eq!(read(&envelope("v1", "Secret", &secret)).expect("a secret")["data"], json!({"k": "AP8="}));

    let volume = [bytes(1, "v"), bytes(2, bytes(2, [bytes(1, ""), bytes(2, bytes(1, "1Gi"))].concat()))].concat();
    let empty = [bytes(1, "e"), bytes(2, bytes(2, bytes(1, "")))].concat();
    let pod = read(&envelope("v1", "Pod", &bytes(2, [bytes(1, volume), bytes(1, empty)].concat()))).expect("a pod");
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "e", "emptyDir": {}}])
    );

    let lease =
        [bytes(1, "holder"), int(2, 15), bytes(4, [int(1, 1_767_323_045), int(2, 123_456_789)].concat())].concat();
    let lease = read(&envelope("coordination.k8s.io/v1", "Lease", &bytes(2, lease))).expect("a lease");
    assert_eq!(
        lease["spec"],
        json!({"holderIdentity": "holder", "leaseDurationSeconds": 15, "renewTime": "2026-01-02T03:04:05.123456Z"})
    );

    let managed = [bytes(1, "m"), bytes(4, int(1, 1_767_323_045)), bytes(7, bytes(1, r#"{"f:spec":{}}"#))].concat();
    let map = read(&envelope("v1", "ConfigMap", &bytes(1, bytes(17, managed)))).expect("a config map");
    assert_eq!(
        map["metadata"]["managedFields"],
        json!([{"manager": "m", "time": "2026-01-02T03:04:05Z", "fieldsV1": {"f:spec": {}}}])
    );

    let review = [bytes(
        2,
        [bytes(1, "u"), bytes(4, [bytes(1, "k"), bytes(2, [bytes(1, "a"), bytes(1, "b")].concat())].concat())].concat(),
    )]
    .concat();
    let review = read(&envelope("authentication.k8s.io/v1", "TokenReview", &bytes(3, review))).expect("a review");
    assert_eq!(review["status"]["user"]["extra"], json!({"k": ["a", "b"]}));
}

#[test]
fn zero_behind_a_pointer_is_kept() {
    let options = [int(1, 0), bytes(4, "Background"), int(3, 0)].concat();
    let expected = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background", "orphanDependents": false});
    assert_eq!(read(&envelope("v1", "DeleteOptions", &options)), Ok(expected));
}

#[test]
fn embedded_objects_are_json_or_envelopes() {
    for raw in [
        br#"{"kind":"ConfigMap","apiVersion":"v1","data":{"a":"b"}}"#.to_vec(),
        envelope("v1", "ConfigMap", &bytes(2, [bytes(1, "a"), bytes(2, "b")].concat())),
    ] {
        let list = read(&envelope("v1", "List", &bytes(2, bytes(1, raw)))).expect("a list");
        assert_eq!(list["items"], json!([{"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}]));
    }
}

#[test]
fn unknown_tags_are_skipped_and_packed_numbers_read() {
    let future = [
        int(999, 1),
        bytes(998, "x"),
        [varint(997 << 3 | 5), vec![0; 4]].concat(),
        [varint(996 << 3 | 1), vec![0; 8]].concat(),
    ]
    .concat();
    let context = [bytes(4, [varint(1), varint(300), varint(0)].concat()), int(4, 7), future].concat();
    let pod = read(&envelope("v1", "Pod", &bytes(2, bytes(14, context)))).expect("a pod");
    assert_eq!(pod["spec"]["securityContext"]["supplementalGroups"], json!([1, 300, 0, 7]));
}

#[test]
fn broken_bodies_are_refused() {
    let schema = (0..200).fold(Vec::new(), |inner: Vec<u8>, _| bytes(28, inner));
    let deep = bytes(2, bytes(7, bytes(4, bytes(1, schema))));
    for (body, part) in [
        (b"{}".to_vec(), "k8s"),
        (envelope("v1", "Nothing", &[]), "no kind \"Nothing\""),
        (envelope("v1", "Pod", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]), "expected 4294967295 bytes, found 0"),
        (envelope("v1", "Pod", &[0x0a]), "ten bytes"),
        (envelope("v1", "Pod", &[0x80; 11]), "ten bytes"),
        (envelope("v1", "Pod", &int(2, 5)), "spec has another wire type"),
        (envelope("v1", "Pod", &[0x0b, 0x0c]), "wire type"),
        (envelope("v1", "Pod", &[0x02, 0x00]), "field number"),
        (envelope("v1", "Pod", &bytes(1, bytes(1, b"\xff"))), "UTF-8"),
        (envelope("v1", "List", &bytes(2, bytes(1, "{"))), "JSON"),
        ([MAGIC.to_vec(), bytes(3, "gzip")].concat(), "content encoding"),
        ([MAGIC.to_vec(), bytes(4, "application/json")].concat(), "content type"),
        (envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", &deep), "levels of nesting"),
    ] {
        let error = read(&body).expect_err(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn memory_is_bounded() {
    let small = Limits { tree_bytes_max: 64 * 1024, ..Limits::default() };
    let many = bytes(2, bytes(2, "")).repeat(2_000);
    let body = envelope("v1", "Pod", &many);
    assert_eq!(decode(&body, None, small), Err(DecodeError::TooComplex { max: 64 * 1024 }));
    let nested = (0..200).fold(br#"{"a":1}"#.to_vec(), |inner, _| envelope("v1", "List", &bytes(2, bytes(1, inner))));
    assert!(matches!(read(&nested), Err(DecodeError::TooDeep { .. })));
}

#[test]
fn what_is_encoded_is_read_back() {
    for (message, value) in [
        (
            "core.v1.Pod",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "", "b": "c"}, "creationTimestamp": "2026-01-02T03:04:05Z", "ownerReferences": [{"kind": "K", "name": "o", "uid": "u", "apiVersion": "v1", "controller": false}]},
            "spec": {"containers": [{"name": "c", "image": "i", "command": ["a", ""], "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "500m"}}, "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 5}, "securityContext": {"privileged": false, "runAsUser": 0}}],
                "volumes": [{"name": "v", "configMap": {"name": "m", "defaultMode": 420}}, {"name": "e", "emptyDir": {}}], "terminationGracePeriodSeconds": 0, "priority": -1, "enableServiceLinks": false}}),
        ),
        (
            "core.v1.Secret",
            json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "AP8=", "b": ""}, "type": "Opaque", "immutable": true}),
        ),
        (
            "apps.v1.Deployment",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0, "selector": {}, "template": {"metadata": {"annotations": {"x": "y"}}, "spec": {"containers": [{"name": "c"}]}}, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}}),
        ),
        (
            "coordination.v1.Lease",
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"renewTime": "2026-01-02T03:04:05.123456Z"}}),
        ),
        (
            "authentication.v1.TokenReview",
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "t"}, "status": {"user": {"extra": {"k": ["a", "b"]}}}}),
        ),
    ] {
        let message = kubernetes().find(&format!("k8s.io.api.{message}")).expect(message);
        let mut checked = value.clone();
        assert_eq!(check_fields(&mut checked, message, &[], Validation::Strict), Ok(vec![]));
        let body = encode_protobuf(&value, message).expect("a checked object encodes");
        assert_eq!(read(&body).map(drop_empty), Ok(drop_empty(value)), "{}", message.full_name());
    }
}

/// Go cannot tell an empty list from an absent one on the wire.
fn drop_empty(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| *value != json!([]))
            .map(|(key, value)| (key, drop_empty(value)))
            .collect(),
        other => other,
    }
}
