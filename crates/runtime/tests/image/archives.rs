//! Archives of every form give layers that overlayfs mounts as the image means them.

use std::ffi::CString;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;
use windlass_runtime::image::build::{Entry, write_oci};
use windlass_runtime::image::{Image, ImageConfig};

use crate::stage::{Files, Layer, Packing, Stage, config, digest, layout, pack, told};

/// Mounts the image where nobody else sees it and looks at it.
fn mounted<T: Send>(image: &Image, look: impl FnOnce(&Path) -> T + Send) -> T {
    let lower: Vec<String> = image.layers.iter().map(|layer| layer.to_string_lossy().into_owned()).collect();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
            // SAFETY: only the mounts of this thread change.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("tests run as root");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private mounts");
            let place = Path::new("/mnt");
            // Overlayfs without an upper directory wants two lower ones; the second adds nothing.
            mount("none", place, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>).expect("a tmpfs");
            let (empty, root) = (place.join("empty"), place.join("root"));
            std::fs::create_dir(&empty).and_then(|()| std::fs::create_dir(&root)).expect("directories");
            let options = CString::new(format!("lowerdir={}:{}", lower.join(":"), empty.display())).expect("no NUL");
            mount("overlay", &root, "overlay", MountFlags::RDONLY, Some(options.as_c_str())).expect("an overlay");
            look(&root)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn three_layers() -> Vec<Vec<u8>> {
    let bottom = Layer::new()
        .directory("./")
        .directory("etc/")
        .file("etc/kept", "bottom")
        .file("etc/gone", "bottom")
        .file("etc/changed", "bottom")
        .directory("opt/")
        .file("opt/hidden", "bottom")
        .directory("usr/lib/")
        .symlink("lib", "usr/lib");
    let middle = Layer::new()
        .directory("etc/")
        .file("etc/.wh.gone", "")
        .file("etc/changed", "middle")
        .directory("opt/")
        .file("opt/.wh..wh..opq", "")
        .file("opt/shown", "middle")
        .file(".wh..wh.plnk", "");
    let top = Layer::new()
        .directory("usr/lib/")
        .symlink("lib", "usr/lib")
        .file("lib/deep/through-the-link", "top")
        .entry(b'0', "usr/bin/su", "", b"x", 0o4755)
        .link("usr/bin/sudo", "usr/bin/su")
        .entry(b'6', "run/fifo", "", b"", 0o600);
    [bottom, middle, top].map(Layer::finish).to_vec()
}

fn check_three_layers(root: &Path) {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!((read("etc/kept").as_str(), read("etc/changed").as_str()), ("bottom", "middle"));
    assert!(!root.join("etc/gone").exists(), "a whiteout hides");
    assert_eq!(read("opt/shown"), "middle");
    assert!(!root.join("opt/hidden").exists(), "an opaque directory hides what is below");
    assert_eq!(read("usr/lib/deep/through-the-link"), "top", "a link within the layer is followed");
    let su = std::fs::metadata(root.join("usr/bin/su")).expect("a file");
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid(), su.mtime(), su.nlink()),
        (0o4755, 1234, 5678, 1_000_000_000, 2)
    );
    assert!(std::fs::metadata(root.join("run/fifo")).expect("a fifo").file_type().is_fifo());
    let directory = std::fs::metadata(root.join("etc")).expect("a directory");
    assert_eq!((directory.mtime(), directory.permissions().mode() & 0o777), (1_000_000_000, 0o755));
}

#[tokio::test]
async fn layouts_with_every_packing_mount_as_the_image_means_them() {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let stage = Stage::new();
        let (files, _) = layout(&three_layers(), packing);
        let image = stage.import(&files).await.unwrap_or_else(|error| panic!("{packing:?}: {}", told(&error)));
        assert_eq!(
            (image.layers.len(), image.names.as_slice()),
            (3, &["docker.io/library/test:latest".to_owned()][..])
        );
        mounted(&image, check_three_layers);
        assert_eq!(stage.content().len(), 4, "three layers and a config, nothing temporary");
    }
}

#[tokio::test]
async fn a_layout_may_be_a_directory_and_any_archive_may_be_compressed() {
    let (files, _) = layout(&three_layers(), Packing::Gzip);
    let stage = Stage::new();
    files.write_to(&stage.directory.join("layout"));
    let records = stage.images.import(&stage.directory.join("layout"), None).await.expect("imported");
    assert_eq!(records[0].names, [""; 0], "nobody named it");
    for packing in [Packing::Gzip, Packing::Zstd] {
        let archive = stage.directory.join("packed");
        std::fs::write(&archive, pack(&files.tar(), packing)).expect("written");
        let again = stage.images.import(&archive, Some("ghcr.io/owner/app:v1")).await.expect("imported");
        assert_eq!(
            (again[0].id.as_str(), again[0].names.as_slice()),
            (records[0].id.as_str(), &["ghcr.io/owner/app:v1".to_owned()][..])
        );
    }
    assert_eq!(stage.content().len(), 4, "what is here is not unpacked again");
}

#[tokio::test]
async fn what_docker_saves_is_imported_under_its_tags() {
    let layers = three_layers();
    let config = config(&layers).to_string();
    let mut files = Files::default();
    let name = format!("{}.json", &digest(config.as_bytes())[7..]);
    files.0.insert(name.clone(), config.into_bytes());
    let mut paths = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        paths.push(format!("{number}/layer.tar"));
        files.0.insert(format!("{number}/layer.tar"), layer.clone());
    }
    let manifest = json!([{ "Config": name, "RepoTags": ["app:v1", "app:latest"], "Layers": paths }]);
    files.0.insert("manifest.json".to_owned(), manifest.to_string().into_bytes());
    let stage = Stage::new();
    let archive = stage.directory.join("saved.tar");
    std::fs::write(&archive, files.tar()).expect("written");
    let records = stage.images.import(&archive, None).await.expect("imported");
    assert_eq!(records[0].names, ["docker.io/library/app:latest", "docker.io/library/app:v1"]);
    let image = stage.images.find("app:v1").expect("a store").expect("an image");
    assert_eq!(image.config.cmd, ["/x"]);
    mounted(&image, check_three_layers);
}

#[tokio::test]
async fn an_image_made_in_memory_is_imported_and_is_the_same_every_time() {
    let stage = Stage::new();
    let entries = [
        Entry::directory("bin"),
        Entry::program("bin/app", *b"#!/bin/sh\n"),
        Entry::symlink("app", "bin/app"),
        Entry::file("etc/app.conf", "a=1\n"),
    ];
    let config = ImageConfig {
        entrypoint: vec!["/app".to_owned()],
        env: vec!["A=1".to_owned()],
        user: "1000:1000".to_owned(),
        exposed_ports: vec!["80/tcp".to_owned()],
        ..ImageConfig::default()
    };
    let (one, two) = (stage.directory.join("one.tar"), stage.directory.join("two.tar"));
    let id = write_oci(&one, "registry.example/demo:v1", &entries, &config).expect("written");
    write_oci(&two, "registry.example/demo:v1", &entries, &config).expect("written");
    assert_eq!(std::fs::read(&one).expect("bytes"), std::fs::read(&two).expect("bytes"));
    let records = stage.images.import(&one, None).await.expect("imported");
    assert_eq!(
        (records[0].id.as_str(), records[0].names.as_slice()),
        (id.as_str(), &["registry.example/demo:v1".to_owned()][..])
    );
    let image = stage.images.find("registry.example/demo:v1").expect("a store").expect("an image");
    assert_eq!(image.config, config);
    assert_eq!(std::fs::read(image.layers[0].join("etc/app.conf")).expect("a file"), b"a=1\n");
}
