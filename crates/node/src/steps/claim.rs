//! A volume that a pod has through a claim: the PersistentVolume behind it, as this node mounts it.
//!
//! Source: API reference, PersistentVolumeClaimVolumeSource, EphemeralVolumeSource; PersistentVolume: hostPath, local, csi (the
//! node's own driver here, others by `lent`). Other sources are refused.

use std::path::PathBuf;

use serde_json::{Value, json};
use windlass_api::Object;
use windlass_api::binding::{Claim, ENFORCE_SIZE, LOCAL_DRIVER, LOCAL_FINALIZER, Volume};
use windlass_api::kinds;
use windlass_api::types::core;
use windlass_client::Patch;

use super::{PodContext, lent};
use crate::machine::{Lasting, VolumeContent};

/// The claim that a volume of the pod stands for.
pub fn name_of(pod: &PodContext, volume: &core::Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name(), volume.name)),
        (None, None) => None,
    }
}

/// A claim and the volume behind it.
pub struct Found {
    /// The claim.
    pub claim: Claim,
    /// The volume.
    pub volume: Volume,
    /// Its PersistentVolume.
    pub object: Object,
}

/// What a volume of the pod that stands for a claim, of which this was found, is on this machine.
pub async fn content(pod: &PodContext, volume: &core::Volume, found: &Found) -> Result<VolumeContent, String> {
    let read_only = volume.persistent_volume_claim.as_ref().is_some_and(|source| source.read_only == Some(true));
    let spec = found.object.value()["spec"].take();
    if spec["csi"].is_object() && found.volume.driver != LOCAL_DRIVER {
        return Ok(VolumeContent::Lent(Box::new(lent::of_volume(pod, &found.volume, &spec, read_only).await?)));
    }
    let content = source(&found.volume, &spec)?;
    if let VolumeContent::Lasting(Lasting::Own(_) | Lasting::Sized(..) | Lasting::Device(..)) = &content {
        keep(pod, &found.object).await?;
    }
    Ok(content)
}

/// The claim that a volume of the pod stands for, and the PersistentVolume behind it, which must be this node's to use.
pub async fn find(pod: &PodContext, wanted: &core::Volume) -> Result<Found, String> {
    let name = &name_of(pod, wanted).unwrap_or_default();
    let is_ephemeral = wanted.ephemeral.is_some();
    let client = &pod.shared.client;
    let found = client.get(&kinds::PERSISTENT_VOLUME_CLAIM, pod.namespace(), name).await;
    let object = found.map_err(|error| format!("persistentvolumeclaim {name:?}: {error}"))?;
    let object = object.ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
    if is_ephemeral && object.header.controller().is_none_or(|owner| owner.uid != *pod.uid) {
        return Err(format!(
            "PVC {}/{name} was not created for pod {}: it is not its owner",
            pod.namespace(),
            pod.name()
        ));
    }
    let claim = Claim::read(&object);
    if claim.phase != "Bound" || claim.volume.is_empty() {
        return Err(format!("persistentvolumeclaim {name:?} is not bound"));
    }
    let found = client.get(&kinds::PERSISTENT_VOLUME, "", &claim.volume).await;
    let object = found.map_err(|error| format!("persistentvolume {:?}: {error}", claim.volume))?;
    let object = object.ok_or_else(|| format!("persistentvolume {:?} not found", claim.volume))?;
    let volume = Volume::read(&object);
    check(pod, &claim, &volume)?;
    Ok(Found { claim, volume, object })
}

/// A volume with a directory of this node's does not go before the directory does.
async fn keep(pod: &PodContext, object: &Object) -> Result<(), String> {
    if object.header.has_finalizer(LOCAL_FINALIZER) {
        return Ok(());
    }
    let name = object.header.name();
    let finalizers: Vec<&str> = object.header.finalizers().chain([LOCAL_FINALIZER]).collect();
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.header.revision.to_string()}});
    let kept = pod.shared.client.patch(&kinds::PERSISTENT_VOLUME, "", name, &Patch::Merge(patch), None).await;
    kept.map(drop).map_err(|error| format!("persistentvolume {name:?}: {error}"))
}

fn check(pod: &PodContext, claim: &Claim, volume: &Volume) -> Result<(), String> {
    let name = &volume.name;
    if volume.claim.as_ref().is_none_or(|named| named.uid != claim.uid) {
        return Err(format!("persistentvolume {name:?} is not the claim's: it names another"));
    }
    let node = &pod.shared.config.name;
    if !volume.is_reached(node, &pod.shared.node_labels().unwrap_or_default()) {
        return Err(format!("persistentvolume {name:?}: node affinity does not select node {node:?}"));
    }
    Ok(())
}

fn source(volume: &Volume, spec: &Value) -> Result<VolumeContent, String> {
    let name = volume.name.as_str();
    let path = |source: &Value| {
        let path = PathBuf::from(source["path"].as_str().unwrap_or_default());
        let is_plain = path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..");
        is_plain
            .then_some(path)
            .ok_or_else(|| format!("persistentvolume {name:?}: its path is not absolute without .."))
    };
    if volume.is_block && spec["csi"]["driver"] != LOCAL_DRIVER {
        return match spec["local"].is_object() {
            true => Ok(VolumeContent::Device(path(&spec["local"])?)),
            false => Err(format!("persistentvolume {name:?}: devices are local or lent by a CSI driver")),
        };
    }
    if spec["hostPath"].is_object() {
        let expect = spec["hostPath"]["type"].as_str().unwrap_or_default().to_owned();
        return Ok(VolumeContent::Host { path: path(&spec["hostPath"])?, expect });
    }
    if spec["local"].is_object() {
        return Ok(VolumeContent::Lasting(Lasting::There(path(&spec["local"])?)));
    }
    if spec["csi"]["driver"] != LOCAL_DRIVER {
        return Err(format!("persistentvolume {name:?}: this node mounts hostPath, local and csi volumes"));
    }
    // Names are unique and handles are not: one volume must not be another's directory.
    match spec["csi"]["volumeHandle"].as_str() {
        Some(handle) if handle == name => {
            let bytes = u64::try_from(volume.bytes).unwrap_or(0);
            let is_sized = spec["csi"]["volumeAttributes"][ENFORCE_SIZE] == "true";
            Ok(VolumeContent::Lasting(match (volume.is_block, is_sized) {
                (true, _) => Lasting::Device(name.to_owned(), bytes),
                (false, true) => Lasting::Sized(name.to_owned(), bytes),
                (false, false) => Lasting::Own(name.to_owned()),
            }))
        }
        handle => Err(format!("persistentvolume {name:?}: expected its own name as volumeHandle, found {handle:?}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::machine::{Lasting, VolumeContent};
    use serde_json::{Value, json};
    use windlass_api::binding::Volume;

    fn source(name: &str, spec: &Value) -> Result<VolumeContent, String> {
        let is_block = spec["volumeMode"] == "Block";
        super::source(&Volume { name: name.to_owned(), is_block, ..Volume::default() }, spec)
    }

    #[test]
    fn a_volume_is_a_path_or_a_directory_of_the_nodes_own() {
        let local = json!({"local": {"path": "/mnt/disk"}});
        assert_eq!(source("v", &local), Ok(VolumeContent::Lasting(Lasting::There("/mnt/disk".into()))));
        let host = json!({"hostPath": {"path": "/srv", "type": "Directory"}});
        let expected = VolumeContent::Host { path: "/srv".into(), expect: "Directory".to_owned() };
        assert_eq!(source("v", &host), Ok(expected));
        let own = |handle: &str| json!({"csi": {"driver": "local.windlass.dev", "volumeHandle": handle}});
        assert_eq!(source("v", &own("v")), Ok(VolumeContent::Lasting(Lasting::Own("v".to_owned()))));
        let sized = json!({"csi": {"driver": "local.windlass.dev", "volumeHandle": "v",
            "volumeAttributes": {"enforceSize": "true"}}});
        assert_eq!(source("v", &sized), Ok(VolumeContent::Lasting(Lasting::Sized("v".to_owned(), 0))));
        let device = json!({"local": {"path": "/dev/loop9"}, "volumeMode": "Block"});
        assert_eq!(source("v", &device), Ok(VolumeContent::Device("/dev/loop9".into())));
        for (spec, why) in [
            (own("another"), "volumeHandle"),
            (json!({"local": {"path": "/a/../b"}}), "not absolute"),
            (json!({"hostPath": {"path": "/dev/x"}, "volumeMode": "Block"}), "devices are local"),
            (json!({"nfs": {}}), "this node mounts"),
        ] {
            let error = source("v", &spec).expect_err("must be refused");
            assert!(error.contains(why), "{spec}: {error}");
        }
    }
}
