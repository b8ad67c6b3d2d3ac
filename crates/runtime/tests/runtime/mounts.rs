//! What is mounted into a container beside its root: image layers, read-only trees, mounts that come later.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use windlass_runtime::{Bind, ContainerSpec, Mount, Propagation};

use crate::bench::{Bench, Way, exec, on_each_way};

on_each_way! {
    the_files_of_an_image_are_mounted_without_being_written_or_executed,
    submounts_are_read_only_when_that_is_asked_for,
    later_mounts_are_seen_where_that_is_asked_for,
    the_machines_devices_are_mounted_as_they_are_and_left_as_they_were,
    nothing_of_a_container_is_mounted_in_the_machines_devices_though_they_are_shared,
}

fn memory(place: &Path) {
    fs::create_dir_all(place).expect("a directory");
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None).expect("a memory file system");
}

/// Nothing is mounted any more but the program that every instance starts its shims from.
fn left_nothing(bench: &Bench) {
    let traces = bench.traces();
    assert_eq!(traces.iter().filter(|trace| trace.starts_with("mount")).count(), 1, "{traces:?}");
}

fn bind(source: &Path, target: &str) -> Bind {
    Bind { source: source.to_owned(), target: target.into(), ..Bind::default() }
}

async fn the_files_of_an_image_are_mounted_without_being_written_or_executed(way: Way) {
    let bench = Bench::new(way).await;
    let (top, bottom) = (bench.dir.join("top"), bench.dir.join("bottom"));
    for (layer, word) in [(&top, "top"), (&bottom, "bottom")] {
        fs::create_dir_all(layer.join("dir")).expect("a layer");
        fs::write(layer.join("dir/file"), word).expect("a file");
        fs::write(layer.join(word), word).expect("a file");
    }
    fs::copy(bench.dir.join("layer/bin/busybox"), top.join("program")).expect("a program");
    std::os::unix::fs::symlink("/etc", top.join("out")).expect("a link");
    let layers = |layers: &[&Path], sub_path: Option<&str>, target: &str| Mount::Layers {
        layers: layers.iter().map(|layer| (*layer).to_owned()).collect(),
        sub_path: sub_path.map(Into::into),
        target: target.into(),
    };
    let mounts = vec![
        layers(&[&top, &bottom], None, "/two"),
        layers(&[&bottom], None, "/one"),
        layers(&[&top, &bottom], Some("dir"), "/part"),
    ];
    let sandbox = bench.sandbox("s").await;
    let line = "cat /two/dir/file /two/top /two/bottom /one/dir/file /part/file; echo; ls /one; \
                for f in /two/x /one/dir/file /part/x; do touch $f 2>&1 | grep -c Read-only; done; /two/program true 2>&1 | grep -c denied";
    bench.run(&sandbox, ContainerSpec { mounts, ..bench.shell("c", line) }).await;
    assert_eq!(bench.output("c"), "toptopbottombottomtop\nbottom\ndir\n1\n1\n1\n1\n");
    let used = windlass_runtime::Runtime::layers_in_use(&bench.config).expect("a list");
    assert!(used.contains(&top) && used.contains(&bottom), "nobody may remove them: {used:?}");
    for sub_path in ["out", "../layer", "missing"] {
        let mounts = vec![layers(&[&top], Some(sub_path), "/m")];
        let spec = ContainerSpec { mounts, ..bench.shell("d", "true") };
        let error = sandbox.create_container(spec).await.expect_err(sub_path).to_string();
        assert!(error.contains(&format!("volume path {sub_path}")), "{error}");
    }
    sandbox.stop().await.expect("stop");
    left_nothing(&bench);
}

async fn submounts_are_read_only_when_that_is_asked_for(way: Way) {
    let bench = Bench::new(way).await;
    let volume = bench.dir.join("volume");
    memory(&volume.join("inner"));
    let mounts = vec![
        Mount::Bind(Bind { read_only: true, ..bind(&volume, "/ro") }),
        Mount::Bind(Bind { read_only: true, recursive: true, ..bind(&volume, "/rro") }),
    ];
    let sandbox = bench.sandbox("s").await;
    let line = "for d in /ro /ro/inner /rro /rro/inner; do touch $d/x 2>/dev/null && echo $d; done";
    bench.run(&sandbox, ContainerSpec { mounts, ..bench.shell("c", line) }).await;
    assert_eq!(bench.output("c"), "/ro/inner\n");
    sandbox.stop().await.expect("stop");
    unmount(volume.join("inner"), UnmountFlags::DETACH).expect("ours");
}

async fn later_mounts_are_seen_where_that_is_asked_for(way: Way) {
    let bench = Bench::new(way).await;
    let volume = bench.dir.join("volume");
    memory(&volume);
    mount_change(&volume, MountPropagationFlags::SHARED).expect("ours");
    let with = |propagation, target| Mount::Bind(Bind { propagation, ..bind(&volume, target) });
    let mounts = vec![
        with(Propagation::Private, "/private"),
        with(Propagation::FromMachine, "/slave"),
        with(Propagation::Both, "/shared"),
    ];
    let sandbox = bench.sandbox("s").await;
    let spec = ContainerSpec { mounts, privileged: true, ..bench.shell("c", "sleep 1000") };
    sandbox.create_container(spec).await.expect("create");
    sandbox.start("c").await.expect("start");
    memory(&volume.join("ours"));
    fs::write(volume.join("ours/file"), "").expect("a file");
    let line = "ls /private/ours /slave/ours /shared/ours; mkdir /shared/theirs /slave/own; \
                mount -t tmpfs x /shared/theirs; mount -t tmpfs x /slave/own; touch /shared/theirs/file /slave/own/file; ls /private/theirs /slave/theirs";
    let (_, text, error) = exec(&sandbox, "c", line).await;
    let listed =
        "/private/ours:\n\n/shared/ours:\nfile\n\n/slave/ours:\nfile\n/private/theirs:\n\n/slave/theirs:\nfile\n";
    assert_eq!(text, listed, "{error}");
    assert!(volume.join("theirs/file").exists() && !volume.join("own/file").exists());
    sandbox.stop().await.expect("stop");
    assert!(volume.join("theirs/file").exists(), "what was passed on outlives the container");
    let refused = windlass_runtime::remove_tree(&volume).expect_err("something is mounted in it");
    assert!(volume.join("theirs/file").exists(), "{refused}");
    for place in ["theirs", "ours", ""] {
        unmount(volume.join(place), UnmountFlags::DETACH).expect("ours");
    }
    left_nothing(&bench);
}

async fn the_machines_devices_are_mounted_as_they_are_and_left_as_they_were(way: Way) {
    let bench = Bench::new(way).await;
    let look = || {
        let entries = fs::read_dir("/dev").expect("devices").flatten();
        let mut all: Vec<_> = entries
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with("windlass-test"))
            .map(|entry| (entry.file_name(), entry.metadata().expect("it is there").file_type()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    let before = look();
    let name = format!("windlass-test-{}-{way:?}", std::process::id());
    let (node, words) = (Path::new("/dev").join(&name), format!("/dev/{name}-words"));
    fs::write(&node, "the machine's").expect("/dev can be written");
    let said = bench.dir.join("said");
    fs::write(&said, "").expect("a file");
    let mounts = vec![
        Mount::Bind(bind(&said, &words)),
        Mount::Bind(Bind { propagation: Propagation::FromMachine, ..bind(Path::new("/dev"), "/dev") }),
    ];
    let sandbox = bench.sandbox("s").await;
    let line = format!(
        "cat /dev/{name}; echo; ls /dev/pts; echo shared > /dev/shm/x; \
         echo bye > {words}; echo > /dev/null; readlink /dev/fd; sleep 1000"
    );
    let spec = ContainerSpec { mounts, privileged: true, ..bench.shell("c", &line) };
    sandbox.create_container(spec).await.expect("create");
    sandbox.start("c").await.expect("start");
    let out = crate::bench::until("it speaks", || Some(bench.output("c")).filter(|out| out.contains("/fd"))).await;
    assert_eq!(out, "the machine's\nptmx\n/proc/self/fd\n");
    assert_eq!(fs::read_to_string(&said).expect("a file"), "bye\n", "what is mounted in it is seen");
    assert!(!Path::new("/dev/shm/x").exists(), "shared memory is the sandbox's");
    // What comes later is there too, and a terminal is the container's.
    let later = format!("/dev/{name}-later");
    fs::write(&later, "later").expect("/dev can be written");
    assert_eq!(exec(&sandbox, "c", &format!("cat {later}")).await.1, "later");
    assert_eq!(look(), before);
    sandbox.stop().await.expect("stop");
    for file in [&node, Path::new(&later), Path::new(&words)] {
        fs::remove_file(file).expect("it was left there");
    }
    assert_eq!(look(), before);
    left_nothing(&bench);
}

async fn nothing_of_a_container_is_mounted_in_the_machines_devices_though_they_are_shared(way: Way) {
    let bench = Bench::new(way).await;
    let devices = bench.dir.join("devices");
    memory(&devices);
    mount_change(&devices, MountPropagationFlags::SHARED).expect("ours");
    let null = std::process::Command::new("mknod").arg(devices.join("null")).args(["c", "1", "3"]).status();
    assert!(null.expect("mknod is there").success());
    let mounts = vec![Mount::Bind(Bind { propagation: Propagation::Both, ..bind(&devices, "/dev") })];
    let sandbox = bench.sandbox("s").await;
    let spec = ContainerSpec { mounts, privileged: true, ..bench.shell("c", "sleep 1000") };
    sandbox.create_container(spec).await.expect("create");
    sandbox.start("c").await.expect("start");
    let below = || {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("a table");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned));
        points.filter(|point| Path::new(point).starts_with(&devices)).collect::<Vec<_>>()
    };
    assert_eq!(below(), [devices.to_str().expect("text")], "only the machine's own");
    // What the machine mounts is seen.
    memory(&devices.join("later"));
    fs::write(devices.join("later/file"), "").expect("a file");
    let (_, text, error) = exec(&sandbox, "c", "ls /dev/later; mkdir /dev/own; mount -t tmpfs x /dev/own").await;
    assert_eq!(text, "file\n", "{error}");
    assert_eq!(below().len(), 2, "{:?}", below());
    sandbox.stop().await.expect("stop");
    for place in ["later", ""] {
        unmount(devices.join(place), UnmountFlags::DETACH).expect("ours");
    }
    left_nothing(&bench);
}
