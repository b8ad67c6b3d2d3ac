//! Certificate signing requests: who asks is what the server knows, not what the request says.
//!
//! Rules
//!   R1 requester   user, groups and the rest are those that were proven
//!   R2 decisions   are made through `/approval`; `/status` leaves them as they are
//!   R3 times       a condition says when it came about and when it was last changed
//!   R4 approve     who decides may `approve` for the request's signer, or for all of its domain
//!   R5 sign        who gives a certificate or other conditions may `sign` for it
//!   R6 masters     nobody asks for a client certificate of the group that has all rights
//!   R7 by itself   a node's client certificate is approved at once, where who asks may create `selfnodeclient` for its own
//!                  node, or `nodeclient` for any
//!   R8 signed      what is approved and for a signer of the cluster's own is signed in the same write, or fails in it
//!   R9 own         a node asks for certificates of a kubelet with its own name only
//!   R10 pods       a request for a pod is signed by its own key; who decides it may `sign` for its signer
//!
//! Source: API reference, certificates.k8s.io/v1; "Certificates and Certificate Signing Requests".
//! Not here    what each signer signs (sign) · other signers

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::CertificateSigningRequestParams;
use rustls::pki_types::CertificateSigningRequestDer;
use serde_json::{Value, json};
use windlass_api::field::{Errors, Path};
use windlass_api::{ApiError, kinds};

use crate::authorize::{Asked, AskedObject, may};
use crate::change::Part;
use crate::identity::NODE_NAME_PREFIX;
use crate::server::Call;
use crate::sign::{self, Signer};
use crate::write::{self, WriteOptions, text};

/// Conditions that only `/approval` makes.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// R1, R6 and R9.
pub(super) fn create(call: Call<'_>, request: &mut Value) -> Result<(), ApiError> {
    if sign::asks_for_masters(&request["spec"]) {
        let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
        return Err(ApiError::forbidden(&kinds::CERTIFICATE_SIGNING_REQUEST, text(&request["metadata"], "name"), why));
    }
    if let Some(node) = call.who.node_name()
        && let Some(found) = sign::kubelet_name(&request["spec"])
        && found.as_ref().ok() != Some(&format!("{NODE_NAME_PREFIX}{node}"))
    {
        let why = match found {
            Ok(_) => format!("can only create a node CSR with CN={NODE_NAME_PREFIX}{node}"),
            Err(why) => format!("unable to parse csr: {why}"),
        };
        return Err(ApiError::forbidden(&kinds::CERTIFICATE_SIGNING_REQUEST, text(&request["metadata"], "name"), &why));
    }
    let spec = &mut request["spec"];
    if let Some(spec) = spec.as_object_mut() {
        let who = call.who;
        spec.insert("username".to_owned(), json!(who.name));
        spec.insert("groups".to_owned(), json!(who.groups));
        spec.remove("uid");
        if !who.uid.is_empty() {
            spec.insert("uid".to_owned(), json!(who.uid));
        }
        spec.remove("extra");
        if !who.extra.is_empty() {
            spec.insert("extra".to_owned(), json!(who.extra));
        }
    }
    Ok(())
}

/// R7 and R8, for a request that is otherwise ready to be stored.
pub(super) fn complete(call: Call<'_>, request: &mut Value) {
    let asks_itself = sign::node_client(&request["spec"]);
    let Some(is_own) = asks_itself.filter(|_| call.server.config.pki.is_some()) else { return };
    let may_create = |sub: &str| {
        let kind = &kinds::CERTIFICATE_SIGNING_REQUEST;
        let asked =
            AskedObject { verb: "create", group: &kind.group, resource: &kind.plural, sub, namespace: "", name: "" };
        may(call.server, call.who, &Asked::Object(asked)).is_ok()
    };
    if !(is_own && may_create("selfnodeclient") || may_create("nodeclient")) {
        return;
    }
    let now = call.server.world.now_rfc3339();
    request["status"] = json!({"conditions": [{
        "type": "Approved", "status": "True", "reason": "AutoApproved",
        "message": "Auto approving kubelet client certificate after SubjectAccessReview.",
        "lastUpdateTime": now, "lastTransitionTime": now,
    }]});
    sign_approved(call, request);
}

/// R8.
fn sign_approved(call: Call<'_>, request: &mut Value) {
    let Some(signer) = Signer::named(text(&request["spec"], "signerName")) else { return };
    let Some(pki) = &call.server.config.pki else { return };
    let has = |kind: &str| conditions(request).iter().any(|found| text(found, "type") == kind);
    let is_dry = WriteOptions::parse(call.query).is_ok_and(|options| options.dry_run);
    if !has("Approved") || has("Denied") || has("Failed") || is_dry || !request["status"]["certificate"].is_null() {
        return;
    }
    match sign::sign(pki, signer, &request["spec"]) {
        Ok(pem) => {
            let spec = &request["spec"];
            tracing::info!(
                signer = text(spec, "signerName"),
                asked_by = text(spec, "username"),
                "signed a certificate"
            );
            request["status"]["certificate"] = json!(STANDARD.encode(pem));
        }
        Err(why) => {
            let now = call.server.world.now_rfc3339();
            let failed = json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure",
                "message": why, "lastUpdateTime": now, "lastTransitionTime": now});
            if let Some(conditions) = request.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
                conditions.push(failed);
            }
        }
    }
}

/// Whether who asks may do this for a signer, by its own name or for its whole domain.
fn may_for_signer(call: Call<'_>, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let group = &kinds::CERTIFICATE_SIGNING_REQUEST.group;
        let asked = AskedObject { verb, group, resource: "signers", sub: "", namespace: "", name };
        may(call.server, call.who, &Asked::Object(asked)).is_ok()
    })
}

/// R10: who asks has the key. What is no base64 the kind's own rules refuse.
pub(super) fn check_pod_request(call: Call<'_>, request: &Value) -> Result<(), ApiError> {
    let Ok(der) = STANDARD.decode(text(&request["spec"], "stubPKCS10Request")) else { return Ok(()) };
    let mut errors = Errors::new();
    if !der.is_empty() && CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der)).is_err() {
        let detail = "must be a DER-serialized PKCS#10 request that is signed by its own key, of a supported type";
        errors.invalid(&Path::new("spec").child("stubPKCS10Request"), "<request>", detail);
    }
    write::refuse_if_any(&call.target.resource, request, &errors)
}

/// R10.
pub(super) fn decide_pod_request(call: Call<'_>, old: &Value, request: &Value) -> Result<(), ApiError> {
    let signer = text(&old["spec"], "signerName");
    if old["status"] == request["status"] || may_for_signer(call, "sign", signer) {
        return Ok(());
    }
    let why = format!("user not permitted to sign requests with signerName {signer:?}");
    Err(ApiError::forbidden(&call.target.resource.kind, text(&old["metadata"], "name"), &why))
}

/// Whoever writes a bundle of a signer's speaks for it.
pub(super) fn check_bundle(call: Call<'_>, old: &Value, bundle: &Value) -> Result<(), ApiError> {
    let signer = text(&bundle["spec"], "signerName");
    if signer.is_empty() || old["spec"] == bundle["spec"] || may_for_signer(call, "attest", signer) {
        return Ok(());
    }
    let why = format!("user not permitted to attest for signerName {signer:?}");
    Err(ApiError::forbidden(&call.target.resource.kind, text(&bundle["metadata"], "name"), &why))
}

/// R4 and R5.
fn check_signer(call: Call<'_>, part: Part, old: &Value, request: &Value) -> Result<(), ApiError> {
    let verb = match part {
        Part::Approval => "approve",
        Part::Status
            if ["conditions", "certificate"].iter().any(|field| old["status"][*field] != request["status"][*field]) =>
        {
            "sign"
        }
        _ => return Ok(()),
    };
    let signer = text(&request["spec"], "signerName");
    if may_for_signer(call, verb, signer) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(ApiError::forbidden(&kinds::CERTIFICATE_SIGNING_REQUEST, text(&request["metadata"], "name"), &why))
}

/// R2 to R5, and R8.
pub(super) fn update(call: Call<'_>, part: Part, old: &Value, request: &mut Value) -> Result<(), ApiError> {
    keep_conditions(call, part, old, request);
    check_signer(call, part, old, request)?;
    if part == Part::Approval {
        sign_approved(call, request);
    }
    Ok(())
}

/// R2 and R3.
fn keep_conditions(call: Call<'_>, part: Part, old: &Value, request: &mut Value) {
    let before = conditions(old).to_vec();
    let Some(now) = request.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    if part == Part::Status {
        let is_decision = |condition: &Value| DECISIONS.contains(&text(condition, "type"));
        now.retain(|condition| !is_decision(condition));
        now.splice(0..0, before.iter().filter(|condition| is_decision(condition)).cloned());
    }
    let time = call.server.world.now_rfc3339();
    for condition in now.iter_mut().filter(|condition| condition.is_object() && !before.contains(condition)) {
        let same = before.iter().find(|other| text(other, "type") == text(condition, "type"));
        let kept = same.filter(|other| text(other, "status") == text(condition, "status"));
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = json!(time);
        }
        if condition["lastTransitionTime"].is_null() {
            let since = kept.map(|other| other["lastTransitionTime"].clone()).filter(|since| !since.is_null());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| json!(time));
        }
    }
}

fn conditions(request: &Value) -> &[Value] {
    request["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default()
}
