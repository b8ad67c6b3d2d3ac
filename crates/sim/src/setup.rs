//! What a run is made of.

use std::time::Duration;

use crate::history::Event;

/// Between two faults in a hurry.
const HASTE: Duration = Duration::from_millis(1_000);

/// How a run is set up. `Setup::new(seed)` has the usual values.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Everything follows from it.
    pub seed: u64,
    /// How many machines there are.
    pub nodes: usize,
    /// How many users work at a time.
    pub users: usize,
    /// How long it is from one fault to the next, at most.
    pub pause_max: Duration,
    /// How long faults happen.
    pub storm: Duration,
    /// How long the cluster may take to become what was declared, once the faults are over.
    pub calm_max: Duration,
    /// Whether faults happen at all.
    pub faults: bool,
    /// Whether controllers and scheduler reach the API over a link that loses messages.
    pub remote_parts: bool,
    /// What is broken on purpose, to prove that it is found.
    pub sabotage: Option<Sabotage>,
    /// Called with each event as it happens.
    pub tell: Option<fn(&Event)>,
}

/// Things done wrong on purpose: each must be found by an invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Once, the server comes back with the disk of some seconds before.
    OldDisk,
    /// Once, a write that was acknowledged is struck from the record of those who made it.
    ForgottenAck,
    /// The observer misses one event of its watch.
    MissedEvent,
    /// The observer is shown one event of its watch twice.
    RepeatedEvent,
    /// A container goes on when its machine is told to stop it.
    UndeadContainer,
    /// A machine runs a pod that another machine runs already.
    StolenPod,
    /// No scheduler runs after the faults.
    NoScheduler,
    /// No garbage collection, nor any other controller, runs after the faults.
    NoControllers,
}

impl Setup {
    /// Three machines, three users, a minute of faults. In every fifth run they follow each other fast; in every fourth
    /// the server's parts have a link of their own.
    pub fn new(seed: u64) -> Setup {
        Setup {
            seed,
            nodes: 3,
            users: 3,
            pause_max: if seed.is_multiple_of(5) { HASTE } else { Duration::from_millis(3_500) },
            storm: Duration::from_secs(60),
            calm_max: Duration::from_secs(120),
            faults: true,
            remote_parts: seed.is_multiple_of(4),
            sabotage: None,
            tell: None,
        }
    }
}
