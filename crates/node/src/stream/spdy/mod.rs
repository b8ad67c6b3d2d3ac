//! SPDY/3.1: streams that the client opens, over any connection. The server's side for those who ask this node, the client's
//! for the runtimes that this node asks.
//!
//! Source: SPDY protocol drafts 3 and 3.1. Not here: server push, priorities, HTTP headers: nothing of ours uses them.

#[cfg(test)]
pub(super) mod client;
mod connection;
mod flow;
mod frame;
mod headers;

pub(super) use connection::{Connection, Stream};
pub(super) use flow::{Credit, Lease};
pub(super) use headers::Headers;
