//! The last steps of a process that is already in its container: who it is, what it may do, and then its program.
//!
//! Guarantees  the first process and every exec'd one go through exactly these steps, so an exec never has more rights
//! Relies on   the caller being single-threaded, uid 0 or with kept capabilities, in all the container's namespaces

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;

use seccompiler::sock_filter;
use serde::{Deserialize, Serialize};

use crate::capability::{Capabilities, Capability};
use crate::kernel::check;
use crate::seccomp;
use crate::spec::{Rlimit, Seccomp};

/// Where programs are looked for when the container does not say.
pub(crate) const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who a process is inside its container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Groups beyond `gid`.
    pub groups: Vec<u32>,
    pub home: String,
}

/// All that is needed to become a container's process; kept on disk for the execs to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub identity: Identity,
    pub capabilities: Capabilities,
    pub seccomp: Seccomp,
    pub no_new_privileges: bool,
    /// An AppArmor profile that the kernel has loaded.
    #[serde(default)]
    pub app_armor: Option<String>,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: i32,
}

/// A step that failed, in words for the one who wrote the container's spec.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("program {0:?} not found in PATH {1:?}")]
    NotFound(String, String),
    #[error("program {0:?} cannot be executed: {1}")]
    NotExecutable(String, io::Error),
    #[error("could not {0}: {1}")]
    Step(&'static str, io::Error),
    #[error("could not enter working directory {0:?}: {1}")]
    WorkingDirectory(String, io::Error),
    #[error("working directory {0:?} lies outside the container")]
    WorkingDirectoryOutside(String),
    #[error("could not set limit {0}: {1}")]
    Limit(String, io::Error),
    #[error("could not compile the system-call filter: {0}")]
    Filter(seccompiler::BackendError),
    #[error("could not use the system-call filter of its profile: {0}")]
    Profile(seccomp::SeccompProfileError),
    #[error("could not take on the AppArmor profile {0:?}: {1}")]
    AppArmor(String, io::Error),
    #[error("an argument or variable contains a NUL byte")]
    Nul,
}

/// A launch with everything computed that can be computed before the last step.
#[derive(Debug)]
pub(crate) struct Prepared {
    launch: Launch,
    args: Vec<CString>,
    env: Vec<CString>,
    candidates: Vec<CString>,
    filter: Option<Vec<sock_filter>>,
}

impl Launch {
    /// Computes what can be computed outside the container.
    pub fn prepare(self) -> Result<Prepared, LaunchError> {
        let c_string = |text: String| CString::new(text).map_err(|_| LaunchError::Nul);
        let env = self.full_env();
        let path = env.iter().find(|(name, _)| name == "PATH").map_or(PATH_DEFAULT, |(_, value)| value.as_str());
        let program = self.args.first().cloned().unwrap_or_default();
        let candidates = if program.contains('/') {
            vec![c_string(program)?]
        } else {
            let directories = path.split(':').map(|directory| if directory.is_empty() { "." } else { directory });
            directories.map(|directory| c_string(format!("{directory}/{program}"))).collect::<Result<_, _>>()?
        };
        let filter = match &self.seccomp {
            Seccomp::Profile(profile) => Some(profile.compile().map_err(LaunchError::Profile)?),
            Seccomp::Default => Some(seccomp::compile(&self.capabilities).map_err(LaunchError::Filter)?),
            Seccomp::Unconfined => None,
        };
        let args = self.args.iter().cloned().map(c_string).collect::<Result<_, _>>()?;
        let env = env.into_iter().map(|(name, value)| c_string(format!("{name}={value}"))).collect::<Result<_, _>>()?;
        Ok(Prepared { args, env, candidates, filter, launch: self })
    }

    /// The environment with `PATH` and `HOME`; of two with one name the later counts, in the earlier one's place.
    pub fn full_env(&self) -> Vec<(String, String)> {
        let mut full: Vec<(String, String)> = Vec::with_capacity(self.env.len() + 2);
        let defaults = [("PATH", PATH_DEFAULT), ("HOME", &self.identity.home)];
        let missing = defaults.iter().filter(|(name, _)| !self.env.iter().any(|(own, _)| own == name));
        let missing = missing.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        for (name, value) in missing.chain(self.env.iter().cloned()) {
            match full.iter_mut().find(|(own, _)| *own == name) {
                Some(own) => own.1 = value,
                None => full.push((name, value)),
            }
        }
        full
    }
}

impl Prepared {
    fn not_started(&self, error: Option<io::Error>) -> LaunchError {
        let program = self.launch.args.first().cloned().unwrap_or_default();
        match error {
            Some(error) => LaunchError::NotExecutable(program, error),
            None if program.contains('/') => {
                LaunchError::NotExecutable(program, io::Error::from_raw_os_error(libc::ENOENT))
            }
            None => {
                let path = self.env.iter().find_map(|entry| entry.to_str().ok()?.strip_prefix("PATH="));
                LaunchError::NotFound(program, path.unwrap_or_default().to_owned())
            }
        }
    }

    /// Becomes the program. Returns only when that failed, and then the process is good for nothing but ending.
    pub fn run(&self) -> LaunchError {
        match self.become_confined() {
            Ok(()) => self.execute(),
            Err(error) => error,
        }
    }

    fn become_confined(&self) -> Result<(), LaunchError> {
        let Launch { identity, capabilities, no_new_privileges, .. } = &self.launch;
        let step = |name: &'static str| move |error| LaunchError::Step(name, error);
        // SAFETY: umask has no memory arguments and cannot fail.
        unsafe { libc::umask(0o022) };
        leave_keys(&self.launch.seccomp).map_err(step("make a session keyring"))?;
        self.launch.rlimits.iter().try_for_each(set_rlimit)?;
        give_terminal(identity.uid).map_err(step("give the terminal to the user"))?;
        become_user(identity).map_err(step("become the user"))?;
        enter_working_directory(&self.launch.cwd)?;
        if let Some(profile) = &self.launch.app_armor {
            // It holds from execve on; the newer of the two files is there where several such modules are.
            let files = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];
            let file = files.into_iter().find(|file| fs::exists(file).unwrap_or(false)).unwrap_or(files[1]);
            fs::write(file, format!("exec {profile}"))
                .map_err(|error| LaunchError::AppArmor(profile.clone(), error))?;
        }
        drop_bounding(capabilities).map_err(step("drop capabilities from the bounding set"))?;
        if !no_new_privileges {
            // While SYS_ADMIN is still there: afterwards the kernel wants no_new_privs.
            self.install_filter().map_err(step("install the system-call filter"))?;
        }
        keep_only(capabilities).map_err(step("drop capabilities"))?;
        if *no_new_privileges {
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(step("set no_new_privs"))?;
            self.install_filter().map_err(step("install the system-call filter"))?;
        }
        let (first, last, flags) = (3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: close_range has no memory arguments; descriptors are only marked.
        check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map_err(step("mark open files"))?;
        Ok(())
    }

    fn install_filter(&self) -> io::Result<()> {
        self.filter.as_deref().map_or(Ok(()), seccomp::install)
    }

    fn execute(&self) -> LaunchError {
        let pointers =
            |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
        let (args, env) = (pointers(&self.args), pointers(&self.env));
        let mut error = None;
        for candidate in &self.candidates {
            // SAFETY: all three are NUL-terminated strings or null-terminated arrays of such, alive until the call ends.
            unsafe { libc::execve(candidate.as_ptr(), args.as_ptr(), env.as_ptr()) };
            let found = io::Error::last_os_error();
            if !is_absence(&found) {
                let is_final = found.raw_os_error() != Some(libc::EACCES);
                error = Some(found);
                if is_final {
                    break;
                }
            }
        }
        self.not_started(error)
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

pub(crate) fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers, not pointers.
    check(unsafe { libc::prctl(option, value, zero, zero, zero) })?;
    Ok(())
}

/// Leaves the session keyring that came down from the machine for an empty one: whoever finds a key in its session's keyring
/// possesses it. Still root here, because other users may have few keys only. (What the kernel keeps by user number alone,
/// the user's own keyring and how many keys it has, containers with one number and no user namespace share.)
fn leave_keys(seccomp: &Seccomp) -> io::Result<()> {
    // `KEYCTL_JOIN_SESSION_KEYRING`: an anonymous one.
    let (join, anonymous): (libc::c_long, libc::c_long) = (1, 0);
    // SAFETY: of this operation the kernel reads a name only where the pointer is not null.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, join, anonymous) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        // Others have taken all keys of root: no reason to refuse one whose filter lets it use no key at all.
        Err(error) if error.raw_os_error() == Some(libc::EDQUOT) && *seccomp == Seccomp::Default => Ok(()),
        joined => joined.map(drop),
    }
}

/// The number of a limit named as in `setrlimit(2)`.
pub(crate) fn rlimit_number(name: &str) -> Option<libc::__rlimit_resource_t> {
    Some(match name {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    })
}

fn set_rlimit(limit: &Rlimit) -> Result<(), LaunchError> {
    let unknown = || io::Error::from(io::ErrorKind::InvalidInput);
    let set = || {
        let number = rlimit_number(&limit.name).ok_or_else(unknown)?;
        let value = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
        // SAFETY: the structure lives until the call returns.
        check(unsafe { libc::setrlimit(number, &raw const value) })
    };
    set().map(drop).map_err(|error| LaunchError::Limit(limit.name.clone(), error))
}

/// The terminal was made by root; its user must be able to open it by name.
fn give_terminal(uid: u32) -> io::Result<()> {
    // SAFETY: neither call has memory arguments.
    unsafe {
        if libc::isatty(0) == 1 {
            check(libc::fchown(0, uid, u32::MAX))?;
        }
    }
    Ok(())
}

/// Takes on the user's numbers and keeps all capabilities for the steps to come.
fn become_user(identity: &Identity) -> io::Result<()> {
    let Identity { uid, gid, groups, .. } = identity;
    prctl(libc::PR_SET_KEEPCAPS, 1)?;
    // SAFETY: setgroups reads as many numbers as it is told; the raw calls change this one thread, the only one.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid))?;
        check(libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid))?;
    }
    prctl(libc::PR_SET_KEEPCAPS, 0)?;
    let permitted = read_permitted()?;
    set_capabilities(permitted, permitted)
}

/// Makes the working directory if need be, enters it, and makes sure that it is inside: a link through /proc to a
/// directory that happens to be open here would lead outside (CVE-2024-21626).
fn enter_working_directory(cwd: &str) -> Result<(), LaunchError> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    let failed = |error| LaunchError::WorkingDirectory(cwd.to_owned(), error);
    match std::env::set_current_dir(cwd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(cwd).map_err(failed)?;
            std::env::set_current_dir(cwd).map_err(failed)?;
        }
        entered => entered.map_err(failed)?,
    }
    let inside = std::env::current_dir().is_ok_and(|path| path.is_absolute());
    if inside { Ok(()) } else { Err(LaunchError::WorkingDirectoryOutside(cwd.to_owned())) }
}

fn drop_bounding(keep: &Capabilities) -> io::Result<()> {
    for capability in Capability::ALL.iter().filter(|capability| !keep.contains(**capability)) {
        match prctl(libc::PR_CAPBSET_DROP, *capability as libc::c_ulong) {
            // Newer than this kernel.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Leaves exactly these as permitted and effective, none inheritable, none ambient (CVE-2022-29162).
fn keep_only(keep: &Capabilities) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)?;
    let kept = keep.mask() & read_permitted()?;
    set_capabilities(kept, kept)
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

pub(crate) fn read_permitted() -> io::Result<u64> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut words = [CapabilityWords::default(); 2];
    // SAFETY: version 3 has a header and two records of three words, which is what these are.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) })?;
    Ok(u64::from(words[0].permitted) | u64::from(words[1].permitted) << 32)
}

fn set_capabilities(permitted: u64, effective: u64) -> io::Result<()> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let low = |mask: u64| u32::try_from(mask & 0xffff_ffff).expect("masked to 32 bits");
    let words = [
        CapabilityWords { effective: low(effective), permitted: low(permitted), inheritable: 0 },
        CapabilityWords { effective: low(effective >> 32), permitted: low(permitted >> 32), inheritable: 0 },
    ];
    // SAFETY: version 3 has a header and two records of three words, which is what these are.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(args: &[&str], env: &[(&str, &str)]) -> Launch {
        Launch {
            args: args.iter().map(|s| (*s).to_owned()).collect(),
            env: env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            cwd: String::new(),
            identity: Identity { home: "/root".to_owned(), ..Identity::default() },
            capabilities: Capabilities::default(),
            seccomp: Seccomp::Unconfined,
            no_new_privileges: false,
            app_armor: None,
            rlimits: Vec::new(),
            oom_score_adj: 0,
        }
    }

    #[test]
    fn path_and_home_are_added_and_the_later_of_two_names_counts() {
        let full = launch(&["x"], &[("A", "1"), ("HOME", "/h"), ("A", "2")]).full_env();
        let text: Vec<String> = full.into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(text, [format!("PATH={PATH_DEFAULT}"), "A=2".to_owned(), "HOME=/h".to_owned()]);
    }

    #[test]
    fn a_program_is_looked_for_in_the_containers_own_path() {
        let candidates = |args: &[&str], path: &str| -> Vec<String> {
            let prepared = launch(args, &[("PATH", path)]).prepare().expect("prepare");
            prepared.candidates.iter().map(|path| path.to_str().expect("text").to_owned()).collect()
        };
        assert_eq!(candidates(&["sh"], "/nowhere:/bin:"), ["/nowhere/sh", "/bin/sh", "./sh"]);
        assert_eq!(candidates(&["./sh"], "/bin"), ["./sh"]);
        let missing = launch(&["no-such"], &[("PATH", "/bin")]).prepare().expect("prepare").not_started(None);
        assert_eq!(missing.to_string(), "program \"no-such\" not found in PATH \"/bin\"");
    }
}
