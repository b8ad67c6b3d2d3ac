//! `/livez`, `/readyz`, `/healthz`: is the server alive, can it serve; and `/version`.
//!
//! Rules
//!   R1 all          `ok` when every check passes; with `verbose`, or when one fails, a line for each check and a last one
//!                   for all; a failure is 500
//!   R2 one          `/readyz/NAME` asks one check
//!   R3 exclude      `exclude=NAME` leaves a check out, and says so; a name that no check has is warned of
//!   R4 withheld     why a check fails is in the log, not in the answer: strangers may ask
//!
//! Source: API reference, "Kubernetes API health endpoints".

use std::time::Duration;

use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use windlass_api::ApiError;
use windlass_stdx::{Response, body_from};

use crate::request::{Query, not_found, short};
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
    let checks = checks(server, health).await;
    for check in &checks {
        if let Some(problem) = &check.problem {
            tracing::warn!(endpoint = health.name(), check = check.name, problem, "a health check failed");
        }
    }
    let (is_well, text) = match only {
        None => all(health, &checks, query),
        Some(only) => one(checks.iter().find(|check| check.name == only).ok_or_else(not_found)?),
    };
    let mut response = Response::new(body_from(text));
    if !is_well {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

fn one(check: &Check) -> (bool, String) {
    match check.problem {
        None => (true, "ok".to_owned()),
        Some(_) => (false, "internal server error: reason withheld\n".to_owned()),
    }
}

fn all(health: Health, checks: &[Check], query: &Query) -> (bool, String) {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut text = String::new();
    let mut is_well = true;
    for check in checks {
        let name = check.name;
        if excluded.contains(&name) {
            text.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if check.problem.is_some() {
            is_well = false;
            text.push_str(&format!("[-]{name} failed: reason withheld\n"));
        } else {
            text.push_str(&format!("[+]{name} ok\n"));
        }
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| checks.iter().all(|check| check.name != **name))
        .map(|name| short(name))
        .collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {unknown}\n"));
    }
    let name = health.name();
    match (is_well, query.has("verbose")) {
        (true, false) => (true, "ok".to_owned()),
        (true, true) => (true, format!("{text}{name} check passed\n")),
        (false, _) => (false, format!("{text}{name} check failed\n")),
    }
}

/// Alive is who answers and whose store has not failed; ready is who also reaches a quorum and is not about to close.
async fn checks(server: &Server, health: Health) -> Vec<Check> {
    let failure = server.store.failed().now_or_never().map(|why| format!("the store has failed: {why}"));
    let mut checks = vec![Check { name: "ping", problem: None }, Check { name: "store", problem: failure }];
    if health == Health::Livez {
        return checks;
    }
    checks.push(Check { name: "etcd", problem: store_problem(server).await });
    let closing = server.closing.borrow().then(|| "the server is closing".to_owned());
    checks.push(Check { name: "shutdown", problem: closing });
    checks
}

/// Why the store reaches no quorum, if it does not.
pub(crate) async fn store_problem(server: &Server) -> Option<String> {
    match tokio::time::timeout(CHECK_TIME_MAX, server.store.read_barrier()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no quorum within {CHECK_TIME_MAX:?}")),
    }
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

#[cfg(test)]
mod tests {
    use super::{Check, Health, all, one};
    use crate::request::Query;

    fn check(query: &str, problem: Option<&str>) -> (bool, String) {
        let checks =
            [Check { name: "ping", problem: None }, Check { name: "etcd", problem: problem.map(str::to_owned) }];
        let query = Query::parse(&format!("/readyz?{query}").parse().expect("a URI")).expect("a query");
        all(Health::Readyz, &checks, &query)
    }

    #[test]
    fn what_was_checked_is_told_when_asked_or_when_it_failed() {
        for (query, problem, well, text) in [
            ("", None, true, "ok"),
            ("verbose", None, true, "[+]ping ok\n[+]etcd ok\nreadyz check passed\n"),
            ("", Some("secret"), false, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n"),
            ("exclude=etcd", Some("secret"), true, "ok"),
            ("verbose&exclude=etcd", Some("x"), true, "[+]ping ok\n[+]etcd excluded: ok\nreadyz check passed\n"),
            (
                "verbose&exclude=none",
                None,
                true,
                "[+]ping ok\n[+]etcd ok\nwarn: some health checks cannot be excluded: no matches for \"none\"\nreadyz check passed\n",
            ),
        ] {
            assert_eq!(check(query, problem), (well, text.to_owned()), "{query}");
        }
    }

    #[test]
    fn a_single_check_says_ok_or_withholds_why() {
        assert_eq!(one(&Check { name: "ping", problem: None }), (true, "ok".to_owned()));
        let failed = one(&Check { name: "ping", problem: Some("secret".to_owned()) });
        assert_eq!(failed, (false, "internal server error: reason withheld\n".to_owned()));
    }
}
