//! The Node object: this machine tells what it is, what it has and that it is alive.
//!
//! Goal        a Node of our name exists and says how this machine is; its Lease is never older than a quarter of its life
//! Watches     Node (own): deleted, it is made again
//! Writes      Node: itself, labels of ours, status · Lease of our name in kube-node-lease
//!
//! Rules
//!   R1 heartbeat   the Lease is renewed on time; the Node is written only when it says something new
//!   R2 pressure    too little memory, disk space, room for files or process ids is a condition; it holds until there is clearly
//!                  enough again. The machine says so itself: what the API has of it counts for nothing

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::quantity::{Notation, Quantity};
use windlass_api::{Subresource, kinds};
use windlass_client::{Client, ClientError, Patch};

use crate::agent::{NodeFacts, Shared};
use crate::config::NodeConfig;
use crate::downward::Allocatable;
use crate::eviction::Shortage;
use crate::machine::Facts;
use crate::steps::resources::{HUGE_1GI, HUGE_2MI};

/// Where the leases of nodes are.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Less free memory than this is pressure.
const MEMORY_FREE_BYTES_MIN: u64 = 100 << 20;
/// Less free disk than this, or than a tenth of a small disk, is pressure.
const DISK_FREE_BYTES_MIN: u64 = 1 << 30;
/// One in so many process ids must be free.
const PIDS_FREE_SHARE: u64 = 20;
/// One in so many of the files that a disk can hold must be free, as kubelet has it.
const DISK_FILES_FREE_SHARE: u64 = 20;
/// Images listed in the status, as kubelet has it; the largest ones.
const IMAGES_MAX: usize = 50;

/// What the facts mean for the pods of this node, which was short of `before` when it was last looked at.
pub fn node_facts(config: &NodeConfig, facts: Facts, before: &[Shortage]) -> NodeFacts {
    let addresses = match config.address {
        Some(address) => vec![address],
        None => facts.addresses.clone(),
    };
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let [huge_2mi, huge_1gi] = facts.huge_bytes.map(Option::unwrap_or_default);
    let allocatable = Allocatable {
        cpu_millis: (i64::from(facts.cpus) * 1000).saturating_sub(signed(config.reserved.cpu_millis)).max(0),
        // Huge pages are set apart: nobody has them as ordinary memory.
        memory_bytes: signed(
            [MEMORY_FREE_BYTES_MIN, config.reserved.memory_bytes, huge_2mi, huge_1gi]
                .into_iter()
                .fold(facts.memory_bytes, u64::saturating_sub),
        ),
        huge_2mi_bytes: signed(huge_2mi),
        huge_1gi_bytes: signed(huge_1gi),
        disk_bytes: signed((facts.disk_bytes - facts.disk_bytes / 10).saturating_sub(config.reserved.disk_bytes)),
    };
    let shortages = shortages(config, &facts, before);
    NodeFacts { addresses, allocatable, shortages, facts }
}

/// R2: what the machine is short of.
fn shortages(config: &NodeConfig, facts: &Facts, before: &[Shortage]) -> Vec<Shortage> {
    let is_short = |shortage: &Shortage| {
        let (free, bound) = match shortage {
            Shortage::Memory => {
                let usual = MEMORY_FREE_BYTES_MIN.min(facts.memory_bytes / 10);
                (facts.memory_free_bytes, config.memory_free_bytes_min.unwrap_or(usual))
            }
            Shortage::Disk => (facts.disk_free_bytes, disk_free_bytes_min(config, facts)),
            // A file system that holds as many as there is room for says that it can hold none.
            Shortage::Files if facts.disk_files == 0 => (0, 0),
            Shortage::Files => {
                let usual = facts.disk_files / DISK_FILES_FREE_SHARE;
                (facts.disk_free_files, config.disk_free_files_min.unwrap_or(usual))
            }
            Shortage::Pids => {
                let (all, used) = facts.pids;
                (all.saturating_sub(used), config.pids_free_min.unwrap_or(all / PIDS_FREE_SHARE))
            }
        };
        // What holds goes on until a fifth more than the bound is free, so that it does not flap.
        free < if before.contains(shortage) { bound.saturating_add(bound / 5) } else { bound }
    };
    Shortage::ALL.into_iter().filter(is_short).collect()
}

/// Makes the Node, or brings its labels up to date. Returns the revision at which it is there.
pub async fn register(shared: &Shared) -> Result<u64, ClientError> {
    let config = &shared.config;
    let labels = labels(config, &shared.node_facts().facts);
    if let Some(found) = shared.client.get(&kinds::NODE, "", &config.name).await? {
        let node = found.value();
        let differs = labels.iter().any(|(key, value)| &node["metadata"]["labels"][key] != value);
        if !differs {
            return Ok(found.header.revision);
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        return Ok(shared.client.patch(&kinds::NODE, "", &config.name, &patch, None).await?.header.revision);
    }
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": config.name, "labels": labels}, "spec": {}});
    let made = shared.client.create(&kinds::NODE, "", &node).await?;
    tracing::info!(node = config.name, "node registered");
    Ok(made.header.revision)
}

fn labels(config: &NodeConfig, facts: &Facts) -> Map<String, Value> {
    let mut labels = Map::new();
    for (key, value) in &config.labels {
        labels.insert(key.clone(), json!(value));
    }
    for role in &config.roles {
        labels.insert(format!("node-role.kubernetes.io/{role}"), json!(""));
    }
    labels.insert("kubernetes.io/hostname".to_owned(), json!(config.name));
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        labels.insert(format!("{prefix}/os"), json!(facts.operating_system));
        labels.insert(format!("{prefix}/arch"), json!(facts.architecture));
    }
    labels
}

/// The Node's status as it should be; `current` is the one it has.
pub fn status(
    config: &NodeConfig,
    node: &NodeFacts,
    current: &Value,
    trouble: Option<&'static str>,
    now: Timestamp,
) -> Value {
    let facts = &node.facts;
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut addresses: Vec<Value> =
        node.addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": config.name}));
    let mut images = facts.images.clone();
    images.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let images: Vec<Value> =
        images.iter().take(IMAGES_MAX).map(|(names, size)| json!({"names": names, "sizeBytes": size})).collect();
    let has = Allocatable {
        cpu_millis: i64::from(facts.cpus) * 1000,
        memory_bytes: signed(facts.memory_bytes),
        disk_bytes: signed(facts.disk_bytes),
        ..node.allocatable
    };
    json!({
        "capacity": amounts(config, facts, &has), "allocatable": amounts(config, facts, &node.allocatable),
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
        "nodeInfo": {
            "architecture": facts.architecture, "bootID": facts.boot_id, "machineID": facts.machine_id,
            "systemUUID": facts.machine_id, "kernelVersion": facts.kernel_version, "osImage": facts.os_image,
            "operatingSystem": facts.operating_system, "containerRuntimeVersion": facts.runtime_version,
            "kubeletVersion": config.version, "kubeProxyVersion": "",
        },
        "images": images,
        "features": {"supplementalGroupsPolicy": true},
        "runtimeHandlers": facts.handlers.iter().map(|handler| json!({"name": handler.name, "features": {
            "recursiveReadOnlyMounts": handler.recursive_read_only_mounts, "userNamespaces": handler.user_namespaces,
        }})).collect::<Vec<_>>(),
        "conditions": conditions(&node.shortages, current, trouble, now),
    })
}

/// What there is, by the names of the API.
fn amounts(config: &NodeConfig, facts: &Facts, has: &Allocatable) -> Map<String, Value> {
    let bytes = |bytes: i64| json!(Quantity::from_units(bytes, Notation::Binary).to_string());
    let huge = [(HUGE_2MI, has.huge_2mi_bytes), (HUGE_1GI, has.huge_1gi_bytes)].into_iter().zip(facts.huge_bytes);
    let huge = huge.filter(|(_, pages)| pages.is_some()).map(|((name, has), _)| (name.to_owned(), bytes(has)));
    let usual = [
        ("cpu", json!(Quantity::from_millis(has.cpu_millis).to_string())),
        ("memory", bytes(has.memory_bytes)),
        ("ephemeral-storage", bytes(has.disk_bytes)),
        ("pods", json!(config.pods_max.to_string())),
    ];
    usual.into_iter().map(|(name, amount)| (name.to_owned(), amount)).chain(huge).collect()
}

/// Less free disk space than this is pressure.
pub fn disk_free_bytes_min(config: &NodeConfig, facts: &Facts) -> u64 {
    config.disk_free_bytes_min.unwrap_or(DISK_FREE_BYTES_MIN.min(facts.disk_bytes / 10))
}

struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: &'static str,
}

/// R2.
fn conditions(shortages: &[Shortage], current: &Value, trouble: Option<&'static str>, now: Timestamp) -> Vec<Value> {
    let holds = |kind: &str| shortages.iter().any(|shortage| shortage.condition() == kind);
    let rows = [
        match holds("MemoryPressure") {
            true => Condition {
                kind: "MemoryPressure",
                holds: true,
                reason: "KubeletHasInsufficientMemory",
                message: "kubelet has insufficient memory available",
            },
            false => Condition {
                kind: "MemoryPressure",
                holds: false,
                reason: "KubeletHasSufficientMemory",
                message: "kubelet has sufficient memory available",
            },
        },
        match holds("DiskPressure") {
            true => Condition {
                kind: "DiskPressure",
                holds: true,
                reason: "KubeletHasDiskPressure",
                message: "kubelet has disk pressure",
            },
            false => Condition {
                kind: "DiskPressure",
                holds: false,
                reason: "KubeletHasNoDiskPressure",
                message: "kubelet has no disk pressure",
            },
        },
        match holds("PIDPressure") {
            true => Condition {
                kind: "PIDPressure",
                holds: true,
                reason: "KubeletHasInsufficientPID",
                message: "kubelet has insufficient PID available",
            },
            false => Condition {
                kind: "PIDPressure",
                holds: false,
                reason: "KubeletHasSufficientPID",
                message: "kubelet has sufficient PID available",
            },
        },
        match trouble {
            None => Condition {
                kind: "Ready",
                holds: true,
                reason: "KubeletReady",
                message: "kubelet is posting ready status",
            },
            Some(message) => Condition { kind: "Ready", holds: false, reason: "KubeletNotReady", message },
        },
    ];
    rows.into_iter().map(|row| timed(row, current, now)).collect()
}

fn condition_of<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn timed(row: Condition, current: &Value, now: Timestamp) -> Value {
    let status = if row.holds { "True" } else { "False" };
    let stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let found = condition_of(current, row.kind).filter(|found| found["status"] == status);
    let since = found.and_then(|found| found["lastTransitionTime"].as_str()).unwrap_or(&stamp);
    // The heartbeat is the Lease's (R1): here it moves only with the condition.
    let beat = found.and_then(|found| found["lastHeartbeatTime"].as_str()).unwrap_or(&stamp);
    json!({"type": row.kind, "status": status, "reason": row.reason, "message": row.message,
        "lastTransitionTime": since, "lastHeartbeatTime": beat})
}

/// The patch that makes the status what it should be; `None` when it is.
pub fn patch(desired: &Value, current: &Value) -> Option<Value> {
    let mut changed = Map::new();
    for (field, value) in desired.as_object().expect("a status is an object") {
        match field.as_str() {
            "conditions" => {
                let list = value.as_array().into_iter().flatten();
                let differing: Vec<&Value> = list
                    .filter(|condition| {
                        condition_of(current, condition["type"].as_str().unwrap_or_default()) != Some(condition)
                    })
                    .collect();
                if !differing.is_empty() {
                    changed.insert(field.clone(), json!(differing));
                }
            }
            // A list merged by type would keep an address that is no longer ours.
            "addresses" if &current[field.as_str()] != value && current["addresses"].is_array() => {
                let mut list = vec![json!({"$patch": "replace"})];
                list.extend(value.as_array().into_iter().flatten().cloned());
                changed.insert(field.clone(), json!(list));
            }
            // What others say there is beside ours stays.
            "capacity" | "allocatable" => {
                let ours = value.as_object().into_iter().flatten();
                if ours.into_iter().any(|(name, amount)| &current[field.as_str()][name.as_str()] != amount) {
                    changed.insert(field.clone(), value.clone());
                }
            }
            _ if &current[field.as_str()] != value => {
                changed.insert(field.clone(), value.clone());
            }
            _ => {}
        }
    }
    (!changed.is_empty()).then(|| json!({"status": changed}))
}

/// Writes the status when it differs from what `current` says.
pub async fn report(shared: &Shared, current: &Value) -> Result<(), ClientError> {
    let node = shared.node_facts();
    let trouble = match (shared.is_shutting_down(), shared.is_network_ready()) {
        (true, _) => Some("node is shutting down"),
        (false, false) => Some("the network is not up: the node waits for spec.podCIDR"),
        (false, true) => None,
    };
    let mut desired = status(&shared.config, &node, current, trouble, shared.world.now());
    let in_use = shared.in_use.names();
    if !in_use.is_empty() || current["volumesInUse"].is_array() {
        desired["volumesInUse"] = json!(in_use);
    }
    for (resource, (all, healthy)) in shared.devices.counts(&shared.machine.devices().borrow()) {
        desired["capacity"][resource.as_str()] = json!(all.to_string());
        desired["allocatable"][resource.as_str()] = json!(healthy.to_string());
    }
    let Some(patch) = patch(&desired, current) else { return Ok(()) };
    let (patch, status) = (Patch::Strategic(patch), Some(Subresource::Status));
    shared.client.patch(&kinds::NODE, "", &shared.config.name, &patch, status).await.map(|_| ())
}

/// Renews the Lease; makes it when there is none.
pub async fn renew(client: &Client, config: &NodeConfig, node_uid: &str, now: Timestamp) -> Result<(), ClientError> {
    let time = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let spec = json!({
        "holderIdentity": config.name, "leaseDurationSeconds": config.lease_duration.as_secs().max(1), "renewTime": time,
    });
    let client = client.with_deadline(config.lease_interval().max(Duration::from_secs(1)));
    let patch = Patch::Merge(json!({"spec": spec}));
    match client.patch(&kinds::LEASE, LEASE_NAMESPACE, &config.name, &patch, None).await {
        Err(error) if error.is_not_found() => {}
        other => return other.map(|_| ()),
    }
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": config.name, "namespace": LEASE_NAMESPACE, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": config.name, "uid": node_uid}]},
        "spec": spec,
    });
    client.create(&kinds::LEASE, LEASE_NAMESPACE, &lease).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::{node_facts, patch, status};
    use crate::config::NodeConfig;
    use crate::eviction::Shortage;
    use crate::machine::Facts;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    fn facts() -> Facts {
        Facts {
            cpus: 2,
            memory_bytes: 4 << 30,
            memory_free_bytes: 2 << 30,
            disk_bytes: 100 << 30,
            disk_free_bytes: 50 << 30,
            pids: (32768, 300),
            addresses: vec!["192.0.2.1".parse().expect("an address")],
            ..Facts::default()
        }
    }

    fn check(facts: Facts, current: &Value) -> Value {
        after(facts, current, &[])
    }

    fn after(facts: Facts, current: &Value, before: &[Shortage]) -> Value {
        let config = NodeConfig::named("n1");
        status(&config, &node_facts(&config, facts, before), current, None, Timestamp::UNIX_EPOCH)
    }

    fn holds(status: &Value) -> String {
        let list = status["conditions"].as_array().expect("a list").iter();
        let held = list.filter(|condition| condition["status"] == "True");
        held.map(|condition| condition["type"].as_str().expect("a type")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn r1_a_node_that_has_nothing_new_to_say_writes_nothing() {
        let first = check(facts(), &Value::Null);
        assert_eq!(holds(&first), "Ready");
        assert_eq!(first["capacity"]["memory"], "4Gi");
        let later = check(Facts { memory_free_bytes: 1 << 30, pids: (32768, 500), ..facts() }, &first);
        assert_eq!(patch(&later, &first), None);
    }

    #[test]
    fn r2_pressure_holds_until_there_is_clearly_enough() {
        let with = |free: u64, before: &[Shortage]| {
            holds(&after(Facts { disk_free_bytes: free, ..facts() }, &Value::Null, before))
        };
        assert_eq!(with((1 << 30) - 1, &[]), "DiskPressure Ready");
        assert_eq!(with((1 << 30) + 1, &[Shortage::Disk]), "DiskPressure Ready");
        assert_eq!(with((1 << 30) + 1, &[]), "Ready");
        assert_eq!(with(2 << 30, &[Shortage::Disk]), "Ready");
    }

    #[test]
    fn r2_room_for_new_files_is_disk_too() {
        let with = |free: u64, before: &[Shortage]| {
            holds(&after(Facts { disk_files: 1000, disk_free_files: free, ..facts() }, &Value::Null, before))
        };
        assert_eq!(with(50, &[]), "Ready");
        assert_eq!(with(49, &[]), "DiskPressure Ready");
        assert_eq!(with(59, &[Shortage::Files]), "DiskPressure Ready");
        assert_eq!(with(60, &[Shortage::Files]), "Ready");
        assert_eq!(holds(&after(facts(), &Value::Null, &[Shortage::Files])), "Ready", "one without such a number");
    }

    #[test]
    fn r2_what_the_api_has_is_no_pressure_and_hides_none() {
        let tight = Facts { memory_free_bytes: 1 << 20, ..facts() };
        let says_tight = check(tight.clone(), &Value::Null);
        let config = NodeConfig::named("n1");
        assert_eq!(holds(&check(Facts { memory_free_bytes: 101 << 20, ..facts() }, &says_tight)), "Ready");
        assert_eq!(node_facts(&config, tight, &[]).shortages, [Shortage::Memory], "before the API is heard");
    }

    #[test]
    fn what_is_reserved_is_not_given_to_pods() {
        let reserved = crate::config::Amounts {
            cpu_millis: 500,
            memory_bytes: 1 << 30,
            disk_bytes: 10 << 30,
            ..crate::config::Amounts::default()
        };
        let config = NodeConfig { reserved, ..NodeConfig::named("n1") };
        let has = node_facts(&config, facts(), &[]).allocatable;
        assert_eq!((has.cpu_millis, has.memory_bytes), (1500, (3 << 30) - (100 << 20)));
        assert_eq!(has.disk_bytes, 80 << 30);
    }

    #[test]
    fn huge_pages_are_told_and_are_no_ordinary_memory() {
        let config = NodeConfig::named("n1");
        let facts = Facts { huge_bytes: [Some(1 << 30), None], ..facts() };
        let node = node_facts(&config, facts, &[]);
        assert_eq!(node.allocatable.memory_bytes, (3 << 30) - (100 << 20));
        let status = status(&config, &node, &Value::Null, None, Timestamp::UNIX_EPOCH);
        for list in ["capacity", "allocatable"] {
            assert_eq!((&status[list]["hugepages-2Mi"], &status[list]["hugepages-1Gi"]), (&json!("1Gi"), &Value::Null));
        }
    }

    #[test]
    fn an_address_that_changed_replaces_the_old_one() {
        let old = check(facts(), &Value::Null);
        let new = check(Facts { addresses: vec!["192.0.2.2".parse().expect("an address")], ..facts() }, &old);
        let patch = patch(&new, &old).expect("it differs");
        assert_eq!(patch["status"]["addresses"][0], json!({"$patch": "replace"}));
        assert_eq!(patch["status"].as_object().map(|status| status.len()), Some(1));
    }
}
