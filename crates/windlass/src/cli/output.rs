//! How answers look: aligned columns, JSON, YAML, paths into objects, colours, and what a terminal may be sent.

pub mod align;
pub mod custom;
pub mod escape;
pub mod form;
pub mod json;
pub mod jsonpath;
pub mod object;
pub mod paint;
pub mod table;

pub use windlass_api::codec::print as yaml;
