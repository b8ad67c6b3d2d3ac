//! What the standard library should have had, and [`World`]: everything a part may want from outside itself.
//!
//! Goal        no part of the control plane reads a clock, a random number or a socket by itself
//! Relies on   nothing; this crate knows no domain words
//!
//! The same program runs on a real machine and inside the simulator because time, randomness and the
//! link to the server come in as values from here.

mod life;
mod memo;
mod scratch;
mod transport;
mod world;

pub use life::expect_life;
pub use memo::Memo;
pub use scratch::scratch;
pub use transport::{Body, BoxError, Request, Response, Transport, TransportError, body_empty, body_from, read_body};
pub use world::{Clock, World};
