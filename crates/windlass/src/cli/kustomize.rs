//! `windlass kustomize`, and `-k` of every verb: a directory with a kustomization becomes objects, as `kubectl kustomize`
//! makes them.
//!
//! Rules
//!   R1 tree       resources and bases, then generated objects, then components, then patches and the other changes; each
//!                 directory is done before the one that names it (`tree`)
//!   R2 last       when all is there, generated objects get the hash of what they hold, and every name that is referred to
//!                 follows (`generate`, `reference`)
//!   R3 refused    what we do not do is refused by its name, never passed over (`file`)
//!   R4 here       nothing is fetched; files lie in or below the directory that names them
//! Source: Kubernetes docs, "Declarative Management of Kubernetes Objects Using Kustomize"; kustomize 5.8
//! Not here        replacements, vars, crds, configurations, plug-ins, Helm charts, remote bases

mod file;
mod generate;
mod merge;
mod order;
mod patch;
mod place;
mod reference;
mod resource;
mod transform;
mod tree;

use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::output::{escape, yaml};

/// `windlass kustomize`.
#[derive(Args)]
pub struct KustomizeFlags {
    /// The directory
    #[arg(value_name = "DIRECTORY", default_value = ".")]
    pub directory: String,
    /// Write it to this file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<String>,
}

/// Does it.
pub fn run(flags: &KustomizeFlags) -> Result<()> {
    let objects = build(Path::new(&flags.directory))?;
    let documents: Vec<String> = objects.iter().map(yaml::print).collect();
    let text = documents.join("---\n");
    match &flags.output {
        Some(file) => std::fs::write(file, text).with_context(|| format!("could not write {file}"))?,
        None => print!("{}", escape::text(&text)),
    }
    Ok(())
}

/// The objects of a kustomization, in the order in which they are to be applied.
pub fn build(directory: &Path) -> Result<Vec<Value>> {
    let (mut resources, sort) = tree::read(directory)?;
    generate::add_hashes(&mut resources);
    reference::follow(&mut resources)?;
    resources.all.retain(|resource| !resource.is_local());
    order::sort(&mut resources.all, sort.as_ref())?;
    Ok(resources.all.into_iter().map(|resource| resource.object).collect())
}

#[cfg(test)]
mod tests {
    use super::build;
    use crate::cli::output::yaml;
    use std::path::PathBuf;

    /// A directory that goes with the test.
    struct Room(PathBuf);

    impl Room {
        fn new(name: &str, files: &[(&str, &str)]) -> Room {
            let room = std::env::temp_dir().join(format!("windlass-kustomize-{}-{name}", std::process::id()));
            for (file, text) in files {
                let path = room.join(file);
                std::fs::create_dir_all(path.parent().expect("in the room")).expect("a directory");
                std::fs::write(path, text).expect("a file");
            }
            Room(room)
        }

        fn build(&self, directory: &str) -> String {
            match build(&self.0.join(directory)) {
                Ok(objects) => objects.iter().map(yaml::print).collect::<Vec<_>>().join("---\n"),
                Err(error) => format!("{error:#}").replace(&self.0.display().to_string(), "ROOM"),
            }
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("the test's own directory");
        }
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: main, image: nginx, envFrom: [{configMapRef: {name: conf}}]}]\n";

    #[test]
    fn r1_and_r2_an_overlay_changes_a_base_and_names_follow() {
        let room = Room::new(
            "tree",
            &[
                (
                    "base/kustomization.yaml",
                    "resources: [pod.yaml]\nconfigMapGenerator:\n- {name: conf, literals: [a=1]}\n",
                ),
                ("base/pod.yaml", POD),
                (
                    "top/kustomization.yaml",
                    "resources: [../base]\nnamePrefix: my-\nnamespace: team\nimages: [{name: nginx, newTag: \"2\"}]\n",
                ),
            ],
        );
        let expected = "apiVersion: v1\ndata:\n  a: \"1\"\nkind: ConfigMap\nmetadata:\n  name: my-conf-";
        let built = room.build("top");
        assert!(built.starts_with(expected), "{built}");
        let name = built.lines().find_map(|line| line.strip_prefix("  name: ")).expect("a name");
        assert!(built.contains(&format!("configMapRef:\n        name: {name}\n    image: nginx:2")), "{built}");
        assert!(built.contains("  name: my-web\n  namespace: team\n"), "{built}");
    }

    #[test]
    fn r3_what_is_not_done_is_refused_by_name() {
        let refused = |text: &str, expected: &str| {
            let room = Room::new("refused", &[("kustomization.yaml", text)]);
            let built = room.build("");
            assert!(built.contains(expected), "{text}: {built}");
        };
        refused("vars: [{name: A}]\n", "vars is not done here");
        refused("helmCharts: [{name: a}]\n", "helmCharts");
        refused("resorces: [a.yaml]\n", "unknown field \"resorces\"");
        refused("{}\n", "kustomization.yaml is empty");
        refused("kind: Deployment\nresources: [a]\n", "kind should be Kustomization or Component");
        refused("images: [{name: a, newTag: 1.5}]\n", "expected a string");
    }

    #[test]
    fn r4_files_lie_below_their_directory_and_nothing_is_fetched() {
        let room = Room::new(
            "here",
            &[
                ("up.yaml", POD),
                ("in/kustomization.yaml", "resources: [../up.yaml]\n"),
                ("far/kustomization.yaml", "resources: ['https://example.com/a.yaml']\n"),
                ("round/kustomization.yaml", "resources: [../round]\n"),
                ("none/other.yaml", POD),
            ],
        );
        assert!(room.build("in").contains("is not in or below"), "{}", room.build("in"));
        assert!(room.build("far").contains("not fetched"), "{}", room.build("far"));
        assert!(room.build("round").contains("cycle"), "{}", room.build("round"));
        assert!(room.build("none").contains("unable to find one of 'kustomization.yaml'"), "{}", room.build("none"));
    }
}
