//! Whether aggregated APIs are there: the condition `Available` of their APIServices.
//!
//! Goal        an APIService says whether its server answers, and if not why not
//! Writes      APIService `status.conditions` of those with a service
//!
//! Rules
//!   V1 asked      each is asked for its resources, again after a while; at once when what an APIService asks for changes
//!   V2 why        the reason is Kubernetes': ServiceNotFound, ServicePortError, MissingEndpoints, FailedDiscoveryCheck
//!   V3 changed    only a change is written; the time of transition changes with the status
//!
//! Source: kube-aggregator's availability controller.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_api::{ApiError, Reason, kinds};
use windlass_store::{Event, Watch};

use super::documents::Found;
use super::{Aggregated, all};
use crate::bootstrap;
use crate::documents::Document;
use crate::remote::RemoteError;
use crate::remote::route::RouteError;
use crate::server::Server;
use crate::write::{text, tree};

/// How often all are asked again, and how often while one of them is away.
const INTERVAL: Duration = Duration::from_secs(10);
const INTERVAL_AWAY: Duration = Duration::from_secs(1);
/// How long OpenAPI v2, which is large, is good for.
const OPEN_API_V2_GOOD_FOR: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
const PREFIX: &str = "o/apiservices.apiregistration.k8s.io/";

/// Goes on until the server is gone or closes. Holds the server only while it works.
pub(crate) async fn run(server: Weak<Server>) {
    let mut changes: Option<Watch> = None;
    loop {
        let Some(now) = server.upgrade() else { return };
        if changes.is_none() {
            changes = now.store.watch(PREFIX, now.store.revision()).ok();
        }
        let is_one_away = pass(&now).await;
        let mut closing = now.closing.subscribe();
        drop(now);
        let pause = if is_one_away { INTERVAL_AWAY } else { INTERVAL };
        let Some(events) = &mut changes else {
            tokio::time::sleep(pause).await;
            continue;
        };
        let due = tokio::time::sleep(pause);
        tokio::pin!(due);
        let is_lost = loop {
            tokio::select! {
                biased;
                // An error means that the server itself is gone.
                _ = closing.wait_for(|closing| *closing) => return,
                () = &mut due => break false,
                event = events.next() => match event {
                    Ok(event) if is_own_write(&event) => {}
                    event => break event.is_err(),
                },
            }
        };
        if is_lost {
            changes = None;
        }
    }
}

/// V1: a condition that was written, by whichever server, is no reason to ask again.
fn is_own_write(event: &Event) -> bool {
    match (&event.entry, &event.previous) {
        (Some(new), Some(old)) => tree(new)["spec"] == tree(old)["spec"],
        _ => false,
    }
}

/// V1; whether one is away.
async fn pass(server: &Arc<Server>) -> bool {
    let mut is_one_away = false;
    for api in all(server) {
        let (status, reason, message) = match ask(server, &api).await {
            Ok(()) => ("True", "Passed", "all checks passed".to_owned()),
            Err((reason, message)) => ("False", reason, message),
        };
        is_one_away |= status == "False";
        if let Err(error) = write(server, &api, (status, reason, &message)).await
            && !matches!(error.reason, Reason::Conflict | Reason::NotFound)
        {
            tracing::debug!(api_service = %api.name, %error, "the condition could not be written: trying again");
        }
    }
    is_one_away
}

/// Asks one what it serves, and keeps what it says.
async fn ask(server: &Arc<Server>, api: &Aggregated) -> Result<(), (&'static str, String)> {
    let remote = api.remote(server);
    let path = format!("/apis/{}/{}", api.group, api.version);
    let fetched = remote.get(server, &path, ANSWER_TIME_MAX).await;
    let resources = fetched.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).map_err(RemoteError::Json));
    let resources = resources.map_err(|error| why(api, &remote.url(), &path, &error))?;
    if !resources["resources"].is_array() {
        let message = format!("failing or missing response from {}{path}: no APIResourceList", remote.url());
        return Err(("FailedDiscoveryCheck", message));
    }
    // One without OpenAPI v3 is available all the same.
    let index = remote.get(server, "/openapi/v3", ANSWER_TIME_MAX).await.ok();
    let index: Option<Value> = index.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let open_api = index.and_then(|index| {
        let url = &index["paths"][path.trim_start_matches('/')]["serverRelativeURL"];
        url.as_str().filter(|url| url.starts_with("/openapi/v3/")).map(str::to_owned)
    });
    let open_api_v2 = match api.found().map(|found| found.open_api_v2.clone()) {
        Some(kept) if kept.0.elapsed() < OPEN_API_V2_GOOD_FOR => kept,
        kept => match (remote.get(server, "/openapi/v2", ANSWER_TIME_MAX).await, kept) {
            (Ok(bytes), _) => (Instant::now(), Some(Arc::new(Document::new(bytes)))),
            // One that did not answer this once is asked again the next time.
            (Err(error), Some(kept))
                if !matches!(error, RemoteError::Refused { code: http::StatusCode::NOT_FOUND, .. }) =>
            {
                kept
            }
            _ => (Instant::now(), None),
        },
    };
    let found = Found { resources, open_api, open_api_v2 };
    *api.link.found.lock().expect("nothing panics while holding what was found") = Some(Arc::new(found));
    Ok(())
}

/// V2.
fn why(api: &Aggregated, url: &str, path: &str, error: &RemoteError) -> (&'static str, String) {
    let service = &api.link.spec["service"];
    let (namespace, name) = (text(service, "namespace"), text(service, "name"));
    match error {
        RemoteError::Route(RouteError::NotFound { .. }) => {
            ("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"))
        }
        RemoteError::Route(RouteError::NoPort { port, .. }) => {
            ("ServicePortError", format!("service/{name} in {namespace:?} is not listening on port {port}"))
        }
        RemoteError::Route(RouteError::NoEndpoints { .. }) => {
            ("MissingEndpoints", format!("endpoints for service/{name} in {namespace:?} have no addresses"))
        }
        error => ("FailedDiscoveryCheck", format!("failing or missing response from {url}{path}: {error}")),
    }
}

/// V3.
async fn write(
    server: &Arc<Server>,
    api: &Aggregated,
    (status, reason, message): (&str, &str, &str),
) -> Result<(), ApiError> {
    let before = &api.condition;
    if before["status"] == status && before["reason"] == reason && before["message"] == message {
        return Ok(());
    }
    let since = match &before["lastTransitionTime"] {
        Value::String(since) if before["status"] == status => since.clone(),
        _ => server.world.now_rfc3339(),
    };
    let condition = json!({"type": "Available", "status": status, "lastTransitionTime": since, "reason": reason, "message": message});
    let path = format!("{}/status", kinds::API_SERVICE.object_path("", &api.name));
    let patch = json!({"status": {"conditions": [condition]}});
    bootstrap::call(server, Method::PATCH, &path, "application/merge-patch+json", &patch).await
}
