//! One instance's containers on this machine: opening it, making sandboxes, and taking everything down again.
//!
//! Flow        `open` pins the shim's program, then finds the sandboxes that an earlier agent left and connects to them
//! Guarantees  containers outlive this value; nothing that ended meanwhile is lost; `destroy_all` leaves nothing behind
//! Assumes     one `Runtime` per instance at a time; a tokio runtime with IO and time

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::cgroup::Cgroups;
use crate::error::RuntimeError;
use crate::groups::Groups;
use crate::kernel;
use crate::layout::{self, Boot, SandboxDir, make_private_dir, names, remove_tree};
use crate::sandbox::{Sandbox, blocking, kill_shim, to_the_end};
use crate::spec::{ContainerSpec, Mount, SandboxSpec, USER_IDS};
use crate::state::Usage;

/// Where an instance lives.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Images and the containers' writable layers; `/var/lib/windlass`. Must be able to carry overlayfs upper layers.
    pub root: PathBuf,
    /// Sockets and state that need not survive a reboot; `/run/windlass`.
    pub run: PathBuf,
    /// The program that is started as `PROGRAM shim …` and then calls [`shim_main`](crate::shim_main); `/proc/self/exe`.
    pub shim_exe: PathBuf,
    /// This instance's cgroup below the root of each hierarchy, with or without a leading slash; `/windlass`. It must be
    /// nobody else's.
    pub cgroup_parent: String,
}

impl RuntimeConfig {
    fn check(&self) -> Result<(), RuntimeError> {
        for (field, path) in [("root", &self.root), ("run", &self.run), ("shim_exe", &self.shim_exe)] {
            if !path.is_absolute() {
                return Err(RuntimeError::Invalid {
                    field,
                    why: format!("{} is not an absolute path", path.display()),
                });
            }
        }
        let name = self.cgroup_parent.strip_prefix('/').unwrap_or(&self.cgroup_parent);
        if name.split('/').any(|part| crate::spec::check_id("cgroup_parent", part).is_err()) {
            let why = format!("{:?} is not a path of plain names such as /windlass", self.cgroup_parent);
            return Err(RuntimeError::Invalid { field: "cgroup_parent", why });
        }
        Ok(())
    }

    fn cgroup_parent(&self) -> String {
        format!("/{}", self.cgroup_parent.trim_start_matches('/'))
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.run.join("sandboxes")
    }

    pub(crate) fn sandbox(&self, id: &str) -> SandboxDir {
        SandboxDir(self.sandboxes().join(id))
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Where the shim's program is pinned, read-only.
    pub(crate) fn pinned_exe(&self) -> PathBuf {
        self.run.join("exe")
    }
}

/// A handle on this machine's containers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: RuntimeConfig,
    cgroups: Cgroups,
    sandboxes: Mutex<BTreeMap<String, Sandbox>>,
    /// Ranges of user ids of sandboxes that are being made, by number.
    user_ranges: Mutex<BTreeSet<u32>>,
}

/// The first id given to a sandbox with a user namespace: above what users and their own containers have by custom.
const USER_IDS_FIRST: u32 = 1 << 24;
/// How many sandboxes may have one at a time.
const USER_RANGES_MAX: u32 = 1 << 14;

impl Runtime {
    /// Opens an instance and connects to every sandbox an earlier agent left.
    ///
    /// A sandbox whose shim is gone is there too: what was left of its containers is killed, they are reported as
    /// [`ExitReason::Unknown`](crate::ExitReason::Unknown) unless the shim wrote down how they ended, and it waits to be stopped.
    pub async fn open(config: RuntimeConfig) -> Result<Runtime, RuntimeError> {
        config.check()?;
        for directory in [&config.root, &config.run, &config.sandboxes(), &config.containers()] {
            make_private_dir(directory)?;
        }
        pin_exe(&config)?;
        let cgroups = Cgroups::detect(&config.cgroup_parent())?;
        let shared = Shared { config, cgroups, sandboxes: Mutex::default(), user_ranges: Mutex::default() };
        let runtime = Runtime { shared: Arc::new(shared) };
        runtime.reconnect().await?;
        Ok(runtime)
    }

    async fn reconnect(&self) -> Result<(), RuntimeError> {
        let Shared { config, cgroups, sandboxes, .. } = &*self.shared;
        for id in names(&config.sandboxes()).map_err(RuntimeError::file("list", config.sandboxes()))? {
            let dir = config.sandbox(&id);
            match layout::load::<Boot>(&dir.boot()) {
                Ok(Some(boot)) => {
                    let sandbox = Sandbox::reconnect(boot, dir, cgroups.sandbox(&id)).await?;
                    sandboxes.lock().expect("nobody panics with it").insert(id, sandbox);
                }
                // The agent died before the sandbox had so much as a shim.
                Ok(None) => remove_tree(&dir.0)?,
                Err(error) => {
                    tracing::warn!(sandbox = id, %error, "a sandbox that cannot be understood is removed");
                    destroy_sandbox(config, cgroups, &id)?;
                }
            }
        }
        for id in names(&config.containers()).map_err(RuntimeError::file("list", config.containers()))? {
            if self.sandbox(&id).is_none() {
                remove_tree(&config.containers().join(&id))?;
            }
        }
        Ok(())
    }

    /// Makes a sandbox and its shim. Goes on when the future is dropped.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError> {
        spec.check()?;
        let runtime = self.clone();
        to_the_end("make a sandbox", async move { runtime.create_whole(spec).await }).await
    }

    async fn create_whole(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError> {
        let id = spec.id.clone();
        if self.sandbox(&id).is_some() {
            return Err(RuntimeError::Exists { what: "sandbox", id });
        }
        let range = spec.user_namespace.then(|| self.reserve_range()).transpose()?;
        let user_ids = range.map(|range| USER_IDS_FIRST + range * USER_IDS);
        let made = self.create_with(spec, user_ids).await;
        if let Some(range) = range {
            self.shared.user_ranges.lock().expect("nobody panics with it").remove(&range);
        }
        made
    }

    /// The lowest range of user ids that no sandbox has.
    fn reserve_range(&self) -> Result<u32, RuntimeError> {
        let mut reserved = self.shared.user_ranges.lock().expect("nobody panics with it");
        let taken: BTreeSet<u32> = self.sandboxes().iter().filter_map(Sandbox::user_ids).collect();
        let is_free = |range: &u32| !reserved.contains(range) && !taken.contains(&(USER_IDS_FIRST + range * USER_IDS));
        let free = (0..USER_RANGES_MAX).find(is_free).ok_or_else(|| RuntimeError::Invalid {
            field: "sandbox.user_namespace",
            why: format!("{USER_RANGES_MAX} sandboxes have one already"),
        })?;
        reserved.insert(free);
        Ok(free)
    }

    async fn create_with(&self, spec: SandboxSpec, user_ids: Option<u32>) -> Result<Sandbox, RuntimeError> {
        let Shared { config, cgroups, sandboxes, .. } = &*self.shared;
        let id = spec.id.clone();
        let boot = Boot { data: config.containers().join(&id), cgroup_parent: config.cgroup_parent(), user_ids, spec };
        let dir = config.sandbox(&id);
        match Sandbox::create(boot, dir, cgroups.sandbox(&id), &config.pinned_exe()).await {
            Ok(sandbox) => {
                let mut sandboxes = sandboxes.lock().expect("nobody panics with it");
                sandboxes.insert(id, sandbox.clone());
                Ok(sandbox)
            }
            Err(error) => {
                if !matches!(error, RuntimeError::Exists { .. }) {
                    let (config, cgroups) = (config.clone(), cgroups.clone());
                    blocking("remove a sandbox", move || destroy_sandbox(&config, &cgroups, &id)).await?;
                }
                Err(error)
            }
        }
    }

    /// All sandboxes that have not been stopped, by id.
    pub fn sandboxes(&self) -> Vec<Sandbox> {
        let mut sandboxes = self.shared.sandboxes.lock().expect("nobody panics with it");
        sandboxes.retain(|_, sandbox| !sandbox.is_removed());
        sandboxes.values().cloned().collect()
    }

    /// The sandbox with this id, if it has not been stopped.
    pub fn sandbox(&self, id: &str) -> Option<Sandbox> {
        let sandboxes = self.shared.sandboxes.lock().expect("nobody panics with it");
        sandboxes.get(id).filter(|sandbox| !sandbox.is_removed()).cloned()
    }

    /// What all sandboxes use together now. Looks at the kernel's files.
    pub fn usage(&self) -> Usage {
        self.shared.cgroups.usage()
    }

    /// The control groups of a sandbox that is none of this runtime's: somebody else makes its containers.
    pub fn groups(&self, id: &str) -> Groups {
        Groups(self.shared.cgroups.sandbox(id))
    }

    /// The image layers that containers of an instance are made of, whether or not an agent runs.
    pub fn layers_in_use(config: &RuntimeConfig) -> Result<BTreeSet<PathBuf>, RuntimeError> {
        Ok(Runtime::stacks_in_use(config)?.into_iter().flatten().collect())
    }

    /// The same, as they lie on each other: of each container, and of each image that is mounted in one, the topmost first.
    pub fn stacks_in_use(config: &RuntimeConfig) -> Result<BTreeSet<Vec<PathBuf>>, RuntimeError> {
        let mut stacks = BTreeSet::new();
        for id in names(&config.sandboxes()).map_err(RuntimeError::file("list", config.sandboxes()))? {
            let dir = config.sandbox(&id);
            for container in dir.container_ids().map_err(RuntimeError::file("list", dir.containers()))? {
                if let Some(spec) = layout::load::<ContainerSpec>(&dir.container(&container).spec())? {
                    stacks.insert(spec.layers);
                    stacks.extend(spec.mounts.into_iter().filter_map(|mount| match mount {
                        Mount::Layers { layers, .. } => Some(layers),
                        Mount::Bind(_) | Mount::Tmpfs { .. } => None,
                    }));
                }
            }
        }
        Ok(stacks)
    }

    /// Kills and removes every sandbox, mount, cgroup and namespace of an instance. Images stay.
    ///
    /// Needs no open `Runtime`, no agent state and no living shim; what is already gone is no error. Blocks: call it
    /// from a blocking thread. It must not run beside an open `Runtime` of the same instance that makes new sandboxes.
    pub fn destroy_all(config: &RuntimeConfig) -> Result<(), RuntimeError> {
        config.check()?;
        let cgroups = Cgroups::detect(&config.cgroup_parent())?;
        let ids = names(&config.sandboxes()).map_err(RuntimeError::file("list", config.sandboxes()))?;
        // What cannot be removed must not keep the rest: everything is tried, and the first failure told.
        let sandboxes = ids.iter().map(|id| destroy_sandbox(config, &cgroups, id)).fold(Ok(()), Result::and);
        let groups = cgroups.destroy_all();
        let mounts = unmount_all(config);
        let files = remove_tree(&config.containers()).and(remove_tree(&config.sandboxes()));
        let files = files.and(layout::remove_file(&config.pinned_exe()));
        sandboxes.and(groups).and(mounts).and(files)
    }
}

/// Unmounts what the runtime mounted in the machine's namespace. Other parts of the instance keep theirs.
fn unmount_all(config: &RuntimeConfig) -> Result<(), RuntimeError> {
    let points = kernel::mounts_below(&config.run).map_err(RuntimeError::system("list mounts"))?;
    let ours = |point: &&PathBuf| point.starts_with(config.sandboxes()) || **point == config.pinned_exe();
    points
        .iter()
        .filter(ours)
        .try_for_each(|point| kernel::unmount(point).map_err(RuntimeError::file("unmount", point)))
}

/// Removes a sandbox whose shim does not answer or never was: the shim first, so that nothing is made while the rest goes.
pub(crate) fn destroy_sandbox(config: &RuntimeConfig, cgroups: &Cgroups, id: &str) -> Result<(), RuntimeError> {
    let dir = config.sandbox(id);
    kill_shim(&dir)?;
    cgroups.sandbox(id).destroy()?;
    kernel::unmount(&dir.shm()).map_err(RuntimeError::file("unmount", dir.shm()))?;
    remove_tree(&config.containers().join(id))?;
    remove_tree(&dir.0)
}

/// Bind-mounts the shim's program read-only and lets shims be started from there.
///
/// A container may reach the file behind `/proc/PID/exe` of a process that is about to become its first one
/// (CVE-2019-5736); through this mount it cannot be opened for writing, whatever the container may do. Replacing the
/// program on disk pins the new one; running shims keep the old.
fn pin_exe(config: &RuntimeConfig) -> Result<(), RuntimeError> {
    let pinned = config.pinned_exe();
    let wanted =
        fs::metadata(&config.shim_exe).map_err(RuntimeError::file("find the shim's program", &config.shim_exe))?;
    let is_same = |found: fs::Metadata| found.dev() == wanted.dev() && found.ino() == wanted.ino();
    let is_mounted = kernel::mounts_below(&pinned).map_err(RuntimeError::system("list mounts"))?.contains(&pinned);
    if is_mounted && fs::metadata(&pinned).is_ok_and(is_same) {
        return Ok(());
    }
    kernel::unmount(&pinned).map_err(RuntimeError::file("unmount", &pinned))?;
    let made = fs::write(&pinned, b"").and_then(|()| fs::set_permissions(&pinned, fs::Permissions::from_mode(0o700)));
    made.map_err(RuntimeError::file("make", &pinned))?;
    let bind = |flags| kernel::mount(&config.shim_exe, &pinned, "", libc::MS_BIND | flags, "");
    bind(0).map_err(RuntimeError::file("bind-mount the shim's program onto", &pinned))?;
    let read_only = kernel::mount(Path::new(""), &pinned, "", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY, "");
    read_only.map_err(RuntimeError::file("make read-only", &pinned))
}
