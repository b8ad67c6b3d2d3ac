//! What containers say: complete in the log, shared with those attached, and never able to stop the container for good.

use std::fs;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use windlass_runtime::{ContainerSpec, LogSpec, TerminalSize};

use crate::bench::{Bench, PATIENCE, Way, exited, on_each_way, until};

on_each_way! {
    logs_are_complete_to_the_byte_and_in_format,
    f64_a_flood_is_rotated_and_stays_within_its_bound,
    several_may_attach_and_input_reaches_the_container,
    one_who_is_attached_and_gone_or_does_not_read_does_not_stop_the_container_for_good,
    a_container_may_have_a_terminal,
}

async fn logs_are_complete_to_the_byte_and_in_format(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let line = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo warn >&2; \
                head -c 100000 /dev/zero | tr '\\0' y; echo; printf tail";
    bench.run(&sandbox, bench.shell("c", line)).await;
    let mut expected: String = (0..2000).map(|i| format!("line {i}\n")).collect();
    expected.push_str(&"y".repeat(100_000));
    expected.push_str("\ntail");
    let log = fs::read_to_string(bench.log_path("c")).expect("a log");
    let mut out = String::new();
    for line in log.lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        assert!(fields[0].parse::<jiff::Timestamp>().is_ok() && fields[0].len() == 30, "{}", fields[0]);
        assert!(fields[3].len() <= 16 << 10);
        if fields[1] == "stdout" {
            out.push_str(fields[3]);
            out.push_str(if fields[2] == "F" { "\n" } else { "" });
        } else {
            assert_eq!(fields[1..], ["stderr", "F", "warn"]);
        }
    }
    assert!(out == expected, "{} bytes of {}", out.len(), expected.len());
}

async fn f64_a_flood_is_rotated_and_stays_within_its_bound(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let log = LogSpec { bytes_max: 256 << 10, files_max: 3, ..LogSpec::new(bench.log_path("c")) };
    let spec = ContainerSpec { log: Some(log), ..bench.shell("c", "yes 0123456789abcdef | head -n 100000; echo last") };
    bench.run(&sandbox, spec).await;
    let mut sizes = Vec::new();
    for entry in fs::read_dir(bench.dir.join("logs")).expect("logs").flatten() {
        sizes.push(entry.metadata().expect("a file").len());
    }
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| *size <= 256 << 10), "{sizes:?}");
    assert!(bench.output("c").ends_with("last\n"));
}

async fn several_may_attach_and_input_reaches_the_container(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let line = "while read word; do echo got $word; echo err $word >&2; done; echo bye";
    let spec = ContainerSpec { stdin: true, stdin_once: true, ..bench.shell("c", line) };
    sandbox.create_container(spec).await.expect("create");
    let mut one = sandbox.attach("c", true, true, true).await.expect("attach");
    let mut other = sandbox.attach("c", false, true, false).await.expect("attach");
    assert!(other.stdin.is_none() && other.stderr.is_none());
    sandbox.start("c").await.expect("start");
    let mut stdin = one.stdin.take().expect("input");
    stdin.write_all(b"a\nb\n").await.expect("write");
    drop(stdin);
    assert_eq!(exited(&sandbox, "c").await.code, 0);
    let (mut out, mut err, mut again) = (String::new(), String::new(), String::new());
    one.stdout.take().expect("output").read_to_string(&mut out).await.expect("text");
    one.stderr.take().expect("errors").read_to_string(&mut err).await.expect("text");
    other.stdout.take().expect("output").read_to_string(&mut again).await.expect("text");
    assert_eq!(out, "got a\ngot b\nbye\n");
    assert_eq!(err, "err a\nerr b\n");
    assert_eq!(again, out);
    assert!(sandbox.attach("c", false, true, true).await.is_err(), "nothing to attach to any more");
}

async fn one_who_is_attached_and_gone_or_does_not_read_does_not_stop_the_container_for_good(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let line = "head -c 3000000 /dev/zero | tr '\\0' '\\n' | head -n 1000000; echo done";
    let spec = ContainerSpec {
        log: Some(LogSpec { files_max: 1, ..LogSpec::new(bench.log_path("c")) }),
        ..bench.shell("c", line)
    };
    sandbox.create_container(spec).await.expect("create");
    let gone = sandbox.attach("c", false, true, true).await.expect("attach");
    let mut silent = sandbox.attach("c", false, true, true).await.expect("attach");
    drop(gone);
    sandbox.start("c").await.expect("start");
    assert_eq!(exited(&sandbox, "c").await.code, 0);
    assert!(bench.output("c").ends_with("done\n"));
    let mut rest = Vec::new();
    let mut stdout = silent.stdout.take().expect("output");
    timeout(PATIENCE, stdout.read_to_end(&mut rest)).await.expect("its output ends").expect("and reads");
    assert!(rest.len() < 1_000_000, "it was cut off");
}

async fn a_container_may_have_a_terminal(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let line = "tty; ls -l /dev/console | cut -c1; read x; stty size; echo got $x; read y; exit 5";
    let spec = ContainerSpec { tty: true, stdin: true, user: "web".into(), ..bench.shell("c", line) };
    sandbox.create_container(spec).await.expect("create");
    let mut attachment = sandbox.attach("c", true, true, true).await.expect("attach");
    sandbox.start("c").await.expect("start");
    sandbox.resize("c", TerminalSize { columns: 77, rows: 33 }).await.expect("resize");
    let mut stdin = attachment.stdin.take().expect("input");
    stdin.write_all(b"word\n").await.expect("write");
    until("the answer", || bench.output("c").contains("got word").then_some(())).await;
    let text = bench.output("c");
    assert!(text.contains("/dev/pts/0") && text.contains("33 77"), "{text}");
    attachment.resize(TerminalSize { columns: 1, rows: 1 }).expect("resize");
    stdin.write_all(b"\n").await.expect("write");
    assert_eq!(exited(&sandbox, "c").await.code, 5);
    let mut seen = String::new();
    let mut stdout = attachment.stdout.take().expect("output");
    timeout(Duration::from_secs(30), stdout.read_to_string(&mut seen)).await.expect("an end").expect("text");
    assert!(seen.contains("got word"), "{seen}");
}
