//! Which types fit where, and what the unknown ones must be for it.
//!
//! Rules
//!   R1 dyn       fits everywhere, and everything fits it
//!   R2 null      fits objects, library values, moments, spans and optionals
//!   R3 param     an unknown type becomes what first meets it, or `dyn` if that meets it later
//!   R4 undo      what does not fit leaves nothing behind
//!
//! Source: CEL language definition, "Gradual type checking".

use std::sync::Arc;

use super::types::Type;

/// The unknown types of one check and what has been found of them.
#[derive(Debug, Default)]
pub(super) struct Unifier {
    bound: Vec<Option<Type>>,
    /// What was bound, with what was there before.
    trail: Vec<(usize, Option<Type>)>,
}

impl Unifier {
    /// A type yet unknown.
    pub fn fresh(&mut self) -> Type {
        self.fresh_block(1);
        Type::Param(self.bound.len() as u32 - 1)
    }

    /// So many unknown types; gives the number of the first.
    pub fn fresh_block(&mut self, count: u32) -> u32 {
        let first = self.bound.len() as u32;
        self.bound.resize(self.bound.len() + count as usize, None);
        first
    }

    /// The type as far as it is known at its top.
    pub fn resolve(&self, of: &Type) -> Type {
        let mut of = of;
        while let Type::Param(at) = of {
            match &self.bound[*at as usize] {
                Some(bound) => of = bound,
                None => break,
            }
        }
        of.clone()
    }

    /// The type with all that is known put in; `dyn` for what is not, if `closed`.
    pub fn substitute(&self, of: &Type, closed: bool) -> Type {
        let inner = |of: &Arc<Type>| Arc::new(self.substitute(of, closed));
        match self.resolve(of) {
            Type::Param(_) if closed => Type::Dyn,
            Type::List(item) => Type::List(inner(&item)),
            Type::Map(key, value) => Type::Map(inner(&key), inner(&value)),
            Type::Optional(of) => Type::Optional(inner(&of)),
            Type::Type(of) => Type::Type(inner(&of)),
            other => other,
        }
    }

    /// Whether each value of the first types may stand where the second are asked for.
    pub fn all_fit(&mut self, pairs: &[(&Type, &Type)]) -> bool {
        let mark = self.trail.len();
        let fit = pairs.iter().all(|(from, to)| self.fit(from, to));
        if !fit {
            self.undo(mark);
        }
        fit
    }

    /// Whether a value of `from` may stand where `to` is asked for.
    pub fn fits(&mut self, from: &Type, to: &Type) -> bool {
        self.all_fit(&[(from, to)])
    }

    fn undo(&mut self, mark: usize) {
        for (at, before) in self.trail.drain(mark..).rev() {
            self.bound[at] = before;
        }
    }

    fn bind(&mut self, at: u32, to: Type) {
        let slot = &mut self.bound[at as usize];
        self.trail.push((at as usize, slot.replace(to)));
    }

    fn fit(&mut self, from: &Type, to: &Type) -> bool {
        match (from, to) {
            (Type::Param(a), Type::Param(b)) if a == b => true,
            (from, Type::Param(at)) => self.fit_param(*at, from, |unifier, from, to| unifier.fit(from, to)),
            (Type::Param(at), to) => self.fit_param(*at, to, |unifier, to, from| unifier.fit(from, to)),
            (from, to) if from.is_dyn() || to.is_dyn() => true,
            (Type::Null, Type::Null) => true,
            (Type::Null, to) | (to, Type::Null) => is_nullable(to),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.fit(a, b),
            (Type::Map(a, b), Type::Map(c, d)) => self.fit(a, c) && self.fit(b, d),
            (Type::Type(_), Type::Type(_)) => true,
            (from, to) => from == to,
        }
    }

    fn fit_param(&mut self, at: u32, other: &Type, fit: fn(&mut Unifier, &Type, &Type) -> bool) -> bool {
        match self.bound[at as usize].clone() {
            Some(bound) => {
                if !fit(self, other, &bound) {
                    return false;
                }
                if self.is_wider(other, &bound) {
                    self.bind(at, other.clone());
                }
                true
            }
            None if matches!(self.resolve(other), Type::Param(same) if same == at) => true,
            None if self.contains(other, at) => false,
            None => {
                self.bind(at, other.clone());
                true
            }
        }
    }

    /// Whether `dyn` stands in the first where the second knows more.
    fn is_wider(&self, a: &Type, b: &Type) -> bool {
        match (self.resolve(a), self.resolve(b)) {
            (Type::Dyn, b) => !b.is_dyn(),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.is_wider(&a, &b),
            (Type::Map(a, b), Type::Map(c, d)) => self.is_wider(&a, &c) || self.is_wider(&b, &d),
            (a, Type::Null) => is_nullable(&a),
            _ => false,
        }
    }

    fn contains(&self, of: &Type, at: u32) -> bool {
        match self.resolve(of) {
            Type::Param(found) => found == at,
            Type::List(of) | Type::Optional(of) | Type::Type(of) => self.contains(&of, at),
            Type::Map(key, value) => self.contains(&key, at) || self.contains(&value, at),
            _ => false,
        }
    }
}

fn is_nullable(of: &Type) -> bool {
    matches!(of, Type::Object(_) | Type::Opaque(_) | Type::Timestamp | Type::Duration | Type::Optional(_) | Type::Null)
}
