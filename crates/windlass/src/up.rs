//! `windlass up`, `server` and `node`: one process, started, watched and stopped in order.

#![expect(clippy::disallowed_methods, reason = "the command line waits for real processes; the simulator has none")]

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use windlass_stdx::World;

use crate::cli::{JoinFlags, ServerFlags, UpFlags};
use crate::kubeconfig::local_url;
use crate::node::Node;
use crate::place::{Place, Running};
use crate::server::Server;

/// How long a start in the background may take before it is called failed.
const DETACHED_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a killed process may take to be gone.
const DYING_TIMEOUT: Duration = Duration::from_millis(500);
/// How long parts may take to end by themselves when the process is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Server and node in one process.
pub fn up(place: &Place, flags: UpFlags) -> Result<()> {
    begin(place)?;
    if flags.detach {
        return detach(place);
    }
    in_runtime(async {
        let world = World::real();
        let stop = watch::Sender::new(false);
        let server = Server::start(place, &flags.server, &world, stop.subscribe()).await?;
        let mut running = say_running(place, "up", &server)?;
        let node =
            Node::beside(place, &server, (&flags.node, &flags.server.networks), &world, stop.subscribe()).await?;
        node.wait_ready().await?;
        running.ready = true;
        place.save_running(&running)?;
        println!("node {} is Ready; kubeconfig: {}", node.name, place.kubeconfig().display());
        let ended = until_stopped(Some(&server), Some(&node)).await;
        stop.send_replace(true);
        // Containers outlive this process; only `windlass down` ends them.
        tokio::time::timeout(STOP_TIMEOUT, async {
            node.stop().await;
            server.stop().await;
        })
        .await
        .context("parts did not stop in time; nothing acknowledged is lost")?;
        place.clear_running()?;
        ended
    })
}

/// Only the server.
pub fn server(place: &Place, flags: &ServerFlags) -> Result<()> {
    begin(place)?;
    in_runtime(async {
        let world = World::real();
        let stop = watch::Sender::new(false);
        let server = Server::start(place, flags, &world, stop.subscribe()).await?;
        let mut running = say_running(place, "server", &server)?;
        running.ready = true;
        place.save_running(&running)?;
        println!(
            "another machine joins with: windlass node --server {} --token {}",
            running.server,
            server.pki.join_token()
        );
        let ended = until_stopped(Some(&server), None).await;
        stop.send_replace(true);
        tokio::time::timeout(STOP_TIMEOUT, server.stop()).await.context("the server did not stop in time")?;
        place.clear_running()?;
        ended
    })
}

/// Only a node.
pub fn node(place: &Place, flags: &JoinFlags) -> Result<()> {
    begin(place)?;
    in_runtime(async {
        let world = World::real();
        let stop = watch::Sender::new(false);
        // Said before anything is touched, so that `windlass down` finds whom to stop.
        let mut running = Running::this("node", flags.server.clone())?;
        place.save_running(&running)?;
        let node = Node::join(place, flags, &world, stop.subscribe()).await?;
        match node.wait_ready().await {
            Ok(()) => {
                running.ready = true;
                place.save_running(&running)?;
                println!("node {} is Ready in the cluster of {}", node.name, flags.server);
            }
            // Its pods run as they were last known, whether or not there is a server.
            Err(error) if node.is_running().await => eprintln!("warning: {error:#}; its pods go on without the server"),
            Err(error) => return Err(error),
        }
        let ended = until_stopped(None, Some(&node)).await;
        stop.send_replace(true);
        tokio::time::timeout(STOP_TIMEOUT, node.stop()).await.context("the node agent did not stop in time")?;
        place.clear_running()?;
        ended
    })
}

/// What every start begins with: directories, rights, and that nothing else runs here.
fn begin(place: &Place) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("expected to run as root: containers need namespaces, mounts and cgroups");
    }
    place.create()?;
    if let Some(running) = still_running(place) {
        bail!(
            "windlass is already running here as {} (pid {}): stop it with `windlass down`, or use another --instance",
            running.role,
            running.pid
        );
    }
    if place.restoring().exists() {
        bail!(
            "a restore broke off here, and some of the cluster may be missing: repeat it with `windlass restore --replace` \
             (what it had put aside is in {}/replaced-…)",
            place.data.display()
        );
    }
    raise_open_files()
}

/// Another process that runs here. One that was just killed may take a moment to be gone.
fn still_running(place: &Place) -> Option<Running> {
    let started = Instant::now();
    loop {
        let running = place.running().filter(|running| running.pid != std::process::id())?;
        if started.elapsed() > DYING_TIMEOUT {
            return Some(running);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Every watch and every pod holds files open; the soft limit of a login shell is far too low.
fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit of open files")
}

fn in_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("WINDLASS_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    rustls::crypto::ring::default_provider().install_default().ok().context("a second TLS provider was installed")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn say_running(place: &Place, role: &str, server: &Server) -> Result<Running> {
    let running = Running::this(role, local_url(server.listen))?;
    place.save_running(&running)?;
    println!("the API is at {}", running.server);
    Ok(running)
}

/// Waits for a signal (`Ok`) or for a part that cannot go on (`Err`).
async fn until_stopped(server: Option<&Server>, node: Option<&Node>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let store_failed = async {
        match server {
            Some(server) => server.store.failed().await,
            None => std::future::pending().await,
        }
    };
    let node_failed = async {
        match node {
            Some(node) => node.failed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        why = store_failed => bail!("the store cannot go on: {why}; what was acknowledged is on disk, start again once the disk is well"),
        why = node_failed => bail!("the node agent cannot go on: {why}"),
        _ = terminate.recv() => {
            if let Some(node) = node {
                node.shut_down().await;
            }
            Ok(())
        }
        _ = interrupt.recv() => Ok(()),
    }
}

/// Starts this program again in the background and waits until it is ready.
fn detach(place: &Place) -> Result<()> {
    let log_path = place.log();
    let mut log = fs::OpenOptions::new().create(true).append(true).read(true).open(&log_path);
    let log = log.as_mut().map_err(|error| anyhow::anyhow!("could not open {}: {error}", log_path.display()))?;
    let log_start = log.seek(SeekFrom::End(0))?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1).filter(|argument| argument != "--detach"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    // A group of its own: an interrupt in this terminal is not meant for it.
    command.process_group(0);
    let mut child = command.spawn().context("could not start in the background")?;
    let ready = wait_ready(place, &mut child);
    if let Err(error) = &ready {
        let mut said = String::new();
        log.seek(SeekFrom::Start(log_start))?;
        log.read_to_string(&mut said)?;
        let last: Vec<&str> = said.lines().rev().take(12).collect();
        eprintln!("{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        bail!("{error:#}; the whole log is in {}", log_path.display());
    }
    println!(
        "running in the background (pid {}); log: {}; kubeconfig: {}",
        child.id(),
        log_path.display(),
        place.kubeconfig().display()
    );
    Ok(())
}

fn wait_ready(place: &Place, child: &mut Child) -> Result<()> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot look at the started process")? {
            bail!("it ended with {status}");
        }
        if place.running().is_some_and(|running| running.pid == child.id() && running.ready) {
            return Ok(());
        }
        if started.elapsed() > DETACHED_TIMEOUT {
            bail!("the node is not Ready after {} s", DETACHED_TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
