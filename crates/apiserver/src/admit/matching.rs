//! Which requests a policy, binding or webhook looks at.
//!
//! Rules
//!   M1 rules      one of its rules names the operation and the resource, and none of its exclusions does; no rules at all
//!                 (a binding) mean every request
//!   M2 namespace  the selector looks at the labels of the request's namespace; what is in none always matches, a
//!                 Namespace by its own labels
//!   M3 object     the selector looks at the labels of the object as it was or as it will be
//!   M4 versions   a webhook whose rules name another version of the resource is shown the object in that version, unless its
//!                 `matchPolicy` is Exact
//!
//! Not here    `matchPolicy: Equivalent` of policies: their rules name the version that the request used
//! Source: API reference, admissionregistration.k8s.io/v1 MatchResources, NamedRuleWithOperations.

use std::sync::Arc;

use serde_json::Value;
use windlass_api::field::{Errors, Path};
use windlass_api::selector::LabelSelector;
use windlass_api::{Kind, Resource, kinds};

use super::event::Event;
use crate::convert::stored_kind;
use crate::key;
use crate::server::Call;
use crate::write::{text, tree};

/// What is looked at.
pub(super) struct Matching {
    /// `None`: everything.
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

/// The namespace that a request is about.
pub(super) fn namespace(call: Call<'_>) -> Option<Value> {
    let name = &call.target.namespace;
    let entry = (!name.is_empty()).then(|| call.server.store.get(&key::object(&kinds::NAMESPACE, "", name)))??;
    Some(tree(&entry))
}

impl Matching {
    /// Reads a `MatchResources`.
    pub fn read(value: &Value) -> Matching {
        Matching::read_rules(value, "resourceRules")
    }

    /// Reads a webhook, which has all of it among its own fields. One without rules looks at nothing.
    pub fn read_webhook(value: &Value) -> Matching {
        let matching = Matching::read_rules(value, "rules");
        Matching { rules: Some(matching.rules.unwrap_or_default()), ..matching }
    }

    fn read_rules(value: &Value, rules_field: &str) -> Matching {
        let rules = |field: &str| value[field].as_array().map(|rules| rules.iter().map(Rule::read).collect::<Vec<_>>());
        let selector = |field: &str| match &value[field] {
            Value::Null => LabelSelector::everything(),
            selector => LabelSelector::from_json(selector, &Path::new(field), &mut Errors::new()),
        };
        Matching {
            rules: rules(rules_field).filter(|rules| !rules.is_empty()),
            excluded: rules("excludeResourceRules").unwrap_or_default(),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// M1-M3.
    pub fn matches(&self, call: Call<'_>, event: Event, namespace: Option<&Value>) -> bool {
        self.names(call, event, &call.target.resource.kind) && self.selects(call, event, namespace)
    }

    /// M1-M4: the row of the version in which the request is looked at.
    pub fn find(
        &self,
        call: Call<'_>,
        event: Event,
        (namespace, is_equivalent): (Option<&Value>, bool),
    ) -> Option<Arc<Resource>> {
        // Names first: nearly every request is of a kind that nearly no webhook names.
        let found = self.named(call, event, is_equivalent)?;
        self.selects(call, event, namespace).then_some(found)
    }

    /// The version of the request's kind that the rules name.
    fn named(&self, call: Call<'_>, event: Event, is_equivalent: bool) -> Option<Arc<Resource>> {
        let own = &call.target.resource;
        if self.names(call, event, &own.kind) {
            return Some(own.clone());
        }
        if !is_equivalent {
            return None;
        }
        let stored = stored_kind(own);
        let is_same = |row: &Resource| {
            let kind = stored_kind(row);
            kind.plural == stored.plural && kind.group == stored.group
        };
        let served = call.server.served();
        let mut others = served.registry.iter().filter(|row| is_same(row) && row.kind != own.kind);
        others.find(|row| self.names(call, event, &row.kind)).cloned()
    }

    /// M1.
    fn names(&self, call: Call<'_>, event: Event, kind: &Kind) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.matches(call, event, kind)))
            && !self.excluded.iter().any(|rule| rule.matches(call, event, kind))
    }

    /// M2 and M3.
    fn selects(&self, call: Call<'_>, event: Event, namespace: Option<&Value>) -> bool {
        let labels_match =
            |selector: &LabelSelector, object: &Value| selector.matches_json(&object["metadata"]["labels"]);
        let is_namespace = call.target.resource.kind == kinds::NAMESPACE;
        let in_namespace = match (is_namespace, namespace) {
            (true, _) => labels_match(&self.namespaces, event.any()),
            (false, Some(namespace)) => labels_match(&self.namespaces, namespace),
            (false, None) => true,
        };
        // What has no metadata, as PodExecOptions, is selected by nothing that selects.
        let is_selected = || {
            let labelled = [event.object, event.old].into_iter().filter(|object| object["metadata"].is_object());
            labelled.into_iter().any(|object| labels_match(&self.objects, object))
        };
        in_namespace && (self.objects.is_everything() || is_selected())
    }
}

impl Rule {
    fn read(rule: &Value) -> Rule {
        let texts = |field: &str| {
            let items = rule[field].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        Rule {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            scope: text(rule, "scope").to_owned(),
        }
    }

    /// M1.
    fn matches(&self, call: Call<'_>, event: Event, kind: &Kind) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|found| found == "*" || found == wanted);
        let name = event.name(call);
        let scope = match self.scope.as_str() {
            "Namespaced" => kind.namespaced,
            "Cluster" => !kind.namespaced,
            _ => true,
        };
        let sub = call.target.sub.map(|sub| sub.as_str()).unwrap_or_default();
        let resource = self.resources.iter().any(|pattern| match pattern.split_once('/') {
            Some((plural, wanted)) => {
                (plural == "*" || plural == kind.plural) && (wanted == "*" || wanted == sub && !sub.is_empty())
            }
            None => (pattern == "*" || *pattern == kind.plural) && sub.is_empty(),
        });
        scope
            && resource
            && has(&self.operations, event.operation)
            && has(&self.groups, &kind.group)
            && has(&self.versions, &kind.version)
            && (self.names.is_empty() || self.names.iter().any(|own| own == name))
    }
}
