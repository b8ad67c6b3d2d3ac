//! Who the processes of a container are and what they may do.

use serde_json::{Value, json};

use crate::Test;
use crate::running::{has_lines, phase, script};

/// A pod that runs a script once with this security context of its container.
fn with(name: &str, line: &str, context: Value) -> Value {
    let mut pod = script(name, line);
    pod["spec"]["containers"][0]["securityContext"] = context;
    pod
}

pub async fn a_pod_runs_as_nobody(test: &Test) {
    let text = test.run(&with("nobody", "id -u", json!({"runAsUser": 65534}))).await;
    has_lines(&text, &["65534"]);
}

pub async fn the_root_is_written(test: &Test) {
    let context = json!({"readOnlyRootFilesystem": false});
    test.run(&with("written", "touch /checkfile && test -e /checkfile", context)).await;
}

pub async fn the_network_is_not_configured(test: &Test) {
    let line = "ip link add dummy0 type dummy; echo ended $?; grep CapEff /proc/self/status";
    let text = test.run(&with("plain", line, json!({"privileged": false}))).await;
    assert!(text.contains("not permitted") && !text.contains("ended 0"), "{text}");
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT AUDIT_WRITE SETFCAP, and
    // neither NET_RAW nor MKNOD.
    has_lines(&text, &["CapEff:\t00000000a00405fb"]);
}

pub async fn no_privileges_are_gained(test: &Test) {
    let line = "grep NoNewPrivs /proc/self/status; id -u";
    let context = json!({"runAsUser": 1000, "allowPrivilegeEscalation": false});
    has_lines(&test.run(&with("closed", line, context)).await, &["NoNewPrivs:\t1", "1000"]);
    let context = json!({"runAsUser": 1000, "allowPrivilegeEscalation": true});
    has_lines(&test.run(&with("open", line, context)).await, &["NoNewPrivs:\t0", "1000"]);
}

pub async fn the_container_says_its_group(test: &Test) {
    let mut pod = with("container", "id -u; id -g", json!({"runAsUser": 1001, "runAsGroup": 2002}));
    pod["spec"]["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 2000});
    has_lines(&test.run(&pod).await, &["1001", "2002"]);
}

pub async fn the_pod_says_its_group(test: &Test) {
    let mut pod = script("pod", "id -u; id -g");
    pod["spec"]["securityContext"] = json!({"runAsUser": 1001, "runAsGroup": 2002});
    has_lines(&test.run(&pod).await, &["1001", "2002"]);
}

pub async fn a_safe_kernel_parameter_is_set(test: &Test) {
    let mut pod = script("sysctl", "cat /proc/sys/kernel/shm_rmid_forced");
    pod["spec"]["securityContext"] = json!({"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]});
    has_lines(&test.run(&pod).await, &["1"]);
    let mut pod = script("unsafe", "true");
    pod["spec"]["securityContext"] = json!({"sysctls": [{"name": "kernel.msgmax", "value": "8192"}]});
    let refused = test.run_to_end(&pod).await;
    assert_eq!((phase(&refused), &refused["status"]["reason"]), ("Failed", &json!("SysctlForbidden")));
}
