//! `rollout history`: the revisions that a Deployment, DaemonSet or StatefulSet could go back to.

use anyhow::{Result, bail};
use clap::Args;

use super::WhatFlags;
use super::past::{Past, past};
use crate::cli::describe::sheet::Sheet;
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
        let found = object.get(session).await?;
        let past = past(session, &object, &found, "history viewer").await?;
        if flags.revision > 0 {
            let Some(wanted) = past.iter().find(|past| past.number == flags.revision) else {
                bail!("unable to find the specified revision");
            };
            println!("{} with revision #{}", object.qualified(), flags.revision);
            let mut sheet = Sheet::default();
            template(&mut sheet, &wanted.template);
            // kubectl leaves the tabs of this sheet as they are
            println!("{}", escape::text(&sheet.text));
        } else if past.is_empty() {
            println!("{} \nNo rollout history found.", object.qualified());
        } else {
            println!("{} ", object.qualified());
            println!("{}", align(&escape::text(&list(&past)), SHEET));
        }
    }
    Ok(())
}

fn list(past: &[Past]) -> String {
    let mut lines = "REVISION\tCHANGE-CAUSE\n".to_owned();
    for past in past {
        let cause = if past.cause.is_empty() { "<none>" } else { &past.cause };
        lines += &format!("{}\t{cause}\n", past.number);
    }
    lines
}
