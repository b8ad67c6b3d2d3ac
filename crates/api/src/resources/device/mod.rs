//! resource.k8s.io: devices that pods claim, and who has which.
//!
//! The files:
//!   claim            what is asked for: shared by claims and their templates
//!   device_class, device_taint_rule, resource_claim, resource_claim_template, resource_slice    the kinds
//!
//! Selectors of devices are CEL expressions; every one of them passes [`validate_selectors`].

mod claim;
pub(super) mod device_class;
pub(super) mod device_taint_rule;
pub(super) mod resource_claim;
pub(super) mod resource_claim_template;
pub(super) mod resource_slice;

use serde_json::Value;

use super::check::{named, required_word};
use super::tree::Tree;
use crate::device::{Selector, SelectorError};
use crate::field::{Errors, Path};
use crate::name;

/// Selectors of one request or class, and bytes of one.
const SELECTORS_MAX: usize = 32;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
/// Configurations of one claim or class, and bytes of one.
const CONFIGS_MAX: usize = 32;
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;
/// Bytes of a driver's name.
const DRIVER_BYTES_MAX: usize = 63;

/// Which devices are meant.
fn validate_selectors(owner: &Value, at: &Path, errors: &mut Errors) {
    let (selectors, path) = (owner.items("selectors"), at.child("selectors"));
    if selectors.len() > SELECTORS_MAX {
        errors.too_many(&path, selectors.len(), SELECTORS_MAX);
        return;
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index).child("cel");
        let expression = selector["cel"].text("expression");
        if !selector.is_set("cel") {
            errors.required(&path, "");
        } else if expression.is_empty() {
            errors.required(&path.child("expression"), "");
        } else if expression.len() > EXPRESSION_BYTES_MAX {
            errors.too_long(&path.child("expression"), EXPRESSION_BYTES_MAX);
        } else {
            match Selector::compile(expression) {
                Ok(_) => {}
                Err(SelectorError::Invalid(why)) => errors.invalid(&path.child("expression"), expression, &why),
                Err(error @ SelectorError::Costly) => errors.forbidden(&path.child("expression"), &error.to_string()),
            }
        }
    }
}

/// What a driver is told, which only the driver understands.
fn validate_opaque(config: &Value, at: &Path, errors: &mut Errors) {
    let (opaque, path) = (&config["opaque"], at.child("opaque"));
    if !opaque.is_object() {
        errors.required(&path, "");
        return;
    }
    validate_driver(opaque, &path, errors);
    let (parameters, path) = (&opaque["parameters"], path.child("parameters"));
    match parameters {
        Value::Null => errors.required(&path, ""),
        Value::Object(_) if parameters.to_string().len() > PARAMETERS_BYTES_MAX => {
            errors.too_long(&path, PARAMETERS_BYTES_MAX);
        }
        Value::Object(_) => {}
        _ => errors.invalid(&path, "<value omitted>", "parameters must be a valid JSON object"),
    }
}

/// What makes a device less wanted, or unwanted. `None` is only told.
fn validate_taint(taint: &Value, at: &Path, errors: &mut Errors) {
    const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];
    named(name::label_key, taint.text("key"), &at.child("key"), errors);
    named(name::label_value, taint.text("value"), &at.child("value"), errors);
    required_word(taint, "effect", EFFECTS, at, errors);
}

fn validate_driver(owner: &Value, at: &Path, errors: &mut Errors) {
    let (driver, path) = (owner.text("driver"), at.child("driver"));
    if driver.is_empty() {
        errors.required(&path, "");
        return;
    }
    if driver.len() > DRIVER_BYTES_MAX {
        errors.too_long(&path, DRIVER_BYTES_MAX);
    }
    named(name::subdomain, driver, &path, errors);
}

/// The name of an attribute: an identifier, with a domain before it if it is not the driver's own.
fn validate_attribute_name(text: &str, needs_domain: bool, path: &Path, errors: &mut Errors) {
    const IDENTIFIER_BYTES_MAX: usize = 32;
    let (domain, identifier) = text.split_once('/').map_or((None, text), |(domain, rest)| (Some(domain), rest));
    match domain {
        None if needs_domain => errors.invalid(path, text, "must include a domain"),
        None => {}
        Some("") => errors.required(path, "the domain must not be empty"),
        Some(domain) => {
            if domain.len() > DRIVER_BYTES_MAX {
                errors.too_long(path, DRIVER_BYTES_MAX);
            }
            named(name::subdomain, domain, path, errors);
        }
    }
    if identifier.is_empty() {
        errors.required(path, "the name must not be empty");
        return;
    }
    if identifier.len() > IDENTIFIER_BYTES_MAX {
        errors.too_long(path, IDENTIFIER_BYTES_MAX);
    }
    named(name::c_identifier, identifier, path, errors);
}
