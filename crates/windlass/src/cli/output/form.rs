//! `-o`: the form in which objects are printed.

use anyhow::{Result, bail};

use super::custom::Columns;
use super::jsonpath::Template;

/// What `-o` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// A table for people; `wide` with the columns of lesser importance.
    Table {
        /// All columns.
        wide: bool,
    },
    /// JSON over several lines.
    Json,
    /// YAML.
    Yaml,
    /// `pod/name`.
    Name,
    /// A JSONPath template.
    JsonPath(Template),
    /// A JSONPath template whose results are printed as a JSON list.
    JsonPathAsJson(Template),
    /// Columns of one's own.
    Columns(Columns),
}

const ALLOWED: &str = "custom-columns,json,jsonpath,jsonpath-as-json,name,wide,yaml";

impl Form {
    /// Reads the value of `-o`; empty is the table.
    pub fn parse(text: &str) -> Result<Form> {
        let (word, rest) = match text.split_once('=') {
            Some((word, rest)) => (word, Some(rest)),
            None => (text, None),
        };
        let template = |rest: Option<&str>| match rest {
            Some(template) if !template.is_empty() => Template::parse(template),
            _ => bail!("template format specified but no template given"),
        };
        match (word, rest) {
            ("", None) => Ok(Form::Table { wide: false }),
            ("wide", None) => Ok(Form::Table { wide: true }),
            ("json", None) => Ok(Form::Json),
            ("yaml", None) => Ok(Form::Yaml),
            ("name", None) => Ok(Form::Name),
            ("jsonpath", rest) => Ok(Form::JsonPath(template(rest)?)),
            ("jsonpath-as-json", rest) => Ok(Form::JsonPathAsJson(template(rest)?)),
            ("custom-columns", rest) => Ok(Form::Columns(Columns::parse(rest.unwrap_or_default())?)),
            _ => bail!(
                "unable to match a printer suitable for the output format {text:?}, allowed formats are: {ALLOWED}"
            ),
        }
    }

    /// Whether the server is asked for a table.
    pub fn is_table(&self) -> bool {
        matches!(self, Form::Table { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn forms_are_known_by_their_names() {
        assert_eq!(Form::parse("").expect("a table"), Form::Table { wide: false });
        assert_eq!(Form::parse("wide").expect("a table"), Form::Table { wide: true });
        assert!(matches!(Form::parse("jsonpath={.a[?(@.b=='c')]}"), Ok(Form::JsonPath(_))));
        assert!(matches!(Form::parse("custom-columns=A:.a"), Ok(Form::Columns(_))));
        for text in ["xml", "jsonpath", "jsonpath=", "json=1", "custom-columns"] {
            assert!(Form::parse(text).is_err(), "{text}");
        }
    }
}
