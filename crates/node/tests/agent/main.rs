//! The agent on the real kernel, against the real API server in this process: what a pod says becomes true.
//! Needs root, overlayfs, cgroups, nftables, `ip`, and a static busybox (Debian:
//! busybox-static), runc and crun; containerd, or what is run by it is left out, and says so.

mod attack;
mod certificate;
mod containerd;
mod cpus;
mod device;
mod dra;
mod files;
mod foreign;
mod forms;
mod image;
mod life;
mod log;
mod pressure;
mod probe;
mod refusal;
mod restart;
mod runtime;
mod security;
mod stage;
mod static_pod;
mod stuck;
mod volume;
