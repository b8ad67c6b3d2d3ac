//! Step: the pod's volumes hold what they should.
//!
//! Source: API reference, Volume: configMap, secret, downwardAPI, projected, emptyDir, hostPath. Other kinds are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use windlass_api::quantity::Quantity;
use windlass_api::types::{ByteString, core};

use super::{Ground, PodContext, Step, StepError};
use crate::downward::{self, PodView};
use crate::machine::{FileContent, MachineError, Volume, VolumeContent};
use crate::source::SourceView;
use crate::token::TokenRequest;

/// Permissions of files whose volume does not say (API reference, defaultMode).
const MODE_DEFAULT: i32 = 0o644;
/// All files of one volume: no object is larger than 1 MiB, and a projected volume holds several.
const VOLUME_BYTES_MAX: usize = 16 << 20;

/// Up: every volume exists with its content. Taken again when what they hold has changed.
pub struct Volumes;

impl Step for Volumes {
    fn up<'a>(&'a self, pod: &'a PodContext, ground: &'a mut Ground) -> BoxFuture<'a, Result<(), StepError>> {
        fill(pod, &ground.sources).boxed()
    }

    fn down<'a>(&'a self, _: &'a PodContext) -> BoxFuture<'a, Result<(), MachineError>> {
        // Volumes last as long as their pod is known: the machine removes them with the pod.
        async { Ok(()) }.boxed()
    }
}

/// Makes every volume of the pod hold what it should now.
pub async fn fill(pod: &PodContext, sources: &SourceView) -> Result<(), StepError> {
    let node = pod.shared.node_facts();
    let group = pod.spec().security_context.as_ref().and_then(|context| context.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    for volume in pod.spec().volumes.iter().flatten() {
        let failed = |why: String| StepError {
            reason: "FailedMount",
            message: format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name),
        };
        let tokens = pod.tokens.fetch(pod, token_requests(volume)).await.map_err(failed)?;
        let view = VolumeView { pod: pod.view(&[], &node), sources, tokens: &tokens, has_group: group.is_some() };
        let content = content(&view, volume).map_err(failed)?;
        let volume = Volume { name: volume.name.clone(), group, content };
        let made = pod.shared.machine.volume_up(&pod.uid, &volume).await;
        made.map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// What a volume's content is made from.
struct VolumeView<'a> {
    pod: PodView<'a>,
    sources: &'a SourceView,
    tokens: &'a BTreeMap<TokenRequest, String>,
    has_group: bool,
}

fn token_requests(volume: &core::Volume) -> Vec<TokenRequest> {
    let parts = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    parts.filter_map(|part| part.service_account_token.as_ref()).map(TokenRequest::of).collect()
}

fn content(view: &VolumeView, volume: &core::Volume) -> Result<VolumeContent, String> {
    let mut files = Files { view, files: BTreeMap::new(), bytes: 0, mode: MODE_DEFAULT };
    if let Some(empty) = &volume.empty_dir {
        let limit = empty.size_limit.as_ref().and_then(|limit| limit.0.parse::<Quantity>().ok());
        let bytes_max = limit.and_then(|limit| u64::try_from(limit.units()).ok()).filter(|bytes| *bytes > 0);
        return match empty.medium.as_deref().unwrap_or_default() {
            "" => Ok(VolumeContent::Empty { memory: false, bytes_max }),
            "Memory" => Ok(VolumeContent::Empty { memory: true, bytes_max }),
            other => Err(format!("emptyDir.medium {other:?} is not supported; use \"\" or Memory")),
        };
    }
    if let Some(host) = &volume.host_path {
        let path = PathBuf::from(&host.path);
        if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
            return Err(format!("hostPath {:?} is not an absolute path without ..", host.path));
        }
        return Ok(VolumeContent::Host { path, expect: host.type_.clone().unwrap_or_default() });
    }
    if let Some(map) = &volume.config_map {
        files.mode = map.default_mode.unwrap_or(MODE_DEFAULT);
        files.add_config_map(&map.name, map.items.as_deref(), map.optional == Some(true))?;
        return Ok(VolumeContent::Files { files: files.files, secret: false });
    }
    if let Some(secret) = &volume.secret {
        files.mode = secret.default_mode.unwrap_or(MODE_DEFAULT);
        let name = secret.secret_name.as_deref().unwrap_or_default();
        files.add_secret(name, secret.items.as_deref(), secret.optional == Some(true))?;
        return Ok(VolumeContent::Files { files: files.files, secret: true });
    }
    if let Some(downward) = &volume.downward_api {
        files.mode = downward.default_mode.unwrap_or(MODE_DEFAULT);
        files.add_downward(downward.items.as_deref())?;
        return Ok(VolumeContent::Files { files: files.files, secret: false });
    }
    let Some(projected) = &volume.projected else {
        return Err(
            "this node knows configMap, secret, downwardAPI, projected, emptyDir and hostPath volumes".to_owned()
        );
    };
    files.mode = projected.default_mode.unwrap_or(MODE_DEFAULT);
    let mut secret = false;
    for part in projected.sources.iter().flatten() {
        secret |= part.secret.is_some() || part.service_account_token.is_some();
        files.add_projection(part)?;
    }
    Ok(VolumeContent::Files { files: files.files, secret })
}

struct Files<'a> {
    view: &'a VolumeView<'a>,
    files: BTreeMap<String, FileContent>,
    bytes: usize,
    mode: i32,
}

impl Files<'_> {
    fn add(&mut self, path: &str, bytes: impl Into<Bytes>, mode: Option<i32>) -> Result<(), String> {
        let parts = path.split('/');
        if path.is_empty() || path.contains('\0') || parts.clone().any(|part| part.is_empty() || part == "..") {
            return Err(format!("{path:?} is not a relative path without .."));
        }
        let bytes = bytes.into();
        self.bytes += bytes.len();
        if self.bytes > VOLUME_BYTES_MAX {
            return Err(format!("the volume would hold more than {VOLUME_BYTES_MAX} bytes; split it"));
        }
        let mode = u32::try_from(mode.unwrap_or(self.mode)).unwrap_or(0) & 0o777;
        // Who is in the pod's group may read what its owner may read.
        let mode = if self.view.has_group { mode | (mode & 0o400) >> 3 } else { mode };
        self.files.insert(path.to_owned(), FileContent { bytes, mode });
        Ok(())
    }

    /// All keys, or those that `items` picks.
    fn add_keys(
        &mut self,
        keys: &BTreeMap<String, Bytes>,
        items: Option<&[core::KeyToPath]>,
        optional: bool,
    ) -> Result<(), String> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return keys.iter().try_for_each(|(key, bytes)| self.add(key, bytes.clone(), None));
        };
        for item in items {
            match keys.get(&item.key) {
                Some(bytes) => self.add(&item.path, bytes.clone(), item.mode)?,
                None if optional => {}
                None => return Err(format!("references non-existent key: {}", item.key)),
            }
        }
        Ok(())
    }

    fn add_config_map(&mut self, name: &str, items: Option<&[core::KeyToPath]>, optional: bool) -> Result<(), String> {
        match self.view.sources.config_maps.get(name) {
            Some(map) => {
                let text = map.data.iter().flatten().map(|(key, text)| (key.clone(), Bytes::from(text.clone())));
                let keys = text.chain(bytes_of(map.binary_data.as_ref())).collect();
                self.add_keys(&keys, items, optional).map_err(|why| format!("configmap {why}"))
            }
            None if optional => Ok(()),
            None => Err(format!("configmap {name:?} not found")),
        }
    }

    fn add_secret(&mut self, name: &str, items: Option<&[core::KeyToPath]>, optional: bool) -> Result<(), String> {
        match self.view.sources.secrets.get(name) {
            Some(secret) => {
                let keys = bytes_of(secret.data.as_ref()).collect();
                self.add_keys(&keys, items, optional).map_err(|why| format!("secret {why}"))
            }
            None if optional => Ok(()),
            None => Err(format!("secret {name:?} not found")),
        }
    }

    fn add_downward(&mut self, items: Option<&[core::DownwardAPIVolumeFile]>) -> Result<(), String> {
        for item in items.unwrap_or_default() {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => downward::field(&self.view.pod, &field.field_path),
                (None, Some(selector)) => downward::resource(&self.view.pod, "", selector),
                (None, None) => return Err(format!("downwardAPI item {:?} names no field", item.path)),
            };
            self.add(&item.path, text.map_err(|error| error.to_string())?, item.mode)?;
        }
        Ok(())
    }

    fn add_projection(&mut self, part: &core::VolumeProjection) -> Result<(), String> {
        if let Some(map) = &part.config_map {
            return self.add_config_map(&map.name, map.items.as_deref(), map.optional == Some(true));
        }
        if let Some(secret) = &part.secret {
            return self.add_secret(&secret.name, secret.items.as_deref(), secret.optional == Some(true));
        }
        if let Some(downward) = &part.downward_api {
            return self.add_downward(downward.items.as_deref());
        }
        let Some(token) = &part.service_account_token else {
            return Err("this node projects configMap, secret, downwardAPI and serviceAccountToken".to_owned());
        };
        let found = self.view.tokens.get(&TokenRequest::of(token)).cloned();
        self.add(&token.path, found.ok_or("its token has not been fetched")?, None)
    }
}

fn bytes_of(map: Option<&BTreeMap<String, ByteString>>) -> impl Iterator<Item = (String, Bytes)> {
    map.into_iter().flatten().map(|(key, bytes)| (key.clone(), Bytes::from(bytes.0.clone())))
}

#[cfg(test)]
mod tests {
    use super::{VolumeView, content};
    use crate::downward::{Allocatable, PodView};
    use crate::machine::VolumeContent;
    use crate::source::SourceView;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn check(volume: Value, has_group: bool) -> Result<String, String> {
        let mut sources = SourceView::default();
        let map = json!({"metadata": {}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}});
        sources.config_maps.insert("m".to_owned(), Arc::new(serde_json::from_value(map).expect("a map")));
        let secret = json!({"metadata": {}, "data": {"key": "c2VjcmV0"}});
        sources.secrets.insert("s".to_owned(), Arc::new(serde_json::from_value(secret).expect("a secret")));
        let pod = json!({"metadata": {"name": "p", "labels": {"app": "web"}}, "spec": {"containers": []}});
        let pod = serde_json::from_value(pod).expect("a pod");
        let pod = PodView { pod: &pod, pod_ips: &[], host_ips: &[], allocatable: Allocatable::default() };
        let view = VolumeView { pod, sources: &sources, tokens: &BTreeMap::new(), has_group };
        let mut volume = volume;
        volume["name"] = json!("v");
        let volume = serde_json::from_value(volume).expect("a volume");
        Ok(match content(&view, &volume)? {
            VolumeContent::Files { files, secret } => {
                let shown: Vec<String> = files
                    .iter()
                    .map(|(path, file)| format!("{path}:{:o}:{}", file.mode, String::from_utf8_lossy(&file.bytes)))
                    .collect();
                format!("{}{}", if secret { "secret " } else { "" }, shown.join(" "))
            }
            VolumeContent::Empty { memory, bytes_max } => format!("empty {memory} {bytes_max:?}"),
            VolumeContent::Host { path, expect } => format!("host {} {expect}", path.display()),
        })
    }

    #[test]
    fn each_kind_of_volume_holds_what_it_says() {
        let rows = [
            (json!({"configMap": {"name": "m"}}), "a:644:1 b:644:2 c:644:\0"),
            (
                json!({"configMap": {"name": "m", "defaultMode": 0o400, "items": [{"key": "a", "path": "x/y"}]}}),
                "x/y:400:1",
            ),
            (json!({"configMap": {"name": "none", "optional": true}}), ""),
            (json!({"secret": {"secretName": "s"}}), "secret key:644:secret"),
            (
                json!({"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}, "mode": 0o600}]}}),
                "l:600:app=\"web\"",
            ),
            (
                json!({"projected": {"sources": [{"configMap": {"name": "m", "items": [{"key": "b", "path": "b"}]}},
                {"secret": {"name": "s"}}]}}),
                "secret b:644:2 key:644:secret",
            ),
            (json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}), "empty true Some(1048576)"),
            (json!({"emptyDir": {}}), "empty false None"),
            (json!({"hostPath": {"path": "/tmp", "type": "Directory"}}), "host /tmp Directory"),
        ];
        for (volume, expected) in rows {
            assert_eq!(check(volume.clone(), false).as_deref(), Ok(expected), "{volume}");
        }
        let secret = json!({"secret": {"secretName": "s", "defaultMode": 0o400}});
        assert_eq!(check(secret, true).as_deref(), Ok("secret key:440:secret"), "the pod's group may read");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let rows = [
            (json!({"configMap": {"name": "none"}}), "configmap \"none\" not found"),
            (json!({"secret": {"secretName": "none"}}), "secret \"none\" not found"),
            (json!({"configMap": {"name": "m", "items": [{"key": "z", "path": "z"}]}}), "non-existent key: z"),
            (json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "../z"}]}}), "not a relative path"),
            (json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "/z"}]}}), "not a relative path"),
            (json!({"hostPath": {"path": "/a/../b"}}), "not an absolute path"),
            (json!({"emptyDir": {"medium": "HugePages"}}), "not supported"),
            (json!({"nfs": {"server": "x", "path": "/"}}), "this node knows"),
        ];
        for (volume, why) in rows {
            let found = check(volume.clone(), false).expect_err("must be refused");
            assert!(found.contains(why), "{volume}: {found}");
        }
    }
}
