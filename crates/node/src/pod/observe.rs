//! A look at the machine: what has become of the pod's sandbox and containers.
//!
//! The machine only hints that something changed; this looks at all of it, so a lost hint is made good by the next.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use windlass_client::EventKind;

use super::PodTask;
use super::work::Slot;
use crate::machine::{ContainerState, ContainerStatus, Exit, MessageSource, lost_exit};
use crate::plan::{Busy, Ended, Ground, ImageFacts, Stage, asked_at, begins_anew, runs_again};
use crate::probe::{ProbeKind, ProbeState};
use crate::steps::container::containers_of;

impl PodTask {
    /// Looks at the machine. The first look takes over what an earlier agent left.
    pub(super) async fn observe(&mut self, first: bool) {
        let observed = match self.context.shared.machine.observe(&self.context.uid).await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(pod = self.header.key(), %error, "the machine could not be looked at");
                return;
            }
        };
        if first
            && observed.sandbox_alive
            && let (Ground::Down, Some(known)) = (&self.ground, &self.saved)
            && !known.addresses.is_empty()
        {
            self.ground = Ground::Up(known.addresses.clone());
        }
        if matches!(self.ground, Ground::Up(_)) && !observed.sandbox_alive {
            self.ground = Ground::Broken;
            if let Some(why) = observed.damage {
                self.context.note(EventKind::Warning, "SandboxDamaged", format!("Pod sandbox is damaged: {why}"));
            }
        }
        for name in self.tracks.keys().cloned().collect::<Vec<_>>() {
            self.observe_container(&name, newest(&observed.containers, &name), first).await;
            if first || self.tracks[&name].ended().is_some() {
                self.recall_image(&name).await;
            }
        }
        // In a sandbox that has run anything there is some container: the last attempts stay until the sandbox goes.
        if matches!(self.ground, Ground::Up(_)) && observed.sandbox_alive && observed.containers.is_empty() {
            self.begin_on_new_ground().await;
        }
    }

    /// The sandbox is new: what the init containers have done may have gone with the old one.
    async fn begin_on_new_ground(&mut self) {
        let mut names = begins_anew(self.context.spec(), &self.tracks);
        names.retain(|name| !self.tracks[name].anew);
        if names.is_empty() || self.ending.is_some() {
            return;
        }
        tracing::info!(pod = self.header.key(), why = "its sandbox is new", "the pod begins with its init containers");
        for name in names {
            self.track(&name).anew = true;
        }
        // The next agent, which finds a container in this sandbox, must not take the old ones' work for done.
        self.keep_now().await;
    }

    /// What runs from which image is learnt when its start is over; an agent that ended just before that has not kept it, and
    /// what is over before its start nobody waits for.
    async fn recall_image(&mut self, name: &str) {
        let track = &self.tracks[name];
        let container = self.context.container(name);
        let Some(image) = container.and_then(|container| container.image.clone()) else { return };
        if !track.image.id.is_empty() || track.stage == Stage::Absent {
            return;
        }
        match self.context.shared.machine.find_image(&image).await {
            Ok(Some(found)) => {
                let id = format!("{name}.{}", self.tracks[name].attempt);
                let user = self.context.shared.machine.user(&self.context.uid, &id).await.ok();
                let facts = ImageFacts { id: found.id, digest: found.digest, stop_signal: found.stop_signal, user };
                self.track(name).image = facts;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(pod = self.header.key(), container = name, %error, "its image is not known"),
        }
    }

    async fn observe_container(&mut self, name: &str, found: Option<(u32, &ContainerState)>, first: bool) {
        let track = &self.tracks[name];
        match (found, &track.stage) {
            // An older attempt that has not been swept yet.
            (Some((attempt, _)), Stage::Ended(ended)) if attempt <= ended.attempt => {}
            (Some((attempt, ContainerState::Running { .. })), Stage::Running { .. })
                if attempt == track.attempt && !first => {}
            (Some((attempt, ContainerState::Running { at, .. })), _) => self.began(name, attempt, *at, first),
            (Some((attempt, ContainerState::Exited(exit))), _) => self.ended(name, attempt, exit.clone()).await,
            (Some((_, ContainerState::Created)) | None, Stage::Running { .. }) => {
                let exit = lost_exit(self.context.shared.world.now());
                self.ended(name, self.tracks[name].attempt, exit).await;
            }
            (Some((_, ContainerState::Created)) | None, _) => {}
        }
    }

    fn began(&mut self, name: &str, attempt: u32, since: Timestamp, adopted: bool) {
        let now = Instant::now();
        self.abandon_probes(name);
        let ready_before = adopted.then(|| self.was(name, "ready"));
        let started_before = adopted.then(|| self.was(name, "started"));
        let container = self.context.container(name).cloned();
        let track = self.track(name);
        if let Stage::Ended(ended) = &track.stage {
            track.last = Some(ended.clone());
        }
        track.attempt = attempt;
        track.stage = Stage::Running { since };
        track.trouble = None;
        track.retry.reset();
        track.restart_at = None;
        track.condemned = None;
        track.anew = false;
        track.probes.clear();
        for kind in ProbeKind::ALL {
            let Some(probe) = container.as_ref().and_then(|container| kind.of(container)) else { continue };
            let mut state = ProbeState::begin(probe, now);
            // An agent that was away goes on with what it said before: nothing has happened to the container.
            state.verdict = match kind {
                ProbeKind::Readiness => ready_before.filter(|ready| *ready),
                ProbeKind::Startup => started_before.filter(|started| *started),
                ProbeKind::Liveness => None,
            };
            track.probes.insert(kind, state);
        }
    }

    /// What the status says of a container's field.
    fn was(&self, name: &str, field: &str) -> bool {
        let lists = [&self.current["containerStatuses"], &self.current["initContainerStatuses"]];
        let mut all = lists.into_iter().filter_map(serde_json::Value::as_array).flatten();
        all.any(|status| status["name"] == name && status[field] == true)
    }

    async fn ended(&mut self, name: &str, attempt: u32, exit: Exit) {
        let container = self.context.container(name).cloned();
        let from = match container.as_ref().and_then(|container| container.termination_message_policy.as_deref()) {
            Some("FallbackToLogsOnError") if exit.code != 0 => MessageSource::FileOrLog,
            _ => MessageSource::File,
        };
        let id = format!("{name}.{attempt}");
        let message = self.context.shared.machine.last_words(&self.context.uid, &id, from).await;
        let message = message.unwrap_or_else(|error| {
            tracing::debug!(pod = self.header.key(), container = id, %error, "no last words");
            String::new()
        });
        self.abandon_probes(name);
        let ran = exit.started_at.map(|began| exit.finished_at.duration_since(began));
        let ran = ran.and_then(|ran| Duration::try_from(ran).ok()).unwrap_or_default();
        let code = exit.code;
        let track = self.track(name);
        if let Stage::Ended(ended) = &track.stage {
            track.last = Some(ended.clone());
        }
        let was_running = track.is_running();
        // A run so short that nobody saw it going on was one all the same.
        track.anew &= attempt <= track.attempt;
        track.attempt = attempt;
        track.stage = Stage::Ended(Ended { attempt, exit, message });
        track.condemned = None;
        let wait = track.crash.ended(ran);
        track.restart_wait = wait;
        track.restart_at = (!wait.is_zero()).then(|| Instant::now() + wait);
        // A hook of a container that is over has nobody to talk to.
        if was_running && let Some(Busy::Start | Busy::Stop) = track.busy.take() {
            self.work.abandon(&Slot::Container(name.to_owned()));
        }
        self.tell_of_end(name, code, wait);
        if self.ending.is_none()
            && self.context.container(name).and_then(|it| asked_at(it, code)) == Some("RestartAllContainers")
        {
            self.begin_anew(name);
        }
    }

    /// All containers end and run again, on the same ground.
    fn begin_anew(&mut self, asked_by: &str) {
        let names: Vec<String> = containers_of(self.context.spec()).map(|container| container.name.clone()).collect();
        if !names.iter().any(|name| name == asked_by) {
            // A visitor has no say.
            return;
        }
        for name in names {
            if self.tracks[&name].busy == Some(Busy::Start) && !self.tracks[&name].is_running() {
                self.work.abandon(&Slot::Container(name.clone()));
                self.track(&name).busy = None;
            }
            let track = self.track(&name);
            track.anew |= track.stage != Stage::Absent;
        }
        let message = format!("Container {asked_by} asks for a restart of all containers of the pod");
        self.context.note(EventKind::Normal, "RestartAllContainers", message);
    }

    fn tell_of_end(&self, name: &str, code: i32, wait: Duration) {
        let spec = self.context.spec();
        let is_init = spec.init_containers.iter().flatten().any(|container| container.name == name);
        let container = self.context.container(name);
        let again = container.is_some_and(|container| runs_again(spec, container, is_init, code));
        tracing::info!(
            pod = self.header.key(),
            container = name,
            code,
            again,
            wait_ms = wait.as_millis(),
            "container ended"
        );
        if again && !wait.is_zero() && self.ending.is_none() {
            let (pod, namespace, uid) = (self.context.name(), self.context.namespace(), &self.context.uid);
            let message = format!("Back-off restarting failed container {name} in pod {pod}_{namespace}({uid})");
            self.context.note_container(name, EventKind::Warning, "BackOff", message);
        }
    }

    fn abandon_probes(&mut self, name: &str) {
        for kind in ProbeKind::ALL {
            self.work.abandon(&Slot::Probe(name.to_owned(), kind));
        }
        self.track(name).probing.clear();
    }
}

/// The newest attempt of a container, and its state.
fn newest<'a>(containers: &'a [ContainerStatus], name: &str) -> Option<(u32, &'a ContainerState)> {
    let attempts = containers.iter().filter_map(|status| {
        let (found, attempt) = status.id.rsplit_once('.')?;
        (found == name).then_some((attempt.parse::<u32>().ok()?, &status.state))
    });
    attempts.max_by_key(|(attempt, _)| *attempt)
}

#[cfg(test)]
mod tests {
    use super::newest;
    use crate::machine::{ContainerState, ContainerStatus};

    #[test]
    fn the_newest_attempt_counts_by_number() {
        let status = |id: &str| ContainerStatus { id: id.to_owned(), state: ContainerState::Created };
        let all = [status("web.9"), status("web.10"), status("webber.11"), status("odd")];
        assert_eq!(newest(&all, "web").map(|(attempt, _)| attempt), Some(10));
        assert_eq!(newest(&all, "odd"), None);
    }
}
