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

/// What was rolled out before is kept in ControllerRevisions for these kinds.
pub fn cli_rolls_daemon_and_stateful_sets_as_kubectl_does(test: &Test) {
    let template = |name: &str, version: &str| {
        format!(
            "template:
    metadata: {{labels: {{app: {name}}}, annotations: {{version: \"{version}\"}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: main, image: windlass.local/demo:1, command: [sleep, \"1000000\"]}}]"
        )
    };
    let daemon = |version: &str| {
        let template = template("agent", version);
        format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: agent}}\nspec:\n  selector: {{matchLabels: {{app: agent}}}}\n  {template}\n"
        )
    };
    let stateful = |version: &str| {
        let template = template("db", version);
        format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec:\n  serviceName: db\n  replicas: 1\n  selector: {{matchLabels: {{app: db}}}}\n  {template}\n"
        )
    };
    for version in ["1", "2"] {
        test.apply(&daemon(version));
        test.apply(&stateful(version));
        for what in ["ds/agent", "sts/db"] {
            must(&mut windlass(test, &["rollout", "status", what, "--timeout=60s"]));
        }
    }
    for arguments in [
        "rollout status ds/agent",
        "rollout status sts/db",
        "rollout history ds/agent",
        "rollout history sts db",
        "rollout history ds agent --revision=1",
        "rollout history sts/db --revision=7",
        "rollout undo ds/agent --to-revision=9",
        "rollout undo sts/db --to-revision=2",
        "rollout undo ds/agent --dry-run=client",
        "rollout undo sts/db --dry-run=server",
        "rollout pause ds/agent",
        "rollout resume sts/db",
    ] {
        same(test, &arguments.split(' ').collect::<Vec<_>>());
    }
    for (what, kind, name, said) in [
        ("ds/agent", "daemonset", "agent", "daemonset.apps/agent"),
        ("sts/db", "statefulset", "db", "statefulset.apps/db"),
    ] {
        let undone = must(&mut windlass(test, &["rollout", "undo", what]));
        assert_eq!(undone, format!("{said} rolled back\n"));
        assert_eq!(test.get(kind, name)["spec"]["template"]["metadata"]["annotations"]["version"], "1");
        must(&mut windlass(test, &["rollout", "status", what, "--timeout=60s"]));
        same(test, &["rollout", "history", what]);
        let restarted = must(&mut windlass(test, &["rollout", "restart", what]));
        assert_eq!(restarted, format!("{said} restarted\n"));
    }
}

/// Both edit one object each, the same way, and say the same.
pub fn cli_edits_as_kubectl_does(test: &Test) {
    for name in ["theirs", "ours"] {
        test.kubectl(&["create", "configmap", name, "--from-literal=colour=gold"]);
        test.kubectl(&["create", "deployment", name, "--image=windlass.local/demo:1", "--replicas=0"]);
    }
    for (kind, editor) in [
        ("cm", "true"),
        ("cm", "sed -i s/gold/silver/"),
        ("cm", "sed -i 's/^  colour: .*/  colour: one # two/'"),
        ("cm", "sed -i s/^data:$/data:[/"),
        ("cm", "sed -i s/^kind:.*/kind:[/"),
        ("cm", "sed -i s/^kind:.*/kind:\\ Secret/"),
        ("cm", "sed -i /^data:/,/colour/d"),
        ("deploy", "sed -i 's/replicas: 0/replicas: -1/'"),
        ("deploy", "sed -i 's/resourceVersion: .*/resourceVersion: \"1\"/'"),
        ("deploy", "sed -i 's/terminationGracePeriodSeconds: 30/terminationGracePeriodSeconds: 3/'"),
    ] {
        let edited = |mut command: Command| {
            let out = run(command.env("KUBE_EDITOR", editor).env("SHELL", "/bin/sh"));
            let text = comparable(&out).replace("theirs", "ours").replace("windlass apply -f", "windlass replace -f");
            let is_file = |word: &&str| word.contains("-edit-");
            let files: Vec<&str> = text.split([' ', '\n', '"']).filter(is_file).collect();
            files.iter().fold(text.clone(), |text, file| text.replace(file, "FILE"))
        };
        let theirs = edited(test.command(&["edit", kind, "theirs"]));
        let ours = edited(windlass(test, &["edit", kind, "ours"]));
        assert_eq!(ours, theirs, "edit {kind} with {editor}");
    }
    for kind in ["configmap", "deployment"] {
        let [theirs, ours] = ["theirs", "ours"].map(|name| test.get(kind, name));
        assert_eq!(ours["data"], theirs["data"]);
        assert_eq!(ours["spec"]["template"]["spec"], theirs["spec"]["template"]["spec"]);
    }
    same(test, &["edit", "cm", "nobody"]);
    let failed = run(windlass(test, &["edit", "cm", "ours"]).env("KUBE_EDITOR", "false"));
    assert!(
        !failed.ok && failed.stderr.starts_with("A copy of your changes has been stored to \""),
        "{}",
        failed.stderr
    );
    assert!(failed.stderr.ends_with("error: there was a problem with the editor \"false\"\n"), "{}", failed.stderr);
    let absent = run(windlass(test, &["edit", "cm", "ours"]).env("KUBE_EDITOR", "/no/such/editor"));
    assert!(
        absent.stderr.contains("unable to launch the editor \"/no/such/editor\": No such file"),
        "{}",
        absent.stderr
    );
    // kubectl says so in the file and then asks again.
    let emptied = run(windlass(test, &["edit", "cm", "ours"]).env("KUBE_EDITOR", "truncate -s 0"));
    assert_eq!((emptied.ok, emptied.stderr.as_str()), (true, "Edit cancelled, saved file was empty.\n"));
}

/// Every directory of `tests/e2e/kustomize`, and those within it that are bases of others.
pub fn cli_builds_kustomizations_as_kubectl_does(test: &Test) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/kustomize");
    let mut directories = vec![root];
    let mut count = 0;
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory).expect("the tests' own directory").flatten();
        let paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        let is_kustomization = |path: &std::path::PathBuf| path.file_stem().is_some_and(|stem| stem == "kustomization");
        if paths.iter().any(is_kustomization) {
            let shown = directory.display().to_string();
            let theirs = run(&mut test.command(&["kustomize", &shown]));
            let ours = run(Command::new(given("WINDLASS_BIN")).args(["kustomize", &shown]));
            assert_eq!(ours.stdout, theirs.stdout, "{shown}: {}", ours.stderr);
            assert_eq!((ours.ok, ours.stderr), (theirs.ok, theirs.stderr), "{shown}");
            count += usize::from(theirs.ok);
        }
        directories.extend(paths.into_iter().filter(|path| path.is_dir()));
    }
    assert!(count >= 10, "{count} kustomizations were built");
    let base = format!("{}/e2e/kustomize/layers/base", env!("CARGO_MANIFEST_DIR"));
    let applied = must(&mut windlass(test, &["apply", "-k", &base]));
    assert!(applied.contains("service/web created") && applied.contains("configmap/conf-"), "{applied}");
    let again = test.kubectl(&["apply", "-k", &base]);
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    let gone = must(&mut windlass(test, &["delete", "-k", &base]));
    assert!(gone.contains("deployment.apps \"web\" deleted"), "{gone}");
    same(test, &["get", "deploy,svc"]);
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

/// What bash offers at the end of a line, once it has read the script.
fn offered(test: &Test, line: &str) -> Vec<String> {
    let program = given("WINDLASS_BIN");
    let directory = program.parent().expect("a program is in a directory").to_owned();
    let script = "source <(windlass completion bash); read -ra COMP_WORDS <<< \"$1\"; [[ $1 == *' ' ]] && COMP_WORDS+=('');\n\
                  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); word=${COMP_WORDS[COMP_CWORD]}; before=${COMP_WORDS[COMP_CWORD - 1]}\n\
                  named=$(complete -p windlass | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $named windlass \"$word\" \"$before\"\n\
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    bash.env("PATH", path).env("KUBECONFIG", test.cluster.kubeconfig());
    must(bash.args(["-c", script, "bash", line])).lines().map(str::to_owned).collect()
}

pub fn bash_completes_verbs_flags_kinds_names_and_namespaces(test: &Test) {
    test.kubectl(&["create", "configmap", "completed-one", "--from-literal=a=1"]);
    test.kubectl(&["create", "configmap", "completed-two", "--from-literal=a=1"]);
    let namespace = &test.namespace;
    assert_eq!(offered(test, "windlass descr"), ["describe"]);
    assert!(offered(test, "windlass get --names").contains(&"--namespace".to_owned()));
    assert_eq!(offered(test, "windlass get configm"), ["configmaps"]);
    assert_eq!(
        offered(test, &format!("windlass get -n {namespace} cm completed-")),
        ["completed-one", "completed-two"]
    );
    assert_eq!(offered(test, &format!("windlass -n {namespace} describe cm/completed-t")), ["cm/completed-two"]);
    assert_eq!(offered(test, &format!("windlass get pods -n {namespace}")), [namespace.as_str()]);
    // A name that means something to a shell is nothing to offer.
    let role =
        r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"$(touch x)"},"rules":[]}"#;
    test.kubectl(&["create", "-f", &test.file("json", role)]);
    assert!(!offered(test, &format!("windlass get -n {namespace} roles ")).iter().any(|name| name.contains('$')));
}
