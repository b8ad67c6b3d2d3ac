//! Names that are referred to: when an object has got another name, whoever names it follows.
//!
//! Rules
//!   N1 whom       an object that had the name before, of the kind that the field refers to
//!   N2 where      in the same namespace, or of a kind that is in none; accounts anywhere
//!   N3 which      of several, those with the same prefixes and suffixes; if they still differ, that is an error
//!   N4 place      a field that names a namespace too gets the namespace of what it names

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::place::{Made, Place, found};
use super::resource::{Id, Resource, Resources};

/// Objects of a kind, and a field that names them.
struct Reference {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    by: Place<'static>,
}

/// Kinds with pods in them, and where these are.
const POD: (&str, &str) = ("Pod", "spec");
const POD_TEMPLATE: (&str, &str) = ("PodTemplate", "template/spec");
const DEPLOYMENT: (&str, &str) = ("Deployment", "spec/template/spec");
const REPLICA_SET: (&str, &str) = ("ReplicaSet", "spec/template/spec");
const REPLICATION_CONTROLLER: (&str, &str) = ("ReplicationController", "spec/template/spec");
const DAEMON_SET: (&str, &str) = ("DaemonSet", "spec/template/spec");
const STATEFUL_SET: (&str, &str) = ("StatefulSet", "spec/template/spec");
const JOB: (&str, &str) = ("Job", "spec/template/spec");
const CRON_JOB: (&str, &str) = ("CronJob", "spec/jobTemplate/spec/template/spec");

const CONFIG_HOSTS: [(&str, &str); 8] =
    [POD, POD_TEMPLATE, DEPLOYMENT, REPLICA_SET, DAEMON_SET, STATEFUL_SET, JOB, CRON_JOB];
const OTHER_HOSTS: [(&str, &str); 7] =
    [POD, STATEFUL_SET, DEPLOYMENT, REPLICATION_CONTROLLER, CRON_JOB, JOB, DAEMON_SET];

const CONFIG_MAP_PATHS: [&str; 6] = [
    "volumes/configMap/name",
    "containers/env/valueFrom/configMapKeyRef/name",
    "initContainers/env/valueFrom/configMapKeyRef/name",
    "containers/envFrom/configMapRef/name",
    "initContainers/envFrom/configMapRef/name",
    "volumes/projected/sources/configMap/name",
];
const SECRET_PATHS: [&str; 7] = [
    "volumes/secret/secretName",
    "containers/env/valueFrom/secretKeyRef/name",
    "initContainers/env/valueFrom/secretKeyRef/name",
    "containers/envFrom/secretRef/name",
    "initContainers/envFrom/secretRef/name",
    "imagePullSecrets/name",
    "volumes/projected/sources/secret/name",
];

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

const fn of(
    (group, version, kind): (&'static str, &'static str, &'static str),
    path: &'static str,
    (by_group, by_kind): (&'static str, &'static str),
) -> Reference {
    Reference { group, version, kind, by: found(path, by_group, by_kind) }
}

/// Fields that are not in pods.
const REFERENCES: [Reference; 37] = [
    of(("", "", "Deployment"), "spec/scaleTargetRef/name", ("", "HorizontalPodAutoscaler")),
    of(("", "", "ReplicationController"), "spec/scaleTargetRef/name", ("", "HorizontalPodAutoscaler")),
    of(("", "", "ReplicaSet"), "spec/scaleTargetRef/name", ("", "HorizontalPodAutoscaler")),
    of(("", "", "StatefulSet"), "spec/scaleTargetRef/name", ("", "HorizontalPodAutoscaler")),
    of(("", "v1", "ConfigMap"), "spec/configSource/configMap", ("", "Node")),
    of(("", "v1", "ConfigMap"), "rules/resourceNames", ("", "Role")),
    of(("", "v1", "ConfigMap"), "rules/resourceNames", ("", "ClusterRole")),
    of(
        ("", "v1", "ConfigMap"),
        "metadata/annotations/nginx.ingress.kubernetes.io\\/fastcgi-params-configmap",
        ("", "Ingress"),
    ),
    of(("", "v1", "Secret"), "spec/tls/secretName", ("", "Ingress")),
    of(("", "v1", "Secret"), "metadata/annotations/ingress.kubernetes.io\\/auth-secret", ("", "Ingress")),
    of(("", "v1", "Secret"), "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-secret", ("", "Ingress")),
    of(("", "v1", "Secret"), "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-tls-secret", ("", "Ingress")),
    of(("", "v1", "Secret"), "imagePullSecrets/name", ("", "ServiceAccount")),
    of(("", "v1", "Secret"), "parameters/secretName", ("", "StorageClass")),
    of(("", "v1", "Secret"), "parameters/adminSecretName", ("", "StorageClass")),
    of(("", "v1", "Secret"), "parameters/userSecretName", ("", "StorageClass")),
    of(("", "v1", "Secret"), "parameters/secretRef", ("", "StorageClass")),
    of(("", "v1", "Secret"), "rules/resourceNames", ("", "Role")),
    of(("", "v1", "Secret"), "rules/resourceNames", ("", "ClusterRole")),
    of(("", "v1", "Secret"), "spec/azureFile/secretName", ("", "PersistentVolume")),
    of(("", "v1", "Service"), "spec/serviceName", ("apps", "StatefulSet")),
    of(("", "v1", "Service"), "spec/rules/http/paths/backend/serviceName", ("", "Ingress")),
    of(("", "v1", "Service"), "spec/backend/serviceName", ("", "Ingress")),
    of(("", "v1", "Service"), "spec/rules/http/paths/backend/service/name", ("", "Ingress")),
    of(("", "v1", "Service"), "spec/defaultBackend/service/name", ("", "Ingress")),
    of(("", "v1", "Service"), "spec/service/name", ("apiregistration.k8s.io", "APIService")),
    of(("", "v1", "Service"), "webhooks/clientConfig/service", (ADMISSION, "ValidatingWebhookConfiguration")),
    of(("", "v1", "Service"), "webhooks/clientConfig/service", (ADMISSION, "MutatingWebhookConfiguration")),
    of((RBAC, "", "Role"), "roleRef/name", (RBAC, "RoleBinding")),
    of((RBAC, "", "ClusterRole"), "roleRef/name", (RBAC, "RoleBinding")),
    of((RBAC, "", "ClusterRole"), "roleRef/name", (RBAC, "ClusterRoleBinding")),
    of(("", "v1", "ServiceAccount"), "subjects", (RBAC, "RoleBinding")),
    of(("", "v1", "ServiceAccount"), "subjects", (RBAC, "ClusterRoleBinding")),
    of(("", "v1", "PersistentVolume"), "spec/volumeName", ("", "PersistentVolumeClaim")),
    of(("", "v1", "PersistentVolume"), "rules/resourceNames", ("", "ClusterRole")),
    of(
        (ADMISSION, "", "ValidatingAdmissionPolicy"),
        "spec/policyName",
        (ADMISSION, "ValidatingAdmissionPolicyBinding"),
    ),
    of(
        ("storage.k8s.io", "v1", "StorageClass"),
        "spec/volumeClaimTemplates/spec/storageClassName",
        ("", "StatefulSet"),
    ),
];
const STORAGE_CLASS_BY: [&str; 2] = ["PersistentVolume", "PersistentVolumeClaim"];

/// A field with a name in it: of which kind, and its path.
struct Naming<'n> {
    group: &'n str,
    version: &'n str,
    kind: &'n str,
    place: Place<'n>,
}

/// Makes all names follow.
pub fn follow(resources: &mut Resources) -> Result<()> {
    for index in 0..resources.all.len() {
        let origin = resources.all[index].origin();
        for reference in &REFERENCES {
            let Reference { group, version, kind, by } = reference;
            run(resources, index, &origin, &Naming { group, version, kind, place: *by })?;
        }
        for kind in STORAGE_CLASS_BY {
            let place = found("spec/storageClassName", "", kind);
            run(
                resources,
                index,
                &origin,
                &Naming { group: "storage.k8s.io", version: "v1", kind: "StorageClass", place },
            )?;
        }
        in_pods(resources, index, &origin)?;
    }
    Ok(())
}

fn in_pods(resources: &mut Resources, index: usize, origin: &Id) -> Result<()> {
    type Rows<'r> = (&'r str, &'r str, &'r [(&'r str, &'r str)], &'r [&'r str]);
    let rows: [Rows; 5] = [
        ("", "ConfigMap", &CONFIG_HOSTS, &CONFIG_MAP_PATHS),
        ("", "Secret", &CONFIG_HOSTS, &SECRET_PATHS),
        ("", "ServiceAccount", &OTHER_HOSTS, &["serviceAccountName"]),
        ("", "PersistentVolumeClaim", &OTHER_HOSTS, &["volumes/persistentVolumeClaim/claimName"]),
        ("scheduling.k8s.io", "PriorityClass", &OTHER_HOSTS, &["priorityClassName"]),
    ];
    for (group, kind, hosts, paths) in rows {
        let Some((_, pod)) = hosts.iter().find(|(host, _)| *host == origin.kind) else { continue };
        for path in paths {
            let path = format!("{pod}/{path}");
            let place = Place { path: &path, group: "", version: "", kind: "", create: false };
            run(resources, index, origin, &Naming { group, version: "v1", kind, place })?;
        }
    }
    Ok(())
}

fn run(resources: &mut Resources, index: usize, origin: &Id, naming: &Naming) -> Result<()> {
    let Place { group, version, kind, .. } = naming.place;
    if !origin.is_of(group, version, kind) {
        return Ok(());
    }
    // It is taken out while the others are looked at: what names itself keeps its name, as it has it already.
    let mut referrer = resources.all[index].clone();
    let seen = referrer.clone();
    let mut set = |value: &mut Value| set(value, &seen, resources, naming);
    let place = Place { group: "", version: "", kind: "", ..naming.place };
    place.each(&mut referrer, Made::Nothing, &mut set)?;
    resources.all[index] = referrer;
    Ok(())
}

fn set(value: &mut Value, referrer: &Resource, resources: &Resources, naming: &Naming) -> Result<()> {
    match value {
        Value::String(name) => {
            let candidates: Vec<&Resource> = resources.all.iter().collect();
            if let Some(target) = select(name, referrer, candidates, naming, false)? {
                *value = json!(target.name());
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| set(item, referrer, resources, naming)),
        Value::Object(fields) => {
            let Some(Value::String(name)) = fields.get("name") else {
                bail!("path config error; no 'name' field in node");
            };
            let namespace = fields.get("namespace").and_then(Value::as_str);
            let is_there = |resource: &&Resource| match namespace {
                None => true,
                Some(namespace) => {
                    let had = resource.origin().namespace;
                    had == namespace || resource.id().namespace == namespace
                }
            };
            let candidates: Vec<&Resource> = resources.all.iter().filter(is_there).collect();
            if let Some(target) = select(name, referrer, candidates, naming, true)? {
                let (name, namespace) = (target.name().to_owned(), target.namespace().to_owned());
                fields.insert("name".to_owned(), json!(name));
                // N4.
                if !namespace.is_empty() {
                    fields.insert("namespace".to_owned(), json!(namespace));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// N1 to N3. `with_namespace` says whether the namespace is taken over too.
fn select<'r>(
    name: &str,
    referrer: &Resource,
    mut candidates: Vec<&'r Resource>,
    naming: &Naming,
    with_namespace: bool,
) -> Result<Option<&'r Resource>> {
    let from = referrer.id();
    let had = |resource: &Resource, wanted: &dyn Fn(&Id) -> bool| resource.previous.iter().any(wanted);
    candidates.retain(|candidate| had(candidate, &|id| id.name == name));
    candidates.retain(|candidate| had(candidate, &|id| id.is_of(naming.group, naming.version, naming.kind)));
    if naming.place.path.ends_with("roleRef/name") {
        let (group, kind) = (referrer.text("/roleRef/apiGroup"), referrer.text("/roleRef/kind"));
        candidates.retain(|candidate| had(candidate, &|id| id.is_of(group, "", kind)));
    }
    candidates.retain(|candidate| {
        let id = candidate.id();
        let is_near = from.is_cluster_scoped() || id.is_cluster_scoped() || id.namespace == from.namespace;
        is_near || candidate.kind() == "ServiceAccount" && names_account_in(referrer, &id.namespace)
    });
    if candidates.len() > 1 {
        candidates.retain(|candidate| same_affixes(candidate, referrer, true));
    }
    if candidates.len() > 1 {
        candidates.retain(|candidate| same_affixes(candidate, referrer, false));
    }
    let Some(first) = candidates.first() else { return Ok(None) };
    let is_same =
        |other: &&Resource| other.name() == first.name() && (!with_namespace || other.namespace() == first.namespace());
    if !candidates.iter().all(is_same) {
        let ids: Vec<String> = candidates.iter().map(|candidate| candidate.id().to_string()).collect();
        bail!("found multiple possible referrals for {name:?} in {from}: {}", ids.join(", "));
    }
    Ok(Some(first))
}

/// N2: bindings may name accounts of other namespaces.
fn names_account_in(referrer: &Resource, namespace: &str) -> bool {
    let subjects = referrer.object["subjects"].as_array();
    subjects
        .into_iter()
        .flatten()
        .any(|subject| subject["kind"] == "ServiceAccount" && subject["namespace"] == namespace)
}

fn same_affixes(one: &Resource, other: &Resource, empty_is_any: bool) -> bool {
    let same = |one: &[String], other: &[String]| {
        if empty_is_any && (one.is_empty() || other.is_empty()) {
            return true;
        }
        let length = one.len().min(other.len());
        length > 0 && one[one.len() - length..] == other[other.len() - length..]
            || one.len() == other.len() && length == 0
    };
    same(&one.prefixes, &other.prefixes) && same(&one.suffixes, &other.suffixes)
}
