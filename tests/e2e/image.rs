//! Images: imported, pulled, and refused when they are bad.

use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_tests::Test;
use windlass_tests::cluster::{given, must, run, until};
use windlass_tests::suite::PATIENCE;

use crate::registry::{Registry, directory};

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
    let place = PathBuf::from(test.file("place", "")).with_extension("d");
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

pub fn a_registry_image_is_pulled(test: &Test) {
    let registry = Registry::start(test, &directory(test), "", "");
    let name = registry.push(&format!("oci-archive:{}", given("WINDLASS_IMAGE").display()), "team/web:7", &[]);
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

/// Makes an image whose only layer holds one entry, of the kind that the second argument names.
const BAD_IMAGE: &str = r#"
import hashlib, io, json, os, sys, tarfile
place, kind = sys.argv[1:]
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as tar:
    def add(name, data=b"", **fields):
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        for field, value in fields.items():
            setattr(entry, field, value)
        tar.addfile(entry, io.BytesIO(data))
    add("told", kind.encode())
    if kind == "escape":
        add("../../../escaped-from-an-image", b"x")
    if kind == "link":
        add("out", type=tarfile.SYMTYPE, linkname="/tmp")
        add("out/escaped-from-an-image", b"x")
    if kind == "device":
        add("disk", type=tarfile.BLKTYPE, devmajor=254, devminor=0)
os.makedirs(place + "/blobs/sha256")
def blob(media, data):
    digest = hashlib.sha256(data).hexdigest()
    open(place + "/blobs/sha256/" + digest, "wb").write(data)
    return {"mediaType": media, "size": len(data), "digest": "sha256:" + digest}
tar = layer.getvalue()
diff = "sha256:" + hashlib.sha256(tar).hexdigest()
oci = "application/vnd.oci.image."
config = blob(oci + "config.v1+json", json.dumps({"architecture": "amd64", "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": [diff]}}).encode())
manifest = blob(oci + "manifest.v1+json", json.dumps({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
    "config": config, "layers": [blob(oci + "layer.v1.tar", tar)]}).encode())
open(place + "/index.json", "w").write(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
open(place + "/oci-layout", "w").write('{"imageLayoutVersion": "1.0.0"}')
"#;

/// Where the registry keeps the layer of an image that holds nothing but one.
fn layer_file(name: &str, directory: &Path) -> PathBuf {
    let mut inspect = Command::new("/usr/bin/skopeo");
    let raw = must(inspect.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]));
    let manifest: serde_json::Value = serde_json::from_str(&raw).expect("a manifest");
    let digest = manifest["layers"][0]["digest"].as_str().expect("a digest")["sha256:".len()..].to_owned();
    directory.join("docker/registry/v2/blobs/sha256").join(&digest[..2]).join(&digest).join("data")
}

pub fn bad_images_fail_their_pods_with_the_reason_and_leave_the_node_well(test: &Test) {
    let directory = directory(test);
    let registry = Registry::start(test, &directory, "", "");
    let cases = [
        ("escape", "has a component .."),
        ("link", "leads out of the layer"),
        ("device", "device node"),
        ("missing", "registry"),
        ("changed", "digest"),
    ];
    for (kind, _) in cases {
        let place = test.file("layout", "") + ".d";
        must(Command::new(given("WINDLASS_PYTHON")).args(["-c", BAD_IMAGE, &place, kind]));
        let name = registry.push(&format!("oci:{place}"), &format!("bad/{kind}:1"), &[]);
        let layer = layer_file(&name, &directory);
        if kind == "missing" {
            std::fs::remove_file(&layer).expect("the registry has the layer");
        } else if kind == "changed" {
            let mut bytes = std::fs::read(&layer).expect("the registry has the layer");
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(&layer, bytes).expect("the registry's files are writable");
        }
        test.kubectl(&["run", kind, &format!("--image={name}")]);
    }
    for (kind, word) in cases {
        test.wait("pod", kind, "says why its image is refused", |pod| {
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            let is_refused = matches!(waiting["reason"].as_str(), Some("ErrImagePull" | "ImagePullBackOff"));
            is_refused && waiting["message"].as_str().is_some_and(|message| message.contains(word))
        });
        let events = test.kubectl(&["describe", "pod", kind]);
        assert!(events.contains("Failed to pull image") && events.contains(word), "{kind}: {events}");
    }
    assert!(!Path::new("/tmp/escaped-from-an-image").exists() && !Path::new("/escaped-from-an-image").exists());
    test.sleeping_pod("after", "");
    let node = test.get("node", "node1");
    assert!(windlass_tests::suite::is_ready(&node), "{:#}", node["status"]["conditions"]);
}
