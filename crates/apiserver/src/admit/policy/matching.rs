//! Which requests a policy or binding looks at.
//!
//! Rules
//!   M1 rules      one of its rules names the operation and the resource, and none of its exclusions does; no rules at all
//!                 (a binding) mean every request
//!   M2 namespace  the selector looks at the labels of the request's namespace; what is in none always matches, a
//!                 Namespace by its own labels
//!   M3 object     the selector looks at the labels of the object as it was or as it will be
//!
//! Not here    `matchPolicy: Equivalent`: a rule names the version that the request used
//! Source: API reference, admissionregistration.k8s.io/v1 MatchResources, NamedRuleWithOperations.

use serde_json::Value;
use windlass_api::field::{Errors, Path};
use windlass_api::kinds;
use windlass_api::selector::LabelSelector;

use super::Event;
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
        let rules = |field: &str| value[field].as_array().map(|rules| rules.iter().map(Rule::read).collect::<Vec<_>>());
        let selector = |field: &str| match &value[field] {
            Value::Null => LabelSelector::everything(),
            selector => LabelSelector::from_json(selector, &Path::new(field), &mut Errors::new()),
        };
        Matching {
            rules: rules("resourceRules").filter(|rules| !rules.is_empty()),
            excluded: rules("excludeResourceRules").unwrap_or_default(),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// M1-M3.
    pub fn matches(&self, call: Call<'_>, event: Event, namespace: Option<&Value>) -> bool {
        let labels_match =
            |selector: &LabelSelector, object: &Value| selector.matches_json(&object["metadata"]["labels"]);
        let is_namespace = call.target.resource.kind == kinds::NAMESPACE;
        let in_namespace = match (is_namespace, namespace) {
            (true, _) => labels_match(&self.namespaces, event.any()),
            (false, Some(namespace)) => labels_match(&self.namespaces, namespace),
            (false, None) => true,
        };
        let selected = [event.object, event.old]
            .into_iter()
            .any(|object| !object.is_null() && labels_match(&self.objects, object));
        let named = self.rules.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.matches(call, event)));
        named && in_namespace && selected && !self.excluded.iter().any(|rule| rule.matches(call, event))
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
    fn matches(&self, call: Call<'_>, event: Event) -> bool {
        let kind = &call.target.resource.kind;
        let has = |list: &[String], wanted: &str| list.iter().any(|found| found == "*" || found == wanted);
        let name = text(&event.any()["metadata"], "name");
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
