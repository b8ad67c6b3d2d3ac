//! Patches of a kustomization: part of an object, or operations on it.
//!
//! Rules
//!   P1 form      a list is operations (JSON patch), anything else parts of objects (strategic merge); one of `path` and
//!                `patch` says which
//!   P2 target    regular expressions over kind, name and namespace, and selectors; without one, a part names its object
//!   P3 none      a part that names no object is an error; a target that selects none is not
//!   P4 identity  a part leaves kind and name as they are unless its options allow a change; with a target, the version too
//!   P5 delete    an object of which nothing is left is gone

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use windlass_api::codec::{Limits, yaml};
use windlass_api::custom::pattern::Pattern;
use windlass_api::merge::{PatchType, patch};
use windlass_api::schema::kubernetes;
use windlass_api::selector::LabelSelector;

use super::file::{Patch, PatchOptions, Selector};
use super::merge::merge;
use super::resource::{Resource, Resources};
use super::tree;

/// Runs one entry of `patches`.
pub fn run(resources: &mut Resources, root: &Path, entry: &Patch) -> Result<()> {
    let (inline, path) = (entry.patch.trim(), entry.path.as_str());
    let (text, source) = match (inline, path) {
        ("", "") => bail!("must specify one of patch and path in a patch"),
        ("", path) => {
            let text = tree::text(root, path).context("failed to get the patch file from path")?;
            (text, format!("[path: {path:?}]"))
        }
        (inline, "") => (inline.to_owned(), format!("[patch: {inline:?}]")),
        _ => bail!("patch and path can't be set at the same time: {path}"),
    };
    let documents = yaml::documents(&text, Limits::default())
        .with_context(|| format!("unable to parse SM or JSON patch from {source}"))?;
    if let [operations @ Value::Array(_)] = documents.as_slice() {
        let Some(target) = &entry.target else { bail!("must specify a target for JSON patch {source}") };
        return of_operations(resources, target, operations).with_context(|| source);
    }
    let parts = tree_parts(documents, entry.target.is_some(), &source)?;
    match &entry.target {
        Some(target) => {
            let [part] = parts.as_slice() else {
                bail!(
                    "Multiple Strategic-Merge Patches in one `patches` entry is not allowed to set `patches.target` field: {source}"
                );
            };
            for index in select(resources, target)? {
                let resource = &mut resources.all[index];
                let mut part = part.clone();
                part["apiVersion"] = resource.object["apiVersion"].clone();
                apply(resource, &part, entry.options)?;
            }
        }
        None => by_name(resources, &parts, entry.options)?,
    }
    resources.all.retain(|resource| !resource.is_empty());
    Ok(())
}

/// `patchesStrategicMerge`: files, or the text itself.
pub fn strategic(resources: &mut Resources, root: &Path, entries: &[String]) -> Result<()> {
    for entry in entries {
        let inline = tree::objects(entry).ok().filter(|parts| !parts.is_empty());
        let parts = match inline {
            Some(parts) => parts,
            None => tree::objects(&tree::text(root, entry)?).with_context(|| format!("patch {entry:?}"))?,
        };
        by_name(resources, &parts, PatchOptions::default())?;
    }
    resources.all.retain(|resource| !resource.is_empty());
    Ok(())
}

/// A part with a target need not say what it is.
fn tree_parts(documents: Vec<Value>, has_target: bool, source: &str) -> Result<Vec<Value>> {
    for part in &documents {
        let names = ["/kind", "/apiVersion", "/metadata/name"];
        let is_named = names.iter().all(|pointer| part.pointer(pointer).is_some_and(Value::is_string));
        if !part.is_object() || !is_named && !has_target {
            bail!("unable to parse SM or JSON patch from {source}");
        }
    }
    if documents.is_empty() {
        bail!("unable to parse SM or JSON patch from {source}");
    }
    Ok(documents)
}

/// P3.
fn by_name(resources: &mut Resources, parts: &[Value], options: PatchOptions) -> Result<()> {
    for part in parts {
        let wanted = Resource::new(part.clone()).id();
        match resources.find(|id| *id == wanted).as_slice() {
            [index] => apply(&mut resources.all[*index], part, options)?,
            [] => {
                bail!("no resource matches strategic merge patch {:?}: no matches for Id {wanted}", wanted.to_string())
            }
            _ => bail!("multiple matches for Id {wanted}; failed to find unique target for patch"),
        }
    }
    Ok(())
}

/// P4.
fn apply(resource: &mut Resource, part: &Value, options: PatchOptions) -> Result<()> {
    let (name, namespace, kind) =
        (resource.name().to_owned(), resource.namespace().to_owned(), resource.kind().to_owned());
    if options.allow_name_change || options.allow_kind_change {
        resource.remember();
    }
    let message = kubernetes().find_kind(resource.text("/apiVersion"), resource.kind());
    let before = std::mem::take(&mut resource.object);
    resource.object = merge(Some(before), Some(part.clone()), message)
        .with_context(|| format!("patch of {kind} {name:?}"))?
        .unwrap_or_default();
    if resource.is_empty() {
        return Ok(());
    }
    if !options.allow_kind_change {
        resource.object["kind"] = json!(kind);
    }
    if !options.allow_name_change {
        resource.set_name(name);
    }
    resource.set_namespace(&namespace);
    Ok(())
}

fn of_operations(resources: &mut Resources, target: &Selector, operations: &Value) -> Result<()> {
    let body = operations.to_string();
    for index in select(resources, target)? {
        let resource = &mut resources.all[index];
        resource.remember();
        let id = resource.id();
        let patched = patch(PatchType::Json, &resource.object, body.as_bytes(), None);
        let patched = patched.map_err(|error| anyhow!(error).context(id.to_string()))?.value;
        if !patched["metadata"].is_object() {
            bail!("{id}: expected the patch to leave an object with metadata, found {patched:.100}");
        }
        resource.object = patched;
    }
    Ok(())
}

/// P2.
fn select(resources: &Resources, selector: &Selector) -> Result<Vec<usize>> {
    let pattern = |written: &str| match written {
        "" => Ok(None),
        written => {
            Pattern::new(&format!("^(?:{written})$")).map(Some).map_err(|why| anyhow!("target {written:?}: {why}"))
        }
    };
    let [group, version, kind] = [pattern(&selector.group)?, pattern(&selector.version)?, pattern(&selector.kind)?];
    let [name, namespace] = [pattern(&selector.name)?, pattern(&selector.namespace)?];
    let fits = |pattern: &Option<Pattern>, text: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(text));
    let labels = LabelSelector::parse(&selector.label_selector)?;
    let annotations = LabelSelector::parse(&selector.annotation_selector)?;
    let is_selected = |resource: &Resource| {
        let (id, origin) = (resource.id(), resource.origin());
        (fits(&namespace, &origin.namespace) || fits(&namespace, &id.namespace))
            && (fits(&name, &origin.name) || fits(&name, &id.name))
            && fits(&group, &id.group)
            && fits(&version, &id.version)
            && fits(&kind, &id.kind)
            && labels.matches_json(&resource.object["metadata"]["labels"])
            && annotations.matches_json(&resource.object["metadata"]["annotations"])
    };
    let all = resources.all.iter().enumerate();
    Ok(all.filter(|(_, resource)| is_selected(resource)).map(|(index, _)| index).collect())
}
