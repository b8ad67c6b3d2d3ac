//! The filters in the words of OCI's runtime specification ("Seccomp"), for runtimes that compile them by themselves.
//!
//! Guarantees  what [`super::compile`] allows is allowed, under the same conditions, and nothing else

use serde_json::{Value, json};

use super::{call, profile};
use crate::capability::{Capabilities, Capability};
use crate::spec::Seccomp;

/// The one architecture whose calls the rules are about; calls in another one's numbering are refused by the runtime.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";

/// The filter of a container with these capabilities; nothing for one without.
pub(crate) fn to_oci(seccomp: &Seccomp, capabilities: &Capabilities) -> Option<Value> {
    let mut filter = match seccomp {
        Seccomp::Unconfined => return None,
        Seccomp::Default => default(capabilities),
        Seccomp::Profile(profile) => serde_json::to_value(profile).expect("a profile was read from JSON"),
    };
    filter["architectures"] = json!([ARCHITECTURE]);
    Some(filter)
}

fn default(capabilities: &Capabilities) -> Value {
    let makes_namespaces = capabilities.contains(Capability::SysAdmin);
    let always = [profile::ALWAYS, profile::ALWAYS_HERE, profile::ALWAYS_YOUNG];
    let granted = profile::BY_CAPABILITY.iter().filter(|(capability, _)| capabilities.contains(*capability));
    let raw_io = capabilities.contains(Capability::SysRawio).then_some(profile::RAW_IO);
    let calls = always.into_iter().chain(granted.map(|(_, calls)| *calls)).chain(raw_io).flatten();
    let is_conditional = |number: &i64| {
        [libc::SYS_personality, libc::SYS_socket].contains(number) || !makes_namespaces && *number == libc::SYS_clone
    };
    let names: Vec<&str> =
        calls.filter(|number| !is_conditional(number)).filter_map(|number| call::name(*number)).collect();
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    let mut allow_if = |name: &str, condition: Value| {
        rules.push(json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]}));
    };
    for value in profile::PERSONALITIES {
        allow_if("personality", json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"}));
    }
    allow_if("socket", json!({"index": 0, "value": profile::FAMILY_REFUSED, "op": "SCMP_CMP_NE"}));
    if !makes_namespaces {
        let none = json!({"index": 0, "value": profile::CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"});
        allow_if("clone", none);
        // As if the kernel did not have it: C libraries then use `clone`, whose flags a filter can see.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    }
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "syscalls": rules})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::SeccompProfile;

    /// All numbers that a compiled program of the written form speaks of are hard to compare; the names are not.
    #[test]
    fn the_default_profile_is_written_with_every_call_it_allows() {
        let written = to_oci(&Seccomp::Default, &Capabilities::default()).expect("a filter");
        let names = written["syscalls"][0]["names"].as_array().expect("names");
        assert!(names.len() > 250, "{}", names.len());
        for name in ["read", "execve", "futex_wake", "chroot"] {
            assert!(names.contains(&json!(name)), "{name}");
        }
        for name in ["clone", "clone3", "personality", "socket", "mount", "bpf"] {
            assert!(!names.contains(&json!(name)), "{name} is not allowed whatever its arguments are");
        }
        let wide = to_oci(&Seccomp::Default, &Capabilities::all()).expect("a filter");
        let names = wide["syscalls"][0]["names"].as_array().expect("names");
        assert!(names.contains(&json!("clone")) && names.contains(&json!("mount")));
        assert_eq!(to_oci(&Seccomp::Unconfined, &Capabilities::all()), None);
    }

    #[test]
    fn what_is_written_can_be_read_and_compiled_again() {
        let written = to_oci(&Seccomp::Default, &Capabilities::default()).expect("a filter");
        let profile = SeccompProfile::parse(written.to_string().as_bytes()).expect("a profile");
        let again = to_oci(&Seccomp::Profile(profile), &Capabilities::none()).expect("a filter");
        assert_eq!(again["architectures"], written["architectures"]);
        assert_eq!(again["syscalls"][0]["names"], written["syscalls"][0]["names"]);
        assert_eq!(again["defaultErrnoRet"], 1);
    }
}
