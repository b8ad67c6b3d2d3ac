//! Where a container's file systems are taken from, made ready before libcontainer puts them together.
//!
//! Without a user namespace most are taken from where they are. With one, everything is mounted anew in the maker's own
//! mount namespace, at a place that root inside can reach, and what belongs to the machine's ids is shown through the
//! map of the user namespace: root's files are root's inside.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::create::Job;
use super::user_namespace::{UserNamespace, meeting_place};
use super::{machine_devices, oci, rootfs};
use crate::kernel::{self, MountAttributes};
use crate::mount_table;
use crate::spec::{Bind, Mount, Propagation};

/// The name of a container's root at the meeting place.
const ROOT: &str = "rootfs";

/// What libcontainer is told to mount from where.
#[derive(Debug)]
pub(super) struct Staged {
    pub rootfs: PathBuf,
    /// For each mount of the spec, where it is taken from; nothing for those that have no source.
    pub mounts: Vec<Option<PathBuf>>,
    pub shm: PathBuf,
    /// A view of `/sys`, where the container cannot mount its own.
    pub sys: Option<PathBuf>,
    /// Control groups and where the container sees them.
    pub groups: Vec<(PathBuf, PathBuf)>,
    /// All attributes of the mounts are set already, and libcontainer must not touch them.
    pub is_final: bool,
}

/// Mounts the image and finds the sources of all mounts. `shared` comes from [`shared_sources`].
pub(super) fn stage(job: &Job, shared: BTreeMap<usize, OwnedFd>) -> Result<Staged, String> {
    match &job.user {
        None => stage_plainly(job, shared),
        Some(user) => stage_mapped(job, user),
    }
}

/// Shows the calling process, in a mount namespace of its own, a directory where the root of a container with a user
/// namespace was prepared: programs enter it before they join the container.
pub(super) fn show_root() -> Result<(), String> {
    let place = meeting_place()?;
    let shown = rootfs::leave_mount_namespace().and_then(|()| {
        kernel::mount(Path::new("stage"), place, "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, "mode=711,size=64k")?;
        fs::create_dir(place.join(ROOT))
    });
    shown.map_err(|error| format!("could not show a directory at {}: {error}", place.join(ROOT).display()))
}

/// What both sides shall see mounts of, picked up while this process still is where the machine mounts.
pub(super) fn shared_sources(job: &Job) -> Result<BTreeMap<usize, OwnedFd>, String> {
    let mut found = BTreeMap::new();
    for (index, mount) in job.spec.mounts.iter().enumerate() {
        let Mount::Bind(Bind { source, propagation: Propagation::Both, .. }) = mount else { continue };
        if !source.exists() {
            return Err(missing(source));
        }
        let on =
            mount_table::mounted_on(source).map_err(|error| format!("mount source {}: {error}", source.display()))?;
        // The container's mounts would be seen by nobody, and what is to lie on them would lie beneath.
        if !on.is_shared {
            return Err(format!("path {source:?} is mounted on {:?} but it is not a shared mount", on.path));
        }
        found.insert(index, rootfs::pick_up(source)?);
    }
    Ok(found)
}

fn stage_plainly(job: &Job, mut shared: BTreeMap<usize, OwnedFd>) -> Result<Staged, String> {
    let rootfs = job.dir.rootfs();
    rootfs::mount_overlay(&job.spec.layers, &job.data, &rootfs, None)
        .map_err(|error| format!("could not mount the image's layers: {error}"))?;
    fs::create_dir_all(job.dir.staging()).map_err(|error| format!("could not make a directory: {error}"))?;
    let mut mounts = Vec::new();
    for (index, mount) in job.spec.mounts.iter().enumerate() {
        let staging = job.dir.staging().join(index.to_string());
        mounts.push(match mount {
            Mount::Bind(bind) if oci::is_staged(&job.spec, bind) => {
                stage_bind(bind, shared.remove(&index), &staging)?;
                Some(staging)
            }
            Mount::Bind(Bind { source, .. }) if !source.exists() => return Err(missing(source)),
            Mount::Bind(_) | Mount::Tmpfs { .. } => None,
            Mount::Layers { layers, sub_path, .. } => {
                rootfs::stage_layers(layers, sub_path.as_deref(), &staging, None)?;
                Some(staging)
            }
        });
    }
    Ok(Staged { rootfs, mounts, shm: job.shm.clone(), sys: None, groups: job.cgroup.visible(), is_final: false })
}

fn missing(source: &Path) -> String {
    format!("mount source {} does not exist", source.display())
}

fn stage_bind(bind: &Bind, shared: Option<OwnedFd>, staging: &Path) -> Result<(), String> {
    match (&bind.sub_path, shared) {
        (_, Some(picked_up)) => {
            rootfs::put_down(&picked_up, staging)?;
            // What a container has of its own in there must not appear in the machine's.
            return if machine_devices::is_over(bind) { rootfs::keep_within(staging) } else { Ok(()) };
        }
        (Some(sub_path), None) => rootfs::stage(&bind.source, sub_path, staging)?,
        (None, None) => rootfs::put_down(&rootfs::pick_up(&bind.source)?, staging)?,
    }
    match bind.propagation {
        Propagation::Private => rootfs::cut_off(staging),
        Propagation::FromMachine | Propagation::Both => Ok(()),
    }
}

fn stage_mapped(job: &Job, user: &UserNamespace) -> Result<Staged, String> {
    let failed = |what: &str, path: &Path, error: &io::Error| format!("could not {what} {}: {error}", path.display());
    let mut sources = Vec::new();
    fs::create_dir_all(job.dir.staging()).map_err(|error| format!("could not make a directory: {error}"))?;
    for (index, mount) in job.spec.mounts.iter().enumerate() {
        sources.push(mapped_source(mount, user, &job.dir.staging().join(index.to_string()))?);
    }
    let plain = |path: &Path| {
        let tree = kernel::clone_tree(path);
        tree.map_err(|error| failed("take along", path, &error))
    };
    let shm = plain(&job.shm)?;
    let access = if job.spec.privileged { MountAttributes::NONE } else { MountAttributes::READ_ONLY };
    let mut groups = Vec::new();
    for (group, target) in job.cgroup.visible() {
        let tree = plain(&group)?;
        kernel::set_mount_attributes(&tree, access, None).map_err(|error| failed("restrict", &group, &error))?;
        groups.push((tree, target));
    }
    rootfs::mount_overlay(&job.spec.layers, &job.data, &job.dir.rootfs(), Some(user))
        .map_err(|error| format!("could not mount the image's layers through the map of ids: {error}"))?;
    // Sources may lie below the place, so it is covered only now.
    let place = meeting_place()?;
    kernel::mount(Path::new("stage"), place, "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, "mode=711,size=1m")
        .map_err(|error| failed("mount a tmpfs at", place, &error))?;
    let put = |name: String, tree: OwnedFd| {
        let target = place.join(name);
        kernel::attach_tree(&tree, &target).map_err(|error| failed("mount at", &target, &error))?;
        Ok::<_, String>(target)
    };
    let rootfs = plain(&job.dir.rootfs()).and_then(|tree| put(ROOT.to_owned(), tree))?;
    let mut mounts = Vec::new();
    for (index, tree) in sources.into_iter().enumerate() {
        mounts.push(tree.map(|tree| put(index.to_string(), tree)).transpose()?);
    }
    let mut seen = Vec::new();
    for (index, (tree, target)) in groups.into_iter().enumerate() {
        seen.push((put(format!("group{index}"), tree)?, target));
    }
    // Mounting /sys takes rights over the network, which root inside has not; this one shows the sandbox's.
    let sys = place.join("sys");
    let read_only = if job.spec.privileged { 0 } else { libc::MS_RDONLY };
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | read_only;
    fs::create_dir(&sys)
        .and_then(|()| kernel::mount(Path::new("sysfs"), &sys, "sysfs", flags, ""))
        .map_err(|error| failed("mount", &sys, &error))?;
    Ok(Staged { rootfs, mounts, shm: put("shm".to_owned(), shm)?, sys: Some(sys), groups: seen, is_final: true })
}

/// What is mounted as root inside shall see it; nothing for what has no source.
fn mapped_source(mount: &Mount, user: &UserNamespace, staging: &Path) -> Result<Option<OwnedFd>, String> {
    match mount {
        Mount::Bind(bind) => mapped_bind(bind, user).map(Some),
        Mount::Layers { layers, sub_path, .. } => {
            rootfs::stage_layers(layers, sub_path.as_deref(), staging, Some(user))?;
            let tree = kernel::clone_tree(staging);
            tree.map(Some).map_err(|error| format!("could not take along an image volume: {error}"))
        }
        Mount::Tmpfs { .. } => Ok(None),
    }
}

fn mapped_bind(bind: &Bind, user: &UserNamespace) -> Result<OwnedFd, String> {
    let Bind { source, sub_path, read_only, propagation, .. } = bind;
    let failed = |what: &str, error: &io::Error| format!("could not {what} {}: {error}", source.display());
    if *propagation == Propagation::Both {
        return Err(format!(
            "mounts of a user namespace cannot be seen outside, as those at {} are asked to be",
            source.display()
        ));
    }
    let tree = match sub_path {
        Some(sub_path) => {
            let found = rootfs::open_beneath(source, sub_path);
            let found = found
                .map_err(|error| format!("volume path {} in {}: {error}", sub_path.display(), source.display()))?;
            kernel::clone_tree_at(&found)
        }
        None if !source.exists() => return Err(missing(source)),
        None => kernel::clone_tree(source),
    };
    let tree = tree.map_err(|error| failed("take along", &error))?;
    let access = if *read_only { MountAttributes::READ_ONLY } else { MountAttributes::NONE };
    kernel::set_mount_attributes(&tree, access, Some(&user.user)).map_err(|error| {
        failed("show through the map of a user namespace (does its file system support that?)", &error)
    })?;
    Ok(tree)
}
