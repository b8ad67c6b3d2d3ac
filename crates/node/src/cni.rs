//! CNI, as a runtime calls this program when it makes a sandbox: the pod's place in the network is made already, so the
//! plugin puts that in the place of the namespace that the runtime has made.
//!
//! Flow        the agent attaches the pod and writes down where its namespace is → the runtime makes a namespace and calls
//!             ADD → ours is mounted over it, at the same path → the runtime's containers join by that path → DEL uncovers
//!             the runtime's own, which it removes
//! Rules
//!   N1 ours only  a pod that this node's agent has not announced is refused: its network would be nobody's
//!   N2 repeated   ADD and DEL may come several times, and DEL needs neither agent nor pod
//! Relies on       sharing the machine's mount namespace with the runtime
//! Source: CNI specification 1.0; the arguments `K8S_POD_UID` and the loopback plugin are the runtimes' convention.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::{Value, json};

use crate::kernel::layout::{Layout, file_name};

/// The plugin's type in a configuration list, and the name of its file.
pub const PLUGIN: &str = "windlass";
/// Every runtime calls a plugin of this name, too.
pub const LOOPBACK: &str = "loopback";
/// The longest configuration that is read.
const CONFIG_BYTES_MAX: u64 = 64 << 10;
/// The versions of the specification whose answers these are.
const VERSIONS: [&str; 6] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.2.0"];

/// Whether this process was started as a plugin: with the words of CNI in its environment and none of its own.
pub fn is_called() -> bool {
    std::env::args_os().len() == 1 && std::env::var_os("CNI_COMMAND").is_some()
}

/// The plugin's whole program.
pub fn main() -> ExitCode {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(CONFIG_BYTES_MAX).read_to_string(&mut text);
    let config: Value = read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default();
    let (answer, code) = match answer(&config, |name| std::env::var_os(name)) {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(why) => {
            let version = config["cniVersion"].as_str().unwrap_or("1.0.0");
            (Some(json!({"cniVersion": version, "code": 100, "msg": why})), ExitCode::FAILURE)
        }
    };
    if let Some(answer) = answer
        && let Err(error) = writeln!(std::io::stdout().lock(), "{answer}")
    {
        eprintln!("the answer cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    code
}

fn answer(config: &Value, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Value>, String> {
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok()).unwrap_or_default();
    let version = config["cniVersion"].as_str().unwrap_or("1.0.0");
    let (command, namespace) = (text("CNI_COMMAND"), PathBuf::from(text("CNI_NETNS")));
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": version, "supportedVersions": VERSIONS})));
    }
    let is_loopback = config["type"] == LOOPBACK;
    match command.as_str() {
        "ADD" if is_loopback => Ok(Some(result(version, "lo", &namespace, "127.0.0.1/8".to_owned()))),
        "ADD" => {
            let announced = announced(config, &text("CNI_ARGS"))?;
            cover(&announced.namespace, &namespace)?;
            let interface = text("CNI_IFNAME");
            Ok(Some(result(version, &interface, &namespace, format!("{}/32", announced.address))))
        }
        "DEL" if is_loopback => Ok(None),
        "DEL" => uncover(&namespace).map(|()| None),
        "CHECK" | "GC" | "STATUS" => Ok(None),
        other => Err(format!("expected ADD, DEL, CHECK or VERSION in CNI_COMMAND, found {other:?}")),
    }
}

/// The runtime reads the address for its own lists; the node knows it already.
fn result(version: &str, interface: &str, namespace: &Path, address: String) -> Value {
    json!({
        "cniVersion": version,
        "interfaces": [{"name": interface, "sandbox": namespace}],
        // Before 1.0 the family had to be said; later it is ignored.
        "ips": [{"version": "4", "address": address, "interface": 0}],
        "dns": {},
    })
}

struct Announced {
    namespace: PathBuf,
    address: Ipv4Addr,
}

/// N1.
fn announced(config: &Value, arguments: &str) -> Result<Announced, String> {
    let data = config["data"].as_str().ok_or("expected the node's directory in data, found none")?;
    let uid = arguments.split(';').find_map(|pair| pair.strip_prefix("K8S_POD_UID="));
    let uid =
        uid.ok_or("expected K8S_POD_UID in CNI_ARGS, found none: the runtime does not say whose sandbox it is")?;
    file_name(uid).map_err(|error| error.to_string())?;
    let layout = Layout { data: data.into() };
    let path = layout.cri(uid).map_err(|error| error.to_string())?;
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|error| format!("pod {uid} is none of the windlass node's at {data}: {error}"))?;
    let said: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let network = &said["network"];
    let address = network["address"].as_str().and_then(|address| address.parse().ok());
    match (network["namespace"].as_str(), address) {
        (Some(namespace), Some(address)) => Ok(Announced { namespace: namespace.into(), address }),
        _ => Err(format!("pod {uid} has no network of its own")),
    }
}

/// Mounts our namespace over the runtime's, unless it is there already (N2).
fn cover(ours: &Path, theirs: &Path) -> Result<(), String> {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let wanted = identity(ours).map_err(|error| failed(ours, error))?;
    if identity(theirs).map_err(|error| failed(theirs, error))? == wanted {
        return Ok(());
    }
    mount_bind(ours, theirs).map_err(|error| failed(theirs, error.into()))
}

/// Takes ours away again: what is uncovered is the runtime's own, which it unmounts itself (N2).
fn uncover(theirs: &Path) -> Result<(), String> {
    if theirs.as_os_str().is_empty() {
        return Ok(());
    }
    // What the runtime names may go through a link, as /var/run does; mounts have the path behind it.
    let Ok(real) = std::fs::canonicalize(theirs) else { return Ok(()) };
    let mounts = windlass_runtime::mounts_below(&real).map_err(|error| format!("cannot list mounts: {error}"))?;
    for _ in mounts.iter().filter(|at| **at == real).skip(1) {
        let unmounted = unmount(&real, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        unmounted.map_err(|error| format!("{}: {error}", real.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::answer;
    use serde_json::{Value, json};
    use std::ffi::OsString;

    fn call(config: &Value, variables: &[(&str, &str)]) -> Result<Option<Value>, String> {
        answer(config, |name| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn n1_a_pod_that_the_agent_has_not_announced_is_refused() {
        let data = std::env::temp_dir().join(format!("windlass-cni-{}", std::process::id()));
        std::fs::create_dir_all(data.join("pods/known")).expect("a directory");
        let network = json!({"network": {"namespace": "/proc/self/ns/net", "address": "10.42.0.9"}});
        std::fs::write(data.join("pods/known/cri.json"), network.to_string()).expect("a file");
        std::fs::create_dir_all(data.join("pods/host")).expect("a directory");
        std::fs::write(data.join("pods/host/cri.json"), "{}").expect("a file");
        let config = json!({"cniVersion": "0.4.0", "type": "windlass", "data": data});
        let add = |arguments: &str| {
            // Its own namespace is there already, so nothing is mounted.
            let own = "/proc/self/ns/net";
            call(
                &config,
                &[("CNI_COMMAND", "ADD"), ("CNI_ARGS", arguments), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", own)],
            )
        };
        let told = add("IgnoreUnknown=1;K8S_POD_UID=known").expect("announced").expect("an answer");
        assert_eq!(
            (&told["ips"][0]["address"], &told["interfaces"][0]["name"]),
            (&json!("10.42.0.9/32"), &json!("eth0"))
        );
        for (arguments, why) in [
            ("K8S_POD_UID=stranger", "none of the windlass node's"),
            ("K8S_POD_UID=../pods/known", "file name"),
            ("K8S_POD_NAME=known", "K8S_POD_UID"),
            ("K8S_POD_UID=host", "no network of its own"),
        ] {
            let refusal = add(arguments).expect_err(arguments);
            assert!(refusal.contains(why), "{refusal}");
        }
        std::fs::remove_dir_all(&data).expect("our own directory");
    }

    #[test]
    fn n2_del_of_what_is_not_there_is_done() {
        let config = json!({"cniVersion": "1.0.0", "type": "windlass"});
        for namespace in ["", "/nowhere/at/all"] {
            assert_eq!(call(&config, &[("CNI_COMMAND", "DEL"), ("CNI_NETNS", namespace)]), Ok(None));
        }
        assert!(call(&config, &[("CNI_COMMAND", "MAKE")]).is_err());
    }
}
