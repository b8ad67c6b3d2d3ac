//! `windlass events`: what has happened, oldest first.
//!
//! Rules
//!   R1 about   `--for KIND/NAME`: only events about that object
//!   R2 types   `--types=Warning,Normal`: only those
//!   R3 watch   `-w` goes on with what happens next

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;
use windlass_api::kinds;

use super::describe::events::{interval, last_seen};
use super::describe::sheet::text;
use super::output::align::Rows;
use super::output::form::Form;
use super::output::{escape, object};
use super::session::{Session, SessionFlags, with_kind};
use super::target::Asked;

/// `windlass events`.
#[derive(Args)]
pub struct EventsFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only about this object
    #[arg(long = "for", value_name = "KIND/NAME")]
    pub about: Option<String>,
    /// Only of these types: Normal, Warning
    #[arg(long, value_delimiter = ',')]
    pub types: Vec<String>,
    /// Go on as more happens
    #[arg(short, long)]
    pub watch: bool,
    /// No line of titles
    #[arg(long)]
    pub no_headers: bool,
    /// json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub output: String,
}

/// Does it.
pub async fn run(session: &Session, flags: &EventsFlags) -> Result<()> {
    let form = Form::parse(&flags.output)?;
    for kind in &flags.types {
        if !kind.eq_ignore_ascii_case("Normal") && !kind.eq_ignore_ascii_case("Warning") {
            bail!("valid --types are Normal or Warning");
        }
    }
    let namespace = (!flags.all_namespaces).then_some(session.namespace.as_str());
    let fields = about(session, flags).await?;
    let query = [("fieldSelector", fields.as_str())];
    let mut events = session.list(&kinds::EVENT, namespace, &query).await?;
    events.retain(|event| is_wanted(event, &flags.types));
    events.sort_by(|one, other| last_seen(one).cmp(last_seen(other)));
    let mut printer = Printer { session, flags, rows: Rows::default(), titled: flags.no_headers };
    if !form.is_table() {
        let mut list = object::list_of(events);
        object::hide_managed_fields(&mut list);
        print!("{}", object::print(&form, &list)?);
        return Ok(());
    }
    if events.is_empty() && !flags.watch {
        match namespace {
            Some(namespace) => eprintln!("No events found in {namespace} namespace."),
            None => eprintln!("No events found."),
        }
        return Ok(());
    }
    printer.print(&events)?;
    if flags.watch { watch(session, &mut printer, namespace, &fields).await } else { Ok(()) }
}

/// R1.
async fn about(session: &Session, flags: &EventsFlags) -> Result<String> {
    let Some(word) = &flags.about else { return Ok(String::new()) };
    let (served, name) = Asked::one(session.discovery().await?, std::slice::from_ref(word))?;
    Ok(format!("involvedObject.kind={},involvedObject.name={name}", served.kind.kind))
}

/// R2.
fn is_wanted(event: &Value, types: &[String]) -> bool {
    types.is_empty() || types.iter().any(|kind| kind.eq_ignore_ascii_case(text(event, "type")))
}

/// R3. Only what is newer than the list: it is asked for once more for its revision alone.
async fn watch(session: &Session, printer: &mut Printer<'_>, namespace: Option<&str>, fields: &str) -> Result<()> {
    let path = windlass_client::with_query(&kinds::EVENT.collection_path(namespace), &[("limit", "1")]);
    let list = session.json(windlass_client::Call::new(http::Method::GET, path)).await?;
    let revision = text(&list["metadata"], "resourceVersion");
    let query = [("fieldSelector", fields), ("resourceVersion", revision)];
    let mut changes = session.watch(&kinds::EVENT, namespace, &query, "application/json").await?;
    while let Some((change, event)) = changes.next().await? {
        if matches!(change.as_str(), "ADDED" | "MODIFIED") && is_wanted(&event, &printer.flags.types) {
            printer.print(&[with_kind(event, &kinds::EVENT)])?;
        }
    }
    Ok(())
}

struct Printer<'p> {
    session: &'p Session,
    flags: &'p EventsFlags,
    rows: Rows,
    titled: bool,
}

impl Printer<'_> {
    fn print(&mut self, events: &[Value]) -> Result<()> {
        let now = self.session.client.world().now();
        let mut lines = Vec::new();
        let with_titles = !std::mem::replace(&mut self.titled, true);
        if with_titles {
            lines.push(self.line("NAMESPACE", ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned)));
        }
        for event in events {
            let object = &event["involvedObject"];
            let cells = [
                interval(event, now),
                text(event, "type").to_owned(),
                text(event, "reason").to_owned(),
                format!("{}/{}", text(object, "kind"), text(object, "name")),
                text(event, "message").trim().to_owned(),
            ];
            lines.push(self.line(text(&event["metadata"], "namespace"), cells));
        }
        let paint = self.session.paint;
        let text = self.rows.align(
            &lines,
            |line, _, cell| {
                if with_titles && line == 0 { paint.title(cell) } else { paint.cell(cell) }
            },
        );
        print!("{text}");
        Ok(std::io::stdout().flush()?)
    }

    fn line(&self, namespace: &str, cells: [String; 5]) -> Vec<String> {
        let namespace = self.flags.all_namespaces.then(|| namespace.to_owned());
        namespace.into_iter().chain(cells).map(|cell| escape::cell(&cell)).collect()
    }
}
