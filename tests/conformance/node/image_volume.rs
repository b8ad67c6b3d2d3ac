//! A volume that is the files of an image, pulled for it each time.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use windlass_tests::cluster::{given, run};

use crate::Test;
use crate::running::script;

/// A registry on the node's loopback, ended when dropped.
struct Registry {
    process: Child,
    directory: std::path::PathBuf,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().expect("our own child can be killed");
        self.process.wait().expect("our own child can be waited for");
        std::fs::remove_dir_all(&self.directory).expect("the test's own directory");
    }
}

impl Registry {
    /// One with the suite's image in it, and what it is called there.
    async fn start(test: &Test) -> (Registry, String) {
        let directory = std::env::temp_dir().join(format!("windlass-{}", test.namespace));
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let config = directory.join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            directory.join("blobs").display()
        );
        std::fs::write(&config, text).expect("the test's own directory is writable");
        let mut serve = Command::new("/usr/bin/docker-registry");
        let process = serve.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Registry { process: process.expect("docker-registry is installed"), directory };
        let name = format!("{host}/test:1");
        let source = format!("oci-archive:{}", given("WINDLASS_IMAGE").display());
        let pushed = async {
            loop {
                let (source, target) = (source.clone(), format!("docker://{name}"));
                let copy = move || {
                    run(Command::new("/usr/bin/skopeo").args(["copy", "--dest-tls-verify=false", &source, &target]))
                };
                let out = tokio::task::spawn_blocking(copy).await.expect("skopeo was started");
                if out.ok {
                    return;
                }
                // A registry that does not answer yet has nothing to wait on.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(crate::api::PATIENCE, pushed).await.expect("the registry takes the image");
        (registry, name)
    }
}

pub async fn is_pulled_always(test: &Test) {
    let (_registry, image) = Registry::start(test).await;
    let mut pod = script("image-volume", "ls /image/bin/peer && ! touch /image/new 2>/dev/null && ls /part/peer");
    pod["spec"]["volumes"] = json!([{"name": "v", "image": {"reference": image, "pullPolicy": "Always"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "v", "mountPath": "/image"}, {"name": "v", "mountPath": "/part", "subPath": "bin"}]);
    assert_eq!(test.run(&pod).await, "/image/bin/peer\n/part/peer\n");
}
