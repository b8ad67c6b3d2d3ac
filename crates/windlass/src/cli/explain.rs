//! `windlass explain`: what the fields of a kind mean, from the server's own OpenAPI v3.
//!
//! Rules
//!   R1 path       KIND.field.field: lists and maps are gone through without a sign
//!   R2 text       descriptions are wrapped; a field without one says so
//!   R3 recursive  with `--recursive` the names and types of all fields below, and no descriptions; a type inside itself
//!                 is not shown again
//! Source: OpenAPI 3.0 as Kubernetes publishes it (`/openapi/v3`)

use anyhow::{Context, Result, bail};
use clap::Args;
use http::Method;
use serde_json::Value;
use windlass_api::Kind;
use windlass_client::Call;

use super::discovery::Served;
use super::output::escape;
use super::session::{Session, SessionFlags};

/// Columns of a wrapped description, without its indentation.
const WRAP_COLUMNS: usize = 76;
/// How deep fields are shown.
const DEPTH_MAX: usize = 64;
/// Values of an enumeration that are shown in a list of fields.
const ENUM_SHOWN_MAX: usize = 4;

/// `windlass explain`.
#[derive(Args)]
pub struct ExplainFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// KIND or KIND.FIELD.FIELD…
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// All fields below, by name and type
    #[arg(long)]
    pub recursive: bool,
    /// The group and version, such as apps/v1
    #[arg(long)]
    pub api_version: Option<String>,
}

/// Does it.
pub async fn run(session: &Session, flags: &ExplainFlags) -> Result<()> {
    let (served, fields) = find(session, flags).await?;
    let document = document(session, &served.kind).await?;
    let schemas = Schemas { all: &document["components"]["schemas"] };
    let root = schemas.of_kind(&served.kind)?;
    let mut out = String::new();
    header(&mut out, &served.kind);
    let explained = explain(&schemas, root, &fields, flags.recursive);
    print!("{out}");
    print!("{}", escape::text(&explained?));
    Ok(())
}

async fn find(session: &Session, flags: &ExplainFlags) -> Result<(Served, Vec<String>)> {
    let discovery = session.discovery().await?;
    let mut parts = flags.what.split('.').map(str::to_owned);
    let word = parts.next().unwrap_or_default();
    let fields: Vec<String> = parts.collect();
    // `deployments.apps` names a group, `deployments.spec` a field
    let mut served = match discovery.find_one(&flags.what) {
        Ok(served) => return Ok((served.clone(), Vec::new())),
        Err(_) => discovery.find_one(&word)?,
    };
    if let Some(api_version) = &flags.api_version {
        served = discovery.find_kind(api_version, &served.kind.kind)?;
    }
    Ok((served.clone(), fields))
}

async fn document(session: &Session, kind: &Kind) -> Result<Value> {
    let index = session.json(Call::new(Method::GET, "/openapi/v3")).await?;
    let key = if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    };
    let url = index["paths"][&key]["serverRelativeURL"].as_str();
    let url = url.with_context(|| format!("the server publishes no OpenAPI of {key}"))?;
    session.json(Call::new(Method::GET, url)).await
}

fn header(out: &mut String, kind: &Kind) {
    if !kind.group.is_empty() {
        out.push_str(&format!("GROUP:      {}\n", kind.group));
    }
    out.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", kind.kind, kind.version));
}

/// All schemas of a document.
#[derive(Clone, Copy)]
struct Schemas<'s> {
    all: &'s Value,
}

impl<'s> Schemas<'s> {
    fn of_kind(self, kind: &Kind) -> Result<&'s Value> {
        let is =
            |gvk: &Value| gvk["group"] == *kind.group && gvk["version"] == *kind.version && gvk["kind"] == *kind.kind;
        let described = |schema: &&Value| {
            schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|list| list.iter().any(is))
        };
        let found = self.all.as_object().into_iter().flat_map(|all| all.values()).find(described);
        found.with_context(|| format!("the server publishes no schema of {}", kind.kind))
    }

    /// The schema that a reference names, and its short name.
    fn reference(self, schema: &Value) -> Option<(&'s Value, String)> {
        let path = schema["$ref"].as_str().or(schema["allOf"][0]["$ref"].as_str())?;
        let name = path.rsplit('/').next().unwrap_or_default();
        Some((&self.all[name], name.rsplit('.').next().unwrap_or_default().to_owned()))
    }

    /// Through references, lists and maps to what has fields.
    fn object(self, schema: &'s Value) -> &'s Value {
        let mut schema = schema;
        for _ in 0..DEPTH_MAX {
            schema = match self.reference(schema) {
                Some((found, _)) => found,
                None if schema["items"].is_object() => &schema["items"],
                None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
                None => return schema,
            };
        }
        schema
    }

    /// `[]Container`, `map[string]string`, `integer`.
    fn type_name(self, schema: &Value) -> String {
        if let Some((found, name)) = self.reference(schema) {
            // a time is a text with a name
            return found["type"].as_str().filter(|plain| *plain != "object").map_or(name, str::to_owned);
        }
        match schema["type"].as_str() {
            Some("array") => format!("[]{}", self.type_name(&schema["items"])),
            Some("object") if schema["additionalProperties"].is_object() => {
                format!("map[string]{}", self.type_name(&schema["additionalProperties"]))
            }
            Some("object") | None if schema["x-kubernetes-int-or-string"] == true => "IntOrString".to_owned(),
            Some("object") | None => "Object".to_owned(),
            Some(plain) => plain.to_owned(),
        }
    }
}

fn explain(schemas: &Schemas, root: &Value, fields: &[String], recursive: bool) -> Result<String> {
    let mut out = String::new();
    let mut schema = root;
    for (index, field) in fields.iter().enumerate() {
        let object = schemas.object(schema);
        let Some(found) = object["properties"].get(field) else { bail!("field {field:?} does not exist") };
        if index + 1 == fields.len() {
            out.push_str(&format!("FIELD: {field} <{}>\n", schemas.type_name(found)));
            let values = enumeration(found);
            if !values.is_empty() {
                out.push_str(&format!("ENUM:\n    {}\n", values.join("\n    ")));
            }
            out.push_str("\n\n");
        }
        schema = found;
    }
    out.push_str("DESCRIPTION:\n");
    for text in descriptions(*schemas, schema) {
        wrap(&mut out, &text, 4);
    }
    out.push_str("    \n");
    let object = schemas.object(schema);
    if object["properties"].as_object().is_some_and(|properties| !properties.is_empty()) {
        out.push_str("FIELDS:\n");
        list(&mut out, *schemas, object, 2, recursive, &mut vec![object]);
    }
    out.push('\n');
    Ok(out)
}

/// A field's own description, then that of its type.
fn descriptions(schemas: Schemas, schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut schema = schema;
    for _ in 0..DEPTH_MAX {
        found.extend(schema["description"].as_str().filter(|text| !text.is_empty()).map(str::to_owned));
        schema = match schemas.reference(schema) {
            Some((inner, _)) => inner,
            None if schema["items"].is_object() => &schema["items"],
            None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
            None => break,
        };
    }
    if found.is_empty() {
        found.push("<empty>".to_owned());
    }
    found
}

fn list<'s>(
    out: &mut String,
    schemas: Schemas<'s>,
    object: &'s Value,
    indent: usize,
    recursive: bool,
    above: &mut Vec<&'s Value>,
) {
    for (name, schema) in object["properties"].as_object().into_iter().flatten() {
        let blanks = " ".repeat(indent);
        out.push_str(&format!("{blanks}{name}\t<{}>{}\n", schemas.type_name(schema), required(object, name)));
        let values = enumeration(schema);
        if !values.is_empty() {
            let more = if values.len() > ENUM_SHOWN_MAX { ", ...." } else { "" };
            let shown: Vec<&str> = values.iter().take(ENUM_SHOWN_MAX).map(String::as_str).collect();
            out.push_str(&format!("{blanks}enum: {}{more}\n", shown.join(", ")));
        }
        if !recursive {
            wrap(
                out,
                schema["description"].as_str().filter(|text| !text.is_empty()).unwrap_or("<no description>"),
                indent + 2,
            );
            out.push('\n');
            continue;
        }
        let inner = schemas.object(schema);
        let repeats = above.iter().any(|seen| std::ptr::eq(*seen, inner));
        if inner["properties"].is_object() && !repeats && above.len() < DEPTH_MAX {
            above.push(inner);
            list(out, schemas, inner, indent + 2, recursive, above);
            above.pop();
        }
    }
}

fn required(object: &Value, field: &str) -> &'static str {
    let named = object["required"].as_array().is_some_and(|names| names.iter().any(|name| name == field));
    if named { " -required-" } else { "" }
}

fn enumeration(schema: &Value) -> Vec<String> {
    schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// R2.
fn wrap(out: &mut String, text: &str, indent: usize) {
    let blanks = " ".repeat(indent);
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WRAP_COLUMNS {
                out.push_str(&format!("{blanks}{line}\n"));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        out.push_str(&format!("{blanks}{line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::{Schemas, explain};
    use serde_json::{Value, json};

    fn document() -> Value {
        json!({
            "a.v1.Tree": {"type": "object", "description": "A tree.", "required": ["spec"], "properties": {
                "spec": {"allOf": [{"$ref": "#/components/schemas/a.v1.Spec"}], "description": "What is wanted."},
                "status": {"type": "object", "additionalProperties": {"type": "string"}}}},
            "a.v1.Spec": {"type": "object", "description": "The spec of a tree.", "properties": {
                "children": {"type": "array", "items": {"$ref": "#/components/schemas/a.v1.Tree"}},
                "size": {"type": "integer", "description": "word ".repeat(30).trim_end()}}},
        })
    }

    fn check(fields: &[&str], recursive: bool, expected: &str) {
        let all = document();
        let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
        let schemas = Schemas { all: &all };
        let found = explain(&schemas, &all["a.v1.Tree"], &fields, recursive).unwrap_or_else(|error| error.to_string());
        assert_eq!(found, expected);
    }

    #[test]
    fn r1_a_path_leads_through_lists() {
        check(
            &["spec", "children", "status"],
            false,
            "FIELD: status <map[string]string>\n\n\nDESCRIPTION:\n    <empty>\n    \n\n",
        );
        check(&["spec", "nothing"], false, "field \"nothing\" does not exist");
    }

    #[test]
    fn r2_descriptions_are_wrapped() {
        let line = ["word"; 15].join(" ");
        let size = format!("FIELD: size <integer>\n\n\nDESCRIPTION:\n    {line}\n    {line}\n    \n\n");
        check(&["spec", "size"], false, &size);
        check(
            &[],
            false,
            "DESCRIPTION:\n    A tree.\n    \nFIELDS:\n  spec\t<Spec> -required-\n    What is wanted.\n\n  status\t<map[string]string>\n    <no description>\n\n\n",
        );
    }

    #[test]
    fn r3_a_type_inside_itself_is_not_shown_again() {
        check(
            &[],
            true,
            "DESCRIPTION:\n    A tree.\n    \nFIELDS:\n  spec\t<Spec> -required-\n    children\t<[]Tree>\n    size\t<integer>\n  status\t<map[string]string>\n\n",
        );
    }
}
