//! storage.k8s.io: where volumes come from, and where they are attached.

pub(super) mod csi_driver;
pub(super) mod csi_node;
pub(super) mod csi_storage_capacity;
pub(super) mod storage_class;
pub(super) mod volume_attachment;
pub(super) mod volume_attributes_class;

use serde_json::Value;

use super::tree::Tree;
use crate::field::{Errors, Path};
use crate::name;

/// Parameters of one class.
const PARAMETERS_MAX: usize = 512;
/// Bytes of all parameters of a class, keys and values.
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a driver's name.
const DRIVER_BYTES_MAX: usize = 63;

/// Who makes volumes: a qualified name in any case, which must be there.
fn validate_provisioner(object: &Value, field: &str, errors: &mut Errors) {
    let path = Path::new(field);
    match object.text(field) {
        "" => errors.required(&path, ""),
        text => {
            for reason in name::label_key(&text.to_lowercase()) {
                errors.invalid(&path, text, &reason);
            }
        }
    }
}

/// What whoever makes volumes is told.
fn validate_parameters(object: &Value, errors: &mut Errors) {
    let (parameters, path) = (object.entries("parameters"), Path::new("parameters"));
    if parameters.len() > PARAMETERS_MAX {
        errors.too_long(&path, PARAMETERS_MAX);
        return;
    }
    if parameters.contains_key("") {
        errors.invalid(&path, "", "field can not be empty.");
    }
    let bytes: usize = parameters.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > PARAMETERS_BYTES_MAX {
        errors.too_long(&path, PARAMETERS_BYTES_MAX);
    }
}

/// The name of a driver: a short DNS name in any case.
pub(super) fn validate_driver(object: &Value, field: &str, at: &Path, errors: &mut Errors) {
    let (driver, path) = (object.text(field), at.child(field));
    if driver.is_empty() {
        errors.required(&path, "");
        return;
    }
    if driver.len() > DRIVER_BYTES_MAX {
        errors.too_long(&path, DRIVER_BYTES_MAX);
    }
    for reason in name::subdomain(&driver.to_lowercase()) {
        errors.invalid(&path, driver, &reason);
    }
}

/// A field at the top of an object that never changes, said as Kubernetes says it of classes.
fn keep(object: &Value, old: &Value, field: &str, errors: &mut Errors) {
    if !super::same::same(&object[field], &old[field]) {
        errors.forbidden(&Path::new(field), &format!("updates to {field} are forbidden."));
    }
}
