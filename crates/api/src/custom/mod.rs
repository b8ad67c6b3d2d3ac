//! Custom kinds: a definition's schema compiled once, and the row that the server reads like a built-in one.
//!
//! Goal        a custom kind passes the same pipeline as a built-in one, by the same table and the same [`Rules`]
//! Flow        CustomResourceDefinition → [`Node`] for each version (`node`) → table (`table`) and rules (`rules`) → row (`row`)
//! Rules       each in the file named after it: `fill` defaults and nulls · `value` OpenAPI values and ratcheting ·
//!             `format` and `pattern` texts · `path` columns, selectable fields and scale · `embedded` objects in objects ·
//!             `shape` types in CEL, `rule` rules in CEL, `verdict` what they say
//! Not here    asking conversion webhooks (apiserver) · the definition as an object with rules of its own (`resources/custom_resource_definition`) ·
//!             when definitions take effect (apiserver)
//!
//! [`Rules`]: crate::resource::Rules

mod embedded;
pub(crate) mod fill;
mod format;
pub(crate) mod node;
pub(crate) mod path;
pub mod pattern;
mod row;
pub(crate) mod rule;
mod rules;
pub(crate) mod shape;
pub(crate) mod table;
pub(crate) mod value;
pub(crate) mod verdict;

pub(crate) use node::Node;
pub(crate) use row::{COLUMN_FORMATS, COLUMN_TYPES};
pub use row::{Compiled, DefinitionError};
