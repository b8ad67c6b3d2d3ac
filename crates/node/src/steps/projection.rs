//! The files of configMap, secret, downwardAPI and projected volumes: names, bytes, permissions.
//!
//! Source: API reference, KeyToPath, DownwardAPIVolumeFile, VolumeProjection.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::json;
use windlass_api::field::{Errors, Path};
use windlass_api::selector::LabelSelector;
use windlass_api::types::{ByteString, core};

use crate::certificate::{Credential, Wanted};
use crate::downward::{self, PodView};
use crate::machine::FileContent;
use crate::source::{Bundle, SourceView};
use crate::token::TokenRequest;

/// All files of one volume: no object is larger than 1 MiB, and a projected volume holds several.
const VOLUME_BYTES_MAX: usize = 16 << 20;

/// What a volume's files are made from.
pub struct VolumeView<'a> {
    /// The pod.
    pub pod: PodView<'a>,
    /// The ConfigMaps and Secrets it names.
    pub sources: &'a SourceView,
    /// Its tokens.
    pub tokens: &'a BTreeMap<TokenRequest, String>,
    /// Its certificates.
    pub certificates: &'a BTreeMap<Wanted, Credential>,
    /// The pod has a group of its own for its volumes.
    pub has_group: bool,
}

/// The files of one volume, as they are gathered.
pub struct Files<'a> {
    view: &'a VolumeView<'a>,
    files: BTreeMap<String, FileContent>,
    bytes: usize,
    mode: i32,
}

impl<'a> Files<'a> {
    /// No files yet; `mode` is for those that do not say.
    pub fn new(view: &'a VolumeView<'a>, mode: i32) -> Files<'a> {
        Files { view, files: BTreeMap::new(), bytes: 0, mode }
    }

    /// All of them, by path.
    pub fn finish(self) -> BTreeMap<String, FileContent> {
        self.files
    }

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
        self.files.insert(path.to_owned(), FileContent { bytes, mode, owner: None });
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

    /// All keys of a ConfigMap, or those that `items` picks.
    pub fn add_config_map(
        &mut self,
        name: &str,
        items: Option<&[core::KeyToPath]>,
        optional: bool,
    ) -> Result<(), String> {
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

    /// All keys of a Secret, or those that `items` picks.
    pub fn add_secret(&mut self, name: &str, items: Option<&[core::KeyToPath]>, optional: bool) -> Result<(), String> {
        match self.view.sources.secrets.get(name) {
            Some(secret) => {
                let keys = bytes_of(secret.data.as_ref()).collect();
                self.add_keys(&keys, items, optional).map_err(|why| format!("secret {why}"))
            }
            None if optional => Ok(()),
            None => Err(format!("secret {name:?} not found")),
        }
    }

    /// What the pod may know about itself.
    pub fn add_downward(&mut self, items: Option<&[core::DownwardAPIVolumeFile]>) -> Result<(), String> {
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

    /// One source of a projected volume.
    pub fn add_projection(&mut self, part: &core::VolumeProjection) -> Result<(), String> {
        if let Some(map) = &part.config_map {
            return self.add_config_map(&map.name, map.items.as_deref(), map.optional == Some(true));
        }
        if let Some(secret) = &part.secret {
            return self.add_secret(&secret.name, secret.items.as_deref(), secret.optional == Some(true));
        }
        if let Some(downward) = &part.downward_api {
            return self.add_downward(downward.items.as_deref());
        }
        if let Some(bundle) = &part.cluster_trust_bundle {
            return self.add_trust(bundle);
        }
        if let Some(certificate) = &part.pod_certificate {
            return self.add_certificate(certificate);
        }
        let Some(token) = &part.service_account_token else {
            let known = "configMap, secret, downwardAPI, serviceAccountToken, clusterTrustBundle and podCertificate";
            return Err(format!("this node projects {known}"));
        };
        let found = self.view.tokens.get(&TokenRequest::of(token)).cloned();
        self.add_private(&token.path, found.ok_or("its token has not been fetched")?)
    }

    /// The key first, then its certificate and those behind it.
    fn add_certificate(&mut self, wanted: &core::PodCertificateProjection) -> Result<(), String> {
        let found = self.view.certificates.get(&Wanted::of(wanted));
        let Credential { key, chain } = found.ok_or("no certificate has been fetched")?;
        for (path, text) in [
            (&wanted.credential_bundle_path, format!("{key}{chain}")),
            (&wanted.key_path, key.clone()),
            (&wanted.certificate_chain_path, chain.clone()),
        ] {
            if let Some(path) = path.as_deref().filter(|path| !path.is_empty()) {
                self.add_private(path, text)?;
            }
        }
        Ok(())
    }

    /// The certificates of one bundle by name, or of all of a signer's that a selector picks, each once.
    fn add_trust(&mut self, wanted: &core::ClusterTrustBundleProjection) -> Result<(), String> {
        let all = &self.view.sources.trust;
        let (found, what): (Vec<&Bundle>, String) = match (&wanted.name, &wanted.signer_name) {
            (Some(name), _) => (
                all.iter().map(|bundle| &**bundle).filter(|bundle| bundle.name == *name).collect(),
                format!("clustertrustbundle {name:?} not found"),
            ),
            (None, Some(signer)) => {
                let mut errors = Errors::new();
                let selector = wanted.label_selector.as_ref().map(|selector| json!(selector)).unwrap_or_default();
                let selector = LabelSelector::from_json(&selector, &Path::new("labelSelector"), &mut errors);
                let is_it = |bundle: &&Bundle| bundle.signer == *signer && selector.matches(&bundle.labels);
                (
                    all.iter().map(|bundle| &**bundle).filter(is_it).collect(),
                    format!("no clustertrustbundle of signer {signer:?} is selected"),
                )
            }
            (None, None) => return Err("a clusterTrustBundle names neither itself nor its signer".to_owned()),
        };
        if found.is_empty() && wanted.optional != Some(true) {
            return Err(what);
        }
        let certificates: BTreeSet<&str> =
            found.iter().flat_map(|bundle| bundle.certificates.iter().map(String::as_str)).collect();
        self.add(&wanted.path, certificates.into_iter().collect::<String>(), None)
    }

    /// A token or a key is read by whom the pod runs as, or by the pod's group, and by nobody else; when its containers run
    /// as several users and it has no group, all may read it.
    fn add_private(&mut self, path: &str, text: String) -> Result<(), String> {
        let owner = self.view.pod.pod.spec.as_ref().and_then(one_user);
        let is_private = owner.is_some() || self.view.has_group;
        self.add(path, text, is_private.then_some(0o600))?;
        if let Some(file) = self.files.get_mut(path) {
            file.owner = owner;
        }
        Ok(())
    }
}

/// The user that all containers run as, when the spec says so for all of them.
fn one_user(spec: &core::PodSpec) -> Option<u32> {
    let pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let users = super::container::containers_of(spec)
        .map(|container| container.security_context.as_ref().and_then(|context| context.run_as_user).or(pod));
    let mut users: Vec<Option<i64>> = users.collect();
    users.dedup();
    match users.as_slice() {
        [Some(user)] => u32::try_from(*user).ok(),
        _ => None,
    }
}

fn bytes_of(map: Option<&BTreeMap<String, ByteString>>) -> impl Iterator<Item = (String, Bytes)> {
    map.into_iter().flatten().map(|(key, bytes)| (key.clone(), Bytes::from(bytes.0.clone())))
}
