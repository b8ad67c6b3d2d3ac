//! Profiles written by someone else hold for init and exec alike.

use windlass_runtime::{ContainerSpec, Seccomp, SeccompProfile};

use crate::bench::{Bench, Way, exec, on_each_way};

on_each_way! {
    a_written_profile_holds_for_init_and_exec,
}

async fn a_written_profile_holds_for_init_and_exec(way: Way) {
    let bench = Bench::new(way).await;
    let sandbox = bench.sandbox("s").await;
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    let profile = SeccompProfile::parse(text.as_bytes()).expect("a profile");
    let line = "mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; sleep 1000";
    let spec = ContainerSpec { seccomp: Seccomp::Profile(profile), no_new_privileges: true, ..bench.shell("c", line) };
    sandbox.create_container(spec).await.expect("create");
    sandbox.start("c").await.expect("start");
    let (_, text, error) = exec(&sandbox, "c", "mkdir /tmp/y; grep Seccomp: /proc/self/status").await;
    assert_eq!(text, "Seccomp:\t2\n");
    assert!(error.contains("Not supported") || error.contains("not supported"), "{error}");
    let said =
        crate::bench::until("it speaks", || Some(bench.output("c")).filter(|said| said.contains("Seccomp"))).await;
    assert!(said.contains("upported") && said.contains("Seccomp:\t2"), "{said}");
}
