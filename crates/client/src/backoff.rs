//! Waiting longer after each failure, never all together.

use std::time::Duration;

use windlass_stdx::World;

/// Doubles from `first` to `most`, each wait lengthened by the world's jitter.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off that has not failed yet.
    pub fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub fn next(&mut self, world: &World) -> Duration {
        let wait = wait_after(self.first, self.most, self.failures);
        self.failures = self.failures.saturating_add(1);
        world.jitter(wait)
    }

    /// It worked: the next wait is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The wait after `failures` earlier failures, without jitter.
fn wait_after(first: Duration, most: Duration, failures: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX)).min(most)
}

#[cfg(test)]
mod tests {
    use super::wait_after;
    use std::time::Duration;

    #[test]
    fn waits_double_up_to_the_most() {
        let wait = |failures| wait_after(Duration::from_millis(100), Duration::from_secs(5), failures).as_millis();
        assert_eq!([0, 1, 2, 5, 6, 40].map(wait), [100, 200, 400, 3200, 5000, 5000]);
    }
}
