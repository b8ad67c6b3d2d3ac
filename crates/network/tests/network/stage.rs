//! The stage of a test: a machine that is only a network namespace, with pods in namespaces of their own.

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use windlass_network::{AttachSpec, Attachment, Network, NetworkConfig};

pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Enough to know that a packet is dropped rather than answered.
pub const DROPPED: Duration = Duration::from_millis(300);

/// One machine.
pub struct Machine {
    pub network: Network,
    pub config: NetworkConfig,
}

/// Runs `test` on a machine of its own, and checks that its end leaves nothing.
pub fn on_a_machine<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Machine) -> F + Send + 'static) {
    in_a_namespace(|| {
        let before = snapshot();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let config = config();
            let network = Network::open(config.clone()).await.expect("a fresh machine opens");
            let result = tokio::spawn(test(Machine { network, config: config.clone() })).await;
            Network::sweep(&config.instance, &config.run_dir).await.expect("a machine is swept");
            if let Err(error) = result {
                std::panic::resume_unwind(error.into_panic());
            }
            assert!(!config.run_dir.exists(), "the run directory is gone");
        });
        assert_eq!(snapshot(), before, "nothing is left");
    });
}

/// Runs `work` in a network namespace of its own.
pub fn in_a_namespace<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        // SAFETY: only the network namespace of this thread changes.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("tests of the network run as root");
        run("ip", &["link", "set", "lo", "up"]);
        // A new namespace begins with what the machine has.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("the namespace is ours");
        work()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub fn config() -> NetworkConfig {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let run_dir = std::env::temp_dir().join(format!("windlass-network-{}-{number}", std::process::id()));
    NetworkConfig {
        instance: "stage".to_owned(),
        pod_cidr: "10.42.3.0/24".parse().expect("a network"),
        cluster_cidr: "10.42.0.0/16".parse().expect("a network"),
        service_cidr: "10.43.0.0/16".parse().expect("a network"),
        dns_address: Ipv4Addr::new(10, 43, 0, 10),
        run_dir,
        mtu: 1500,
    }
}

/// Interfaces, addresses, routes, rules, mounts and the setting, as text.
fn snapshot() -> Vec<String> {
    let own = std::env::temp_dir().join(format!("windlass-network-{}", std::process::id()));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let run_dirs = mounts.lines().filter(|line| line.contains(&*own.to_string_lossy()) && line.contains("stage"));
    let mut lines: Vec<String> = run_dirs.map(str::to_owned).collect();
    lines.push(run("ip", &["-o", "link"]));
    lines.push(run("ip", &["-o", "address"]));
    lines.push(run("ip", &["route", "show", "table", "all"]));
    lines.push(run("nft", &["list", "ruleset"]));
    lines.push(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("a setting"));
    lines
}

/// Runs a program in the calling thread's namespace; its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

impl Machine {
    pub async fn pod(&self, id: &str) -> Attachment {
        self.network.attach(AttachSpec { id: id.to_owned() }).await.expect("a pod is attached")
    }

    /// The same machine after its process was started again.
    pub async fn restarted(&self) -> Network {
        Network::open(self.config.clone()).await.expect("a used machine opens")
    }
}

/// Runs `work` in a pod, on a thread of its own.
pub fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    start_inside(netns, work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub fn start_inside<T: Send + 'static>(
    netns: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let netns: PathBuf = netns.to_owned();
    std::thread::spawn(move || {
        let file = File::open(&netns).expect("the namespace is there");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("it can be joined");
        work()
    })
}

/// A server in a pod that tells every TCP client and every UDP datagram who it is and whom it sees.
pub fn serve(pod: &Attachment, port: u16) -> SocketAddrV4 {
    let (ready, started) = std::sync::mpsc::channel();
    let id = pod.id.clone();
    start_inside(&pod.netns, move || {
        let listener = TcpListener::bind(("0.0.0.0", port)).expect("a free port");
        let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a free port");
        let udp_id = id.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(format!("{udp_id} {}", from.ip()).as_bytes(), from).expect("an answer");
            }
        });
        ready.send(()).expect("the test waits");
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let peer = stream.peer_addr().expect("a peer").ip();
            // A client that is gone is none of the server's business.
            let _ = stream.write_all(format!("{id} {peer}").as_bytes());
        }
    });
    started.recv_timeout(TIMEOUT).expect("the server starts");
    SocketAddrV4::new(pod.address, port)
}

/// What a server tells a TCP client in the calling thread's namespace: its name, and whom it sees.
pub fn call(address: impl Into<SocketAddr>) -> std::io::Result<(String, String)> {
    call_within(address, TIMEOUT)
}

pub fn call_within(address: impl Into<SocketAddr>, timeout: Duration) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address.into(), timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (id, peer) = text.split_once(' ').expect("a server's answer");
    Ok((id.to_owned(), peer.to_owned()))
}
