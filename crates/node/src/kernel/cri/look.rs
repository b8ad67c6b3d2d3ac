//! Looking at what another runtime has: states, ends, what is used and written; and turning logs over.
//!
//! Rules
//!   S1 polled    runtimes of CRI v1 need not tell of changes, so they are asked every second, once for all pods; what the
//!                node does itself it tells at once
//!   S2 unknown   what the runtime does not say is not made up: a pod whose runtime does not answer has no state, not an end
//!   S3 logs      a log is turned over at the size, and as often, as every other container's

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use windlass_runtime::{Exit, ExitReason, LogSpec};

use super::super::{file_error, off_the_runtime};
use super::calls::{ListedContainer, ListedSandbox, Status, stage, time};
use super::{Client, Cri, CriPod, config};
use crate::machine::{ContainerState, ContainerStatus, Held, MachineError, Observed, PodDisk, PodUsage};

/// S1.
const INTERVAL: Duration = Duration::from_secs(1);
/// A log is looked at each so many looks.
const LOG_LOOKS: u32 = 10;

/// What is there of a pod, as far as a change of it concerns somebody.
type Picture = BTreeMap<String, Vec<(String, i64)>>;

/// Tells of changes as long as somebody uses the pods.
pub async fn watch(cri: Weak<Cri>) {
    let mut timer = tokio::time::interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: BTreeMap<Client, Picture> = BTreeMap::new();
    let mut looks = 0;
    loop {
        timer.tick().await;
        let Some(cri) = cri.upgrade() else { return };
        looks = (looks + 1) % LOG_LOOKS;
        let mut pods: BTreeMap<Client, Vec<Arc<CriPod>>> = BTreeMap::new();
        for pod in cri.all() {
            pods.entry(pod.client.clone()).or_default().push(pod);
        }
        before.retain(|client, _| pods.contains_key(client));
        for (client, pods) in pods {
            match cri.look(&client).await {
                Ok((picture, containers)) => {
                    if looks == 0 {
                        cri.turn_logs_over(&pods, &containers).await;
                    }
                    let old = before.insert(client, picture.clone()).unwrap_or_default();
                    for pod in pods.iter().filter(|pod| old.get(&pod.uid) != picture.get(&pod.uid)) {
                        // Nobody need listen.
                        let _ = cri.changes.send(pod.uid.clone());
                    }
                }
                Err(error) => tracing::warn!(%error, "a runtime does not say what it has"),
            }
        }
        let there: BTreeSet<&String> = before.values().flat_map(BTreeMap::values).flatten().map(|(id, _)| id).collect();
        cri.seen.lock().expect("nothing panics while holding it").retain(|id, _| there.contains(id));
    }
}

impl Cri {
    async fn look(&self, client: &Client) -> Result<(Picture, Vec<ListedContainer>), MachineError> {
        let labels = BTreeMap::from([(config::INSTANCE.to_owned(), self.instance.clone())]);
        let (sandboxes, containers) = (client.sandboxes(&labels).await?, client.containers(&labels).await?);
        let mut picture = Picture::new();
        let own = |labels: &BTreeMap<String, String>| labels.get(config::POD).cloned().unwrap_or_default();
        for ListedSandbox { id, is_ready, labels } in &sandboxes {
            picture.entry(own(labels)).or_default().push((id.clone(), i64::from(*is_ready)));
        }
        for ListedContainer { id, stage, labels, .. } in &containers {
            picture.entry(own(labels)).or_default().push((id.clone(), *stage));
        }
        picture.values_mut().for_each(|all| all.sort());
        Ok((picture, containers))
    }

    /// What there is of the pod.
    pub async fn observe(&self, pod: &CriPod) -> Result<Observed, MachineError> {
        let labels = self.labels(&pod.uid);
        let sandbox_alive = self.is_alive(pod).await?;
        let mut containers = Vec::new();
        for listed in pod.client.containers(&labels).await? {
            let Some(id) = listed.labels.get(config::CONTAINER).cloned() else { continue };
            if let Some(state) = self.state(pod, &listed).await? {
                containers.push(ContainerStatus { id, state });
            }
        }
        Ok(Observed { sandbox_alive, damage: None, containers })
    }

    /// `None` for a container that went meanwhile.
    async fn state(&self, pod: &CriPod, listed: &ListedContainer) -> Result<Option<ContainerState>, MachineError> {
        let is_same = |state: &ContainerState| match state {
            ContainerState::Created => listed.stage == stage::CREATED,
            ContainerState::Running { .. } => listed.stage == stage::RUNNING,
            ContainerState::Exited(_) => listed.stage >= stage::EXITED,
        };
        let known = self.seen.lock().expect("nothing panics while holding it").get(&listed.id).cloned();
        if let Some(known) = known.filter(is_same) {
            return Ok(Some(known));
        }
        let status = match pod.client.status(&listed.id).await {
            Ok(status) => status,
            Err(error) => {
                // It may have been removed since it was listed.
                let again = pod.client.containers(&self.labels(&pod.uid)).await?;
                return if again.iter().any(|other| other.id == listed.id) { Err(error) } else { Ok(None) };
            }
        };
        let state = state_of(&status);
        self.seen.lock().expect("nothing panics while holding it").insert(listed.id.clone(), state.clone());
        Ok(Some(state))
    }

    /// What the pod's containers use now.
    pub async fn usage(&self, pod: &CriPod) -> Result<PodUsage, MachineError> {
        let listed = pod.client.containers(&self.labels(&pod.uid)).await?;
        let running = listed.into_iter().filter(|container| container.stage == stage::RUNNING);
        let ids: BTreeMap<String, String> =
            running.filter_map(|mut found| Some((found.labels.remove(config::CONTAINER)?, found.id))).collect();
        let groups = self.groups(&pod.uid);
        off_the_runtime(move || Ok(groups.usage(&ids))).await
    }

    /// Adds what the containers have written into their layers, which the runtime keeps.
    pub async fn add_layers(&self, pod: &CriPod, disk: &mut PodDisk) -> Result<(), MachineError> {
        let labels = self.labels(&pod.uid);
        let layers = pod.client.layers(&labels).await?;
        for listed in pod.client.containers(&labels).await? {
            let own = listed.labels.get(config::CONTAINER).zip(layers.get(&listed.id));
            if let Some((id, layer)) = own {
                disk.layers.insert(id.clone(), Held { bytes: layer.bytes, files: layer.files, is_whole: true });
            }
        }
        Ok(())
    }

    /// S3.
    async fn turn_logs_over(&self, pods: &[Arc<CriPod>], containers: &[ListedContainer]) {
        for container in containers.iter().filter(|container| container.stage == stage::RUNNING) {
            let own = container.labels.get(config::POD).zip(container.labels.get(config::CONTAINER));
            let Some((uid, id)) = own else { continue };
            let Some(pod) = pods.iter().find(|pod| pod.uid == *uid) else { continue };
            let Ok(path) = self.layout.log(uid, id) else { continue };
            let turned = off_the_runtime(move || turn_over(&LogSpec::new(path))).await;
            let reopened = match turned {
                Ok(false) => Ok(()),
                Ok(true) => pod.client.reopen_log(&container.id).await,
                Err(error) => Err(error),
            };
            if let Err(error) = reopened {
                tracing::warn!(pod = uid, container = id, %error, "a log could not be turned over");
            }
        }
    }
}

/// Moves a log that is full out of the way; whether it is, by now or since an earlier time, and a new one is to be opened.
fn turn_over(log: &LogSpec) -> Result<bool, MachineError> {
    match std::fs::metadata(&log.path) {
        // It was moved, and then its runtime did not answer.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Ok(found) if found.len() > log.bytes_max => {}
        _ => return Ok(false),
    }
    let part = |number: u32| match number {
        0 => log.path.clone(),
        number => {
            let mut name = log.path.clone().into_os_string();
            name.push(format!(".{number}"));
            name.into()
        }
    };
    let move_on = |from: &Path, to: &Path| match std::fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error("move", from, &error)),
        _ => Ok(()),
    };
    for number in (0..log.files_max.saturating_sub(1)).rev() {
        move_on(&part(number), &part(number + 1))?;
    }
    Ok(true)
}

fn state_of(status: &Status) -> ContainerState {
    let created = time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH);
    match status.stage {
        stage::CREATED => ContainerState::Created,
        stage::RUNNING => {
            ContainerState::Running { pid: status.pid().unwrap_or(0), at: time(status.started_at).unwrap_or(created) }
        }
        other => {
            let reason = match status.reason.as_str() {
                "OOMKilled" => ExitReason::OutOfMemory,
                "StartError" => ExitReason::StartFailed,
                "Unknown" => ExitReason::Unknown,
                _ if other != stage::EXITED => ExitReason::Unknown,
                _ => ExitReason::Ended,
            };
            ContainerState::Exited(Exit {
                code: i32::try_from(status.exit_code).unwrap_or(255),
                signal: None,
                oom: reason == ExitReason::OutOfMemory,
                reason,
                message: status.message.clone(),
                started_at: time(status.started_at).filter(|_| reason != ExitReason::StartFailed),
                finished_at: time(status.finished_at).unwrap_or(created),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Status, stage, state_of, turn_over};
    use crate::machine::ContainerState;
    use windlass_runtime::{ExitReason, LogSpec};

    #[test]
    fn an_end_has_the_reason_that_the_runtime_gives() {
        let ended = |stage: i64, reason: &str, code: i64| {
            let status = Status {
                stage,
                created_at: 1,
                started_at: 2,
                finished_at: 3_000_000_000,
                exit_code: code,
                reason: reason.to_owned(),
                ..Status::default()
            };
            match state_of(&status) {
                ContainerState::Exited(exit) => (exit.reason, exit.code, exit.oom, exit.started_at.is_some()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ended(stage::EXITED, "Completed", 0), (ExitReason::Ended, 0, false, true));
        assert_eq!(ended(stage::EXITED, "Error", 3), (ExitReason::Ended, 3, false, true));
        assert_eq!(ended(stage::EXITED, "OOMKilled", 137), (ExitReason::OutOfMemory, 137, true, true));
        assert_eq!(ended(stage::EXITED, "StartError", 128), (ExitReason::StartFailed, 128, false, false));
        assert_eq!(ended(stage::EXITED, "Unknown", 255), (ExitReason::Unknown, 255, false, true));
        assert_eq!(ended(3, "", 0), (ExitReason::Unknown, 0, false, true));
    }

    #[test]
    fn s3_a_full_log_moves_on_and_the_oldest_part_goes() {
        let directory = std::env::temp_dir().join(format!("windlass-cri-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let log = LogSpec { path: directory.join("0.log"), bytes_max: 4, files_max: 3 };
        let write = |text: &str| std::fs::write(&log.path, text).expect("a file");
        write("abcd");
        assert_eq!(turn_over(&log), Ok(false));
        for text in ["first", "second", "third"] {
            write(text);
            assert_eq!(turn_over(&log), Ok(true));
        }
        // Nobody has opened it anew: it is asked for again, and nothing is moved.
        assert_eq!(turn_over(&log), Ok(true));
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
        assert_eq!((read("0.log"), read("0.log.1").as_deref()), (None, Some("third")));
        assert_eq!((read("0.log.2").as_deref(), read("0.log.3")), (Some("second"), None));
        std::fs::remove_dir_all(&directory).expect("our own directory");
    }
}
