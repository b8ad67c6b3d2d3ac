//! Who a pod's processes are and what they may do.

use serde_json::{Value, json};

use crate::stage::{Cluster, on_each_runtime, shell, status, until_so};

/// A container that looks at itself and ends well.
fn looks(line: &str) -> Value {
    shell("a", &format!("{line}; echo end"))
}

fn is_over(pod: &Value) -> bool {
    pod["status"]["phase"] == "Succeeded"
}

fn pod(mut container: Value, own: Value, context: Value) -> Value {
    container["securityContext"] = own;
    json!({"restartPolicy": "Never", "containers": [container], "securityContext": context})
}

/// Waits until a container cannot be made for this reason.
async fn refused(cluster: &Cluster, name: &str, why: &str) {
    let refused = cluster.until(name, |pod| status(pod)["state"]["waiting"]["reason"] == "CreateContainerError").await;
    let message = status(&refused)["state"]["waiting"]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains(why), "{message}");
}

#[test]
fn a_pod_runs_as_who_it_says_with_the_groups_it_says() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let context = |policy: &str| json!({"runAsUser": 1000, "runAsGroup": 3000, "supplementalGroups": [4000], "supplementalGroupsPolicy": policy});
        cluster.pod("merge", pod(looks("id -u; id -G"), json!({}), context("Merge"))).await;
        cluster.pod("strict", pod(looks("id -u; id -G"), json!({}), context("Strict"))).await;
        let mut rows = vec![("merge", "3000 4000 50000", json!([4000, 50000]))];
        match cluster.containerd.is_some() {
            false => rows.push(("strict", "3000 4000", json!([4000]))),
            true => {
                let why = "a runtime that is spoken to by CRI v1 cannot be asked for supplementalGroupsPolicy Strict";
                refused(&cluster, "strict", why).await;
                cluster.delete("strict").await;
            }
        }
        for (name, groups, more) in rows {
            let pod = cluster.until(name, is_over).await;
            assert_eq!(cluster.log(&pod, "a", 0), format!("1000\n{groups}\nend"));
            let user = json!({"linux": {"uid": 1000, "gid": 3000, "supplementalGroups": more}});
            assert_eq!(status(&pod)["user"], user, "{name}");
            cluster.delete(name).await;
        }
    });
}

#[test]
fn a_pod_with_users_of_its_own_is_root_inside_and_nobody_outside() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let line =
            "id -u; cat /proc/self/uid_map; echo x > /notes/file; cat /etc/hostname; echo x > /dev/termination-log";
        let mut container = looks(line);
        container["volumeMounts"] = json!([{"name": "notes", "mountPath": "/notes"}]);
        let mut spec = pod(container, json!({}), json!({}));
        spec["hostUsers"] = json!(false);
        spec["volumes"] = json!([{"name": "notes", "emptyDir": {}}]);
        cluster.pod("own", spec).await;
        if cluster.containerd.is_some() {
            let why = "Failed to create pod sandbox: look up the pod's runtime: \
                       runtime handler \"containerd\" does not support user namespaces";
            until_so("it is told", async || {
                let (_, events) = cluster.get("/api/v1/namespaces/default/events").await;
                events.contains(&why.replace('"', "\\\""))
            })
            .await;
            cluster.delete("own").await;
            return;
        }
        let pod = cluster.until("own", is_over).await;
        let said = cluster.log(&pod, "a", 0);
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!((words[0], words[1], &words[3..]), ("0", "0", &["65536", "own", "end"][..]), "{said}");
        assert!(words[2].parse::<u32>().expect("a number") >= 65536, "{said}");
        cluster.delete("own").await;
    });
}

#[test]
fn a_privileged_pod_has_the_machines_devices_and_may_write_where_others_may_not() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let line = "test -c /dev/kmsg && echo devices; test -w /proc/sys/kernel/panic && echo proc; \
                    touch /sys/fs/cgroup/x 2>/dev/null || echo 'no files in a control group'";
        cluster.pod("all", pod(looks(line), json!({"privileged": true}), json!({}))).await;
        cluster.pod("few", pod(looks(line), json!({}), json!({}))).await;
        let all = cluster.until("all", is_over).await;
        let few = cluster.until("few", is_over).await;
        let (all, few) = (cluster.log(&all, "a", 0), cluster.log(&few, "a", 0));
        assert!(all.starts_with("devices\nproc\n"), "{all}");
        assert!(!few.contains("devices"), "{few}");
        cluster.delete("all").await;
        cluster.delete("few").await;
    });
}

#[test]
fn unsafe_sysctls_and_profiles_the_kernel_has_not_fail_the_pod_with_the_reason() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let sysctls = |name: &str| json!({"sysctls": [{"name": name, "value": "1"}]});
        let container = || shell("a", "cat /proc/sys/kernel/shm_rmid_forced");
        let safe = pod(container(), json!({}), sysctls("kernel.shm_rmid_forced"));
        cluster.pod("safe", safe).await;
        cluster.pod("unsafe", pod(container(), json!({}), sysctls("kernel.msgmax"))).await;
        let profile = json!({"appArmorProfile": {"type": "RuntimeDefault"}});
        cluster.pod("profile", pod(container(), json!({}), profile)).await;
        let mut far = pod(container(), json!({}), json!({}));
        far["nodeSelector"] = json!({"no": "such"});
        cluster.pod("far", far).await;
        let mut huge = container();
        huge["resources"] = json!({"requests": {"cpu": "4000"}});
        cluster.pod("huge", pod(huge, json!({}), json!({}))).await;
        let safe = cluster.until("safe", is_over).await;
        assert_eq!(cluster.log(&safe, "a", 0), "1");
        let rows =
            [("unsafe", "SysctlForbidden"), ("profile", "AppArmor"), ("far", "NodeAffinity"), ("huge", "OutOfcpu")];
        for (name, reason) in rows {
            let failed = cluster.until(name, |pod| pod["status"]["phase"] == "Failed").await;
            assert_eq!(failed["status"]["reason"], reason, "{name}");
            let message = failed["status"]["message"].as_str().expect("a message");
            assert!(message.starts_with("Pod was rejected: "), "{message}");
            assert!(failed["status"]["containerStatuses"].is_null(), "nothing of it began");
            cluster.delete(name).await;
        }
        cluster.delete("safe").await;
    });
}

#[test]
fn a_profile_of_the_machine_filters_and_one_that_is_not_there_is_named() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let profiles = cluster.dir.join("data/seccomp");
        std::fs::create_dir_all(&profiles).expect("a directory");
        let text =
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}"#;
        std::fs::write(profiles.join("no-mkdir.json"), text).expect("a file");
        let local = |path: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": path}});
        let line = "busybox mkdir /tmp/x 2>/dev/null || echo refused";
        cluster.pod("filtered", pod(looks(line), json!({}), local("no-mkdir.json"))).await;
        cluster.pod("missing", pod(looks("true"), local("none.json"), json!({}))).await;
        let filtered = cluster.until("filtered", is_over).await;
        assert_eq!(cluster.log(&filtered, "a", 0), "refused\nend");
        refused(&cluster, "missing", "none.json").await;
        cluster.delete("filtered").await;
        cluster.delete("missing").await;
    });
}
