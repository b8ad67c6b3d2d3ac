//! A containerd of the test's own: its directories are the test's, and so is its network.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use windlass_runtime::image::ImageConfig;
use windlass_runtime::image::build::{Entry, write_oci};

/// The handler that pods name it by.
pub const HANDLER: &str = "containerd";
/// What the program is; Debian: containerd.
const PROGRAM: &str = "/usr/bin/containerd";
/// What holds a sandbox: an image whose program does nothing.
const PAUSE: &str = "windlass.local/pause:1";
/// How often it is looked whether it answers, and how many times: a minute.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS_MAX: usize = 600;

/// A containerd that ends with the test.
pub struct Containerd {
    directory: PathBuf,
    daemon: Child,
}

impl Containerd {
    /// Whether it is installed.
    pub fn is_there() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Starts one that asks the node of this data directory for networks.
    pub fn start(directory: &Path, data: &Path) -> Containerd {
        std::fs::create_dir_all(directory).expect("a directory for the test");
        let (place, cni) = (directory.display(), data.join("cni"));
        let config = format!(
            "version = 2\nroot = \"{place}/root\"\nstate = \"{place}/state\"\n\
             [grpc]\naddress = \"{place}/socket\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\n\
             netns_mounts_under_state_dir = true\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{0}/bin\"\nconf_dir = \"{0}/net.d\"\n",
            cni.display()
        );
        std::fs::write(directory.join("config.toml"), config).expect("a file");
        let containerd = Containerd { directory: directory.to_owned(), daemon: spawn(directory) };
        containerd.wait_until_it_answers();
        let archive = directory.join("pause.tar");
        let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        let entrypoint = ["/bin/busybox", "sleep", "1000000000"].map(str::to_owned).to_vec();
        let config = ImageConfig { entrypoint, ..ImageConfig::default() };
        let entries = [Entry::directory("bin"), Entry::program("bin/busybox", busybox)];
        write_oci(&archive, PAUSE, &entries, &config).expect("the archive is written");
        let imported = containerd.ctr(&["-n", "k8s.io", "images", "import", archive.to_str().expect("text")]);
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        containerd
    }

    /// Ends it, not what it runs, and starts it again.
    #[allow(dead_code, reason = "the end-to-end suite has no need of it")]
    pub fn restart(&mut self) {
        assert!(self.end(), "containerd could not be ended");
        self.daemon = spawn(&self.directory);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let answers = (0..LOOKS_MAX).any(|_| {
            std::thread::sleep(LOOK_EVERY);
            self.ctr(&["version"]).status.success()
        });
        assert!(answers, "containerd does not answer:\n{}", self.log());
    }

    /// Whether it has ended.
    fn end(&mut self) -> bool {
        let told = Command::new("/bin/kill").args(["-TERM", &self.daemon.id().to_string()]).status();
        told.is_ok_and(|status| status.success()) && self.daemon.wait().is_ok()
    }

    /// Where it serves.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// The process that holds a pod's sandbox: the parent of one of its processes.
    #[allow(dead_code, reason = "the end-to-end suite has no need of it")]
    pub fn shim(&self, uid: &str) -> i32 {
        let is_of = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|at| at.contains(uid));
        let entries = std::fs::read_dir("/proc").expect("proc is mounted").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let parents = pids.filter(|pid| is_of(*pid)).filter_map(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<i32>().ok()
        });
        parents.into_iter().find(|pid| !is_of(*pid)).expect("a process of the pod runs")
    }

    fn ctr(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new("/usr/bin/ctr");
        command.arg("--address").arg(self.socket()).args(arguments).output().expect("ctr is installed")
    }

    /// The ids of all containers it knows, sandboxes too.
    pub fn containers(&self) -> String {
        String::from_utf8(self.ctr(&["-n", "k8s.io", "containers", "ls", "-q"]).stdout).expect("text")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("containerd said:\n{}", self.log());
        }
        if !self.end() {
            println!("containerd could not be ended");
        }
    }
}

fn spawn(directory: &Path) -> Child {
    let log = File::options().create(true).append(true).open(directory.join("log")).expect("a file");
    let mut command = Command::new(PROGRAM);
    command.arg("--config").arg(directory.join("config.toml")).stdout(log.try_clone().expect("a file")).stderr(log);
    command.process_group(0).spawn().expect("containerd is installed")
}
