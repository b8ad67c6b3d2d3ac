//! The peer Docker: a daemon of our own with its own directories, and what it does in the same cases.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::usage::{processes, pss_kib};

/// A running dockerd with its containerd.
pub struct Docker {
    directory: PathBuf,
    daemon: Child,
}

impl Docker {
    /// Starts the daemon and gives it an image with busybox.
    pub fn start() -> Result<Docker> {
        let directory = std::env::temp_dir().join(format!("windlass-bench-docker-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let part = |name: &str| directory.join(name).display().to_string();
        let log = fs::File::create(directory.join("log"))?;
        let daemon = Command::new("/usr/sbin/dockerd")
            .args(["--data-root", &part("data"), "--exec-root", &part("exec"), "--pidfile", &part("pid")])
            .args([
                "--host",
                &format!("unix://{}", part("socket")),
                "--bridge=none",
                "--iptables=false",
                "--ip-masq=false",
            ])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("could not start dockerd")?;
        let docker = Docker { directory, daemon };
        let started = Instant::now();
        while !docker.command(&["info"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
            if started.elapsed() > Duration::from_secs(60) {
                bail!("dockerd does not answer:\n{}", fs::read_to_string(docker.directory.join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        docker.import()?;
        Ok(docker)
    }

    fn import(&self) -> Result<()> {
        let root = self.directory.join("root/bin");
        fs::create_dir_all(&root)?;
        fs::copy("/bin/busybox", root.join("busybox"))?;
        for applet in ["sh", "sleep", "true"] {
            std::os::unix::fs::symlink("busybox", root.join(applet)).ok();
        }
        let import = format!(
            "tar -C {0}/root -c . | docker --host unix://{0}/socket import - bench:1 >/dev/null",
            self.directory.display()
        );
        let status = Command::new("/bin/sh").args(["-c", &import]).status()?;
        anyhow::ensure!(status.success(), "docker import failed");
        Ok(())
    }

    /// `docker …` for this daemon.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.args(["--host", &format!("unix://{}", self.directory.join("socket").display())]).args(arguments);
        command
    }

    /// Starts containers that sleep.
    pub fn run_detached(&self, count: usize) -> Result<()> {
        for _ in 0..count {
            let mut command = self.command(&["run", "-d", "--network", "none", "bench:1", "sleep", "1000000"]);
            anyhow::ensure!(command.stdout(Stdio::null()).status()?.success(), "docker run failed");
        }
        Ok(())
    }

    /// Runs a container to its end, and says how long it took.
    pub fn run_once(&self) -> Result<Duration> {
        let started = Instant::now();
        let mut command = self.command(&["run", "--rm", "--network", "none", "bench:1", "true"]);
        anyhow::ensure!(command.status()?.success(), "docker run failed");
        Ok(started.elapsed())
    }

    /// Proportional memory of the daemon, its containerd and its shims, in KiB.
    pub fn pss_kib(&self) -> u64 {
        let own = self.directory.display().to_string();
        let all = processes(|line| line.contains(&own) && !line.contains(" --host unix"));
        all.into_iter()
            .chain([self.daemon.id()])
            .collect::<std::collections::BTreeSet<u32>>()
            .into_iter()
            .map(pss_kib)
            .sum()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let ids = self.command(&["ps", "-aq"]).output().map(|out| out.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&ids).split_whitespace() {
            self.command(&["rm", "-f", id]).stdout(Stdio::null()).status().ok();
        }
        Command::new("/bin/kill").args(["-TERM", &self.daemon.id().to_string()]).status().ok();
        self.daemon.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}
