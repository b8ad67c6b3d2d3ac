//! Containers on the real kernel: needs root, overlayfs, cgroups, and a static busybox (Debian: busybox-static).

mod attack;
mod bench;
mod exec;
mod isolation;
mod life;
mod limits;
mod mounts;
mod output;
mod seccomp;
mod shim;
mod user_namespace;
