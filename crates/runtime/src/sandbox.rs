//! The agent's handle on one sandbox: asks its shim, keeps the states it was told, and cleans up after a lost shim.
//!
//! Guarantees  the states are never older than the last event given out; a lost shim is noticed at once, and then every
//!             container of the sandbox is killed before it is reported as over
//! Caveats     [`Events`] skips intermediate states for a reader that falls behind, never the last one

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::{OnceCell, broadcast, watch};

use crate::cgroup::SandboxCgroup;
use crate::checkpoint::{CheckpointSpec, Draft, Subject};
use crate::error::RuntimeError;
use crate::kernel;
use crate::layout::{self, Boot, SandboxDir, make_private_dir, remove_tree};
use crate::link::Link;
use crate::process::{Attachment, Process, Streams};
use crate::protocol::{Answer, Request};
use crate::spec::{ContainerSpec, ExecSpec, Resources, SandboxSpec, TerminalSize};
use crate::state::{ContainerEvent, ContainerState, ContainerStatus, Exit, ExitReason, SandboxUsage};

/// Events kept for a reader that is behind; one that is further behind is given the current states instead.
const EVENTS_MAX: usize = 256;
/// A living shim accepts and answers at once; this is for a machine that hardly moves.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// A handle on one sandbox. Cheap to clone; dropping it stops nothing.
#[derive(Clone, Debug)]
pub struct Sandbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    boot: Boot,
    dir: SandboxDir,
    cgroup: SandboxCgroup,
    link: OnceLock<Link>,
    states: Mutex<BTreeMap<String, ContainerState>>,
    events: broadcast::Sender<ContainerEvent>,
    is_alive: watch::Sender<bool>,
    /// Its shim is expected to end.
    is_stopping: AtomicBool,
    is_removed: AtomicBool,
    /// Its shim knows how to save containers.
    saves: AtomicBool,
    /// The containers that are being saved.
    saving: Mutex<BTreeSet<String>>,
    /// Cleaning up after a lost shim happens once, whoever notices first.
    burial: OnceCell<()>,
}

impl Sandbox {
    fn new(boot: Boot, dir: SandboxDir, cgroup: SandboxCgroup) -> Sandbox {
        Sandbox(Arc::new(Inner {
            boot,
            dir,
            cgroup,
            link: OnceLock::new(),
            states: Mutex::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
            is_alive: watch::Sender::new(true),
            is_stopping: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
            saves: AtomicBool::new(false),
            saving: Mutex::default(),
            burial: OnceCell::new(),
        }))
    }

    /// Starts a shim. The socket is made here and handed over listening, so there is nothing to wait for before connecting.
    pub(crate) async fn create(
        boot: Boot,
        dir: SandboxDir,
        cgroup: SandboxCgroup,
        exe: &Path,
    ) -> Result<Sandbox, RuntimeError> {
        let made = fs::DirBuilder::new().mode(0o700).create(&dir.0);
        made.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => RuntimeError::Exists { what: "sandbox", id: boot.spec.id.clone() },
            _ => RuntimeError::file("make directory", &dir.0)(error),
        })?;
        make_private_dir(&dir.containers())?;
        make_private_dir(&boot.data)?;
        layout::save(&dir.boot(), &boot)?;
        let listener = listen(&dir)?;
        let log = fs::File::create(dir.shim_log()).map_err(RuntimeError::file("make", dir.shim_log()))?;
        let mut child = Command::new(exe)
            .arg("shim")
            .arg(&dir.0)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            // No working directory: with one a static program is forked, all its page tables copied, instead of spawned.
            .spawn()
            .map_err(RuntimeError::file("start", exe))?;
        // The shim outlives this process, but as long as it is our child someone must take note of its end.
        tokio::spawn(async move { child.wait().await });
        let sandbox = Sandbox::new(boot, dir, cgroup);
        sandbox.connect().await?;
        Ok(sandbox)
    }

    /// Finds a sandbox that an earlier agent left, with or without a living shim.
    pub(crate) async fn reconnect(boot: Boot, dir: SandboxDir, cgroup: SandboxCgroup) -> Result<Sandbox, RuntimeError> {
        let sandbox = Sandbox::new(boot, dir, cgroup);
        if let Err(error) = sandbox.connect().await {
            tracing::warn!(sandbox = sandbox.id(), %error, "shim does not answer; its containers are killed");
            Arc::clone(&sandbox.0).bury().await;
        }
        Ok(sandbox)
    }

    async fn connect(&self) -> Result<(), RuntimeError> {
        let inner = &self.0;
        let stream = connect(&inner.dir).await?;
        let (for_events, for_loss) = (Arc::downgrade(inner), Arc::downgrade(inner));
        let on_event = move |event| {
            if let Some(inner) = Weak::upgrade(&for_events) {
                inner.note(event);
            }
        };
        let on_loss = async move {
            if let Some(inner) = Weak::upgrade(&for_loss) {
                inner.bury().await;
            }
        };
        let link = Link::start(self.id(), stream, on_event, on_loss);
        let answer = link.call_within("connect to sandbox", Request::Hello, HELLO_TIMEOUT).await?;
        let Answer::Hello { containers, making, saves, .. } = &answer.0 else { return Err(link.strange(&answer.0)) };
        for status in containers {
            // Events that came right behind the answer have been noted already, and are newer.
            let mut states = inner.states.lock().expect("nobody panics with it");
            states.entry(status.id.clone()).or_insert_with(|| status.state.clone());
        }
        self.forget_unfinished(containers, making)?;
        inner.saves.store(*saves, Ordering::Relaxed);
        inner.link.set(link).expect("a sandbox is connected once");
        Ok(())
    }

    /// Removes what an agent left that died before its shim was told to make the container.
    fn forget_unfinished(&self, known: &[ContainerStatus], making: &[String]) -> Result<(), RuntimeError> {
        let dir = &self.0.dir;
        for id in dir.container_ids().map_err(RuntimeError::file("list", dir.containers()))? {
            if !known.iter().any(|status| status.id == id) && !making.contains(&id) {
                remove_tree(&dir.container(&id).0)?;
            }
        }
        Ok(())
    }

    /// The sandbox's id.
    pub fn id(&self) -> &str {
        &self.0.boot.spec.id
    }

    /// What it was made from.
    pub fn spec(&self) -> &SandboxSpec {
        &self.0.boot.spec
    }

    /// The machine's id that is root inside, if it has a user namespace.
    pub fn user_ids(&self) -> Option<u32> {
        self.0.boot.user_ids
    }

    /// Who the container's processes are: user, group and further groups, as numbered inside; `None` before it is made.
    pub fn identity(&self, id: &str) -> Result<Option<(u32, u32, Vec<u32>)>, RuntimeError> {
        crate::spec::check_id("container.id", id)?;
        let launch = layout::load::<crate::launch::Launch>(&self.0.dir.container(id).launch())?;
        Ok(launch.map(|launch| (launch.identity.uid, launch.identity.gid, launch.identity.groups)))
    }

    /// Whether its shim lives. Without one, states can still be read and the sandbox be stopped.
    pub fn is_alive(&self) -> bool {
        *self.0.is_alive.borrow()
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.0.is_removed.load(Ordering::Relaxed)
    }

    fn link(&self) -> Result<&Link, RuntimeError> {
        let link = self.0.link.get().filter(|_| self.is_alive());
        link.ok_or_else(|| RuntimeError::ShimLost { id: self.id().to_owned() })
    }

    /// Makes a container, up to the point where its program could begin. Goes on when the future is dropped.
    pub async fn create_container(&self, spec: ContainerSpec) -> Result<(), RuntimeError> {
        spec.check()?;
        let sandbox = self.clone();
        to_the_end("create a container", async move { sandbox.create_whole(spec).await }).await
    }

    async fn create_whole(&self, spec: ContainerSpec) -> Result<(), RuntimeError> {
        let link = self.link()?;
        let id = spec.id.clone();
        let dir = self.0.dir.container(&id);
        match fs::DirBuilder::new().mode(0o700).create(&dir.0) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(RuntimeError::Exists { what: "container", id });
            }
            made => made.map_err(RuntimeError::file("make directory", &dir.0))?,
        }
        layout::save(&dir.spec(), &spec)?;
        let created = link.done("create container", Request::Create { id: id.clone() }).await;
        match created {
            Ok(()) => {
                self.0.states.lock().expect("nobody panics with it").entry(id).or_insert(ContainerState::Created);
                Ok(())
            }
            Err(RuntimeError::Refused { operation, id, why }) => {
                // The shim does this too, but not when it refused before it began.
                remove_tree(&dir.0)?;
                Err(RuntimeError::Refused { operation, id, why })
            }
            Err(other) => Err(other),
        }
    }

    /// Lets a created container's program begin; returns when it has. A program that cannot be started is an error, and
    /// the container is then [`ExitReason::StartFailed`].
    pub async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.link()?.done("start container", Request::Start { id: id.to_owned() }).await
    }

    /// Sends a signal to the first process of a running container.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        self.link()?.done("signal container", Request::Signal { id: id.to_owned(), signal }).await
    }

    /// Asks a container to end, and kills all of it when it still runs after `grace`. Returns when it is over.
    pub async fn stop_container(&self, id: &str, signal: i32, grace: Duration) -> Result<(), RuntimeError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Stop { id: id.to_owned(), signal, grace_ms };
        let timeout = grace.saturating_add(HELLO_TIMEOUT);
        match self.link()?.call_within("stop container", request, timeout).await? {
            (Answer::Done, _) => Ok(()),
            (other, _) => Err(self.link()?.strange(&other)),
        }
    }

    /// Removes a container that is over or was never started, with its writable layer. Its logs stay. Goes on when the
    /// future is dropped.
    pub async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        crate::spec::check_id("container.id", id)?;
        let (sandbox, id) = (self.clone(), id.to_owned());
        to_the_end("remove a container", async move { sandbox.remove_whole(&id).await }).await
    }

    async fn remove_whole(&self, id: &str) -> Result<(), RuntimeError> {
        let (dir, data) = (self.0.dir.container(id).0, self.0.boot.data.join(id));
        match self.link() {
            Ok(link) => link.done("remove container", Request::Remove { id: id.to_owned() }).await?,
            // Without a shim everything of it has been killed; only files are left.
            Err(_) if dir.exists() => {}
            Err(_) => return Err(RuntimeError::NotFound { what: "container", id: id.to_owned() }),
        }
        // The writable layer may be large, and is last: what is left of a removal cut short is found by its directory.
        blocking("remove a container", move || remove_tree(&data).and_then(|()| remove_tree(&dir))).await?;
        self.0.states.lock().expect("nobody panics with it").remove(id);
        Ok(())
    }

    /// All containers with their states, by id.
    pub fn states(&self) -> Vec<ContainerStatus> {
        let states = self.0.states.lock().expect("nobody panics with it");
        states.iter().map(|(id, state)| ContainerStatus { id: id.clone(), state: state.clone() }).collect()
    }

    /// Whether every container that runs has its control groups.
    pub fn has_groups(&self) -> bool {
        let is_running = |status: &ContainerStatus| matches!(status.state, ContainerState::Running { .. });
        let runs = |id: &str| matches!(self.state(id), Some(ContainerState::Running { .. }));
        // One that ends meanwhile takes its groups along.
        self.states()
            .iter()
            .filter(|status| is_running(status))
            .all(|status| self.0.cgroup.container(&status.id).exists() || !runs(&status.id))
    }

    /// One container's state.
    pub fn state(&self, id: &str) -> Option<ContainerState> {
        self.0.states.lock().expect("nobody panics with it").get(id).cloned()
    }

    /// What a container was made from; `None` when there is none.
    pub fn container_spec(&self, id: &str) -> Result<Option<ContainerSpec>, RuntimeError> {
        crate::spec::check_id("container.id", id)?;
        layout::load(&self.0.dir.container(id).spec())
    }

    /// Changes of state from now on.
    pub fn events(&self) -> Events {
        Events {
            sandbox: Arc::clone(&self.0),
            receiver: self.0.events.subscribe(),
            is_alive: self.0.is_alive.subscribe(),
            behind: VecDeque::new(),
        }
    }

    /// Runs one more process in a running container.
    pub async fn exec(&self, id: &str, spec: ExecSpec) -> Result<Process, RuntimeError> {
        spec.check()?;
        let link = self.link()?.clone();
        let exec = link.number();
        let exit = link.expect_exit(exec);
        let stdin = spec.stdin;
        let request = Request::Exec { id: id.to_owned(), exec, spec };
        match link.call("exec in container", request).await {
            Ok((Answer::Streams(kinds), fds)) => {
                Ok(Process::new(exec, link, exit, Streams::new(&kinds, fds)?.with_terminal(stdin)?))
            }
            Ok((other, _)) => Err(link.strange(&other)),
            Err(error) => {
                link.forget_exit(exec);
                Err(error)
            }
        }
    }

    /// Shares a created or running container's input and output, from now on.
    pub async fn attach(&self, id: &str, stdin: bool, stdout: bool, stderr: bool) -> Result<Attachment, RuntimeError> {
        let link = self.link()?;
        match link.call("attach to container", Request::Attach { id: id.to_owned(), stdin, stdout, stderr }).await? {
            (Answer::Streams(kinds), fds) => {
                let Streams { stdin, stdout, stderr, terminal } = Streams::new(&kinds, fds)?;
                Ok(Attachment { stdin, stdout, stderr, terminal })
            }
            (other, _) => Err(link.strange(&other)),
        }
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, id: &str, size: TerminalSize) -> Result<(), RuntimeError> {
        self.link()?.done("resize container", Request::Resize { id: id.to_owned(), size }).await
    }

    /// Changes a container's limits while it runs.
    pub async fn update(&self, id: &str, resources: Resources) -> Result<(), RuntimeError> {
        self.link()?.done("update container", Request::Update { id: id.to_owned(), resources }).await
    }

    /// Saves a running container as an archive; it goes on running. What fails leaves nothing. Goes on when the future is
    /// dropped.
    pub async fn checkpoint(&self, id: &str, spec: CheckpointSpec) -> Result<(), RuntimeError> {
        crate::spec::check_id("container.id", id)?;
        let (sandbox, id) = (self.clone(), id.to_owned());
        to_the_end("checkpoint a container", async move {
            let is_first = sandbox.0.saving.lock().expect("nobody panics with it").insert(id.clone());
            if !is_first {
                return Err(not_saved(&id, "it is being checkpointed already"));
            }
            let saved = sandbox.checkpoint_whole(&id, spec).await;
            sandbox.0.saving.lock().expect("nobody panics with it").remove(&id);
            saved
        })
        .await
    }

    async fn checkpoint_whole(&self, id: &str, spec: CheckpointSpec) -> Result<(), RuntimeError> {
        let link = self.link()?;
        if !self.0.saves.load(Ordering::Relaxed) {
            let why = "its shim was started by a version that could not; what is started now can be checkpointed";
            return Err(not_saved(id, why));
        }
        let missing = || RuntimeError::NotFound { what: "container", id: id.to_owned() };
        let container = self.container_spec(id)?.ok_or_else(missing)?;
        let timeout = spec.timeout.saturating_add(HELLO_TIMEOUT);
        let draft = Draft::begin(spec)?;
        let request = Request::Checkpoint { id: id.to_owned(), order: draft.order() };
        match link.call_within("checkpoint container", request, timeout).await? {
            (Answer::Done, _) => {}
            (other, _) => return Err(link.strange(&other)),
        }
        let (dir, data) = (self.0.dir.container(id), self.0.boot.data.join(id));
        blocking("pack a checkpoint", move || draft.finish(&Subject { dir, data, spec: container })).await
    }

    /// What the containers use now, together and each.
    pub async fn usage(&self) -> Result<SandboxUsage, RuntimeError> {
        let cgroup = self.0.cgroup.clone();
        let running = self.states().into_iter().filter(|one| matches!(one.state, ContainerState::Running { .. }));
        let ids: Vec<String> = running.map(|one| one.id).collect();
        blocking("look at what a sandbox uses", move || {
            let containers = ids.into_iter().map(|id| {
                let usage = cgroup.container(&id).usage();
                (id, usage)
            });
            Ok(SandboxUsage { whole: cgroup.usage(), containers: containers.collect() })
        })
        .await
    }

    /// Changes the limits on all containers together. What is `None` stays as it is.
    pub async fn limit(&self, resources: Resources) -> Result<(), RuntimeError> {
        let cgroup = self.0.cgroup.clone();
        blocking("limit a sandbox", move || cgroup.limit(&resources)).await
    }

    /// Kills whatever still runs, ends the shim and removes everything the sandbox had. Works without a living shim, and
    /// may be repeated when it failed. Goes on when the future is dropped.
    pub async fn stop(&self) -> Result<(), RuntimeError> {
        let sandbox = self.clone();
        to_the_end("stop a sandbox", async move { sandbox.stop_whole().await }).await
    }

    async fn stop_whole(&self) -> Result<(), RuntimeError> {
        let inner = &self.0;
        inner.is_stopping.store(true, Ordering::Relaxed);
        if let Ok(link) = self.link() {
            match link.done("stop sandbox", Request::Shutdown).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(sandbox = self.id(), %error, "shim did not end in order; it is killed"),
            }
        }
        let last = Arc::clone(inner);
        blocking("remove a sandbox", move || last.sweep()).await?;
        inner.is_removed.store(true, Ordering::Relaxed);
        inner.is_alive.send_replace(false);
        Ok(())
    }
}

impl Inner {
    fn note(&self, event: ContainerEvent) {
        self.states.lock().expect("nobody panics with it").insert(event.id.clone(), event.state.clone());
        // Nobody need listen.
        let _ = self.events.send(event);
    }

    /// The shim is gone: kill what it held, then say of each container how it ended.
    async fn bury(self: Arc<Self>) {
        let inner = Arc::clone(&self);
        self.burial.get_or_init(|| inner.bury_once()).await;
    }

    async fn bury_once(self: Arc<Self>) {
        if self.is_stopping.load(Ordering::Relaxed) {
            self.is_alive.send_replace(false);
            return;
        }
        let inner = Arc::clone(&self);
        match blocking("kill what a lost shim left", move || inner.ends_after_loss()).await {
            Ok(ends) => ends
                .into_iter()
                .for_each(|(id, exit)| self.note(ContainerEvent { id, state: ContainerState::Exited(exit) })),
            Err(error) => tracing::error!(sandbox = self.boot.spec.id, %error, "could not clean up after a lost shim"),
        }
        self.is_alive.send_replace(false);
    }

    /// Blocking. Kills what is left, then returns how each container ended that is not known to be over. What cannot be
    /// killed is not waited for: the sandbox is lost all the same, and stopping it tries again.
    fn ends_after_loss(&self) -> Result<Vec<(String, Exit)>, RuntimeError> {
        let unmount = || kernel::unmount(&self.dir.shm()).map_err(RuntimeError::file("unmount", self.dir.shm()));
        if let Err(error) = kill_shim(&self.dir).and_then(|()| self.cgroup.destroy()).and_then(|()| unmount()) {
            tracing::error!(sandbox = self.boot.spec.id, %error, "not all that a lost shim left could be removed");
        }
        let mut ends = Vec::new();
        for id in self.dir.container_ids().map_err(RuntimeError::file("list", self.dir.containers()))? {
            let known = self.states.lock().expect("nobody panics with it").get(&id).cloned();
            let started_at = match known {
                Some(ContainerState::Exited(_)) => continue,
                Some(ContainerState::Running { at, .. }) => Some(at),
                _ => None,
            };
            let exit = layout::load(&self.dir.container(&id).exit())?.unwrap_or_else(|| Exit {
                code: 255,
                signal: None,
                oom: false,
                reason: ExitReason::Unknown,
                message: "the shim that watched this container was lost; the container has been killed".to_owned(),
                started_at,
                finished_at: kernel::now(),
            });
            ends.push((id, exit));
        }
        Ok(ends)
    }

    /// Blocking. Removes everything, whatever the shim has done already.
    fn sweep(&self) -> Result<(), RuntimeError> {
        kill_shim(&self.dir)?;
        self.cgroup.destroy()?;
        kernel::unmount(&self.dir.shm()).map_err(RuntimeError::file("unmount", self.dir.shm()))?;
        remove_tree(&self.boot.data)?;
        remove_tree(&self.dir.0)
    }
}

/// A sandbox's changes of state, in order.
#[derive(Debug)]
pub struct Events {
    sandbox: Arc<Inner>,
    receiver: broadcast::Receiver<ContainerEvent>,
    is_alive: watch::Receiver<bool>,
    behind: VecDeque<ContainerEvent>,
}

impl Events {
    /// The next change; `None` when the sandbox is stopped or its shim lost, after the last event. Cancel safe.
    pub async fn next(&mut self) -> Option<ContainerEvent> {
        loop {
            if let Some(event) = self.behind.pop_front() {
                return Some(event);
            }
            let received = tokio::select! {
                biased;
                received = self.receiver.recv() => received,
                _ = self.is_alive.wait_for(|is_alive| !is_alive) => match self.receiver.try_recv() {
                    Ok(event) => Ok(event),
                    Err(broadcast::error::TryRecvError::Lagged(count)) => Err(broadcast::error::RecvError::Lagged(count)),
                    Err(_) => return None,
                },
            };
            match received {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Closed) => return None,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let states = self.sandbox.states.lock().expect("nobody panics with it");
                    let now = states.iter().map(|(id, state)| ContainerEvent { id: id.clone(), state: state.clone() });
                    self.behind = now.collect();
                }
            }
        }
    }
}

fn not_saved(id: &str, why: &str) -> RuntimeError {
    RuntimeError::Refused { operation: "checkpoint container", id: id.to_owned(), why: why.to_owned() }
}

/// Runs what must not be cut short, because a half-done change would be in the way of the next attempt.
pub(crate) async fn to_the_end<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
) -> Result<T, RuntimeError> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(RuntimeError::system(operation)(std::io::Error::other(error))))
}

/// Runs what blocks where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(RuntimeError::system(operation)(std::io::Error::other(error))))
}

/// How long a killed shim may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Kills a sandbox's shim, if there is one, and waits until it is gone. Blocking.
///
/// The number in its pid file may long belong to someone else; so the process is pinned first, and then must have been
/// started for just this sandbox.
pub(crate) fn kill_shim(dir: &SandboxDir) -> Result<(), RuntimeError> {
    let Some(pid) = layout::load::<i32>(&dir.shim_pid())?.and_then(rustix::process::Pid::from_raw) else {
        return Ok(());
    };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return Ok(()) };
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    if command.split(|byte| *byte == 0).nth(2) != Some(dir.0.as_os_str().as_bytes()) {
        return Ok(());
    }
    // It may end by itself in this moment, which is as good.
    let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: KILL_TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
    match rustix::event::poll(&mut ended, Some(&timeout)) {
        Ok(0) => Err(RuntimeError::system("kill a shim")(std::io::ErrorKind::TimedOut.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(RuntimeError::system("wait for the end of a shim")(error.into())),
    }
}

/// Binds the sandbox's socket. Its path may be longer than a socket address holds, so it is named through a descriptor.
fn listen(dir: &SandboxDir) -> Result<UnixListener, RuntimeError> {
    let short = ShortPath::of(dir)?;
    let bound = UnixListener::bind(short.socket()).and_then(|listener| {
        fs::set_permissions(dir.socket(), fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    bound.map_err(RuntimeError::file("listen on", dir.socket()))
}

async fn connect(dir: &SandboxDir) -> Result<UnixStream, RuntimeError> {
    let short = ShortPath::of(dir)?;
    UnixStream::connect(short.socket()).await.map_err(RuntimeError::file("connect to", dir.socket()))
}

/// A directory held open so that what is in it has a short name.
struct ShortPath(fs::File);

impl ShortPath {
    fn of(dir: &SandboxDir) -> Result<ShortPath, RuntimeError> {
        fs::File::open(&dir.0).map(ShortPath).map_err(RuntimeError::file("open", &dir.0))
    }

    fn socket(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}/shim.sock", self.0.as_raw_fd())
    }
}
