//! Amounts of what nodes have and pods ask for.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use windlass_api::quantity::Quantity;

/// What is asked for or there is, in the units that are compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Thousandths of a processor.
    pub(crate) cpu_millis: i64,
    /// Bytes of memory.
    pub(crate) memory_bytes: i64,
    /// Bytes of the node's own disk.
    pub(crate) disk_bytes: i64,
    /// Everything else that has a name: huge pages, devices.
    pub(crate) others: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list; `pods` is not an amount of this kind. A malformed quantity counts as nothing: the API
    /// refuses such objects.
    pub(crate) fn read(list: Option<&Map<String, Value>>) -> Resources {
        let mut resources = Resources::default();
        for (name, value) in list.into_iter().flatten() {
            let quantity = Quantity::from_json(value).unwrap_or(Quantity::ZERO);
            match name.as_str() {
                "cpu" => resources.cpu_millis = quantity.millis(),
                "memory" => resources.memory_bytes = quantity.units(),
                "ephemeral-storage" => resources.disk_bytes = quantity.units(),
                "pods" => {}
                other => {
                    resources.others.insert(other.to_owned(), quantity.units());
                }
            }
        }
        resources
    }

    pub(crate) fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
        self.others.retain(|_, amount| *amount != 0);
    }

    /// The larger of both, resource by resource.
    pub(crate) fn raise_to(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, combine: fn(i64, i64) -> i64) {
        self.cpu_millis = combine(self.cpu_millis, other.cpu_millis);
        self.memory_bytes = combine(self.memory_bytes, other.memory_bytes);
        self.disk_bytes = combine(self.disk_bytes, other.disk_bytes);
        for (name, amount) in &other.others {
            let own = self.others.entry(name.clone()).or_default();
            *own = combine(*own, *amount);
        }
    }
}
