//! Devices that pods claim: which claims a pod has, what a claim has been given, what a device is like.
//!
//! Rules
//!   D1 whose      a pod's claim is one that it names, or one that was made for it and is named in its status
//!   D2 domains    attributes and capacities without a domain are the driver's own; a domain that a device says nothing of
//!                 is empty
//!   D3 verdict    a selector is a bool; one that may cost more than [`SELECTOR_COST_MAX`] is none (`selector`)
//!   D4 plain      a device that is shared, is a part of another or has to be bound first is none that we can give away
//! Source: API reference, resource.k8s.io/v1; KEP-4381.

mod selector;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::Object;
use crate::binding::Reach;
use crate::cel::Semver;
pub use selector::{SELECTOR_COST_MAX, Selector, SelectorError};

/// What keeps a claim while it has devices.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// The annotation of a claim that was made for a pod: what the pod calls it.
pub const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// Users of one claim at a time.
pub const USERS_MAX: usize = 256;
/// Devices of one claim.
pub const RESULTS_MAX: usize = 32;

/// A claim as a pod knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodClaim {
    /// What the pod calls it.
    pub name: String,
    /// The template that it is made from; `None` for one that the pod names.
    pub template: Option<String>,
    /// Which ResourceClaim that is.
    pub claim: ClaimName,
}

/// Which ResourceClaim a pod's claim is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimName {
    /// The one of this name.
    Is(String),
    /// It is not made yet.
    NotYet,
    /// None is needed.
    NoNeed,
}

/// D1: the claims of a pod.
pub fn pod_claims(pod: &Object) -> Vec<PodClaim> {
    // Most pods have none: they are not read for that.
    if !std::str::from_utf8(&pod.json).is_ok_and(|json| json.contains("\"resourceClaims\"")) {
        return Vec::new();
    }
    claims_of(&pod.value())
}

/// The same, of a pod as a tree.
pub fn claims_of(pod: &Value) -> Vec<PodClaim> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let statuses = list(&pod["status"]["resourceClaimStatuses"]);
    let read = |claim: Value| {
        let name = text(&claim["name"]);
        let template = claim["resourceClaimTemplateName"].as_str().map(str::to_owned);
        let found = statuses.iter().find(|status| status["name"] == *name);
        let claim = match (claim["resourceClaimName"].as_str(), found) {
            (Some(named), _) => ClaimName::Is(named.to_owned()),
            (None, None) => ClaimName::NotYet,
            (None, Some(status)) => match status["resourceClaimName"].as_str() {
                Some(made) => ClaimName::Is(made.to_owned()),
                None => ClaimName::NoNeed,
            },
        };
        PodClaim { name, template, claim }
    };
    list(&pod["spec"]["resourceClaims"]).into_iter().map(read).collect()
}

/// A device, by whom it is offered and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId {
    /// Its driver.
    pub driver: String,
    /// Its pool.
    pub pool: String,
    /// Its name in the pool.
    pub device: String,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// Who uses a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// It is a pod; nobody else is known.
    pub is_pod: bool,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What is known of a ResourceClaim beside what it asks for.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// Its uid.
    pub uid: String,
    /// Its revision.
    pub revision: u64,
    /// It is going.
    pub is_ending: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// The pod that it was made for: name and uid.
    pub owner: Option<(String, String)>,
    /// What that pod calls it.
    pub pod_claim: String,
    /// It has its devices.
    pub is_allocated: bool,
    /// Where they can be used; `None` is everywhere.
    pub reach: Option<Reach>,
    /// The devices that it has for itself.
    pub devices: Vec<DeviceId>,
    /// The drivers of all of them.
    pub drivers: BTreeSet<String>,
    /// Who uses it.
    pub users: Vec<User>,
}

impl Claim {
    /// Reads a ResourceClaim.
    pub fn read(object: &Object) -> Claim {
        let (value, header) = (object.value(), &object.header);
        let (status, allocation) = (&value["status"], &value["status"]["allocation"]);
        let results = || allocation["devices"]["results"].as_array().into_iter().flatten();
        let owner = header.controller().filter(|owner| owner.kind == "Pod" && owner.api_version == "v1");
        let own = results().filter(|result| result["adminAccess"] != true).map(|result| DeviceId {
            driver: text(&result["driver"]),
            pool: text(&result["pool"]),
            device: text(&result["device"]),
        });
        let users = status["reservedFor"].as_array().into_iter().flatten().map(|user| User {
            is_pod: user["resource"] == "pods" && text(&user["apiGroup"]).is_empty(),
            name: text(&user["name"]),
            uid: text(&user["uid"]),
        });
        Claim {
            uid: header.uid().to_owned(),
            revision: header.revision,
            is_ending: header.is_ending(),
            finalizers: header.finalizers().map(str::to_owned).collect(),
            owner: owner.map(|owner| (owner.name.clone(), owner.uid.clone())),
            pod_claim: text(&value["metadata"]["annotations"][POD_CLAIM]),
            is_allocated: allocation.is_object(),
            reach: Reach::read(&allocation["nodeSelector"]),
            devices: own.collect(),
            drivers: results().map(|result| text(&result["driver"])).collect(),
            users: users.collect(),
        }
    }

    /// Whether this pod uses it.
    pub fn is_used_by(&self, pod_uid: &str) -> bool {
        self.users.iter().any(|user| user.uid == pod_uid)
    }
}

/// A device as its driver offers it.
#[derive(Debug)]
pub struct Device {
    /// Its name in its pool.
    pub name: String,
    /// What keeps claims away that do not tolerate it.
    pub taints: Vec<Taint>,
    /// D4.
    pub is_plain: bool,
    /// By full name.
    attributes: BTreeMap<String, Attribute>,
    /// What selectors see.
    seen: crate::cel::Value<'static>,
}

/// What is said of a device under one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// A number.
    Int(i64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// A version.
    Version(String),
}

/// What keeps claims away from a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    key: String,
    value: String,
    effect: String,
}

impl Device {
    /// Reads a device of a ResourceSlice.
    pub fn read(driver: &str, wire: &Value) -> Device {
        let taints = wire["taints"].as_array().into_iter().flatten();
        let has_items = |field: &str| wire[field].as_array().is_some_and(|list| !list.is_empty());
        let attributes = wire["attributes"].as_object().into_iter().flatten();
        Device {
            name: text(&wire["name"]),
            taints: taints.map(Taint::read).collect(),
            is_plain: wire["allowMultipleAllocations"] != true
                && !has_items("consumesCounters")
                && !has_items("bindingConditions"),
            attributes: attributes
                .filter_map(|(name, wire)| {
                    let (domain, name) = selector::qualified(name, driver);
                    Some((format!("{domain}/{name}"), Attribute::read(wire)?))
                })
                .collect(),
            seen: selector::seen(driver, wire),
        }
    }

    /// What is said of it under a name with a domain.
    pub fn attribute(&self, full_name: &str) -> Option<&Attribute> {
        self.attributes.get(full_name)
    }
}

impl Attribute {
    /// Lists are none: they are not compared yet. Nor is a version that is none.
    fn read(wire: &Value) -> Option<Attribute> {
        if let Some(number) = wire["int"].as_i64() {
            return Some(Attribute::Int(number));
        }
        if let Some(flag) = wire["bool"].as_bool() {
            return Some(Attribute::Bool(flag));
        }
        if let Some(text) = wire["string"].as_str() {
            return Some(Attribute::Text(text.to_owned()));
        }
        let version = wire["version"].as_str().filter(|version| Semver::parse(version).is_some())?;
        Some(Attribute::Version(version.to_owned()))
    }
}

impl Taint {
    fn read(wire: &Value) -> Taint {
        Taint { key: text(&wire["key"]), value: text(&wire["value"]), effect: text(&wire["effect"]) }
    }

    /// Whether it keeps a request away that has these tolerations.
    pub fn keeps_away(&self, tolerations: &[Value]) -> bool {
        let is_meant = |toleration: &Value| {
            let (key, effect) = (text(&toleration["key"]), text(&toleration["effect"]));
            let is_effect = effect.is_empty() || effect == self.effect;
            match toleration["operator"].as_str().unwrap_or("Equal") {
                "Exists" => is_effect && (key.is_empty() || key == self.key),
                "Equal" => is_effect && key == self.key && text(&toleration["value"]) == self.value,
                _ => false,
            }
        };
        matches!(self.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerations.iter().any(is_meant)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Attribute, Claim, ClaimName, Device, claims_of};
    use crate::Object;
    use serde_json::json;

    #[test]
    fn d1_a_pods_claim_is_named_made_or_not_needed() {
        let pod = json!({"spec": {"resourceClaims": [{"name": "a", "resourceClaimName": "own"},
                {"name": "b", "resourceClaimTemplateName": "t"}, {"name": "c", "resourceClaimTemplateName": "t"},
                {"name": "d", "resourceClaimTemplateName": "t"}]},
            "status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "p-b-1"}, {"name": "d"}]}});
        let found = claims_of(&pod);
        let claims: Vec<&ClaimName> = found.iter().map(|claim| &claim.claim).collect();
        let is = |name: &str| ClaimName::Is(name.to_owned());
        assert_eq!(claims, [&is("own"), &is("p-b-1"), &ClaimName::NotYet, &ClaimName::NoNeed]);
        assert_eq!(found[1].template.as_deref(), Some("t"));
    }

    #[test]
    fn a_claim_has_for_itself_what_is_no_access_of_an_admin() {
        let result = |device: &str, admin: bool| json!({"request": "r", "driver": "d", "pool": "p", "device": device, "adminAccess": admin});
        let claim = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": "7",
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true}]},
            "status": {"allocation": {"devices": {"results": [result("x", false), result("y", true)]}},
                "reservedFor": [{"resource": "pods", "name": "p", "uid": "1"}]}});
        let claim = Claim::read(&Object::parse(claim.to_string().into_bytes().into()).expect("an object"));
        assert_eq!(claim.devices.iter().map(ToString::to_string).collect::<Vec<_>>(), ["d/p/x"]);
        assert!(claim.is_allocated && claim.is_used_by("1") && !claim.is_used_by("2"));
        assert_eq!(claim.owner, Some(("p".to_owned(), "1".to_owned())));
    }

    #[test]
    fn d2_and_d4_what_a_driver_says_of_its_device() {
        let device = Device::read(
            "d.e",
            &json!({"name": "x", "attributes": {"model": {"string": "a"}, "f.g/n": {"int": 2},
            "l": {"ints": [1]}, "v": {"version": "1.2.3"}, "odd": {"version": "v1"}}}),
        );
        assert!(device.is_plain);
        assert_eq!(device.attribute("d.e/model"), Some(&Attribute::Text("a".to_owned())));
        assert_eq!((device.attribute("f.g/n"), device.attribute("d.e/l")), (Some(&Attribute::Int(2)), None));
        assert_eq!(device.attribute("d.e/v"), Some(&Attribute::Version("1.2.3".to_owned())));
        assert_eq!(device.attribute("d.e/odd"), None, "a version that is none");
        for odd in [
            json!({"allowMultipleAllocations": true}),
            json!({"consumesCounters": [{}]}),
            json!({"bindingConditions": ["ready"]}),
        ] {
            assert!(!Device::read("d.e", &odd).is_plain, "{odd}");
        }
    }

    #[test]
    fn a_taint_keeps_away_who_does_not_tolerate_it() {
        let device =
            |effect: &str| Device::read("d", &json!({"taints": [{"key": "sick", "value": "very", "effect": effect}]}));
        let keeps = |effect: &str, toleration| device(effect).taints[0].keeps_away(&[toleration]);
        assert!(keeps("NoSchedule", json!({"key": "other", "operator": "Exists"})));
        assert!(keeps("NoExecute", json!({"key": "sick", "value": "a little"})));
        assert!(keeps("NoExecute", json!({"operator": "Exists", "effect": "NoSchedule"})));
        assert!(!keeps("NoExecute", json!({"key": "sick", "value": "very"})));
        assert!(!keeps("NoSchedule", json!({"operator": "Exists"})));
        assert!(!keeps("None", json!({})));
    }
}
