//! Objects at their limits, and writers that get in each other's way (A22, A23, A26).

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::{Api, CONFIG_MAPS, PODS, config_map, pod};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a22_annotations_are_256_kib_and_no_byte_more() {
    let api = Api::start().await;
    for (size, code) in [(256 * 1024, 201), (256 * 1024 + 1, 422)] {
        let mut object = config_map(&format!("c{size}"));
        object["metadata"]["annotations"] = json!({"a/b": "x".repeat(size - 3)});
        let reply = api.post(CONFIG_MAPS, &object).await;
        assert_eq!(reply.code, code, "{size}: {}", reply.said());
        let expected = "metadata.annotations: Too long: may not be more than 262144 bytes";
        assert_eq!(
            code == 422,
            reply.said().contains(expected),
            "{}",
            reply.said().chars().take(300).collect::<String>()
        );
    }
}

#[tokio::test]
async fn a22_secrets_and_config_maps_hold_1_mib_and_no_byte_more() {
    use base64::Engine;
    let encode = |size: usize| base64::engine::general_purpose::STANDARD.encode("x".repeat(size));
    let api = Api::start().await;
    let of = |name: &str, fields: Value| {
        let mut object = json!({"metadata": {"name": name}});
        object.as_object_mut().expect("a map").extend(fields.as_object().expect("a map").clone());
        object
    };
    // Values count, keys do not.
    for (path, name, fits, over) in [
        (SECRETS, "data", json!({"data": {"k": encode(MIB)}}), json!({"data": {"k": encode(MIB + 1)}})),
        (
            SECRETS,
            "text",
            json!({"stringData": {"k": "x".repeat(MIB)}}),
            json!({"stringData": {"k": "x".repeat(MIB - 1), "l": "xx"}}),
        ),
        (CONFIG_MAPS, "text", json!({"data": {"k": "x".repeat(MIB)}}), json!({"data": {"k": "x".repeat(MIB + 1)}})),
        (
            CONFIG_MAPS,
            "bytes",
            json!({"data": {"k": "x".repeat(MIB / 2)}, "binaryData": {"l": encode(MIB / 2)}}),
            json!({"data": {"k": "x".repeat(MIB / 2)}, "binaryData": {"l": encode(MIB / 2 + 1)}}),
        ),
    ] {
        assert_eq!(api.post(path, &of(name, fits)).await.said(), "201", "{path} {name}");
        let reply = api.post(path, &of(&format!("{name}-over"), over)).await;
        assert!(reply.said().contains("Too long: may not be more than 1048576 bytes"), "{path} {name}: {}", reply.code);
        assert_eq!(reply.code, 422);
        assert!(reply.body.len() < 2_048, "what is refused is not told back");
    }
}

#[tokio::test]
async fn a22_a_pod_of_ten_thousand_variables_and_long_arguments_is_taken_or_refused_whole() {
    let api = Api::start().await;
    let variables: Vec<Value> = (0..10_000).map(|index| json!({"name": format!("V{index}"), "value": "x"})).collect();
    for (name, field, value, code) in [
        ("env", "env", json!(variables), 201),
        ("args", "args", json!(["x".repeat(1_500_000)]), 201),
        ("more-args", "args", json!(["x".repeat(2_000_000)]), 413),
        ("same", "env", json!(vec![json!({"name": "A"}); 10_000]), 201),
    ] {
        let mut object = pod(name);
        object["spec"]["containers"][0][field] = value;
        let reply = api.post(PODS, &object).await;
        assert_eq!(reply.code, code, "{name}: {}", reply.said());
        let read = api.get(&format!("{PODS}/{name}")).await;
        if code != 201 {
            assert_eq!(read.code, 404, "nothing of {name} is kept");
            continue;
        }
        let read = read.json();
        assert_eq!(
            read["spec"]["containers"][0][field], object["spec"]["containers"][0][field],
            "{name} is kept whole"
        );
    }
}

#[tokio::test]
async fn a23_owners_are_named_whole_and_owning_oneself_changes_nothing() {
    let api = Api::start().await;
    let made = api.make(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    let owner = |fields: Value| json!({"metadata": {"ownerReferences": [fields]}});
    for (missing, fields) in [
        ("uid", json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "c"})),
        ("name", json!({"apiVersion": "v1", "kind": "ConfigMap", "uid": "u"})),
        ("kind", json!({"apiVersion": "v1", "name": "c", "uid": "u"})),
        ("apiVersion", json!({"kind": "ConfigMap", "name": "c", "uid": "u"})),
    ] {
        let said = api.merge(&path, &owner(fields)).await.said();
        assert!(said.contains(&format!("metadata.ownerReferences[0].{missing}")), "{missing}: {said}");
    }
    let itself = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": made["metadata"]["uid"]});
    assert_eq!(api.merge(&path, &owner(itself)).await.said(), "200");
    assert_eq!(api.get(&path).await.code, 200);
    assert_eq!(api.delete(&path).await.said(), "200");
    assert_eq!(api.get(&path).await.code, 404, "its own owner did not keep it");
}

#[tokio::test]
async fn a23_a_thousand_finalizers_hold_an_object_until_the_last_is_gone() {
    let api = Api::start().await;
    let finalizers: Vec<String> = (0..1_000).map(|index| format!("example.com/f{index}")).collect();
    let mut object = config_map("c");
    object["metadata"]["finalizers"] = json!(finalizers);
    api.make(CONFIG_MAPS, &object).await;
    let path = format!("{CONFIG_MAPS}/c");
    assert_eq!(api.delete(&path).await.said(), "200");
    let mut more = finalizers.clone();
    more.push("example.com/more".to_owned());
    let more = json!({"metadata": {"finalizers": more}});
    assert_eq!(api.merge(&path, &more).await.code, 422, "an ending object takes no further finalizer");
    let last = json!({"metadata": {"finalizers": finalizers[999..]}});
    assert_eq!(api.merge(&path, &last).await.said(), "200");
    assert_eq!(api.merge(&path, &json!({"metadata": {"finalizers": null}})).await.said(), "200");
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn a26_of_a_hundred_writers_of_one_revision_one_wins_each_round() {
    let api = Api::start().await;
    let mut object = api.make(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    for round in 0..3 {
        let writers = (0..100).map(|index| {
            let mut mine = object.clone();
            mine["data"]["k"] = json!(format!("{round}-{index}"));
            let (api, path) = (&api, &path);
            async move { api.put(path, &mine).await }
        });
        let replies = join_all(writers).await;
        let won: Vec<_> = replies.iter().filter(|reply| reply.code == 200).collect();
        assert_eq!(won.len(), 1);
        assert!(replies.iter().all(|reply| matches!(reply.code.as_u16(), 200 | 409)));
        object = won[0].json();
        assert_eq!(api.get(&path).await.json(), object, "what was told is what is stored");
    }
}

#[tokio::test]
async fn a26_what_is_deleted_is_not_brought_back_by_who_still_writes_it() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    for _ in 0..5 {
        let made = api.make(CONFIG_MAPS, &config_map("c")).await;
        let uid = made["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let deletion = async {
            let body = json!({"preconditions": {"uid": uid}}).to_string();
            api.call(Method::DELETE, &path, "application/json", body).await.code
        };
        let writers = join_all((0..20).map(|index| {
            let mut mine = made.clone();
            mine["data"]["k"] = json!(index.to_string());
            if let Some(metadata) = mine["metadata"].as_object_mut().filter(|_| index % 2 == 0) {
                metadata.remove("resourceVersion");
            }
            let (api, path) = (&api, &path);
            async move { api.put(path, &mine).await }
        }));
        let (deleted, writes) = futures::future::join(deletion, writers).await;
        assert_eq!(deleted, 200);
        for write in writes {
            assert!(matches!(write.code.as_u16(), 200 | 404 | 409), "{}", write.said());
        }
        assert_eq!(api.get(&path).await.code, 404, "an update with a uid makes nothing");
        let other = json!({"metadata": {"uid": uid}});
        api.make(CONFIG_MAPS, &config_map("c")).await;
        assert_eq!(api.merge(&path, &other).await.code, 409, "a namesake is another object");
        let gone = json!({"preconditions": {"uid": uid}}).to_string();
        assert_eq!(api.call(Method::DELETE, &path, "application/json", gone).await.code, 409);
        assert_eq!(api.delete(&path).await.code, 200);
    }
}
