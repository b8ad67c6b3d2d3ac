//! Mirroring: Endpoints that users write become EndpointSlices, which is what is read.
//!
//! Goal        a Service without selector has slices that hold what the Endpoints of its name hold
//! Watches     Endpoints; Service (same name); EndpointSlice (ours)
//! Writes      EndpointSlice: create, all of it, delete
//! Relies on   label `endpointslice.kubernetes.io/managed-by` to tell our slices from others'
//!
//! Rules, in order
//!   R1 whose       only Endpoints with a Service of their name that has no selector, and without the label skip-mirror
//!   R2 groups      one slice for each subset and address family
//!   R3 marked      a slice has the Endpoints' labels and annotations, and says whose it is; they own it
//!   R4 few writes  a slice that is right already is left alone
//!   R5 bounded     at most ENDPOINTS_MAX of a subset
//!   R6 gone        slices without a subset, or without Endpoints to mirror, go
//! Not here       Endpoints of Services with a selector (endpoints)

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use windlass_api::{Header, kinds};
use windlass_client::{Cache, Cached, Caches, Key};

use crate::claim::controller_reference;
use crate::controller::{Controller, Look, Wake};
use crate::endpoint_slice::{MANAGED_BY, SERVICE_NAME, facts, family_of};
use crate::plan::{Plan, Target};

/// Addresses of one subset that are mirrored: as many as a slice may hold.
const ENDPOINTS_MAX: usize = 1000;
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Leaders once kept their leases in Endpoints; those are nobody's addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const NOT_MIRRORED: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

/// The controller that mirrors.
pub(crate) struct EndpointSliceMirrors {
    services: Cache,
    endpoints: Cache,
    slices: Cache,
}

/// What a decision about one name depends on.
pub(crate) struct View {
    /// The Endpoints, if they are to be mirrored (R1).
    endpoints: Option<Arc<Cached>>,
    slices: Vec<Arc<Cached>>,
}

/// R1.
fn is_mirrored(endpoints: &Cached, service: Option<&Cached>) -> bool {
    !endpoints.header.is_ending()
        && endpoints.header.labels().get(SKIP).is_none_or(|skip| skip != "true")
        && service.is_some_and(|service| !service.header.is_ending() && facts(service).has_no_selector())
        && endpoints.value()["metadata"]["annotations"][LEADER].is_null()
}

impl EndpointSliceMirrors {
    pub(crate) fn new(caches: &Caches) -> EndpointSliceMirrors {
        EndpointSliceMirrors {
            services: caches.of(&kinds::SERVICE),
            endpoints: caches.of(&kinds::ENDPOINTS),
            slices: caches.of(&kinds::ENDPOINT_SLICE),
        }
    }
}

fn is_ours(slice: &Cached) -> bool {
    slice.header.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

impl Controller for EndpointSliceMirrors {
    type View = View;
    const NAME: &'static str = "endpointslicemirroring";

    fn wakes(&self) -> Vec<Wake> {
        let of_service = Wake::new(&kinds::ENDPOINT_SLICE, |change, wake| {
            for slice in [&change.old, &change.new].into_iter().flatten().filter(|slice| is_ours(slice)) {
                if let Some(service) = slice.header.labels().get(SERVICE_NAME) {
                    wake(Key::new(slice.header.namespace(), service));
                }
            }
        });
        vec![Wake::itself(&kinds::ENDPOINTS), Wake::itself(&kinds::SERVICE), of_service]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let service = self.services.get_key(key.as_str());
        let endpoints = self.endpoints.get_key(key.as_str());
        let endpoints = endpoints.filter(|endpoints| is_mirrored(endpoints, service.as_deref()));
        let label = BTreeMap::from([(SERVICE_NAME.to_owned(), key.name().to_owned())]);
        let mut slices = self.slices.with_labels(key.namespace(), &label);
        slices.retain(|slice| is_ours(slice) && !slice.header.is_ending());
        Some(View { endpoints, slices })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::nothing();
        let mut left: Vec<(Value, &Cached)> = view.slices.iter().map(|slice| (slice.value(), &**slice)).collect();
        let wanted = view.endpoints.as_ref().map(|endpoints| wanted(endpoints)).unwrap_or_default();
        for slice in wanted {
            let key = |slice: &Value| (slice["addressType"].clone(), ports(&slice["ports"]));
            let found = left.iter().position(|(found, _)| key(found) == key(&slice));
            match found.map(|at| left.swap_remove(at)) {
                Some((before, exists)) => keep(&slice, &before, exists, &mut plan),
                None => {
                    let namespace = slice["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
                    plan.create(&kinds::ENDPOINT_SLICE, &namespace, slice, "its endpoints have no slice yet");
                }
            }
        }
        for (_, slice) in left {
            plan.delete(
                Target::of(&kinds::ENDPOINT_SLICE, &slice.header),
                "there are no endpoints like these to mirror",
            );
        }
        plan
    }
}

/// Ports as they are compared: an unnamed one has the empty name.
fn ports(ports: &Value) -> Vec<Value> {
    let ports = ports.as_array().into_iter().flatten();
    let mut all: Vec<Value> = ports
        .map(|port| {
            let mut port = port.clone();
            if port["name"].is_null() {
                port["name"] = json!("");
            }
            port
        })
        .collect();
    all.sort_by_key(Value::to_string);
    all
}

/// R4.
fn keep(wanted: &Value, before: &Value, exists: &Cached, plan: &mut Plan) {
    let differs = |pointer: &str| wanted.pointer(pointer) != before.pointer(pointer);
    if !["/endpoints", "/metadata/labels", "/metadata/annotations"].into_iter().any(differs) {
        return;
    }
    let replaced = |field: &str| {
        let mut map = wanted["metadata"][field].clone();
        for gone in before["metadata"][field].as_object().into_iter().flatten().map(|(name, _)| name) {
            if map.get(gone).is_none() {
                map[gone.as_str()] = Value::Null;
            }
        }
        map
    };
    let patch = json!({
        "metadata": {"resourceVersion": exists.header.revision.to_string(), "labels": replaced("labels"),
            "annotations": replaced("annotations")},
        "endpoints": wanted["endpoints"],
    });
    plan.patch(Target::of(&kinds::ENDPOINT_SLICE, &exists.header), patch, "its endpoints are as they are now");
}

/// R2, R3 and R5: the slices that there should be.
fn wanted(endpoints: &Cached) -> Vec<Value> {
    let tree = endpoints.value();
    let mut slices: Vec<Value> = Vec::new();
    for subset in tree["subsets"].as_array().into_iter().flatten() {
        for family in ["IPv4", "IPv6"] {
            let of = |list: &str, ready: bool| -> Vec<Value> {
                let addresses = subset[list].as_array().into_iter().flatten();
                let fitting = addresses.filter(|address| address["ip"].as_str().and_then(family_of) == Some(family));
                fitting.map(|address| endpoint(address, ready)).collect()
            };
            let mut all = of("addresses", true);
            all.extend(of("notReadyAddresses", false));
            all.truncate(ENDPOINTS_MAX);
            if !all.is_empty() {
                slices.push(slice(&endpoints.header, &tree, family, &ports(&subset["ports"]), all));
            }
        }
    }
    slices
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if let Some(value) = address.get(field) {
            endpoint[field] = value.clone();
        }
    }
    endpoint
}

fn slice(owner: &Header, tree: &Value, family: &str, ports: &[Value], endpoints: Vec<Value>) -> Value {
    let mut labels: Map<String, Value> =
        owner.labels().iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    labels.insert(SERVICE_NAME.to_owned(), json!(owner.name()));
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    let mut metadata = json!({
        "generateName": format!("{}-", owner.name()), "namespace": owner.namespace(), "labels": labels,
        "ownerReferences": [controller_reference(&kinds::ENDPOINTS, owner)],
    });
    let annotations = tree["metadata"]["annotations"].as_object().into_iter().flatten();
    let annotations: Map<String, Value> = annotations
        .filter(|(name, _)| !NOT_MIRRORED.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Controller, ENDPOINTS_MAX, EndpointSliceMirrors, View, is_mirrored};
    use crate::fixture::{change, check, object};
    use crate::plan::{Action, Plan};

    fn endpoints(changes: Value) -> Value {
        let mut endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "db", "namespace": "a", "uid": "e", "labels": {"team": "x"}, "annotations": {"note": "y"}},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
                "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}],
        });
        change(&mut endpoints, changes);
        endpoints
    }

    fn plan(endpoints: Option<&Value>, slices: &[Value]) -> Plan {
        EndpointSliceMirrors::plan(&View {
            endpoints: endpoints.map(object),
            slices: slices.iter().map(object).collect(),
        })
    }

    fn created(plan: &Plan) -> Vec<Value> {
        let created = plan.items.iter().filter_map(|item| match &item.action {
            Action::Create { object, .. } => Some(object.clone()),
            _ => None,
        });
        created
            .enumerate()
            .map(|(at, mut slice)| {
                slice["metadata"]["name"] = json!(format!("db-{at}"));
                slice["metadata"]["uid"] = json!(format!("slice-{at}"));
                slice["metadata"]["resourceVersion"] = json!("7");
                slice
            })
            .collect()
    }

    #[test]
    fn r1_only_endpoints_of_a_service_without_selector_are_mirrored() {
        let service = |spec: Value| {
            object(
                &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": "a"}, "spec": spec}),
            )
        };
        let plain = object(&endpoints(json!({})));
        assert!(is_mirrored(&plain, Some(&service(json!({})))));
        assert!(!is_mirrored(&plain, None));
        assert!(!is_mirrored(&plain, Some(&service(json!({"selector": {"app": "db"}})))));
        let skipped = endpoints(json!({"/metadata/labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}));
        let leader = endpoints(json!({"/metadata/annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}));
        for other in [skipped, leader] {
            assert!(!is_mirrored(&object(&other), Some(&service(json!({})))));
        }
    }

    #[test]
    fn r2_each_subset_and_family_is_a_slice() {
        let two = endpoints(json!({"/subsets/0/addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]}));
        let slices = created(&plan(Some(&two), &[]));
        let families: Vec<&Value> = slices.iter().map(|slice| &slice["addressType"]).collect();
        assert_eq!(families, ["IPv4", "IPv6"]);
        assert_eq!(slices[0]["endpoints"][1], json!({"addresses": ["192.0.2.2"], "conditions": {"ready": false}}));
    }

    #[test]
    fn r3_a_slice_says_whose_it_is() {
        let slice = &created(&plan(Some(&endpoints(json!({}))), &[]))[0];
        assert_eq!(
            slice["metadata"]["labels"],
            json!({"team": "x", "kubernetes.io/service-name": "db",
                "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"})
        );
        assert_eq!(slice["metadata"]["annotations"], json!({"note": "y"}));
        assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
    }

    #[test]
    fn r4_what_is_right_is_not_written() {
        let slices = created(&plan(Some(&endpoints(json!({}))), &[]));
        check(&plan(Some(&endpoints(json!({}))), &slices), "");
        let moved = endpoints(json!({"/subsets/0/addresses": [{"ip": "192.0.2.9"}]}));
        check(&plan(Some(&moved), &slices), "patch endpointslices a/db-0: its endpoints are as they are now");
    }

    #[test]
    fn r5_a_slice_holds_what_it_may() {
        let many: Vec<Value> = (0..1200).map(|n| json!({"ip": format!("192.0.{}.{}", n / 250, n % 250)})).collect();
        let slices = created(&plan(Some(&endpoints(json!({"/subsets/0/addresses": many}))), &[]));
        assert_eq!(slices[0]["endpoints"].as_array().map(Vec::len), Some(ENDPOINTS_MAX));
    }

    #[test]
    fn r6_slices_without_endpoints_go() {
        let slices = created(&plan(Some(&endpoints(json!({}))), &[]));
        check(&plan(None, &slices), "delete endpointslices a/db-0: there are no endpoints like these to mirror");
        let other = endpoints(json!({"/subsets/0/ports/0/port": 1}));
        check(
            &plan(Some(&other), &slices),
            "create endpointslices a/db-: its endpoints have no slice yet
             delete endpointslices a/db-0: there are no endpoints like these to mirror",
        );
    }
}
