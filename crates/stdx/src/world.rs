//! The world outside: wall clock and randomness, real or replayed from a seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Where wall-clock time comes from. Monotonic time is always `tokio::time`.
pub trait Clock: Send + Sync + 'static {
    /// The current wall-clock time.
    fn now(&self) -> Timestamp;
}

/// A handle on the clock and the randomness of this process. Cheap to clone; clones share both.
#[derive(Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    rng: Arc<Mutex<ChaCha8Rng>>,
}

struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Wall time that follows tokio's (possibly paused) clock from a fixed start.
struct TokioClock {
    start: Timestamp,
    origin: tokio::time::Instant,
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.origin.elapsed()).unwrap_or(SignedDuration::MAX);
        self.start.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}

impl World {
    /// The machine's own clock and a generator seeded by the operating system.
    pub fn real() -> World {
        let rng = ChaCha8Rng::from_os_rng();
        World { clock: Arc::new(SystemClock), rng: Arc::new(Mutex::new(rng)) }
    }

    /// A replayable world: wall time starts at `start` and follows tokio's clock, randomness follows `seed`.
    ///
    /// Must be called inside a tokio runtime.
    pub fn seeded(seed: u64, start: Timestamp) -> World {
        let clock = TokioClock { start, origin: tokio::time::Instant::now() };
        let rng = ChaCha8Rng::seed_from_u64(seed);
        World { clock: Arc::new(clock), rng: Arc::new(Mutex::new(rng)) }
    }

    /// The current wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The current wall-clock time as the Kubernetes API writes it: RFC 3339, whole seconds, `Z`.
    pub fn now_rfc3339(&self) -> String {
        self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Fills `bytes` with random bytes.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        self.rng.lock().expect("nothing panics while holding the generator").fill_bytes(bytes);
    }

    /// A random number.
    pub fn random_u64(&self) -> u64 {
        self.rng.lock().expect("nothing panics while holding the generator").next_u64()
    }

    /// A random number below `bound`, which must not be zero.
    pub fn random_below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "a random number below zero does not exist");
        // The bias of a remainder is below 2^-32 for every bound we use.
        self.random_u64() % bound
    }

    /// A random version 4 UUID in its usual text form (RFC 9562).
    pub fn uuid(&self) -> String {
        let mut bytes = [0u8; 16];
        self.fill_random(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble is a hex digit"));
            text.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble is a hex digit"));
        }
        text
    }

    /// A random suffix of `length` characters as Kubernetes' `generateName` makes them: consonants and digits
    /// that cannot spell a word.
    pub fn name_suffix(&self, length: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..length).map(|_| char::from(ALPHABET[self.random_below(ALPHABET.len() as u64) as usize])).collect()
    }

    /// `base` lengthened by up to a quarter, so that many waiters do not wake together.
    pub fn jitter(&self, base: Duration) -> Duration {
        let quarter_ms = (base.as_millis() as u64 / 4).max(1);
        base + Duration::from_millis(self.random_below(quarter_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::World;
    use jiff::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_world() {
        let draw = || {
            let world = World::seeded(7, Timestamp::UNIX_EPOCH);
            (world.uuid(), world.name_suffix(5), world.now())
        };
        assert_eq!(draw(), draw());
    }

    #[tokio::test(start_paused = true)]
    async fn seeded_wall_time_follows_tokio_time() {
        let world = World::seeded(1, Timestamp::UNIX_EPOCH);
        tokio::time::advance(std::time::Duration::from_secs(90)).await;
        assert_eq!(world.now_rfc3339(), "1970-01-01T00:01:30Z");
    }

    #[test]
    fn a_uuid_has_version_4_and_the_rfc_variant() {
        let uuid = World::real().uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "variant of {uuid}");
    }
}
