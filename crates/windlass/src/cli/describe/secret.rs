//! Secret: its keys with their sizes, never what they hold.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::sheet::{Sheet, pairs, text};

pub(super) fn describe(sheet: &mut Sheet, object: &Value) -> bool {
    sheet.identity(object);
    sheet.line(0, format_args!("\nType:\t{}", text(object, "type")));
    sheet.line(0, "\nData\n====");
    for (key, value) in pairs(&object["data"]) {
        let bytes = BASE64.decode(value).map(|bytes| bytes.len()).unwrap_or(0);
        sheet.line(0, format_args!("{key}:\t{bytes} bytes"));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::describe;
    use crate::cli::describe::sheet::Sheet;
    use serde_json::json;

    #[test]
    fn what_a_secret_holds_is_not_shown() {
        let mut sheet = Sheet::default();
        describe(&mut sheet, &json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"k": "c2VjcmV0"}}));
        assert!(sheet.text.contains("k:\t6 bytes") && !sheet.text.contains("c2Vj"), "{}", sheet.text);
    }
}
