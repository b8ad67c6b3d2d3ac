//! Place: where an instance keeps its files and what its kernel objects are called.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use windlass_runtime::RuntimeConfig;

/// The directory that drivers of Kubernetes expect.
const KUBELET: &str = "/var/lib/kubelet";
/// A file in a directory of that kind that says whose it is.
const OWNED: &str = ".windlass";

/// Flags that every command takes.
#[derive(Args)]
pub struct PlaceFlags {
    /// Keeps several clusters on one machine apart: names bridge, cgroups and rules
    #[arg(long, global = true, default_value = "windlass", env = "WINDLASS_INSTANCE")]
    instance: String,
    /// What must survive a reboot; /var/lib/INSTANCE unless given
    #[arg(long, global = true, env = "WINDLASS_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// What need not survive a reboot; /run/INSTANCE unless given
    #[arg(long, global = true, env = "WINDLASS_RUN_DIR")]
    run_dir: Option<PathBuf>,
}

/// An instance's directories and names.
#[derive(Debug, Clone)]
pub struct Place {
    pub instance: String,
    pub data: PathBuf,
    pub run: PathBuf,
}

/// What a running process says about itself in the run directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// Its process id.
    pub pid: u32,
    /// When it began, as the kernel counts: after a crash and much time the number may belong to another program.
    began: u64,
    /// `up`, `server` or `node`.
    pub role: String,
    /// The API's URL.
    pub server: String,
    /// Whether it does what it was started for.
    pub ready: bool,
}

impl Running {
    /// What this process says, which has only begun.
    pub fn this(role: &str, server: String) -> Result<Running> {
        let pid = std::process::id();
        let began = began(pid).context("could not read /proc/self/stat")?;
        Ok(Running { pid, began, role: role.to_owned(), server, ready: false })
    }

    /// Whether it still runs. A zombie holds nothing any more.
    pub fn is_there(&self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

/// When a process that runs began, in ticks since the machine did.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything: the state, and 19 fields later the time.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| state != "Z")
}

/// The instance of who names none.
const MAIN_INSTANCE: &str = "windlass";
/// The bridge is `<instance>0` and a network interface's name has at most 15 characters.
const INSTANCE_CHARS_MAX: usize = 13;

impl PlaceFlags {
    /// The place these flags mean.
    pub fn resolve(self) -> Result<Place> {
        let instance = self.instance;
        let is_plain = instance.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if instance.is_empty() || instance.len() > INSTANCE_CHARS_MAX || !is_plain {
            bail!("--instance {instance:?}: expected 1 to {INSTANCE_CHARS_MAX} of a-z, 0-9 and -");
        }
        let absolute =
            |path: PathBuf| std::path::absolute(&path).with_context(|| format!("{}: no such path", path.display()));
        let data = absolute(self.data_dir.unwrap_or_else(|| Path::new("/var/lib").join(&instance)))?;
        let run = absolute(self.run_dir.unwrap_or_else(|| Path::new("/run").join(&instance)))?;
        Ok(Place { instance, data, run })
    }
}

impl Place {
    /// Makes the directories, readable by root only.
    pub fn create(&self) -> Result<()> {
        for path in [&self.data, &self.run] {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(path).with_context(|| format!("could not create {}: are you root?", path.display()))?;
        }
        Ok(())
    }

    /// Where drivers of volumes and devices meet the node. Their manifests name kubelet's directory, which the main
    /// instance takes where nobody else has it: what a kubelet has mounted there is not ours to take down. Everybody
    /// else has a directory of his own.
    pub fn kubelet(&self) -> PathBuf {
        match self.instance == MAIN_INSTANCE && is_free_or_ours(Path::new(KUBELET)) {
            true => PathBuf::from(KUBELET),
            false => self.data.join("kubelet"),
        }
    }

    /// The same, made and marked as ours.
    pub fn take_kubelet(&self) -> Result<PathBuf> {
        let directory = self.kubelet();
        let mark = directory.join(OWNED);
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&mark, "This directory is windlass's.\n"))
            .with_context(|| format!("could not write {}", mark.display()))?;
        Ok(directory)
    }

    /// The cluster's certificates.
    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// The store's log and snapshots.
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// Where a restore writes before all is in its place; who finds it there knows that one broke off.
    pub fn restoring(&self) -> PathBuf {
        self.data.join("restoring")
    }

    /// The images.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Network namespaces and address leases.
    pub fn network_run(&self) -> PathBuf {
        self.run.join("network")
    }

    /// Where containers live.
    pub fn runtime(&self) -> RuntimeConfig {
        RuntimeConfig {
            root: self.data.join("runtime"),
            run: self.run.join("runtime"),
            shim_exe: PathBuf::from("/proc/self/exe"),
            cgroup_parent: format!("/{}", self.instance),
        }
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }

    /// What a process in the background has logged.
    pub fn log(&self) -> PathBuf {
        self.data.join("windlass.log")
    }

    fn running_path(&self) -> PathBuf {
        self.run.join("windlass.json")
    }

    /// The process that runs here, if one does.
    pub fn running(&self) -> Option<Running> {
        let text = fs::read_to_string(self.running_path()).ok()?;
        serde_json::from_str(&text).ok().filter(Running::is_there)
    }

    /// Says that this process runs here.
    pub fn save_running(&self, running: &Running) -> Result<()> {
        let path = self.running_path();
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec(running)?)
            .with_context(|| format!("could not write {}", part.display()))?;
        fs::rename(&part, &path).with_context(|| format!("could not write {}", path.display()))
    }

    /// Says that nothing runs here any more.
    pub fn clear_running(&self) -> Result<()> {
        match fs::remove_file(self.running_path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", self.running_path().display()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether nobody has this directory, or we do.
fn is_free_or_ours(directory: &Path) -> bool {
    if directory.join(OWNED).exists() {
        return true;
    }
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::PlaceFlags;

    fn resolve(instance: &str) -> anyhow::Result<super::Place> {
        PlaceFlags { instance: instance.to_owned(), data_dir: None, run_dir: None }.resolve()
    }

    #[test]
    fn an_instance_names_its_directories_and_is_plain() {
        let place = resolve("blue").expect("a plain name");
        assert_eq!((place.data.to_str(), place.run.to_str()), (Some("/var/lib/blue"), Some("/run/blue")));
        for bad in ["", "Blue", "a/b", "longer-than-13-c"] {
            assert!(resolve(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_process_is_known_by_when_it_began_and_not_by_its_name() {
        let this = super::Running::this("up", String::new()).expect("/proc");
        assert!(this.is_there());
        assert!(!super::Running { began: this.began + 1, ..this.clone() }.is_there(), "another one of its number");
        assert!(!super::Running { pid: u32::MAX, ..this }.is_there());
    }

    #[test]
    fn the_directory_of_another_kubelet_is_left_to_it() {
        let directory = std::env::temp_dir().join(format!("windlass-place-{}", std::process::id()));
        assert!(super::is_free_or_ours(&directory), "nobody has it");
        std::fs::create_dir(&directory).expect("a new directory");
        assert!(super::is_free_or_ours(&directory), "nothing is in it");
        std::fs::write(directory.join("config.yaml"), "").expect("a new file");
        assert!(!super::is_free_or_ours(&directory), "a kubelet has it");
        std::fs::write(directory.join(super::OWNED), "").expect("a new file");
        assert!(super::is_free_or_ours(&directory), "it is marked");
        std::fs::remove_dir_all(&directory).expect("our own directory");
    }
}
