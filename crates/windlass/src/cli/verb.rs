//! The verbs of kubectl, for people without it: one file each.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;

use super::session::Session;
use super::{delete, describe, failure, get};
use crate::place::Place;

/// What to do with objects.
#[derive(Subcommand)]
pub enum Verb {
    /// Show objects
    Get(get::GetFlags),
    /// Show an object, what belongs to it, and its events
    Describe(describe::DescribeFlags),
    /// Delete objects
    Delete(delete::DeleteFlags),
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
        match verb {
            Verb::Get(flags) => get::run(&Session::open(place, &flags.session)?, &flags).await,
            Verb::Describe(flags) => describe::run(&Session::open(place, &flags.session)?, &flags).await,
            Verb::Delete(flags) => delete::run(&Session::open(place, &flags.session)?, &flags).await,
        }
    });
    // A read of the terminal cannot be cancelled; nobody waits for it.
    runtime.shutdown_background();
    result
}
