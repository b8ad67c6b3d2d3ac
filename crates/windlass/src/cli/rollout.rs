//! `windlass rollout`: how a change reaches the pods, and how it is taken back.

mod history;
mod past;
mod pause;
mod restart;
mod status;
mod undo;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::chosen::{Choice, Chosen};
use super::get::all_said;
use super::manifest::FileFlags;
use super::select::SelectFlags;
use super::session::{Session, SessionFlags};

/// `windlass rollout`.
#[derive(Args)]
pub struct RolloutFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    #[command(subcommand)]
    pub verb: RolloutVerb,
}

/// What to do with a rollout.
#[derive(Subcommand)]
pub enum RolloutVerb {
    /// Follow a rollout to its end
    Status(status::StatusFlags),
    /// Show what was rolled out before
    History(history::HistoryFlags),
    /// Go back to what was rolled out before
    Undo(undo::UndoFlags),
    /// Replace all pods, by the rules of a rollout
    Restart(WhatFlags),
    /// Hold changes back
    Pause(WhatFlags),
    /// Let changes through again
    Resume(WhatFlags),
}

/// Which objects.
#[derive(Args)]
pub struct WhatFlags {
    /// KIND NAME…, KIND/NAME…, or KIND with -l
    #[arg(value_name = "WHAT")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub select: SelectFlags,
    #[command(flatten)]
    pub files: FileFlags,
}

impl WhatFlags {
    async fn find(&self, session: &Session) -> Result<Vec<Chosen>> {
        // a kind alone means all of it, as kubectl has it for rollouts
        let all = self.words.len() == 1 && !self.words[0].contains('/') && !self.select.is_narrow();
        let choice = Choice { words: &self.words, select: &self.select, files: &self.files, all };
        let chosen = choice.find_all(session).await?;
        if chosen.is_empty() {
            bail!("no objects passed to rollout");
        }
        Ok(chosen)
    }
}

/// Does it.
pub async fn run(session: &Session, flags: &RolloutFlags) -> Result<()> {
    match &flags.verb {
        RolloutVerb::Status(flags) => status::run(session, flags).await,
        RolloutVerb::History(flags) => history::run(session, flags).await,
        RolloutVerb::Undo(flags) => undo::run(session, flags).await,
        RolloutVerb::Restart(what) => each(session, what, restart::restart).await,
        RolloutVerb::Pause(what) => each(session, what, pause::pause).await,
        RolloutVerb::Resume(what) => each(session, what, pause::resume).await,
    }
}

async fn each(session: &Session, what: &WhatFlags, verb: impl AsyncFn(&Session, &Chosen) -> Result<()>) -> Result<()> {
    let mut failed = Vec::new();
    for object in what.find(session).await? {
        if let Err(error) = verb(session, &object).await {
            failed.push(error);
        }
    }
    all_said(failed)
}

/// The revision that a Deployment or ReplicaSet carries.
fn revision(object: &Value) -> u64 {
    let noted = object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
    noted.and_then(|text| text.parse().ok()).unwrap_or(0)
}
