//! Step: the pod's volumes hold what they should.
//!
//! Source: API reference, Volume: configMap, secret, downwardAPI, projected, emptyDir, hostPath, image, and
//! persistentVolumeClaim and ephemeral (`claim`), csi (`lent`). Other kinds are refused.

use std::collections::BTreeSet;
use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use windlass_api::quantity::Quantity;
use windlass_api::types::core;

use super::container::containers_of;
use super::projection::{Files, VolumeView};
use super::{Ground, PodContext, Step, StepError, claim, image, lent};
use crate::certificate::Wanted;
use crate::machine::{MachineError, Medium, Volume, VolumeContent};
use crate::source::SourceView;
use crate::token::TokenRequest;

/// Permissions of files whose volume does not say (API reference, defaultMode).
const MODE_DEFAULT: i32 = 0o644;

/// Up: every volume exists with its content. What objects say in it is written anew when they change.
pub struct Volumes;

impl Step for Volumes {
    fn name(&self) -> &'static str {
        "volumes"
    }

    fn up<'a>(&'a self, pod: &'a PodContext, ground: &'a mut Ground) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            for volume in pod.spec().volumes.iter().flatten() {
                match &ground.sources {
                    None if is_ours(volume) => keep(pod, volume).await?,
                    sources => {
                        let nothing = SourceView::default();
                        match make(pod, sources.as_ref().unwrap_or(&nothing), volume).await {
                            // A token was asked for in vain.
                            Err(why) if pod.is_known && is_ours(volume) => keep(pod, volume).await.map_err(|_| why)?,
                            made => made?,
                        }
                    }
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn down<'a>(&'a self, pod: &'a PodContext) -> BoxFuture<'a, Result<(), MachineError>> {
        // The node's own volumes last as long as their pod is known: the machine removes them with the pod.
        lent::down(pod).boxed()
    }
}

/// Takes a volume as an earlier agent left it: the API, which would say what belongs into it, may be away. It is written
/// anew as soon as it can be.
async fn keep(pod: &PodContext, volume: &core::Volume) -> Result<(), StepError> {
    let kept = Volume { name: volume.name.clone(), group: None, trust_top: false, content: VolumeContent::Kept };
    pod.shared.machine.volume_up(&pod.uid, &kept).await.map_err(|error| StepError {
        reason: "FailedMount",
        message: format!("the API is not heard, and nothing is left of volume {:?} here: {error}", volume.name),
    })
}

/// Makes the volumes whose files come from objects hold what those say now. One that cannot be made keeps no other; the
/// first error is told.
pub async fn refresh(pod: &PodContext, sources: &SourceView) -> Result<(), StepError> {
    let mut made = Ok(());
    for volume in pod.spec().volumes.iter().flatten().filter(|volume| is_ours(volume)) {
        made = made.and(make(pod, sources, volume).await);
    }
    made
}

/// Whether the node writes the volume's files. Then nobody else may, as the API reference has it for each of these kinds:
/// the node would follow what a container has put there.
pub fn is_ours(volume: &core::Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Whether the volume tells what the pod itself says, which may change while it runs.
pub fn tells_of_pod(volume: &core::Volume) -> bool {
    let parts = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    volume.downward_api.is_some() || parts.into_iter().any(|part| part.downward_api.is_some())
}

async fn make(pod: &PodContext, sources: &SourceView, source: &core::Volume) -> Result<(), StepError> {
    let node = pod.shared.node_facts();
    let group = pod.spec().security_context.as_ref().and_then(|context| context.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    let failed = |why: String| StepError {
        reason: "FailedMount",
        message: format!("MountVolume.SetUp failed for volume {:?} : {why}", source.name),
    };
    // Read once for all that follows: what it is, and how large it is to be.
    let claimed = match claim::name_of(pod, source) {
        Some(_) => Some(claim::find(pod, source).await.map_err(failed)?),
        None => None,
    };
    let content = match (&source.image, &claimed) {
        (Some(image), _) => VolumeContent::Image { image: image_of(pod, sources, image).await? },
        (None, Some(found)) => claim::content(pod, source, found).await.map_err(failed)?,
        (None, None) if source.csi.is_some() => {
            VolumeContent::Lent(Box::new(lent::inline(pod, source).await.map_err(failed)?))
        }
        (None, None) => {
            let tokens = pod.tokens.fetch(pod, token_requests(source)).await.map_err(failed)?;
            let certificates = pod.certificates.fetch(pod, certificates_wanted(source)).await.map_err(failed)?;
            let view = VolumeView {
                pod: pod.view(&[], &node),
                sources,
                tokens: &tokens,
                certificates: &certificates,
                has_group: group.is_some(),
            };
            content(&view, source).map_err(failed)?
        }
    };
    let context = pod.spec().security_context.as_ref();
    let trust_top = context.is_some_and(|context| context.fs_group_change_policy.as_deref() == Some("OnRootMismatch"));
    let volume = Volume { name: source.name.clone(), group, trust_top, content };
    let made = pod.shared.machine.volume_up(&pod.uid, &volume).await;
    made.map_err(|error| failed(error.to_string()))?;
    match (&volume.content, &claimed) {
        (VolumeContent::Lent(lent), Some(found)) => {
            lent::grow(pod, source, found, Some(lent)).await.map(drop).map_err(failed)
        }
        _ => Ok(()),
    }
}

/// The image whose files the volume shows: fetched as its policy says when the pod comes up, the same one from then on.
async fn image_of(
    pod: &PodContext,
    sources: &SourceView,
    source: &core::ImageVolumeSource,
) -> Result<String, StepError> {
    let name = source.reference.as_deref().unwrap_or_default();
    let policy = source.pull_policy.as_deref().unwrap_or("IfNotPresent");
    let wanted = image::Wanted { name, policy, container: None };
    let found = image::ensure(pod, &wanted, sources).await;
    let found = found.map_err(|trouble| StepError { reason: trouble.reason, message: trouble.message })?;
    Ok(found.id)
}

fn token_requests(volume: &core::Volume) -> Vec<TokenRequest> {
    let parts = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    parts.filter_map(|part| part.service_account_token.as_ref()).map(TokenRequest::of).collect()
}

fn certificates_wanted(volume: &core::Volume) -> Vec<Wanted> {
    let parts = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    parts.filter_map(|part| part.pod_certificate.as_ref()).map(Wanted::of).collect()
}

fn content(view: &VolumeView, volume: &core::Volume) -> Result<VolumeContent, String> {
    if let Some(empty) = &volume.empty_dir {
        let bytes_max = size_limit(empty);
        let medium = match empty.medium.as_deref().unwrap_or_default() {
            "" => Medium::Disk,
            "Memory" => Medium::Memory,
            other => Medium::HugePages(page_size(view.pod.pod, other)?),
        };
        return Ok(VolumeContent::Empty { medium, bytes_max });
    }
    if let Some(host) = &volume.host_path {
        let path = PathBuf::from(&host.path);
        if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
            return Err(format!("hostPath {:?} is not an absolute path without ..", host.path));
        }
        return Ok(VolumeContent::Host { path, expect: host.type_.clone().unwrap_or_default() });
    }
    if let Some(map) = &volume.config_map {
        let mut files = Files::new(view, map.default_mode.unwrap_or(MODE_DEFAULT));
        files.add_config_map(&map.name, map.items.as_deref(), map.optional == Some(true))?;
        return Ok(VolumeContent::Files { files: files.finish(), secret: false });
    }
    if let Some(secret) = &volume.secret {
        let mut files = Files::new(view, secret.default_mode.unwrap_or(MODE_DEFAULT));
        let name = secret.secret_name.as_deref().unwrap_or_default();
        files.add_secret(name, secret.items.as_deref(), secret.optional == Some(true))?;
        return Ok(VolumeContent::Files { files: files.finish(), secret: true });
    }
    if let Some(downward) = &volume.downward_api {
        let mut files = Files::new(view, downward.default_mode.unwrap_or(MODE_DEFAULT));
        files.add_downward(downward.items.as_deref())?;
        return Ok(VolumeContent::Files { files: files.finish(), secret: false });
    }
    let Some(projected) = &volume.projected else {
        let known = "configMap, secret, downwardAPI, projected, emptyDir, hostPath, image, csi, persistentVolumeClaim and ephemeral";
        return Err(format!("this node knows {known} volumes"));
    };
    let mut files = Files::new(view, projected.default_mode.unwrap_or(MODE_DEFAULT));
    let mut secret = false;
    for part in projected.sources.iter().flatten() {
        secret |= part.secret.is_some() || part.service_account_token.is_some() || part.pod_certificate.is_some();
        files.add_projection(part)?;
    }
    Ok(VolumeContent::Files { files: files.finish(), secret })
}

/// The size of the pages of a medium `HugePages` or `HugePages-SIZE`. Those of which the pod asks for none it may not have.
fn page_size(pod: &core::Pod, medium: &str) -> Result<u64, String> {
    let named = medium.strip_prefix("HugePages").filter(|size| size.is_empty() || size.starts_with('-'));
    let named = named.ok_or_else(|| {
        format!("emptyDir.medium {medium:?} is not supported; use \"\", Memory, HugePages or HugePages-SIZE")
    })?;
    let containers = pod.spec.iter().flat_map(containers_of);
    let limits = containers.filter_map(|container| container.resources.as_ref()?.limits.as_ref()).flatten();
    let sizes: BTreeSet<&str> = limits.filter_map(|(name, _)| name.strip_prefix("hugepages-")).collect();
    let size = match (named.strip_prefix('-'), sizes.len()) {
        (Some(size), _) if sizes.contains(size) => size,
        (Some(size), _) => return Err(format!("medium {medium}: the pod asks for no pages of {size}")),
        (None, 1) => sizes.first().copied().unwrap_or_default(),
        (None, 0) => return Err(format!("medium {medium}: the pod asks for no huge pages")),
        (None, _) => return Err(format!("medium {medium}: the pod asks for pages of several sizes; name one")),
    };
    let bytes = size.parse::<Quantity>().ok().and_then(|size| u64::try_from(size.units()).ok());
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("medium {medium}: {size:?} is no size of pages"))
}

/// How much an emptyDir may hold.
pub fn size_limit(empty: &core::EmptyDirVolumeSource) -> Option<u64> {
    let limit = empty.size_limit.as_ref()?.0.parse::<Quantity>().ok()?;
    u64::try_from(limit.units()).ok().filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::super::projection::VolumeView;
    use super::content;
    use crate::certificate::{Credential, Wanted};
    use crate::downward::{Allocatable, PodView};
    use crate::machine::VolumeContent;
    use crate::source::{Bundle, SourceView};
    use crate::token::TokenRequest;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn check(volume: Value, has_group: bool) -> Result<String, String> {
        check_in(volume, has_group, json!({"containers": []}))
    }

    fn check_in(volume: Value, has_group: bool, spec: Value) -> Result<String, String> {
        let mut sources = SourceView::default();
        let map = json!({"metadata": {}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}});
        sources.config_maps.insert("m".to_owned(), Arc::new(serde_json::from_value(map).expect("a map")));
        let secret = json!({"metadata": {}, "data": {"key": "c2VjcmV0"}});
        sources.secrets.insert("s".to_owned(), Arc::new(serde_json::from_value(secret).expect("a secret")));
        for (name, team, text) in [("example.com:ca:a", "red", "A\n"), ("example.com:ca:b", "blue", "B\n")] {
            let labels = [("team".to_owned(), team.to_owned())].into();
            let (name, signer) = (name.to_owned(), "example.com/ca".to_owned());
            sources.trust.push(Arc::new(Bundle { name, signer, labels, certificates: vec![text.to_owned()] }));
        }
        let pod = json!({"metadata": {"name": "p", "labels": {"app": "web"}}, "spec": spec});
        let pod = serde_json::from_value(pod).expect("a pod");
        let pod = PodView { pod: &pod, pod_ips: &[], host_ips: &[], allocatable: Allocatable::default() };
        let tokens = BTreeMap::from([(TokenRequest { audience: String::new(), seconds: 3600 }, "t".to_owned())]);
        let certificate = json!({"signerName": "example.com/s", "keyType": "ED25519"});
        let wanted = Wanted::of(&serde_json::from_value(certificate).expect("a projection"));
        let credential = Credential { key: "KEY\n".to_owned(), chain: "CHAIN\n".to_owned() };
        let certificates = BTreeMap::from([(wanted, credential)]);
        let view = VolumeView { pod, sources: &sources, tokens: &tokens, certificates: &certificates, has_group };
        let mut volume = volume;
        volume["name"] = json!("v");
        let volume = serde_json::from_value(volume).expect("a volume");
        Ok(match content(&view, &volume)? {
            VolumeContent::Files { files, secret } => {
                let shown: Vec<String> = files
                    .iter()
                    .map(|(path, file)| {
                        let owner = file.owner.map(|owner| format!("@{owner}")).unwrap_or_default();
                        format!("{path}:{:o}{owner}:{}", file.mode, String::from_utf8_lossy(&file.bytes))
                    })
                    .collect();
                format!("{}{}", if secret { "secret " } else { "" }, shown.join(" "))
            }
            VolumeContent::Empty { medium, bytes_max } => format!("empty {medium:?} {bytes_max:?}"),
            VolumeContent::Host { path, expect } => format!("host {} {expect}", path.display()),
            VolumeContent::Image { image } => format!("image {image}"),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn bundles_of_trust_are_found_by_name_or_by_their_signer_and_labels() {
        let of = |more: Value| {
            let mut source = json!({"path": "ca.pem"});
            for (key, value) in more.as_object().into_iter().flatten() {
                source[key] = value.clone();
            }
            check(json!({"projected": {"sources": [{"clusterTrustBundle": source}]}}), false)
        };
        let signer = "example.com/ca";
        assert_eq!(of(json!({"name": "example.com:ca:b"})).as_deref(), Ok("ca.pem:644:B\n"));
        assert_eq!(of(json!({"signerName": signer, "labelSelector": {}})).as_deref(), Ok("ca.pem:644:A\nB\n"));
        let red = json!({"signerName": signer, "labelSelector": {"matchLabels": {"team": "red"}}});
        assert_eq!(of(red).as_deref(), Ok("ca.pem:644:A\n"));
        assert!(of(json!({"signerName": signer})).expect_err("nothing is selected").contains("no clustertrustbundle"));
        assert!(of(json!({"name": "none"})).expect_err("it is not there").contains("not found"));
        assert_eq!(of(json!({"name": "none", "optional": true})).as_deref(), Ok("ca.pem:644:"));
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
            (json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}), "empty Memory Some(1048576)"),
            (json!({"emptyDir": {}}), "empty Disk None"),
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
            (json!({"emptyDir": {"medium": "HugePages"}}), "asks for no huge pages"),
            (json!({"emptyDir": {"medium": "Tape"}}), "not supported"),
            (json!({"nfs": {"server": "x", "path": "/"}}), "this node knows"),
        ];
        for (volume, why) in rows {
            let found = check(volume.clone(), false).expect_err("must be refused");
            assert!(found.contains(why), "{volume}: {found}");
        }
    }

    #[test]
    fn huge_pages_are_of_the_size_that_the_pod_asks_for() {
        let asks = |sizes: &[&str]| {
            let of = |size: &&str| (format!("hugepages-{size}"), json!("1Gi"));
            let limits: serde_json::Map<String, Value> = sizes.iter().map(of).collect();
            json!({"containers": [{"name": "a", "resources": {"limits": limits}}]})
        };
        let medium =
            |medium: &str, sizes: &[&str]| check_in(json!({"emptyDir": {"medium": medium}}), false, asks(sizes));
        assert_eq!(medium("HugePages", &["2Mi"]).as_deref(), Ok("empty HugePages(2097152) None"));
        assert_eq!(medium("HugePages-1Gi", &["2Mi", "1Gi"]).as_deref(), Ok("empty HugePages(1073741824) None"));
        for (name, sizes) in [("HugePages", &["2Mi", "1Gi"][..]), ("HugePages-1Gi", &["2Mi"]), ("HugePages-", &["2Mi"])]
        {
            assert!(medium(name, sizes).is_err(), "{name} {sizes:?}");
        }
    }

    #[test]
    fn a_certificate_and_its_key_are_in_the_files_that_are_asked_for_and_private() {
        let source = json!({"signerName": "example.com/s", "keyType": "ED25519", "credentialBundlePath": "all.pem",
            "keyPath": "key.pem", "certificateChainPath": "chain.pem"});
        let volume = json!({"projected": {"sources": [{"podCertificate": source}]}});
        let spec = json!({"securityContext": {"runAsUser": 7}, "containers": [{"name": "a"}]});
        let expected = "secret all.pem:600@7:KEY\nCHAIN\n chain.pem:600@7:CHAIN\n key.pem:600@7:KEY\n";
        assert_eq!(check_in(volume, false, spec).as_deref(), Ok(expected));
        let other = json!({"signerName": "example.com/other", "keyType": "ED25519", "keyPath": "k"});
        let volume = json!({"projected": {"sources": [{"podCertificate": other}]}});
        assert!(check(volume, false).expect_err("there is none").contains("no certificate"));
    }

    #[test]
    fn a_token_is_for_whom_the_pod_runs_as() {
        let volume = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
        let user = |user: u32| json!({"runAsUser": user});
        let one = json!({"securityContext": user(7), "containers": [{"name": "a"}, {"name": "b", "securityContext": user(7)}]});
        let two = json!({"securityContext": user(7), "containers": [{"name": "a"}, {"name": "b", "securityContext": user(8)}]});
        let none = json!({"containers": [{"name": "a"}]});
        let rows = [
            (&one, false, "secret t:600@7:t"),
            (&one, true, "secret t:640@7:t"),
            (&two, false, "secret t:644:t"),
            (&two, true, "secret t:640:t"),
            (&none, false, "secret t:644:t"),
        ];
        for (spec, has_group, expected) in rows {
            assert_eq!(check_in(volume.clone(), has_group, spec.clone()).as_deref(), Ok(expected), "{spec}");
        }
    }
}
