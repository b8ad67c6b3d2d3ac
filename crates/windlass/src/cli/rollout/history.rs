//! `rollout history`: the revisions that a Deployment's replica sets keep.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::{WhatFlags, expect_deployment, revision};
use crate::cli::describe::deployment::replica_sets;
use crate::cli::describe::sheet::{Sheet, text};
use crate::cli::describe::template::template;
use crate::cli::output::align::{SHEET, align};
use crate::cli::output::escape;
use crate::cli::session::Session;

/// `windlass rollout history`.
#[derive(Args)]
pub struct HistoryFlags {
    #[command(flatten)]
    pub what: WhatFlags,
    /// Show the pod template of this revision
    #[arg(long, default_value_t = 0)]
    pub revision: u64,
}

pub(super) async fn run(session: &Session, flags: &HistoryFlags) -> Result<()> {
    for object in flags.what.find(session).await? {
        expect_deployment(&object, "history viewer")?;
        let sets = replica_sets(session, &object.get(session).await?).await?;
        let mut sets: Vec<&Value> = sets.iter().collect();
        sets.sort_by_key(|set| revision(set));
        if flags.revision > 0 {
            let Some(set) = sets.iter().find(|set| revision(set) == flags.revision) else {
                bail!("unable to find the specified revision");
            };
            println!("{} with revision #{}", object.qualified(), flags.revision);
            let mut sheet = Sheet::default();
            template(&mut sheet, &set["spec"]["template"]);
            // kubectl leaves the tabs of this sheet as they are
            println!("{}", escape::text(&sheet.text));
        } else {
            println!("{} ", object.qualified());
            println!("{}", align(&escape::text(&list(&sets)), SHEET));
        }
    }
    Ok(())
}

fn list(sets: &[&Value]) -> String {
    let mut lines = "REVISION\tCHANGE-CAUSE\n".to_owned();
    for set in sets {
        let cause = match text(&set["metadata"]["annotations"], "kubernetes.io/change-cause") {
            "" => "<none>",
            cause => cause,
        };
        lines += &format!("{}\t{cause}\n", revision(set));
    }
    lines
}
