//! What the pods of each node name: the Secrets, ConfigMaps, claims and accounts that its agent may therefore read.
//!
//! Guarantees  as large as the pods that are bound; a change of a pod's status costs nothing, but for those that wait for
//!             their claims of devices

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use windlass_api::device::{ClaimName, claims_of};
use windlass_store::Entry;

use crate::follow::Picture;
use crate::server::header;
use crate::write::{text, tree};

/// Who names what.
#[derive(Default)]
pub(crate) struct Graph {
    /// By their keys in the store.
    pods: BTreeMap<String, Pod>,
    /// For each thing that is named, the nodes whose pods name it, and how many do.
    named: BTreeMap<String, BTreeMap<String, usize>>,
    /// By the keys of PersistentVolumes that a claim has.
    volumes: BTreeMap<String, Volume>,
    /// For each Secret, the volumes that name it.
    volumes_of: BTreeMap<String, BTreeSet<String>>,
}

/// A PersistentVolume: whose it is, and which Secrets it takes to use it.
struct Volume {
    claim: String,
    secrets: BTreeSet<String>,
}

struct Pod {
    uid: String,
    node: String,
    generation: i64,
    things: BTreeSet<String>,
    /// Claims will be made for it that its status does not name yet.
    waits: bool,
}

impl Graph {
    /// Whether a pod of this node names this thing, or a volume that a pod of it has.
    pub fn names(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
        if resource == "persistentvolumes" {
            return self.has_volume(node, &format!("{VOLUMES}{name}"));
        }
        let thing = thing(resource, namespace, name);
        let by_volume = || self.volumes_of.get(&thing).into_iter().flatten().any(|key| self.has_volume(node, key));
        self.is_named(node, &thing) || resource == "secrets" && by_volume()
    }

    fn is_named(&self, node: &str, thing: &str) -> bool {
        self.named.get(thing).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn has_volume(&self, node: &str, key: &str) -> bool {
        self.volumes.get(key).is_some_and(|volume| self.is_named(node, &volume.claim))
    }

    fn put_volume(&mut self, entry: &Entry) {
        self.remove_volume(entry.key());
        let tree = tree(entry);
        let claim = &tree["spec"]["claimRef"];
        let claim = thing("persistentvolumeclaims", text(claim, "namespace"), text(claim, "name"));
        let csi = &tree["spec"]["csi"];
        let references = ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"];
        let secrets: BTreeSet<String> = references
            .iter()
            .map(|field| &csi[*field])
            .filter(|secret| secret.is_object())
            .map(|secret| thing("secrets", text(secret, "namespace"), text(secret, "name")))
            .collect();
        for secret in &secrets {
            self.volumes_of.entry(secret.clone()).or_default().insert(entry.key().to_owned());
        }
        self.volumes.insert(entry.key().to_owned(), Volume { claim, secrets });
    }

    fn remove_volume(&mut self, key: &str) {
        let Some(volume) = self.volumes.remove(key) else { return };
        for secret in volume.secrets {
            if let Some(volumes) = self.volumes_of.get_mut(&secret) {
                volumes.remove(key);
                if volumes.is_empty() {
                    self.volumes_of.remove(&secret);
                }
            }
        }
    }
}

/// Where PersistentVolumes lie in the store.
const VOLUMES: &str = "o/persistentvolumes/";

impl Picture for Graph {
    fn prefixes() -> &'static [&'static str] {
        &["o/pods/", VOLUMES]
    }

    fn put(&mut self, entry: &Entry) {
        if entry.key().starts_with(VOLUMES) {
            return self.put_volume(entry);
        }
        let header = header(entry);
        let is_known = |pod: &Pod| {
            pod.uid == header.uid()
                && pod.node == header.node_name()
                && pod.generation == header.generation
                && !pod.waits
        };
        // What a bound pod names changes only with its generation: when it gets another ephemeral container; and when claims
        // are made for it, which mostly are before it is bound.
        if self.pods.get(entry.key()).is_some_and(is_known) {
            return;
        }
        self.remove(entry.key());
        if header.node_name().is_empty() {
            return;
        }
        let tree = tree(entry);
        let things = named_by(header.namespace(), &tree);
        for thing in &things {
            *self.named.entry(thing.clone()).or_default().entry(header.node_name().to_owned()).or_default() += 1;
        }
        let generation = header.generation;
        let (uid, node) = (header.uid().to_owned(), header.node_name().to_owned());
        let waits = claims_of(&tree).iter().any(|claim| claim.claim == ClaimName::NotYet);
        let pod = Pod { uid, node, generation, things, waits };
        self.pods.insert(entry.key().to_owned(), pod);
    }

    fn remove(&mut self, key: &str) {
        if key.starts_with(VOLUMES) {
            return self.remove_volume(key);
        }
        let Some(pod) = self.pods.remove(key) else { return };
        for thing in pod.things {
            let Some(nodes) = self.named.get_mut(&thing) else { continue };
            if let Some(count) = nodes.get_mut(&pod.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&pod.node);
                }
            }
            if nodes.is_empty() {
                self.named.remove(&thing);
            }
        }
    }
}

/// No name holds a slash.
fn thing(resource: &str, namespace: &str, name: &str) -> String {
    format!("{resource}/{namespace}/{name}")
}

/// Everything in its namespace that a pod names.
fn named_by(namespace: &str, pod: &Value) -> BTreeSet<String> {
    let mut things = BTreeSet::new();
    let mut add = |resource: &str, name: &str| {
        if !name.is_empty() {
            things.insert(thing(resource, namespace, name));
        }
    };
    let spec = &pod["spec"];
    let account = text(spec, "serviceAccountName");
    add("serviceaccounts", if account.is_empty() { "default" } else { account });
    each(&spec["imagePullSecrets"], |secret| add("secrets", text(secret, "name")));
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        each(&spec[containers], |container| {
            each(&container["envFrom"], |from| {
                add("configmaps", text(&from["configMapRef"], "name"));
                add("secrets", text(&from["secretRef"], "name"));
            });
            each(&container["env"], |variable| {
                add("configmaps", text(&variable["valueFrom"]["configMapKeyRef"], "name"));
                add("secrets", text(&variable["valueFrom"]["secretKeyRef"], "name"));
            });
        });
    }
    for claim in claims_of(pod) {
        if let ClaimName::Is(name) = claim.claim {
            add("resourceclaims", &name);
        }
    }
    let pod_name = text(&pod["metadata"], "name");
    each(&spec["volumes"], |volume| {
        add("configmaps", text(&volume["configMap"], "name"));
        add("secrets", text(&volume["secret"], "secretName"));
        add("secrets", text(&volume["csi"]["nodePublishSecretRef"], "name"));
        add("persistentvolumeclaims", text(&volume["persistentVolumeClaim"], "claimName"));
        if volume["ephemeral"].is_object() {
            add("persistentvolumeclaims", &format!("{pod_name}-{}", text(volume, "name")));
        }
        each(&volume["projected"]["sources"], |source| {
            add("configmaps", text(&source["configMap"], "name"));
            add("secrets", text(&source["secret"], "name"));
        });
    });
    things
}

/// Whether a pod names something but its account.
pub(crate) fn names_objects(pod: &Value) -> bool {
    let is_token = |source: &Value| !source["serviceAccountToken"].is_null() || !source["podCertificate"].is_null();
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    sources.any(is_token) || named_by("", pod).iter().any(|thing| !thing.starts_with("serviceaccounts/"))
}

fn each(list: &Value, look: impl FnMut(&Value)) {
    list.as_array().into_iter().flatten().for_each(look);
}

#[cfg(test)]
mod tests {
    use super::named_by;
    use serde_json::json;

    #[test]
    fn everything_that_a_pod_names_is_found() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "bot", "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"envFrom": [{"configMapRef": {"name": "c1"}}, {"secretRef": {"name": "s1"}}]}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s2"}}},
                {"valueFrom": {"configMapKeyRef": {"name": "c2"}}}]}],
            "volumes": [{"secret": {"secretName": "s3"}}, {"configMap": {"name": "c3"}}, {"emptyDir": {}},
                {"projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c4"}}]}},
                {"persistentVolumeClaim": {"claimName": "d1"}}, {"name": "v", "ephemeral": {}},
                {"csi": {"nodePublishSecretRef": {"name": "s5"}}}],
            "resourceClaims": [{"name": "a", "resourceClaimName": "r1"}, {"name": "b", "resourceClaimTemplateName": "t"}]},
            "status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "p-b-x"}]}});
        let found: Vec<String> = named_by("a", &pod).into_iter().collect();
        let expected = "configmaps/a/c1 configmaps/a/c2 configmaps/a/c3 configmaps/a/c4 persistentvolumeclaims/a/d1 \
            persistentvolumeclaims/a/p-v resourceclaims/a/p-b-x resourceclaims/a/r1 secrets/a/pull secrets/a/s1 secrets/a/s2 secrets/a/s3 secrets/a/s4 secrets/a/s5 \
            serviceaccounts/a/bot";
        assert_eq!(found.join(" "), expected);
    }
}
