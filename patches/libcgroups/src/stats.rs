//! Figures of a group, which our runtime reads by itself.

/// None.
#[derive(Debug, Default, serde::Serialize)]
pub struct Stats {}
