//! Schedules as CronJobs write them: five fields, or a word such as `@daily`.
//!
//! ```text
//! minute hour day-of-month month day-of-week      each `*` or `?`, or a list of numbers and ranges, each with a step: 1-5/2
//! @yearly @annually @monthly @weekly @daily @midnight @hourly @every 1h30m
//! ```
//! Months and days of the week also have their English names of three letters. Sunday is 0.
//!
//! A day is one when both of its fields hold, or, where neither field is `*`, when one of them does. A time that a zone
//! leaves out when its clocks go forward is no time of a schedule. One that comes twice when they go back is one once, but
//! twice for a schedule of every hour: what runs each five minutes goes on doing so.
//!
//! Not here    what is due now and what was missed (the CronJob controller)
//! Source: API reference, batch/v1 CronJob `schedule`; the words of refusals are those clients know.

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp, ToSpan};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// The hours of a schedule that leaves none out.
const EVERY_HOUR: u64 = (1 << 24) - 1;
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// A schedule without a time in so many years has none (30 February). The rarest, 29 February on a certain weekday,
/// comes every 28 years at least, but not around 2100.
const YEARS_MAX: i16 = 41;

/// What a field may hold.
struct Field {
    least: u32,
    most: u32,
    /// Names of the numbers from `least` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { least: 0, most: 59, names: &[] },
    Field { least: 0, most: 23, names: &[] },
    Field { least: 1, most: 31, names: &[] },
    Field { least: 1, most: 12, names: &MONTHS },
    Field { least: 0, most: 6, names: &WEEKDAYS },
];

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Again and again after so long.
    Every(Duration),
    /// At certain minutes.
    At(Times),
}

/// Minutes, hours, days of the month, months and days of the week, each a bit of its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    fields: [u64; 5],
    /// Whether a day must satisfy both of its fields.
    both_days: bool,
}

/// Whether a schedule can be read; if not, why.
pub(crate) fn check(text: &str) -> Result<(), String> {
    Schedule::read(text).map(drop)
}

impl Schedule {
    /// Reads a schedule; if it cannot be read, why.
    pub fn read(text: &str) -> Result<Schedule, String> {
        if let Some(duration) = text.strip_prefix("@every ") {
            let unreadable = || format!("failed to parse duration {text}: time: invalid duration {duration:?}");
            // What comes more often than every second comes every second.
            let every = read_duration(duration).ok_or_else(unreadable)?;
            return Ok(Schedule::Every(Duration::from_secs(every.as_secs().max(1))));
        }
        if text.starts_with('@') {
            let found = WORDS.iter().find(|(word, _)| *word == text);
            let (_, fields) = found.ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
            return Schedule::read(fields);
        }
        let parts: Vec<&str> = text.split_whitespace().collect();
        if parts.len() != FIELDS.len() {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
        }
        let mut fields = [0; 5];
        for ((bits, part), field) in fields.iter_mut().zip(&parts).zip(&FIELDS) {
            for range in part.split(',') {
                *bits |= field.read(range)?;
            }
        }
        let is_any = |part: &str| part.split(',').any(|range| matches!(range, "*" | "?" | "*/1" | "?/1"));
        Ok(Schedule::At(Times { fields, both_days: is_any(parts[2]) || is_any(parts[4]) }))
    }

    /// The first time after this one, if there is one in our lives.
    pub fn after(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(every) => {
                let seconds = i64::try_from(every.as_secs()).ok()?;
                Timestamp::from_second(time.as_second().checked_add(seconds)?).ok()
            }
            Schedule::At(times) => times.after(time, zone),
        }
    }
}

impl Times {
    fn has(&self, field: usize, value: i8) -> bool {
        self.fields[field] >> value & 1 == 1
    }

    fn has_day(&self, time: DateTime) -> bool {
        let of_month = self.has(2, time.day());
        let of_week = self.has(4, time.date().weekday().to_sunday_zero_offset());
        if self.both_days { of_month && of_week } else { of_month || of_week }
    }

    fn after(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.fields[1] != EVERY_HOUR {
            return self.next(time, time, zone);
        }
        // The clocks of one offset at a time, so that an hour that comes twice is gone through twice.
        let (mut from, mut offset) = (time, zone.to_offset(time));
        for change in zone.following(time) {
            let found = self.next(from, time, &offset.to_time_zone())?;
            if found < change.timestamp() {
                return Some(found);
            }
            (from, offset) = (change.timestamp().checked_sub(1.nanosecond()).ok()?, change.offset());
        }
        self.next(from, time, &offset.to_time_zone())
    }

    /// The first time after `time`, looked for from `from` on.
    fn next(&self, from: Timestamp, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = zone.to_datetime(from);
        let last = start.year().saturating_add(YEARS_MAX);
        let mut at = step(start.with().second(0).subsec_nanosecond(0).build().ok()?, 1.minute())?;
        while at.year() <= last {
            at = if !self.has(3, at.month()) {
                step(at.first_of_month().with().time(Time::midnight()).build().ok()?, 1.month())?
            } else if !self.has_day(at) {
                step(at.with().time(Time::midnight()).build().ok()?, 1.day())?
            } else if !self.has(1, at.hour()) {
                step(at.with().minute(0).build().ok()?, 1.hour())?
            } else if !self.has(0, at.minute()) {
                step(at, 1.minute())?
            } else {
                let found = zone.to_ambiguous_timestamp(at);
                let is_time = !matches!(found.offset(), AmbiguousOffset::Gap { .. });
                // Of a time that comes twice this is the first; it may be over.
                if let Some(found) = found.earlier().ok().filter(|found| is_time && *found > time) {
                    return Some(found);
                }
                step(at, 1.minute())?
            };
        }
        None
    }
}

fn step(time: DateTime, by: Span) -> Option<DateTime> {
    time.checked_add(by).ok()
}

impl Field {
    /// A number, `*`, a range, each perhaps with a step.
    fn read(&self, text: &str) -> Result<u64, String> {
        let (range, step) = match text.split_once('/') {
            Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {text}")),
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let (first, last) = match range.split_once('-') {
            Some((_, last)) if last.contains('-') => return Err(format!("too many hyphens: {text}")),
            Some((first, last)) => (self.number(first)?, self.number(last)?),
            None if range == "*" || range == "?" => (self.least, self.most),
            None => {
                let first = self.number(range)?;
                (first, if step.is_some() { self.most } else { first })
            }
        };
        if first < self.least {
            return Err(format!("beginning of range ({first}) below minimum ({}): {text}", self.least));
        }
        if last > self.most {
            return Err(format!("end of range ({last}) above maximum ({}): {text}", self.most));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
        }
        match step.map(whole).transpose()? {
            Some(0) => Err(format!("step of range should be a positive number: {text}")),
            step => Ok((first..=last).step_by(step.unwrap_or(1) as usize).fold(0, |bits, number| bits | 1 << number)),
        }
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        match (self.least..).zip(self.names).find(|(_, name)| **name == lower) {
            Some((number, _)) => Ok(number),
            None => whole(text),
        }
    }
}

fn whole(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

/// A duration of Go's: numbers with units, such as `1h30m` or `1.5s`. One below nothing is nothing.
fn read_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let (unit, factor) = UNITS.iter().find(|(unit, _)| {
            // `m` of `ms` is no minute.
            after.strip_prefix(*unit).is_some_and(|next| !next.starts_with(|next: char| next.is_alphabetic()))
        })?;
        seconds += number * factor;
        rest = &after[unit.len()..];
    }
    if text.starts_with('-') { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::{Schedule, check};
    use crate::zone::find_zone;
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    #[test]
    fn what_can_be_read() {
        for good in [
            "* * * * *",
            "0 0 1 1 0",
            "*/15 0-6/2,12 1,15 JAN-mar Mon-fri",
            "5/10 ? ? * ?",
            "@daily",
            "@every 1h30m",
            "@every 1.5s",
            "59 23 31 12 6",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_cannot_be_read_and_why() {
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every soon", "failed to parse duration @every soon: time: invalid duration \"soon\""),
            ("@every 1x", "failed to parse duration @every 1x: time: invalid duration \"1x\""),
        ] {
            assert_eq!(check(bad), Err(why.to_owned()), "{bad}");
        }
    }

    /// The next times of a schedule, in a zone.
    fn times(schedule: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let zone = find_zone(zone).unwrap_or(TimeZone::UTC);
        let schedule = Schedule::read(schedule).expect("a schedule");
        let mut at: Timestamp = from.parse().expect("a time");
        let mut times = Vec::new();
        while times.len() < count
            && let Some(next) = schedule.after(at, &zone)
        {
            times.push(next.to_string());
            at = next;
        }
        times
    }

    #[test]
    fn when_it_is_next() {
        let check = |schedule: &str, expected: &[&str]| {
            assert_eq!(times(schedule, "UTC", "2026-01-01T12:00:30Z", expected.len()), expected, "{schedule}");
        };
        check("* * * * *", &["2026-01-01T12:01:00Z", "2026-01-01T12:02:00Z"]);
        check(
            "*/20 13 * * *",
            &["2026-01-01T13:00:00Z", "2026-01-01T13:20:00Z", "2026-01-01T13:40:00Z", "2026-01-02T13:00:00Z"],
        );
        check("@monthly", &["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]);
        check("0 0 * * mon", &["2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"]);
        // Neither day is `*`: one of them is enough. 5 January 2026 is a Monday.
        check("0 0 7 * mon", &["2026-01-05T00:00:00Z", "2026-01-07T00:00:00Z", "2026-01-12T00:00:00Z"]);
        check("0 0 */10 * mon", &["2026-01-05T00:00:00Z", "2026-01-11T00:00:00Z", "2026-01-12T00:00:00Z"]);
        check("0 0 29 feb *", &["2028-02-29T00:00:00Z"]);
        check("@every 90s", &["2026-01-01T12:02:00Z", "2026-01-01T12:03:30Z"]);
        assert!(times("0 0 30 feb *", "UTC", "2026-01-01T00:00:00Z", 1).is_empty());
    }

    #[test]
    fn a_zone_has_its_own_days_and_clocks_that_change() {
        let vienna = |schedule: &str, from: &str, count: usize| times(schedule, "Europe/Vienna", from, count);
        assert_eq!(vienna("0 9 * * *", "2026-01-01T12:00:00Z", 1), ["2026-01-02T08:00:00Z"]);
        // 02:30 does not exist on 29 March, and exists twice on 25 October.
        assert_eq!(vienna("30 2 * * *", "2026-03-28T12:00:00Z", 1), ["2026-03-30T00:30:00Z"]);
        assert_eq!(vienna("30 2 * * *", "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let halves = ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"];
        assert_eq!(vienna("*/30 * * * *", "2026-10-24T23:40:00Z", 4), halves, "02:00 and 02:30 twice");
        assert_eq!(vienna("*/30 * * * *", "2026-03-29T00:10:00Z", 2), ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"]);
    }
}
