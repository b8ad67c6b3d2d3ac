//! `/livez`, `/readyz`, `/healthz`: is the server alive, can it serve; and `/version`.
//!
//! Source: API reference, "Kubernetes API health endpoints": the lines of `?verbose`, names of single checks.

use std::time::Duration;

use futures::FutureExt;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use windlass_api::ApiError;
use windlass_stdx::{Response, body_from};

use crate::request::{Query, not_found};
use crate::server::Server;

/// How long a check may take.
const CHECK_TIME_MAX: Duration = Duration::from_secs(2);

/// Which checks are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Livez,
    Readyz,
    Healthz,
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Health::Livez => "livez",
            Health::Readyz => "readyz",
            Health::Healthz => "healthz",
        }
    }
}

struct Check {
    name: &'static str,
    problem: Option<String>,
}

/// Answers a health endpoint, all checks or one of them.
pub(crate) async fn answer(
    server: &Server,
    health: Health,
    only: Option<&str>,
    query: &Query,
) -> Result<Response, ApiError> {
    let mut checks = checks(server, health).await;
    if let Some(only) = only {
        checks.retain(|check| check.name == only);
        if checks.is_empty() {
            return Err(not_found());
        }
    }
    checks.retain(|check| query.all("exclude").all(|excluded| excluded != check.name));
    let is_well = checks.iter().all(|check| check.problem.is_none());
    let name = health.name();
    let text = if is_well && !query.has("verbose") {
        "ok".to_owned()
    } else {
        let mut text = String::new();
        for check in &checks {
            match &check.problem {
                None => text.push_str(&format!("[+]{} ok\n", check.name)),
                Some(problem) => text.push_str(&format!("[-]{} failed: {problem}\n", check.name)),
            }
        }
        text + name + if is_well { " check passed\n" } else { " check failed\n" }
    };
    let mut response = Response::new(body_from(text));
    if !is_well {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

async fn checks(server: &Server, health: Health) -> Vec<Check> {
    let failure = server.store.failed().now_or_never().map(|why| format!("the store has failed: {why}"));
    let mut checks = vec![Check { name: "ping", problem: None }, Check { name: "store", problem: failure }];
    if health == Health::Livez {
        return checks;
    }
    let reachable = match tokio::time::timeout(CHECK_TIME_MAX, server.store.read_barrier()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no quorum within {CHECK_TIME_MAX:?}")),
    };
    checks.push(Check { name: "etcd", problem: reachable });
    let closing = server.closing.borrow().then(|| "the server is closing".to_owned());
    checks.push(Check { name: "shutdown", problem: closing });
    checks
}

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "37", "emulationMajor": "1", "emulationMinor": "37",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "36",
        "gitVersion": concat!("v1.37.0+windlass", env!("CARGO_PKG_VERSION")),
        "gitCommit": option_env!("WINDLASS_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean", "buildDate": option_env!("WINDLASS_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    })
}

/// The machine as Go, and so every client, names it.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
