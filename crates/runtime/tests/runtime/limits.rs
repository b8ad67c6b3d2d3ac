//! Limits: they stand in the kernel's files, hold, and what they end is reported as such.

use std::fs;
use std::path::PathBuf;

use windlass_runtime::{ContainerSpec, ExitReason, Resources, SandboxSpec};

use crate::bench::{Bench, Way, exec, on_each_way, pid, until};

on_each_way! {
    limits_stand_in_the_control_group_files_and_can_be_changed,
    a_container_that_takes_too_much_memory_is_reported_as_out_of_memory,
    a83_a_fork_bomb_stays_in_its_container,
    what_containers_use_is_counted_together_and_each,
}

/// The file of a container's control group, by its names in v1 and v2.
fn group_file(pid: u32, v1: (&str, &str), v2: &str) -> String {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("groups");
    let unified = fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok();
    let find = |controller: &str| {
        let line =
            groups.lines().find(|line| line.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == controller)));
        line.expect("its controller").splitn(3, ':').nth(2).expect("a path").trim_start_matches('/').to_owned()
    };
    let path = match unified {
        true => PathBuf::from("/sys/fs/cgroup").join(find("")).join(v2),
        false => PathBuf::from("/sys/fs/cgroup").join(v1.0).join(find(v1.0)).join(v1.1),
    };
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

async fn limits_stand_in_the_control_group_files_and_can_be_changed(way: Way) {
    let bench = Bench::new(way).await;
    let resources = Resources { memory_bytes: Some(512 << 20), pids: Some(100), ..Resources::default() };
    let spec = SandboxSpec { resources, ..bench.spec("s") };
    let sandbox = bench.runtime().create_sandbox(spec).await.expect("a sandbox");
    let resources = Resources {
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        memory_bytes: Some(64 << 20),
        pids: Some(32),
        huge_2mi_bytes: Some(0),
        cpus: Some([0].into_iter().collect()),
        ..Resources::default()
    };
    sandbox.create_container(ContainerSpec { resources, ..bench.shell("c", "sleep 1000") }).await.expect("create");
    sandbox.start("c").await.expect("start");
    let pid = pid(&sandbox, "c");
    assert_eq!(group_file(pid, ("memory", "memory.limit_in_bytes"), "memory.max"), (64 << 20).to_string());
    assert_eq!(group_file(pid, ("pids", "pids.max"), "pids.max"), "32");
    assert_eq!(group_file(pid, ("cpuset", "cpuset.cpus"), "cpuset.cpus"), "0");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains("\nCpus_allowed_list:\t0\n"), "{status}");
    if fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_err() {
        assert_eq!(group_file(pid, ("cpu", "cpu.shares"), ""), "512");
        assert_eq!(group_file(pid, ("cpu", "cpu.cfs_quota_us"), ""), "50000");
        assert_eq!(group_file(pid, ("memory", "../memory.limit_in_bytes"), ""), (512 << 20).to_string());
        // A program inside sees its own limit where it looks for it.
        assert_eq!(exec(&sandbox, "c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes").await.1, "67108864\n");
    }
    for memory in [256 << 20, 32 << 20] {
        let resources = Resources { memory_bytes: Some(memory), ..resources };
        sandbox.update("c", resources).await.expect("update");
        assert_eq!(group_file(pid, ("memory", "memory.limit_in_bytes"), "memory.max"), memory.to_string());
    }
}

async fn a_container_that_takes_too_much_memory_is_reported_as_out_of_memory(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let resources = Resources { memory_bytes: Some(16 << 20), ..Resources::default() };
    let hog = ContainerSpec { resources, ..bench.shell("hog", "exec tail -c 100000000 /dev/zero") };
    let exit = bench.run(&sandbox, hog).await;
    assert_eq!((exit.code, exit.oom, exit.reason), (137, true, ExitReason::OutOfMemory));
    let survivor = ContainerSpec { resources, ..bench.shell("survivor", "tail -c 100000000 /dev/zero; exit 4") };
    let exit = bench.run(&sandbox, survivor).await;
    assert_eq!((exit.code, exit.oom, exit.reason), (4, false, ExitReason::Ended));
}

async fn a83_a_fork_bomb_stays_in_its_container(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let resources = Resources { pids: Some(20), ..Resources::default() };
    let bomb = ContainerSpec {
        resources,
        // The first process forks no more: a shell that cannot would end.
        ..bench.shell("bomb", "(b() { b | b & }; b) 2>/dev/null & exec sleep 1000")
    };
    sandbox.create_container(bomb).await.expect("create");
    sandbox.start("bomb").await.expect("start");
    let pid = pid(&sandbox, "bomb");
    until("the limit is felt", || {
        let events = group_file(pid, ("pids", "pids.events"), "pids.events");
        (!events.ends_with("max 0")).then_some(())
    })
    .await;
    sandbox.stop_container("bomb", libc::SIGKILL, std::time::Duration::ZERO).await.expect("stop");
    sandbox.remove("bomb").await.expect("remove");
}

async fn what_containers_use_is_counted_together_and_each(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    // One that computes and holds pages, one that does nothing.
    let busy = "x=$(head -c 8000000 /dev/zero | tr '\\0' a); i=0; while true; do i=$((i+1)); done";
    for (id, line) in [("busy", busy), ("idle", "sleep 1000")] {
        sandbox.create_container(bench.shell(id, line)).await.expect("create");
        sandbox.start(id).await.expect("start");
    }
    let seen = async {
        loop {
            let usage = sandbox.usage().await.expect("it lives");
            let busy = usage.containers["busy"];
            if busy.cpu_ns >= 200_000_000 && busy.rss_bytes >= 8_000_000 {
                return usage;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let usage = tokio::time::timeout(std::time::Duration::from_secs(30), seen).await.expect("it is busy");
    let (busy, idle) = (usage.containers["busy"], usage.containers["idle"]);
    assert!(busy.cpu_ns > idle.cpu_ns && busy.working_set_bytes > idle.working_set_bytes, "{usage:?}");
    assert!(usage.whole.cpu_ns >= busy.cpu_ns && usage.whole.working_set_bytes >= busy.working_set_bytes, "{usage:?}");
    assert!(idle.page_faults > 0 && idle.pids == 1 && usage.whole.pids >= 2, "{usage:?}");
    assert!(bench.runtime().usage().cpu_ns >= usage.whole.cpu_ns);
}
