//! `windlass top`: what nodes and pods use, where the server measures it (metrics.k8s.io).

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use windlass_api::quantity::Quantity;
use windlass_api::{Kind, kinds};

use super::describe::sheet::{items, text};
use super::output::align::Rows;
use super::output::escape;
use super::session::{Session, SessionFlags};

/// Where usage is served.
const GROUP: &str = "metrics.k8s.io";

/// `windlass top`.
#[derive(Args)]
pub struct TopFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    #[command(subcommand)]
    pub what: TopWhat,
}

/// Of what.
#[derive(Subcommand)]
pub enum TopWhat {
    /// What nodes use
    #[command(alias = "node", alias = "no")]
    Nodes(NodeFlags),
    /// What pods use
    #[command(alias = "pod", alias = "po")]
    Pods(PodFlags),
}

/// Which, and how shown.
#[derive(Args)]
pub struct WhichFlags {
    /// Only this one
    pub name: Option<String>,
    /// Only those with these labels
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Most first
    #[arg(long, value_enum)]
    pub sort_by: Option<SortBy>,
    /// No line of titles
    #[arg(long)]
    pub no_headers: bool,
}

/// Which nodes.
#[derive(Args)]
pub struct NodeFlags {
    #[command(flatten)]
    pub which: WhichFlags,
    /// Parts of all a node has, not of what it can give to pods
    #[arg(long)]
    pub show_capacity: bool,
}

/// Which pods.
#[derive(Args)]
pub struct PodFlags {
    #[command(flatten)]
    pub which: WhichFlags,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Each container
    #[arg(long)]
    pub containers: bool,
    /// Only those with these fields, as metadata.name=web
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
    /// All of them together as well
    #[arg(long)]
    pub sum: bool,
}

/// `--sort-by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    Cpu,
    Memory,
}

/// One line's worth.
struct Usage {
    cells: Vec<String>,
    cpu: Quantity,
    memory: Quantity,
    behind: Option<(String, String)>,
}

/// Does it.
pub async fn run(session: &Session, flags: &TopFlags) -> Result<()> {
    match &flags.what {
        TopWhat::Nodes(flags) => nodes(session, flags).await,
        TopWhat::Pods(flags) => pods(session, flags).await,
    }
}

async fn served(session: &Session, kind: &str) -> Result<Kind> {
    match session.discovery().await?.of_kind(kind, GROUP) {
        Some(served) => Ok(served.kind.clone()),
        None => bail!("Metrics API not available"),
    }
}

async fn fetch(
    session: &Session,
    kind: &Kind,
    namespace: Option<&str>,
    (flags, fields): (&WhichFlags, &str),
) -> Result<Vec<Value>> {
    match &flags.name {
        Some(name) => Ok(vec![session.get(kind, namespace.unwrap_or_default(), name).await?]),
        None => session.list(kind, namespace, &[("labelSelector", &flags.selector), ("fieldSelector", fields)]).await,
    }
}

async fn nodes(session: &Session, flags: &NodeFlags) -> Result<()> {
    let kind = served(session, "NodeMetrics").await?;
    let mut lines = Vec::new();
    for metrics in fetch(session, &kind, None, (&flags.which, "")).await? {
        let name = text(&metrics["metadata"], "name");
        let node = session.get(&kinds::NODE, "", name).await?;
        let (cpu, memory) = (amount(&metrics["usage"], "cpu"), amount(&metrics["usage"], "memory"));
        let whole = &node["status"][if flags.show_capacity { "capacity" } else { "allocatable" }];
        let behind = (percent(cpu, amount(whole, "cpu")), percent(memory, amount(whole, "memory")));
        lines.push(Usage { cells: vec![name.to_owned()], cpu, memory, behind: Some(behind) });
    }
    print(lines, &["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], (&flags.which, false));
    Ok(())
}

async fn pods(session: &Session, flags: &PodFlags) -> Result<()> {
    let kind = served(session, "PodMetrics").await?;
    let namespace = (!flags.all_namespaces).then_some(session.namespace.as_str());
    let mut lines = Vec::new();
    for metrics in fetch(session, &kind, namespace, (&flags.which, &flags.field_selector)).await? {
        let metadata = &metrics["metadata"];
        let mut cells = Vec::new();
        if flags.all_namespaces {
            cells.push(text(metadata, "namespace").to_owned());
        }
        cells.push(text(metadata, "name").to_owned());
        let containers = items(&metrics, "containers");
        if flags.containers {
            for container in containers {
                let cells = [cells.clone(), vec![text(container, "name").to_owned()]].concat();
                let usage = &container["usage"];
                lines.push(Usage { cells, cpu: amount(usage, "cpu"), memory: amount(usage, "memory"), behind: None });
            }
            continue;
        }
        let sum = |resource: &str| containers.iter().map(|container| amount(&container["usage"], resource)).sum();
        lines.push(Usage { cells, cpu: sum("cpu"), memory: sum("memory"), behind: None });
    }
    let mut titles = Vec::new();
    titles.extend(flags.all_namespaces.then_some("NAMESPACE"));
    titles.push(if flags.containers { "POD" } else { "NAME" });
    titles.extend(flags.containers.then_some("NAME"));
    titles.extend(["CPU(cores)", "MEMORY(bytes)"]);
    print(lines, &titles, (&flags.which, flags.sum));
    Ok(())
}

fn amount(usage: &Value, resource: &str) -> Quantity {
    Quantity::from_json(&usage[resource]).unwrap_or(Quantity::ZERO)
}

fn shown(cpu: Quantity, memory: Quantity) -> (String, String) {
    (format!("{}m", cpu.millis()), format!("{}Mi", memory.units() >> 20))
}

fn percent(used: Quantity, whole: Quantity) -> String {
    match whole.millis() {
        0 => "<unknown>".to_owned(),
        whole => format!("{}%", (used.millis() as f64 / whole as f64 * 100.0) as i64),
    }
}

fn print(mut lines: Vec<Usage>, titles: &[&str], (flags, with_sum): (&WhichFlags, bool)) {
    match flags.sort_by {
        Some(SortBy::Cpu) => lines.sort_by_key(|usage| std::cmp::Reverse(usage.cpu)),
        Some(SortBy::Memory) => lines.sort_by_key(|usage| std::cmp::Reverse(usage.memory)),
        None => lines.sort_by(|one, other| one.cells.cmp(&other.cells)),
    }
    let mut rows = Vec::new();
    if !flags.no_headers {
        rows.push(titles.iter().map(|title| (*title).to_owned()).collect());
    }
    let (cpu, memory) = (lines.iter().map(|usage| usage.cpu).sum(), lines.iter().map(|usage| usage.memory).sum());
    for usage in lines {
        let mut cells: Vec<String> = usage.cells.iter().map(|cell| escape::cell(cell)).collect();
        let (cpu, memory) = shown(usage.cpu, usage.memory);
        match usage.behind {
            Some((cpu_share, memory_share)) => cells.extend([cpu, cpu_share, memory, memory_share]),
            None => cells.extend([cpu, memory]),
        }
        rows.push(cells);
    }
    if with_sum {
        let (cpu, memory) = shown(cpu, memory);
        let rule = "________".to_owned();
        for (cpu, memory) in [(rule.clone(), rule), (cpu, memory)] {
            let before = std::iter::repeat_n(String::new(), titles.len() - 2);
            rows.push(before.chain([cpu, memory]).collect());
        }
    }
    print!("{}", Rows::default().align(&rows, |_, _, cell| cell.to_owned()));
}
