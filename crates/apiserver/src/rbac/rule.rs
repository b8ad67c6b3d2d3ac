//! One rule of a role: what it allows, and what other rules it covers.
//!
//! Rules
//!   A1 verbs       `*` is every verb
//!   A2 groups      `*` is every group, the empty text the core group
//!   A3 resources   `*` is every resource with its subresources; `*/scale` is that subresource of every resource;
//!                  `pods` is not `pods/log`
//!   A4 names       none is every name; a request without a name (create, a list of all) matches no named rule
//!   A5 paths       exact, or everything that begins with what stands before a final `*`
//!   A6 covering    a rule covers another when it allows everything that the other does

use serde::{Deserialize, Deserializer};

use crate::authorize::Asked;

const ALL: &str = "*";

/// A rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    #[serde(deserialize_with = "texts")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "texts")]
    pub paths: Vec<String>,
}

/// A list that may be `null`.
fn texts<'de, D: Deserializer<'de>>(wire: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(wire)?.unwrap_or_default())
}

impl Rule {
    /// A rule about resources.
    pub fn about(verbs: &[&str], group: &str, resources: &[&str]) -> Rule {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let api_groups = vec![group.to_owned()];
        Rule { verbs: owned(verbs), api_groups, resources: owned(resources), ..Rule::default() }
    }

    /// A rule about paths.
    pub fn about_paths(verbs: &[&str], paths: &[&str]) -> Rule {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Rule { verbs: owned(verbs), paths: owned(paths), ..Rule::default() }
    }

    /// Whether this is allowed.
    pub fn allows(&self, asked: &Asked<'_>) -> bool {
        match asked {
            Asked::Path { verb, path } => has(&self.verbs, verb) && self.paths.iter().any(|own| is_path(own, path)),
            Asked::Object(object) => {
                has(&self.verbs, object.verb)
                    && has(&self.api_groups, object.group)
                    && self.resources.iter().any(|own| is_resource(own, object.resource, object.sub))
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|own| own == object.name))
            }
        }
    }

    /// A6, for a rule of one group, resource, name and verb, or of one path and verb.
    fn covers(&self, atom: &Rule) -> bool {
        let all = |own: &[String], other: &[String]| other.iter().all(|text| has(own, text));
        let resource = |text: &String| {
            let (resource, sub) = text.split_once('/').unwrap_or((text, ""));
            self.resources.iter().any(|own| is_resource(own, resource, sub))
        };
        let path = |text: &String| self.paths.iter().any(|own| is_path(own, text));
        let names = self.resource_names.is_empty()
            || (!atom.resource_names.is_empty() && atom.resource_names.iter().all(|n| self.resource_names.contains(n)));
        all(&self.verbs, &atom.verbs)
            && all(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(resource)
            && atom.paths.iter().all(path)
            && names
    }

    /// The rule as several, each of one group, resource, name and verb, or of one path and verb.
    fn atoms(&self) -> Vec<Rule> {
        let one = |text: &String| vec![text.clone()];
        let names: Vec<Vec<String>> = match self.resource_names.as_slice() {
            [] => vec![Vec::new()],
            names => names.iter().map(one).collect(),
        };
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    for name in &names {
                        atoms.push(Rule {
                            verbs: one(verb),
                            api_groups: one(group),
                            resources: one(resource),
                            resource_names: name.clone(),
                            paths: Vec::new(),
                        });
                    }
                }
            }
            for path in &self.paths {
                atoms.push(Rule { verbs: one(verb), paths: one(path), ..Rule::default() });
            }
        }
        atoms
    }

    /// A rule as refusals show it: its fields that are not empty.
    pub fn shown(&self) -> String {
        let fields = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.paths),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let said = fields.iter().filter(|(_, texts)| !texts.is_empty());
        let said: Vec<String> = said.map(|(field, texts)| format!("{field}:{}", quoted(texts))).collect();
        format!("{{{}}}", said.join(", "))
    }
}

/// What of `wanted` no rule of `held` covers, with the verbs of one resource joined again.
pub(crate) fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut missing: Vec<Rule> = Vec::new();
    for atom in wanted.iter().flat_map(Rule::atoms) {
        if held.iter().any(|rule| rule.covers(&atom)) {
            continue;
        }
        let same = |other: &&mut Rule| {
            (&other.api_groups, &other.resources, &other.resource_names, &other.paths)
                == (&atom.api_groups, &atom.resources, &atom.resource_names, &atom.paths)
        };
        match missing.iter_mut().find(same).filter(|_| atom.paths.is_empty()) {
            Some(found) if !found.verbs.contains(&atom.verbs[0]) => found.verbs.extend(atom.verbs),
            Some(_) => {}
            None => missing.push(atom),
        }
    }
    missing
}

/// Texts in quotes, with spaces between.
pub(crate) fn quoted(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn has(own: &[String], text: &str) -> bool {
    own.iter().any(|own| own == ALL || own == text)
}

/// A3.
fn is_resource(own: &str, resource: &str, sub: &str) -> bool {
    match own.split_once('/') {
        None => own == ALL || (sub.is_empty() && own == resource),
        Some((own, own_sub)) => !sub.is_empty() && own_sub == sub && (own == ALL || own == resource),
    }
}

/// A5.
fn is_path(own: &str, path: &str) -> bool {
    match own.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => own == path,
    }
}

#[cfg(test)]
mod tests {
    use super::{Rule, missing};
    use crate::authorize::{Asked, AskedObject};
    use serde_json::{Value, json};

    fn rule(json: Value) -> Rule {
        serde_json::from_value(json).expect("a rule")
    }

    /// `verb group/resource/sub name`, or `verb /path`.
    fn check(rule: &Rule, asked: &str, allowed: bool) {
        let (verb, rest) = asked.split_once(' ').expect("a verb and what it is about");
        let asked_for = if rest.starts_with('/') {
            Asked::Path { verb, path: rest }
        } else {
            let (resource, name) = rest.split_once(' ').unwrap_or((rest, ""));
            let mut parts = resource.split('/');
            let (group, resource) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let (sub, namespace) = (parts.next().unwrap_or_default(), "a");
            let group = if group == "core" { "" } else { group };
            Asked::Object(AskedObject { verb, group, resource, sub, namespace, name })
        };
        assert_eq!(rule.allows(&asked_for), allowed, "{asked} by {}", rule.shown());
    }

    #[test]
    fn a1_a2_verbs_and_groups() {
        let some = rule(json!({"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["*"]}));
        for (asked, allowed) in [("get core/pods x", true), ("list apps/deployments", true), ("get batch/jobs", false)]
        {
            check(&some, asked, allowed);
        }
        check(&some, "delete core/pods x", false);
        check(&rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})), "eat batch/jobs/status x", true);
    }

    #[test]
    fn a3_subresources_are_named_by_themselves() {
        let some = rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods", "pods/log", "*/scale"]}));
        for (asked, allowed) in [
            ("get core/pods x", true),
            ("get core/pods/log x", true),
            ("get core/pods/status x", false),
            ("get apps/deployments/scale x", true),
            ("get apps/deployments x", false),
        ] {
            check(&some, asked, allowed);
        }
    }

    #[test]
    fn a4_names_are_one_by_one() {
        let some =
            rule(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]}));
        for (asked, allowed) in
            [("get core/secrets a", true), ("get core/secrets c", false), ("list core/secrets", false)]
        {
            check(&some, asked, allowed);
        }
        check(&some, "create core/secrets", false);
        check(&rule(json!({"verbs": ["get"], "resourceNames": null})), "get core/secrets", false);
    }

    #[test]
    fn a5_paths_are_exact_or_beginnings() {
        let some = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/version", "/api/*"]}));
        for (asked, allowed) in [
            ("get /version", true),
            ("get /version/", false),
            ("get /api/v1", true),
            ("get /api", false),
            ("post /version", false),
        ] {
            check(&some, asked, allowed);
        }
        check(&rule(json!({"verbs": ["*"], "nonResourceURLs": ["*"]})), "get /metrics", true);
        check(&some, "get core/pods x", false);
    }

    #[test]
    fn a6_what_is_not_covered_is_told() {
        let held = [
            Rule::about(&["get", "list"], "", &["pods", "*/status"]),
            Rule::about_paths(&["get"], &["/api/*"]),
            rule(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]})),
        ];
        let told = |wanted: Rule| -> String {
            missing(&held, &[wanted]).iter().map(Rule::shown).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(Rule::about(&["list"], "", &["pods", "pods/status"])), "");
        assert_eq!(told(Rule::about_paths(&["get"], &["/api/v1", "/api/*"])), "");
        assert_eq!(
            told(Rule::about(&["get", "watch", "delete"], "", &["pods", "nodes"])),
            "{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"watch\" \"delete\"]} \
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\" \"delete\"]}"
        );
        assert_eq!(
            told(rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}))),
            "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
        );
        let named = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]});
        assert_eq!(
            told(rule(named)),
            "{APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"b\"], Verbs:[\"get\"]}"
        );
        assert_eq!(
            told(Rule::about_paths(&["get"], &["/metrics", "*"])),
            "{NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]} {NonResourceURLs:[\"*\"], Verbs:[\"get\"]}"
        );
    }
}
