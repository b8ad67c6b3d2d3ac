//! Changes of all objects at once: namespace, names, labels, annotations, replicas, images.
//!
//! Rules
//!   T1 namespace    objects of kinds that are in one; a Namespace's own name; services that kinds of the API name; subjects
//!                   called `default`
//!   T2 names        get prefix and suffix, but for definitions, APIServices and Namespaces
//!   T3 labels       at the objects alone, with templates, or with selectors too
//!   T4 replicas     of whatever has or had the name; there must be one
//!   T5 images       of this name, wherever containers are; definitions are left alone

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::file::{Image, Label, Replica};
use super::place::{Made, Place, found, made};
use super::resource::{Resource, Resources};

const METADATA_LABELS: Place<'static> = made("metadata/labels", "", "");
const REPLICATION_CONTROLLER: &str = "ReplicationController";

/// Where labels of templates are.
const TEMPLATE_LABELS: [Place<'static>; 9] = [
    Place { version: "v1", ..made("spec/template/metadata/labels", "", REPLICATION_CONTROLLER) },
    made("spec/template/metadata/labels", "", "Deployment"),
    made("spec/template/metadata/labels", "", "ReplicaSet"),
    made("spec/template/metadata/labels", "", "DaemonSet"),
    made("spec/template/metadata/labels", "apps", "StatefulSet"),
    made("spec/volumeClaimTemplates[]/metadata/labels", "apps", "StatefulSet"),
    made("spec/template/metadata/labels", "batch", "Job"),
    made("spec/jobTemplate/metadata/labels", "batch", "CronJob"),
    made("spec/jobTemplate/spec/template/metadata/labels", "batch", "CronJob"),
];

/// Where labels select.
const SELECTORS: [Place<'static>; 12] = [
    Place { version: "v1", ..made("spec/selector", "", "Service") },
    Place { version: "v1", ..made("spec/selector", "", REPLICATION_CONTROLLER) },
    made("spec/selector/matchLabels", "", "Deployment"),
    made("spec/selector/matchLabels", "", "ReplicaSet"),
    made("spec/selector/matchLabels", "", "DaemonSet"),
    made("spec/selector/matchLabels", "apps", "StatefulSet"),
    found("spec/selector/matchLabels", "batch", "Job"),
    found("spec/jobTemplate/spec/selector/matchLabels", "batch", "CronJob"),
    found("spec/selector/matchLabels", "policy", "PodDisruptionBudget"),
    found("spec/podSelector/matchLabels", "networking.k8s.io", "NetworkPolicy"),
    found("spec/ingress/from/podSelector/matchLabels", "networking.k8s.io", "NetworkPolicy"),
    found("spec/egress/to/podSelector/matchLabels", "networking.k8s.io", "NetworkPolicy"),
];

/// Where the templates of Deployments and StatefulSets select their neighbours.
const NEIGHBOURS: [&str; 5] = [
    "spec/template/spec/affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "spec/template/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "spec/template/spec/topologySpreadConstraints/labelSelector/matchLabels",
];

const ANNOTATIONS: [Place<'static>; 9] = [
    made("metadata/annotations", "", ""),
    Place { version: "v1", ..made("spec/template/metadata/annotations", "", REPLICATION_CONTROLLER) },
    made("spec/template/metadata/annotations", "", "Deployment"),
    made("spec/template/metadata/annotations", "", "ReplicaSet"),
    made("spec/template/metadata/annotations", "", "DaemonSet"),
    made("spec/template/metadata/annotations", "", "StatefulSet"),
    made("spec/template/metadata/annotations", "batch", "Job"),
    made("spec/jobTemplate/metadata/annotations", "batch", "CronJob"),
    made("spec/jobTemplate/spec/template/metadata/annotations", "batch", "CronJob"),
];

const NAMESPACES: [Place<'static>; 3] = [
    Place { version: "v1", ..made("metadata/name", "", "Namespace") },
    made("spec/service/namespace", "apiregistration.k8s.io", "APIService"),
    found("spec/conversion/webhook/clientConfig/service/namespace", "apiextensions.k8s.io", "CustomResourceDefinition"),
];

const REPLICAS: [Place<'static>; 4] = [
    made("spec/replicas", "", "Deployment"),
    made("spec/replicas", "", REPLICATION_CONTROLLER),
    made("spec/replicas", "", "ReplicaSet"),
    made("spec/replicas", "", "StatefulSet"),
];

/// Where images are beside containers.
const IMAGES: [Place<'static>; 2] =
    [found("spec/volumes[]/image/reference", "", ""), found("spec/template/spec/volumes[]/image/reference", "", "")];

/// T1.
pub fn namespace(resources: &mut Resources, namespace: &str) -> Result<()> {
    for index in 0..resources.all.len() {
        let resource = &mut resources.all[index];
        resource.remember();
        if !resource.id().is_cluster_scoped() {
            resource.object["metadata"]["namespace"] = json!(namespace);
        }
        if matches!(resource.kind(), "RoleBinding" | "ClusterRoleBinding") {
            let subjects = resource.object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten();
            subjects.filter(|subject| subject["name"] == "default").for_each(|subject| {
                subject["namespace"] = json!(namespace);
            });
        }
        let mut set = |value: &mut Value| {
            *value = json!(namespace);
            Ok(())
        };
        for place in NAMESPACES {
            // A kind of somebody's that is called Namespace keeps its name.
            if place.kind == "Namespace" && !resource.id().group.is_empty() {
                continue;
            }
            place.each(resource, Made::Scalar, &mut set)?;
        }
        let id = resource.id();
        if resources.all.iter().filter(|other| other.id() == id).count() > 1 {
            bail!("namespace transformation produces ID conflict: {id}");
        }
    }
    Ok(())
}

/// T2.
fn keeps_name(resource: &Resource) -> bool {
    let id = resource.origin();
    matches!(id.kind.as_str(), "CustomResourceDefinition" | "Namespace")
        || (id.kind == "APIService" && id.group == "apiregistration.k8s.io")
}

/// T2.
pub fn prefix(resources: &mut Resources, prefix: &str) {
    for resource in resources.all.iter_mut().filter(|resource| !keeps_name(resource)) {
        resource.prefixes.push(prefix.to_owned());
        resource.remember();
        resource.set_name(format!("{prefix}{}", resource.name()));
    }
}

/// T2.
pub fn suffix(resources: &mut Resources, suffix: &str) {
    for resource in resources.all.iter_mut().filter(|resource| !keeps_name(resource)) {
        resource.suffixes.push(suffix.to_owned());
        resource.remember();
        resource.set_name(format!("{}{suffix}", resource.name()));
    }
}

/// T3.
pub fn labels(resources: &mut Resources, label: &Label) -> Result<()> {
    let mut places: Vec<Place> = label.fields.iter().map(Place::from).collect();
    places.push(METADATA_LABELS);
    if label.include_selectors || label.include_templates {
        places.extend(TEMPLATE_LABELS);
    }
    if label.include_selectors {
        places.extend(SELECTORS);
        let kinds = ["Deployment", "StatefulSet"].into_iter();
        places.extend(kinds.flat_map(|kind| NEIGHBOURS.map(|path| found(path, "apps", kind))));
    }
    mark(resources, &places, &label.pairs)
}

/// At objects and their templates.
pub fn annotations(resources: &mut Resources, annotations: &BTreeMap<String, String>) -> Result<()> {
    mark(resources, &ANNOTATIONS, annotations)
}

fn mark(resources: &mut Resources, places: &[Place], marks: &BTreeMap<String, String>) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let mut set = |value: &mut Value| {
        let Some(map) = value.as_object_mut() else { bail!("expected a map, found {value}") };
        map.extend(marks.iter().map(|(key, value)| (key.clone(), json!(value))));
        Ok(())
    };
    for resource in &mut resources.all {
        places.iter().try_for_each(|place| place.each(resource, Made::Map, &mut set))?;
    }
    Ok(())
}

/// T4.
pub fn replicas(resources: &mut Resources, replica: &Replica) -> Result<()> {
    let mut is_found = false;
    for place in REPLICAS {
        for index in resources.find(|id| id.name == replica.name && id.kind == place.kind) {
            is_found = true;
            let mut set = |value: &mut Value| {
                *value = json!(replica.count);
                Ok(())
            };
            place.each(&mut resources.all[index], Made::Scalar, &mut set)?;
        }
    }
    if !is_found {
        let kinds = REPLICAS.map(|place| place.kind).join(", ");
        bail!("resource with name {} does not match a config with the following kinds: {kinds}", replica.name);
    }
    Ok(())
}

/// T5.
pub fn images(resources: &mut Resources, image: &Image) -> Result<()> {
    let mut set = |value: &mut Value| {
        set_image(value, image);
        Ok(())
    };
    for resource in resources.all.iter_mut().filter(|resource| resource.kind() != "CustomResourceDefinition") {
        of_containers(&mut resource.object, image);
        IMAGES.iter().try_for_each(|place| place.each(resource, Made::Nothing, &mut set))?;
    }
    Ok(())
}

/// Containers are found by the name of their list, in kinds that we do not know too.
fn of_containers(value: &mut Value, image: &Image) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                of_containers(field, image);
                if name == "containers" || name == "initContainers" {
                    let containers = field.as_array_mut().into_iter().flatten();
                    containers.filter_map(|item| item.get_mut("image")).for_each(|found| set_image(found, image));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| of_containers(item, image)),
        _ => {}
    }
}

fn set_image(value: &mut Value, image: &Image) {
    let Some(written) = value.as_str() else { return };
    let (name, mut tag, mut digest) = split_image(written);
    if name != image.name {
        return;
    }
    let mut name = if image.new_name.is_empty() { name } else { &image.new_name }.to_owned();
    let changed = format!("{tag}{}", image.tag_suffix);
    match (image.new_tag.as_str(), image.digest.as_str()) {
        ("", "") if image.tag_suffix.is_empty() => {}
        ("", "") => (tag, digest) = (&changed, ""),
        (new_tag, new_digest) => (tag, digest) = (new_tag, new_digest),
    }
    if !tag.is_empty() {
        name = format!("{name}:{tag}");
    }
    if !digest.is_empty() {
        name = format!("{name}@{digest}");
    }
    *value = json!(name);
}

/// Name, tag and digest. A colon before the first slash is that of a port.
fn split_image(image: &str) -> (&str, &str, &str) {
    let (rest, digest) = image.split_once('@').unwrap_or((image, ""));
    let path = rest.find('/').unwrap_or(0);
    match rest[path..].find(':') {
        Some(colon) => (&rest[..path + colon], &rest[path + colon + 1..], digest),
        None => (rest, "", digest),
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Image;
    use super::{set_image, split_image};
    use serde_json::json;

    #[test]
    fn t5_an_image_is_a_name_a_tag_and_a_digest() {
        assert_eq!(split_image("nginx"), ("nginx", "", ""));
        assert_eq!(split_image("r:5000/a/b:1@sha256:0"), ("r:5000/a/b", "1", "sha256:0"));
        assert_eq!(split_image("r:5000/a"), ("r:5000/a", "", ""));
        let check = |image: Image, before: &str, after: &str| {
            let mut value = json!(before);
            set_image(&mut value, &image);
            assert_eq!(value, after, "{before}");
        };
        let of = |name: &str| Image { name: name.to_owned(), ..Image::default() };
        check(Image { new_tag: "2".to_owned(), ..of("nginx") }, "nginx:1@sha256:0", "nginx:2");
        check(Image { digest: "sha256:9".to_owned(), ..of("nginx") }, "nginx:1", "nginx@sha256:9");
        check(Image { new_name: "my/nginx".to_owned(), ..of("nginx") }, "nginx:1", "my/nginx:1");
        check(Image { tag_suffix: "-slim".to_owned(), ..of("nginx") }, "nginx:1", "nginx:1-slim");
        check(Image { new_tag: "2".to_owned(), ..of("nginx") }, "r/nginx:1", "r/nginx:1");
    }
}
