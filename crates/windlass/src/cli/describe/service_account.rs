//! ServiceAccount: which secrets pull its pods' images.

use serde_json::Value;

use super::sheet::{Sheet, items, text};

pub(super) fn describe(sheet: &mut Sheet, object: &Value) -> bool {
    sheet.identity(object);
    let names: Vec<String> =
        items(object, "imagePullSecrets").iter().map(|secret| text(secret, "name").to_owned()).collect();
    sheet.column(0, "Image pull secrets", &names);
    true
}
