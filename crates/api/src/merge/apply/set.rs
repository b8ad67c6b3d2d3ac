//! Sets of fields, and their algebra: a tree in which some nodes are members.
//!
//! A path leads through field names and list items. A node that is no member has members below it: the empty set is a
//! node without either. Names are borrowed from the objects that the set was made of.
//!
//! Source: KEP-555, "managed fields"; API concepts, "Field management".

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element<'a> {
    /// A field of an object or an entry of a map.
    Field(Cow<'a, str>),
    /// The item of a list that has these keys: the text of a JSON object, keys sorted.
    Key(Cow<'a, str>),
    /// The item of a list that is this scalar: its JSON text.
    Value(Cow<'a, str>),
    /// The item at this position, where items have no name of their own.
    Index(usize),
}

impl<'a> Element<'a> {
    /// The field of this name.
    pub fn field(name: &'a str) -> Element<'a> {
        Element::Field(Cow::Borrowed(name))
    }

    /// The item with these keys.
    pub fn keyed(keys: Map<String, Value>) -> Element<'a> {
        let keys = keys.into_iter().map(|(name, value)| (name, whole(value))).collect();
        Element::Key(Cow::Owned(Value::Object(keys).to_string()))
    }

    /// The item that is this scalar.
    pub fn scalar(value: &Value) -> Element<'a> {
        Element::Value(Cow::Owned(whole(value.clone()).to_string()))
    }

    fn into_owned(self) -> Element<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        match self {
            Element::Field(name) => Element::Field(own(name)),
            Element::Key(text) => Element::Key(own(text)),
            Element::Value(text) => Element::Value(own(text)),
            Element::Index(index) => Element::Index(index),
        }
    }
}

/// `80.0` is 80: numbers that are equal have one text.
fn whole(value: Value) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match value.as_f64() {
        Some(number) if value.is_f64() && number.fract() == 0.0 && number.abs() < EXACT_MAX => {
            Value::from(number as i64)
        }
        _ => value,
    }
}

/// As conflicts show it: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
impl fmt::Display for Element<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(out, ".{name}"),
            Element::Index(index) => write!(out, "[{index}]"),
            Element::Value(text) => write!(out, "[={text}]"),
            Element::Key(text) => {
                let keys: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
                let shown: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(out, "[{}]", shown.join(","))
            }
        }
    }
}

/// A set of fields, or the part of one below some path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet<'a> {
    /// Whether the path that leads here is a member.
    pub(super) is_member: bool,
    /// What lies below; no part of it is empty.
    pub(super) below: BTreeMap<Element<'a>, FieldSet<'a>>,
}

impl<'a> FieldSet<'a> {
    /// The set whose only member is the path that leads here.
    pub fn member() -> FieldSet<'a> {
        FieldSet { is_member: true, below: BTreeMap::new() }
    }

    /// The set of these paths.
    pub fn of<const N: usize>(paths: [&[&'a str]; N]) -> FieldSet<'a> {
        let mut set = FieldSet::default();
        for path in paths {
            let mut node = &mut set;
            for name in path {
                node = node.below.entry(Element::field(name)).or_default();
            }
            node.is_member = true;
        }
        set
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }

    /// Puts a set below an element.
    pub(super) fn put(&mut self, element: Element<'a>, below: FieldSet<'a>) {
        if !below.is_empty() {
            self.below.insert(element, below);
        }
    }

    /// Adds the members of another set.
    pub fn add(&mut self, other: FieldSet<'a>) {
        self.is_member |= other.is_member;
        for (element, below) in other.below {
            self.below.entry(element).or_default().add(below);
        }
    }

    /// The members of either.
    #[must_use]
    pub fn union(mut self, other: FieldSet<'a>) -> FieldSet<'a> {
        self.add(other);
        self
    }

    /// Takes the members of another set out.
    pub fn subtract(&mut self, other: &FieldSet<'_>) {
        self.is_member &= !other.is_member;
        self.prune_below(other, FieldSet::subtract);
    }

    /// Takes the members of another set out, and all that lies below them.
    pub fn subtract_recursively(&mut self, other: &FieldSet<'_>) {
        if other.is_member {
            *self = FieldSet::default();
        } else {
            self.prune_below(other, FieldSet::subtract_recursively);
        }
    }

    fn prune_below(&mut self, other: &FieldSet<'_>, prune: impl Fn(&mut FieldSet<'a>, &FieldSet<'_>)) {
        if other.below.is_empty() {
            return;
        }
        self.below.retain(|element, below| {
            if let Some(taken) = other.below.get(element) {
                prune(below, taken);
            }
            !below.is_empty()
        });
    }

    /// The members of both.
    #[must_use]
    pub fn intersection(&self, other: &FieldSet<'_>) -> FieldSet<'a> {
        let mut both = FieldSet { is_member: self.is_member && other.is_member, below: BTreeMap::new() };
        for (element, below) in &self.below {
            if let Some(others) = other.below.get(element) {
                both.put(element.clone(), below.intersection(others));
            }
        }
        both
    }

    /// The members without members below them.
    #[must_use]
    pub fn leaves(&self) -> FieldSet<'a> {
        let below: BTreeMap<_, _> =
            self.below.iter().map(|(element, below)| (element.clone(), below.leaves())).collect();
        FieldSet { is_member: self.is_member && below.is_empty(), below }
    }

    /// Whether every member of `other` is a member.
    pub fn contains(&self, other: &FieldSet<'_>) -> bool {
        let holds = |(element, below): (&Element<'_>, &FieldSet<'_>)| {
            self.below.get(element).is_some_and(|own| own.contains(below))
        };
        (self.is_member || !other.is_member) && other.below.iter().all(holds)
    }

    /// The members as paths, in order.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(String::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, path: String, paths: &mut Vec<String>) {
        for (element, below) in &self.below {
            below.collect_paths(format!("{path}{element}"), paths);
        }
        if self.is_member {
            paths.push(path);
        }
    }

    /// The set with names of its own.
    pub fn into_owned(self) -> FieldSet<'static> {
        let below = self.below.into_iter().map(|(element, below)| (element.into_owned(), below.into_owned())).collect();
        FieldSet { is_member: self.is_member, below }
    }
}

#[cfg(test)]
mod tests {
    use super::{Element, FieldSet};
    use serde_json::json;

    fn set() -> FieldSet<'static> {
        FieldSet::of([&["spec"], &["spec", "replicas"], &["spec", "template", "labels"], &["status"]])
    }

    #[test]
    fn sets_add_and_subtract_member_by_member() {
        let spec = FieldSet::of([&["spec"]]);
        let mut without = set();
        without.subtract(&spec);
        assert_eq!(without.paths(), [".spec.replicas", ".spec.template.labels", ".status"]);
        assert_eq!(without.clone().union(spec), set());
        let mut none = set();
        none.subtract(&set());
        assert!(none.is_empty());
        without.subtract(&FieldSet::of([&["other"], &["spec", "template"]]));
        assert_eq!(without.paths().len(), 3, "what is no member is not taken");
    }

    #[test]
    fn recursive_difference_takes_what_lies_below() {
        let mut without = set();
        without.subtract_recursively(&FieldSet::of([&["spec"]]));
        assert_eq!(without.paths(), [".status"]);
    }

    #[test]
    fn intersection_leaves_and_containment() {
        let other = FieldSet::of([&["spec"], &["spec", "template"], &["status", "phase"]]);
        assert_eq!(set().intersection(&other).paths(), [".spec"]);
        assert_eq!(set().leaves().paths(), [".spec.replicas", ".spec.template.labels", ".status"]);
        assert!(set().contains(&FieldSet::of([&["spec", "replicas"]])) && !set().contains(&other));
        assert!(FieldSet::default().is_empty() && set().contains(&FieldSet::default()));
    }

    #[test]
    fn elements_print_as_conflicts_show_them() {
        let keys = json!({"protocol": "TCP", "containerPort": 80.0});
        let keys = Element::keyed(keys.as_object().cloned().unwrap_or_default());
        let shown = [Element::field("spec"), keys, Element::scalar(&json!("x")), Element::Index(0)];
        assert_eq!(
            shown.map(|element| element.to_string()),
            [".spec", "[containerPort=80,protocol=\"TCP\"]", "[=\"x\"]", "[0]"]
        );
    }
}
