//! How property names that are no identifiers are spelt in expressions.
//!
//! Source: Kubernetes "CEL in Kubernetes", escaping of property names.

/// Words that expressions cannot use as names.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The spelling of a property; `None` for one that cannot be spelt.
pub fn escape(property: &str) -> Option<String> {
    let mut chars = property.chars();
    let spellable = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || "_.-/".contains(first))
        && chars.all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c));
    if !spellable {
        return None;
    }
    if RESERVED.contains(&property) {
        return Some(format!("__{property}__"));
    }
    let escaped = property.replace("__", "__underscores__");
    Some(escaped.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

/// The property that a spelling stands for.
pub fn unescape(spelt: &str) -> String {
    let word = spelt.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = word.filter(|word| RESERVED.contains(word)) {
        return word.to_owned();
    }
    let plain = spelt.replace("__dot__", ".").replace("__dash__", "-").replace("__slash__", "/");
    plain.replace("__underscores__", "__")
}

/// Whether the word cannot be the name of a variable.
pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::{escape, unescape};

    #[test]
    fn properties_are_spelt_as_kubernetes_spells_them() {
        for (property, spelt) in [
            ("plain", Some("plain")),
            ("a_b", Some("a_b")),
            ("a__b", Some("a__underscores__b")),
            ("a-b", Some("a__dash__b")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("namespace", Some("__namespace__")),
            ("in", Some("__in__")),
            ("int", Some("int")),
            ("_", Some("_")),
            ("", None),
            ("1a", None),
            ("a b", None),
            ("é", None),
        ] {
            assert_eq!(escape(property).as_deref(), spelt, "{property}");
            if let Some(spelt) = spelt {
                assert_eq!(unescape(spelt), property);
            }
        }
    }
}
