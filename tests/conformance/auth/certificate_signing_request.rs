//! CertificateSigningRequest: the walk, and the decision.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;
use crate::walk::{Walk, condition, holds};

/// A request for the name `conformance`.
const REQUEST: &str = "\
-----BEGIN CERTIFICATE REQUEST-----
MIHQMHgCAQAwFjEUMBIGA1UEAwwLY29uZm9ybWFuY2UwWTATBgcqhkjOPQIBBggq
hkjOPQMBBwNCAAQe8LXdeGPwvmpvW1vYxmx14wQmCEuSt305+meGaOL1TRMmwny8
qmuVi3bzrOjXPaTfV/KptF2UAXh66+OHjm8YoAAwCgYIKoZIzj0EAwIDSAAwRQIg
Iy4JtBwltmMdJxOESI3kKVV2s/qTJTycO5XVooMxZsMCIQDuWZPfO7Um6qXnII63
G4798F//oqbHheeM1dpe4eY9IQ==
-----END CERTIFICATE REQUEST-----
";

fn object() -> Value {
    json!({"metadata": {}, "spec": {"request": BASE64.encode(REQUEST), "usages": ["client auth"],
        "signerName": "conformance.example.com/signer", "expirationSeconds": 3600}})
}

pub async fn a_request_lives_and_is_decided(test: &Test) {
    let (version, plural) = ("certificates.k8s.io/v1", "certificatesigningrequests");
    let row = Walk::cluster(test, version, plural, object());
    row.status(condition("StatusPatched"), condition("StatusReplaced")).whole(test).await;

    let mut request = object();
    request["metadata"]["name"] = json!(test.unique("decided"));
    let path = test.everywhere(version, plural);
    let made = test.api.create(&path, &request).await.ok();
    let one = format!("{path}/{}", test.unique("decided"));
    let approval = format!("{one}/approval");
    assert_eq!(test.api.get(&approval).await.ok()["metadata"]["uid"], made["metadata"]["uid"]);
    let marked = json!({"metadata": {"annotations": {"patched": "yes"}}});
    test.api.patch(&approval, MERGE, &marked).await.ok();
    let approved = condition("Approved");
    holds(&test.api.replace(&approval, |object| object["status"] = approved["status"].clone()).await, &approved);
    holds(&test.api.get(&one).await.ok(), &approved);
    test.api.delete(&one).await.ok();
}
