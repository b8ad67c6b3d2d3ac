//! Pod security: the labels of a namespace say what its pods may not ask for.
//!
//! Rules
//!   P1 enforce    a new pod, or one whose containers change, that violates the enforced standard is refused
//!   P2 warn       pods, and templates of pods in workloads, that violate the standard to warn of are told about
//!   P3 audit      the same goes into the audit log
//!   P4 labels     a label with another value than the known ones is refused; without labels nothing is forbidden
//!   P5 existing   who tightens what is enforced is told which pods violate it already
//! Source: Kubernetes documentation, "Pod Security Admission"

use serde_json::Value;
use windlass_api::field::{Errors, Path};
use windlass_api::resources::pod::{Level, Version, violations};
use windlass_api::{ApiError, kinds};
use windlass_store::Range;

use crate::change::Part;
use crate::failure::read_failed;
use crate::key;
use crate::server::{Call, header};
use crate::write::{self, text};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace that are looked at when it is tightened, and lines that are told of them.
const EXISTING_MAX: usize = 3000;
const TOLD_MAX: usize = 20;

/// What is asked for one of the modes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Standard {
    level: Level,
    version: Version,
}

/// A pod's metadata and spec.
type PodParts<'a> = (&'a Value, &'a Value);

/// P1 to P3 for a new or changed object; P4 and P5 for a namespace.
pub(super) fn check(call: Call<'_>, part: Part, old: &Value, object: &Value) -> Result<(), ApiError> {
    let kind = &call.target.resource.kind;
    if *kind == kinds::NAMESPACE {
        return if matches!(part, Part::Main | Part::Status) { namespace(call, old, object) } else { Ok(()) };
    }
    let Some((metadata, spec)) = template(kind, part, object) else { return Ok(()) };
    let is_pod = *kind == kinds::POD;
    if is_pod && !old.is_null() && !changes(old, object) {
        return Ok(());
    }
    let key = key::object(&kinds::NAMESPACE, "", &call.target.namespace);
    let Some(entry) = call.server.store.get(&key) else { return Ok(()) };
    let labels = header(&entry).labels();
    let standard = |mode: &str| standard_of(mode, |key| labels.get(key));
    if is_pod && let Some(why) = against(standard("enforce"), (metadata, spec)) {
        return Err(ApiError::forbidden(
            kind,
            text(&object["metadata"], "name"),
            &format!("violates PodSecurity {why}"),
        ));
    }
    if let Some(why) = against(standard("audit"), (metadata, spec)) {
        call.record.noted("pod-security.kubernetes.io/audit-violations", &format!("would violate PodSecurity {why}"));
    }
    if let Some(why) = against(standard("warn"), (metadata, spec)) {
        call.warned.add(format!("would violate PodSecurity {why}"));
    }
    Ok(())
}

/// The pod that an object is, or that it makes.
fn template<'a>(kind: &windlass_api::Kind, part: Part, object: &'a Value) -> Option<PodParts<'a>> {
    if *kind == kinds::POD {
        let is_meant = matches!(part, Part::Main | Part::EphemeralContainers);
        return is_meant.then(|| (&object["metadata"], &object["spec"]));
    }
    if part != Part::Main {
        return None;
    }
    let template = match (kind.group.as_ref(), kind.kind.as_ref()) {
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => &object["spec"]["template"],
        ("batch", "CronJob") => &object["spec"]["jobTemplate"]["spec"]["template"],
        ("", "PodTemplate") => &object["template"],
        _ => return None,
    };
    template.is_object().then(|| (&template["metadata"], &template["spec"]))
}

/// Whether what a change makes of a pod may be judged otherwise than before.
fn changes(old: &Value, new: &Value) -> bool {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    lists.iter().any(|list| old["spec"][*list] != new["spec"][*list])
        || old["metadata"]["annotations"] != new["metadata"]["annotations"]
}

fn standard_of<'l>(mode: &str, label: impl Fn(&str) -> Option<&'l str>) -> Standard {
    // A level that is none, from before it was checked, must not switch the check off.
    let unreadable = if mode == "enforce" { Level::Restricted } else { Level::Privileged };
    let level = label(&format!("{PREFIX}{mode}"));
    let level = level.map_or(Level::Privileged, |text| Level::parse(text).unwrap_or(unreadable));
    let version = label(&format!("{PREFIX}{mode}-version")).and_then(Version::parse).unwrap_or(Version::Latest);
    Standard { level, version }
}

/// `"restricted:latest": reason (detail), …` if the pod violates it.
fn against(standard: Standard, (metadata, spec): PodParts<'_>) -> Option<String> {
    let found = violations(metadata, spec, standard.level, standard.version);
    let name = format!("{}:{}", standard.level.as_str(), standard.version);
    (!found.is_empty()).then(|| format!("{name:?}: {}", found.join(", ")))
}

/// P4, P5.
fn namespace(call: Call<'_>, old: &Value, object: &Value) -> Result<(), ApiError> {
    let labels = |object: &Value| object["metadata"]["labels"].clone();
    let (before, now) = (labels(old), labels(object));
    let mut errors = Errors::new();
    for mode in ["enforce", "audit", "warn"] {
        let keys = [format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version")];
        for (index, key) in keys.iter().enumerate() {
            let Some(value) = now[key.as_str()].as_str() else { continue };
            let path = Path::new("metadata").child("labels").key(key);
            if index == 0 && Level::parse(value).is_none() {
                errors.invalid(&path, value, "must be one of privileged, baseline, restricted");
            } else if index == 1 && Version::parse(value).is_none() {
                errors.invalid(&path, value, "must be \"latest\" or \"v1.x\"");
            }
        }
    }
    write::refuse_if_any(&call.target.resource, object, &errors)?;
    let enforced = |labels: &Value| standard_of("enforce", |key| labels[key].as_str());
    let (before, now) = (enforced(&before), enforced(&now));
    match !old.is_null() && now.level > before.level {
        true => existing(call, text(&object["metadata"], "name"), now),
        false => Ok(()),
    }
}

/// P5.
fn existing(call: Call<'_>, namespace: &str, enforced: Standard) -> Result<(), ApiError> {
    let range = Range { limit: EXISTING_MAX, ..Range::prefix(key::prefix(&kinds::POD, namespace)) };
    let pods = call.server.store.range(&range).map_err(read_failed)?;
    let violating = pods.entries.iter().filter_map(|entry| {
        let pod = write::tree(entry);
        let found = violations(&pod["metadata"], &pod["spec"], enforced.level, enforced.version);
        (!found.is_empty()).then(|| format!("{}: {}", text(&pod["metadata"], "name"), found.join(", ")))
    });
    let told: Vec<String> = violating.take(TOLD_MAX).collect();
    if !told.is_empty() {
        let standard = format!("{}:{}", enforced.level.as_str(), enforced.version);
        let all = "existing pods in namespace";
        call.warned.add(format!("{all} {namespace:?} violate the new PodSecurity enforce level {standard:?}"));
        told.into_iter().for_each(|line| call.warned.add(line));
    }
    Ok(())
}
