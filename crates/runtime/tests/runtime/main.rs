//! Containers on the real kernel: needs root, overlayfs, cgroups, and a static busybox (Debian:
//! busybox-static). Each test runs on each way that containers are run: the embedded one, and runc (Debian: runc).

mod attack;
mod bench;
mod checkpoint;
mod exec;
mod isolation;
mod keys;
mod life;
mod limits;
mod mounts;
mod output;
mod seccomp;
mod shim;
mod user_namespace;
