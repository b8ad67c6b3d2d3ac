//! Schedules as CronJobs write them: five fields, or a word such as `@daily`.
//!
//! ```text
//! minute hour day-of-month month day-of-week      each `*` or `?`, or a list of numbers and ranges, each with a step: 1-5/2
//! @yearly @annually @monthly @weekly @daily @midnight @hourly @every 1h30m
//! ```
//! Months and days of the week also have their English names of three letters. Sunday is 0.
//!
//! Not here    when a schedule is next due (the CronJob controller)
//! Source: API reference, batch/v1 CronJob `schedule`; the words of refusals are those clients know.

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

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

/// Whether a schedule can be read; if not, why.
pub(crate) fn check(text: &str) -> Result<(), String> {
    if let Some(duration) = text.strip_prefix("@every ") {
        return if is_duration(duration) {
            Ok(())
        } else {
            Err(format!("failed to parse duration {text}: time: invalid duration {duration:?}"))
        };
    }
    if text.starts_with('@') {
        return if WORDS.contains(&text) { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(&FIELDS).try_for_each(|(text, field)| text.split(',').try_for_each(|range| field.check(range)))
}

impl Field {
    /// A number, `*`, a range, each perhaps with a step.
    fn check(&self, text: &str) -> Result<(), String> {
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
            _ => Ok(()),
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

/// A duration of Go's: numbers with units, such as `1h30m` or `1.5s`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.matches('.').count() > 1 || !number.contains(|character: char| character.is_ascii_digit()) {
            return false;
        }
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().find(|unit| {
            // `m` of `ms` is no minute.
            after.strip_prefix(**unit).is_some_and(|next| !next.starts_with(|next: char| next.is_alphabetic()))
        });
        let Some(unit) = unit else { return false };
        rest = &after[unit.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::check;

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
}
