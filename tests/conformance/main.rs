//! The conformance suite: what Kubernetes demands of an API server, in black-box tests over HTTP, each named after its
//! entry in the conformance list.
//!
//! Goal        whoever works with Kubernetes 1.37 works with the server that this suite passes on
//! Runs        in process by default: the API server, controllers and scheduler over a real store, no node;
//!             `--against KUBECONFIG` runs the same tests on any cluster
//! Not here    entries that need a running container (the end-to-end suite) and admission webhooks. Of an entry that
//!             speaks of both objects and containers, what it asks of the objects is here
//!
//! `entries.txt` names every entry of the list. Each test names one; the suite fails on a test without an entry and
//! says how many entries have a test.

#![expect(clippy::disallowed_methods, reason = "a suite measures the real clock")]

mod api;
mod apps;
mod auth;
mod cli;
mod cluster;
mod instrumentation;
mod machinery;
mod network;
mod node;
mod pod;
mod scheduling;
mod storage;
mod walk;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};

use api::Api;

/// Tests under way at one time.
const LANES: usize = 4;

/// One test: the entry it stands for, and what it does.
struct Case {
    entry: &'static str,
    body: for<'a> fn(&'a Test) -> BoxFuture<'a, ()>,
}

/// Names a test by its entry.
macro_rules! case {
    ($entry:literal, $body:path) => {
        $crate::Case { entry: $entry, body: |test| Box::pin($body(test)) }
    };
}
pub(crate) use case;

/// Names a walk by its entry: the row is a function of the test, and every rule of the walk is what the entry demands.
macro_rules! row {
    ($entry:literal, $row:path) => {
        $crate::Case { entry: $entry, body: |test| Box::pin(async move { $row(test).whole(test).await }) }
    };
}
pub(crate) use row;

/// What a test has: the API, as an administrator, and a namespace of its own.
struct Test {
    api: Api,
    /// The test's own namespace.
    namespace: String,
}

impl Test {
    /// The path of a collection in the test's namespace: `v1` or `apps/v1`, and the plural.
    fn path(&self, version: &str, plural: &str) -> String {
        let root = if version.contains('/') { "/apis" } else { "/api" };
        format!("{root}/{version}/namespaces/{}/{plural}", self.namespace)
    }

    /// The path of a collection in the whole cluster.
    fn everywhere(&self, version: &str, plural: &str) -> String {
        let root = if version.contains('/') { "/apis" } else { "/api" };
        format!("{root}/{version}/{plural}")
    }

    /// A name that no other test and no earlier run uses.
    fn unique(&self, word: &str) -> String {
        format!("{word}-{}", self.namespace.trim_start_matches("conformance-"))
    }
}

fn cases() -> Vec<Case> {
    let areas = [
        apps::cases(),
        auth::cases(),
        cli::cases(),
        instrumentation::cases(),
        machinery::cases(),
        network::cases(),
        node::cases(),
        scheduling::cases(),
        storage::cases(),
    ];
    areas.into_iter().flatten().collect()
}

fn main() -> Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let against = arguments.iter().position(|argument| argument == "--against");
    let kubeconfig = against.map(|at| arguments.get(at + 1).context("--against needs a kubeconfig")).transpose()?;
    let filter = arguments
        .iter()
        .enumerate()
        .find(|(at, argument)| !argument.starts_with('-') && against.is_none_or(|against| *at != against + 1))
        .map_or("", |(_, argument)| argument.as_str());
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let failed = runtime.block_on(async {
        match kubeconfig {
            Some(path) => run(&Api::of_kubeconfig(path.as_ref())?, filter).await,
            None => {
                let cluster = cluster::Cluster::start().await?;
                let failed = run(&cluster.api(), filter).await;
                cluster.end().await?;
                failed
            }
        }
    })?;
    if failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// Runs the tests whose entry contains the filter; gives how many failed.
async fn run(api: &Api, filter: &str) -> Result<usize> {
    let entries: BTreeSet<&str> = include_str!("entries.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(": ").map(|(_, entry)| entry))
        .collect();
    let cases = cases();
    let named: BTreeSet<&str> = cases.iter().map(|case| case.entry).collect();
    if named.len() != cases.len() {
        bail!("two tests name the same entry");
    }
    if let Some(unknown) = named.iter().find(|entry| !entries.contains(*entry)) {
        bail!("{unknown:?} is no entry of entries.txt");
    }
    let (all, total) = (cases.len(), entries.len());
    let chosen = cases.into_iter().filter(|case| case.entry.to_lowercase().contains(&filter.to_lowercase()));
    let results: Vec<bool> =
        stream::iter(chosen).map(|case| run_case(api, case)).buffer_unordered(LANES).collect().await;
    let failed = results.iter().filter(|ok| !**ok).count();
    if results.is_empty() {
        bail!("no test's entry contains {filter:?}");
    }
    println!("{all} of {total} entries have a test here");
    println!("{} passed, {failed} failed", results.len() - failed);
    Ok(failed)
}

async fn run_case(api: &Api, case: Case) -> bool {
    let started = Instant::now();
    let namespace = api.make_namespace().await;
    let test = Test { api: api.clone(), namespace };
    let ended = AssertUnwindSafe((case.body)(&test)).catch_unwind().await;
    let path = format!("/api/v1/namespaces/{}", test.namespace);
    test.api.delete(&path).await;
    let took = started.elapsed().as_secs_f64();
    eprintln!("{} {} ({took:.1} s)", if ended.is_ok() { "ok    " } else { "FAILED" }, case.entry);
    ended.is_ok()
}
