//! P19: an image of 211 MB, 127 MB of it compressed, from a registry on this machine; beside `podman pull` where it is
//! installed, and `skopeo copy`, which does not unpack.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::Options;
use crate::sample::Sample;

const ROUNDS: usize = 5;
const LAYERS: usize = 5;
const FILES: usize = 814;
/// Of one file; a little more than half of it cannot be compressed.
const FILE_BYTES: usize = 52_000;
const NAME: &str = "bench/large:1";

/// A registry with the image, and a directory for what is pulled.
struct Stage {
    directory: PathBuf,
    registry: Child,
    host: String,
}

/// Measures it.
pub fn run(options: Options) -> Result<()> {
    let stage = Stage::start()?;
    let podman = Command::new("podman").arg("--version").output().is_ok_and(|output| output.status.success());
    let mut ours = (Sample::default(), Sample::default());
    let mut peers = vec![("skopeo copy", Sample::default(), Sample::default())];
    if podman {
        peers.push(("podman pull", Sample::default(), Sample::default()));
    }
    for _ in 0..options.rounds(ROUNDS) {
        measure(&mut stage.windlass()?, (&mut ours.0, &mut ours.1))?;
        stage.clear()?;
        for (name, wall, cpu) in peers.iter_mut().filter(|_| !options.alone) {
            measure(&mut stage.peer(name), (wall, cpu))?;
            stage.clear()?;
        }
    }
    println!("windlass image pull  {} ms, {} ms CPU", ours.0.shown(), ours.1.shown());
    for (name, wall, cpu) in peers.iter().filter(|(_, wall, _)| wall.len() > 0) {
        println!("{name:<20} {} ms, {} ms CPU", wall.shown(), cpu.shown());
    }
    Ok(())
}

/// Wall and CPU of a command, which must end well.
fn measure(command: &mut Command, (wall, cpu): (&mut Sample, &mut Sample)) -> Result<()> {
    let before = children_cpu()?;
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    wall.add_ms(began.elapsed());
    cpu.add_ms(children_cpu()?.saturating_sub(before));
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What children that have ended used: fields 16 and 17 of `/proc/self/stat`, in ticks of 10 ms.
fn children_cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let rest = text.rsplit_once(") ").context("a process has a name")?.1;
    let fields: Vec<u64> = rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    Ok(Duration::from_millis(10 * (fields[13] + fields[14])))
}

impl Stage {
    fn start() -> Result<Stage> {
        let directory = std::env::temp_dir().join(format!("windlass-bench-pull-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let host = format!("127.0.0.1:{port}");
        let config = directory.join("registry.yml");
        let root = directory.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
            root.display()
        );
        fs::write(&config, text)?;
        let mut serve = Command::new("docker-registry");
        let registry = serve.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = registry.context("docker-registry is not installed")?;
        let stage = Stage { directory, registry, host };
        let began = Instant::now();
        while TcpStream::connect(&stage.host).is_err() {
            if began.elapsed() > Duration::from_secs(20) {
                bail!("the registry does not listen");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        stage.make_image()?;
        Ok(stage)
    }

    fn make_image(&self) -> Result<()> {
        let layout = self.directory.join("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let (mut diff_ids, mut layers) = (Vec::new(), Vec::new());
        for number in 0..LAYERS {
            let tree = self.directory.join("tree");
            make_tree(&tree, number)?;
            let tar = self.directory.join("layer.tar");
            let (tree, tar) = (tree.display(), tar.display());
            shell(&format!("tar -C {tree} -cf {tar} . && gzip -k -6 {tar} && rm -r {tree}"))?;
            diff_ids.push(format!("sha256:{}", sum(&self.directory.join("layer.tar"))?));
            let packed = self.directory.join("layer.tar.gz");
            layers.push(keep(&packed, &blobs, "application/vnd.oci.image.layer.v1.tar+gzip")?);
            fs::remove_file(self.directory.join("layer.tar"))?;
        }
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({"os": "linux", "architecture": architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let document = |value: &Value, kind: &str| {
            let path = self.directory.join("document");
            fs::write(&path, value.to_string())?;
            keep(&path, &blobs, kind)
        };
        let config = document(&config, "application/vnd.oci.image.config.v1+json")?;
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            document(&json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}), kind)?;
        fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let (layout, host) = (layout.display(), &self.host);
        shell(&format!("skopeo copy -q --dest-tls-verify=false oci:{layout} docker://{host}/{NAME} && rm -r {layout}"))
    }

    fn windlass(&self) -> Result<Command> {
        let program =
            std::env::var_os("WINDLASS_BIN").context("WINDLASS_BIN is not set: run this by `cargo x bench`")?;
        let mut command = Command::new(program);
        command.args(["image", "pull", &format!("{}/{NAME}", self.host), "--instance", "wlpull"]);
        command.arg("--data-dir").arg(self.directory.join("pulled/data"));
        command.arg("--run-dir").arg(self.directory.join("pulled/run"));
        Ok(command)
    }

    fn peer(&self, name: &str) -> Command {
        let image = format!("{}/{NAME}", self.host);
        let place = self.directory.join("pulled").display().to_string();
        let mut command = Command::new(name.split(' ').next().unwrap_or(name));
        match name {
            "podman pull" => command.args(["--root", &place, "--runroot", &format!("{place}-run"), "pull", "-q"]),
            _ => command.args(["copy", "-q"]),
        };
        match name {
            "podman pull" => command.args(["--tls-verify=false", &image]),
            _ => command.args(["--src-tls-verify=false", &format!("docker://{image}"), &format!("dir:{place}")]),
        };
        command
    }

    /// Away with what was pulled, and nothing left to write back for the next.
    fn clear(&self) -> Result<()> {
        let place = self.directory.join("pulled");
        shell(&format!("rm -rf {0} {0}-run && sync", place.display()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.registry.kill().ok();
        self.registry.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

fn make_tree(tree: &Path, layer: usize) -> Result<()> {
    let mut random = fs::File::open("/dev/urandom")?;
    let mut content = vec![0; FILE_BYTES];
    for number in 0..FILES {
        let directory = tree.join(format!("usr/share/part{layer}/{}", number / 40));
        fs::create_dir_all(&directory)?;
        random.read_exact(&mut content[..FILE_BYTES * 59 / 100])?;
        fs::File::create(directory.join(format!("file{number}")))?.write_all(&content)?;
    }
    Ok(())
}

/// Moves a file among the blobs; its descriptor.
fn keep(file: &Path, blobs: &Path, kind: &str) -> Result<Value> {
    let (digest, size) = (sum(file)?, fs::metadata(file)?.len());
    fs::rename(file, blobs.join(&digest))?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size}))
}

fn sum(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').next().context("sha256sum says a sum")?.to_owned())
}

fn shell(line: &str) -> Result<()> {
    let output = Command::new("/bin/sh").args(["-c", line]).output()?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
