//! The benchmarks: what TARGETS names, measured on the built binary and, where a peer is installed, on the peer in the
//! same run, alternating. Run by `cargo x bench NAME`.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]

mod api;
mod cluster;
mod containerd;
mod docker;
mod etcd;
mod memory;
mod objects;
mod pod;
mod pull;
mod read;
mod sample;
mod start;
mod storm;
mod usage;

use anyhow::{Result, bail};

/// How a benchmark is run.
#[derive(Clone, Copy)]
pub struct Options {
    /// Without the peers.
    pub alone: bool,
    /// As few rounds as show that it works.
    pub quick: bool,
}

impl Options {
    /// The number of rounds: `full`, or one when it only has to work.
    pub fn rounds(self, full: usize) -> usize {
        if self.quick { 1 } else { full }
    }
}

type Benchmark = (&'static str, &'static str, fn(Options) -> Result<()>);

const BENCHMARKS: &[Benchmark] = &[
    ("start", "P1: exec of the server → /readyz, empty and with 10,000 objects", start::run),
    ("idle", "P2: idle memory, CPU and disk writes of a one-node cluster", memory::idle),
    ("pod-memory", "P3: memory of a running idle pod beyond its payload", memory::pods),
    ("pod", "P4: one pod, API create → container running", pod::start),
    ("deployment", "P5: a Deployment of 100 → all available", pod::deployment),
    ("restart", "P7: container killed → its replacement running", pod::restart),
    ("api", "P8: create, get, patch and delete of 1 KiB ConfigMaps by 10 and 100 clients", api::run),
    ("list", "P9: list 5,000 ConfigMaps, plain and compressed", read::list),
    ("fan-out", "P10: events to 100 and 1,000 watchers, steadily and as fast as they are taken", read::fan_out),
    ("watchers", "P10: memory of 10,000 watchers that wait", read::waiting),
    ("objects", "memory of 100,000 objects, and a start with them", objects::run),
    ("pull", "P19: an image of 211 MB from a registry on this machine", pull::run),
    ("storm", "A19: 200 clients list 100,000 objects at once while a lease is renewed", storm::run),
    ("size", "P18: the binary", start::size),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let options = Options { alone: has("--alone"), quick: has("--quick") };
    let Some(name) = arguments.iter().find(|argument| !argument.starts_with('-')) else {
        for (name, what, _) in BENCHMARKS {
            println!("{name:<12} {what}");
        }
        return Ok(());
    };
    rustls::crypto::ring::default_provider().install_default().ok();
    let chosen: Vec<&Benchmark> = BENCHMARKS.iter().filter(|(own, ..)| name == "all" || own == name).collect();
    if chosen.is_empty() {
        bail!("there is no benchmark {name:?}; `cargo x bench` lists them");
    }
    for (name, what, run) in chosen {
        println!("## {name} — {what}");
        run(options)?;
    }
    Ok(())
}
