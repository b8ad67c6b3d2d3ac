//! `windlass`: flags, wiring and the command line; nothing else.

mod admin;
mod archive;
mod backup;
mod cli;
mod down;
mod image;
mod kubeconfig;
mod node;
mod place;
mod restore;
mod server;
mod status;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    // The shim is this program started again for one pod. It must come before anything that makes threads or large
    // allocations: there is one for every pod.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "shim") {
        windlass_runtime::shim_main(std::env::args_os().skip(2));
    }
    // What a runtime calls that runs pods for this node: it says so in the environment.
    if windlass_node::cni::is_called() {
        return windlass_node::cni::main();
    }
    let cli = Cli::parse_from(cli::order::verb_first(std::env::args_os()));
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let place = cli.place.resolve()?;
    match cli.command {
        Command::Verb(verb) => return Ok(cli::verb::run(&place, *verb)),
        Command::Up(flags) => up::up(&place, flags),
        Command::Server(flags) => up::server(&place, &flags),
        Command::Node(flags) => up::node(&place, &flags),
        Command::Down { purge } => down::run(&place, purge),
        Command::Status => status::run(&place),
        Command::Image { command } => image::run(&place, command),
        Command::Kubeconfig { path } => kubeconfig::print(&place, path),
        Command::Backup { file } => backup::run(&place, &file),
        Command::Restore(flags) => restore::run(&place, &flags),
        Command::RotateTokenKey => admin::rotate_token_key(&place),
        Command::Token => admin::print_token(&place),
    }?;
    Ok(ExitCode::SUCCESS)
}
