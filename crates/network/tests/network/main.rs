//! The network crate against the real kernel: every test in a network namespace of its own, so that nothing of the
//! machine is touched. Needs root and, for tampering and reading back, the `ip` and `nft` programs.
#![allow(unsafe_code, reason = "a test leaves the machine's network namespace, which has no safe call")]

mod attaching;
mod naming;
mod policing;
mod serving;
mod stage;
