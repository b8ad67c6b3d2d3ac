//! Giving: an image of the store as its documents and layers, for another runtime of this machine that keeps its own store.
//!
//! Rules
//!   R1 whole     what is given has the image's own config, so it is the same image there: the same id
//!   R2 refused   an image with a layer whose archive cannot be made again is not given, and the error names the layer
//!
//! The manifest is of our own: it names the layers without compression, as they are made again.
//! Source: OCI image specification 1.1, "Image Manifest".

use serde_json::json;

use super::error::ImageError;
use super::store::{Documents, Images};

/// An image to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// The manifest's digest.
    pub digest: String,
    /// Its config document.
    pub config: Vec<u8>,
    /// The layers' diff_ids, the lowest first, and the sizes of their archives.
    pub layers: Vec<(String, u64)>,
}

/// What the manifest is.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

impl Images {
    /// The image of this id, to be given (R1, R2). Reads the recipes of all its layers: blocks.
    pub fn give(&self, id: &str) -> Result<Option<Given>, ImageError> {
        let Some(Documents { config, diff_ids }) = self.store.documents(id)? else { return Ok(None) };
        let mut layers = Vec::new();
        for diff_id in diff_ids {
            let length = self.store.archive_bytes(&diff_id)?.ok_or_else(|| {
                let why = "its archive cannot be made again from its files, so no other runtime can be given it";
                ImageError::document(format!("layer {diff_id}"), why)
            })?;
            layers.push((diff_id, length));
        }
        let layer = |(digest, size): &(String, u64)| json!({"mediaType": LAYER_TYPE, "digest": digest, "size": size});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": id, "size": config.len()},
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = super::digest::of(&manifest);
        Ok(Some(Given { manifest, digest, config, layers }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use windlass_stdx::World;

    use super::super::build::{Entry, write_oci};
    use super::super::{ImageConfig, Images, digest};

    #[tokio::test]
    async fn r1_an_image_is_given_with_its_own_config_and_layers_of_the_size_it_says() {
        let root = std::env::temp_dir().join(format!("windlass-give-{}", std::process::id()));
        let archive = root.join("image.tar");
        std::fs::create_dir_all(&root).expect("a directory");
        let entries = [Entry::directory("etc"), Entry::file("etc/a", "x".repeat(70_000)), Entry::symlink("b", "etc/a")];
        write_oci(&archive, "test/give:1", &entries, &ImageConfig::default()).expect("an archive");
        let images = Images::open(root.join("images"), World::real()).expect("a store");
        let record = images.import(&archive, None).await.expect("an image").remove(0);
        let given = images.give(&record.id).expect("the store can be read").expect("it is there");
        assert_eq!(digest::of(&given.config), record.id);
        assert_eq!(digest::of(&given.manifest), given.digest);
        for (diff_id, size) in &given.layers {
            let mut bytes = Vec::new();
            let layer = images.layer_archive(diff_id).expect("readable").expect("there").expect("nobody else asks");
            std::io::BufReader::new(layer).read_to_end(&mut bytes).expect("an archive");
            assert_eq!((bytes.len() as u64, &digest::of(&bytes)), (*size, diff_id));
        }
        assert_eq!(images.give(&format!("sha256:{}", "0".repeat(64))).expect("readable"), None);
        std::fs::remove_dir_all(&root).expect("our own directory");
    }
}
