//! The conformance suite: what Kubernetes demands of a cluster, in black-box tests over HTTP, each named after its entry
//! in the conformance list.
//!
//! Goal        whoever works with Kubernetes 1.37 works with the cluster that this suite passes on
//! Runs        in process what needs no container: the API server, controllers and scheduler over a real store; then,
//!             on a real cluster of one node (the built binary, as root), the tests that need a node, and nothing may be
//!             left behind. `--node` runs only these; `--against KUBECONFIG` runs both kinds on any cluster
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
mod running;
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
use windlass_tests::trace;

/// Tests under way at one time.
const LANES: usize = 4;
/// Tests that need a node under way at one time: most of the time they wait.
const NODE_LANES: usize = 10;
/// The number of the suite's own cluster, apart from those of the end-to-end suite.
const NUMBER: u16 = 10;

/// One test: the entry it stands for, and what it does.
struct Case {
    entry: &'static str,
    needs: Needs,
    body: for<'a> fn(&'a Test) -> BoxFuture<'a, ()>,
}

/// What a test needs besides the API.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// A node, on which containers run.
    Node,
    /// The nodes for itself: it does what other tests' pods would not outlive.
    AllNodes,
}

/// Names a test by its entry.
macro_rules! case {
    ($entry:literal, $body:path) => {
        $crate::Case { entry: $entry, needs: $crate::Needs::Nothing, body: |test| Box::pin($body(test)) }
    };
}
pub(crate) use case;

/// Names a test that needs a node by its entry.
macro_rules! on_node {
    ($entry:literal, $body:path) => {
        $crate::Case { entry: $entry, needs: $crate::Needs::Node, body: |test| Box::pin($body(test)) }
    };
}
pub(crate) use on_node;

/// Names a test that needs the nodes for itself by its entry.
macro_rules! on_all_nodes {
    ($entry:literal, $body:path) => {
        $crate::Case { entry: $entry, needs: $crate::Needs::AllNodes, body: |test| Box::pin($body(test)) }
    };
}
pub(crate) use on_all_nodes;

/// Names a walk by its entry: the row is a function of the test, and every rule of the walk is what the entry demands.
macro_rules! row {
    ($entry:literal, $row:path) => {
        $crate::Case {
            entry: $entry,
            needs: $crate::Needs::Nothing,
            body: |test| Box::pin(async move { $row(test).whole(test).await }),
        }
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
    let only_node = arguments.iter().any(|argument| argument == "--node");
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let [plain, on_node] = chosen(filter, only_node)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut results = Vec::new();
    if let Some(path) = kubeconfig {
        let api = Api::of_kubeconfig(path.as_ref())?;
        results.extend(runtime.block_on(run(&api, plain, LANES)));
        results.extend(runtime.block_on(run_on_nodes(&api, on_node)));
    } else {
        if !plain.is_empty() {
            results.extend(runtime.block_on(in_process(plain))?);
        }
        if !on_node.is_empty() {
            results.extend(on_a_node(&runtime, on_node)?);
        }
    }
    let failed = results.iter().filter(|ok| !**ok).count();
    println!("{} passed, {failed} failed", results.len() - failed);
    if failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// The tests whose entry contains the filter: those that need no node, and those that do.
fn chosen(filter: &str, only_node: bool) -> Result<[Vec<Case>; 2]> {
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
    println!("{} of {} entries have a test here", cases.len(), entries.len());
    let filter = filter.to_lowercase();
    let chosen = cases.into_iter().filter(|case| case.entry.to_lowercase().contains(&filter));
    let (on_node, plain): (Vec<Case>, Vec<Case>) = chosen.partition(|case| case.needs != Needs::Nothing);
    let plain = if only_node { Vec::new() } else { plain };
    if plain.is_empty() && on_node.is_empty() {
        bail!("no test's entry contains {filter:?}");
    }
    Ok([plain, on_node])
}

async fn in_process(cases: Vec<Case>) -> Result<Vec<bool>> {
    let cluster = cluster::Cluster::start().await?;
    let results = run(&cluster.api(), cases, LANES).await;
    cluster.end().await?;
    Ok(results)
}

/// Runs the tests on a real cluster; the last result says whether nothing was left behind.
fn on_a_node(runtime: &tokio::runtime::Runtime, cases: Vec<Case>) -> Result<Vec<bool>> {
    let mut cluster = windlass_tests::Cluster::start(NUMBER);
    cluster.import_image();
    let mut results = runtime.block_on(run_on_nodes(&Api::of_kubeconfig(&cluster.kubeconfig())?, cases));
    let down = cluster.down();
    let left = trace::left_behind(&cluster);
    let clean = down.ok && left.is_empty();
    if !clean {
        eprintln!("FAILED down leaves nothing behind: {}\n{}", down.stderr, left.join("\n"));
    }
    results.push(clean);
    Ok(results)
}

async fn run_on_nodes(api: &Api, cases: Vec<Case>) -> Vec<bool> {
    let (alone, together): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(|case| case.needs == Needs::AllNodes);
    let mut results = run(api, together, NODE_LANES).await;
    results.extend(run(api, alone, 1).await);
    results
}

async fn run(api: &Api, cases: Vec<Case>, lanes: usize) -> Vec<bool> {
    stream::iter(cases).map(|case| run_case(api, case)).buffer_unordered(lanes).collect().await
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
