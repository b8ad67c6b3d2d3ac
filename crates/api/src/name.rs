//! What names, labels and keys may look like, and what is said when they do not.
//!
//! Each rule gives the reasons why a text breaks it; none means that it is fine. The wording is Kubernetes' own, since
//! clients and people look for it.
//! Source: API concepts, "Object names and IDs" and "Labels and selectors"; RFC 1035, RFC 1123, RFC 6335.

const LABEL_BYTES_MAX: usize = 63;
const SUBDOMAIN_BYTES_MAX: usize = 253;
const PORT_NAME_BYTES_MAX: usize = 15;

const LABEL_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_KEY_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_RULE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// How the objects of a kind may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS subdomain: most kinds.
    Subdomain,
    /// A DNS label: what becomes one part of a DNS name.
    Label,
    /// A DNS label that starts with a letter.
    LetterLabel,
    /// Whatever fits into one part of a URL.
    PathSegment,
}

impl NameRule {
    /// Why `name` is no name for an object.
    pub fn errors(self, name: &str) -> Vec<String> {
        match self {
            NameRule::Subdomain => subdomain(name),
            NameRule::Label => label(name),
            NameRule::LetterLabel => letter_label(name),
            NameRule::PathSegment => path_segment(name),
        }
    }

    /// Why names that begin with `prefix` cannot be valid. A prefix may end with a dash, which is not its last character.
    pub fn prefix_errors(self, prefix: &str) -> Vec<String> {
        if self == NameRule::PathSegment {
            return path_segment_prefix(prefix);
        }
        match prefix.strip_suffix('-') {
            Some(head) if !head.is_empty() => self.errors(&format!("{head}a")),
            _ => self.errors(prefix),
        }
    }
}

/// Bytes of a generated name: what every rule allows.
const GENERATED_BYTES_MAX: usize = LABEL_BYTES_MAX;
/// Characters that make a generated name unique.
pub const GENERATED_SUFFIX_CHARS: usize = 5;

/// A name from `metadata.generateName`: the prefix, cut so that the name stays a label, and five characters drawn from
/// `random`. The alphabet has no vowels and no look-alikes, so that no words come out.
pub fn generate(prefix: &str, random: u64) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut end = prefix.len().min(GENERATED_BYTES_MAX - GENERATED_SUFFIX_CHARS);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    let mut left = random;
    for _ in 0..GENERATED_SUFFIX_CHARS {
        name.push(char::from(ALPHABET[(left % ALPHABET.len() as u64) as usize]));
        left /= ALPHABET.len() as u64;
    }
    name
}

/// RFC 1123 label: one part of a DNS name.
pub fn label(text: &str) -> Vec<String> {
    let mut errors = too_long(text, LABEL_BYTES_MAX, "characters");
    if !is_label(text) {
        // A text that is only too deep is told so in the words of a subdomain, which it is.
        if is_subdomain(text) {
            errors.push("must not contain dots".to_owned());
        } else {
            errors.push(matching(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL_PATTERN,
                &["my-name", "123-abc"],
            ));
        }
    }
    errors
}

/// RFC 1123 subdomain: labels with dots between them.
pub fn subdomain(text: &str) -> Vec<String> {
    subdomain_errors(text, "characters")
}

/// `unit` is how the limit is worded: Kubernetes says bytes for label keys and values, characters elsewhere.
fn subdomain_errors(text: &str, unit: &str) -> Vec<String> {
    let mut errors = too_long(text, SUBDOMAIN_BYTES_MAX, unit);
    if !is_subdomain(text) {
        errors.push(matching(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            &format!("{LABEL_PATTERN}(\\.{LABEL_PATTERN})*"),
            &["example.com"],
        ));
    }
    errors
}

/// A subdomain whose labels may begin with and hold underscores: names in DNS that are no names of hosts.
pub fn subdomain_with_underscore(text: &str) -> Vec<String> {
    const PATTERN: &str = "[a-z0-9_]([-_a-z0-9]*[a-z0-9])?";
    let mut errors = too_long(text, SUBDOMAIN_BYTES_MAX, "characters");
    let is_part = |part: &str| !part.ends_with('_') && is_label(&part.replace('_', "a"));
    if !text.split('.').all(is_part) {
        errors.push(matching(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and must \
             start with an alphanumeric character or '_' and end with an alphanumeric character",
            &format!("{PATTERN}(\\.{PATTERN})*"),
            &["example.com"],
        ));
    }
    errors
}

/// A subdomain below `*.`, which stands for any one label.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut errors = too_long(text, SUBDOMAIN_BYTES_MAX, "characters");
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        errors.push(matching(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{LABEL_PATTERN}(\\.{LABEL_PATTERN})*"),
            &["*.example.com"],
        ));
    }
    errors
}

/// A path below a domain: `example.com/name`.
pub fn domain_path(text: &str) -> Vec<String> {
    const PATH_PATTERN: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
    match text.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            let mut errors = subdomain(domain);
            if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
                errors.push(format!("invalid path (regex used for validation is '{PATH_PATTERN}')"));
            }
            errors
        }
        _ => vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()],
    }
}

/// A label key that has a domain: `example.com/name`.
pub fn domain_key(text: &str) -> Vec<String> {
    let errors = label_key(text);
    if errors.is_empty() && !text.contains('/') {
        return vec!["must be a domain-prefixed key (such as \"acme.io/foo\")".to_owned()];
    }
    errors
}

/// The reason of a condition: a word in CamelCase.
pub fn condition_reason(text: &str) -> Vec<String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let is_reason = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|&byte| is_inner(byte))
        && bytes.iter().all(|&byte| is_inner(byte) || b",:".contains(&byte));
    if is_reason {
        return Vec::new();
    }
    let rule = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
                characters or '_,:', and must end with an alphanumeric character or '_'";
    vec![matching(rule, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB"])]
}

/// An identifier of C: letters, digits and `_`, no digit first.
pub fn c_identifier(text: &str) -> Vec<String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with(|first: char| first.is_ascii_digit()) {
        return Vec::new();
    }
    let rule = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
                characters or '_'";
    vec![matching(rule, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// RFC 1035 label: starts with a letter.
pub fn letter_label(text: &str) -> Vec<String> {
    let mut errors = too_long(text, LABEL_BYTES_MAX, "characters");
    if !is_label(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        errors.push(matching(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// One part of a URL.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => path_segment_prefix(text),
    }
}

/// What the API server takes in a path (A13): an object that is called otherwise could never be read again.
fn path_segment_prefix(text: &str) -> Vec<String> {
    let found = ['/', '%', '\\', ';'].into_iter().filter(|&found| text.contains(found));
    let mut errors: Vec<String> = found.map(|found| format!("may not contain '{found}'")).collect();
    if text.contains(char::is_control) {
        errors.push("may not contain control characters".to_owned());
    }
    errors
}

/// The key of a label, and every other qualified name: `name` or `prefix/name`.
pub fn label_key(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            let rule = matching(&format!("a valid label key {LABEL_KEY_RULE}"), LABEL_KEY_PATTERN, LABEL_KEY_EXAMPLES);
            return vec![format!("{rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
        Some(("", name)) => {
            errors.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            errors.extend(subdomain_errors(prefix, "bytes").into_iter().map(|error| format!("prefix part {error}")));
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        errors.push(format!("name part must be no more than {LABEL_BYTES_MAX} bytes"));
    }
    if !is_label_name(name) {
        errors.push(format!("name part {}", matching(LABEL_KEY_RULE, LABEL_KEY_PATTERN, LABEL_KEY_EXAMPLES)));
    }
    errors
}

const LABEL_KEY_EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut errors = too_long(text, LABEL_BYTES_MAX, "bytes");
    if !text.is_empty() && !is_label_name(text) {
        errors.push(matching(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            &format!("({LABEL_KEY_PATTERN})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// The key of a ConfigMap or Secret, which may become a file name.
pub fn config_key(text: &str) -> Vec<String> {
    let mut errors = too_long(text, SUBDOMAIN_BYTES_MAX, "characters");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        errors.push(matching(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// The name of an environment variable.
pub fn env_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if text.bytes().all(|byte| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// The name of a port, RFC 6335.
pub fn port_name(text: &str) -> Vec<String> {
    let mut errors = too_long(text, PORT_NAME_BYTES_MAX, "characters");
    if text.is_empty() || !text.bytes().all(is_label_byte) {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// The name of an HTTP header.
pub fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![matching(rule, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_label_byte) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_label_name(text: &str) -> bool {
    let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn too_long(text: &str, bytes_max: usize, unit: &str) -> Vec<String> {
    if text.len() > bytes_max { vec![format!("must be no more than {bytes_max} {unit}")] } else { Vec::new() }
}

fn matching(rule: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{rule} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::{
        NameRule, config_key, env_name, generate, label, label_key, label_value, path_segment, port_name, subdomain,
    };

    /// Checks that the rule says something that contains `expected`, or nothing where that is empty.
    fn check(rule: fn(&str) -> Vec<String>, text: &str, expected: &[&str]) {
        let found = rule(text);
        assert_eq!(found.len(), expected.len(), "{text:?}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{text:?}: {found}, expected {expected}");
        }
    }

    #[test]
    fn a_path_segment_is_what_a_path_may_say() {
        for good in ["a", "system:node", "A b", "ä"] {
            check(path_segment, good, &[]);
        }
        check(path_segment, "..", &["may not be '..'"]);
        check(path_segment, "a/b%", &["may not contain '/'", "may not contain '%'"]);
        check(path_segment, "a;\\", &["may not contain '\\'", "may not contain ';'"]);
        for bad in ["\0", "a\nb", "\u{7f}"] {
            check(path_segment, bad, &["may not contain control characters"]);
        }
    }

    #[test]
    fn labels_and_subdomains_are_dns_names() {
        let long = "a".repeat(64);
        for good in ["a", "a-b", "0", &long[..63]] {
            check(label, good, &[]);
        }
        check(label, "a.b", &["must not contain dots"]);
        check(label, &long, &["no more than 63 characters"]);
        for bad in ["", "-a", "a-", "A", "a_b", "ä", "a b", "../x"] {
            check(label, bad, &["regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?'"]);
        }
        check(subdomain, "a.b-c.d", &[]);
        check(subdomain, "a..b", &["(e.g. 'example.com', regex used"]);
        check(subdomain, &format!("{}.{}", "a".repeat(200), "b".repeat(60)), &["no more than 253 characters"]);
    }

    #[test]
    fn the_wording_of_a_bad_name_is_the_one_people_search_for() {
        assert_eq!(
            subdomain("Bad_Name"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
              start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            label_value("a b"),
            ["a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
              start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
              for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"]
        );
    }

    #[test]
    fn label_keys_have_an_optional_prefix() {
        for good in ["app", "example.com/My_App.1", "a/b"] {
            check(label_key, good, &[]);
        }
        check(label_key, "/a", &["prefix part must be non-empty"]);
        check(label_key, "a/", &["name part must be non-empty", "name part must consist"]);
        check(label_key, "a/b/c", &["a valid label key must consist"]);
        check(label_key, "A.b/c", &["prefix part a lowercase RFC 1123 subdomain"]);
        check(label_key, &"k".repeat(64), &["name part must be no more than 63 bytes"]);
        check(label_value, "", &[]);
        check(label_value, &"v".repeat(64), &["must be no more than 63 bytes"]);
    }

    #[test]
    fn keys_that_become_files_stay_in_their_directory() {
        check(config_key, "a.b_c-D", &[]);
        check(config_key, "..", &["must not be '..'"]);
        check(config_key, ".", &["must not be '.'"]);
        check(config_key, "..data", &["must not start with '..'"]);
        check(config_key, "a/b", &["a valid config key"]);
        check(config_key, "", &["a valid config key"]);
    }

    #[test]
    fn environment_and_port_names() {
        check(env_name, "A b-1", &[]);
        check(env_name, "", &["must be non-empty"]);
        check(env_name, "A=b", &["printable ASCII"]);
        check(env_name, "A\n", &["printable ASCII"]);
        check(port_name, "http", &[]);
        check(port_name, "1-2", &["at least one letter"]);
        check(port_name, "-a--b", &["consecutive", "begin or end"]);
        check(port_name, "much-too-long-name", &["no more than 15 characters"]);
    }

    #[test]
    fn generated_names_fit_into_a_label() {
        let name = generate(&"x".repeat(100), 12_345);
        assert_eq!(name.len(), 63);
        assert!(label(&name).is_empty());
        assert_ne!(generate("web-", 1), generate("web-", 2));
        assert!(generate("web-", u64::MAX).starts_with("web-"));
        assert!(NameRule::Subdomain.prefix_errors("web-").is_empty());
        assert!(!NameRule::Subdomain.prefix_errors("Web-").is_empty());
        assert!(!NameRule::Subdomain.prefix_errors("-").is_empty());
        assert!(NameRule::PathSegment.errors("Odd:Name").is_empty());
        assert_eq!(NameRule::PathSegment.errors(".."), ["may not be '..'"]);
    }
}
