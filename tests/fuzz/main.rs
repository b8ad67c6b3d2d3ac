//! The API fuzzer: valid, nearly valid and hostile requests for every kind and verb, from one seed.
//!
//! Goal        no request, whatever it holds, ends in a panic, a 500 or silence, or stores what cannot be read back
//! Runs        in process: the API server over a real store; `--seed N` says which requests, `--for SECONDS` how long,
//!             without it a fixed number of requests
//! Relies on   the schema table for what a field may hold, the samples for objects that break no rule
//!
//! Rules
//!   F1 answered   every request is answered in time, and as a fault of the server only where another server, or a revision
//!                 that is yet to come, would have to answer
//!   F2 no panic   the server counts none
//!   F3 readable   what a write answered can be read: the same object, and as a table row
//!   F4 kept       after a restart every object is there as it was
//!   F5 dry run    what is only tried leaves the store at its revision
//!   F6 watched    a watch that begins with what is there says so, in events that can be read
//!
//! A failure prints the seed, the request's number and the request: the same seed sends it again.

#![expect(clippy::disallowed_methods, reason = "the run is bounded by the real clock")]

mod generate;
mod request;
mod stage;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use generate::Generator;
use stage::Stage;

/// Requests of a run that no time was given for.
const REQUESTS_DEFAULT: usize = 4_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map(|at| arguments.get(at + 1).with_context(|| format!("{name} needs a value"))).transpose()
    };
    let seed: u64 = option("--seed")?.map_or(Ok(1), |text| text.parse()).context("--seed is a number")?;
    let seconds = option("--for")?.map(|text| text.trim_end_matches('s').parse::<u64>()).transpose();
    let time = seconds.context("--for is a number of seconds, such as 60s")?.map(Duration::from_secs);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let sent = runtime.block_on(run(seed, time))?;
    println!("seed {seed}: {sent} requests, nothing to complain about");
    println!("1 passed, 0 failed");
    Ok(())
}

async fn run(seed: u64, time: Option<Duration>) -> Result<usize> {
    let started = Instant::now();
    let mut stage = Stage::start().await?;
    let mut generator = Generator::new(ChaCha8Rng::seed_from_u64(seed));
    let mut number = 0;
    while time.map_or(number < REQUESTS_DEFAULT, |time| started.elapsed() < time) {
        let request = generator.request(&stage);
        let told = format!("seed {seed}, request {number}: {request}");
        stage.send(&request).await.with_context(|| told)?;
        number += 1;
        if number % 2_000 == 0 {
            stage.restart().await.with_context(|| format!("seed {seed}, restart after request {number}"))?;
        }
    }
    println!("{} writes were accepted", stage.accepted);
    anyhow::ensure!(stage.accepted * 20 > number, "hardly anything was accepted: the fuzzer makes no fit objects");
    stage.check_no_panic().await?;
    stage.restart().await.with_context(|| format!("seed {seed}, restart at the end"))?;
    stage.end().await?;
    Ok(number)
}
