//! Simulated clusters: fixed seeds hold every rule, one seed is one history, and each rule is broken by what should break it.

mod repeat;
mod sabotage;
mod seeds;

use windlass_sim::{Outcome, Violation};

/// The violations as text, for a failed test.
fn story(outcome: &Outcome) -> String {
    let tell = |violation: &Violation| {
        let events: String = violation.excerpt.iter().map(|event| format!("    {event}\n")).collect();
        let at = violation.at.as_secs_f64();
        format!("seed {}, {at:.6} s: {} is broken: {}\n{events}", outcome.seed, violation.invariant, violation.what)
    };
    outcome.violations.iter().map(tell).collect()
}

/// Whether this rule was broken.
fn broke(outcome: &Outcome, invariant: &str) -> bool {
    outcome.violations.iter().any(|violation| violation.invariant == invariant)
}
