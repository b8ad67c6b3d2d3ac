//! Step: the container's image is here.
//!
//! Source: Kubernetes documentation, "Images": imagePullPolicy, imagePullSecrets, ErrImagePull and its like; KEP-2535.
//!
//! Rules
//!   R1 policy     Always asks the registry each time, IfNotPresent takes what is here, Never takes nothing else
//!   R2 secrets    only the pod's imagePullSecrets of the two docker types count, each for the places it names; one that is
//!                 missing or cannot be read is told of, and the pull is tried without it
//!   R3 allowed    an image that was pulled with a secret is here only for pods that have it; others ask the registry
//!   R4 peers      where there is no image of that name yet, nodes that have one are asked for its layers before the registry;
//!                what the image is, the registry says
//!   R5 apart      pods that want one image cause one pull; a registry that hangs keeps only its own images waiting

use std::sync::Arc;

use tokio::sync::Semaphore;
use windlass_api::kinds;
use windlass_api::types::core;
use windlass_client::{EventKind, ListOptions};
use windlass_runtime::image::{Keyring, Reference};

use super::PodContext;
use crate::machine::{Credentials, Image, MachineError};
use crate::source::SourceView;
use crate::turn::{self, Shared, Turns};

/// Nodes that are looked at for an image.
const NODES_MAX: u32 = 250;
/// Nodes that are asked for its layers.
const PEERS_MAX: usize = 3;

/// Why an image is not here; the reason is what `kubectl get pods` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTrouble {
    /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// Who is fetching what on this node.
pub struct Pulls {
    /// How many there are for each registry: more only share the line and the disk.
    slots_max: usize,
    /// By registry.
    slots: Shared<String, Semaphore>,
    /// By image.
    turns: Turns<String>,
}

impl Pulls {
    /// With so many images of one registry at one time.
    pub fn new(slots_max: usize) -> Pulls {
        Pulls { slots_max, slots: Shared::default(), turns: Turns::default() }
    }

    /// What the images of one registry share (R5).
    fn slots(&self, name: &str) -> Arc<Semaphore> {
        let registry = name.parse::<Reference>().map(|reference| reference.registry).unwrap_or_default();
        turn::shared(&self.slots, &registry, || Arc::new(Semaphore::new(self.slots_max)))
    }
}

/// An image that a container runs from, or that a volume shows.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// `Always`, `IfNotPresent`, `Never`.
    pub policy: &'a str,
    /// The container that runs from it; `None` for a volume's.
    pub container: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// What a container runs from.
    pub fn by(container: &'a core::Container) -> Wanted<'a> {
        Wanted {
            name: container.image.as_deref().unwrap_or_default(),
            policy: container.image_pull_policy.as_deref().unwrap_or("IfNotPresent"),
            container: Some(&container.name),
        }
    }

    fn note(&self, pod: &PodContext, kind: EventKind, reason: &str, message: String) {
        match self.container {
            Some(container) => pod.note_container(container, kind, reason, message),
            None => pod.note(kind, reason, message),
        }
    }
}

/// Sees to it that the image is here as its policy says (R1).
pub async fn ensure(pod: &PodContext, wanted: &Wanted<'_>, sources: &SourceView) -> Result<Image, ImageTrouble> {
    let Wanted { name, policy, .. } = *wanted;
    let machine = &pod.shared.machine;
    let credentials = credentials(pod, wanted, sources)?;
    if policy != "Always" {
        let found = machine.find_image(name).await.map_err(|error| trouble(name, &error))?;
        let is_here = found.is_some();
        // R3.
        if let Some(image) = found.filter(|image| image.access.allows(&credentials)) {
            let message = format!("Container image {name:?} already present on machine and can be accessed by the pod");
            wanted.note(pod, EventKind::Normal, "Pulled", message);
            return Ok(image);
        }
        if policy == "Never" {
            let message = match is_here {
                false => format!("Container image {name:?} is not present with pull policy of Never"),
                true => format!(
                    "Container image {name:?} is present with pull policy of Never but does not have the proper credentials to access the image"
                ),
            };
            wanted.note(pod, EventKind::Warning, "ErrImageNeverPull", message.clone());
            return Err(ImageTrouble { reason: "ErrImageNeverPull", message });
        }
    }
    // One image is fetched by one pod at a time.
    let _turn = turn::take(&pod.shared.pulls.turns, &name.to_owned()).await;
    let known = machine.find_image(name).await.ok().flatten();
    let is_here = known.is_some();
    if policy != "Always"
        && let Some(image) = known
        && image.access.allows(&credentials)
    {
        // Another pod has fetched it while this one waited for its turn.
        return Ok(image);
    }
    let slots = pod.shared.pulls.slots(name);
    let _slot = slots.acquire().await.expect("the semaphore is never closed");
    wanted.note(pod, EventKind::Normal, "Pulling", format!("Pulling image {name:?}"));
    let began = tokio::time::Instant::now();
    // Who has an image of this name mostly lacks no layer: nobody need be asked.
    let peers = if is_here { Vec::new() } else { peers(pod, name).await };
    match machine.pull_image(name, &credentials, &peers).await {
        Ok(image) => {
            let took = began.elapsed().as_millis();
            let message = format!("Successfully pulled image {name:?} in {took}ms. Image size: {} bytes.", image.size);
            wanted.note(pod, EventKind::Normal, "Pulled", message);
            Ok(image)
        }
        Err(error) => {
            let trouble = trouble(name, &error);
            wanted.note(pod, EventKind::Warning, "Failed", trouble.message.clone());
            wanted.note(pod, EventKind::Warning, "Failed", format!("Error: {}", trouble.reason));
            Err(trouble)
        }
    }
}

/// Other nodes that have an image of this name, in an order of chance so that not all ask the same one.
async fn peers(pod: &PodContext, name: &str) -> Vec<String> {
    let Ok(wanted) = name.parse::<Reference>() else { return Vec::new() };
    let options = ListOptions { limit: NODES_MAX, ..ListOptions::default() };
    let nodes = match pod.shared.client.list(&kinds::NODE, None, &options).await {
        Ok(list) => list.items,
        Err(error) => {
            tracing::info!(%error, "no node is asked for layers");
            return Vec::new();
        }
    };
    let own = &pod.shared.config.name;
    let others = nodes.iter().filter(|node| node.header.name() != own);
    let mut peers: Vec<String> =
        others.filter_map(|node| peer(&node.decode::<core::Node>().ok()?.status?, &wanted)).collect();
    while peers.len() > PEERS_MAX {
        let one = pod.shared.world.random_below(peers.len() as u64);
        peers.swap_remove(usize::try_from(one).unwrap_or(0));
    }
    peers
}

/// Where this node listens, if it has an image of this name.
fn peer(node: &core::NodeStatus, wanted: &Reference) -> Option<String> {
    let mut names = node.images.iter().flatten().flat_map(|image| image.names.iter().flatten());
    if !names.any(|name| name.parse::<Reference>().is_ok_and(|name| name == *wanted)) {
        return None;
    }
    let address = node.addresses.iter().flatten().find(|address| address.type_ == "InternalIP")?;
    let port = node.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
    let address = &address.address;
    Some(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
}

/// What the pod's pull secrets hold for this image (R2).
fn credentials(pod: &PodContext, wanted: &Wanted<'_>, sources: &SourceView) -> Result<Vec<Credentials>, ImageTrouble> {
    let named: Vec<&str> = pod.spec().image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str()).collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let image = wanted.name.parse::<Reference>();
    let image = image.map_err(|why| trouble(wanted.name, &MachineError::ImageName(why.to_string())))?;
    let (found, missing) = of_secrets(&named, sources, &image);
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        wanted.note(pod, EventKind::Warning, "FailedToRetrieveImagePullSecret", message);
    }
    Ok(found)
}

/// What these secrets hold for the image, in their order, and those that say nothing.
fn of_secrets(named: &[&str], sources: &SourceView, image: &Reference) -> (Vec<Credentials>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in named {
        match sources.secrets.get(*name).map(|secret| keyring(secret)) {
            Some(Ok(keyring)) => found.extend(keyring.find(image)),
            Some(Err(why)) => missing.push(format!("{name}: {why}")),
            None => missing.push((*name).to_owned()),
        }
    }
    (found, missing)
}

fn keyring(secret: &core::Secret) -> Result<Keyring, String> {
    let kind = secret.type_.as_deref().unwrap_or_default();
    let file = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        bytes.ok_or_else(|| format!("expected a key {key}, found none"))
    };
    let owner = secret.metadata.uid.as_deref();
    match kind {
        "kubernetes.io/dockerconfigjson" => Keyring::read_config(file(".dockerconfigjson")?, owner),
        "kubernetes.io/dockercfg" => Keyring::read_dockercfg(file(".dockercfg")?, owner),
        other => {
            Err(format!("expected type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg, found {other:?}"))
        }
    }
}

fn trouble(name: &str, error: &MachineError) -> ImageTrouble {
    match error {
        MachineError::ImageName(why) => ImageTrouble {
            reason: "InvalidImageName",
            message: format!("Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {why}"),
        },
        other => ImageTrouble { reason: "ErrImagePull", message: format!("Failed to pull image {name:?}: {other}") },
    }
}

#[cfg(test)]
mod tests {
    use super::of_secrets;
    use crate::source::SourceView;
    use base64::Engine;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn sources(secrets: &[(&str, &str, &str, Value)]) -> SourceView {
        let mut sources = SourceView::default();
        for (name, kind, key, content) in secrets {
            let data = base64::engine::general_purpose::STANDARD.encode(content.to_string());
            let secret =
                json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "type": kind, "data": {*key: data}});
            sources.secrets.insert((*name).to_owned(), Arc::new(serde_json::from_value(secret).expect("a secret")));
        }
        sources
    }

    #[test]
    fn pull_secrets_of_both_types_count_in_their_order_and_no_other_secret_does() {
        let auths = |user: &str| json!({"r.example": {"username": user, "password": "p"}});
        let sources = sources(&[
            ("new", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", json!({"auths": auths("new")})),
            ("old", "kubernetes.io/dockercfg", ".dockercfg", auths("old")),
            ("opaque", "Opaque", ".dockerconfigjson", json!({"auths": auths("opaque")})),
            ("wrong", "kubernetes.io/dockerconfigjson", ".dockercfg", auths("wrong")),
            ("of-a-volume", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", json!({"auths": auths("volume")})),
        ]);
        let image = "r.example/app".parse().expect("a name");
        let (found, missing) = of_secrets(&["old", "new", "opaque", "wrong", "absent"], &sources, &image);
        let found: Vec<(&str, Option<&str>)> = found.iter().map(|one| (&*one.username, one.owner.as_deref())).collect();
        assert_eq!(found, [("old", Some("uid-old")), ("new", Some("uid-new"))]);
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(missing[0].contains("found \"Opaque\"") && missing[1].contains("expected a key"), "{missing:?}");
    }
}
