//! `size`, and maps put together entry by entry.

use std::collections::BTreeMap;

use super::super::cost::Charge::One;
use super::super::value::{Key, Value};
use super::args::Args;
use super::{Row, failed, show};

/// Entries of a map that an expression may build.
const ENTRIES_MAX: usize = 1_000_000;

pub(super) const ROWS: &[Row] = &[
    Row("size(string|bytes|list(A)|map(A, B)) -> int", One, |_, args| Ok(Value::Int(args.value(0)?.size() as i64))),
    Row("<string|bytes|list(A)|map(A, B)>.size() -> int", One, |_, args| Ok(Value::Int(args.value(0)?.size() as i64))),
];

/// Adds entries in place.
///
/// Errors: a key that is there already, or that cannot be one.
pub(in super::super) fn add<'a>(
    built: &mut BTreeMap<Key<'a>, Value<'a>>,
    entries: impl IntoIterator<Item = (Value<'a>, Value<'a>)>,
) -> Result<(), super::super::EvalError> {
    for (key, value) in entries {
        let Some(own) = Key::of(&key) else { return failed(format!("unsupported key type: {}", key.of())) };
        if built.insert(own, value).is_some() {
            return failed(format!("insert failed: key {} already exists", show::show(&key)));
        }
        if built.len() > ENTRIES_MAX {
            return failed(format!("map exceeds {ENTRIES_MAX} entries"));
        }
    }
    Ok(())
}
