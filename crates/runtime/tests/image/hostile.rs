//! Images made to harm: each is refused with the reason, leaves nothing behind, and the store goes on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::stage::{Files, Layer, Packing, Stage, digest, layout, pack, told, with_index};

/// Imports the image: its error must tell the reason, the canaries beside the store must be as they were.
async fn check_refused(what: &str, files: &Files, why: &str) {
    let stage = Stage::new();
    let canary = stage.directory.join("canary");
    std::fs::write(&canary, "untouched").expect("written");
    let error = stage.import(files).await.map(|_| ()).expect_err(what);
    let text = told(&error);
    assert!(text.contains(why), "{what}: expected the reason {why:?}, found {text:?}");
    assert_eq!(stage.content(), [""; 0], "{what}: nothing is left");
    assert_eq!(std::fs::read_to_string(&canary).expect("the canary"), "untouched", "{what}");
    let (good, _) = layout(&[Layer::new().file("ok", "ok").finish()], Packing::Gzip);
    stage.import(&good).await.expect("the store goes on");
}

async fn check_layer_refused(what: &str, layer: Layer, why: &str) {
    let (files, _) = layout(&[layer.finish()], Packing::Gzip);
    check_refused(what, &files, why).await;
}

#[tokio::test]
async fn a55_paths_that_lead_out_are_refused() {
    let deep = "d/".repeat(2500);
    let rows = [
        ("parents", "../../etc/cron.d/x", "has a component .."),
        ("absolute", "/abs", "the path is absolute"),
        ("parents in the middle", "a/../../b", "has a component .."),
        ("5,000 characters", deep.as_str(), "longer than 4095"),
        ("a name of 300 characters", &"n".repeat(300), "longer than 4095 bytes, has a name longer than 255"),
        ("a whiteout of the parent", "a/.wh...", "a whiteout without a name"),
    ];
    for (what, path, why) in rows {
        check_layer_refused(what, Layer::new().file(path, "x"), why).await;
    }
    let nul = Layer::new().pax(&[("path", b"a\0b")]).file("x", "x");
    check_layer_refused("NUL", nul, "NUL byte").await;
    let pax = Layer::new().pax(&[("path", b"../../x")]).file("x", "x");
    check_layer_refused("parents in a pax record", pax, "has a component ..").await;
}

#[tokio::test]
async fn a56_links_that_lead_out_are_refused() {
    let rows = [
        ("absolute link", Layer::new().symlink("d", "/host").file("d/x", "x"), "leads out of the layer"),
        ("absolute link to a directory", Layer::new().symlink("d", "/tmp").file("d/x", "x"), "leads out of the layer"),
        ("climbing link", Layer::new().symlink("d", "../../..").file("d/x", "x"), "leads out of the layer"),
        (
            "chain of links",
            Layer::new().directory("a").symlink("a/b", "..").symlink("c", "a/b/../..").file("c/x", "x"),
            "leads out of the layer",
        ),
        ("link to itself", Layer::new().symlink("d", "d").file("d/x", "x"), "form a circle"),
        ("hard link out", Layer::new().link("x", "../../etc/shadow"), "has a component .."),
        ("hard link to an absolute path", Layer::new().link("x", "/etc/shadow"), "the path is absolute"),
        ("hard link through a link", Layer::new().symlink("d", "/etc").link("x", "d/shadow"), "leads out of the layer"),
        ("hard link to nothing", Layer::new().link("x", "absent"), "expected its link target to be a file"),
        (
            "hard link to a directory",
            Layer::new().directory("d").link("x", "d"),
            "expected its link target to be a file",
        ),
        ("whiteout through a link", Layer::new().symlink("d", "/tmp").file("d/.wh.x", ""), "leads out of the layer"),
        (
            "opaque through a link",
            Layer::new().symlink("d", "/tmp").file("d/.wh..wh..opq", ""),
            "leads out of the layer",
        ),
        ("directory through a link", Layer::new().symlink("d", "/tmp").directory("d/x/y"), "leads out of the layer"),
        ("below a file", Layer::new().file("f", "f").file("f/x", "x"), "is no directory"),
    ];
    for (what, layer, why) in rows {
        check_layer_refused(what, layer, why).await;
    }
    // A link of a lower layer is of no meaning to an upper one: layers are unpacked apart.
    let (lower, upper) =
        (Layer::new().symlink("d", "/tmp").finish(), Layer::new().file("d/windlass-escape", "x").finish());
    let stage = Stage::new();
    let image = stage.import(&layout(&[lower, upper], Packing::Plain).0).await.expect("harmless");
    assert!(image.layers[0].join("d/windlass-escape").exists() && !Path::new("/tmp/windlass-escape").exists());
}

#[tokio::test]
async fn a56_a_file_where_a_link_stands_replaces_the_link() {
    let stage = Stage::new();
    let target = stage.directory.join("target");
    std::fs::write(&target, "untouched").expect("written");
    let layer = Layer::new().symlink("f", &target.to_string_lossy()).file("f", "mine");
    let image = stage.import(&layout(&[layer.finish()], Packing::Plain).0).await.expect("harmless");
    assert_eq!(std::fs::read_to_string(image.layers[0].join("f")).expect("a file"), "mine");
    assert_eq!(std::fs::read_to_string(target).expect("a file"), "untouched");
}

/// Somebody swaps a directory of the half-unpacked layer for a link that leads out, over and over.
#[tokio::test]
async fn a58_a_directory_swapped_for_a_link_while_unpacking_lets_nothing_out() {
    let mut layer = Layer::new().directory("d").directory("e");
    for number in 0..4000 {
        layer = layer.file(&format!("d/{number}"), "x").file(&format!("e/{number}"), "x");
    }
    let (files, _) = layout(&[layer.finish()], Packing::Plain);
    let stage = Stage::new();
    let outside = stage.directory.join("outside");
    std::fs::create_dir(&outside).expect("made");
    let (places, target, done) = (stage.directory.join("store/tmp"), outside.clone(), Arc::new(AtomicBool::new(false)));
    let stop = done.clone();
    let racer = std::thread::spawn(move || {
        let mut swaps = 0;
        while !stop.load(Ordering::Relaxed) {
            for place in std::fs::read_dir(&places).into_iter().flatten().flatten() {
                let layer = place.path().join("0");
                let (directory, aside) = (layer.join("d"), layer.join("aside"));
                if std::fs::rename(&directory, &aside).is_ok() {
                    // Whatever fails here, fails because the unpacking was quicker.
                    let _ = std::os::unix::fs::symlink(&target, &directory);
                    let _ = std::fs::remove_file(&directory);
                    let _ = std::fs::rename(&aside, &directory);
                    swaps += 1;
                }
            }
        }
        swaps
    });
    let mut outcomes = [0, 0];
    for _ in 0..10 {
        match stage.import(&files).await {
            Ok(_) => outcomes[0] += 1,
            Err(_) => outcomes[1] += 1,
        }
        stage.images.remove("test", &std::collections::BTreeSet::new()).await.ok();
    }
    done.store(true, Ordering::Relaxed);
    let swaps = racer.join().expect("the racer ends");
    assert!(swaps > 0, "the racer raced; whole and refused: {outcomes:?}");
    assert_eq!(std::fs::read_dir(&outside).expect("a directory").count(), 0, "nothing got out");
}

#[tokio::test]
async fn a59_devices_are_refused_and_foreign_attributes_dropped() {
    for (what, kind) in [("character device", b'3'), ("block device", b'4')] {
        check_layer_refused(what, Layer::new().entry(kind, "dev/null", "", b"", 0o666), "it is a device node").await;
    }
    check_layer_refused("sparse file", Layer::new().entry(b'S', "s", "", b"", 0o644), "tar type 'S'").await;
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
    let layer = Layer::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ])
        .directory("d")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc/shadow"),
        ])
        .entry(b'0', "ping", "", b"x", 0o755);
    let stage = Stage::new();
    let image = stage.import(&layout(&[layer.finish()], Packing::Plain).0).await.expect("harmless");
    let attributes = |name: &str| {
        let mut list = [0; 1024];
        let length = rustix::fs::listxattr(image.layers[0].join(name), &mut list).expect("a list");
        String::from_utf8_lossy(&list[..length]).into_owned()
    };
    assert_eq!(attributes("d"), "", "nothing that overlayfs would obey");
    assert_eq!(attributes("ping"), "security.capability\0");
}

#[tokio::test]
async fn content_that_is_not_what_was_promised_is_refused() {
    let layer = Layer::new().file("a", "a").finish();
    let (files, manifest) = layout(std::slice::from_ref(&layer), Packing::Gzip);
    let blob = |digest: &Value| format!("blobs/sha256/{}", &digest.as_str().expect("a digest")[7..]);
    let path = blob(&manifest["layers"][0]["digest"]);

    let mut missing = files.clone();
    missing.0.remove(&path);
    check_refused("missing layer", &missing, "expected a layer").await;

    let mut changed = files.clone();
    changed.0.insert(path.clone(), pack(&Layer::new().file("a", "b").finish(), Packing::Gzip));
    check_refused("changed layer", &changed, "digest does not match").await;

    let mut cut = files.clone();
    let half = files.0[&path][..files.0[&path].len() / 2].to_vec();
    cut.0.insert(path.clone(), half);
    check_refused("cut layer", &cut, "digest does not match").await;

    let mut garbage = files.clone();
    garbage.0.insert(path.clone(), vec![7; 5000]);
    check_refused("garbage for a layer", &garbage, "is larger than").await;

    let mut lying = manifest.clone();
    lying["layers"][0]["size"] = 1.into();
    check_refused("wrong size", &with_index(files.clone(), &lying), "larger than 1 bytes").await;

    let other = Layer::new().file("a", "b").finish();
    let (mut swapped, _) = layout(&[other], Packing::Gzip);
    let good = swapped.blob(&pack(&layer, Packing::Gzip));
    let config = swapped.blob(crate::stage::config(&[Layer::new().file("a", "b").finish()]).to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [good] });
    check_refused("wrong diff_id", &with_index(swapped, &manifest), "expected diff_id").await;

    let mut config = files.clone();
    let (_, manifest) = layout(&[layer], Packing::Gzip);
    config.0.insert(blob(&manifest["config"]["digest"]), b"{}".to_vec());
    check_refused("changed config", &config, "does not match").await;
}

#[tokio::test]
async fn a61_documents_that_lie_are_refused() {
    let layer = Layer::new().file("a", "a").finish();
    let (files, manifest) = layout(&[layer], Packing::Gzip);
    let rows: [(&str, Value, Value, &str); 4] = [
        ("unknown algorithm", json!("/layers/0/digest"), json!("md5:abc"), "64 hex digits"),
        ("digest that is a path", json!("/config/digest"), json!("sha256:../../../etc/passwd"), "64 hex digits"),
        ("foreign layer", json!("/layers/0/urls"), json!(["http://127.0.0.1/"]), "foreign layer"),
        (
            "100,000 layers",
            json!("/layers"),
            json!(vec![manifest["layers"][0].clone(); 100_000 / 100]),
            "1 to 127 layers",
        ),
    ];
    for (what, place, value, why) in rows {
        let mut lying = manifest.clone();
        let place = place.as_str().expect("a pointer");
        let (parent, key) = place.rsplit_once('/').expect("a pointer");
        lying.pointer_mut(parent).expect("a place")[key] = value;
        check_refused(what, &with_index(files.clone(), &lying), why).await;
    }
    let mut both = manifest.clone();
    both["manifests"] = json!([manifest["config"]]);
    check_refused("manifest and index at once", &with_index(files.clone(), &both), "found a mixture").await;
    let mut large = files.clone();
    large.0.insert("index.json".to_owned(), vec![b' '; 5 << 20]);
    check_refused("an index of 5 MiB", &large, "larger than").await;
    let nothing = Files::default();
    check_refused("no image at all", &nothing, "found neither").await;
    let mut fewer = files;
    let two = [Layer::new().finish(), Layer::new().file("b", "b").finish()];
    let config = fewer.blob(crate::stage::config(&two).to_string().as_bytes());
    let mismatch = json!({ "schemaVersion": 2, "config": config, "layers": manifest["layers"] });
    check_refused("fewer layers than diff_ids", &with_index(fewer, &mismatch), "expected 2 layers").await;
}

#[tokio::test]
async fn an_extension_header_of_a_lying_size_takes_no_memory() {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(8 << 30);
    header.set_cksum();
    let layer = header.as_bytes().to_vec();
    let (files, _) = layout(&[layer], Packing::Plain);
    check_refused("8 GiB of pax records", &files, "an extension header of 8589934592 bytes").await;
}

#[tokio::test]
async fn a_file_that_is_no_archive_is_refused() {
    let stage = Stage::new();
    let file = stage.directory.join("file");
    std::fs::write(&file, digest(b"x")).expect("written");
    let error = stage.images.import(&file, None).await.expect_err("no archive");
    assert!(told(&error).contains("expected a directory or a tar archive"), "{}", told(&error));
    let error = stage.images.import(&stage.directory.join("absent"), None).await.expect_err("no file");
    assert!(told(&error).contains("No such file"), "{}", told(&error));
}
