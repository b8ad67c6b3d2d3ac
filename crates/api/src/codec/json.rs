//! JSON bodies: bounded, and with the keys that were written twice.

use serde::de::DeserializeSeed;
use serde_json::Value;

use super::tree::{Pass, Seed};
use super::{DecodeError, Decoded, Limits};

/// Decodes one JSON value. Anything but white space after it is an error.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Decoded, DecodeError> {
    let pass = Pass::new(limits, false);
    let value = read(bytes, &pass, 0)?;
    if !pass.twice.get() {
        return Ok(Decoded { value, duplicates: Vec::new() });
    }
    drop(value); // before the second tree, so that the bound holds for both
    let pass = Pass::new(limits, true);
    let value = read(bytes, &pass, 0)?;
    Ok(Decoded { value, duplicates: pass.duplicates.into_inner() })
}

/// Decodes one value at some depth, within the bounds of a pass that may already have read other parts.
pub(super) fn read(bytes: &[u8], pass: &Pass, depth: usize) -> Result<Value, DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let result = Seed { pass, depth }.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    result.map_err(|error| {
        let message = error.to_string();
        let too_deep = || DecodeError::TooDeep { max: super::DEPTH_MAX };
        match pass.budget.hit() {
            Some(hit) => hit,
            None if message.starts_with("recursion limit exceeded") => too_deep(),
            None => DecodeError::Syntax { format: "JSON", message },
        }
    })
}

/// The bytes a value takes as JSON, counted without writing them.
pub fn size(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("a tree always serialises, and counting does not fail");
    count.0
}

#[cfg(test)]
mod tests {
    use super::{decode, size};
    use crate::codec::{DecodeError, Limits};
    use serde_json::json;

    #[test]
    fn keys_written_twice_are_found_with_their_path() {
        let text = br#"{"a":1,"b":{"c":[{"d":1,"d":2},{"d":1}],"c2":0},"a":3,"a":4}"#;
        let decoded = decode(text, Limits::default()).expect("valid JSON");
        assert_eq!(decoded.value, json!({"a": 4, "b": {"c": [{"d": 2}, {"d": 1}], "c2": 0}}));
        assert_eq!(decoded.duplicates, ["b.c[0].d", "a"]);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in
            ["", "{", "{}x", "{} {}", "[1,]", "{\"a\":}", "nul", "'a'", "{\"a\":1e999}", "\u{feff}{}", "\"\\ud800\""]
        {
            assert!(matches!(decode(text.as_bytes(), Limits::default()), Err(DecodeError::Syntax { .. })), "{text}");
        }
        assert!(decode(b"\"\xff\"", Limits::default()).is_err(), "text is UTF-8");
    }

    #[test]
    fn depth_is_bounded() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
            assert!(matches!(decode(deep.as_bytes(), Limits::default()), Err(DecodeError::TooDeep { .. })), "{open}");
            let fair = format!("{}1{}", open.repeat(100), close.repeat(100));
            assert!(decode(fair.as_bytes(), Limits::default()).is_ok());
        }
    }

    #[test]
    fn memory_is_bounded() {
        let small = Limits { tree_bytes_max: 64 * 1024, ..Limits::default() };
        for text in [
            format!("[{}0]", "{\"a\":0},".repeat(100)),
            format!("[{}0]", "0,".repeat(10_000)),
            format!("\"{}\"", "x".repeat(70_000)),
        ] {
            assert_eq!(decode(text.as_bytes(), small), Err(DecodeError::TooComplex { max: 64 * 1024 }));
            assert!(decode(text.as_bytes(), Limits::default()).is_ok());
        }
    }

    #[test]
    fn numbers_keep_their_kind() {
        let decoded = decode(b"[1,-1,1.0,18446744073709551615,1e2]", Limits::default()).expect("numbers");
        assert_eq!(decoded.value, json!([1, -1, 1.0, 18_446_744_073_709_551_615u64, 100.0]));
        assert_eq!(size(&json!({"a": [1, "\n"]})), r#"{"a":[1,"\n"]}"#.len());
    }
}
