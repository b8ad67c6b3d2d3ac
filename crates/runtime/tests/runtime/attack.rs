//! Attacks on the runtime, named by their rows: images that lie about users, rights that should be gone, and all
//! that a container can take.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use windlass_runtime::{ContainerSpec, ExecSpec, Resources, Rlimit, TerminalSize};

use crate::bench::{Bench, Way, exec, on_each_way, until};
use crate::shim::shim_pid;

on_each_way! {
    a62_a_user_database_that_lies_is_refused_and_never_read_outside,
    a74_the_rights_of_a_container_are_exactly_the_expected_ones,
    a82_output_that_nobody_reads_costs_nothing_and_its_exec_ends_with_who_asked,
    a82_terminals_resized_and_attachments_dropped_over_and_over_leave_nothing,
    a83_open_files_end_at_their_number,
    a83_shared_memory_and_files_in_memory_are_bounded,
    a86_who_a_container_is_does_not_change_from_start_to_start,
    a89_control_groups_are_seen_and_not_changed,
}

/// A layer over the usual one whose `/etc/passwd` is what `make` makes of it.
fn layer(bench: &Bench, name: &str, make: impl FnOnce(&PathBuf)) -> Vec<PathBuf> {
    let top = bench.dir.join(name);
    fs::create_dir_all(top.join("etc")).expect("a layer");
    fs::set_permissions(&top, Permissions::from_mode(0o755)).expect("ours");
    make(&top.join("etc/passwd"));
    vec![top, bench.dir.join("layer")]
}

/// A name, what becomes of `/etc/passwd`, and what the refusal says.
type Row<'a> = (&'a str, Box<dyn Fn(&PathBuf)>, &'a str);

async fn a62_a_user_database_that_lies_is_refused_and_never_read_outside(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let fifo = |path: &PathBuf| {
        assert!(Command::new("/usr/bin/mkfifo").arg(path).status().expect("coreutils").success());
    };
    let huge = |path: &PathBuf| fs::File::create(path).expect("a file").set_len(1 << 30).expect("a sparse file");
    let rows: [Row; 4] = [
        ("fifo", Box::new(fifo), "not a regular file"),
        ("huge", Box::new(huge), "longer than"),
        ("directory", Box::new(|path| fs::create_dir(path).expect("a directory")), "not a regular file"),
        ("link", Box::new(|path| symlink("../../../../../etc/passwd", path).expect("a link")), "not in the container"),
    ];
    for (name, make, why) in rows {
        let layers = layer(&bench, name, make);
        let spec = ContainerSpec { layers, user: "daemon".into(), ..bench.shell(name, "true") };
        let error = sandbox.create_container(spec).await.expect_err(name).to_string();
        assert!(error.contains(why) || error.contains("could not read"), "{name}: {error}");
    }
    for user in ["4294967295", "4294967296", "-1", "2147483648", "0:4294967295"] {
        let spec = ContainerSpec { user: user.into(), ..bench.shell("number", "true") };
        sandbox.create_container(spec).await.expect_err(user);
    }
}

async fn a74_the_rights_of_a_container_are_exactly_the_expected_ones(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("c", "sleep 1000")).await.expect("create");
    sandbox.start("c").await.expect("start");
    let (_, text, _) = exec(&sandbox, "c", "grep ^Cap /proc/self/status; grep ^Cap /proc/1/status").await;
    let expected = [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "00000000a00405fb"),
        ("CapEff", "00000000a00405fb"),
        ("CapBnd", "00000000a00405fb"),
        ("CapAmb", "0000000000000000"),
    ];
    let lines: Vec<String> = expected.iter().map(|(name, mask)| format!("{name}:\t{mask}")).collect();
    let found: Vec<&str> = text.lines().collect();
    assert_eq!(found, [lines.as_slice(), lines.as_slice()].concat());
}

async fn a82_output_that_nobody_reads_costs_nothing_and_its_exec_ends_with_who_asked(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("c", "sleep 1000")).await.expect("create");
    sandbox.start("c").await.expect("start");
    let args = ["cat", "/dev/zero"].map(str::to_owned).to_vec();
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(sandbox.exec("c", ExecSpec { args: args.clone(), ..ExecSpec::default() }).await.expect("exec"));
    }
    // The sandbox still answers, and at once.
    let answer = tokio::time::timeout(Duration::from_secs(20), exec(&sandbox, "c", "echo well"));
    assert_eq!(answer.await.expect("it answers").1, "well\n");
    for process in &unread {
        process.signal(libc::SIGKILL).await.expect("it can be killed");
    }
    drop(unread);
    sandbox.stop().await.expect("stop");
}

/// How many files a process has open.
fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

async fn a82_terminals_resized_and_attachments_dropped_over_and_over_leave_nothing(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let line = "while read -r line; do stty size; done & while :; do echo tick; sleep 0.01; done";
    let spec = ContainerSpec { tty: true, stdin: true, ..bench.shell("c", line) };
    sandbox.create_container(spec).await.expect("create");
    sandbox.start("c").await.expect("start");
    let shim = shim_pid(&bench, "s").unsigned_abs();
    let before = (open_files(std::process::id()), open_files(shim));
    for number in 0..10_000_u16 {
        let size = TerminalSize { columns: 1 + number % 500, rows: 1 + number % 300 };
        sandbox.resize("c", size).await.expect("a size");
    }
    let mut refused = 0;
    for _ in 0..50 {
        let attached = (0..20).map(|_| sandbox.attach("c", true, true, false));
        let attached = futures::future::join_all(attached).await;
        refused += attached.iter().filter(|attached| attached.is_err()).count();
        // Half of them hang up in the middle of what they are told.
        for mut attachment in attached.into_iter().flatten().step_by(2) {
            let mut chunk = [0; 3];
            let _ = attachment.stdout.as_mut().expect("it was asked for").read(&mut chunk).await;
        }
    }
    assert!(refused < 1000, "some of a thousand got in");
    assert_eq!(exec(&sandbox, "c", "echo well").await.1, "well\n");
    until("their files are closed", || {
        let now = (open_files(std::process::id()), open_files(shim));
        // Tests beside this one have files of their own; the shim has none but ours.
        (now.1 <= before.1 && now.0 < before.0 + 200).then_some(())
    })
    .await;
    sandbox.stop().await.expect("stop");
}

async fn a83_open_files_end_at_their_number(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let rlimits = vec![Rlimit { name: "nofile".into(), soft: 256, hard: 256 }];
    let line = "tail -q -n 0 $(i=0; while [ $i -lt 300 ]; do echo /etc/passwd; i=$((i+1)); done) 2>&1 | tail -n 1";
    bench.run(&sandbox, ContainerSpec { rlimits, ..bench.shell("c", line) }).await;
    assert!(bench.output("c").contains("Too many open files"), "{}", bench.output("c"));
}

async fn a83_shared_memory_and_files_in_memory_are_bounded(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let resources = Resources { memory_bytes: Some(96 << 20), pids: Some(64), ..Resources::default() };
    let line = "head -c 100000000 /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x; rm /dev/shm/x; \
                i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done; echo spawned";
    let spec = ContainerSpec { resources, ..bench.shell("c", &format!("exec 2>&1; {line}")) };
    bench.run(&sandbox, spec).await;
    let said = bench.output("c");
    assert!(said.contains("\n67108864\n") || said.starts_with("67108864\n"), "shared memory ends at its size: {said}");
    assert!(said.contains("fork"), "processes end at their number: {said}");
}

async fn a86_who_a_container_is_does_not_change_from_start_to_start(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    for round in 0..3 {
        let id = format!("c{round}");
        let spec =
            ContainerSpec { user: "1234:4321".into(), additional_gids: vec![77], ..bench.shell(&id, "id -u; id -G") };
        bench.run(&sandbox, spec).await;
        assert_eq!(bench.output(&id), "1234\n4321 77\n", "start {round}");
    }
}

async fn a89_control_groups_are_seen_and_not_changed(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let resources = Resources { memory_bytes: Some(32 << 20), ..Resources::default() };
    let line = "for f in $(find /sys/fs/cgroup -name '*limit_in_bytes' -o -name memory.max -o -name cgroup.procs -o -name tasks); do \
                (echo 0 > $f) 2>/dev/null && echo wrote $f; done; mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo made; \
                cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; echo end";
    bench.run(&sandbox, ContainerSpec { resources, ..bench.shell("c", line) }).await;
    assert_eq!(bench.output("c"), format!("{}\nend\n", 32 << 20));
}
