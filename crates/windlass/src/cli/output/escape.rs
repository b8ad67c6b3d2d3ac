//! What comes from a server and goes to a terminal cannot command it.
//!
//! Rules
//!   R1 control   control characters but tab and line end are shown, not sent: ESC as `^[`
//!   R2 line      a table's cell is one line; what follows is shown as `...`

use std::borrow::Cow;

/// Text of several lines, made harmless.
pub fn text(raw: &str) -> Cow<'_, str> {
    if !raw.chars().any(is_control) {
        return Cow::Borrowed(raw);
    }
    let mut shown = String::with_capacity(raw.len() + 8);
    for character in raw.chars() {
        match character {
            '\r' => shown.push_str("\\r"),
            control if is_control(control) && (control as u32) < 0x20 => {
                shown.push('^');
                shown.push(char::from(control as u8 + b'@'));
            }
            control if is_control(control) => shown.extend(control.escape_unicode()),
            other => shown.push(other),
        }
    }
    Cow::Owned(shown)
}

/// A table's cell.
pub fn cell(raw: &str) -> String {
    match raw.find(['\n', '\r', '\u{c}']) {
        Some(end) => format!("{}...", text(&raw[..end]).replace('\t', " ")),
        None => text(raw).replace('\t', " "),
    }
}

fn is_control(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::{cell, text};

    #[test]
    fn escape_sequences_are_shown_not_sent() {
        assert_eq!(text("\u{1b}[31mred\u{7}"), "^[[31mred^G");
        assert_eq!(text("\u{9b}2J\u{7f}"), "\\u{9b}2J\\u{7f}");
        assert_eq!(text("two\nlines\tand a tab"), "two\nlines\tand a tab");
        assert_eq!(text("over\rwritten"), "over\\rwritten");
    }

    #[test]
    fn a_cell_is_one_line() {
        assert_eq!(cell("first\nsecond"), "first...");
        assert_eq!(cell("a\tb"), "a b");
    }
}
