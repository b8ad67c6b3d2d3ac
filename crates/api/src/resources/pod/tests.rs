//! The rules of a pod, each shown by a table of what is said.

use serde_json::{Value, json};

use super::Pod;
use crate::field::Errors;
use crate::resource::Rules;

/// A pod that breaks no rule.
fn good() -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [{"name": "c", "image": "a:1"}]},
    });
    Pod.default(&mut pod);
    Pod.prepare_create(&mut pod);
    pod
}

fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = good();
    change(&mut pod["spec"]);
    pod
}

fn compare(errors: &Errors, expected: &[&str]) {
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}, expected {expected}");
    }
}

fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
    let mut pod = changed(change);
    Pod.default(&mut pod);
    let mut errors = Errors::new();
    Pod.validate(&pod, &mut errors);
    compare(&errors, expected);
}

fn check_update(change: impl FnOnce(&mut Value), expected: &[&str]) {
    let mut errors = Errors::new();
    Pod.validate_update(&changed(change), &good(), &mut errors);
    compare(&errors, expected);
}

#[test]
fn a_small_pod_breaks_no_rule() {
    check(|_| {}, &[]);
}

#[test]
fn a_pod_without_a_spec_is_refused() {
    let mut pod = json!({"metadata": {"name": "p"}});
    Pod.default(&mut pod);
    let mut errors = Errors::new();
    Pod.validate(&pod, &mut errors);
    compare(&errors, &["spec.containers: Required value"]);
}

#[test]
fn c1_and_c2_containers_have_names_and_images() {
    check(
        |spec| {
            spec["containers"] =
                json!([{"image": "a"}, {"name": "c"}, {"name": "c", "image": " a"}, {"name": "C_1", "image": "a"}])
        },
        &[
            "spec.containers[0].name: Required value",
            "spec.containers[1].image: Required value",
            "spec.containers[2].name: Duplicate value: \"c\"",
            "spec.containers[3].name: Invalid value: \"C_1\": a lowercase RFC 1123 label",
            "spec.containers[2].image: Invalid value: \" a\": must not have leading or trailing whitespace",
        ],
    );
    check(
        |spec| spec["initContainers"] = json!([{"name": "c", "image": "a"}]),
        &["spec.initContainers[0].name: Duplicate value: \"c\""],
    );
}

#[test]
fn c3_ports_are_taken_once() {
    check(
        |spec| {
            spec["containers"] = json!([
                {"name": "a", "image": "a", "ports": [{"name": "http", "containerPort": 80, "hostPort": 80}, {"name": "http", "containerPort": 81}]},
                {"name": "b", "image": "a", "ports": [{"containerPort": 8080, "hostPort": 80}, {"containerPort": 70000}, {"protocol": "ICMP"}]},
            ]);
        },
        &[
            "spec.containers[0].ports[1].name: Duplicate value: \"http\"",
            "spec.containers[1].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[1].ports[2].containerPort: Required value",
            "spec.containers[1].ports[2].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\"",
        ],
    );
    check(
        |spec| {
            spec["hostNetwork"] = json!(true);
            spec["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 81}]);
        },
        &[
            "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
        ],
    );
}

#[test]
fn c4_only_sidecars_have_probes() {
    let init = |policy: Value| json!([{"name": "i", "image": "a", "restartPolicy": policy, "livenessProbe": {"exec": {"command": ["a"]}}}]);
    check(|spec| spec["initContainers"] = init(json!("Always")), &[]);
    check(
        |spec| spec["initContainers"] = init(json!(null)),
        &["spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers"],
    );
    check(
        |spec| spec["containers"][0]["restartPolicy"] = json!("Sometimes"),
        &["spec.containers[0].restartPolicy: Unsupported value: \"Sometimes\""],
    );
}

#[test]
fn mounts_need_their_volume() {
    check(
        |spec| spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
    );
}

#[test]
fn commands_are_whole() {
    check(
        |spec| spec["containers"][0]["command"] = json!(["sh", "a\0b"]),
        &["spec.containers[0].command[1]: Invalid value"],
    );
}

#[test]
fn words_of_a_spec_are_known() {
    check(
        |spec| {
            spec["restartPolicy"] = json!("Maybe");
            spec["dnsPolicy"] = json!("None");
            spec["activeDeadlineSeconds"] = json!(0);
            spec["hostname"] = json!("a.b");
            spec["nodeName"] = json!("N_1");
            spec["hostAliases"] = json!([{"ip": "1.2.3", "hostnames": ["-a"]}]);
            spec["containers"][0]["imagePullPolicy"] = json!("Often");
            spec["ephemeralContainers"] = json!([{"name": "e", "image": "a"}]);
        },
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Often\"",
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.dnsConfig: Required value: must provide `dnsConfig`",
            "spec.nodeName: Invalid value: \"N_1\"",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            "spec.hostname: Invalid value: \"a.b\": must not contain dots",
            "spec.hostAliases[0].ip: Invalid value: \"1.2.3\": must be a valid IP address",
            "spec.hostAliases[0].hostnames[0]: Invalid value: \"-a\"",
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ],
    );
    check(
        |spec| spec["dnsConfig"] = json!({"nameservers": ["1.1.1.1", "x", "1.1.1.1", "1.1.1.1"], "searches": ["_a.b.", "c d"], "options": [{}]}),
        &[
            "spec.dnsConfig.nameservers: Invalid value: [\"1.1.1.1\",\"x\",\"1.1.1.1\",\"1.1.1.1\"]: must not have more than 3",
            "spec.dnsConfig.nameservers[1]: Invalid value: \"x\"",
            "spec.dnsConfig.searches[1]: Invalid value: \"c d\"",
            "spec.dnsConfig.options[0]: Required value",
        ],
    );
}

#[test]
fn a_new_pod_waits_and_tolerates_lost_nodes() {
    let pod = good();
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    let spec = &pod["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    assert_eq!(
        spec["tolerations"],
        json!([
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ])
    );
    let mut own = json!({"spec": {"tolerations": [{"operator": "Exists"}], "schedulingGates": [{"name": "g"}]}, "status": {"phase": "Running"}});
    Pod.prepare_create(&mut own);
    assert_eq!(own["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(own["status"]["phase"], "Pending");
    assert_eq!(own["status"]["conditions"][0]["reason"], "SchedulingGated");
}

#[test]
fn an_update_keeps_what_the_server_added() {
    let old = good();
    let mut new = json!({"metadata": old["metadata"], "spec": {"containers": [{"name": "c", "image": "a:2"}]}, "status": {"phase": "Failed"}});
    Pod.default(&mut new);
    Pod.prepare_update(&mut new, &old);
    assert_eq!(new["status"]["phase"], "Pending");
    let mut errors = Errors::new();
    Pod.validate_update(&new, &old, &mut errors);
    compare(&errors, &[]);
}

#[test]
fn u1_images_change_and_containers_stay() {
    check_update(|spec| spec["containers"][0]["image"] = json!("b:2"), &[]);
    check_update(
        |spec| spec["containers"] = json!([]),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
}

#[test]
fn u2_and_u3_deadlines_shrink_and_tolerations_grow() {
    check_update(|spec| spec["activeDeadlineSeconds"] = json!(5), &[]);
    check_update(
        |spec| {
            spec["tolerations"][0]["tolerationSeconds"] = json!(1);
            spec["tolerations"].as_array_mut().expect("a list").push(json!({"operator": "Exists"}));
        },
        &[],
    );
    check_update(
        |spec| spec["tolerations"] = json!([]),
        &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
    let mut old = good();
    old["spec"]["activeDeadlineSeconds"] = json!(5);
    let mut errors = Errors::new();
    Pod.validate_update(&good(), &old, &mut errors);
    compare(&errors, &["spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer"]);
}

#[test]
fn u4_gates_only_go() {
    check_update(
        |spec| spec["schedulingGates"] = json!([{"name": "g"}]),
        &["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"],
    );
    let mut old = good();
    old["spec"]["schedulingGates"] = json!([{"name": "g"}]);
    let closer = changed(|spec| spec["nodeSelector"] = json!({"disk": "ssd"}));
    let mut errors = Errors::new();
    Pod.validate_update(&closer, &old, &mut errors);
    compare(&errors, &[]);
    old["spec"]["nodeSelector"] = json!({"disk": "hdd"});
    Pod.validate_update(&closer, &old, &mut errors);
    compare(
        &errors,
        &["spec.nodeSelector: Invalid value: {\"disk\":\"ssd\"}: only additions to spec.nodeSelector are allowed (no"],
    );
}

#[test]
fn u4_terms_of_a_gated_pod_only_grow() {
    let affinity = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let gated = |terms: Value| {
        changed(|spec| {
            spec["schedulingGates"] = json!([{"name": "g"}]);
            spec["affinity"] = affinity(terms);
        })
    };
    let check = |now: Value, then: Value, expected: &[&str]| {
        let mut errors = Errors::new();
        Pod.validate_update(&gated(now), &gated(then), &mut errors);
        compare(&errors, expected);
    };
    let (zone, disk) = (json!({"key": "zone", "operator": "Exists"}), json!({"key": "disk", "operator": "Exists"}));
    let at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    check(json!([{"matchExpressions": [zone, disk]}]), json!([{"matchExpressions": [zone]}]), &[]);
    check(json!([{"matchExpressions": [zone]}]), json!([]), &[]);
    let fault = format!("{at}[0]: Invalid value");
    check(json!([{"matchExpressions": [disk]}]), json!([{"matchExpressions": [zone]}]), &[&fault]);
    let fault =
        format!("{at}: Invalid value: []: no additions/deletions to non-empty NodeSelectorTerms list are allowed");
    check(json!([]), json!([{"matchExpressions": [zone]}]), &[&fault]);
    let mut errors = Errors::new();
    let mut with_pods = gated(json!([]));
    with_pods["spec"]["affinity"]["podAffinity"] =
        json!({"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]});
    Pod.validate_update(&with_pods, &gated(json!([])), &mut errors);
    compare(&errors, &["spec: Forbidden: pod updates may not change fields other than"]);
}

#[test]
fn hosts_are_not_shared_with_users_that_are_not_theirs() {
    check(
        |spec| {
            spec["hostUsers"] = json!(false);
            spec["hostPID"] = json!(true);
            spec["hostNetwork"] = json!(true);
            spec["hostnameOverride"] = json!("host");
        },
        &[
            "spec.hostNetwork: Forbidden: when `hostUsers` is false",
            "spec.HostPID: Forbidden: when `hostUsers` is false",
            "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
        ],
    );
}

#[test]
fn c5_and_c6_containers_say_when_they_are_restarted() {
    check(
        |spec| {
            spec["restartPolicy"] = json!("Never");
            spec["containers"][0]["restartPolicyRules"] =
                json!([{"action": "Stop", "exitCodes": {"operator": "Is"}}, {"action": "Restart"}]);
            spec["containers"][0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"},
                {"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "disk", "restartPolicy": "NotRequired"}]);
        },
        &[
            "spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            "spec.containers[0].resizePolicy[1]: Duplicate value: \"cpu\"",
            "spec.containers[0].resizePolicy: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"",
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"",
            "spec.containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"",
            "spec.containers[0].restartPolicyRules[1].exitCodes: Required value: must be specified",
        ],
    );
    check(
        |spec| {
            spec["initContainers"] = json!([{"name": "i", "image": "a", "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}]);
        },
        &[
            "spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to",
        ],
    );
}

#[test]
fn variables_from_files_come_from_volumes_of_the_pod_alone() {
    check(
        |spec| {
            spec["volumes"] = json!([{"name": "v", "hostPath": {"path": "/a"}}]);
            let from = |volume: &str| json!({"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": volume, "path": "p", "key": "k"}}});
            spec["containers"][0]["env"] = json!([from("v"), from("w")]);
        },
        &[
            "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Invalid value: \"v\": referenced volume must be of type emptyDir",
            "spec.containers[0].env[1].valueFrom.fileKeyRef.volumeName: Not found: \"w\"",
        ],
    );
}

#[test]
fn overhead_is_counted_like_the_limits_of_a_container() {
    check(
        |spec| spec["overhead"] = json!({"cpu": "-1"}),
        &["spec.overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
}

#[test]
fn u5_the_rest_stays_and_the_refusal_says_what_changed() {
    let mut errors = Errors::new();
    let moved = changed(|spec| {
        spec["nodeName"] = json!("n2");
        spec["containers"][0]["command"] = json!(["sh"]);
    });
    Pod.validate_update(&moved, &good(), &mut errors);
    let text = errors.iter().map(ToString::to_string).collect::<String>();
    assert!(
        text.starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"),
        "{text}"
    );
    assert!(text.ends_with("changed here: containers, nodeName"), "{text}");
    // What typed clients leave out because it is empty is no change.
    check_update(|spec| spec["hostNetwork"] = json!(false), &[]);
    check_update(|spec| spec["containers"][0]["env"] = json!([]), &[]);
    check_update(|spec| spec["automountServiceAccountToken"] = json!(false), &["spec: Forbidden"]);
}

mod printed {
    use super::super::cells::cells;
    use serde_json::{Value, json};

    /// Checks ready, status and restarts of a pod with two containers.
    fn check(status: Value, expected: [&str; 3]) {
        check_pod(json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status}), expected);
    }

    fn check_pod(mut pod: Value, expected: [&str; 3]) {
        pod["metadata"]["name"] = json!("p");
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
        let cells = cells(&pod, now);
        assert_eq!(cells[1..4], expected.map(Value::from), "{pod}");
    }

    fn running(name: &str, ready: bool, restarts: i64) -> Value {
        json!({"name": name, "ready": ready, "restartCount": restarts, "state": {"running": {}}})
    }

    fn waiting(name: &str, reason: &str, restarts: i64) -> Value {
        json!({"name": name, "restartCount": restarts, "state": {"waiting": {"reason": reason}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:08:00Z"}}})
    }

    fn ended(name: &str, reason: &str, code: i64) -> Value {
        json!({"name": name, "restartCount": 0, "state": {"terminated": {"reason": reason, "exitCode": code}}})
    }

    #[test]
    fn the_status_of_main_containers() {
        check(json!({"phase": "Pending"}), ["0/2", "Pending", "0"]);
        check(json!({"phase": "Failed", "reason": "Evicted"}), ["0/2", "Evicted", "0"]);
        check(
            json!({"phase": "Running", "containerStatuses": [running("a", true, 0), running("b", false, 0)]}),
            ["1/2", "Running", "0"],
        );
        check(
            json!({"phase": "Pending", "containerStatuses": [waiting("a", "ContainerCreating", 0), waiting("b", "ContainerCreating", 0)]}),
            ["0/2", "ContainerCreating", "0"],
        );
        check(
            json!({"phase": "Running", "containerStatuses": [waiting("a", "CrashLoopBackOff", 3), running("b", true, 0)]}),
            ["1/2", "CrashLoopBackOff", "3 (2m ago)"],
        );
        check(
            json!({"phase": "Succeeded", "containerStatuses": [ended("a", "Completed", 0), ended("b", "Completed", 0)]}),
            ["0/2", "Completed", "0"],
        );
        check(
            json!({"phase": "Running", "containerStatuses": [ended("a", "Error", 1), running("b", true, 0)]}),
            ["1/2", "Error", "0"],
        );
        check(json!({"phase": "Failed", "containerStatuses": [ended("a", "", 7)]}), ["0/2", "ExitCode:7", "0"]);
        check(
            json!({"phase": "Running", "containerStatuses": [ended("a", "Completed", 0), running("b", true, 0)]}),
            ["1/2", "NotReady", "0"],
        );
        check(
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [ended("a", "Completed", 0), running("b", true, 0)]}),
            ["1/2", "Running", "0"],
        );
        check(
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            ["0/2", "SchedulingGated", "0"],
        );
    }

    #[test]
    fn the_status_of_init_containers() {
        let pod = |statuses: Value| {
            json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
                "status": {"phase": "Pending", "initContainerStatuses": statuses}})
        };
        check_pod(pod(json!([running("i", false, 0)])), ["0/2", "Init:0/2", "0"]);
        check_pod(pod(json!([waiting("i", "PodInitializing", 0)])), ["0/2", "Init:0/2", "0"]);
        check_pod(pod(json!([waiting("i", "CrashLoopBackOff", 2)])), ["0/2", "Init:CrashLoopBackOff", "2 (2m ago)"]);
        check_pod(pod(json!([ended("i", "Error", 1)])), ["0/2", "Init:Error", "0"]);
        check_pod(pod(json!([ended("i", "", 3)])), ["0/2", "Init:ExitCode:3", "0"]);
        check_pod(pod(json!([ended("i", "Completed", 0), waiting("s", "", 0)])), ["0/2", "Init:1/2", "0"]);
        let mut sidecar = running("s", true, 4);
        sidecar["started"] = json!(true);
        let mut pod = pod(json!([ended("i", "Completed", 0), sidecar]));
        pod["status"]["phase"] = json!("Running");
        pod["status"]["containerStatuses"] = json!([running("a", true, 1)]);
        check_pod(pod, ["2/2", "Running", "5"]);
    }

    #[test]
    fn an_ending_pod_is_said_to_end() {
        let pod = |status: Value| json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": [{"name": "a"}]}, "status": status});
        check_pod(pod(json!({"phase": "Running"})), ["0/1", "Terminating", "0"]);
        check_pod(pod(json!({"phase": "Running", "reason": "NodeLost"})), ["0/1", "Unknown", "0"]);
        check_pod(pod(json!({"phase": "Succeeded"})), ["0/1", "Succeeded", "0"]);
    }

    #[test]
    fn the_wide_columns() {
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
        let pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": [], "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "x", "status": "True"}]}});
        assert_eq!(cells(&pod, now)[4..], ["10m", "10.0.0.1", "n", "<none>", "1/2"].map(Value::from));
    }
}
