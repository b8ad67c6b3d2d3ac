//! Step: the container's image is here.
//!
//! Source: Kubernetes documentation, "Images": imagePullPolicy, imagePullSecrets, ErrImagePull and its like.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::sync::Semaphore;
use windlass_api::types::core;
use windlass_client::EventKind;

use super::PodContext;
use crate::machine::{Credential, Image, MachineError};
use crate::source::SourceView;

/// Images fetched at a time: more only share the line and the disk.
const PULLS_MAX: usize = 3;
/// Where images without a registry in their name come from.
const REGISTRY_DEFAULT: &str = "docker.io";

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
    slots: Semaphore,
    turns: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Default for Pulls {
    fn default() -> Self {
        Pulls { slots: Semaphore::new(PULLS_MAX), turns: Mutex::default() }
    }
}

impl Pulls {
    /// One image is fetched by one pod at a time.
    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().expect("nothing panics while holding it");
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = turns.get(name).and_then(Weak::upgrade).unwrap_or_default();
        turns.insert(name.to_owned(), Arc::downgrade(&turn));
        turn
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

/// Sees to it that the image is here as its policy says.
pub async fn ensure(pod: &PodContext, wanted: &Wanted<'_>, sources: &SourceView) -> Result<Image, ImageTrouble> {
    let Wanted { name, policy, .. } = *wanted;
    let machine = &pod.shared.machine;
    if policy != "Always" {
        if let Some(image) = machine.find_image(name).await.map_err(|error| trouble(name, &error))? {
            let message = format!("Container image {name:?} already present on machine");
            wanted.note(pod, EventKind::Normal, "Pulled", message);
            return Ok(image);
        }
        if policy == "Never" {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            wanted.note(pod, EventKind::Warning, "ErrImageNeverPull", message.clone());
            return Err(ImageTrouble { reason: "ErrImageNeverPull", message });
        }
    }
    let turn = pod.shared.pulls.turn(name);
    let _turn = turn.lock().await;
    if policy != "Always"
        && let Ok(Some(image)) = machine.find_image(name).await
    {
        // Another pod has fetched it while this one waited for its turn.
        return Ok(image);
    }
    let _slot = pod.shared.pulls.slots.acquire().await.expect("the semaphore is never closed");
    wanted.note(pod, EventKind::Normal, "Pulling", format!("Pulling image {name:?}"));
    let began = tokio::time::Instant::now();
    match machine.pull_image(name, &credentials(sources, name)).await {
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

fn trouble(name: &str, error: &MachineError) -> ImageTrouble {
    match error {
        MachineError::ImageName(why) => ImageTrouble {
            reason: "InvalidImageName",
            message: format!("Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {why}"),
        },
        other => ImageTrouble { reason: "ErrImagePull", message: format!("Failed to pull image {name:?}: {other}") },
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    auth: String,
    username: String,
    password: String,
}

/// What the pod's pull secrets hold for the registry of this image. A credential goes to no other registry.
fn credentials(sources: &SourceView, image: &str) -> Vec<Credential> {
    let mut out = Vec::new();
    for secret in sources.secrets.values() {
        let data = secret.data.as_ref();
        let file = |key: &str| data.and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        let auths: Option<BTreeMap<String, DockerAuth>> = match (file(".dockerconfigjson"), file(".dockercfg")) {
            (Some(json), _) => serde_json::from_slice::<DockerConfig>(json).ok().map(|config| config.auths),
            (None, Some(json)) => serde_json::from_slice(json).ok(),
            (None, None) => None,
        };
        let ours = auths.into_iter().flatten().filter(|(place, _)| is_for(place, image));
        out.extend(ours.filter_map(|(_, auth)| credential(auth)));
    }
    out
}

/// Whether credentials kept under `place` (`https://index.docker.io/v1/`, `host:5000`, `ghcr.io/owner`) are for this image.
fn is_for(place: &str, image: &str) -> bool {
    let place = place.trim_start_matches("https://").trim_start_matches("http://");
    let place = place.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2").trim_end_matches('/');
    let place = match place {
        "index.docker.io" | "registry-1.docker.io" => REGISTRY_DEFAULT,
        other => other,
    };
    let first = image.split('/').next().unwrap_or_default();
    let has_registry = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let full = if has_registry { image.to_owned() } else { format!("{REGISTRY_DEFAULT}/{image}") };
    full.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}

fn credential(auth: DockerAuth) -> Option<Credential> {
    if !auth.username.is_empty() {
        return Some(Credential { username: auth.username, password: auth.password });
    }
    let text = String::from_utf8(STANDARD.decode(auth.auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Credential { username: username.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{credentials, is_for};
    use crate::source::SourceView;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn a_credential_goes_to_its_registry_only() {
        let rows = [
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "docker.io/library/nginx", true),
            ("ghcr.io", "ghcr.io/owner/app:v1", true),
            ("ghcr.io/owner", "ghcr.io/owner/app:v1", true),
            ("ghcr.io/owner", "ghcr.io/owners/app:v1", false),
            ("ghcr.io", "ghcr.io.evil.example/app", false),
            ("127.0.0.1:5000", "127.0.0.1:5000/app", true),
            ("127.0.0.1:5000", "127.0.0.1:5001/app", false),
            ("ghcr.io", "nginx", false),
        ];
        for (place, image, expected) in rows {
            assert_eq!(is_for(place, image), expected, "{place} {image}");
        }
    }

    #[test]
    fn pull_secrets_are_read_in_both_forms() {
        let config = json!({"auths": {"r.example": {"auth": "dXNlcjpwYTpzcw=="}, "other.example": {"username": "x"}}});
        let data = json!({".dockerconfigjson": base64(&config.to_string())});
        let secret = json!({"metadata": {"name": "s"}, "data": data});
        let mut sources = SourceView::default();
        sources.secrets.insert("s".to_owned(), Arc::new(serde_json::from_value(secret).expect("a secret")));
        let found = credentials(&sources, "r.example/app");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].username.as_str(), found[0].password.as_str()), ("user", "pa:ss"));
        assert!(!format!("{found:?}").contains("pa:ss"), "a password is not printed");
    }

    fn base64(text: &str) -> String {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(text)
    }
}
