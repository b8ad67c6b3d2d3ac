//! Patterns: `matches`, `find`, `findAll`.
//!
//! Rules
//!   R1 dialect  patterns are RE2's: `\d \w \s \b` mean ASCII, a `[` inside a class is itself, `&&` means nothing
//!   R2 linear   matching takes time linear in the text; a pattern that grows beyond a bound is refused
//!   R3 cost     compiling a pattern that is not a literal is charged: it costs more than a match
//!
//! Not here    `\C`
//! Source: CEL language definition, "Regular Expressions"; RE2 syntax.

use std::fmt::Write;

use regex::{Regex, RegexBuilder};

use super::super::budget::EvalError;
use super::super::cost::Charge::Pattern;
use super::super::value::Value;
use super::args::Args;
use super::convert::owned;
use super::{Answer, Context, Row, failed};

/// Memory of a compiled pattern.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// Compiled patterns that one evaluation keeps.
const PATTERNS_MAX: usize = 16;
/// Units that compiling costs.
const COMPILE_COST: u64 = 500;
/// Longest pattern looked at.
const TEXT_BYTES_MAX: usize = 10_000;
/// Matches that `findAll` gives.
const FOUND_MAX: usize = 1_000_000;

pub(super) const ROWS: &[Row] = &[
    Row("<string>.matches(string) -> bool", Pattern, matches),
    Row("matches(string, string) -> bool", Pattern, matches),
    Row("<string>.find(string) -> string", Pattern, |context, args| {
        let text = args.text(0)?.clone();
        let found = context.pattern(args.text(1)?)?.find(&text);
        Ok(owned(found.map(|found| found.as_str()).unwrap_or_default().to_owned()))
    }),
    Row("<string>.findAll(string) -> list(string)", Pattern, |context, args| find_all(context, args, -1)),
    Row("<string>.findAll(string, int) -> list(string)", Pattern, |context, args| {
        find_all(context, args, args.int(2)?)
    }),
];

fn matches<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Bool(context.pattern(args.text(1)?)?.is_match(args.text(0)?)))
}

fn find_all<'a>(context: &mut Context<'_>, args: &[Value<'a>], limit: i64) -> Answer<'a> {
    let limit = usize::try_from(limit).map_or(FOUND_MAX, |limit| limit.min(FOUND_MAX));
    let found = context.pattern(args.text(1)?)?.find_iter(args.text(0)?).take(limit);
    let found: Vec<Value> = found.map(|found| owned(found.as_str().to_owned())).collect();
    // half a unit each: making a text costs more than a step over it
    context.budget.work(found.len() as u64 * 5)?;
    Ok(found.into())
}

/// Patterns compiled so far, the latest last.
#[derive(Debug, Default)]
pub(in super::super) struct Patterns(Vec<(String, Regex)>);

impl Context<'_> {
    /// R3: the compiled pattern.
    fn pattern(&mut self, text: &str) -> Result<&Regex, EvalError> {
        let kept = &mut self.patterns.0;
        let at = match kept.iter().position(|(own, _)| own == text) {
            Some(at) => at,
            None => {
                if kept.len() == PATTERNS_MAX {
                    kept.remove(0);
                }
                if !kept.is_empty() {
                    self.budget.charge(COMPILE_COST)?;
                }
                let regex = compile(text).or_else(failed)?;
                kept.push((text.to_owned(), regex));
                kept.len() - 1
            }
        };
        Ok(&self.patterns.0[at].1)
    }
}

/// R1, R2: a pattern of RE2.
pub(in super::super) fn compile(text: &str) -> Result<Regex, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("error parsing regexp: pattern exceeds {TEXT_BYTES_MAX} bytes"));
    }
    let built =
        RegexBuilder::new(&translate(text)).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| {
        let shown = error.to_string();
        let last = shown.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("error parsing regexp: {last}: `{}`", text.chars().take(128).collect::<String>())
    })
}

/// R1.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut class = false;
    // a `]` right after `[` or `[^` is itself
    let mut class_start = false;
    while let Some(c) = chars.next() {
        let starts = std::mem::take(&mut class_start);
        match c {
            '\\' => escaped(&mut out, chars.next(), class, &mut chars),
            '[' if !class => {
                class = true;
                class_start = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            '[' if chars.peek() == Some(&':') => out.push('['),
            '[' => out.push_str("\\["),
            ']' if class && starts => out.push_str("\\]"),
            ']' if class && out.ends_with(':') => {
                out.push(']');
                class = !out[..out.len() - 1].rfind('[').is_some_and(|at| out[at..].starts_with("[:"));
                // `[:alpha:]` ends itself, not the class
                class = !class;
            }
            ']' => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            '-' if class && chars.peek() == Some(&'-') => out.push_str("\\-"),
            _ => out.push(c),
        }
    }
    out
}

fn escaped(out: &mut String, c: Option<char>, class: bool, rest: &mut std::iter::Peekable<std::str::Chars>) {
    let (open, close) = if class { ("", "") } else { ("[", "]") };
    match c {
        Some('d') => drop(write!(out, "{open}0-9{close}")),
        Some('w') => drop(write!(out, "{open}0-9A-Za-z_{close}")),
        Some('s') => drop(write!(out, "{open}\\t\\n\\x0C\\r {close}")),
        Some('D') => out.push_str("[^0-9]"),
        Some('W') => out.push_str("[^0-9A-Za-z_]"),
        Some('S') => out.push_str("[^\\t\\n\\x0C\\r ]"),
        Some('b') if !class => out.push_str("(?-u:\\b)"),
        Some('B') if !class => out.push_str("(?-u:\\B)"),
        Some('Q') => {
            // as it stands, until `\E`
            while let Some(c) = rest.next() {
                if c == '\\' && rest.next_if_eq(&'E').is_some() {
                    break;
                }
                out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
            }
        }
        Some(c) => {
            out.push('\\');
            out.push(c);
        }
        None => out.push('\\'),
    }
}

#[cfg(test)]
mod tests {
    use super::{compile, translate};

    #[test]
    fn r1_patterns_mean_what_re2_says() {
        for (pattern, text, expected) in [
            ("^\\d+$", "123", true),
            ("^\\d+$", "١", false),
            ("^[\\w.]+$", "a_b.c", true),
            ("^[[a]+$", "[a[", true),
            ("^[]a]+$", "]a", true),
            ("^[[:alpha:]]+$", "abc", true),
            ("^[[:alpha:]-]+$", "a-c", true),
            ("^[a&&b]$", "&", true),
            ("^\\Qa.b\\E$", "a.b", true),
            ("^\\Qa.b\\E$", "axb", false),
            ("\\bfoo\\b", "a foo b", true),
            ("(?i)^ABC$", "abc", true),
            ("^[^\\s]+$", "a b", false),
        ] {
            let regex = compile(pattern).unwrap_or_else(|why| panic!("{pattern} ({}): {why}", translate(pattern)));
            assert_eq!(regex.is_match(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn r2_patterns_that_grow_are_refused() {
        for pattern in ["((a{1000}){1000}){1000}", "(\\pL{1000}){1000}", "(", "[", "a{2,1}", "\\"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
        assert!(compile(&"a".repeat(20_000)).is_err());
    }
}
