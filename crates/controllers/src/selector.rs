//! The label selector of a workload, read once with its object.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use windlass_api::field::{Errors, Path};
use windlass_api::header::LabelSet;
use windlass_api::selector::LabelSelector;

/// `spec.selector` of a workload: as it is written, and ready to match.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    pub(crate) json: Value,
    read: LabelSelector,
}

impl Selector {
    /// Whether it selects everything or nothing. A workload may have neither, so it then leaves everything alone.
    pub(crate) fn is_empty(&self) -> bool {
        self.read.is_everything() || self.read.is_nothing()
    }

    /// Whether these labels satisfy it.
    pub(crate) fn matches(&self, labels: &impl LabelSet) -> bool {
        self.read.matches(labels)
    }
}

impl Default for Selector {
    fn default() -> Selector {
        Selector { json: Value::Null, read: LabelSelector::nothing() }
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(wire: D) -> Result<Selector, D::Error> {
        let json = Value::deserialize(wire)?;
        let mut errors = Errors::new();
        let read = LabelSelector::from_json(&json, &Path::new("selector"), &mut errors);
        // The API refuses such a selector; one that came in all the same selects nothing.
        let read = if errors.is_empty() { read } else { LabelSelector::nothing() };
        Ok(Selector { json, read })
    }
}

#[cfg(test)]
mod tests {
    use super::Selector;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn a_selector_that_is_empty_absent_or_broken_leaves_everything_alone() {
        let labels: BTreeMap<String, String> = [("app".to_owned(), "web".to_owned())].into();
        let read = |json| serde_json::from_value::<Selector>(json).expect("any JSON is read");
        assert!(read(json!({"matchLabels": {"app": "web"}})).matches(&labels));
        for json in [json!({}), json!(null), json!({"matchExpressions": [{"key": "app", "operator": "Odd"}]})] {
            assert!(read(json.clone()).is_empty(), "{json}");
        }
    }
}
