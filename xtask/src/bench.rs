//! `cargo x bench NAME`: builds the release binary, makes sure the peers are there, and runs one benchmark.

use anyhow::Result;

use crate::setup;
use crate::step::{build_binary, cargo};
use crate::{image, step};

/// The options of `cargo x bench`.
#[derive(clap::Args)]
pub struct BenchArgs {
    /// The benchmark, such as `start` or `pod`; without it, the list of names
    pub name: Option<String>,
    /// Leave the peers out: measure only Windlass
    #[arg(long)]
    pub alone: bool,
    /// Run each measurement once, to see that the benchmark works
    #[arg(long)]
    pub quick: bool,
}

/// Runs one benchmark.
pub fn run_benchmark(args: &BenchArgs) -> Result<()> {
    let mut command = cargo(&["run", "--release", "-q", "-p", "windlass-bench", "--"]);
    let Some(name) = &args.name else {
        command.arg("list");
        return step::run("benchmarks", &mut command);
    };
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::DEMO)?;
    if !args.alone {
        setup::ensure(setup::PEERS)?;
    }
    command.arg(name);
    if args.alone {
        command.arg("--alone");
    }
    if args.quick {
        command.arg("--quick");
    }
    command.env("WINDLASS_BIN", build_binary(true)?).env("WINDLASS_IMAGE", image::build()?);
    step::run(&format!("benchmark {name}"), &mut command)
}
