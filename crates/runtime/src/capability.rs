//! What root inside a container may still do.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! capabilities {
    ($($number:literal $variant:ident $name:literal)*) => {
        /// One capability of capabilities(7).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "each is named and explained by capabilities(7)")]
        pub enum Capability { $($variant = $number),* }

        impl Capability {
            /// Every capability of this kernel interface, in the order of their numbers.
            pub const ALL: &'static [Capability] = &[$(Capability::$variant),*];

            /// Its name without `CAP_`.
            pub fn name(self) -> &'static str {
                match self { $(Capability::$variant => $name),* }
            }
        }
    };
}

capabilities! {
    0 Chown "CHOWN"                     1 DacOverride "DAC_OVERRIDE"        2 DacReadSearch "DAC_READ_SEARCH"
    3 Fowner "FOWNER"                   4 Fsetid "FSETID"                   5 Kill "KILL"
    6 Setgid "SETGID"                   7 Setuid "SETUID"                   8 Setpcap "SETPCAP"
    9 LinuxImmutable "LINUX_IMMUTABLE"  10 NetBindService "NET_BIND_SERVICE" 11 NetBroadcast "NET_BROADCAST"
    12 NetAdmin "NET_ADMIN"             13 NetRaw "NET_RAW"                 14 IpcLock "IPC_LOCK"
    15 IpcOwner "IPC_OWNER"             16 SysModule "SYS_MODULE"           17 SysRawio "SYS_RAWIO"
    18 SysChroot "SYS_CHROOT"           19 SysPtrace "SYS_PTRACE"           20 SysPacct "SYS_PACCT"
    21 SysAdmin "SYS_ADMIN"             22 SysBoot "SYS_BOOT"               23 SysNice "SYS_NICE"
    24 SysResource "SYS_RESOURCE"       25 SysTime "SYS_TIME"               26 SysTtyConfig "SYS_TTY_CONFIG"
    27 Mknod "MKNOD"                    28 Lease "LEASE"                    29 AuditWrite "AUDIT_WRITE"
    30 AuditControl "AUDIT_CONTROL"     31 Setfcap "SETFCAP"                32 MacOverride "MAC_OVERRIDE"
    33 MacAdmin "MAC_ADMIN"             34 Syslog "SYSLOG"                  35 WakeAlarm "WAKE_ALARM"
    36 BlockSuspend "BLOCK_SUSPEND"     37 AuditRead "AUDIT_READ"           38 Perfmon "PERFMON"
    39 Bpf "BPF"                        40 CheckpointRestore "CHECKPOINT_RESTORE"
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that is no capability.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a capability; expected a name of capabilities(7) such as NET_ADMIN")]
pub struct UnknownCapability(String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// With or without `CAP_`, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Capability::ALL.iter().copied().find(|c| c.name() == name).ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

/// A set of capabilities.
///
/// The default is what ordinary services need. `NET_RAW` (forging packets of neighbours) is not in it, and neither is
/// `MKNOD`: on cgroup v2 nothing else stands between a container and a device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(BTreeSet<Capability>);

impl Default for Capabilities {
    fn default() -> Self {
        use Capability::*;
        Capabilities(BTreeSet::from([
            Chown,
            DacOverride,
            Fowner,
            Fsetid,
            Kill,
            Setgid,
            Setuid,
            Setpcap,
            NetBindService,
            SysChroot,
            AuditWrite,
            Setfcap,
        ]))
    }
}

impl Capabilities {
    /// None at all.
    pub fn none() -> Capabilities {
        Capabilities(BTreeSet::new())
    }

    /// Every one.
    pub fn all() -> Capabilities {
        Capabilities(Capability::ALL.iter().copied().collect())
    }

    /// Adds one; `ALL` adds every one.
    pub fn add(&mut self, name: &str) -> Result<(), UnknownCapability> {
        if name.eq_ignore_ascii_case("ALL") {
            *self = Capabilities::all();
        } else {
            self.0.insert(name.parse()?);
        }
        Ok(())
    }

    /// Takes one away; `ALL` takes every one.
    pub fn remove(&mut self, name: &str) -> Result<(), UnknownCapability> {
        if name.eq_ignore_ascii_case("ALL") {
            self.0.clear();
        } else {
            self.0.remove(&name.parse()?);
        }
        Ok(())
    }

    /// Whether it is in the set.
    pub fn contains(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    /// The names of those in the set, as `NET_ADMIN`.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|capability| capability.name())
    }

    /// The set as the kernel writes it in `/proc/PID/status`: bit N is capability N.
    pub fn mask(&self) -> u64 {
        self.0.iter().fold(0, |mask, c| mask | 1 << (*c as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_has_exactly_the_expected_bits() {
        // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT AUDIT_WRITE SETFCAP
        assert_eq!(Capabilities::default().mask(), 0xa00405fb);
        assert!(!Capabilities::default().contains(Capability::NetRaw));
        assert!(!Capabilities::default().contains(Capability::Mknod));
    }

    #[test]
    fn names_are_read_with_or_without_prefix_and_all_means_all() {
        let mut set = Capabilities::none();
        set.add("CAP_NET_ADMIN").expect("a name");
        set.add("sys_time").expect("a name");
        assert_eq!(set.mask(), 1 << 12 | 1 << 25);
        set.add("ALL").expect("a word");
        assert_eq!(set.mask(), (1 << 41) - 1);
        set.remove("all").expect("a word");
        assert_eq!(set, Capabilities::none());
        assert!(set.add("ROOT").is_err());
    }
}
