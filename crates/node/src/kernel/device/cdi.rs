//! The Container Device Interface: what files of this machine say a container needs to use a device, by the device's name.
//!
//! Rules
//!   D1 named     `VENDOR/CLASS=DEVICE`; each part begins with a letter (a device with a letter or digit), and ends with a
//!                letter or digit
//!   D2 found     in the `.json` and `.yaml` files of the directories, of which a later one has precedence; two files of one
//!                directory that know the device are an error, and so is none
//!   D3 edits     what a file says for all of its devices comes once, before what it says for each
//!   D4 refused   what this runtime cannot do is an error, not left out: hooks in the container's life, Intel RDT, network
//!                devices, file systems that are no bind mounts
//! Source: Container Device Interface specification 1.0.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value;
use windlass_api::codec::{Limits, json, yaml};
use windlass_runtime::{Bind, Device, Hook, HookPoint};

use super::super::{names, read_bounded};

/// Where specifications lie, by convention; the later ones have precedence.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Most files that are looked at.
const FILES_MAX: usize = 256;
/// The longest of them.
const FILE_BYTES_MAX: usize = 4 << 20;

/// What is changed of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    pub env: Vec<(String, String)>,
    pub nodes: Vec<Device>,
    pub mounts: Vec<Bind>,
    pub hooks: Vec<Hook>,
    pub groups: Vec<u32>,
}

/// What the containers that use these devices need.
pub fn resolve(directories: &[PathBuf], devices: &[String]) -> Result<Edits, String> {
    let mut edits = Edits::default();
    if devices.is_empty() {
        return Ok(edits);
    }
    let specs = read_all(directories)?;
    // D3: by file, with the devices asked of it.
    let mut asked: BTreeMap<usize, Vec<&Value>> = BTreeMap::new();
    for name in devices {
        let (kind, device) = parse(name)?;
        let (at, found) = find(&specs, kind, device).map_err(|why| format!("CDI device {name:?}: {why}"))?;
        asked.entry(at).or_default().push(found);
    }
    for (at, devices) in asked {
        let spec = &specs[at];
        let parts = std::iter::once(&spec.content["containerEdits"]);
        for part in parts.chain(devices.into_iter().map(|device| &device["containerEdits"])) {
            add(&mut edits, part).map_err(|why| format!("CDI specification {}: {why}", spec.path.display()))?;
        }
    }
    Ok(edits)
}

/// One file.
struct Spec {
    path: PathBuf,
    /// Which directory it is in.
    rank: usize,
    content: Value,
}

/// D2. A file that is no specification is told of and left out: it may be another device's.
fn read_all(directories: &[PathBuf]) -> Result<Vec<Spec>, String> {
    let mut specs = Vec::new();
    for (rank, directory) in directories.iter().enumerate() {
        for name in names(directory).map_err(|error| error.to_string())? {
            let path = directory.join(&name);
            if !name.ends_with(".json") && !name.ends_with(".yaml") {
                continue;
            }
            if specs.len() == FILES_MAX {
                return Err(format!("expected at most {FILES_MAX} CDI specifications, found more"));
            }
            match read(&path) {
                Ok(content) => specs.push(Spec { path, rank, content }),
                Err(why) => tracing::warn!(path = %path.display(), why, "a CDI specification cannot be read"),
            }
        }
    }
    Ok(specs)
}

fn read(path: &Path) -> Result<Value, String> {
    let bytes =
        File::open(path).and_then(|file| read_bounded(file, FILE_BYTES_MAX)).map_err(|error| error.to_string())?;
    let decode = if path.extension().is_some_and(|end| end == "json") { json::decode } else { yaml::decode };
    let content = decode(&bytes, Limits::default()).map_err(|error| error.to_string())?.value;
    if text(&content, "cdiVersion").is_empty() || parse(&format!("{}=x", text(&content, "kind"))).is_err() {
        return Err("expected cdiVersion and kind, found no such".to_owned());
    }
    Ok(content)
}

/// D1: kind and device of a name.
fn parse(name: &str) -> Result<(&str, &str), String> {
    let wrong = || format!("expected VENDOR/CLASS=DEVICE as the name of a CDI device, found {name:?}");
    let (kind, device) = name.split_once('=').ok_or_else(wrong)?;
    let (vendor, class) = kind.split_once('/').ok_or_else(wrong)?;
    let is_word = |word: &str, more: &[u8], may_begin_with_digit: bool| {
        let bytes = word.as_bytes();
        let first =
            bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || may_begin_with_digit && b.is_ascii_digit());
        let last = bytes.last().is_some_and(u8::is_ascii_alphanumeric);
        first && last && bytes.iter().all(|b| b.is_ascii_alphanumeric() || more.contains(b))
    };
    let is_name = is_word(vendor, b"_-.", false) && is_word(class, b"_-", false) && is_word(device, b"_-.:", true);
    if is_name { Ok((kind, device)) } else { Err(wrong()) }
}

/// D2.
fn find<'a>(specs: &'a [Spec], kind: &str, device: &str) -> Result<(usize, &'a Value), String> {
    let of_kind = specs.iter().enumerate().filter(|(_, spec)| spec.content["kind"] == *kind);
    let found = of_kind.filter_map(|(at, spec)| {
        let mut devices = spec.content["devices"].as_array()?.iter();
        devices.find(|found| found["name"] == *device).map(|found| (at, spec.rank, found))
    });
    let found: Vec<(usize, usize, &Value)> = found.collect();
    let last = found.iter().map(|(_, rank, _)| *rank).max().ok_or("no specification of this machine knows it")?;
    let mut of_last = found.iter().filter(|(_, rank, _)| *rank == last);
    match (of_last.next(), of_last.next()) {
        (Some((at, _, found)), None) => Ok((*at, found)),
        _ => Err("two specifications of one directory know it".to_owned()),
    }
}

/// Adds what a part of a specification says.
fn add(edits: &mut Edits, part: &Value) -> Result<(), String> {
    let items = |field: &str| part[field].as_array().into_iter().flatten();
    // D4.
    for unknown in ["intelRdt", "netDevices"] {
        if part[unknown].is_object() || part[unknown].as_array().is_some_and(|list| !list.is_empty()) {
            return Err(format!("{unknown} is not supported by this node"));
        }
    }
    for pair in items("env") {
        let pair = pair.as_str().and_then(|pair| pair.split_once('=')).ok_or("expected NAME=VALUE in env")?;
        edits.env.push((pair.0.to_owned(), pair.1.to_owned()));
    }
    for node in items("deviceNodes") {
        edits.nodes.push(node_of(node)?);
    }
    for mount in items("mounts") {
        edits.mounts.push(mount_of(mount)?);
    }
    for hook in items("hooks") {
        edits.hooks.push(hook_of(hook)?);
    }
    let groups = items("additionalGids").filter_map(Value::as_u64).filter_map(|group| u32::try_from(group).ok());
    edits.groups.extend(groups.filter(|group| *group > 0));
    Ok(())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn absolute(value: &Value, field: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(value, field));
    let is_plain = path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..");
    if is_plain {
        Ok(path)
    } else {
        Err(format!("expected an absolute path as {field}, found {:?}", text(value, field)))
    }
}

/// What a file does not say of a device node is as it is on this machine.
fn node_of(node: &Value) -> Result<Device, String> {
    let path = absolute(node, "path")?;
    let host = if text(node, "hostPath").is_empty() { path.clone() } else { absolute(node, "hostPath")? };
    let number = |field: &str| node[field].as_u64().and_then(|number| u32::try_from(number).ok());
    let access = match text(node, "permissions") {
        "" => "rwm",
        access if access.bytes().all(|byte| b"rwm".contains(&byte)) => access,
        other => return Err(format!("expected permissions out of r, w and m, found {other:?}")),
    };
    let of_machine = || Device::of(&host, &path, access).map_err(|error| format!("{}: {error}", host.display()));
    let mut made = match (text(node, "type"), number("major"), number("minor")) {
        (kind @ ("c" | "b" | "u"), Some(major), Some(minor)) => Device {
            target: path.clone(),
            is_block: kind == "b",
            number: (major, minor),
            mode: 0o600,
            owner: (0, 0),
            access: access.to_owned(),
        },
        ("" | "c" | "b" | "u", _, _) => of_machine()?,
        (other, _, _) => return Err(format!("expected a device of type c or b, found {other:?}")),
    };
    made.mode = number("fileMode").unwrap_or(made.mode);
    made.owner = (number("uid").unwrap_or(made.owner.0), number("gid").unwrap_or(made.owner.1));
    Ok(made)
}

fn mount_of(mount: &Value) -> Result<Bind, String> {
    let (source, target) = (absolute(mount, "hostPath")?, absolute(mount, "containerPath")?);
    if !matches!(text(mount, "type"), "" | "bind" | "none") {
        return Err(format!("expected a bind mount, found one of type {:?}", text(mount, "type")));
    }
    let mut options = mount["options"].as_array().into_iter().flatten();
    let read_only = options.any(|option| option == "ro");
    Ok(Bind { source, target, read_only, ..Bind::default() })
}

fn hook_of(hook: &Value) -> Result<Hook, String> {
    let point = match text(hook, "hookName") {
        "prestart" => HookPoint::Prestart,
        "createRuntime" => HookPoint::CreateRuntime,
        "createContainer" => HookPoint::CreateContainer,
        other => return Err(format!("hooks at {other:?} are not supported by this node")),
    };
    let texts = |field: &str| -> Vec<String> {
        hook[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Ok(Hook {
        point,
        path: absolute(hook, "path")?,
        args: texts("args"),
        env: texts("env"),
        timeout_s: hook["timeout"].as_u64().and_then(|seconds| u32::try_from(seconds).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::{Edits, parse, resolve};
    use std::path::PathBuf;
    use windlass_runtime::HookPoint;

    #[test]
    fn d1_names_have_a_vendor_a_class_and_a_device() {
        for name in ["vendor.com/gpu=0", "v/c=all", "vendor-1.example/net_card=a:b.c-d_e"] {
            assert!(parse(name).is_ok(), "{name}");
        }
        for name in
            ["", "gpu", "gpu=0", "vendor.com/gpu", "1v/c=d", "v/1c=d", "v/c=", "v/c=-a", "v/c=a-", "v/c.d=e", "v./c=d"]
        {
            assert!(parse(name).is_err(), "{name}");
        }
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("windlass-cdi-{name}-{}", std::process::id()));
            for directory in ["etc", "run"] {
                std::fs::create_dir_all(path.join(directory)).expect("the temporary directory is writable");
            }
            Scratch(path)
        }

        fn write(&self, file: &str, text: &str) {
            std::fs::write(self.0.join(file), text).expect("the directory is ours");
        }

        fn resolve(&self, devices: &[&str]) -> Result<Edits, String> {
            let devices: Vec<String> = devices.iter().map(|device| (*device).to_owned()).collect();
            resolve(&[self.0.join("etc"), self.0.join("run")], &devices)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("the test's own directory");
        }
    }

    fn spec(device: &str, value: &str) -> String {
        format!(
            "cdiVersion: 0.6.0\nkind: v.com/gpu\ndevices:\n- name: '{device}'\n  containerEdits: {{env: [WHICH={value}]}}\n"
        )
    }

    #[test]
    fn d2_a_later_directory_has_precedence_and_two_of_one_are_an_error() {
        let scratch = Scratch::new("found");
        scratch.write("etc/a.yaml", &spec("0", "etc"));
        scratch.write("etc/broken.json", "{");
        let env = |found: Result<Edits, String>| found.map(|edits| edits.env[0].1.clone());
        assert_eq!(env(scratch.resolve(&["v.com/gpu=0"])).as_deref(), Ok("etc"));
        scratch.write("run/a.yaml", &spec("0", "run"));
        assert_eq!(env(scratch.resolve(&["v.com/gpu=0"])).as_deref(), Ok("run"));
        scratch.write("run/b.yaml", &spec("0", "again"));
        assert!(scratch.resolve(&["v.com/gpu=0"]).expect_err("two know it").contains("two specifications"));
        assert!(scratch.resolve(&["v.com/gpu=1"]).expect_err("nobody knows it").contains("no specification"));
        assert_eq!(scratch.resolve(&[]), Ok(Edits::default()));
    }

    #[test]
    fn d3_what_is_for_all_devices_comes_once_before_each() {
        let scratch = Scratch::new("edits");
        scratch.write(
            "etc/all.json",
            r#"{"cdiVersion": "0.6.0", "kind": "v.com/gpu",
                "containerEdits": {"env": ["ALL=1"], "additionalGids": [44, 0],
                    "mounts": [{"hostPath": "/usr/lib/gpu", "containerPath": "/usr/lib/gpu", "options": ["ro", "nosuid"]}],
                    "hooks": [{"hookName": "createContainer", "path": "/usr/bin/hook", "args": ["hook", "x"], "timeout": 5}]},
                "devices": [
                    {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}]}},
                    {"name": "1", "containerEdits": {"env": ["ONE=1"], "deviceNodes": [{"path": "/dev/gpu1", "type": "c", "major": 9, "minor": 7, "gid": 44, "fileMode": 432}]}}]}"#,
        );
        let edits = scratch.resolve(&["v.com/gpu=0", "v.com/gpu=1"]).expect("a specification");
        let names: Vec<&str> = edits.env.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, edits.groups.as_slice()), (vec!["ALL", "ONE"], &[44][..]));
        assert!(edits.mounts.len() == 1 && edits.mounts[0].read_only, "{edits:?}");
        assert_eq!((edits.hooks[0].point, edits.hooks[0].timeout_s), (HookPoint::CreateContainer, Some(5)));
        let [null, other] = edits.nodes.as_slice() else { panic!("{edits:?}") };
        assert_eq!((null.target.to_str(), null.number, null.access.as_str()), (Some("/dev/gpu0"), (1, 3), "rw"));
        assert_eq!((other.number, other.owner, other.mode), ((9, 7), (0, 44), 0o660));
    }

    #[test]
    fn d4_what_cannot_be_done_is_refused() {
        for edits in [
            "{hooks: [{hookName: poststop, path: /x}]}",
            "{mounts: [{hostPath: /x, containerPath: /x, type: tmpfs}]}",
            "{mounts: [{hostPath: ../x, containerPath: /x}]}",
            "{deviceNodes: [{path: dev/x}]}",
            "{deviceNodes: [{path: /dev/null, permissions: x}]}",
            "{intelRdt: {closID: a}}",
            "{env: [NOVALUE]}",
        ] {
            let scratch = Scratch::new("refused");
            let text = format!("cdiVersion: 0.6.0\nkind: v/c\ndevices: [{{name: d, containerEdits: {edits}}}]\n");
            scratch.write("etc/a.yaml", &text);
            let why = scratch.resolve(&["v/c=d"]).expect_err(edits);
            assert!(why.contains("a.yaml"), "{why}");
        }
    }
}
