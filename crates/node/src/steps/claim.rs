//! A volume that a pod has through a claim: the PersistentVolume behind it, as this node mounts it.
//!
//! Source: API reference, PersistentVolumeClaimVolumeSource, EphemeralVolumeSource; PersistentVolume: hostPath, local, csi (the
//! node's own driver). Other sources are refused.

use std::path::PathBuf;

use serde_json::{Value, json};
use windlass_api::Object;
use windlass_api::binding::{Claim, LOCAL_DRIVER, LOCAL_FINALIZER, Volume};
use windlass_api::kinds;
use windlass_api::types::core;
use windlass_client::Patch;

use super::PodContext;
use crate::machine::{Lasting, VolumeContent};

/// The claim that a volume of the pod stands for.
pub fn name_of(pod: &PodContext, volume: &core::Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name(), volume.name)),
        (None, None) => None,
    }
}

/// What the claim's volume is on this machine.
pub async fn content(pod: &PodContext, name: &str, is_ephemeral: bool) -> Result<VolumeContent, String> {
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
    let content = of_volume(pod, &claim, &object)?;
    if let VolumeContent::Lasting(Lasting::Own(_)) = &content {
        keep(pod, &object).await?;
    }
    Ok(content)
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

fn of_volume(pod: &PodContext, claim: &Claim, object: &Object) -> Result<VolumeContent, String> {
    let volume = Volume::read(object);
    let name = &volume.name;
    if volume.claim.as_ref().is_none_or(|named| named.uid != claim.uid) {
        return Err(format!("persistentvolume {name:?} is not the claim's: it names another"));
    }
    let node = &pod.shared.config.name;
    if !volume.is_reached(node, &pod.shared.node_labels().unwrap_or_default()) {
        return Err(format!("persistentvolume {name:?}: node affinity does not select node {node:?}"));
    }
    if volume.is_block {
        return Err(format!("persistentvolume {name:?} is a device; this node mounts file systems"));
    }
    source(name, &object.value()["spec"])
}

fn source(name: &str, spec: &Value) -> Result<VolumeContent, String> {
    let path = |source: &Value| {
        let path = PathBuf::from(source["path"].as_str().unwrap_or_default());
        let is_plain = path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..");
        is_plain
            .then_some(path)
            .ok_or_else(|| format!("persistentvolume {name:?}: its path is not absolute without .."))
    };
    if spec["hostPath"].is_object() {
        let expect = spec["hostPath"]["type"].as_str().unwrap_or_default().to_owned();
        return Ok(VolumeContent::Host { path: path(&spec["hostPath"])?, expect });
    }
    if spec["local"].is_object() {
        return Ok(VolumeContent::Lasting(Lasting::There(path(&spec["local"])?)));
    }
    if spec["csi"]["driver"] != LOCAL_DRIVER {
        return Err(format!("persistentvolume {name:?}: this node mounts hostPath, local and {LOCAL_DRIVER} volumes"));
    }
    // Names are unique and handles are not: one volume must not be another's directory.
    match spec["csi"]["volumeHandle"].as_str() {
        Some(handle) if handle == name => Ok(VolumeContent::Lasting(Lasting::Own(name.to_owned()))),
        handle => Err(format!("persistentvolume {name:?}: expected its own name as volumeHandle, found {handle:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::source;
    use crate::machine::{Lasting, VolumeContent};
    use serde_json::json;

    #[test]
    fn a_volume_is_a_path_or_a_directory_of_the_nodes_own() {
        let local = json!({"local": {"path": "/mnt/disk"}});
        assert_eq!(source("v", &local), Ok(VolumeContent::Lasting(Lasting::There("/mnt/disk".into()))));
        let host = json!({"hostPath": {"path": "/srv", "type": "Directory"}});
        let expected = VolumeContent::Host { path: "/srv".into(), expect: "Directory".to_owned() };
        assert_eq!(source("v", &host), Ok(expected));
        let own = |handle: &str| json!({"csi": {"driver": "local.windlass.dev", "volumeHandle": handle}});
        assert_eq!(source("v", &own("v")), Ok(VolumeContent::Lasting(Lasting::Own("v".to_owned()))));
        for (spec, why) in [
            (own("another"), "volumeHandle"),
            (json!({"local": {"path": "/a/../b"}}), "not absolute"),
            (json!({"csi": {"driver": "x", "volumeHandle": "v"}}), "this node mounts"),
            (json!({"nfs": {}}), "this node mounts"),
        ] {
            let error = source("v", &spec).expect_err("must be refused");
            assert!(error.contains(why), "{spec}: {error}");
        }
    }
}
