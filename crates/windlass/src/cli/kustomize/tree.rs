//! Directories that name each other, and what becomes of their objects.
//!
//! Rules
//!   D1 file       lies in or below the directory that names it, wherever links lead
//!   D2 directory  may lie anywhere on this machine, but not above one that is being read, nor be it
//!   D3 order      resources, generators, components; then patches, namespace, names, labels, annotations, JSON patches,
//!                 replicas and images
//!   D4 component  works on the objects of the directory that names it

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use windlass_api::codec::{Limits, yaml};

use super::file::{Kustomization, Label, SortOptions};
use super::resource::{Resource, Resources};
use super::{generate, patch, transform};
use crate::cli::manifest::{cut, read_file};

/// Directories that one may lead to: each that is named twice is read twice.
const DIRECTORIES_MAX: usize = 10_000;
/// Directories within each other.
const DEPTH_MAX: usize = 64;

/// Directories that are being read, outermost first, and how many have been.
#[derive(Default)]
struct Reading {
    stack: Vec<PathBuf>,
    count: usize,
}

/// All objects of a directory, and how they are to be sorted.
pub fn read(directory: &Path) -> Result<(Resources, Option<SortOptions>)> {
    let root = canonical(directory)?;
    let file = Kustomization::load(&root)?;
    let sort = file.sort_options.clone();
    let mut reading = Reading::default();
    reading.stack.push(root.clone());
    Ok((accumulate(&mut reading, &root, &file, Resources::default())?, sort))
}

/// D3.
fn accumulate(reading: &mut Reading, root: &Path, file: &Kustomization, before: Resources) -> Result<Resources> {
    let mut resources = before;
    for path in &file.resources {
        let added = load(reading, root, path).with_context(|| format!("accumulating resources from '{path}'"))?;
        resources.append_all(added).with_context(|| format!("merging resources from '{path}'"))?;
    }
    generate::run(&mut resources, root, file)?;
    for path in &file.components {
        let inner = enter(reading, root, path)?;
        let component = Kustomization::load(&inner)?;
        if !component.is_component() {
            bail!("expected kind 'Component' for path '{}' but got '{}'", inner.display(), component.kind);
        }
        // D4.
        resources = accumulate(reading, &inner, &component, resources)
            .with_context(|| format!("accumulating components: '{path}'"))?;
        reading.stack.pop();
    }
    patch::strategic(&mut resources, root, &file.patches_strategic_merge)?;
    file.patches.iter().try_for_each(|entry| patch::run(&mut resources, root, entry))?;
    if !file.namespace.is_empty() {
        transform::namespace(&mut resources, &file.namespace)?;
    }
    if !file.name_prefix.is_empty() {
        transform::prefix(&mut resources, &file.name_prefix);
    }
    if !file.name_suffix.is_empty() {
        transform::suffix(&mut resources, &file.name_suffix);
    }
    file.labels.iter().try_for_each(|label| transform::labels(&mut resources, label))?;
    let common = Label { pairs: file.common_labels.clone(), include_selectors: true, ..Label::default() };
    transform::labels(&mut resources, &common)?;
    transform::annotations(&mut resources, &file.common_annotations)?;
    file.patches_json.iter().try_for_each(|entry| patch::run(&mut resources, root, entry))?;
    file.replicas.iter().try_for_each(|replica| transform::replicas(&mut resources, replica))?;
    file.images.iter().try_for_each(|image| transform::images(&mut resources, image))?;
    Ok(resources)
}

/// What a line of `resources` names: a file, or another directory.
fn load(reading: &mut Reading, root: &Path, path: &str) -> Result<Resources> {
    let is_remote = path.contains("://") || path.starts_with("git@");
    if is_remote || !root.join(path).exists() {
        let why = if is_remote { "is remote" } else { "does not exist" };
        bail!("'{path}' {why}: files and directories of this machine are read, URLs are not fetched");
    }
    if !root.join(path).is_dir() {
        let text = text(root, path)?;
        let mut resources = Resources::default();
        for object in objects(&text).with_context(|| format!("'{path}'"))? {
            resources.append(Resource::new(object))?;
        }
        return Ok(resources);
    }
    let inner = enter(reading, root, path)?;
    let file = Kustomization::load(&inner)?;
    if file.is_component() {
        bail!("expected kind != 'Component' for path '{}'", inner.display());
    }
    let resources = accumulate(reading, &inner, &file, Resources::default())
        .with_context(|| format!("recursed accumulation of path '{}'", inner.display()))?;
    reading.stack.pop();
    Ok(resources)
}

/// D2.
fn enter(reading: &mut Reading, root: &Path, path: &str) -> Result<PathBuf> {
    let inner = canonical(&root.join(path))?;
    if let Some(outer) = reading.stack.iter().find(|outer| outer.starts_with(&inner)) {
        bail!("cycle detected: candidate root '{}' contains visited root '{}'", inner.display(), outer.display());
    }
    reading.count += 1;
    if reading.count > DIRECTORIES_MAX || reading.stack.len() >= DEPTH_MAX {
        bail!("expected at most {DIRECTORIES_MAX} directories, {DEPTH_MAX} within each other, found more");
    }
    reading.stack.push(inner.clone());
    Ok(inner)
}

fn canonical(path: &Path) -> Result<PathBuf> {
    let found = fs::canonicalize(path).map_err(|error| anyhow!("'{}': {error}", path.display()))?;
    if !found.is_dir() {
        bail!("'{}' is not a directory", path.display());
    }
    Ok(found)
}

/// D1: where a file is.
pub fn file(root: &Path, path: &str) -> Result<PathBuf> {
    let joined = root.join(path);
    let found = fs::canonicalize(&joined).map_err(|error| anyhow!("'{}': {error}", joined.display()))?;
    if !found.starts_with(root) {
        bail!("security; file '{}' is not in or below '{}'", found.display(), root.display());
    }
    if found.is_dir() {
        bail!("'{}' is a directory", found.display());
    }
    if !found.is_file() {
        bail!("'{}': expected a file, found something that may have no end", found.display());
    }
    Ok(found)
}

/// D1: what a file holds.
pub fn text(root: &Path, path: &str) -> Result<String> {
    read_file(&file(root, path)?)
}

/// The objects of a text; a list is its items.
pub fn objects(text: &str) -> Result<Vec<Value>> {
    let documents = yaml::documents(text, Limits::default())?;
    let mut found = Vec::new();
    let mut waiting: std::collections::VecDeque<Value> = documents.into();
    while let Some(mut object) = waiting.pop_front() {
        if object.as_object().is_some_and(serde_json::Map::is_empty) {
            continue;
        }
        let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        if is_list && let Some(items) = object.get_mut("items") {
            waiting.extend(items.as_array_mut().map(std::mem::take).unwrap_or_default());
            continue;
        }
        for (pointer, what) in [("/kind", "kind"), ("/apiVersion", "apiVersion"), ("/metadata/name", "metadata.name")] {
            if object.pointer(pointer).and_then(Value::as_str).is_none_or(str::is_empty) {
                bail!("missing {what} in object {}", cut(&object));
            }
        }
        found.push(object);
    }
    Ok(found)
}
