//! What the end of each piece of work means for the pod.

use tokio::time::Instant;
use windlass_api::Object;
use windlass_client::{ClientError, EventKind};

use super::PodTask;
use super::work::{Outcome, Slot};
use crate::machine::MachineError;
use crate::plan::{Ground, ImageFacts, Trouble};
use crate::probe::{ProbeKind, ProbeResult};
use crate::steps::StepError;
use crate::steps::container::{StartError, Started};

impl PodTask {
    pub(super) async fn conclude(&mut self, slot: Slot, outcome: Outcome) {
        match (slot, outcome) {
            (_, Outcome::Raised(raised)) => self.raised(raised).await,
            (_, Outcome::Cleared(Ok(()))) => self.ground = Ground::Down,
            (_, Outcome::Cleared(Err(error))) => {
                self.ground = Ground::Broken;
                self.not_down(&error);
            }
            (_, Outcome::Left(Ok(()))) => {
                self.ground = Ground::Left;
                self.give_back();
            }
            (_, Outcome::Left(Err(error))) => self.not_down(&error),
            (Slot::Container(name), Outcome::Started(started)) => self.started(&name, started).await,
            (Slot::Container(name), Outcome::Stopped(stopped)) => {
                self.track(&name).busy = None;
                if let Err(why) = stopped {
                    let message = format!("error killing container {name:?}: {why}");
                    self.context.note_container(&name, EventKind::Warning, "FailedKillPod", message);
                }
                self.observe(false).await;
            }
            (Slot::Probe(name, kind), Outcome::Probed(result)) => self.probed(&name, kind, result),
            (Slot::Sweep(name), Outcome::Swept(Err(error))) => {
                tracing::warn!(pod = self.header.key(), container = name, %error, "an earlier attempt was not removed");
            }
            (_, Outcome::Resized(resized)) => self.resized(resized),
            (_, Outcome::Filled(Ok(()))) => self.volumes_retry.reset(),
            (_, Outcome::Filled(Err(StepError { reason, message }))) => {
                self.volumes_retry.failed(Instant::now());
                self.context.note(EventKind::Warning, reason, message);
            }
            (_, Outcome::Counted(counted)) => self.counted(counted),
            (_, Outcome::Written(written)) => self.written(written),
            (_, Outcome::MirrorDeleted(Err(error))) if !error.is_not_found() && !error.is_conflict() => {
                self.written(Err(error));
            }
            (_, Outcome::MirrorDeleted(_)) => {}
            (_, Outcome::Tended(tends)) => self.tends = tends,
            (_, Outcome::Saved(Err(error))) => {
                tracing::warn!(pod = self.header.key(), %error, "the pod's record was not kept");
            }
            (_, Outcome::Removed(Ok(()))) => {
                self.is_removed = true;
                self.give_back();
            }
            (_, Outcome::Removed(Err(error))) => {
                self.remove_retry.failed(Instant::now());
                self.context.note(EventKind::Warning, "FailedKillPod", format!("error killing pod: {error}"));
            }
            (_, Outcome::Deleted(Ok(()))) => self.is_deleted = true,
            (_, Outcome::Deleted(Err(error))) => {
                self.remove_retry.failed(Instant::now());
                tracing::warn!(pod = self.header.key(), %error, "the ended pod was not deleted; it is tried again");
            }
            (_, Outcome::Swept(Ok(())) | Outcome::Saved(Ok(()))) => {}
            (slot, outcome) => unreachable!("{outcome:?} is no outcome of {slot:?}"),
        }
    }

    /// The pod needs nothing of the node any more.
    pub(super) fn give_back(&self) {
        let shared = &self.context.shared;
        shared.budget.give_back(&self.context.uid);
        shared.cpus.give_back(&self.context.uid);
        shared.devices.give_back(&self.context.uid);
    }

    async fn raised(&mut self, raised: Result<crate::steps::Ground, StepError>) {
        match raised {
            Ok(ground) => {
                self.ground = Ground::Up(ground.addresses);
                self.ground_retry.reset();
                self.observe(false).await;
            }
            Err(StepError { reason, message }) => {
                self.ground = Ground::Down;
                let wait = self.ground_retry.failed(Instant::now());
                tracing::info!(
                    pod = self.header.key(),
                    why = message,
                    wait_ms = wait.as_millis(),
                    "the pod is not up yet"
                );
                self.context.note(EventKind::Warning, reason, message);
            }
        }
    }

    fn not_down(&mut self, error: &MachineError) {
        self.ground_retry.failed(Instant::now());
        self.context.note(EventKind::Warning, "FailedKillPod", format!("error killing pod: {error}"));
    }

    async fn started(&mut self, name: &str, started: Result<Started, StartError>) {
        self.track(name).busy = None;
        match started {
            Ok(Started { image, digest, stop_signal, user, cpus, hook_failure }) => {
                self.track(name).applied = Some(self.resources_of(name));
                self.track(name).cpus = cpus;
                self.track(name).image = ImageFacts { id: image, digest, stop_signal, user: Some(user) };
                self.observe(false).await;
                let track = self.track(name);
                if track.is_running() {
                    track.condemned = hook_failure;
                }
                self.sweep(name);
            }
            Err(StartError::Run(message)) => {
                self.observe(false).await;
                let error = StartError::Run(message);
                match self.tracks[name].ended() {
                    // It counts as an attempt that failed: the back-off is that of a crash.
                    Some(_) => {
                        let message = error.message().to_owned();
                        let trouble = Trouble { reason: error.reason(), message, since: Instant::now() };
                        self.track(name).trouble = Some(trouble);
                    }
                    None => self.not_started(name, error),
                }
            }
            Err(error) => self.not_started(name, error),
        }
    }

    fn not_started(&mut self, name: &str, error: StartError) {
        let now = Instant::now();
        let track = self.track(name);
        if track.trouble.as_ref().is_some_and(|trouble| trouble.reason != error.reason()) {
            track.retry.reset();
        }
        let wait = track.retry.failed(now);
        let trouble = Trouble { reason: error.reason(), message: error.message().to_owned(), since: now };
        tracing::info!(
            pod = self.header.key(),
            container = name,
            reason = trouble.reason,
            why = trouble.message,
            wait_ms = wait.as_millis(),
            "container not started"
        );
        self.track(name).trouble = Some(trouble);
        if let StartError::Image(_) = error {
            let image = self.context.container(name);
            let image = image.and_then(|container| container.image.clone()).unwrap_or_default();
            let message = format!("Back-off pulling image {image:?}");
            self.context.note_container(name, EventKind::Normal, "BackOff", message);
        }
    }

    /// Removes what attempts before the last one left; the last one's log stays for `kubectl logs --previous`.
    fn sweep(&mut self, name: &str) {
        let attempt = self.tracks[name].attempt;
        let Some(previous) = attempt.checked_sub(1) else { return };
        let context = self.context.clone();
        let name = name.to_owned();
        self.work.begin(Slot::Sweep(name.clone()), async move {
            let machine = &context.shared.machine;
            let removed = match machine.remove(&context.uid, &format!("{name}.{previous}")).await {
                Err(MachineError::NotFound { .. }) => Ok(()),
                other => other,
            };
            let logs = match previous.checked_sub(1) {
                Some(older) => machine.remove_logs(&context.uid, &format!("{name}.{older}")).await,
                None => Ok(()),
            };
            Outcome::Swept(removed.and(logs))
        });
    }

    fn probed(&mut self, name: &str, kind: ProbeKind, result: ProbeResult) {
        let Some(container) = self.context.container(name) else {
            return;
        };
        let Some(probe) = kind.of(container).cloned() else { return };
        match &result {
            ProbeResult::Success => {}
            ProbeResult::Failure(why) => {
                let message = format!("{} probe failed: {}", kind.title(), why.trim_end());
                self.context.note_container(name, EventKind::Warning, "Unhealthy", message);
            }
            ProbeResult::Unknown(why) => {
                let message = format!("{} probe errored: {why}", kind.title());
                self.context.note_container(name, EventKind::Warning, "Unhealthy", message);
            }
        }
        let now = Instant::now();
        let track = self.track(name);
        track.probing.retain(|probing| *probing != kind);
        let Some(state) = track.probes.get_mut(&kind) else { return };
        let changed = state.take_in(&probe, &result, now);
        let verdict = state.verdict;
        if !changed {
            return;
        }
        tracing::info!(
            pod = self.header.key(),
            container = name,
            probe = kind.title(),
            ?verdict,
            "probe verdict changed"
        );
        if verdict == Some(false) && kind != ProbeKind::Readiness {
            let word = kind.title().to_lowercase();
            self.track(name).condemned = Some(format!("Container {name} failed {word} probe, will be restarted"));
        }
    }

    fn written(&mut self, written: Result<Box<Object>, ClientError>) {
        match written {
            Ok(object) => {
                self.status_retry.reset();
                match self.likeness.is_some() {
                    true => self.look_at_mirror(Some(&object)),
                    false => self.take_in_object(&object),
                }
                if self.current["phase"] != "Pending" {
                    self.context.shared.starts.over(&self.context.uid);
                }
            }
            Err(error) => {
                let wait = self.status_retry.failed(Instant::now());
                tracing::debug!(pod = self.header.key(), %error, wait_ms = wait.as_millis(), "status not written");
            }
        }
    }
}
