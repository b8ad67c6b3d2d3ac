//! A pod's resources change while it runs.
//!
//! Flow        wished (the API) → promised (the context's pod) → applied (each container's track)
//! Guarantees  a container is started with what is promised, never with what is only wished
//!
//! Rules
//!   Z1 promise    what is wished is promised when the node has room; else it is Deferred, or Infeasible if it never will
//!   Z2 in place   limits of running containers change without touching them
//!   Z3 restart    a container whose resizePolicy asks for it is started again instead, at once
//!   Z4 moved      a container whose CPUs are others now runs on them; CPUs that are a container's own are not resized
//! Source: KEP-1287; API reference, ContainerResizePolicy, PodStatus.conditions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_api::quantity::Quantity as Amount;
use windlass_api::types::{Quantity, core};
use windlass_client::EventKind;

use super::PodTask;
use super::work::{Outcome, Slot};
use crate::backoff::CrashBackoff;
use crate::machine::{CpuSet, MachineError, Resize, Resources};
use crate::plan::{Ground, runs_again};
use crate::status::Resizing;
use crate::steps::container::containers_of;
use crate::steps::resources::{self, Quality};

/// How often it is looked whether there is room by now.
const ROOM_LOOK_EVERY: Duration = Duration::from_secs(2);

fn containers_mut(pod: &mut core::Pod) -> impl Iterator<Item = &mut core::Container> {
    pod.spec.iter_mut().flat_map(|spec| spec.init_containers.iter_mut().flatten().chain(&mut spec.containers))
}

fn own(container: &core::Container) -> core::ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

/// Whether two are the same amounts, however they are written.
fn same(one: &core::ResourceRequirements, other: &core::ResourceRequirements) -> bool {
    let read = |map: &Option<BTreeMap<String, Quantity>>| -> BTreeMap<String, Result<Amount, String>> {
        let all = map.iter().flatten();
        all.map(|(name, text)| (name.clone(), text.0.parse::<Amount>().map_err(|_| text.0.clone()))).collect()
    };
    read(&one.requests) == read(&other.requests) && read(&one.limits) == read(&other.limits)
}

impl PodTask {
    /// What a container is promised.
    pub(super) fn resources_of(&self, name: &str) -> core::ResourceRequirements {
        containers_of(self.context.spec()).find(|container| container.name == name).map(own).unwrap_or_default()
    }

    /// Notes what is wished, and leaves what is promised as it was, for containers that are known already.
    pub(super) fn hold_back(&mut self, pod: &mut core::Pod) {
        self.wished = containers_mut(pod).map(|container| (container.name.clone(), own(container))).collect();
        for container in containers_mut(pod) {
            let known = containers_of(self.context.spec()).find(|known| known.name == container.name);
            if let Some(known) = known {
                container.resources.clone_from(&known.resources);
            }
        }
    }

    /// What an earlier agent has given the containers is what is promised.
    pub(super) fn recall_resources(&mut self) {
        let pod = Arc::make_mut(&mut self.context.pod);
        self.wished = containers_mut(pod).map(|container| (container.name.clone(), own(container))).collect();
        for container in containers_mut(pod) {
            let applied = self.tracks.get(&container.name).and_then(|track| track.applied.clone());
            if let Some(applied) = applied {
                container.resources = Some(applied);
            }
        }
    }

    /// Promises what is wished and carries out what is promised. Returns when to look again.
    pub(super) fn look_at_resize(&mut self) -> Option<Instant> {
        let is_up = matches!(self.ground, Ground::Up(_));
        if self.ending.is_some() || self.failure.is_some() || self.ground == Ground::Left {
            self.resizing = Resizing::Done;
            return None;
        }
        if self.work.is_busy(&Slot::Resize) {
            return None;
        }
        let now = Instant::now();
        if !self.resize_retry.is_due(now) {
            return self.resize_retry.retry_at();
        }
        let waits = (!self.promise()).then_some(now + ROOM_LOOK_EVERY);
        if is_up {
            self.apply();
        }
        waits
    }

    /// Z1. `false` when there is no room.
    fn promise(&mut self) -> bool {
        let wished = |container: &core::Container| self.wished.get(&container.name);
        let differs =
            |container: &&core::Container| wished(container).is_some_and(|wished| !same(wished, &own(container)));
        if !containers_of(self.context.spec()).any(|container| differs(&container)) {
            self.write_as_wished();
            if matches!(self.resizing, Resizing::Pending { .. }) {
                self.resizing = Resizing::Done;
            }
            return true;
        }
        let mut pod = (*self.context.pod).clone();
        for container in containers_mut(&mut pod) {
            container.resources = self.wished.get(&container.name).cloned();
        }
        let shared = &self.context.shared;
        if shared.cpus.are_given() && resources::quality(self.context.spec()) == Quality::Guaranteed {
            let cpu = |pod: &core::Pod| resources::promised(pod.spec.as_ref().expect("it has one")).cpu_millis;
            if cpu(&pod) != cpu(&self.context.pod) {
                let message = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"";
                self.wait_for_room(Resizing::Pending { reason: "Infeasible", message: message.to_owned() });
                return false;
            }
        }
        let wanted = resources::promised(pod.spec.as_ref().expect("a pod without a spec is not taken in"));
        let has = shared.node_facts().allocatable;
        let resizing = match shared.budget.take(&self.context.uid, wanted, has, shared.config.pods_max) {
            Ok(()) => {
                self.context.pod = Arc::new(pod);
                self.resizing = Resizing::InProgress { trouble: None };
                self.context.note(EventKind::Normal, "ResizeStarted", "Pod resize has started");
                return true;
            }
            Err(short) if short.requested > short.capacity => Resizing::Pending {
                reason: "Infeasible",
                message: format!(
                    "Node didn't have enough capacity: {}, requested: {}, capacity: {}",
                    short.resource, short.requested, short.capacity
                ),
            },
            Err(short) => Resizing::Pending {
                reason: "Deferred",
                message: format!(
                    "Node didn't have enough resource: {}, requested: {}, used: {}, capacity: {}",
                    short.resource, short.requested, short.used, short.capacity
                ),
            },
        };
        self.wait_for_room(resizing);
        false
    }

    /// Tells why what is wished is not promised.
    fn wait_for_room(&mut self, resizing: Resizing) {
        if let Resizing::Pending { reason, message } = &resizing
            && self.resizing != resizing
        {
            let event = if *reason == "Infeasible" { "ResizeInfeasible" } else { "ResizeDeferred" };
            self.context.note(EventKind::Warning, event, message.clone());
        }
        self.resizing = resizing;
    }

    /// The same amounts, written otherwise, are taken over as they are written.
    fn write_as_wished(&mut self) {
        let wished = self.wished.clone();
        let differs =
            |container: &core::Container| wished.get(&container.name).is_some_and(|one| *one != own(container));
        if !containers_of(self.context.spec()).any(differs) {
            return;
        }
        for container in containers_mut(Arc::make_mut(&mut self.context.pod)) {
            let Some(text) = wished.get(&container.name) else { continue };
            if let Some(track) = self.tracks.get_mut(&container.name)
                && track.applied.as_ref().is_some_and(|applied| same(applied, text))
            {
                track.applied = Some(text.clone());
            }
            container.resources = Some(text.clone());
        }
    }

    /// Z2, Z3, Z4.
    fn apply(&mut self) {
        let mut changes = Vec::new();
        let (mut moved, mut resized) = (Vec::new(), false);
        let mut again = Vec::new();
        let mut starting = false;
        // What those containers have that get something else.
        let mut had = BTreeMap::new();
        for container in containers_of(self.context.spec()) {
            let track = &self.tracks[&container.name];
            let Some(applied) = track.applied.clone() else { continue };
            let promised = own(container);
            let cpus = self.context.shared.cpus.of(&self.context.uid, &container.name, track.cpus);
            let is_same = same(&applied, &promised);
            if is_same && (cpus == track.cpus || !track.is_running()) {
                continue;
            }
            resized |= !is_same;
            if !track.is_running() {
                let code = track.ended().map_or(0, |ended| ended.exit.code);
                starting |= runs_again(self.context.spec(), container, false, code);
                continue;
            }
            match restarts(container, &applied, &promised) {
                true => again.push(container.name.clone()),
                false => {
                    let limits = Resources { cpus, ..resources::of_container(container) };
                    changes.push((format!("{}.{}", container.name, track.attempt), limits));
                    moved.extend(cpus.map(|cpus| (container.name.clone(), cpus)));
                }
            }
            had.insert(container.name.clone(), applied);
        }
        if changes.is_empty() && again.is_empty() && !starting {
            if matches!(self.resizing, Resizing::InProgress { .. }) {
                self.resizing = Resizing::Done;
                self.context.note(EventKind::Normal, "ResizeCompleted", "Pod resize completed");
            }
            return;
        }
        let news = again.iter().any(|name| self.tracks[name].condemned.is_none());
        for name in &again {
            let track = self.track(name);
            track.condemned = Some(format!("Container {name} resize requires restart"));
            // It does as it is told: that is no crash.
            track.crash = CrashBackoff::default();
        }
        if changes.is_empty() && !news {
            return;
        }
        if resized && !matches!(self.resizing, Resizing::InProgress { .. } | Resizing::Pending { .. }) {
            self.resizing = Resizing::InProgress { trouble: None };
        }
        let mut before = (*self.context.pod).clone();
        for container in containers_mut(&mut before) {
            if let Some(applied) = had.remove(&container.name) {
                container.resources = Some(applied);
            }
        }
        let before = resources::of_pod(before.spec.as_ref().expect("a pod without a spec is not taken in"));
        let resize = Resize { before, after: resources::of_pod(self.context.spec()), containers: changes };
        let context = self.context.clone();
        self.work.begin(Slot::Resize, async move {
            Outcome::Resized(context.shared.machine.resize(&context.uid, &resize).await.map(|()| moved))
        });
    }

    pub(super) fn resized(&mut self, resized: Result<Vec<(String, CpuSet)>, MachineError>) {
        let moved = match resized {
            Ok(moved) => moved,
            Err(error) => {
                self.resize_retry.failed(Instant::now());
                self.context.note(EventKind::Warning, "ResizeError", error.to_string());
                if matches!(self.resizing, Resizing::InProgress { .. }) {
                    self.resizing = Resizing::InProgress { trouble: Some(error.to_string()) };
                }
                return;
            }
        };
        for (name, cpus) in moved {
            self.track(&name).cpus = Some(cpus);
        }
        self.resize_retry.reset();
        if let Resizing::InProgress { trouble } = &mut self.resizing {
            *trouble = None;
        }
        let spec = self.context.spec().clone();
        for container in containers_of(&spec) {
            let promised = own(container);
            let track = self.track(&container.name);
            let Some(applied) = track.applied.as_ref().filter(|_| track.is_running()) else { continue };
            if !restarts(container, applied, &promised) {
                track.applied = Some(promised);
            }
        }
    }
}

/// Z3: whether what changes is something the container wants to be started again for.
fn restarts(
    container: &core::Container,
    applied: &core::ResourceRequirements,
    promised: &core::ResourceRequirements,
) -> bool {
    let amount = |resources: &core::ResourceRequirements, noun: &str| {
        let of = |map: &Option<BTreeMap<String, Quantity>>| map.as_ref()?.get(noun)?.0.parse::<Amount>().ok();
        (of(&resources.requests), of(&resources.limits))
    };
    container.resize_policy.iter().flatten().any(|policy| {
        policy.restart_policy == "RestartContainer"
            && amount(applied, &policy.resource_name) != amount(promised, &policy.resource_name)
    })
}

#[cfg(test)]
mod tests {
    use super::{restarts, same};
    use serde_json::{Value, json};
    use windlass_api::types::core;

    #[test]
    fn amounts_written_otherwise_are_the_same() {
        let read = |cpu: &str, memory: &str| -> core::ResourceRequirements {
            serde_json::from_value(json!({"requests": {"cpu": cpu, "memory": memory}})).expect("resources")
        };
        assert!(same(&read("50m", "32Mi"), &read("0.05", "32768Ki")));
        assert!(!same(&read("50m", "32Mi"), &read("51m", "32Mi")));
        assert!(!same(&read("50m", "32Mi"), &core::ResourceRequirements::default()));
    }

    #[test]
    fn z3_only_what_the_policy_names_starts_a_container_again() {
        let read =
            |resources: Value| -> core::ResourceRequirements { serde_json::from_value(resources).expect("resources") };
        let container = json!({"name": "a", "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"}]});
        let container: core::Container = serde_json::from_value(container).expect("a container");
        let before = read(json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
        let cpu = read(json!({"requests": {"cpu": "2", "memory": "1Gi"}}));
        let memory = read(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}));
        assert!(!restarts(&container, &before, &cpu));
        assert!(restarts(&container, &before, &memory));
        assert!(!restarts(&container, &before, &before));
    }
}
