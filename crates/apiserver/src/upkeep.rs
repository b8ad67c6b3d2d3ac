//! Upkeep: what the server does of its own accord, at its own pace.
//!
//! Goal        what every cluster has is there even after somebody deleted it, and Events do not pile up
//! Writes      what `bootstrap` creates · Event, PodCertificateRequest: delete
//!
//! Rules
//!   R1 restored  every [`RESTORE_INTERVAL`] what bootstrap creates is created again where it is missing
//!   R2 expired   an Event goes [`EVENT_LIFE`] after it last happened; one that says that it happens in the future
//!                counts from its creation, so that none stays for ever
//!   R3 bounded   a sweep looks at [`SWEEP_PAGE`] Events at a time and lets others go first between pages
//!   R4 modest    an Event that changes meanwhile stays; what fails is tried again in the next round
//!   R6 keys      keys for tokens that were put beside the server's certificates count from the next round on
//!   R5 no hold   finalizers do not keep an Event, or anybody could fill the store with them
//!   R7 asked     a PodCertificateRequest goes [`REQUEST_LIFE`] after it was made, whatever became of it: its node has read
//!                that by then
//! Not here       how long other kinds stay (their controllers)
//!
//! Source: kube-apiserver's `--event-ttl` (an hour), and its controller that keeps `default/kubernetes`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use windlass_api::{ApiError, Kind, kinds};
use windlass_store::{Entry, Expect, Op, Range};

use crate::bootstrap;
use crate::failure::{commit_failed, read_failed};
use crate::key;
use crate::server::{Server, header};

/// How often what every cluster has is looked for.
const RESTORE_INTERVAL: Duration = Duration::from_secs(10);
/// How often Events are swept, in restore rounds: an Event stays at most a minute too long.
const ROUNDS_PER_SWEEP: u32 = 6;
/// How long an Event stays after it last happened.
const EVENT_LIFE: Duration = Duration::from_secs(3600);
/// How long a PodCertificateRequest stays.
const REQUEST_LIFE: Duration = Duration::from_secs(15 * 60);
/// Events looked at and deleted in one go.
const SWEEP_PAGE: usize = 500;

/// Goes on until the server is gone or closes. Holds the server only while it works.
pub(crate) async fn run(server: Weak<Server>) {
    let mut round = 0_u32;
    loop {
        let Some(mut closing) = server.upgrade().map(|server| server.closing.subscribe()) else { return };
        tokio::select! {
            biased;
            // An error means that the server itself is gone.
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(RESTORE_INTERVAL) => {}
        }
        let Some(server) = server.upgrade() else { return };
        round = round.wrapping_add(1);
        if let Err(error) = bootstrap::restore(&server).await {
            tracing::debug!(%error, "what every cluster has could not be looked after: trying again");
        }
        take_in_keys(&server);
        if round.is_multiple_of(ROUNDS_PER_SWEEP) {
            for swept in [sweep(&server).await, sweep_requests(&server).await] {
                if let Err(error) = swept {
                    tracing::debug!(%error, "what has expired could not be deleted: trying again");
                }
            }
        }
    }
}

/// R6.
pub(crate) fn take_in_keys(server: &Server) {
    let Some(pki) = &server.config.pki else { return };
    match pki.token_keys() {
        Ok(keys) => {
            if server.tokens.rotate(keys) {
                tracing::info!("other keys sign and prove tokens from now on");
            }
        }
        Err(error) => tracing::warn!(%error, "the keys for tokens could not be read: those from before count"),
    }
}

/// R2 and R3. Gives how many Events went.
pub(crate) async fn sweep(server: &Arc<Server>) -> Result<usize, ApiError> {
    let now = server.world.now();
    sweep_kind(server, &kinds::EVENT, |entry| is_expired(entry, now)).await
}

/// R7.
pub(crate) async fn sweep_requests(server: &Arc<Server>) -> Result<usize, ApiError> {
    let now = server.world.now();
    let is_old = |entry: &Entry| {
        let created = header(entry).created().parse::<Timestamp>().ok();
        created.is_none_or(|created| now.duration_since(created).unsigned_abs() > REQUEST_LIFE)
    };
    sweep_kind(server, &kinds::POD_CERTIFICATE_REQUEST, is_old).await
}

async fn sweep_kind(server: &Arc<Server>, kind: &Kind, is_due: impl Fn(&Entry) -> bool) -> Result<usize, ApiError> {
    let mut gone = 0;
    let mut range = Range { prefix: key::prefix(kind, ""), limit: SWEEP_PAGE, ..Range::default() };
    loop {
        let page = server.store.range(&range).map_err(read_failed)?;
        let ops: Vec<Op> = page
            .entries
            .iter()
            .filter(|entry| is_due(entry))
            .map(|entry| Op::delete(entry.key().to_owned(), Expect::Revision(entry.revision)))
            .collect();
        gone += delete(server, ops).await?;
        let last = page.entries.last().map(|entry| entry.key().to_owned());
        if page.remaining == 0 || last.is_none() {
            return Ok(gone);
        }
        // Each page is of its own revision: one that took long must not run into compaction.
        range.after = last;
        tokio::task::yield_now().await;
    }
}

/// All of a page in one transaction; should one of them have changed (R4), one by one.
async fn delete(server: &Arc<Server>, ops: Vec<Op>) -> Result<usize, ApiError> {
    use windlass_store::CommitError::Conflict;
    if ops.is_empty() {
        return Ok(0);
    }
    let count = ops.len();
    match server.store.commit(ops.clone()).await {
        Ok(_) => return Ok(count),
        Err(Conflict { .. }) => {}
        Err(error) => return Err(commit_failed(error)),
    }
    let mut gone = 0;
    for op in ops {
        match server.store.commit(vec![op]).await {
            Ok(_) => gone += 1,
            Err(Conflict { .. }) => {}
            Err(error) => return Err(commit_failed(error)),
        }
    }
    Ok(gone)
}

/// When an Event last happened, as far as it says so itself. Kept with it: a sweep reads an Event once.
struct Happened(Option<Timestamp>);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Times {
    event_time: Option<Timestamp>,
    last_timestamp: Option<Timestamp>,
    series: Option<Series>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Series {
    last_observed_time: Option<Timestamp>,
}

fn is_expired(event: &Entry, now: Timestamp) -> bool {
    let created: Option<Timestamp> = header(event).created().parse().ok();
    let happened = event.memo(|event| {
        let times: Times = serde_json::from_slice(event.value()).unwrap_or_default();
        let observed = times.series.and_then(|series| series.last_observed_time);
        Happened([times.event_time, times.last_timestamp, observed].into_iter().flatten().max())
    });
    let last = happened.0.filter(|at| *at <= now).max(created);
    let age = last.map_or(Duration::MAX, |last| Duration::try_from(now.duration_since(last)).unwrap_or_default());
    age > EVENT_LIFE
}

#[cfg(test)]
mod tests {
    use super::sweep;
    use crate::{Apiserver, Config, Identity, bootstrap};
    use http::{Method, Request};
    use jiff::Timestamp;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use windlass_stdx::{World, body_from, read_body};
    use windlass_store::{RealDisk, Store};

    const EVENTS: &str = "/api/v1/namespaces/default/events";

    /// A store in a directory of its own, which goes with it.
    struct Room {
        dir: std::path::PathBuf,
        store: Store,
    }

    impl Drop for Room {
        fn drop(&mut self) {
            if let Err(error) = std::fs::remove_dir_all(&self.dir) {
                eprintln!("cannot remove {}: {error}", self.dir.display());
            }
        }
    }

    impl Room {
        async fn new() -> Room {
            let dir = std::env::temp_dir().join(format!("windlass-upkeep-{}", World::real().uuid()));
            let config = windlass_store::Config::new(dir.join("store"));
            let store = Store::open(config, Arc::new(RealDisk), World::real()).await.expect("an empty directory");
            Room { dir, store }
        }

        /// A server over the store, at this time.
        async fn at(&self, time: &str) -> Apiserver {
            let start: Timestamp = time.parse().expect("a time");
            let world = World::seeded(1, start);
            let server = Apiserver::new(Config::new(windlass_api::resources::registry()), self.store.clone(), world);
            bootstrap::bootstrap(&server.server).await.expect("an empty store takes what every cluster has");
            server
        }
    }

    async fn call(server: &Apiserver, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(body_from(text)).expect("a well-formed request");
        let answer = server.transport(Identity::part("test")).call(request).await.expect("an answer");
        let code = answer.status().as_u16();
        let bytes = read_body(answer.into_body(), 1 << 20).await.expect("a body").expect("a short body");
        (code, serde_json::from_slice(&bytes).expect("JSON"))
    }

    async fn make_event(server: &Apiserver, name: &str, changes: Value) {
        let mut event = json!({
            "metadata": {"name": name}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
            "reason": "R", "message": "m", "type": "Normal",
        });
        event.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        let (code, said) = call(server, Method::POST, EVENTS, &event).await;
        assert_eq!(code, 201, "{said}");
    }

    #[tokio::test]
    async fn r1_what_every_cluster_has_is_restored_after_it_was_deleted() {
        let room = Room::new().await;
        let server = room.at("2026-01-01T00:00:00Z").await;
        let path = "/api/v1/namespaces/default/services/kubernetes";
        let address = |service: &Value| service["spec"]["clusterIP"].as_str().map(str::to_owned);
        let (_, before) = call(&server, Method::GET, path, &Value::Null).await;
        assert_eq!(call(&server, Method::DELETE, path, &Value::Null).await.0, 200);
        bootstrap::restore(&server.server).await.expect("nothing is in its way");
        let (code, after) = call(&server, Method::GET, path, &Value::Null).await;
        assert_eq!((code, address(&after)), (200, address(&before)), "pods have this address in their environment");
        let revision = room.store.revision();
        bootstrap::restore(&server.server).await.expect("nothing is in its way");
        assert_eq!(room.store.revision(), revision, "what is there is left alone");
    }

    #[tokio::test]
    async fn r6_a_new_key_signs_and_those_before_it_still_prove() {
        let room = Room::new().await;
        let directory = room.dir.join("pki");
        let mut config = Config::new(windlass_api::resources::registry());
        config.pki = Some(Arc::new(crate::Pki::open(&directory, &World::real()).expect("a new CA")));
        let server = Apiserver::new(config, room.store.clone(), World::real());
        let ids = || -> Vec<Value> {
            let set = server.server.tokens.key_set();
            set["keys"].as_array().expect("keys").iter().map(|key| key["kid"].clone()).collect()
        };
        let first = ids();
        super::take_in_keys(&server.server);
        assert_eq!(ids(), first, "nothing is new");
        for count in 2..=6 {
            crate::Pki::rotate_token_key(&directory).expect("the directory is there");
            super::take_in_keys(&server.server);
            assert_eq!(ids().len(), count.min(4), "the oldest go");
        }
        assert!(!ids().contains(&first[0]));
        std::fs::write(directory.join("sa.key"), "no key").expect("the test's own directory");
        let before = ids();
        super::take_in_keys(&server.server);
        assert_eq!(ids(), before, "a broken file changes nothing");
    }

    #[tokio::test]
    async fn r2_an_event_goes_an_hour_after_it_last_happened() {
        let room = Room::new().await;
        let early = room.at("2026-01-01T00:00:00Z").await;
        make_event(&early, "old", json!({"lastTimestamp": "2026-01-01T00:00:00Z"})).await;
        make_event(&early, "says-nothing", json!({})).await;
        make_event(&early, "again", json!({"lastTimestamp": "2026-01-01T00:40:00Z"})).await;
        make_event(&early, "ahead", json!({"lastTimestamp": "2999-01-01T00:00:00Z"})).await;
        make_event(&early, "held", json!({"metadata": {"name": "held", "finalizers": ["example.com/keep"]}})).await;
        assert_eq!(sweep(&early.server).await, Ok(0));
        let later = room.at("2026-01-01T01:01:00Z").await;
        make_event(&later, "new", json!({})).await;
        assert_eq!(sweep(&later.server).await, Ok(4));
        let (_, left) = call(&later, Method::GET, EVENTS, &Value::Null).await;
        let names: Vec<&str> = left["items"].as_array().expect("a list").iter().map(name_of).collect();
        assert_eq!(names, ["again", "new"]);
    }

    fn name_of(object: &Value) -> &str {
        object["metadata"]["name"].as_str().expect("a name")
    }
}
