//! `rollout undo`: a Deployment's template becomes what a replica set of it still holds.
//!
//! Rules
//!   R1 which    `--to-revision`, else the one before the newest
//!   R2 paused   a paused Deployment is not changed
//!   R3 same     a template that is wanted already is not sent again

use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use windlass_client::{Call, with_query};

use super::{WhatFlags, expect_deployment, revision};
use crate::cli::apply::LAST_APPLIED;
use crate::cli::chosen::Chosen;
use crate::cli::describe::deployment::{replica_sets, same_template};
use crate::cli::dry_run::DryRun;
use crate::cli::session::Session;

/// `windlass rollout undo`.
#[derive(Args)]
pub struct UndoFlags {
    #[command(flatten)]
    pub what: WhatFlags,
    /// The revision to go back to; the one before unless given
    #[arg(long, default_value_t = 0)]
    pub to_revision: u64,
    #[command(flatten)]
    pub dry_run: DryRun,
}

pub(super) async fn run(session: &Session, flags: &UndoFlags) -> Result<()> {
    for object in flags.what.find(session).await? {
        expect_deployment(&object, "rollbacker")?;
        undo(session, flags, &object).await?;
    }
    Ok(())
}

async fn undo(session: &Session, flags: &UndoFlags, object: &Chosen) -> Result<()> {
    let deployment = object.get(session).await?;
    if !deployment["metadata"]["annotations"][LAST_APPLIED].is_null() {
        eprintln!(
            "Warning: resource {}/{} was previously managed with 'windlass apply'. Rolling back will not update the {LAST_APPLIED} annotation, which may cause unexpected behavior on future 'windlass apply' operations. Consider using 'windlass apply' with your previous configuration file instead.",
            object.served.kind.plural, object.name
        );
    }
    if deployment["spec"]["paused"] == true {
        bail!("you cannot rollback a paused deployment; resume it first with 'windlass rollout resume' and try again");
    }
    let sets = replica_sets(session, &deployment).await?;
    let set = target(&sets, flags.to_revision, &object.name)?;
    if same_template(set, &deployment) {
        println!(
            "{} skipped rollback (current template already matches revision {})",
            object.qualified(),
            revision(set)
        );
        return Ok(());
    }
    if !flags.dry_run.is_client() {
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template(set)}]);
        let call = Call::new(Method::PATCH, with_query(&object.path(), &flags.dry_run.query()));
        session.json(call.body("application/json-patch+json", serde_json::to_vec(&patch)?)).await?;
    }
    println!("{} rolled back{}", object.qualified(), flags.dry_run.suffix());
    Ok(())
}

/// R1.
fn target<'s>(sets: &'s [Value], wanted: u64, name: &str) -> Result<&'s Value> {
    if wanted > 0 {
        match sets.iter().find(|set| revision(set) == wanted) {
            Some(set) => return Ok(set),
            None => bail!("unable to find specified revision {wanted} in history"),
        }
    }
    let mut sets: Vec<&Value> = sets.iter().collect();
    sets.sort_by_key(|set| std::cmp::Reverse(revision(set)));
    match sets.get(1) {
        Some(set) => Ok(set),
        None => bail!("no rollout history found for deployment {name:?}"),
    }
}

/// The template as the Deployment would hold it: without the label that its controller added.
fn template(set: &Value) -> Value {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    template
}

#[cfg(test)]
mod tests {
    use super::{target, template};
    use serde_json::{Value, json};

    fn set(revision: &str) -> Value {
        json!({"metadata": {"name": revision, "annotations": {"deployment.kubernetes.io/revision": revision}},
            "spec": {"template": {"metadata": {"labels": {"app": "a", "pod-template-hash": "x"}}}}})
    }

    #[test]
    fn r1_the_one_before_unless_said() {
        let sets = [set("3"), set("10"), set("9")];
        assert_eq!(target(&sets, 0, "web").expect("a set")["metadata"]["name"], "9");
        assert_eq!(target(&sets, 3, "web").expect("a set")["metadata"]["name"], "3");
        assert!(target(&sets, 4, "web").is_err());
        assert_eq!(
            target(&sets[..1], 0, "web").expect_err("one").to_string(),
            "no rollout history found for deployment \"web\""
        );
    }

    #[test]
    fn the_hash_label_does_not_come_back() {
        assert_eq!(template(&set("1")), json!({"metadata": {"labels": {"app": "a"}}}));
    }
}
