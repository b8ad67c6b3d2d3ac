//! How long ago something was, as people say it: `45s`, `3m10s`, `5d2h`.

use jiff::Timestamp;
use serde_json::Value;

use super::tree::Tree;

/// Shown for a time that is not known.
pub const UNKNOWN: &str = "<unknown>";

/// The age of an object, from its `metadata.creationTimestamp`.
pub fn of(object: &Value, now: Timestamp) -> Value {
    Value::from(since(object["metadata"].text("creationTimestamp"), now))
}

/// The time from `then`, in RFC 3339, to `now`.
pub fn since(then: &str, now: Timestamp) -> String {
    match then.parse::<Timestamp>() {
        Ok(then) => between(then, now),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// The time between two moments.
pub fn between(then: Timestamp, now: Timestamp) -> String {
    human((now.as_millisecond() - then.as_millisecond()) / 1000)
}

/// A duration in one or two units, the second only while it still says something.
pub fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

fn two(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::{human, since};

    #[test]
    fn the_second_unit_goes_when_it_says_nothing() {
        let day = 86_400;
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (8 * day, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (8 * 365 * day, "8y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds} s");
        }
    }

    #[test]
    fn a_time_that_is_not_known_is_said_so() {
        let now = "2026-01-01T00:01:00Z".parse().expect("a timestamp");
        assert_eq!(since("2026-01-01T00:00:00Z", now), "60s");
        assert_eq!(since("2026-01-01T00:00:00.500000Z", now), "59s");
        assert_eq!(since("", now), "<unknown>");
    }
}
