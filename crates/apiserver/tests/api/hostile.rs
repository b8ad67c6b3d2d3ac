//! Input that means harm: sizes, paths, tokens, numbers, patches (ATTACKS A01, A02, A07, A13, A14, A20).

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;

use crate::{Api, CONFIG_MAPS, DEPLOYMENTS, admin, config_map, deployment};

const LIMIT: usize = 3 * 1024 * 1024;

#[tokio::test]
async fn a01_a_body_of_3_mib_is_read_and_one_byte_more_is_not() {
    let api = Api::start().await;
    let shell = config_map("c").to_string().replace("\"v\"", "\"\"");
    for (size, refusal) in [(LIMIT, 422), (LIMIT + 1, 413)] {
        let filler = "x".repeat(size - shell.len());
        let body = shell.replace("\"\"", &format!("\"{filler}\""));
        assert_eq!(body.len(), size);
        let reply = api.call(Method::POST, CONFIG_MAPS, "application/json", body).await;
        assert_eq!(reply.code, refusal, "{}", reply.said().chars().take(300).collect::<String>());
    }
}

#[tokio::test]
async fn a02_an_endless_body_is_cut_at_the_limit() {
    let api = Api::start().await;
    let endless = futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b' '; 4096]))));
    let body = BodyExt::boxed_unsync(StreamBody::new(endless));
    let reply = crate::read(api.send(admin(), Method::POST, CONFIG_MAPS, &[], body).await).await;
    assert_eq!(reply.said(), format!("413 RequestEntityTooLarge: Request entity too large: limit is {LIMIT}"));
}

#[tokio::test(start_paused = true)]
async fn a02_a_body_that_drips_is_cut_at_the_time_limit() {
    let server = Api::start().await;
    let drip = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok(Frame::data(Bytes::from_static(b" "))), ()))
    });
    let body = BodyExt::boxed_unsync(StreamBody::new(drip));
    let request = http::Request::post(CONFIG_MAPS).body(body).expect("a request");
    let reply = server.apiserver.transport(admin()).call(request).await.expect("an answer");
    assert_eq!(reply.status(), 504);
}

#[tokio::test]
async fn a07_copy_bombs_and_endless_patches_are_refused() {
    let api = Api::start().await;
    api.make(DEPLOYMENTS, &deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut bomb = vec![json!({"op": "add", "path": "/metadata/annotations", "value": {"a": "x".repeat(10_000)}})];
    bomb.extend((0..24).map(|index| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/x{index}")})));
    let many: Vec<_> = (0..10_001).map(|_| json!({"op": "test", "path": "/kind", "value": "Deployment"})).collect();
    for patch in [bomb, many] {
        let body = serde_json::Value::Array(patch).to_string();
        let reply = api.call(Method::PATCH, &path, "application/json-patch+json", body).await;
        assert!(matches!(reply.code.as_u16(), 413 | 422), "{}", reply.said());
    }
}

#[tokio::test]
async fn a13_paths_lead_nowhere_but_to_names() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("c")).await;
    for path in [
        "/api/v1/namespaces/../configmaps",
        "/api/v1/namespaces/%2e%2e/configmaps/c",
        "/api/v1/namespaces/default%2fconfigmaps/c",
        "/api/v1/namespaces/default/configmaps/..%2fconfigmaps%2fc",
        "/api/v1/namespaces/default/configmaps/c%00",
        "/api/v1/namespaces/default/configmaps/%c0%ae%c0%ae",
        "/api/v1/namespaces/default/configmaps/..;/c",
        "/api/v1/namespaces//configmaps/c",
        "/api/v1//namespaces/default/configmaps/c",
        "/api/v1/namespaces/default/configmaps/c/",
        "/api/v1/namespaces/default/configmaps/%252e%252e",
        "/registry/configmaps/default/c",
        "/o/configmaps/default/c",
        "/api/v1/../../etc/passwd",
        "/api/v1/namespaces/default/configmaps/c/status/x/y/z/1/2/3/4/5/6/7/8/9",
        "/api/v1/namespaces/default/nodes/n",
        "/api/v1/configmaps/c",
    ] {
        let reply = api.get(path).await;
        let expected = if path.ends_with("/c/") { &[200][..] } else { &[400, 404] };
        assert!(expected.contains(&reply.code.as_u16()), "{path}: {}", reply.said());
    }
    for name in ["a/b", "..", "%2e%2e", "a%2fb", "a\u{0}b", "Ab", ""] {
        let reply = api.post(CONFIG_MAPS, &config_map(name)).await;
        assert!(matches!(reply.code.as_u16(), 400 | 422), "{name:?}: {}", reply.said());
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
    let started = tokio::time::Instant::now();
    for query in ["resourceVersion=9223372036854775808", "watch=1&resourceVersion=100000"] {
        let reply = api.get(&format!("{CONFIG_MAPS}?{query}")).await;
        assert!(
            reply.said().starts_with("504 Timeout: Timeout: Too large resource version"),
            "{query}: {}",
            reply.said()
        );
    }
    assert!(started.elapsed() < Duration::from_secs(20), "waits for the future are short");
    api.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1000000000")).await;
}

#[tokio::test]
async fn a10_selectors_are_bounded() {
    let api = Api::start().await;
    let long = format!("{CONFIG_MAPS}?labelSelector=a%20in%20({})", vec!["x"; 28_000].join(","));
    assert_eq!(api.get(&long).await.code, 400);
    let many = format!("{CONFIG_MAPS}?{}", "a=b&".repeat(600));
    assert_eq!(api.get(&many).await.code, 400);
}

#[tokio::test]
async fn malformed_bodies_are_refused_with_a_reason() {
    let api = Api::start().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    for (media, body) in [
        ("application/json", ""),
        ("application/json", "{"),
        ("application/json", "[]"),
        ("application/json", "\"text\""),
        ("application/json", deep.as_str()),
        ("application/json", "{\"metadata\": 5}"),
        ("application/json", "{\"metadata\": {\"name\": 5}}"),
        ("application/json", "{\"metadata\": {\"name\": \"c\", \"labels\": {\"a\": 1}}}"),
        ("application/yaml", bomb),
        ("application/yaml", "a: [b"),
        ("application/vnd.kubernetes.protobuf", "k8s\0\u{7f}"),
        ("application/vnd.kubernetes.protobuf", "no magic"),
    ] {
        let reply = api.call(Method::POST, CONFIG_MAPS, media, body.to_owned()).await;
        assert_eq!(reply.code, 400, "{media} {}: {}", body.chars().take(40).collect::<String>(), reply.said());
    }
}

/// Rules with a fault that one object finds.
struct Faulty(std::sync::Arc<dyn windlass_api::Rules>);

impl windlass_api::Rules for Faulty {
    fn validate(&self, object: &serde_json::Value, _errors: &mut windlass_api::field::Errors) {
        assert_ne!(object["metadata"]["name"], "trigger", "the fault was found");
    }

    fn cells(&self, object: &serde_json::Value, now: jiff::Timestamp) -> Vec<serde_json::Value> {
        self.0.cells(object, now)
    }
}

#[tokio::test]
async fn a_fault_in_the_server_ends_one_request_only() {
    let api = Api::start_with(|config, _| {
        let mut row =
            windlass_api::Resource::clone(config.registry.get("", "v1", "configmaps").expect("a built-in kind"));
        row.rules = std::sync::Arc::new(Faulty(row.rules.clone()));
        config.registry.insert(row);
    })
    .await;
    let reply = api.post(CONFIG_MAPS, &config_map("trigger")).await;
    assert_eq!(reply.code, 500);
    assert!(!reply.text().contains("the fault was found"), "the inside of the server is not told: {}", reply.text());
    api.make(CONFIG_MAPS, &config_map("fine")).await;
    assert!(api.get("/metrics").await.text().contains("apiserver_panics_total 1"));
}
