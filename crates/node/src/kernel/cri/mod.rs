//! Pods whose containers another runtime of this machine runs, spoken to by CRI: containerd over its socket.
//!
//! Goal        such a pod is like all others to everybody but this module: its address, names, policies, volumes, images, logs
//!             and limits are the node's; the runtime has namespaces, processes and streams
//! Relies on   the runtime shares the machine's mount namespace, and calls our CNI plugin (`crate::cni`)
//!
//! Rules
//!   P1 known     a pod is written down before its runtime hears of it, so nothing of it is ever lost sight of
//!   P2 network   a sandbox that is not in the network that the agent has made is ended at once, and the pod told why
//!   P3 ended     a pod is rid of when its runtime has none of its sandboxes, and nothing of its groups and mounts is left
//!   P4 exact     what the runtime cannot be asked for fails the pod by name (`config`, `given`)
//!
//! Flow        `endpoint` (which runtime) → `config` (what it is told) over `calls` → `life` (containers) ← `look` (what became
//!             of them); `giver` gives images, `given` paths and devices
//! Not here    how a stream is carried (`crate::stream`), what the agent wants of a pod

mod calls;
mod config;
mod endpoint;
mod given;
mod giver;
mod life;
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast;
use windlass_network::Attachment;
use windlass_runtime::image::Images;
use windlass_runtime::{ContainerState, Groups, Runtime};
use windlass_stdx::World;

pub use calls::{Client, StreamAsk};
use config::{Asked, Place};
pub use endpoint::{CriEndpoint, SCHEME};
use giver::Giver;

use super::layout::Layout;
use super::{
    failed, file_error, make_private_dir, names, of_runtime, off_the_runtime, refused, remove_file, remove_tree,
    save_file_for_good, volume,
};
use crate::cni;
use crate::machine::{MachineError, Sandbox};

/// The longest record that is read back.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// What is written down of a pod (P1), and read by the plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    endpoint: CriEndpoint,
    asked: Asked,
    network: Option<PodNetwork>,
}

/// Where the pod's network is; none has the machine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PodNetwork {
    namespace: PathBuf,
    address: Ipv4Addr,
}

/// A pod of another runtime.
#[derive(Clone, Debug)]
pub struct CriPod {
    pub uid: String,
    record: Record,
    pub client: Client,
}

/// All pods of other runtimes.
pub struct Cri {
    layout: Layout,
    instance: String,
    runtime: Runtime,
    cdi: Vec<PathBuf>,
    giver: Giver,
    changes: broadcast::Sender<String>,
    pods: Mutex<BTreeMap<String, Arc<CriPod>>>,
    /// What is known of containers by the runtime's ids, and does not change while they are in the same stage.
    seen: Mutex<BTreeMap<String, ContainerState>>,
}

/// What the pods of other runtimes need of the node.
pub struct Ground {
    pub layout: Layout,
    pub instance: String,
    pub runtime: Runtime,
    pub images: Images,
    pub world: World,
    pub cdi: Vec<PathBuf>,
    pub changes: broadcast::Sender<String>,
}

impl Cri {
    /// Takes over what an earlier agent has left, and says to runtimes how they ask for a network.
    pub fn open(ground: Ground, endpoints: &[CriEndpoint], exe: &Path) -> Result<Arc<Cri>, MachineError> {
        let Ground { layout, instance, runtime, images, world, cdi, changes } = ground;
        if !endpoints.is_empty() {
            announce(&layout, endpoints, exe)?;
        }
        let mut pods = BTreeMap::new();
        for (uid, record) in records(&layout)? {
            let client = Client::new(&record.endpoint.socket);
            pods.insert(uid.clone(), Arc::new(CriPod { uid, record, client }));
        }
        let cri = Arc::new(Cri {
            giver: Giver::new(images, world),
            layout,
            instance,
            runtime,
            cdi,
            changes,
            pods: Mutex::new(pods),
            seen: Mutex::default(),
        });
        tokio::spawn(look::watch(Arc::downgrade(&cri)));
        Ok(cri)
    }

    /// The pod of this uid, if another runtime runs it.
    pub fn pod(&self, uid: &str) -> Option<Arc<CriPod>> {
        self.pods.lock().expect("nothing panics while holding it").get(uid).cloned()
    }

    fn all(&self) -> Vec<Arc<CriPod>> {
        self.pods.lock().expect("nothing panics while holding it").values().cloned().collect()
    }

    fn groups(&self, uid: &str) -> Groups {
        self.runtime.groups(uid)
    }

    /// By what a runtime finds what it has of this pod.
    fn labels(&self, uid: &str) -> BTreeMap<String, String> {
        let labels = [(config::INSTANCE, self.instance.as_str()), (config::POD, uid)];
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    /// The runtime's id of the sandbox that lives.
    async fn living(&self, pod: &CriPod) -> Result<Option<String>, MachineError> {
        let all = pod.client.sandboxes(&self.labels(&pod.uid)).await?;
        Ok(all.into_iter().find(|sandbox| sandbox.is_ready).map(|sandbox| sandbox.id))
    }

    /// Whether the pod's sandbox can take containers.
    pub async fn is_alive(&self, pod: &CriPod) -> Result<bool, MachineError> {
        self.living(pod).await.map(|found| found.is_some())
    }

    /// Makes a sandbox; there is none.
    pub async fn make_sandbox(
        &self,
        sandbox: &Sandbox,
        endpoint: CriEndpoint,
        attached: Option<Attachment>,
    ) -> Result<(), MachineError> {
        let uid = sandbox.pod.clone();
        let network = attached.map(|it| PodNetwork { namespace: it.netns, address: it.address });
        let client = Client::new(&endpoint.socket);
        let record = Record { endpoint, asked: Asked::from(sandbox), network };
        let pod = Arc::new(CriPod { uid: uid.clone(), record, client });
        self.write_down(&pod).await?;
        self.pods.lock().expect("nothing panics while holding it").insert(uid.clone(), Arc::clone(&pod));
        let (groups, limits, logs) = (self.groups(&uid), sandbox.resources, self.layout.logs(&uid)?);
        let parent = groups.path();
        off_the_runtime(move || {
            make_private_dir(&logs)?;
            groups.limit(&limits).map_err(|error| of_runtime("limit the pod", &error))
        })
        .await?;
        let told = config::sandbox(&pod.record.asked, &self.place(&uid, &self.layout.logs(&uid)?, &parent));
        let made = pod.client.run_sandbox(&told, &pod.record.endpoint.handler).await?;
        match self.is_in_network(&pod, &made).await {
            Ok(true) => Ok(()),
            other => {
                pod.client.stop_sandbox(&made).await?;
                Err(other.err().unwrap_or_else(|| self.wrong_network()))
            }
        }
    }

    /// Whether the pod's sandbox lives and stays. An agent may have ended before it looked at the network (P2).
    pub async fn is_kept(&self, pod: &CriPod) -> Result<bool, MachineError> {
        let Some(sandbox) = self.living(pod).await? else { return Ok(false) };
        if !self.is_in_network(pod, &sandbox).await? {
            pod.client.stop_sandbox(&sandbox).await?;
            return Err(self.wrong_network());
        }
        Ok(true)
    }

    fn place<'a>(&'a self, pod: &'a str, logs: &'a Path, cgroup_parent: &'a str) -> Place<'a> {
        Place { instance: &self.instance, pod, logs, cgroup_parent }
    }

    /// P1.
    async fn write_down(&self, pod: &CriPod) -> Result<(), MachineError> {
        let path = self.layout.cri(&pod.uid)?;
        let text = serde_json::to_vec(&pod.record).map_err(|error| failed("write down a pod", &error))?;
        off_the_runtime(move || {
            path.parent().map_or(Ok(()), make_private_dir)?;
            save_file_for_good(&path, &text)
        })
        .await
    }

    /// P2.
    async fn is_in_network(&self, pod: &CriPod, sandbox: &str) -> Result<bool, MachineError> {
        let Some(network) = &pod.record.network else { return Ok(true) };
        let pid = pod.client.sandbox_pid(sandbox).await?;
        let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let wanted = match identity(&network.namespace) {
            Ok(wanted) => wanted,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(file_error("look at", &network.namespace, &error)),
        };
        let found = pid.map(|pid| identity(Path::new(&format!("/proc/{pid}/ns/net"))));
        Ok(found.is_some_and(|found| found.is_ok_and(|found| found == wanted)))
    }

    fn wrong_network(&self) -> MachineError {
        let cni = self.layout.cni();
        let why = format!(
            "the runtime has put the sandbox into a network of its own; its CNI configuration must be that of {} \
             (conf_dir {}, bin_dir {})",
            cni.display(),
            cni.join("net.d").display(),
            cni.join("bin").display()
        );
        refused("check the sandbox's network", why)
    }

    /// Ends a pod's sandbox with its containers; logs and volumes stay (P3).
    pub async fn end(&self, uid: &str) -> Result<(), MachineError> {
        let Some(pod) = self.pod(uid) else { return Ok(()) };
        end_sandboxes(&pod.client, &self.labels(uid)).await?;
        let (layout, groups, uid) = (self.layout.clone(), self.groups(uid), uid.to_owned());
        let gone = uid.clone();
        off_the_runtime(move || {
            groups.destroy().map_err(|error| of_runtime("remove the pod's control groups", &error))?;
            given::remove_parts(&layout.parts(&uid)?)?;
            remove_file(&layout.cri(&uid)?)
        })
        .await?;
        self.pods.lock().expect("nothing panics while holding it").remove(&gone);
        Ok(())
    }

    /// The images that containers of this node's pods are made of, by id.
    pub async fn images_in_use(&self) -> Result<BTreeSet<String>, MachineError> {
        let labels = BTreeMap::from([(config::INSTANCE.to_owned(), self.instance.clone())]);
        let clients: BTreeSet<Client> = self.all().iter().map(|pod| pod.client.clone()).collect();
        let mut all = BTreeSet::new();
        for client in clients {
            all.extend(client.containers(&labels).await?.into_iter().map(|container| container.image));
        }
        Ok(all)
    }

    /// Removes images that only this node has given to runtimes and that no container is made of; says how many bytes they
    /// had.
    pub async fn reclaim(&self, endpoints: &[CriEndpoint]) -> Result<u64, MachineError> {
        let sockets: BTreeSet<PathBuf> = endpoints.iter().map(|endpoint| endpoint.socket.clone()).collect();
        let mut freed = 0;
        for socket in sockets {
            let client = Client::new(&socket);
            let used: BTreeSet<String> =
                client.containers(&BTreeMap::new()).await?.into_iter().map(|container| container.image).collect();
            for image in client.images().await?.iter().filter(|image| giver::is_given(image)) {
                if !used.contains(&image.id) && !image.names.iter().any(|name| used.contains(name)) {
                    client.remove_image(&image.id).await?;
                    freed += image.size;
                }
            }
        }
        Ok(freed)
    }
}

/// Ends all sandboxes with these labels, whether they live or not.
async fn end_sandboxes(client: &Client, labels: &BTreeMap<String, String>) -> Result<(), MachineError> {
    for sandbox in client.sandboxes(labels).await? {
        client.stop_sandbox(&sandbox.id).await?;
        client.remove_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// Ends everything that an instance has in other runtimes, whether or not an agent runs, and takes back the images it gave
/// them. Says which runtimes could not be asked, and why.
pub async fn end_all(data: &Path, instance: &str) -> Result<Vec<String>, MachineError> {
    let layout = Layout { data: data.to_owned() };
    let mut troubles = Vec::new();
    let mut trouble = |error: MachineError| troubles.push(error.to_string());
    let has: BTreeSet<PathBuf> = match records(&layout) {
        Ok(records) => records.into_iter().map(|(_, record)| record.endpoint.socket).collect(),
        Err(error) => {
            trouble(error);
            BTreeSet::new()
        }
    };
    let told = told(&layout).unwrap_or_else(|error| {
        trouble(error);
        Vec::new()
    });
    // A runtime that is not on this machine any more, and had no pod, has nothing.
    let told = told.into_iter().map(|endpoint| endpoint.socket).filter(|socket| socket.exists());
    let labels = BTreeMap::from([(config::INSTANCE.to_owned(), instance.to_owned())]);
    for socket in has.iter().cloned().chain(told).collect::<BTreeSet<PathBuf>>() {
        let client = Client::new(&socket);
        let ended = async {
            end_sandboxes(&client, &labels).await?;
            for image in client.images().await?.iter().filter(|image| giver::is_given(image)) {
                client.remove_image(&image.id).await?;
            }
            Ok::<(), MachineError>(())
        };
        ended.await.unwrap_or_else(&mut trouble);
    }
    for uid in names(&layout.pods())? {
        given::remove_parts(&layout.parts(&uid)?).unwrap_or_else(&mut trouble);
    }
    Ok(troubles)
}

/// Every pod that is written down (P1).
fn records(layout: &Layout) -> Result<Vec<(String, Record)>, MachineError> {
    let mut all = Vec::new();
    for uid in names(&layout.pods())? {
        let path = layout.cri(&uid)?;
        match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error("read", &path, &error)),
            Ok(file) => {
                let bytes = super::read_bounded(file, RECORD_BYTES_MAX);
                let bytes = bytes.map_err(|error| file_error("read", &path, &error))?;
                let record = serde_json::from_slice(&bytes).map_err(|error| file_error("read", &path, &error))?;
                all.push((uid, record));
            }
        }
    }
    Ok(all)
}

/// Writes what a runtime needs to ask for a pod's network, and which runtimes there are.
fn announce(layout: &Layout, endpoints: &[CriEndpoint], exe: &Path) -> Result<(), MachineError> {
    let exe = std::fs::canonicalize(exe).map_err(|error| file_error("look at", exe, &error))?;
    let (lists, programs) = (layout.cni().join("net.d"), layout.cni().join("bin"));
    [&lists, &programs].into_iter().try_for_each(|directory| make_private_dir(directory))?;
    for name in [cni::PLUGIN, cni::LOOPBACK] {
        let path = programs.join(name);
        if std::fs::read_link(&path).is_ok_and(|found| found == exe) {
            continue;
        }
        remove_file(&path)?;
        std::os::unix::fs::symlink(&exe, &path).map_err(|error| file_error("make", &path, &error))?;
    }
    let list = json!({"cniVersion": "0.4.0", "name": "windlass",
        "plugins": [{"type": cni::PLUGIN, "data": layout.data}]});
    save_file_for_good(&lists.join("10-windlass.conflist"), list.to_string().as_bytes())?;
    let endpoints = serde_json::to_vec(endpoints).map_err(|error| failed("write down the runtimes", &error))?;
    save_file_for_good(&layout.cni().join("runtimes.json"), &endpoints)
}

/// The runtimes that an agent of this node was told of last.
fn told(layout: &Layout) -> Result<Vec<CriEndpoint>, MachineError> {
    let path = layout.cni().join("runtimes.json");
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| file_error("read", &path, &error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(file_error("read", &path, &error)),
    }
}
