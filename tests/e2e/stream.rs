//! Streams through the API: logs, exec, attach, port-forward, cp, debug; by kubectl, and by our own verbs beside it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use windlass_tests::Test;
use windlass_tests::cluster::{must, run, until};
use windlass_tests::suite::PATIENCE;

use crate::deployment::request;

pub fn logs_follow_previous_and_tail(test: &Test) {
    test.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: talker}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, 'for i in $(seq 200); do echo line $i; done; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo last; exit 0']\n",
    );
    until("all lines are there", PATIENCE, || match test.try_kubectl(&["logs", "talker"]) {
        out if out.stdout.lines().count() == 200 => Ok(()),
        out => Err(format!("{} lines, {}", out.stdout.lines().count(), out.stderr)),
    });
    assert_eq!(test.kubectl(&["logs", "talker", "--tail=2"]), "line 199\nline 200\n");
    let stamped = test.kubectl(&["logs", "talker", "--tail=1", "--timestamps"]);
    assert!(stamped.starts_with("20") && stamped.ends_with("Z line 200\n"), "{stamped}");
    assert_eq!(test.kubectl(&["logs", "talker", "--limit-bytes=7"]), "line 1\n");
    let mut command = test.command(&["logs", "-f", "talker", "--tail=1"]);
    let mut follow = command.stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "line 200");
    test.kubectl(&["exec", "talker", "--", "touch", "/tmp/go"]);
    assert_eq!(lines.next().expect("the new line arrives").expect("text"), "last");
    assert!(lines.next().is_none(), "the stream ends with the container");
    follow.wait().expect("our own child can be waited for");
    test.wait("pod", "talker", "restarted", |object| {
        object["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    });
    let previous = test.kubectl(&["logs", "talker", "--previous", "--tail=1"]);
    assert_eq!(previous, "last\n");
    let refused = test.refused(&["logs", "nobody"]);
    assert!(refused.contains("pods \"nobody\" not found"), "{refused}");
}

/// A program that says numbered lines, enough of them for its log to be rotated twice.
const LONG: &str = "apiVersion: v1
kind: Pod
metadata: {name: long}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'while [ ! -e /tmp/go ]; do sleep 0.1; done; x=$(head -c 1000 /dev/zero | tr \"\\0\" x); i=0; while [ $i -lt 25000 ]; do echo $i $x; i=$((i+1)); done']
";

pub fn logs_follow_across_rotations_and_lose_no_byte(test: &Test) {
    test.apply(LONG);
    let pod = test.wait("pod", "long", "Ready", windlass_tests::suite::is_ready);
    let mut command = test.command(&["logs", "-f", "long"]);
    let mut follow = command.stdout(Stdio::piped()).spawn().expect("kubectl starts");
    test.kubectl(&["exec", "long", "--", "touch", "/tmp/go"]);
    let lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    let mut count = 0;
    for line in lines {
        let line = line.expect("text");
        assert!(line.len() > 1000 && line.starts_with(&format!("{count} ")), "line {count} is {} bytes", line.len());
        count += 1;
    }
    follow.wait().expect("our own child can be waited for");
    assert_eq!(count, 25_000, "every line came, in order");
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let directory = test.cluster.data_dir().join(format!("pods/{uid}/logs/main"));
    let files = std::fs::read_dir(&directory).expect("a log").count();
    assert!(files > 1, "it was rotated meanwhile: {files} files");
    assert_eq!(test.kubectl(&["logs", "long"]).lines().count(), 25_000, "read afterwards it is all there too");
}

pub fn logs_of_all_containers_since_and_within_a_limit(test: &Test) {
    test.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: two}\nspec:\n  terminationGracePeriodSeconds: 1\n  initContainers:\n  - {name: first, image: 'windlass.local/demo:1', command: [echo, from first]}\n  containers:\n  - {name: a, image: 'windlass.local/demo:1', command: [sh, -c, 'echo from a; sleep 1000']}\n  - {name: b, image: 'windlass.local/demo:1', command: [sh, -c, 'printf \"no line end\"; sleep 1000']}\n");
    test.wait("pod", "two", "Ready", windlass_tests::suite::is_ready);
    let all =
        until("all have spoken", PATIENCE, || match test.kubectl(&["logs", "two", "--all-containers", "--prefix"]) {
            text if text.contains("from a") => Ok(text),
            text => Err(text),
        });
    assert!(all.contains("[pod/two/a] from a") && all.contains("[pod/two/first] from first"), "{all}");
    let old = test.try_kubectl(&["logs", "two", "-c", "a", "--since-time=2099-01-01T00:00:00Z"]);
    assert!(old.ok && old.stdout.is_empty(), "{old:?}");
    assert_eq!(test.kubectl(&["logs", "two", "-c", "a", "--since=1h", "--limit-bytes=4"]), "from");
}

pub fn exec_passes_streams_and_exit_codes(test: &Test) {
    test.sleeping_pod("box", "");
    assert_eq!(test.kubectl(&["exec", "box", "--", "echo", "hello there"]), "hello there\n");
    let out = test.try_kubectl(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert!(!out.ok && out.stdout == "out\n", "{}", out.stdout);
    assert!(out.stderr.starts_with("err\n") && out.stderr.contains("exit code 42"), "{}", out.stderr);
    let mut command = test.command(&["exec", "-i", "box", "--", "sh", "-c", "wc -c; echo done"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(&vec![b'x'; 1_000_000]).expect("kubectl reads its input");
    drop(input);
    let mut output = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut output).expect("text");
    child.wait().expect("our own child can be waited for");
    assert_eq!(output, "1000000\ndone\n");
    let big = test.kubectl(&["exec", "box", "--", "sh", "-c", "seq 100000"]);
    assert_eq!(big.lines().count(), 100_000);
    let refused = test.refused(&["exec", "box", "--", "/no/such/program"]);
    assert!(refused.to_lowercase().contains("no such file"), "{refused}");
    let refused = test.refused(&["exec", "box", "-c", "other", "--", "true"]);
    assert!(refused.contains("other"), "{refused}");
}

pub fn exec_with_a_terminal(test: &Test) {
    test.sleeping_pod("term", "");
    let kubectl =
        test.command(&["exec", "-it", "term", "--", "sh", "-c", "test -t 0 && stty size 2>/dev/null; tty; echo over"]);
    let line: Vec<String> = std::iter::once(kubectl.get_program())
        .chain(kubectl.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    // `script` gives kubectl the terminal that -t asks for.
    let mut script = Command::new("/usr/bin/script");
    let out = run(script.args(["-qec", &line.join(" "), "/dev/null"]));
    assert!(out.ok && out.stdout.contains("/dev/pts/") && out.stdout.contains("over"), "{}{}", out.stdout, out.stderr);
}

pub fn exec_follows_the_size_of_the_terminal(test: &Test) {
    test.sleeping_pod("sized", "");
    let inner = "while [ \"$now\" != '32 102' ]; do was=$now; now=$(stty size 2>&1); [ \"$now\" = \"$was\" ] || echo \"$now\"; sleep 0.1; done";
    let kubectl = test.command(&["exec", "-it", "sized", "--", "sh", "-c", inner]);
    let line: Vec<String> = std::iter::once(kubectl.get_program())
        .chain(kubectl.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    // The shell's terminal has one size before kubectl starts and gets another while it runs.
    let outer = format!("stty rows 31 cols 101; (sleep 3; stty rows 32 cols 102 </dev/tty) & {}; wait", line.join(" "));
    let out = run(Command::new("/usr/bin/script").args(["-qec", &outer, "/dev/null"]));
    assert!(out.stdout.contains("31 101") && out.stdout.contains("32 102"), "{}{}", out.stdout, out.stderr);
}

pub fn a82_a_client_that_does_not_read_costs_little_and_the_command_ends_with_it(test: &Test) {
    test.sleeping_pod("spout", "");
    let mut command = test.command(&["exec", "spout", "--", "sh", "-c", "exec dd if=/dev/zero bs=64k"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("kubectl starts");
    let mut first = [0; 65536];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("it begins");
    // Nobody reads: the pipe, the connection and a few chunks fill up, and then the program waits.
    let rss = |pid: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let before = rss(test.cluster.pid());
    std::thread::park_timeout(std::time::Duration::from_secs(2));
    let grown = rss(test.cluster.pid()).saturating_sub(before);
    assert!(grown < 64 << 10, "the server and its agent keep little of it: {grown} KiB");
    child.kill().expect("our own child can be killed");
    child.wait().expect("our own child can be waited for");
    until("the command ends with its client", PATIENCE, || {
        let list = test.kubectl(&["exec", "spout", "--", "ps"]);
        if list.contains("dd if=") { Err(list) } else { Ok(()) }
    });
}

pub fn attach_joins_the_streams_of_a_running_container(test: &Test) {
    test.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: echo}\nspec:\n  terminationGracePeriodSeconds: 1\n  restartPolicy: Never\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    stdin: true\n    stdinOnce: true\n    command: [sh, -c, 'while read -r line; do echo \"got $line\"; done; exit 7']\n",
    );
    test.wait("pod", "echo", "Ready", windlass_tests::suite::is_ready);
    let mut command = test.command(&["attach", "-i", "echo"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("kubectl starts");
    let mut input = child.stdin.take().expect("piped");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    for word in ["one", "two"] {
        writeln!(input, "{word}").expect("kubectl reads its input");
        assert_eq!(lines.next().expect("an answer").expect("text"), format!("got {word}"));
    }
    // The end of the input is the end of the container's, which stdinOnce lets pass.
    drop(input);
    assert!(lines.next().is_none(), "the stream ends with the container");
    child.wait().expect("our own child can be waited for");
    let pod = test.wait("pod", "echo", "ended", |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 7);
    assert_eq!(test.kubectl(&["logs", "echo"]), "got one\ngot two\n");
    let refused = test.refused(&["attach", "echo"]);
    assert!(refused.contains("completed") || refused.contains("not running"), "{refused}");
}

pub fn port_forward_carries_a_request(test: &Test) {
    test.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{name: web, image: windlass.local/demo:1}]\n");
    test.wait("pod", "web", "Ready", windlass_tests::suite::is_ready);
    let mut command = test.command(&["port-forward", "pod/web", ":8080"]);
    let mut forward = command.stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let mut lines = BufReader::new(forward.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("kubectl says where it listens").expect("text");
    let address = first.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap_or_default().to_owned();
    let answers: Vec<Result<String, String>> = (0..5).map(|_| request(&address)).collect();
    forward.kill().expect("our own child can be killed");
    forward.wait().expect("our own child can be waited for");
    for answer in answers {
        assert_eq!(answer.as_deref(), Ok("hello from web"), "{first}");
    }
}

/// Answers only when its client has said all: the end of our side must arrive for that.
pub fn port_forward_passes_the_clients_end_on(test: &Test) {
    test.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: count}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, 'while true; do nc -l -p 7000 -e wc -c; done']\n    ports: [{name: count, containerPort: 7000}]\n");
    test.wait("pod", "count", "Ready", windlass_tests::suite::is_ready);
    for mut command in [
        test.command(&["port-forward", "pod/count", ":7000"]),
        crate::cli::windlass(test, &["port-forward", "pod/count", ":count"]),
    ] {
        let mut forward = command.stdout(Stdio::piped()).spawn().expect("the client starts");
        let mut lines = BufReader::new(forward.stdout.take().expect("piped")).lines();
        let first = lines.next().expect("it says where it listens").expect("text");
        let address = first.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap_or_default();
        let answer = until("an answer", PATIENCE, || {
            let fail = |error: std::io::Error| error.to_string();
            let mut stream = std::net::TcpStream::connect(address).map_err(fail)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
            stream.write_all(&vec![b'x'; 300_000]).map_err(fail)?;
            stream.shutdown(std::net::Shutdown::Write).map_err(fail)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(fail)?;
            // A listener of nc that is about to be begun again refuses.
            if answer.is_empty() { Err("nothing".to_owned()) } else { Ok(answer) }
        });
        forward.kill().expect("our own child can be killed");
        forward.wait().expect("our own child can be waited for");
        assert_eq!(answer.trim(), "300000", "{first}");
    }
}

pub fn directories_are_copied_both_ways_by_kubectl_and_windlass(test: &Test) {
    test.sleeping_pod("tree", "");
    let place = std::path::PathBuf::from(test.file("dir", "")).with_extension("tree");
    std::fs::create_dir_all(place.join("sub/empty")).expect("writable");
    std::fs::write(place.join("sub/-odd name"), "odd").expect("writable");
    std::fs::write(place.join("big"), vec![b'x'; 3_000_000]).expect("writable");
    let from = place.to_string_lossy().into_owned();
    let clients: [fn(&Test, &[&str]) -> Command; 2] = [|test, words| test.command(words), crate::cli::windlass];
    for (number, client) in clients.into_iter().enumerate() {
        let there = format!("/tmp/t{number}");
        must(&mut client(test, &["cp", &from, &format!("tree:{there}")]));
        let back = format!("{from}.back{number}");
        must(&mut client(test, &["cp", &format!("tree:{there}"), &back]));
        let back = std::path::Path::new(&back);
        assert_eq!(std::fs::read(back.join("sub/-odd name")).expect("it came back"), b"odd");
        assert_eq!(std::fs::metadata(back.join("big")).expect("it came back").len(), 3_000_000);
        assert!(back.join("sub/empty").is_dir());
    }
    let missing = run(&mut crate::cli::windlass(test, &["cp", "tree:/no/such", "/tmp/windlass-nothing"]));
    assert!(!missing.ok && missing.stderr.contains("such"), "{missing:?}");
    // A91: an archive that a container made with ill will.
    let evil = "mkdir -p /tmp/e/bin && cp /bin/busybox /tmp/e/tar.real && ln -s /etc /tmp/e/bin/out && \
        printf '#!/bin/sh\\necho \"\\033[31mred\" >&2\\ncd /tmp/e && exec /bin/busybox tar -cf - bin ../../etc/passwd\\n' > /tmp/e/tar && \
        chmod +x /tmp/e/tar && rm /bin/tar && mv /tmp/e/tar /bin/tar";
    test.kubectl(&["exec", "tree", "--", "sh", "-c", evil]);
    let back = format!("{from}.evil");
    let out = run(&mut crate::cli::windlass(test, &["cp", "tree:/tmp/e/bin", &back]));
    assert!(!out.stderr.contains('\u{1b}') && out.stderr.contains("^[[31mred"), "{out:?}");
    assert!(out.stderr.contains("skipping bin/out"), "{out:?}");
    assert!(!out.ok && out.stderr.contains("asked for"), "{out:?}");
}

pub fn debug_joins_a_pod_copies_one_and_looks_at_a_node(test: &Test) {
    test.sleeping_pod("sick", "");
    let image = "--image=windlass.local/demo:1";
    let look = "tr '\\0' ' ' </proc/1/cmdline; ls /proc/1/root/bin/busybox; echo seen";
    test.kubectl(&[
        "debug",
        "sick",
        image,
        "--target=main",
        "-c",
        "visitor",
        "--profile=general",
        "--",
        "sh",
        "-c",
        look,
    ]);
    let said = until("the visitor has spoken", PATIENCE, || {
        let out = test.try_kubectl(&["logs", "sick", "-c", "visitor"]);
        if out.stdout.contains("seen") { Ok(out.stdout) } else { Err(format!("{}{}", out.stdout, out.stderr)) }
    });
    assert!(said.contains("trap") && said.contains("/proc/1/root/bin/busybox"), "it sees its target: {said}");
    test.wait("pod", "sick", "its visitor over", |pod| {
        pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    });
    assert_eq!(test.get("pod", "sick")["status"]["containerStatuses"][0]["restartCount"], 0);
    test.kubectl(&["debug", "sick", "--copy-to=copied", "--container=main", image, "--", "sleep", "1000"]);
    let copy = test.wait("pod", "copied", "Ready", windlass_tests::suite::is_ready);
    assert_eq!(copy["spec"]["containers"][0]["command"], serde_json::json!(["sleep", "1000"]), "{:#}", copy["spec"]);
    let told = test.kubectl(&[
        "debug",
        "node/node1",
        image,
        "--profile=general",
        "--",
        "sh",
        "-c",
        "ls /host/proc/1 >/dev/null && echo node seen",
    ]);
    let name = told.split_whitespace().find(|word| word.starts_with("node-debugger-")).unwrap_or_default().to_owned();
    test.wait("pod", &name, "over", |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(test.kubectl(&["logs", &name]), "node seen\n");
}

pub fn copy_to_and_from_a_pod(test: &Test) {
    test.sleeping_pod("store", "");
    let content: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    let file = test.file("txt", &content);
    test.kubectl(&["cp", &file, "store:/tmp/copied"]);
    let back = format!("{file}.back");
    test.kubectl(&["cp", "store:/tmp/copied", &back]);
    assert!(std::fs::read_to_string(&back).expect("the copy is there") == content, "the same bytes come back");
    let out = test.kubectl(&["exec", "store", "--", "wc", "-l", "/tmp/copied"]);
    assert!(out.starts_with("50000"), "{out}");
}
