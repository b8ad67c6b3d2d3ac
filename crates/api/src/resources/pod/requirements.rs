//! Requirements: how much of the machine a container is promised (requests) and may take (limits), and the quality of
//! service that follows.
//!
//! Rules
//!   Q1 names      standard resources, or extended ones with a domain of their own
//!   Q2 amounts    quantities, not negative; extended resources and huge pages whole
//!   Q3 order      a request is at most its limit; equal where the resource cannot be promised twice
//!   Q4 class      Guaranteed if cpu and memory are limited everywhere to what is requested, BestEffort if nothing is said of
//!                 them, else Burstable
//!   Q5 sum        what a pod as a whole requests is enough for its containers, and none of them may take more than it
//! Source: API reference, core/v1 ResourceRequirements; KEP-2837; "Configure Quality of Service for Pods".

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::check::NOT_NEGATIVE;
use super::super::tree::{Tree, map_mut};
use crate::field::{Errors, Path};
use crate::name;
use crate::quantity::Quantity;

/// What the quality of service looks at, and what a pod as a whole may be given.
const COMPUTE: [&str; 2] = ["cpu", "memory"];
/// What names of huge pages begin with; their size follows.
const HUGE_PAGES: &str = "hugepages-";

/// A limit is also the request where none is given.
pub(super) fn fill_requests_from_limits(resources: &mut Value) {
    let limits = resources.entries("limits").clone();
    if limits.is_empty() {
        return;
    }
    let Some(requests) = map_mut(resources, "requests") else { return };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

/// A pod with limits as a whole requests what its containers do together, or else its limits.
pub(super) fn fill_pod_requests(spec: &mut Value) {
    let limits = spec["resources"].entries("limits").clone();
    if limits.is_empty() {
        return;
    }
    let of_containers = of_containers(spec, "requests");
    let Some(requests) = spec.get_mut("resources").and_then(|resources| map_mut(resources, "requests")) else { return };
    for name in COMPUTE {
        if let (false, Some(amount)) = (requests.contains_key(name), of_containers.get(name)) {
            requests.insert(name.to_owned(), Value::from(amount.to_string()));
        }
    }
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

/// Quantities by name, such as requests; what is none is left out.
pub fn amounts(map: &Value) -> BTreeMap<String, Quantity> {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::from_json(value).ok()?))).collect()
}

/// What a pod requests, or is limited to: what it says as a whole, else what its containers do.
pub fn together(spec: &Value, field: &str) -> BTreeMap<String, Quantity> {
    let mut all = of_containers(spec, field);
    all.extend(amounts(&spec["resources"][field]));
    all
}

/// What the containers of a pod request, or are limited to, while it starts and while it runs, whichever is more.
/// Sidecars run beside everything that starts after them.
fn of_containers(spec: &Value, field: &str) -> BTreeMap<String, Quantity> {
    let amounts = |container: &Value| amounts(&container["resources"][field]);
    let add = |sum: &mut BTreeMap<String, Quantity>, more: BTreeMap<String, Quantity>| {
        for (name, amount) in more {
            let slot = sum.entry(name).or_insert(Quantity::ZERO);
            *slot = *slot + amount;
        }
    };
    let (mut running, mut sidecars, mut starting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for container in spec.items("containers") {
        add(&mut running, amounts(container));
    }
    for container in spec.items("initContainers") {
        let mut now = amounts(container);
        if container.text("restartPolicy") == "Always" {
            add(&mut running, now.clone());
            add(&mut sidecars, now);
            now = sidecars.clone();
        } else {
            add(&mut now, sidecars.clone());
        }
        for (name, amount) in now {
            let slot = starting.entry(name).or_insert(Quantity::ZERO);
            *slot = (*slot).max(amount);
        }
    }
    for (name, amount) in starting {
        let slot = running.entry(name).or_insert(Quantity::ZERO);
        *slot = (*slot).max(amount);
    }
    running
}

/// Q4: the quality of service of a pod.
pub fn quality(spec: &Value) -> &'static str {
    if spec["resources"].entries("requests").len() + spec["resources"].entries("limits").len() > 0 {
        return quality_of(&[&spec["resources"]]);
    }
    let containers = spec.items("containers").iter().chain(spec.items("initContainers"));
    let resources: Vec<&Value> = containers.map(|container| &container["resources"]).collect();
    quality_of(&resources)
}

fn quality_of(all: &[&Value]) -> &'static str {
    let mut guaranteed = !all.is_empty();
    let mut sums: BTreeMap<(&str, &str), Quantity> = BTreeMap::new();
    for resources in all {
        for field in ["requests", "limits"] {
            for name in COMPUTE {
                // A limit is the request where none is given, whether or not that has been filled in yet.
                let given = resources.entries(field).get(name).or_else(|| resources.entries("limits").get(name));
                let amount = given.and_then(|value| Quantity::from_json(value).ok());
                match amount.filter(|amount| !amount.is_zero() && !amount.is_negative()) {
                    Some(amount) => {
                        let slot = sums.entry((field, name)).or_insert(Quantity::ZERO);
                        *slot = *slot + amount;
                    }
                    None if field == "limits" => guaranteed = false,
                    None => {}
                }
            }
        }
    }
    let equal = || COMPUTE.iter().all(|name| sums.get(&("requests", name)) == sums.get(&("limits", name)));
    match (sums.is_empty(), guaranteed && equal()) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

/// Whose requirements they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Container,
    Pod,
}

/// Q1 to Q3 for a container.
pub(super) fn validate(resources: &Value, path: &Path, errors: &mut Errors) {
    validate_of(Whose::Container, resources, path, errors);
}

/// What running a pod costs on top of its containers.
pub(super) fn validate_overhead(overhead: &Map<String, Value>, path: &Path, errors: &mut Errors) {
    validate_amounts(overhead, &path.child("limits"), errors);
}

/// Q1 to Q3 for a pod as a whole, and Q5.
pub(super) fn validate_pod(spec: &Value, at: &Path, errors: &mut Errors) {
    let (resources, path) = (&spec["resources"], at.child("resources"));
    if !resources.is_object() {
        return;
    }
    if spec["os"].text("name") == "windows" {
        errors.forbidden(&path, "may not be set for a windows pod");
        return;
    }
    if resources.is_set("claims") {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    validate_of(Whose::Pod, resources, &path, errors);
    validate_sums(spec, &path, errors);
}

/// Q5.
fn validate_sums(spec: &Value, path: &Path, errors: &mut Errors) {
    let (requests, limits) = (amounts(&spec["resources"]["requests"]), amounts(&spec["resources"]["limits"]));
    for (name, sum) in of_containers(spec, "requests") {
        if let Some(all) = requests.get(&name).filter(|all| sum > **all) {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&path.child("requests").key(&name), all.to_string(), &detail);
        }
    }
    for (name, sum) in of_containers(spec, "limits").into_iter().filter(|(name, _)| is_huge_pages(name)) {
        if let Some(all) = limits.get(&name).filter(|all| sum > **all) {
            let detail = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.invalid(&path.child("limits").key(&name), all.to_string(), &detail);
        }
    }
    for (index, container) in spec.items("containers").iter().enumerate() {
        for (name, limit) in amounts(&container["resources"]["limits"]) {
            if let Some(all) = limits.get(&name).filter(|all| limit > **all) {
                let path = path.child("containers").index(index).key(&name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {all}");
                errors.invalid(&path, limit.to_string(), &detail);
            }
        }
    }
}

fn validate_of(whose: Whose, resources: &Value, path: &Path, errors: &mut Errors) {
    let (limits, requests) = (resources.entries("limits"), resources.entries("requests"));
    for (name, amount) in limits {
        validate_amount(whose, name, amount, &path.child("limits").key(name), errors);
    }
    for (name, request) in requests {
        let at = path.child("requests").key(name);
        validate_name_of(whose, name, &at, errors);
        validate_quantity(name, request, &at, errors);
        validate_order(name, request, limits, path, errors);
        validate_pages(name, request, &at, errors);
    }
    let has_compute = COMPUTE.iter().any(|name| limits.contains_key(*name) || requests.contains_key(*name));
    let mut names = limits.keys().chain(requests.keys());
    if names.any(|name| is_huge_pages(name)) && !has_compute {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Q1 and Q2.
pub(in super::super) fn validate_amounts(amounts: &Map<String, Value>, path: &Path, errors: &mut Errors) {
    for (name, amount) in amounts {
        validate_amount(Whose::Container, name, amount, &path.key(name), errors);
    }
}

fn validate_amount(whose: Whose, name: &str, amount: &Value, path: &Path, errors: &mut Errors) {
    validate_name_of(whose, name, path, errors);
    validate_quantity(name, amount, path, errors);
    validate_pages(name, amount, path, errors);
}

/// Q1: any resource that something may be counted in.
pub(in super::super) fn validate_name(name: &str, path: &Path, errors: &mut Errors) {
    let before = errors.len();
    for reason in name::label_key(name) {
        errors.invalid(path, name, &reason);
    }
    if errors.len() == before && !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
}

/// Q1: a resource of containers.
pub(in super::super) fn validate_container_name(name: &str, path: &Path, errors: &mut Errors) {
    validate_name_of(Whose::Container, name, path, errors);
}

fn validate_name_of(whose: Whose, name: &str, path: &Path, errors: &mut Errors) {
    let before = errors.len();
    validate_name(name, path, errors);
    let is_plain = !name.contains('/');
    match whose {
        Whose::Pod if errors.len() == before => {
            if !COMPUTE.contains(&name) && !is_huge_pages(name) {
                errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
            }
        }
        Whose::Pod => {}
        Whose::Container if is_plain => {
            if !is_of_containers(name) {
                errors.invalid(path, name, "must be a standard resource for containers");
            }
        }
        Whose::Container if !is_native(name) && !is_extended(name) => {
            errors.invalid(path, name, "doesn't follow extended resource name standard");
        }
        Whose::Container => {}
    }
}

/// Q2.
pub(in super::super) fn validate_quantity(name: &str, amount: &Value, path: &Path, errors: &mut Errors) {
    match Quantity::from_json(amount) {
        Err(error) => errors.invalid(path, amount.clone(), &error.to_string()),
        Ok(quantity) => {
            if quantity.is_negative() {
                errors.invalid(path, quantity.to_string(), NOT_NEGATIVE);
            }
            if (is_extended(name) || is_counted(name)) && !is_whole(quantity) {
                errors.invalid(path, quantity.to_string(), "must be an integer");
            }
        }
    }
}

/// Q2: huge pages come whole.
fn validate_pages(name: &str, amount: &Value, path: &Path, errors: &mut Errors) {
    let (Some(size), Ok(amount)) = (name.strip_prefix(HUGE_PAGES), Quantity::from_json(amount)) else { return };
    let size = size.parse::<Quantity>().ok().filter(|size| is_whole(*size)).map_or(0, |size| size.units());
    if size <= 0 || amount.units() % size != 0 {
        let amount = amount.to_string();
        errors.invalid(path, amount.as_str(), &format!("{amount} is not positive integer multiple of {name}"));
    }
}

/// Q3.
fn validate_order(name: &str, request: &Value, limits: &Map<String, Value>, path: &Path, errors: &mut Errors) {
    let Ok(request) = Quantity::from_json(request) else { return };
    let divisible = is_native(name) && !is_huge_pages(name);
    let Some(limit) = limits.get(name) else {
        if !divisible {
            errors.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let Ok(limit) = Quantity::from_json(limit) else { return };
    let path = path.child("requests");
    if !divisible && request != limit {
        errors.invalid(&path, request.to_string(), &format!("must be equal to {name} limit of {limit}"));
    } else if request > limit {
        errors.invalid(&path, request.to_string(), &format!("must be less than or equal to {name} limit of {limit}"));
    }
}

/// What Kubernetes counts somewhere: on machines, in containers or in quotas.
fn is_standard(name: &str) -> bool {
    const STANDARD: [&str; 20] = [
        "configmaps",
        "cpu",
        "ephemeral-storage",
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "memory",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
        "requests.storage",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
        "storage",
    ];
    STANDARD.contains(&name) || is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

/// What Kubernetes counts in whole objects.
fn is_counted(name: &str) -> bool {
    matches!(
        name,
        "configmaps"
            | "persistentvolumeclaims"
            | "pods"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "services"
            | "services.loadbalancers"
            | "services.nodeports"
    )
}

fn is_of_containers(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Resources that Kubernetes itself defines.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && name::label_key(&format!("requests.{name}")).is_empty()
}

fn is_whole(quantity: Quantity) -> bool {
    Quantity::from_units(quantity.units(), quantity.notation()) == quantity
}

#[cfg(test)]
mod tests {
    use super::{fill_pod_requests, quality, validate, validate_pod};
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn check(resources: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate(&resources, &Path::new("resources"), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{resources}");
    }

    #[test]
    fn q1_to_q3() {
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}), &[]);
        check(json!({"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": 1}}), &[]);
        check(
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}),
            &["resources.requests: Invalid value: \"1500m\": must be less than or equal to cpu limit of 1"],
        );
        check(
            json!({"requests": {"cpu": "-1", "disk": "1"}}),
            &[
                "resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "resources.requests[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
                "resources.requests[disk]: Invalid value: \"disk\": must be a standard resource for containers",
            ],
        );
        check(
            json!({"requests": {"example.com/gpu": "1"}}),
            &["resources.limits: Required value: Limit must be set for non overcommitable resources"],
        );
        check(
            json!({"limits": {"example.com/gpu": "500m"}}),
            &["resources.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer"],
        );
        check(json!({"limits": {"hugepages-2Mi": "2Mi"}}), &["resources: Forbidden: HugePages require cpu or memory"]);
        check(
            json!({"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}, "requests": {"hugepages-2Mi": "3Mi"}}),
            &[
                "resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                "resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
            ],
        );
        check(
            json!({"limits": {"pods": "1"}}),
            &["resources.limits[pods]: Invalid value: \"pods\": must be a standard resource for containers"],
        );
        let mut errors = Errors::new();
        validate(&json!({"limits": {"cpu": "lots"}}), &Path::new("resources"), &mut errors);
        assert_eq!(errors.iter().next().map(|error| error.path.as_str()), Some("resources.limits[cpu]"));
    }

    #[test]
    fn q4_the_class_follows_from_all_containers() {
        let full = json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}});
        let part = json!({"resources": {"requests": {"cpu": "1"}}});
        let none = json!({"resources": {}});
        for (containers, class) in [
            (json!([full]), "Guaranteed"),
            (json!([full, full]), "Guaranteed"),
            (json!([{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]), "Guaranteed"),
            (json!([full, none]), "Burstable"),
            (json!([part]), "Burstable"),
            (json!([none, none]), "BestEffort"),
            (json!([{"resources": {"limits": {"cpu": "0"}}}]), "BestEffort"),
        ] {
            assert_eq!(quality(&json!({"containers": containers})), class, "{containers}");
        }
        let whole = json!({"containers": [none], "resources": {"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1", "memory": "1"}}});
        assert_eq!(quality(&whole), "Guaranteed");
    }

    #[test]
    fn q5_a_pod_as_a_whole_has_enough_for_its_containers() {
        let check = |spec: Value, expected: &[&str]| {
            let mut errors = Errors::new();
            validate_pod(&spec, &Path::new("spec"), &mut errors);
            crate::resources::fixture::compare(&errors, expected);
        };
        let containers = json!([{"resources": {"requests": {"cpu": "2"}, "limits": {"memory": "2Gi"}}}]);
        check(
            json!({"containers": containers, "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "2Gi"}}}),
            &[],
        );
        check(
            json!({"containers": containers, "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}}),
            &[
                "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
                "spec.resources.containers[0][memory].limits: Invalid value: \"2Gi\": must be less than or equal to pod limits of 1Gi",
            ],
        );
        check(
            json!({"resources": {"requests": {"ephemeral-storage": "1"}, "claims": []}}),
            &[
                "spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level",
                "spec.resources.requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
            ],
        );
        check(
            json!({"os": {"name": "windows"}, "resources": {}}),
            &["spec.resources: Forbidden: may not be set for a windows pod"],
        );
    }

    #[test]
    fn a_pod_as_a_whole_requests_what_its_containers_do() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut spec = json!({"containers": [container("1"), container("500m")], "initContainers": [container("2")],
            "resources": {"limits": {"cpu": "4", "memory": "1Gi"}}});
        fill_pod_requests(&mut spec);
        assert_eq!(spec["resources"]["requests"], json!({"cpu": "2", "memory": "1Gi"}));
    }
}
