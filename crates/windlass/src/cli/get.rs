//! `windlass get`: objects as tables, or in any other form.
//!
//! Rules
//!   R1 table     the server makes the table; several kinds are several tables with a blank line between
//!   R2 missing   an object that is not there is an error, after the others have been shown
//!   R3 nothing   no object at all is said on standard error
//!   R4 sort      rows are ordered by `--sort-by`, numbers as numbers, quantities as quantities
//!   R5 watch     what is there first, then every change (`--watch-only`: only those)
//!   R6 page      lists come in pages of `--chunk-size`
//! Not here       templates of Go

use std::cell::Cell;
use std::cmp::Ordering;
use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use serde_json::Value;
use windlass_api::quantity::Quantity;
use windlass_client::{Call, segment, with_query};

use super::discovery::Served;
use super::failure::{Said, say};
use super::manifest::FileFlags;
use super::output::form::Form;
use super::output::jsonpath::Path;
use super::output::table::{Look, Printer};
use super::output::{object, yaml};
use super::select::SelectFlags;
use super::session::{Session, SessionFlags, is_not_found, object_path, with_kind};
use super::target::Asked;

/// How the server is asked for a table.
pub const TABLE_MEDIA_TYPE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// `windlass get`.
#[derive(Args)]
pub struct GetFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// KIND, KIND NAME…, KIND/NAME…, KIND,KIND or all
    #[arg(value_name = "WHAT")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub select: SelectFlags,
    #[command(flatten)]
    pub files: FileFlags,
    /// json, yaml, wide, name, jsonpath=TEMPLATE, custom-columns=TITLE:PATH,…
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub output: String,
    /// Go on and show changes
    #[arg(short, long)]
    pub watch: bool,
    /// Show changes only, not what is there
    #[arg(long)]
    pub watch_only: bool,
    /// Say with each line whether it was added, modified or deleted
    #[arg(long, requires = "watch")]
    pub output_watch_events: bool,
    /// Objects a request; 0 for all at once
    #[arg(long, default_value_t = 500)]
    pub chunk_size: u32,
    /// Show labels in a last column
    #[arg(long)]
    pub show_labels: bool,
    /// Labels that get a column of their own
    #[arg(short = 'L', long, value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// Order by this path, such as .metadata.creationTimestamp
    #[arg(long, default_value = "", hide_default_value = true)]
    pub sort_by: String,
    /// No line of titles
    #[arg(long)]
    pub no_headers: bool,
    /// Say the kind before each name
    #[arg(long)]
    pub show_kind: bool,
    /// An object that is not there is no error
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Show who owns which field in json and yaml
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Ask for this path and print what comes
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub raw: String,
    /// Show this part of the object: status, scale
    #[arg(long, default_value = "", hide_default_value = true)]
    pub subresource: String,
}

/// One request's worth: all of a kind, or one object.
#[derive(Debug, Clone)]
struct Want {
    served: Served,
    namespace: Option<String>,
    name: Option<String>,
}

/// Does it.
pub async fn run(session: &Session, flags: &GetFlags) -> Result<()> {
    if !flags.raw.is_empty() {
        let answer = session.client.send(Call::new(Method::GET, flags.raw.clone())).await?;
        return Ok(std::io::stdout().write_all(&answer.body)?);
    }
    let form = Form::parse(&flags.output)?;
    let wants = wants(session, flags).await?;
    let files_mixed = !flags.files.is_empty() && wants.windows(2).any(|two| two[0].served.kind != two[1].served.kind);
    let get =
        Get { session, flags, form, mixed: files_mixed || Asked::is_mixed(&flags.words), documents: Cell::default() };
    if flags.watch || flags.watch_only {
        let [want] = wants.as_slice() else { bail!("you may only specify a single resource type or name to watch") };
        return get.watch(want).await;
    }
    if get.form.is_table() { get.tables(&wants).await } else { get.objects(&wants).await }
}

async fn wants(session: &Session, flags: &GetFlags) -> Result<Vec<Want>> {
    let discovery = session.discovery().await?;
    if !flags.files.is_empty() {
        let mut wants = Vec::new();
        for manifest in flags.files.read()? {
            let served = discovery.of_manifest(&manifest)?.clone();
            let namespace = session.namespace_for(&served.kind, &manifest.object)?;
            let name = manifest.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            wants.push(Want { served, namespace: Some(namespace), name: Some(name) });
        }
        return Ok(wants);
    }
    match Asked::read(discovery, &flags.words)? {
        Asked::Kinds(kinds) => Ok(kinds
            .into_iter()
            .map(|served| {
                let namespace = flags.select.namespace(session, &served.kind).map(str::to_owned);
                Want { served, namespace, name: None }
            })
            .collect()),
        Asked::Named(named) => {
            if flags.select.all_namespaces {
                bail!("a resource cannot be retrieved by name across all namespaces");
            }
            if flags.select.is_narrow() {
                bail!("name cannot be provided when a selector is specified");
            }
            let want = |(served, name): (Served, String)| {
                let namespace = Some(session.namespace_of(&served.kind).to_owned());
                Want { served, namespace, name: Some(name) }
            };
            Ok(named.into_iter().map(want).collect())
        }
    }
}

/// A page of a table, or all of it.
struct Tables {
    columns: Value,
    rows: Vec<Value>,
    revision: String,
}

struct Get<'g> {
    session: &'g Session,
    flags: &'g GetFlags,
    form: Form,
    /// Several kinds: each line says its own.
    mixed: bool,
    /// A watch in YAML has shown a document, so that the next one is set apart.
    documents: Cell<bool>,
}

impl Get<'_> {
    /// R1 to R3.
    async fn tables(&self, wants: &[Want]) -> Result<()> {
        let mut failed = Vec::new();
        let mut shown = false;
        let mut printer: Option<(String, Printer)> = None;
        for want in wants {
            let mut table = match self.fetch(want).await {
                Ok(table) => table,
                Err(error) if self.flags.ignore_not_found && is_not_found(&error) => continue,
                Err(error) => {
                    failed.push(error);
                    continue;
                }
            };
            if table.rows.is_empty() {
                continue;
            }
            self.sort(&mut table.rows)?;
            let kind = want.served.qualified();
            let printer = match &mut printer {
                Some((before, printer)) if *before == kind => printer,
                other => {
                    if shown {
                        println!();
                    }
                    &mut other.insert((kind, self.printer(want))).1
                }
            };
            print!("{}", printer.print(&table.columns, &table.rows, None));
            shown = true;
        }
        if !shown && failed.is_empty() && !self.flags.ignore_not_found {
            let one_namespace =
                wants.iter().all(|want| want.served.kind.namespaced) && !self.flags.select.all_namespaces;
            match one_namespace {
                true => eprintln!("No resources found in {} namespace.", self.session.namespace),
                false => eprintln!("No resources found"),
            }
        }
        all_said(failed)
    }

    fn printer(&self, want: &Want) -> Printer {
        let with_kind = self.flags.show_kind || self.mixed;
        let look = Look {
            wide: self.form == Form::Table { wide: true },
            no_titles: self.flags.no_headers,
            with_namespace: self.flags.select.all_namespaces && want.served.kind.namespaced,
            with_kind: with_kind.then(|| want.served.qualified()),
            label_columns: self.flags.label_columns.clone(),
            show_labels: self.flags.show_labels,
        };
        Printer::new(look, self.session.paint)
    }

    fn query<'q>(&'q self, more: &[(&'q str, &'q str)]) -> Vec<(&'q str, &'q str)> {
        let include = if self.flags.sort_by.is_empty() { "" } else { "Object" };
        let mut query = self.flags.select.query();
        query.push(("includeObject", include));
        query.extend_from_slice(more);
        query
    }

    /// One want as a table, whatever the server makes of it.
    async fn fetch(&self, want: &Want) -> Result<Tables> {
        if let Some(name) = &want.name {
            let path = self.path(want, name);
            let path =
                with_query(&path, &[("includeObject", if self.flags.sort_by.is_empty() { "" } else { "Object" })]);
            let table = self.session.json(Call::new(Method::GET, path).accept(TABLE_MEDIA_TYPE)).await?;
            return Ok(read_table(table, &want.served));
        }
        let path = want.served.kind.collection_path(want.namespace.as_deref().map(segment).as_deref());
        let limit = self.flags.chunk_size.to_string();
        let limit = if limit == "0" { "" } else { &limit };
        let mut whole: Option<Tables> = None;
        let mut from = String::new();
        loop {
            let query = self.query(&[("limit", limit), ("continue", &from)]);
            let call = Call::new(Method::GET, with_query(&path, &query)).accept(TABLE_MEDIA_TYPE);
            let page = self.session.json(call).await?;
            from = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            let page = read_table(page, &want.served);
            match &mut whole {
                Some(whole) => whole.rows.extend(page.rows),
                None => whole = Some(page),
            }
            if from.is_empty() {
                return Ok(whole.expect("at least one page was read"));
            }
        }
    }

    fn path(&self, want: &Want, name: &str) -> String {
        let path = object_path(&want.served.kind, want.namespace.as_deref().unwrap_or_default(), name);
        match self.flags.subresource.as_str() {
            "" => path,
            part => format!("{path}/{}", segment(part)),
        }
    }

    /// R4, for rows with their objects.
    fn sort(&self, rows: &mut [Value]) -> Result<()> {
        if self.flags.sort_by.is_empty() {
            return Ok(());
        }
        let path = Path::relaxed(&self.flags.sort_by)?;
        rows.sort_by(|one, other| compare(path.first(&one["object"]), path.first(&other["object"])));
        Ok(())
    }

    /// Every other form: the objects themselves.
    async fn objects(&self, wants: &[Want]) -> Result<()> {
        let mut failed = Vec::new();
        let mut found = Vec::new();
        for want in wants {
            match self.fetch_objects(want).await {
                Ok(objects) => found.extend(objects),
                Err(error) if self.flags.ignore_not_found && is_not_found(&error) => {}
                Err(error) => failed.push(error),
            }
        }
        if !self.flags.sort_by.is_empty() {
            let path = Path::relaxed(&self.flags.sort_by)?;
            found.sort_by(|one, other| compare(path.first(one), path.first(other)));
        }
        let single = wants.len() == 1 && wants[0].name.is_some();
        if !(single && found.is_empty()) && (failed.is_empty() || !found.is_empty()) {
            let mut whole = if single { found.remove(0) } else { object::list_of(found) };
            print!("{}", self.print(&mut whole)?);
        }
        all_said(failed)
    }

    fn print(&self, whole: &mut Value) -> Result<String> {
        if !self.flags.show_managed_fields {
            object::hide_managed_fields(whole);
        }
        object::print(&self.form, whole)
    }

    async fn fetch_objects(&self, want: &Want) -> Result<Vec<Value>> {
        match &want.name {
            Some(name) => Ok(vec![self.session.json(Call::new(Method::GET, self.path(want, name))).await?]),
            None => self.session.list(&want.served.kind, want.namespace.as_deref(), &self.flags.select.query()).await,
        }
    }

    /// R5.
    async fn watch(&self, want: &Want) -> Result<()> {
        let fields = want.name.as_ref().map(|name| format!("metadata.name={name}"));
        let mut printer = self.printer(want);
        let table = self.fetch(want).await?;
        if !self.flags.watch_only && !table.rows.is_empty() {
            self.show(&mut printer, &table.columns, &table.rows, self.event("ADDED"), want).await?;
        }
        let mut query = self.query(&[("resourceVersion", &table.revision)]);
        if let Some(fields) = &fields {
            query.retain(|(key, _)| *key != "fieldSelector");
            query.push(("fieldSelector", fields));
        }
        let accept = if self.form.is_table() { TABLE_MEDIA_TYPE } else { "application/json" };
        let mut events = self.session.watch(&want.served.kind, want.namespace.as_deref(), &query, accept).await?;
        while let Some((event, object)) = events.next().await? {
            if event == "BOOKMARK" {
                continue;
            }
            if self.form.is_table() {
                let table = read_table(object, &want.served);
                print!("{}", printer.print(&table.columns, &table.rows, self.event(&event)));
            } else {
                self.show_object(with_kind(object, &want.served.kind), self.event(&event))?;
            }
            std::io::stdout().flush()?;
        }
        Ok(())
    }

    fn event<'e>(&self, event: &'e str) -> Option<&'e str> {
        self.flags.output_watch_events.then_some(event)
    }

    /// What is there when a watch begins.
    async fn show(
        &self,
        printer: &mut Printer,
        columns: &Value,
        rows: &[Value],
        event: Option<&str>,
        want: &Want,
    ) -> Result<()> {
        if self.form.is_table() {
            print!("{}", printer.print(columns, rows, event));
        } else {
            for object in self.fetch_objects(want).await? {
                self.show_object(object, event)?;
            }
        }
        Ok(std::io::stdout().flush()?)
    }

    fn show_object(&self, mut object: Value, event: Option<&str>) -> Result<()> {
        let text = match event {
            Some(event) => {
                if !self.flags.show_managed_fields {
                    object::hide_managed_fields(&mut object);
                }
                let wrapped = serde_json::json!({"type": event, "object": object});
                match self.form {
                    Form::Yaml => yaml::print(&wrapped),
                    Form::Json => super::output::json::pretty(&wrapped),
                    _ => object::print(&self.form, &wrapped["object"])?,
                }
            }
            None => self.print(&mut object)?,
        };
        if self.form == Form::Yaml && self.documents.replace(true) {
            println!("---");
        }
        print!("{text}");
        Ok(())
    }
}

/// Rows and columns of an answer. A server that makes no tables answered with objects: their names are the table.
fn read_table(mut answer: Value, served: &Served) -> Tables {
    let revision = answer["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    if answer["kind"] == "Table" {
        let rows = match answer["rows"].take() {
            Value::Array(rows) => rows,
            _ => Vec::new(),
        };
        return Tables { columns: answer, rows, revision };
    }
    let objects = match answer["items"].take() {
        Value::Array(items) => items,
        _ => vec![with_kind(answer, &served.kind)],
    };
    let row = |object: Value| serde_json::json!({"cells": [object["metadata"]["name"]], "object": object});
    let columns = serde_json::json!({"columnDefinitions": [{"name": "Name"}]});
    Tables { columns, rows: objects.into_iter().map(row).collect(), revision }
}

/// R4.
fn compare(one: Option<&Value>, other: Option<&Value>) -> Ordering {
    match (one, other) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (Some(Value::String(a)), Some(Value::String(b))) => match (a.parse::<Quantity>(), b.parse::<Quantity>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => yaml::natural(a, b),
        },
        (one, other) => one.is_some().cmp(&other.is_some()),
    }
}

/// R2: says each failure; the last one is the verb's own.
pub fn all_said(mut failed: Vec<anyhow::Error>) -> Result<()> {
    match failed.len() {
        0 => Ok(()),
        1 => Err(failed.remove(0)),
        _ => {
            failed.iter().for_each(say);
            Err(Said.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{compare, read_table};
    use crate::cli::discovery::tests::built_in;
    use serde_json::json;
    use std::cmp::Ordering;

    #[test]
    fn r4_values_are_compared_by_what_they_are() {
        assert_eq!(compare(Some(&json!(9)), Some(&json!(10))), Ordering::Less);
        assert_eq!(compare(Some(&json!("1Gi")), Some(&json!("500Mi"))), Ordering::Greater);
        assert_eq!(compare(Some(&json!("web-9")), Some(&json!("web-10"))), Ordering::Less);
        assert_eq!(compare(None, Some(&json!(1))), Ordering::Less);
    }

    #[test]
    fn r1_objects_instead_of_a_table_are_shown_by_name() {
        let discovery = built_in();
        let pods = discovery.find_one("pods").expect("pods");
        let table = read_table(
            json!({"kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}]}),
            pods,
        );
        assert_eq!((table.revision.as_str(), &table.rows[0]["cells"]), ("7", &json!(["a"])));
    }
}
