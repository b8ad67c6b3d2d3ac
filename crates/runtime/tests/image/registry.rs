//! A real registry: `docker-registry`, filled by `skopeo`.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::stage::{Files, Packing, Stage, layout};

/// A registry of the distribution, as a process that ends with the test.
pub struct Registry {
    process: Child,
    pub host: String,
}

impl Registry {
    pub fn start(stage: &Stage) -> Registry {
        Registry::with(stage, "", "")
    }

    /// One whose users are as `htpasswd -B` writes them.
    pub fn with_users(stage: &Stage, users: &[(&str, &str)], http: &str) -> Registry {
        let mut written = String::new();
        for (user, password) in users {
            let made = Command::new("htpasswd").args(["-nbB", user, password]).output();
            written.push_str(&String::from_utf8(made.expect("apache2-utils is installed").stdout).expect("text"));
        }
        let path = stage.directory.join("htpasswd");
        std::fs::write(&path, written).expect("written");
        Registry::with(stage, http, &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display()))
    }

    /// One with more configuration, of its HTTP server and of itself.
    pub fn with(stage: &Stage, http: &str, more: &str) -> Registry {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let root = stage.directory.join(format!("registry-{number}"));
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 127.0.0.1:{port}{http}}}\n{more}",
            root.display()
        );
        let path = stage.directory.join(format!("registry-{number}.yml"));
        std::fs::write(&path, config).expect("written");
        let process =
            Command::new("docker-registry").arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry =
            Registry { process: process.expect("docker-registry is installed"), host: format!("127.0.0.1:{port}") };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < deadline, "the registry listens within 20 s");
            std::thread::yield_now();
        }
        registry
    }

    pub fn push(&self, stage: &Stage, layout: &Files, name: &str, more: &[&str]) {
        let directory = stage.directory.join("pushed");
        layout.write_to(&directory);
        self.copy(&format!("oci:{}", directory.display()), name, more);
        std::fs::remove_dir_all(directory).expect("removed");
    }

    pub fn copy(&self, from: &str, name: &str, more: &[&str]) {
        let to = format!("docker://{}/{name}", self.host);
        let arguments = ["copy", "--quiet", "--dest-tls-verify=false"];
        let output = Command::new("skopeo").args(arguments).args(more).args([from, &to]).output();
        let output = output.expect("skopeo is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("the registry ends");
    }
}

/// A layout that skopeo takes too: it is stricter about kinds than we are.
pub fn strict_layout(layers: &[Vec<u8>], packing: Packing) -> Files {
    let (files, mut manifest) = layout(layers, packing);
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let suffix = match packing {
        Packing::Plain => "",
        Packing::Gzip => "+gzip",
        Packing::Zstd => "+zstd",
    };
    for layer in manifest["layers"].as_array_mut().expect("layers") {
        layer["mediaType"] = format!("application/vnd.oci.image.layer.v1.tar{suffix}").into();
    }
    crate::stage::with_index(files, &manifest)
}
