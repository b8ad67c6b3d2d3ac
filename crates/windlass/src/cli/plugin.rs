//! Credentials from a program: `exec` entries of a kubeconfig, run only when a person allows it.
//!
//! Rules
//!   R1 consent   without `--allow-exec-plugin` nothing is run: whoever wrote the file would run programs as its reader
//!   R2 protocol  the program gets `KUBERNETES_EXEC_INFO` and prints an `ExecCredential` of the same version
//!   R3 result    a token becomes a header, a certificate with its key becomes the identity
//! Source: Kubernetes docs, "client-go credential plugins"

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::config::Login;

/// Completes a login by its `exec` entry, if it has one.
pub fn complete(login: &mut Login, allowed: bool) -> Result<()> {
    let Some(entry) = login.exec.take() else { return Ok(()) };
    let command = entry["command"].as_str().unwrap_or_default();
    if !allowed {
        bail!(
            "the kubeconfig wants to run {command:?} to get credentials: if you trust the file, pass --allow-exec-plugin"
        );
    }
    let credential = ask(&entry, command)?;
    apply(login, &credential["status"])
}

fn ask(entry: &Value, command: &str) -> Result<Value> {
    let version = entry["apiVersion"].as_str().unwrap_or_default();
    if !matches!(version, "client.authentication.k8s.io/v1" | "client.authentication.k8s.io/v1beta1") {
        bail!(
            "exec plugin {command:?}: expected apiVersion client.authentication.k8s.io/v1 or v1beta1, found {version:?}"
        );
    }
    let asked = json!({"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": false}});
    let mut program = Command::new(command);
    program.args(entry["args"].as_array().into_iter().flatten().filter_map(Value::as_str));
    for variable in entry["env"].as_array().into_iter().flatten() {
        program.env(variable["name"].as_str().unwrap_or_default(), variable["value"].as_str().unwrap_or_default());
    }
    program.env("KUBERNETES_EXEC_INFO", asked.to_string()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = program.output().with_context(|| format!("exec plugin {command:?} did not start"))?;
    if !output.status.success() {
        bail!("exec plugin {command:?} ended with {}", output.status);
    }
    let credential: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("exec plugin {command:?} printed no JSON"))?;
    if credential["kind"] != "ExecCredential" || credential["apiVersion"] != version {
        bail!("exec plugin {command:?}: expected an ExecCredential of {version}");
    }
    Ok(credential)
}

/// R3.
fn apply(login: &mut Login, status: &Value) -> Result<()> {
    if let Some(token) = status["token"].as_str().filter(|token| !token.is_empty()) {
        login.authorization = Some(format!("Bearer {token}"));
    }
    match (status["clientCertificateData"].as_str(), status["clientKeyData"].as_str()) {
        (Some(certificate), Some(key)) => login.identity = Some((certificate.into(), key.into())),
        (None, None) => {}
        _ => bail!("the exec plugin gave a certificate without its key, or a key alone"),
    }
    if login.authorization.is_none() && login.identity.is_none() {
        bail!("the exec plugin gave neither a token nor a certificate");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::complete;
    use crate::cli::config::Login;
    use serde_json::{Value, json};

    fn login(exec: Value) -> Login {
        Login {
            server: "https://x".to_owned(),
            ca_pem: None,
            identity: None,
            authorization: None,
            exec: Some(exec),
            namespace: None,
        }
    }

    fn printing(answer: &Value) -> Value {
        json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/echo", "args": [answer.to_string()]})
    }

    #[test]
    fn r1_nothing_is_run_without_consent() {
        let mut login = login(json!({"command": "/bin/evil"}));
        let error = complete(&mut login, false).expect_err("no consent").to_string();
        assert!(error.contains("/bin/evil") && error.contains("--allow-exec-plugin"), "{error}");
    }

    #[test]
    fn r3_a_token_becomes_a_header() {
        let version = "client.authentication.k8s.io/v1";
        let good = json!({"apiVersion": version, "kind": "ExecCredential", "status": {"token": "t"}});
        let mut found = login(printing(&good));
        complete(&mut found, true).expect("a credential");
        assert_eq!(found.authorization.as_deref(), Some("Bearer t"));
        for bad in [json!({"kind": "Pod"}), json!({"apiVersion": version, "kind": "ExecCredential", "status": {}})] {
            assert!(complete(&mut login(printing(&bad)), true).is_err(), "{bad}");
        }
    }
}
