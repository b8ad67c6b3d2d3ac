//! `windlass describe`: an object, what belongs to it, and its events, for people.
//!
//! Rules
//!   R1 which    as `get` chooses; a name that is not there means every object whose name begins with it
//!   R2 form     a kind with a file of its own here has kubectl's layout for it; any other is shown field by field
//!   R3 events   come last, oldest first; where several objects are described only if `--show-events` is said
//!   R4 safe     what the server sent cannot command the terminal
//! Not here      kinds whose layout is only a variation of their fields (they are shown field by field)

mod config_map;
mod container;
pub mod deployment;
pub mod events;
mod generic;
mod job;
mod namespace;
mod node;
pub mod pod;
mod probe;
mod replica_set;
mod secret;
mod service;
mod service_account;
pub mod sheet;
pub mod template;
mod volume;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use self::sheet::Sheet;
use super::discovery::Served;
use super::get::all_said;
use super::manifest::FileFlags;
use super::output::align::{SHEET, align};
use super::output::escape;
use super::select::SelectFlags;
use super::session::{Session, SessionFlags, is_not_found, with_kind};
use super::target::Asked;

/// `windlass describe`.
#[derive(Args)]
pub struct DescribeFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// KIND, KIND NAME or its beginning, KIND/NAME
    #[arg(value_name = "WHAT")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub select: SelectFlags,
    #[command(flatten)]
    pub files: FileFlags,
    /// Show events; done for a single object unless refused
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub show_events: Option<bool>,
}

/// Does it.
pub async fn run(session: &Session, flags: &DescribeFlags) -> Result<()> {
    let mut failed = Vec::new();
    let objects = find(session, flags, &mut failed).await?;
    if objects.is_empty() && failed.is_empty() {
        match flags.select.all_namespaces {
            true => eprintln!("No resources found"),
            false => eprintln!("No resources found in {} namespace.", session.namespace),
        }
    }
    let with_events = flags.show_events.unwrap_or(objects.len() == 1);
    let mut texts = Vec::new();
    for object in &objects {
        texts.push(describe(session, object, with_events).await?);
    }
    print!("{}", texts.join("\n\n"));
    all_said(failed)
}

/// R1.
async fn find(session: &Session, flags: &DescribeFlags, failed: &mut Vec<anyhow::Error>) -> Result<Vec<Value>> {
    let discovery = session.discovery().await?;
    let mut objects = Vec::new();
    let mut named = Vec::new();
    if !flags.files.is_empty() {
        for manifest in flags.files.read()? {
            let served = discovery.of_manifest(&manifest)?.clone();
            let namespace = session.namespace_for(&served.kind, &manifest.object)?;
            named.push((
                served,
                namespace,
                manifest.object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            ));
        }
    } else {
        match Asked::read(discovery, &flags.words)? {
            Asked::Kinds(kinds) => {
                for served in kinds {
                    let namespace = flags.select.namespace(session, &served.kind);
                    objects.extend(session.list(&served.kind, namespace, &flags.select.query()).await?);
                }
            }
            Asked::Named(_) if flags.select.all_namespaces => {
                bail!("a resource cannot be retrieved by name across all namespaces")
            }
            Asked::Named(found) => {
                let place = |(served, name): (Served, String)| {
                    let namespace = session.namespace_of(&served.kind).to_owned();
                    (served, namespace, name)
                };
                named.extend(found.into_iter().map(place));
            }
        }
    }
    for (served, namespace, name) in named {
        match session.get(&served.kind, &namespace, &name).await {
            Ok(object) => objects.push(with_kind(object, &served.kind)),
            Err(error) if is_not_found(&error) => {
                let all = session.list(&served.kind, Some(&namespace), &[]).await?;
                let begins =
                    |object: &Value| object["metadata"]["name"].as_str().is_some_and(|it| it.starts_with(&name));
                let before = objects.len();
                objects.extend(all.into_iter().filter(begins));
                if objects.len() == before {
                    failed.push(error);
                }
            }
            Err(error) => failed.push(error),
        }
    }
    Ok(objects)
}

/// R2 to R4.
async fn describe(session: &Session, object: &Value, with_events: bool) -> Result<String> {
    let mut sheet = Sheet::default();
    let group = object["apiVersion"].as_str().unwrap_or_default().split_once('/').map_or("", |(group, _)| group);
    let has_events = match (group, object["kind"].as_str().unwrap_or_default()) {
        ("", "Pod") => pod::describe(&mut sheet, object),
        ("apps", "Deployment") => deployment::describe(&mut sheet, session, object).await?,
        ("apps", "ReplicaSet") => replica_set::describe(&mut sheet, session, object).await?,
        ("batch", "Job") => job::describe(&mut sheet, object),
        ("", "Service") => service::describe(&mut sheet, session, object).await?,
        ("", "Node") => node::describe(&mut sheet, session, object).await?,
        ("", "Namespace") => namespace::describe(&mut sheet, session, object).await?,
        ("", "ConfigMap") => config_map::describe(&mut sheet, object),
        ("", "Secret") => secret::describe(&mut sheet, object),
        ("", "ServiceAccount") => service_account::describe(&mut sheet, object),
        _ => generic::describe(&mut sheet, object),
    };
    if with_events && has_events {
        events::describe(&mut sheet, &events::of(session, object).await?, session.client.world().now());
    }
    Ok(align(&escape::text(&sheet.text), SHEET))
}
