//! Every rule can fail: what is broken on purpose is found, by the rule that should find it.

use std::time::Duration;

use windlass_sim::{Sabotage, Setup, run};

use crate::{broke, story};

/// Sabotages a cluster that is well otherwise.
fn check(sabotage: Sabotage, invariant: &str) {
    let calm =
        Setup { faults: false, storm: Duration::from_secs(40), calm_max: Duration::from_secs(40), ..Setup::new(7) };
    let outcome = run(&Setup { sabotage: Some(sabotage), ..calm });
    assert!(broke(&outcome, invariant), "expected {invariant} to be broken, found:\n{}", story(&outcome));
}

#[test]
fn a_cluster_without_faults_and_sabotage_breaks_nothing() {
    let outcome = run(&Setup { faults: false, storm: Duration::from_secs(40), ..Setup::new(7) });
    assert!(outcome.violations.is_empty(), "{}", story(&outcome));
}

#[test]
fn acked_finds_a_server_that_came_back_with_an_old_disk() {
    check(Sabotage::OldDisk, "acked");
}

#[test]
fn acked_finds_a_write_that_nobody_remembers() {
    check(Sabotage::ForgottenAck, "acked");
}

#[test]
fn journal_finds_a_missed_event() {
    check(Sabotage::MissedEvent, "journal");
}

#[test]
fn watch_finds_a_repeated_event() {
    check(Sabotage::RepeatedEvent, "watch");
}

#[test]
fn single_finds_a_pod_that_runs_on_two_machines() {
    check(Sabotage::StolenPod, "single");
}

#[test]
fn converge_finds_a_container_that_does_not_die() {
    check(Sabotage::UndeadContainer, "converge");
}

#[test]
fn converge_finds_a_cluster_without_scheduler() {
    check(Sabotage::NoScheduler, "converge");
}

#[test]
fn converge_finds_a_cluster_without_controllers() {
    check(Sabotage::NoControllers, "converge");
}
