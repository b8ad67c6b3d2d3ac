//! Seeds that must hold every rule.

use windlass_sim::{Setup, run};

use crate::story;

/// Runs a seed; whatever it breaks is told.
fn check(seed: u64) {
    let outcome = run(&Setup::new(seed));
    assert!(outcome.violations.is_empty(), "{}", story(&outcome));
    // A run in which nothing happened proves nothing.
    assert!(outcome.acks >= 30, "only {} writes were acknowledged", outcome.acks);
    assert!(outcome.observed.events >= 300, "only {} events were observed", outcome.observed.events);
    assert!(outcome.observed.compared >= 20, "only {} lists were compared", outcome.observed.compared);
}

#[test]
fn seed_1() {
    check(1);
}

#[test]
fn seed_2() {
    check(2);
}

#[test]
fn seed_3() {
    check(3);
}
