//! Who may do what, as clients ask and see it.

use windlass_tests::Test;
use windlass_tests::cluster::must;

/// An account that may read ConfigMaps.
pub const ROLE: &str = r#"apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules:
- {apiGroups: [""], resources: [configmaps], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: robot}]
"#;

pub fn roles_decide_what_a_service_account_may_do(test: &Test) {
    test.apply(ROLE);
    let robot = format!("--as=system:serviceaccount:{}:robot", test.namespace);
    assert_eq!(test.kubectl(&["auth", "can-i", "list", "configmaps", &robot]).trim(), "yes");
    let denied = test.try_kubectl(&["auth", "can-i", "delete", "configmaps", &robot]);
    assert!(!denied.ok && denied.stdout.trim() == "no", "{}{}", denied.stdout, denied.stderr);
    let list = test.kubectl(&["auth", "can-i", "--list", &robot]);
    let line = list.lines().find(|line| line.starts_with("configmaps ")).unwrap_or_default();
    assert!(line.contains("[get list]"), "{list}");
    let who = test.kubectl(&["auth", "whoami", &robot]);
    assert!(who.contains(&format!("system:serviceaccount:{}:robot", test.namespace)), "{who}");
    let refused = test.refused(&["delete", "configmap", "kube-root-ca.crt", &robot]);
    assert!(refused.contains("Forbidden") && refused.contains("cannot delete resource \"configmaps\""), "{refused}");
}

pub fn a_token_speaks_for_its_service_account(test: &Test) {
    test.apply(ROLE);
    let token = test.kubectl(&["create", "token", "robot", "--duration=10m"]);
    let url = format!("https://127.0.0.1:{}", test.cluster.port());
    let config = must(&mut test.cluster.kubectl_command(&["config", "view", "--raw", "-o", "json"]));
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("kubectl prints JSON");
    config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    let file = test.file("json", &config.to_string());
    let as_robot = |arguments: &[&str]| {
        let mut command = test.command(&[]);
        command.args(["--kubeconfig", &file, "--server", &url]).args(arguments);
        windlass_tests::cluster::run(&mut command)
    };
    let read = as_robot(&["get", "configmap", "kube-root-ca.crt", "-o", "name"]);
    assert_eq!(read.stdout.trim(), "configmap/kube-root-ca.crt", "{}", read.stderr);
    let refused = as_robot(&["get", "secrets"]);
    assert!(!refused.ok && refused.stderr.contains("Forbidden"), "{}{}", refused.stdout, refused.stderr);
    test.kubectl(&["delete", "serviceaccount", "robot"]);
    let gone = as_robot(&["get", "configmap", "kube-root-ca.crt"]);
    assert!(!gone.ok && gone.stderr.contains("Unauthorized"), "{}{}", gone.stdout, gone.stderr);
}

pub fn a_pod_asks_the_api_by_its_own_token(test: &Test) {
    test.apply(ROLE);
    test.sleeping_pod("asker", "  serviceAccountName: robot\n");
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    let listed = test.kubectl(&["exec", "asker", "--", "ls", place]);
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["ca.crt", "namespace", "token"]);
    assert_eq!(test.kubectl(&["exec", "asker", "--", "cat", &format!("{place}/namespace")]), test.namespace);
    let token = test.kubectl(&["exec", "asker", "--", "cat", &format!("{place}/token")]);
    let review = format!(
        "apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nmetadata: {{name: asked}}\nspec: {{token: {}}}\n",
        token.trim()
    );
    let file = test.file("yaml", &review);
    let answer = test.kubectl(&["create", "-f", &file, "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("kubectl prints JSON");
    assert_eq!(answer["status"]["authenticated"], true, "{answer}");
    let user = &answer["status"]["user"];
    assert_eq!(user["username"], format!("system:serviceaccount:{}:robot", test.namespace));
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"][0], "asker", "{user}");
}
