//! `cargo x bench NAME`: builds the release binary, makes sure the peers are there, and runs one benchmark.

use std::process::Command;

use anyhow::Result;

use crate::step::{build_release, run};
use crate::{image, setup};

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
    setup::ensure(setup::BUILD)?;
    let programs = build_release(&["windlass", "windlass-bench"])?;
    let mut command = Command::new(programs.join("windlass-bench"));
    let Some(name) = &args.name else {
        return run("benchmarks", &mut command);
    };
    setup::ensure(setup::DEMO)?;
    command.arg(name);
    match args.alone {
        true => drop(command.arg("--alone")),
        false => setup::ensure(setup::PEERS)?,
    }
    if args.quick {
        command.arg("--quick");
    }
    command.env("WINDLASS_BIN", programs.join("windlass")).env("WINDLASS_IMAGE", image::DEMO.build()?);
    run(&format!("benchmark {name}"), &mut command)
}
