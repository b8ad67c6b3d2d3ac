//! What a container cannot see, write or become.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use windlass_runtime::{Bind, Capabilities, ContainerSpec, Mount, NetworkMode, PidMode, SandboxSpec};

use crate::bench::{Bench, PATIENCE, Way, exec, exited, on_each_way, pid, until};

on_each_way! {
    a77_kernel_files_cannot_be_written_and_secrets_not_read,
    a79_devices_other_than_the_usual_are_out_of_reach,
    forbidden_system_calls_fail_as_they_should,
    a_read_only_root_is_read_only_and_its_volumes_are_not,
    a73_a_sub_path_that_leads_outside_is_refused,
    a65_links_in_the_image_do_not_lead_mounts_outside,
    many_layers_fit,
    containers_of_a_sandbox_share_its_name_ipc_and_memory_but_not_their_processes,
    a_shared_process_namespace_shows_all_and_ends_with_the_sandbox,
    a_sandbox_lives_in_the_network_it_is_given,
    a_privileged_container_has_every_right_this_machine_can_give,
}

/// Runs a line of shell as its own container and returns what it said.
async fn said(bench: &Bench, change: impl FnOnce(ContainerSpec) -> ContainerSpec, line: &str) -> String {
    let sandbox = bench.sandbox("s").await;
    bench.run(&sandbox, change(bench.shell("c", &format!("exec 2>&1; {line}")))).await;
    sandbox.stop().await.expect("stop");
    bench.output("c")
}

async fn a77_kernel_files_cannot_be_written_and_secrets_not_read(way: Way) {
    let bench = Bench::new(way).await;
    let line = "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/swappiness /proc/irq/default_smp_affinity \
                /sys/kernel/uevent_helper /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/release_agent \
                /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu/cgroup.procs; do [ -e $f ] && (echo 1 > $f) 2>/dev/null && echo wrote $f; done; \
                for f in kcore keys timer_list sched_debug; do head -c 1 /proc/$f 2>/dev/null | wc -c; done; ls /sys/firmware | wc -l; mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; echo end";
    assert_eq!(said(&bench, |spec| spec, line).await, "0\n0\n0\n0\n0\nend\n");
}

async fn a79_devices_other_than_the_usual_are_out_of_reach(way: Way) {
    let bench = Bench::new(way).await;
    let mut capabilities = Capabilities::default();
    capabilities.add("MKNOD").expect("a name");
    let line = "head -c 3 /dev/zero | wc -c; echo x > /dev/null && ls -l /dev/shm /dev/mqueue >/dev/null && echo ok; \
                mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem; mknod /tmp/tun c 10 200 && head -c 1 /tmp/tun; echo end";
    let text = said(&bench, |spec| ContainerSpec { capabilities, ..spec }, line).await;
    assert!(text.starts_with("3\nok\n") && text.ends_with("end\n"), "{text}");
    assert_eq!(text.matches("Operation not permitted").count(), 2, "{text}");
    let text = said(&bench, |spec| ContainerSpec { id: "c".into(), ..spec }, "mknod /tmp/n c 1 3; echo end").await;
    assert!(text.contains("Operation not permitted"), "{text}");
}

async fn forbidden_system_calls_fail_as_they_should(way: Way) {
    let bench = Bench::new(way).await;
    // unshare and mount are refused by the filter also to one who has every right inside.
    let line =
        "unshare -m true; echo $?; mount -t tmpfs x /tmp; echo $?; chroot / true; echo $?; dmesg >/dev/null; echo $?";
    let text = said(&bench, |spec| spec, line).await;
    assert_eq!(text.matches("Operation not permitted").count(), 2, "{text}");
    assert!(text.contains("mount: permission denied"), "{text}");
    let codes: Vec<&str> = text.lines().filter(|line| line.len() == 1).collect();
    assert_eq!(codes, ["1", "1", "0", "1"], "{text}");
}

async fn a_read_only_root_is_read_only_and_its_volumes_are_not(way: Way) {
    let bench = Bench::new(way).await;
    let volume = bench.dir.join("volume");
    std::fs::create_dir_all(volume.join("sub")).expect("a volume");
    std::fs::write(volume.join("file"), "content").expect("a file");
    let bind = |target: &str, sub_path: Option<&str>, read_only| {
        let (source, sub_path) = (volume.clone(), sub_path.map(Into::into));
        Mount::Bind(Bind { source, sub_path, target: target.into(), read_only, ..Bind::default() })
    };
    let mounts = vec![
        bind("/data/rw", None, false),
        bind("/data/ro", None, true),
        bind("/data/sub", Some("sub"), false),
        bind("/data/file", Some("file"), true),
        bind("/data/new", Some("made/deep"), false),
        Mount::Tmpfs { target: "/scratch".into(), bytes_max: Some(1 << 20) },
    ];
    let line = "touch /x && echo root; touch /data/ro/x && echo ro; echo a > /data/rw/a && echo rw; echo b > /data/sub/b && echo sub; \
                cat /data/file; echo; touch /data/file && echo file; touch /data/new/c && echo new; \
                head -c 2000000 /dev/zero > /scratch/x; stat -c %s /scratch/x; df -k /dev/shm | tail -1 | awk '{print $2}'";
    let text = said(&bench, |spec| ContainerSpec { mounts, read_only_root: true, ..spec }, line).await;
    let good: Vec<&str> = text.lines().filter(|line| !line.contains(':')).collect();
    assert_eq!(good, ["rw", "sub", "content", "new", "1048576", "65536"], "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
    assert!(volume.join("sub/b").exists() && volume.join("made/deep/c").exists());
    assert!(!bench.dir.join("layer/x").exists(), "the image is never written to");
}

async fn a73_a_sub_path_that_leads_outside_is_refused(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let volume = bench.dir.join("volume");
    std::fs::create_dir(&volume).expect("a volume");
    symlink("/etc", volume.join("evil")).expect("a link");
    for sub_path in ["evil", "evil/passwd", "../layer", "x/../../layer"] {
        let (source, sub_path_buf) = (volume.clone(), Some(sub_path.into()));
        let mount = Mount::Bind(Bind { source, sub_path: sub_path_buf, target: "/m".into(), ..Bind::default() });
        let spec = ContainerSpec { mounts: vec![mount], ..bench.shell("c", "true") };
        let error = sandbox.create_container(spec).await.expect_err(sub_path).to_string();
        assert!(error.contains(&format!("volume path {sub_path}")), "{error}");
    }
}

async fn a65_links_in_the_image_do_not_lead_mounts_outside(way: Way) {
    let bench = Bench::new(way).await;
    let (top, outside, volume) = (bench.dir.join("top"), bench.dir.join("outside"), bench.dir.join("volume"));
    for directory in [&top, &outside, &volume] {
        std::fs::create_dir(directory).expect("a directory");
    }
    symlink("/", top.join("proc")).expect("a link");
    symlink(&outside, top.join("out")).expect("a link");
    symlink("/srv", top.join("in")).expect("a link");
    let sandbox = bench.sandbox("s").await;
    let spec = |target: &str| {
        let mount = Mount::Bind(Bind { source: volume.clone(), target: target.into(), ..Bind::default() });
        let layers = vec![top.clone(), bench.dir.join("layer")];
        ContainerSpec { layers, mounts: vec![mount], ..bench.shell("c", "echo x > /srv/here/x; echo end") }
    };
    let refused = async |spec| match sandbox.create_container(spec).await {
        Ok(()) => {
            let refused = sandbox.start("c").await;
            exited(&sandbox, "c").await;
            sandbox.remove("c").await.expect("remove");
            refused
        }
        refused => refused,
    };
    let error = refused(spec("/in/here")).await.expect_err("/proc is a link").to_string();
    assert!(error.contains("must be mounted on ordinary directory"), "{error}");
    std::fs::remove_file(top.join("proc")).expect("our own link");
    match (way, refused(spec("/out/here")).await) {
        (Way::Embedded, out) => {
            let error = out.expect_err("a link to nowhere inside").to_string();
            assert!(error.contains("/out/here"), "{error}");
        }
        // It makes inside what the link would be inside.
        (Way::Runc, out) => out.expect("it is run"),
    }
    assert_eq!(
        std::fs::read_dir(&outside).expect("a directory").count(),
        0,
        "the link was followed out of the container"
    );
    // A link that stays inside is what it says: images have /var/run as a link to /run.
    bench.run(&sandbox, spec("/in/here")).await;
    assert!(bench.output("c").ends_with("end\n"));
    assert!(volume.join("x").exists());
}

/// A neighbour that shares a volume swaps a directory in it for a link that leads out, while mounts are made below it.
///
/// Embedded only: runc before 1.1.14 makes empty directories outside (CVE-2024-45310).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a65_a_mount_target_that_is_swapped_for_a_link_leads_no_mount_outside() {
    let bench = Bench::new(Way::Embedded).await;
    let (shared, inner, outside) = (bench.dir.join("shared"), bench.dir.join("inner"), bench.dir.join("outside"));
    for directory in [&shared, &inner, &outside, &shared.join("t")] {
        std::fs::create_dir(directory).expect("a directory");
    }
    // Whichever way it is followed: as a path of the machine, or up from where the volume is mounted.
    symlink(&outside, shared.join("absolute")).expect("a link");
    let up = format!("{}{}", "../".repeat(20), outside.strip_prefix("/").expect("absolute").display());
    symlink(up, shared.join("up")).expect("a link");
    let (directory, done) = (shared.clone(), Arc::new(AtomicBool::new(false)));
    let stop = done.clone();
    let racer = std::thread::spawn(move || {
        let mut swaps = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            for link in ["absolute", "up"] {
                for _ in 0..2 {
                    let (link, target) = (directory.join(link), directory.join("t"));
                    let swapped = renameat_with(CWD, &link, CWD, &target, RenameFlags::EXCHANGE);
                    swapped.expect("both are there, and nobody else renames");
                    swaps += 1;
                }
            }
        }
        swaps
    });
    let sandbox = bench.sandbox("s").await;
    let (mut made, mut refused) = (0, 0);
    for number in 0..60 {
        let at = |source: &PathBuf, target: &str| {
            Mount::Bind(Bind { source: source.clone(), target: target.into(), ..Bind::default() })
        };
        let mounts = vec![at(&shared, "/v"), at(&inner, &format!("/v/t/m{number}"))];
        let id = format!("c{number}");
        let spec = ContainerSpec { mounts, ..bench.shell(&id, "true") };
        match sandbox.create_container(spec).await {
            Ok(()) => {
                made += 1;
                sandbox.remove(&id).await.expect("one that never ran can be removed");
            }
            Err(_) => refused += 1,
        }
    }
    done.store(true, Ordering::Relaxed);
    let swaps = racer.join().expect("the racer ends");
    assert!(swaps > 1000, "{swaps} swaps; made and refused: {made}, {refused}");
    assert_eq!(std::fs::read_dir(&outside).expect("a directory").count(), 0, "nothing was made outside");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&*outside.to_string_lossy()), "nothing was mounted outside");
}

async fn many_layers_fit(way: Way) {
    let bench = Bench::new(way).await;
    let mut layers = Vec::new();
    for number in 0..150 {
        let layer = bench.dir.join(format!("a-layer-with-a-long-name-as-digests-are-0123456789abcdef-{number}"));
        std::fs::create_dir(&layer).expect("a layer");
        std::fs::write(layer.join("top"), format!("{number}\n")).expect("a file");
        layers.push(layer);
    }
    layers.push(bench.dir.join("layer"));
    let text = said(&bench, |spec| ContainerSpec { layers, ..spec }, "cat /top").await;
    assert_eq!(text, "0\n", "the first layer is the topmost");
}

async fn containers_of_a_sandbox_share_its_name_ipc_and_memory_but_not_their_processes(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    for (id, line) in [("a", "sleep 1111"), ("b", "sleep 2222")] {
        sandbox.create_container(bench.shell(id, line)).await.expect("create");
        sandbox.start(id).await.expect("start");
    }
    let look = "hostname; for n in uts ipc net pid mnt; do readlink /proc/self/ns/$n; done";
    let (_, a, _) = exec(&sandbox, "a", look).await;
    let (_, b, _) = exec(&sandbox, "b", look).await;
    let (a, b): (Vec<_>, Vec<_>) = (a.lines().collect(), b.lines().collect());
    assert_eq!(a[0], "host-s");
    assert_eq!(a[..4], b[..4]);
    assert!(a[4] != b[4] && a[5] != b[5], "{a:?} {b:?}");
    let machine = std::fs::read_link("/proc/self/ns/uts").expect("a namespace");
    assert_ne!(a[1], machine.to_string_lossy());
    exec(&sandbox, "a", "echo shared > /dev/shm/x").await;
    assert_eq!(exec(&sandbox, "b", "cat /dev/shm/x; ps -o args | grep -c '[1]111'").await.1, "shared\n0\n");
}

async fn a_shared_process_namespace_shows_all_and_ends_with_the_sandbox(way: Way) {
    let bench = Bench::new(way).await;
    let spec = SandboxSpec { pid: PidMode::Sandbox, ..bench.spec("s") };
    let sandbox = bench.runtime().create_sandbox(spec).await.expect("a sandbox");
    for id in ["a", "b"] {
        sandbox.create_container(bench.shell(id, "sleep 1000 & sleep 2000")).await.expect("create");
        sandbox.start(id).await.expect("start");
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while exec(&sandbox, "a", "ps -o args | grep -c '^sleep'").await.1 != "4\n" {
        assert!(tokio::time::Instant::now() < deadline, "not all processes are seen");
    }
    sandbox.stop_container("a", libc::SIGKILL, std::time::Duration::ZERO).await.expect("stop");
    let count = exec(&sandbox, "b", "ps -o args | grep -c '^sleep'").await.1;
    assert_eq!(count, "2\n", "what the first process leaves behind is killed with it");
}

async fn a_sandbox_lives_in_the_network_it_is_given(way: Way) {
    let bench = Bench::new(way).await;
    let pin = bench.dir.join("netns");
    std::fs::write(&pin, "").expect("a file");
    pin_new_network(&pin);
    let spec = SandboxSpec {
        network: NetworkMode::Path(pin.clone()),
        sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into(),
        ..bench.spec("s")
    };
    let sandbox = bench.runtime().create_sandbox(spec).await.expect("a sandbox");
    sandbox.create_container(bench.shell("c", "sleep 1000")).await.expect("create");
    sandbox.start("c").await.expect("start");
    let (_, text, _) =
        exec(&sandbox, "c", "ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start").await;
    assert_eq!(text, "lo\n0\n");
    let theirs = std::fs::read_link(format!("/proc/{}/ns/net", pid(&sandbox, "c"))).expect("a namespace");
    assert_ne!(theirs, std::fs::read_link("/proc/self/ns/net").expect("a namespace"));
    sandbox.stop().await.expect("stop");
    until("the pin is free", || rustix::mount::unmount(&pin, rustix::mount::UnmountFlags::DETACH).ok()).await;

    let missing = SandboxSpec { network: NetworkMode::Path("/no/netns".into()), ..bench.spec("t") };
    let error = bench.runtime().create_sandbox(missing).await.expect_err("no such network").to_string();
    assert!(error.contains("could not enter the network namespace /no/netns"), "{error}");
}

async fn a_privileged_container_has_every_right_this_machine_can_give(way: Way) {
    let bench = Bench::new(way).await;
    let line = "mkdir /m; mount -t tmpfs x /m && echo mounted; grep -E '^(CapEff|Seccomp):' /proc/self/status; \
                mknod /tun c 10 200; head -c 1 /tun 2>&1 | grep -c 'not permitted'";
    let text = said(&bench, |spec| ContainerSpec { privileged: true, ..spec }, line).await;
    let own = std::fs::read_to_string("/proc/self/status").expect("a status");
    let rights = own.lines().find(|line| line.starts_with("CapEff")).expect("rights");
    assert_eq!(text, format!("mounted\n{rights}\nSeccomp:\t0\n0\n"));
}

/// A new network namespace, pinned at a file; made in a thread that ends at once.
fn pin_new_network(pin: &std::path::Path) {
    let pin = pin.to_owned();
    let made = std::thread::spawn(move || {
        #[expect(unsafe_code, reason = "unshare changes this thread alone, and it ends at once")]
        // SAFETY: no file descriptor table or memory is unshared, only the network.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("unshare");
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &pin).expect("pin");
    });
    made.join().expect("a network");
}
