//! Builds a bounded tree from any serde format, and finds keys written twice.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DecodeError, Limits};

/// Memory of a B-tree's first node, which holds up to eleven entries.
pub(super) const OBJECT_BYTES: usize = 640;
/// Memory of an object's entry beyond that, as nodes are half full at worst.
pub(super) const ENTRY_BYTES: usize = 120;
/// Memory of a list's item: a value, and the room a growing list keeps.
pub(super) const ITEM_BYTES: usize = 2 * size_of::<Value>();
/// Paths of duplicates kept: enough to mend a body.
const DUPLICATES_MAX: usize = 64;

/// Counts what a tree takes.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<usize>,
    limits: Limits,
    spent: Cell<bool>,
    deep: Cell<bool>,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Budget {
        let left = Cell::new(limits.tree_bytes_max);
        Budget { left, limits, spent: Cell::new(false), deep: Cell::new(false) }
    }

    /// Takes so many bytes, or says that there are none left.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), DecodeError> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => self.left.set(left),
            None => {
                self.spent.set(true);
                return Err(DecodeError::TooComplex { max: self.limits.tree_bytes_max });
            }
        }
        Ok(())
    }

    pub(super) fn check_depth(&self, depth: usize) -> Result<(), DecodeError> {
        if depth > self.limits.depth_max {
            self.deep.set(true);
            return Err(DecodeError::TooDeep { max: self.limits.depth_max });
        }
        Ok(())
    }

    /// The bound that was hit, if one was: what a format's own error cannot carry.
    pub(super) fn hit(&self) -> Option<DecodeError> {
        if self.deep.get() {
            Some(DecodeError::TooDeep { max: self.limits.depth_max })
        } else if self.spent.get() {
            Some(DecodeError::TooComplex { max: self.limits.tree_bytes_max })
        } else {
            None
        }
    }
}

/// What a pass over a body finds out besides the tree.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) budget: Budget,
    /// Whether any key was written twice.
    pub(super) twice: Cell<bool>,
    /// Where we are, when paths are wanted: a second pass, only for bodies with duplicates.
    path: Option<RefCell<String>>,
    pub(super) duplicates: RefCell<Vec<String>>,
}

impl Pass {
    pub(super) fn new(limits: Limits, with_paths: bool) -> Pass {
        Pass {
            budget: Budget::new(limits),
            twice: Cell::new(false),
            path: with_paths.then(RefCell::default),
            duplicates: RefCell::default(),
        }
    }

    /// Adds a step to the path; gives its former length.
    fn enter(&self, step: impl fmt::Display, is_index: bool) -> usize {
        use fmt::Write;
        let Some(path) = &self.path else { return 0 };
        let mut path = path.borrow_mut();
        let before = path.len();
        let result = match (is_index, before) {
            (true, _) => write!(path, "[{step}]"),
            (false, 0) => write!(path, "{step}"),
            (false, _) => write!(path, ".{step}"),
        };
        result.expect("writing to a String does not fail");
        before
    }

    fn leave(&self, before: usize) {
        if let Some(path) = &self.path {
            path.borrow_mut().truncate(before);
        }
    }

    fn note_duplicate(&self) {
        self.twice.set(true);
        let mut duplicates = self.duplicates.borrow_mut();
        if let Some(path) = &self.path
            && duplicates.len() < DUPLICATES_MAX
            && !duplicates.contains(&path.borrow())
        {
            duplicates.push(path.borrow().clone());
        }
    }
}

/// Reads one value at some depth.
#[derive(Clone, Copy)]
pub(super) struct Seed<'p> {
    pub(super) pass: &'p Pass,
    pub(super) depth: usize,
}

impl Seed<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        self.pass.budget.check_depth(depth).map_err(E::custom)?;
        Ok(Seed { pass: self.pass, depth })
    }

    fn charge<E: Error>(self, bytes: usize) -> Result<(), E> {
        self.pass.budget.charge(bytes).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a value of JSON's types")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("expected a finite number"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.charge(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        self.charge(value.len())?;
        Ok(Value::String(value))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        loop {
            let before = self.pass.enter(list.len(), true);
            let Some(item) = items.next_element_seed(inner)? else {
                self.pass.leave(before);
                return Ok(Value::Array(list));
            };
            self.pass.leave(before);
            self.charge(ITEM_BYTES)?;
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.charge(key.len() + if map.is_empty() { OBJECT_BYTES } else { ENTRY_BYTES })?;
            let before = self.pass.enter(&key, false);
            if map.contains_key(&key) {
                self.pass.note_duplicate();
            }
            let value = entries.next_value_seed(inner)?;
            self.pass.leave(before);
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
