//! One more process in a running container has exactly the rights of its first, and its streams work.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use windlass_runtime::{ContainerSpec, ExecSpec, Process, Rlimit, RuntimeError, Seccomp, TerminalSize};

use crate::bench::{Bench, PATIENCE, Way, exec, on_each_way, pid, until};

on_each_way! {
    an_exec_is_what_init_is_for_root,
    an_exec_is_what_init_is_for_a_user_without_privileges,
    an_unconfined_container_has_no_filter_in_init_or_exec,
    streams_carry_every_byte_and_exit_codes_come_back,
    an_exec_may_have_a_terminal_with_a_size,
    an_exec_that_cannot_be_says_why,
    an_exec_ends_with_its_container_or_by_a_signal,
    many_execs_at_once_do_not_mix_their_streams,
}

/// What a process is, as the kernel tells it: identity, rights, groups, namespaces.
const PORTRAIT: &str = "grep -E '^(Uid|Gid|Groups|Cap[A-Z][a-z]+|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/self/status; cat /proc/self/uid_map \
     /proc/self/gid_map /proc/self/cgroup /proc/self/oom_score_adj /proc/self/limits; umask; pwd; \
     for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; env | grep -v ^SHLVL | sort";

async fn both_portraits(way: Way, change: impl FnOnce(ContainerSpec) -> ContainerSpec) -> (String, String) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let spec = bench.shell("c", &format!("{PORTRAIT}; echo end; sleep 1000"));
    sandbox.create_container(change(spec)).await.expect("create");
    sandbox.start("c").await.expect("start");
    let init = until("the portrait", || bench.output("c").strip_suffix("end\n").map(str::to_owned)).await;
    let (exit, exec, complaint) = exec(&sandbox, "c", PORTRAIT).await;
    assert_eq!((exit.code, complaint.as_str()), (0, ""));
    // And as the machine sees the first process.
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(&sandbox, "c"))).expect("a status");
    for line in status.lines().filter(|line| line.starts_with("Cap") || line.starts_with("Seccomp:")) {
        assert!(init.contains(line), "{line}");
    }
    (init, exec)
}

fn field(portrait: &str, name: &str) -> String {
    let line = portrait.lines().find(|line| line.starts_with(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {portrait}")).split_once(':').expect("a value").1.trim().to_owned()
}

async fn an_exec_is_what_init_is_for_root(way: Way) {
    let (init, exec) = both_portraits(way, |spec| spec).await;
    assert_eq!(init, exec);
    assert_eq!(field(&init, "Seccomp"), "2");
    assert_eq!(field(&init, "NoNewPrivs"), "0");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(field(&init, set), "00000000a00405fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(&init, set), "0000000000000000", "{set}");
    }
}

async fn an_exec_is_what_init_is_for_a_user_without_privileges(way: Way) {
    // runc before 1.1.13 now and then gives an exec'd process the hard limit of open files as its soft one.
    let hard = if way == Way::Runc { 256 } else { 512 };
    let (init, exec) = both_portraits(way, |spec| ContainerSpec {
        user: "web".into(),
        additional_gids: vec![3000],
        no_new_privileges: true,
        cwd: "/tmp/made/here".into(),
        oom_score_adj: 500,
        env: vec![("A".into(), "1 2".into()), ("A".into(), "3".into())],
        rlimits: vec![Rlimit { name: "nofile".into(), soft: 256, hard }],
        ..spec
    })
    .await;
    assert_eq!(init, exec);
    assert_eq!(field(&init, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(&init, "Groups"), "2000 3000");
    assert_eq!(field(&init, "Seccomp"), "2");
    assert_eq!(field(&init, "NoNewPrivs"), "1");
    assert_eq!(field(&init, "CapEff"), "0000000000000000");
    assert_eq!(field(&init, "CapBnd"), "00000000a00405fb");
    for line in ["/tmp/made/here", "500", "A=3", "HOME=/srv"] {
        assert!(init.lines().any(|own| own == line), "{line} in {init}");
    }
    let files = init.lines().find(|line| line.starts_with("Max open files")).expect("limits");
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["256".to_owned(), hard.to_string()]);
}

async fn an_unconfined_container_has_no_filter_in_init_or_exec(way: Way) {
    let (init, exec) = both_portraits(way, |spec| ContainerSpec { seccomp: Seccomp::Unconfined, ..spec }).await;
    assert_eq!(init, exec);
    assert_eq!(field(&init, "Seccomp"), "0");
}

async fn running(bench: &Bench) -> windlass_runtime::Sandbox {
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("c", "sleep 1000")).await.expect("create");
    sandbox.start("c").await.expect("start");
    sandbox
}

fn command(args: &[&str]) -> ExecSpec {
    ExecSpec { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..ExecSpec::default() }
}

async fn read_all(process: &mut Process) -> String {
    let mut text = Vec::new();
    process.stdout.take().expect("a stdout").read_to_end(&mut text).await.expect("output");
    String::from_utf8(text).expect("text")
}

async fn streams_carry_every_byte_and_exit_codes_come_back(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = running(&bench).await;
    let mut process = sandbox.exec("c", ExecSpec { stdin: true, ..command(&["sha256sum"]) }).await.expect("exec");
    let mut stdin = process.stdin.take().expect("a stdin");
    for _ in 0..512 {
        stdin.write_all(&[b'x'; 4096]).await.expect("write");
    }
    drop(stdin);
    let sum = read_all(&mut process).await;
    let mut expected = sha2_of_2_mib_of_x();
    expected.push_str("  -\n");
    assert_eq!(sum, expected);
    assert_eq!(process.wait().await.expect("an end").code, 0);

    let (exit, out, err) = exec(&sandbox, "c", "echo out; echo err >&2; exit 9").await;
    assert_eq!((exit.code, exit.signal, out.as_str(), err.as_str()), (9, None, "out\n", "err\n"));
    let (exit, ..) = exec(&sandbox, "c", "kill -SEGV $$").await;
    assert_eq!((exit.code, exit.signal), (139, Some(11)));
}

fn sha2_of_2_mib_of_x() -> String {
    use sha2::Digest;
    let sum = sha2::Sha256::digest(vec![b'x'; 2 << 20]);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn an_exec_may_have_a_terminal_with_a_size(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = running(&bench).await;
    let size = Some(TerminalSize { columns: 91, rows: 17 });
    let spec = ExecSpec {
        stdin: true,
        tty: true,
        size,
        ..command(&["sh", "-c", "tty; stty size; read line; stty size; echo got $line"])
    };
    let mut process = sandbox.exec("c", spec).await.expect("exec");
    let mut stdout = process.stdout.take().expect("a terminal");
    let mut seen = String::new();
    while !seen.contains("17 91") {
        let mut chunk = [0; 256];
        let count = timeout(PATIENCE, stdout.read(&mut chunk)).await.expect("in time").expect("output");
        assert!(count > 0, "ended after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    assert!(seen.starts_with("/dev/pts/"), "{seen}");
    process.resize(TerminalSize { columns: 100, rows: 50 }).expect("resize");
    process.stdin.as_mut().expect("input").write_all(b"word\n").await.expect("write");
    stdout.read_to_string(&mut seen).await.expect("the rest");
    assert!(seen.contains("50 100") && seen.contains("got word"), "{seen}");
    assert_eq!(process.wait().await.expect("an end").code, 0);
    // Whoever lets go of a terminal hangs up.
    let process = sandbox.exec("c", ExecSpec { tty: true, ..command(&["sleep", "999"]) }).await.expect("exec");
    drop(process);
    until("the hang-up", || {
        let list = std::fs::read_dir("/proc").expect("processes").flatten();
        let mut commands = list.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
        (!commands.any(|c| c == b"sleep\0999\0")).then_some(())
    })
    .await;
}

async fn an_exec_that_cannot_be_says_why(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = running(&bench).await;
    let error = sandbox.exec("c", command(&["no-such"])).await.expect_err("no program").to_string();
    let why = match way {
        Way::Embedded => "program \"no-such\" not found in PATH",
        Way::Runc => "exec: \"no-such\": executable file not found in $PATH",
    };
    assert!(error.contains(why), "{error}");
    assert!(matches!(sandbox.exec("d", command(&["true"])).await, Err(RuntimeError::NotFound { .. })));
    assert!(matches!(sandbox.exec("c", command(&[])).await, Err(RuntimeError::Invalid { field: "exec.args", .. })));
    sandbox.stop_container("c", libc::SIGKILL, Duration::ZERO).await.expect("stop");
    assert!(matches!(sandbox.exec("c", command(&["true"])).await, Err(RuntimeError::Refused { .. })));
}

async fn an_exec_ends_with_its_container_or_by_a_signal(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = running(&bench).await;
    let mut one = sandbox.exec("c", command(&["sleep", "1000"])).await.expect("exec");
    let mut other = sandbox.exec("c", command(&["sleep", "1000"])).await.expect("exec");
    one.signal(libc::SIGTERM).await.expect("signal");
    let exit = timeout(PATIENCE, one.wait()).await.expect("in time").expect("an end");
    assert_eq!((exit.code, exit.signal), (143, Some(15)));
    sandbox.stop_container("c", libc::SIGKILL, Duration::ZERO).await.expect("stop");
    let exit = timeout(PATIENCE, other.wait()).await.expect("in time").expect("an end");
    assert_eq!(exit.code, 137);
}

async fn many_execs_at_once_do_not_mix_their_streams(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = running(&bench).await;
    let runs = (0..24).map(|number| {
        let sandbox = &sandbox;
        async move { (number, exec(sandbox, "c", &format!("echo {number}; exit {number}")).await) }
    });
    let results: BTreeMap<i32, _> = futures::future::join_all(runs).await.into_iter().collect();
    for (number, (exit, out, _)) in results {
        assert_eq!((exit.code, out), (number, format!("{number}\n")));
    }
}
