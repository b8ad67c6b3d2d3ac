//! The store keeps what is listed or in use, shares it between processes, and forgets the rest.

use std::collections::BTreeSet;
use std::path::Path;

use windlass_runtime::image::build::{Entry, write_oci};
use windlass_runtime::image::{ImageConfig, ImageError, ImageRecord};

use crate::stage::{Layer, Packing, Stage, layout};

async fn import(stage: &Stage, name: &str, content: &str) -> ImageRecord {
    let archive = stage.directory.join("image.tar");
    write_oci(&archive, name, &[Entry::file("content", content)], &ImageConfig::default()).expect("written");
    stage.images.import(&archive, None).await.expect("imported").remove(0)
}

#[tokio::test]
async fn a_name_moves_to_the_newer_image_and_garbage_goes_unless_in_use() {
    let stage = Stage::new();
    let old = import(&stage, "app:v1", "old").await;
    let new = import(&stage, "app:v1", "new").await;
    assert_eq!(stage.images.find("app:v1").expect("a store").expect("an image").id, new.id);
    let nameless = stage.images.find(&old.id).expect("a store").expect("an image");
    assert_eq!(nameless.names, [""; 0]);
    let in_use = BTreeSet::from([old.id.clone()]);
    assert_eq!(stage.images.collect_garbage(&in_use).await.expect("collected").images, 0);
    assert!(nameless.layers[0].join("content").exists(), "a layer in use stays");
    let freed = stage.images.collect_garbage(&BTreeSet::new()).await.expect("collected");
    assert_eq!((freed.images, freed.layers, freed.bytes), (1, 1, 3));
    assert_eq!(stage.content().len(), 2);
}

#[tokio::test]
async fn layers_are_shared_and_go_with_their_last_image() {
    let stage = Stage::new();
    let shared = Layer::new().file("shared", "s").finish();
    let one = [shared.clone(), Layer::new().file("one", "1").finish()];
    let two = [shared, Layer::new().file("two", "2").finish()];
    stage.import(&layout(&one, Packing::Gzip).0).await.expect("imported");
    stage.import(&layout(&two, Packing::Zstd).0).await.expect("imported");
    assert_eq!(stage.content().iter().filter(|name| name.starts_with("l/")).count(), 3);
    let freed = stage.images.collect_garbage(&BTreeSet::new()).await.expect("collected");
    assert_eq!((freed.images, freed.layers), (1, 1), "the shared layer stays");
    let freed = stage.images.remove("test", &BTreeSet::new()).await.expect("removed");
    assert_eq!((freed.images, freed.layers), (1, 2));
    let absent = stage.images.remove("test", &BTreeSet::new()).await.expect_err("gone");
    assert!(matches!(absent, ImageError::Absent { .. }));
    assert_eq!(stage.content(), [""; 0]);
}

#[tokio::test]
async fn a_layer_that_occurs_twice_is_mounted_once() {
    let stage = Stage::new();
    let (a, b) = (Layer::new().file("a", "a").finish(), Layer::new().file("b", "b").finish());
    let image = stage.import(&layout(&[a.clone(), b, a], Packing::Gzip).0).await.expect("imported");
    assert_eq!(image.layers.len(), 2);
    assert!(image.layers[0].join("a").exists() && image.layers[1].join("b").exists());
}

#[tokio::test]
async fn what_another_process_lists_is_seen_at_once() {
    let stage = Stage::new();
    let other = stage.reopened();
    import(&stage, "app:v1", "x").await;
    assert!(other.find("app:v1").expect("a store").is_some());
    other.remove("app:v1", &BTreeSet::new()).await.expect("removed");
    assert!(stage.images.find("app:v1").expect("a store").is_none());
}

#[tokio::test]
async fn what_a_crash_left_is_removed_and_what_is_listed_stays() {
    let stage = Stage::new();
    let record = import(&stage, "app:v1", "x").await;
    let before = stage.content();
    let store = stage.directory.join("store");
    let make = |path: &Path| std::fs::create_dir_all(path).expect("made");
    make(&store.join("l/77/half"));
    make(&store.join("tmp/1-0/0/half"));
    std::fs::write(store.join("configs/half"), "x").expect("written");
    std::fs::write(store.join("index.json.new"), "{").expect("written");
    let images = stage.reopened();
    assert_eq!(stage.content(), before);
    assert_eq!(images.list().expect("a list"), [record]);
}

/// As when the disk was full between moving the layer and writing the list.
#[tokio::test]
async fn a_layer_that_was_put_in_place_and_never_listed_makes_way() {
    let stage = Stage::new();
    let first = import(&stage, "one:1", "one").await;
    let place = &stage.images.find(&first.id).expect("a store").expect("an image").layers[0];
    let number: u64 = place.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("layers have numbers");
    let next = place.with_file_name((number + 1).to_string());
    std::fs::create_dir(&next).and_then(|()| std::fs::write(next.join("left"), "x")).expect("the store's own place");
    let second = import(&stage, "two:1", "two").await;
    let image = stage.images.find(&second.id).expect("a store").expect("an image");
    assert!(image.layers[0].join("content").exists() && !image.layers[0].join("left").exists());
}

#[tokio::test]
async fn a_damaged_list_is_an_error_that_names_the_file() {
    let stage = Stage::new();
    import(&stage, "app:v1", "x").await;
    std::fs::write(stage.directory.join("store/index.json"), "{").expect("written");
    let error = stage.images.list().expect_err("damaged").to_string();
    assert!(error.contains("index.json"), "{error}");
}
