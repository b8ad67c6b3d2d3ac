//! Init containers: one after the other, all of them before the pod's containers.

use serde_json::{Value, json};

use crate::Test;
use crate::running::{condition, container, is_ready, phase, restarts, script, status, waiting};

fn with_init(mut pod: Value, scripts: [&str; 2]) -> Value {
    pod["spec"]["initContainers"] = json!([container("first", scripts[0]), container("second", scripts[1])]);
    pod
}

fn are_done(pod: &Value) {
    assert_eq!(condition(pod, "Initialized"), "True", "{pod:#}");
    for name in ["first", "second"] {
        let status = status(pod, name);
        assert!(status["ready"] == true && status["state"]["terminated"]["exitCode"] == 0, "{name}: {status}");
    }
}

pub async fn they_run_before_a_pod_that_ends(test: &Test) {
    let pod = test.run_to_end(&with_init(script("one", "true"), ["true", "true"])).await;
    assert_eq!(phase(&pod), "Succeeded");
    are_done(&pod);
}

pub async fn they_run_before_a_pod_that_runs_on(test: &Test) {
    let pod = test.start_ready(&with_init(waiting("one"), ["true", "true"])).await;
    assert_eq!(phase(&pod), "Running");
    are_done(&pod);
}

pub async fn one_that_fails_fails_a_pod_that_never_restarts(test: &Test) {
    let pod = test.run_to_end(&with_init(script("one", "true"), ["true", "false"])).await;
    assert_eq!(phase(&pod), "Failed");
    assert_eq!(condition(&pod, "Initialized"), "False");
    assert_eq!(status(&pod, "second")["state"]["terminated"]["exitCode"], 1);
    assert!(status(&pod, "main")["state"]["waiting"].is_object(), "{pod:#}");
}

pub async fn one_that_fails_is_tried_again_and_holds_the_pod_back(test: &Test) {
    test.start(&with_init(waiting("one"), ["false", "true"])).await;
    let pod = test.until_pod("one", "restarted twice", |pod| restarts(pod, "first") >= 2).await;
    assert_eq!(phase(&pod), "Pending");
    assert!(!is_ready(&pod) && condition(&pod, "Initialized") == "False", "{pod:#}");
    for name in ["second", "main"] {
        assert_eq!(status(&pod, name)["state"]["waiting"]["reason"], "PodInitializing", "{name}");
    }
}
