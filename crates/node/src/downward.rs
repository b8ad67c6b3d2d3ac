//! What a pod may know about itself: fieldRef and resourceFieldRef.
//!
//! Source: Kubernetes documentation, "Downward API": the fields listed there and no others.

use std::net::IpAddr;

use windlass_api::quantity::{Notation, Quantity};
use windlass_api::types::core;

/// A pod with what only this node knows of it.
#[derive(Clone, Copy, Debug)]
pub struct PodView<'a> {
    /// The pod.
    pub pod: &'a core::Pod,
    /// Its addresses.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// What the node could give to one container that has no limits.
    pub allocatable: Allocatable,
}

/// What a node has to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// In thousandths of a CPU.
    pub cpu_millis: i64,
    /// In bytes.
    pub memory_bytes: i64,
    /// In bytes.
    pub disk_bytes: i64,
    /// In pages of 2 MiB, in bytes.
    pub huge_2mi_bytes: i64,
    /// In pages of 1 GiB, in bytes.
    pub huge_1gi_bytes: i64,
}

/// Why a field or resource has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownwardError {
    /// The path is not one of those that exist.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// The resource is not one of those that exist.
    #[error("unsupported container resource: {0}")]
    Resource(String),
    /// There is no container of this name.
    #[error("container {0} not found")]
    Container(String),
    /// The divisor is not a positive quantity.
    #[error("expected a positive divisor, found {0:?}")]
    Divisor(String),
}

/// The value of a fieldRef's path.
pub fn field(view: &PodView, path: &str) -> Result<String, DownwardError> {
    let metadata = &view.pod.metadata;
    let spec = view.pod.spec.as_ref();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let joined = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.map(|spec| text(&spec.node_name)).unwrap_or_default(),
        "spec.serviceAccountName" => spec.map(|spec| text(&spec.service_account_name)).unwrap_or_default(),
        "status.podIP" => first(view.pod_ips),
        "status.podIPs" => joined(view.pod_ips),
        "status.hostIP" => first(view.host_ips),
        "status.hostIPs" => joined(view.host_ips),
        _ => {
            let entry = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
            let (map, key) = match (entry("metadata.labels['"), entry("metadata.annotations['")) {
                (Some(key), _) => (metadata.labels.as_ref(), key),
                (None, Some(key)) => (metadata.annotations.as_ref(), key),
                (None, None) => return Err(DownwardError::Field(path.to_owned())),
            };
            map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
        }
    })
}

/// `key="value"` lines, sorted by key, values quoted and escaped.
fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of a resourceFieldRef; `own` is the container that asks, unless the selector names another.
pub fn resource(view: &PodView, own: &str, selector: &core::ResourceFieldSelector) -> Result<String, DownwardError> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(own);
    let spec = view.pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.iter()).into_iter().flatten();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let container = containers.chain(init).find(|container| container.name == name);
    let container = container.ok_or_else(|| DownwardError::Container(name.to_owned()))?;
    let unknown = || DownwardError::Resource(selector.resource.clone());
    let (side, noun) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.as_ref();
    let asked = match side {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(unknown()),
    };
    let asked = asked.and_then(|map| map.get(noun)).and_then(|quantity| quantity.0.parse::<Quantity>().ok());
    // Without a limit a container may use what the node has; without a request it has asked for nothing.
    let otherwise = |most: Quantity| if side == "limits" { most } else { Quantity::ZERO };
    let allocatable = view.allocatable;
    let bytes = |bytes: i64| otherwise(Quantity::from_units(bytes, Notation::Binary));
    let amount = match noun {
        "cpu" => asked.unwrap_or_else(|| otherwise(Quantity::from_millis(allocatable.cpu_millis))),
        "memory" => asked.unwrap_or_else(|| bytes(allocatable.memory_bytes)),
        "ephemeral-storage" => asked.unwrap_or_else(|| bytes(allocatable.disk_bytes)),
        _ if noun.starts_with("hugepages-") => asked.unwrap_or(Quantity::ZERO),
        _ => return Err(unknown()),
    };
    divided(amount, noun == "cpu", selector.divisor.as_ref().map_or("0", |divisor| divisor.0.as_str()))
}

/// The amount in units of the divisor, rounded up; a divisor of 0 means 1.
fn divided(amount: Quantity, is_cpu: bool, divisor: &str) -> Result<String, DownwardError> {
    let wrong = || DownwardError::Divisor(divisor.to_owned());
    let divisor: Quantity = divisor.parse().map_err(|_| wrong())?;
    if divisor.is_negative() {
        return Err(wrong());
    }
    let divisor = if divisor.is_zero() { Quantity::from_units(1, Notation::Decimal) } else { divisor };
    let (amount, divisor) =
        if is_cpu { (amount.millis(), divisor.millis()) } else { (amount.units(), divisor.units()) };
    let divisor = divisor.max(1);
    Ok((amount / divisor + i64::from(amount % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::{Allocatable, PodView, field, resource};
    use serde_json::json;
    use windlass_api::types::core;

    fn pod() -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {
                "limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]},
        }))
        .expect("a pod")
    }

    fn check(path: &str) -> Result<String, String> {
        let (pod, ips) = (pod(), ["10.0.0.1".parse().expect("an address")]);
        let view = PodView { pod: &pod, pod_ips: &ips, host_ips: &ips, allocatable: Allocatable::default() };
        field(&view, path).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_those_of_the_documentation() {
        assert_eq!(check("metadata.name").as_deref(), Ok("p"));
        assert_eq!(check("metadata.labels").as_deref(), Ok("a=\"x\\\"y\"\nb=\"2\""));
        assert_eq!(check("metadata.labels['b']").as_deref(), Ok("2"));
        assert_eq!(check("metadata.annotations['none']").as_deref(), Ok(""));
        assert_eq!(check("status.podIPs").as_deref(), Ok("10.0.0.1"));
        assert_eq!(check("spec.containers"), Err("unsupported fieldPath: spec.containers".to_owned()));
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let pod = pod();
        let allocatable = Allocatable { cpu_millis: 2000, memory_bytes: 1 << 30, ..Allocatable::default() };
        let view = PodView { pod: &pod, pod_ips: &[], host_ips: &[], allocatable };
        let check = |resource_name: &str, divisor: &str| {
            let selector = json!({"resource": resource_name, "divisor": divisor});
            let selector: core::ResourceFieldSelector = serde_json::from_value(selector).expect("a selector");
            resource(&view, "c", &selector).map_err(|error| error.to_string())
        };
        assert_eq!(check("limits.memory", "0").as_deref(), Ok("67108864"));
        assert_eq!(check("limits.memory", "1Mi").as_deref(), Ok("64"));
        assert_eq!(check("requests.cpu", "0").as_deref(), Ok("1"));
        assert_eq!(check("requests.cpu", "1m").as_deref(), Ok("250"));
        assert_eq!(check("limits.cpu", "1").as_deref(), Ok("2"));
        assert_eq!(check("requests.memory", "1").as_deref(), Ok("0"));
        assert!(check("limits.widgets", "1").is_err());
        assert!(check("limits.memory", "-1").is_err());
    }
}
