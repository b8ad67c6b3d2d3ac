//! The images of the demo and of the tests, made without any container tool: busybox and a program of ours in one OCI
//! layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::step::{root, run, target_dir};

/// An image: busybox, and a program of one file that is its entry point.
pub struct Image {
    /// The name under which the image is known in the cluster.
    pub name: &'static str,
    /// Its directory under the target directory.
    directory: &'static str,
    /// The program in `/bin`.
    program: &'static str,
    /// The program's source.
    source: &'static str,
    /// What the entry point is given besides itself, and what it is given unless the container says otherwise.
    arguments: (&'static [&'static str], &'static [&'static str]),
}

/// What the demo, the end-to-end suite and the benchmarks run.
pub const DEMO: Image = Image {
    name: "windlass.local/demo:1",
    directory: "demo-image",
    program: "web",
    source: "xtask/demo/web.rs",
    arguments: (&[], &[]),
};

/// What the conformance suite runs.
pub const TEST: Image = Image {
    name: "windlass.local/test:1",
    directory: "test-image",
    program: "peer",
    source: "xtask/test/peer.rs",
    arguments: (&["say"], &["words", "of", "the", "image"]),
};

/// Programs that busybox plays, so that a shell in the container is useful.
const APPLETS: &[&str] = &[
    "sh",
    "cat",
    "ls",
    "sleep",
    "echo",
    "env",
    "tar",
    "wget",
    "nc",
    "ps",
    "id",
    "mkdir",
    "rm",
    "touch",
    "head",
    "tail",
    "grep",
    "sed",
    "date",
    "hostname",
    "ip",
    "nslookup",
    "true",
    "false",
    "kill",
    "dd",
    "printf",
    "seq",
    "test",
    "stat",
    "mount",
    "find",
    "wc",
    "cp",
    "mv",
    "ln",
    "chmod",
    "vi",
    "top",
    "df",
    "du",
    "tee",
    "cut",
    "sort",
    "uniq",
    "yes",
    "stty",
    "tty",
    "base64",
    "awk",
    "basename",
    "chown",
    "chroot",
    "cmp",
    "diff",
    "dirname",
    "fallocate",
    "groups",
    "md5sum",
    "mkfifo",
    "mknod",
    "netstat",
    "nproc",
    "od",
    "pidof",
    "ping",
    "pwd",
    "readlink",
    "realpath",
    "rmdir",
    "setsid",
    "sha256sum",
    "sync",
    "sysctl",
    "timeout",
    "tr",
    "truncate",
    "umount",
    "uname",
    "unshare",
    "usleep",
    "whoami",
    "xargs",
];

impl Image {
    /// Makes the image when it is older than its sources and returns the path of the OCI layout archive.
    pub fn build(&self) -> Result<PathBuf> {
        let directory = target_dir().join(self.directory);
        fs::create_dir_all(&directory)?;
        let archive = directory.join("image.oci.tar");
        let source = root().join(self.source);
        if is_newer(&archive, &source)? && is_newer(&archive, &root().join(file!()))? {
            return Ok(archive);
        }
        let program = directory.join(self.program);
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]);
        run(&format!("compile {}", self.source), rustc.arg(&program).arg(&source))?;
        let busybox = fs::read("/bin/busybox").context("busybox-static is not installed")?;
        let layer = self.layer(&fs::read(&program)?, &busybox)?;
        let part = directory.join("image.oci.tar.part");
        fs::write(&part, self.layout(layer)?)?;
        fs::rename(&part, &archive)?;
        Ok(archive)
    }

    fn layer(&self, program: &[u8], busybox: &[u8]) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for directory in ["bin/", "etc/", "tmp/", "usr/", "usr/bin/", "root/", "var/"] {
            let mode = if directory == "tmp/" { 0o1777 } else { 0o755 };
            append(&mut tar, directory, tar::EntryType::Directory, mode, &[])?;
        }
        append(&mut tar, "bin/busybox", tar::EntryType::Regular, 0o755, busybox)?;
        append(&mut tar, &format!("bin/{}", self.program), tar::EntryType::Regular, 0o755, program)?;
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
        append(&mut tar, "etc/passwd", tar::EntryType::Regular, 0o644, passwd)?;
        append(&mut tar, "etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\nnobody:x:65534:\n")?;
        for applet in APPLETS {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
        Ok(tar.into_inner()?)
    }

    /// An OCI image layout (image-spec, image-layout.md) around one uncompressed layer.
    fn layout(&self, layer: Vec<u8>) -> Result<Vec<u8>> {
        let diff_id = digest(&layer);
        let entry_point: Vec<String> = [format!("/bin/{}", self.program)]
            .into_iter()
            .chain(self.arguments.0.iter().map(|word| (*word).to_owned()))
            .collect();
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "config": {"Entrypoint": entry_point, "Cmd": self.arguments.1, "Env": ["PATH=/bin:/usr/bin"],
                "ExposedPorts": {"8080/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created_by": "cargo x"}],
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string()
        .into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
        let mut files = BTreeMap::from([
            ("oci-layout".to_owned(), json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes()),
            ("index.json".to_owned(), index),
        ]);
        for blob in [config, manifest, layer] {
            files.insert(format!("blobs/sha256/{}", &digest(&blob)["sha256:".len()..]), blob);
        }
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in &files {
            append(&mut tar, path, tar::EntryType::Regular, 0o644, content)?;
        }
        Ok(tar.into_inner()?)
    }
}

/// Whether what was made is there and newer than what it was made from.
fn is_newer(made: &Path, source: &Path) -> Result<bool> {
    Ok(match (fs::metadata(made), fs::metadata(source)) {
        (Ok(made), Ok(source)) => made.modified()? > source.modified()?,
        _ => false,
    })
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) -> Result<()> {
    tar.append_data(&mut header(kind, mode, content.len() as u64), path, content)?;
    Ok(())
}

/// An entry of root's, the same whenever it is made.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn descriptor(media_type: &str, blob: &[u8]) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
