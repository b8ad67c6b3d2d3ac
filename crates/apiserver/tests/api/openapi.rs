//! OpenAPI: v3 by group version and hash, v2 as one document in JSON and protobuf.

use std::io::Read;

use http::Method;
use serde_json::{Value, json};

use crate::{Api, admin};

#[tokio::test]
async fn documents_are_found_by_the_hash_of_the_index() {
    let api = Api::start().await;
    let index = api.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    let document = api.get(&url).await;
    assert!(document.headers["cache-control"].to_str().expect("text").contains("immutable"));
    let patch = &document.json()["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let names: Vec<Value> = patch["parameters"].as_array().into_iter().flatten().map(|p| p["name"].clone()).collect();
    assert!(names.contains(&json!("fieldValidation")), "kubectl apply needs it: {names:?}");
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    assert_eq!(api.get("/openapi/v3/apis/nonsense/v1").await.code, 404);
}

#[tokio::test]
async fn v2_is_served_in_json_and_in_protobuf() {
    let api = Api::start().await;
    let json = api.get("/openapi/v2").await;
    assert_eq!(json.json()["swagger"], "2.0");
    let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let protobuf = api.call_as(admin(), Method::GET, "/openapi/v2", &[("accept", old)], "").await;
    assert_eq!(protobuf.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert_eq!(protobuf.body[..5], [0x0a, 3, b'2', b'.', b'0'], "field 1 is the version of Swagger");
    assert!(protobuf.body.len() > 100_000 && protobuf.body.len() < json.body.len());
}

#[tokio::test]
async fn documents_are_compressed_for_who_takes_it() {
    let api = Api::start().await;
    let plain = api.get("/openapi/v3/api/v1").await;
    let packed = api.call_as(admin(), Method::GET, "/openapi/v3/api/v1", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() * 4 < plain.body.len());
    let mut back = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut back).expect("gzip");
    assert_eq!(back, plain.body);
}

/// What clients are generated from says the same as what a delete answers (`kind`).
#[tokio::test]
async fn a_delete_is_published_with_the_type_of_its_answer() {
    let api = Api::start().await;
    let documents = [api.get("/openapi/v3/api/v1").await.json(), api.get("/openapi/v3/apis/apps/v1").await.json()];
    let v2 = api.get("/openapi/v2").await.json();
    let status = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
    let item = |path: &str| format!("{path}/{{name}}");
    for (path, wanted) in [
        (item("/api/v1/persistentvolumes"), "io.k8s.api.core.v1.PersistentVolume"),
        (item("/api/v1/namespaces/{namespace}/pods"), "io.k8s.api.core.v1.Pod"),
        (item("/api/v1/namespaces/{namespace}/configmaps"), status),
        (item("/apis/apps/v1/namespaces/{namespace}/deployments"), status),
        ("/api/v1/namespaces/{namespace}/pods".to_owned(), status),
    ] {
        let v3 = documents.iter().find_map(|document| document["paths"].get(&path)).expect("the path is published");
        let content = &v3["delete"]["responses"]["200"]["content"]["application/json"];
        assert_eq!(content["schema"]["$ref"], format!("#/components/schemas/{wanted}"), "{path}");
        let schema = &v2["paths"][&path]["delete"]["responses"]["200"]["schema"];
        assert_eq!(schema["$ref"], format!("#/definitions/{wanted}"), "{path}");
    }
}
