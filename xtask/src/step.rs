//! The steps that other commands are made of: run cargo, say what runs and how long it took.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{image, licence, setup, tidy};

/// The options of `cargo x sim`.
#[derive(clap::Args)]
pub struct SimArgs {
    /// The seed; the same seed gives the same history
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many seeds to run, counting up from the first
    #[arg(long, default_value_t = 1)]
    pub count: u64,
    /// Print every event of the history
    #[arg(long)]
    pub verbose: bool,
}

/// The options of `cargo x fuzz`.
#[derive(clap::Args)]
pub struct FuzzArgs {
    /// What is fuzzed
    #[arg(value_parser = ["api"])]
    pub what: String,
    /// The seed; the same seed sends the same requests
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long, such as 60s; without it, a fixed number of requests
    #[arg(long = "for")]
    pub time: Option<String>,
}

/// The options of `cargo x conformance`.
#[derive(clap::Args, Default)]
pub struct ConformanceArgs {
    /// Run only entries whose name contains this
    pub filter: Option<String>,
    /// Run only the entries that need a node, on a real cluster
    #[arg(long)]
    pub node: bool,
    /// Test the cluster of this kubeconfig instead of our own; it must know the image target/test-image/image.oci.tar
    #[arg(long)]
    pub against: Option<PathBuf>,
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    // Cargo says it at run time too: with a target directory shared between checkouts, the compiled path is another's.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&xtask).parent().expect("xtask lies in the workspace root").to_owned()
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Runs a program in the checkout, with its output shown, and says how long it took.
pub fn run(title: &str, command: &mut Command) -> Result<()> {
    eprintln!("── {title}");
    let started = Instant::now();
    let status = command.current_dir(root()).status().with_context(|| format!("could not start {command:?}"))?;
    if !status.success() {
        bail!("{title}: failed with {status}");
    }
    eprintln!("── {title}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a program and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.current_dir(root()).output().with_context(|| format!("could not start {command:?}"))?;
    if !out.status.success() {
        bail!("{command:?} failed with {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A cargo command. Builds for tests name the whole workspace and choose in it: with one package alone, its dependencies have
/// other features, and most of them would be compiled once more for it.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// Builds the binary without optimisation, as the tests run it, and returns its path.
pub fn build_debug() -> Result<PathBuf> {
    run("build windlass", &mut cargo(&["build", "--workspace", "--bin", "windlass"]))?;
    Ok(target_dir().join("debug/windlass"))
}

/// Builds programs of the workspace for release and returns the directory they are in.
///
/// A release program is one static file at a fixed address: docs/decisions/004-memory.md.
pub fn build_release(packages: &[&str]) -> Result<PathBuf> {
    let host = host_triple()?;
    let mut build = cargo(&["build", "--release", "--target", &host]);
    for package in packages {
        build.args(["-p", package]);
    }
    let mut flags = "--cfg tokio_unstable -C target-feature=+crt-static -C relocation-model=static".to_owned();
    // Equal functions are one. Rust brings a linker that can do that for this machine; those of others need not.
    if host == "x86_64-unknown-linux-gnu" {
        flags.push_str(" -C link-arg=-Wl,--icf=all");
    }
    build.env("RUSTFLAGS", flags);
    run("build for release", &mut build)?;
    Ok(target_dir().join(host).join("release"))
}

fn host_triple() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// `cargo x setup`.
pub fn setup_all() -> Result<()> {
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::TEST)?;
    let clients = setup::clients()?;
    println!(
        "kubectl {}\nhelm    {}\npython  {}",
        clients.kubectl.display(),
        clients.helm.display(),
        clients.python.display()
    );
    println!("kernel  {}\nimage   {}", setup::guest_kernel()?.display(), image::DEMO.build()?.display());
    Ok(())
}

/// `cargo x check`.
pub fn check() -> Result<()> {
    setup::ensure(setup::BUILD)?;
    run("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    tidy::run()?;
    licence::run()?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    run("clippy", &mut cargo(&clippy))
}

/// `cargo x test`.
pub fn test() -> Result<()> {
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::TEST)?;
    check()?;
    run("tests", &mut cargo(&["test", "--workspace", "--exclude", "windlass-tests", "--quiet", "--no-fail-fast"]))?;
    conformance(&ConformanceArgs::default())?;
    fuzz(&FuzzArgs { what: "api".to_owned(), seed: 1, time: None })?;
    e2e(None)?;
    eprintln!("all tests passed");
    Ok(())
}

/// `cargo x e2e`.
pub fn e2e(filter: Option<&str>) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::TEST)?;
    let tools = setup::clients()?;
    let binary = build_debug()?;
    let image = image::DEMO.build()?;
    run("build the operator", &mut cargo(&["build", "--workspace", "--bin", "windlass-operator"]))?;
    let mut command = cargo(&["test", "--workspace", "--test", "e2e", "--"]);
    command.args(filter);
    command
        .env("WINDLASS_BIN", binary)
        .env("WINDLASS_IMAGE", image)
        .env("WINDLASS_GUEST_KERNEL", setup::guest_kernel()?)
        .env("WINDLASS_KUBECTL", tools.kubectl)
        .env("WINDLASS_HELM", tools.helm)
        .env("WINDLASS_PYTHON", tools.python)
        .env("WINDLASS_OLD_KUBECTL", tools.old_kubectl)
        .env("WINDLASS_OPERATOR", target_dir().join("debug/windlass-operator"));
    run("end-to-end tests", &mut command)
}

/// `cargo x conformance`: in process what needs no container, then on a real cluster of one node what does.
pub fn conformance(args: &ConformanceArgs) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::TEST)?;
    let image = image::TEST.build()?;
    let mut command = cargo(&["test", "--workspace", "--test", "conformance", "--"]);
    command.args(&args.filter);
    if args.node {
        command.arg("--node");
    }
    // What is in it, tests look up even where others run it.
    command.env("WINDLASS_IMAGE", image);
    match &args.against {
        Some(kubeconfig) => {
            // The suite runs in its own directory.
            let kubeconfig = std::path::absolute(kubeconfig).context("--against: there is no current directory")?;
            command.arg("--against").arg(kubeconfig);
        }
        None => {
            let binary = build_debug()?;
            command.env("WINDLASS_BIN", binary).env("WINDLASS_KUBECTL", setup::kubectl()?);
        }
    }
    run("conformance", &mut command)
}

/// `cargo x fuzz`.
pub fn fuzz(args: &FuzzArgs) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    let seed = args.seed.to_string();
    let mut command = cargo(&["test", "--workspace", "--test", "fuzz", "--", "--seed", &seed]);
    if let Some(time) = &args.time {
        command.args(["--for", time]);
    }
    run(&format!("fuzz {}", args.what), &mut command)
}

/// `cargo x sim`.
pub fn sim(args: &SimArgs) -> Result<()> {
    let mut command = cargo(&["run", "-q", "-p", "windlass-sim", "--"]);
    command.args(["--seed", &args.seed.to_string(), "--count", &args.count.to_string()]);
    if args.verbose {
        command.arg("--verbose");
    }
    run("simulation", &mut command)
}
