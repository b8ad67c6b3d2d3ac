//! PodCertificateRequest: a node asks for a certificate for a pod, somebody signs.
//!
//! Rules
//!   P1 request   a pod, its account and its node, each with name and uid, who is to sign, and for how long; it never changes
//!   P2 decision  one of Issued, Denied and Failed, which is True and for ever
//!   P3 issued    a chain in PEM with its times, of which there are none otherwise
//! Source: API reference, certificates.k8s.io/v1 PodCertificateRequest; KEP-4317.
//! Not here    whether it is signed by its own key, and whether the node has the pod (admission); signing

use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::certificate_signing_request::validate_signer;
use super::check::{conditions, required_name};
use super::tree::{Tree, carry_over, fill, remove};
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules, Subresource};

/// Seconds that a certificate lasts when nobody says more.
const SECONDS_DEFAULT: i64 = 86_400;
/// Seconds it may last: of Kubernetes' own signers, and of others.
const KUBERNETES_SECONDS: (i64, i64) = (3600, 86_400);
const SECONDS: (i64, i64) = (3600, 91 * 86_400);
const UID_BYTES_MAX: usize = 128;
/// Bytes of a request, which says little but a key.
const REQUEST_BYTES_MAX: usize = 10 << 10;
const CHAIN_BYTES_MAX: usize = 100 << 10;
/// How long after its beginning and before its end a certificate is renewed at the earliest and latest.
const REFRESH_MARGIN: Duration = Duration::from_secs(600);
/// What may be decided.
const DECISIONS: [&str; 3] = ["Issued", "Denied", "Failed"];

/// The row of PodCertificateRequest.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("PodName", "string", "whose certificate it is"),
        column("ServiceAccountName", "string", "the pod's account"),
        column("NodeName", "string", "where the pod is, which asks"),
        column("SignerName", "string", "who is to sign"),
        column("State", "string", "what was decided"),
        age_column(),
    ];
    row(&kinds::POD_CERTIFICATE_REQUEST, columns, PodCertificateRequest)
        .needs_revision()
        .subresources(&[Subresource::Status])
        .selectable(&["spec.signerName", "spec.podName", "spec.nodeName"])
}

struct PodCertificateRequest;

impl Rules for PodCertificateRequest {
    fn default(&self, object: &mut Value) {
        if object.is_set("spec") {
            fill(&mut object["spec"], "maxExpirationSeconds", SECONDS_DEFAULT);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_signer(spec.text("signerName"), &at.child("signerName"), errors);
        for (name, uid) in [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")]
        {
            required_name(spec, name, name::subdomain, &at, errors);
            match spec.text(uid).len() {
                0 => errors.required(&at.child(uid), "must not be empty"),
                1..=UID_BYTES_MAX => {}
                _ => errors.too_long(&at.child(uid), UID_BYTES_MAX),
            }
        }
        let is_kubernetes = spec.text("signerName").starts_with("kubernetes.io/");
        let (least, most) = if is_kubernetes { KUBERNETES_SECONDS } else { SECONDS };
        let seconds = spec.int("maxExpirationSeconds").unwrap_or_default();
        if !(least..=most).contains(&seconds) {
            let detail = format!("must be in the range [{least}, {most}]");
            errors.invalid(&at.child("maxExpirationSeconds"), seconds, &detail);
        }
        let path = at.child("stubPKCS10Request");
        match base64::engine::general_purpose::STANDARD.decode(spec.text("stubPKCS10Request")) {
            Ok(request) if request.is_empty() => errors.required(&path, "must not be empty"),
            Ok(request) if request.len() > REQUEST_BYTES_MAX => errors.too_long(&path, REQUEST_BYTES_MAX),
            Ok(_) => {}
            Err(_) => errors.invalid(&path, "<request>", "must be a DER-serialized PKCS#10 request"),
        }
        let path = at.child("unverifiedUserAnnotations");
        for key in spec.entries("unverifiedUserAnnotations").keys() {
            for reason in name::domain_key(key) {
                errors.invalid(&path, key.as_str(), &reason);
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if object["spec"] != old["spec"] {
            errors.immutable(&Path::new("spec"), object["spec"].clone());
        }
    }

    fn validate_status(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (status, at) = (&object["status"], Path::new("status"));
        let path = at.child("conditions");
        let found = status.items("conditions");
        conditions(found, &path, errors);
        for (index, condition) in found.iter().enumerate() {
            let (kind, path) = (condition.text("type"), path.index(index));
            if !DECISIONS.contains(&kind) {
                errors.not_supported(&path.child("type"), kind, &DECISIONS);
            } else if condition.text("status") != "True" {
                errors.not_supported(&path.child("status"), condition.text("status"), &["True"]);
            }
            if index > 0 {
                let detail = "there may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
                errors.invalid(&path.child("type"), kind, detail);
            }
        }
        if decision(&old["status"]).is_some() {
            if status != &old["status"] {
                errors.immutable(&at, status.clone());
            }
        } else if decision(status) == Some("Issued") {
            validate_issued(status, &at, errors);
        } else {
            let detail = "must be empty unless the certificate is issued";
            for field in ["certificateChain", "notBefore", "beginRefreshAt", "notAfter"] {
                if !status.text(field).is_empty() {
                    errors.invalid(&at.child(field), status.text(field), detail);
                }
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            json!(object["metadata"].text("name")),
            json!(spec.text("podName")),
            json!(spec.text("serviceAccountName")),
            json!(spec.text("nodeName")),
            json!(spec.text("signerName")),
            json!(decision(&object["status"]).unwrap_or("Pending")),
            age::of(object, now),
        ]
    }
}

/// What was decided, if anything was.
fn decision(status: &Value) -> Option<&str> {
    status.items("conditions").iter().map(|condition| condition.text("type")).find(|kind| DECISIONS.contains(kind))
}

/// P3.
fn validate_issued(status: &Value, at: &Path, errors: &mut Errors) {
    let (chain, path) = (status.text("certificateChain"), at.child("certificateChain"));
    let is_pem = chain.trim_start().starts_with("-----BEGIN CERTIFICATE-----")
        && chain.trim_end().ends_with("-----END CERTIFICATE-----");
    if chain.is_empty() {
        errors.required(&path, "must be set if the request is issued");
    } else if chain.len() > CHAIN_BYTES_MAX {
        errors.too_long(&path, CHAIN_BYTES_MAX);
    } else if !is_pem {
        errors.invalid(&path, "<certificates>", "must consist of PEM CERTIFICATE blocks");
    }
    let mut time = |field: &str| {
        let found = Timestamp::from_str(status.text(field)).ok();
        if found.is_none() {
            errors.required(&at.child(field), "must be set if the request is issued");
        }
        found
    };
    let times = (time("notBefore"), time("beginRefreshAt"), time("notAfter"));
    let (Some(begin), Some(refresh), Some(end)) = times else { return };
    if refresh < begin.saturating_add(REFRESH_MARGIN).unwrap_or(begin) {
        let detail = "must be at least 10 minutes after status.notBefore";
        errors.invalid(&at.child("beginRefreshAt"), status.text("beginRefreshAt"), detail);
    }
    if refresh > end.saturating_sub(REFRESH_MARGIN).unwrap_or(end) {
        let detail = "must be at least 10 minutes before status.notAfter";
        errors.invalid(&at.child("beginRefreshAt"), status.text("beginRefreshAt"), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::PodCertificateRequest;
    use crate::resources::fixture::{cells, check, check_status, check_update};
    use serde_json::{Value, json};

    fn good() -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"signerName": "example.com/s", "podName": "p", "podUID": "1",
            "serviceAccountName": "default", "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3",
            "stubPKCS10Request": "MIIB"}})
    }

    fn issued() -> Value {
        let mut request = good();
        request["status"] = json!({"conditions": [{"type": "Issued", "status": "True", "reason": "Signed",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "certificateChain": "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            "notBefore": "2026-01-01T00:00:00Z", "beginRefreshAt": "2026-01-01T12:00:00Z",
            "notAfter": "2026-01-02T00:00:00Z"});
        request
    }

    #[test]
    fn p1_a_request_names_all_it_is_for_and_stays() {
        check(&PodCertificateRequest, good(), &[]);
        check(
            &PodCertificateRequest,
            json!({"spec": {"signerName": "kubernetes.io/s", "podName": "P", "serviceAccountName": "a",
                "serviceAccountUID": "x".repeat(129), "nodeName": "n", "nodeUID": "3", "maxExpirationSeconds": 86_401,
                "stubPKCS10Request": "?", "unverifiedUserAnnotations": {"plain": "x"}}}),
            &[
                "spec.podName: Invalid value: \"P\"",
                "spec.podUID: Required value: must not be empty",
                "spec.serviceAccountUID: Too long",
                "spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]",
                "spec.stubPKCS10Request: Invalid value",
                "spec.unverifiedUserAnnotations: Invalid value: \"plain\"",
            ],
        );
        let mut other = good();
        other["spec"]["podName"] = json!("q");
        check_update(&PodCertificateRequest, &other, &good(), &["spec: Invalid value"]);
    }

    #[test]
    fn p2_a_decision_is_one_and_final() {
        let denied = |status: &str| {
            let mut request = good();
            request["status"] = json!({"conditions": [{"type": "Denied", "status": status, "reason": "No",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
            request
        };
        check_status(&PodCertificateRequest, &denied("True"), &good(), &[]);
        let expected = ["status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\""];
        check_status(&PodCertificateRequest, &denied("False"), &good(), &expected);
        check_status(&PodCertificateRequest, &issued(), &denied("True"), &["status: Invalid value"]);
        check_status(&PodCertificateRequest, &issued(), &issued(), &[]);
        let mut both = denied("True");
        let second = issued()["status"]["conditions"][0].clone();
        both["status"]["conditions"].as_array_mut().expect("a list").push(second);
        let expected = ["status.conditions[1].type: Invalid value: \"Issued\": there may be at most one condition"];
        check_status(&PodCertificateRequest, &both, &good(), &expected);
        let mut unknown = denied("True");
        unknown["status"]["conditions"][0]["type"] = json!("Lost");
        check_status(
            &PodCertificateRequest,
            &unknown,
            &good(),
            &["status.conditions[0].type: Unsupported value: \"Lost\""],
        );
    }

    #[test]
    fn p3_what_is_issued_has_a_chain_and_its_times() {
        check_status(&PodCertificateRequest, &issued(), &good(), &[]);
        assert_eq!(
            cells(&PodCertificateRequest, &issued())[..6],
            ["r", "p", "default", "n", "example.com/s", "Issued"]
        );
        let mut early = issued();
        early["status"]["beginRefreshAt"] = json!("2026-01-01T00:05:00Z");
        early["status"]["certificateChain"] = json!("x");
        check_status(
            &PodCertificateRequest,
            &early,
            &good(),
            &[
                "status.certificateChain: Invalid value: \"<certificates>\": must consist of PEM",
                "status.beginRefreshAt: Invalid value: \"2026-01-01T00:05:00Z\": must be at least 10 minutes after",
            ],
        );
        let mut bare = issued();
        bare["status"]["conditions"] = json!([]);
        let expected = ["status.certificateChain", "status.notBefore", "status.beginRefreshAt", "status.notAfter"];
        check_status(&PodCertificateRequest, &bare, &good(), &expected);
        let mut nothing = issued();
        for field in ["certificateChain", "notBefore", "beginRefreshAt", "notAfter"] {
            nothing["status"][field] = Value::Null;
        }
        check_status(&PodCertificateRequest, &nothing, &good(), &expected);
    }
}
