//! ConfigMap: its keys with their texts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::sheet::{Sheet, pairs};

pub(super) fn describe(sheet: &mut Sheet, object: &Value) -> bool {
    sheet.identity(object);
    sheet.line(0, "\nData\n====");
    for (key, value) in pairs(&object["data"]) {
        sheet.line(0, format_args!("{key}:\n----\n{value}\n"));
    }
    sheet.line(0, "\nBinaryData\n====");
    for (key, value) in pairs(&object["binaryData"]) {
        let bytes = BASE64.decode(value).map(|bytes| bytes.len()).unwrap_or(0);
        sheet.line(0, format_args!("{key}: {bytes} bytes"));
    }
    sheet.line(0, "");
    true
}
