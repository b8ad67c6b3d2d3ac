//! ConfigMaps and Secrets that are made of files, lines and words.
//!
//! Rules
//!   G1 sources    lines of files (`envs`), then words (`literals`), then whole files; a key comes once
//!   G2 bytes      a ConfigMap's text is `data`, what is not UTF-8 `binaryData`; a Secret's is base64, in lines of 70
//!   G3 behavior   an object that is there is replaced or merged with if that is said, and refused if not
//!   G4 hash       the name ends in what kind and content hash to, unless that is turned off

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::file::{Behavior, Generator, Kustomization, Options};
use super::resource::{Resource, Resources};
use super::tree;
use crate::cli::manifest::read_bytes;

/// Characters of a hash in a name.
const HASH_CHARS: usize = 10;
/// Characters of base64 in a line.
const BASE64_LINE: usize = 70;

/// Adds what a kustomization generates.
pub fn run(resources: &mut Resources, root: &Path, file: &Kustomization) -> Result<()> {
    let maps = file.config_map_generator.iter().map(|generator| ("ConfigMap", generator));
    let secrets = file.secret_generator.iter().map(|generator| ("Secret", generator));
    for (kind, generator) in maps.chain(secrets) {
        let options = options(&generator.options, &file.generator_options);
        let made = make(kind, generator, &options, root).with_context(|| format!("{kind} {:?}", generator.name))?;
        absorb(resources, made, generator.behavior)?;
    }
    Ok(())
}

/// An object's own options count before those of all.
fn options(own: &Options, all: &Options) -> Options {
    let merged = |own: &BTreeMap<String, String>, all: &BTreeMap<String, String>| {
        let mut merged = all.clone();
        merged.extend(own.clone());
        merged
    };
    Options {
        labels: merged(&own.labels, &all.labels),
        annotations: merged(&own.annotations, &all.annotations),
        disable_name_suffix_hash: own.disable_name_suffix_hash || all.disable_name_suffix_hash,
        immutable: own.immutable || all.immutable,
    }
}

fn make(kind: &str, generator: &Generator, options: &Options, root: &Path) -> Result<Resource> {
    if generator.name.is_empty() {
        bail!("a configmap must have a name");
    }
    if kind == "ConfigMap" && !generator.of_type.is_empty() {
        bail!("unknown field \"type\": a ConfigMap has none");
    }
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": generator.name}});
    if !generator.namespace.is_empty() {
        object["metadata"]["namespace"] = json!(generator.namespace);
    }
    let pairs = pairs(generator, root)?;
    if kind == "Secret" {
        object["type"] = json!(if generator.of_type.is_empty() { "Opaque" } else { &generator.of_type });
        object["data"] = json!({});
    }
    for (key, bytes) in pairs {
        match String::from_utf8(bytes) {
            Ok(text) if kind == "ConfigMap" => object["data"][key] = json!(text),
            Ok(text) => object["data"][key] = json!(encoded(text.as_bytes())),
            Err(error) => {
                let field = if kind == "ConfigMap" { "binaryData" } else { "data" };
                object[field][key] = json!(encoded(error.as_bytes()));
            }
        }
    }
    for (field, marks) in [("labels", &options.labels), ("annotations", &options.annotations)] {
        if !marks.is_empty() {
            object["metadata"][field] = json!(marks);
        }
    }
    if options.immutable {
        object["immutable"] = json!(true);
    }
    Ok(Resource { wants_hash: !options.disable_name_suffix_hash, ..Resource::new(object) })
}

/// G1.
fn pairs(generator: &Generator, root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let last = Some(&generator.env).filter(|env| !env.is_empty());
    for path in generator.envs.iter().chain(last) {
        for line in tree::text(root, path)?.trim_start_matches('\u{feff}').lines() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            found.push((key.to_owned(), value.into()));
        }
    }
    for literal in &generator.literals {
        match literal.split_once('=') {
            Some((key, value)) if !key.is_empty() => found.push((key.to_owned(), unquoted(value).into())),
            _ => bail!("invalid literal source {literal}, expected key=value"),
        }
    }
    for source in &generator.files {
        let (key, path) = match source.split('=').collect::<Vec<_>>().as_slice() {
            [path] => (path.rsplit('/').next().unwrap_or(path), *path),
            ["", path] => bail!("missing key name for file path {path:?} in source {source:?}"),
            [key, ""] => bail!("missing file path for key name {key:?} in source {source:?}"),
            [key, path] => (*key, *path),
            _ => bail!("source {source:?} key name or file path contains '='"),
        };
        let path = tree::file(root, path)?;
        let bytes = read_bytes(&path)?;
        found.push((key.to_owned(), bytes));
    }
    let mut pairs = BTreeMap::new();
    for (key, value) in found {
        let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if key.is_empty() || !key.chars().all(is_key) {
            bail!("{key:?} is not a valid key name: expected letters, digits, '-', '_' or '.'");
        }
        if pairs.insert(key.clone(), value).is_some() {
            bail!("configmap {} illegally repeats the key `{key}`", generator.name);
        }
    }
    Ok(pairs)
}

fn unquoted(text: &str) -> &str {
    let between = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    between('"').or_else(|| between('\'')).unwrap_or(text)
}

/// G2.
fn encoded(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    if text.len() < BASE64_LINE {
        return text;
    }
    let mut lines = String::with_capacity(text.len() + text.len() / BASE64_LINE + 1);
    for line in text.as_bytes().chunks(BASE64_LINE) {
        lines.extend(line.iter().copied().map(char::from));
        lines.push('\n');
    }
    lines
}

/// G3.
fn absorb(resources: &mut Resources, mut made: Resource, behavior: Behavior) -> Result<()> {
    let id = made.id();
    let index = match resources.find(|other| *other == id).as_slice() {
        [] if behavior == Behavior::Create => return resources.append(made),
        [] => bail!("id {id} does not exist; cannot merge or replace"),
        [_] if behavior == Behavior::Create => {
            bail!("id {id} exists; can not use behavior: 'create', behavior must be merge or replace")
        }
        [index] => *index,
        _ => bail!("found multiple objects that could accept merge of {id}"),
    };
    let old = &resources.all[index];
    let fields: &[&str] = if behavior == Behavior::Merge { &["data", "binaryData"] } else { &[] };
    for field in fields {
        merge_under(&mut made.object, field, &old.object);
    }
    for field in ["labels", "annotations"] {
        merge_under(&mut made.object["metadata"], field, &old.object["metadata"]);
    }
    made.set_name(old.name().to_owned());
    made.set_namespace(old.namespace());
    made.previous.clone_from(&old.previous);
    made.prefixes.clone_from(&old.prefixes);
    made.suffixes.clone_from(&old.suffixes);
    resources.all[index] = made;
    Ok(())
}

/// Adds entries of a field that are not there. The field is made only if there are some to add to it.
fn merge_under(object: &mut Value, field: &str, under: &Value) {
    let Some(under) = under[field].as_object() else { return };
    let map = &mut object[field];
    if !map.is_object() {
        *map = Value::Object(Map::new());
    }
    if let Some(map) = map.as_object_mut() {
        for (key, value) in under {
            map.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// G4.
pub fn add_hashes(resources: &mut Resources) {
    for resource in resources.all.iter_mut().filter(|resource| resource.wants_hash) {
        let hash = hash(&resource.object);
        resource.remember();
        resource.set_name(format!("{}-{hash}", resource.name()));
    }
}

/// What is hashed is JSON as Go writes it, and the hash is spelled without letters that make words.
fn hash(object: &Value) -> String {
    let or_empty = |value: &Value| if value.is_null() { json!("") } else { value.clone() };
    let mut content = BTreeMap::from([
        ("kind", object["kind"].clone()),
        // kustomize looks the name up where it is not, and the hashes of all its users depend on it.
        ("name", json!("")),
        ("data", or_empty(&object["data"])),
    ]);
    if object["kind"] == "Secret" {
        content.insert("type", or_empty(&object["type"]));
    }
    for field in ["binaryData", "stringData"] {
        let counts = field == "binaryData" && object["kind"] == "ConfigMap"
            || field == "stringData" && object["kind"] == "Secret";
        if counts && object[field].is_object() {
            content.insert(field, object[field].clone());
        }
    }
    let text = serde_json::to_string(&content).expect("a tree with string keys always serialises");
    let escaped =
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")]
            .into_iter()
            .fold(text, |text, (from, to)| text.replace(from, to));
    let digest = Sha256::digest(escaped);
    let hex = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(HASH_CHARS);
    hex.map(|nibble| match nibble {
        0 => 'g',
        1 => 'h',
        3 => 'k',
        10 => 'm',
        14 => 't',
        other => char::from_digit(u32::from(other), 16).expect("a nibble is a hex digit"),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{encoded, hash, unquoted};
    use serde_json::{Value, json};

    /// Facts of kustomize's own tests.
    #[test]
    fn g4_a_hash_is_that_of_kustomize() {
        let map = |data: Value| json!({"kind": "ConfigMap", "metadata": {"name": "any"}, "data": data});
        assert_eq!(hash(&map(Value::Null)), "6ct58987ht");
        assert_eq!(hash(&map(json!({"one": ""}))), "9g67k2htb6");
        assert_eq!(hash(&json!({"kind": "ConfigMap", "binaryData": {"one": ""}})), "6mtk2m274t");
    }

    #[test]
    fn g1_quotes_around_a_word_go() {
        assert_eq!(
            (unquoted("\"a b\""), unquoted("'a'"), unquoted("'a\""), unquoted("\"")),
            ("a b", "a", "'a\"", "\"")
        );
    }

    #[test]
    fn g2_long_base64_has_lines() {
        assert_eq!(encoded(b"abc"), "YWJj");
        let long = encoded(&[0; 100]);
        assert_eq!(long.lines().map(str::len).collect::<Vec<_>>(), [70, 66]);
        assert!(long.ends_with('\n'));
    }
}
