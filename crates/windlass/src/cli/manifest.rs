//! `-f` and `-k`: objects from files, directories, standard input and kustomizations.
//!
//! Rules
//!   R1 source      a file; a directory's `.yaml`, `.yml` and `.json` files in order of name (`-R`: below it too); `-`
//!   R2 documents   a file holds one or more YAML documents or JSON; empty ones are left out
//!   R3 list        an object whose kind ends in `List` is its items
//!   R4 identity    every object says its apiVersion, kind and name (or generateName)
//! Not here         URLs: fetch the file first

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::Value;
use windlass_api::codec::{Limits, yaml};

use super::get::all_said;
use super::kustomize;

/// Bytes that one file may have.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Files that a directory may bring.
const FILES_MAX: usize = 10_000;

/// Where objects come from.
#[derive(Args, Debug, Clone, Default)]
pub struct FileFlags {
    /// A file, a directory, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE")]
    pub files: Vec<String>,
    /// Directories with all that is below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// A directory with a kustomization
    #[arg(short = 'k', long, value_name = "DIRECTORY", conflicts_with = "files")]
    pub kustomize: Option<String>,
}

/// An object and where it was read.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The object.
    pub object: Value,
    /// `STDIN` or the file.
    pub origin: String,
}

impl FileFlags {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.kustomize.is_none()
    }

    /// Reads all objects.
    pub fn read(&self) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        if let Some(directory) = &self.kustomize {
            for object in kustomize::build(Path::new(directory))? {
                manifests.push(identified(object, directory)?);
            }
        }
        for file in self.files.iter().flat_map(|file| file.split(',')) {
            if file == "-" {
                let mut text = String::new();
                let mut input = std::io::stdin().lock().take(FILE_BYTES_MAX);
                input.read_to_string(&mut text).context("could not read standard input")?;
                add(&text, "STDIN", &mut manifests)?;
            } else if file.starts_with("http://") || file.starts_with("https://") {
                bail!("{file}: URLs are not fetched; download the file and pass its path, or pipe it to -f -");
            } else {
                for path in self.paths(Path::new(file))? {
                    let name = path.display().to_string();
                    add(&read_file(&path)?, &name, &mut manifests)?;
                }
            }
        }
        Ok(manifests)
    }

    /// Does something with each object that is wanted. One failure does not keep the others from it; `verb` is what is
    /// done.
    pub async fn each(
        &self,
        verb: &str,
        is_wanted: impl Fn(&Manifest) -> bool,
        work: impl AsyncFn(&Manifest) -> Result<()>,
    ) -> Result<()> {
        if self.is_empty() {
            bail!("must specify one of -f (a file, a directory or - for standard input) and -k (a directory)");
        }
        let mut manifests = self.read()?;
        manifests.retain(is_wanted);
        if manifests.is_empty() {
            bail!("no objects passed to {verb}");
        }
        let mut failed = Vec::new();
        for manifest in &manifests {
            if let Err(error) = work(manifest).await {
                failed.push(error);
            }
        }
        all_said(failed)
    }

    /// R1.
    fn paths(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let found =
            fs::metadata(path).map_err(|_| anyhow!("the path {:?} does not exist", path.display().to_string()))?;
        if !found.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        let mut paths = Vec::new();
        walk(path, self.recursive, &mut paths)?;
        if paths.is_empty() {
            bail!("error reading [{}]: recognized file extensions are [.json .yaml .yml]", path.display());
        }
        Ok(paths)
    }
}

fn walk(directory: &Path, recursive: bool, paths: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("could not read {}", directory.display());
    let entries = fs::read_dir(directory).with_context(context)?;
    let mut entries: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().with_context(context)?;
    entries.sort();
    for path in entries {
        // a link to a directory could lead round in a circle
        if path.is_dir() && !path.is_symlink() {
            if recursive {
                walk(&path, recursive, paths)?;
            }
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            if paths.len() == FILES_MAX {
                bail!("{}: expected at most {FILES_MAX} files, found more", directory.display());
            }
            paths.push(path);
        }
    }
    Ok(())
}

/// What a file holds, if it is not too large.
pub fn read_file(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?).with_context(|| format!("could not read {}", path.display()))
}

/// The same for what need not be text.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let context = || format!("could not read {}", path.display());
    let file = fs::File::open(path).with_context(context)?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(context)?;
    if read as u64 > FILE_BYTES_MAX {
        bail!("{}: expected a file of at most {FILE_BYTES_MAX} bytes, found more", path.display());
    }
    Ok(bytes)
}

/// The objects of a text.
pub fn read_text(text: &str, origin: &str) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    add(text, origin, &mut manifests)?;
    Ok(manifests)
}

/// R2 to R4.
fn add(text: &str, origin: &str, manifests: &mut Vec<Manifest>) -> Result<()> {
    let documents =
        yaml::documents(text, Limits::default()).map_err(|error| anyhow!("error parsing {origin}: {error}"))?;
    for document in documents {
        let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match document {
            Value::Object(mut list) if is_list && list.get("items").is_some_and(Value::is_array) => {
                let Some(Value::Array(items)) = list.remove("items") else { continue };
                for item in items {
                    manifests.push(identified(item, origin)?);
                }
            }
            object => manifests.push(identified(object, origin)?),
        }
    }
    Ok(())
}

/// R4.
fn identified(object: Value, origin: &str) -> Result<Manifest> {
    for (field, what) in [("apiVersion", "apiVersion not set"), ("kind", "Object 'Kind' is missing")] {
        if object[field].as_str().is_none_or(str::is_empty) {
            bail!("error when reading {origin}: {what} in {}", cut(&object));
        }
    }
    let metadata = &object["metadata"];
    if metadata["name"].as_str().or(metadata["generateName"].as_str()).is_none_or(str::is_empty) {
        bail!("error when retrieving {origin}: resource name may not be empty in {}", cut(&object));
    }
    Ok(Manifest { object, origin: origin.to_owned() })
}

pub fn cut(object: &Value) -> String {
    const SHOWN_CHARS_MAX: usize = 200;
    object.to_string().chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::{FileFlags, add};

    fn check(text: &str, expected: &str) {
        let mut manifests = Vec::new();
        let shown = match add(text, "x.yaml", &mut manifests) {
            Ok(()) => manifests
                .iter()
                .filter_map(|found| found.object["metadata"]["name"].as_str())
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        };
        assert!(shown.contains(expected), "{text}: {shown}");
    }

    #[test]
    fn r1_a_directory_is_its_files_in_order() {
        let directory = std::env::temp_dir().join(format!("windlass-manifests-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("below")).expect("a directory");
        for (name, object) in [("b.yaml", "b"), ("a.json", "a"), ("c.txt", "c"), ("below/d.yml", "d")] {
            let text =
                format!("{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"{object}\"}}}}");
            std::fs::write(directory.join(name), text).expect("a file");
        }
        let names = |recursive| {
            let flags = FileFlags { files: vec![directory.display().to_string()], recursive, ..FileFlags::default() };
            let found = flags.read().expect("manifests");
            found.iter().filter_map(|found| found.object["metadata"]["name"].as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((names(false).as_str(), names(true).as_str()), ("a b", "a b d"));
        std::fs::remove_dir_all(&directory).expect("our own directory");
        let gone = FileFlags { files: vec![directory.display().to_string()], ..FileFlags::default() };
        assert!(gone.read().expect_err("gone").to_string().contains("does not exist"));
    }

    #[test]
    fn r3_a_list_is_its_items() {
        let pod = |name: &str| format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}}}");
        check(
            &format!("apiVersion: v1\nkind: List\nitems:\n- {}\n- {}\n---\n{}\n", pod("a"), pod("b"), pod("c")),
            "a b c",
        );
    }

    #[test]
    fn r4_an_object_says_what_it_is() {
        check("kind: Pod\nmetadata: {name: a}\n", "apiVersion not set");
        check("apiVersion: v1\nmetadata: {name: a}\n", "'Kind' is missing");
        check("apiVersion: v1\nkind: Pod\n", "name may not be empty");
        check("a: [1\n", "error parsing x.yaml");
    }
}
