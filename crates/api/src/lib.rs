//! The nouns of the API: what kinds exist, what their objects may hold, how they are read, checked, merged and shown.
//!
//! Goal        everything that is true of an object without looking at another object
//! Relies on   nothing outside its arguments: no clock, no store, no network
//! Not here    who may do what, and in which order a write passes (apiserver)
//!
//! This is the only crate that names `k8s-openapi`.

pub mod binding;
pub mod cel;
pub mod codec;
pub mod convert;
pub mod custom;
pub mod device;
pub mod discovery;
pub mod error;
pub mod field;
pub mod gate;
pub mod handover;
pub mod header;
pub mod kind;
pub mod merge;
pub mod name;
pub mod object;
pub mod openapi;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod resources;
pub mod scale;
pub mod schedule;
pub mod schema;
pub mod selector;
pub mod table;
pub mod types;
mod zone;

pub use error::{ApiError, Reason};
pub use header::{Header, OwnerRef};
pub use kind::{Kind, kinds};
pub use object::Object;
pub use resource::{Column, Custom, Registry, Resource, Rules, Subresource, Verbs};
/// The transient tree form of an object.
pub use serde_json::Value;
pub use zone::find_zone;
