//! What an image says about running it, parsed with bounds: every field was written by a stranger.
//!
//! Rules
//!   R1 bounded   texts, lists and the whole document have a largest size
//!   R2 whole     one diff_id per layer, each a digest
//!   R3 platform  the image is for this system and processor
//!   R4 clean     no NUL anywhere; labels in our own prefix are dropped, so that an image cannot speak in our name

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ImageError;
use super::reference::is_digest;

/// The largest config document.
pub(super) const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Overlayfs takes 500 lower directories; images are built with at most 127 layers.
pub(super) const LAYERS_MAX: usize = 127;
/// Entries of one list: environment, arguments, ports, volumes, labels.
const LIST_MAX: usize = 4096;
/// All texts of one list together: Linux passes at most 2 MiB of arguments and environment to a program.
const LIST_BYTES_MAX: usize = 1 << 20;
/// One short text: user, directory, signal.
const TEXT_BYTES_MAX: usize = 4096;
/// Labels that only this program may set.
const RESERVED_LABELS: [&str; 2] = ["windlass.", "io.windlass"];

/// The part of an image config (OCI image spec 1.1, `config.md`) that running a container needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments after the entrypoint, or the program when there is none.
    pub cmd: Vec<String>,
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// An absolute path, or empty.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`, or empty.
    pub user: String,
    /// A signal name or number, or empty.
    pub stop_signal: String,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Absolute paths the image wants to be volumes. Nothing on the host may be derived from them.
    pub volumes: Vec<String>,
    /// Labels, without those in our reserved prefix.
    pub labels: BTreeMap<String, String>,
}

/// A config document, understood.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) config: ImageConfig,
    pub(super) diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    os: Option<String>,
    architecture: Option<String>,
    config: Option<Running>,
    rootfs: Rootfs,
}

#[derive(Deserialize)]
struct Rootfs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Running {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
}

/// The processor of this machine as images name it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Reads a config document (R1 to R4).
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ImageError> {
    let refuse = |why: String| ImageError::document("the image's config", why);
    let document: Document = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
    let platform = (document.os.as_deref().unwrap_or("linux"), document.architecture.as_deref());
    if platform.0 != "linux" || platform.1.is_some_and(|found| found != architecture()) {
        let found = format!("{}/{}", short(platform.0), short(platform.1.unwrap_or("?")));
        return Err(refuse(format!("expected an image for linux/{}, found one for {found}", architecture())));
    }
    let diff_ids = document.rootfs.diff_ids;
    if diff_ids.is_empty() || diff_ids.len() > LAYERS_MAX {
        return Err(refuse(format!("expected 1 to {LAYERS_MAX} layers in rootfs.diff_ids, found {}", diff_ids.len())));
    }
    if let Some(bad) = diff_ids.iter().find(|diff_id| !is_digest(diff_id)) {
        return Err(refuse(format!("rootfs.diff_ids: expected sha256: and 64 hex digits, found {:?}", short(bad))));
    }
    let config = running(document.config.unwrap_or_default())?;
    Ok(Parsed { config, diff_ids })
}

fn running(from: Running) -> Result<ImageConfig, ImageError> {
    let text = |field: &str, text: Option<String>| {
        let text = text.unwrap_or_default();
        check_list(field, [&text].into_iter(), TEXT_BYTES_MAX).map(|()| text)
    };
    let list = |field: &str, list: Option<Vec<String>>| {
        let list = list.unwrap_or_default();
        check_list(field, list.iter(), LIST_BYTES_MAX).map(|()| list)
    };
    let keys = |map: Option<BTreeMap<String, serde::de::IgnoredAny>>| map.map(|map| map.into_keys().collect());
    let mut labels = from.labels.unwrap_or_default();
    check_list("Labels", labels.iter().flat_map(|(key, value)| [key, value]), LIST_BYTES_MAX)?;
    labels.retain(|key, _| !RESERVED_LABELS.iter().any(|reserved| key.starts_with(reserved)));
    Ok(ImageConfig {
        entrypoint: list("Entrypoint", from.entrypoint)?,
        cmd: list("Cmd", from.cmd)?,
        env: list("Env", from.env)?,
        working_dir: text("WorkingDir", from.working_dir)?,
        user: text("User", from.user)?,
        stop_signal: text("StopSignal", from.stop_signal)?,
        exposed_ports: list("ExposedPorts", keys(from.exposed_ports))?,
        volumes: list("Volumes", keys(from.volumes))?,
        labels,
    })
}

fn check_list<'a>(field: &str, texts: impl Iterator<Item = &'a String>, bytes_max: usize) -> Result<(), ImageError> {
    let refuse = |why: String| Err(ImageError::document(format!("{field} of the image's config"), why));
    let (mut count, mut bytes) = (0, 0);
    for text in texts {
        count += 1;
        bytes += text.len();
        if count > 2 * LIST_MAX || bytes > bytes_max {
            return refuse(format!("expected at most {LIST_MAX} entries and {bytes_max} bytes, found more"));
        }
        if text.contains('\0') {
            return refuse("it contains a NUL byte".to_owned());
        }
    }
    Ok(())
}

/// The beginning of a text that may be long, for messages.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::{architecture, parse};

    fn document(config: &str) -> Vec<u8> {
        let diff_id = format!("sha256:{}", "0".repeat(64));
        let arch = architecture();
        format!(r#"{{"os":"linux","architecture":"{arch}","config":{config},"rootfs":{{"diff_ids":["{diff_id}"]}}}}"#)
            .into_bytes()
    }

    #[test]
    fn a_config_is_read_and_reserved_labels_are_dropped() {
        let text = r#"{"Entrypoint":["/app"],"Cmd":null,"Env":["A=1"],"User":"1000:1000","Volumes":{"/data":{}},
            "ExposedPorts":{"80/tcp":{}},"Labels":{"a":"b","io.windlass.pod":"mine"}}"#;
        let parsed = parse(&document(text)).expect("a good config");
        assert_eq!(parsed.config.entrypoint, ["/app"]);
        assert_eq!((parsed.config.user.as_str(), parsed.config.volumes.len()), ("1000:1000", 1));
        assert_eq!(parsed.config.labels.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn hostile_configs_are_refused_with_the_field() {
        let long = "x".repeat(2 << 20);
        let rows = [
            (document(&format!(r#"{{"Env":["A={long}"]}}"#)), "Env of the image's config"),
            (document(r#"{"Entrypoint":["/a\u0000b"]}"#), "NUL"),
            (document(r#"{"User":7}"#), "invalid type"),
            (br#"{"rootfs":{"diff_ids":[]}}"#.to_vec(), "1 to 127 layers"),
            (br#"{"rootfs":{"diff_ids":["sha256:../../etc"]}}"#.to_vec(), "64 hex digits"),
            (br#"{"os":"windows","rootfs":{"diff_ids":["x"]}}"#.to_vec(), "found one for windows"),
            (b"[".to_vec(), "refused"),
        ];
        for (bytes, why) in rows {
            let error = parse(&bytes).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
