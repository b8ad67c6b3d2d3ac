//! A container's life: created, started, ended, removed; and what goes wrong on the way.

use std::time::Duration;

use tokio::time::Instant;
use windlass_runtime::{Bind, ContainerSpec, ContainerState, ExitReason, Mount, RuntimeError};

use crate::bench::{Bench, Way, exited, on_each_way, pid, until};

on_each_way! {
    a_container_runs_and_its_exit_code_is_reported,
    f50_a_container_that_ignores_the_signal_is_killed_when_its_grace_is_over,
    what_cannot_be_made_or_started_says_why_and_leaves_nothing,
    a_program_that_cannot_be_started_makes_a_container_that_failed,
    a_program_may_be_named_relative_to_the_working_directory,
    names_are_unique_and_order_is_kept,
    a_created_container_that_was_never_started_can_be_removed,
    twenty_containers_start_at_once_and_leave_nothing,
    destroying_everything_needs_no_agent,
}

async fn a_container_runs_and_its_exit_code_is_reported(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("c", "echo hello; exit 7")).await.expect("create");
    assert_eq!(sandbox.state("c"), Some(ContainerState::Created));
    let mut events = sandbox.events();
    sandbox.start("c").await.expect("start");
    let first = events.next().await.expect("an event");
    assert!(matches!(first.state, ContainerState::Running { .. }), "{first:?}");
    let exit = exited(&sandbox, "c").await;
    assert_eq!((exit.code, exit.signal, exit.oom, exit.reason), (7, None, false, ExitReason::Ended));
    assert!(exit.started_at.expect("it ran") <= exit.finished_at);
    assert_eq!(bench.output("c"), "hello\n");
    sandbox.remove("c").await.expect("remove");
    assert_eq!(sandbox.states(), []);
    sandbox.stop().await.expect("stop");
    assert!(bench.runtime().sandboxes().is_empty());
}

async fn f50_a_container_that_ignores_the_signal_is_killed_when_its_grace_is_over(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let line = "trap '' TERM; echo ready; while true; do sleep 1; done";
    sandbox.create_container(bench.shell("stubborn", line)).await.expect("create");
    sandbox
        .create_container(bench.shell("polite", "trap 'exit 3' TERM; echo ready; while true; do sleep 0.05; done"))
        .await
        .expect("create");
    for id in ["stubborn", "polite"] {
        sandbox.start(id).await.expect("start");
        until("the trap", || (bench.output(id) == "ready\n").then_some(())).await;
    }
    let grace = Duration::from_secs(1);
    let begin = Instant::now();
    sandbox.stop_container("stubborn", libc::SIGTERM, grace).await.expect("stop");
    assert!(begin.elapsed() >= grace, "killed too early");
    let exit = exited(&sandbox, "stubborn").await;
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), false));
    sandbox.stop_container("polite", libc::SIGTERM, Duration::from_secs(50)).await.expect("stop");
    assert_eq!(exited(&sandbox, "polite").await.code, 3);
}

async fn what_cannot_be_made_or_started_says_why_and_leaves_nothing(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let create = async |spec: ContainerSpec| sandbox.create_container(spec).await.expect_err("must fail").to_string();
    let base = bench.shell("c", "true");
    let user = create(ContainerSpec { user: "nobody-here".into(), ..base.clone() }).await;
    assert!(user.contains("user \"nobody-here\" is not in the container's /etc/passwd"), "{user}");
    let layer = create(ContainerSpec { layers: vec![bench.dir.join("no-layer")], ..base.clone() }).await;
    assert!(layer.contains("could not mount the image's layers"), "{layer}");
    let source = Mount::Bind(Bind { source: "/no/such/volume".into(), target: "/x".into(), ..Bind::default() });
    let mount = create(ContainerSpec { mounts: vec![source], ..base.clone() }).await;
    assert!(mount.contains("/no/such/volume does not exist"), "{mount}");
    assert_eq!(sandbox.states(), []);

    // Found and allowed, but not a program: known only when it is executed.
    std::fs::write(bench.dir.join("layer/bin/garbage"), "\x7fELF").expect("a file");
    std::process::Command::new("chmod")
        .args(["755".as_ref(), bench.dir.join("layer/bin/garbage").as_os_str()])
        .status()
        .expect("chmod");
    sandbox.create_container(ContainerSpec { args: vec!["garbage".into()], ..base.clone() }).await.expect("create");
    match way {
        Way::Embedded => {
            let error = sandbox.start("c").await.expect_err("not a program").to_string();
            assert!(error.contains("\"garbage\" cannot be executed: Exec format error"), "{error}");
            let exit = exited(&sandbox, "c").await;
            assert_eq!((exit.code, exit.reason), (128, ExitReason::StartFailed));
        }
        // It says that it has started the container before it knows.
        Way::Runc => {
            sandbox.start("c").await.expect("runc's word");
            let exit = exited(&sandbox, "c").await;
            assert_eq!((exit.code, exit.reason), (1, ExitReason::Ended));
        }
    }
    sandbox.remove("c").await.expect("remove");
    sandbox.create_container(base).await.expect("the id is free again");
}

async fn a_program_that_cannot_be_started_makes_a_container_that_failed(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let cases = [
        (
            "no-such",
            "",
            "program \"no-such\" not found in PATH",
            "exec: \"no-such\": executable file not found in $PATH",
        ),
        (
            "/no/such",
            "",
            "program \"/no/such\" cannot be executed: No such file or directory (os error 2)",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        (
            "/etc",
            "",
            "program \"/etc\" cannot be executed: Permission denied (os error 13)",
            "exec: \"/etc\": permission denied",
        ),
        (
            "true",
            "/etc/passwd",
            "could not enter working directory \"/etc/passwd\": Not a directory (os error 20)",
            "error during container init: mkdir /etc/passwd: not a directory",
        ),
    ];
    for (number, (program, cwd, embedded, runc)) in cases.into_iter().enumerate() {
        let why = if way == Way::Embedded { embedded } else { runc };
        let id = format!("c{number}");
        let base = bench.shell(&id, "");
        sandbox
            .create_container(ContainerSpec { args: vec![program.into()], cwd: cwd.into(), ..base })
            .await
            .expect("create");
        let error = sandbox.start(&id).await.expect_err("not a program").to_string();
        let exit = exited(&sandbox, &id).await;
        assert_eq!((exit.code, exit.reason), (128, ExitReason::StartFailed));
        let message = exit.message.strip_prefix("runc create failed: unable to start container process: ");
        let message = message.unwrap_or(&exit.message);
        assert!(message.starts_with(why) && !message.contains(';'), "{}", exit.message);
        assert!(error.contains(&exit.message), "{error}");
    }
}

async fn a_program_may_be_named_relative_to_the_working_directory(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let args = ["./busybox", "pwd"].map(str::to_owned).to_vec();
    let exit = bench.run(&sandbox, ContainerSpec { args, cwd: "/bin".into(), ..bench.shell("c", "") }).await;
    assert_eq!((exit.code, bench.output("c").as_str()), (0, "/bin\n"));
}

async fn names_are_unique_and_order_is_kept(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let again = bench.runtime().create_sandbox(bench.spec("s")).await;
    assert!(matches!(again, Err(RuntimeError::Exists { what: "sandbox", .. })));
    sandbox.create_container(bench.shell("c", "sleep 1000")).await.expect("create");
    let again = sandbox.create_container(bench.shell("c", "true")).await;
    assert!(matches!(again, Err(RuntimeError::Exists { what: "container", .. })));
    assert!(matches!(sandbox.start("other").await, Err(RuntimeError::NotFound { what: "container", .. })));
    sandbox.start("c").await.expect("start");
    assert!(matches!(sandbox.start("c").await, Err(RuntimeError::Refused { .. })));
    assert!(matches!(sandbox.remove("c").await, Err(RuntimeError::Refused { .. })));
    sandbox.signal("c", libc::SIGKILL).await.expect("signal");
    assert_eq!(exited(&sandbox, "c").await.code, 137);
    sandbox.remove("c").await.expect("remove");
}

async fn a_created_container_that_was_never_started_can_be_removed(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("c", "true")).await.expect("create");
    sandbox.remove("c").await.expect("remove");
    assert_eq!(sandbox.states(), []);
}

async fn twenty_containers_start_at_once_and_leave_nothing(way: Way) {
    let bench = Bench::new(way).await;
    let one = |number: u32| {
        let bench = &bench;
        async move {
            let sandbox = bench.sandbox(&format!("s{number}")).await;
            let spec = bench.shell(&format!("c{number}"), &format!("echo {number}; exit {number}"));
            let exit = bench.run(&sandbox, spec).await;
            assert_eq!(exit.code, i32::try_from(number).expect("small"), "{exit:?}");
            assert_eq!(bench.output(&format!("c{number}")), format!("{number}\n"));
            sandbox.stop().await.expect("stop");
        }
    };
    futures::future::join_all((1..=20).map(one)).await;
    let left: Vec<String> = bench.traces().into_iter().filter(|trace| trace.starts_with("process")).collect();
    assert_eq!(left, Vec::<String>::new());
}

async fn destroying_everything_needs_no_agent(way: Way) {
    let mut bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    sandbox.create_container(bench.shell("c", "sleep 1000")).await.expect("create");
    sandbox.start("c").await.expect("start");
    let running = pid(&sandbox, "c");
    drop(sandbox);
    bench.drop_agent();
    windlass_runtime::Runtime::destroy_all(&bench.config).expect("destroy");
    assert_eq!(bench.traces(), Vec::<String>::new());
    until("the container's end", || {
        (!std::path::Path::new(&format!("/proc/{running}/root/bin")).exists()).then_some(())
    })
    .await;
    windlass_runtime::Runtime::destroy_all(&bench.config).expect("destroying nothing is no error");
}
