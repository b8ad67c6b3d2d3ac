//! The filter on system calls that a container's processes carry, compiled from the profile for their capabilities.
//!
//! Guarantees  init and exec'd processes of a container carry the same filter
//! Relies on   seccompiler for the allow-list; a few instructions of our own in front of it, because one filter of
//!             seccompiler knows one error number and we need two

mod call;
mod oci;
mod profile;
mod written;

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use crate::capability::{Capabilities, Capability};
use crate::kernel;

pub(crate) use oci::to_oci;
pub use written::{SeccompProfile, SeccompProfileError};

const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const RETURN: u16 = 0x06;
const RETURN_ERRNO: u32 = 0x0005_0000;

/// Compiles the default profile, as it is for these capabilities.
pub(crate) fn compile(capabilities: &Capabilities) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let always = [profile::ALWAYS, profile::ALWAYS_HERE, profile::ALWAYS_YOUNG];
    let granted = profile::BY_CAPABILITY.iter().filter(|(capability, _)| capabilities.contains(*capability));
    let raw_io = capabilities.contains(Capability::SysRawio).then_some(profile::RAW_IO);
    for number in always.into_iter().chain(granted.map(|(_, calls)| *calls)).chain(raw_io).flatten() {
        rules.insert(*number, Vec::new());
    }
    let personalities = profile::PERSONALITIES.iter().map(|value| rule(0, SeccompCmpOp::Eq, *value));
    rules.insert(libc::SYS_personality, personalities.collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_socket, vec![rule(0, SeccompCmpOp::Ne, profile::FAMILY_REFUSED)?]);
    let makes_namespaces = capabilities.contains(Capability::SysAdmin);
    if !makes_namespaces {
        let none = rule(0, SeccompCmpOp::MaskedEq(profile::CLONE_NAMESPACES), 0)?;
        rules.insert(libc::SYS_clone, vec![none]);
    }
    let arch = std::env::consts::ARCH.try_into()?;
    let eperm = u32::try_from(libc::EPERM).expect("error numbers are positive");
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(eperm), SeccompAction::Allow, arch)?;
    let body: BpfProgram = filter.try_into()?;
    Ok(prologue(!makes_namespaces).into_iter().chain(body).collect())
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])
}

/// Calls that shall look as if the kernel did not have them: those newer than the profile, and `clone3`, whose flags a
/// filter cannot see; C libraries then use `clone`, whose flags it can.
fn prologue(hide_clone3: bool) -> Vec<sock_filter> {
    let enosys = RETURN_ERRNO | u32::try_from(libc::ENOSYS).expect("error numbers are positive");
    let clone3 = u32::try_from(libc::SYS_clone3).expect("call numbers are small");
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut program = vec![step(LOAD_WORD, 0, 0, 0)];
    if hide_clone3 {
        program.extend([step(JUMP_EQUAL, 0, 1, clone3), step(RETURN, 0, 0, enosys)]);
    }
    program.extend([step(JUMP_GREATER, 0, 1, profile::NEWEST), step(RETURN, 0, 0, enosys)]);
    program
}

/// Puts the filter on this process for good.
///
/// Unlike seccompiler's own function this leaves `no_new_privs` alone: a container may be allowed set-uid programs. The
/// caller must then still have `SYS_ADMIN`.
pub(crate) fn install(program: &[sock_filter]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        steps: *const sock_filter,
    }
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let argument = Program { length, steps: program.as_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: `argument` has the layout of sock_fprog and points at `length` instructions; the kernel copies them.
    kernel::check(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const argument) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_fits_a_filter_with_and_without_all_capabilities() {
        for capabilities in [Capabilities::none(), Capabilities::default(), Capabilities::all()] {
            let program = compile(&capabilities).expect("the profile compiles");
            assert!(program.len() < 4096, "{} instructions, the kernel takes 4096", program.len());
        }
    }
}
