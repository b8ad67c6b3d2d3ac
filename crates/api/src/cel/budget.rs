//! What an evaluation may cost, and how it ends without an answer.
//!
//! One unit is about one step of the reference implementation; its cost model is ours. Work that the reference does not
//! charge for but that a hostile expression could multiply (comparing lists of lists, joining long lists) is charged at
//! a tenth of a unit an item, so that no evaluation outlasts its budget.

/// Units one evaluation of a rule may cost.
pub const CALL_COST_MAX: u64 = 1_000_000;
/// Units all rules of one object may cost together.
pub const OBJECT_COST_MAX: u64 = 10_000_000;
/// Units all match conditions of a policy or webhook may cost together.
pub const MATCH_CONDITIONS_COST_MAX: u64 = 2_500_000;

/// Items worked on that cost one unit.
const ITEMS_PER_UNIT: u64 = 10;

/// Why an evaluation gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// This evaluation cost more than one may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CallCost,
    /// The evaluations of this budget cost more than they may together.
    #[error("operation cancelled: cost budget exhausted")]
    BudgetCost,
    /// The expression failed on this data.
    #[error("{0}")]
    Failed(String),
}

impl EvalError {
    /// Whether it was stopped for its cost.
    pub fn is_cost(&self) -> bool {
        !matches!(self, EvalError::Failed(_))
    }
}

/// What is left to spend.
#[derive(Debug)]
pub struct Budget {
    left: u64,
    call_left: u64,
    call_max: u64,
    items: u64,
    exhausted: bool,
}

impl Budget {
    /// So many units for all evaluations together, each within `CALL_COST_MAX`.
    pub fn new(units: u64) -> Budget {
        Budget { left: units, call_left: CALL_COST_MAX, call_max: CALL_COST_MAX, items: 0, exhausted: false }
    }

    /// With another limit for each evaluation.
    pub fn per_call(mut self, units: u64) -> Budget {
        self.call_max = units;
        self
    }

    /// Units left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Begins an evaluation; gives what `end` takes. Evaluations nest: a policy's variables are evaluated when used.
    pub(super) fn begin(&mut self) -> u64 {
        std::mem::replace(&mut self.call_left, self.call_max)
    }

    pub(super) fn end(&mut self, outer: u64) {
        self.call_left = outer;
    }

    /// Spends units.
    ///
    /// Errors: when they are more than is left; from then on nothing can be spent.
    pub fn charge(&mut self, units: u64) -> Result<(), EvalError> {
        if self.exhausted || units > self.left {
            self.left = 0;
            self.exhausted = true;
            return Err(EvalError::BudgetCost);
        }
        self.left -= units;
        if units > self.call_left {
            self.call_left = 0;
            return Err(EvalError::CallCost);
        }
        self.call_left -= units;
        Ok(())
    }

    /// Spends a unit for every ten items worked on.
    pub(super) fn work(&mut self, items: u64) -> Result<(), EvalError> {
        self.items = self.items.saturating_add(items);
        let units = self.items / ITEMS_PER_UNIT;
        self.items %= ITEMS_PER_UNIT;
        if units == 0 { Ok(()) } else { self.charge(units) }
    }
}
