//! Bodies: too large, too slow, too deep, or small ones that grow (A01, A02, A04, A05, A07, A08).

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::time::Instant;

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

/// Time that one hostile body may take, unoptimised and beside other tests.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);

async fn post_yaml(api: &Api, body: String) -> crate::Reply {
    let begun = Instant::now();
    let start: String = body.chars().take(40).collect();
    let reply = api.call(Method::POST, CONFIG_MAPS, "application/yaml", body).await;
    assert!(begun.elapsed() < BODY_TIME_MAX, "{start:?} took {:?}", begun.elapsed());
    reply
}

#[tokio::test]
async fn a04_aliases_that_grow_are_refused_before_they_do() {
    let api = Api::start().await;
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (previous, next) in ('a'..='h').zip('b'..='i') {
        bomb.push_str(&format!("{next}: &{next} [{}]\n", vec![format!("*{previous}"); 9].join(",")));
    }
    let before = cpu();
    let reply = post_yaml(&api, bomb).await;
    let took = cpu() - before;
    assert_eq!(reply.code, 400, "{}", reply.said());
    assert!(took < Duration::from_millis(250), "{took:?} of a processor");
}

/// What this thread, which does all the work of a test, has used of a processor.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanoseconds = text.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first number is the time on a processor"))
}

#[tokio::test]
async fn a05_yaml_that_takes_long_to_read_is_refused_early() {
    let api = Api::start().await;
    const SIZE: usize = 3_000_000;
    let filled = |piece: &str| piece.repeat(SIZE / piece.len());
    let chain = |from: usize| format!("a{from}: &a{from} {{<<: *a{}, k{from}: v}}\n", from - 1);
    let merges: String = (1..60_000).map(chain).collect();
    let steps: String = (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    for body in [
        filled("["),
        filled("{"),
        filled("[{"),
        filled("{a: "),
        filled("? "),
        filled("- "),
        filled("!x "),
        filled("&a "),
        filled(": "),
        filled(", "),
        filled("\n"),
        filled("# \n"),
        filled("---\n"),
        filled("a\n"),
        format!("a: &{} b", filled("x")),
        format!("a: \"{}", filled("\\x41")),
        format!("a: '{}", filled("''")),
        format!("a: >\n{}\tb", filled(" x\n")),
        format!("metadata: {{name: {}}}", filled("9")),
        format!("{}: {{}}", filled("9")),
        format!("metadata: 1e{}", filled("9")),
        format!("a0: &a0 {{k0: v}}\n{merges}"),
        steps,
    ] {
        let start: String = body.chars().take(40).collect();
        let reply = post_yaml(&api, body).await;
        assert!(matches!(reply.code.as_u16(), 400 | 422), "{start:?}: {}", reply.said());
    }
    api.make(CONFIG_MAPS, &config_map("fine")).await;
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
async fn a08_patches_of_a_hundred_thousand_parts_are_bounded() {
    let api = Api::start().await;
    api.make(DEPLOYMENTS, &deployment("web")).await;
    let (many, path) = (100_000, format!("{DEPLOYMENTS}/web"));
    let keys: serde_json::Map<_, _> = (0..many).map(|index| (format!("k{index}"), json!("v"))).collect();
    let directives = vec![json!({"$patch": "replace"}); many];
    let nested = (0..2_000).fold(json!({"$patch": "replace"}), |inner, _| json!({"$patch": "merge", "a": inner}));
    let containers: Vec<_> =
        (0..20_000).map(|index| json!({"name": format!("c{index}"), "$patch": "delete"})).collect();
    for (kind, patch) in [
        ("merge", json!({"metadata": {"labels": keys}})),
        ("strategic-merge", json!({"metadata": {"annotations": keys}})),
        ("strategic-merge", json!({"spec": {"template": {"spec": {"containers": directives}}}})),
        ("strategic-merge", json!({"spec": {"template": {"spec": {"containers": containers}}}})),
        ("strategic-merge", nested),
    ] {
        let begun = Instant::now();
        let media = format!("application/{kind}-patch+json");
        let reply = api.call(Method::PATCH, &path, &media, patch.to_string()).await;
        assert!(reply.code.as_u16() == 200 || reply.code.is_client_error(), "{kind}: {}", reply.said());
        assert!(begun.elapsed() < BODY_TIME_MAX, "{kind} took {:?}", begun.elapsed());
    }
    let stored = api.get(&path).await.json();
    assert_eq!(stored["spec"]["template"]["spec"]["containers"][0]["name"], "main", "nothing of it was kept");
}

#[tokio::test]
async fn a08_an_object_with_ten_thousand_owners_of_its_fields_is_bounded() {
    let api = Api::start().await;
    let mut object = api.make(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    let owner = |index: usize| {
        json!({"manager": format!("m{index}"), "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:data": {"f:k": {}}}})
    };
    object["metadata"]["managedFields"] = (0..10_000).map(owner).collect();
    let begun = Instant::now();
    let reply = api.put(&path, &object).await;
    assert!(reply.code == 200 || reply.code.is_client_error(), "{}", reply.said());
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "other"}});
    let apply = format!("{path}?fieldManager=late");
    let reply = api.call(Method::PATCH, &apply, "application/apply-patch+yaml", applied.to_string()).await;
    assert!(
        reply.code == 200 || reply.code.is_client_error(),
        "{}",
        reply.said().chars().take(300).collect::<String>()
    );
    assert!(begun.elapsed() < 2 * BODY_TIME_MAX, "took {:?}", begun.elapsed());
}

#[tokio::test]
async fn malformed_bodies_are_refused_with_a_reason() {
    let api = Api::start().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (media, body) in [
        ("application/json", ""),
        ("application/json", "{"),
        ("application/json", "[]"),
        ("application/json", "\"text\""),
        ("application/json", deep.as_str()),
        ("application/json", "{\"metadata\": 5}"),
        ("application/json", "{\"metadata\": {\"name\": 5}}"),
        ("application/json", "{\"metadata\": {\"name\": \"c\", \"labels\": {\"a\": 1}}}"),
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
