//! JSON as kubectl prints it: keys in order, four blanks a level, and `<`, `>` and `&` escaped.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

/// Over several lines, with a line end.
pub fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        .expect("a tree with string keys always serialises");
    escaped(&String::from_utf8(bytes).expect("JSON is UTF-8")) + "\n"
}

/// On one line, without a line end.
pub fn compact(value: &Value) -> String {
    escaped(&value.to_string())
}

/// These characters stand in strings only.
fn escaped(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
        .replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::pretty;
    use serde_json::json;

    #[test]
    fn objects_are_printed_as_kubectl_does() {
        let value = json!({"b": [], "a": {"x": "<&>", "y": [1, "two"]}, "c": {}});
        let expected = "{\n    \"a\": {\n        \"x\": \"\\u003c\\u0026\\u003e\",\n        \"y\": [\n            1,\n            \"two\"\n        ]\n    },\n    \"b\": [],\n    \"c\": {}\n}\n";
        assert_eq!(pretty(&value), expected);
    }
}
