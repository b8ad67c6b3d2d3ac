//! What a pod gets from its node, seen from inside the pod.

use serde_json::Value;
use windlass_tests::Test;
use windlass_tests::cluster::{must, until};
use windlass_tests::suite::{PATIENCE, condition};

/// A pod that runs `script` with the demo image, with more lines for the pod's spec and for its container.
fn scripted(name: &str, script: &str, pod: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{role: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{pod}  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command:\n    - sh\n    - -c\n    - |\n{}\n{container}",
        script.lines().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
    )
}

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

/// Runs a script to its end and returns what it printed.
fn run_script(test: &Test, name: &str, script: &str, pod: &str, container: &str) -> String {
    test.apply(&scripted(name, script, &format!("  restartPolicy: Never\n{pod}"), container));
    let ended = test.wait("pod", name, "ended", |object| matches!(phase(object), "Succeeded" | "Failed"));
    let logs = test.kubectl(&["logs", name]);
    assert_eq!(phase(&ended), "Succeeded", "{logs}\n{:#}", ended["status"]);
    logs
}

pub fn env_config_and_secrets_arrive(test: &Test) {
    test.kubectl(&["create", "configmap", "settings", "--from-literal=color=blue", "--from-literal=size=9"]);
    test.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=word=sesame"]);
    let container = "    env:
    - {name: PLAIN, value: \"a b\"}
    - {name: COMBINED, value: \"$(PLAIN)-$(NOT_THERE)-$$(PLAIN)\"}
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: WORD, valueFrom: {secretKeyRef: {name: hidden, key: word}}}
    - {name: NOTHING, valueFrom: {secretKeyRef: {name: hidden, key: none, optional: true}}}
    envFrom:
    - {prefix: SET_, configMapRef: {name: settings}}
";
    let text = run_script(test, "env", "env", "", container);
    for line in
        ["PLAIN=a b", "COMBINED=a b-$(NOT_THERE)-$(PLAIN)", "COLOR=blue", "WORD=sesame", "SET_size=9", "HOSTNAME=env"]
    {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("NOTHING="), "{text}");
    test.apply(&scripted(
        "waiting",
        "true",
        "",
        "    env: [{name: A, valueFrom: {configMapKeyRef: {name: absent, key: a}}}]\n",
    ));
    test.wait("pod", "waiting", "says what it lacks", |object| {
        let waiting = &object["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError" && waiting["message"].to_string().contains("absent")
    });
    test.kubectl(&["create", "configmap", "absent", "--from-literal=a=1"]);
    test.wait("pod", "waiting", "starts once it is there", |object| {
        object["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] != "CreateContainerConfigError"
    });
}

pub fn volumes_are_shared_and_updated(test: &Test) {
    test.kubectl(&["create", "configmap", "files", "--from-literal=a.txt=one", "--from-literal=b.txt=two"]);
    test.kubectl(&["create", "secret", "generic", "keys", "--from-literal=key=opensesame"]);
    let pod = "  volumes:
  - {name: config, configMap: {name: files}}
  - {name: picked, configMap: {name: files, items: [{key: b.txt, path: deep/named, mode: 0400}]}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0440}}
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: host, hostPath: {path: /etc/debian_version, type: File}}
";
    let container = "    volumeMounts:
    - {name: config, mountPath: /config}
    - {name: picked, mountPath: /picked}
    - {name: keys, mountPath: /keys}
    - {name: scratch, mountPath: /scratch}
    - {name: memory, mountPath: /memory}
    - {name: host, mountPath: /host-version, readOnly: true}
  - name: other
    image: windlass.local/demo:1
    command: [sh, -c, 'trap \"exit 0\" TERM; while true; do sleep 1 & wait $!; done']
    volumeMounts: [{name: scratch, mountPath: /scratch}]
";
    let script = "trap 'exit 0' TERM\necho hello > /scratch/file\nwhile true; do sleep 1 & wait $!; done";
    test.apply(&scripted("files", script, pod, container));
    test.wait("pod", "files", "Ready", |object| condition(object, "Ready").as_deref() == Some("True"));
    let exec =
        |container: &str, command: &str| test.kubectl(&["exec", "files", "-c", container, "--", "sh", "-c", command]);
    assert_eq!(exec("main", "cat /config/a.txt /picked/deep/named /keys/key"), "onetwoopensesame");
    assert_eq!(exec("main", "stat -L -c %a /picked/deep/named /keys/key"), "400\n440\n");
    assert_eq!(exec("main", "ls /picked"), "deep\n");
    until("the file is shared", PATIENCE, || match exec("other", "cat /scratch/file").as_str() {
        "hello\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert!(exec("main", "mount").lines().any(|line| line.contains("/memory") && line.contains("tmpfs")));
    assert!(!test.try_kubectl(&["exec", "files", "-c", "main", "--", "sh", "-c", "echo x > /host-version"]).ok);
    test.kubectl(&["patch", "configmap", "files", "-p", r#"{"data":{"a.txt":"changed"}}"#]);
    until("the change arrives", PATIENCE, || match exec("main", "cat /config/a.txt").as_str() {
        "changed" => Ok(()),
        other => Err(other.to_owned()),
    });
}

pub fn downward_api_tells_the_pod_about_itself(test: &Test) {
    let container = "    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: ADDRESS, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    resources: {limits: {memory: 32Mi}}
    volumeMounts: [{name: about, mountPath: /about}]
";
    let pod = "  volumes:\n  - name: about\n    downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}\n";
    let text = run_script(test, "self", "env; cat /about/labels; echo; hostname", pod, container);
    for line in ["POD=self", &format!("SPACE={}", test.namespace), "NODE=node1", "LIMIT=32", "role=\"self\"", "self"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let address = test.get("pod", "self")["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains(&format!("ADDRESS={address}")), "{address} in {text}");
}

pub fn limits_are_in_the_cgroup(test: &Test) {
    let container = "    resources: {requests: {cpu: 250m, memory: 16Mi}, limits: {cpu: 500m, memory: 48Mi}}\n";
    let script = "trap 'exit 0' TERM\nwhile true; do sleep 1 & wait $!; done";
    test.apply(&scripted("limited", script, "", container));
    let pod = test.wait("pod", "limited", "Ready", |object| condition(object, "Ready").as_deref() == Some("True"));
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let cgroup = find_cgroup("memory", &test.cluster.instance(), uid);
    let read = |path: &std::path::Path, file: &str| {
        std::fs::read_to_string(path.join(file)).unwrap_or_default().trim().to_owned()
    };
    let limit = [read(&cgroup, "memory.limit_in_bytes"), read(&cgroup, "memory.max")].concat();
    assert_eq!(limit, (48 * 1024 * 1024).to_string(), "{}", cgroup.display());
    let cpu = find_cgroup("cpu", &test.cluster.instance(), uid);
    assert_eq!([read(&cpu, "cpu.cfs_quota_us"), read(&cpu, "cpu.max")].concat().split(' ').next(), Some("50000"));
}

pub fn a_guaranteed_pod_runs_and_takes_commands(test: &Test) {
    let container = "    resources: {limits: {cpu: 100m, memory: 32Mi}}\n";
    let script = "trap 'exit 0' TERM\nwhile true; do sleep 1 & wait $!; done";
    test.apply(&scripted("guaranteed", script, "", container));
    let pod = test.wait("pod", "guaranteed", "Ready", |object| condition(object, "Ready").as_deref() == Some("True"));
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    assert_eq!(test.kubectl(&["exec", "guaranteed", "--", "echo", "hello"]), "hello\n");
}

/// The cgroup of the only container of a pod: the deepest folder below one that bears the pod's uid.
fn find_cgroup(controller: &str, instance: &str, uid: &str) -> std::path::PathBuf {
    let roots = [format!("/sys/fs/cgroup/{controller}/{instance}"), format!("/sys/fs/cgroup/{instance}")];
    let root = roots.iter().map(std::path::PathBuf::from).find(|path| path.exists());
    let mut deepest = root.unwrap_or_else(|| panic!("no cgroup of {instance} for {controller}"));
    let folders = |path: &std::path::Path| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let pod = folders(&deepest).into_iter().find(|path| path.to_string_lossy().contains(uid));
    deepest = pod.unwrap_or_else(|| panic!("no cgroup of pod {uid} below {}", deepest.display()));
    while let Some(child) = folders(&deepest).into_iter().next() {
        deepest = child;
    }
    deepest
}

pub fn memory_hog_is_oom_killed(test: &Test) {
    let container = "    resources: {limits: {memory: 24Mi}}\n";
    test.apply(&scripted(
        "hog",
        "x=$(yes 0123456789abcdef | head -c 64000000)\necho survived",
        "  restartPolicy: Never\n",
        container,
    ));
    let pod = test.wait("pod", "hog", "ended", |object| matches!(phase(object), "Succeeded" | "Failed"));
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((phase(&pod), ended["reason"].as_str()), ("Failed", Some("OOMKilled")), "{ended}");
    assert_eq!(ended["exitCode"], 137);
}

pub fn a_failing_container_backs_off(test: &Test) {
    test.apply(&scripted("failing", "echo attempt; exit 3", "", ""));
    let pod = test.wait("pod", "failing", "backs off", |object| {
        object["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3, "{status}");
    assert_eq!(status["lastState"]["terminated"]["reason"], "Error", "{status}");
    let shown = test.kubectl(&["get", "pod", "failing"]);
    assert!(shown.contains("CrashLoopBackOff"), "{shown}");
    test.wait("pod", "failing", "was restarted twice", |object| {
        object["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(2)
    });
    assert!(test.kubectl(&["get", "events"]).contains("BackOff"));
}

pub fn a_finished_pod_succeeds(test: &Test) {
    assert_eq!(run_script(test, "done", "echo fine", "", ""), "fine\n");
    let pod = test.get("pod", "done");
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((ended["exitCode"].as_i64(), ended["reason"].as_str()), (Some(0), Some("Completed")));
    assert!(test.kubectl(&["get", "pod", "done"]).contains("Completed"));
    test.kubectl(&[
        "run",
        "generated",
        "--image=windlass.local/demo:1",
        "--restart=Never",
        "--command",
        "--",
        "sh",
        "-c",
        "exit 7",
    ]);
    let pod = test.wait("pod", "generated", "ended", |object| phase(object) == "Failed");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 7);
}

pub fn init_containers_run_in_order(test: &Test) {
    let pod = "  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - {name: first, image: windlass.local/demo:1, command: [sh, -c, 'echo first >> /s/order'], volumeMounts: [{name: shared, mountPath: /s}]}
  - {name: second, image: windlass.local/demo:1, command: [sh, -c, 'echo second >> /s/order'], volumeMounts: [{name: shared, mountPath: /s}]}
";
    let container = "    volumeMounts: [{name: shared, mountPath: /s}]\n";
    assert_eq!(run_script(test, "ordered", "cat /s/order", pod, container), "first\nsecond\n");
}

pub fn probes_gate_and_restart(test: &Test) {
    let container = "    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, '!', -e, /tmp/dead]}, periodSeconds: 1, failureThreshold: 1}
";
    let script = "trap 'exit 0' TERM\nwhile true; do sleep 1 & wait $!; done";
    test.apply(&scripted("probed", script, "", container));
    test.wait("pod", "probed", "runs", |object| {
        !object["status"]["containerStatuses"][0]["state"]["running"].is_null()
    });
    assert_eq!(condition(&test.get("pod", "probed"), "Ready").as_deref(), Some("False"));
    test.kubectl(&["exec", "probed", "--", "touch", "/tmp/ready"]);
    test.wait("pod", "probed", "Ready", |object| condition(object, "Ready").as_deref() == Some("True"));
    test.kubectl(&["exec", "probed", "--", "touch", "/tmp/dead"]);
    test.wait("pod", "probed", "restarted", |object| object["status"]["containerStatuses"][0]["restartCount"] == 1);
    assert!(test.kubectl(&["get", "events"]).contains("Unhealthy"));
}

pub fn stop_is_graceful_and_then_not(test: &Test) {
    let polite = "trap 'echo bye; exit 0' TERM\necho ready\nwhile true; do sleep 1 & wait $!; done";
    test.apply(&scripted("polite", polite, "", ""));
    test.apply(&scripted("stubborn", "trap '' TERM\necho ready\nwhile true; do sleep 1; done", "", ""));
    for name in ["polite", "stubborn"] {
        test.wait("pod", name, "Ready", |object| condition(object, "Ready").as_deref() == Some("True"));
        until("the trap is set", PATIENCE, || match test.kubectl(&["logs", name]) {
            text if text.contains("ready") => Ok(()),
            text => Err(text),
        });
    }
    let started = std::time::Instant::now();
    test.kubectl(&["delete", "pod", "polite", "--grace-period=30"]);
    assert!(started.elapsed().as_secs() < 20, "a container that ends on SIGTERM is not waited for");
    let started = std::time::Instant::now();
    test.kubectl(&["delete", "pod", "stubborn", "--grace-period=2"]);
    let took = started.elapsed().as_secs_f64();
    assert!((1.9..20.0).contains(&took), "killed after its grace of 2 s: {took}");
}

pub fn seccomp_and_capabilities_are_the_default(test: &Test) {
    let script = "grep -E '^(Seccomp|CapEff|CapInh|NoNewPrivs):' /proc/self/status\nid -u\nls /dev";
    let text = run_script(test, "guarded", script, "", "    securityContext: {allowPrivilegeEscalation: false}\n");
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key} in {text}"));
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(value("Seccomp:"), "2", "a filter is on: {text}");
    assert_eq!(value("NoNewPrivs:"), "1");
    assert_eq!(value("CapInh:"), "0000000000000000");
    let effective = u64::from_str_radix(&value("CapEff:"), 16).expect("a hexadecimal mask");
    for (name, bit) in [("NET_RAW", 13), ("SYS_ADMIN", 21), ("SYS_MODULE", 16), ("SYS_PTRACE", 19)] {
        assert_eq!(effective >> bit & 1, 0, "{name} is not given: {effective:x}");
    }
    assert!(!text.contains("vda") && !text.contains("kvm"), "no devices of the host: {text}");
    let text =
        run_script(test, "user", "id -u; id -g", "", "    securityContext: {runAsUser: 1234, runAsGroup: 4321}\n");
    assert_eq!(text, "1234\n4321\n");
    let pod = "  securityContext: {runAsNonRoot: true}\n";
    test.apply(&scripted("root", "id", pod, ""));
    test.wait("pod", "root", "is refused to run as root", |object| {
        object["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
}

pub fn a_pending_pod_says_why(test: &Test) {
    test.apply(&scripted("huge", "true", "", "    resources: {requests: {cpu: \"900\"}}\n"));
    test.apply(&scripted("picky", "true", "  nodeSelector: {disk: golden}\n", ""));
    for (name, text) in [("huge", "1 Insufficient cpu"), ("picky", "didn't match Pod's node affinity/selector")] {
        let pod = test.wait("pod", name, "is unschedulable", |object| {
            condition(object, "PodScheduled").as_deref() == Some("False")
        });
        let conditions = pod["status"]["conditions"].to_string();
        assert!(conditions.contains("0/1 nodes are available") && conditions.contains(text), "{conditions}");
        let events = test.kubectl(&["describe", "pod", name]);
        assert!(events.contains("FailedScheduling") && events.contains(text), "{events}");
    }
    must(&mut test.cluster.kubectl_command(&["label", "node", "node1", "disk=golden"]));
    test.wait("pod", "picky", "is scheduled", |object| object["spec"]["nodeName"] == "node1");
    must(&mut test.cluster.kubectl_command(&["label", "node", "node1", "disk-"]));
}

/// What a drain does to each pod: its hook runs, and then it ends.
pub fn an_evicted_pod_runs_its_pre_stop_hook_first(test: &Test) {
    let script = "trap 'echo ending; exit 0' TERM\necho ready\nwhile true; do sleep 1 & wait $!; done";
    let hook = "    lifecycle: {preStop: {exec: {command: [sh, -c, 'echo hook > /proc/1/fd/1; sleep 1']}}}\n";
    test.apply(&scripted("leaving", script, "  terminationGracePeriodSeconds: 20\n", hook));
    test.wait("pod", "leaving", "Ready", |object| condition(object, "Ready").as_deref() == Some("True"));
    let mut follow = test.command(&["logs", "-f", "leaving"]);
    let follow = follow.stdout(std::process::Stdio::piped()).spawn().expect("kubectl starts");
    until("the trap is set", PATIENCE, || match test.kubectl(&["logs", "leaving"]) {
        text if text.contains("ready") => Ok(()),
        text => Err(text),
    });
    let body = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"leaving","namespace":"{}"}}}}"#,
        test.namespace
    );
    let file = test.file("json", &body);
    let path = format!("/api/v1/namespaces/{}/pods/leaving/eviction", test.namespace);
    must(&mut test.cluster.kubectl_command(&["create", "--raw", &path, "-f", &file]));
    let out = follow.wait_with_output().expect("kubectl ends with the container");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "ready\nhook\nending\n");
}

const ANEW: &str = "apiVersion: v1
kind: Pod
metadata: {name: anew}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 2
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - {name: first, image: 'windlass.local/demo:1', command: [sh, -c, 'echo first >> /s/order'], volumeMounts: [{name: shared, mountPath: /s}]}
  containers:
  - name: worker
    image: windlass.local/demo:1
    command: [sh, -c, 'while [ ! -e /s/up ]; do sleep 0.1; done; if [ -e /s/again ]; then sleep 1000; fi; touch /s/again; rm /s/up; exit 42']
    restartPolicy: Never
    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
    volumeMounts: [{name: shared, mountPath: /s}]
  - name: other
    image: windlass.local/demo:1
    command: [sh, -c, 'trap \"exit 0\" TERM; echo other >> /s/order; touch /s/up; while true; do sleep 0.2; done']
    volumeMounts: [{name: shared, mountPath: /s}]
";

/// KEP-5532: one exit code, and the pod begins with its init containers again, in the same place.
pub fn one_exit_code_restarts_all_containers(test: &Test) {
    test.apply(ANEW);
    let before = test.wait("pod", "anew", "has an address", |pod| pod["status"]["podIP"].is_string());
    let pod = test.wait("pod", "anew", "begun anew", |pod| {
        let counts = |list: &str| {
            let all = pod["status"][list].as_array().cloned().unwrap_or_default();
            !all.is_empty() && all.iter().all(|status| status["restartCount"] == 1)
        };
        counts("containerStatuses")
            && counts("initContainerStatuses")
            && condition(pod, "Ready").as_deref() == Some("True")
    });
    assert_eq!(pod["status"]["podIP"], before["status"]["podIP"], "it is in the same place");
    assert_eq!(pod["status"]["phase"], "Running");
    let order = test.kubectl(&["exec", "anew", "-c", "worker", "--", "cat", "/s/order"]);
    assert_eq!(order, "first\nother\nfirst\nother\n");
}
