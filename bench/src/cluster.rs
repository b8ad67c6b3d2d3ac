//! A cluster of the built release binary, and a client to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use windlass_client::{Client, HttpsConfig, HttpsTransport};
use windlass_stdx::{Transport, World, body_empty};

const PORT: u16 = 17443;

/// A running cluster, taken down when dropped.
pub struct Cluster {
    directory: PathBuf,
    process: Option<Child>,
}

/// A path that `cargo x bench` hands over.
pub fn given(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable);
    Ok(PathBuf::from(path.with_context(|| format!("{variable} is not set: run this by `cargo x bench NAME`"))?))
}

impl Cluster {
    /// An empty place, nothing started.
    pub fn new() -> Result<Cluster> {
        let directory = std::env::temp_dir().join(format!("windlass-bench-{}", std::process::id()));
        fs::create_dir_all(&directory).context("the temporary directory is not writable")?;
        Ok(Cluster { directory, process: None })
    }

    /// Where the data is.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where sockets and the like are: in memory, as `/run` is where Windlass is installed.
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/windlass-bench-{}", std::process::id()))
    }

    /// `windlass …` for this cluster.
    pub fn windlass(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(given("WINDLASS_BIN")?);
        command.args(arguments).args(["--instance", "wlbench", "--data-dir"]).arg(self.data());
        command.arg("--run-dir").arg(self.run_dir());
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Starts `windlass ROLE` without waiting.
    pub fn spawn(&mut self, role: &str) -> Result<()> {
        let mut command = self.windlass(&[role])?;
        command.args([
            "--listen",
            &format!("127.0.0.1:{PORT}"),
            "--pod-cidr",
            "10.140.0.0/16",
            "--service-cidr",
            "10.141.0.0/16",
        ]);
        if role == "up" {
            command.args(["--node-name", "bench", "--node-port", "12250"]);
        }
        let log = fs::File::create(self.directory.join("log"))?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("could not start the binary")?;
        self.process = Some(child);
        Ok(())
    }

    /// Server and node, Ready, with the demo image.
    pub fn up(&mut self) -> Result<()> {
        self.spawn("up")?;
        let started = Instant::now();
        while !self.log().contains("is Ready") {
            if started.elapsed() > Duration::from_secs(60) {
                bail!("the node is not Ready; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let image = given("WINDLASS_IMAGE")?;
        let status = self.windlass(&["image", "import"])?.arg(image).stdout(Stdio::null()).status()?;
        if !status.success() {
            bail!("the demo image could not be imported");
        }
        Ok(())
    }

    /// What the process has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// The process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("nothing runs")?.id())
    }

    /// Ends the process; the data stays.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            Command::new("/bin/kill").args(["-TERM", &process.id().to_string()]).status()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Whether `/readyz` says ok, over TLS.
    pub async fn is_ready(&self) -> bool {
        let Ok(link) = transport(&self.data().join("admin.kubeconfig")) else { return false };
        let request = http::Request::get("/readyz").body(body_empty()).expect("a constant request is well-formed");
        match link.call(request).await {
            Ok(response) => response.status() == http::StatusCode::OK,
            Err(_) => false,
        }
    }

    /// A client as the administrator, once the kubeconfig is there.
    pub fn client(&self) -> Result<Client> {
        let path = self.data().join("admin.kubeconfig");
        Ok(Client::new(transport(&path)?, World::real()))
    }
}

/// A link with the administrator's certificate.
pub fn transport(kubeconfig: &Path) -> Result<Arc<HttpsTransport>> {
    let text = fs::read_to_string(kubeconfig).with_context(|| format!("could not read {}", kubeconfig.display()))?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        line.with_context(|| format!("the kubeconfig has no {key}"))
    };
    let decoded = |key: &str| Ok::<_, anyhow::Error>(BASE64.decode(value(key)?)?);
    let identity = (decoded("client-certificate-data")?, decoded("client-key-data")?);
    let config = HttpsConfig {
        server: value("server")?.to_owned(),
        ca_pem: decoded("certificate-authority-data")?,
        identity: Some(identity),
    };
    Ok(Arc::new(HttpsTransport::new(config)?))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(mut down) = self.windlass(&["down", "--purge"]) {
            down.stdout(Stdio::null()).status().ok();
        }
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
        fs::remove_dir_all(&self.directory).ok();
        fs::remove_dir_all(self.run_dir()).ok();
    }
}
