//! Pods act as an account: which, and how they come by its token.
//!
//! Rules
//!   R1 there       the account that a pod names is there; `default` is waited for a little, since a new namespace gets it
//!                  a moment later
//!   R2 token       unless pod or account decline, every container finds token, root certificate and namespace where
//!                  clients look for them; the pod's word counts before the account's
//!   R3 pulls       a pod without imagePullSecrets gets the account's
//!   R4 mirror      a mirror pod, which a node makes of a file, names nothing of the cluster (CVE-2025-4563)
//!
//! Source: admission controllers reference, ServiceAccount; "Bound service account token volume mechanism".
//! Not here       the annotation `kubernetes.io/enforce-mountable-secrets`, which is deprecated

use std::time::Duration;

use serde_json::{Value, json};
use windlass_api::{ApiError, kinds};

use crate::authorize::names_objects;
use crate::key;
use crate::server::Call;
use crate::write::{text, tree};

const DEFAULT: &str = "default";
/// How long a pod waits for its namespace's account.
const WAIT_MAX: Duration = Duration::from_secs(1);
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// How long a token is asked for: an hour and a little, by which it is told from one that somebody wished.
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";

/// R1: waits a little for the account that a new pod will need.
pub(crate) async fn ready(call: Call<'_>, pod: &Value) {
    let named = text(&pod["spec"], "serviceAccountName");
    if call.target.resource.kind != kinds::POD || !(named.is_empty() || named == DEFAULT) {
        return;
    }
    let store = &call.server.store;
    let key = key::object(&kinds::SERVICE_ACCOUNT, &call.target.namespace, DEFAULT);
    let namespace = key::object(&kinds::NAMESPACE, "", &call.target.namespace);
    let seen = store.revision();
    if store.get(&key).is_some() || store.get(&namespace).is_none() {
        return;
    }
    let Ok(mut watch) = store.watch(&key, seen) else { return };
    let appears = async { while store.get(&key).is_none() && watch.next().await.is_ok() {} };
    if tokio::time::timeout(WAIT_MAX, appears).await.is_err() {
        tracing::debug!(namespace = call.target.namespace, "a pod waited in vain for its account");
    }
}

/// R1 to R4.
pub(super) fn create(call: Call<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let kind = &call.target.resource.kind;
    let namespace = &call.target.namespace;
    if pod["metadata"]["annotations"].get(MIRROR).is_some() {
        return check_mirror(call, pod);
    }
    if !pod["spec"].is_object() {
        return Ok(()); // validation says what is missing
    }
    let name = match text(&pod["spec"], "serviceAccountName") {
        "" => DEFAULT.to_owned(),
        name => name.to_owned(),
    };
    let found = match name.contains('/') {
        true => None,
        false => call.server.store.get(&key::object(&kinds::SERVICE_ACCOUNT, namespace, &name)),
    };
    let Some(account) = found.map(|entry| tree(&entry)) else {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(ApiError::forbidden(kind, text(&pod["metadata"], "name"), &why));
    };
    let spec = &mut pod["spec"];
    spec["serviceAccountName"] = json!(name);
    spec["serviceAccount"] = json!(name);
    let wanted = spec["automountServiceAccountToken"].as_bool();
    if wanted.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
        mount_token(spec, || call.server.world.name_suffix(5));
    }
    let has_pulls = spec["imagePullSecrets"].as_array().is_some_and(|secrets| !secrets.is_empty());
    if !has_pulls && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty()) {
        spec["imagePullSecrets"] = json!(secrets);
    }
    Ok(())
}

/// R2.
fn mount_token(spec: &mut Value, suffix: impl FnOnce() -> String) {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let known = volumes.map(|volume| text(volume, "name")).find(|name| name.starts_with(VOLUME_PREFIX));
    let known = known.map(str::to_owned);
    let is_new = known.is_none();
    let volume = known.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", suffix()));
    let mut is_needed = false;
    for containers in ["initContainers", "containers"] {
        for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            is_needed |= mount(container, &volume);
        }
    }
    if is_needed && is_new {
        push(&mut spec["volumes"], token_volume(&volume));
    }
}

/// Mounts the token where clients look for it; gives whether something else was not there already.
fn mount(container: &mut Value, volume: &str) -> bool {
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    if !container.is_object() || mounts.into_iter().any(|mount| text(mount, "mountPath") == MOUNT_PATH) {
        return false;
    }
    push(&mut container["volumeMounts"], json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

/// R4.
fn check_mirror(call: Call<'_>, pod: &Value) -> Result<(), ApiError> {
    let account = text(&pod["spec"], "serviceAccountName");
    let has_account = !account.is_empty() && account != DEFAULT;
    let why = if has_account {
        "a mirror pod may not reference service accounts"
    } else if names_objects(pod) {
        "a mirror pod may not reference secrets, configmaps or persistentvolumeclaims"
    } else {
        return Ok(());
    };
    Err(ApiError::forbidden(&call.target.resource.kind, text(&pod["metadata"], "name"), why))
}

#[cfg(test)]
mod tests {
    use super::{MOUNT_PATH, mount_token};
    use serde_json::json;

    #[test]
    fn r2_every_container_finds_the_token_once() {
        let mut spec = json!({
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}],
        });
        mount_token(&mut spec, || "abcde".to_owned());
        let mount = json!([{"name": "kube-api-access-abcde", "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(
            (&spec["initContainers"][0]["volumeMounts"], &spec["containers"][0]["volumeMounts"]),
            (&mount, &mount)
        );
        assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "own");
        assert_eq!(spec["volumes"].as_array().map(Vec::len), Some(1));
        let before = spec.clone();
        mount_token(&mut spec, || "other".to_owned());
        assert_eq!(spec, before, "what is there is left alone");
        let mut own = json!({"containers": [{"volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]});
        mount_token(&mut own, || "abcde".to_owned());
        let before = json!({"containers": [{"volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]});
        assert_eq!(own, before, "nobody needs it");
    }
}
