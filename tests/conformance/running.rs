//! What a test does with pods that run: start them, wait for them, read their logs, run commands in them.
//!
//! Everything is waited for by a watch, or by a poll where there is nothing to watch, each with a deadline.

use std::time::Duration;

use futures::StreamExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::Test;
use crate::api::PATIENCE;

/// The suite's image: busybox, and `/bin/peer` of xtask/test/peer.rs.
pub const IMAGE: &str = "windlass.local/test:1";
/// How often a log is read while a test waits for a line.
const PERIOD: Duration = Duration::from_millis(100);
/// What a shell runs to wait for its end and to end at once when it is told to.
pub const UNTIL_TOLD: &str = "trap 'exit 0' TERM; while true; do sleep 1000 & wait $!; done";

/// A container that runs a script.
pub fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "command": ["sh", "-c", script]})
}

/// A pod of one container, `main`, that runs a script once.
pub fn script(name: &str, script: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container("main", script)]}})
}

/// A pod of one container, `main`, that runs until it is told to end.
pub fn waiting(name: &str) -> Value {
    let mut pod = script(name, UNTIL_TOLD);
    pod["spec"]["restartPolicy"] = json!("Always");
    pod
}

/// A pod of one container, `main`, that is a server of xtask/test/peer.rs: `http=8080`, `udp=8081` …
pub fn server(name: &str, settings: &[&str]) -> Value {
    let mut pod = waiting(name);
    let words: Vec<&str> = ["/bin/peer", "serve"].into_iter().chain(settings.iter().copied()).collect();
    pod["spec"]["containers"][0]["command"] = json!(words);
    pod
}

/// What a command in a container said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub code: i64,
}

impl Test {
    /// The path of a pod.
    pub fn pod(&self, name: &str) -> String {
        format!("{}/{name}", self.path("v1", "pods"))
    }

    /// Creates a pod; gives its name.
    pub async fn start(&self, pod: &Value) -> String {
        let made = self.api.create(&self.path("v1", "pods"), pod).await.ok();
        made["metadata"]["name"].as_str().expect("a pod has a name").to_owned()
    }

    /// Waits until a pod satisfies a condition.
    pub async fn until_pod(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.api.seen(&self.path("v1", "pods"), name, what, condition).await
    }

    /// Creates a pod and waits until it is ready.
    pub async fn start_ready(&self, pod: &Value) -> Value {
        let name = self.start(pod).await;
        self.until_pod(&name, "ready", is_ready).await
    }

    /// Creates a pod and waits until it has ended, well or badly.
    pub async fn run_to_end(&self, pod: &Value) -> Value {
        let name = self.start(pod).await;
        self.until_pod(&name, "ended", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await
    }

    /// Runs a pod, which must succeed, and gives what its first container has printed.
    pub async fn run(&self, pod: &Value) -> String {
        let ended = self.run_to_end(pod).await;
        let name = ended["metadata"]["name"].as_str().expect("a pod has a name");
        let container = ended["spec"]["containers"][0]["name"].as_str().expect("a container has a name");
        let text = self.log(name, &format!("container={container}")).await;
        assert_eq!(phase(&ended), "Succeeded", "{text}\n{:#}", ended["status"]);
        text
    }

    /// A log as it is, `query` without its question mark.
    pub async fn log(&self, name: &str, query: &str) -> String {
        let reply = self.api.get(&format!("{}/log?{query}", self.pod(name))).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(reply.code.is_success(), "{}: {text}", reply.code);
        text
    }

    /// Waits until a pod's log satisfies a condition.
    pub async fn until_log(&self, name: &str, query: &str, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let looking = async {
            loop {
                let reply = self.api.get(&format!("{}/log?{query}", self.pod(name))).await;
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                if reply.code.is_success() && condition(&text) {
                    return text;
                }
                // A log that is followed does not outlive a restart of its container.
                tokio::time::sleep(PERIOD).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(text) => text,
            Err(_) => panic!("{name}: its log is not {what} within {PATIENCE:?}: {}", self.log(name, query).await),
        }
    }

    /// Runs a command in a container to its end.
    pub async fn exec(&self, name: &str, container: &str, command: &[&str]) -> Said {
        let words: Vec<String> = command.iter().map(|word| format!("command={}", escape(word))).collect();
        let query = format!("container={container}&stdout=true&stderr=true&{}", words.join("&"));
        let mut socket = self.api.socket(&format!("{}/exec?{query}", self.pod(name)), "v5.channel.k8s.io").await;
        let mut channels = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        let reading = async {
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Binary(content) = message
                    && let Some((channel, text)) = content.split_first()
                    && let Some(said) = channels.get_mut(usize::from(*channel))
                {
                    said.extend_from_slice(text);
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a command ends in time");
        let [_, stdout, stderr, status] = channels.map(|text| String::from_utf8_lossy(&text).into_owned());
        let status: Value =
            serde_json::from_str(&status).unwrap_or_else(|_| panic!("{command:?}: no status: {stderr}"));
        let cause =
            status["details"]["causes"].as_array().into_iter().flatten().find(|one| one["reason"] == "ExitCode");
        let code = match (status["status"] == "Success", cause) {
            (true, _) => 0,
            (false, Some(cause)) => cause["message"].as_str().and_then(|code| code.parse().ok()).expect("a code"),
            (false, None) => panic!("{command:?}: {status}"),
        };
        Said { stdout, stderr, code }
    }

    /// Runs a script in a pod's container `main`; it must end well. Gives what it printed.
    pub async fn shell(&self, name: &str, script: &str) -> String {
        let said = self.exec(name, "main", &["sh", "-c", script]).await;
        assert_eq!(said.code, 0, "{script}: {}{}", said.stdout, said.stderr);
        said.stdout
    }

    /// Runs a script in a pod's container `main`, again until what it printed satisfies a condition.
    pub async fn until_shell(&self, name: &str, script: &str, condition: impl Fn(&str) -> bool) -> String {
        let mut last = None;
        let looking = async {
            loop {
                let said = self.exec(name, "main", &["sh", "-c", script]).await;
                if condition(&said.stdout) {
                    return said.stdout;
                }
                last = Some(said);
                tokio::time::sleep(PERIOD).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(text) => text,
            Err(_) => panic!("{script}: not so within {PATIENCE:?}: {last:?}"),
        }
    }

    /// Deletes a pod and waits until it is gone.
    pub async fn stop(&self, name: &str) {
        self.api.delete(&self.pod(name)).await.ok();
        self.api.until_gone(&self.pod(name)).await;
    }
}

/// The phase of a pod.
pub fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

/// The status of a condition of an object; empty when it has none.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True"
}

/// The status of a container of a pod, of whichever kind; null when there is none.
pub fn status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
        .iter()
        .flat_map(|list| pod["status"][list].as_array().into_iter().flatten())
        .find(|status| status["name"] == container)
        .unwrap_or(&Value::Null)
}

/// How often a container of a pod was started again.
pub fn restarts(pod: &Value, container: &str) -> u64 {
    status(pod, container)["restartCount"].as_u64().unwrap_or_default()
}

/// Expects each of these lines in a text.
#[track_caller]
pub fn has_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "expected a line {line:?}, found:\n{text}");
    }
}

fn escape(word: &str) -> String {
    utf8_percent_encode(word, NON_ALPHANUMERIC).to_string()
}
