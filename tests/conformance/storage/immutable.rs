//! ConfigMaps and Secrets that said they stay as they are.

use serde_json::{Value, json};

use crate::Test;

async fn stays(test: &Test, plural: &str, first: Value, second: Value) {
    let path = test.path("v1", plural);
    test.api.create(&path, &json!({"metadata": {"name": "staying"}, "data": {"key": first}})).await.ok();
    let one = format!("{path}/staying");
    test.api.replace(&one, |object| object["data"]["key"] = second.clone()).await;
    let mut object = test.api.replace(&one, |object| object["immutable"] = json!(true)).await;

    object["data"]["key"] = first;
    let message = test.api.update(&one, &object).await.refused(422);
    assert!(message.contains("field is immutable when `immutable` is set"), "{message}");
    object["data"]["key"] = second;
    object["immutable"] = json!(false);
    let message = test.api.update(&one, &object).await.refused(422);
    assert!(message.contains("field is immutable when `immutable` is set"), "{message}");

    test.api.replace(&one, |object| object["metadata"]["labels"]["changed"] = json!("yes")).await;
    test.api.delete(&one).await.ok();
    test.api.until_gone(&one).await;
}

pub async fn a_config_map_stays_when_it_says_so(test: &Test) {
    stays(test, "configmaps", json!("first"), json!("second")).await;
}

pub async fn a_secret_stays_when_it_says_so(test: &Test) {
    stays(test, "secrets", json!("Zmlyc3Q="), json!("c2Vjb25k")).await;
}
