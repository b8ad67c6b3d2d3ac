//! What a container of another runtime is given of this machine: paths, devices, profiles, all resolved before the runtime
//! hears of them.
//!
//! Rules
//!   V1 beneath   a path inside a volume, which the pod may be changing at this moment, is resolved beneath the volume and
//!                mounted at a place of the node's own; the runtime is given that place
//!   V2 there     a path that is not there is refused; runtimes would make a directory
//!   V3 refused   files of an image as a volume, hooks of devices, and device nodes that only a description knows are refused
//!                by name

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};
use rustix::mount::mount_bind_recursive;
use windlass_runtime::Device as RuntimeDevice;

use super::super::device::cdi;
use super::super::volume::Source;
use super::super::{container as words, file_error, make_private_dir, refused, seccomp};
use super::config::{Given, GivenDevice, GivenMount, refuse};
use super::{Layout, remove_tree, volume};
use crate::machine::{Container, DeviceSource, MachineError, MountSource, Propagation, Seccomp};

/// Everything but what only the runtime knows. Works on the disk: blocks.
pub fn of(layout: &Layout, cdi_dirs: &[PathBuf], pod: &str, wanted: &Container) -> Result<Given, MachineError> {
    let (log, message) = (layout.log(pod, &wanted.id)?, layout.message(pod, &wanted.id)?);
    [log.parent(), message.parent()].into_iter().flatten().try_for_each(make_private_dir)?;
    words::make_message_file(&message)?;
    let mut given = Given {
        log: super::super::layout::log_name(&wanted.id)?.to_string_lossy().into_owned(),
        env: wanted.env.clone(),
        ..Given::default()
    };
    let parts = layout.parts(pod)?.join(&wanted.id);
    remove_parts(&parts)?;
    for (index, mount) in wanted.mounts.iter().enumerate() {
        let source = match &mount.source {
            MountSource::Volume(name) => volume::source(layout, pod, name)?,
            MountSource::File(name) => Source::Path(layout.file(pod, name)?),
            MountSource::Path(path) => Source::Path(path.clone()),
        };
        let source = match (source, mount.sub_path.as_str()) {
            (Source::Image(_), _) => return refuse(wanted, "an image as a volume"),
            (Source::Path(source), "") => there(source)?,
            (Source::Path(source), part) => part_of(&source, part, &parts.join(index.to_string()))?,
        };
        given.mounts.push(GivenMount {
            source: text(&source)?,
            target: mount.target.clone(),
            read_only: mount.read_only,
            propagation: mount.propagation,
        });
    }
    if !wanted.message_path.is_empty() {
        let target = wanted.message_path.clone();
        given.mounts.push(GivenMount { source: text(&message)?, target, ..GivenMount::default() });
    }
    for device in &wanted.devices {
        let source = match &device.source {
            DeviceSource::Path(path) => path.clone(),
            DeviceSource::Volume(name) => match volume::source(layout, pod, name)? {
                Source::Path(path) => path,
                Source::Image(id) => return Err(MachineError::NotFound { what: "device", id }),
            },
        };
        let (target, access) = (device.target.clone(), device.access.clone());
        given.devices.push(GivenDevice { source: text(&source)?, target, access });
    }
    described(cdi_dirs, wanted, &mut given)?;
    given.seccomp = match &wanted.seccomp {
        Seccomp::Localhost(path) => {
            // Read here as well, so that what is wrong with it is said in the same words by every runtime.
            seccomp::filter(&layout.seccomp(), &wanted.seccomp)?;
            Some(text(&layout.seccomp().join(path))?)
        }
        Seccomp::Default | Seccomp::Unconfined => None,
    };
    Ok(given)
}

/// What files of this machine say that devices need.
fn described(cdi_dirs: &[PathBuf], wanted: &Container, given: &mut Given) -> Result<(), MachineError> {
    let edits = cdi::resolve(cdi_dirs, &wanted.cdi);
    let edits = edits.map_err(|why| MachineError::Failed { operation: "look up devices".to_owned(), why })?;
    if !edits.hooks.is_empty() {
        return refuse(wanted, "hooks of a CDI device");
    }
    for bind in edits.mounts {
        given.mounts.push(GivenMount {
            source: text(&there(bind.source)?)?,
            target: text(&bind.target)?,
            read_only: bind.read_only,
            propagation: Propagation::Private,
        });
    }
    for node in edits.nodes {
        let same = RuntimeDevice::of(&node.target, &node.target, &node.access);
        if !same.is_ok_and(|found| found.number == node.number && found.is_block == node.is_block) {
            return refuse(
                wanted,
                &format!("the device node {}, which the machine has elsewhere", node.target.display()),
            );
        }
        let (source, target) = (text(&node.target)?, text(&node.target)?);
        given.devices.push(GivenDevice { source, target, access: node.access });
    }
    // What the device needs is not the author's to change.
    given.env.retain(|(name, _)| !edits.env.iter().any(|(own, _)| own == name));
    given.env.extend(edits.env);
    given.groups = edits.groups;
    Ok(())
}

/// V2.
fn there(path: PathBuf) -> Result<PathBuf, MachineError> {
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(file_error("mount", &path, &error)),
    }
}

/// V1.
fn part_of(source: &Path, part: &str, place: &Path) -> Result<PathBuf, MachineError> {
    let found = windlass_runtime::open_beneath(source, Path::new(part));
    let found = found.map_err(|error| file_error(&format!("find {part:?} in"), source, &error))?;
    let made = || {
        place.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        match FileType::from_raw_mode(fstat(&found)?.st_mode) {
            FileType::Directory => std::fs::create_dir(place)?,
            _ => std::fs::write(place, b"")?,
        }
        mount_bind_recursive(format!("/proc/self/fd/{}", found.as_raw_fd()), place).map_err(std::io::Error::from)
    };
    made().map_err(|error| file_error("mount", place, &error))?;
    Ok(place.to_owned())
}

/// Unmounts and removes the parts of volumes below this directory.
pub fn remove_parts(directory: &Path) -> Result<(), MachineError> {
    volume::unmount_below(directory)?;
    remove_tree(directory)
}

/// A path as CRI has it: text.
fn text(path: &Path) -> Result<String, MachineError> {
    let found = path.to_str().map(str::to_owned);
    found.ok_or_else(|| refused("give a path to a runtime", format!("expected a path in UTF-8, found {path:?}")))
}
