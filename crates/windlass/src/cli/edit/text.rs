//! The text that is edited: what stands at its top, and whether two texts mean the same.

use serde_json::Value;
use windlass_api::codec::{Limits, yaml};

const HEAD: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

/// Why an object is edited again.
#[derive(Debug, Clone)]
pub(super) struct Reason {
    pub head: String,
    /// What is wrong in it, field by field.
    pub others: Vec<String>,
}

/// The text with what the person should know at its top.
pub(super) fn headed(reasons: &[Reason], body: &str) -> String {
    let mut text = HEAD.to_owned();
    for reason in reasons {
        let colon = if reason.others.is_empty() { "" } else { ":" };
        text += &format!("# {}{colon}\n", commented(&reason.head));
        for other in &reason.others {
            text += &format!("# * {}\n", commented(other));
        }
        text += "#\n";
    }
    text + body
}

fn commented(text: &str) -> String {
    text.replace('\n', "\n# ")
}

/// The text without the comments at its top. Those further down may be part of a value.
pub(super) fn without_head(text: &str) -> &str {
    let mut rest = text;
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}

/// Whether there is a line that says something.
pub(super) fn has_lines(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether two texts mean the same.
pub(super) fn same(one: &str, other: &str) -> bool {
    match (read(one), read(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => without_head(one) == without_head(other),
        _ => false,
    }
}

fn read(text: &str) -> Option<Vec<Value>> {
    yaml::documents(text, Limits::default()).ok()
}

#[cfg(test)]
mod tests {
    use super::{Reason, has_lines, headed, same, without_head};

    #[test]
    fn reasons_stand_at_the_top() {
        let reasons = [
            Reason { head: "pods \"a\" was not valid".to_owned(), others: vec!["spec: one\ntwo".to_owned()] },
            Reason { head: "bad".to_owned(), others: Vec::new() },
        ];
        let text = headed(&reasons, "kind: Pod\n");
        assert!(
            text.ends_with("#\n# pods \"a\" was not valid:\n# * spec: one\n# two\n#\n# bad\n#\nkind: Pod\n"),
            "{text}"
        );
        assert_eq!(without_head(&text), "kind: Pod\n");
        assert_eq!(without_head("#"), "");
    }

    #[test]
    fn a_comment_is_no_line() {
        assert!(has_lines("# one\nkind: Pod") && !has_lines("# one\n\n  # two\n") && !has_lines(""));
    }

    #[test]
    fn comments_and_order_change_nothing() {
        assert!(same("# one\na: 1\nb: 2\n", "b: 2\na: 1"));
        assert!(!same("a: 1", "a: 2") && !same("a: 1", "a: [") && !same("a: [", "a: {"));
        assert!(same("# one\na: [", "a: ["));
    }
}
