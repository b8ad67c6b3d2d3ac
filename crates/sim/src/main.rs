//! `windlass-sim --seed N --count K [--storm S] [--verbose]`: runs simulated clusters and says what each of them broke.

use std::process::ExitCode;
use std::time::Duration;

use windlass_sim::{Event, Outcome, Setup, run};

const USAGE: &str = "usage: windlass-sim [--seed N] [--count K] [--storm S] [--verbose]
  --seed N    the first seed (default 1)
  --count K   how many seeds, counting up (default 1)
  --storm S   how many simulated seconds faults happen (default 60)
  --verbose   print every event as it happens; RUST_LOG prints what the parts say";

struct Options {
    seed: u64,
    count: u64,
    storm: u64,
    verbose: bool,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    }
    let mut broken = 0;
    for seed in options.seed..options.seed.saturating_add(options.count) {
        let tell: Option<fn(&Event)> = if options.verbose { Some(|event| println!("{event}")) } else { None };
        let outcome = run(&Setup { tell, storm: Duration::from_secs(options.storm), ..Setup::new(seed) });
        report(&outcome);
        broken += u64::from(!outcome.violations.is_empty());
    }
    if broken > 0 {
        println!("{broken} of {} seeds broke a rule", options.count);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn report(outcome: &Outcome) {
    let Outcome { seed, hash, events, acks, revision, .. } = outcome;
    let (simulated, converged) =
        (outcome.simulated.as_secs_f64(), outcome.converged.map_or(-1.0, |took| took.as_secs_f64()));
    let verdict = if outcome.violations.is_empty() { "ok" } else { "BROKEN" };
    println!(
        "seed {seed}: {verdict}, history {hash:016x}, {events} events in {simulated:.1} s, {acks} writes acknowledged, \
         revision {revision}, as declared after {converged:.1} s"
    );
    for violation in &outcome.violations {
        println!(
            "seed {seed}, {:.6} s: {} is broken: {}",
            violation.at.as_secs_f64(),
            violation.invariant,
            violation.what
        );
        violation.excerpt.iter().for_each(|event| println!("    {event}"));
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { seed: 1, count: 1, storm: 60, verbose: false };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or_else(|| format!("{argument}: expected a number, found nothing"))?;
            value.parse().map_err(|_| format!("{argument}: expected a number, found {value:?}"))
        };
        match argument.as_str() {
            "--seed" => options.seed = number()?,
            "--count" => options.count = number()?,
            "--storm" => options.storm = number()?,
            "--verbose" => options.verbose = true,
            _ => return Err(format!("expected --seed, --count, --storm or --verbose, found {argument:?}")),
        }
    }
    Ok(options)
}
