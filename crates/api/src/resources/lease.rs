//! Lease: who holds something, and until when others must believe it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::Tree;
use super::{age, age_column, column, name_column, row};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// The row of Lease.
pub(super) fn resource() -> Resource {
    let columns = vec![name_column(), column("Holder", "string", "who holds the lease now"), age_column()];
    row(&kinds::LEASE, columns, Lease)
}

struct Lease;

impl Rules for Lease {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let holder = object["spec"].text("holderIdentity");
        vec![json!(object["metadata"].text("name")), json!(holder), age::of(object, now)]
    }
}
