//! The audit log: what it tells of requests, and what it never does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use windlass_apiserver::{Audit, AuditConfig, AuditPolicy, Config, Identity, Rotation};
use windlass_stdx::World;

use crate::{Api, CONFIG_MAPS, PODS, admin, config_map};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// A server whose events go into a file.
struct Audited {
    api: Api,
    audit: Audit,
    path: PathBuf,
}

impl Audited {
    async fn start(policy: AuditPolicy) -> Audited {
        let mut opened = None;
        let api = Api::start_with(|config: &mut Config, dir: &Path| {
            let path = dir.join("audit.log");
            let rotation = Rotation { bytes_max: 1 << 30, files_max: 1, age_max: Duration::from_secs(3600) };
            let audit = AuditConfig { path: path.clone(), policy, rotation };
            let audit = Audit::open(audit, &World::real()).expect("a new file");
            config.audit = Some(audit.clone());
            opened = Some((audit, path));
        })
        .await;
        let (audit, path) = opened.expect("set above");
        Audited { api, audit, path }
    }

    async fn with(rules: &str) -> Audited {
        let text = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{rules}]}}");
        Audited::start(AuditPolicy::parse(&text).expect("a policy")).await
    }

    /// All events of users, once everything is written.
    async fn events(&self) -> Vec<Value> {
        self.audit.close().await;
        let text = std::fs::read_to_string(&self.path).expect("the file");
        let events = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"));
        let is_users = |event: &Value| {
            !event["user"]["username"].as_str().is_some_and(|name| name.starts_with("system:windlass:"))
        };
        events.filter(is_users).collect()
    }
}

fn of<'a>(events: &'a [Value], uri: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["requestURI"].as_str().is_some_and(|found| found.starts_with(uri))).collect()
}

#[tokio::test]
async fn l1_an_event_tells_who_asked_for_what_and_what_became_of_it() {
    let audited = Audited::with("{level: RequestResponse, resources: [{group: '', resources: [configmaps]}]}").await;
    let api = &audited.api;
    let jane = Identity::new("jane", ["dev".to_owned()]);
    api.make(CONFIG_MAPS, &config_map("c")).await;
    let headers = [("user-agent", "kubectl"), ("audit-id", "of-mine")];
    let reply = api.call_as(jane, Method::GET, &format!("{CONFIG_MAPS}/c"), &headers, "").await;
    assert_eq!((reply.code.as_u16(), reply.headers["audit-id"].to_str().ok()), (403, Some("of-mine")));
    api.make(PODS, &crate::pod("p")).await;
    let events = audited.events().await;
    let created: Vec<&Value> = of(&events, CONFIG_MAPS).into_iter().filter(|event| event["verb"] == "create").collect();
    let stages: Vec<&Value> = created.iter().map(|event| &event["stage"]).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    let done = created[1];
    assert_eq!((&done["kind"], &done["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!(done["auditID"], created[0]["auditID"]);
    assert_eq!((&done["level"], &done["responseStatus"]["code"]), (&json!("RequestResponse"), &json!(201)));
    assert_eq!(
        done["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "apiVersion": "v1", "name": "c"})
    );
    assert_eq!(
        (&done["requestObject"]["data"], &done["responseObject"]["data"]),
        (&json!({"k": "v"}), &json!({"k": "v"}))
    );
    assert_eq!(done["annotations"]["authorization.k8s.io/decision"], "allow");
    let refused = events.iter().rfind(|event| event["auditID"] == "of-mine").expect("a refusal is told");
    assert_eq!((&refused["user"]["username"], &refused["responseStatus"]["code"]), (&json!("jane"), &json!(403)));
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!((&refused["responseStatus"]["reason"], &refused["userAgent"]), (&json!("Forbidden"), &json!("kubectl")));
    assert!(of(&events, PODS).is_empty(), "no rule is about pods");
}

#[tokio::test]
async fn l1_without_a_policy_no_body_is_told() {
    let audited = Audited::start(AuditPolicy::default_policy()).await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "canary-1234"}});
    audited.api.make(SECRETS, &secret).await;
    audited.api.get(&format!("{SECRETS}/s")).await;
    audited.api.get("/livez").await;
    let events = audited.events().await;
    assert_eq!(of(&events, SECRETS).len(), 2);
    assert!(of(&events, "/livez").is_empty());
    let text = std::fs::read_to_string(&audited.path).expect("the file");
    assert!(!text.contains("canary-1234") && !text.contains("Y2FuYXJ5LTEyMzQ"), "{text}");
}

#[tokio::test]
async fn l2_a_watch_is_told_when_it_begins_and_when_it_ends() {
    let audited = Audited::with("{level: Metadata, verbs: [watch]}").await;
    let watch = audited.api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    drop(watch);
    let events = audited.events().await;
    let stages: Vec<&Value> = of(&events, CONFIG_MAPS).iter().map(|event| &event["stage"]).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn l1_who_proves_nothing_is_told_of() {
    let audited = Audited::with("{level: None}").await;
    let proof = [("authorization", "Bearer nothing")];
    let reply = audited.api.call_as(Identity::anonymous(), Method::GET, CONFIG_MAPS, &proof, "").await;
    assert_eq!(reply.code.as_u16(), 401);
    audited.api.get(CONFIG_MAPS).await;
    let events = audited.events().await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[1]["responseStatus"]["code"], 401);
    assert!(!events[1].to_string().contains("Bearer"), "{}", events[1]);
}

#[tokio::test]
async fn l5_a52_an_event_is_one_line_whatever_a_client_sends() {
    let audited = Audited::with("{level: RequestResponse}").await;
    let hostile = "\u{1b}[2J\n{\"kind\": \"Event\", \"user\": {\"username\": \"forged\"}}\r\n";
    let mut map = config_map("hostile");
    map["data"]["k"] = json!(hostile);
    audited.api.make(CONFIG_MAPS, &map).await;
    let who = Identity::new(hostile, []);
    audited.api.call_as(who, Method::GET, &format!("{CONFIG_MAPS}/hostile?x=%0a%1b"), &[], "").await;
    let events = audited.events().await;
    assert!(events.iter().all(|event| event["user"]["username"] != "forged"), "{events:?}");
    let text = std::fs::read(&audited.path).expect("the file");
    assert!(!text.contains(&0x1b), "control characters are escaped");
}

#[tokio::test]
async fn l3_a52_a_full_disk_loses_events_and_counts_them_but_answers() {
    // Every write to this device fails as on a full disk.
    let rotation = Rotation { bytes_max: 1 << 30, files_max: 1, age_max: Duration::from_secs(3600) };
    let mut opened = None;
    let api = Api::start_with(|config: &mut Config, _: &Path| {
        let audit = AuditConfig { path: PathBuf::from("/dev/full"), policy: AuditPolicy::default_policy(), rotation };
        let audit = Audit::open(audit, &World::real()).expect("the device is there");
        config.audit = Some(audit.clone());
        opened = Some(audit);
    })
    .await;
    for name in ["a", "b", "c"] {
        api.make(CONFIG_MAPS, &config_map(name)).await;
    }
    opened.expect("set above").close().await;
    let metrics = api.call_as(admin(), Method::GET, "/metrics", &[], "").await.text();
    let lost = metrics.lines().find_map(|line| line.strip_prefix("apiserver_audit_error_total{plugin=\"log\"} "));
    assert!(lost.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 3), "{lost:?}");
}
