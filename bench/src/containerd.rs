//! The peer containerd, a daemon of our own with its own directories, and runc by itself: what both do in the same cases.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::usage::{processes, pss_kib};

/// The demo image, which Windlass runs too.
const IMAGE: &str = "windlass.local/demo:1";

/// A running containerd.
pub struct Containerd {
    directory: PathBuf,
    daemon: Child,
    started: usize,
}

impl Containerd {
    /// Starts the daemon and gives it the image that Windlass runs.
    pub fn start() -> Result<Containerd> {
        let directory = std::env::temp_dir().join(format!("windlass-bench-containerd-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let place = directory.display();
        let config = directory.join("config.toml");
        fs::write(
            &config,
            format!(
                "version = 2\nroot = \"{place}/root\"\nstate = \"{place}/state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{place}/socket\"\n"
            ),
        )?;
        let log = fs::File::create(directory.join("log"))?;
        let mut daemon = Command::new("/usr/bin/containerd");
        let daemon = daemon.arg("--config").arg(&config).stdout(log.try_clone()?).stderr(log).spawn();
        let containerd = Containerd { directory, daemon: daemon.context("could not start containerd")?, started: 0 };
        let started = Instant::now();
        while !quiet(&mut containerd.command(&["version"]))? {
            if started.elapsed() > Duration::from_secs(60) {
                bail!("containerd does not answer:\n{}", fs::read_to_string(containerd.directory.join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let image = std::env::var_os("WINDLASS_IMAGE").context("WINDLASS_IMAGE is set by `cargo x bench`")?;
        ensure!(quiet(containerd.command(&["images", "import"]).arg(image))?, "ctr images import failed");
        Ok(containerd)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/ctr");
        command.arg("--address").arg(self.directory.join("socket")).args(arguments);
        command
    }

    /// Starts containers that sleep.
    pub fn run_detached(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.started += 1;
            let name = format!("idle-{}", self.started);
            ensure!(quiet(&mut self.command(&["run", "-d", IMAGE, &name, "sleep", "1000000"]))?, "ctr run failed");
        }
        Ok(())
    }

    /// Runs a container to its end, and says how long it took.
    pub fn run_once(&mut self) -> Result<Duration> {
        self.started += 1;
        let name = format!("once-{}", self.started);
        let started = Instant::now();
        ensure!(quiet(&mut self.command(&["run", "--rm", IMAGE, &name, "true"]))?, "ctr run failed");
        Ok(started.elapsed())
    }

    /// Proportional memory of the daemon and its shims, in KiB.
    pub fn pss_kib(&self) -> u64 {
        let socket = self.directory.join("socket").display().to_string();
        let shims = processes(|line| line.contains("containerd-shim") && line.contains(&socket));
        shims.into_iter().chain([self.daemon.id()]).map(pss_kib).sum()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let tasks = self.command(&["tasks", "ls", "-q"]).output().map(|out| out.stdout).unwrap_or_default();
        for task in String::from_utf8_lossy(&tasks).split_whitespace() {
            quiet(&mut self.command(&["tasks", "rm", "-f", task])).ok();
            quiet(&mut self.command(&["containers", "rm", task])).ok();
        }
        Command::new("/bin/kill").args(["-TERM", &self.daemon.id().to_string()]).status().ok();
        self.daemon.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// A bundle for runc.
pub struct Runc {
    directory: PathBuf,
}

impl Runc {
    /// A root file system with busybox, and runc's own default configuration for it.
    pub fn bundle() -> Result<Runc> {
        let directory = std::env::temp_dir().join(format!("windlass-bench-runc-{}", std::process::id()));
        let runc = Runc { directory };
        let binaries = runc.directory.join("rootfs/bin");
        fs::create_dir_all(&binaries)?;
        fs::copy("/bin/busybox", binaries.join("busybox"))?;
        std::os::unix::fs::symlink("busybox", binaries.join("true"))?;
        ensure!(quiet(&mut runc.command(&["spec"]))?, "runc spec failed");
        let path = runc.directory.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["true"]);
        fs::write(&path, config.to_string())?;
        Ok(runc)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/sbin/runc");
        command.current_dir(&self.directory).arg("--root").arg(self.directory.join("state")).args(arguments);
        command
    }

    /// Runs a container to its end, and says how long it took.
    pub fn run_once(&self) -> Result<Duration> {
        let started = Instant::now();
        ensure!(quiet(&mut self.command(&["run", "windlass-bench"]))?, "runc run failed");
        Ok(started.elapsed())
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// Runs a program to its end without showing what it prints; whether it ended well.
fn quiet(command: &mut Command) -> Result<bool> {
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
}
