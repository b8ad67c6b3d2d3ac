//! Manifests and indexes: which config and layers an image has (OCI image spec 1.1, Docker image manifest v2.2).
//!
//! Rules
//!   R1 one kind   a document is a manifest or an index, by what it has and by what it says; one that is both is refused
//!   R2 few steps  an index points at manifests, or at other indexes, INDEXES_MAX of them on the way to a manifest
//!   R3 here       every layer comes from the registry itself: no urls, no layers that must not be distributed
//!   R4 known      sha256 digests, sizes that are sizes, compressions we can undo

use serde::Deserialize;

use super::config::{LAYERS_MAX, architecture, short};
use super::error::ImageError;
use super::reference::is_digest;

/// The largest manifest or index.
pub(super) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Indexes on the way to a manifest.
pub(super) const INDEXES_MAX: usize = 3;
/// The most manifests one index lists: platforms and their attestations.
const INDEX_MAX: usize = 1000;
/// The largest compressed layer.
pub(super) const LAYER_BYTES_MAX: u64 = 32 << 30;

const KINDS_OF_MANIFEST: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const KINDS_OF_INDEX: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// Every kind of document we can read, for an `Accept` header.
pub(super) fn accepted() -> String {
    [KINDS_OF_MANIFEST, KINDS_OF_INDEX].concat().join(", ")
}

/// A pointer at content.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    urls: Vec<String>,
    platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// A manifest: one image for one platform.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// Why an image is not found where indexes only lead to indexes.
pub(super) fn too_deep() -> ImageError {
    ImageError::document(
        "the index",
        format!("expected a manifest below at most {INDEXES_MAX} indexes, found another index"),
    )
}

/// A document, understood.
#[derive(Debug)]
pub(super) enum Document {
    Manifest(Manifest),
    /// The manifests an index lists.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a document; `content_type` is what its sender called it, if anybody did (R1, R3, R4).
pub(super) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, ImageError> {
    let refuse = |why: String| ImageError::document("the manifest", why);
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(refuse(format!("it is larger than {MANIFEST_BYTES_MAX} bytes")));
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
    if raw.schema_version != Some(2) || raw.fs_layers.is_some() {
        return Err(refuse(format!("expected schemaVersion 2, found {:?}", raw.schema_version)));
    }
    let named: Vec<&str> = [content_type, raw.media_type.as_deref()].into_iter().flatten().collect();
    let called = |kinds: &[&str]| named.iter().any(|name| kinds.contains(name));
    match (raw.config, raw.layers, raw.manifests) {
        (Some(config), Some(layers), None) if !called(&KINDS_OF_INDEX) => {
            let manifest = Manifest { config, layers };
            check_manifest(&manifest)?;
            Ok(Document::Manifest(manifest))
        }
        (None, None, Some(manifests)) if !called(&KINDS_OF_MANIFEST) => {
            if manifests.is_empty() || manifests.len() > INDEX_MAX {
                return Err(refuse(format!(
                    "expected an index of 1 to {INDEX_MAX} manifests, found {}",
                    manifests.len()
                )));
            }
            Ok(Document::Index(manifests))
        }
        _ => Err(refuse("expected a manifest (config and layers) or an index (manifests), found a mixture".to_owned())),
    }
}

fn check_manifest(manifest: &Manifest) -> Result<(), ImageError> {
    let refuse = |why: String| Err(ImageError::document("the manifest", why));
    if manifest.layers.is_empty() || manifest.layers.len() > LAYERS_MAX {
        return refuse(format!("expected 1 to {LAYERS_MAX} layers, found {}", manifest.layers.len()));
    }
    for (place, descriptor) in std::iter::once(&manifest.config).chain(&manifest.layers).enumerate() {
        let what = if place == 0 { "config".to_owned() } else { format!("layers[{}]", place - 1) };
        check_digest(&what, descriptor)?;
        let kind = &descriptor.media_type;
        if !descriptor.urls.is_empty() || kind.contains("foreign") || kind.contains("nondistributable") {
            return refuse(format!("{what}: expected content of the registry itself, found a foreign layer"));
        }
        if place > 0 && descriptor.size > LAYER_BYTES_MAX {
            return refuse(format!("{what}: expected at most {LAYER_BYTES_MAX} bytes, found {}", descriptor.size));
        }
    }
    Ok(())
}

fn check_digest(what: &str, descriptor: &Descriptor) -> Result<(), ImageError> {
    if is_digest(&descriptor.digest) {
        return Ok(());
    }
    let why = format!("{what}.digest: expected sha256: and 64 hex digits, found {:?}", short(&descriptor.digest));
    Err(ImageError::document("the manifest", why))
}

/// What leads to the manifest for this machine: the manifest itself, else an index that may list it.
pub(super) fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, ImageError> {
    let refuse = |why: String| ImageError::document("the index", why);
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        Some(platform) => {
            let variant = matches!(platform.variant.as_str(), "" | "v1" | "v8");
            platform.os == "linux" && platform.architecture == architecture() && variant
        }
        // An index of one manifest need not say for whom it is; the config will.
        None => manifests.len() == 1,
    };
    let is_index = |descriptor: &&Descriptor| KINDS_OF_INDEX.contains(&descriptor.media_type.as_str());
    let may_list =
        |descriptor: &&Descriptor| is_index(descriptor) && (descriptor.platform.is_none() || fits(descriptor));
    let chosen = manifests.iter().find(|one| !is_index(one) && fits(one)).or_else(|| manifests.iter().find(may_list));
    let chosen = chosen.ok_or_else(|| {
        let name = |platform: &Platform| format!("{}/{}", short(&platform.os), short(&platform.architecture));
        let found: Vec<String> = manifests.iter().filter_map(|one| one.platform.as_ref()).map(name).take(10).collect();
        refuse(format!("expected an image for linux/{}, found {}", architecture(), found.join(", ")))
    })?;
    check_digest("manifests", chosen)?;
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::{Document, choose, parse};
    use crate::image::config::architecture;

    const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn descriptor(more: &str) -> String {
        format!(r#"{{"digest":"{DIGEST}","size":1{more}}}"#)
    }

    #[test]
    fn the_manifest_of_this_machine_is_chosen() {
        let platform = |arch: &str| format!(r#","platform":{{"os":"linux","architecture":"{arch}"}}"#);
        let (other, ours) = (descriptor(&platform("s390x")), descriptor(&platform(architecture())));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{other},{ours}]}}"#);
        let Document::Index(manifests) = parse(index.as_bytes(), None).expect("an index") else { panic!("no index") };
        assert_eq!(choose(&manifests).expect("ours"), &manifests[1]);
        let error = choose(&manifests[..1]).map(|_| ()).expect_err("not ours");
        assert!(error.to_string().contains("found linux/s390x"), "{error}");
    }

    #[test]
    fn hostile_manifests_are_refused_with_the_reason() {
        let one = descriptor("");
        let many = vec![one.as_str(); 128].join(",");
        let rows = [
            (format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{many}]}}"#), "1 to 127 layers"),
            (format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{one}],"manifests":[{one}]}}"#), "mixture"),
            (format!(r#"{{"schemaVersion":1,"config":{one},"layers":[{one}]}}"#), "schemaVersion 2"),
            (
                format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{}]}}"#, descriptor(r#","urls":["http://x"]"#)),
                "foreign",
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{{"digest":"md5:1","size":1}}]}}"#),
                "layers[0].digest",
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{{"digest":"{DIGEST}","size":-1}}]}}"#),
                "invalid value",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{one},"layers":[{{"digest":"{DIGEST}","size":99999999999999}}]}}"#
                ),
                "layers[0]: expected at most",
            ),
            (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), "1 to 1000 manifests"),
            ("x".repeat(5 << 20), "larger than"),
        ];
        for (text, why) in rows {
            let error = parse(text.as_bytes(), None).map(|_| ()).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
        let lying = format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{one}]}}"#);
        let called = Some("application/vnd.oci.image.index.v1+json");
        assert!(parse(lying.as_bytes(), called).is_err(), "a manifest that is called an index");
        let nested = descriptor(r#","mediaType":"application/vnd.oci.image.index.v1+json""#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{nested}]}}"#);
        let Ok(Document::Index(manifests)) = parse(index.as_bytes(), None) else { panic!("no index") };
        assert_eq!(choose(&manifests).expect("an index in an index"), &manifests[0]);
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[{nested},{}]}}"#,
            descriptor(&format!(r#","platform":{{"os":"linux","architecture":"{}"}}"#, architecture()))
        );
        let Ok(Document::Index(manifests)) = parse(both.as_bytes(), None) else { panic!("no index") };
        assert_eq!(choose(&manifests).expect("the manifest"), &manifests[1], "a manifest comes before an index");
    }
}
