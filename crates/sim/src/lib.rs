//! The deterministic world: a whole cluster in one thread, replayed from one seed.
//!
//! Goal        whatever can happen to a cluster happens here, and the same again for the same seed
//! Relies on   every part takes clock, randomness, disk, link and machine as values (DESIGN.md, "from day one")
//! Not here    real kernels, sockets and disks (the e2e suite has those); several servers (one voter so far)
//!
//! What is real: the store, the API server, the controllers, the scheduler, the node agents. What is simulated: the
//! server's disk, the links to the API, the machines under the agents, and time, which passes only when nothing is left
//! to do.
//!
//! # Flow
//! [`run`] makes a cluster, lets users work on it while faults happen, calms everything down, and asks the invariants.
//!
//! # Guarantees
//! - One thread, one seed: the same [`Setup`] gives the same history, told by [`Outcome::hash`].
//! - A violation names seed, time and the rule's source, and comes with the history before it.

mod cluster;
mod faults;
mod history;
mod invariant;
mod life;
mod link;
mod machine;
mod node;
mod server;
mod setup;
mod user;

pub use cluster::{Outcome, run};
pub use history::{Event, Violation};
pub use setup::{Sabotage, Setup};
