//! `size`, and maps put together entry by entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::cost::Charge::One;
use super::super::value::{Key, Map, Value};
use super::args::Args;
use super::{Answer, Row, failed, show};

/// Entries of a map that an expression may build.
const ENTRIES_MAX: usize = 1_000_000;

pub(super) const ROWS: &[Row] = &[
    Row("size(string|bytes|list(A)|map(A, B)) -> int", One, |_, args| Ok(Value::Int(args.value(0)?.size() as i64))),
    Row("<string|bytes|list(A)|map(A, B)>.size() -> int", One, |_, args| Ok(Value::Int(args.value(0)?.size() as i64))),
];

/// The map with these entries.
///
/// Errors: a key that is there already, or that cannot be one.
pub(in super::super) fn insert<'a>(
    map: &Map<'a>,
    entries: impl IntoIterator<Item = (Value<'a>, Value<'a>)>,
) -> Answer<'a> {
    let mut built = match map {
        Map::Built(built) => (**built).clone(),
        Map::Json(..) => from_entries(map.entries())?,
    };
    add(&mut built, entries)?;
    Ok(Value::Map(Map::Built(Arc::new(built))))
}

/// Adds entries in place.
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

fn from_entries<'a>(
    entries: Vec<(Value<'a>, Value<'a>)>,
) -> Result<BTreeMap<Key<'a>, Value<'a>>, super::super::EvalError> {
    let mut built = BTreeMap::new();
    add(&mut built, entries)?;
    Ok(built)
}
