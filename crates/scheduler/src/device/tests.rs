//! Searches over claims, classes and slices from JSON.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use windlass_api::Object;
use windlass_api::device::{Claim, DeviceId};
use windlass_client::{Caches, Client, Key};
use windlass_stdx::{Request, Response, Transport, TransportError, World};

use super::spec::{Class, Spec};
use super::stock::{Slice, Stock};
use super::{Allocation, Ask, AskedClaim, Devices, Effort};
use crate::term::Labels;

fn object(value: &Value) -> Object {
    Object::parse(Bytes::from(value.to_string())).expect("an object")
}

/// A cluster of devices.
struct Scene {
    slices: Vec<Value>,
    classes: Vec<Value>,
    taken: Vec<DeviceId>,
}

fn selector(expression: &str) -> Value {
    json!([{"cel": {"expression": expression}}])
}

/// A slice for n1: `devices` are names, each with a model and a NUMA node, as `a100-0@1`.
fn slice(pool: &str, generation: i64, count: i64, devices: &[&str]) -> Value {
    let devices: Vec<Value> = devices
        .iter()
        .map(|written| {
            let (name, numa) = written.split_once('@').unwrap_or((written, "0"));
            let model = name.split('-').next().unwrap_or_default();
            let numa: i64 = numa.parse().expect("a number");
            json!({"name": name, "attributes": {"model": {"string": model}, "numa": {"int": numa}}})
        })
        .collect();
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": format!("{pool}-{generation}")},
        "spec": {"driver": "gpu.example.com", "nodeName": "n1", "devices": devices,
            "pool": {"name": pool, "generation": generation, "resourceSliceCount": count}}})
}

impl Scene {
    fn new(slices: Vec<Value>) -> Scene {
        let class =
            |name: &str, selectors: Value| json!({"metadata": {"name": name}, "spec": {"selectors": selectors}});
        let classes = vec![
            class("gpu", selector("device.driver == 'gpu.example.com'")),
            class("nothing", selector("false")),
            class("broken", selector("device.attributes['gpu.example.com'].nothing == 1")),
        ];
        Scene { slices, classes, taken: Vec::new() }
    }

    fn taken(mut self, pool: &str, device: &str) -> Scene {
        let (driver, pool, device) = ("gpu.example.com".to_owned(), pool.to_owned(), device.to_owned());
        self.taken.push(DeviceId { driver, pool, device });
        self
    }

    fn ask(&self, claims: &[Value]) -> Ask {
        let classes: BTreeMap<String, Arc<Class>> = self
            .classes
            .iter()
            .map(|class| Arc::new(Class::read(&object(class))))
            .map(|class| (class.name.clone(), class))
            .collect();
        let asked = claims.iter().enumerate().map(|(at, devices)| {
            let claim =
                object(&json!({"metadata": {"name": format!("c{at}"), "namespace": "ns", "uid": format!("u{at}"),
                "resourceVersion": "7"}, "spec": {"devices": devices}}));
            AskedClaim {
                key: Key::new("ns", format!("c{at}").as_str()),
                claim: Arc::new(Claim::read(&claim)),
                spec: Arc::new(Spec::read(&claim)),
                classes: classes.clone(),
            }
        });
        Ask {
            reaches: Vec::new(),
            claims: asked.collect(),
            reserve: Vec::new(),
            stock: Arc::new(Stock::new(self.slices.iter().map(|slice| Arc::new(Slice::read(&object(slice)))))),
            taken: Arc::new(self.taken.iter().map(|device| (device.clone(), 1)).collect()),
            effort: Mutex::new(Effort::new()),
        }
    }

    /// What claims get on n1, as `REQUEST=DEVICE`, claims apart by `; `; or why they get nothing.
    fn find(&self, claims: &[Value]) -> String {
        let ask = self.ask(claims);
        if let Err(why) = ask.fits("n1", &Labels::new()) {
            return why;
        }
        let shown = ask.allocations("n1").into_iter().map(|allocation| {
            let results = allocation.result["devices"]["results"].as_array().expect("results").clone();
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let one = |result: &Value| format!("{}={}", text(&result["request"]), text(&result["device"]));
            results.iter().map(one).collect::<Vec<_>>().join(" ")
        });
        shown.collect::<Vec<_>>().join("; ")
    }
}

fn request(name: &str, more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    exactly.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    json!({"name": name, "exactly": exactly})
}

fn one(name: &str, more: Value) -> Value {
    json!({"requests": [request(name, more)]})
}

const NONE: &str = "cannot allocate all claims";

#[test]
fn f1_a_device_is_given_once() {
    let scene = Scene::new(vec![slice("p", 1, 1, &["a-0", "a-1"])]);
    let gpu = || one("gpu", json!({}));
    assert_eq!(scene.find(&[gpu()]), "gpu=a-0");
    assert_eq!(scene.find(&[gpu(), gpu()]), "gpu=a-0; gpu=a-1");
    assert_eq!(scene.find(&[gpu(), gpu(), gpu()]), NONE);
    let scene = scene.taken("p", "a-0");
    assert_eq!(scene.find(&[gpu()]), "gpu=a-1");
    assert_eq!(scene.find(&[gpu(), gpu()]), NONE);
    let admin = || one("gpu", json!({"adminAccess": true}));
    assert_eq!(scene.find(&[admin(), admin(), gpu()]), "gpu=a-0; gpu=a-0; gpu=a-1", "an admin takes nothing away");
    assert_eq!(scene.find(&[json!({"requests": [request("a", json!({"adminAccess": true, "count": 3}))]})]), NONE);
}

#[test]
fn f2_class_and_request_must_both_mean_a_device() {
    let scene = Scene::new(vec![slice("p", 1, 1, &["a-0", "b-0"])]);
    let by = |expression: &str| one("gpu", json!({"selectors": selector(expression)}));
    assert_eq!(scene.find(&[by("device.attributes['gpu.example.com'].model == 'b'")]), "gpu=b-0");
    assert_eq!(scene.find(&[by("device.attributes['gpu.example.com'].model == 'c'")]), NONE);
    assert_eq!(scene.find(&[one("gpu", json!({"deviceClassName": "nothing"}))]), NONE);
    assert_eq!(
        scene.find(&[one("gpu", json!({"deviceClassName": "broken"}))]),
        "class broken: selector #0 on device gpu.example.com/p/a-0: CEL runtime error: no such key: nothing"
    );
}

#[test]
fn f2_a_taint_is_tolerated_or_keeps_away() {
    let mut tainted = slice("p", 1, 1, &["a-0"]);
    tainted["spec"]["devices"][0]["taints"] = json!([{"key": "sick", "effect": "NoSchedule"}]);
    let scene = Scene::new(vec![tainted]);
    assert_eq!(scene.find(&[one("gpu", json!({}))]), NONE);
    let tolerant = json!({"tolerations": [{"key": "sick", "operator": "Exists"}]});
    assert_eq!(scene.find(&[one("gpu", tolerant)]), "gpu=a-0");
}

#[test]
fn f3_so_many_or_all_that_are_meant() {
    let scene = Scene::new(vec![slice("p", 1, 1, &["a-0", "a-1", "b-0"])]);
    assert_eq!(scene.find(&[one("gpu", json!({"count": 2}))]), "gpu=a-0 gpu=a-1");
    assert_eq!(scene.find(&[one("gpu", json!({"count": 4}))]), NONE);
    let all = |model: &str| {
        let expression = format!("device.attributes['gpu.example.com'].model == '{model}'");
        one("gpu", json!({"allocationMode": "All", "count": null, "selectors": selector(&expression)}))
    };
    assert_eq!(scene.find(&[all("a")]), "gpu=a-0 gpu=a-1");
    assert_eq!(scene.find(&[all("c")]), NONE, "at least one");
    let scene = scene.taken("p", "a-1");
    assert_eq!(scene.find(&[all("a")]), NONE, "all of them, or none");
    let many: Vec<String> = (0..40).map(|number| format!("a-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let scene = Scene::new(vec![slice("p", 1, 1, &many)]);
    assert_eq!(scene.find(&[one("gpu", json!({"count": 33}))]), NONE, "a claim has 32 at most");
}

#[test]
fn f4_constraints_hold_between_the_devices_of_a_claim() {
    let scene = Scene::new(vec![slice("p", 1, 1, &["a-0@0", "b-0@1", "a-1@1"])]);
    let model = |model: &str| json!({"selectors": selector(&format!("device.attributes['gpu.example.com'].model == '{model}'"))});
    let pair = |constraint: Value| json!({"requests": [request("x", model("a")), request("y", model("b"))], "constraints": [constraint]});
    let same = json!({"matchAttribute": "gpu.example.com/numa"});
    assert_eq!(scene.find(&[pair(same)]), "x=a-1 y=b-0", "the first choice of x is taken back");
    let other = json!({"distinctAttribute": "gpu.example.com/numa"});
    assert_eq!(scene.find(&[pair(other)]), "x=a-0 y=b-0");
    let unknown = json!({"matchAttribute": "other.example.com/numa"});
    assert_eq!(scene.find(&[pair(unknown)]), NONE, "a device that does not say it is out");
    let elsewhere = json!({"matchAttribute": "gpu.example.com/numa", "requests": ["x"]});
    assert_eq!(scene.find(&[pair(elsewhere)]), "x=a-0 y=b-0");
}

#[test]
fn f5_the_first_way_with_which_everything_can_be_met_is_taken() {
    let scene = Scene::new(vec![slice("p", 1, 1, &["a-0", "b-0", "b-1"])]);
    let way = |name: &str, model: &str, count: u32| {
        let expression = format!("device.attributes['gpu.example.com'].model == '{model}'");
        json!({"name": name, "deviceClassName": "gpu", "count": count, "selectors": selector(&expression)})
    };
    let ways = |ways: Value| json!({"requests": [{"name": "gpu", "firstAvailable": ways}]});
    let claim = ways(json!([way("best", "c", 1), way("good", "a", 1), way("poor", "b", 2)]));
    assert_eq!(scene.find(std::slice::from_ref(&claim)), "gpu/good=a-0");
    assert_eq!(scene.find(&[claim.clone(), claim]), "gpu/good=a-0; gpu/poor=b-0 gpu/poor=b-1");
}

#[test]
fn f6_a_search_that_takes_too_long_is_given_up_and_says_so() {
    let many: Vec<String> = (0..30).map(|number| format!("a-{number}@{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let scene = Scene::new(vec![slice("p", 1, 1, &many)]);
    let claim =
        json!({"requests": [request("x", json!({"count": 15})), request("y", json!({"deviceClassName": "nothing"}))]});
    let why = scene.find(&[claim]);
    assert_eq!(why, "cannot allocate all claims: too many combinations of devices to try them all");
}

/// The steps that it takes to find this claim's devices.
fn steps(scene: &Scene, claim: Value) -> usize {
    let ask = scene.ask(&[claim]);
    ask.fits("n1", &Labels::new()).expect("there are enough");
    ask.effort.lock().expect("nothing panics").steps
}

#[test]
fn f6_comparing_devices_takes_steps_and_passing_those_that_others_have_takes_none() {
    let scene = Scene::new(vec![slice("p", 1, 1, &["a-0", "a-1", "a-2"])]);
    let three =
        |constraints: Value| json!({"requests": [request("x", json!({"count": 3}))], "constraints": constraints});
    let same = json!({"matchAttribute": "gpu.example.com/numa"});
    let without = steps(&scene, three(json!([])));
    assert_eq!(steps(&scene, three(json!([same, same]))) - without, 2 * (1 + 2), "each with those picked before");
    let many: Vec<String> = (0..100).map(|number| format!("a-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut scene = Scene::new(vec![slice("p", 1, 1, &many)]);
    for device in &many[..99] {
        scene = scene.taken("p", device);
    }
    let found = steps(&scene, one("gpu", json!({})));
    assert!(found < 20, "{found} steps for one free device");
}

#[test]
fn f6_when_everything_is_spent_no_node_is_looked_at() {
    let ask = Scene::new(vec![slice("p", 1, 1, &["a-0"])]).ask(&[one("gpu", json!({}))]);
    let effort = || ask.effort.lock().expect("nothing panics");
    effort().steps = 500_000;
    let why = "cannot allocate all claims: too many combinations of devices to try them all";
    assert_eq!(ask.fits("n1", &Labels::new()), Err(why.to_owned()));
    let before = effort().steps;
    assert_eq!(ask.fits("n1", &Labels::new()), Err(why.to_owned()));
    assert_eq!(effort().steps, before);
}

#[test]
fn f6_a_search_is_only_so_deep() {
    let many: Vec<String> = (0..32).map(|number| format!("a-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let scene = Scene::new(vec![slice("p", 1, 1, &many)]);
    let claims = vec![one("gpu", json!({"adminAccess": true, "count": 32})); 256];
    assert_eq!(scene.find(&claims[..16]).split("; ").count(), 16);
    assert_eq!(scene.find(&claims), "cannot allocate all claims: a pod has at most 512 devices");
    let empty = vec![json!({"requests": []}); 10_000];
    assert_eq!(scene.find(&empty).split("; ").count(), 10_000, "claims of nothing are no depth");
}

/// A link to nobody.
struct Silent;

impl Transport for Silent {
    fn call(&self, _request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn d6_what_a_pod_is_given_is_its_own_whoever_takes_its_name() {
    let mut devices = Devices::new(&Caches::new(Client::new(Arc::new(Silent), World::real())));
    let given = |device: &str| {
        let id = DeviceId { driver: "gpu.example.com".to_owned(), pool: "p".to_owned(), device: device.to_owned() };
        let (key, uid) = (Key::new("ns", format!("for-{device}").as_str()), "u".to_owned());
        [Allocation { key, uid, revision: 7, finalizers: Vec::new(), result: Value::Null, devices: vec![id] }]
    };
    let taken = |devices: &Devices| devices.taken.keys().map(|id| id.device.clone()).collect::<Vec<_>>().join(" ");
    // Two pods of one name: the first one's write is under way when it goes.
    devices.assume("1", &given("a-0"));
    devices.assume("2", &given("a-1"));
    assert_eq!(taken(&devices), "a-0 a-1");
    assert!(!devices.settle("1", Some(9)), "its write is not seen yet");
    assert_eq!(taken(&devices), "a-0 a-1");
    assert!(devices.settle("2", None));
    assert_eq!(taken(&devices), "a-0");
}

#[test]
fn p1_to_p3_only_whole_pools_of_the_newest_generation_count() {
    let gpu = || one("gpu", json!({}));
    let scene = Scene::new(vec![slice("p", 1, 1, &["a-0"]), slice("p", 2, 1, &["a-1"])]);
    assert_eq!(scene.find(&[gpu()]), "gpu=a-1");
    let scene = Scene::new(vec![slice("p", 2, 2, &["a-1"])]);
    assert_eq!(scene.find(&[gpu()]), NONE, "one of its slices is not there yet");
    let all = one("gpu", json!({"allocationMode": "All", "count": null}));
    assert_eq!(
        scene.find(&[all]),
        "claim ns/c0, request gpu: asks for all devices, but resource pool gpu.example.com/p is currently being updated"
    );
    let scene = Scene::new(vec![slice("p", 1, 1, &["a-0", "a-0"])]);
    assert_eq!(scene.find(&[gpu()]), "invalid resource pools were encountered");
}

#[test]
fn p4_a_slice_is_for_one_node_for_some_or_for_all() {
    let place = |place: Value| {
        let mut slice = slice("p", 1, 1, &["a-0"]);
        slice["spec"].as_object_mut().expect("a map").remove("nodeName");
        slice["spec"].as_object_mut().expect("a map").extend(place.as_object().expect("a map").clone());
        Scene::new(vec![slice]).ask(&[one("gpu", json!({}))])
    };
    let labels = |zone: &str| Labels::from([("zone".to_owned(), zone.to_owned())]);
    let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
    let selected = json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}});
    let rows = [
        (
            json!({"nodeName": "n1"}),
            [true, true],
            json!({"nodeSelectorTerms": [{"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}),
        ),
        (json!({"nodeName": "n2"}), [false, false], Value::Null),
        (json!({"allNodes": true}), [true, true], Value::Null),
        (selected.clone(), [true, false], selected["nodeSelector"].clone()),
        (json!({"perDeviceNodeSelection": true}), [false, false], Value::Null),
        // Only what was written before such were refused.
        (
            json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [zone]}, {}]}}),
            [false, false],
            Value::Null,
        ),
    ];
    for (written, expected, selector) in rows {
        let ask = place(written.clone());
        let found = ["b", "a"].map(|zone| {
            let ask = place(written.clone());
            ask.fits("n1", &labels(zone)).is_ok()
        });
        assert_eq!([found[1], found[0]], expected, "{written}");
        if expected[0] {
            ask.fits("n1", &labels("a")).expect("it did a moment ago");
            assert_eq!(ask.allocations("n1")[0].result["nodeSelector"], selector, "{written}");
        }
    }
}

#[test]
fn what_drivers_are_told_comes_from_the_class_and_then_from_the_claim() {
    let mut scene = Scene::new(vec![slice("p", 1, 1, &["a-0", "a-1"])]);
    let opaque = |mode: &str| json!({"opaque": {"driver": "gpu.example.com", "parameters": {"mode": mode}}});
    scene.classes[0]["spec"]["config"] = json!([opaque("class")]);
    let mut for_x = opaque("x");
    for_x["requests"] = json!(["x"]);
    let way = |name: &str| json!({"name": name, "deviceClassName": "gpu", "count": 1});
    let ways = json!({"name": "y", "firstAvailable": [way("a"), way("b")]});
    let mut for_y = opaque("y");
    for_y["requests"] = json!(["y/a", "y/b"]);
    let claim = json!({"requests": [request("x", json!({})), ways], "config": [for_x, for_y, opaque("all")]});
    let ask = scene.ask(&[claim]);
    ask.fits("n1", &Labels::new()).expect("there are two");
    let allocation = ask.allocations("n1").remove(0);
    let shown: Vec<(Value, Value, Value)> = allocation.result["devices"]["config"]
        .as_array()
        .expect("configurations")
        .iter()
        .map(|one| (one["source"].clone(), one["requests"].clone(), one["opaque"]["parameters"]["mode"].clone()))
        .collect();
    let expected = [
        (json!("FromClass"), Value::Null, json!("class")),
        (json!("FromClaim"), json!(["x"]), json!("x")),
        (json!("FromClaim"), json!(["y/a", "y/b"]), json!("y")),
        (json!("FromClaim"), Value::Null, json!("all")),
    ];
    assert_eq!(shown, expected);
    assert_eq!((allocation.revision, allocation.uid.as_str()), (7, "u0"));
    assert_eq!(allocation.devices.len(), 2);
}
