//! `cargo x demo`: from nothing to an answered request, with the time that each phase took.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::step::{build_release, output, root};
use crate::{image, setup};

/// The options of `cargo x demo`.
#[derive(clap::Args)]
pub struct DemoArgs {
    /// Take down what the demo started, leaving nothing behind
    #[arg(long)]
    pub stop: bool,
}

/// How long the application may take to become Ready before the demo gives up and shows why.
const READY_TIMEOUT_S: u64 = 60;
/// How long the Service may take until all replicas have answered.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(20);
const REPLICAS: usize = 3;

/// Runs the demo.
pub fn run(args: &DemoArgs) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::DEMO)?;
    let mut phases = Phases::default();
    let binary = phases.time("build", || build_release(&["windlass"]))?.join("windlass");
    if args.stop {
        return crate::step::run("windlass down", Command::new(&binary).args(["down", "--purge"]));
    }
    let kubectl = phases.time("kubectl", setup::kubectl)?;
    let archive = phases.time("demo image", || image::DEMO.build())?;
    phases.time("cluster up", || say(Command::new(&binary).args(["up", "--detach"])))?;
    phases.time("image import", || say(Command::new(&binary).args(["image", "import"]).arg(&archive)))?;
    let kubeconfig = output(Command::new(&binary).args(["kubeconfig", "--path"]))?.trim().to_owned();
    let client = Client { kubectl: &kubectl, kubeconfig: &kubeconfig };
    phases.time("kubectl apply", || client.say(&["apply", "-f", &demo_file()]))?;
    let timeout = format!("--timeout={READY_TIMEOUT_S}s");
    let ready = phases.time("until Ready", || client.say(&["rollout", "status", "deployment/demo", &timeout]));
    if ready.is_err() {
        client.say(&["describe", "pods"])?;
    }
    ready?;
    let address =
        client.output(&["get", "service", "demo", "-o", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}"])?;
    let answers = phases.time("until all answered", || call_until_all_answered(&address))?;
    println!();
    for answer in &answers {
        println!("  http://{address} answered: {answer}");
    }
    phases.print();
    print_what_next(&kubectl, &kubeconfig, &binary);
    Ok(())
}

fn demo_file() -> String {
    root().join("xtask/demo/demo.yaml").to_string_lossy().into_owned()
}

#[derive(Default)]
struct Phases(Vec<(&'static str, Duration)>);

impl Phases {
    fn time<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("── {name}");
        let started = Instant::now();
        let result = work().with_context(|| format!("phase {name:?} failed"));
        self.0.push((name, started.elapsed()));
        result
    }

    fn print(&self) {
        println!("\n  phase                    took");
        for (name, took) in &self.0 {
            println!("  {name:<20} {:>8.3} s", took.as_secs_f64());
        }
    }
}

struct Client<'a> {
    kubectl: &'a Path,
    kubeconfig: &'a str,
}

impl Client<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig).args(arguments);
        command
    }

    fn say(&self, arguments: &[&str]) -> Result<()> {
        say(&mut self.command(arguments))
    }

    fn output(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(arguments))
    }
}

fn say(command: &mut Command) -> Result<()> {
    let status = command.current_dir(root()).status().with_context(|| format!("could not start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed with {status}");
    }
    Ok(())
}

fn call_until_all_answered(address: &str) -> Result<BTreeSet<String>> {
    let address: SocketAddr = address.parse().with_context(|| format!("{address:?} is not an address"))?;
    let started = Instant::now();
    let mut answers = BTreeSet::new();
    let mut last_error = None;
    while started.elapsed() < ANSWERS_TIMEOUT {
        match call(address) {
            Ok(answer) => {
                answers.insert(answer);
            }
            Err(error) => last_error = Some(error),
        }
        if answers.len() >= REPLICAS {
            return Ok(answers);
        }
    }
    bail!("{} of {REPLICAS} replicas answered at {address}; last error: {last_error:?}", answers.len())
}

fn call(address: SocketAddr) -> Result<String> {
    let timeout = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.take(16 * 1024).read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").context("the answer has no body")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("unexpected answer: {head}");
    }
    Ok(body.trim().to_owned())
}

fn print_what_next(kubectl: &Path, kubeconfig: &str, binary: &Path) {
    println!(
        "
  The cluster is running. Try:

    export KUBECONFIG={kubeconfig} PATH=$PATH:{tools}
    kubectl get all -o wide
    kubectl scale deployment demo --replicas=5
    kubectl logs -l app=demo --tail=5
    kubectl exec -it deployment/demo -- sh
    kubectl delete pod -l app=demo --wait=false && kubectl get pods -w

  {binary} status    says how the cluster is
  cargo x demo --stop    takes it down and leaves nothing behind
",
        tools = kubectl.parent().unwrap_or(kubectl).display(),
        binary = binary.display(),
    );
}
