//! Services: by name from a pod, by address from the host, and who is behind them.

use windlass_tests::Test;
use windlass_tests::cluster::until;
use windlass_tests::suite::PATIENCE;

use crate::deployment::{answers, request, service_address, web};

/// Asks from inside a pod, by the demo image's own tools.
fn ask_from(test: &Test, pod: &str, url: &str) -> Result<String, String> {
    let out = test.try_kubectl(&["exec", pod, "--", "web", "fetch", url]);
    if out.ok { Ok(out.stdout.trim().to_owned()) } else { Err(out.stderr) }
}

pub fn a_service_is_reached_by_name_and_from_the_host(test: &Test) {
    test.apply(&web("named", 2));
    test.rolled_out("named");
    test.sleeping_pod("client", "");
    let full = format!("http://named.{}.svc.cluster.local/", test.namespace);
    for url in ["http://named/", &full] {
        until(&format!("{url} answers"), PATIENCE, || match ask_from(test, "client", url) {
            Ok(answer) if answer.starts_with("one from named-") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    answers(&service_address(test, "named"), 2);
    let address = test.get("service", "named")["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let looked_up = test.kubectl(&["exec", "client", "--", "web", "resolve", &full["http://".len()..full.len() - 1]]);
    assert!(looked_up.contains(&address), "{looked_up}");
    let unknown = test.try_kubectl(&["exec", "client", "--", "web", "resolve", "nobody.nowhere.svc.cluster.local"]);
    assert!(!unknown.ok, "{}", unknown.stdout);
    test.apply("apiVersion: v1\nkind: Service\nmetadata: {name: direct}\nspec: {clusterIP: None, selector: {app: named}, ports: [{port: 80}]}\n");
    until("a headless service answers with its pods", PATIENCE, || {
        let out = test.try_kubectl(&[
            "exec",
            "client",
            "--",
            "web",
            "resolve",
            &format!("direct.{}.svc.cluster.local", test.namespace),
        ]);
        let pods = test.list("pods");
        let addresses = pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == "named");
        let all =
            addresses.filter_map(|pod| pod["status"]["podIP"].as_str()).all(|address| out.stdout.contains(address));
        if all { Ok(()) } else { Err(out.stdout) }
    });
}

pub fn the_service_of_the_api_comes_back_after_it_was_deleted(test: &Test) {
    let address = |found: &serde_json::Value| found["spec"]["clusterIP"].as_str().map(str::to_owned);
    let of_the_api = || test.try_kubectl(&["-n", "default", "get", "service", "kubernetes", "-o", "json"]);
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("kubectl prints JSON");
    let before = read(&of_the_api().stdout);
    test.kubectl(&["-n", "default", "delete", "service", "kubernetes"]);
    until("default/kubernetes is there again", PATIENCE, || {
        let out = of_the_api();
        if !out.ok {
            return Err(out.stderr);
        }
        let after = read(&out.stdout);
        assert_eq!(address(&after), address(&before), "pods have its address in their environment");
        assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
        Ok(())
    });
}

pub fn endpoints_follow_readiness(test: &Test) {
    test.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: gated, labels: {app: gated}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: web\n    image: windlass.local/demo:1\n    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: gated}\nspec: {selector: {app: gated}, ports: [{port: 80, targetPort: 8080}]}\n",
    );
    test.wait("pod", "gated", "runs", |object| !object["status"]["containerStatuses"][0]["state"]["running"].is_null());
    let address = service_address(test, "gated");
    assert!(request(&address).is_err(), "nobody is ready, so nobody answers");
    test.kubectl(&["exec", "gated", "--", "touch", "/tmp/ready"]);
    answers(&address, 1);
    test.kubectl(&["exec", "gated", "--", "rm", "/tmp/ready"]);
    until("it is taken out again", PATIENCE, || match request(&address) {
        Err(_) => Ok(()),
        Ok(answer) => Err(answer),
    });
}

pub fn node_port_answers(test: &Test) {
    test.apply(&web("open", 1).replace(
        "spec:\n  selector: {app: open}\n  ports",
        "spec:\n  type: NodePort\n  selector: {app: open}\n  ports",
    ));
    test.rolled_out("open");
    let port = test.get("service", "open")["spec"]["ports"][0]["nodePort"].as_u64().unwrap_or_default();
    assert!((30_000..=32_767).contains(&port), "a node port was allocated: {port}");
    let node = windlass_tests::cluster::must(&mut test.cluster.kubectl_command(&[
        "get",
        "node",
        "node1",
        "-o",
        "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}",
    ]));
    answers(&format!("{node}:{port}"), 1);
}
