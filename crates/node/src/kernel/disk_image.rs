//! Volumes that hold no more than they say: an image file on the node's disk, with a file system in it or as a device.
//!
//! ```text
//! DATA/volumes/NAME/image    as large as the volume; room is taken as it is written
//! DATA/volumes/NAME/mount    where its file system is, for volumes that have one
//! ```
//! Rules
//!   I1 once      an image is made once and mounted, or attached, once: again after a reboot
//!   I2 growth    an image grows with its volume, and the file system in it: while it is mounted, where root may do that
//!                (CAP_SYS_RESOURCE), else before it is mounted next; it never shrinks
//!   I3 whole     an image without a file system is one that an agent could not finish: it is made again
//! Relies on   mkfs.ext4, e2fsck, resize2fs, mount and losetup on the machine

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{failed, file_error, make_private_dir, remove_file};
use crate::machine::MachineError;

/// What lies beside an image whose file system has not grown into it yet.
const GROWS: &str = "image.grows";
/// Smaller file systems than this hold nothing.
const BYTES_MIN: u64 = 4 << 20;

/// A file system that holds so many bytes; where it is mounted.
pub fn file_system(directory: &Path, bytes: u64) -> Result<PathBuf, MachineError> {
    let (image, mount) = (directory.join("image"), directory.join("mount"));
    make_private_dir(directory)?;
    make_private_dir(&mount)?;
    let is_mounted = windlass_runtime::mounts_below(&mount).map_err(|error| failed("look at the mounts", &error))?;
    let has_grown = match image.exists() {
        true => grow(&image, bytes)?,
        // I3: it has its name when it is whole.
        false => {
            let half = directory.join("image.half");
            remove_file(&half)?;
            grow(&half, bytes)?;
            run(&["mkfs.ext4", "-q", "-F", "-m", "0", path(&half)?])?;
            fs::rename(&half, &image).map_err(|error| file_error("keep", &image, &error))?;
            false
        }
    };
    if is_mounted.is_empty() {
        if needs_growth(&image, has_grown)? {
            // Asked of e2fsck by resize2fs; it mends what a machine that went down has left.
            run(&["e2fsck", "-f", "-p", path(&image)?])?;
            run(&["resize2fs", path(&image)?])?;
        }
        run(&["mount", "-o", "loop,nosuid,nodev", path(&image)?, path(&mount)?])?;
        // What is in it is its pods', like any other volume.
        let open = fs::set_permissions(&mount, std::os::unix::fs::PermissionsExt::from_mode(0o777));
        open.map_err(|error| file_error("open", &mount, &error))?;
    }
    if !is_mounted.is_empty()
        && needs_growth(&image, has_grown)?
        && let Some(device) = device_of(&image)?
    {
        run(&["losetup", "-c", &device])?;
        run(&["resize2fs", &device])?;
    }
    remove_file(&image.with_file_name(GROWS))?;
    Ok(mount)
}

/// Whether the file system has to grow into its image: a mark stays until it has, whoever is agent then.
fn needs_growth(image: &Path, has_grown: bool) -> Result<bool, MachineError> {
    let mark = image.with_file_name(GROWS);
    if has_grown {
        fs::write(&mark, "").map_err(|error| file_error("mark", &mark, &error))?;
    }
    Ok(mark.exists())
}

/// A device that holds so many bytes; where it is.
pub fn device(directory: &Path, bytes: u64) -> Result<PathBuf, MachineError> {
    let image = directory.join("image");
    make_private_dir(directory)?;
    let has_grown = grow(&image, bytes)?;
    if let Some(device) = device_of(&image)? {
        if has_grown {
            run(&["losetup", "-c", &device])?;
        }
        return Ok(PathBuf::from(device));
    }
    Ok(PathBuf::from(run(&["losetup", "-f", "--show", path(&image)?])?))
}

/// Gives back what keeps an image from being removed.
pub fn release(directory: &Path) -> Result<(), MachineError> {
    let mounts = windlass_runtime::mounts_below(directory).map_err(|error| failed("look at the mounts", &error))?;
    for at in mounts {
        run(&["umount", path(&at)?])?;
    }
    match device_of(&directory.join("image"))? {
        Some(device) => run(&["losetup", "-d", &device]).map(drop),
        None => Ok(()),
    }
}

/// I2. Whether it has.
fn grow(image: &Path, bytes: u64) -> Result<bool, MachineError> {
    let of = |error: std::io::Error| file_error("make", image, &error);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(image).map_err(of)?;
    let has = file.metadata().map_err(of)?.len();
    let wanted = bytes.max(BYTES_MIN);
    if has >= wanted {
        return Ok(false);
    }
    file.set_len(wanted).map_err(of)?;
    Ok(true)
}

/// The loop device that an image is attached to.
fn device_of(image: &Path) -> Result<Option<String>, MachineError> {
    if !image.exists() {
        return Ok(None);
    }
    let said = run(&["losetup", "-n", "-O", "NAME", "-j", path(image)?])?;
    Ok(said.lines().next().map(|line| line.trim().to_owned()).filter(|device| !device.is_empty()))
}

fn path(path: &Path) -> Result<&str, MachineError> {
    path.to_str().ok_or_else(|| MachineError::Failed {
        operation: "name an image".to_owned(),
        why: "the node's directory is not UTF-8".to_owned(),
    })
}

fn run(words: &[&str]) -> Result<String, MachineError> {
    let (program, arguments) = words.split_first().expect("a program is named");
    let doing = || format!("run {}", words.join(" "));
    // Where they are need not be on the path of who started the agent.
    let path = format!("{}:/usr/sbin:/sbin:/usr/bin:/bin", std::env::var("PATH").unwrap_or_default());
    let out = Command::new(program).args(arguments).env("PATH", path).output();
    let out = out.map_err(|error| failed(&format!("{} (it must be on this machine)", doing()), &error))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        false => {
            let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            Err(MachineError::Failed { operation: doing(), why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{device, device_of, file_system, release};
    use std::fs;
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            Scratch(std::env::temp_dir().join(format!("windlass-image-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            release(&self.0).expect("released");
            fs::remove_dir_all(&self.0).expect("the test's own directory");
        }
    }

    #[test]
    fn a_volume_holds_no_more_than_it_says_until_it_grows() {
        let scratch = Scratch::new("size");
        let mount = file_system(&scratch.0, 8 << 20).expect("mounted");
        fs::write(mount.join("kept"), "kept").expect("writable");
        let full = fs::write(mount.join("much"), vec![1; 12 << 20]).expect_err("more than it holds");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(file_system(&scratch.0, 8 << 20).expect("it is there"), mount);
        assert_eq!(windlass_runtime::mounts_below(&mount).expect("proc is mounted").len(), 1, "mounted once");
        // As after a reboot.
        release(&scratch.0).expect("released");
        assert!(!mount.join("kept").exists());
        file_system(&scratch.0, 32 << 20).expect("grown and mounted again");
        fs::write(mount.join("much"), vec![1; 12 << 20]).expect("there is room now");
        assert_eq!(fs::read_to_string(mount.join("kept")).expect("kept"), "kept");
    }

    #[test]
    fn a_device_is_as_large_as_it_says() {
        let scratch = Scratch::new("device");
        let found = device(&scratch.0, 4 << 20).expect("attached");
        assert_eq!(device(&scratch.0, 8 << 20).expect("grown"), found);
        let sectors =
            fs::read_to_string(format!("/sys/class/block/{}/size", found.file_name().expect("a name").display()));
        assert_eq!(sectors.expect("it is one").trim(), (8 << 20 >> 9).to_string());
        release(&scratch.0).expect("released");
        assert_eq!(device_of(&scratch.0.join("image")).expect("asked"), None);
    }
}
