//! Scalars with a syntax of their own: read, checked and put into the API's canonical form.
//!
//! Source: API conventions, "Units", and meta/v1 Time, MicroTime, Duration; RFC 3339; RFC 4648.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Longest time or duration looked at.
const TEXT_BYTES_MAX: usize = 128;

/// An RFC 3339 time in UTC with so many digits of a second; `None` for what is no time.
pub(super) fn canonical_time(text: &str, digits: u8) -> Option<String> {
    let shaped = text.len() <= TEXT_BYTES_MAX
        && text.as_bytes().get(10).is_some_and(|byte| *byte == b'T')
        && !text.contains('[')
        && text.as_bytes().get(4).is_some_and(|byte| *byte == b'-');
    let time: Timestamp = shaped.then(|| text.parse().ok())??;
    // Another zone's year 0 may be the year before in UTC, which has no such text.
    (0..=9999).contains(&time.to_zoned(TimeZone::UTC).year()).then(|| show_time(time, digits))
}

pub(super) fn show_time(time: Timestamp, digits: u8) -> String {
    // cut, not rounded: what Kubernetes does with finer times
    let fraction = time.subsec_nanosecond();
    let shown = time.strftime("%Y-%m-%dT%H:%M:%S");
    if digits == 0 { format!("{shown}Z") } else { format!("{shown}.{:06}Z", fraction / 1_000) }
}

/// Seconds and nanoseconds since 1970; `None` out of range.
pub(super) fn time_of_parts(seconds: i64, nanos: i32) -> Option<Timestamp> {
    Timestamp::new(seconds, nanos).ok()
}

/// Nanoseconds of a Go duration such as `1h2m3.5s`; `None` for what is none.
pub(crate) fn read_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanos = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * nanos;
        rest = after;
    }
    // 2^63 as a float; beyond it there is no duration
    (total < 9_223_372_036_854_775_808.0).then(|| if negative { -(total as i64) } else { total as i64 })
}

/// A Go duration's text, as Go prints it.
pub(crate) fn show_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let all = nanos.unsigned_abs();
    let fraction = |whole: u64, part: u64, width: usize| {
        let part = format!("{part:0width$}");
        let part = part.trim_end_matches('0');
        if part.is_empty() { whole.to_string() } else { format!("{whole}.{part}") }
    };
    match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{all}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(all / 1_000, all % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(all / 1_000_000, all % 1_000_000, 6)),
        _ => {
            let seconds = all / 1_000_000_000;
            let shown = fraction(seconds % 60, all % 1_000_000_000, 9);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{sign}{shown}s"),
                (0, minutes) => format!("{sign}{minutes}m{shown}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{shown}s"),
            }
        }
    }
}

/// The bytes of standard base64; line breaks are skipped.
pub(crate) fn read_base64(text: &str) -> Result<Vec<u8>, String> {
    let broken = text.contains(['\n', '\r']);
    let result = if broken { STANDARD.decode(text.replace(['\n', '\r'], "")) } else { STANDARD.decode(text) };
    result.map_err(|error| format!("illegal base64 data: {error}"))
}

/// Standard base64 of these bytes.
pub(crate) fn show_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::{canonical_time, read_base64, read_duration, show_duration};

    #[test]
    fn times_become_utc() {
        for (text, seconds, micros) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02T03:04:05.678901234Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678901Z"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z", "2026-01-02T01:04:05.000000Z"),
        ] {
            assert_eq!(canonical_time(text, 0).as_deref(), Some(seconds));
            assert_eq!(canonical_time(text, 6).as_deref(), Some(micros));
        }
        for text in [
            "",
            "now",
            "2026-01-02",
            "2026-01-02 03:04:05Z",
            "2026-13-02T03:04:05Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05Z[UTC]",
            "20260102T030405Z",
            "0000-01-01T00:00:00+10:00",
        ] {
            assert_eq!(canonical_time(text, 0), None, "{text}");
        }
    }

    #[test]
    fn durations_are_go_durations() {
        for (text, nanos, shown) in [
            ("1m30s", 90_000_000_000, "1m30s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1h", 3_600_000_000_000, "1h0m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("0", 0, "0s"),
            ("-2ms", -2_000_000, "-2ms"),
            ("1.5us", 1_500, "1.5µs"),
            ("7ns", 7, "7ns"),
        ] {
            assert_eq!(read_duration(text), Some(nanos), "{text}");
            assert_eq!(show_duration(nanos), shown);
        }
        for text in ["", "1", "s", "1d", "1m 3s", "1.2.3s", "99999999h", "-"] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }

    #[test]
    fn base64_may_be_broken_into_lines() {
        assert_eq!(read_base64("aGVs\r\nbG8=\n").as_deref(), Ok(&b"hello"[..]));
        for text in ["a", "aGVsbG8", "aGVs bG8=", "aGVsbG8-"] {
            assert!(read_base64(text).is_err(), "{text}");
        }
    }
}
