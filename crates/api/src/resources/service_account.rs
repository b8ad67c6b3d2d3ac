//! ServiceAccount: whom the processes of a pod act as.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, name_column, row};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The row of ServiceAccount.
pub(super) fn resource() -> Resource {
    // Kubernetes had a column of secrets until 1.34; nothing has filled it since 1.24.
    row(&kinds::SERVICE_ACCOUNT, vec![name_column(), age_column()], ServiceAccount)
        .shows_deleted()
        .short_names(&["sa"])
        .subresources(&[Subresource::Token])
}

struct ServiceAccount;

impl Rules for ServiceAccount {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), age::of(object, now)]
    }
}
