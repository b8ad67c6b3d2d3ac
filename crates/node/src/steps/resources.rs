//! Requests and limits as the machine takes them.
//!
//! Source: Kubernetes documentation, "Resource Management for Pods and Containers"; out-of-memory scores by QoS class from
//! "Node-pressure Eviction".

use std::collections::BTreeMap;

use windlass_api::quantity::Quantity;
use windlass_api::types::{Quantity as QuantityText, core};

use crate::budget::Amounts;
use crate::machine::Resources;

/// Processes and threads of one pod: one pod's fork bomb must not take the machine's 32,768.
const POD_PIDS_MAX: u64 = 4096;
/// The kernel's scheduling period that quotas are given for.
const PERIOD_US: u64 = 100_000;
/// Below this the kernel refuses a quota.
const QUOTA_US_MIN: u64 = 1000;
/// The least weight there is.
const SHARES_MIN: u64 = 2;
/// The greatest weight there is.
const SHARES_MAX: u64 = 262_144;

/// Room on disk, as the API names it.
const DISK: &str = "ephemeral-storage";
/// Pages larger than the usual.
pub const HUGE_2MI: &str = "hugepages-2Mi";
/// Still larger ones.
pub const HUGE_1GI: &str = "hugepages-1Gi";

/// The limits of one container.
pub fn of_container(container: &core::Container) -> Resources {
    let asked = Asked::of(container);
    Resources {
        cpu_shares: Some(shares(asked.cpu_request)),
        cpu_quota_us: asked.cpu_limit.map(quota),
        cpu_period_us: asked.cpu_limit.map(|_| PERIOD_US),
        memory_bytes: asked.memory_limit,
        pids: Some(POD_PIDS_MAX),
        huge_2mi_bytes: Some(asked.huge_2mi),
        huge_1gi_bytes: Some(asked.huge_1gi),
        ..Resources::default()
    }
}

/// The limits of all containers of a pod together: sums where every container has one.
pub fn of_pod(spec: &core::PodSpec) -> Resources {
    let containers: Vec<Asked> = spec.containers.iter().chain(sidecars(spec)).map(Asked::of).collect();
    let init: Vec<Asked> = spec.init_containers.iter().flatten().map(Asked::of).collect();
    let request: u64 = containers.iter().map(|asked| asked.cpu_request).sum();
    let request = init.iter().map(|asked| asked.cpu_request).fold(request, u64::max);
    let sum = |pick: fn(&Asked) -> Option<u64>| {
        let sum: Option<u64> = containers.iter().map(pick).sum();
        init.iter().map(pick).fold(sum, |most, one| Some(most?.max(one?)))
    };
    let whole = spec.resources.as_ref().map(|resources| Asked::read(Some(resources)));
    let overhead = spec.overhead.as_ref();
    let more = |amount: Option<u64>, over: Option<u64>| amount.map(|amount| amount + over.unwrap_or(0));
    let cpu_overhead = amount(overhead, "cpu", Quantity::millis);
    let request = whole.as_ref().and_then(|whole| whole.own_cpu_request).unwrap_or(request) + cpu_overhead.unwrap_or(0);
    let cpu_limit = whole.as_ref().and_then(|whole| whole.cpu_limit).or_else(|| sum(|asked| asked.cpu_limit));
    let cpu_limit = more(cpu_limit, cpu_overhead);
    let memory_limit = whole.as_ref().and_then(|whole| whole.memory_limit).or_else(|| sum(|asked| asked.memory_limit));
    let memory_limit = more(memory_limit, amount(overhead, "memory", Quantity::units));
    // Who asks for no huge pages gets none, unlike memory.
    let huge = |pick: fn(&Asked) -> u64| {
        let most = containers.iter().map(pick).sum::<u64>().max(init.iter().map(pick).max().unwrap_or(0));
        Some(whole.as_ref().map(pick).filter(|whole| *whole > 0).unwrap_or(most))
    };
    Resources {
        cpu_shares: Some(shares(request)),
        cpu_quota_us: cpu_limit.map(quota),
        cpu_period_us: cpu_limit.map(|_| PERIOD_US),
        memory_bytes: memory_limit,
        pids: Some(POD_PIDS_MAX),
        huge_2mi_bytes: huge(|asked| asked.huge_2mi),
        huge_1gi_bytes: huge(|asked| asked.huge_1gi),
        ..Resources::default()
    }
}

/// A pod of this priority or more is one the node cannot do without.
const CRITICAL_NODE_PRIORITY: i32 = 2_000_001_000;
/// A pod of this priority or more belongs to the system.
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What a pod is promised, and so who gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quality {
    /// Nothing.
    BestEffort,
    /// Something.
    Burstable,
    /// All it may use.
    Guaranteed,
}

/// A pod's quality of service.
pub fn quality(spec: &core::PodSpec) -> Quality {
    let whole = spec.resources.as_ref().map(|resources| Asked::read(Some(resources)));
    let all: Vec<Asked> = match whole.filter(|whole| !whole.is_best_effort) {
        Some(whole) => vec![whole],
        None => spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(Asked::of).collect(),
    };
    match (all.iter().all(|asked| asked.is_guaranteed), all.iter().all(|asked| asked.is_best_effort)) {
        (true, _) => Quality::Guaranteed,
        (_, true) => Quality::BestEffort,
        _ => Quality::Burstable,
    }
}

/// What the node must promise a pod: all its containers and sidecars at once, or one init container beside the sidecars
/// that came before it, whichever is more; what is asked for the pod as a whole takes the place of the sum.
pub fn promised(spec: &core::PodSpec) -> Amounts {
    let (mut sidecars, mut worst) = (Amounts::default(), Amounts::default());
    let plus = |a: Amounts, b: Amounts| a.each(b, u64::saturating_add);
    let most = |a: Amounts, b: Amounts| a.each(b, u64::max);
    for container in spec.init_containers.iter().flatten() {
        let moment = plus(sidecars, Asked::of(container).amounts());
        worst = most(worst, moment);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = moment;
        }
    }
    let running = spec.containers.iter().fold(sidecars, |sum, container| plus(sum, Asked::of(container).amounts()));
    let mut total = most(running, worst);
    if let Some(whole) = spec.resources.as_ref().map(|resources| Asked::read(Some(resources))) {
        total.cpu_millis = whole.own_cpu_request.unwrap_or(total.cpu_millis);
        total.memory_bytes = whole.own_memory_request.unwrap_or(total.memory_bytes);
        for (own, total) in [(whole.huge_2mi, &mut total.huge_2mi_bytes), (whole.huge_1gi, &mut total.huge_1gi_bytes)] {
            *total = if own > 0 { own } else { *total };
        }
    }
    let overhead = spec.overhead.as_ref();
    plus(
        total,
        Amounts {
            cpu_millis: amount(overhead, "cpu", Quantity::millis).unwrap_or(0),
            memory_bytes: amount(overhead, "memory", Quantity::units).unwrap_or(0),
            disk_bytes: amount(overhead, DISK, Quantity::units).unwrap_or(0),
            ..Amounts::default()
        },
    )
}

/// The most a pod may have on disk: the limits of its containers that have one, or of one init container if that is more.
pub fn disk_limit(spec: &core::PodSpec) -> Option<u64> {
    let own = |container| container_disk_limit(container).map(|(bytes, _)| bytes);
    let running = spec.containers.iter().chain(sidecars(spec)).filter_map(own).reduce(u64::saturating_add);
    running.max(spec.init_containers.iter().flatten().filter_map(own).max())
}

/// The most a container may have on disk, in bytes and as it is written.
pub fn container_disk_limit(container: &core::Container) -> Option<(u64, &str)> {
    let limits = container.resources.as_ref()?.limits.as_ref();
    let bytes = amount(limits, DISK, Quantity::units)?;
    Some((bytes, limits?.get(DISK)?.0.as_str()))
}

/// How many CPUs a container asks for, if these are whole ones.
pub fn whole_cpus(container: &core::Container) -> Option<usize> {
    let millis = Asked::of(container).cpu_request;
    let is_whole = millis > 0 && millis.is_multiple_of(1000);
    is_whole.then(|| usize::try_from(millis / 1000).unwrap_or(usize::MAX))
}

/// Init containers that stay.
pub fn sidecars(spec: &core::PodSpec) -> impl Iterator<Item = &core::Container> {
    spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"))
}

/// Who is killed first when the machine is short of memory.
pub fn oom_score_adj(spec: &core::PodSpec, container: &core::Container, machine_memory_bytes: u64) -> i32 {
    if spec.priority >= Some(CRITICAL_NODE_PRIORITY) {
        return -997;
    }
    match quality(spec) {
        Quality::Guaranteed => return -997,
        Quality::BestEffort => return 1000,
        Quality::Burstable => {}
    }
    let own = Asked::of(container).memory_request;
    // What the pod as a whole is promised beyond its containers counts for all of them in equal parts.
    let whole = spec.resources.as_ref().and_then(|resources| Asked::read(Some(resources)).own_memory_request);
    let sum: u64 = spec.containers.iter().chain(sidecars(spec)).map(|one| Asked::of(one).memory_request).sum();
    let count = u64::try_from(spec.containers.len() + sidecars(spec).count()).unwrap_or(1).max(1);
    let request = own + whole.map_or(0, |whole| whole.saturating_sub(sum) / count);
    let share = (u128::from(request) * 1000 / u128::from(machine_memory_bytes.max(1))).min(1000);
    (1000 - i32::try_from(share).expect("at most 1000")).clamp(3, 999)
}

/// What one container asks for.
struct Asked {
    cpu_request: u64,
    cpu_limit: Option<u64>,
    memory_request: u64,
    memory_limit: Option<u64>,
    disk_request: u64,
    huge_2mi: u64,
    huge_1gi: u64,
    own_cpu_request: Option<u64>,
    own_memory_request: Option<u64>,
    is_guaranteed: bool,
    is_best_effort: bool,
}

impl Asked {
    fn of(container: &core::Container) -> Asked {
        Asked::read(container.resources.as_ref())
    }

    fn amounts(&self) -> Amounts {
        Amounts {
            cpu_millis: self.cpu_request,
            memory_bytes: self.memory_request,
            disk_bytes: self.disk_request,
            huge_2mi_bytes: self.huge_2mi,
            huge_1gi_bytes: self.huge_1gi,
        }
    }

    fn read(resources: Option<&core::ResourceRequirements>) -> Asked {
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let cpu_limit = amount(limits, "cpu", Quantity::millis);
        let memory_limit = amount(limits, "memory", Quantity::units);
        // A request that is not given is as great as the limit.
        let cpu_request = amount(requests, "cpu", Quantity::millis).or(cpu_limit);
        let memory_request = amount(requests, "memory", Quantity::units).or(memory_limit);
        let equal = |limit: Option<u64>, request: Option<u64>| limit.is_some() && limit == request;
        Asked {
            cpu_request: cpu_request.unwrap_or(0),
            cpu_limit,
            memory_request: memory_request.unwrap_or(0),
            memory_limit,
            disk_request: amount(requests, DISK, Quantity::units).unwrap_or(0),
            // Requests of huge pages equal their limits: the API makes it so.
            huge_2mi: amount(limits, HUGE_2MI, Quantity::units).unwrap_or(0),
            huge_1gi: amount(limits, HUGE_1GI, Quantity::units).unwrap_or(0),
            own_cpu_request: cpu_request,
            own_memory_request: memory_request,
            is_guaranteed: equal(cpu_limit, cpu_request) && equal(memory_limit, memory_request),
            is_best_effort: cpu_request.is_none() && memory_request.is_none(),
        }
    }
}

/// A positive amount; zero and nonsense (which the API refuses) are no amount.
fn amount(map: Option<&BTreeMap<String, QuantityText>>, noun: &str, unit: fn(Quantity) -> i64) -> Option<u64> {
    let quantity: Quantity = map?.get(noun)?.0.parse().ok()?;
    u64::try_from(unit(quantity)).ok().filter(|amount| *amount > 0)
}

fn shares(cpu_millis: u64) -> u64 {
    (cpu_millis.saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(cpu_millis: u64) -> u64 {
    (cpu_millis.saturating_mul(PERIOD_US) / 1000).max(QUOTA_US_MIN)
}

#[cfg(test)]
mod tests {
    use super::{Quality, of_container, of_pod, oom_score_adj, promised, quality};
    use serde_json::{Value, json};
    use windlass_api::types::core;

    fn pod(containers: Value) -> core::PodSpec {
        serde_json::from_value(json!({"containers": containers})).expect("a spec")
    }

    #[test]
    fn requests_become_weights_and_limits_become_bounds() {
        let limited = json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "2", "memory": "64Mi"}});
        let spec = pod(json!([{"name": "a", "resources": limited}, {"name": "b"}]));
        let a = of_container(&spec.containers[0]);
        assert_eq!((a.cpu_shares, a.cpu_quota_us, a.memory_bytes), (Some(512), Some(200_000), Some(64 << 20)));
        let b = of_container(&spec.containers[1]);
        assert_eq!((b.cpu_shares, b.cpu_quota_us, b.memory_bytes), (Some(2), None, None));
        let both = of_pod(&spec);
        assert_eq!((both.cpu_shares, both.memory_bytes), (Some(512), None), "one container has no limit");
        assert!(both.pids.is_some(), "a fork bomb stays in its pod");
    }

    #[test]
    fn who_asks_for_no_huge_pages_gets_none() {
        let huge = |pages: &str| json!({"limits": {"hugepages-2Mi": pages, "cpu": "1"}});
        let spec = pod(
            json!([{"name": "a", "resources": huge("4Mi")}, {"name": "b", "resources": huge("2Mi")}, {"name": "c"}]),
        );
        let of = |index: usize| of_container(&spec.containers[index]);
        assert_eq!((of(0).huge_2mi_bytes, of(0).huge_1gi_bytes), (Some(4 << 20), Some(0)));
        assert_eq!(of(2).huge_2mi_bytes, Some(0));
        assert_eq!((of_pod(&spec).huge_2mi_bytes, of_pod(&spec).huge_1gi_bytes), (Some(6 << 20), Some(0)));
    }

    #[test]
    fn what_is_asked_for_the_pod_as_a_whole_takes_the_place_of_the_sum() {
        let spec = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}, {"name": "b"}],
            "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "64Mi"}},
            "overhead": {"cpu": "100m", "memory": "1Mi"}});
        let spec: core::PodSpec = serde_json::from_value(spec).expect("a spec");
        let whole = of_pod(&spec);
        assert_eq!(whole.cpu_shares, Some(1126));
        assert_eq!((whole.cpu_quota_us, whole.memory_bytes), (Some(210_000), Some(65 << 20)));
        let promised = promised(&spec);
        assert_eq!((promised.cpu_millis, promised.memory_bytes), (1100, 65 << 20));
        assert_eq!(quality(&spec), Quality::Burstable);
    }

    #[test]
    fn the_worst_moment_is_what_is_promised() {
        let cpu = |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = cpu("s", "1");
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({"initContainers": [cpu("i", "3"), sidecar, cpu("j", "3")], "containers": [cpu("a", "1"), cpu("b", "1")]});
        let spec: core::PodSpec = serde_json::from_value(spec).expect("a spec");
        assert_eq!(promised(&spec).cpu_millis, 4000, "the last init container beside the sidecar");
    }

    #[test]
    fn tiny_limits_are_what_the_kernel_takes() {
        let spec = pod(json!([{"name": "a", "resources": {"limits": {"cpu": "1m", "memory": "0"}}}]));
        let tiny = of_container(&spec.containers[0]);
        assert_eq!((tiny.cpu_quota_us, tiny.cpu_shares, tiny.memory_bytes), (Some(1000), Some(2), None));
    }

    #[test]
    fn the_least_promised_goes_first() {
        let score = |resources: Value| {
            let spec = pod(json!([{"name": "a", "resources": resources}]));
            oom_score_adj(&spec, &spec.containers[0], 4 << 30)
        };
        assert_eq!(score(json!({})), 1000);
        assert_eq!(score(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), -997);
        assert_eq!(score(json!({"requests": {"memory": "1Gi"}})), 750);
        assert_eq!(score(json!({"requests": {"cpu": "1"}})), 999);
    }
}
