//! `cargo x`: everything that is done with this tree, in Rust.

#![expect(clippy::disallowed_methods, reason = "tooling measures real time")]

mod bench;
mod demo;
mod image;
mod licence;
mod look;
mod setup;
mod step;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo x", about = "Build, test, demonstrate and measure Windlass")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing, fetch the real clients and make the demo image; the other commands do it by themselves
    Setup,
    /// Format check, clippy with warnings as errors, tidy, licences
    Check,
    /// Everything that must pass: check, all tests, the end-to-end suite
    Test,
    /// The end-to-end suite: the built binary, driven by real clients, as root
    E2e {
        /// Run only tests whose name contains this
        filter: Option<String>,
    },
    /// The conformance suite, in process, or against any cluster
    Conformance(step::ConformanceArgs),
    /// Valid, nearly valid and hostile requests for every kind and verb, from a seed
    Fuzz(step::FuzzArgs),
    /// A simulated cluster under faults, replayed from a seed
    Sim(step::SimArgs),
    /// A benchmark of TARGETS, by name; without a name, the list
    Bench(bench::BenchArgs),
    /// Build, start a one-node cluster, run a real application on it, and say how long each phase took
    Demo(demo::DemoArgs),
    /// The style rules that a program can check
    Tidy,
    /// Find the files of a noun: `cargo x where deployment`
    Where {
        /// A noun of the domain, singular
        noun: String,
    },
    /// How large everything is: lines by crate, dependencies, the binary
    Size,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Setup => step::setup_all(),
        Command::Check => step::check(),
        Command::Test => step::test(),
        Command::E2e { filter } => step::e2e(filter.as_deref()),
        Command::Conformance(args) => step::conformance(&args),
        Command::Fuzz(args) => step::fuzz(&args),
        Command::Sim(args) => step::sim(&args),
        Command::Bench(args) => bench::run_benchmark(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Tidy => tidy::run(),
        Command::Where { noun } => look::find_noun(&noun),
        Command::Size => look::size(),
    }
}
