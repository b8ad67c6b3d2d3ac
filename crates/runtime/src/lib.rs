//! Containers on one machine: images, rootfs, namespaces, cgroups, and the shim that watches over each pod.
//!
//! Goal        a container runs as its [`ContainerSpec`] says, outlives the agent that asked for it, and leaves nothing behind
//! Relies on   Linux ≥ 5.12 with overlayfs, cgroup v1 or v2, root
//! Not here    Kubernetes: this crate has never heard of a pod, a probe or a kubelet
//!
//! Two halves meet at a unix socket. The *agent* half ([`Runtime`], [`Sandbox`], [`Process`]) is async and may come and
//! go. The *shim* half ([`shim_main`]) is this same binary started again, one single-threaded process for each sandbox:
//! it alone forks, so nothing is ever forked from a threaded program.

#![allow(
    unsafe_code,
    reason = "this crate talks to the kernel: namespaces, mounts, pidfds, seccomp, file descriptors over sockets"
)]

mod capability;
mod cgroup;
mod checkpoint;
mod cpu_set;
mod error;
mod groups;
pub mod image;
mod kernel;
mod launch;
mod layout;
mod link;
mod mount_table;
mod pressure;
mod process;
mod protocol;
mod remove;
mod runtime;
mod sandbox;
mod seccomp;
mod shim;
mod spec;
mod state;

pub use capability::{Capabilities, Capability, UnknownCapability};
pub use checkpoint::CheckpointSpec;
pub use cpu_set::{CPUS_MAX, CpuSet, CpuSetError};
pub use error::RuntimeError;
pub use groups::Groups;
pub use kernel::{mounts_below, signal_held};
pub use mount_table::{MountPoint, mounted_on, share};
pub use pressure::{Pressure, Stall, Stalls};
pub use process::{Attachment, Process, ProcessExit, Resizer, Stream};
pub use remove::remove_tree;
pub use runtime::{Runtime, RuntimeConfig};
pub use sandbox::{Events, Sandbox};
pub use seccomp::{SeccompProfile, SeccompProfileError};
pub use shim::{MASKED_PATHS, READ_ONLY_PATHS, open_beneath, shim_main};
pub use spec::{
    Bind, ContainerSpec, Device, ExecSpec, Hook, HookPoint, ImageGroups, IpcMode, LogSpec, Mount, NetworkMode, PidMode,
    Propagation, Resources, Rlimit, SandboxSpec, Seccomp, TerminalSize,
};
pub use state::{ContainerEvent, ContainerState, ContainerStatus, Exit, ExitReason, SandboxUsage, Usage};
