//! Conversion of custom objects by a webhook: what its definition names is asked, and what it answers is checked.
//!
//! Rules
//!   R1 batches     the objects of a list that lie in another version are asked for together, so many at a time
//!   R2 bounded     a review is answered within [`TIME_MAX`]
//!   R3 same        a converted object is of the version asked for, and the same kind, name, namespace and uid; of its
//!                  metadata only labels and annotations are taken
//!   R4 told        what goes wrong names the version that was to be converted, in Kubernetes' words
//!
//! Not here         `v1beta1` reviews (a definition that takes no v1 is refused)
//! Source: API reference, apiextensions.k8s.io/v1 ConversionReview; custom resources, "Webhook conversion".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use windlass_api::{ApiError, Reason, Resource};

use crate::remote::Remote;
use crate::server::Server;
use crate::write::text;

/// How long a webhook may take.
const TIME_MAX: Duration = Duration::from_secs(30);

/// The webhook of a definition, and what it was made from.
pub(crate) struct Converter {
    config: Value,
    remote: Remote,
}

impl Converter {
    /// That of a definition, if it names one; the one before where it names the same.
    pub fn of(definition: &Value, before: Option<&Arc<Converter>>) -> Option<Arc<Converter>> {
        let conversion = &definition["spec"]["conversion"];
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let config = &conversion["webhook"]["clientConfig"];
        let kept = before.filter(|before| before.config == *config).cloned();
        Some(kept.unwrap_or_else(|| {
            Arc::new(Converter { config: config.clone(), remote: Remote::of_client_config(config) })
        }))
    }
}

/// Converts those of the objects that are of another version to this one, in place.
pub(super) async fn convert(
    server: &Server,
    resource: &Resource,
    objects: &mut [&mut Value],
    wanted: &str,
) -> Result<(), ApiError> {
    let mut asked: Vec<&mut Value> =
        objects.iter_mut().filter(|object| text(object, "apiVersion") != wanted).map(|object| &mut **object).collect();
    let Some(first) = asked.first() else { return Ok(()) };
    let from = format!("{}, Kind={}", text(first, "apiVersion"), resource.kind.kind);
    let failed =
        |why: String| ApiError::new(Reason::InternalError, format!("conversion webhook for {from} failed: {why}"));
    let definition = resource.custom.as_ref().map_or("", |custom| custom.definition.as_str());
    let served = server.served();
    let converter =
        served.converter(definition).ok_or_else(|| failed(format!("definition {definition:?} names none any more")))?;
    let uid = server.world.uuid();
    let review = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": &asked},
    });
    let answer = converter.remote.ask(server, &review, TIME_MAX).await.map_err(|error| {
        let url = converter.remote.url();
        failed(format!("Post \"{url}?timeout={}s\": {error}", TIME_MAX.as_secs()))
    })?;
    let converted = check_review(answer, &uid, asked.len()).map_err(failed)?;
    for (index, (object, converted)) in asked.iter_mut().zip(converted).enumerate() {
        let taken = check_object(object, converted, wanted).map_err(|why| {
            let message = format!("conversion webhook for {from} returned invalid object at index {index}: {why}");
            ApiError::new(Reason::InternalError, message)
        })?;
        **object = taken;
    }
    Ok(())
}

/// The objects of an answer to this review.
fn check_review(mut answer: Value, uid: &str, count: usize) -> Result<Vec<Value>, String> {
    if answer["kind"] != "ConversionReview" || answer["apiVersion"] != "apiextensions.k8s.io/v1" {
        let found = format!("{}, Kind={}", text(&answer, "apiVersion"), text(&answer, "kind"));
        return Err(format!(
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {found}"
        ));
    }
    let response = &mut answer["response"];
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    if response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(response, "uid")));
    }
    match text(&response["result"], "status") {
        "Success" => {}
        "Failure" | "" if !text(&response["result"], "message").is_empty() => {
            return Err(text(&response["result"], "message").to_owned());
        }
        found => return Err(format!("response.result.status was '{found}', not 'Success'")),
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) if objects.len() == count => Ok(objects),
        Value::Array(objects) => Err(format!("returned {} objects, expected {count}", objects.len())),
        _ => Err(format!("returned 0 objects, expected {count}")),
    }
}

/// R3: the object as it is taken over.
fn check_object(before: &Value, mut converted: Value, wanted: &str) -> Result<Value, String> {
    if !converted.is_object() {
        return Err("expected an object".to_owned());
    }
    let version = text(&converted, "apiVersion");
    if version != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {version})"));
    }
    let (kind, found) = (text(before, "kind"), text(&converted, "kind"));
    if found != kind {
        return Err(format!("invalid kind (expected {kind}, received {found})"));
    }
    if !converted["metadata"].is_object() {
        return Err("invalid metadata of type null in input object".to_owned());
    }
    for field in ["name", "namespace", "uid"] {
        let (expected, found) = (text(&before["metadata"], field), text(&converted["metadata"], field));
        if found != expected {
            return Err(format!("must have the same {field}: {found:?} != {expected:?}"));
        }
    }
    let mut metadata = before["metadata"].clone();
    for field in ["labels", "annotations"] {
        let new = &converted["metadata"][field];
        let texts: Result<BTreeMap<String, String>, _> = match new {
            Value::Null => Ok(BTreeMap::new()),
            new => serde_json::from_value(new.clone()),
        };
        let texts = texts.map_err(|_| format!("metadata.{field}: expected texts only"))?;
        match (texts.is_empty(), metadata.as_object_mut()) {
            (_, None) => {}
            (true, Some(metadata)) => {
                metadata.remove(field);
            }
            (false, Some(metadata)) => {
                metadata.insert(field.to_owned(), json!(texts));
            }
        }
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::{check_object, check_review};
    use serde_json::{Value, json};

    fn object(version: &str, metadata: &Value) -> Value {
        json!({"apiVersion": version, "kind": "Foo", "metadata": metadata, "spec": {"a": 1}})
    }

    #[test]
    fn r3_of_the_metadata_only_labels_and_annotations_change() {
        let before = object("g/v1", &json!({"name": "x", "uid": "u", "generation": 3, "annotations": {"a": "b"}}));
        let to = |metadata| check_object(&before, object("g/v2", &metadata), "g/v2");
        let taken = to(json!({"name": "x", "uid": "u", "generation": 9, "finalizers": ["f"], "labels": {"c": "d"}}));
        let expected = json!({"name": "x", "uid": "u", "generation": 3, "labels": {"c": "d"}});
        assert_eq!(taken.expect("the same object")["metadata"], expected);
        let refused = |metadata| to(metadata).expect_err("another object");
        assert_eq!(refused(json!({"name": "y", "uid": "u"})), "must have the same name: \"y\" != \"x\"");
        assert_eq!(refused(json!({"name": "x", "uid": "v"})), "must have the same uid: \"v\" != \"u\"");
        let labels = json!({"name": "x", "uid": "u", "labels": {"a": 1}});
        assert_eq!(refused(labels), "metadata.labels: expected texts only");
        let other = check_object(&before, object("g/v3", &json!({})), "g/v2").expect_err("another version");
        assert_eq!(other, "invalid groupVersion (expected g/v2, received g/v3)");
    }

    #[test]
    fn r4_an_answer_that_is_none_says_why() {
        let review = |response: Value| {
            let kind = ("ConversionReview", "apiextensions.k8s.io/v1");
            let answer = json!({"kind": kind.0, "apiVersion": kind.1, "response": response});
            check_review(answer, "u", 1).expect_err("no answer")
        };
        assert_eq!(review(json!(null)), "no response provided");
        assert_eq!(review(json!({"uid": "v"})), "expected response.uid=\"u\", got \"v\"");
        let result = |result: Value, objects: Value| json!({"uid": "u", "result": result, "convertedObjects": objects});
        let failed = json!({"status": "Failure", "message": "no"});
        assert_eq!(review(result(failed, json!([]))), "no");
        assert_eq!(review(result(json!({}), json!([]))), "response.result.status was '', not 'Success'");
        let done = json!({"status": "Success"});
        assert_eq!(review(result(done, json!([{}, {}]))), "returned 2 objects, expected 1");
        assert!(check_review(json!({}), "u", 1).is_err_and(|why| why.starts_with("expected webhook response of")));
    }
}
