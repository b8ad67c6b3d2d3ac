//! `kubectl apply` from both sides, `diff`, dry runs and `kustomize`.

use windlass_tests::Test;

use crate::deployment::web;

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: ";

pub fn server_side_apply_knows_who_owns_what(test: &Test) {
    let apply = |by: &str, data: &str, more: &[&str]| {
        let file = test.file("yaml", &format!("{MAP}{data}\n"));
        let manager = format!("--field-manager={by}");
        test.try_kubectl(&[&["apply", "--server-side", "-f", &file, &manager][..], more].concat())
    };
    assert!(apply("ann", "{a: '1'}", &[]).stdout.contains("serverside-applied"));
    assert!(apply("bob", "{b: '1'}", &[]).ok);
    let refused = apply("bob", "{a: '2', b: '1'}", &[]);
    assert!(!refused.ok && refused.stderr.contains("conflict with \"ann\": .data.a"), "{}", refused.stderr);
    assert!(apply("bob", "{a: '2', b: '1'}", &["--force-conflicts"]).ok);
    let object = test.get("configmap", "shared");
    assert_eq!(object["data"], serde_json::json!({"a": "2", "b": "1"}));
    assert!(apply("ann", "{}", &[]).ok);
    assert!(apply("bob", "{b: '1'}", &[]).ok);
    assert_eq!(
        test.get("configmap", "shared")["data"],
        serde_json::json!({"b": "1"}),
        "what nobody applies any more goes"
    );
    let managed = test.kubectl(&["get", "configmap", "shared", "-o", "yaml", "--show-managed-fields"]);
    assert!(managed.contains("manager: bob") && managed.contains("f:b: {}"), "{managed}");
}

pub fn client_side_apply_becomes_server_side(test: &Test) {
    let first = test.file("yaml", &web("moved", 1));
    test.kubectl(&["apply", "-f", &first]);
    let second = test.file("yaml", &web("moved", 2));
    test.kubectl(&["apply", "--server-side", "-f", &second]);
    assert_eq!(test.get("deployment", "moved")["spec"]["replicas"], 2);
    let third = test.file("yaml", &web("moved", 1));
    test.kubectl(&["apply", "-f", &third]);
    assert_eq!(test.get("deployment", "moved")["spec"]["replicas"], 1);
}

pub fn diff_and_dry_run_change_nothing(test: &Test) {
    let file = test.file("yaml", &format!("{MAP}{{a: '1'}}\n"));
    let dry = test.kubectl(&["apply", "--dry-run=server", "-f", &file]);
    assert!(dry.contains("created (server dry run)"), "{dry}");
    let absent = test.refused(&["get", "configmap", "shared"]);
    assert!(absent.contains("NotFound"), "{absent}");
    test.kubectl(&["apply", "-f", &file]);
    assert_eq!(test.kubectl(&["diff", "-f", &file]), "", "what is there differs in nothing");
    let changed = test.file("yaml", &format!("{MAP}{{a: '2'}}\n"));
    for side in [&["--server-side=false"][..], &["--server-side", "--force-conflicts"]] {
        let differs = test.try_kubectl(&[&["diff", "-f", &changed][..], side].concat());
        assert!(
            !differs.ok && differs.stdout.contains("+  a: \"2\""),
            "{side:?}: {}{}",
            differs.stdout,
            differs.stderr
        );
    }
    assert_eq!(test.get("configmap", "shared")["data"]["a"], "1");
}

pub fn kustomize_builds_and_applies(test: &Test) {
    let map = test.file("yaml", &format!("{MAP}{{a: '1'}}\n"));
    let directory = std::path::PathBuf::from(test.file("d", "")).with_extension("kustomize");
    std::fs::create_dir_all(&directory).expect("the cluster's directory is writable");
    std::fs::copy(&map, directory.join("map.yaml")).expect("writable");
    let kustomization = "resources: [map.yaml]\nnamePrefix: dev-\nlabels: [{pairs: {tier: dev}}]\n\
                         configMapGenerator: [{name: made, literals: [k=v]}]\n";
    std::fs::write(directory.join("kustomization.yaml"), kustomization).expect("writable");
    let directory = directory.to_string_lossy().into_owned();
    assert!(test.kubectl(&["kustomize", &directory]).contains("dev-shared"));
    test.kubectl(&["apply", "-k", &directory]);
    let named = test.kubectl(&["get", "configmap", "-l", "tier=dev", "-o", "name"]);
    assert!(named.contains("configmap/dev-shared") && named.contains("configmap/dev-made-"), "{named}");
    test.kubectl(&["delete", "-k", &directory]);
    assert_eq!(test.kubectl(&["get", "configmap", "-l", "tier=dev", "-o", "name"]), "");
}
