//! YAML bodies and manifest files: bounded before they grow, so that alias bombs cost nothing.
//!
//! Plain scalars are read as kubectl reads them (YAML 1.1 where 1.2 differs): `yes no on off y n` are bools, `0644` is
//! octal, `~` is null; quote what shall be text. Keys are always text. Merge keys (`<<`) are expanded. Keys written
//! twice are an error. A body holds one document; a file may hold several.

use serde::de::DeserializeSeed;
use serde_json::Value;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

use super::tree::{Pass, Seed};
use super::{DEPTH_MAX, DecodeError, Decoded, Limits};

/// Documents of one file.
pub const DOCUMENTS_MAX: usize = 1_000;
/// Markers between them; more mark off nothing, and each costs a reader.
const MARKERS_MAX: usize = 10 * DOCUMENTS_MAX;
/// Parser events of one document, aliases expanded: half a million keys with values.
const EVENTS_MAX: usize = 1_000_000;
/// Aliases of one document; each may repeat a whole tree.
const ALIASES_MAX: usize = 1_000;
/// Events that aliases may repeat in all: what one body could hold without them.
const REPLAYED_EVENTS_MAX: usize = 100_000;
/// Stack of the reading thread: three times what the deepest document was seen to take, unoptimised.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Text that anchors may hold back for their aliases.
const ANCHORED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Decodes one document. A second document is an error.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Decoded, DecodeError> {
    let mut documents = documents(text_of(bytes)?, limits)?;
    match (documents.pop(), documents.len()) {
        (Some(value), 0) => Ok(Decoded { value, duplicates: Vec::new() }),
        (None, _) => Err(syntax("expected one document, found none".to_owned())),
        (Some(_), more) => Err(syntax(format!("expected one document, found {}", more + 1))),
    }
}

/// Decodes every document of a manifest file, empty ones left out. The bounds hold for all of them together.
///
/// Runs on a thread of its own, which it waits for: the YAML reader takes up to 20 KiB of stack for each level, so that
/// 128 levels would not fit beside what a task has on its stack already. YAML is what people send, so the 50 µs are rare.
pub fn documents(text: &str, limits: Limits) -> Result<Vec<Value>, DecodeError> {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("yaml".to_owned()).stack_size(STACK_BYTES);
        match reader.spawn_scoped(scope, || documents_here(text, limits)) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(DecodeError::NoThread { why: error.to_string() }),
        }
    })
}

fn documents_here(text: &str, limits: Limits) -> Result<Vec<Value>, DecodeError> {
    let pass = Pass::new(limits, false);
    let mut found = Vec::new();
    for (index, document) in split(text).enumerate() {
        if index > MARKERS_MAX {
            return Err(syntax(format!("expected at most {MARKERS_MAX} document markers, found more")));
        }
        let value = read(document, &pass)?;
        if value.is_null() {
            continue;
        }
        if found.len() == DOCUMENTS_MAX {
            return Err(syntax(format!("expected at most {DOCUMENTS_MAX} documents, found more")));
        }
        found.push(value);
    }
    Ok(found)
}

fn text_of(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|error| syntax(format!("expected UTF-8, found {error}")))
}

fn syntax(message: String) -> DecodeError {
    DecodeError::Syntax { format: "YAML", message }
}

/// Splits at lines that begin with `---`, as kubectl does. Text that follows on such a line belongs to its document.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut from = 0;
        while let Some(at) = text[from..].find("\n---").map(|at| from + at + 1) {
            let after = &text[at + 3..];
            if after.is_empty() || after.starts_with(char::is_whitespace) {
                rest = Some(&text[at..]);
                // the next document keeps its marker, so that its first line may carry content
                if text[..at].trim().is_empty() {
                    return Some("");
                }
                return Some(&text[..at]);
            }
            from = at;
        }
        rest = None;
        Some(text)
    })
}

fn read(document: &str, pass: &Pass) -> Result<Value, DecodeError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            flow_nesting_limit: DEPTH_MAX,
            max_depth: DEPTH_MAX,
            max_events: EVENTS_MAX,
            max_nodes: EVENTS_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_recorded_anchor_events: REPLAYED_EVENTS_MAX,
            max_recorded_anchor_bytes: ANCHORED_BYTES_MAX,
            max_merge_keys: ALIASES_MAX,
            enforce_alias_anchor_ratio: false,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        legacy_octal_numbers: true,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPLAYED_EVENTS_MAX },
        emit_comments: false,
        with_snippet: false,
    };
    let seed = Seed { pass, depth: 0 };
    let read =
        serde_saphyr::with_deserializer_from_str_with_options(document, options, |reader| seed.deserialize(reader));
    read.map_err(|error| pass.budget.hit().unwrap_or_else(|| syntax(cut(&error.to_string()))))
}

fn cut(text: &str) -> String {
    const MESSAGE_CHARS_MAX: usize = 512;
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::{decode, documents};
    use crate::codec::Limits;
    use serde_json::{Value, json};

    fn read(text: &str) -> Result<Value, String> {
        decode(text.as_bytes(), Limits::default()).map(|decoded| decoded.value).map_err(|error| error.to_string())
    }

    #[test]
    fn plain_scalars_are_read_as_kubectl_reads_them() {
        for (text, value) in [
            ("yes", json!(true)),
            ("off", json!(false)),
            ("True", json!(true)),
            ("\"yes\"", json!("yes")),
            ("~", Value::Null),
            ("null", Value::Null),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x10", json!(16)),
            ("12", json!(12)),
            ("-3", json!(-3)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("100m", json!("100m")),
            ("1.2.3", json!("1.2.3")),
            ("'12'", json!("12")),
            ("2026-01-02T03:04:05Z", json!("2026-01-02T03:04:05Z")),
            ("2026-01-02", json!("2026-01-02")),
            ("12:30", json!("12:30")),
            ("99999999999999999999", json!(1e20)),
            ("text with: colon", Value::Null),
        ] {
            let read = read(&format!("v: {text}\n"));
            match text {
                "text with: colon" => assert!(read.is_err(), "{read:?}"),
                _ => assert_eq!(read, Ok(json!({"v": value})), "{text}"),
            }
        }
        assert_eq!(read("1: a\ntrue: b\n"), Ok(json!({"1": "a", "true": "b"})), "keys are text");
        assert_eq!(read("a: |\n  x\n  y\nb: >-\n  x\n  y\n"), Ok(json!({"a": "x\ny\n", "b": "x y"})));
        assert_eq!(
            read("base: &b {x: 1, y: 2}\nd:\n  <<: *b\n  y: 3\n"),
            Ok(json!({"base": {"x": 1, "y": 2}, "d": {"x": 1, "y": 3}}))
        );
        assert_eq!(read("{\"json\": [1, \"two\"]}"), Ok(json!({"json": [1, "two"]})));
    }

    #[test]
    fn what_is_no_single_document_is_refused() {
        for (text, part) in [
            ("a: 1\na: 2\n", "duplicate"),
            ("a: 1\n---\nb: 2\n", "found 2"),
            ("# nothing\n", "found none"),
            ("a: [1\n", ""),
            ("a: *b\n", ""),
            ("a: .inf\n", ""),
            ("a: \u{1}\n", ""),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
        assert!(decode(b"a: \xff\n", Limits::default()).is_err());
    }

    #[test]
    fn files_hold_several_documents() {
        let text = "# first\n---\na: 1\n---\n\n---\n# empty\n--- {b: 2}\n---  # note\nc: |\n  x\n  --- y\n---\n";
        let found = documents(text, Limits::default());
        assert_eq!(found, Ok(vec![json!({"a": 1}), json!({"b": 2}), json!({"c": "x\n--- y\n"})]));
        assert_eq!(documents("a: 1\n---b: 2\n", Limits::default()), Ok(vec![json!({"a": 1, "---b": 2})]), "no marker");
        assert!(documents(&"a: 1\n---\n".repeat(1_001), Limits::default()).is_err());
    }

    #[test]
    fn alias_bombs_are_refused_before_they_grow() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 9].join(",")));
        }
        assert!(read(&bomb).is_err());
        let wide = format!("a: &a {:?}\nb: [{}]\n", "x".repeat(1_000_000), vec!["*a"; 900].join(","));
        assert!(read(&wide).is_err(), "900 MB of repeated text");
    }

    #[test]
    fn processor_bombs_are_refused() {
        for text in [
            "[".repeat(300_000),
            "{".repeat(300_000),
            "? ".repeat(300_000),
            "- ".repeat(300_000),
            format!("a: {}", "9".repeat(300_000)) + ": b",
            "---\n".repeat(300_000),
        ] {
            assert!(read(&text).is_err(), "{}", &text[..8]);
        }
        let fair = format!("{}1{}", "{a: ".repeat(100), "}".repeat(100));
        assert!(read(&fair).is_ok());
    }
}
