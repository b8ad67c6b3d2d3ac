//! Container runtime: restarts by policy and the phases that follow, and what a container leaves as its last words.

use serde_json::{Value, json};

use crate::Test;
use crate::running::{container, phase, restarts, script, status};

pub async fn the_policy_decides_restarts_and_phase(test: &Test) {
    let always = restarted(test, "always", "Always", "exit 1").await;
    assert_eq!(phase(&always), "Running");
    // It fails once, and then runs on.
    let once = "[ -e /once/failed ] && exec sleep 1000; touch /once/failed; exit 1";
    let again = restarted(test, "on-failure", "OnFailure", once).await;
    assert_eq!(phase(&again), "Running");
    let ended = [("OnFailure", 0, "Succeeded"), ("Never", 0, "Succeeded"), ("Never", 7, "Failed")];
    for (policy, code, expected) in ended {
        let mut pod = script(&format!("ended-{code}-{}", policy.to_lowercase()), &format!("exit {code}"));
        pod["spec"]["restartPolicy"] = json!(policy);
        let pod = test.run_to_end(&pod).await;
        assert_eq!(phase(&pod), expected, "{policy} {code}");
        assert_eq!(restarts(&pod, "main"), 0, "{policy} {code}");
        assert_eq!(status(&pod, "main")["state"]["terminated"]["exitCode"], code, "{policy}");
        assert_eq!(status(&pod, "main")["ready"], false, "{policy}");
    }
}

async fn restarted(test: &Test, name: &str, policy: &str, body: &str) -> Value {
    let mut pod = script(name, body);
    pod["spec"]["restartPolicy"] = json!(policy);
    pod["spec"]["volumes"] = json!([{"name": "once", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "once", "mountPath": "/once"}]);
    test.start(&pod).await;
    test.until_pod(name, "restarted", |pod| restarts(pod, "main") >= 1 && !status(pod, "main")["lastState"].is_null())
        .await
}

/// Runs a container, with more in it, to its end; gives its last words.
async fn last_words(test: &Test, body: &str, more: Value) -> Value {
    let mut pod = script("last-words", "");
    let mut main = container("main", body);
    for (key, value) in more.as_object().into_iter().flatten() {
        main[key] = value.clone();
    }
    pod["spec"]["containers"][0] = main;
    let pod = test.run_to_end(&pod).await;
    let ended = &status(&pod, "main")["state"]["terminated"];
    assert!(ended.is_object(), "{pod:#}");
    ended["message"].clone()
}

const FALLBACK: &str = "FallbackToLogsOnError";

pub async fn success_leaves_no_log_as_last_words(test: &Test) {
    let said = last_words(test, "echo DONE", json!({"terminationMessagePolicy": FALLBACK})).await;
    assert_eq!(said, Value::Null);
}

pub async fn failure_leaves_its_log_as_last_words(test: &Test) {
    let said = last_words(test, "echo -n DONE; exit 1", json!({"terminationMessagePolicy": FALLBACK})).await;
    assert_eq!(said, "DONE");
}

pub async fn the_file_is_the_last_words(test: &Test) {
    let said =
        last_words(test, "echo -n OK > /dev/termination-log", json!({"terminationMessagePolicy": FALLBACK})).await;
    assert_eq!(said, "OK");
}

pub async fn another_user_writes_to_another_file(test: &Test) {
    let more = json!({"terminationMessagePath": "/dev/termination-custom-log", "securityContext": {"runAsUser": 1000}});
    assert_eq!(last_words(test, "echo -n DONE > /dev/termination-custom-log", more).await, "DONE");
}
