//! The rules that must hold whatever happens, one file each. Each header names where the rule comes from.

pub mod acked;
pub mod converge;
pub mod journal;
pub mod lawful;
pub mod owner;
pub mod service;
pub mod single;
pub mod watch;
