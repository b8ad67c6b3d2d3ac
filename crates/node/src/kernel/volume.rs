//! Volumes on disk: directories, memory file systems, links to paths of the machine.
//!
//! Files change all at once: they lie in a directory of their own, `..data` links to it, and every top-level name links
//! through `..data`. A change makes a new directory and swaps the one link (the layout kubelet users know).
//!
//! Guarantees  nothing is followed on the way down: a volume's content was the containers' to change

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use super::disk_image;
use super::group::give_tree;
use super::layout::{Layout, file_name};
use super::{failed, file_error, make_private_dir, names, remove_file};
use crate::machine::{FileContent, Lasting, MachineError, Medium, Volume, VolumeContent};

/// The link that is swapped.
const DATA: &str = "..data";
/// A memory file system for files grows with them; this is what the largest volume may hold, and some room.
const SECRET_BYTES_MAX: u64 = 24 << 20;

/// Makes a volume hold exactly what it should.
pub fn up(layout: &Layout, pod: &str, volume: &Volume) -> Result<(), MachineError> {
    make_private_dir(&layout.volumes(pod)?)?;
    let path = layout.volume(pod, &volume.name)?;
    match &volume.content {
        VolumeContent::Host { path: host, expect } => {
            check_host_path(host, expect)?;
            link_to(&path, host)
        }
        VolumeContent::Empty { medium, bytes_max } => {
            let mut is_new = make_dir(&path, 0o777)?;
            // After a reboot the directory is there and what was mounted on it is not.
            is_new |= match medium {
                Medium::Disk => false,
                Medium::Memory => mount_memory(&path, *bytes_max, 0o1777)?,
                Medium::HugePages(size) => mount_huge_pages(&path, *size, *bytes_max)?,
            };
            match volume.group {
                Some(group) if is_new => give_to_group(&path, group),
                _ => Ok(()),
            }
        }
        VolumeContent::Files { files, secret } => {
            make_dir(&path, 0o755)?;
            if *secret {
                mount_memory(&path, Some(SECRET_BYTES_MAX), 0o755)?;
            }
            write_files(&path, files, volume.group)
        }
        VolumeContent::Kept => match fs::symlink_metadata(path.join(DATA)) {
            Ok(_) => Ok(()),
            Err(error) => Err(file_error("find what was kept in", &path, &error)),
        },
        VolumeContent::Lasting(lasting) => {
            let directory = lasting_directory(layout, lasting)?;
            if let (Some(group), false) = (volume.group, matches!(lasting, Lasting::Device(..))) {
                give_tree(&directory, group, volume.trust_top)?;
            }
            link_to(&path, &directory)
        }
        VolumeContent::Device(device) => {
            check_host_path(device, "BlockDevice")?;
            link_to(&path, device)
        }
        VolumeContent::Lent(lent) => {
            let why = format!("{} is borrowed before it is shown", lent.name);
            Err(MachineError::Failed { operation: "show a volume".to_owned(), why })
        }
        VolumeContent::Image { image } => {
            let (_, hash) = image.split_once(':').unwrap_or(("", image));
            file_name(hash)?;
            link_to(&path, Path::new(image))
        }
    }
}

/// Makes a volume of the pod be what is at this path of the machine.
pub fn point(layout: &Layout, pod: &str, name: &str, at: &Path) -> Result<(), MachineError> {
    make_private_dir(&layout.volumes(pod)?)?;
    link_to(&layout.volume(pod, name)?, at)
}

fn lasting_directory(layout: &Layout, lasting: &Lasting) -> Result<PathBuf, MachineError> {
    match lasting {
        Lasting::There(path) => {
            check_host_path(path, "Directory")?;
            Ok(path.clone())
        }
        Lasting::Sized(name, bytes) => disk_image::file_system(&layout.lasting(name)?, *bytes),
        Lasting::Device(name, bytes) => disk_image::device(&layout.lasting(name)?, *bytes),
        Lasting::Own(name) => {
            let path = layout.lasting(name)?;
            make_private_dir(path.parent().expect("it lies in the node's data"))?;
            make_dir(&path, 0o777)?;
            Ok(path)
        }
    }
}

/// Removes a directory that outlived its pods.
pub fn remove_lasting(layout: &Layout, name: &str) -> Result<(), MachineError> {
    let directory = layout.lasting(name)?;
    disk_image::release(&directory)?;
    super::remove_tree(&directory)
}

/// What of a volume is mounted into containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path of this machine.
    Path(PathBuf),
    /// The files of the image of this id.
    Image(String),
}

/// What of a volume is mounted into containers. A volume that is a link to a path of the machine is that path; one that
/// is a link without a path is an image.
pub fn source(layout: &Layout, pod: &str, name: &str) -> Result<Source, MachineError> {
    let path = layout.volume(pod, name)?;
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_symlink() => {
            let target = fs::read_link(&path).map_err(|error| file_error("read", &path, &error))?;
            Ok(match target.is_absolute() {
                true => Source::Path(target),
                false => Source::Image(target.to_string_lossy().into_owned()),
            })
        }
        Ok(_) => Ok(Source::Path(path)),
        Err(error) => Err(file_error("find volume", &path, &error)),
    }
}

/// Unmounts what volumes have mounted, and what containers that may have mounted in them. The directories go with their
/// pod's.
pub fn remove_all(layout: &Layout, pod: &str) -> Result<(), MachineError> {
    unmount_below(&layout.volumes(pod)?)
}

/// Unmounts what is mounted in a directory.
pub fn unmount_below(directory: &Path) -> Result<(), MachineError> {
    let mounted = windlass_runtime::mounts_below(directory);
    mounted
        .map_err(|error| file_error("look for mounts below", directory, &error))?
        .iter()
        .try_for_each(|at| unmount(at))
}

fn unmount(path: &Path) -> Result<(), MachineError> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not mounted, not there, or a link.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(()),
            Err(error) => return Err(file_error("unmount", path, &io::Error::from(error))),
        }
    }
}

/// Whether the directory was made just now.
fn make_dir(path: &Path, mode: u32) -> Result<bool, MachineError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
            set.map_err(|error| file_error("make", path, &error))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(file_error("make", path, &error)),
    }
}

/// Puts a memory file system on a directory, unless one is there already.
/// Returns whether it was put there just now.
fn mount_memory(path: &Path, bytes_max: Option<u64>, mode: u32) -> Result<bool, MachineError> {
    mount_on(path, "tmpfs", &format!("mode={mode:o}"), bytes_max)
}

/// The same of pages of this size; who takes more of them than its containers may is refused by their control group.
fn mount_huge_pages(path: &Path, size: u64, bytes_max: Option<u64>) -> Result<bool, MachineError> {
    mount_on(path, "hugetlbfs", &format!("mode=1777,pagesize={size}"), bytes_max)
}

fn mount_on(path: &Path, kind: &str, options: &str, bytes_max: Option<u64>) -> Result<bool, MachineError> {
    if is_mounted(path)? {
        return Ok(false);
    }
    let size = bytes_max.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let options = std::ffi::CString::new(format!("{options}{size}")).expect("no NUL in numbers");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mounted = rustix::mount::mount(kind, path, kind, flags, Some(options.as_c_str()));
    mounted.map(|()| true).map_err(|error| file_error(&format!("mount {kind} on"), path, &io::Error::from(error)))
}

fn is_mounted(path: &Path) -> Result<bool, MachineError> {
    let device = |path: &Path| {
        fs::symlink_metadata(path).map(|found| found.dev()).map_err(|error| file_error("look at", path, &error))
    };
    let parent = path.parent().expect("a volume lies in its pod's directory");
    Ok(device(path)? != device(parent)?)
}

/// The group may write, and what is made inside belongs to it too.
fn give_to_group(path: &Path, group: u32) -> Result<(), MachineError> {
    let given = lchown(path, None, Some(group));
    let given = given.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o2777)));
    given.map_err(|error| file_error("give to the pod's group", path, &error))
}

fn check_host_path(path: &Path, expect: &str) -> Result<(), MachineError> {
    let refuse = |why: &str| {
        let operation = format!("hostPath type check of {}", path.display());
        Err(MachineError::Failed { operation, why: why.to_owned() })
    };
    match expect {
        "DirectoryOrCreate" if !path.exists() => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
            return made.map_err(|error| file_error("make", path, &error));
        }
        "FileOrCreate" if !path.exists() => {
            let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
            return made.map(|_| ()).map_err(|error| file_error("make", path, &error));
        }
        _ => {}
    }
    let Ok(found) = fs::metadata(path) else {
        // Without a type anything goes, also what is not there yet: it becomes a directory, as docker has it.
        if expect.is_empty() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
            return made.map_err(|error| file_error("make", path, &error));
        }
        return refuse(&format!("expected {expect}, found nothing"));
    };
    let kind = found.file_type();
    let matches = match expect {
        "" => true,
        "Directory" | "DirectoryOrCreate" => kind.is_dir(),
        "File" | "FileOrCreate" => kind.is_file(),
        "Socket" => kind.is_socket(),
        "CharDevice" => kind.is_char_device(),
        "BlockDevice" => kind.is_block_device(),
        other => return refuse(&format!("{other:?} is not a type of hostPath")),
    };
    if matches { Ok(()) } else { refuse(&format!("expected {expect}, found something else")) }
}

fn link_to(path: &Path, host: &Path) -> Result<(), MachineError> {
    if fs::read_link(path).is_ok_and(|found| found == host) {
        return Ok(());
    }
    remove_file(path)?;
    symlink(host, path).map_err(|error| file_error("link", path, &error))
}

/// Writes a new directory of files and swaps it in; does nothing when the files are there already.
fn write_files(
    path: &Path,
    files: &std::collections::BTreeMap<String, FileContent>,
    group: Option<u32>,
) -> Result<(), MachineError> {
    let data = path.join(DATA);
    let old = fs::read_link(&data).ok().and_then(|old| old.into_os_string().into_string().ok());
    let old = old.filter(|old| old.starts_with("..") && !old.contains('/'));
    if old.as_ref().is_some_and(|old| holds(&path.join(old), files)) {
        // An agent that ended between the swap and the names left some out.
        return link_names(path, files);
    }
    let number = old.as_ref().and_then(|old| old.strip_prefix("..v")?.parse::<u64>().ok()).unwrap_or(0) + 1;
    let new = format!("..v{number}");
    let directory = path.join(&new);
    super::remove_tree(&directory)?;
    make_dir(&directory, 0o755)?;
    for (name, file) in files {
        write_file(&directory, name, file, group)?;
    }
    let next = path.join("..next");
    remove_file(&next)?;
    symlink(&new, &next).map_err(|error| file_error("link", &next, &error))?;
    fs::rename(&next, &data).map_err(|error| file_error("swap", &data, &error))?;
    link_names(path, files)?;
    match old {
        Some(old) => super::remove_tree(&path.join(old)),
        None => Ok(()),
    }
}

fn write_file(directory: &Path, name: &str, file: &FileContent, group: Option<u32>) -> Result<(), MachineError> {
    use std::io::Write;
    let mut at = directory.to_owned();
    let parts: Vec<&str> = name.split('/').collect();
    let (last, parents) = parts.split_last().expect("splitting gives at least one part");
    for part in parents {
        at.push(plain(part)?);
        make_dir(&at, 0o755)?;
    }
    at.push(plain(last)?);
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at);
    let written = written.and_then(|mut out| {
        out.write_all(&file.bytes)?;
        out.set_permissions(fs::Permissions::from_mode(file.mode))
    });
    written.map_err(|error| file_error("write", &at, &error))?;
    match (file.owner, group) {
        (None, None) => Ok(()),
        (owner, group) => lchown(&at, owner, group).map_err(|error| file_error("give to the pod", &at, &error)),
    }
}

/// Keys may be more than file names of ours are, but never a way out.
fn plain(part: &str) -> Result<&str, MachineError> {
    let is_plain = !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\0']) && part.len() <= 253;
    if is_plain { Ok(part) } else { file_name(part) }
}

fn link_names(path: &Path, files: &std::collections::BTreeMap<String, FileContent>) -> Result<(), MachineError> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|name| name.split('/').next()).collect();
    for name in names(path)? {
        let old = path.join(&name);
        // A directory is not one of our links: it was made for a subPath that the volume does not hold.
        let is_link = fs::symlink_metadata(&old).is_ok_and(|found| found.is_symlink());
        if is_link && !name.starts_with("..") && !wanted.contains(name.as_str()) {
            remove_file(&old)?;
        }
    }
    for name in wanted {
        let link = path.join(name);
        if fs::symlink_metadata(&link).is_err() {
            let target = Path::new(DATA).join(name);
            symlink(target, &link).map_err(|error| file_error("link", &link, &error))?;
        }
    }
    Ok(())
}

/// Whether a directory of ours holds exactly these files.
fn holds(directory: &Path, files: &std::collections::BTreeMap<String, FileContent>) -> bool {
    let same = |(name, file): (&String, &FileContent)| {
        let path = directory.join(name);
        let mode = fs::symlink_metadata(&path).map(|found| found.permissions().mode() & 0o777);
        mode.is_ok_and(|mode| mode == file.mode) && fs::read(&path).is_ok_and(|found| found == file.bytes)
    };
    files.iter().all(same) && count(directory) == Some(files.len())
}

fn count(directory: &Path) -> Option<usize> {
    let mut all = 0;
    for entry in fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        all += if entry.file_type().ok()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Some(all)
}

/// For `df`: the size of and the free space on the disk that holds `path`, in bytes.
pub fn disk_of(path: &Path) -> Result<[(u64, u64); 2], MachineError> {
    let found = rustix::fs::statvfs(path).map_err(|error| failed("look at the disk", &io::Error::from(error)))?;
    Ok([(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize), (found.f_files, found.f_favail)])
}

#[cfg(test)]
mod tests {
    use super::{Lasting, Source, remove_all, source, up};
    use crate::kernel::layout::Layout;
    use crate::machine::Medium;
    use crate::machine::{FileContent, Volume, VolumeContent};
    use bytes::Bytes;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> (Scratch, Layout) {
            let path = std::env::temp_dir().join(format!("windlass-volume-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory for the test");
            let layout = Layout { data: path.clone() };
            (Scratch(path), layout)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the test's own directory");
        }
    }

    fn files(list: &[(&str, &str)]) -> Volume {
        let files: BTreeMap<String, FileContent> = list
            .iter()
            .map(|(path, text)| {
                let bytes = Bytes::copy_from_slice(text.as_bytes());
                ((*path).to_owned(), FileContent { bytes, mode: 0o640, owner: None })
            })
            .collect();
        Volume {
            name: "v".to_owned(),
            group: None,
            trust_top: false,
            content: VolumeContent::Files { files, secret: false },
        }
    }

    #[test]
    fn files_change_all_at_once_and_old_ones_go() {
        let (_scratch, layout) = Scratch::new("files");
        up(&layout, "u", &files(&[("a", "1"), ("d/b", "2")])).expect("written");
        let Source::Path(path) = source(&layout, "u", "v").expect("there") else { panic!("files are no image") };
        let first = fs::read_link(path.join("..data")).expect("a link");
        assert_eq!(fs::read_to_string(path.join("d/b")).expect("there"), "2");
        assert_eq!(fs::metadata(path.join("a")).expect("there").permissions().mode() & 0o777, 0o640);
        up(&layout, "u", &files(&[("a", "1"), ("d/b", "2")])).expect("nothing to do");
        assert_eq!(fs::read_link(path.join("..data")).expect("a link"), first, "the same content is not written again");
        up(&layout, "u", &files(&[("a", "3"), ("c", "4")])).expect("written");
        assert_ne!(fs::read_link(path.join("..data")).expect("a link"), first);
        assert_eq!(fs::read_to_string(path.join("a")).expect("there"), "3");
        assert!(!path.join("d").exists() && !path.join(first).exists());
        let shown: Vec<_> = fs::read_dir(&path).expect("there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(shown.len(), 4, "..data, one version, a and c: {shown:?}");
    }

    #[test]
    fn a_volume_that_is_an_image_says_which() {
        let (_scratch, layout) = Scratch::new("image");
        let volume = |image: &str| {
            let content = VolumeContent::Image { image: image.to_owned() };
            Volume { name: "i".to_owned(), group: None, trust_top: false, content }
        };
        let id = format!("sha256:{}", "0".repeat(64));
        up(&layout, "u", &volume(&id)).expect("made");
        up(&layout, "u", &volume(&id)).expect("nothing to do");
        assert_eq!(source(&layout, "u", "i").expect("there"), Source::Image(id));
        assert!(up(&layout, "u", &volume("sha256:/etc")).is_err(), "an id is no path");
    }

    #[test]
    fn a_lasting_directory_outlives_its_pods_and_belongs_to_their_group() {
        use std::os::unix::fs::MetadataExt;
        let (scratch, layout) = Scratch::new("lasting");
        let made = |trust_top: bool, lasting: Lasting| {
            let content = VolumeContent::Lasting(lasting);
            up(&layout, "u", &Volume { name: "v".to_owned(), group: Some(77), trust_top, content })
        };
        let own = || Lasting::Own("pv".to_owned());
        made(false, own()).expect("made");
        let path = layout.lasting("pv").expect("a name");
        assert_eq!(source(&layout, "u", "v").expect("there"), Source::Path(path.clone()));
        fs::create_dir(path.join("d")).expect("made");
        fs::write(path.join("d/file"), "kept").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", path.join("d/link")).expect("a link");
        std::os::unix::fs::chown(path.join("d"), None, Some(0)).expect("ours");
        made(true, own()).expect("trusted");
        assert_eq!(fs::metadata(path.join("d")).expect("there").gid(), 0, "its top was the group's");
        made(false, own()).expect("walked");
        let file = fs::metadata(path.join("d/file")).expect("there");
        assert_eq!((file.gid(), file.mode() & 0o777), (77, 0o664));
        assert_eq!(fs::metadata(path.join("d")).expect("there").mode() & 0o7777, 0o2775);
        assert_eq!(fs::metadata("/etc/passwd").expect("there").gid(), 0, "no link is followed");
        remove_all(&layout, "u").expect("nothing is mounted");
        windlass_runtime::remove_tree(&layout.pod("u").expect("a name")).expect("removed");
        assert_eq!(fs::read_to_string(path.join("d/file")).expect("there"), "kept");
        super::remove_lasting(&layout, "pv").expect("removed");
        super::remove_lasting(&layout, "pv").expect("gone already");
        assert!(!path.exists() && made(false, Lasting::There(scratch.0.join("none"))).is_err());
        assert!(made(false, Lasting::Own("../x".to_owned())).is_err());
    }

    #[test]
    fn a_directory_made_for_a_sub_path_does_not_stop_updates() {
        let (_scratch, layout) = Scratch::new("subpath");
        up(&layout, "u", &files(&[("a", "1")])).expect("written");
        fs::create_dir(layout.volume("u", "v").expect("a name").join("missing")).expect("made");
        up(&layout, "u", &files(&[("b", "2")])).expect("written");
    }

    #[test]
    fn what_containers_mounted_in_a_volume_is_unmounted_before_it_is_removed() {
        let (scratch, layout) = Scratch::new("mounts");
        let content = VolumeContent::Empty { medium: Medium::Memory, bytes_max: Some(1 << 20) };
        up(&layout, "u", &Volume { name: "v".to_owned(), group: Some(7), trust_top: false, content }).expect("made");
        let (path, kept) = (layout.volume("u", "v").expect("a name"), scratch.0.join("kept"));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o2777);
        fs::create_dir_all(&kept).expect("made");
        fs::write(kept.join("file"), "").expect("written");
        fs::create_dir(path.join("inner")).expect("made");
        rustix::mount::mount_bind(&kept, path.join("inner")).expect("mounted");
        remove_all(&layout, "u").expect("unmounted");
        windlass_runtime::remove_tree(&layout.pod("u").expect("a name")).expect("removed");
        assert!(kept.join("file").exists(), "what was mounted is somebody else's");
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let (_scratch, layout) = Scratch::new("out");
        for name in ["../x", "a/../../x", "/x", "a//b"] {
            assert!(up(&layout, "u", &files(&[(name, "1")])).is_err(), "{name}");
        }
    }

    #[test]
    fn a_host_path_must_be_what_its_type_says() {
        let (scratch, layout) = Scratch::new("host");
        let host = |path: PathBuf, expect: &str| {
            let content = VolumeContent::Host { path, expect: expect.to_owned() };
            up(&layout, "u", &Volume { name: "h".to_owned(), group: None, trust_top: false, content })
        };
        let made = scratch.0.join("made");
        assert!(host(made.clone(), "Directory").is_err());
        host(made.clone(), "DirectoryOrCreate").expect("made");
        assert!(host(made.clone(), "File").is_err());
        host(made.clone(), "").expect("anything");
        assert_eq!(source(&layout, "u", "h").expect("there"), Source::Path(made));
        host(scratch.0.join("file"), "FileOrCreate").expect("made");
        assert!(scratch.0.join("file").is_file());
    }
}
