//! `list`: selectors, pages that show one revision, revisions asked for.

use serde_json::{Value, json};

use crate::{Api, CONFIG_MAPS, PODS, bind, config_map, pod};

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

async fn make_many(api: &Api, count: usize) {
    for index in 0..count {
        let mut object = config_map(&format!("c{index}"));
        object["metadata"]["labels"] = json!({"parity": if index % 2 == 0 { "even" } else { "odd" }});
        api.make(CONFIG_MAPS, &object).await;
    }
}

#[tokio::test]
async fn a_list_holds_what_its_selectors_name() {
    let api = Api::start().await;
    make_many(&api, 4).await;
    for (query, expected) in [
        ("", vec!["c0", "c1", "c2", "c3"]),
        ("?labelSelector=parity%3Dodd", vec!["c1", "c3"]),
        ("?labelSelector=parity%20in%20(odd,even),!other", vec!["c0", "c1", "c2", "c3"]),
        ("?fieldSelector=metadata.name%3Dc2", vec!["c2"]),
        ("?fieldSelector=metadata.name!%3Dc2&labelSelector=parity%3Deven", vec!["c0"]),
    ] {
        let list = api.get(&format!("{CONFIG_MAPS}{query}")).await.json();
        assert_eq!(names(&list), expected, "{query}");
        assert_eq!(list["kind"], "ConfigMapList");
    }
    let reply = api.get(&format!("{CONFIG_MAPS}?fieldSelector=spec.nodeName%3Dx")).await;
    let known = r#"only "metadata.name", "metadata.namespace""#;
    assert_eq!(reply.said(), format!(r#"400 BadRequest: "spec.nodeName" is not a known field selector: {known}"#));
    let reply = api.get(&format!("{PODS}?fieldSelector=spec.nothing%3Dx")).await;
    assert_eq!(reply.said(), "400 BadRequest: field label not supported: spec.nothing");
}

#[tokio::test]
async fn pods_are_found_by_node_and_by_fields_outside_the_header() {
    let api = Api::start().await;
    for name in ["a", "b"] {
        api.make(PODS, &pod(name)).await;
    }
    bind(&api, "b", "n1").await;
    let list = api.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.json();
    assert_eq!(names(&list), ["b"]);
    let list = api.get("/api/v1/pods?fieldSelector=spec.nodeName%3D,spec.restartPolicy%3DAlways").await.json();
    assert_eq!(names(&list), ["a"]);
    let list = api.get("/api/v1/pods?fieldSelector=spec.restartPolicy%3DNever").await.json();
    assert_eq!(names(&list), Vec::<&str>::new());
}

#[tokio::test]
async fn pages_show_the_revision_of_the_first() {
    let api = Api::start().await;
    make_many(&api, 5).await;
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await.json();
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["c0", "c1"], &json!(3)));
    api.delete(&format!("{CONFIG_MAPS}/c3")).await;
    api.make(CONFIG_MAPS, &config_map("c9")).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!(names(&second), ["c2", "c3"], "what was there then");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().expect("a token");
    let third = api.get(&format!("{CONFIG_MAPS}?continue={token}")).await.json();
    assert_eq!((names(&third), third["metadata"].get("continue")), (vec!["c4"], None));
}

#[tokio::test]
async fn a_page_behind_a_selector_is_full() {
    let api = Api::start().await;
    make_many(&api, 6).await;
    let query = format!("{CONFIG_MAPS}?limit=2&labelSelector=parity%3Dodd");
    let first = api.get(&query).await.json();
    assert_eq!((names(&first), first["metadata"].get("remainingItemCount")), (vec!["c1", "c3"], None));
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = api.get(&format!("{query}&continue={token}")).await.json();
    assert_eq!((names(&second), second["metadata"].get("continue")), (vec!["c5"], None));
}

#[tokio::test]
async fn an_old_page_is_410_with_a_token_for_the_rest_as_it_is_now() {
    let api = Api::start().await;
    make_many(&api, 3).await;
    let first = api.get(&format!("{CONFIG_MAPS}?limit=1")).await.json();
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    api.make(CONFIG_MAPS, &config_map("later")).await;
    api.store.compact(api.store.revision()).expect("everything before now");
    let reply = api.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await;
    assert!(reply.said().starts_with("410 Expired: The provided continue parameter is too old"), "{}", reply.said());
    let fresh = reply.json()["metadata"]["continue"].as_str().expect("a fresh token").to_owned();
    let rest = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={fresh}")).await.json();
    assert_eq!(names(&rest), ["c1", "c2"]);
    assert_eq!(rest["metadata"]["resourceVersion"], api.store.revision().to_string());
    assert_eq!(rest["metadata"]["remainingItemCount"], 1);
    let token = rest["metadata"]["continue"].as_str().expect("a token");
    let last = api.get(&format!("{CONFIG_MAPS}?continue={token}")).await.json();
    assert_eq!(names(&last), ["later"], "made after the first page: the list is not consistent");
}

#[tokio::test]
async fn a_token_is_good_for_its_own_list_only() {
    let api = Api::start().await;
    make_many(&api, 3).await;
    let first = api.get(&format!("{CONFIG_MAPS}?limit=1")).await.json();
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    for path in [
        "/api/v1/configmaps",
        "/api/v1/namespaces/kube-system/configmaps",
        "/api/v1/namespaces/default/secrets",
        "/api/v1/namespaces/default/configmaps?labelSelector=a%3Db",
        "/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Dc1",
    ] {
        let joint = if path.contains('?') { '&' } else { '?' };
        let reply = api.get(&format!("{path}{joint}limit=1&continue={token}")).await;
        assert!(reply.said().starts_with("400 BadRequest: continue key is not valid"), "{path}: {}", reply.said());
    }
}

#[tokio::test]
async fn a_list_shows_the_revision_it_is_asked_for() {
    let api = Api::start().await;
    let first =
        api.make(CONFIG_MAPS, &config_map("a")).await["metadata"]["resourceVersion"].as_str().expect("rv").to_owned();
    api.make(CONFIG_MAPS, &config_map("b")).await;
    let exact = api.get(&format!("{CONFIG_MAPS}?resourceVersion={first}&resourceVersionMatch=Exact")).await.json();
    assert_eq!((names(&exact), &exact["metadata"]["resourceVersion"]), (vec!["a"], &json!(first)));
    for query in [format!("?resourceVersion={first}"), "?resourceVersion=0".to_owned()] {
        assert_eq!(names(&api.get(&format!("{CONFIG_MAPS}{query}")).await.json()), ["a", "b"], "{query}");
    }
    let paged = api.get(&format!("{CONFIG_MAPS}?resourceVersion={first}&limit=5")).await.json();
    assert_eq!(names(&paged), ["a"], "with a limit a revision is exact");
    for wrong in [
        "?resourceVersionMatch=Exact",
        "?resourceVersionMatch=Exact&resourceVersion=0",
        "?resourceVersion=1&resourceVersionMatch=Maybe",
    ] {
        assert_eq!(api.get(&format!("{CONFIG_MAPS}{wrong}")).await.code, 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_large_list_is_whole_json_of_the_announced_length() {
    let api = Api::start().await;
    let mut object = config_map("big0");
    object["data"]["k"] = json!("x".repeat(50_000));
    for index in 0..4 {
        object["metadata"]["name"] = json!(format!("big{index}"));
        api.make(CONFIG_MAPS, &object).await;
    }
    let reply = api.get(CONFIG_MAPS).await;
    assert_eq!(names(&reply.json()).len(), 4);
    assert!(reply.body.len() > 200_000);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_does_not_come_is_504_after_three_seconds() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    let newest = api.store.revision();
    for path in [
        format!("{CONFIG_MAPS}?resourceVersion=999999"),
        format!("{CONFIG_MAPS}?resourceVersion=999999&resourceVersionMatch=Exact"),
        format!("{CONFIG_MAPS}/a?resourceVersion=999999"),
        format!("{CONFIG_MAPS}?watch=1&resourceVersion=999999"),
    ] {
        let started = tokio::time::Instant::now();
        let reply = api.get(&path).await;
        let expected = format!("504 Timeout: Timeout: Too large resource version: 999999, current: {newest}");
        assert_eq!(reply.said(), expected, "{path}");
        assert!(started.elapsed() <= std::time::Duration::from_millis(3100), "{path}");
        let details = &reply.json()["details"];
        assert_eq!(details["causes"][0]["reason"], "ResourceVersionTooLarge");
        assert_eq!(details["retryAfterSeconds"], 1);
    }
}

#[tokio::test]
async fn a_compacted_revision_is_410() {
    let api = Api::start().await;
    make_many(&api, 2).await;
    api.store.compact(api.store.revision()).expect("everything before now");
    let reply = api.get(&format!("{CONFIG_MAPS}?resourceVersion=1&resourceVersionMatch=Exact")).await;
    assert_eq!(reply.said(), "410 Expired: The resourceVersion for the provided list is too old.");
    let reply = api.get(&format!("{CONFIG_MAPS}?resourceVersion=1")).await;
    assert_eq!(reply.said(), "200", "anything newer will do");
}

#[tokio::test]
async fn a_get_shows_at_least_the_revision_asked_for() {
    let api = Api::start().await;
    let made = api.make(CONFIG_MAPS, &config_map("a")).await;
    let revision = made["metadata"]["resourceVersion"].as_str().expect("a revision");
    for query in [String::new(), "?resourceVersion=0".to_owned(), format!("?resourceVersion={revision}")] {
        assert_eq!(api.get(&format!("{CONFIG_MAPS}/a{query}")).await.json(), made, "{query}");
    }
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/a?resourceVersion=x")).await.code, 400);
}

/// Conformance: "API Chunking, server should return chunks of results for list calls".
#[tokio::test]
async fn chunks_are_no_longer_than_asked_and_add_up() {
    let api = Api::start().await;
    make_many(&api, 40).await;
    let mut found = 0;
    let mut query = "?limit=17".to_owned();
    let mut revision = None;
    loop {
        let page = api.get(&format!("{CONFIG_MAPS}{query}")).await.json();
        let count = names(&page).len();
        found += count;
        assert!(count <= 17);
        let shown = page["metadata"]["resourceVersion"].clone();
        assert_eq!(*revision.get_or_insert(shown.clone()), shown, "all pages show the first one's revision");
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        assert_eq!(page["metadata"]["remainingItemCount"], 40 - found);
        query = format!("?limit=17&continue={token}");
    }
    assert_eq!(found, 40);
    assert_eq!(names(&api.get(CONFIG_MAPS).await.json()).len(), 40);
}

/// A20: a selector is bounded before anything is kept of it.
#[tokio::test]
async fn a_hostile_selector_is_refused() {
    let api = Api::start().await;
    let many = vec!["a"; 1_001].join(",");
    let long = "a".repeat(47_000);
    for selector in [many.as_str(), long.as_str(), "a in (((((", "%00", "a%3Db%3Dc"] {
        let reply = api.get(&format!("{CONFIG_MAPS}?labelSelector={}", selector.replace(' ', "%20"))).await;
        assert_eq!(reply.code, 400, "{}", &selector[..selector.len().min(40)]);
        assert!(reply.body.len() < 1024);
    }
}
