//! `rollout undo`: the pod template becomes one that was rolled out before.
//!
//! Rules
//!   R1 which    `--to-revision`, else the one before the newest
//!   R2 paused   a paused Deployment is not changed
//!   R3 same     a template that is wanted already is not sent again
//!   R4 try      `--dry-run=client` shows the template that would come back
//!   R5 notes    the annotations of a Deployment come back with its template, all but those that are not of the template

use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};
use windlass_client::{Call, with_query};

use super::WhatFlags;
use super::past::{Past, past};
use crate::cli::apply::LAST_APPLIED;
use crate::cli::chosen::Chosen;
use crate::cli::describe::sheet::Sheet;
use crate::cli::describe::template::template;
use crate::cli::dry_run::DryRun;
use crate::cli::output::escape;
use crate::cli::session::Session;

/// Annotations of a Deployment that say nothing of its template.
const OF_NOW: [&str; 6] = [
    LAST_APPLIED,
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

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
        undo(session, flags, &object).await?;
    }
    Ok(())
}

async fn undo(session: &Session, flags: &UndoFlags, object: &Chosen) -> Result<()> {
    let found = object.get(session).await?;
    let past = past(session, object, &found, "rollbacker").await?;
    if !found["metadata"]["annotations"][LAST_APPLIED].is_null() {
        eprintln!(
            "Warning: resource {}/{} was previously managed with 'windlass apply'. Rolling back will not update the {LAST_APPLIED} annotation, which may cause unexpected behavior on future 'windlass apply' operations. Consider using 'windlass apply' with your previous configuration file instead.",
            object.served.kind.plural, object.name
        );
    }
    if found["spec"]["paused"] == true {
        bail!("you cannot rollback a paused deployment; resume it first with 'windlass rollout resume' and try again");
    }
    let is_deployment = object.served.kind.kind == "Deployment";
    let wanted = match target(&past, flags.to_revision) {
        Ok(wanted) => wanted,
        Err(Missing::Wanted) => bail!("unable to find specified revision {} in history", flags.to_revision),
        Err(Missing::Before) if is_deployment => bail!("no rollout history found for deployment {:?}", object.name),
        Err(Missing::Before) => bail!("no last revision to roll back to"),
    };
    if flags.dry_run.is_client() {
        // R4, in kubectl's words: they differ by kind.
        let mut sheet = Sheet::default();
        template(&mut sheet, &wanted.template);
        let what = if is_deployment { "" } else { "will roll back to " };
        println!("{} {what}{}{}", object.qualified(), escape::text(&sheet.text), flags.dry_run.suffix());
        return Ok(());
    }
    let wish = wanted.wish();
    if same(&wish, &found["spec"]["template"]) {
        println!(
            "{} skipped rollback (current template already matches revision {})",
            object.qualified(),
            flags.to_revision
        );
        return Ok(());
    }
    let mut patch = vec![json!({"op": "replace", "path": "/spec/template", "value": wish})];
    if is_deployment {
        let annotations = annotations(&wanted.annotations, &found["metadata"]["annotations"]);
        patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
    }
    let call = Call::new(Method::PATCH, with_query(&object.path(), &flags.dry_run.query()));
    session.json(call.body("application/json-patch+json", serde_json::to_vec(&patch)?)).await?;
    println!("{} rolled back{}", object.qualified(), flags.dry_run.suffix());
    Ok(())
}

/// R5.
fn annotations(past: &Map<String, Value>, now: &Value) -> Map<String, Value> {
    let stays = |name: &str| OF_NOW.contains(&name);
    let back = past.iter().filter(|(name, _)| !stays(name));
    let kept = now.as_object().into_iter().flatten().filter(|(name, _)| stays(name));
    back.chain(kept).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// What is not in the history.
#[derive(Debug, PartialEq)]
enum Missing {
    Wanted,
    Before,
}

/// R1.
fn target(past: &[Past], wanted: u64) -> Result<&Past, Missing> {
    if wanted > 0 {
        return past.iter().find(|past| past.number == wanted).ok_or(Missing::Wanted);
    }
    past.len().checked_sub(2).map(|before| &past[before]).ok_or(Missing::Before)
}

/// R3. Templates that other servers noted down have an empty date.
fn same(one: &Value, other: &Value) -> bool {
    let dateless = |template: &Value| {
        let mut template = template.clone();
        if let Some(metadata) = template["metadata"].as_object_mut() {
            metadata.remove("creationTimestamp");
        }
        template
    };
    dateless(one) == dateless(other)
}

#[cfg(test)]
mod tests {
    use super::{Missing, Past, annotations, same, target};
    use serde_json::{Map, Value, json};

    fn past(number: u64) -> Past {
        Past { number, cause: String::new(), template: json!({}), annotations: Map::new() }
    }

    #[test]
    fn r1_the_one_before_unless_said() {
        let all = [past(3), past(9), past(10)];
        assert_eq!(target(&all, 0).map(|past| past.number), Ok(9));
        assert_eq!(target(&all, 3).map(|past| past.number), Ok(3));
        assert_eq!(target(&all, 4), Err(Missing::Wanted));
        assert_eq!(target(&all[..1], 0), Err(Missing::Before));
        assert_eq!(target(&[], 0), Err(Missing::Before));
    }

    #[test]
    fn r5_notes_come_back_with_the_template() {
        let map = |value: Value| value.as_object().cloned().expect("a map");
        let past = map(json!({"kubernetes.io/change-cause": "good", "deployment.kubernetes.io/revision": "1"}));
        let now = json!({"kubernetes.io/change-cause": "bad", "own": "x", "deployment.kubernetes.io/revision": "2"});
        let expected = json!({"kubernetes.io/change-cause": "good", "deployment.kubernetes.io/revision": "2"});
        assert_eq!(annotations(&past, &now), map(expected));
    }

    #[test]
    fn r3_an_empty_date_does_not_tell_templates_apart() {
        let noted = json!({"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}, "spec": {}});
        assert!(same(&noted, &json!({"metadata": {"labels": {"a": "b"}}, "spec": {}})));
        assert!(!same(&noted, &json!({"metadata": {"labels": {"a": "c"}}, "spec": {}})));
    }
}
