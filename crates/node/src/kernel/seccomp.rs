//! Profiles of system calls that lie on this machine: `DATA/seccomp/PATH`.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use windlass_runtime::{Seccomp as RuntimeSeccomp, SeccompProfile};

use super::read_bounded;
use crate::machine::{MachineError, Seccomp};

/// The longest profile that is read.
const PROFILE_BYTES_MAX: usize = 1 << 20;

/// What the runtime is told. Profiles lie beneath `directory` and nothing leads out of it, not even a link.
pub fn filter(directory: &Path, wanted: &Seccomp) -> Result<RuntimeSeccomp, MachineError> {
    match wanted {
        Seccomp::Default => Ok(RuntimeSeccomp::Default),
        Seccomp::Unconfined => Ok(RuntimeSeccomp::Unconfined),
        Seccomp::Localhost(path) => {
            let profile = read(directory, path).map_err(|why| MachineError::Failed {
                operation: format!("use the seccomp profile {path:?} of {}", directory.display()),
                why,
            })?;
            Ok(RuntimeSeccomp::Profile(profile))
        }
    }
}

fn read(directory: &Path, path: &str) -> Result<SeccompProfile, String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty()).map_err(|error| error.to_string())?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&root, path, flags, Mode::empty(), beneath).map_err(|error| error.to_string())?;
    let text = read_bounded(file, PROFILE_BYTES_MAX).map_err(|error| error.to_string())?;
    SeccompProfile::parse(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::filter;
    use crate::machine::Seccomp;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a76_profiles_are_read_beneath_their_directory_only() {
        let directory = std::env::temp_dir().join(format!("windlass-seccomp-{}", std::process::id()));
        let inside = directory.join("seccomp");
        fs::create_dir_all(inside.join("sub")).expect("a directory");
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#;
        for file in ["seccomp/sub/good.json", "outside.json"] {
            fs::write(directory.join(file), profile).expect("a file");
        }
        fs::write(inside.join("bad.json"), "{}").expect("a file");
        symlink("../outside.json", inside.join("link.json")).expect("a link");
        let read = |path: &str| filter(&inside, &Seccomp::Localhost(path.to_owned()));
        read("sub/good.json").expect("a profile");
        let outside = directory.join("outside.json");
        for path in
            ["../outside.json", "link.json", "sub", "none.json", "bad.json", outside.to_str().expect("text"), ""]
        {
            let error = read(path).expect_err(path).to_string();
            assert!(error.contains("seccomp profile"), "{error}");
        }
        fs::remove_dir_all(&directory).expect("our own directory");
    }
}
