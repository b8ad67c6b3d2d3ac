//! One pod's task: looks at the pod and its containers, plans, and does what the plan says.
//!
//! Flow        pod changes · a container changes · work ends · time passes → observe → plan → begin work → write status
//! Guarantees  nothing waits inside the task: a pod that is deleted while its image is pulled ends at once
//! Relies on   `plan` decides, `steps` act, `status` tells; this file only carries between them

mod admit;
mod lent;
mod mirror;
mod observe;
mod outcome;
mod report;
mod resize;
mod usage;
mod work;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use windlass_api::types::core;
use windlass_api::{Header, Object};
use windlass_client::EventKind;

use crate::agent::Shared;
use crate::backoff::RetryBackoff;
use crate::machine::CpuSet;
use crate::plan::{self, Action, Busy, Ending, Ground, Stage, Track, View};
use crate::probe::{Check, Place};
use crate::record::{Known, Record, track_of_status};
use crate::source::{self, PodSources};
use crate::status::{Failure, Resizing};
use crate::steps::container::{StartError, StartPlan, StopPlan, containers_of, visitors_of};
use crate::steps::{self, PodContext, StepError, container, volume};
use work::{Outcome, Slot, Work};

/// What a pod that is no longer in the API is given to stop: nobody waits for it, and another may have its name.
const GRACE_WHEN_GONE: Duration = Duration::from_secs(1);
/// A stop that failed is tried again after this long.
const STOP_RETRY: Duration = Duration::from_secs(1);

/// What the agent tells a pod's task.
#[derive(Clone, Debug)]
pub enum Desired {
    /// The pod as the API has it.
    Object(Arc<Object>),
    /// The API's likeness of it, a static pod, has changed or is gone.
    Mirror(Option<Arc<Object>>),
    /// The API has it no more.
    Gone,
}

/// Why a pod must go although the API wants it here.
#[derive(Clone, Debug)]
pub enum Dismissal {
    /// The node is short of something, and the pod has most of it: the sentence says how much.
    Evicted(String),
    /// The machine goes down.
    Shutdown {
        /// A sentence.
        message: String,
        /// How long it may take.
        grace: Duration,
    },
}

/// What others may know of a pod on this node.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The pod's JSON.
    pub json: Bytes,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// It is in the machine's network.
    pub host_network: bool,
    /// By name: the attempt that runs or ran last, and whether it runs; nothing for one that never did.
    pub containers: BTreeMap<String, Option<(u32, bool)>>,
}

/// The agent's end of a pod's task.
pub struct PodLink {
    /// `namespace` and `name`.
    pub key: (String, String),
    /// What the pod should be.
    pub desired: watch::Sender<Desired>,
    /// A container of the pod has changed.
    pub hint: Arc<Notify>,
    /// Why the pod must go, if it must.
    pub dismiss: watch::Sender<Option<Dismissal>>,
    /// What others may know.
    pub shown: watch::Receiver<Arc<Shown>>,
}

/// The task's state.
pub struct PodTask {
    context: PodContext,
    /// The pod as last seen.
    header: Header,
    json: Bytes,
    /// The status as the API has it.
    current: Value,
    desired: watch::Receiver<Desired>,
    hint: Arc<Notify>,
    dismissed: watch::Receiver<Option<Dismissal>>,
    shown: watch::Sender<Arc<Shown>>,
    sources: PodSources,
    tracks: BTreeMap<String, Track>,
    ground: Ground,
    ground_retry: RetryBackoff,
    /// For the renewal of what the volumes hold.
    volumes_retry: RetryBackoff,
    ending: Option<Ending>,
    failure: Option<Failure>,
    /// For a static pod: what is known of its likeness in the API.
    likeness: Option<mirror::Likeness>,
    /// This agent has the pod from the API, not only from its record: before, what it would tell may be old.
    is_heard: bool,
    is_gone: bool,
    is_removed: bool,
    is_deleted: bool,
    work: Work,
    saved: Option<Known>,
    seen_at: Instant,
    usage_at: Instant,
    lent_at: Instant,
    /// How often what is lent has been looked at.
    lent_looks: u64,
    /// Some volume may have to be looked at again.
    tends: bool,
    /// The resources that the API wishes for each container; those promised are the context's pod's.
    wished: BTreeMap<String, core::ResourceRequirements>,
    resizing: Resizing,
    resize_retry: RetryBackoff,
    /// The CPUs that containers without their own run on.
    pool: watch::Receiver<CpuSet>,
    status_retry: RetryBackoff,
    remove_retry: RetryBackoff,
}

/// Why a pod is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// It is not a pod as the API makes them.
    #[error("expected a pod with a spec, found something else")]
    Shape(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl PodTask {
    /// A task for this pod, and the agent's end of it. `known` is what was kept of it on disk.
    pub fn new(
        shared: &Arc<Shared>,
        object: Arc<Object>,
        known: Option<Known>,
    ) -> Result<(PodTask, PodLink), PodError> {
        let pod = decode(&object)?;
        let uid: Arc<str> = object.header.uid().into();
        let (desired, receiver) = watch::channel(Desired::Object(Arc::clone(&object)));
        let hint = Arc::new(Notify::new());
        let (shown, shown_receiver) = watch::channel(Arc::default());
        let (dismiss, dismissed) = watch::channel(None);
        let key = (object.header.namespace().to_owned(), object.header.name().to_owned());
        let sources = shared.sources.of_pod(&pod);
        let visitors = pod.spec.as_ref().map(visitors_of).unwrap_or_default().into();
        let shared = Arc::clone(shared);
        let context = PodContext {
            shared,
            pod: Arc::new(pod),
            visitors,
            uid,
            tokens: Default::default(),
            certificates: Default::default(),
            is_known: known.is_some(),
        };
        let current = object.value()["status"].take();
        let annotations = context.pod.metadata.annotations.as_ref();
        let likeness = crate::manifest::is_static(&context.uid, annotations).then(Default::default);
        if known.is_none() {
            context.shared.starts.begin(&context.uid, context.shared.world.now());
        }
        if let Some(known) = &known {
            context.shared.cpus.note(&context.uid, &known.own_cpus);
            context.shared.devices.note(&context.uid, &known.own_devices);
        }
        let pool = context.shared.cpus.pool();
        let (tracks, ground) = begin(&context, &current, known.as_ref());
        let tends = crate::steps::lent::may_borrow(&context);
        let mut task = PodTask {
            context,
            header: object.header.clone(),
            json: object.json.clone(),
            current,
            desired: receiver,
            hint: Arc::clone(&hint),
            dismissed,
            shown,
            sources,
            tracks,
            ground,
            ground_retry: RetryBackoff::new(Duration::from_millis(500), Duration::from_secs(120)),
            volumes_retry: RetryBackoff::new(Duration::from_secs(1), Duration::from_secs(120)),
            ending: None,
            failure: None,
            is_heard: known.is_none() || likeness.is_some(),
            likeness,
            is_gone: false,
            is_removed: false,
            is_deleted: false,
            work: Work::default(),
            saved: known,
            seen_at: Instant::now(),
            usage_at: Instant::now() + usage::INTERVAL,
            lent_at: Instant::now() + lent::INTERVAL,
            lent_looks: 0,
            tends,
            wished: BTreeMap::new(),
            resizing: Resizing::Done,
            resize_retry: RetryBackoff::new(Duration::from_secs(1), Duration::from_secs(10)),
            pool,
            status_retry: RetryBackoff::new(Duration::from_millis(200), Duration::from_secs(10)),
            remove_retry: RetryBackoff::new(Duration::from_millis(500), Duration::from_secs(30)),
        };
        task.recall_resources();
        task.look_at_deletion();
        Ok((task, PodLink { key, desired, hint, dismiss, shown: shown_receiver }))
    }

    /// Runs until the pod is gone from the API and from this machine.
    pub async fn run(mut self) {
        self.observe(true).await;
        if matches!(self.ground, Ground::Up(_)) && self.ending.is_none() {
            // What changed while no agent looked, and tokens whose age nobody knows any more.
            self.fill_volumes();
        }
        if self.admit().await {
            self.keep_now().await;
        }
        loop {
            let planned = self.act();
            let reported = self.report();
            if self.is_gone && self.is_removed {
                return;
            }
            let wake = planned.into_iter().chain(reported).chain(self.renew_at()).min();
            self.wait(wake).await;
        }
    }

    async fn wait(&mut self, wake: Option<Instant>) {
        let timer = async {
            match wake {
                Some(wake) => tokio::time::sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = self.desired.changed() => match changed {
                Ok(()) => self.take_in(),
                // The agent is going down; the containers stay.
                Err(_) => std::future::pending().await,
            },
            () = self.hint.notified() => self.observe(false).await,
            // The end of the sender is the end of the agent, which the first branch sees too.
            Ok(()) = self.dismissed.changed() => {
                let why = self.dismissed.borrow_and_update().clone();
                match why {
                    Some(Dismissal::Evicted(why)) => self.evict(why, true),
                    Some(Dismissal::Shutdown { message, grace }) => self.shut_down(message, grace),
                    None => {}
                }
            }
            (slot, outcome) = self.work.next() => self.conclude(slot, outcome).await,
            () = self.sources.changed() => self.sources_changed(),
            // Containers are moved by the next look at what has been promised.
            Ok(()) = self.pool.changed() => {}
            () = timer => {}
        }
    }

    /// The pod's object has changed.
    fn take_in(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        let was_heard = std::mem::replace(&mut self.is_heard, true);
        if !was_heard && matches!(self.ground, Ground::Up(_)) && self.ending.is_none() {
            // While the API was away, volumes may have been taken as they were left.
            self.fill_volumes();
        }
        let object = match desired {
            Desired::Gone => {
                self.is_gone = true;
                self.end(GRACE_WHEN_GONE);
                return;
            }
            Desired::Mirror(mirror) => {
                self.look_at_mirror(mirror.as_deref());
                return;
            }
            Desired::Object(object) => object,
        };
        self.take_in_object(&object);
    }

    fn take_in_object(&mut self, object: &Object) {
        if object.header.uid() != self.header.uid() || object.header.revision < self.header.revision {
            return;
        }
        match decode(object) {
            Ok(mut pod) => {
                self.hold_back(&mut pod);
                let tells_more = tells_otherwise(&self.context.pod, &pod);
                let names_more = self.context.pod.spec != pod.spec;
                if names_more {
                    self.condemn_changed(&pod);
                    self.sources = self.context.shared.sources.of_pod(&pod);
                    self.context.visitors = pod.spec.as_ref().map(visitors_of).unwrap_or_default().into();
                    let visitors: Vec<core::Container> = self.context.visitors.to_vec();
                    for container in pod.spec.iter().flat_map(containers_of).chain(&visitors) {
                        self.tracks.entry(container.name.clone()).or_insert_with(Track::new);
                    }
                }
                self.context.pod = Arc::new(pod);
                if tells_more {
                    self.told_more();
                }
            }
            Err(error) => {
                tracing::error!(pod = object.header.key(), %error, "a changed pod is not understood; the old one goes on");
                return;
            }
        }
        self.header = object.header.clone();
        self.json = object.json.clone();
        self.current = object.value()["status"].take();
        self.look_at_deletion();
    }

    /// A container whose image was changed runs on with the old one until it is started again.
    fn condemn_changed(&mut self, pod: &core::Pod) {
        let new: Vec<&core::Container> = pod.spec.iter().flat_map(containers_of).collect();
        let changed = containers_of(self.context.spec())
            .filter(|old| new.iter().any(|new| new.name == old.name && new.image != old.image));
        for name in changed.map(|container| container.name.clone()).collect::<Vec<_>>() {
            let track = self.track(&name);
            if track.is_running() {
                track.condemned = Some(format!("Container {name} definition changed, will be restarted"));
            }
        }
    }

    /// What the pod says of itself has changed: its volumes may show it, and a container may have waited for it.
    fn told_more(&mut self) {
        self.hurry_refused();
        let tells = self.context.spec().volumes.iter().flatten().any(volume::tells_of_pod);
        if tells && matches!(self.ground, Ground::Up(_)) && self.ending.is_none() {
            self.fill_volumes();
        }
    }

    /// What could not be started as things were may be started now.
    fn hurry_refused(&mut self) {
        for track in self.tracks.values_mut() {
            if track.trouble.as_ref().is_some_and(|trouble| trouble.reason == "CreateContainerConfigError") {
                track.retry.hurry();
            }
        }
    }

    fn look_at_deletion(&mut self) {
        if self.header.is_ending() {
            let own = self.context.pod.metadata.deletion_grace_period_seconds;
            let grace = own.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
            self.end(grace.unwrap_or_else(|| plan::grace_of(self.context.spec())));
        }
    }

    /// The machine goes down, and the pod with it.
    fn shut_down(&mut self, message: String, grace: Duration) {
        if self.failure.is_none() && self.ending.is_none() {
            self.failure = Some(Failure { reason: "Terminated", message, is_disruption: true });
        }
        self.end(plan::grace_of(self.context.spec()).min(grace));
    }

    /// The pod ends within this grace; one that ends already may be given less, never more.
    fn end(&mut self, grace: Duration) {
        let now = Instant::now();
        let deadline = now + grace;
        match &mut self.ending {
            None => {
                self.ending = Some(Ending { deadline, hooks: true });
                let abandoned: Vec<String> =
                    self.busy(Busy::Start).filter(|name| !self.tracks[name].is_running()).collect();
                for name in abandoned {
                    self.work.abandon(&Slot::Container(name.clone()));
                    self.track(&name).busy = None;
                }
                if self.ground == Ground::Rising {
                    self.work.abandon(&Slot::Ground);
                    self.ground = Ground::Down;
                }
            }
            Some(ending) if deadline + Duration::from_millis(500) < ending.deadline => {
                *ending = Ending { deadline, hooks: false };
                // Stops under way are begun again with less patience.
                for name in self.busy(Busy::Stop).collect::<Vec<_>>() {
                    self.work.abandon(&Slot::Container(name.clone()));
                    self.track(&name).busy = None;
                }
            }
            Some(_) => {}
        }
    }

    fn busy(&self, busy: Busy) -> impl Iterator<Item = String> {
        let names: Vec<String> =
            self.tracks.iter().filter(|(_, track)| track.busy == Some(busy)).map(|(name, _)| name.clone()).collect();
        names.into_iter()
    }

    fn track(&mut self, name: &str) -> &mut Track {
        self.tracks.get_mut(name).expect("every container of the spec has its track")
    }

    fn sources_changed(&mut self) {
        self.ground_retry.hurry();
        self.hurry_refused();
        if matches!(self.ground, Ground::Up(_)) && self.ending.is_none() {
            self.fill_volumes();
        }
    }

    /// When the pod's tokens and certificates must be renewed, as long as somebody reads them.
    fn renew_at(&self) -> Option<Instant> {
        let is_idle =
            matches!(self.ground, Ground::Up(_)) && self.ending.is_none() && !self.work.is_busy(&Slot::Volumes);
        let context = &self.context;
        let due = context.tokens.renew_at().into_iter().chain(context.certificates.renew_at()).min();
        let due = due.filter(|_| is_idle)?;
        Some(self.volumes_retry.retry_at().map_or(due, |at| at.max(due)))
    }

    fn fill_volumes(&mut self) {
        let (context, look) = (self.context.clone(), self.sources.look(self.patience()));
        self.work.begin(Slot::Volumes, async move {
            let failed = |message| StepError { reason: "FailedMount", message };
            let filled = match look.await {
                Ok(sources) => volume::refresh(&context, &sources).await,
                Err(why) => Err(failed(why)),
            };
            Outcome::Filled(filled)
        });
    }

    /// Plans and begins what the plan says. Returns when to look again.
    fn act(&mut self) -> Option<Instant> {
        let deadline = self.look_at_deadline();
        let resize = self.look_at_resize();
        let now = Instant::now();
        if self.renew_at().is_some_and(|at| at <= now) {
            self.fill_volumes();
        }
        let view = View {
            spec: self.context.spec(),
            visitors: &self.context.visitors,
            now,
            ground: &self.ground,
            ground_retry: &self.ground_retry,
            tracks: &self.tracks,
            ending: self.ending.as_ref(),
        };
        let plan = plan::plan(&view);
        for action in plan.actions {
            self.begin(action);
        }
        if self.ground == Ground::Left || self.is_gone {
            self.finish();
        }
        let usage = self.look_at_usage();
        let lent = self.look_at_lent();
        plan.wake
            .into_iter()
            .chain(resize)
            .chain(deadline)
            .chain(usage)
            .chain(lent)
            .chain(self.remove_retry.retry_at().filter(|at| *at > now))
            .min()
    }

    /// activeDeadlineSeconds: a pod that takes longer has failed. Returns when that will be.
    fn look_at_deadline(&mut self) -> Option<Instant> {
        let seconds = self.context.spec().active_deadline_seconds?;
        let is_over = matches!(self.current["phase"].as_str(), Some("Succeeded" | "Failed"));
        if self.ending.is_some() || self.ground == Ground::Left || is_over {
            return None;
        }
        let start: jiff::Timestamp = self.current["startTime"].as_str()?.parse().ok()?;
        let passed = self.context.shared.world.now().duration_since(start);
        let left = jiff::SignedDuration::from_secs(seconds) - passed;
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => Some(Instant::now() + left),
            _ => {
                let message = "Pod was active on the node longer than the specified deadline";
                self.context.note(EventKind::Normal, "DeadlineExceeded", message);
                let (reason, message) = ("DeadlineExceeded", message.to_owned());
                self.failure = Some(Failure { reason, message, is_disruption: false });
                self.end(plan::grace_of(self.context.spec()));
                None
            }
        }
    }

    fn begin(&mut self, action: Action) {
        match action {
            Action::Raise => self.raise(),
            Action::Clear => {
                let context = self.context.clone();
                self.ground = Ground::Rising;
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.context.note(EventKind::Normal, "SandboxChanged", message);
                self.work.begin(Slot::Ground, async move {
                    Outcome::Cleared(context.shared.machine.sandbox_down(&context.uid).await)
                });
            }
            Action::Start(name) => self.start(name),
            Action::Stop { name, grace, hook, why } => {
                self.context.note_container(&name, EventKind::Normal, "Killing", why);
                self.stop(name, grace, hook);
            }
            Action::Probe(name, kind) => self.probe(name, kind),
            Action::Leave => {
                if !self.work.is_busy(&Slot::Ground) {
                    // What is given back must not be borrowed anew meanwhile, nor what is emptied be filled: a token that
                    // comes late would leave a volume of a pod that is gone.
                    self.work.abandon(&Slot::Lent);
                    self.work.abandon(&Slot::Volumes);
                    let context = self.context.clone();
                    self.work.begin(Slot::Ground, async move { Outcome::Left(steps::down(&context).await) });
                }
            }
        }
    }

    fn raise(&mut self) {
        self.ground = Ground::Rising;
        let (context, look) = (self.context.clone(), self.sources.look(self.patience()));
        let is_heard = self.is_heard;
        self.work.begin(Slot::Ground, async move {
            let raised = match context.timed(("sources", ""), look).await {
                Ok(sources) => steps::up(&context, Some(sources)).await,
                // The API is away: what the volumes held before is what they hold.
                Err(_) if context.is_known && !is_heard => steps::up(&context, None).await,
                Err(message) => Err(StepError { reason: "FailedMount", message }),
            };
            Outcome::Raised(raised)
        });
    }

    /// How long what the pod names is waited for: less where an agent goes on with a pod while the API is away.
    fn patience(&self) -> Duration {
        if self.is_heard { source::SYNC_TIMEOUT } else { source::SYNC_TIMEOUT_UNHEARD }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        match &self.ground {
            Ground::Up(addresses) => addresses.clone(),
            _ => Vec::new(),
        }
    }

    fn start(&mut self, name: String) {
        let look = self.sources.look(self.patience());
        let (context, addresses) = (self.context.clone(), self.addresses());
        let track = self.track(&name);
        let attempt = match &track.stage {
            Stage::Ended(ended) => ended.attempt + 1,
            _ => track.attempt,
        };
        track.busy = Some(Busy::Start);
        let id = format!("{name}.{attempt}");
        let beside = self.beside(&name);
        // While the API is away, what needs nothing of it runs all the same.
        let is_free = !self.is_heard && !self.context.container(&name).is_none_or(container::names_sources);
        self.work.begin(Slot::Container(name.clone()), async move {
            let looked = match context.timed(("sources", &name), look).await {
                Err(_) if context.is_known && is_free => Ok(Default::default()),
                looked => looked,
            };
            let started = match looked {
                Ok(sources) => container::start(&context, &name, StartPlan { id, beside, addresses, sources }).await,
                Err(why) => Err(StartError::Config(why)),
            };
            Outcome::Started(started)
        });
    }

    /// The running container that a visitor came to look at.
    fn beside(&self, name: &str) -> Option<String> {
        let visitors = self.context.spec().ephemeral_containers.iter().flatten();
        let target =
            visitors.filter(|visitor| visitor.name == name).find_map(|it| it.target_container_name.as_ref())?;
        let track = self.tracks.get(target).filter(|track| track.is_running())?;
        Some(format!("{target}.{}", track.attempt))
    }

    fn stop(&mut self, name: String, grace: Duration, hook: bool) {
        let (context, addresses) = (self.context.clone(), self.addresses());
        let track = self.track(&name);
        track.busy = Some(Busy::Stop);
        let id = format!("{name}.{}", track.attempt);
        let plan = StopPlan { id, grace, hook, image_signal: track.image.stop_signal.clone(), addresses };
        self.work.begin(Slot::Container(name.clone()), async move {
            let stopped = container::stop(&context, &name, plan).await;
            if stopped.is_err() {
                tokio::time::sleep(STOP_RETRY).await;
            }
            Outcome::Stopped(stopped)
        });
    }

    fn probe(&mut self, name: String, kind: crate::probe::ProbeKind) {
        let context = self.context.clone();
        let addresses = self.addresses();
        let Some(container) = self.context.container(&name) else { return };
        let Some(probe) = kind.of(container) else { return };
        let place = Place { ips: &addresses, host_network: context.host_network() };
        let check = Check::of_probe(probe, container, place);
        let track = self.track(&name);
        track.probing.push(kind);
        let id = format!("{name}.{}", track.attempt);
        self.work.begin(Slot::Probe(name, kind), async move {
            Outcome::Probed(check.run(&*context.shared.machine, &context.uid, &id).await)
        });
    }

    /// The pod is over here: the object and what is left on the machine go.
    fn finish(&mut self) {
        let is_due = self.remove_retry.is_due(Instant::now());
        let may_remove = self.ground == Ground::Left && (self.is_gone || self.header.is_ending());
        if may_remove && !self.is_removed && is_due && !self.work.is_busy(&Slot::Remove) {
            let context = self.context.clone();
            self.work.abandon(&Slot::Record);
            self.work.begin(Slot::Remove, async move {
                Outcome::Removed(context.shared.machine.pod_down(&context.uid).await)
            });
        }
        let may_delete = self.is_removed && !self.is_gone && !self.is_deleted;
        if may_delete && is_due && !self.work.is_busy(&Slot::Delete) && self.is_reported() {
            let context = self.context.clone();
            self.work.begin(Slot::Delete, async move { Outcome::Deleted(report::delete(&context).await) });
        }
    }
}

/// Whether containers can be told something else of the new pod than of the old one.
fn tells_otherwise(old: &core::Pod, new: &core::Pod) -> bool {
    let (before, now) = (&old.metadata, &new.metadata);
    before.labels != now.labels || before.annotations != now.annotations || old.spec != new.spec
}

fn decode(object: &Object) -> Result<core::Pod, PodError> {
    let pod: core::Pod = object.decode().map_err(|error| PodError::Shape(error.into()))?;
    match &pod.spec {
        Some(spec) if !spec.containers.is_empty() => Ok(pod),
        _ => Err(PodError::Shape("spec.containers is empty".into())),
    }
}

/// Where to go on: from what was kept, else from what the status says.
fn begin(context: &PodContext, current: &Value, known: Option<&Known>) -> (BTreeMap<String, Track>, Ground) {
    let now = context.shared.world.now();
    let of_status = |name: &str| {
        let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
        let mut all = lists.into_iter().filter_map(|list| current[list].as_array()).flatten();
        all.find(|status| status["name"] == name).map(|status| track_of_status(status, now))
    };
    let tracks = context
        .containers()
        .map(|container| {
            let name = container.name.clone();
            let track = match known {
                Some(known) => known.containers.get(&name).cloned().map(crate::record::KnownContainer::track),
                None => of_status(&name),
            };
            (name, track.unwrap_or_else(Track::new))
        })
        .collect();
    let ground = match known {
        Some(known) if known.left => Ground::Left,
        _ => Ground::Down,
    };
    (tracks, ground)
}

/// Reads a record: the pod and what was known of it.
pub fn read_record(bytes: &[u8]) -> Result<(Object, Known), Box<dyn std::error::Error + Send + Sync>> {
    let record = Record::decode(bytes)?;
    let object = Object::parse(Bytes::copy_from_slice(record.pod.get().as_bytes()))?;
    Ok((object, record.known))
}
