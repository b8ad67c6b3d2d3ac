//! What black-box suites need: a cluster from the built binary, real clients, and waiting on conditions.
//!
//! A suite is one program: a hand-written list of tests run by [`suite::run`] against a shared cluster, each in a
//! namespace of its own. Tests that break a cluster start one for themselves with [`Cluster::start`].

#![expect(clippy::disallowed_methods, reason = "real clusters take real time")]

pub mod cluster;
pub mod suite;
pub mod trace;

pub use cluster::{Cluster, Output};
pub use suite::{Case, Test};
