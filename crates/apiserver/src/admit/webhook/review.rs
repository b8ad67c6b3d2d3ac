//! AdmissionReview: what a webhook is asked, and what its answer means.
//!
//! Source: API reference, admission.k8s.io/v1 AdmissionReview; in v1beta1 the answer's uid and kind are not looked at.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Value, json};
use windlass_api::{ApiError, Reason};

use super::Hook;
use crate::server::Call;
use crate::write::text;

/// The versions of reviews that are spoken here.
pub(super) const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// Warnings taken from one answer, and their characters.
const WARNINGS_MAX: usize = 16;
const WARNING_CHARS_MAX: usize = 256;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'a str,
    kind: &'a str,
    request: Request<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: &'a str,
    #[serde(flatten)]
    told: &'a Value,
    object: &'a Value,
    old_object: &'a Value,
}

/// What a webhook answered.
#[derive(Debug)]
pub(super) struct Answer {
    is_allowed: bool,
    status: Value,
    patch: Option<Vec<u8>>,
    warnings: Vec<String>,
}

/// Asks a webhook about this request, object and old object; or why it could not be asked.
pub(super) async fn ask(
    call: Call<'_>,
    hook: &Hook,
    (told, object, old): (&Value, &Value, &Value),
) -> Result<Answer, String> {
    let uid = call.server.world.uuid();
    let api_version = format!("admission.k8s.io/{}", hook.version);
    let request = Request { uid: &uid, told, object, old_object: old };
    let review = Review { api_version: &api_version, kind: "AdmissionReview", request };
    let answer = hook.remote.ask(call.server, &review, hook.time).await.map_err(|error| {
        let url = hook.remote.url();
        format!("failed to call webhook: Post \"{url}?timeout={}s\": {error}", hook.time.as_secs())
    })?;
    read(&answer, &api_version, &uid).map_err(|why| format!("received invalid webhook response: {why}"))
}

fn read(answer: &Value, api_version: &str, uid: &str) -> Result<Answer, String> {
    let is_strict = api_version.ends_with("/v1");
    if is_strict && (answer["apiVersion"] != api_version || answer["kind"] != "AdmissionReview") {
        let found = format!("{}, Kind={}", text(answer, "apiVersion"), text(answer, "kind"));
        return Err(format!("expected webhook response of {api_version}, Kind=AdmissionReview, got {found}"));
    }
    let response = &answer["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    if is_strict && response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(response, "uid")));
    }
    let patch = match (text(response, "patch"), text(response, "patchType")) {
        ("", "") => None,
        ("", _) => return Err("webhook returned response.patchType but not response.patch".to_owned()),
        (_, "") if is_strict => return Err("webhook returned response.patch but not response.patchType".to_owned()),
        (patch, "JSONPatch" | "") => {
            let patch =
                BASE64.decode(patch).map_err(|error| format!("response.patch: illegal base64 data: {error}"))?;
            Some(patch).filter(|patch| !patch.is_empty())
        }
        (_, other) => return Err(format!("webhook returned invalid response.patchType of {other:?}")),
    };
    let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let cut = |warning: &str| warning.chars().take(WARNING_CHARS_MAX).collect();
    Ok(Answer {
        is_allowed: response["allowed"] == true,
        status: response["status"].clone(),
        patch,
        warnings: warnings.take(WARNINGS_MAX).map(cut).collect(),
    })
}

impl Answer {
    /// The patch that comes with a consent, or the refusal.
    pub fn allowed(self, call: Call<'_>, hook: &Hook) -> Result<Option<Vec<u8>>, ApiError> {
        self.warnings.into_iter().for_each(|warning| call.warned.add(warning));
        if self.is_allowed { Ok(self.patch) } else { Err(refusal(&hook.name, &self.status)) }
    }
}

/// The refusal as the client sees it: in the webhook's own code and words.
fn refusal(name: &str, status: &Value) -> ApiError {
    let by = format!("admission webhook {name:?} denied the request");
    let message = match (text(status, "message"), text(status, "reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", why) | (why, _) => format!("{by}: {why}"),
    };
    let code = status["code"].as_u64().filter(|code| (400..600).contains(code)).unwrap_or(400);
    let mut shown = if status.is_object() { status.clone() } else { json!({}) };
    shown["kind"] = json!("Status");
    shown["status"] = json!("Failure");
    shown["code"] = json!(code);
    let mut error = ApiError::from_status(&shown).unwrap_or_else(|| ApiError::bad_request(""));
    // A code that has no reason of its own.
    if error.code() >= 500 && code < 500 {
        error.reason = Reason::BadRequest;
    }
    error.message = message;
    error
}

#[cfg(test)]
mod tests {
    use super::{read, refusal};
    use serde_json::{Value, json};

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    #[test]
    fn an_answer_that_does_not_fit_says_why() {
        let check = |response| read(&answer(response), "admission.k8s.io/v1", "u").expect_err("no answer");
        assert_eq!(check(json!(null)), "webhook response was absent");
        assert_eq!(check(json!({"uid": "v"})), "expected response.uid=\"u\", got \"v\"");
        let patch = json!({"uid": "u", "patch": "W10="});
        assert_eq!(check(patch), "webhook returned response.patch but not response.patchType");
        let patch = json!({"uid": "u", "patch": "W10=", "patchType": "Merge"});
        assert_eq!(check(patch), "webhook returned invalid response.patchType of \"Merge\"");
        let none = read(&json!({}), "admission.k8s.io/v1", "u").expect_err("no answer");
        assert!(none.starts_with("expected webhook response of admission.k8s.io/v1"), "{none}");
        let older = json!({"response": {"allowed": true, "patch": "W10="}});
        let older = read(&older, "admission.k8s.io/v1beta1", "u").expect("an answer");
        assert_eq!((older.is_allowed, older.patch.as_deref()), (true, Some(&b"[]"[..])));
    }

    #[test]
    fn a_refusal_has_the_code_and_the_words_of_the_webhook() {
        let said = |status: Value| {
            let error = refusal("h.example.com", &status);
            format!("{} {}", error.code(), error.message)
        };
        let by = "admission webhook \"h.example.com\" denied the request";
        assert_eq!(said(json!(null)), format!("400 {by} without explanation"));
        assert_eq!(said(json!({"code": 403, "message": "no"})), format!("403 {by}: no"));
        assert_eq!(said(json!({"code": 200, "reason": "because"})), format!("400 {by}: because"));
        assert_eq!(said(json!({"code": 418, "message": "tea"})), format!("400 {by}: tea"));
    }
}
