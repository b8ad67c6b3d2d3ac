//! What can run the containers of this node, by the names that RuntimeClasses have for it.
//!
//! Source: Kubernetes documentation, "Runtime Class"; KEP-585; OCI runtime specification, "Features Structure".
//!
//! Rules
//!   R1 named     `windlass` is the embedded way; all others are programs, or runtimes with a socket, that the node was told of
//!   R2 default   a pod without a class is run as the node was told, embedded unless it was told otherwise
//!   R3 unknown   a name that the node was not told of fails the pod's sandbox, and is looked up again with every try
//!   R4 features  a program says by itself what it can do; one that does not say is promised nothing, and neither is a runtime
//!                with a socket: what CRI v1 cannot ask for fails the container

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::cri::CriEndpoint;
use super::refused;
use crate::machine::{Handler, MachineError};

/// The name of the embedded way.
pub const EMBEDDED: &str = "windlass";
/// How long a program may take to say what it can do.
const FEATURES_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that it may say.
const FEATURES_BYTES_MAX: u64 = 1 << 20;

/// What a node is told about programs that run containers.
#[derive(Clone, Debug)]
pub struct RuntimeChoice {
    /// Programs with the command line of OCI runtimes, by the names of handlers.
    pub programs: BTreeMap<String, PathBuf>,
    /// Runtimes that serve CRI, by the names of handlers.
    pub sockets: BTreeMap<String, CriEndpoint>,
    /// The handler of pods without a RuntimeClass.
    pub default: String,
}

impl Default for RuntimeChoice {
    fn default() -> RuntimeChoice {
        RuntimeChoice { programs: BTreeMap::new(), sockets: BTreeMap::new(), default: EMBEDDED.to_owned() }
    }
}

/// Who runs the containers of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The shim, by itself or by a program of the machine.
    Shim(Option<PathBuf>),
    /// A runtime that serves CRI.
    Cri(CriEndpoint),
}

/// The choice, and what each can do.
pub(super) struct Runtimes {
    choice: RuntimeChoice,
    handlers: Vec<Handler>,
}

impl Runtimes {
    /// Asks every program what it can do.
    pub async fn open(choice: RuntimeChoice) -> Result<Runtimes, MachineError> {
        let whole = Handler { name: EMBEDDED.to_owned(), recursive_read_only_mounts: true, user_namespaces: true };
        let mut handlers = vec![whole];
        for (name, program) in &choice.programs {
            handlers.push(features(name, program).await);
        }
        handlers.extend(choice.sockets.keys().map(|name| Handler { name: name.clone(), ..Handler::default() }));
        let default = handlers.iter().find(|handler| handler.name == choice.default).cloned();
        let default = default.ok_or_else(|| unknown(&choice.default, &handlers))?;
        // The default goes by the empty name as well.
        handlers.insert(0, Handler { name: String::new(), ..default });
        Ok(Runtimes { choice, handlers })
    }

    /// All handlers; the one with the empty name is the default.
    pub fn handlers(&self) -> Vec<Handler> {
        self.handlers.clone()
    }

    /// All runtimes that serve CRI.
    pub fn endpoints(&self) -> Vec<CriEndpoint> {
        self.choice.sockets.values().cloned().collect()
    }

    /// What is behind a handler.
    pub fn way(&self, handler: &str, user_namespace: bool) -> Result<Way, MachineError> {
        let found = self.handlers.iter().find(|own| own.name == handler);
        let found = found.ok_or_else(|| unknown(handler, &self.handlers))?;
        let name = if handler.is_empty() { &self.choice.default } else { handler };
        if user_namespace && !found.user_namespaces {
            let why = format!("runtime handler {name:?} does not support user namespaces");
            return Err(refused("look up the pod's runtime", why));
        }
        if name == EMBEDDED {
            return Ok(Way::Shim(None));
        }
        Ok(match self.choice.sockets.get(name) {
            Some(endpoint) => Way::Cri(endpoint.clone()),
            None => Way::Shim(self.choice.programs.get(name).cloned()),
        })
    }
}

fn unknown(handler: &str, known: &[Handler]) -> MachineError {
    let known: Vec<&str> = known.iter().map(|own| own.name.as_str()).filter(|name| !name.is_empty()).collect();
    let why = format!("no runtime for {handler:?} is configured; this node has {}", known.join(", "));
    refused("look up the pod's runtime", why)
}

/// R4.
async fn features(name: &str, program: &Path) -> Handler {
    let none = Handler { name: name.to_owned(), ..Handler::default() };
    let said = match tokio::time::timeout(FEATURES_TIMEOUT, ask(program)).await {
        Ok(Ok(said)) => said,
        Ok(Err(why)) => {
            tracing::info!(handler = name, why, "a runtime does not say what it can do");
            return none;
        }
        Err(_) => {
            tracing::warn!(handler = name, "a runtime does not say in time what it can do");
            return none;
        }
    };
    let has = |list: &Value, word: &str| list.as_array().is_some_and(|list| list.iter().any(|own| own == word));
    Handler {
        recursive_read_only_mounts: has(&said["mountOptions"], "rro"),
        user_namespaces: has(&said["linux"]["namespaces"], "user"),
        ..none
    }
}

async fn ask(program: &Path) -> Result<Value, String> {
    let mut command = Command::new(program);
    command.arg("features").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let stdout = child.stdout.take().ok_or("it has no output")?;
    let mut said = Vec::new();
    stdout.take(FEATURES_BYTES_MAX).read_to_end(&mut said).await.map_err(|error| error.to_string())?;
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    serde_json::from_slice(&said).map_err(|error| format!("expected JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{EMBEDDED, RuntimeChoice, Runtimes, Way};
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    /// A program that says this when it is asked for its features.
    fn program(name: &str, says: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("windlass-runtime-{}-{name}", std::process::id()));
        std::fs::write(&path, format!("#!/bin/sh\n[ \"$1\" = features ] || exit 1\n{says}\n")).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
        path
    }

    fn choice(programs: &[(&str, &Path)], default: &str) -> RuntimeChoice {
        let programs = programs.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect();
        RuntimeChoice { programs, default: default.to_owned(), ..RuntimeChoice::default() }
    }

    #[tokio::test]
    async fn r1_to_r3_a_handler_is_a_program_the_embedded_way_or_unknown() {
        let path = program("r1", "echo '{}'");
        let runtimes = Runtimes::open(choice(&[("vm", &path)], EMBEDDED)).await.expect("a choice");
        assert_eq!(runtimes.way("", false), Ok(Way::Shim(None)));
        assert_eq!(runtimes.way(EMBEDDED, true), Ok(Way::Shim(None)));
        assert_eq!(runtimes.way("vm", false), Ok(Way::Shim(Some(path.clone()))));
        let why = runtimes.way("kata", false).expect_err("nobody said so").to_string();
        assert!(why.contains("no runtime for \"kata\" is configured; this node has windlass, vm"), "{why}");
        let runtimes = Runtimes::open(choice(&[("vm", &path)], "vm")).await.expect("a choice");
        assert_eq!(runtimes.way("", false), Ok(Way::Shim(Some(path.clone()))));
        assert_eq!(runtimes.way(EMBEDDED, false), Ok(Way::Shim(None)));
        assert!(Runtimes::open(choice(&[("vm", &path)], "kata")).await.is_err(), "a default must be known");
        std::fs::remove_file(path).expect("our own file");
    }

    #[tokio::test]
    async fn r4_what_a_program_does_not_say_it_is_not_asked_for() {
        let whole = program("whole", r#"echo '{"mountOptions": ["ro", "rro"], "linux": {"namespaces": ["user"]}}'"#);
        let mute = program("mute", "exit 2");
        let runtimes = Runtimes::open(choice(&[("whole", &whole), ("mute", &mute)], EMBEDDED)).await.expect("a choice");
        let told: Vec<(String, bool, bool)> = runtimes
            .handlers()
            .into_iter()
            .map(|handler| (handler.name, handler.recursive_read_only_mounts, handler.user_namespaces))
            .collect();
        let row = |name: &str, can: bool| (name.to_owned(), can, can);
        assert_eq!(told, [row("", true), row(EMBEDDED, true), row("mute", false), row("whole", true)]);
        assert!(runtimes.way("whole", true).is_ok());
        let why = runtimes.way("mute", true).expect_err("it cannot").to_string();
        assert!(why.contains("runtime handler \"mute\" does not support user namespaces"), "{why}");
        for path in [whole, mute] {
            std::fs::remove_file(path).expect("our own file");
        }
    }

    #[tokio::test]
    async fn r4_a_runtime_with_a_socket_is_known_before_it_answers_and_promised_nothing() {
        let endpoint: super::CriEndpoint = "unix:///run/none.sock?handler=kata".parse().expect("an endpoint");
        let sockets = [("ctd".to_owned(), endpoint.clone())].into();
        let runtimes = Runtimes::open(RuntimeChoice { sockets, ..RuntimeChoice::default() }).await.expect("a choice");
        assert_eq!(runtimes.way("ctd", false), Ok(Way::Cri(endpoint)));
        let why = runtimes.way("ctd", true).expect_err("it cannot").to_string();
        assert!(why.contains("runtime handler \"ctd\" does not support user namespaces"), "{why}");
    }
}
