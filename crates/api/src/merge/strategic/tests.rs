//! Strategic merge by example, and by rules that must hold for any two pods.

use serde_json::{Map, Value, json};

use super::strategic_merge;
use crate::merge::properties::Draw;
use crate::schema::kubernetes;

fn merge(target: &Value, patch: &Value) -> Result<Value, String> {
    let pod = kubernetes().find("k8s.io.api.core.v1.Pod").expect("pods exist");
    strategic_merge(target, patch.clone(), pod).map_err(|error| error.to_string())
}

fn spec(target: Value, patch: Value) -> Result<Value, String> {
    merge(&json!({"spec": target}), &json!({"spec": patch})).map(|mut pod| pod["spec"].take())
}

#[test]
fn lists_with_a_key_merge_by_it() {
    let found = json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}, {"name": "b", "image": "1"}]});
    for (patch, result) in [
        (json!([{"name": "b", "image": "2"}]), json!([found["containers"][0], {"name": "b", "image": "2"}])),
        (
            json!([{"name": "a", "env": [{"name": "Y", "value": "3"}, {"name": "Z"}]}]),
            json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "3"}, {"name": "Z"}]}, {"name": "b", "image": "1"}]),
        ),
        (json!([{"name": "a", "env": null}]), json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
        (json!([{"name": "a", "$patch": "delete"}]), json!([{"name": "b", "image": "1"}])),
        (json!([{"name": "none", "$patch": "delete"}]), found["containers"].clone()),
        (
            json!([{"name": "a", "$patch": "replace", "tty": true}]),
            json!([{"name": "a", "tty": true}, {"name": "b", "image": "1"}]),
        ),
        (json!([{"$patch": "replace"}, {"name": "c"}]), json!([{"name": "c"}])),
        (json!([{"name": "c"}]), json!([{"name": "c"}, found["containers"][0], {"name": "b", "image": "1"}])),
        (
            json!([{"name": "b", "image": "2"}, {"name": "a", "image": "2", "env": null}]),
            json!([{"name": "b", "image": "2"}, {"name": "a", "image": "2"}]),
        ),
        (json!([]), found["containers"].clone()),
    ] {
        assert_eq!(spec(found.clone(), json!({"containers": patch})), Ok(json!({"containers": result})), "{patch}");
    }
    let ports = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}]});
    let patch = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 1}]}]});
    assert_eq!(
        spec(ports, patch),
        Ok(json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http", "hostPort": 1}]}]}))
    );
}

#[test]
fn the_order_can_be_set() {
    let found = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "sidecar"}, {"name": "c"}]});
    let patch = json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "d"}, {"name": "a"}, {"name": "b"}], "containers": [{"name": "d"}]});
    let names = |spec: &Value| {
        spec["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| item["name"].as_str().unwrap_or("?").to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(spec(found.clone(), patch).map(|spec| names(&spec)), Ok("sidecar c d a b".to_owned()));
    let only = json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]});
    assert_eq!(spec(found.clone(), only).map(|spec| names(&spec)), Ok("b a sidecar c".to_owned()));
    let missing = json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "z"}]});
    assert!(
        spec(found, missing)
            .is_err_and(|error| error.contains("spec.containers[0]: expected every patched item in $setElementOrder"))
    );
}

#[test]
fn lists_of_scalars_with_merge_are_unions() {
    let found = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    for (patch, result) in [
        (json!({"finalizers": ["c", "d"]}), json!(["a", "b", "c", "d"])),
        (json!({"$deleteFromPrimitiveList/finalizers": ["b"]}), json!(["a", "c"])),
        (
            json!({"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["e"], "$setElementOrder/finalizers": ["e", "c", "a"]}),
            json!(["e", "c", "a"]),
        ),
    ] {
        assert_eq!(
            merge(&found, &json!({"metadata": patch})),
            Ok(json!({"metadata": {"finalizers": result}})),
            "{patch}"
        );
    }
}

#[test]
fn other_lists_and_free_json_are_replaced() {
    let found = json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "command": ["x", "y"]}]});
    let patch = json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "command": ["z"]}]});
    assert_eq!(spec(found, patch.clone()), Ok(patch));
    assert_eq!(
        merge(&json!({"unheard": [{"name": 1}]}), &json!({"unheard": [{"name": 2}]})),
        Ok(json!({"unheard": [{"name": 2}]}))
    );
}

#[test]
fn maps_and_objects_merge_and_null_removes() {
    let found = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"securityContext": {"runAsUser": 1, "fsGroup": 2}}});
    let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}, "annotations": {"x": null, "y": "1"}}, "spec": {"securityContext": {"$patch": "replace", "fsGroup": 3}, "affinity": null}});
    let result = json!({"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {"y": "1"}}, "spec": {"securityContext": {"fsGroup": 3}}});
    assert_eq!(merge(&found, &patch), Ok(result));
    assert_eq!(
        merge(&found, &json!({"spec": {"$patch": "delete"}})),
        Ok(json!({"metadata": found["metadata"], "spec": {}}))
    );
    assert_eq!(
        merge(&found, &json!({"spec": {"$patch": "merge", "hostname": "h"}}))
            .map(|pod| pod["spec"]["securityContext"]["fsGroup"].clone()),
        Ok(json!(2))
    );
}

#[test]
fn retained_keys_drop_the_others() {
    let found = json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]});
    let patch = json!({"volumes": [{"name": "v", "configMap": {"name": "c"}, "$retainKeys": ["name", "configMap"]}]});
    assert_eq!(spec(found.clone(), patch), Ok(json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]})));
    let wrong = json!({"volumes": [{"name": "v", "configMap": {}, "$retainKeys": ["name"]}]});
    assert!(spec(found, wrong).is_err_and(|error| error.contains("spec.volumes[0].$retainKeys: expected every field")));
}

#[test]
fn new_fields_come_without_directives_and_nulls() {
    let patch = json!({"securityContext": {"$patch": "merge", "runAsUser": 1, "fsGroup": null}, "containers": [{"name": "a", "$patch": "merge", "tty": null}, {"name": "b", "$patch": "delete"}],
        "$setElementOrder/containers": [{"name": "a"}]});
    assert_eq!(spec(json!({}), patch), Ok(json!({"securityContext": {"runAsUser": 1}, "containers": [{"name": "a"}]})));
}

#[test]
fn wrong_patches_name_the_path() {
    for (patch, part) in [
        (
            json!({"containers": [{"image": "x"}]}),
            "patch at spec.containers[0]: expected the merge key \"name\", found none",
        ),
        (json!({"containers": ["x"]}), "spec.containers[0]: expected an object, found a string"),
        (
            json!({"securityContext": {"$patch": "explode"}}),
            "spec.securityContext.$patch: expected replace, delete or merge, found explode",
        ),
        (json!({"securityContext": {"$patch": 1}}), "spec.securityContext.$patch"),
        (json!({"$retainKeys": "x"}), "spec.$retainKeys: expected a list of field names, found a string"),
        (json!({"$setElementOrder/containers": {}}), "spec.$setElementOrder/containers: expected a list"),
    ] {
        let error = spec(json!({"containers": [{"name": "a"}]}), patch).expect_err(part);
        assert!(error.contains(part), "{error}");
    }
    assert!(merge(&json!({}), &json!({"metadata": {"finalizers": [{}]}})).is_err());
}

#[test]
fn large_patches_take_little_time() {
    let items = |from: u32| (from..from + 20_000).map(|n| json!({"name": format!("n{n}")})).collect::<Vec<_>>();
    let merged = spec(json!({"containers": items(0)}), json!({"containers": items(10_000)})).expect("a merge");
    assert_eq!(merged["containers"].as_array().map(Vec::len), Some(30_000));
    let patch = json!({"containers": items(10_000), "$setElementOrder/containers": items(0)});
    assert!(spec(json!({"containers": items(0)}), patch).is_err(), "the order does not say where the new ones are");
    let patch = json!({"containers": items(0), "$setElementOrder/containers": items(0)});
    let merged = spec(json!({"containers": items(0)}), patch).expect("a merge");
    assert_eq!(merged["containers"].as_array().map(Vec::len), Some(20_000));
}

fn pod(draw: &mut Draw) -> Value {
    let mut containers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        if draw.below(2) == 0 {
            let env: Vec<Value> = ["X", "Y", "Z"]
                .iter()
                .filter(|_| draw.below(2) == 0)
                .map(|name| json!({"name": name, "value": "v"}))
                .collect();
            containers.push(json!({"name": name, "image": format!("i{}", draw.below(3)), "env": env}));
        }
    }
    let labels: Map<String, Value> =
        (0..draw.below(4)).map(|n| (format!("l{n}"), json!(draw.below(2).to_string()))).collect();
    json!({"metadata": {"labels": labels}, "spec": {"containers": containers, "priority": draw.below(3)}})
}

#[test]
fn merging_is_idempotent_and_keeps_what_the_patch_says() {
    for seed in 0..500 {
        let mut draw = Draw::new(seed);
        let (found, patch) = (pod(&mut draw), pod(&mut draw));
        let once = merge(&found, &patch).expect("a merge");
        assert_eq!(merge(&once, &patch).as_ref(), Ok(&once), "seed {seed}");
        assert_eq!(merge(&found, &json!({})).as_ref(), Ok(&found), "seed {seed}: an empty patch changes nothing");
        assert_eq!(merge(&found, &found).as_ref(), Ok(&found), "seed {seed}: an object merged with itself is itself");
        for item in patch["spec"]["containers"].as_array().into_iter().flatten() {
            let kept =
                once["spec"]["containers"].as_array().into_iter().flatten().find(|kept| kept["name"] == item["name"]);
            assert_eq!(kept.map(|kept| &kept["image"]), Some(&item["image"]), "seed {seed}");
        }
    }
}

#[test]
fn replacing_makes_any_pod_the_other() {
    for seed in 0..200 {
        let mut draw = Draw::new(seed);
        let (found, mut wanted) = (pod(&mut draw), pod(&mut draw));
        let expected = wanted.clone();
        wanted["$patch"] = json!("replace");
        assert_eq!(merge(&found, &wanted), Ok(expected), "seed {seed}");
    }
}
