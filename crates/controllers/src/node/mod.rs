//! Nodes: their addresses for pods, whether they are well, and what becomes of their pods when they are not.

pub(crate) mod address;
pub(crate) mod eviction;
mod facts;
pub(crate) mod health;
