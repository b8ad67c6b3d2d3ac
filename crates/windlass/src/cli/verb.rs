//! The verbs of kubectl, for people without it: one file each.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;

use super::session::{Session, SessionFlags};
use super::{
    apply, candidates, completion, cp, create, delete, describe, edit, events, exec, explain, failure, get, kustomize,
    label, logs, patch, port_forward, rollout, scale, top, trace, wait,
};
use crate::place::Place;

/// What to do with objects.
#[derive(Subcommand)]
pub enum Verb {
    /// Show objects
    Get(get::GetFlags),
    /// Show an object, what belongs to it, and its events
    Describe(describe::DescribeFlags),
    /// Make objects as files want them
    Apply(apply::ApplyFlags),
    /// Make new objects from files
    Create(create::CreateFlags),
    /// Change objects in an editor
    Edit(edit::EditFlags),
    /// Delete objects
    Delete(delete::DeleteFlags),
    /// Show the objects of a kustomization
    Kustomize(kustomize::KustomizeFlags),
    /// Set and take away labels
    Label(label::LabelFlags),
    /// Set and take away annotations
    Annotate(label::LabelFlags),
    /// Change objects as a patch says
    Patch(patch::PatchFlags),
    /// Say how many replicas
    Scale(scale::ScaleFlags),
    /// Follow, restart or take back a rollout
    Rollout(rollout::RolloutFlags),
    /// Wait until objects are as wanted
    Wait(wait::WaitFlags),
    /// Show what containers have said
    Logs(logs::LogsFlags),
    /// Run a command in a container
    Exec(exec::ExecFlags),
    /// Copy files into a container and out of it
    Cp(cp::CpFlags),
    /// Lead ports of this machine to ports of a pod
    PortForward(port_forward::PortForwardFlags),
    /// Show what has happened
    Events(events::EventsFlags),
    /// Say what the fields of a kind mean
    Explain(explain::ExplainFlags),
    /// Show what nodes and pods use
    Top(top::TopFlags),
    /// Show how a pod came up, step by step
    Trace(trace::TraceFlags),
    /// Print what a shell needs to complete words and flags
    Completion(completion::CompletionFlags),
    /// Print what may stand where the cursor is: for the script of `completion`
    #[command(name = "__complete", hide = true)]
    Candidates(candidates::CandidateFlags),
}

/// Does it, and says what went wrong.
pub fn run(place: &Place, verb: Verb) -> ExitCode {
    match try_run(place, verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn try_run(place: &Place, verb: Verb) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let result = runtime.block_on(async {
        let open = |flags: &SessionFlags| Session::open(place, flags);
        match verb {
            Verb::Get(flags) => get::run(&open(&flags.session)?, &flags).await,
            Verb::Describe(flags) => describe::run(&open(&flags.session)?, &flags).await,
            Verb::Apply(flags) => apply::run(&open(&flags.session)?, &flags).await,
            Verb::Create(flags) => create::run(&open(&flags.session)?, &flags).await,
            Verb::Edit(flags) => edit::run(&open(&flags.session)?, &flags).await,
            Verb::Delete(flags) => delete::run(&open(&flags.session)?, &flags).await,
            Verb::Kustomize(flags) => kustomize::run(&flags),
            Verb::Label(flags) => label::run(&open(&flags.session)?, &flags, label::Marks::Labels).await,
            Verb::Annotate(flags) => label::run(&open(&flags.session)?, &flags, label::Marks::Annotations).await,
            Verb::Patch(flags) => patch::run(&open(&flags.session)?, &flags).await,
            Verb::Scale(flags) => scale::run(&open(&flags.session)?, &flags).await,
            Verb::Rollout(flags) => rollout::run(&open(&flags.session)?, &flags).await,
            Verb::Wait(flags) => wait::run(&open(&flags.session)?, &flags).await,
            Verb::Logs(flags) => logs::run(&open(&flags.session)?, &flags).await,
            Verb::Exec(flags) => exec::run(&open(&flags.session)?, &flags).await,
            Verb::Cp(flags) => cp::run(&open(&flags.session)?, &flags).await,
            Verb::PortForward(flags) => port_forward::run(open(&flags.session)?.into(), &flags).await,
            Verb::Events(flags) => events::run(&open(&flags.session)?, &flags).await,
            Verb::Explain(flags) => explain::run(&open(&flags.session)?, &flags).await,
            Verb::Top(flags) => top::run(&open(&flags.session)?, &flags).await,
            Verb::Trace(flags) => trace::run(&open(&flags.session)?, &flags).await,
            Verb::Completion(flags) => completion::run(&flags),
            Verb::Candidates(flags) => candidates::run(place, &flags).await,
        }
    });
    // A read of the terminal cannot be cancelled; nobody waits for it.
    runtime.shutdown_background();
    result
}
