//! The audit policy: for which requests there are events, and how much they tell.
//!
//! Rules, of one rule of a policy; what it leaves out fits everything
//!   P1 who        one of the users, and in one of the groups
//!   P2 what       one of the verbs
//!   P3 objects    one of the resources by group, plural with subresource and name, in one of the namespaces
//!   P4 paths      one of the paths that are no objects; a rule for objects is none for paths, and the other way round
//!   P5 first      the first rule that fits decides
//!
//! Source: API reference, audit.k8s.io/v1 Policy.

use serde::Deserialize;
use windlass_api::codec::{Limits, yaml};

/// How much an event tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Level {
    /// There is no event.
    #[default]
    None,
    /// Who asked for what, and the answer's code.
    Metadata,
    /// And what was sent.
    Request,
    /// And what came back.
    RequestResponse,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is no YAML.
    #[error("the audit policy is no YAML: {0}")]
    Yaml(String),
    /// It is something else.
    #[error("expected an audit policy of audit.k8s.io/v1 with rules, each of a level: {0}")]
    Shape(String),
}

/// What there are events for.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "a policy may have a name; nobody asks for it")]
    metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// A request as a policy sees it.
pub(crate) struct Asked<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub about: About<'a>,
}

/// What a request is about.
pub(crate) enum About<'a> {
    Object { group: &'a str, resource: &'a str, sub: &'a str, namespace: &'a str, name: &'a str },
    Path(&'a str),
}

/// What a policy says of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub level: Level,
    pub omitted: Vec<Stage>,
    pub omits_managed_fields: bool,
}

/// Nobody has to know who looked whether the server is alive, nor how often a node said that it is. No bodies.
const DEFAULT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ['/livez*', '/readyz*', '/healthz*', '/version', '/metrics']}
- {level: None, resources: [{group: coordination.k8s.io, resources: [leases]}]}
- {level: None, userGroups: ['system:nodes'], verbs: [get, list, watch]}
- {level: Metadata}
";

impl Policy {
    /// The policy in this text.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        let tree =
            yaml::decode(text.as_bytes(), Limits::default()).map_err(|error| PolicyError::Yaml(error.to_string()))?;
        let policy: Policy =
            serde_json::from_value(tree.value).map_err(|error| PolicyError::Shape(error.to_string()))?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(PolicyError::Shape(format!("found {} {}", policy.api_version, policy.kind)));
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let about_objects = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if about_objects && !rule.paths.is_empty() {
                let why = format!("rule {index} is for both objects and paths");
                return Err(PolicyError::Shape(why));
            }
        }
        Ok(policy)
    }

    /// What is told where nobody says what is to be told: who asked for what, without what was sent and what came back.
    pub fn default_policy() -> Policy {
        Policy::parse(DEFAULT).expect("a test reads it")
    }

    /// P5.
    pub(crate) fn decide(&self, asked: &Asked<'_>) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(asked)) else { return Verdict::default() };
        Verdict {
            level: rule.level,
            omitted: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omits_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.is_empty() || list.iter().any(|found| found == wanted);
        let in_group = self.user_groups.is_empty() || self.user_groups.iter().any(|group| asked.groups.contains(group));
        if !has(&self.users, asked.user) || !in_group || !has(&self.verbs, asked.verb) {
            return false;
        }
        match &asked.about {
            About::Object { group, resource, sub, namespace, name } => {
                self.paths.is_empty()
                    && has(&self.namespaces, namespace)
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|found| found.fits(group, (resource, sub), name)))
            }
            About::Path(path) => {
                let fits = |wanted: &String| match wanted.strip_suffix('*') {
                    Some(start) => path.starts_with(start),
                    None => path == wanted,
                };
                self.resources.is_empty()
                    && self.namespaces.is_empty()
                    && (self.paths.is_empty() || self.paths.iter().any(fits))
            }
        }
    }
}

impl Resources {
    fn fits(&self, group: &str, (resource, sub): (&str, &str), name: &str) -> bool {
        let one = |wanted: &String| match wanted.split_once('/') {
            None => wanted == "*" || wanted == resource && sub.is_empty(),
            Some((plural, part)) => {
                !sub.is_empty() && (plural == "*" || plural == resource) && (part == "*" || part == sub)
            }
        };
        self.group == group
            && (self.resources.is_empty() || self.resources.iter().any(one))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|found| found == name))
    }
}

#[cfg(test)]
mod tests {
    use super::{About, Asked, Level, Policy, Stage};

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ['system:kube-proxy'], verbs: [watch]}
- {level: Metadata, resources: [{group: '', resources: [secrets, 'serviceaccounts/token']}], omitStages: [ResponseStarted]}
- {level: Request, resources: [{group: '', resources: ['pods/*'], resourceNames: [web]}]}
- {level: RequestResponse, userGroups: [ops], namespaces: [prod, '']}
- {level: Metadata, nonResourceURLs: ['/metrics', '/openapi*']}
";

    fn level(user: &str, group: &str, verb: &str, about: About<'_>) -> Level {
        let policy = Policy::parse(POLICY).expect("a policy");
        policy.decide(&Asked { user, groups: &[group.to_owned()], verb, about }).level
    }

    fn object<'a>(resource: &'a str, sub: &'a str, namespace: &'a str, name: &'a str) -> About<'a> {
        About::Object { group: "", resource, sub, namespace, name }
    }

    #[test]
    fn p1_to_p5_the_first_rule_that_fits_decides() {
        use Level::{Metadata, None, Request, RequestResponse};
        for (user, group, verb, about, expected) in [
            ("system:kube-proxy", "ops", "watch", object("secrets", "", "prod", ""), None),
            ("system:kube-proxy", "", "list", object("secrets", "", "prod", ""), Metadata),
            ("jane", "", "create", object("serviceaccounts", "token", "a", "bot"), Metadata),
            ("jane", "", "get", object("serviceaccounts", "", "a", "bot"), None),
            ("jane", "", "create", object("pods", "exec", "a", "web"), Request),
            ("jane", "", "create", object("pods", "exec", "a", "db"), None),
            ("jane", "", "get", object("pods", "", "a", "web"), None),
            ("jane", "ops", "get", object("pods", "", "prod", "web"), RequestResponse),
            ("jane", "ops", "get", object("nodes", "", "", "n1"), RequestResponse),
            ("jane", "ops", "get", object("pods", "", "dev", "web"), None),
            ("jane", "ops", "get", About::Path("/metrics"), Metadata),
            ("jane", "ops", "get", About::Path("/openapi/v3"), Metadata),
            ("jane", "ops", "get", About::Path("/metrics/more"), None),
        ] {
            assert_eq!(level(user, group, verb, about), expected, "{user} {group} {verb}");
        }
    }

    #[test]
    fn stages_are_omitted_by_the_policy_and_by_the_rule() {
        let policy = Policy::parse(POLICY).expect("a policy");
        let about = object("secrets", "", "a", "s");
        let verdict = policy.decide(&Asked { user: "jane", groups: &[], verb: "get", about });
        assert_eq!(verdict.omitted, [Stage::RequestReceived, Stage::ResponseStarted]);
    }

    #[test]
    fn what_is_no_policy_is_refused_with_its_reason() {
        let refused = |text: &str| Policy::parse(text).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(refused(POLICY), Ok(()));
        Policy::default_policy();
        for (text, why) in [
            ("[", "no YAML"),
            ("{apiVersion: audit.k8s.io/v1, kind: Policy}", "missing field `rules`"),
            ("{apiVersion: audit.k8s.io/v1beta1, kind: Policy, rules: []}", "found audit.k8s.io/v1beta1 Policy"),
            ("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Loud}]}", "unknown variant `Loud`"),
            ("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, user: [a]}]}", "unknown field `user`"),
            (
                "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, namespaces: [a], nonResourceURLs: [/a]}]}",
                "rule 0 is for both objects and paths",
            ),
        ] {
            let found = refused(text).expect_err(text);
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
