//! A kustomization file: what may stand in it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use windlass_api::codec::{Limits, yaml};

use crate::cli::manifest::read_file;

/// The names such a file may have.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// Fields that we do not do.
const REFUSED: [&str; 12] = [
    "buildMetadata",
    "configurations",
    "crds",
    "generators",
    "helmChartInflationGenerator",
    "helmCharts",
    "helmGlobals",
    "openapi",
    "replacements",
    "transformers",
    "validators",
    "vars",
];
/// Fields that have another name now.
const OLD: [(&str, &str); 5] = [
    ("bases", "resources"),
    ("commonLabels", "labels"),
    ("imageTags", "images"),
    ("patchesJson6902", "patches"),
    ("patchesStrategicMerge", "patches"),
];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kustomization {
    pub api_version: String,
    pub kind: String,
    pub metadata: Value,
    pub resources: Vec<String>,
    pub bases: Vec<String>,
    pub components: Vec<String>,
    pub name_prefix: String,
    pub name_suffix: String,
    pub namespace: String,
    pub labels: Vec<Label>,
    pub common_labels: BTreeMap<String, String>,
    pub common_annotations: BTreeMap<String, String>,
    pub patches: Vec<Patch>,
    pub patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    pub patches_json: Vec<Patch>,
    pub images: Vec<Image>,
    pub image_tags: Vec<Image>,
    pub replicas: Vec<Replica>,
    pub config_map_generator: Vec<Generator>,
    pub secret_generator: Vec<Generator>,
    pub generator_options: Options,
    pub sort_options: Option<SortOptions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Label {
    pub pairs: BTreeMap<String, String>,
    pub include_selectors: bool,
    pub include_templates: bool,
    pub fields: Vec<FieldSpec>,
}

/// A place that a person names.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FieldSpec {
    pub path: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub create: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Patch {
    pub path: String,
    pub patch: String,
    pub target: Option<Selector>,
    pub options: PatchOptions,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PatchOptions {
    pub allow_name_change: bool,
    pub allow_kind_change: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selector {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub label_selector: String,
    pub annotation_selector: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Image {
    pub name: String,
    pub new_name: String,
    pub new_tag: String,
    pub tag_suffix: String,
    pub digest: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Replica {
    pub name: String,
    pub count: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Generator {
    pub name: String,
    pub namespace: String,
    pub behavior: Behavior,
    pub literals: Vec<String>,
    pub files: Vec<String>,
    pub envs: Vec<String>,
    pub env: String,
    /// Of a Secret.
    #[serde(rename = "type")]
    pub of_type: String,
    pub options: Options,
}

/// What a generated object does with one that is there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Behavior {
    #[default]
    #[serde(alias = "unspecified", alias = "")]
    Create,
    Replace,
    Merge,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub disable_name_suffix_hash: bool,
    pub immutable: bool,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SortOptions {
    pub order: String,
    pub legacy_sort_options: LegacySort,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LegacySort {
    pub order_first: Vec<String>,
    pub order_last: Vec<String>,
}

impl Kustomization {
    /// Reads the file of a directory.
    pub fn load(directory: &Path) -> Result<Kustomization> {
        let shown = directory.display();
        let found: Vec<&str> = NAMES.into_iter().filter(|name| directory.join(name).is_file()).collect();
        let name = match found.as_slice() {
            [name] => *name,
            [] => bail!(
                "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{shown}'"
            ),
            _ => bail!("Found multiple kustomization files under: {shown}"),
        };
        let text = read_file(&directory.join(name))?;
        let context = || format!("invalid Kustomization {}", directory.join(name).display());
        let mut documents = yaml::documents(&text, Limits::default()).with_context(context)?;
        if documents.len() > 1 {
            bail!("{}: expected one document, found {}", context(), documents.len());
        }
        let document = documents.pop().unwrap_or_default();
        Kustomization::parse(document).with_context(context)
    }

    fn parse(mut document: Value) -> Result<Kustomization> {
        remove_nulls(&mut document);
        let fields = document.as_object().cloned().unwrap_or_default();
        if let Some(refused) = REFUSED.into_iter().find(|name| fields.contains_key(*name)) {
            bail!("{refused} is not done here; build with `kubectl kustomize` and pass the result to -f -");
        }
        if fields.keys().all(|key| matches!(key.as_str(), "apiVersion" | "kind")) {
            bail!("kustomization.yaml is empty");
        }
        for (old, new) in OLD.into_iter().filter(|(old, _)| fields.contains_key(*old)) {
            eprintln!(
                "# Warning: '{old}' is deprecated. Please use '{new}' instead. Run 'kustomize edit fix' to update your Kustomization automatically."
            );
        }
        let mut read: Kustomization = serde_json::from_value(document).map_err(|error| {
            // serde names fields in its own quotes
            anyhow::anyhow!("{}", error.to_string().replace('`', "\""))
        })?;
        let is_component = read.is_component();
        if !matches!(read.kind.as_str(), "" | "Kustomization" | "Component") {
            bail!("kind should be Kustomization or Component");
        }
        let version = if is_component { "kustomize.config.k8s.io/v1alpha1" } else { "kustomize.config.k8s.io/v1beta1" };
        if !read.api_version.is_empty() && read.api_version != version {
            bail!("apiVersion for {} should be {version}", if is_component { "Component" } else { "Kustomization" });
        }
        read.resources.append(&mut read.bases);
        read.images.append(&mut read.image_tags);
        Ok(read)
    }

    /// Whether it changes what the directory that names it has.
    pub fn is_component(&self) -> bool {
        self.kind == "Component"
    }
}

/// A field without a value is as if it were not there.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}
