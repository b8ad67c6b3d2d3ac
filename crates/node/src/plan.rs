//! What a pod needs next: a pure function from the pod and its containers to actions.
//!
//! Goal        the containers a pod's spec asks for run, in their order, and are stopped when the pod ends
//! Relies on   `pod` carries the actions out and looks again after each of them
//!
//! Rules, in order
//!   R1 ending    a pod that ends starts nothing; its containers are stopped, sidecars after the others, the last first
//!   R2 over      when no container will run again the sidecars are stopped and the sandbox is given back
//!   R3 ground    volumes, network and sandbox are up before any container; a broken sandbox is made anew
//!   R4 init      init containers run one by one to success; a sidecar has started before the next begins
//!   R5 main      then the containers start, one after the other, each without waiting for the others to be ready
//!   R6 restart   what ended runs again as its restart policy says, after its back-off
//!   R7 failed    a container that failed its liveness or startup probe, or its postStart hook, is stopped
//!   R8 probe     probes that are due are run on running containers; the startup probe first, and alone. Of a pod that ends
//!                only whether it is ready is asked on: its services send to it as long as it takes requests
//!   R9 visitors  ephemeral containers start as soon as there is ground for them, run once, and keep nobody waiting
//!   R10 anew     a container's rule may ask that all run again: they are stopped, and then the pod begins with its init
//!                containers, on the same ground; visitors stay. On ground that was made anew the pod begins so too, but for
//!                what is over for good
//! Not here       how long a back-off is (backoff), what the status says of all this (status)

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use windlass_api::types::core;

use crate::backoff::{CrashBackoff, RetryBackoff};
use crate::machine::{CpuSet, Exit, ProcessUser};
use crate::probe::{ProbeKind, ProbeState};

/// A back-off is shown as such only after its cause has been shown for this long.
pub const TROUBLE_SHOWN: Duration = Duration::from_secs(2);

/// What is known of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Counts restarts: the current or last container is `NAME.attempt`.
    pub attempt: u32,
    /// Where the container is in its life.
    pub stage: Stage,
    /// How the attempt before ended.
    pub last: Option<Ended>,
    /// What is being done to it right now.
    pub busy: Option<Busy>,
    /// What its image is, once it has been started.
    pub image: ImageFacts,
    /// The resources it was last given, while it runs or ran.
    pub applied: Option<core::ResourceRequirements>,
    /// The CPUs it was last told to run on; `None` is all.
    pub cpus: Option<CpuSet>,
    /// Why it could not be started.
    pub trouble: Option<Trouble>,
    /// When a failed start may be tried again.
    pub retry: RetryBackoff,
    /// How long restarts wait.
    pub crash: CrashBackoff,
    /// When an ended container may start again.
    pub restart_at: Option<Instant>,
    /// The back-off that led to `restart_at`.
    pub restart_wait: Duration,
    /// Why it must be stopped although the pod goes on (R7).
    pub condemned: Option<String>,
    /// All of the pod run again (R10): this one must end, or its end does not count.
    pub anew: bool,
    /// Its probes, while it runs.
    pub probes: BTreeMap<ProbeKind, ProbeState>,
    /// Probes under way.
    pub probing: Vec<ProbeKind>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// There is none yet.
    Absent,
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It is over.
    Ended(Ended),
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ended {
    /// Which attempt.
    pub attempt: u32,
    /// How.
    pub exit: Exit,
    /// Its last words.
    pub message: String,
}

/// What is being done to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// It is being started, its postStart hook included.
    Start,
    /// It is being stopped.
    Stop,
}

/// What a container's image is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageFacts {
    /// What the image is.
    pub id: String,
    /// What the status names it by.
    pub digest: String,
    /// The signal it wants to be stopped with.
    pub stop_signal: String,
    /// Who the container's processes are, by it and the pod's spec.
    #[serde(default)]
    pub user: Option<ProcessUser>,
}

/// Why a container could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// Since when.
    pub since: Instant,
}

/// What all containers rely on.
#[derive(Clone, Debug, PartialEq)]
pub enum Ground {
    /// Not up.
    Down,
    /// Coming up.
    Rising,
    /// Up, with these addresses.
    Up(Vec<IpAddr>),
    /// The sandbox can take no containers any more.
    Broken,
    /// Given back, or being given back: the pod is over.
    Left,
}

/// A pod on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// When patience ends.
    pub deadline: Instant,
    /// preStop hooks are run (not when the grace was cut short).
    pub hooks: bool,
}

/// What is seen when the plan is made.
pub struct View<'a> {
    /// The pod's spec.
    pub spec: &'a core::PodSpec,
    /// Its ephemeral containers.
    pub visitors: &'a [core::Container],
    /// Now.
    pub now: Instant,
    /// What all containers rely on.
    pub ground: &'a Ground,
    /// When a failed ground may be tried again.
    pub ground_retry: &'a RetryBackoff,
    /// Its containers.
    pub tracks: &'a BTreeMap<String, Track>,
    /// The pod ends.
    pub ending: Option<&'a Ending>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bring volumes, network and sandbox up.
    Raise,
    /// Remove the broken sandbox.
    Clear,
    /// Start this container.
    Start(String),
    /// Stop this container.
    Stop {
        /// Its name.
        name: String,
        /// How long it may take.
        grace: Duration,
        /// Run its preStop hook.
        hook: bool,
        /// What the event says.
        why: String,
    },
    /// Run this probe.
    Probe(String, ProbeKind),
    /// Give sandbox and network back.
    Leave,
}

/// What to do, and when to look again if nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do now.
    pub actions: Vec<Action>,
    /// When to look again.
    pub wake: Option<Instant>,
}

impl Track {
    /// A container that has not had its turn.
    pub fn new() -> Track {
        Track {
            attempt: 0,
            stage: Stage::Absent,
            last: None,
            busy: None,
            image: ImageFacts::default(),
            applied: None,
            cpus: None,
            trouble: None,
            retry: RetryBackoff::pull(),
            crash: CrashBackoff::default(),
            restart_at: None,
            restart_wait: Duration::ZERO,
            condemned: None,
            anew: false,
            probes: BTreeMap::new(),
            probing: Vec::new(),
        }
    }

    /// Whether a process of it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }

    /// How it ended, if it is over.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.stage {
            Stage::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// R8: it runs and its startup probe, if it has one, has succeeded; its postStart hook is over.
    pub fn is_started(&self) -> bool {
        let probed = self.probes.get(&ProbeKind::Startup).is_none_or(|state| state.verdict == Some(true));
        self.is_running() && probed && self.busy != Some(Busy::Start)
    }

    /// It may get requests; one that is about to be stopped gets no new ones (R7).
    pub fn is_ready(&self) -> bool {
        let probed = self.probes.get(&ProbeKind::Readiness).is_none_or(|state| state.verdict == Some(true));
        self.is_started() && probed && self.condemned.is_none()
    }
}

/// Whether a container that ended like this runs again, were the pod to go on: the first of its rules that matches the
/// exit code decides, else its policy.
pub fn runs_again(spec: &core::PodSpec, container: &core::Container, is_init: bool, exit_code: i32) -> bool {
    if asked_at(container, exit_code).is_some() {
        return true;
    }
    let own = container.restart_policy.as_deref().filter(|policy| !policy.is_empty());
    let pod = spec.restart_policy.as_deref().unwrap_or("Always");
    match own.unwrap_or(pod) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        // An init container of a pod that always restarts has done its work when it succeeds.
        _ => !is_init || own.is_some() || exit_code != 0,
    }
}

/// What the first of a container's rules asks that matches this exit code: `Restart` (KEP-5307) or `RestartAllContainers`
/// (KEP-5532).
pub fn asked_at(container: &core::Container, exit_code: i32) -> Option<&str> {
    let mut rules = container.restart_policy_rules.iter().flatten();
    rules.find(|rule| matches(rule, exit_code)).map(|rule| rule.action.as_str())
}

fn matches(rule: &core::ContainerRestartRule, exit_code: i32) -> bool {
    let Some(asked) = rule.exit_codes.as_ref() else { return false };
    let is_named = asked.values.iter().flatten().any(|code| *code == exit_code);
    match asked.operator.as_str() {
        "In" => is_named,
        "NotIn" => !is_named,
        _ => false,
    }
}

/// An init container that stays.
pub fn is_sidecar(container: &core::Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether no container of the pod will ever run again, sidecars aside (R2).
pub fn is_over(spec: &core::PodSpec, tracks: &BTreeMap<String, Track>) -> bool {
    if init_failed(spec, tracks) {
        return true;
    }
    spec.containers.iter().all(|container| {
        let track = tracks.get(&container.name);
        let ended = track.filter(|track| !track.anew).and_then(Track::ended);
        ended.is_some_and(|ended| !runs_again(spec, container, false, ended.exit.code))
    })
}

/// Whether an init container has failed for good.
pub fn init_failed(spec: &core::PodSpec, tracks: &BTreeMap<String, Track>) -> bool {
    spec.init_containers.iter().flatten().filter(|container| !is_sidecar(container)).any(|container| {
        let track = tracks.get(&container.name);
        let ended = track.filter(|track| !track.anew).and_then(Track::ended);
        ended.is_some_and(|ended| ended.exit.code != 0 && !runs_again(spec, container, true, ended.exit.code))
    })
}

/// Whether the init containers have done their part: R4.
pub fn is_initialized(spec: &core::PodSpec, tracks: &BTreeMap<String, Track>) -> bool {
    // Once a container of the pod has begun, initialization is history; what is over for good says nothing of the others,
    // which may all have to begin anew.
    let begun = spec.containers.iter().any(|container| {
        let is_done =
            |track: &Track| track.ended().is_some_and(|ended| !runs_again(spec, container, false, ended.exit.code));
        let begun =
            |track: &Track| !track.anew && (track.attempt > 0 || track.stage != Stage::Absent) && !is_done(track);
        tracks.get(&container.name).is_some_and(begun)
    });
    begun
        || spec.init_containers.iter().flatten().all(|container| {
            tracks.get(&container.name).is_some_and(|track| match is_sidecar(container) {
                true => track.is_started(),
                false => !track.anew && track.ended().is_some_and(|ended| ended.exit.code == 0),
            })
        })
}

/// R10: the containers of a pod on new ground that begin anew: all that have run, but for those that are over for good.
pub fn begins_anew(spec: &core::PodSpec, tracks: &BTreeMap<String, Track>) -> Vec<String> {
    if is_over(spec, tracks) {
        return Vec::new();
    }
    let init = spec.init_containers.iter().flatten().map(|container| (container, true));
    let all = init.chain(spec.containers.iter().map(|container| (container, false)));
    let ended = all.filter(|(container, is_init)| {
        let ended = tracks.get(&container.name).and_then(Track::ended);
        ended.is_some_and(|ended| *is_init || runs_again(spec, container, false, ended.exit.code))
    });
    ended.map(|(container, _)| container.name.clone()).collect()
}

/// What a pod needs next.
pub fn plan(view: &View) -> Plan {
    let mut planner = Planner { view, plan: Plan::default() };
    match (view.ending, view.ground) {
        (_, Ground::Left) => {}
        (Some(ending), _) => planner.end(ending),
        (None, _) if is_over(view.spec, view.tracks) => {
            planner.end(&Ending { deadline: view.now + grace_of(view.spec), hooks: true });
        }
        (None, Ground::Rising) => {}
        (None, Ground::Down | Ground::Broken) if !view.ground_retry.is_due(view.now) => {
            planner.wake(view.ground_retry.retry_at());
        }
        (None, Ground::Down) => planner.act(Action::Raise),
        (None, Ground::Broken) => planner.act(Action::Clear),
        (None, Ground::Up(_)) if planner.stops_all() => {}
        (None, Ground::Up(_)) => planner.go_on(),
    }
    planner.plan
}

/// How long the pod gives its containers to stop.
pub fn grace_of(spec: &core::PodSpec) -> Duration {
    Duration::from_secs(u64::try_from(spec.termination_grace_period_seconds.unwrap_or(30)).unwrap_or(0))
}

struct Planner<'a> {
    view: &'a View<'a>,
    plan: Plan,
}

impl Planner<'_> {
    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    fn wake(&mut self, at: Option<Instant>) {
        self.plan.wake = self.plan.wake.into_iter().chain(at).min();
    }

    fn track(&self, name: &str) -> &Track {
        self.view.tracks.get(name).expect("every container of the spec has its track")
    }

    /// R1, R2.
    fn end(&mut self, ending: &Ending) {
        let spec = self.view.spec;
        let grace = ending.deadline.saturating_duration_since(self.view.now);
        let is_first = |container: &&core::Container| !is_sidecar(container);
        let init = || spec.init_containers.iter().flatten();
        let mut left = 0;
        for container in spec.containers.iter().chain(init().filter(is_first)).chain(self.view.visitors) {
            left += usize::from(self.stop_if_running(&container.name, grace, ending.hooks));
        }
        for container in init().filter(|container| is_sidecar(container)).collect::<Vec<_>>().into_iter().rev() {
            if left == 0 {
                left += usize::from(self.stop_if_running(&container.name, grace, ending.hooks));
            }
        }
        if left > 0 {
            self.ask_on();
        }
        if left > 0 || *self.view.ground == Ground::Rising {
            return;
        }
        match self.view.ground_retry.is_due(self.view.now) {
            true => self.act(Action::Leave),
            false => self.wake(self.view.ground_retry.retry_at()),
        }
    }

    /// R8, of a pod that ends.
    fn ask_on(&mut self) {
        for container in self.view.spec.init_containers.iter().flatten().chain(&self.view.spec.containers) {
            let track = self.track(&container.name).clone();
            let is_asked = track.is_started() && !track.probing.contains(&ProbeKind::Readiness);
            let Some(state) = track.probes.get(&ProbeKind::Readiness).filter(|_| is_asked) else { continue };
            match state.due <= self.view.now {
                true => self.act(Action::Probe(container.name.clone(), ProbeKind::Readiness)),
                false => self.wake(Some(state.due)),
            }
        }
    }

    /// Returns whether something of it is still there.
    fn stop_if_running(&mut self, name: &str, grace: Duration, hook: bool) -> bool {
        let track = self.track(name);
        match (track.is_running(), track.busy) {
            (true, Some(Busy::Stop)) => true,
            (true, _) => {
                let why = format!("Stopping container {name}");
                self.act(Action::Stop { name: name.to_owned(), grace, hook, why });
                true
            }
            (false, busy) => busy.is_some(),
        }
    }

    /// R10. Returns whether something must end before the pod begins anew.
    fn stops_all(&mut self) -> bool {
        let spec = self.view.spec;
        let grace = grace_of(spec);
        let (sidecars, others): (Vec<_>, Vec<_>) = spec.init_containers.iter().flatten().partition(|it| is_sidecar(it));
        let mut left = 0;
        for container in spec.containers.iter().chain(others) {
            left += usize::from(self.track(&container.name).anew && self.stop_if_running(&container.name, grace, true));
        }
        for container in sidecars.into_iter().rev() {
            if left == 0 && self.track(&container.name).anew {
                left += usize::from(self.stop_if_running(&container.name, grace, true));
            }
        }
        left > 0
    }

    fn go_on(&mut self) {
        let spec = self.view.spec;
        for visitor in self.view.visitors {
            self.tend(visitor, false);
        }
        let initialized = is_initialized(spec, self.view.tracks);
        for container in spec.init_containers.iter().flatten() {
            let track = self.track(&container.name);
            let is_done = !track.anew && track.ended().is_some_and(|ended| ended.exit.code == 0);
            if is_sidecar(container) {
                self.tend(container, true);
                if !initialized && !self.track(&container.name).is_started() {
                    return;
                }
            } else if !initialized && !is_done {
                self.tend(container, true);
                return;
            }
        }
        for container in &spec.containers {
            self.tend(container, false);
            let track = self.track(&container.name);
            // R5: the next one waits until this one's first start is through, hook included.
            let starting = self.plan.actions.last() == Some(&Action::Start(container.name.clone()));
            if track.attempt == 0 && (starting || track.busy == Some(Busy::Start)) {
                return;
            }
        }
    }

    /// Start, stop or probe one container whose turn it is.
    fn tend(&mut self, container: &core::Container, is_init: bool) {
        let track = self.track(&container.name).clone();
        let name = container.name.clone();
        match &track.stage {
            Stage::Running { .. } => self.look_after(container, &track),
            _ if track.busy.is_some() => {}
            Stage::Absent if track.retry.is_due(self.view.now) => self.act(Action::Start(name)),
            Stage::Absent => {
                self.wake(track.retry.retry_at());
                self.wake_for_trouble(&track);
            }
            Stage::Ended(ended) if track.anew || runs_again(self.view.spec, container, is_init, ended.exit.code) => {
                let due = track.restart_at.into_iter().chain(track.retry.retry_at()).max();
                if due.is_none_or(|due| due <= self.view.now) {
                    self.act(Action::Start(name));
                } else {
                    self.wake(due);
                    self.wake_for_trouble(&track);
                }
            }
            Stage::Ended(_) => {}
        }
    }

    /// The status changes its words once the trouble has been shown for a while.
    fn wake_for_trouble(&mut self, track: &Track) {
        let at = track.trouble.as_ref().map(|trouble| trouble.since + TROUBLE_SHOWN);
        self.wake(at.filter(|at| *at > self.view.now));
    }

    /// R7, R8.
    fn look_after(&mut self, container: &core::Container, track: &Track) {
        if track.busy.is_some() {
            return;
        }
        if let Some(why) = &track.condemned {
            let name = container.name.clone();
            let grace = self.grace_of_condemned(container, track);
            self.act(Action::Stop { name, grace, hook: true, why: why.clone() });
            return;
        }
        let startup = track.probes.get(&ProbeKind::Startup);
        let starting = startup.is_some_and(|state| state.verdict != Some(true));
        for (kind, state) in &track.probes {
            let applies = (*kind == ProbeKind::Startup) == starting;
            if !applies || track.probing.contains(kind) {
                continue;
            }
            if state.due <= self.view.now {
                self.act(Action::Probe(container.name.clone(), *kind));
            } else {
                self.wake(Some(state.due));
            }
        }
    }

    /// The failed probe's own grace, or the pod's.
    fn grace_of_condemned(&self, container: &core::Container, track: &Track) -> Duration {
        let has_failed = |kind: &ProbeKind| track.probes.get(kind).is_some_and(|state| state.verdict == Some(false));
        let failed = [ProbeKind::Startup, ProbeKind::Liveness].into_iter().find(has_failed);
        let own = failed.and_then(|kind| kind.of(container)?.termination_grace_period_seconds);
        let own = own.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        own.unwrap_or_else(|| grace_of(self.view.spec))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::machine::ExitReason;
    use crate::steps::container::visitors_of;
    use serde_json::{Value, json};

    pub(crate) fn ended(attempt: u32, code: i32) -> Ended {
        let exit = Exit {
            code,
            signal: None,
            oom: false,
            reason: ExitReason::Ended,
            message: String::new(),
            started_at: Some(Timestamp::UNIX_EPOCH),
            finished_at: Timestamp::UNIX_EPOCH,
        };
        Ended { attempt, exit, message: String::new() }
    }

    pub(crate) fn running() -> Track {
        Track { stage: Stage::Running { since: Timestamp::UNIX_EPOCH }, ..Track::new() }
    }

    fn over(code: i32) -> Track {
        Track { stage: Stage::Ended(ended(0, code)), ..Track::new() }
    }

    fn busy(busy: Busy, track: Track) -> Track {
        Track { busy: Some(busy), ..track }
    }

    struct Case {
        spec: Value,
        ground: Ground,
        tracks: Vec<(&'static str, Track)>,
        ending: bool,
    }

    fn check(case: Case) -> String {
        let spec: core::PodSpec = serde_json::from_value(case.spec).expect("a spec");
        let tracks = case.tracks.into_iter().map(|(name, track)| (name.to_owned(), track)).collect();
        let now = Instant::now();
        let ending = case.ending.then(|| Ending { deadline: now + Duration::from_secs(7), hooks: true });
        let retry = RetryBackoff::pull();
        let (ground, visitors) = (&case.ground, visitors_of(&spec));
        let ending = ending.as_ref();
        let view =
            View { spec: &spec, visitors: &visitors, now, ground, ground_retry: &retry, tracks: &tracks, ending };
        let shown = plan(&view).actions.into_iter().map(|action| match action {
            Action::Raise => "raise".to_owned(),
            Action::Clear => "clear".to_owned(),
            Action::Leave => "leave".to_owned(),
            Action::Start(name) => format!("start {name}"),
            Action::Stop { name, grace, .. } => format!("stop {name} {}s", grace.as_secs()),
            Action::Probe(name, kind) => format!("{} {name}", kind.title()),
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    fn up() -> Ground {
        Ground::Up(Vec::new())
    }

    fn two() -> Value {
        json!({"containers": [{"name": "a"}, {"name": "b"}]})
    }

    fn init() -> Value {
        json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}],
            "containers": [{"name": "a"}]})
    }

    #[test]
    fn r1_ending_stops_everything_sidecars_last_and_starts_nothing() {
        let tracks = |i, s, j, a| vec![("i", i), ("s", s), ("j", j), ("a", a)];
        let end = |tracks| check(Case { spec: init(), ground: up(), tracks, ending: true });
        assert_eq!(end(tracks(over(0), running(), over(0), running())), "stop a 7s");
        assert_eq!(end(tracks(over(0), running(), over(0), busy(Busy::Stop, running()))), "");
        assert_eq!(end(tracks(over(0), running(), over(0), over(143))), "stop s 7s");
        assert_eq!(end(tracks(over(0), over(0), over(0), over(143))), "leave");
        assert_eq!(end(tracks(busy(Busy::Start, Track::new()), Track::new(), Track::new(), Track::new())), "");
        let left =
            Case { spec: two(), ground: Ground::Left, tracks: vec![("a", over(0)), ("b", over(0))], ending: true };
        assert_eq!(check(left), "");
    }

    #[test]
    fn r2_over_leaves_when_nothing_will_run_again() {
        let job = |policy: &str, code| {
            let spec = json!({"restartPolicy": policy, "containers": [{"name": "a"}],
                "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
            check(Case { spec, ground: up(), tracks: vec![("a", over(code)), ("s", running())], ending: false })
        };
        assert_eq!(job("Never", 1), "stop s 30s");
        assert_eq!(job("OnFailure", 0), "stop s 30s");
        assert_eq!(job("OnFailure", 1), "start a");
        assert_eq!(job("Always", 0), "start a");
    }

    #[test]
    fn r3_ground_comes_first_and_is_made_anew_when_broken() {
        let on = |ground| {
            check(Case { spec: two(), ground, tracks: vec![("a", Track::new()), ("b", Track::new())], ending: false })
        };
        assert_eq!(on(Ground::Down), "raise");
        assert_eq!(on(Ground::Rising), "");
        assert_eq!(on(Ground::Broken), "clear");
    }

    #[test]
    fn r4_init_containers_run_one_by_one() {
        let on = |i, s, j, a| {
            let tracks = vec![("i", i), ("s", s), ("j", j), ("a", a)];
            check(Case { spec: init(), ground: up(), tracks, ending: false })
        };
        let new = Track::new;
        assert_eq!(on(new(), new(), new(), new()), "start i");
        assert_eq!(on(running(), new(), new(), new()), "");
        assert_eq!(on(over(1), new(), new(), new()), "start i");
        assert_eq!(on(over(0), new(), new(), new()), "start s");
        assert_eq!(on(over(0), busy(Busy::Start, running()), new(), new()), "");
        assert_eq!(on(over(0), running(), new(), new()), "start j");
        assert_eq!(on(over(0), running(), over(0), new()), "start a");
        assert_eq!(on(over(0), over(1), over(0), running()), "start s", "a sidecar is restarted while the pod runs");
    }

    #[test]
    fn r4_a_failed_init_container_of_a_pod_that_never_restarts_ends_the_pod() {
        let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        let tracks = vec![("i", over(1)), ("a", Track::new())];
        assert_eq!(check(Case { spec, ground: up(), tracks, ending: false }), "leave");
    }

    #[test]
    fn r5_containers_start_one_after_the_other() {
        let on = |a, b| check(Case { spec: two(), ground: up(), tracks: vec![("a", a), ("b", b)], ending: false });
        assert_eq!(on(Track::new(), Track::new()), "start a");
        assert_eq!(on(busy(Busy::Start, running()), Track::new()), "");
        assert_eq!(on(running(), Track::new()), "start b");
    }

    #[test]
    fn r6_a_rule_for_the_exit_code_comes_before_the_policy() {
        let again = |operator: &str, code: i32| {
            let rule = json!({"action": "Restart", "exitCodes": {"operator": operator, "values": [42, 43]}});
            let container = json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": [rule]});
            let container: core::Container = serde_json::from_value(container).expect("a container");
            runs_again(&core::PodSpec::default(), &container, false, code)
        };
        assert_eq!(
            [again("In", 42), again("In", 1), again("NotIn", 42), again("NotIn", 1)],
            [true, false, false, true]
        );
    }

    #[test]
    fn r10_all_end_and_then_the_pod_begins_anew() {
        let anew = |track| Track { anew: true, ..track };
        let on = |i, s, j, a| {
            check(Case {
                spec: init(),
                ground: up(),
                tracks: vec![("i", i), ("s", s), ("j", j), ("a", a)],
                ending: false,
            })
        };
        let (done, runs) = (anew(over(0)), anew(running()));
        assert_eq!(on(done.clone(), runs.clone(), done.clone(), runs.clone()), "stop a 30s");
        assert_eq!(on(done.clone(), runs.clone(), done.clone(), anew(over(7))), "stop s 30s");
        assert_eq!(on(done.clone(), anew(over(0)), done.clone(), anew(over(7))), "start i");
        assert_eq!(on(over(0), anew(over(0)), done.clone(), anew(over(7))), "start s");
        assert_eq!(on(over(0), running(), done, anew(over(7))), "start j");
        assert_eq!(on(over(0), running(), over(0), anew(over(7))), "start a");
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [7]}}]}]});
        let alone = |track| check(Case { spec: spec.clone(), ground: up(), tracks: vec![("a", track)], ending: false });
        assert_eq!(alone(anew(over(7))), "start a");
        assert_eq!(alone(over(3)), "leave");
    }

    #[test]
    fn r10_on_new_ground_a_pod_begins_with_its_init_containers() {
        let begin = |spec: Value, tracks: Vec<(&'static str, Track)>| {
            let read: core::PodSpec = serde_json::from_value(spec.clone()).expect("a spec");
            let mut all: BTreeMap<String, Track> = tracks.into_iter().map(|(name, it)| (name.to_owned(), it)).collect();
            for name in begins_anew(&read, &all) {
                all.get_mut(&name).expect("it is one of them").anew = true;
            }
            let tracks = ["i", "s", "j", "a", "b"].into_iter().filter_map(|name| Some((name, all.remove(name)?)));
            check(Case { spec, ground: up(), tracks: tracks.collect(), ending: false })
        };
        let all = |a| vec![("i", over(0)), ("s", over(137)), ("j", over(0)), ("a", a)];
        assert_eq!(begin(init(), all(over(137))), "start i", "everything that ran is gone with the old ground");
        assert_eq!(begin(init(), all(Track::new())), "start i");
        let job = json!({"restartPolicy": "OnFailure", "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b"}]});
        let on = |i, b| begin(job.clone(), vec![("i", i), ("a", over(0)), ("b", b)]);
        assert_eq!(on(over(0), over(137)), "start i", "what has succeeded is no sign that the pod has begun");
        assert_eq!(on(running(), Track { anew: true, ..over(137) }), "");
        let once = json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        assert_eq!(begin(once, vec![("i", over(0)), ("a", over(137))]), "leave");
    }

    #[test]
    fn r9_visitors_start_at_once_run_once_and_end_with_the_pod() {
        let on = |i: Track, v: Track, ending| {
            let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}],
                "ephemeralContainers": [{"name": "v"}]});
            check(Case { spec, ground: up(), tracks: vec![("i", i), ("v", v), ("a", Track::new())], ending })
        };
        assert_eq!(on(running(), Track::new(), false), "start v");
        assert_eq!(on(running(), over(1), false), "");
        assert_eq!(on(over(0), running(), true), "stop v 7s");
    }

    #[test]
    fn r6_restart_waits_for_its_back_off() {
        let wait = Some(Instant::now() + Duration::from_secs(10));
        let a = Track { restart_at: wait, ..over(1) };
        assert_eq!(
            check(Case { spec: two(), ground: up(), tracks: vec![("a", a), ("b", over(0))], ending: false }),
            "start b"
        );
    }

    #[test]
    fn r7_a_condemned_container_is_stopped_with_the_grace_of_its_probe() {
        let spec = json!({"containers": [{"name": "a", "livenessProbe": {"terminationGracePeriodSeconds": 3},
            "startupProbe": {"terminationGracePeriodSeconds": 4}}]});
        let failed = |kind: Option<ProbeKind>| {
            let mut a = Track { condemned: Some("failed".to_owned()), ..running() };
            if let Some(kind) = kind {
                let mut state = ProbeState::begin(&core::Probe::default(), Instant::now());
                state.verdict = Some(false);
                a.probes.insert(kind, state);
            }
            check(Case { spec: spec.clone(), ground: up(), tracks: vec![("a", a)], ending: false })
        };
        assert_eq!(failed(Some(ProbeKind::Liveness)), "stop a 3s");
        assert_eq!(failed(Some(ProbeKind::Startup)), "stop a 4s");
        assert_eq!(failed(None), "stop a 30s", "a hook has failed");
    }

    #[test]
    fn r8_the_startup_probe_is_alone_until_it_succeeds() {
        let spec = || json!({"containers": [{"name": "a"}]});
        let probe = core::Probe::default();
        let with = |verdict| {
            let mut track = running();
            for kind in ProbeKind::ALL {
                track.probes.insert(kind, ProbeState::begin(&probe, Instant::now()));
            }
            track.probes.get_mut(&ProbeKind::Startup).expect("inserted above").verdict = verdict;
            check(Case { spec: spec(), ground: up(), tracks: vec![("a", track)], ending: false })
        };
        assert_eq!(with(None), "Startup a");
        assert_eq!(with(Some(true)), "Liveness a, Readiness a");
    }

    #[test]
    fn r8_a_pod_that_ends_is_asked_on_whether_it_is_ready_and_nothing_else() {
        let of = |kinds: &[ProbeKind], track: Track| {
            let begin = |kind: &ProbeKind| (*kind, ProbeState::begin(&core::Probe::default(), Instant::now()));
            Track { probes: kinds.iter().map(begin).collect(), ..track }
        };
        let spec = || json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let end = |a: Track, b: Track| {
            check(Case { spec: spec(), ground: up(), tracks: vec![("a", a), ("b", b)], ending: true })
        };
        let both = [ProbeKind::Liveness, ProbeKind::Readiness];
        let stopping = || of(&both, busy(Busy::Stop, running()));
        assert_eq!(end(stopping(), over(0)), "Readiness a");
        assert_eq!(end(Track { probing: vec![ProbeKind::Readiness], ..stopping() }, over(0)), "");
        let starting = of(&ProbeKind::ALL, busy(Busy::Stop, running()));
        assert_eq!(end(starting, over(0)), "", "it has not started");
    }
}
