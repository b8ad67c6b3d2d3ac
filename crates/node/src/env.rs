//! The environment of a container: what its spec, ConfigMaps, Secrets and the services of its namespace say.
//!
//! Source: API reference, Container.env and envFrom; Kubernetes documentation, "Discovering services".
//!
//! Rules, a later one wins
//!   R1 image      what the image says
//!   R2 services   `NAME_SERVICE_HOST` and its like, unless enableServiceLinks is false
//!   R3 envFrom    in order
//!   R4 env        in order; `$(NAME)` sees what came before it

use std::collections::BTreeMap;

use windlass_api::types::core;

use crate::downward::{self, DownwardError, PodView};
use crate::env_file::{self, EnvFiles};
use crate::expansion::expand;
use crate::source::SourceView;

/// The longest single variable: the kernel takes 128 KiB for one string (execve(2), MAX_ARG_STRLEN).
const VARIABLE_BYTES_MAX: usize = (128 << 10) - 1;
/// All variables together: a quarter of the usual 8 MiB stack is the kernel's limit, arguments included.
const ENV_BYTES_MAX: usize = 1536 << 10;

/// Why a container cannot be made as its spec says; `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A ConfigMap or Secret does not exist.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It exists but lacks the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field or resource of the pod has no value.
    #[error(transparent)]
    Downward(#[from] DownwardError),
    /// The variables do not fit what the kernel takes.
    #[error("{0}")]
    TooLarge(String),
    /// The spec asks for what this node cannot do.
    #[error("{0}")]
    Refused(String),
}

/// What the environment is made from.
pub struct EnvView<'a> {
    /// The pod.
    pub pod: PodView<'a>,
    /// The ConfigMaps and Secrets it names.
    pub sources: &'a SourceView,
    /// The variables of the services it sees.
    pub services: &'a [(String, String)],
    /// The files in its volumes that variables are read from.
    pub files: &'a EnvFiles,
}

/// The variables that the spec gives a container; without those of its image.
pub fn of_container(view: &EnvView, container: &core::Container) -> Result<Vec<(String, String)>, ConfigError> {
    let services: BTreeMap<&str, &str> = view.services.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut variables = Variables::default();
    for (name, value) in view.services {
        variables.set(name, value.clone());
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (key, value) in all_of(view.sources, from)? {
            variables.set(&format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(from) if variable.value.as_deref().is_none_or(str::is_empty) => {
                value_from(view, &container.name, from)?
            }
            _ => {
                let lookup = |name: &str| {
                    let set = variables.get(name);
                    set.or_else(|| services.get(name).copied()).map(str::to_owned)
                };
                Some(expand(variable.value.as_deref().unwrap_or_default(), lookup))
            }
        };
        if let Some(value) = value {
            variables.set(&variable.name, value);
        }
    }
    check_size(&variables.list)?;
    Ok(variables.list)
}

/// The image's variables with those of the spec over them.
pub fn over_image(image: &[String], spec: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut variables = Variables::default();
    for entry in image {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        if !name.is_empty() {
            variables.set(name, value.to_owned());
        }
    }
    for (name, value) in spec {
        variables.set(&name, value);
    }
    variables.list
}

/// Variables in the order in which they were first set.
#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    place: BTreeMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        match self.place.get(name) {
            Some(place) => self.list[*place].1 = value,
            None => {
                self.place.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.place.get(name).map(|place| self.list[*place].1.as_str())
    }
}

fn all_of(sources: &SourceView, from: &core::EnvFromSource) -> Result<Vec<(String, String)>, ConfigError> {
    if let Some(reference) = &from.config_map_ref {
        return match sources.config_maps.get(&reference.name) {
            Some(map) => Ok(map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()),
            None if reference.optional == Some(true) => Ok(Vec::new()),
            None => Err(not_found("configmap", &reference.name)),
        };
    }
    let Some(reference) = &from.secret_ref else { return Ok(Vec::new()) };
    match sources.secrets.get(&reference.name) {
        Some(secret) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(secret.data.iter().flatten().map(|(key, value)| (key.clone(), text(&value.0))).collect())
        }
        None if reference.optional == Some(true) => Ok(Vec::new()),
        None => Err(not_found("secret", &reference.name)),
    }
}

/// `None` when an optional source is not there.
fn value_from(view: &EnvView, own: &str, from: &core::EnvVarSource) -> Result<Option<String>, ConfigError> {
    if let Some(selector) = &from.field_ref {
        return Ok(Some(downward::field(&view.pod, &selector.field_path)?));
    }
    if let Some(selector) = &from.resource_field_ref {
        return Ok(Some(downward::resource(&view.pod, own, selector)?));
    }
    let namespace = view.pod.pod.metadata.namespace.clone().unwrap_or_default();
    let missing = |kind, name: &str, key: &str| ConfigError::Key {
        kind,
        namespace: namespace.clone(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    if let Some(selector) = &from.config_map_key_ref {
        let map = view.sources.config_maps.get(&selector.name);
        let value = map.and_then(|map| map.data.as_ref()?.get(&selector.key).cloned());
        return match (map, value) {
            (_, Some(value)) => Ok(Some(value)),
            _ if selector.optional == Some(true) => Ok(None),
            (None, None) => Err(not_found("configmap", &selector.name)),
            (Some(_), None) => Err(missing("ConfigMap", &selector.name, &selector.key)),
        };
    }
    if let Some(selector) = &from.file_key_ref {
        return env_file::value(view.files, selector);
    }
    let Some(selector) = &from.secret_key_ref else {
        return Err(ConfigError::Refused("valueFrom names no source this node knows".to_owned()));
    };
    let secret = view.sources.secrets.get(&selector.name);
    let value = secret.and_then(|secret| secret.data.as_ref()?.get(&selector.key));
    match (secret, value) {
        (_, Some(value)) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
        _ if selector.optional == Some(true) => Ok(None),
        (None, None) => Err(not_found("secret", &selector.name)),
        (Some(_), None) => Err(missing("Secret", &selector.name, &selector.key)),
    }
}

fn not_found(kind: &'static str, name: &str) -> ConfigError {
    ConfigError::NotFound { kind, name: name.to_owned() }
}

fn check_size(list: &[(String, String)]) -> Result<(), ConfigError> {
    let long = list.iter().find(|(name, value)| name.len() + value.len() + 2 > VARIABLE_BYTES_MAX);
    if let Some((name, value)) = long {
        let found = name.len() + value.len() + 1;
        return Err(ConfigError::TooLarge(format!(
            "variable {name} has {found} bytes; the kernel takes at most {VARIABLE_BYTES_MAX}: use a volume"
        )));
    }
    let all: usize = list.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if all > ENV_BYTES_MAX {
        return Err(ConfigError::TooLarge(format!(
            "the environment has {all} bytes; at most {ENV_BYTES_MAX} fit: use a volume"
        )));
    }
    Ok(())
}

/// The variables a pod of `namespace` has for these services: those of its own namespace and `default/kubernetes`.
/// Without `links` only the latter.
pub fn of_services<'a>(
    services: impl Iterator<Item = &'a core::Service>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut seen = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        let is_api = of == "default" && name == "kubernetes";
        let has_address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
        let has_address = has_address.is_some_and(|ip| !ip.is_empty() && ip != "None");
        if has_address && (is_api || (links && of == namespace)) {
            // A service of the pod's own namespace hides the API's of the same name.
            if of == namespace || !seen.contains_key(name) {
                seen.insert(name, service);
            }
        }
    }
    seen.values().flat_map(|service| of_service(service)).collect()
}

fn of_service(service: &core::Service) -> Vec<(String, String)> {
    let spec = service.spec.as_ref().expect("only services with an address come here");
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let mut out = vec![(format!("{name}_SERVICE_HOST"), ip.to_owned())];
    let ports = spec.ports.as_deref().unwrap_or_default();
    if let Some(first) = ports.first() {
        out.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
    }
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            out.push((format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let (upper, lower) = (protocol.to_uppercase(), protocol.to_lowercase());
        let url = format!("{lower}://{ip}:{}", port.port);
        if index == 0 {
            out.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{upper}", port.port);
        out.push((prefix.clone(), url));
        out.push((format!("{prefix}_PROTO"), lower));
        out.push((format!("{prefix}_PORT"), port.port.to_string()));
        out.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    out
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::EnvFiles;
    use super::{EnvView, of_container, of_services, over_image};
    use crate::downward::{Allocatable, PodView};
    use crate::source::SourceView;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use windlass_api::types::core;

    fn check(container: Value) -> Result<Vec<String>, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [container]}});
        let pod: core::Pod = serde_json::from_value(pod).expect("a pod");
        let map = json!({"metadata": {"name": "m"}, "data": {"k": "v", "l": "w"}});
        let secret = json!({"metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}});
        let mut sources = SourceView::default();
        sources.config_maps.insert("m".to_owned(), Arc::new(serde_json::from_value(map).expect("a map")));
        sources.secrets.insert("s".to_owned(), Arc::new(serde_json::from_value(secret).expect("a secret")));
        let services = [("WEB_SERVICE_HOST".to_owned(), "10.43.0.7".to_owned())];
        let view = PodView { pod: &pod, pod_ips: &[], host_ips: &[], allocatable: Allocatable::default() };
        let view = EnvView { pod: view, sources: &sources, services: &services, files: &EnvFiles::new() };
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let list = of_container(&view, container).map_err(|error| error.to_string())?;
        Ok(list.into_iter().skip(1).map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn variables_come_from_everywhere_and_see_those_before_them() {
        let container = json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "M_"}, {"secretRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(M_k)-$(WEB_SERVICE_HOST)-$(C)"},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
            {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "E", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "none", "optional": true}}},
            {"name": "M_l", "value": "over"},
        ]});
        let expected = ["M_k=v", "M_l=over", "A=1", "B=1-v-10.43.0.7-$(C)", "C=hunter2", "D=p"];
        assert_eq!(check(container).expect("all there"), expected);
    }

    #[test]
    fn what_is_missing_is_named_as_kubectl_users_know_it() {
        let with = |from: Value| check(json!({"name": "c", "env": [{"name": "X", "valueFrom": from}]}));
        let rows = [
            (json!({"configMapKeyRef": {"name": "none", "key": "k"}}), "configmap \"none\" not found"),
            (json!({"secretKeyRef": {"name": "none", "key": "k"}}), "secret \"none\" not found"),
            (json!({"configMapKeyRef": {"name": "m", "key": "none"}}), "couldn't find key none in ConfigMap ns/m"),
            (json!({"secretKeyRef": {"name": "s", "key": "none"}}), "couldn't find key none in Secret ns/s"),
            (json!({"fieldRef": {"fieldPath": "spec.x"}}), "unsupported fieldPath: spec.x"),
        ];
        for (from, message) in rows {
            assert_eq!(with(from), Err(message.to_owned()));
        }
    }

    #[test]
    fn a_variable_the_kernel_would_refuse_is_refused_with_its_size() {
        let refused = check(json!({"name": "c", "env": [{"name": "X", "value": "a".repeat(200_000)}]}));
        assert!(refused.expect_err("too long").contains("variable X has 200002 bytes"));
    }

    #[test]
    fn the_spec_wins_over_the_image() {
        let image = ["PATH=/bin".to_owned(), "A=image".to_owned(), "EMPTY".to_owned()];
        let list = over_image(&image, vec![("A".to_owned(), "spec".to_owned())]);
        let shown: Vec<String> = list.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["PATH=/bin", "A=spec", "EMPTY="]);
    }

    #[test]
    fn services_of_the_namespace_and_the_api_become_variables() {
        let service = |namespace: &str, name: &str, ip: &str| -> core::Service {
            let ports = json!([{"name": "http-web", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
            let service =
                json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": ports}});
            serde_json::from_value(service).expect("a service")
        };
        let services = [
            service("default", "kubernetes", "10.43.0.1"),
            service("ns", "my-web", "10.43.0.2"),
            service("ns", "headless", "None"),
            service("other", "far", "10.43.0.3"),
        ];
        let list = of_services(services.iter(), "ns", true);
        let get = |name: &str| list.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.43.0.1"));
        assert_eq!(get("MY_WEB_SERVICE_PORT_HTTP_WEB"), Some("80"));
        assert_eq!(get("MY_WEB_PORT"), Some("tcp://10.43.0.2:80"));
        assert_eq!(get("MY_WEB_PORT_53_UDP_PROTO"), Some("udp"));
        assert_eq!(get("FAR_SERVICE_HOST"), None);
        assert_eq!(get("HEADLESS_SERVICE_HOST"), None);
        assert!(of_services(services.iter(), "ns", false).iter().all(|(name, _)| name.starts_with("KUBERNETES_")));
    }
}
