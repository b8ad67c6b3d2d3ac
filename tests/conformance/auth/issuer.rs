//! The issuer of service accounts' tokens, as others find it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::Test;

/// A part of a token that is JSON: 0 its head, 1 its claims.
fn part(token: &str, at: usize) -> Value {
    let text = token.split('.').nth(at).expect("a token has three parts");
    let bytes = URL_SAFE_NO_PAD.decode(text).expect("a token is base64");
    serde_json::from_slice(&bytes).expect("a token is JSON")
}

pub async fn the_issuer_says_how_its_tokens_are_checked(test: &Test) {
    let path = format!("{}/default/token", test.path("v1", "serviceaccounts"));
    let answer = test.api.create(&path, &json!({"spec": {"expirationSeconds": 3600}})).await.ok();
    let token = answer["status"]["token"].as_str().expect("a token");
    let document = test.api.get("/.well-known/openid-configuration").await.ok();
    assert_eq!(document["issuer"], part(token, 1)["iss"]);
    let algorithms = document["id_token_signing_alg_values_supported"].as_array().expect("algorithms");
    assert!(algorithms.contains(&part(token, 0)["alg"]), "{document}");
    let keys = document["jwks_uri"].as_str().expect("where the keys are");
    assert!(keys.ends_with("/openid/v1/jwks"), "{keys}");
    let keys = test.api.get("/openid/v1/jwks").await.ok();
    let key = keys["keys"].as_array().into_iter().flatten().find(|key| key["kid"] == part(token, 0)["kid"]);
    assert!(key.is_some_and(|key| key.get("d").is_none()), "the token's key is published, and nothing secret: {keys}");
}
