//! A real cluster: the built binary, run as root, with directories, ports and kernel names of its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long `windlass up` may take until its node is Ready, in a debug build on a busy machine.
const UP_TIMEOUT: Duration = Duration::from_secs(60);

/// Names the number that counts as 0, so that suites of two checkouts run side by side: a suite's clusters have the next
/// [`NUMBERS`] numbers, with ports, address ranges and kernel names of their own.
const FIRST_NUMBER: &str = "WINDLASS_FIRST_CLUSTER";
/// How many clusters a suite may have.
const NUMBERS: u16 = 20;
/// More numbers than this, and there are no address ranges left.
const NUMBER_MAX: u16 = 77;

/// What a finished program said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether it ended well.
    pub ok: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

/// Reads a path that `cargo x e2e` hands over.
pub fn given(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => panic!("{variable} is not set: run this suite by `cargo x e2e`"),
    }
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Output {
    let out =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("could not start {command:?}: {error}"));
    Output {
        ok: out.status.success(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Runs a program that must end well.
pub fn must(command: &mut Command) -> String {
    let out = run(command);
    assert!(out.ok, "{command:?} failed\nstdout: {}\nstderr: {}", out.stdout, out.stderr);
    out.stdout
}

/// Starts a program that goes on beside the test and says nothing.
pub fn spawn(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("could not start {command:?}: {error}"))
}

/// Waits until a program that was told to end has.
pub fn ended(process: &mut Child) {
    until("the process ends", Duration::from_secs(20), || match process.try_wait() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Kills a program.
pub fn kill(process: &mut Child) {
    process.kill().expect("our own child can be killed");
    process.wait().expect("our own child can be waited for");
}

/// Waits until `condition` gives a value, and panics with what it last said when it does not.
pub fn until<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if started.elapsed() > timeout => panic!("{what}: not within {timeout:?}; last seen: {last}"),
            // A poll of a foreign program has nothing to wait on; this bounds how often it is asked.
            Err(_) => std::thread::park_timeout(Duration::from_millis(100)),
        }
    }
}

/// One running cluster. Dropping it takes it down and leaves nothing behind.
pub struct Cluster {
    /// The number that keeps this cluster's ports and names apart from others'.
    number: u16,
    directory: PathBuf,
    server: Option<Child>,
}

impl Cluster {
    /// Starts a cluster in an empty directory and waits until its node is Ready.
    pub fn start(number: u16) -> Cluster {
        let directory = std::env::temp_dir().join(format!("windlass-e2e-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let mut cluster = Cluster::at(number, &directory);
        cluster.up();
        cluster
    }

    /// A cluster in this directory (which may be a mount of its own), not yet started.
    pub fn at(number: u16, directory: &Path) -> Cluster {
        Cluster { number: shifted(number), directory: directory.to_owned(), server: None }
    }

    /// The name of this cluster's kernel objects.
    pub fn instance(&self) -> String {
        format!("wle{}", self.number)
    }

    /// The API's port.
    pub fn port(&self) -> u16 {
        16443 + self.number
    }

    /// Where the cluster keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where the cluster keeps what does not outlive a reboot.
    pub fn run_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the cluster is up").id()
    }

    /// `windlass SUBCOMMAND …` for this cluster.
    pub fn windlass(&self, arguments: &[&str]) -> Command {
        self.windlass_at(&given("WINDLASS_BIN"), arguments)
    }

    fn windlass_at(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg("--instance").arg(self.instance());
        command.arg("--data-dir").arg(self.data_dir()).arg("--run-dir").arg(self.run_dir());
        command
    }

    /// Starts the server and the node and waits until the node is Ready.
    pub fn up(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the server and the node without waiting.
    pub fn spawn(&mut self) {
        self.spawn_with(&given("WINDLASS_BIN"), &[]);
    }

    /// Starts this program, with more flags, without waiting.
    pub fn spawn_with(&mut self, program: &Path, flags: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log"));
        let log = log.expect("the cluster's directory is writable");
        let mut command = self.windlass_at(program, &["up"]);
        command.args(flags);
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.port()));
        command.arg("--node-port").arg((11250 + self.number).to_string());
        command.arg("--pod-cidr").arg(format!("10.{}.0.0/16", 100 + 2 * self.number));
        command.arg("--service-cidr").arg(format!("10.{}.0.0/16", 101 + 2 * self.number));
        command.arg("--node-name").arg("node1");
        let stderr = log.try_clone().expect("a log file can be shared");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(stderr).spawn();
        self.server = Some(child.unwrap_or_else(|error| panic!("could not start {command:?}: {error}")));
    }

    /// Waits until the node is Ready.
    pub fn wait_ready(&mut self) {
        let started = Instant::now();
        loop {
            if let Some(server) = &mut self.server
                && let Ok(Some(status)) = server.try_wait()
            {
                panic!("windlass up ended with {status}; its log:\n{}", tail(&self.log(), 40));
            }
            let nodes = self.kubectl(&["get", "nodes", "-o", "json", "--request-timeout=5s"]);
            if nodes.ok && is_ready(&nodes.stdout) {
                return;
            }
            if started.elapsed() > UP_TIMEOUT {
                panic!("the node is not Ready: {}\nlog:\n{}", nodes.stderr, tail(&self.log(), 60));
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Tells the process to end and waits until it has.
    pub fn terminate(&mut self, timeout: Duration) {
        let pid = self.pid().to_string();
        must(Command::new("/bin/kill").args(["-TERM", &pid]));
        let server = self.server.as_mut().expect("the cluster is up");
        until("the process ends", timeout, || match server.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        self.server = None;
    }

    /// Kills the server (and with it the agent) without any warning.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("our own child can be killed");
            server.wait().expect("our own child can be waited for");
        }
    }

    /// Imports the demo image.
    pub fn import_image(&self) {
        self.import(&given("WINDLASS_IMAGE"));
    }

    /// Imports an image's archive.
    pub fn import(&self, archive: &Path) {
        must(self.windlass(&["image", "import"]).arg(archive));
    }

    /// Takes the cluster down; the data stays.
    pub fn down(&mut self) -> Output {
        let out = run(&mut self.windlass(&["down"]));
        if let Some(mut server) = self.server.take() {
            server.kill().ok();
            server.wait().expect("our own child can be waited for");
        }
        out
    }

    /// kubectl as the administrator.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(given("WINDLASS_KUBECTL"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        // Discovery is cached by address; every cluster of a suite gets a cache of its own.
        command.env("KUBECACHEDIR", self.directory.join("kube-cache"));
        command
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        run(&mut self.kubectl_command(arguments))
    }

    /// Runs curl with the administrator's certificate; returns the status code and the body.
    pub fn curl(&self, arguments: &[&str]) -> (u16, String) {
        let pki = self.directory.join("curl");
        if !pki.exists() {
            self.write_certificates(&pki);
        }
        let mut command = Command::new("/usr/bin/curl");
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "90",
            "--path-as-is",
            "--http1.1",
            "--write-out",
            "\n%{http_code}",
        ]);
        command
            .arg("--cacert")
            .arg(pki.join("ca"))
            .arg("--cert")
            .arg(pki.join("cert"))
            .arg("--key")
            .arg(pki.join("key"));
        let out = run(command.args(arguments));
        let (body, code) = out.stdout.rsplit_once('\n').unwrap_or(("", "0"));
        let code = code.parse().unwrap_or(0);
        (code, if out.ok { body.to_owned() } else { format!("{body}{}", out.stderr) })
    }

    /// The API's URL.
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port())
    }

    fn write_certificates(&self, pki: &Path) {
        fs::create_dir_all(pki).expect("the cluster's directory is writable");
        let view = self.kubectl(&["config", "view", "--raw", "-o", "json"]);
        let config: Value = serde_json::from_str(&view.stdout).expect("kubectl prints its configuration as JSON");
        let parts = [
            ("ca", &config["clusters"][0]["cluster"]["certificate-authority-data"]),
            ("cert", &config["users"][0]["user"]["client-certificate-data"]),
            ("key", &config["users"][0]["user"]["client-key-data"]),
        ];
        for (name, value) in parts {
            let mut base64 =
                Command::new("/usr/bin/base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let base64 = base64.as_mut().expect("coreutils are installed");
            let text = value.as_str().expect("the kubeconfig embeds its certificates");
            base64.stdin.take().expect("piped").write_all(text.as_bytes()).expect("base64 reads its input");
            let mut decoded = Vec::new();
            std::io::Read::read_to_end(&mut base64.stdout.take().expect("piped"), &mut decoded)
                .expect("base64 answers");
            base64.wait().expect("base64 ends");
            fs::write(pki.join(name), decoded).expect("the cluster's directory is writable");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() || self.run_dir().exists() {
            self.down();
        }
        if std::thread::panicking() {
            eprintln!("the cluster's directory is kept: {}", self.directory.display());
        } else if fs::remove_dir_all(&self.directory).is_err() {
            eprintln!("could not remove {}", self.directory.display());
        }
    }
}

/// A suite's number among those of all suites that run.
fn shifted(number: u16) -> u16 {
    let first = match std::env::var(FIRST_NUMBER) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{FIRST_NUMBER}: expected a number, found {text:?}")),
        Err(_) => 0,
    };
    let shifted = number.saturating_add(first);
    assert!(number < NUMBERS && shifted <= NUMBER_MAX, "{FIRST_NUMBER}: cluster {shifted} is more than {NUMBER_MAX}");
    shifted
}

fn is_ready(nodes: &str) -> bool {
    let nodes: Value = serde_json::from_str(nodes).unwrap_or_default();
    let conditions = nodes["items"][0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
