//! The stage of a test: an API server over a fresh store, and a node in a network namespace of its own.

use std::fs::{self, File};
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use windlass_api::{Kind, kinds};
use windlass_apiserver::{Apiserver, Config, Identity, Pki};
use windlass_client::{Cache, Client, DeleteOptions, Patch, Scope};
use windlass_network::Network;
use windlass_node::config::CpuPolicy;
use windlass_node::kernel::{CRI_SCHEME, EMBEDDED, end_all_of_other_runtimes};
use windlass_node::server::Site;
use windlass_node::{Agent, Kernel, KernelConfig, Machine, NodeConfig, ProviderFiles, RuntimeChoice, ServerIdentity};
use windlass_runtime::image::build::{Entry, write_oci, write_oci_layers};
use windlass_runtime::image::{ImageConfig, Images};
use windlass_runtime::{Runtime, RuntimeConfig};
use windlass_stdx::{Request, Response, Transport, TransportError, World, body_empty, body_from, read_body};
use windlass_store::{RealDisk, Store};

use crate::containerd::{self, Containerd};

/// Everything a test waits for comes well before this.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The image of every test: busybox.
pub const IMAGE: &str = "test/busybox:1";
/// The node's name.
pub const NODE: &str = "n1";

/// A cluster of one node.
pub struct Cluster {
    pub client: Client,
    pub pods: Cache,
    pub dir: PathBuf,
    config: KernelConfig,
    apiserver: Apiserver,
    pki: Arc<Pki>,
    agent: Option<Running>,
    /// Runs the containers, if it does.
    pub containerd: Option<Containerd>,
    /// For the next agent: less free memory than this is pressure, and it is looked at often.
    pub memory_free_bytes_min: Option<u64>,
    /// The same of disk space.
    pub disk_free_bytes_min: Option<u64>,
    /// What the agent reaches of the API, from now on.
    pub reach: Arc<AtomicU8>,
    /// For the next agent: tokens are said to end this soon.
    pub token_life: Option<Duration>,
    /// For the next agent: what else is set.
    pub tune: fn(&mut NodeConfig),
    /// For the next agent: whether containers may have CPUs for themselves; the first one is kept.
    pub cpu_policy: CpuPolicy,
}

/// An agent at work.
struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    kernel: Arc<Kernel>,
}

/// The programs that run containers beside the embedded way: Debian's runc and crun.
const RUNTIMES: [(&str, &str); 2] = [("crun", "/usr/bin/crun"), ("runc", "/usr/sbin/runc")];

/// Runs `test` on a cluster of its own, and checks that its end leaves nothing.
pub fn on_a_node<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Arc<tokio::sync::Mutex<Cluster>>) -> F + Send + 'static,
) {
    on_a_node_with(EMBEDDED, None, test);
}

/// Runs `test` on a cluster whose node has a disk of its own, which holds so many files.
pub fn on_a_node_with_a_disk<F: Future<Output = ()> + Send + 'static>(
    files: u32,
    test: impl FnOnce(Arc<tokio::sync::Mutex<Cluster>>) -> F + Send + 'static,
) {
    on_a_node_with(EMBEDDED, Some(files), test);
}

/// Runs `test` on a cluster whose containers are run by the embedded way, on one where runc does it, and on one where
/// containerd does.
pub fn on_each_runtime<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Arc<tokio::sync::Mutex<Cluster>>) -> F + Copy + Send + 'static,
) {
    for runtime in [EMBEDDED, "runc"] {
        println!("containers are run by {runtime}");
        on_a_node_with(runtime, None, test);
    }
    on_containerd(test);
}

/// Runs `test` on a cluster whose containers are run by containerd, where it is installed.
pub fn on_containerd<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Arc<tokio::sync::Mutex<Cluster>>) -> F + Send + 'static,
) {
    if !Containerd::is_there() {
        println!("containerd is not installed (Debian: containerd): nothing is run by it");
        return;
    }
    println!("containers are run by containerd");
    on_a_node_with(containerd::HANDLER, None, test);
}

fn on_a_node_with<F: Future<Output = ()> + Send + 'static>(
    handler: &'static str,
    disk_files: Option<u32>,
    test: impl FnOnce(Arc<tokio::sync::Mutex<Cluster>>) -> F + Send + 'static,
) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("wn{}-{}", std::process::id() % 10_000, NUMBER.fetch_add(1, Ordering::Relaxed));
    let thread = std::thread::spawn(move || {
        run("ip", &["netns", "add", &name]);
        let namespace = File::open(format!("/run/netns/{name}")).expect("it was made a line ago");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("tests run as root");
        run("ip", &["link", "set", "lo", "up"]);
        if let Some(files) = disk_files {
            let dir = std::env::temp_dir().join(&name).join("data");
            fs::create_dir_all(&dir).expect("a directory of the test's own");
            let options = format!("nr_inodes={files},size=2g,mode=755");
            run("mount", &["-t", "tmpfs", "-o", &options, "windlass-test", &dir.display().to_string()]);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let result = runtime.expect("a runtime").block_on(async {
            let cluster = Arc::new(tokio::sync::Mutex::new(Cluster::start(&name, handler).await));
            let result = tokio::spawn(test(Arc::clone(&cluster))).await;
            let cluster = Arc::into_inner(cluster).expect("the test has given its share back").into_inner();
            cluster.end().await;
            result
        });
        run("ip", &["netns", "delete", &name]);
        if let Err(error) = result {
            std::panic::resume_unwind(error.into_panic());
        }
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

impl Cluster {
    async fn start(name: &str, handler: &str) -> Cluster {
        let world = World::real();
        let dir = std::env::temp_dir().join(name);
        let store = Store::open(windlass_store::Config::new(dir.join("store")), Arc::new(RealDisk), world.clone());
        let store = store.await.expect("an empty directory becomes a store");
        let pki = Arc::new(Pki::open(&dir.join("pki"), &world).expect("a CA of the test's own"));
        let mut settings = Config::new(windlass_api::resources::registry());
        settings.node_link = Some(pki.node_link().expect("a client certificate"));
        let apiserver = Apiserver::new(settings, store, world.clone());
        apiserver.bootstrap().await.expect("an empty store takes what every cluster has");
        let client = Client::new(apiserver.transport(Identity::part("test")), world.clone());
        make_namespace_whole(&client, pki.ca_pem()).await;
        let pods = Cache::start(client.clone(), &kinds::POD, Scope::all());
        let containerd =
            (handler == containerd::HANDLER).then(|| Containerd::start(&dir.join("containerd"), &dir.join("data")));
        let endpoint = |containerd: &Containerd| format!("{CRI_SCHEME}{}", containerd.socket().display());
        let sockets = containerd.iter().map(|own| (handler.to_owned(), endpoint(own).parse().expect("an endpoint")));
        let config = KernelConfig {
            instance: name.to_owned(),
            data: dir.join("data"),
            kubelet: dir.join("kubelet"),
            run: dir.join("run"),
            shim_exe: env!("CARGO_BIN_EXE_windlass-node-shim-test").into(),
            cluster_cidr: "10.42.0.0/16".to_owned(),
            service_cidr: "10.43.0.0/16".to_owned(),
            cluster_dns: [10, 43, 0, 10].into(),
            cluster_domain: "cluster.local".to_owned(),
            manifests: Some(dir.join("manifests")),
            credential_providers: None,
            device_plugins: None,
            cdi: vec![dir.join("cdi")],
            runtimes: RuntimeChoice {
                programs: RUNTIMES.into_iter().map(|(name, path)| (name.to_owned(), path.into())).collect(),
                sockets: sockets.collect(),
                default: handler.to_owned(),
            },
            criu: Some("/usr/sbin/criu".into()),
        };
        fs::create_dir_all(&config.data).expect("a directory for the test");
        let archive = dir.join("busybox.tar");
        make_image(&archive);
        let images = Images::open(config.data.join("images"), world).expect("a store of images");
        images.import(&archive, Some(IMAGE)).await.expect("an image of our own");
        let (memory_free_bytes_min, disk_free_bytes_min) = (None, None);
        let agent = None;
        let mut cluster = Cluster {
            client,
            pods,
            dir,
            config,
            apiserver,
            pki,
            agent,
            containerd,
            memory_free_bytes_min,
            disk_free_bytes_min,
            reach: Arc::new(AtomicU8::new(WHOLE)),
            token_life: None,
            tune: |_| {},
            cpu_policy: CpuPolicy::None,
        };
        cluster.start_agent().await;
        cluster
    }

    pub async fn start_agent(&mut self) {
        let world = World::real();
        let kernel = Kernel::open(self.config.clone(), world.clone()).await.expect("this kernel can do it");
        let transport = self.apiserver.transport(Identity::part("node"));
        let (reach, life) = (Arc::clone(&self.reach), self.token_life);
        let client = Client::new(Arc::new(Link { transport, reach, life }), world.clone());
        let machine: Arc<dyn Machine> = kernel.clone();
        let address = IpAddr::from([127, 0, 0, 1]);
        let usual = NodeConfig::named(NODE);
        let Cluster { memory_free_bytes_min, disk_free_bytes_min, .. } = *self;
        let has_own_disk = self.mounts().contains(&self.config.data.display().to_string());
        let is_short = has_own_disk || memory_free_bytes_min.or(disk_free_bytes_min).is_some();
        let lease_duration = if is_short { Duration::from_secs(4) } else { usual.lease_duration };
        let mut wanted = NodeConfig { memory_free_bytes_min, disk_free_bytes_min, lease_duration, ..usual };
        wanted.cpu_policy = self.cpu_policy;
        wanted.pod_resources = Some(self.dir.join("pod-resources"));
        if self.cpu_policy == CpuPolicy::Static {
            wanted.reserved.cpu_millis = 1000;
        }
        (self.tune)(&mut wanted);
        let settings = NodeConfig { address: Some(address), ..wanted };
        let listener = TcpListener::bind((address, settings.port)).await.expect("the namespace is ours");
        let agent = Agent::new(client, world, machine, settings).await.expect("an agent");
        let (stop, stopped) = watch::channel(false);
        let issued = self.pki.issue_node(NODE, &[address]).expect("a certificate for the node");
        let ca_pem = self.pki.ca_pem().to_owned();
        let identity = ServerIdentity { cert_pem: issued.cert_pem, key_pem: issued.key_pem, ca_pem };
        let site = Site::new(kernel.clone(), agent.directory(), agent.starts(), NODE);
        let task = tokio::spawn(async move {
            let served = windlass_node::serve(listener, &identity, site, stopped.clone());
            let (served, ()) = tokio::join!(served, agent.run(stopped));
            served.expect("the identity can be used");
        });
        self.agent = Some(Running { stop, task, kernel });
        if self.reach.load(Ordering::Relaxed) != WHOLE {
            // Nobody hears of this one.
            return;
        }
        let nodes = Cache::start(self.client.clone(), &kinds::NODE, Scope::all());
        let registered = nodes.until(NODE, |node| node.is_some());
        tokio::time::timeout(PATIENCE, registered).await.expect("the node registers itself");
        let patch = Patch::Merge(json!({"spec": {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"]}}));
        self.client.patch(&kinds::NODE, "", NODE, &patch, None).await.expect("the node gets its range");
        let ready = nodes.until(NODE, |node| {
            let conditions = node.map(|node| node.value()["status"]["conditions"].clone()).unwrap_or_default();
            let mut list = conditions.as_array().into_iter().flatten();
            list.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        });
        tokio::time::timeout(PATIENCE, ready).await.expect("the node becomes Ready");
    }

    /// Takes the agent away; the pods go on.
    pub async fn stop_agent(&mut self) {
        let running = self.agent.take().expect("an agent runs");
        running.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, running.task).await.expect("in time").expect("the agent ends in order");
    }

    /// For the next agent: programs that have passwords for registries.
    pub fn set_credential_providers(&mut self, files: ProviderFiles) {
        self.config.credential_providers = Some(files);
    }

    /// What servers of the test speak TLS with.
    pub fn tls(&self) -> Arc<rustls::ServerConfig> {
        self.pki.server_tls(IpAddr::from([127, 0, 0, 1]), &[]).expect("a certificate for the test")
    }

    /// The machine under the agent.
    pub fn kernel(&self) -> Arc<Kernel> {
        Arc::clone(&self.agent.as_ref().expect("an agent runs").kernel)
    }

    pub async fn create(&self, kind: &Kind, object: Value) {
        self.client.create(kind, "default", &object).await.unwrap_or_else(|error| panic!("{object}: {error}"));
    }

    /// Makes a pod that is bound to the node.
    pub async fn pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!(NODE);
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                if container["image"].is_null() {
                    container["image"] = json!(IMAGE);
                }
            }
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        self.create(&kinds::POD, pod).await;
    }

    /// Waits until a pod is as the condition says; gives it. `Null` stands for a pod that is gone.
    #[track_caller]
    pub fn until(&self, name: &str, condition: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        let (pods, key) = (self.pods.clone(), format!("default/{name}"));
        async move {
            let look = || pods.get_key(&key).map(|pod| pod.value()).unwrap_or_default();
            let wait = pods.until(&key, |pod| condition(&pod.map(|pod| pod.value()).unwrap_or_default()));
            if tokio::time::timeout(PATIENCE, wait).await.is_err() {
                panic!("{at}: {key} is not as expected: {:#}", look());
            }
            look()
        }
    }

    pub async fn delete(&self, name: &str) {
        let uid = self.pods.get_key(&format!("default/{name}")).map(|pod| pod.header.uid().to_string());
        let deleted = self.client.delete(&kinds::POD, "default", name, &DeleteOptions::default()).await;
        deleted.expect("the pod can be deleted");
        self.until(name, Value::is_null).await;
        // The object of a pod that is over goes at once, and the machine follows.
        let (kernel, uid) = (self.kernel(), uid.expect("the pod was there"));
        let is_rid = || async { !kernel.pods().await.expect("the machine can be looked at").contains(&uid) };
        until_so("the machine is rid of the pod", is_rid).await;
    }

    /// What the API answers to a GET: the status code and the text.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let request = http::Request::get(path).body(body_empty()).expect("a request");
        let transport = self.apiserver.transport(Identity::part("test"));
        let answer = async {
            let response = transport.call(request).await.expect("an answer");
            let code = response.status().as_u16();
            let body = read_body(response.into_body(), 1 << 20).await.expect("a body").expect("a short one");
            (code, String::from_utf8(body.to_vec()).expect("text"))
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("the answer ends")
    }

    /// What a container has said.
    pub fn log(&self, pod: &Value, container: &str, attempt: u32) -> String {
        let uid = pod["metadata"]["uid"].as_str().expect("a uid");
        let path = self.dir.join(format!("data/pods/{uid}/logs/{container}/{attempt}.log"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }

    async fn end(mut self) {
        if self.agent.is_some() {
            self.stop_agent().await;
        }
        self.apiserver.close();
        let troubles = end_all_of_other_runtimes(&self.config.data, &self.config.instance).await;
        assert_eq!(troubles, Ok(Vec::new()));
        if let Some(containerd) = self.containerd.take() {
            assert_eq!(containerd.containers(), "", "containerd has nothing left");
        }
        let runtime = RuntimeConfig {
            root: self.config.data.join("runtime"),
            run: self.config.run.join("runtime"),
            shim_exe: self.config.shim_exe.clone(),
            cgroup_parent: format!("/{}", self.config.instance),
        };
        let destroyed = tokio::task::spawn_blocking(move || Runtime::destroy_all(&runtime)).await;
        destroyed.expect("no panic").expect("everything can be destroyed");
        Network::sweep(&self.config.instance, &self.config.run.join("network")).await.expect("the network is swept");
        let left = self.mounts();
        for mount in left.iter().rev() {
            rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH).expect("a mount of the test's own");
        }
        fs::remove_dir_all(&self.dir).expect("the test's own directory");
    }

    /// What is mounted below the test's directory.
    pub fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned));
        let dir = format!("{}/", self.dir.display());
        points.filter(|point| point.starts_with(&dir)).collect()
    }
}

/// An archive of busybox, with these files above.
pub fn make_image_with(archive: &std::path::Path, name: &str, above: &[Entry]) {
    let config = ImageConfig { env: vec!["PATH=/bin".to_owned()], ..ImageConfig::default() };
    write_oci_layers(archive, name, &[&busybox(), above], &config).expect("the archive is written");
}

fn make_image(archive: &std::path::Path) {
    let config =
        ImageConfig { env: vec!["PATH=/bin".to_owned(), "FROM_IMAGE=yes".to_owned()], ..ImageConfig::default() };
    write_oci(archive, IMAGE, &busybox(), &config).expect("the archive is written");
}

fn busybox() -> Vec<Entry> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut entries = vec![Entry::directory("bin"), Entry::directory("tmp"), Entry::directory("etc")];
    entries.push(Entry::program("bin/busybox", busybox));
    entries.push(Entry::file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n"));
    entries.push(Entry::file("etc/group", "root:x:0:\nweb:x:1000:\nlogs:x:50000:web\n"));
    for name in [
        "sh", "sleep", "cat", "true", "false", "echo", "id", "ls", "nc", "httpd", "wget", "nslookup", "env", "touch",
        "test", "mkdir", "ln", "chmod", "head", "grep", "wc", "cmp", "mount",
    ] {
        entries.push(Entry::symlink(&format!("bin/{name}"), "busybox"));
    }
    entries
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A container that runs a line of shell.
pub fn shell(name: &str, line: &str) -> Value {
    json!({"name": name, "command": ["/bin/sh", "-c", line]})
}

/// One condition's status.
pub fn condition(pod: &Value, kind: &str) -> bool {
    let list = pod["status"]["conditions"].as_array().into_iter().flatten();
    list.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// The first container's status.
pub fn status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// All of the API.
pub const WHOLE: u8 = 0;
/// What is there can be read and watched.
pub const READS: u8 = 1;
/// Nothing.
pub const NOTHING: u8 = 2;

/// The agent's way to the API. It may be cut, and may say of every token that it ends soon: the API itself gives none a
/// shorter life than ten minutes.
struct Link {
    transport: Arc<dyn Transport>,
    reach: Arc<AtomicU8>,
    life: Option<Duration>,
}

impl Transport for Link {
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let passes = match self.reach.load(Ordering::Relaxed) {
            WHOLE => true,
            READS => request.method() == http::Method::GET,
            _ => false,
        };
        if !passes {
            let error = TransportError::Unreachable { address: "the API".to_owned(), source: "it is cut off".into() };
            return async { Err(error) }.boxed();
        }
        let life = self.life.filter(|_| request.uri().path().ends_with("/token"));
        let answer = self.transport.call(request);
        async move {
            let answer = answer.await?;
            let Some(life) = life else { return Ok(answer) };
            let (mut head, body) = answer.into_parts();
            let bytes = read_body(body, 1 << 20).await.expect("a body").expect("a short one");
            let mut token: Value = serde_json::from_slice(&bytes).expect("JSON");
            token["status"]["expirationTimestamp"] = json!((World::real().now() + life).to_string());
            head.headers.remove(http::header::CONTENT_LENGTH);
            Ok(Response::from_parts(head, body_from(token.to_string())))
        }
        .boxed()
    }
}

/// What controllers give every namespace: its pods' account, and the certificate that they check the API by.
async fn make_namespace_whole(client: &Client, ca_pem: &str) {
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
    client.create(&kinds::SERVICE_ACCOUNT, "default", &account).await.expect("a new namespace has none");
    let root = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": "default"},
        "data": {"ca.crt": ca_pem}});
    client.create(&kinds::CONFIG_MAP, "default", &root).await.expect("a new namespace has none");
}

/// How often it is looked at what cannot be watched.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits for what has nothing to watch: a log, the kernel's tables, an answer to GET.
pub async fn until_so<F: Future<Output = bool>>(what: &str, look: impl Fn() -> F) {
    let wait = async {
        while !look().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}
