//! Images: imported, pulled, and refused when they are bad.

use std::process::{Command, Stdio};

use windlass_tests::Test;
use windlass_tests::cluster::{given, must, run, until};
use windlass_tests::suite::PATIENCE;

pub fn a_bad_archive_is_refused_with_the_reason(test: &Test) {
    let good = given("WINDLASS_IMAGE");
    let bytes = std::fs::read(&good).expect("the demo image was made");
    let cut = test.file("tar", "");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("writable");
    let flipped = test.file("tar", "");
    let mut other = bytes.clone();
    let middle = other.len() / 2;
    other[middle] ^= 0x40;
    std::fs::write(&flipped, &other).expect("writable");
    let nothing = test.file("tar", "this is not an archive");
    // Layers that are here already are not read again, so the bad ones go to a place that has none.
    let place = std::path::PathBuf::from(test.file("place", "")).with_extension("d");
    let image = |arguments: &[&str]| {
        let mut command = Command::new(given("WINDLASS_BIN"));
        command.arg("image").args(arguments).args(["--instance", "wlbad"]);
        command.arg("--data-dir").arg(place.join("data")).arg("--run-dir").arg(place.join("run"));
        run(&mut command)
    };
    for (path, word) in [(&cut, ""), (&flipped, "digest"), (&nothing, "")] {
        let out = image(&["import", path, "--name", "bad.local/bad:1"]);
        assert!(!out.ok && out.stderr.contains(word) && out.stderr.len() > 20, "{path}: {}", out.stderr);
    }
    let listed = image(&["list"]);
    assert!(listed.ok && !listed.stdout.contains("bad.local"), "{}{}", listed.stdout, listed.stderr);
    let imported = image(&["import", &good.to_string_lossy()]);
    assert!(imported.ok && imported.stdout.contains("windlass.local/demo:1"), "{}", imported.stderr);
}

pub fn a_missing_image_fails_its_pod_with_the_reason(test: &Test) {
    test.kubectl(&["run", "missing", "--image=127.0.0.1:1/none:1"]);
    let pod = test.wait("pod", "missing", "waits for its image", |object| {
        let reason = object["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str();
        matches!(reason, Some("ErrImagePull" | "ImagePullBackOff"))
    });
    assert!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].to_string().contains("127.0.0.1:1/none:1")
    );
    test.kubectl(&["run", "never", "--image=windlass.local/not-here:1", "--image-pull-policy=Never"]);
    test.wait("pod", "never", "says that it never pulls", |object| {
        object["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    });
}

/// A registry on loopback, ended when dropped.
struct Registry(std::process::Child);

impl Drop for Registry {
    fn drop(&mut self) {
        self.0.kill().expect("our own child can be killed");
        self.0.wait().expect("our own child can be waited for");
    }
}

pub fn a_registry_image_is_pulled(test: &Test) {
    let port = 15_000 + test.cluster.port() % 1_000;
    let directory = std::path::PathBuf::from(test.file("registry", "")).with_extension("d");
    let config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
        directory.display()
    );
    let config = test.file("yml", &config);
    let mut serve = Command::new("/usr/bin/docker-registry");
    let child = serve.args(["serve", &config]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _registry = Registry(child.expect("docker-registry is installed"));
    let source = format!("oci-archive:{}", given("WINDLASS_IMAGE").display());
    let name = format!("127.0.0.1:{port}/team/web:7");
    until("the registry takes the image", PATIENCE, || {
        let out = run(Command::new("/usr/bin/skopeo").args([
            "copy",
            "--dest-tls-verify=false",
            &source,
            &format!("docker://{name}"),
        ]));
        if out.ok { Ok(()) } else { Err(out.stderr) }
    });
    test.kubectl(&["run", "pulled", &format!("--image={name}")]);
    let pod = test.wait("pod", "pulled", "Ready", windlass_tests::suite::is_ready);
    let id = pod["status"]["containerStatuses"][0]["imageID"].as_str().unwrap_or_default();
    assert!(id.contains("sha256:"), "the digest is shown: {id}");
    assert!(test.kubectl(&["describe", "pod", "pulled"]).contains("Successfully pulled image"));
    let pulled = must(&mut test.cluster.windlass(&["image", "list"]));
    assert!(pulled.contains(&name), "{pulled}");
    test.kubectl(&["delete", "pod", "pulled", "--grace-period=0", "--force"]);
    until("the image can be removed once nobody uses it", PATIENCE, || {
        let out = run(&mut test.cluster.windlass(&["image", "rm", &name]));
        if out.ok { Ok(()) } else { Err(out.stderr) }
    });
}
