//! Paths that lead elsewhere (A13).

use crate::{Api, CONFIG_MAPS, config_map};

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
