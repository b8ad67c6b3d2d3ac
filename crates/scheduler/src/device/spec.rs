//! What a claim asks for, and what a class is, read once an object.
//!
//! Source: API reference, DeviceClaim, DeviceClassSpec.

use serde_json::Value;
use windlass_api::Object;
use windlass_api::device::Selector;

/// What a ResourceClaim asks for.
pub(super) struct Spec {
    pub(super) requests: Vec<Request>,
    pub(super) constraints: Vec<Test>,
    /// What drivers are told, as it is written.
    pub(super) config: Vec<Value>,
}

/// A request, and the ways to meet it, the best first.
pub(super) struct Request {
    pub(super) name: String,
    pub(super) ways: Vec<Way>,
}

/// One way to meet a request.
pub(super) struct Way {
    /// The request's name, and with a slash the way's where there are several.
    pub(super) full_name: String,
    pub(super) class: String,
    pub(super) selectors: Vec<Compiled>,
    /// How many; `None` is all.
    pub(super) count: Option<usize>,
    pub(super) is_admin: bool,
    pub(super) tolerations: Vec<Value>,
    /// The constraints that are about what it gets, by their places in the claim.
    pub(super) constraints: Vec<usize>,
}

/// A selector, or why it is none.
pub(super) type Compiled = Result<Selector, String>;

/// What must hold between the devices of some requests.
pub(super) enum Test {
    /// They all say the same under this name.
    Match(String),
    /// Each says something else under it.
    Distinct(String),
}

/// A DeviceClass.
pub(super) struct Class {
    pub(super) name: String,
    pub(super) selectors: Vec<Compiled>,
    pub(super) config: Vec<Value>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn selectors(owner: &Value) -> Vec<Compiled> {
    let compile = |selector: &Value| {
        Selector::compile(selector["cel"]["expression"].as_str().unwrap_or_default()).map_err(|error| error.to_string())
    };
    items(&owner["selectors"]).iter().map(compile).collect()
}

impl Spec {
    pub(super) fn read(claim: &Object) -> Spec {
        let value = claim.value();
        let devices = &value["spec"]["devices"];
        let constraints = items(&devices["constraints"]);
        let test = |wire: &Value| match wire["matchAttribute"].as_str() {
            Some(name) => Test::Match(name.to_owned()),
            None => Test::Distinct(text(&wire["distinctAttribute"])),
        };
        let mut requests: Vec<Request> = items(&devices["requests"]).iter().map(Request::read).collect();
        for request in &mut requests {
            for way in &mut request.ways {
                // About all where none is named.
                let is_about = |constraint: &Value| {
                    let named = items(&constraint["requests"]);
                    named.is_empty() || named.iter().any(|named| *named == *request.name || *named == *way.full_name)
                };
                way.constraints = (0..constraints.len()).filter(|at| is_about(&constraints[*at])).collect();
            }
        }
        Spec {
            requests,
            constraints: constraints.iter().map(test).collect(),
            config: items(&devices["config"]).to_vec(),
        }
    }

    /// The classes that it names, each with who does.
    pub(super) fn classes(&self) -> impl Iterator<Item = (&str, &str)> {
        let ways = self.requests.iter().flat_map(|request| &request.ways);
        ways.map(|way| (way.full_name.as_str(), way.class.as_str()))
    }
}

impl Request {
    fn read(wire: &Value) -> Request {
        let name = text(&wire["name"]);
        let several = items(&wire["firstAvailable"]).iter();
        let several = several.map(|way| Way::read(way, format!("{name}/{}", text(&way["name"]))));
        let one = wire["exactly"].is_object().then(|| Way::read(&wire["exactly"], name.clone()));
        Request { ways: one.into_iter().chain(several).collect(), name }
    }
}

impl Way {
    fn read(wire: &Value, full_name: String) -> Way {
        let count = || wire["count"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
        Way {
            full_name,
            class: text(&wire["deviceClassName"]),
            selectors: selectors(wire),
            count: (wire["allocationMode"] != "All").then(count),
            is_admin: wire["adminAccess"] == true,
            tolerations: items(&wire["tolerations"]).to_vec(),
            constraints: Vec::new(),
        }
    }
}

impl Class {
    pub(super) fn read(object: &Object) -> Class {
        let value = object.value();
        Class {
            name: object.header.name().to_owned(),
            selectors: selectors(&value["spec"]),
            config: items(&value["spec"]["config"]).to_vec(),
        }
    }
}
