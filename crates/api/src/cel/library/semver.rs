//! Versions, such as `1.2.3-rc.1+build`.
//!
//! Source: Kubernetes "CEL in Kubernetes", semver library; Semantic Versioning 2.0.0.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::super::budget::EvalError;
use super::super::cost::{Charge, Grow};
use super::super::opaque::Opaque;
use super::super::value::Value;
use super::args::Args;
use super::{Answer, Row, failed, no_overload};
use Charge::One;

/// Longest version looked at.
const TEXT_BYTES_MAX: usize = 1024;
const READ: Charge = Charge::Scan(0, 1, Grow::Unknown);

/// A version; what follows `+` does not count when it is compared.
#[derive(Debug, Clone)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Part>,
    build: String,
}

impl Semver {
    /// A version as it is written, strictly.
    pub fn parse(text: &str) -> Option<Semver> {
        read(text, false)
    }
}

/// A part of a pre-release: numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Semver {}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        // a version without pre-release comes after those with one
        let rank = |version: &Semver| version.pre.is_empty();
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| rank(self).cmp(&rank(other)))
            .then_with(|| self.pre.cmp(&other.pre))
    }
}

impl fmt::Display for Semver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(out, "{major}.{minor}.{patch}")?;
        for (at, part) in self.pre.iter().enumerate() {
            out.write_str(if at == 0 { "-" } else { "." })?;
            match part {
                Part::Number(number) => write!(out, "{number}")?,
                Part::Word(word) => out.write_str(word)?,
            }
        }
        if self.build.is_empty() { Ok(()) } else { write!(out, "+{}", self.build) }
    }
}

pub(super) const ROWS: &[Row] = &[
    Row("semver(string) -> semver", READ, |_, args| make(args.text(0)?, false)),
    Row("semver(string, bool) -> semver", READ, |_, args| make(args.text(0)?, args.bool(1)?)),
    Row("isSemver(string) -> bool", READ, |_, args| Ok(Value::Bool(read(args.text(0)?, false).is_some()))),
    Row("isSemver(string, bool) -> bool", READ, |_, args| {
        Ok(Value::Bool(read(args.text(0)?, args.bool(1)?).is_some()))
    }),
    Row("<semver>.major() -> int", One, |_, args| number(args, 0)),
    Row("<semver>.minor() -> int", One, |_, args| number(args, 1)),
    Row("<semver>.patch() -> int", One, |_, args| number(args, 2)),
    Row("<semver>.isGreaterThan(semver) -> bool", One, |_, args| Ok(Value::Bool(take(args, 0)? > take(args, 1)?))),
    Row("<semver>.isLessThan(semver) -> bool", One, |_, args| Ok(Value::Bool(take(args, 0)? < take(args, 1)?))),
    Row("<semver>.compareTo(semver) -> int", One, |_, args| Ok(Value::Int(take(args, 0)?.cmp(take(args, 1)?) as i64))),
];

fn take<'v>(args: &'v [Value<'_>], at: usize) -> Result<&'v Semver, EvalError> {
    match args.opaque(at)? {
        Opaque::Semver(version) => Ok(version),
        _ => Err(no_overload()),
    }
}

fn number<'a>(args: &[Value<'a>], at: usize) -> Answer<'a> {
    let number = i64::try_from(take(args, 0)?.numbers[at]).ok();
    number.map_or_else(|| failed("integer overflow"), |number| Ok(Value::Int(number)))
}

fn make<'a>(text: &str, lenient: bool) -> Answer<'a> {
    match read(text, lenient) {
        Some(version) => Ok(Value::Opaque(Opaque::Semver(Arc::new(version)))),
        None => failed(format!("expected a version such as \"1.2.3\", found {text:?}")),
    }
}

/// Reads a version; a lenient one may begin with `v`, leave out minor and patch, and have leading zeros.
fn read(text: &str, lenient: bool) -> Option<Semver> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let text = if lenient { text.strip_prefix('v').unwrap_or(text) } else { text };
    let (rest, build) = text.split_once('+').map_or((text, ""), |(rest, build)| (rest, build));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let mut numbers = [0; 3];
    let parts: Vec<&str> = core.split('.').collect();
    if parts.len() > 3 || (parts.len() < 3 && !lenient) {
        return None;
    }
    for (number, part) in numbers.iter_mut().zip(&parts) {
        let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = lenient || *part == "0" || !part.starts_with('0');
        *number = if plain && canonical { part.parse().ok()? } else { return None };
    }
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if text.contains('+') && !build.split('.').all(word) {
        return None;
    }
    let pre = pre.map_or(Some(Vec::new()), |pre| pre.split('.').map(|part| read_part(part, word)).collect())?;
    Some(Semver { numbers, pre, build: build.to_owned() })
}

fn read_part(part: &str, is_word: impl Fn(&str) -> bool) -> Option<Part> {
    if !is_word(part) {
        return None;
    }
    if !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Part::Word(part.to_owned()));
    }
    let canonical = part == "0" || !part.starts_with('0');
    if canonical { part.parse().ok().map(Part::Number) } else { None }
}
