//! YAML as kubectl prints it: keys in their natural order, lists not indented, text quoted only where it must be.
//!
//! Rules
//!   R1 key      keys are ordered letter by letter, runs of digits by their number, other characters before letters
//!   R2 plain    text that would be read back as something else is quoted: doubly where it looks like another type,
//!               singly where a plain scalar may not hold it
//!   R3 block    text of several lines is a literal block, unless a block cannot hold it
//!   R4 fold     long lines are folded at blanks after column 80
//! Not here      anchors, tags, several documents
//! Source: YAML 1.1, the form in which Kubernetes reads and writes it

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// Text is folded at the first blank behind this column.
const FOLD_COLUMN: usize = 80;

/// A document.
pub fn print(value: &Value) -> String {
    let mut out = Out::default();
    match value {
        Value::Object(map) if !map.is_empty() => out.map(map, 0, false),
        Value::Array(list) if !list.is_empty() => out.list(list, 0),
        scalar => {
            out.scalar(scalar, 0);
            out.text.push('\n');
        }
    }
    out.text
}

#[derive(Default)]
struct Out {
    text: String,
}

impl Out {
    fn map(&mut self, map: &Map<String, Value>, indent: usize, inline_first: bool) {
        let mut entries: Vec<(&String, &Value)> = map.iter().collect();
        entries.sort_by(|one, other| natural(one.0, other.0));
        for (index, (key, value)) in entries.into_iter().enumerate() {
            if index > 0 || !inline_first {
                self.blanks(indent);
            }
            self.key(key);
            match value {
                Value::Object(map) if !map.is_empty() => {
                    self.text.push('\n');
                    self.map(map, indent + 2, false);
                }
                Value::Array(list) if !list.is_empty() => {
                    self.text.push('\n');
                    self.list(list, indent);
                }
                scalar => {
                    self.text.push(' ');
                    self.scalar(scalar, indent + 2);
                    self.text.push('\n');
                }
            }
        }
    }

    fn list(&mut self, list: &[Value], indent: usize) {
        for item in list {
            self.blanks(indent);
            self.text.push_str("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.map(map, indent + 2, true),
                Value::Array(inner) if !inner.is_empty() => self.inner_list(inner, indent + 2),
                scalar => {
                    self.scalar(scalar, indent + 2);
                    self.text.push('\n');
                }
            }
        }
    }

    /// A list that is an item: its first item stands on the line of its parent.
    fn inner_list(&mut self, list: &[Value], indent: usize) {
        let start = self.text.len();
        self.list(list, indent);
        self.text.replace_range(start..start + indent, "");
    }

    fn key(&mut self, key: &str) {
        // A key is folded nowhere and is no block.
        match style(key) {
            Style::Plain => self.text.push_str(key),
            Style::Single => self.text.push_str(&format!("'{}'", key.replace('\'', "''"))),
            Style::Double | Style::Literal => self.double(key, usize::MAX, 0),
        }
        self.text.push(':');
    }

    fn scalar(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => self.text.push_str(&number_text(number)),
            Value::String(text) => match style(text) {
                Style::Plain => self.folded(text, indent),
                Style::Single => {
                    self.text.push('\'');
                    self.folded(&text.replace('\'', "''"), indent);
                    self.text.push('\'');
                }
                Style::Double => self.double(text, FOLD_COLUMN, indent),
                Style::Literal => self.literal(text, indent),
            },
            Value::Array(_) => self.text.push_str("[]"),
            Value::Object(_) => self.text.push_str("{}"),
        }
    }

    /// R4: a single blank behind the column becomes a line end.
    fn folded(&mut self, text: &str, indent: usize) {
        let characters: Vec<char> = text.chars().collect();
        let mut column = self.column();
        for (index, &character) in characters.iter().enumerate() {
            let before = index > 0 && characters[index - 1] == ' ';
            let alone = !before && characters.get(index + 1).is_some_and(|next| *next != ' ');
            if character == ' ' && alone && column > FOLD_COLUMN && index > 0 {
                self.text.push('\n');
                self.blanks(indent);
                column = indent;
            } else {
                self.text.push(character);
                column += 1;
            }
        }
    }

    fn double(&mut self, text: &str, fold_column: usize, indent: usize) {
        let characters: Vec<char> = text.chars().collect();
        self.text.push('"');
        let mut column = self.column();
        let mut after_blank = false;
        for (index, &character) in characters.iter().enumerate() {
            if let Some(escaped) = escape(character) {
                self.text.push_str(&escaped);
                column += escaped.len();
                after_blank = false;
            } else if character == ' '
                && !after_blank
                && column > fold_column
                && (1..characters.len() - 1).contains(&index)
            {
                self.text.push('\n');
                self.blanks(indent);
                column = indent;
                if characters[index + 1] == ' ' {
                    self.text.push('\\');
                    column += 1;
                }
                after_blank = true;
            } else {
                self.text.push(character);
                column += 1;
                after_blank = character == ' ';
            }
        }
        self.text.push('"');
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.text.push('|');
        if text.starts_with([' ', '\n']) {
            self.text.push('2');
        }
        let body = text.trim_end_matches('\n');
        match text.len() - body.len() {
            0 => self.text.push('-'),
            1 if !body.is_empty() => {}
            _ => self.text.push('+'),
        }
        let shown = text.strip_suffix('\n').unwrap_or(text);
        for line in shown.split('\n') {
            self.text.push('\n');
            if !line.is_empty() {
                self.blanks(indent);
                self.text.push_str(line);
            }
        }
    }

    fn column(&self) -> usize {
        self.text.rsplit('\n').next().unwrap_or_default().chars().count()
    }

    fn blanks(&mut self, count: usize) {
        self.text.extend(std::iter::repeat_n(' ', count));
    }
}

fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 1e21 => format!("{value:.0}"),
        _ => number.to_string(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

fn style(text: &str) -> Style {
    let unprintable = text
        .chars()
        .any(|character| character != '\n' && escape(character).is_some_and(|_| !matches!(character, '"' | '\\')));
    if unprintable {
        return Style::Double;
    }
    if text.contains('\n') {
        let blank_before_end = text.contains(" \n") || text.ends_with(' ');
        return if blank_before_end { Style::Double } else { Style::Literal };
    }
    if text.is_empty() || means_another_type(text) {
        return Style::Double;
    }
    if may_be_plain(text) { Style::Plain } else { Style::Single }
}

/// Whether a plain scalar of this text would be read as a bool, a number, a time or nothing.
fn means_another_type(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "yes", "Yes", "YES", "no",
        "No", "NO", "on", "On", "ON", "off", "Off", "OFF", "y", "Y", "n", "N", ".nan", ".NaN", ".NAN", ".inf", ".Inf",
        ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", "<<",
    ];
    WORDS.contains(&text) || is_number(text) || is_time(text) || is_base_60(text)
}

fn is_number(text: &str) -> bool {
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return false;
    }
    let bare = text.replace('_', "");
    let unsigned = bare.strip_prefix(['+', '-']).unwrap_or(&bare);
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(digits) = unsigned.strip_prefix(prefix) {
            return !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        }
    }
    is_float(unsigned)
}

/// Digits with a point or an exponent, as YAML's pattern for floats has them.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            (whole.is_empty() || digits(whole)) && (fraction.is_empty() || digits(fraction)) && mantissa != "."
        }
        None => digits(mantissa),
    };
    mantissa_fits && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// `YYYY-MM-DD`, alone or with a time of day.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let date = bytes.len() >= 8 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-';
    if !date {
        return false;
    }
    text.parse::<jiff::Timestamp>().is_ok()
        || text.parse::<jiff::civil::Date>().is_ok()
        || (bytes.len() > 10 && text.parse::<jiff::civil::DateTime>().is_ok())
}

/// Old YAML reads `1:30` as ninety.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = unsigned.split(':');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let digits = |text: &str| !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit() || digit == '_');
    let Some((last, middle)) = rest.split_last() else { return false };
    let sixty = |text: &str| matches!(text.len(), 1 | 2) && text.parse::<u8>().is_ok_and(|value| value < 60);
    let last = last.split('.').next().unwrap_or_default();
    first.starts_with(|digit: char| digit.is_ascii_digit())
        && digits(first)
        && middle.iter().all(|part| sixty(part))
        && sixty(last)
}

fn may_be_plain(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next().unwrap_or(' ');
    let second = characters.next();
    let starts_badly = match first {
        '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' | ' ' => true,
        '?' | ':' | '-' => second.is_none_or(|second| second == ' '),
        _ => false,
    };
    let marker = text.starts_with("---") || text.starts_with("...");
    !starts_badly && !marker && !text.ends_with([' ', ':']) && !text.contains(": ") && !text.contains(" #")
}

/// How a character is written between double quotes, if not as itself.
fn escape(character: char) -> Option<String> {
    let escaped = match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\0' => "\\0",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\u{b}' => "\\v",
        '\u{c}' => "\\f",
        '\r' => "\\r",
        '\u{1b}' => "\\e",
        '\u{85}' => "\\N",
        '\u{a0}' => "\\_",
        '\u{2028}' => "\\L",
        '\u{2029}' => "\\P",
        '\u{feff}' => "\\uFEFF",
        control if control.is_control() => return Some(format!("\\x{:02X}", control as u32)),
        wide if (wide as u32) > 0xffff => return Some(format!("\\U{:08X}", wide as u32)),
        _ => return None,
    };
    Some(escaped.to_owned())
}

/// R1.
pub fn natural(one: &str, other: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y) else { return a.len().cmp(&b.len()) };
    // Behind a digit a letter ends the number, which is then the smaller one; elsewhere letters come last.
    let in_number = at > 0 && a[at - 1].is_ascii_digit();
    match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
        (true, true) => return a[at].cmp(&b[at]),
        (true, false) if in_number => return Ordering::Less,
        (false, true) if in_number => return Ordering::Greater,
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // Behind leading zeros the digits that follow count as they stand; a number begun earlier weighs the same for both.
    let begun = (a[at] == '0' || b[at] == '0')
        && a[..at].iter().rev().take_while(|digit| digit.is_ascii_digit()).any(|digit| *digit != '0');
    let run = |text: &[char]| {
        let digits: Vec<char> = text[at..].iter().copied().take_while(char::is_ascii_digit).collect();
        let start = u64::from(begun);
        let number = digits.iter().fold(start, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u64::from(digit.to_digit(10).unwrap_or(0)))
        });
        (number, digits.len())
    };
    run(&a).cmp(&run(&b)).then(a[at].cmp(&b[at]))
}

#[cfg(test)]
mod tests {
    use super::{natural, print};
    use serde_json::json;

    /// Sorting may end the program where it is none.
    #[test]
    fn r1_is_an_order() {
        let parts = ["", "0", "1", "9", "12", "01", "a", "b", "A", "-", ".", "é", "99999999999999999999999"];
        let keys: Vec<String> =
            parts.iter().flat_map(|one| parts.iter().map(move |other| format!("{one}{other}"))).collect();
        for a in &keys {
            for b in &keys {
                assert_eq!(natural(a, b), natural(b, a).reverse(), "{a} {b}");
                for c in &keys {
                    assert!(!(natural(a, b).is_lt() && natural(b, c).is_lt()) || natural(a, c).is_lt(), "{a} {b} {c}");
                }
            }
        }
    }
    use std::cmp::Ordering;

    fn check(value: serde_json::Value, expected: &str) {
        assert_eq!(print(&json!({ "v": value })), format!("v: {expected}\n"));
    }

    #[test]
    fn text_is_quoted_only_where_it_must_be() {
        for (text, shown) in [
            ("web", "web"),
            ("", "\"\""),
            ("true", "\"true\""),
            ("yes", "\"yes\""),
            ("80", "\"80\""),
            ("1e3", "\"1e3\""),
            ("0x1F", "\"0x1F\""),
            ("1.2.3", "1.2.3"),
            ("10.0.0.1", "10.0.0.1"),
            ("100m", "100m"),
            ("12:30", "\"12:30\""),
            ("windlass.local/demo:1", "windlass.local/demo:1"),
            ("2026-01-02T03:04:05Z", "\"2026-01-02T03:04:05Z\""),
            ("a: b", "'a: b'"),
            ("it's", "it's"),
            ("'quoted'", "'''quoted'''"),
            ("*", "'*'"),
            ("- x", "'- x'"),
            ("-x", "-x"),
            (" x", "' x'"),
            ("{}", "'{}'"),
            ("@x", "'@x'"),
            ("tab\there", "\"tab\\there\""),
            ("\u{1b}[31m", "\"\\e[31m\""),
            ("~", "\"~\""),
            ("null", "\"null\""),
        ] {
            check(json!(text), shown);
        }
    }

    #[test]
    fn several_lines_are_a_block() {
        check(json!("a\nb\n"), "|\n  a\n  b");
        check(json!("a\n\nb"), "|-\n  a\n\n  b");
        check(json!("a\n\n"), "|+\n  a\n");
        check(json!("\n"), "|2+\n");
        check(json!("a \nb"), "\"a \\nb\"");
        check(json!(" a\nb"), "|2-\n   a\n  b");
    }

    #[test]
    fn lists_stand_under_their_key() {
        let value = json!({"a": [{"x": 1, "z": [1, 2]}, "s", [1, [2]]], "b": {}, "c": [], "n": null});
        assert_eq!(print(&value), "a:\n- x: 1\n  z:\n  - 1\n  - 2\n- s\n- - 1\n  - - 2\nb: {}\nc: []\n\"n\": null\n");
    }

    #[test]
    fn keys_are_in_their_natural_order() {
        assert_eq!(natural("a2", "a10"), Ordering::Less);
        assert_eq!(natural("f:a", "f:b"), Ordering::Less);
        assert_eq!(natural("a.b", "ab"), Ordering::Less);
        assert_eq!(natural("a", "a1"), Ordering::Less);
        assert_eq!(print(&json!({"x10": 1, "x9": 2})), "x9: 2\nx10: 1\n");
    }

    #[test]
    fn long_text_is_folded_at_blanks() {
        let long = "word ".repeat(30);
        let shown = print(&json!({ "message": long.trim_end() }));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.len() == 2 && lines[1].starts_with("  word") && lines[0].len() > 80, "{shown}");
    }
}
