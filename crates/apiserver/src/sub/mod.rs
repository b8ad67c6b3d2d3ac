//! Subresources that are more than a part of their object: each in the file of its name.

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod proxy;
pub(crate) mod scale;
pub(crate) mod stream;
pub(crate) mod token;
