//! Reads: selectors, tokens and numbers that mean harm, and very many of them (A10, A14, A19, A20).

use std::time::Duration;

use futures::future::{join, join_all};
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::Instant;
use windlass_apiserver::Identity;

use crate::{Api, CONFIG_MAPS, admin, config_map};

#[tokio::test]
async fn a10_selectors_are_bounded() {
    let api = Api::start().await;
    let long = format!("{CONFIG_MAPS}?labelSelector=a%20in%20({})", vec!["x"; 28_000].join(","));
    assert_eq!(api.get(&long).await.code, 400);
    let many = format!("{CONFIG_MAPS}?{}", "a=b&".repeat(600));
    assert_eq!(api.get(&many).await.code, 400);
}

#[tokio::test]
async fn a10_a_selector_of_very_many_values_is_refused_and_what_is_refused_is_said_shortly() {
    let api = Api::start().await;
    let many: Vec<String> = (0..10_000).map(|index| format!("v{index:03}")).collect();
    let unknown = format!("spec.{}=a", "x".repeat(10_000));
    for selector in [
        format!("labelSelector=a%20in%20({})", many.join(",")),
        format!("labelSelector=a%20notin%20({})", many[..9_000].join(",")),
        format!("fieldSelector={}", vec!["metadata.name!=a"; 2_000].join(",")),
        format!("fieldSelector={unknown}"),
        "fieldSelector=spec.secret%3Dx".to_owned(),
    ] {
        for method in [Method::GET, Method::DELETE] {
            let path = format!("{CONFIG_MAPS}?{selector}");
            let reply = api.call(method, &path, "application/json", "").await;
            assert_eq!(reply.code, 400, "{}: {}", &selector[..40], reply.said());
            assert!(reply.body.len() < 2_048, "{} bytes: {}", reply.body.len(), &selector[..40]);
        }
    }
}

#[tokio::test]
async fn a14_a_continue_token_is_good_for_its_own_list_only() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.make(CONFIG_MAPS, &config_map(name)).await;
        api.make("/api/v1/namespaces/kube-system/configmaps", &config_map(name)).await;
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=1")).await.json();
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    let mut edited = token.clone().into_bytes();
    edited[3] ^= 1;
    let edited = String::from_utf8_lossy(&edited).into_owned();
    for (path, token) in [
        ("/api/v1/namespaces/kube-system/configmaps", token.as_str()),
        ("/api/v1/configmaps", &token),
        ("/api/v1/namespaces/default/secrets", &token),
        (CONFIG_MAPS, &edited),
        (CONFIG_MAPS, "AAAA"),
        (CONFIG_MAPS, "%00%00"),
    ] {
        let reply = api.get(&format!("{path}?limit=1&continue={token}")).await;
        assert!(
            reply.said().starts_with("400 BadRequest: continue key is not valid"),
            "{path} {token}: {}",
            reply.said()
        );
    }
    let reply = api.get(&format!("{CONFIG_MAPS}?limit=1&labelSelector=a&continue={token}")).await;
    assert_eq!(reply.code, 400);
    assert_eq!(
        api.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.json()["items"][0]["metadata"]["name"],
        "b"
    );
}

#[tokio::test]
async fn a14_every_edit_of_a_continue_token_is_seen() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.make(CONFIG_MAPS, &config_map(name)).await;
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=1")).await.json();
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    for at in 0..token.len() {
        let mut edited = token.clone().into_bytes();
        edited[at] = if edited[at] == b'A' { b'B' } else { b'A' };
        let edited = String::from_utf8(edited).expect("ASCII stays ASCII");
        let reply = api.get(&format!("{CONFIG_MAPS}?limit=1&continue={edited}")).await;
        assert_eq!(reply.code, 400, "byte {at} was changed: {}", reply.text());
    }
    for edited in [format!("{token}AAAA"), token[..token.len() - 4].to_owned(), token.repeat(2)] {
        assert_eq!(api.get(&format!("{CONFIG_MAPS}?limit=1&continue={edited}")).await.code, 400, "{edited}");
    }
    // Somebody else's token gives its user no more than they may see anyway.
    let stranger = Identity::new("jane", []);
    let path = format!("{CONFIG_MAPS}?limit=1&continue={token}");
    assert_eq!(api.call_as(stranger, Method::GET, &path, &[], "").await.code, 403);
    let other = Api::start().await;
    assert_eq!(other.get(&path).await.code, 400, "another cluster's token");
}

#[tokio::test]
async fn a19_leases_are_renewed_while_everything_is_listed_over_and_over() {
    let api = Api::start().await;
    for index in 0..400 {
        let mut object = config_map(&format!("c{index}"));
        object["data"]["k"] = json!("x".repeat(1_000));
        api.make(CONFIG_MAPS, &object).await;
    }
    let node = Identity::node("n1");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40}});
    api.make(leases, &lease).await;
    let lists = join_all((0..200).map(|index| {
        let path = if index % 2 == 0 { "/api/v1/configmaps" } else { CONFIG_MAPS };
        let api = &api;
        async move { api.get(path).await }
    }));
    let renewals = async {
        let mut longest = Duration::ZERO;
        for round in 0..40 {
            let begun = Instant::now();
            let patch = json!({"spec": {"leaseTransitions": round}}).to_string();
            let media = [("content-type", "application/merge-patch+json")];
            let path = format!("{leases}/n1");
            let reply = api.call_as(node.clone(), Method::PATCH, &path, &media, patch).await;
            assert_eq!(reply.said(), "200");
            longest = longest.max(begun.elapsed());
        }
        longest
    };
    let (lists, longest) = join(lists, renewals).await;
    assert!(longest < Duration::from_secs(10), "a node's lease lasts 40 s; one renewal took {longest:?}");
    for list in lists {
        assert_eq!(list.said(), "200");
        assert!(list.body.len() > 400_000 && list.body.ends_with(b"]}"), "a whole list");
    }
}

#[tokio::test]
async fn a19_lists_that_nobody_reads_cost_no_copies() {
    let api = Api::start().await;
    let mut object = config_map("c");
    object["data"]["k"] = json!("x".repeat(1_000_000));
    api.make(CONFIG_MAPS, &object).await;
    let before = memory_bytes();
    let mut held = Vec::new();
    for _ in 0..300 {
        let body = windlass_stdx::body_from("");
        let response = api.send(admin(), Method::GET, CONFIG_MAPS, &[], body).await;
        assert_eq!(response.status(), 200);
        held.push(response);
    }
    let grown = memory_bytes().saturating_sub(before);
    assert!(grown < 150_000_000, "300 unread answers of 1 MB take {grown} bytes");
}

/// What this process has in memory. Other tests are in it too, so a bound on it must leave them room.
fn memory_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number of pages") * 4096
}

#[tokio::test]
async fn a20_numbers_out_of_range_are_refused_or_clamped() {
    let api = Api::start().await;
    for query in [
        "resourceVersion=-1",
        "resourceVersion=abc",
        "resourceVersion=99999999999999999999999",
        "limit=-1",
        "limit=abc",
        "watch=1&timeoutSeconds=-1",
        "watch=1&timeoutSeconds=x",
        "watch=maybe",
        "watch=1&resourceVersion=abc",
    ] {
        let reply = api.get(&format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!(reply.code, 400, "{query}: {}", reply.said());
    }
    for query in ["limit=1000000000000", "limit=9223372036854775807", "limit=0"] {
        assert_eq!(api.get(&format!("{CONFIG_MAPS}?{query}")).await.code, 200, "{query}");
    }
    let started = Instant::now();
    let paths = ["resourceVersion=9223372036854775808", "watch=1&resourceVersion=100000"]
        .map(|query| format!("{CONFIG_MAPS}?{query}"));
    let future = join_all(paths.iter().map(|path| api.get(path))).await;
    for reply in future {
        assert!(reply.said().starts_with("504 Timeout: Timeout: Too large resource version"), "{}", reply.said());
    }
    assert!(started.elapsed() < Duration::from_secs(20), "waits for the future are short");
    api.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1000000000")).await;
}

#[tokio::test]
async fn a20_a_watch_for_thirty_years_ends_within_the_hour() {
    let api = Api::start().await;
    for seconds in ["1000000000", "9223372036854775807"] {
        let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds={seconds}")).await;
        tokio::time::pause();
        let begun = Instant::now();
        // Nothing happens but time, which passes at once.
        let hours = Duration::from_secs(2 * 3_600);
        let end = tokio::time::timeout(hours, async { while lines.body.frame().await.is_some() {} }).await;
        assert!(end.is_ok(), "{seconds}: the watch goes on after {hours:?}");
        let took = begun.elapsed();
        assert!((3_599..=3_601).contains(&took.as_secs()), "{seconds}: {took:?}");
        tokio::time::resume();
    }
}
