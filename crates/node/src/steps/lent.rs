//! A volume that a CSI driver lends to a pod: what the driver is told, when it may be asked, and how the volume grows.
//!
//! Rules
//!   V1 in use     a volume that may be attached is named in the Node's status before it is used, and as long as it is: what
//!                 is used is not detached
//!   V2 attached   a volume whose driver wants that is used only once its VolumeAttachment says that it is attached
//!   V3 told       the driver is told of the pod, and given tokens of its account, where its CSIDriver says so, and nothing else
//!   V4 group      what is in a volume is given to the pod's group as the driver's policy has it
//!   V5 growth     a volume that is larger than its claim knows is grown into, and then the claim is told
//! Source: API reference, CSIPersistentVolumeSource, CSIVolumeSource, CSIDriver; Kubernetes documentation, "Expanding
//! Persistent Volumes Claims".
//! Not here    the calls (`kernel::csi`) · who attaches (controllers, and the driver's own programs)

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use windlass_api::binding::{self, Volume};
use windlass_api::quantity::Quantity;
use windlass_api::types::core;
use windlass_api::{Reason, Subresource, kinds};
use windlass_client::{EventKind, Patch};

use super::{PodContext, claim};
use crate::machine::{LentVolume, MachineError, Secrets, VolumeContent};
use crate::token::TokenRequest;

/// How long a volume may take to be attached before the pod says that it waits for it.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(120);
/// How often it is looked whether it is, at first and in the end.
const ATTACH_LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long the Node may take to say that a volume is in use.
const IN_USE_TIME_MAX: Duration = Duration::from_secs(10);
/// What a driver is told of pods begins with this.
const TOLD: &str = "csi.storage.k8s.io/";

/// What a CSIDriver says of how its volumes are used. Without one nobody is told anything and volumes are attached.
struct Manner {
    attaches: bool,
    tells_pod: bool,
    modes: Vec<String>,
    group: String,
    republishes: bool,
    tokens: Vec<TokenRequest>,
    tokens_are_secret: bool,
}

async fn manner(pod: &PodContext, driver: &str) -> Result<Manner, String> {
    let found = pod.shared.client.get(&kinds::CSI_DRIVER, "", driver).await;
    let found = found.map_err(|error| format!("csidriver {driver:?}: {error}"))?;
    let spec = found.map(|object| object.value()["spec"].take()).unwrap_or_default();
    let tokens = spec["tokenRequests"].as_array().into_iter().flatten().map(|request| TokenRequest {
        audience: request["audience"].as_str().unwrap_or_default().to_owned(),
        seconds: request["expirationSeconds"].as_i64().unwrap_or(TokenRequest::SECONDS),
    });
    let modes: Vec<String> = spec["volumeLifecycleModes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    Ok(Manner {
        attaches: spec["attachRequired"] != false,
        tells_pod: spec["podInfoOnMount"] == true,
        modes: if modes.is_empty() { vec!["Persistent".to_owned()] } else { modes },
        group: spec["fsGroupPolicy"].as_str().unwrap_or("ReadWriteOnceWithFSType").to_owned(),
        republishes: spec["requiresRepublish"] == true,
        tokens: tokens.collect(),
        tokens_are_secret: spec["serviceAccountTokenInSecrets"] == true,
    })
}

impl Manner {
    fn allows(&self, mode: &str, driver: &str) -> Result<(), String> {
        match self.modes.iter().any(|found| found == mode) {
            true => Ok(()),
            false => {
                Err(format!("volume mode {mode:?} not supported by driver {driver} (only supports {:?})", self.modes))
            }
        }
    }

    /// V4.
    fn is_groups(&self, lent: &LentVolume) -> bool {
        match self.group.as_str() {
            "File" => true,
            "ReadWriteOnceWithFSType" => {
                !lent.fs_type.is_empty() && lent.access.iter().any(|mode| mode == "ReadWriteOnce")
            }
            _ => false,
        }
    }
}

/// A driver's PersistentVolume, as this pod may use it now.
pub async fn of_volume(pod: &PodContext, volume: &Volume, spec: &Value, read_only: bool) -> Result<LentVolume, String> {
    let manner = manner(pod, &volume.driver).await?;
    manner.allows("Persistent", &volume.driver)?;
    in_use(pod, volume).await?;
    let attachment = match manner.attaches {
        true => attached(pod, volume).await?,
        false => BTreeMap::new(),
    };
    let csi = &spec["csi"];
    let options = spec["mountOptions"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let mut lent = LentVolume {
        driver: volume.driver.clone(),
        handle: volume.handle.clone(),
        name: volume.name.clone(),
        is_block: volume.is_block,
        access: volume.access.clone(),
        fs_type: csi["fsType"].as_str().unwrap_or_default().to_owned(),
        mount_options: options.collect(),
        read_only,
        attributes: texts(&csi["volumeAttributes"]),
        attachment,
        stage_secrets: secrets(pod, &csi["nodeStageSecretRef"]).await?,
        publish_secrets: secrets(pod, &csi["nodePublishSecretRef"]).await?,
        expand_secrets: secrets(pod, &csi["nodeExpandSecretRef"]).await?,
        ..LentVolume::default()
    };
    finish(pod, &manner, &mut lent).await?;
    Ok(lent)
}

/// A volume that lives and ends with its pod.
pub async fn inline(pod: &PodContext, volume: &core::Volume) -> Result<LentVolume, String> {
    let source = volume.csi.as_ref().ok_or("expected a csi volume, found another")?;
    let manner = manner(pod, &source.driver).await?;
    manner.allows("Ephemeral", &source.driver)?;
    let reference = source.node_publish_secret_ref.as_ref();
    let reference = reference.map(|secret| json!({"name": secret.name, "namespace": pod.namespace()}));
    let mut lent = LentVolume {
        driver: source.driver.clone(),
        handle: binding::inline_handle(&pod.uid, &volume.name),
        name: volume.name.clone(),
        is_inline: true,
        access: vec!["ReadWriteOnce".to_owned()],
        fs_type: source.fs_type.clone().unwrap_or_default(),
        read_only: source.read_only == Some(true),
        attributes: source.volume_attributes.clone().unwrap_or_default(),
        publish_secrets: secrets(pod, &reference.unwrap_or_default()).await?,
        ..LentVolume::default()
    };
    finish(pod, &manner, &mut lent).await?;
    Ok(lent)
}

/// V3, V4.
async fn finish(pod: &PodContext, manner: &Manner, lent: &mut LentVolume) -> Result<(), String> {
    lent.is_groups = manner.is_groups(lent);
    lent.is_republished = manner.republishes;
    if manner.tells_pod {
        let account = pod.spec().service_account_name.as_deref().unwrap_or_default();
        let told = [
            ("pod.name", pod.name()),
            ("pod.namespace", pod.namespace()),
            ("pod.uid", &*pod.uid),
            ("serviceAccount.name", account),
            ("ephemeral", if lent.is_inline { "true" } else { "false" }),
        ];
        lent.pod_attributes.extend(told.map(|(key, value)| (format!("{TOLD}{key}"), value.to_owned())));
    }
    if manner.tokens.is_empty() {
        return Ok(());
    }
    let fetched = pod.tokens.fetch(pod, manner.tokens.clone()).await?;
    let tokens: Map<String, Value> = fetched
        .iter()
        .map(|(request, token)| {
            let told = json!({"token": token, "expirationTimestamp": pod.tokens.ends(request)});
            (request.audience.clone(), told)
        })
        .collect();
    let place = match manner.tokens_are_secret {
        true => &mut lent.publish_secrets.0,
        false => &mut lent.pod_attributes,
    };
    place.insert(format!("{TOLD}serviceAccount.tokens"), Value::Object(tokens).to_string());
    Ok(())
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    let entries = map.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

async fn secrets(pod: &PodContext, reference: &Value) -> Result<Secrets, String> {
    let Some(name) = reference["name"].as_str() else { return Ok(Secrets::default()) };
    let namespace = reference["namespace"].as_str().unwrap_or_default();
    let found = pod.shared.client.get(&kinds::SECRET, namespace, name).await;
    let found = found.map_err(|error| format!("secret {namespace}/{name}: {error}"))?;
    let object = found.ok_or_else(|| format!("secret {namespace}/{name} not found"))?;
    let secret: core::Secret = object.decode().map_err(|error| format!("secret {namespace}/{name}: {error}"))?;
    let data = secret.data.unwrap_or_default().into_iter();
    Ok(Secrets(data.map(|(key, bytes)| (key, String::from_utf8_lossy(&bytes.0).into_owned())).collect()))
}

/// V1.
async fn in_use(pod: &PodContext, volume: &Volume) -> Result<(), String> {
    let name = binding::volume_in_use(&volume.driver, &volume.handle);
    pod.shared.in_use.add(&pod.uid, &name);
    let said = tokio::time::timeout(IN_USE_TIME_MAX, pod.shared.says_in_use(&name)).await;
    said.map_err(|_| {
        format!("volume {} has not been added to the list of VolumesInUse in the node's status", volume.name)
    })
}

/// V2. What whoever attached it has said.
async fn attached(pod: &PodContext, volume: &Volume) -> Result<BTreeMap<String, String>, String> {
    let name = binding::attachment_name(&volume.driver, &volume.handle, &pod.shared.config.name);
    let deadline = Instant::now() + ATTACH_TIME_MAX;
    let (mut wait, longest) = ATTACH_LOOK;
    let mut why = String::new();
    while Instant::now() < deadline {
        match pod.shared.client.get(&kinds::VOLUME_ATTACHMENT, "", &name).await {
            Ok(Some(object)) => {
                let status = object.value()["status"].take();
                if status["attached"] == true && !object.header.is_ending() {
                    return Ok(texts(&status["attachmentMetadata"]));
                }
                why = status["attachError"]["message"].as_str().map(|said| format!(": {said}")).unwrap_or_default();
            }
            // An agent may only read what is its own, and what is not there is nobody's.
            Ok(None) => {}
            Err(error) if error.reason() == Some(Reason::Forbidden) => {}
            Err(error) => why = format!(": {error}"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(longest);
    }
    Err(format!(
        "timed out waiting for external-attacher of {} CSI driver to attach volume {}{why}",
        volume.driver, volume.handle
    ))
}

/// Gives back what the pod has borrowed.
pub async fn down(pod: &PodContext) -> Result<(), MachineError> {
    pod.shared.machine.volumes_down(&pod.uid).await?;
    pod.shared.in_use.remove(&pod.uid);
    Ok(())
}

/// Whether the pod has volumes that drivers may have lent.
pub fn may_borrow(pod: &PodContext) -> bool {
    let mut volumes = pod.spec().volumes.iter().flatten();
    volumes.any(|volume| volume.csi.is_some() || claim::name_of(pod, volume).is_some())
}

/// V5. `lent` is the volume as it was borrowed just now. Returns whether the volume is one that may grow.
pub async fn grow(
    pod: &PodContext,
    volume: &core::Volume,
    found: &claim::Found,
    lent: Option<&LentVolume>,
) -> Result<bool, String> {
    let (wants, has) = (found.volume.bytes, found.claim.capacity_bytes);
    if found.volume.driver.is_empty() || found.volume.driver == binding::LOCAL_DRIVER {
        let attributes = found.object.value()["spec"]["csi"]["volumeAttributes"].take();
        return Ok(found.volume.is_block || attributes[binding::ENFORCE_SIZE] == "true");
    }
    if has == 0 || wants <= has {
        return Ok(true);
    }
    let fetched;
    let lent = match lent {
        Some(lent) => lent,
        None => match claim::content(pod, volume, found).await? {
            VolumeContent::Lent(lent) => {
                fetched = lent;
                &*fetched
            }
            _ => return Ok(true),
        },
    };
    let bytes = u64::try_from(wants).unwrap_or(0);
    let grown = pod.shared.machine.expand_volume(&pod.uid, lent, bytes).await;
    if let Err(error) = grown {
        let message = format!("NodeExpandVolume failed for volume {:?} : {error}", lent.name);
        pod.note(EventKind::Warning, "VolumeResizeFailed", message.clone());
        return Err(message);
    }
    let name = claim::name_of(pod, volume).unwrap_or_default();
    let patch = Patch::Merge(json!({"status": {
        "capacity": {"storage": Quantity::from_bytes(bytes).to_string()},
        "conditions": null, "allocatedResourceStatuses": null,
    }}));
    let (client, status) = (&pod.shared.client, Some(Subresource::Status));
    let told = client.patch(&kinds::PERSISTENT_VOLUME_CLAIM, pod.namespace(), &name, &patch, status).await;
    told.map_err(|error| format!("persistentvolumeclaim {name:?}: {error}"))?;
    let message = format!("MountVolume.NodeExpandVolume succeeded for volume {:?}", lent.name);
    pod.note(EventKind::Normal, "FileSystemResizeSuccessful", message);
    Ok(true)
}

/// The volumes of a pod that are well no more, and why.
pub async fn troubles(pod: &PodContext) -> Result<Vec<(String, String)>, MachineError> {
    let stats = pod.shared.machine.volume_stats(&pod.uid).await?;
    Ok(stats.into_iter().filter_map(|(name, stats)| Some((name, stats.trouble?))).collect())
}
