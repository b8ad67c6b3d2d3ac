//! A container's mounts, its image as the agent sees it, and its last words.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use windlass_runtime::image::Images;
use windlass_runtime::{Bind, Device as RuntimeDevice, Mount as RuntimeMount};

use super::layout::Layout;
use super::volume::{self, Source};
use super::{file_error, make_private_dir, of_image};
use crate::logs;
use crate::machine::{
    Access, Container, Device, DeviceSource, Image, MESSAGE_BYTES_MAX, MachineError, MessageSource, MountSource,
};

/// Lines of a log that stand in for a message (API reference, FallbackToLogsOnError).
const MESSAGE_LINES_MAX: usize = 80;
/// Bytes of a log that stand in for a message.
const LOG_MESSAGE_BYTES_MAX: usize = 2048;

/// An image of the store as the agent sees it, when it was asked for by `name`.
pub fn image(image: windlass_runtime::image::Image, name: &str, access: Access) -> Image {
    let config = image.config;
    let repository = image.names.first().map_or(name, String::as_str);
    let repository = repository.split('@').next().unwrap_or_default();
    let repository = match repository.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => repository,
    };
    let digest = image.digest.map_or_else(|| image.id.clone(), |digest| format!("{repository}@{digest}"));
    Image {
        id: image.id,
        digest,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        env: config.env,
        working_dir: config.working_dir,
        user: config.user,
        stop_signal: config.stop_signal,
        size: image.size,
        access,
    }
}

/// What is mounted into a container.
pub fn mounts(
    layout: &Layout,
    images: &Images,
    pod: &str,
    container: &Container,
    message: &Path,
) -> Result<Vec<RuntimeMount>, MachineError> {
    let mut out = Vec::new();
    for mount in &container.mounts {
        let source = match &mount.source {
            MountSource::Volume(name) => volume::source(layout, pod, name)?,
            MountSource::File(name) => Source::Path(layout.file(pod, name)?),
            MountSource::Path(path) => Source::Path(path.clone()),
        };
        let sub_path = Some(PathBuf::from(&mount.sub_path)).filter(|path| !path.as_os_str().is_empty());
        let target = PathBuf::from(&mount.target);
        out.push(match source {
            Source::Path(source) => {
                let (read_only, recursive, propagation) = (mount.read_only, mount.recursive, mount.propagation);
                RuntimeMount::Bind(Bind { source, sub_path, target, read_only, recursive, propagation })
            }
            Source::Image(id) => RuntimeMount::Layers { layers: layers(images, id)?, sub_path, target },
        });
    }
    if !container.message_path.is_empty() {
        let target = PathBuf::from(&container.message_path);
        out.push(RuntimeMount::Bind(Bind { source: message.to_owned(), target, ..Bind::default() }));
    }
    Ok(out)
}

/// The devices that a container may use.
pub fn devices(layout: &Layout, pod: &str, container: &Container) -> Result<Vec<RuntimeDevice>, MachineError> {
    let device = |wanted: &Device| {
        let source = match &wanted.source {
            DeviceSource::Path(path) => path.clone(),
            DeviceSource::Volume(name) => match volume::source(layout, pod, name)? {
                Source::Path(path) => path,
                Source::Image(id) => return Err(MachineError::NotFound { what: "device", id }),
            },
        };
        let found = RuntimeDevice::of(&source, Path::new(&wanted.target), &wanted.access);
        found.map_err(|error| file_error("give device", &source, &error))
    };
    container.devices.iter().map(device).collect()
}

fn layers(images: &Images, id: String) -> Result<Vec<PathBuf>, MachineError> {
    let image = images.find(&id).map_err(|error| of_image(&error))?;
    Ok(image.ok_or(MachineError::NotFound { what: "image", id })?.layers)
}

/// The empty file a container may leave its last words in, whoever it runs as.
pub fn make_message_file(path: &Path) -> Result<(), MachineError> {
    let made = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let made = made.and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o666)));
    made.map_err(|error| file_error("make", path, &error))
}

/// What a container left as its last words. Its file was the container's to write, so it is read with a bound.
pub fn last_words(
    message: &Path,
    (logs_dir, log): &(PathBuf, PathBuf),
    from: MessageSource,
) -> Result<String, MachineError> {
    let file = match File::options().read(true).custom_flags(O_NOFOLLOW_NONBLOCK).open(message) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(file_error("read", message, &error)),
    };
    let mut bytes = Vec::new();
    let read = file.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut bytes);
    read.map_err(|error| file_error("read", message, &error))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if !text.is_empty() || from == MessageSource::File {
        return Ok(text);
    }
    make_private_dir(logs_dir)?;
    let tail = logs::tail(logs_dir, log, MESSAGE_LINES_MAX, LOG_MESSAGE_BYTES_MAX);
    tail.map_err(|error| file_error("read the log", &logs_dir.join(log), &error))
}

/// A pipe or device in its place would make the reader wait; a link would lead it away.
const O_NOFOLLOW_NONBLOCK: i32 =
    (rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits()).cast_signed();

#[cfg(test)]
mod tests {
    use super::image;
    use windlass_runtime::image::{Access, Image, ImageConfig};

    #[test]
    fn a_pulled_image_is_named_by_its_repository_and_digest() {
        let with = |names: &[&str], digest: Option<&str>| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let digest = digest.map(str::to_owned);
            let config = ImageConfig::default();
            let found = Image { id: "sha256:1".to_owned(), names, digest, config, layers: Vec::new(), size: 0 };
            image(found, "web", Access::Anyone).digest
        };
        assert_eq!(with(&["127.0.0.1:5000/web:v1"], Some("sha256:2")), "127.0.0.1:5000/web@sha256:2");
        assert_eq!(with(&[], None), "sha256:1");
    }
}
