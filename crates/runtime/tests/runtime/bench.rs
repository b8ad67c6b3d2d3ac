//! What every test stands on: an instance of its own that is gone without a trace afterwards.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};
use windlass_runtime::{
    ContainerSpec, ContainerState, ExecSpec, Exit, LogSpec, ProcessExit, Runtime, RuntimeConfig, Sandbox, SandboxSpec,
};

/// The longest that anything here may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What runs the containers. One suite runs on each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Embedded,
    /// Debian: runc.
    Runc,
}

impl Way {
    fn program(self) -> Option<PathBuf> {
        match self {
            Way::Embedded => None,
            Way::Runc => Some("/usr/sbin/runc".into()),
        }
    }
}

/// Makes a test for each way out of functions that take one.
macro_rules! on_each_way {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                super::$test(crate::bench::Way::Embedded).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn runc() {
                super::$test(crate::bench::Way::Runc).await;
            }
        }
    )*};
}
pub(crate) use on_each_way;

/// One instance.
pub struct Bench {
    way: Way,
    pub dir: PathBuf,
    pub config: RuntimeConfig,
    pub runtime: Option<Runtime>,
}

impl Bench {
    pub async fn new(way: Way) -> Bench {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wlrt-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        make_layer(&dir.join("layer"));
        fs::create_dir(dir.join("logs")).expect("a directory for logs");
        let config = RuntimeConfig {
            root: dir.join("root"),
            run: dir.join("run"),
            shim_exe: env!("CARGO_BIN_EXE_windlass-shim-test").into(),
            cgroup_parent: format!("/{name}"),
        };
        let runtime = Runtime::open(config.clone()).await.expect("an instance");
        Bench { way, dir, config, runtime: Some(runtime) }
    }

    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the agent has not been taken away")
    }

    /// A plain sandbox.
    pub fn spec(&self, id: &str) -> SandboxSpec {
        SandboxSpec {
            id: id.into(),
            hostname: format!("host-{id}"),
            program: self.way.program(),
            ..SandboxSpec::default()
        }
    }

    pub async fn sandbox(&self, id: &str) -> Sandbox {
        self.runtime().create_sandbox(self.spec(id)).await.expect("a sandbox")
    }

    /// A container that runs a line of shell.
    pub fn shell(&self, id: &str, line: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            layers: vec![self.dir.join("layer")],
            args: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
            log: Some(LogSpec::new(self.log_path(id))),
            ..ContainerSpec::default()
        }
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{id}.log"))
    }

    /// Runs a container to its end.
    pub async fn run(&self, sandbox: &Sandbox, spec: ContainerSpec) -> Exit {
        let id = spec.id.clone();
        sandbox.create_container(spec).await.expect("create");
        sandbox.start(&id).await.expect("start");
        exited(sandbox, &id).await
    }

    /// What a container wrote: the log's lines put together again.
    pub fn output(&self, id: &str) -> String {
        let log = fs::read_to_string(self.log_path(id)).expect("a log");
        let mut text = String::new();
        for line in log.lines() {
            let mut fields = line.splitn(4, ' ');
            let tag = fields.nth(2).expect("a tag");
            text.push_str(fields.next().unwrap_or_default());
            if tag == "F" {
                text.push('\n');
            }
        }
        text
    }

    /// Takes the agent away; what it made lives on.
    pub fn drop_agent(&mut self) {
        self.runtime = None;
    }

    pub async fn new_agent(&mut self) {
        self.runtime = Some(Runtime::open(self.config.clone()).await.expect("a second agent"));
    }

    /// Everything of this instance that the kernel still knows.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
        let dir = format!("{}/", self.dir.display());
        traces.extend(mounts.lines().filter(|line| line.contains(&*dir)).map(|line| format!("mount {line}")));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            let group = hierarchy.path().join(self.config.cgroup_parent.trim_start_matches('/'));
            if group.exists() {
                traces.push(format!("cgroup {}", group.display()));
            }
        }
        for process in fs::read_dir("/proc").expect("processes").flatten() {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(&*dir) {
                traces.push(format!("process {} {command}", process.path().display()));
            }
        }
        traces
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let destroyed = Runtime::destroy_all(&self.config);
        let traces = self.traces();
        let removed = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            destroyed.expect("everything can be destroyed");
            removed.expect("nothing keeps a file busy");
            assert_eq!(traces, Vec::<String>::new(), "the instance left traces");
        }
    }
}

/// A root file system of busybox and two users.
fn make_layer(layer: &Path) {
    for directory in ["bin", "etc", "tmp", "srv", "proc", "sys", "dev"] {
        fs::create_dir_all(layer.join(directory)).expect("a directory");
    }
    fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("busybox-static is installed");
    let list = std::process::Command::new("/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
    for name in String::from_utf8_lossy(&list).lines().filter(|name| *name != "busybox") {
        symlink("busybox", layer.join("bin").join(name)).expect("a link");
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n")
        .expect("passwd");
    fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:1000:\nlogs:x:2000:web\n").expect("group");
}

/// Waits until a condition holds; says what it waited for when it never does.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a container's end.
pub async fn exited(sandbox: &Sandbox, id: &str) -> Exit {
    let mut events = sandbox.events();
    let wait = async {
        loop {
            if let Some(ContainerState::Exited(exit)) = sandbox.state(id) {
                return exit;
            }
            if events.next().await.is_none() {
                match sandbox.state(id) {
                    Some(ContainerState::Exited(exit)) => return exit,
                    other => panic!("the sandbox is over and {id} is {other:?}"),
                }
            }
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{id} does not end"))
}

/// The first process of a running container.
pub fn pid(sandbox: &Sandbox, id: &str) -> u32 {
    match sandbox.state(id) {
        Some(ContainerState::Running { pid, .. }) => pid,
        other => panic!("{id} is {other:?}"),
    }
}

/// Runs a line of shell in a container: how it ended, what it said, what it complained about.
pub async fn exec(sandbox: &Sandbox, id: &str, line: &str) -> (ProcessExit, String, String) {
    let args = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    let mut process = sandbox.exec(id, ExecSpec { args, ..ExecSpec::default() }).await.expect("exec");
    let (mut out, mut err) = (String::new(), String::new());
    let mut stdout = process.stdout.take().expect("a stdout");
    let mut stderr = process.stderr.take().expect("a stderr");
    let read = async {
        let (one, other) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
        one.and(other).expect("text");
        process.wait().await.expect("an end")
    };
    let exit = timeout(PATIENCE, read).await.expect("the exec'd process ends");
    (exit, out, err)
}
