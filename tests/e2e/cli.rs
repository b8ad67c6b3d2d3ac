//! windlass's own verbs beside kubectl's: the same words, the same output, on the same cluster.
//!
//! Ages differ between two calls, so that they are compared as `AGE`, and blanks as one.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use windlass_tests::Test;
use windlass_tests::cluster::{Output, given, must, run};

use crate::deployment::web;

/// windlass in the test's namespace.
pub fn windlass(test: &Test, arguments: &[&str]) -> Command {
    let mut command = Command::new(given("WINDLASS_BIN"));
    command.arg("--kubeconfig").arg(test.cluster.kubeconfig()).args(["-n", &test.namespace]).args(arguments);
    command
}

/// Both print the same and end the same way. The cluster may change between the two calls, so they get three tries.
fn same(test: &Test, arguments: &[&str]) {
    const TRIES_MAX: usize = 3;
    for tried in 1..=TRIES_MAX {
        let theirs = comparable(&run(&mut test.command(arguments)));
        let ours = comparable(&run(&mut windlass(test, arguments)));
        if ours == theirs {
            return;
        }
        assert!(tried < TRIES_MAX, "{arguments:?}\nours:\n{ours}\nkubectl's:\n{theirs}");
    }
}

fn comparable(out: &Output) -> String {
    let text = format!("ok: {}\n{}\n{}", out.ok, out.stdout, out.stderr.replace("kubectl", "windlass"));
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).map(ageless).collect();
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `5m10s`, `(x3` and `2m)` come and go as time passes.
fn ageless(word: &str) -> &str {
    let bare = word.trim_matches(['(', ')']);
    let is_age = bare.starts_with(|first: char| first.is_ascii_digit())
        && bare.ends_with(['s', 'm', 'h', 'd'])
        && bare.chars().all(|c| c.is_ascii_digit() || matches!(c, 's' | 'm' | 'h' | 'd'));
    if is_age { "AGE" } else { word }
}

pub fn cli_gets_as_kubectl_does(test: &Test) {
    test.apply(&web("web", 2));
    test.rolled_out("web");
    for arguments in [
        "get pods",
        "get all",
        "get deploy,svc",
        "get nodes -o wide",
        "get deploy web -o yaml",
        "get deploy web -o json",
        "get pods -o name",
        "get pods --show-labels",
        "get endpointslices -A -l kubernetes.io/service-name=kubernetes",
        "get pods -l app=web -L app --no-headers",
        "get pods --field-selector status.phase=Failed",
        "get deploy/web svc/web",
        "get pods --sort-by=.metadata.name --chunk-size=1",
        "get pods -o jsonpath={range.items[*]}{.metadata.name}{end}",
        "get deploy -o custom-columns=NAME:.metadata.name,IMAGE:.spec.template.spec.containers[*].image",
        "get pods web nope",
        "get nothing",
        "get cm -o json",
    ] {
        same(test, &arguments.split(' ').collect::<Vec<_>>());
    }
    let everything = must(&mut windlass(test, &["get", "pods"]));
    assert!(!everything.contains('\u{1b}'), "no colours where nobody looks: {everything:?}");
}

pub fn cli_describes_as_kubectl_does(test: &Test) {
    test.apply(&web("web", 1));
    test.rolled_out("web");
    test.kubectl(&["create", "configmap", "conf", "--from-literal=a=1"]);
    test.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=k=v"]);
    for what in ["deploy web", "rs", "svc web", "cm conf", "secret hidden", "sa default", "cm nope"] {
        let words: Vec<&str> = ["describe"].into_iter().chain(what.split(' ')).collect();
        same(test, &words);
    }
    let pod = must(&mut windlass(test, &["describe", "pods"]));
    for word in ["QoS Class", "Successfully assigned", "node1", "Readiness"] {
        assert!(pod.contains(word), "describe says {word:?}: {pod}");
    }
}

/// What one client has applied is nothing to do for the other, and both would change the same.
pub fn cli_applies_as_kubectl_does(test: &Test) {
    let first = test.file("yaml", &web("web", 1));
    let created = must(&mut windlass(test, &["apply", "-f", &first]));
    assert!(created.contains("deployment.apps/web created"), "{created}");
    let again = test.kubectl(&["apply", "-f", &first]);
    assert!(again.contains("deployment.apps/web unchanged"), "{again}");
    let second = test.file("yaml", &web("web", 2));
    same(test, &["apply", "-f", &second, "--dry-run=server"]);
    same(test, &["apply", "-f", &second, "--dry-run=client"]);
    let configured = must(&mut windlass(test, &["apply", "-f", &second]));
    assert!(configured.contains("deployment.apps/web configured"), "{configured}");
    let again = test.kubectl(&["apply", "-f", &second]);
    assert!(again.contains("deployment.apps/web unchanged"), "{again}");
    assert_eq!(test.get("deployment", "web")["spec"]["replicas"], 2);
    let gone = must(&mut windlass(test, &["delete", "-f", &second]));
    assert!(gone.contains(&format!("deployment.apps \"web\" deleted from {} namespace", test.namespace)), "{gone}");
    same(test, &["get", "deploy"]);
}

pub fn cli_scales_rolls_and_waits_as_kubectl_does(test: &Test) {
    test.apply(&web("web", 1));
    for arguments in ["rollout status deploy/web", "scale deploy web --replicas=2 --timeout=60s"] {
        let out = run(&mut windlass(test, &arguments.split(' ').collect::<Vec<_>>()));
        assert!(out.ok, "{arguments}: {}{}", out.stdout, out.stderr);
    }
    must(&mut windlass(test, &["rollout", "restart", "deploy/web"]));
    test.rolled_out("web");
    for arguments in [
        "rollout status deploy/web",
        "rollout history deploy/web",
        "rollout history deploy web --revision=1",
        "rollout undo deploy web --to-revision=9",
        "rollout resume deploy/web",
        "scale deploy/web --replicas=2 --current-replicas=7",
        "wait --for=condition=Available deploy/web",
        "wait --for=condition=Ready pod -l app=web",
        "wait --for=jsonpath={.spec.replicas}=2 deploy/web",
        "wait --for=condition=Never deploy/web --timeout=1s",
        "wait --for=delete deploy/nope",
    ] {
        same(test, &arguments.split(' ').collect::<Vec<_>>());
    }
    let undone = must(&mut windlass(test, &["rollout", "undo", "deploy/web"]));
    assert_eq!(undone, "deployment.apps/web rolled back\n");
}

pub fn cli_reads_logs_and_runs_commands_as_kubectl_does(test: &Test) {
    test.sleeping_pod("box", "");
    for arguments in [
        &["logs", "box"][..],
        &["logs", "box", "--tail=1"],
        &["logs", "nobody"],
        &["logs", "-l", "app=box", "--prefix"],
        &["exec", "box", "--", "echo", "hello there"],
        &["exec", "box", "--", "sh", "-c", "echo out; echo err >&2"],
        &["exec", "box", "--", "/no/such/program"],
        &["exec", "box", "-c", "other", "--", "true"],
        &["exec", "nobody", "--", "true"],
        &["explain", "deployment.spec.strategy"],
        &["explain", "pods", "--recursive"],
        &["explain", "pod.spec.nothing"],
        &["events", "--for", "pod/box", "--types=Warning"],
        &["top", "nodes"],
    ] {
        same(test, arguments);
    }
    let code = windlass(test, &["exec", "box", "--", "sh", "-c", "exit 42"]).stdin(Stdio::null()).status();
    assert_eq!(code.expect("windlass starts").code(), Some(42), "the command's exit code is passed through");
    let mut command = windlass(test, &["exec", "-i", "box", "--", "wc", "-c"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("windlass starts");
    child.stdin.take().expect("piped").write_all(&vec![b'x'; 1_000_000]).expect("windlass reads its input");
    let out = child.wait_with_output().expect("windlass ends");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1000000\n");
}

pub fn a_start_is_traced_step_by_step(test: &Test) {
    test.sleeping_pod("traced", "");
    let text = must(&mut windlass(test, &["trace", "pod", "traced", "-o", "json"]));
    let trace: Value = serde_json::from_str(&text).expect("JSON");
    let spans = trace["spans"].as_array().expect("a list");
    let found: Vec<String> =
        spans.iter().map(|span| format!("{}: {}", span["who"], span["what"]).replace('"', "")).collect();
    for wanted in [
        "api server: create pod",
        "scheduler: choose a node",
        "api server: bind",
        "network: attach",
        "runtime: sandbox",
        "images: find or pull (main)",
        "runtime: create container (main)",
        "runtime: start program (main)",
        "api server: write status",
    ] {
        assert!(found.iter().any(|span| span == wanted), "{wanted} in {found:#?}");
    }
    // Nothing lies before the beginning or behind the end, and what nobody owns is less than a tenth.
    let (mut reached, mut unowned) = (0.0, 0.0);
    for span in spans {
        let (at, took) = (span["atMs"].as_f64().expect("a number"), span["tookMs"].as_f64().expect("a number"));
        assert!(at >= 0.0 && took >= 0.0, "{span}");
        unowned += f64::max(at - reached, 0.0);
        reached = f64::max(reached, at + took);
    }
    let whole = trace["tookMs"].as_f64().expect("a number");
    assert!((reached - whole).abs() < 0.01 && unowned < whole / 10.0, "{unowned} of {whole} ms: {text}");
    let picture = must(&mut windlass(test, &["trace", "pod", "traced"]));
    assert!(picture.contains("WHO") && picture.contains("create container (main)"), "{picture}");
    eprint!("{picture}");
    let refused = run(&mut windlass(test, &["trace", "pod", "nobody"]));
    assert!(!refused.ok && refused.stderr.contains("not found"), "{}", refused.stderr);
}
