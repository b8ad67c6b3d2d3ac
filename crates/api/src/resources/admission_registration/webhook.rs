//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration: who else is asked before a write.
//!
//! Rules
//!   W1 name        fully qualified, each once in a configuration
//!   W2 client      a URL or a service, exactly one; https, with nothing but host and path
//!   W3 versions    of reviews: at least one that this server sends
//!   W4 behaviour   failure, side effects and time to answer are within what can be kept
//!   W5 conditions  compile, and give a bool (`expression`)
//! Source: API reference, admissionregistration.k8s.io/v1.
//! Not here    asking them (admission)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::check::{PORTS, named, optional_word, required_text, required_word};
use super::super::tree::{Tree, fill_number, fill_text, items_mut};
use super::super::{age, column, row};
use super::expression;
use super::matching::{fill_matching, validate_conditions, validate_rule, validate_selectors};
use super::{columns, extends_api};
use crate::field::{Errors, Path};
use crate::kind::{Kind, kinds};
use crate::name;
use crate::resource::{Resource, Rules};

/// Seconds that a webhook has to answer: at least, at most, and unless it says otherwise.
const TIMEOUT_SECONDS: (i64, i64) = (1, 30);
const TIMEOUT_SECONDS_DEFAULT: i64 = 10;
/// Versions of AdmissionReview that exist.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const URL_FORM: &str = "desired format: https://host[/path]";

/// The row of ValidatingWebhookConfiguration.
pub(in super::super) fn validating() -> Resource {
    resource(&kinds::VALIDATING_WEBHOOK_CONFIGURATION, false)
}

/// The row of MutatingWebhookConfiguration.
pub(in super::super) fn mutating() -> Resource {
    resource(&kinds::MUTATING_WEBHOOK_CONFIGURATION, true)
}

fn resource(kind: &Kind, mutates: bool) -> Resource {
    let columns = columns([column("Webhooks", "integer", "how many there are")]);
    extends_api(row(kind, columns, Webhooks { mutates }).counts_generations())
}

/// The rules of both kinds; only one that mutates can be asked again.
struct Webhooks {
    mutates: bool,
}

impl Rules for Webhooks {
    fn default(&self, object: &mut Value) {
        for webhook in items_mut(object, "webhooks") {
            fill_matching(webhook);
            fill_text(webhook, "failurePolicy", "Fail");
            super::super::tree::fill(webhook, "timeoutSeconds", TIMEOUT_SECONDS_DEFAULT);
            if self.mutates {
                fill_text(webhook, "reinvocationPolicy", "Never");
            }
            if let Some(service) = webhook.pointer_mut("/clientConfig/service").filter(|service| service.is_object()) {
                fill_number(service, "port", 443);
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let webhooks = object.items("webhooks");
        for (index, webhook) in webhooks.iter().enumerate() {
            let at = Path::new("webhooks").index(index);
            validate_webhook(webhook, &at, errors);
            let name = webhook.text("name");
            if !name.is_empty() && webhooks[..index].iter().any(|before| before.text("name") == name) {
                errors.duplicate(&at.child("name"), name);
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = object.items("webhooks").len();
        vec![json!(object["metadata"].text("name")), json!(count), age::of(object, now)]
    }
}

fn validate_webhook(webhook: &Value, at: &Path, errors: &mut Errors) {
    validate_name(webhook.text("name"), &at.child("name"), errors);
    validate_versions(webhook.items("admissionReviewVersions"), &at.child("admissionReviewVersions"), errors);
    for (index, rule) in webhook.items("rules").iter().enumerate() {
        validate_rule(rule, &at.child("rules").index(index), errors);
    }
    optional_word(webhook, "failurePolicy", &["Fail", "Ignore"], at, errors);
    optional_word(webhook, "reinvocationPolicy", &["IfNeeded", "Never"], at, errors);
    match webhook.text("sideEffects") {
        "" => errors.required(&at.child("sideEffects"), "must specify one of None, NoneOnDryRun"),
        _ => required_word(webhook, "sideEffects", &["None", "NoneOnDryRun"], at, errors),
    }
    let (least, most) = TIMEOUT_SECONDS;
    if let Some(seconds) = webhook.int("timeoutSeconds").filter(|seconds| !(least..=most).contains(seconds)) {
        let detail = format!("the timeout value must be between {least} and {most} seconds");
        errors.invalid(&at.child("timeoutSeconds"), seconds, &detail);
    }
    validate_selectors(webhook, at, errors);
    validate_client(&webhook["clientConfig"], &at.child("clientConfig"), errors);
    validate_conditions(webhook.items("matchConditions"), &at.child("matchConditions"), errors);
    expression::validate_webhook(webhook, at, errors);
}

/// W1.
fn validate_name(text: &str, path: &Path, errors: &mut Errors) {
    if text.is_empty() {
        errors.required(path, "");
        return;
    }
    named(name::subdomain, text, path, errors);
    if text.split('.').count() < 3 {
        errors.invalid(path, text, "should be a domain with at least three segments separated by dots");
    }
}

/// W3.
fn validate_versions(versions: &[Value], at: &Path, errors: &mut Errors) {
    if versions.is_empty() {
        errors.required(at, "must specify one of v1, v1beta1");
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        if versions[..index].contains(version) {
            errors.invalid(&at.index(index), version.clone(), "duplicate version");
        }
        named(name::letter_label, version.as_str().unwrap_or_default(), &at.index(index), errors);
    }
    if !versions.iter().any(|version| VERSIONS.iter().any(|known| version == known)) {
        errors.invalid(at, json!(versions), "must include at least one of v1, v1beta1");
    }
}

/// W2.
fn validate_client(client: &Value, at: &Path, errors: &mut Errors) {
    match (client.is_set("url"), client.is_set("service")) {
        (true, false) => validate_url(client.text("url"), &at.child("url"), errors),
        (false, true) => validate_service(&client["service"], &at.child("service"), errors),
        _ => errors.required(at, "exactly one of url or service is required"),
    }
}

fn validate_url(url: &str, path: &Path, errors: &mut Errors) {
    let Some((scheme, rest)) = url.split_once("://") else {
        errors.invalid(path, url, &format!("url must be a valid URL; {URL_FORM}"));
        return;
    };
    if scheme != "https" {
        errors.invalid(path, scheme, &format!("'https' is the only allowed URL scheme; {URL_FORM}"));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if authority.is_empty() {
        errors.invalid(path, authority, &format!("host must be specified; {URL_FORM}"));
    }
    if let Some((user, _)) = authority.rsplit_once('@') {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    let (before, fragment) = tail.split_once('#').unwrap_or((tail, ""));
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = before.split_once('?') {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn validate_service(service: &Value, at: &Path, errors: &mut Errors) {
    required_text(service, "name", at, errors);
    required_text(service, "namespace", at, errors);
    if let Some(port) = service.int("port").filter(|port| !(PORTS.0..=PORTS.1).contains(port)) {
        errors.invalid(&at.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let (text, path) = (service.text("path"), at.child("path"));
    if text.is_empty() || text == "/" {
        return;
    }
    let Some(steps) = text.strip_prefix('/') else {
        errors.invalid(&path, text, "must start with a '/'");
        return;
    };
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&path, text, &format!("segment[{index}] may not be empty"));
            continue;
        }
        for reason in name::subdomain(step) {
            errors.invalid(&path, text, &format!("segment[{index}]: {reason}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Webhooks;
    use crate::resources::fixture::{cells, check, filled};
    use serde_json::{Value, json};

    fn of(change: Value) -> Value {
        let mut webhook = json!({"name": "a.example.com", "clientConfig": {"url": "https://a.b/c"}, "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        webhook.as_object_mut().expect("a literal").extend(change.as_object().expect("a literal").clone());
        json!({"metadata": {"name": "w"}, "webhooks": [webhook]})
    }

    fn check_one(change: Value, expected: &[&str]) {
        let expected: Vec<String> = expected.iter().map(|error| format!("webhooks[0].{error}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(&Webhooks { mutates: true }, of(change), &expected);
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let webhook = |mutates| filled(&Webhooks { mutates }, of(json!({})))["webhooks"][0].clone();
        assert_eq!(webhook(true)["reinvocationPolicy"], "Never");
        assert_eq!(webhook(false).get("reinvocationPolicy"), None);
        let found = webhook(false);
        assert_eq!((&found["timeoutSeconds"], &found["failurePolicy"]), (&json!(10), &json!("Fail")));
        assert_eq!((&found["rules"][0]["scope"], &found["objectSelector"]), (&json!("*"), &json!({})));
        assert_eq!(cells(&Webhooks { mutates: false }, &of(json!({})))[1], 1);
    }

    #[test]
    fn w1_names_are_qualified_and_differ() {
        check_one(json!({}), &[]);
        check_one(json!({"name": "a.b"}), &["name: Invalid value: \"a.b\": should be a domain with at least three"]);
        let mut twice = of(json!({}));
        let first = twice["webhooks"][0].clone();
        twice["webhooks"].as_array_mut().expect("a literal").push(first);
        check(&Webhooks { mutates: false }, twice, &["webhooks[1].name: Duplicate value: \"a.example.com\""]);
    }

    #[test]
    fn w2_one_client_by_https() {
        let client = |client: Value| json!({ "clientConfig": client });
        let service = json!({"service": {"namespace": "ns", "name": "s", "path": "/a/b"}});
        check_one(client(service), &[]);
        check_one(client(json!({})), &["clientConfig: Required value: exactly one of url or service is required"]);
        let url = |url: &str| client(json!({ "url": url }));
        check_one(url("nowhere"), &["clientConfig.url: Invalid value: \"nowhere\": url must be a valid URL"]);
        check_one(url("http://a"), &["clientConfig.url: Invalid value: \"http\": 'https' is the only allowed"]);
        check_one(
            url("https://u:p@a/b?c=d#e"),
            &[
                "clientConfig.url: Invalid value: \"u:p\": user information is not",
                "clientConfig.url: Invalid value: \"e\": fragments are not",
                "clientConfig.url: Invalid value: \"c=d\": query parameters are not",
            ],
        );
        check_one(
            client(json!({"service": {"port": 0, "path": "//B"}})),
            &[
                "clientConfig.service.name: Required value",
                "clientConfig.service.namespace: Required value",
                "clientConfig.service.path: Invalid value: \"//B\": segment[0] may not be empty",
                "clientConfig.service.path: Invalid value: \"//B\": segment[1]: a lowercase RFC 1123 subdomain",
            ],
        );
    }

    #[test]
    fn w3_to_w5_what_can_be_kept() {
        check_one(json!({"admissionReviewVersions": []}), &["admissionReviewVersions: Required value: must specify"]);
        check_one(json!({"admissionReviewVersions": ["v2"]}), &["admissionReviewVersions: Invalid value: [\"v2\"]"]);
        check_one(
            json!({"failurePolicy": "Hope", "sideEffects": "Some", "timeoutSeconds": 31, "matchPolicy": "Near"}),
            &[
                "failurePolicy: Unsupported value",
                "sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                "timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                "matchPolicy: Unsupported value",
            ],
        );
        let condition = |expression: &str| json!({"matchConditions": [{"name": "c", "expression": expression}]});
        check_one(condition("request.userInfo.username != 'x' && object.metadata.name == 'y'"), &[]);
        let refused = "matchConditions[0].expression: Invalid value: \"object.\": compilation failed";
        check_one(condition("object."), &[refused]);
        check_one(json!({"sideEffects": null}), &["sideEffects: Required value: must specify one of None"]);
    }
}
