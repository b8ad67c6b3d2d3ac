//! Durations as people write them: `30s`, `1h30m`, `0`; a bare number is seconds.

use std::time::Duration;

/// Reads a duration that is not negative.
pub fn parse(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let expected = || format!("expected a duration such as 30s or 1h30m, found {text:?}");
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(expected)?;
        let number: f64 = rest[..digits].parse().map_err(|_| expected())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(expected()),
            };
        rest = &rest[unit..];
    }
    if text.is_empty() {
        return Err(expected());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| expected())
}

/// Reads a duration that may be negative, which then means a week.
pub fn parse_or_week(text: &str) -> Result<Duration, String> {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    match text.strip_prefix('-') {
        Some(rest) => parse(rest).map(|_| WEEK),
        None => parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_or_week};
    use std::time::Duration;

    #[test]
    fn units_add_up() {
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_or_week("-1s"), Ok(Duration::from_secs(604_800)));
        for text in ["", "x", "1", "s", "1d", "1h 2m"].into_iter().filter(|text| *text != "1") {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
