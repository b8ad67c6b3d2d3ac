//! How long to wait before something that failed is tried again.
//!
//! Source: Kubernetes documentation, pod lifecycle, "Container restarts": 10 s, doubled, at most 5 min, forgotten after
//! 10 min of running. The first restart is immediate.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(10);
/// The longest wait between two restarts of a container or two pulls of an image.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long has recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(600);

/// The waits between the restarts of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashBackoff {
    /// How often it ended in a row without having recovered in between.
    ends: u32,
}

impl CrashBackoff {
    /// The container ended after having run this long; how long must its restart wait?
    pub fn ended(&mut self, ran: Duration) -> Duration {
        if ran >= RECOVERED_AFTER {
            self.ends = 0;
        }
        let wait = match self.ends {
            0 => Duration::ZERO,
            ends => doubled(FIRST, ends - 1, WAIT_MAX),
        };
        self.ends = self.ends.saturating_add(1);
        wait
    }

    /// The back-off of a container that this agent did not see fail: it has been restarted this often.
    pub fn resumed(restarts: u32) -> CrashBackoff {
        CrashBackoff { ends: restarts.min(8) }
    }
}

/// The waits between the tries of one thing: doubled from `first` to `most`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryBackoff {
    first: Duration,
    most: Duration,
    failures: u32,
    retry_at: Option<Instant>,
}

impl RetryBackoff {
    /// For image pulls: 10 s to 5 min.
    pub fn pull() -> RetryBackoff {
        RetryBackoff::new(FIRST, WAIT_MAX)
    }

    /// Doubling from `first` to `most`.
    pub fn new(first: Duration, most: Duration) -> RetryBackoff {
        RetryBackoff { first, most, failures: 0, retry_at: None }
    }

    /// It failed now; returns how long it must wait.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let wait = doubled(self.first, self.failures, self.most);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + wait);
        wait
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }

    /// Something changed that may have been the cause: try again at once, but do not forget the failures.
    pub fn hurry(&mut self) {
        self.retry_at = None;
    }

    /// When it may be tried again; `None` is now.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Whether it may be tried now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1u32.checked_shl(times.min(31)).unwrap_or(u32::MAX)).min(most)
}

#[cfg(test)]
mod tests {
    use super::{CrashBackoff, RetryBackoff};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn the_first_restart_is_immediate_then_10_s_doubled_up_to_5_min() {
        let mut backoff = CrashBackoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.ended(Duration::from_secs(1)).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_forgive_everything() {
        let mut backoff = CrashBackoff::default();
        for _ in 0..5 {
            backoff.ended(Duration::from_secs(1));
        }
        assert_eq!(backoff.ended(Duration::from_secs(600)), Duration::ZERO);
        assert_eq!(backoff.ended(Duration::from_secs(1)), Duration::from_secs(10));
    }

    #[test]
    fn a_resumed_container_goes_on_where_it_was() {
        assert_eq!(CrashBackoff::resumed(2).ended(Duration::ZERO), Duration::from_secs(20));
        assert_eq!(CrashBackoff::resumed(1000).ended(Duration::ZERO), Duration::from_secs(300));
    }

    #[test]
    fn a_hurried_retry_keeps_its_place_in_the_row() {
        let now = Instant::now();
        let mut backoff = RetryBackoff::pull();
        assert!(backoff.is_due(now));
        assert_eq!(backoff.failed(now), Duration::from_secs(10));
        assert!(!backoff.is_due(now));
        backoff.hurry();
        assert!(backoff.is_due(now));
        assert_eq!(backoff.failed(now), Duration::from_secs(20));
    }
}
