//! Streams through the API: logs, exec, port-forward, cp.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use windlass_tests::Test;
use windlass_tests::cluster::{run, until};
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
