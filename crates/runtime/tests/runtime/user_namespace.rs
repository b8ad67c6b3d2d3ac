//! Root inside is nobody outside: a sandbox with a user namespace of its own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use windlass_runtime::{Bind, ContainerSpec, Mount, PidMode, Sandbox, SandboxSpec};

use crate::bench::{Bench, Way, exec, on_each_way, pid};

on_each_way! {
    a80_root_inside_is_nobody_outside_and_sandboxes_share_no_id,
    an_exec_is_in_the_same_user_namespace_with_the_same_rights,
    files_of_the_image_and_of_volumes_belong_to_the_same_users_inside,
    root_inside_has_no_right_over_what_is_the_machines,
    containers_with_a_user_namespace_may_share_their_processes,
    a_user_beyond_the_ids_of_its_namespace_is_refused_with_the_reason,
}

async fn sandbox(bench: &Bench, id: &str, pid: PidMode) -> Sandbox {
    let sysctls = [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into();
    let spec = SandboxSpec { user_namespace: true, pid, sysctls, ..bench.spec(id) };
    bench.runtime().create_sandbox(spec).await.expect("a sandbox")
}

async fn begin(bench: &Bench, sandbox: &Sandbox, spec: ContainerSpec) {
    let id = spec.id.clone();
    if let Err(error) = sandbox.create_container(spec).await {
        panic!("{error:?}");
    }
    if let Err(error) = sandbox.start(&id).await {
        panic!("{error:?}: {}", bench.output(&id));
    }
}

/// The id outside of a process's user.
fn uid(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}")).expect("it runs").uid()
}

async fn a80_root_inside_is_nobody_outside_and_sandboxes_share_no_id(way: Way) {
    let bench = Bench::new(way).await;
    let mut firsts = Vec::new();
    for id in ["s", "t"] {
        let sandbox = sandbox(&bench, id, PidMode::Container).await;
        begin(&bench, &sandbox, bench.shell(&format!("c{id}"), "sleep 1000")).await;
        let first = sandbox.user_ids().expect("it has ids");
        assert_eq!(uid(pid(&sandbox, &format!("c{id}"))), first);
        assert!(first >= 65536, "{first}");
        let (code, text, error) = exec(&sandbox, &format!("c{id}"), "id -u; cat /proc/self/uid_map; hostname").await;
        assert_eq!(code.code, 0, "{text} {error}");
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, ["0", "0", &first.to_string(), "65536", &format!("host-{id}")]);
        firsts.push(first);
    }
    assert_eq!(firsts[0].abs_diff(firsts[1]) % 65536, 0);
    assert_ne!(firsts[0], firsts[1]);
}

async fn an_exec_is_in_the_same_user_namespace_with_the_same_rights(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = sandbox(&bench, "s", PidMode::Container).await;
    begin(&bench, &sandbox, bench.shell("c", "sleep 1000")).await;
    let init = pid(&sandbox, "c");
    let look = "grep -E '^(Uid|Gid|Cap|Seccomp|NoNewPrivs)' /proc/self/status; cat /proc/self/uid_map; readlink /proc/self/ns/user";
    let (_, own, _) = exec(&sandbox, "c", look).await;
    let status = fs::read_to_string(format!("/proc/{init}/status")).expect("it runs");
    let first = sandbox.user_ids().expect("it has ids");
    for line in own.lines().filter(|line| line.starts_with("Cap") || line.starts_with("Seccomp:")) {
        assert!(status.contains(line), "{line} is not init's:\n{status}");
    }
    assert!(own.contains(&format!("{first}")), "{own}");
    let user = fs::read_link(format!("/proc/{init}/ns/user")).expect("a namespace");
    assert!(own.ends_with(&format!("{}\n", user.display())), "{own} {user:?}");
}

async fn files_of_the_image_and_of_volumes_belong_to_the_same_users_inside(way: Way) {
    let bench = Bench::new(way).await;
    let volume = bench.dir.join("volume");
    fs::create_dir_all(volume.join("sub")).expect("a volume");
    fs::write(volume.join("file"), "content").expect("a file");
    let bind = |target: &str, sub_path: Option<&str>, read_only| {
        let (source, sub_path) = (volume.clone(), sub_path.map(Into::into));
        Mount::Bind(Bind { source, sub_path, target: target.into(), read_only, ..Bind::default() })
    };
    let mounts = vec![
        bind("/data", None, false),
        bind("/ro", None, true),
        bind("/sub", Some("sub"), false),
        bind("/one", Some("file"), true),
        Mount::Tmpfs { target: "/scratch".into(), bytes_max: Some(1 << 20) },
    ];
    let sandbox = sandbox(&bench, "s", PidMode::Container).await;
    begin(&bench, &sandbox, ContainerSpec { mounts, ..bench.shell("c", "sleep 1000") }).await;
    let look = "stat -c '%u %n' /bin /data /data/file /ro /one /dev/shm; echo x > /data/new && echo y > /sub/deep && echo z > /bin/new; \
                chown 5:6 /data/new; touch /ro/x 2>/dev/null && echo wrote; touch /one 2>/dev/null && echo wrote; \
                touch /scratch/x /dev/shm/x && cat /one; ls /dev/mqueue && echo ok; ls /sys/class/net >/dev/null && echo net; \
                cat /proc/sys/kernel/shm_rmid_forced; mkdir /sys/fs/cgroup/x 2>/dev/null && echo made";
    let (_, text, error) = exec(&sandbox, "c", look).await;
    let expected = "0 /bin\n0 /data\n0 /data/file\n0 /ro\n0 /one\n0 /dev/shm\ncontentok\nnet\n1\n";
    assert_eq!(text, expected, "{error}");
    let made = fs::metadata(volume.join("new")).expect("it was made");
    assert_eq!((made.uid(), made.gid()), (5, 6), "what is written to a volume has the ids that were meant");
    assert_eq!(fs::metadata(volume.join("sub/deep")).expect("it was made").uid(), 0);
    assert!(!bench.dir.join("layer/bin/new").exists(), "the image is never written to");
}

async fn root_inside_has_no_right_over_what_is_the_machines(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = sandbox(&bench, "s", PidMode::Container).await;
    begin(&bench, &sandbox, ContainerSpec { privileged: true, ..bench.shell("c", "sleep 1000") }).await;
    // A privileged container has every capability, and they are worth nothing outside of its namespace.
    let look = "mkdir /m; mount -t tmpfs x /m && echo mounted; dd if=/dev/vda of=/dev/null count=1 2>/dev/null && echo read; \
                mknod /m/x b 254 0 2>/dev/null && echo made; echo 1 > /proc/sys/kernel/panic 2>/dev/null && echo wrote; echo end";
    let (_, text, error) = exec(&sandbox, "c", look).await;
    assert_eq!(text, "mounted\nend\n", "{error}");
}

async fn containers_with_a_user_namespace_may_share_their_processes(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = sandbox(&bench, "s", PidMode::Sandbox).await;
    begin(&bench, &sandbox, bench.shell("a", "sleep 1111")).await;
    begin(&bench, &sandbox, bench.shell("b", "sleep 2222")).await;
    let (_, text, error) =
        exec(&sandbox, "a", "ps -o args | grep -c '^sleep'; ls /dev/mqueue; ipcs -q | head -1").await;
    assert!(text.starts_with("2\n"), "{text} {error}");
}

async fn a_user_beyond_the_ids_of_its_namespace_is_refused_with_the_reason(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = sandbox(&bench, "s", PidMode::Container).await;
    let spec = ContainerSpec { user: "70000".into(), ..bench.shell("c", "true") };
    let error = sandbox.create_container(spec).await.expect_err("no such id").to_string();
    assert!(error.contains("id 70000 is beyond the 65536 ids"), "{error}");
}
