//! `-o custom-columns=TITLE:PATH,…`: a table that its reader makes up.

use anyhow::{Result, bail};
use serde_json::Value;

use super::escape;
use super::jsonpath::{Path, text_of};

/// Columns: titles and where their cells come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns(Vec<(String, Path)>);

const NONE: &str = "<none>";

impl Columns {
    /// Reads `NAME:.metadata.name,IMAGE:.spec.containers[*].image`.
    pub fn parse(text: &str) -> Result<Columns> {
        if text.is_empty() {
            bail!("custom-columns format specified but no custom columns given");
        }
        let mut columns = Vec::new();
        for part in split(text) {
            let Some((title, path)) = part.split_once(':') else {
                bail!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>");
            };
            columns.push((title.to_owned(), Path::relaxed(path)?));
        }
        Ok(Columns(columns))
    }

    /// The line of titles.
    pub fn titles(&self) -> Vec<String> {
        self.0.iter().map(|(title, _)| title.clone()).collect()
    }

    /// An object's line.
    pub fn row(&self, object: &Value) -> Vec<String> {
        self.0.iter().map(|(_, path)| cell(path, object)).collect()
    }
}

fn cell(path: &Path, object: &Value) -> String {
    let found = path.find(object, object, false).unwrap_or_default();
    let texts: Vec<String> = found
        .into_iter()
        .map(|value| if value.is_null() { NONE.to_owned() } else { escape::cell(&shown(value)) })
        .collect();
    if texts.is_empty() { NONE.to_owned() } else { texts.join(",") }
}

/// Maps and lists as Go prints them, which is what readers of this form know.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(" "))
        }
        other => text_of(other),
    }
}

/// Splits at commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::Columns;
    use serde_json::json;

    #[test]
    fn cells_come_from_their_paths() {
        let columns = Columns::parse("NAME:.metadata.name,IMAGES:spec.c[*].image,X:{.x},L:.l").expect("columns");
        let object =
            json!({"metadata": {"name": "a"}, "spec": {"c": [{"image": "i"}, {"image": "j"}]}, "l": {"k": "v"}});
        assert_eq!(columns.titles(), ["NAME", "IMAGES", "X", "L"]);
        assert_eq!(columns.row(&object), ["a", "i,j", "<none>", "map[k:v]"]);
    }

    #[test]
    fn a_column_without_a_path_is_refused() {
        assert!(Columns::parse("NAME").is_err());
        assert!(Columns::parse("").is_err());
    }
}
