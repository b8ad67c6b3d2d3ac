//! Step: what the pod's containers share and who runs them, and the files that tell them who and where they are.
//!
//! Source: Kubernetes documentation, "DNS for Services and Pods": resolv.conf by dnsPolicy, host name and subdomain.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use futures::FutureExt;
use futures::future::BoxFuture;
use windlass_api::kinds;
use windlass_api::types::core;

use super::container::containers_of;
use super::{Ground, PodContext, Step, StepError, resources};
use crate::admission::sysctl_name;
use crate::config::NodeConfig;
use crate::machine::{Facts, MachineError, Sandbox};
use crate::source::{SYNC_TIMEOUT, SYNC_TIMEOUT_UNHEARD};

/// The longest host name the kernel takes; longer pod names are cut.
const HOSTNAME_BYTES_MAX: usize = 63;
/// The first line of a hosts file that this node writes: what is known to look for it is the conformance suite.
const HOSTS_TITLE: &str = "# Kubernetes-managed hosts file.";
/// Search domains a resolver looks at (resolv.conf(5)).
const SEARCH_MAX: usize = 32;
/// Name servers a resolver asks (resolv.conf(5)).
const SERVERS_MAX: usize = 3;

/// Up: the sandbox can take containers.
pub struct SandboxStep;

impl Step for SandboxStep {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn up<'a>(&'a self, pod: &'a PodContext, ground: &'a mut Ground) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            let node = pod.shared.node_facts();
            let mut sandbox = sandbox(pod, &ground.addresses, &node.facts);
            sandbox.handler = handler(pod).await.map_err(|why| not_created(&why))?;
            let made = pod.shared.machine.sandbox_up(&sandbox).await;
            made.map_err(|error| not_created(&error))
        }
        .boxed()
    }

    fn down<'a>(&'a self, pod: &'a PodContext) -> BoxFuture<'a, Result<(), MachineError>> {
        pod.shared.machine.sandbox_down(&pod.uid)
    }
}

fn not_created(why: &dyn std::fmt::Display) -> StepError {
    StepError { reason: "FailedCreatePodSandBox", message: format!("Failed to create pod sandbox: {why}") }
}

/// What runs the pod's containers, as its RuntimeClass says; `None` while the API does not tell.
async fn handler(pod: &PodContext) -> Result<Option<String>, String> {
    let class = pod.spec().runtime_class_name.as_deref().unwrap_or_default();
    if class.is_empty() {
        return Ok(Some(String::new()));
    }
    let patience = if pod.is_known { SYNC_TIMEOUT_UNHEARD } else { SYNC_TIMEOUT };
    let asked = tokio::time::timeout(patience, pod.shared.client.get(&kinds::RUNTIME_CLASS, "", class));
    match asked.await {
        Ok(Ok(Some(found))) => Ok(found.value()["handler"].as_str().map(str::to_owned)),
        Ok(Ok(None)) => Err(format!("runtimeclass.node.k8s.io {class:?} not found")),
        Ok(Err(error)) => {
            tracing::info!(pod = pod.name(), class, %error, "the pod's RuntimeClass cannot be read");
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}

fn sandbox(pod: &PodContext, addresses: &[IpAddr], facts: &Facts) -> Sandbox {
    let spec = pod.spec();
    let config = &pod.shared.config;
    let host_network = pod.host_network();
    let name = hostname(&pod.pod);
    let domain = domain(&pod.pod, config);
    let shown = if host_network { facts.hostname.clone() } else { name.clone() };
    let hosts = if host_network { facts.hosts.clone() } else { hosts(spec, addresses, &name, &domain) };
    let hosts = with_aliases(hosts, spec);
    let files = BTreeMap::from([
        ("hosts".to_owned(), hosts),
        ("hostname".to_owned(), format!("{shown}\n")),
        ("resolv.conf".to_owned(), resolv_conf(spec, pod.namespace(), config, &facts.resolv_conf)),
    ]);
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.as_ref());
    let fqdn = spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty();
    Sandbox {
        pod: pod.uid.to_string(),
        title: format!("{}/{}", pod.namespace(), pod.name()),
        handler: None,
        hostname: match (host_network, fqdn) {
            (true, _) => String::new(),
            (false, true) => format!("{name}.{domain}"),
            (false, false) => name,
        },
        host_network,
        host_ipc: spec.host_ipc == Some(true),
        host_pid: spec.host_pid == Some(true),
        share_pids: spec.share_process_namespace == Some(true),
        user_namespace: spec.host_users == Some(false),
        privileged: containers_of(spec)
            .any(|container| container.security_context.as_ref().is_some_and(|own| own.privileged == Some(true))),
        sysctls: sysctls
            .into_iter()
            .flatten()
            .map(|sysctl| (sysctl_name(&sysctl.name), sysctl.value.clone()))
            .collect(),
        resources: resources::of_pod(spec),
        files,
    }
}

/// The host name: the spec's, or the pod's own name cut to what the kernel takes.
fn hostname(pod: &core::Pod) -> String {
    let spec = pod.spec.as_ref();
    let asked = spec.and_then(|spec| spec.hostname_override.as_ref().or(spec.hostname.as_ref()));
    let name = asked.filter(|name| !name.is_empty()).or(pod.metadata.name.as_ref()).cloned().unwrap_or_default();
    let cut: String = name.chars().take(HOSTNAME_BYTES_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The domain of a pod with a subdomain; empty for others.
fn domain(pod: &core::Pod, config: &NodeConfig) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match pod.spec.as_ref().and_then(|spec| spec.subdomain.as_deref()) {
        Some(subdomain) if !subdomain.is_empty() => format!("{subdomain}.{namespace}.svc.{}", config.cluster_domain),
        _ => String::new(),
    }
}

fn hosts(spec: &core::PodSpec, addresses: &[IpAddr], name: &str, domain: &str) -> String {
    let mut out = format!("{HOSTS_TITLE}\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let own = if domain.is_empty() || spec.hostname_override.is_some() {
        name.to_owned()
    } else {
        format!("{name}.{domain}\t{name}")
    };
    for address in addresses {
        writeln!(out, "{address}\t{own}").expect("a String takes everything");
    }
    out
}

fn with_aliases(mut hosts: String, spec: &core::PodSpec) -> String {
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\t");
        writeln!(hosts, "{}\t{names}", alias.ip).expect("a String takes everything");
    }
    hosts
}

/// resolv.conf by dnsPolicy, with dnsConfig added.
fn resolv_conf(spec: &core::PodSpec, namespace: &str, config: &NodeConfig, machine: &str) -> String {
    let own = Resolver::parse(machine);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = spec.host_network == Some(true);
    let mut resolver = match policy {
        "None" => Resolver::default(),
        "Default" => own,
        "ClusterFirst" if host_network => own,
        _ => {
            let domain = &config.cluster_domain;
            let mut search = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            search.extend(own.search);
            Resolver { servers: vec![config.cluster_dns.to_string()], search, options: vec!["ndots:5".to_owned()] }
        }
    };
    if let Some(more) = &spec.dns_config {
        resolver.servers.extend(more.nameservers.iter().flatten().cloned());
        resolver.search.extend(more.searches.iter().flatten().cloned());
        for option in more.options.iter().flatten() {
            resolver.set_option(option.name.as_deref().unwrap_or_default(), option.value.as_deref());
        }
    }
    resolver.print()
}

#[derive(Default)]
struct Resolver {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }

    fn set_option(&mut self, name: &str, value: Option<&str>) {
        self.options.retain(|option| option.split(':').next() != Some(name));
        self.options.push(match value {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }

    fn print(mut self) -> String {
        let mut seen = std::collections::BTreeSet::new();
        self.servers.retain(|server| seen.insert(server.clone()));
        self.search.retain(|domain| seen.insert(domain.clone()));
        self.servers.truncate(SERVERS_MAX);
        self.search.truncate(SEARCH_MAX);
        let mut out = String::new();
        if !self.search.is_empty() {
            out.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        for server in &self.servers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            out.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{domain, hostname, hosts, resolv_conf, with_aliases};
    use crate::config::NodeConfig;
    use serde_json::{Value, json};
    use windlass_api::types::core;

    fn pod(spec: Value) -> core::Pod {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "ns"}, "spec": spec});
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn resolv_conf_follows_the_policy() {
        let machine = "# made by hand\nnameserver 9.9.9.9\nsearch corp.example\noptions timeout:1\n";
        let check = |mut spec: Value| {
            spec["containers"] = json!([]);
            let pod = pod(spec);
            resolv_conf(pod.spec.as_ref().expect("a spec"), "ns", &NodeConfig::named("n"), machine)
        };
        let cluster = "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.43.0.10\noptions ndots:5\n";
        let own = "search corp.example\nnameserver 9.9.9.9\noptions timeout:1\n";
        assert_eq!(check(json!({})), cluster);
        assert_eq!(check(json!({"hostNetwork": true})), own);
        assert_eq!(check(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})), cluster);
        assert_eq!(check(json!({"dnsPolicy": "Default"})), own);
        let custom = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.1"],
            "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(check(custom), "search a.b\nnameserver 1.1.1.1\noptions ndots:2 edns0\n");
        let over = json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}});
        assert!(check(over).ends_with("options ndots:1\n"));
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let pod = pod(json!({"containers": [], "subdomain": "db",
            "hostAliases": [{"ip": "10.0.0.9", "hostnames": ["a", "b"]}]}));
        let config = NodeConfig::named("n");
        let spec = pod.spec.as_ref().expect("a spec");
        let addresses = ["10.42.0.5".parse().expect("an address")];
        let text = with_aliases(hosts(spec, &addresses, &hostname(&pod), &domain(&pod, &config)), spec);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n"), "{text}");
        assert!(text.contains("\n10.42.0.5\tweb-0.db.ns.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("10.0.0.9\ta\tb\n"), "{text}");
    }

    #[test]
    fn a_host_name_fits_the_kernel() {
        let mut long = pod(json!({"containers": []}));
        long.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(20)));
        assert_eq!(hostname(&long), "a".repeat(62));
        assert_eq!(hostname(&pod(json!({"containers": [], "hostname": "h"}))), "h");
    }
}
