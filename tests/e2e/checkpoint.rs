//! Saving a running container: what the node answers where CRIU can, and where it cannot.
//!
//! On a kernel that Debian's CRIU does not know this is about the refusal; [`crate::guest`] boots one that it knows.

use windlass_tests::Test;

pub fn a_container_is_saved_or_its_client_is_told_why_not(test: &Test) {
    let pod = test.sleeping_pod("saved", "");
    let path = |rest: &str| format!("/api/v1/nodes/node1/proxy/checkpoint/{}/{rest}", test.namespace);
    let ask = |rest: &str| test.try_kubectl(&["create", "--raw", &path(rest), "-f", "/dev/null"]);
    for (rest, why) in [
        ("saved/other", "container \"other\" not found"),
        ("none/main", "is not on this node"),
        ("saved/main?timeout=soon", "timeout: expected a number of seconds"),
    ] {
        let answer = ask(rest);
        assert!(!answer.ok && answer.stderr.contains(why), "{rest}: {}", answer.stderr);
    }
    let asked = ["create", "--raw", &path("saved/main"), "-f", "/dev/null", "--as=eve"];
    let refused = test.refused(&asked);
    assert!(refused.contains("forbidden"), "{refused}");

    let answer = ask("saved/main?timeout=30");
    let kept = test.cluster.data_dir().join("kubelet/checkpoints");
    let archives: Vec<_> = std::fs::read_dir(&kept).expect("a directory").flatten().map(|entry| entry.path()).collect();
    match answer.ok {
        true => {
            let archive = archives.first().expect("the archive");
            assert_eq!(answer.stdout.trim(), format!("{{\"items\":[\"{}\"]}}", archive.display()));
            std::fs::remove_file(archive).expect("our own file");
        }
        false => {
            assert!(answer.stderr.contains("checkpoint container main.0: criu: "), "{}", answer.stderr);
            assert!(archives.is_empty(), "{archives:?}");
        }
    }
    let after = test.get("pod", "saved");
    let id = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!((id(&after), &after["status"]["phase"]), (id(&pod), &"Running".into()));
    assert_eq!(test.kubectl(&["exec", "saved", "--", "echo", "still"]), "still\n");
}
