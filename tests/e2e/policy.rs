//! Network policies, with real pods and real packets.

use std::time::Duration;

use windlass_tests::Test;
use windlass_tests::cluster::{must, run, until};
use windlass_tests::suite::{PATIENCE, is_ready};

use crate::deployment::request;

/// A change of a policy may take this long to be in force; it takes milliseconds.
const AT_ONCE: Duration = Duration::from_secs(10);

const SERVER: &str = "apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: windlass.local/demo:1
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: http}]}
";

fn policy(name: &str, app: &str, rules: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, {rules}}}\n"
    )
}

/// What a shell runs to ask a server at an address; it ends with 0 when there is an answer within a second.
pub fn asking(host: &str, port: &str) -> String {
    format!("printf \"GET / HTTP/1.0\\r\\n\\r\\n\" | nc -w 1 {host} {port} | grep -q HTTP")
}

/// Waits until a pod can, or cannot, ask the address.
fn expect(test: &Test, (namespace, pod): (&str, &str), address: &str, may: bool) {
    let script = asking(address, "8080");
    let out = &["exec", pod, "--", "sh", "-c", &script];
    until(&format!("{pod} {} {address}", if may { "reaches" } else { "does not reach" }), AT_ONCE, || {
        let out = run(&mut test.cluster.kubectl_command(&[&["-n", namespace][..], out].concat()));
        if out.ok == may { Ok(()) } else { Err(format!("{out:?}")) }
    });
}

pub fn network_policies_restrict_real_pods(test: &Test) {
    let own = test.namespace.as_str();
    let other = format!("{own}-other");
    test.apply(SERVER);
    for pod in ["friend", "stranger"] {
        test.sleeping_pod(pod, "");
    }
    must(&mut test.cluster.kubectl_command(&["create", "namespace", &other]));
    let outside = Test { cluster: test.cluster, namespace: other.clone() };
    outside.sleeping_pod("guest", "");
    let server = test.wait("pod", "server", "Ready", is_ready);
    let address = |pod: &serde_json::Value| pod["status"]["podIP"].as_str().expect("an address").to_owned();
    let own_address = address(&server);
    let reach = |pod: &str, may: bool| match pod {
        "guest" => expect(test, (&other, pod), &own_address, may),
        _ => expect(test, (own, pod), &own_address, may),
    };
    for pod in ["friend", "stranger", "guest"] {
        reach(pod, true);
    }

    test.apply(&policy("deny", "server", "policyTypes: [Ingress]"));
    for pod in ["friend", "stranger", "guest"] {
        reach(pod, false);
    }

    test.apply(&policy("label", "server", "ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]"));
    reach("friend", true);
    reach("stranger", false);
    test.kubectl(&["label", "pod", "stranger", "app=friend", "--overwrite"]);
    reach("stranger", true);
    test.kubectl(&["label", "pod", "stranger", "app=stranger", "--overwrite"]);
    reach("stranger", false);
    test.kubectl(&["delete", "networkpolicy", "label"]);
    reach("friend", false);

    let named = "ingress: [{from: [{namespaceSelector: {matchLabels: {team: guests}}}], ports: [{port: http}]}]";
    test.apply(&policy("namespace", "server", named));
    reach("guest", false);
    must(&mut test.cluster.kubectl_command(&["label", "namespace", &other, "team=guests"]));
    reach("guest", true);
    reach("friend", false);
    test.kubectl(&["delete", "networkpolicy", "namespace"]);
    reach("guest", false);

    let cidr = format!("{}/32", address(&test.get("pod", "stranger")));
    test.apply(&policy("block", "server", &format!("ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]")));
    reach("stranger", true);
    reach("friend", false);
    test.apply(&policy("block", "server", "ingress: [{ports: [{port: 8081, endPort: 9000}]}]"));
    reach("stranger", false);
    test.apply(&policy("block", "server", "ingress: [{ports: [{port: 8000, endPort: 9000}]}]"));
    reach("stranger", true);

    test.apply(&policy("quiet", "friend", "policyTypes: [Egress]"));
    reach("friend", false);
    let by_name = format!("http://server.{own}.svc.cluster.local/");
    let dns = "to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, \
               podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}]";
    let to_server = "to: [{podSelector: {matchLabels: {app: server}}}], ports: [{port: http}]";
    test.apply(&policy("dns", "friend", &format!("policyTypes: [Egress], egress: [{{{dns}}}]")));
    let resolves = |may: bool| {
        until("names are found as allowed", AT_ONCE, || {
            let out =
                test.try_kubectl(&["exec", "friend", "--", "nslookup", &format!("server.{own}.svc.cluster.local")]);
            if out.ok == may { Ok(()) } else { Err(format!("{out:?}")) }
        });
    };
    resolves(true);
    reach("friend", false);
    test.apply(&policy("dns", "friend", &format!("policyTypes: [Egress], egress: [{{{dns}}}, {{{to_server}}}]")));
    until("the server is reached by its name", AT_ONCE, || {
        let out = test.try_kubectl(&["exec", "friend", "--", "web", "fetch", &by_name]);
        if out.ok { Ok(()) } else { Err(format!("{out:?}")) }
    });
    test.apply(&policy("dns", "friend", &format!("policyTypes: [Egress], egress: [{{{to_server}}}]")));
    resolves(false);
    reach("friend", true);

    assert!(is_ready(&test.get("pod", "server")), "the node reached it all the time");
    must(&mut test.cluster.kubectl_command(&["delete", "namespace", &other, "--wait=false"]));
}

/// A25 (CVE-2024-7598): while a namespace ends, its policies outlive its pods.
pub fn a25_policies_hold_until_the_last_pod_of_an_ending_namespace_is_gone(test: &Test) {
    let ending = format!("{}-end", test.namespace);
    must(&mut test.cluster.kubectl_command(&["create", "namespace", &ending]));
    let inside = Test { cluster: test.cluster, namespace: ending.clone() };
    inside.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: stubborn, labels: {app: stubborn}}\nspec:\n  \
         terminationGracePeriodSeconds: 8\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    \
         command: [sh, -c, 'trap \"\" TERM; web & while true; do sleep 1; done']\n",
    );
    let pod = inside.wait("pod", "stubborn", "Ready", is_ready);
    let address = format!("{}:8080", pod["status"]["podIP"].as_str().expect("an address"));
    until("it serves", PATIENCE, || request(&address));
    let ip = pod["status"]["podIP"].as_str().expect("an address");
    let script = format!("while true; do {} && echo passed || echo stopped; sleep 0.1; done", asking(ip, "8080"));
    test.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: prober}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, '{script}']\n"
    ));
    let said = |word: &str| test.try_kubectl(&["logs", "prober"]).stdout.lines().filter(|line| *line == word).count();
    let at_least = |word: &str, count: usize| match said(word) {
        found if found > count => Ok(()),
        found => Err(format!("{found} times {word}")),
    };
    until("without a policy the probe passes", PATIENCE, || at_least("passed", 0));
    inside.apply(&policy("deny", "stubborn", "policyTypes: [Ingress]"));
    until("with it the probe does not", PATIENCE, || at_least("stopped", 1));
    let passed = said("passed");
    must(&mut test.cluster.kubectl_command(&["delete", "namespace", &ending, "--wait=false"]));
    let mut served = 0;
    until("the pod is gone", PATIENCE, || {
        served += usize::from(request(&address).is_ok());
        let out = inside.try_kubectl(&["get", "pod", "stubborn"]);
        if out.stderr.contains("not found") { Ok(()) } else { Err(out.stdout) }
    });
    assert!(served > 0, "it served on while its namespace ended");
    let after = said("stopped");
    until("the probe goes on", PATIENCE, || at_least("stopped", after + 1));
    assert_eq!(said("passed"), passed, "nothing passed");
    until("the namespace is gone", PATIENCE, || {
        let out = run(&mut test.cluster.kubectl_command(&["get", "namespace", &ending]));
        if out.stderr.contains("not found") { Ok(()) } else { Err(out.stdout) }
    });
}
