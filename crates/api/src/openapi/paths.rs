//! Paths and operations: what a kind's row serves, in OpenAPI's words.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::components;
use crate::discovery;
use crate::merge::PatchType;
use crate::resource::{Resource, Subresource, Verbs};
use crate::schema::kubernetes;

/// By which a proxy is asked.
const PROXIED: [&str; 5] = ["connect get", "connect post", "connect put", "connect patch", "connect delete"];

/// The paths of a document and the schemas they name.
#[derive(Default)]
pub(super) struct Paths {
    pub(super) paths: Map<String, Value>,
    pub(super) used: BTreeSet<String>,
}

/// What an operation works on.
struct Subject<'a> {
    resource: &'a Resource,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    /// Its schema, sent and answered.
    schema: String,
    /// Path segment of the subresource; empty for the object itself.
    part: &'static str,
    /// Whether the path names a namespace.
    namespaced: bool,
}

impl Paths {
    /// Adds all that a kind serves.
    pub(super) fn add(&mut self, resource: &Resource) {
        let kind = &resource.kind;
        let mut subject = Subject {
            resource,
            group: &kind.group,
            version: &kind.version,
            kind: &kind.kind,
            schema: components::resource_name(resource),
            part: "",
            namespaced: kind.namespaced,
        };
        let collection = "/".to_owned() + kind.collection_path(Some("{namespace}")).trim_start_matches('/');
        if resource.verbs == Verbs::CreateOnly {
            let operations = Map::from_iter([("post".to_owned(), self.operation("post", &subject))]);
            self.insert(&collection, &subject, operations, false);
            return;
        }
        let list = components::list_name(resource);
        let mut operations = Map::new();
        operations.insert("get".to_owned(), self.list(&subject, &list));
        if resource.verbs == Verbs::All {
            operations.insert("post".to_owned(), self.operation("post", &subject));
            operations.insert("delete".to_owned(), self.operation("deletecollection", &subject));
        }
        self.insert(&collection, &subject, operations, false);
        let item = format!("{collection}/{{name}}");
        let methods: &[&str] = if resource.verbs == Verbs::All { &["get", "put", "patch", "delete"] } else { &["get"] };
        self.methods(&item, &subject, methods);
        if kind.namespaced {
            subject.namespaced = false;
            let operations = Map::from_iter([("get".to_owned(), self.list(&subject, &list))]);
            self.insert(&kind.collection_path(None), &subject, operations, false);
        }
        for subresource in &resource.subresources {
            self.add_part(resource, *subresource, &item);
        }
    }

    fn add_part(&mut self, resource: &Resource, subresource: Subresource, item: &str) {
        let kind = &resource.kind;
        let (api_version, name, methods): (_, &str, &[&str]) = match subresource {
            Subresource::Status => (None, &kind.kind, &["get", "put", "patch"]),
            Subresource::Finalize => (None, &kind.kind, &["put"]),
            Subresource::EphemeralContainers | Subresource::Resize | Subresource::Approval => {
                (None, &kind.kind, &["get", "put", "patch"])
            }
            Subresource::Token => (Some("authentication.k8s.io/v1"), "TokenRequest", &["post"]),
            Subresource::Log => (None, &kind.kind, &["get"]),
            Subresource::Scale => (Some("autoscaling/v1"), "Scale", &["get", "put", "patch"]),
            Subresource::Binding => (Some("v1"), "Binding", &["post"]),
            Subresource::Eviction => (Some("policy/v1"), "Eviction", &["post"]),
            Subresource::Exec => (Some("v1"), "PodExecOptions", &["connect get", "connect post"]),
            Subresource::Attach => (Some("v1"), "PodAttachOptions", &["connect get", "connect post"]),
            Subresource::Proxy => (Some("v1"), discovery::proxy_options(&kind.kind), &PROXIED),
            Subresource::PortForward => (Some("v1"), "PodPortForwardOptions", &["connect get", "connect post"]),
        };
        let other = api_version.and_then(|api_version| kubernetes().find_kind(api_version, name));
        let subject = Subject {
            resource,
            group: other.map_or(&kind.group, |message| message.group()),
            version: other.map_or(&kind.version, |message| message.version()),
            kind: name,
            schema: other.map_or_else(
                || components::resource_name(resource),
                |message| components::name_of(&message.full_name()),
            ),
            part: subresource.as_str(),
            namespaced: kind.namespaced,
        };
        self.methods(&format!("{item}/{}", subresource.as_str()), &subject, methods);
    }

    fn methods(&mut self, path: &str, subject: &Subject, methods: &[&str]) {
        let mut operations = Map::new();
        for method in methods {
            let (action, method) = match method.split_once(' ') {
                Some((action, method)) => (action, method),
                None => (*method, *method),
            };
            operations.insert(method.to_owned(), self.operation(action, subject));
        }
        self.insert(path, subject, operations, true);
    }

    fn insert(&mut self, path: &str, subject: &Subject, mut operations: Map<String, Value>, named: bool) {
        let in_path = |name: &str, text: &str| json!({"name": name, "in": "path", "required": true, "description": text, "schema": {"type": "string", "uniqueItems": true}});
        let mut parameters = Vec::new();
        if named {
            parameters.push(in_path("name", &format!("name of the {}", subject.kind)));
        }
        if subject.namespaced {
            parameters.push(in_path("namespace", "namespace of the object"));
        }
        parameters.push(query("pretty", "string", "whether the answer is indented for people"));
        operations.insert("parameters".to_owned(), Value::Array(parameters));
        self.paths.insert(path.to_owned(), Value::Object(operations));
    }

    fn list(&mut self, subject: &Subject, list: &str) -> Value {
        let mut operation = self.operation("list", subject);
        operation["responses"] = self.answers(&[("200", list)]);
        operation["parameters"] = Value::Array(list_parameters());
        operation
    }

    fn answers(&mut self, answers: &[(&str, &str)]) -> Value {
        let mut responses = Map::new();
        for (code, schema) in answers {
            self.used.insert((*schema).to_owned());
            let text = if *code == "200" {
                "OK"
            } else if *code == "201" {
                "Created"
            } else {
                "Accepted"
            };
            let content = json!({"application/json": {"schema": components::reference(schema)}});
            responses.insert((*code).to_owned(), json!({"description": text, "content": content}));
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(responses)
    }

    fn operation(&mut self, action: &str, subject: &Subject) -> Value {
        let schema = subject.schema.as_str();
        let status = components::name_of("k8s.io.apimachinery.pkg.apis.meta.v1.Status");
        let mut operation = json!({
            "tags": [tag(subject.resource)],
            "operationId": operation_id(action, subject),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": subject.group, "version": subject.version, "kind": subject.kind},
        });
        if action == "connect" || subject.part == "log" {
            let answer = json!({"200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}, "401": {"description": "Unauthorized"}});
            operation["responses"] = answer;
            return operation;
        }
        let answers: &[(&str, &str)] = match action {
            "post" => &[("200", schema), ("201", schema), ("202", schema)],
            "put" | "patch" => &[("200", schema), ("201", schema)],
            "delete" => {
                let answer = if subject.resource.shows_deleted { schema } else { &status };
                &[("200", answer), ("202", answer)]
            }
            "deletecollection" => &[("200", &status)],
            _ => &[("200", schema)],
        };
        operation["responses"] = self.answers(answers);
        let parameters = parameters(action);
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        if let Some(body) = self.body(action, subject) {
            operation["requestBody"] = body;
        }
        operation
    }

    fn body(&mut self, action: &str, subject: &Subject) -> Option<Value> {
        match action {
            "post" | "put" => {
                let schema = components::reference(&subject.schema);
                Some(json!({"required": true, "content": {"*/*": {"schema": schema}}}))
            }
            "delete" | "deletecollection" => {
                self.used.insert(components::name_of("k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions"));
                Some(json!({"content": {"*/*": {"schema": components::meta("DeleteOptions")}}}))
            }
            "patch" => {
                self.used.insert(components::name_of("k8s.io.apimachinery.pkg.apis.meta.v1.Patch"));
                let in_table = subject.resource.message.is_built_in();
                let types = [PatchType::Json, PatchType::Merge, PatchType::Strategic, PatchType::Apply];
                let served = types.into_iter().filter(|form| in_table || *form != PatchType::Strategic);
                let content: Map<String, Value> = served
                    .map(|form| (form.as_str().to_owned(), json!({"schema": components::meta("Patch")})))
                    .collect();
                Some(json!({"required": true, "content": content}))
            }
            _ => None,
        }
    }
}

fn query(name: &str, kind: &str, text: &str) -> Value {
    json!({"name": name, "in": "query", "description": text, "schema": {"type": kind, "uniqueItems": true}})
}

fn parameters(action: &str) -> Vec<Value> {
    let dry_run = || query("dryRun", "string", "All: everything is done except keeping the result");
    let manager = || query("fieldManager", "string", "who makes the change, for managedFields");
    let validation = || {
        query(
            "fieldValidation",
            "string",
            "what becomes of unknown and duplicate fields: Ignore, Warn (the default) or Strict",
        )
    };
    let grace = || query("gracePeriodSeconds", "integer", "seconds the object is given to end; zero ends it at once");
    let propagation =
        || query("propagationPolicy", "string", "what becomes of owned objects: Orphan, Background or Foreground");
    match action {
        "post" | "put" => vec![dry_run(), manager(), validation()],
        "patch" => {
            let force = query("force", "boolean", "take over fields that other appliers own; only for apply");
            vec![dry_run(), manager(), validation(), force]
        }
        "delete" => vec![dry_run(), grace(), propagation()],
        "deletecollection" => {
            let mut all = vec![dry_run(), grace(), propagation()];
            all.extend(list_parameters());
            all
        }
        _ => Vec::new(),
    }
}

fn list_parameters() -> Vec<Value> {
    [
        ("labelSelector", "string", "only objects whose labels match"),
        ("fieldSelector", "string", "only objects whose fields match"),
        ("limit", "integer", "at most so many objects; the answer says how to go on"),
        ("continue", "string", "where the answer before ended"),
        ("resourceVersion", "string", "the revision that the answer is at, or not older than"),
        ("resourceVersionMatch", "string", "how resourceVersion is meant: Exact or NotOlderThan"),
        ("timeoutSeconds", "integer", "seconds after which the answer or watch ends"),
        ("watch", "boolean", "send changes as they happen"),
        ("allowWatchBookmarks", "boolean", "send the revision reached now and then"),
        ("sendInitialEvents", "boolean", "begin a watch with the objects there are"),
    ]
    .map(|(name, kind, text)| query(name, kind, text))
    .to_vec()
}

/// `core_v1`, `apps_v1`, `discovery_v1`.
fn tag(resource: &Resource) -> String {
    let group = resource.kind.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    format!("{group}_{}", resource.kind.version)
}

/// `listCoreV1NamespacedPod`, `patchAppsV1NamespacedDeploymentScale`: client generators name their methods by it.
fn operation_id(action: &str, subject: &Subject) -> String {
    let upper = |text: &str| {
        let mut chars = text.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    let verb = match action {
        "post" => "create",
        "put" => "replace",
        "get" => "read",
        "deletecollection" => "deleteCollection",
        other => other,
    };
    let owner = &subject.resource.kind;
    let group_version: String = tag(subject.resource).split('_').map(upper).collect();
    let scope = if subject.namespaced { "Namespaced" } else { "" };
    let everywhere = if owner.namespaced && !subject.namespaced { "ForAllNamespaces" } else { "" };
    let part = match subject.part {
        "portforward" => "Portforward".to_owned(),
        other => upper(other),
    };
    format!("{verb}{group_version}{scope}{}{part}{everywhere}", owner.kind)
}
