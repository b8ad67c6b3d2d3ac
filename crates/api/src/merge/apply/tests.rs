//! Server-side apply by example: one object, the writes to it, and what becomes of its fields and their owners.

use serde_json::{Map, Value, json};

use super::{APPLIERS_MAX, LAST_APPLIED, Managers, Refusal, UPDATERS_MAX, Writer, apply, check, create, update};
use crate::ApiError;
use crate::schema::{Message, kubernetes};

fn deployments() -> Message<'static> {
    kubernetes().find("k8s.io.api.apps.v1.Deployment").expect("deployments exist")
}

/// An object and who owns what of it.
#[derive(Clone)]
pub(super) struct World {
    pub object: Value,
    pub managers: Managers,
    second: u32,
}

impl World {
    pub fn empty() -> World {
        World { object: json!({}), managers: Managers::default(), second: 0 }
    }

    /// A deployment that `maker` created.
    fn made_by(maker: &str, spec: &Value) -> World {
        let mut world = World::empty();
        world.object = deployment(spec);
        let writer = Writer { manager: maker, api_version: "apps/v1", subresource: "", now: "2026-01-01T00:00:00Z" };
        world.managers = create(&world.object, None, &writer, deployments());
        world
    }

    fn now(&mut self) -> String {
        self.second += 1;
        format!("2026-01-01T{:02}:{:02}:{:02}Z", self.second / 3600, self.second / 60 % 60, self.second % 60)
    }

    pub fn apply(&mut self, manager: &str, spec: &Value, force: bool) -> Result<(), String> {
        let config = deployment(spec);
        check(&config, deployments())?;
        let now = self.now();
        let writer = Writer { manager, api_version: "apps/v1", subresource: "", now: &now };
        let managers = self.managers.clone();
        let applied = apply(&self.object, &config, managers, (&writer, force), deployments());
        let applied = applied.map_err(|refusal| refusal.to_string())?;
        (self.object, self.managers) = (applied.object, applied.managers);
        Ok(())
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        let mut after = self.object.clone();
        change(&mut after);
        let now = self.now();
        let writer = Writer { manager, api_version: "apps/v1", subresource: "", now: &now };
        self.managers = update(&self.object, &after, self.managers.clone(), &writer, deployments());
        self.object = after;
    }

    pub fn spec(&self) -> &Value {
        &self.object["spec"]
    }

    /// `manager Operation: path path` of each entry.
    pub fn owners(&self) -> Vec<String> {
        let entries = self.managers.clone().into_value().unwrap_or(json!([]));
        let shown = |entry: &Value| {
            let fields = super::parse(&entry["fieldsV1"]).expect("what was printed");
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            format!("{} {}: {}", text("manager"), text("operation"), fields.paths().join(" "))
        };
        entries.as_array().into_iter().flatten().map(shown).collect()
    }
}

fn deployment(spec: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

#[test]
fn the_manager_owns_exactly_what_it_applies() {
    let mut world = World::empty();
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}], "securityContext": {}}}});
    world.apply("one", &spec, false).expect("nobody else owns anything");
    assert_eq!(world.spec(), &spec);
    assert_eq!(
        world.owners(),
        ["one Apply: .spec.replicas .spec.selector .spec.template.metadata.labels.a \
          .spec.template.spec.containers[name=\"c\"].image .spec.template.spec.containers[name=\"c\"].name \
          .spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort \
          .spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"] \
          .spec.template.spec.containers[name=\"c\"] .spec.template.spec.securityContext"]
    );
    let before = world.clone().managers.into_value();
    world.apply("one", &spec, false).expect("its own fields");
    assert_eq!(world.managers.into_value(), before, "what changes nothing leaves no trace");
}

#[test]
fn a_creator_owns_what_it_writes_and_nobody_owns_what_the_server_gives() {
    let world =
        World::made_by("kubectl-create", &json!({"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}}}));
    assert_eq!(
        world.owners(),
        ["kubectl-create Update: .spec.replicas .spec.template.metadata.labels.a .spec.template.metadata.labels"],
        "a map that was absent is owned itself, an object that cannot be absent is not"
    );
}

#[test]
fn what_is_applied_no_more_goes_unless_somebody_else_owns_it() {
    let mut world = World::empty();
    let containers = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1", "tty": true}]);
    let spec =
        json!({"replicas": 1, "paused": true, "template": {"spec": {"containers": containers, "hostNetwork": true}}});
    world.apply("one", &spec, false).expect("the first");
    world.apply("two", &json!({"paused": true}), false).expect("the same value is no conflict");
    world.update("three", |object| object["spec"]["minReadySeconds"] = json!(5));
    let spec = json!({"template": {"spec": {"containers": [{"name": "b", "image": "1"}]}}});
    world.apply("one", &spec, false).expect("its own fields");
    assert_eq!(
        world.spec(),
        &json!({"paused": true, "minReadySeconds": 5, "template": {"spec": {"containers": [{"name": "b", "image": "1"}]}}})
    );
    world.apply("one", &json!({}), false).expect("its own fields");
    assert_eq!(world.spec(), &json!({"paused": true, "minReadySeconds": 5}), "what is empty goes too");
    assert_eq!(world.owners(), ["two Apply: .spec.paused", "one Apply: .spec", "three Update: .spec.minReadySeconds"]);
}

#[test]
fn what_nobody_can_own_keeps_its_parents() {
    let writer = Writer { manager: "ann", api_version: "apps/v1", subresource: "", now: "2026-01-01T00:00:00Z" };
    let apply = |(object, managers): (Value, Managers), config: &Value| {
        let applied =
            apply(&object, config, managers, (&writer, false), deployments()).expect("nobody else owns any of it");
        (applied.object, applied.managers)
    };
    let (mut labelled, bare) = (deployment(&json!({})), deployment(&json!({})));
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let world = apply((json!({}), Managers::default()), &labelled);
    // The server gives names and times, which nobody owns; the only label was all that anybody owned of the metadata.
    let (object, _) = apply(world, &bare);
    assert_eq!(object, bare);
}

#[test]
fn a_field_that_somebody_else_set_inside_a_dropped_item_goes_with_it_only_if_nobody_owns_the_item() {
    let mut world = World::empty();
    let with = |items: Value| json!({"template": {"spec": {"containers": items}}});
    world.apply("one", &with(json!([{"name": "a", "image": "1"}, {"name": "b"}])), false).expect("the first");
    world.apply("two", &with(json!([{"name": "a", "tty": true}])), false).expect("another field");
    world.apply("one", &with(json!([{"name": "b"}])), false).expect("its own fields");
    assert_eq!(world.spec(), &with(json!([{"name": "a", "tty": true}, {"name": "b"}])));
}

#[test]
fn changing_what_others_own_is_a_conflict_that_says_who() {
    let mut world = World::made_by("maker", &json!({"replicas": 1}));
    world.apply("one", &json!({"paused": true}), false).expect("another field");
    let refused = world.apply("two", &json!({"replicas": 2}), false);
    assert_eq!(
        refused,
        Err("Apply failed with 1 conflict: conflict with \"maker\" using apps/v1: .spec.replicas".to_owned())
    );
    let refused = world.apply("two", &json!({"replicas": 2, "paused": false}), false);
    assert_eq!(
        refused,
        Err("Apply failed with 2 conflicts: conflicts with \"maker\" using apps/v1:\n- .spec.replicas\nconflicts with \"one\":\n- .spec.paused"
            .to_owned())
    );
    world.apply("two", &json!({"replicas": 2, "paused": false}), true).expect("forced");
    assert_eq!(world.spec(), &json!({"replicas": 2, "paused": false}));
    assert_eq!(world.owners(), ["two Apply: .spec.paused .spec.replicas"]);
}

#[test]
fn a_conflict_is_a_status_with_causes() {
    let mut world = World::made_by("maker", &json!({"replicas": 1}));
    let config = deployment(&json!({"replicas": 2}));
    let now = world.now();
    let writer = Writer { manager: "two", api_version: "apps/v1", subresource: "", now: &now };
    let refused = apply(&world.object, &config, world.managers, (&writer, false), deployments());
    let Err(Refusal::Conflicts(conflicts)) = refused else { panic!("expected conflicts, found {refused:?}") };
    let status = ApiError::from(conflicts).to_status();
    assert_eq!((&status["code"], &status["reason"]), (&json!(409), &json!("Conflict")));
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"maker\" using apps/v1", "field": ".spec.replicas"});
    assert_eq!(status["details"]["causes"], json!([cause]));
}

#[test]
fn the_same_value_is_shared() {
    let mut world = World::empty();
    for manager in ["one", "two"] {
        world.apply(manager, &json!({"replicas": 1}), false).expect("the same value");
    }
    assert_eq!(world.owners(), ["one Apply: .spec.replicas", "two Apply: .spec.replicas"]);
    let refused = world.apply("one", &json!({"replicas": 2}), false);
    assert_eq!(refused, Err("Apply failed with 1 conflict: conflict with \"two\": .spec.replicas".to_owned()));
}

#[test]
fn a_writer_takes_what_it_changes_and_what_is_removed_is_nobodys() {
    let mut world = World::empty();
    world.apply("one", &json!({"replicas": 1, "paused": true}), false).expect("the first");
    world.update("two", |object| object["spec"]["replicas"] = json!(3));
    assert_eq!(world.owners(), ["one Apply: .spec.paused", "two Update: .spec.replicas"]);
    world.update("three", |object| object["spec"] = json!({"replicas": 3}));
    assert_eq!(world.owners(), ["two Update: .spec.replicas"]);
    world.update("two", |object| object["spec"] = json!({"replicas": 4}));
    assert_eq!(world.owners(), ["two Update: .spec.replicas"]);
}

#[test]
fn the_time_is_that_of_the_last_change() {
    let mut world = World::made_by("one", &json!({"replicas": 1}));
    let time = |world: &World| world.managers.clone().into_value().map(|managed| managed[0]["time"].clone());
    assert_eq!(time(&world), Some(json!("2026-01-01T00:00:00Z")));
    world.update("one", |_| {});
    assert_eq!(time(&world), Some(json!("2026-01-01T00:00:00Z")), "nothing changed");
    world.update("one", |object| object["spec"]["replicas"] = json!(2));
    assert_eq!(time(&world), Some(json!("2026-01-01T00:00:02Z")));
}

#[test]
fn an_object_that_nobody_tracks_belongs_to_before_first_apply() {
    let mut world = World::empty();
    world.object = deployment(&json!({"replicas": 1, "paused": true}));
    world.update("one", |object| object["spec"]["replicas"] = json!(2));
    assert_eq!(world.owners(), [""; 0], "it stays untracked");
    let refused = world.apply("two", &json!({"replicas": 3}), false);
    assert_eq!(
        refused,
        Err("Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
            .to_owned())
    );
    world.apply("two", &json!({"replicas": 2}), false).expect("the same value");
    assert_eq!(world.owners(), ["two Apply: .spec.replicas", "before-first-apply Update: .spec.paused .spec.replicas"]);
}

#[test]
fn the_oldest_updaters_become_one() {
    let mut world = World::made_by("u0", &json!({"template": {"metadata": {"labels": {"l0": "0"}}}}));
    for n in 1..25 {
        world.update(&format!("u{n}"), |object| {
            object["spec"]["template"]["metadata"]["labels"][format!("l{n}")] = json!("1")
        });
    }
    let owners = world.owners();
    assert_eq!(owners.len(), UPDATERS_MAX);
    let ancient = owners.iter().find(|entry| entry.starts_with("ancient-changes Update: "));
    let fields = ancient.map(|entry| entry.split(' ').skip(2).count());
    assert_eq!(fields, Some(17), "16 labels and the map: {owners:?}");
    assert!(
        owners.iter().any(|entry| entry.starts_with("u24 ")) && !owners.iter().any(|entry| entry.starts_with("u15 "))
    );
}

#[test]
fn appliers_are_bounded() {
    let mut world = World::empty();
    for n in 0..APPLIERS_MAX {
        world.apply(&format!("m{n}"), &json!({"replicas": 1}), false).expect("one more");
    }
    let refused = world.apply("last", &json!({"replicas": 1}), false);
    assert_eq!(refused, Err("Too many: 101: must have at most 100 items".to_owned()));
    world.apply("m0", &json!({"replicas": 1}), false).expect("those that are there go on");
}

#[test]
fn kubectl_goes_on_from_its_client_side_applies() {
    let config = deployment(&json!({"replicas": 1, "paused": true}));
    let mut world = World::empty();
    world.object = config.clone();
    world.object["metadata"]["annotations"] = json!({LAST_APPLIED: config.to_string()});
    let now = world.now();
    let writer = Writer { manager: "kubectl-client-side-apply", api_version: "apps/v1", subresource: "", now: &now };
    world.managers = create(&world.object, None, &writer, deployments());
    world.update("scaler", |object| object["spec"]["replicas"] = json!(5));
    let mut other = world.clone();
    assert!(other.apply("me", &json!({"paused": false}), false).is_err(), "only kubectl");
    let refused = world.apply("kubectl", &json!({"replicas": 2, "paused": false}), false);
    assert_eq!(
        refused,
        Err("Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas".to_owned()),
        "what somebody changed since is a conflict"
    );
    world.apply("kubectl", &json!({"paused": false}), false).expect("what kubectl applied before");
    assert_eq!(world.spec(), &json!({"replicas": 5, "paused": false}));
    let kept = world.object["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .map(|text| serde_json::from_str::<Value>(text).ok());
    assert_eq!(kept, Some(Some(deployment(&json!({"paused": false})))), "the annotation follows");
}

#[test]
fn lists_keep_the_order_of_the_applier_and_the_place_of_others() {
    let names = |names: &str| -> Value {
        let items: Vec<Value> = names.chars().map(|name| json!({"name": name.to_string()})).collect();
        json!({"template": {"spec": {"containers": items}}})
    };
    for (live, config, result) in [
        ("ab", "c", "abc"),
        ("ab", "ca", "cab"),
        ("xa", "ca", "xca"),
        ("aby", "ba", "bya"),
        ("ba", "ab", "ab"),
        ("axb", "bca", "xbca"),
        ("", "ab", "ab"),
        ("ab", "ab", "ab"),
    ] {
        let mut world = World::made_by("maker", &names(live));
        world.apply("one", &names(config), true).expect("forced");
        assert_eq!(world.spec(), &names(result), "{live} and {config}");
    }
}

#[test]
fn one_value_is_replaced_whole_and_owned_whole() {
    let mut world = World::empty();
    world.apply("one", &json!({"selector": {"matchLabels": {"a": "1"}}}), false).expect("the first");
    let refused = world.apply("two", &json!({"selector": {"matchLabels": {"b": "1"}}}), false);
    assert_eq!(refused, Err("Apply failed with 1 conflict: conflict with \"one\": .spec.selector".to_owned()));
    world.apply("two", &json!({"selector": {"matchLabels": {"b": "1"}}}), true).expect("forced");
    assert_eq!(world.spec()["selector"], json!({"matchLabels": {"b": "1"}}));
}

#[test]
fn a_configuration_must_name_every_item_once_and_only_known_fields() {
    let pod = |containers: Value| json!({"template": {"spec": {"containers": containers}}});
    let path = ".spec.template.spec.containers";
    for (spec, why) in [
        (json!({"foo": 1}), ".spec.foo: field not declared in schema".to_owned()),
        (pod(json!([{"name": "a"}, {"name": "a"}])), format!("{path}: duplicate entries for key [name=\"a\"]")),
        (
            pod(json!([{"name": "a"}, {"image": "b"}])),
            format!(
                "{path}: element 1: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)"
            ),
        ),
        (
            pod(json!([{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}]}])),
            format!("{path}[name=\"a\"].ports: duplicate entries for key [containerPort=80,protocol=\"TCP\"]"),
        ),
        (pod(json!([null])), format!("{path}: element 0: associative list with keys may not have null element")),
        (
            json!({"a": 1, "b": 2}),
            "errors:\n  .spec.a: field not declared in schema\n  .spec.b: field not declared in schema".to_owned(),
        ),
    ] {
        assert_eq!(World::empty().apply("one", &spec, false), Err(why));
    }
    let config = json!({"metadata": {"finalizers": ["a/b", "a/b"]}});
    assert_eq!(
        check(&config, deployments()),
        Err(".metadata.finalizers: duplicate entries for key [=\"a/b\"]".to_owned())
    );
}

#[test]
fn what_a_client_sends_of_managers_is_read_whole_or_not_at_all() {
    let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}});
    assert!(Managers::sent(&json!([entry])).is_some_and(|managers| !managers.is_empty()));
    assert_eq!(Managers::sent(&json!([{}])), Some(Managers::default()), "nobody owns anything any more");
    assert_eq!(Managers::sent(&json!([])), None);
    for (name, wrong) in [
        ("operation", json!("Merge")),
        ("fieldsType", json!("V2")),
        ("fieldsV1", json!({"a": {}})),
        ("manager", json!("")),
        ("apiVersion", json!(1)),
    ] {
        let mut broken = entry.clone();
        broken[name] = wrong;
        assert_eq!(Managers::sent(&json!([entry, broken])), None, "{name}");
    }
}

#[test]
fn unknown_objects_are_known_entry_by_entry_and_unknown_lists_are_one_value() {
    let schema = kubernetes().find("k8s.io.api.apps.v1.ControllerRevision").expect("revisions exist");
    let object = json!({"data": {"spec": {"a": 1, "b": [{"name": "x"}]}}});
    assert_eq!(super::gather(&object, schema).paths(), [".data.spec.a", ".data.spec.b", ".data.spec"]);
    let after = json!({"data": {"spec": {"a": {"b": 2}}}});
    let changes = super::compare(&object, &after, schema);
    assert_eq!(
        (changes.added.paths(), changes.modified.paths(), changes.removed.paths()),
        (vec![".data.spec.a.b".to_owned()], vec![".data.spec.a".to_owned()], vec![".data.spec.b".to_owned()])
    );
}

#[test]
fn large_objects_take_little_time() {
    let labels: Map<String, Value> = (0..20_000).map(|n| (format!("l{n}"), json!("x"))).collect();
    let containers: Vec<Value> = (0..20_000).map(|n| json!({"name": format!("c{n}")})).collect();
    let spec = json!({"template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}});
    let mut world = World::empty();
    world.apply("one", &spec, false).expect("the first");
    world.apply("two", &spec, false).expect("the same values");
    world.update("three", |object| object["spec"]["template"] = json!({}));
    assert_eq!(world.owners().len(), 0, "{:?}", world.owners());
}
