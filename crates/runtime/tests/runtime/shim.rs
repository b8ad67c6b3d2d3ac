//! The agent comes and goes, shims are killed: containers survive the one, and are cleaned up after the other.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::time::timeout;
use windlass_runtime::{ContainerState, ExecSpec, ExitReason, RuntimeError};

use crate::bench::{Bench, PATIENCE, Way, exec, exited, on_each_way, pid, until};

on_each_way! {
    containers_survive_the_agent_and_nothing_is_lost_meanwhile,
    execs_of_an_agent_that_is_gone_are_ended,
    f47_a_killed_shim_is_noticed_its_containers_reported_and_nothing_left,
    a_shim_that_was_killed_while_nobody_looked_is_found_dead,
    a71_the_shims_own_program_cannot_be_overwritten_from_a_container,
    an_idle_shim_is_small,
    what_is_asked_for_is_finished_even_if_nobody_waits_for_it,
}

pub fn shim_pid(bench: &Bench, sandbox: &str) -> i32 {
    let file = bench.config.run.join("sandboxes").join(sandbox).join("shim.pid");
    fs::read_to_string(file).expect("a pid file").parse().expect("a number")
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
}

async fn containers_survive_the_agent_and_nothing_is_lost_meanwhile(way: Way) {
    let mut bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let gate = bench.dir.join("layer/gate");
    let mut spec = bench.shell("short", "echo one; while [ ! -e /gate ]; do sleep 0.05; done; echo two; exit 6");
    spec.labels.insert("who".into(), "me".into());
    spec.mounts = vec![];
    sandbox.create_container(spec).await.expect("create");
    sandbox.create_container(bench.shell("long", "while true; do sleep 0.1; done")).await.expect("create");
    for id in ["short", "long"] {
        sandbox.start(id).await.expect("start");
    }
    let (long, shim) = (pid(&sandbox, "long"), shim_pid(&bench, "s"));
    let inside = format!("/proc/{}/root/gate", pid(&sandbox, "short"));
    drop(sandbox);
    bench.drop_agent();

    fs::write(&inside, "").expect("open the gate");
    let exit_file = bench.config.run.join("sandboxes/s/containers/short/exit.json");
    until("the exit file", || exit_file.exists().then_some(())).await;
    assert!(!gate.exists());

    bench.new_agent().await;
    let sandbox = bench.runtime().sandbox("s").expect("it is found again");
    assert_eq!(shim_pid(&bench, "s"), shim);
    assert_eq!(pid(&sandbox, "long"), long);
    let exit = exited(&sandbox, "short").await;
    assert_eq!((exit.code, exit.reason), (6, ExitReason::Ended));
    assert_eq!(bench.output("short"), "one\ntwo\n");
    assert_eq!(sandbox.container_spec("short").expect("readable").expect("there").labels["who"], "me");
    assert_eq!(sandbox.spec().hostname, "host-s");
    assert_eq!(exec(&sandbox, "long", "echo still").await.1, "still\n");
    sandbox.remove("short").await.expect("remove");
    sandbox.stop().await.expect("stop");
}

async fn execs_of_an_agent_that_is_gone_are_ended(way: Way) {
    let mut bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("c", "sleep 1000")).await.expect("create");
    sandbox.start("c").await.expect("start");
    let args = ["sleep", "4321"].map(str::to_owned).to_vec();
    let process = sandbox.exec("c", ExecSpec { args, ..ExecSpec::default() }).await.expect("exec");
    drop((process, sandbox));
    bench.drop_agent();
    bench.new_agent().await;
    let sandbox = bench.runtime().sandbox("s").expect("it is found again");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while exec(&sandbox, "c", "ps -o args | grep -c '^sleep 4321'").await.1 != "0\n" {
        assert!(tokio::time::Instant::now() < deadline, "the exec'd process lives on");
    }
}

async fn f47_a_killed_shim_is_noticed_its_containers_reported_and_nothing_left(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("over", "exit 2")).await.expect("create");
    sandbox.create_container(bench.shell("runs", "sleep 1000")).await.expect("create");
    sandbox.create_container(bench.shell("waits", "true")).await.expect("create");
    sandbox.start("over").await.expect("start");
    sandbox.start("runs").await.expect("start");
    exited(&sandbox, "over").await;
    let running = pid(&sandbox, "runs");
    let mut events = sandbox.events();
    kill(shim_pid(&bench, "s"));
    let exit = exited(&sandbox, "runs").await;
    assert_eq!((exit.code, exit.reason), (255, ExitReason::Unknown));
    assert!(exit.started_at.is_some());
    assert_eq!(exited(&sandbox, "waits").await.reason, ExitReason::Unknown);
    assert_eq!(exited(&sandbox, "over").await.code, 2);
    let mut told = Vec::new();
    while let Some(event) = timeout(PATIENCE, events.next()).await.expect("the events end") {
        assert!(matches!(event.state, ContainerState::Exited(_)));
        told.push(event.id);
    }
    told.sort();
    assert_eq!(told, ["runs", "waits"]);
    assert!(!sandbox.is_alive());
    assert!(matches!(sandbox.start("waits").await, Err(RuntimeError::ShimLost { .. })));
    until("the container's end", || {
        fs::read(format!("/proc/{running}/cmdline")).map_or(true, |c| c.is_empty()).then_some(())
    })
    .await;
    sandbox.remove("runs").await.expect("remove");
    sandbox.stop().await.expect("stop");
    assert!(bench.runtime().sandboxes().is_empty());
    let left: Vec<String> = bench.traces().into_iter().filter(|trace| trace.contains("/sandboxes/s")).collect();
    assert_eq!(left, Vec::<String>::new());
    for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        assert!(!hierarchy.path().join(bench.config.cgroup_parent.trim_start_matches('/')).join("s").exists());
    }
}

async fn a_shim_that_was_killed_while_nobody_looked_is_found_dead(way: Way) {
    let mut bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("over", "exit 2")).await.expect("create");
    sandbox.create_container(bench.shell("runs", "sleep 1000")).await.expect("create");
    sandbox.start("over").await.expect("start");
    sandbox.start("runs").await.expect("start");
    exited(&sandbox, "over").await;
    drop(sandbox);
    let shim = shim_pid(&bench, "s");
    bench.drop_agent();
    kill(shim);
    bench.new_agent().await;
    let sandbox = bench.runtime().sandbox("s").expect("it is found again");
    assert!(!sandbox.is_alive());
    assert_eq!(exited(&sandbox, "over").await.code, 2);
    assert_eq!(exited(&sandbox, "runs").await.reason, ExitReason::Unknown);
    sandbox.stop().await.expect("stop");
}

async fn a71_the_shims_own_program_cannot_be_overwritten_from_a_container(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let shim = shim_pid(&bench, "s");
    let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{shim}/exe"));
    let error = opened.expect_err("must not be writable").raw_os_error();
    assert!(matches!(error, Some(libc::EROFS | libc::ETXTBSY)), "{error:?}");
    // Not only because it runs at this moment: the whole mount is read-only.
    let pinned = format!(" {} ", bench.config.run.join("exe").display());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    let line = mounts.lines().find(|line| line.contains(&pinned)).expect("it is mounted");
    assert!(line.contains(&format!("{pinned}ro")), "{line}");
    sandbox.stop().await.expect("stop");
}

async fn an_idle_shim_is_small(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("c", "sleep 1000")).await.expect("create");
    sandbox.start("c").await.expect("start");
    let smaps = format!("/proc/{}/smaps_rollup", shim_pid(&bench, "s"));
    let private = || {
        let text = fs::read_to_string(&smaps).expect("a map");
        let value = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("a value");
        value.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    // Unoptimized test builds carry more relocations than a release; the bound is for leaks, the benchmark for the figure.
    until("memory given back", || (private() < 2048).then_some(())).await;
}

async fn what_is_asked_for_is_finished_even_if_nobody_waits_for_it(way: Way) {
    let mut bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    {
        let create = sandbox.create_container(bench.shell("c", "sleep 1000"));
        // Polled once, so that it has begun, and then dropped.
        assert!(timeout(std::time::Duration::ZERO, create).await.is_err());
    }
    until("the container is there", || sandbox.state("c")).await;
    sandbox.start("c").await.expect("start");
    drop(sandbox);

    // The agent itself goes while a container is being made: the next one finds it made, or not at all.
    for round in 0..5 {
        let sandbox = bench.runtime().sandbox("s").expect("a sandbox");
        let id = format!("c{round}");
        let spec = bench.shell(&id, "sleep 1000");
        let create = sandbox.create_container(spec.clone());
        assert!(timeout(std::time::Duration::from_millis(round), create).await.is_err());
        bench.drop_agent();
        drop(sandbox);
        bench.new_agent().await;
        let sandbox = bench.runtime().sandbox("s").expect("it is found again");
        match sandbox.create_container(spec).await {
            Ok(()) => {}
            Err(RuntimeError::Exists { .. }) => {
                until("the container is there", || sandbox.state(&id)).await;
            }
            Err(error) => panic!("{error}"),
        }
        sandbox.start(&id).await.expect("start");
    }
}

/// A container's group in the hierarchy that can freeze it, and the file and words that do.
fn freezer(bench: &Bench) -> (PathBuf, &'static str, [&'static str; 2]) {
    let group = bench.config.cgroup_parent.trim_start_matches('/');
    let (v1, v2) = (Path::new("/sys/fs/cgroup/freezer"), Path::new("/sys/fs/cgroup"));
    match v1.is_dir() {
        true => (v1.join(group).join("s/c"), "freezer.state", ["FROZEN", "THAWED"]),
        false => (v2.join(group).join("s/c"), "cgroup.freeze", ["1", "0"]),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_whose_agent_is_gone_before_it_has_begun_is_ended() {
    let mut bench = Bench::new(Way::Embedded).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("c", "sleep 1000")).await.expect("create");
    sandbox.start("c").await.expect("start");
    let (group, file, [freeze, thaw]) = freezer(&bench);
    let members = || fs::read_to_string(group.join("cgroup.procs")).expect("a group").lines().count();
    fs::write(group.join(file), freeze).expect("it is frozen");
    let args = ["sleep", "4322"].map(str::to_owned).to_vec();
    let asking = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.exec("c", ExecSpec { args, ..ExecSpec::default() }).await.map(drop) }
    });
    until("who is to begin it is in the group, and stopped there", || (members() == 2).then_some(())).await;
    asking.abort();
    assert!(asking.await.expect_err("nobody waits for it any more").is_cancelled());
    drop(sandbox);
    bench.drop_agent();
    bench.new_agent().await;
    fs::write(group.join(file), thaw).expect("it goes on");
    until("nothing but the container's own process is left", || (members() == 1).then_some(())).await;
}
