//! Images against real archives, a real registry and hostile ones. Needs root (owners, whiteouts, overlay mounts) and the
//! programs `docker-registry` and `skopeo`.
#![allow(unsafe_code, reason = "an overlay is mounted in a mount namespace of its own, which has no safe call")]

mod archives;
mod hostile;
mod registries;
mod stage;
mod storing;
