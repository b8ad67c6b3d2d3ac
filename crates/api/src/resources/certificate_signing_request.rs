//! CertificateSigningRequest: somebody asks for a certificate, somebody approves, somebody signs.
//!
//! Rules
//!   C1 request      a PEM certificate request, what it is for, and who is to sign; none of it changes
//!   C2 conditions   each type once; approved or denied, not both, and then for ever
//!   C3 certificate  PEM, and never another
//! Source: API reference, certificates.k8s.io/v1 CertificateSigningRequest.
//! Not here    who asks, and when a condition came about (admission); signing

use std::collections::BTreeSet;

use base64::Engine;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::required_word;
use super::tree::{Tree, carry_over, remove};
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::resource::{Resource, Rules, Subresource};

/// Seconds that a certificate is asked for at least.
const SECONDS_MIN: i64 = 600;
/// Bytes of a signer's name: a domain, and two more names with a dot between them.
const SIGNER_BYTES_MAX: usize = 571;
/// Conditions that are decisions: once there, they stay, and they are always true.
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];
/// What a certificate may be used for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The row of CertificateSigningRequest.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        age_column(),
        column("SignerName", "string", "who is to sign"),
        column("Requestor", "string", "who asks"),
        column("RequestedDuration", "string", "how long it is to last"),
        column("Condition", "string", "what was decided, and whether there is a certificate"),
    ];
    row(&kinds::CERTIFICATE_SIGNING_REQUEST, columns, CertificateSigningRequest)
        .short_names(&["csr"])
        .subresources(&[Subresource::Status, Subresource::Approval])
        .selectable(&["spec.signerName"])
}

struct CertificateSigningRequest;

impl Rules for CertificateSigningRequest {
    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "spec");
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        if !is_pem(spec.text("request"), "CERTIFICATE REQUEST") {
            let detail = "PEM block type must be CERTIFICATE REQUEST";
            errors.invalid(&at.child("request"), spec.text("request"), detail);
        }
        validate_usages(spec.items("usages"), &at.child("usages"), errors);
        validate_signer(spec.text("signerName"), &at.child("signerName"), errors);
        if let Some(seconds) = spec.int("expirationSeconds").filter(|&seconds| seconds < SECONDS_MIN) {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.invalid(&at.child("expirationSeconds"), seconds, detail);
        }
        validate_conditions(object["status"].items("conditions"), errors);
    }

    fn validate_status(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (status, before, at) = (&object["status"], &old["status"], Path::new("status"));
        validate_conditions(status.items("conditions"), errors);
        for decision in DECISIONS.into_iter().filter(|decision| has(before, decision) && !has(status, decision)) {
            let detail = format!("updates may not remove a condition of type {decision:?}");
            errors.forbidden(&at.child("conditions"), &detail);
        }
        let (certificate, path) = (status.text("certificate"), at.child("certificate"));
        if certificate == before.text("certificate") {
            return;
        }
        if before.is_set("certificate") {
            errors.forbidden(&path, "updates may not modify existing certificate content");
        } else if !is_pem(certificate, "CERTIFICATE") {
            errors.invalid(&path, "<certificate data>", "must contain at least one CERTIFICATE PEM block");
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let mut shown = match (has(status, "Denied"), has(status, "Approved")) {
            (true, _) => "Denied",
            (false, true) => "Approved",
            (false, false) => "Pending",
        }
        .to_owned();
        if has(status, "Failed") {
            shown.push_str(",Failed");
        }
        if !status.text("certificate").is_empty() {
            shown.push_str(",Issued");
        }
        vec![
            json!(object["metadata"].text("name")),
            age::of(object, now),
            json!(spec.text("signerName")),
            json!(spec.text("username")),
            json!(spec.int("expirationSeconds").map_or("<none>".to_owned(), age::human)),
            json!(shown),
        ]
    }
}

fn has(status: &Value, kind: &str) -> bool {
    status.items("conditions").iter().any(|condition| condition.text("type") == kind)
}

/// Whether base64 text is PEM with a block of this kind, and nothing before it.
fn is_pem(text: &str, kind: &str) -> bool {
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text) else { return false };
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let Ok(pem) = std::str::from_utf8(&bytes) else { return false };
    pem.trim_start().strip_prefix(&begin).is_some_and(|rest| rest.contains(&end))
}

/// C1.
fn validate_usages(usages: &[Value], at: &Path, errors: &mut Errors) {
    if usages.is_empty() {
        errors.required(at, "");
    }
    for (index, usage) in usages.iter().enumerate() {
        let word = usage.as_str().unwrap_or_default();
        if !USAGES.contains(&word) {
            errors.not_supported(&at.index(index), word, &USAGES);
        } else if usages[..index].contains(usage) {
            errors.duplicate(&at.index(index), word);
        }
    }
}

/// C1, also where else a signer is named.
pub(super) fn validate_signer(signer: &str, path: &Path, errors: &mut Errors) {
    match signer.split_once('/') {
        _ if signer.is_empty() => errors.required(path, ""),
        _ if signer == "kubernetes.io/legacy-unknown" => {
            errors.invalid(path, signer, "the legacy signerName is not allowed via this API version");
        }
        Some((domain, rest)) if !domain.is_empty() && !rest.contains('/') && domain.contains('.') => {
            if signer.len() > SIGNER_BYTES_MAX {
                errors.too_long(path, SIGNER_BYTES_MAX);
            }
            for reason in name::subdomain(domain) {
                errors.invalid(path, signer, &format!("validating label {domain:?}: {reason}"));
            }
            for reason in name::subdomain(rest) {
                errors.invalid(path, signer, &format!("validating label {rest:?}: {reason}"));
            }
        }
        _ => {
            let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.invalid(path, signer, detail);
        }
    }
}

/// C2.
fn validate_conditions(conditions: &[Value], errors: &mut Errors) {
    let path = Path::new("status").child("conditions");
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let (kind, at) = (condition.text("type"), path.index(index));
        if kind.is_empty() {
            errors.required(&at.child("type"), "");
        }
        if DECISIONS.contains(&kind) && condition.text("status") != "True" {
            errors.not_supported(&at.child("status"), condition.text("status"), &["True"]);
        } else {
            required_word(condition, "status", &["False", "True", "Unknown"], &at, errors);
        }
        let opposite = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(opposite) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(&at.child("type"), kind, detail);
        }
        if !seen.insert(kind) {
            errors.duplicate(&at.child("type"), kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CertificateSigningRequest;
    use crate::resource::Rules;
    use crate::resources::fixture::{cells, check, check_status};
    use base64::Engine;
    use serde_json::{Value, json};

    fn pem(kind: &str) -> String {
        let text = format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    fn good() -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"request": pem("CERTIFICATE REQUEST"), "usages": ["client auth"],
            "signerName": "kubernetes.io/kube-apiserver-client", "expirationSeconds": 3600, "username": "ann"}})
    }

    #[test]
    fn c1_a_request_says_what_for_and_by_whom_and_stays() {
        check(&CertificateSigningRequest, good(), &[]);
        check(
            &CertificateSigningRequest,
            json!({"spec": {"request": pem("CERTIFICATE"), "usages": ["x", "any", "any"], "signerName": "me", "expirationSeconds": 5}}),
            &[
                "spec.request: Invalid value",
                "spec.usages[0]: Unsupported value: \"x\"",
                "spec.usages[2]: Duplicate value: \"any\"",
                "spec.signerName: Invalid value: \"me\": must be a fully qualified domain and path of the form",
                "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)",
            ],
        );
        let mut new = good();
        new["spec"]["username"] = json!("eve");
        CertificateSigningRequest.prepare_update(&mut new, &good());
        assert_eq!(new, good());
    }

    fn decided(kinds: &[&str]) -> Value {
        let mut request = good();
        let conditions: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        request["status"] = json!({ "conditions": conditions });
        request
    }

    #[test]
    fn c2_a_decision_is_one_and_final() {
        check_status(&CertificateSigningRequest, &decided(&["Approved"]), &good(), &[]);
        check_status(
            &CertificateSigningRequest,
            &decided(&["Approved", "Denied", "Denied"]),
            &good(),
            &[
                "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually",
                "status.conditions[2].type: Invalid value: \"Denied\"",
                "status.conditions[2].type: Duplicate value: \"Denied\"",
            ],
        );
        let expected = ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""];
        check_status(&CertificateSigningRequest, &decided(&[]), &decided(&["Approved"]), &expected);
        let mut unsure = decided(&["Denied"]);
        unsure["status"]["conditions"][0]["status"] = json!("False");
        let expected = ["status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\""];
        check_status(&CertificateSigningRequest, &unsure, &good(), &expected);
    }

    #[test]
    fn c3_a_certificate_is_given_once() {
        let mut issued = decided(&["Approved"]);
        issued["status"]["certificate"] = json!(pem("CERTIFICATE"));
        check_status(&CertificateSigningRequest, &issued, &decided(&["Approved"]), &[]);
        let shown = cells(&CertificateSigningRequest, &issued);
        assert_eq!(
            shown[2..],
            ["kubernetes.io/kube-apiserver-client", "ann", "60m", "Approved,Issued"].map(Value::from)
        );
        let mut other = issued.clone();
        other["status"]["certificate"] = json!("AAAA");
        check_status(
            &CertificateSigningRequest,
            &other,
            &issued,
            &["status.certificate: Forbidden: updates may not modify"],
        );
        check_status(
            &CertificateSigningRequest,
            &other,
            &decided(&["Approved"]),
            &["status.certificate: Invalid value"],
        );
    }
}
