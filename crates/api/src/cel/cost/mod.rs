//! What evaluations cost: charged while they run (`charge`), and estimated before, from how large data may be
//! (`estimate`). Both read the same table column, so that they cannot disagree about a function.
//!
//! Source: the reference implementation's cost model and the Kubernetes libraries' (facts: which function costs what).

mod charge;
mod estimate;

pub(super) use charge::charge;
pub use estimate::CostEstimate;
pub(super) use estimate::estimate;

/// A variable, or the selection of a field.
pub(super) const NAME_COST: u64 = 1;
/// A list literal, beside its items.
pub(super) const LIST_COST: u64 = 10;
/// A map literal, beside its entries.
pub(super) const MAP_COST: u64 = 30;
/// An object literal, beside its fields.
pub(super) const OBJECT_COST: u64 = 40;
/// Units for each character walked over, as a fraction: `SCAN.0 / SCAN.1`.
const SCAN: (u64, u64) = (1, 10);
/// Units for each character of a pattern.
const PATTERN: (u64, u64) = (1, 4);

/// What a function costs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Charge {
    /// One unit.
    One,
    /// So many units.
    Fixed(u64),
    /// So many walks over an argument; and how large the result is.
    Scan(usize, u64, Grow),
    /// So many walks over the result.
    Result(u64),
    /// A walk over every part of the first argument.
    Walk,
    /// A walk over the shorter of two.
    Compare,
    /// A walk over both.
    Concat,
    /// One unit; the result is as large as both.
    ConcatList,
    /// A unit for each item of the second argument.
    InList,
    /// The text's characters times the pattern's.
    Pattern,
    /// The text's characters times those looked for.
    Contains,
    /// The one list's items times the other's.
    Product,
}

/// How large a result is, given the first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grow {
    /// Not known.
    Unknown,
    /// As large.
    Same,
    /// At most as large.
    Shrink,
    /// At most twice as large, and two.
    Twice,
    /// Up to four bytes a character.
    Bytes,
    /// As many parts as there are characters, each at most as large.
    Split,
    /// Every character replaced by the third argument.
    Replace,
}

/// `size` times a fraction, rounded up.
fn part(size: u64, (of, by): (u64, u64)) -> u64 {
    if size == u64::MAX { size } else { size.saturating_mul(of).div_ceil(by) }
}
