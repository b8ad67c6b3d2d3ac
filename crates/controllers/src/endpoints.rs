//! Endpoints: the addresses behind each Service that has a selector, in the one object that older clients read.
//!
//! Goal        the Endpoints named like a Service hold what its EndpointSlices do, in the Service's first family
//! Watches     Service; Pod (selected); Endpoints
//! Writes      Endpoints: create, subsets and labels, delete; the owner of those that a user wrote for a Service
//! Relies on   endpoint_slice for whose a Service's endpoints are, and which they are
//!
//! Rules, in order
//!   R1 whose       those of a Service without selector, or of type ExternalName, are somebody else's; they belong to the
//!                  Service, so that they go with it
//!   R2 state       ready addresses, and beside them those that are not; ending pods only where the Service publishes all
//!   R3 subsets     addresses with the same ports are one subset; a Service without pods has none
//!   R4 bounded     at most ADDRESSES_MAX, the ready ones first; what was cut off is said in an annotation
//!   R5 gone        what this controller made goes with its Service
//! Not here       mirroring of what users write (endpoint_slice_mirroring) · deleting what an owner leaves (garbage)

use std::sync::Arc;

use serde_json::{Map, Value, json};
use windlass_api::kinds;
use windlass_client::{Cache, Cached, Caches, Key};

use crate::claim::{owner_json, owner_reference, owners_patch};
use crate::controller::{Controller, Look, Wake};
use crate::endpoint_slice::{self, EndpointSlices, desired, families, wakes_of_pods};
use crate::plan::{Plan, Target};

/// Addresses in one object, as Kubernetes has it: a change of one sends all of them to every reader.
const ADDRESSES_MAX: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// The controller of Endpoints.
pub(crate) struct EndpointsObjects {
    services: Cache,
    endpoints: Cache,
    slices: EndpointSlices,
}

/// What a decision about one Service depends on.
pub(crate) struct View {
    /// The Service with its pods; `None` when it is gone or its endpoints are somebody else's.
    service: Option<endpoint_slice::View>,
    /// The Service, whosever its endpoints are.
    named: Option<Arc<Cached>>,
    endpoints: Option<Arc<Cached>>,
}

impl EndpointsObjects {
    pub(crate) fn new(caches: &Caches) -> EndpointsObjects {
        EndpointsObjects {
            services: caches.of(&kinds::SERVICE),
            endpoints: caches.of(&kinds::ENDPOINTS),
            slices: EndpointSlices::new(caches),
        }
    }
}

impl Controller for EndpointsObjects {
    type View = View;
    const NAME: &'static str = "endpoints";

    fn wakes(&self) -> Vec<Wake> {
        vec![Wake::itself(&kinds::SERVICE), Wake::itself(&kinds::ENDPOINTS), wakes_of_pods(self.services.clone())]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<View> {
        let named = self.services.get_key(key.as_str()).filter(|service| !service.header.is_ending());
        let service = self.slices.pods_of(key).filter(|service| !service.header.is_ending());
        Some(View { service, named, endpoints: self.endpoints.get_key(key.as_str()) })
    }

    fn plan(view: &View) -> Plan {
        let mut plan = Plan::nothing();
        let found = view.endpoints.as_ref().filter(|found| !found.header.is_ending());
        match (&view.service, found) {
            (Some(service), None) if view.endpoints.is_none() => {
                let (namespace, name) = (service.header.namespace(), service.header.name());
                let why = format!("service {name} has no endpoints yet");
                plan.create(&kinds::ENDPOINTS, namespace, wanted(service), why);
            }
            (Some(service), Some(found)) => keep(service, found, &mut plan),
            (None, Some(found)) => match &view.named {
                Some(service) => belong(service, found, &mut plan),
                None if is_ours(found) => {
                    plan.delete(Target::of(&kinds::ENDPOINTS, &found.header), "its service is gone");
                }
                None => {}
            },
            _ => {}
        }
        plan
    }
}

/// R1: what a user wrote for a Service gets it as an owner. The API's own Service keeps its Endpoints itself.
fn belong(service: &Cached, found: &Cached, plan: &mut Plan) {
    let (header, owner) = (&found.header, &service.header);
    let is_of_the_api = (owner.namespace(), owner.name()) == ("default", "kubernetes");
    if is_of_the_api || header.owners().iter().any(|known| known.uid == owner.uid()) {
        return;
    }
    // A Service of the name that is gone owns nothing any more.
    let others = header.owners().iter().filter(|known| known.kind != "Service" || known.name != owner.name());
    let owners = others.map(owner_json).chain([owner_reference(&kinds::SERVICE, owner)]).collect();
    let why = format!("they are those of service {}", owner.name());
    plan.patch(Target::of(&kinds::ENDPOINTS, header), owners_patch(header, owners), why);
}

fn is_ours(endpoints: &Cached) -> bool {
    endpoints.header.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

fn keep(service: &endpoint_slice::View, found: &Cached, plan: &mut Plan) {
    let (mut wanted, before) = (wanted(service), found.value());
    let is_empty = |subsets: &Value| subsets.as_array().is_none_or(Vec::is_empty);
    let same_subsets =
        wanted["subsets"] == before["subsets"] || is_empty(&wanted["subsets"]) && is_empty(&before["subsets"]);
    let over = [&wanted, &before].map(|object| object["metadata"]["annotations"][OVER_CAPACITY].clone());
    if same_subsets && wanted["metadata"]["labels"] == before["metadata"]["labels"] && over[0] == over[1] {
        return;
    }
    // What the Service does not have any more goes.
    for gone in before["metadata"]["labels"].as_object().into_iter().flatten().map(|(name, _)| name) {
        if wanted["metadata"]["labels"].get(gone).is_none() {
            wanted["metadata"]["labels"][gone.as_str()] = Value::Null;
        }
    }
    let why = format!("the pods of service {} are as they are now", service.header.name());
    let patch = json!({
        "metadata": {"resourceVersion": found.header.revision.to_string(), "labels": wanted["metadata"]["labels"],
            "annotations": {OVER_CAPACITY: over[0]}},
        "subsets": wanted["subsets"],
    });
    plan.patch(Target::of(&kinds::ENDPOINTS, &found.header), patch, why);
}

/// The object as it should be.
fn wanted(service: &endpoint_slice::View) -> Value {
    let mut labels: Map<String, Value> =
        service.header.labels().iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    if service.service.is_headless() {
        labels.insert(HEADLESS.to_owned(), json!(""));
    }
    let (subsets, is_cut) = subsets(service);
    let mut object = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": service.header.name(), "namespace": service.header.namespace(), "labels": labels},
        "subsets": subsets,
    });
    if is_cut {
        object["metadata"]["annotations"] = json!({OVER_CAPACITY: "truncated"});
    }
    object
}

/// R2 to R4.
fn subsets(service: &endpoint_slice::View) -> (Vec<Value>, bool) {
    let family = families(service)[0];
    let publishes_all = service.service.publishes_all();
    let mut subsets = Vec::new();
    for (group, endpoints) in desired(service).into_iter().filter(|(group, _)| group.family == family) {
        let is_member = |endpoint: &Value| publishes_all || endpoint["conditions"]["terminating"] != true;
        let (ready, other): (Vec<Value>, Vec<Value>) =
            endpoints.into_values().filter(is_member).partition(|endpoint| endpoint["conditions"]["ready"] == true);
        if !ready.is_empty() || !other.is_empty() {
            subsets.push((group.ports(), ready, other));
        }
    }
    let mut room = ADDRESSES_MAX;
    let mut is_cut = false;
    let mut cut = |addresses: &mut Vec<Value>| {
        is_cut |= addresses.len() > room;
        addresses.truncate(room);
        room -= addresses.len();
    };
    subsets.iter_mut().for_each(|(_, ready, _)| cut(ready));
    subsets.iter_mut().for_each(|(.., other)| cut(other));
    subsets.retain(|(_, ready, other)| !ready.is_empty() || !other.is_empty());
    (subsets.into_iter().map(|(ports, ready, other)| subset(ports, ready, other)).collect(), is_cut)
}

fn subset(ports: Value, ready: Vec<Value>, other: Vec<Value>) -> Value {
    let mut subset = json!({});
    for (field, endpoints) in [("addresses", ready), ("notReadyAddresses", other)] {
        if !endpoints.is_empty() {
            subset[field] = endpoints.iter().map(address).collect();
        }
    }
    let ports: Vec<Value> = ports.as_array().into_iter().flatten().map(named_port).collect();
    if !ports.is_empty() {
        subset["ports"] = json!(ports);
    }
    subset
}

fn address(endpoint: &Value) -> Value {
    let mut address = json!({"ip": endpoint["addresses"][0], "targetRef": endpoint["targetRef"]});
    for field in ["hostname", "nodeName"] {
        if let Some(value) = endpoint.get(field) {
            address[field] = value.clone();
        }
    }
    address
}

/// A port of a slice; here an unnamed one has no name.
fn named_port(port: &Value) -> Value {
    let mut port = port.clone();
    if port["name"] == ""
        && let Some(fields) = port.as_object_mut()
    {
        fields.remove("name");
    }
    port
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};
    use windlass_client::Patch;

    use super::{ADDRESSES_MAX, EndpointsObjects, View};
    use crate::controller::Controller;
    use crate::endpoint_slice::{self, facts};
    use crate::fixture::{change, check, object};
    use crate::plan::{Action, Plan};

    fn service(changes: Value) -> Value {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "a", "uid": "s", "labels": {"team": "x"}},
            "spec": {"type": "ClusterIP", "clusterIP": "10.43.0.9", "selector": {"app": "web"},
                "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]},
        });
        change(&mut service, changes);
        service
    }

    fn pod(name: &str, address: &str, changes: Value) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut pod, changes);
        pod
    }

    fn plan(service: Option<&Value>, pods: &[Value], endpoints: Option<&Value>) -> Plan {
        let view = service
            .map(object)
            .filter(|service| facts(service).selector().is_some())
            .map(|service| endpoint_slice::View::of(&service, pods.iter().map(object).collect(), BTreeMap::new()));
        EndpointsObjects::plan(&View { service: view, named: service.map(object), endpoints: endpoints.map(object) })
    }

    /// What a plan creates, as the API would then hold it.
    fn created(plan: &Plan) -> Value {
        let Action::Create { object, .. } = &plan.items[0].action else { panic!("expected a creation") };
        let mut object = object.clone();
        object["metadata"]["uid"] = json!("e");
        object["metadata"]["resourceVersion"] = json!("7");
        object
    }

    #[test]
    fn r1_endpoints_of_a_service_without_selector_only_get_their_owner() {
        let mut own = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "a"}});
        check(&plan(None, &[], Some(&own)), "");
        let without = service(json!({"/spec/selector": null}));
        let belongs = plan(Some(&without), &[], Some(&own));
        check(&belongs, "patch endpoints a/web: they are those of service web");
        let Action::Patch { patch: Patch::Merge(patch), .. } = &belongs.items[0].action else {
            panic!("a merge patch")
        };
        own["metadata"]["ownerReferences"] = patch["metadata"]["ownerReferences"].clone();
        check(&plan(Some(&without), &[], Some(&own)), "");
        own["metadata"]["ownerReferences"][0]["uid"] = json!("an earlier one");
        let again = plan(Some(&without), &[], Some(&own));
        let Action::Patch { patch: Patch::Merge(patch), .. } = &again.items[0].action else { panic!("a merge patch") };
        assert_eq!(patch["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
        let api =
            service(json!({"/spec/selector": null, "/metadata/namespace": "default", "/metadata/name": "kubernetes"}));
        let of_api = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kubernetes", "namespace": "default"}});
        check(&plan(Some(&api), &[], Some(&of_api)), "");
    }

    #[test]
    fn r2_ready_and_unready_addresses_stand_apart() {
        let pods = [
            pod("p1", "10.42.0.2", json!({})),
            pod("p2", "10.42.0.3", json!({"/status/conditions": []})),
            pod("p3", "10.42.0.4", json!({"/metadata/deletionTimestamp": "2026-01-01T12:00:00Z"})),
        ];
        let subsets = created(&plan(Some(&service(json!({}))), &pods, None))["subsets"].clone();
        assert_eq!(
            subsets,
            json!([{
                "addresses": [{"ip": "10.42.0.2", "nodeName": "n1",
                    "targetRef": {"kind": "Pod", "namespace": "a", "name": "p1", "uid": "p1"}}],
                "notReadyAddresses": [{"ip": "10.42.0.3", "nodeName": "n1",
                    "targetRef": {"kind": "Pod", "namespace": "a", "name": "p2", "uid": "p2"}}],
                "ports": [{"port": 8080, "protocol": "TCP"}],
            }])
        );
        let all = created(&plan(Some(&service(json!({"/spec/publishNotReadyAddresses": true}))), &pods, None));
        assert_eq!(all["subsets"][0]["addresses"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn r3_what_is_right_is_not_written_and_a_change_is_one_patch() {
        let service = service(json!({}));
        let empty = created(&plan(Some(&service), &[], None));
        assert_eq!(empty["subsets"], json!([]));
        assert_eq!(empty["metadata"]["labels"]["team"], "x");
        check(&plan(Some(&service), &[], Some(&empty)), "");
        let with_pod = plan(Some(&service), &[pod("p1", "10.42.0.2", json!({}))], Some(&empty));
        check(&with_pod, "patch endpoints a/web: the pods of service web are as they are now");
        let Action::Patch { patch: Patch::Merge(patch), .. } = &with_pod.items[0].action else {
            panic!("a merge patch")
        };
        assert_eq!(patch["metadata"]["resourceVersion"], "7", "only onto what was seen");
    }

    #[test]
    fn r4_too_many_addresses_are_cut_off_and_it_is_said() {
        let address = |n: usize| format!("10.42.{}.{}", n / 250, n % 250 + 1);
        let mut pods: Vec<Value> = (0..ADDRESSES_MAX).map(|n| pod(&format!("p{n}"), &address(n), json!({}))).collect();
        pods.push(pod("late", "10.43.9.9", json!({"/status/conditions": []})));
        let object = created(&plan(Some(&service(json!({}))), &pods, None));
        assert_eq!(object["subsets"][0]["addresses"].as_array().map(Vec::len), Some(ADDRESSES_MAX));
        assert!(object["subsets"][0].get("notReadyAddresses").is_none());
        assert_eq!(object["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"], "truncated");
    }

    #[test]
    fn r5_what_was_made_here_goes_with_its_service() {
        let made = created(&plan(Some(&service(json!({}))), &[], None));
        check(&plan(None, &[], Some(&made)), "delete endpoints a/web: its service is gone");
    }
}
