//! The server's tables, printed: the rows and columns that were asked for, aligned, for as long as they come.
//!
//! Rules
//!   R1 columns   those of priority 0; `wide` shows all
//!   R2 before    a namespace column where all namespaces are shown
//!   R3 behind    columns of labels, then all labels
//!   R4 titles    once, unless refused; a watch keeps its widths
//!   R5 kind      where several kinds are shown, names carry theirs

use serde_json::Value;

use super::align::Rows;
use super::escape;
use super::paint::Paint;

/// What is shown of a table.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// All columns.
    pub wide: bool,
    /// No line of titles.
    pub no_titles: bool,
    /// The namespace comes first.
    pub with_namespace: bool,
    /// Names carry their kind, such as `deployment.apps`.
    pub with_kind: Option<String>,
    /// Labels that get a column each.
    pub label_columns: Vec<String>,
    /// All labels in one column.
    pub show_labels: bool,
}

/// Prints tables of one kind.
pub struct Printer {
    look: Look,
    paint: Paint,
    rows: Rows,
    titled: bool,
    /// Which cells to show, and the titles: a watch says them once.
    columns: Vec<(usize, String)>,
}

impl Printer {
    /// A printer that has shown nothing.
    pub fn new(look: Look, paint: Paint) -> Printer {
        Printer { look, paint, rows: Rows::default(), titled: false, columns: Vec::new() }
    }

    /// The text of these rows. `event` is shown first where the changes themselves are asked for.
    pub fn print(&mut self, table: &Value, rows: &[Value], event: Option<&str>) -> String {
        if let Some(definitions) = table["columnDefinitions"].as_array()
            && !definitions.is_empty()
        {
            self.columns = columns(definitions, self.look.wide);
        }
        let mut lines = Vec::new();
        let titles = !self.titled && !self.look.no_titles;
        self.titled = true;
        if titles {
            lines.push(self.titles(event.is_some()));
        }
        lines.extend(rows.iter().map(|row| self.row(row, event)));
        if event.is_some() {
            // every word that may stand here, from the first line on
            self.rows.reserve(0, "MODIFIED");
        }
        let paint = self.paint;
        self.rows.align(&lines, |line, _, cell| if titles && line == 0 { paint.title(cell) } else { paint.cell(cell) })
    }

    fn titles(&self, with_event: bool) -> Vec<String> {
        let mut titles = Vec::new();
        if with_event {
            titles.push("EVENT".to_owned());
        }
        if self.look.with_namespace {
            titles.push("NAMESPACE".to_owned());
        }
        titles.extend(self.columns.iter().map(|(_, title)| title.clone()));
        let last = |label: &String| label.rsplit('/').next().unwrap_or_default().to_uppercase();
        titles.extend(self.look.label_columns.iter().map(last));
        if self.look.show_labels {
            titles.push("LABELS".to_owned());
        }
        titles
    }

    fn row(&self, row: &Value, event: Option<&str>) -> Vec<String> {
        let metadata = &row["object"]["metadata"];
        let mut cells: Vec<String> = event.map(str::to_owned).into_iter().collect();
        if self.look.with_namespace {
            cells.push(escape::cell(metadata["namespace"].as_str().unwrap_or_default()));
        }
        for (shown, (index, _)) in self.columns.iter().enumerate() {
            let text = cell(&row["cells"][*index]);
            cells.push(match &self.look.with_kind {
                Some(kind) if shown == 0 => format!("{kind}/{text}"),
                _ => text,
            });
        }
        let labels = &metadata["labels"];
        cells.extend(
            self.look.label_columns.iter().map(|label| escape::cell(labels[label].as_str().unwrap_or_default())),
        );
        if self.look.show_labels {
            cells.push(escape::cell(&labels_text(labels)));
        }
        cells
    }
}

/// R1.
fn columns(definitions: &[Value], wide: bool) -> Vec<(usize, String)> {
    let shown = |definition: &Value| wide || definition["priority"].as_i64().unwrap_or(0) == 0;
    let title = |definition: &Value| escape::cell(definition["name"].as_str().unwrap_or_default()).to_uppercase();
    let all = definitions.iter().enumerate();
    all.filter(|(_, definition)| shown(definition)).map(|(index, definition)| (index, title(definition))).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape::cell(text),
        other => escape::cell(&other.to_string()),
    }
}

/// `a=b,c=d`, or `<none>`.
pub fn labels_text(labels: &Value) -> String {
    let entries: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if entries.is_empty() { "<none>".to_owned() } else { entries.join(",") }
}

#[cfg(test)]
mod tests {
    use super::{Look, Printer};
    use crate::cli::output::paint::Paint;
    use serde_json::{Value, json};

    fn table() -> Value {
        json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready"}, {"name": "Node", "priority": 1}],
            "rows": [
                {"cells": ["web", 1, "n1"], "object": {"metadata": {"namespace": "a", "labels": {"app": "web"}}}},
                {"cells": ["\u{1b}[2J", null, "n2"], "object": {"metadata": {"namespace": "b"}}},
            ],
        })
    }

    fn check(look: Look, expected: &str) {
        let table = table();
        let rows = table["rows"].as_array().expect("rows");
        let printed = Printer::new(look, Paint::none()).print(&table, rows, None);
        assert_eq!(printed, expected);
    }

    #[test]
    fn lesser_columns_are_shown_when_wide_only() {
        check(Look::default(), "NAME    READY\nweb     1\n^[[2J   \n");
        check(Look { wide: true, no_titles: true, ..Look::default() }, "web     1     n1\n^[[2J         n2\n");
    }

    #[test]
    fn namespace_kind_and_labels_are_added() {
        let look = Look {
            with_namespace: true,
            with_kind: Some("deployment.apps".to_owned()),
            label_columns: vec!["x/app".to_owned()],
            show_labels: true,
            no_titles: true,
            ..Look::default()
        };
        check(
            look,
            "a     deployment.apps/web     1           app=web\nb     deployment.apps/^[[2J               <none>\n",
        );
    }

    #[test]
    fn titles_come_once() {
        let table = table();
        let rows = table["rows"].as_array().expect("rows");
        let mut printer = Printer::new(Look::default(), Paint::none());
        printer.print(&table, rows, None);
        assert_eq!(printer.print(&json!({}), &rows[..1], None), "web     1\n");
    }
}
