//! What the server serves, and which kind a word means.
//!
//! Rules, in order
//!   R1 exact      `deployments.v1.apps`, `deployments.apps`: plural (or another name), version, group
//!   R2 name       a plural, a singular, a short name or a kind, in any case; the first group that has it wins, the core
//!                 group first
//!   R3 category   a word such as `all` means every kind that says it belongs to it
//! Not here        a cache on disk: two requests ask for everything
//! Source: API concepts, "Aggregated discovery"

use std::borrow::Cow;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use windlass_api::Kind;
use windlass_api::discovery::AGGREGATED_MEDIA_TYPE;

use super::manifest::Manifest;

/// One kind as it is served.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// Its identity and where it is.
    pub kind: Kind,
    /// Lower-case singular.
    pub singular: String,
    /// Such as `deploy`.
    pub short_names: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
    /// What may be done.
    pub verbs: Vec<String>,
    /// Its parts: `status`, `scale`.
    pub subresources: Vec<String>,
}

/// All that is served, the core group first.
#[derive(Debug, Default)]
pub struct Discovery {
    served: Vec<Served>,
}

/// The form of discovery that is asked for; a server that does not know it answers with plain JSON.
pub fn accept() -> String {
    format!("{AGGREGATED_MEDIA_TYPE},application/json")
}

impl Discovery {
    /// Reads the answers of `/api` and `/apis`.
    pub fn read(core: &Value, groups: &Value) -> Result<Discovery> {
        let mut discovery = Discovery::default();
        for document in [core, groups] {
            if document["kind"] != "APIGroupDiscoveryList" {
                bail!("expected aggregated discovery (Kubernetes 1.27 or later), found {}", document["kind"]);
            }
            for group in document["items"].as_array().into_iter().flatten() {
                discovery.add_group(group);
            }
        }
        Ok(discovery)
    }

    fn add_group(&mut self, group: &Value) {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().into_iter().flatten() {
            for resource in version["resources"].as_array().into_iter().flatten() {
                let version = version["version"].as_str().unwrap_or_default();
                self.served.extend(read_resource(name, version, resource));
            }
        }
    }

    /// The kinds that a word means: one, or those of a category.
    pub fn find_all(&self, word: &str) -> Result<Vec<&Served>> {
        if let Some(found) = self.find(word) {
            return Ok(vec![found]);
        }
        let category = word.to_lowercase();
        let found: Vec<&Served> = self.preferred().filter(|served| served.categories.contains(&category)).collect();
        if found.is_empty() {
            bail!("the server doesn't have a resource type {word:?}");
        }
        Ok(found)
    }

    /// The kind that a word means, categories left out.
    pub fn find_one(&self, word: &str) -> Result<&Served> {
        match self.find(word) {
            Some(found) => Ok(found),
            None => bail!("the server doesn't have a resource type {word:?}"),
        }
    }

    fn find(&self, word: &str) -> Option<&Served> {
        let lower = word.to_lowercase();
        // R1, the longest reading first: name.version.group, then name.group
        if let Some((name, rest)) = lower.split_once('.') {
            if let Some((version, group)) = rest.split_once('.')
                && let Some(found) = self.named(name, |kind| kind.version == version && kind.group == group)
            {
                return Some(found);
            }
            return self.named(name, |kind| kind.group == rest || (kind.group.is_empty() && kind.version == rest));
        }
        self.named(&lower, |_| true)
    }

    /// R2: full names before short ones.
    fn named(&self, name: &str, fits: impl Fn(&Kind) -> bool) -> Option<&Served> {
        let all = || self.served.iter().filter(|served| fits(&served.kind));
        all()
            .find(|served| served.kind.plural == name || served.singular == name)
            .or_else(|| all().find(|served| served.short_names.iter().any(|short| short == name)))
            .or_else(|| all().find(|served| served.kind.kind.to_lowercase() == name))
    }

    /// The kind that a manifest names.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Result<&Served> {
        let found =
            self.served.iter().find(|served| served.kind.kind == kind && served.kind.api_version() == api_version);
        match found {
            Some(found) => Ok(found),
            None => bail!("no matches for kind {kind:?} in version {api_version:?}"),
        }
    }

    /// The kind of a manifest.
    pub fn of_manifest(&self, manifest: &Manifest) -> Result<&Served> {
        let text = |key: &str| manifest.object[key].as_str().unwrap_or_default();
        self.find_kind(text("apiVersion"), text("kind")).map_err(|error| {
            let text = |key: &str| manifest.object["metadata"][key].as_str().unwrap_or_default();
            let (name, namespace, origin) = (text("name"), text("namespace"), &manifest.origin);
            anyhow!("resource mapping not found for name: {name:?} namespace: {namespace:?} from {origin:?}: {error}\nensure CRDs are installed first")
        })
    }

    /// The kind of this name, whatever its group and version.
    pub fn of_kind(&self, kind: &str, group: &str) -> Option<&Served> {
        self.served.iter().find(|served| served.kind.kind == kind && served.kind.group == group)
    }

    /// Every kind once, in the version the server prefers.
    pub fn preferred(&self) -> impl Iterator<Item = &Served> {
        self.served.iter().enumerate().filter_map(|(index, served)| {
            let same = |other: &Served| other.kind.group == served.kind.group && other.kind.kind == served.kind.kind;
            (!self.served[..index].iter().any(same)).then_some(served)
        })
    }
}

impl Served {
    /// Whether it has this part.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|known| known == subresource)
    }

    /// `deployment.apps`: how messages and names say what something is.
    pub fn qualified(&self) -> String {
        super::output::object::qualified(&self.kind.kind, &self.kind.group)
    }
}

fn read_resource(group: &str, version: &str, resource: &Value) -> Option<Served> {
    let plural = resource["resource"].as_str()?.to_owned();
    // A subresource may stand without its parent; then there is nothing to list.
    let kind = resource["responseKind"]["kind"].as_str().filter(|kind| !kind.is_empty())?.to_owned();
    let texts = |key: &str| -> Vec<String> {
        resource[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let parts = resource["subresources"].as_array().into_iter().flatten();
    Some(Served {
        singular: match resource["singularResource"].as_str() {
            Some(singular) if !singular.is_empty() => singular.to_owned(),
            _ => kind.to_lowercase(),
        },
        kind: Kind {
            group: Cow::Owned(group.to_owned()),
            version: Cow::Owned(version.to_owned()),
            kind: Cow::Owned(kind),
            plural: Cow::Owned(plural),
            namespaced: resource["scope"] == "Namespaced",
        },
        short_names: texts("shortNames"),
        categories: texts("categories"),
        verbs: texts("verbs"),
        subresources: parts.filter_map(|part| part["subresource"].as_str()).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
pub mod tests {
    use super::Discovery;
    use windlass_api::discovery::{aggregated_core, aggregated_groups};
    use windlass_api::resources;

    /// What our own server serves.
    pub fn built_in() -> Discovery {
        let registry = resources::registry();
        Discovery::read(&aggregated_core(&registry), &aggregated_groups(&registry)).expect("discovery")
    }

    fn check(word: &str, expected: &str) {
        let discovery = built_in();
        let found: Vec<String> = match discovery.find_all(word) {
            Ok(found) => found.iter().map(|served| served.kind.qualified_plural()).collect(),
            Err(error) => vec![error.to_string()],
        };
        assert_eq!(found.join(" "), expected, "{word}");
    }

    #[test]
    fn r1_group_and_version_may_be_said() {
        check("deployments.v1.apps", "deployments.apps");
        check("deploy.apps", "deployments.apps");
        check("pods.v1", "pods");
        check("deployments.v9.apps", "the server doesn't have a resource type \"deployments.v9.apps\"");
    }

    #[test]
    fn r2_a_kind_goes_by_all_its_names() {
        for word in ["deployments", "deployment", "deploy", "Deployment"] {
            check(word, "deployments.apps");
        }
        check("po", "pods");
        check("svc", "services");
        check("nothing", "the server doesn't have a resource type \"nothing\"");
    }

    #[test]
    fn r3_a_category_is_many_kinds() {
        let discovery = built_in();
        let found = discovery.find_all("all").expect("a category");
        let plurals: Vec<&str> = found.iter().map(|served| &*served.kind.plural).collect();
        assert!(plurals.contains(&"pods") && plurals.contains(&"deployments"), "{plurals:?}");
        assert!(!plurals.contains(&"configmaps"), "{plurals:?}");
    }

    #[test]
    fn a_plain_list_is_not_taken_for_discovery() {
        let plain = serde_json::json!({"kind": "APIVersions"});
        assert!(Discovery::read(&plain, &plain).is_err());
    }
}
