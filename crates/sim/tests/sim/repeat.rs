//! One seed is one history.

use std::time::Duration;

use windlass_sim::{Outcome, Setup, run};

fn short(seed: u64) -> Outcome {
    run(&Setup { storm: Duration::from_secs(30), ..Setup::new(seed) })
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_seed_another() {
    let (first, second) = (short(101), short(102));
    assert_eq!(short(101), first);
    assert_eq!(short(102), second);
    assert_ne!(first.hash, second.hash);
}
