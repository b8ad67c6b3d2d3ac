//! What a container sees mounted: its volumeMounts, and the files that say who and where it is.

use windlass_api::types::core;

use super::volume::is_ours;
use crate::env::ConfigError;
use crate::expansion::expand;
use crate::machine::{Device, DeviceMount, DeviceSource, Mount, MountSource, Propagation};

/// The pod's own files and where they belong.
const FILES: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname")];

/// The mounts of a container of this pod, whose environment subPathExpr may name.
pub fn of_container(
    spec: &core::PodSpec,
    container: &core::Container,
    env: &[(String, String)],
) -> Result<Vec<Mount>, ConfigError> {
    let mut out = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let mut made = mount_of(mount, env)?;
        let volume = spec.volumes.iter().flatten().find(|found| found.name == mount.name);
        made.read_only |= volume.is_some_and(|volume| is_ours(volume) || is_read_only(volume));
        out.push(made);
    }
    for (file, target) in FILES {
        if !out.iter().any(|mount| mount.target.trim_end_matches('/') == target) {
            let source = MountSource::File(file.to_owned());
            out.push(Mount {
                source,
                sub_path: String::new(),
                target: target.to_owned(),
                read_only: false,
                recursive: false,
                propagation: Propagation::Private,
            });
        }
    }
    // A mount below another must come after it.
    out.sort_by_key(|mount| mount.target.split('/').filter(|part| !part.is_empty()).count());
    Ok(out)
}

/// The devices of a container: volumes of its pod that are no file systems.
pub fn devices_of(spec: &core::PodSpec, container: &core::Container) -> Result<Vec<Device>, ConfigError> {
    let device = |wanted: &core::VolumeDevice| {
        let is_path = wanted.device_path.starts_with('/') && !wanted.device_path.split('/').any(|part| part == "..");
        let volume = spec.volumes.iter().flatten().find(|found| found.name == wanted.name);
        match volume.filter(|_| is_path) {
            Some(volume) => Ok(Device {
                source: DeviceSource::Volume(wanted.name.clone()),
                target: wanted.device_path.clone(),
                access: if is_read_only(volume) { "rm" } else { "rwm" }.to_owned(),
            }),
            None => Err(ConfigError::Refused(format!(
                "volumeDevice {:?}: expected a volume of the pod and an absolute path without .., found {:?}",
                wanted.name, wanted.device_path
            ))),
        }
    };
    container.volume_devices.iter().flatten().map(device).collect()
}

/// What comes with a device.
pub fn of_device(mount: &DeviceMount) -> Mount {
    Mount {
        source: MountSource::Path(mount.source.clone()),
        sub_path: String::new(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        recursive: false,
        propagation: Propagation::Private,
    }
}

/// Whether the pod has its claim for reading only.
fn is_read_only(volume: &core::Volume) -> bool {
    volume.persistent_volume_claim.as_ref().is_some_and(|source| source.read_only == Some(true))
}

fn mount_of(mount: &core::VolumeMount, env: &[(String, String)]) -> Result<Mount, ConfigError> {
    let refuse = |why: String| Err(ConfigError::Refused(format!("volumeMount {:?}: {why}", mount.name)));
    let propagation = match mount.mount_propagation.as_deref() {
        None | Some("" | "None") => Propagation::Private,
        Some("HostToContainer") => Propagation::FromMachine,
        Some("Bidirectional") => Propagation::Both,
        Some(other) => return refuse(format!("mountPropagation {other:?} is not one that exists")),
    };
    let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
        (_, Some(expression)) if !expression.is_empty() => {
            let missing = std::cell::RefCell::new(None);
            let lookup = |name: &str| {
                let found = env.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
                if found.is_none() {
                    *missing.borrow_mut() = Some(name.to_owned());
                }
                found
            };
            let expanded = expand(expression, lookup);
            if let Some(name) = missing.into_inner() {
                return refuse(format!("subPathExpr {expression:?}: missing value for {name:?}"));
            }
            expanded
        }
        (Some(path), _) => path.clone(),
        (None, _) => String::new(),
    };
    if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
        return refuse(format!("subPath {sub_path:?} leads out of the volume"));
    }
    let target = &mount.mount_path;
    let target = if target.starts_with('/') { target.clone() } else { format!("/{target}") };
    if target.split('/').any(|part| part == "..") {
        return refuse(format!("mountPath {target:?} contains .."));
    }
    Ok(Mount {
        source: MountSource::Volume(mount.name.clone()),
        sub_path,
        target,
        read_only: mount.read_only == Some(true),
        recursive: is_recursive(mount),
        propagation,
    })
}

/// Whether what is mounted beneath is read-only too. Every kernel that runs this node can do it.
pub fn is_recursive(mount: &core::VolumeMount) -> bool {
    matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"))
}

#[cfg(test)]
mod tests {
    use super::of_container;
    use crate::machine::{Mount, Propagation};
    use serde_json::{Value, json};

    fn check(mounts: Value) -> Result<Vec<String>, String> {
        let container = serde_json::from_value(json!({"name": "c", "volumeMounts": mounts})).expect("a container");
        let spec = json!({"containers": [], "volumes": [
            {"name": "m", "configMap": {"name": "m"}}, {"name": "s", "secret": {"secretName": "s"}},
            {"name": "d", "downwardAPI": {}}, {"name": "p", "projected": {}}, {"name": "v", "emptyDir": {}},
        ]});
        let spec = serde_json::from_value(spec).expect("a pod's spec");
        let env = [("POD".to_owned(), "web-0".to_owned()), ("UP".to_owned(), "../x".to_owned())];
        let mounts = of_container(&spec, &container, &env).map_err(|error| error.to_string())?;
        let shown = |mount: Mount| {
            let read_only = if mount.read_only { " ro" } else { "" };
            let recursive = if mount.recursive { " rro" } else { "" };
            let propagation = match mount.propagation {
                Propagation::Private => "",
                Propagation::FromMachine => " slave",
                Propagation::Both => " shared",
            };
            format!("{}<{}{read_only}{recursive}{propagation}", mount.target, mount.sub_path)
        };
        Ok(mounts.into_iter().map(shown).collect())
    }

    #[test]
    fn mounts_come_in_the_order_of_their_depth_with_the_pods_files() {
        let mounts = json!([{"name": "v", "mountPath": "/data/deep/er"}, {"name": "v", "mountPath": "/data", "subPathExpr": "$(POD)"}]);
        let expected = ["/data<web-0", "/etc/hosts<", "/etc/resolv.conf<", "/etc/hostname<", "/data/deep/er<"];
        assert_eq!(check(mounts).expect("allowed"), expected);
        let own = check(json!([{"name": "v", "mountPath": "/etc/hosts", "subPath": "hosts"}])).expect("allowed");
        assert_eq!(own, ["/etc/hosts<hosts", "/etc/resolv.conf<", "/etc/hostname<"]);
    }

    #[test]
    fn what_the_node_writes_no_container_can() {
        let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}"), "readOnly": false});
        let mounts = check(json!([mount("m"), mount("s"), mount("d"), mount("p"), mount("v")])).expect("allowed");
        assert_eq!(mounts[..5], ["/m< ro", "/s< ro", "/d< ro", "/p< ro", "/v<"]);
    }

    #[test]
    fn a_mount_says_how_deep_it_is_read_only_and_where_later_mounts_are_seen() {
        let mounts = json!([
            {"name": "v", "mountPath": "/a", "readOnly": true, "recursiveReadOnly": "IfPossible"},
            {"name": "v", "mountPath": "/b", "readOnly": true, "recursiveReadOnly": "Disabled", "mountPropagation": "HostToContainer"},
            {"name": "v", "mountPath": "/c", "mountPropagation": "Bidirectional"},
        ]);
        assert_eq!(check(mounts).expect("allowed")[..3], ["/a< ro rro", "/b< ro slave", "/c< shared"]);
    }

    #[test]
    fn mounts_that_lead_out_are_refused() {
        for mount in [
            json!({"name": "v", "mountPath": "/a", "subPath": "../b"}),
            json!({"name": "v", "mountPath": "/a", "subPath": "/b"}),
            json!({"name": "v", "mountPath": "/a", "subPathExpr": "$(UP)"}),
            json!({"name": "v", "mountPath": "/a/../b"}),
            json!({"name": "v", "mountPath": "/a", "subPathExpr": "$(NONE)"}),
            json!({"name": "v", "mountPath": "/a", "mountPropagation": "Sideways"}),
        ] {
            assert!(check(json!([mount.clone()])).is_err(), "{mount}");
        }
    }
}
