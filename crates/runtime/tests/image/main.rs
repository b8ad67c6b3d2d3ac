//! Images against real archives, a real registry and hostile ones. Needs root (owners, whiteouts, overlay mounts) and the
//! programs `docker-registry` and `skopeo`.
#![allow(unsafe_code, reason = "an overlay is mounted in a mount namespace of its own, which has no safe call")]

mod access;
mod archives;
mod attack;
mod fake;
mod hostile;
mod peer;
mod registries;
mod registry;
mod signature;
mod stage;
mod storing;
