//! The ConfigMaps and Secrets that this node's pods name, watched one by one, and the ClusterTrustBundles while a pod names
//! any: a node reads nothing else.
//!
//! Guarantees  pods that name the same object share one watch; it ends with the last of them

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::future::select_all;
use windlass_api::resources::cluster_trust_bundle::certificates;
use windlass_api::types::core;
use windlass_api::{Object, kinds};
use windlass_client::{Cache, Client, Scope, Subscription};

use crate::steps::container::{containers_of, visitors_of};

/// How long a pod waits for the first sight of what it names before it says so.
pub const SYNC_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where the pod is known from its record only, and the API may be away.
pub const SYNC_TIMEOUT_UNHEARD: Duration = Duration::from_secs(3);

/// A ConfigMap or Secret, by kind and name; the namespace is the pod's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A ConfigMap of this name.
    ConfigMap(String),
    /// A Secret of this name.
    Secret(String),
    /// All ClusterTrustBundles.
    Trust,
}

/// The objects a pod names, as they are now; what is missing does not exist.
#[derive(Clone, Debug, Default)]
pub struct SourceView {
    /// By name.
    pub config_maps: BTreeMap<String, Arc<core::ConfigMap>>,
    /// By name.
    pub secrets: BTreeMap<String, Arc<core::Secret>>,
    /// The ClusterTrustBundles, by name.
    pub trust: Vec<Arc<Bundle>>,
}

/// Certificates that may be trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Its name.
    pub name: String,
    /// Who has signed; empty for nobody.
    pub signer: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The certificates, each as PEM.
    pub certificates: Vec<String>,
}

impl Bundle {
    fn read(object: &Object) -> Bundle {
        let spec = object.value()["spec"].take();
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        Bundle {
            name: object.header.name().to_owned(),
            signer: text("signerName"),
            labels: object.header.labels().to_map(),
            // The API has judged them.
            certificates: certificates(&text("trustBundle")).unwrap_or_default(),
        }
    }
}

/// The watches of this node. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    client: Client,
    watched: Arc<Mutex<Watched>>,
}

/// By namespace and source.
type Watched = BTreeMap<(String, Source), Weak<Cache>>;

/// One pod's share in the watches.
pub struct PodSources {
    watched: BTreeMap<Source, (Arc<Cache>, Subscription)>,
    namespace: String,
}

impl Sources {
    /// Nothing is watched yet.
    pub fn new(client: Client) -> Sources {
        Sources { client, watched: Arc::default() }
    }

    /// Begins to watch what this pod names.
    pub fn of_pod(&self, pod: &core::Pod) -> PodSources {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let mut all = self.watched.lock().expect("nothing panics while holding it");
        all.retain(|_, cache| cache.strong_count() > 0);
        let mut watched = BTreeMap::new();
        for source in named_by(pod) {
            // What the whole cluster has is watched once.
            let place = if source == Source::Trust { String::new() } else { namespace.clone() };
            let key = (place, source.clone());
            let cache = all.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
                let (kind, scope) = match &source {
                    Source::ConfigMap(name) => (&kinds::CONFIG_MAP, Scope::named(Some(&namespace), name)),
                    Source::Secret(name) => (&kinds::SECRET, Scope::named(Some(&namespace), name)),
                    Source::Trust => (&kinds::CLUSTER_TRUST_BUNDLE, Scope::all()),
                };
                Arc::new(Cache::start(self.client.clone(), kind, scope))
            });
            all.insert(key, Arc::downgrade(&cache));
            let subscription = cache.subscribe();
            watched.insert(source, (cache, subscription));
        }
        PodSources { watched, namespace }
    }
}

impl PodSources {
    /// Returns when something the pod names has changed. Cancel safe; waits for ever when it names nothing.
    pub async fn changed(&mut self) {
        if self.watched.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.watched.values_mut().map(|(_, subscription)| Box::pin(subscription.next()))).await;
        // Everything that has changed meanwhile is looked at together.
        for (_, subscription) in self.watched.values_mut() {
            while subscription.take().is_some() {}
        }
    }

    /// A look that can be taken without holding on to the pod's share: resolves when everything has been seen once.
    pub fn look(&self, patience: Duration) -> impl Future<Output = Result<SourceView, String>> + Send + 'static {
        let caches: Vec<(Source, Arc<Cache>)> =
            self.watched.iter().map(|(source, (cache, _))| (source.clone(), Arc::clone(cache))).collect();
        let namespace = self.namespace.clone();
        async move {
            let synced = async {
                for (_, cache) in &caches {
                    cache.synced().await;
                }
            };
            if tokio::time::timeout(patience, synced).await.is_err() {
                return Err("the API server has not been heard of the pod's ConfigMaps and Secrets yet".to_owned());
            }
            view_of(&caches, &namespace)
        }
    }
}

fn view_of(caches: &[(Source, Arc<Cache>)], namespace: &str) -> Result<SourceView, String> {
    let mut view = SourceView::default();
    for (source, cache) in caches {
        match source {
            Source::ConfigMap(name) => {
                let Some(object) = cache.get(namespace, name) else { continue };
                let map = object.memo(|object| object.decode::<core::ConfigMap>().map_err(|error| error.to_string()));
                let map = Result::as_ref(&map).map_err(Clone::clone)?.clone();
                view.config_maps.insert(name.clone(), Arc::new(map));
            }
            Source::Secret(name) => {
                let Some(object) = cache.get(namespace, name) else { continue };
                let secret = object.decode::<core::Secret>().map_err(|error| error.to_string())?;
                view.secrets.insert(name.clone(), Arc::new(secret));
            }
            Source::Trust => view.trust = cache.list().iter().map(|object| object.memo(Bundle::read)).collect(),
        }
    }
    Ok(view)
}

/// Everything a pod names.
fn named_by(pod: &core::Pod) -> BTreeSet<Source> {
    let mut out = BTreeSet::new();
    let Some(spec) = &pod.spec else { return out };
    for container in containers_of(spec).chain(&visitors_of(spec)) {
        named_by_container(container, &mut out);
    }
    for volume in spec.volumes.iter().flatten() {
        if let Some(map) = &volume.config_map {
            out.insert(Source::ConfigMap(map.name.clone()));
        }
        if let Some(secret) = &volume.secret {
            out.insert(Source::Secret(secret.secret_name.clone().unwrap_or_default()));
        }
        for part in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            out.extend(part.config_map.iter().map(|map| Source::ConfigMap(map.name.clone())));
            out.extend(part.secret.iter().map(|secret| Source::Secret(secret.name.clone())));
            out.extend(part.cluster_trust_bundle.iter().map(|_| Source::Trust));
        }
    }
    out.extend(spec.image_pull_secrets.iter().flatten().map(|secret| Source::Secret(secret.name.clone())));
    out.retain(|source| !matches!(source, Source::ConfigMap(name) | Source::Secret(name) if name.is_empty()));
    out
}

fn named_by_container(container: &core::Container, out: &mut BTreeSet<Source>) {
    for from in container.env_from.iter().flatten() {
        out.extend(from.config_map_ref.iter().map(|map| Source::ConfigMap(map.name.clone())));
        out.extend(from.secret_ref.iter().map(|secret| Source::Secret(secret.name.clone())));
    }
    for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        out.extend(from.config_map_key_ref.iter().map(|map| Source::ConfigMap(map.name.clone())));
        out.extend(from.secret_key_ref.iter().map(|secret| Source::Secret(secret.name.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::named_by;
    use serde_json::json;

    #[test]
    fn everything_a_pod_names_is_watched_once() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
        "imagePullSecrets": [{"name": "registry"}],
        "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "a"}}]}],
        "containers": [{"name": "c", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}],
        "volumes": [
            {"name": "v", "configMap": {"name": "a"}}, {"name": "w", "secret": {"secretName": "t"}},
            {"name": "x", "projected": {"sources": [{"configMap": {"name": "b"}}, {"downwardAPI": {}}]}},
            {"name": "y", "emptyDir": {}},
        ]}});
        let pod = serde_json::from_value(pod).expect("a pod");
        let shown: Vec<String> = named_by(&pod).into_iter().map(|source| format!("{source:?}")).collect();
        let expected =
            ["ConfigMap(\"a\")", "ConfigMap(\"b\")", "Secret(\"registry\")", "Secret(\"s\")", "Secret(\"t\")"];
        assert_eq!(shown, expected);
    }
}
