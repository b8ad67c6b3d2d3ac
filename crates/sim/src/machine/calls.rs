//! What an agent asks of a simulated machine: each call takes time, and takes no effect once the agent is dead.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use jiff::SignedDuration;
use tokio::sync::broadcast;
use windlass_network::{DnsTable, PolicyTable, ServiceTable};
use windlass_node::machine::{
    Access, Allocated, Answer, ClaimToPrepare, Container, ContainerState, ContainerStatus, Credentials, DeviceTable,
    DeviceWish, Exec, ExecResult, Facts, HealthCheck, HttpAnswer, HttpGet, Image, LentVolume, MachineError,
    MessageSource, Observed, Plugin, PodDisk, PodUsage, PreparedDevice, ProcessUser, Resize, Sandbox, Stop, Volume,
    VolumeStats,
};

use super::sandbox::{Pod, exit};
use super::{Machine, State};
use crate::life::Life;

/// How long calls take, in milliseconds, at least and at most.
type Span = (u64, u64);
const LOOK: Span = (0, 2);
const WRITE: Span = (1, 10);
const PULL: Span = (300, 3_000);
const SANDBOX: Span = (20, 200);
const CREATE: Span = (10, 100);
const START: Span = (10, 300);
const STOP: Span = (20, 2_000);
const PROBE: Span = (1, 20);
/// One in so many pulls fails.
const PULLS_FAIL: u64 = 8;
/// One in so many containers does not heed its signal.
const STUBBORN: u64 = 10;
/// A container answers probes after it has run so long.
const WARM_UP: SignedDuration = SignedDuration::from_millis(700);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// The machine in the hands of one agent.
pub struct Handle {
    machine: Machine,
    life: Life,
}

impl Machine {
    /// The machine for an agent of this life.
    pub fn handle(&self, life: &Life) -> Handle {
        Handle { machine: self.clone(), life: life.clone() }
    }

    async fn take_time(&self, (least, most): Span) {
        let ms = least + self.inner.world.random_below(most - least + 1);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn facts_now(&self) -> Result<Facts, MachineError> {
        self.take_time(LOOK).await;
        let boots = self.state().boots;
        let name = &self.inner.name;
        Ok(Facts {
            hostname: name.clone(),
            addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, self.inner.number))],
            cpus: 8,
            memory_bytes: 16 << 30,
            memory_free_bytes: 12 << 30,
            disk_bytes: 100 << 30,
            disk_free_bytes: 80 << 30,
            pids: (32_768, 300),
            architecture: "amd64".to_owned(),
            operating_system: "linux".to_owned(),
            kernel_version: "6.18.0-simulated".to_owned(),
            os_image: "simulated".to_owned(),
            machine_id: format!("machine-{name}"),
            boot_id: format!("boot-{name}-{boots}"),
            runtime_version: "windlass://simulated".to_owned(),
            ..Facts::default()
        })
    }

    async fn raise_network(&self, pod_cidr: &str) -> Result<(), MachineError> {
        self.take_time(SANDBOX).await;
        let base = pod_cidr.split('/').next().and_then(|base| base.parse().ok());
        let base = base.ok_or_else(|| failed("raise the network", "expected a range of addresses"))?;
        self.state().range = Some(base);
        Ok(())
    }

    async fn pull(&self, name: &str) -> Result<Image, MachineError> {
        self.take_time(PULL).await;
        if self.inner.world.random_below(PULLS_FAIL) == 0 {
            self.note(format_args!("could not pull {name}"));
            return Err(failed("pull", "the registry does not answer"));
        }
        self.note(format_args!("has pulled {name}"));
        self.state().images.insert(name.to_owned());
        Ok(image(name))
    }

    async fn attach_pod(&self, uid: &str) -> Result<Vec<IpAddr>, MachineError> {
        self.take_time(WRITE).await;
        let mut state = self.state();
        let range = state.range.ok_or_else(|| failed("attach", "the network is not up"))?;
        if let Some(address) = state.pods.get(uid).and_then(|pod| pod.address) {
            return Ok(vec![IpAddr::V4(address)]);
        }
        let address = state.free_address(range).ok_or_else(|| failed("attach", "all addresses are taken"))?;
        state.pods.entry(uid.to_owned()).or_default().address = Some(address);
        Ok(vec![IpAddr::V4(address)])
    }

    async fn make_sandbox(&self, uid: &str) -> Result<(), MachineError> {
        self.take_time(SANDBOX).await;
        let mut state = self.state();
        state.pods.entry(uid.to_owned()).or_default().sandbox.get_or_insert_default();
        Ok(())
    }

    async fn end_sandbox(&self, uid: &str) {
        self.take_time(SANDBOX).await;
        let running = self.state().pods.get_mut(uid).map(Pod::take_sandbox).unwrap_or_default();
        for container in running {
            self.note(format_args!("{container} of {uid} ends with its sandbox"));
            self.inner.runs.ended(uid, &container, &self.inner.name);
        }
    }

    async fn remove_pod(&self, uid: &str) -> Result<(), MachineError> {
        self.end_sandbox(uid).await;
        self.take_time(WRITE).await;
        let mut state = self.state();
        state.pods.remove(uid);
        state.records.remove(uid);
        Ok(())
    }

    async fn make_container(&self, uid: &str, id: &str) -> Result<(), MachineError> {
        self.take_time(CREATE).await;
        let mut state = self.state();
        let sandbox = state.sandbox(uid)?;
        match sandbox.get(id) {
            None | Some(ContainerState::Created) => {
                sandbox.insert(id.to_owned(), ContainerState::Created);
                Ok(())
            }
            Some(_) => Err(failed("create a container", &format!("{id} has been started before"))),
        }
    }

    async fn start_container(&self, uid: &str, id: &str) -> Result<(), MachineError> {
        self.take_time(START).await;
        let at = self.inner.world.now();
        {
            let mut state = self.state();
            state.next_pid += 1;
            let pid = state.next_pid;
            match state.sandbox(uid)?.get_mut(id) {
                None => return Err(MachineError::NotFound { what: "container", id: id.to_owned() }),
                Some(ContainerState::Running { .. }) => return Ok(()),
                Some(ContainerState::Exited(_)) => return Err(failed("start", &format!("{id} is over"))),
                Some(created) => *created = ContainerState::Running { pid, at },
            }
        }
        self.inner.runs.began(uid, id, &self.inner.name);
        self.note(format_args!("{id} of {uid} runs"));
        self.hint(uid);
        Ok(())
    }

    async fn stop_container(&self, uid: &str, id: &str, stop: &Stop) -> Result<(), MachineError> {
        let is_running = |state: &State| {
            let container = state.pods.get(uid).and_then(|pod| pod.container(id));
            matches!(container, Some(ContainerState::Running { .. }))
        };
        if !is_running(&self.state()) {
            return Ok(());
        }
        let heeds = self.inner.world.random_below(STUBBORN) != 0;
        let (least, most) = STOP;
        let takes = Duration::from_millis(least + self.inner.world.random_below(most - least));
        let heeds = heeds && takes <= stop.grace;
        tokio::time::sleep(if heeds { takes } else { stop.grace }).await;
        if self.state().undead {
            std::future::pending::<()>().await;
        }
        let signal = if heeds { SIGTERM } else { SIGKILL };
        self.end_container(uid, id, exit(128 + signal, Some(signal), self.inner.world.now()));
        Ok(())
    }

    async fn remove_container(&self, uid: &str, id: &str) -> Result<(), MachineError> {
        self.take_time(WRITE).await;
        let mut state = self.state();
        let Some(sandbox) = state.pods.get_mut(uid).and_then(|pod| pod.sandbox.as_mut()) else { return Ok(()) };
        if let Some(ContainerState::Running { .. }) = sandbox.get(id) {
            return Err(failed("remove", &format!("{id} runs")));
        }
        sandbox.remove(id);
        Ok(())
    }

    async fn look(&self, uid: &str) -> Result<Observed, MachineError> {
        self.take_time(LOOK).await;
        let state = self.state();
        let Some(sandbox) = state.pods.get(uid).and_then(|pod| pod.sandbox.as_ref()) else {
            return Ok(Observed::default());
        };
        let containers = sandbox.iter().map(|(id, state)| ContainerStatus { id: id.clone(), state: state.clone() });
        Ok(Observed { sandbox_alive: true, damage: None, containers: containers.collect() })
    }

    /// Whether a pod answers at this address: it does when one of its containers has warmed up.
    async fn answers(&self, address: IpAddr) -> bool {
        self.take_time(PROBE).await;
        let now = self.inner.world.now();
        let state = self.state();
        let pod = state.pods.values().find(|pod| pod.address.map(IpAddr::V4) == Some(address));
        let containers = pod.and_then(|pod| pod.sandbox.as_ref());
        containers.is_some_and(|all| {
            all.values()
                .any(|state| matches!(state, ContainerState::Running { at, .. } if now.duration_since(*at) > WARM_UP))
        })
    }
}

impl State {
    fn sandbox(&mut self, uid: &str) -> Result<&mut BTreeMap<String, ContainerState>, MachineError> {
        let sandbox = self.pods.get_mut(uid).and_then(|pod| pod.sandbox.as_mut());
        sandbox.ok_or_else(|| MachineError::NotFound { what: "sandbox", id: uid.to_owned() })
    }

    /// The next address that nobody has; freed ones rest for as long as there are others.
    fn free_address(&mut self, range: Ipv4Addr) -> Option<Ipv4Addr> {
        let [a, b, c, _] = range.octets();
        for _ in 2..=254 {
            let address = Ipv4Addr::new(a, b, c, self.next_host);
            self.next_host = if self.next_host == 254 { 2 } else { self.next_host + 1 };
            if self.pods.values().all(|pod| pod.address != Some(address)) {
                return Some(address);
            }
        }
        None
    }
}

fn image(name: &str) -> Image {
    Image {
        id: format!("sha256:{name}"),
        digest: format!("{name}@sha256:0"),
        cmd: vec!["/app".to_owned()],
        size: 10 << 20,
        access: Access::Anyone,
        ..Image::default()
    }
}

fn failed(operation: &str, why: &str) -> MachineError {
    MachineError::Failed { operation: operation.to_owned(), why: why.to_owned() }
}

impl Handle {
    /// A call of this agent; it never returns, and takes no effect, once the agent is dead.
    fn call<'a, T: Send + 'a>(
        &'a self,
        work: impl Future<Output = Result<T, MachineError>> + Send + 'a,
    ) -> Answer<'a, T> {
        self.life.only_alive(work).boxed()
    }
}

impl windlass_node::Machine for Handle {
    fn facts(&self) -> Answer<'_, Facts> {
        self.call(self.machine.facts_now())
    }

    fn network_up<'a>(&'a self, pod_cidr: &'a str) -> Answer<'a, ()> {
        self.call(self.machine.raise_network(pod_cidr))
    }

    fn find_image<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Image>> {
        self.call(async move {
            self.machine.take_time(LOOK).await;
            Ok(self.machine.state().images.contains(name).then(|| image(name)))
        })
    }

    fn pull_image<'a>(
        &'a self,
        name: &'a str,
        _credentials: &'a [Credentials],
        _peers: &'a [String],
    ) -> Answer<'a, Image> {
        self.call(self.machine.pull(name))
    }

    fn attach<'a>(&'a self, pod: &'a str) -> Answer<'a, Vec<IpAddr>> {
        self.call(self.machine.attach_pod(pod))
    }

    fn sandbox_up<'a>(&'a self, sandbox: &'a Sandbox) -> Answer<'a, ()> {
        self.call(self.machine.make_sandbox(&sandbox.pod))
    }

    fn pod_down<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        self.call(self.machine.remove_pod(pod))
    }

    fn sandbox_down<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        self.call(self.machine.end_sandbox(pod).map(Ok))
    }

    fn detach<'a>(&'a self, pod: &'a str) -> Answer<'a, ()> {
        self.call(async move {
            self.machine.take_time(WRITE).await;
            if let Some(pod) = self.machine.state().pods.get_mut(pod) {
                pod.address = None;
            }
            Ok(())
        })
    }

    fn pods(&self) -> Answer<'_, Vec<String>> {
        self.call(async {
            self.machine.take_time(LOOK).await;
            Ok(self.machine.held().into_iter().collect())
        })
    }

    fn volumes_down<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        // The simulated machine has no drivers: nothing is lent.
        async { Ok(()) }.boxed()
    }

    fn expand_volume<'a>(&'a self, _: &'a str, volume: &'a LentVolume, _: u64) -> Answer<'a, ()> {
        async move { Err(failed("expand volume", &format!("there is no driver {}", volume.driver))) }.boxed()
    }

    fn volume_stats<'a>(&'a self, _: &'a str) -> Answer<'a, BTreeMap<String, VolumeStats>> {
        async { Ok(BTreeMap::new()) }.boxed()
    }

    fn lent(&self) -> Answer<'_, Vec<(String, String, String)>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn plugins(&self) -> Answer<'_, Vec<Arc<Plugin>>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn prepare_claims<'a>(&'a self, _: &'a str, claims: &'a [ClaimToPrepare]) -> Answer<'a, ()> {
        let names: Vec<&str> = claims.iter().map(|claim| claim.name.as_str()).collect();
        async move { Err(failed("prepare claims", &format!("there is no driver for {}", names.join(", ")))) }.boxed()
    }

    fn prepared<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<PreparedDevice>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn unprepare_claims<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        async { Ok(()) }.boxed()
    }

    fn lasting(&self) -> Answer<'_, Vec<String>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn remove_lasting<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        async { Ok(()) }.boxed()
    }

    fn read_volume<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Answer<'a, Option<Bytes>> {
        async { Ok(None) }.boxed()
    }

    fn volume_up<'a>(&'a self, pod: &'a str, _volume: &'a Volume) -> Answer<'a, ()> {
        self.call(async move {
            self.machine.take_time(WRITE).await;
            self.machine.state().pods.entry(pod.to_owned()).or_default();
            Ok(())
        })
    }

    fn create<'a>(&'a self, pod: &'a str, container: &'a Container) -> Answer<'a, ()> {
        self.call(self.machine.make_container(pod, &container.id))
    }

    fn user<'a>(&'a self, _pod: &'a str, _container: &'a str) -> Answer<'a, ProcessUser> {
        // All processes of the simulated machine are root's.
        self.call(async { Ok(ProcessUser::default()) })
    }

    fn start<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ()> {
        self.call(self.machine.start_container(pod, container))
    }

    fn stop<'a>(&'a self, pod: &'a str, container: &'a str, stop: &'a Stop) -> Answer<'a, ()> {
        self.call(self.machine.stop_container(pod, container, stop))
    }

    fn resize<'a>(&'a self, _pod: &'a str, _resize: &'a Resize) -> Answer<'a, ()> {
        // Nothing in the simulated machine uses more or less for it.
        self.call(async { Ok(()) })
    }

    fn remove<'a>(&'a self, pod: &'a str, container: &'a str) -> Answer<'a, ()> {
        self.call(self.machine.remove_container(pod, container))
    }

    fn remove_logs<'a>(&'a self, _pod: &'a str, _container: &'a str) -> Answer<'a, ()> {
        self.call(self.machine.take_time(WRITE).map(Ok))
    }

    fn reclaim(&self, _bytes: u64, _age_min: Duration) -> Answer<'_, u64> {
        self.call(async { Ok(0) })
    }

    fn usage<'a>(&'a self, _pod: &'a str) -> Answer<'a, PodUsage> {
        // A simulated machine is never short of anything.
        self.call(async { Ok(PodUsage::default()) })
    }

    fn disk<'a>(&'a self, _pod: &'a str) -> Answer<'a, PodDisk> {
        self.call(async { Ok(PodDisk::default()) })
    }

    fn observe<'a>(&'a self, pod: &'a str) -> Answer<'a, Observed> {
        self.call(self.machine.look(pod))
    }

    fn changes(&self) -> broadcast::Receiver<String> {
        self.machine.inner.changes.subscribe()
    }

    fn devices(&self) -> tokio::sync::watch::Receiver<Arc<DeviceTable>> {
        // A simulated machine has no devices, and gets none.
        tokio::sync::watch::channel(Arc::default()).1
    }

    fn prefer_devices<'a>(&'a self, _: &'a str, _: &'a DeviceWish) -> Answer<'a, Vec<String>> {
        self.call(async { Ok(Vec::new()) })
    }

    fn allocate_devices<'a>(&'a self, resource: &'a str, _: &'a [String]) -> Answer<'a, Allocated> {
        self.call(async move { Err(failed("allocate devices", &format!("there are none of {resource}"))) })
    }

    fn ready_devices<'a>(&'a self, _: &'a str, _: &'a [String]) -> Answer<'a, ()> {
        self.call(async { Ok(()) })
    }

    fn exec<'a>(&'a self, pod: &'a str, container: &'a str, _exec: &'a Exec) -> Answer<'a, ExecResult> {
        self.call(async move {
            self.machine.take_time(PROBE).await;
            let state = self.machine.state();
            match state.pods.get(pod).and_then(|pod| pod.container(container)) {
                Some(ContainerState::Running { .. }) => Ok(ExecResult::default()),
                _ => Err(MachineError::NotFound { what: "container", id: container.to_owned() }),
            }
        })
    }

    fn http_get<'a>(&'a self, get: &'a HttpGet) -> Answer<'a, HttpAnswer> {
        self.call(async move {
            let address = get.host.parse().map_err(|_| failed("probe", "expected an address"))?;
            let status = if self.machine.answers(address).await { 200 } else { 503 };
            Ok(HttpAnswer { status, body: String::new() })
        })
    }

    fn connect(&self, address: SocketAddr, _timeout: Duration) -> Answer<'_, ()> {
        self.call(async move {
            match self.machine.answers(address.ip()).await {
                true => Ok(()),
                false => Err(failed("connect", "connection refused")),
            }
        })
    }

    fn check_health<'a>(&'a self, check: &'a HealthCheck) -> Answer<'a, ()> {
        self.connect(check.address, check.timeout)
    }

    fn manifests(&self) -> Answer<'_, BTreeMap<String, Bytes>> {
        // Nobody puts files on a simulated machine.
        self.call(async { Ok(BTreeMap::new()) })
    }

    fn last_words<'a>(&'a self, _pod: &'a str, _container: &'a str, _from: MessageSource) -> Answer<'a, String> {
        self.call(self.machine.take_time(LOOK).map(|()| Ok(String::new())))
    }

    fn apply_services<'a>(&'a self, services: &'a ServiceTable, _names: &'a DnsTable) -> Answer<'a, ()> {
        self.call(async move {
            self.machine.take_time(WRITE).await;
            self.machine.state().services = services.clone();
            Ok(())
        })
    }

    /// No packets are simulated that could be restricted.
    fn apply_policies(&self, _policies: PolicyTable) -> Answer<'_, ()> {
        self.call(async move {
            self.machine.take_time(WRITE).await;
            Ok(())
        })
    }

    fn save<'a>(&'a self, key: &'a str, record: Bytes) -> Answer<'a, ()> {
        self.call(async move {
            self.machine.take_time(WRITE).await;
            self.machine.state().records.insert(key.to_owned(), record);
            Ok(())
        })
    }

    fn load(&self) -> Answer<'_, BTreeMap<String, Bytes>> {
        self.call(async {
            self.machine.take_time(LOOK).await;
            Ok(self.machine.state().records.clone())
        })
    }
}
