//! Patterns of texts: RE2's syntax, run in time linear in the text, with programs of bounded size.
//!
//! Goal        what a definition written for Kubernetes means by `pattern`: RE2 as Go has it, where `\d`, `\w`, `\s` and
//!             `\b` are ASCII and `[` inside a class is a letter
//! Not here    look-around and back references: neither RE2 nor we have them

use regex::{Regex, RegexBuilder};

/// Bytes of one compiled pattern: what `x{1000}{1000}` would take is refused when the definition is made.
pub(crate) const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    written: String,
}

impl Pattern {
    /// Compiles a pattern; the error says why it is none.
    pub fn new(written: &str) -> Result<Pattern, String> {
        let built = RegexBuilder::new(&translate(written))
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .nest_limit(100)
            .build();
        match built {
            Ok(regex) => Ok(Pattern { regex, written: written.to_owned() }),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err(format!("it takes more than {PATTERN_BYTES_MAX} bytes when compiled"))
            }
            Err(error) => Err(error.to_string().lines().last().unwrap_or("it cannot be read").trim().to_owned()),
        }
    }

    /// Whether any part of the text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The pattern as its definition has it.
    pub(crate) fn as_str(&self) -> &str {
        &self.written
    }
}

/// Spells a pattern of RE2 so that it means the same here.
fn translate(written: &str) -> String {
    let mut out = String::with_capacity(written.len() + 16);
    let mut chars = written.chars().peekable();
    let mut in_class = false;
    while let Some(next) = chars.next() {
        match next {
            '\\' => match chars.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str(r"[\t\n\x0c\r ]"),
                Some('S') => out.push_str(r"[^\t\n\x0c\r ]"),
                Some('b') if !in_class => out.push_str(r"(?-u:\b)"),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // A bracket that comes first closes nothing.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str(r"\]");
                }
            }
            '[' if chars.peek() != Some(&':') => out.push_str(r"\["),
            '[' => {
                out.push('[');
                for inner in chars.by_ref() {
                    out.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => out.extend(['\\', next]),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_mean_what_re2_means() {
        for (pattern, text, matches) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w.-]+$", "a.b-c_1", true),
            (r"^\w+$", "ä", false),
            ("b", "abc", true),
            (r"^[[a]+$", "[a", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^[]a]+$", "]a", true),
            (r"^[a&&b]+$", "&", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^(foo|bar)$", "foo\n", false),
        ] {
            let found = Pattern::new(pattern).expect(pattern);
            assert_eq!(found.matches(text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_are_bounded() {
        for pattern in ["(((a{100}){100}){100})", "(", "(?=a)", r"(a)\1", "[a", &"(".repeat(10_000)] {
            assert!(Pattern::new(pattern).is_err(), "{}", pattern.len());
        }
        let slow = Pattern::new("^(a+)+$").expect("a pattern");
        assert!(!slow.matches(&format!("{}b", "a".repeat(100_000))), "in linear time");
    }
}
