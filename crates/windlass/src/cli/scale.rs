//! `windlass scale`: how many replicas.
//!
//! Rules
//!   R1 part        any kind with a `scale` part can be scaled
//!   R2 condition   `--current-replicas` and `--resource-version` must hold, or nothing is changed
//!   R3 wait        with `--timeout`, until the status says as many

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use windlass_client::{Call, with_query};

use super::chosen::{Choice, Chosen};
use super::dry_run::DryRun;
use super::get::all_said;
use super::manifest::FileFlags;
use super::select::SelectFlags;
use super::session::{Session, SessionFlags};

/// `windlass scale`.
#[derive(Args)]
pub struct ScaleFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// KIND NAME…, KIND/NAME…, or KIND with -l or --all
    #[arg(value_name = "WHAT")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub select: SelectFlags,
    #[command(flatten)]
    pub files: FileFlags,
    /// How many
    #[arg(long)]
    pub replicas: u32,
    /// Only if there are so many now
    #[arg(long)]
    pub current_replicas: Option<u32>,
    /// Only if it is still at this version
    #[arg(long)]
    pub resource_version: Option<String>,
    /// All objects of the kinds
    #[arg(long)]
    pub all: bool,
    /// Wait so long until there are so many
    #[arg(long, value_parser = super::duration::parse, default_value = "0")]
    pub timeout: Duration,
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// Does it.
pub async fn run(session: &Session, flags: &ScaleFlags) -> Result<()> {
    let choice = Choice { words: &flags.words, select: &flags.select, files: &flags.files, all: flags.all };
    let chosen = choice.find_all(session).await?;
    if chosen.is_empty() {
        bail!("no objects passed to scale");
    }
    let mut failed = Vec::new();
    for object in &chosen {
        if let Err(error) = scale(session, flags, object).await {
            failed.push(error);
        }
    }
    all_said(failed)
}

async fn scale(session: &Session, flags: &ScaleFlags, object: &Chosen) -> Result<()> {
    if !object.served.has("scale") {
        bail!(
            "cannot scale {}: the server has no scale for {}",
            object.qualified(),
            object.served.kind.qualified_plural()
        );
    }
    let path = format!("{}/scale", object.path());
    let mut patch = json!({"spec": {"replicas": flags.replicas}});
    if flags.current_replicas.is_some() || flags.resource_version.is_some() || flags.dry_run.is_client() {
        let now = session.json(Call::new(Method::GET, path.clone())).await?;
        check(&now, flags)?;
        // What was looked at must still hold when it is changed.
        patch["metadata"] = json!({"resourceVersion": now["metadata"]["resourceVersion"]});
    }
    if !flags.dry_run.is_client() {
        let call = Call::new(Method::PATCH, with_query(&path, &flags.dry_run.query()));
        session.json(call.body("application/merge-patch+json", serde_json::to_vec(&patch)?)).await?;
    }
    if !flags.timeout.is_zero() && !flags.dry_run.is_set() {
        let wanted = u64::from(flags.replicas);
        let reached = |found: Option<&Value>| match found {
            Some(found) => Ok((found["status"]["replicas"].as_u64().unwrap_or(0) == wanted).then_some(())),
            None => bail!("{} was deleted", object.qualified()),
        };
        let waiting = session.until(&object.served.kind, &object.namespace, &object.name, reached);
        match tokio::time::timeout(flags.timeout, waiting).await {
            Ok(reached) => reached?,
            Err(_) => bail!("timed out waiting for {:?} to be synced", object.name),
        }
    }
    println!("{} scaled{}", object.qualified(), flags.dry_run.suffix());
    Ok(())
}

/// R2.
fn check(now: &Value, flags: &ScaleFlags) -> Result<()> {
    let replicas = now["spec"]["replicas"].as_u64().unwrap_or(0);
    if let Some(expected) = flags.current_replicas.filter(|expected| u64::from(*expected) != replicas) {
        bail!("Expected replicas to be {expected}, was {replicas}");
    }
    let version = now["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if let Some(expected) = flags.resource_version.as_ref().filter(|expected| *expected != version) {
        bail!("Expected resource version to be {expected}, was {version}");
    }
    Ok(())
}
