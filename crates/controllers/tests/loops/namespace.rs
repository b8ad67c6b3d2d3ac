//! A namespace has what every namespace has, and goes with all that is in it.

use serde_json::json;
use windlass_api::kinds;

use super::garbage::{define, foo};
use super::{Cluster, alive, deployment};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_namespace_is_emptied_and_goes() {
    let mut cluster = Cluster::start().await;
    cluster.run_agent();
    cluster
        .create(&kinds::NAMESPACE, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}))
        .await;
    cluster.until(&kinds::SERVICE_ACCOUNT, "the default account", |accounts| alive(accounts, "a") == 1).await;
    cluster.create(&kinds::DEPLOYMENT, deployment("a", 5)).await;
    define(&cluster).await;
    let custom = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "f", "namespace": "a"}});
    cluster.create(&foo(), custom).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "a"}});
    cluster.create(&kinds::CONFIG_MAP, map).await;
    cluster.until(&kinds::POD, "5 pods", |pods| alive(pods, "a") == 5).await;
    cluster.client.delete(&kinds::NAMESPACE, "", "a", &Default::default()).await.expect("the namespace is there");
    let gone = |found: &[std::sync::Arc<windlass_client::Cached>]| found.iter().all(|found| found.header.name() != "a");
    cluster.until(&kinds::NAMESPACE, "no namespace a", gone).await;
    for kind in [
        &foo(),
        &kinds::POD,
        &kinds::REPLICA_SET,
        &kinds::DEPLOYMENT,
        &kinds::CONFIG_MAP,
        &kinds::SERVICE_ACCOUNT,
        &kinds::EVENT,
    ] {
        let left = cluster.client.list(kind, Some("a"), &Default::default()).await.expect("a list");
        assert!(left.items.is_empty(), "{} are left", kind.plural);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_default_account_comes_back() {
    let cluster = Cluster::start().await;
    let first = cluster.until(&kinds::SERVICE_ACCOUNT, "the account", |found| alive(found, "default") == 1).await;
    let uid =
        first.iter().find(|found| found.header.namespace() == "default").map(|found| found.header.uid().to_owned());
    let deleted = cluster.client.delete(&kinds::SERVICE_ACCOUNT, "default", "default", &Default::default()).await;
    deleted.expect("the account is there");
    let is_new = |found: &[std::sync::Arc<windlass_client::Cached>]| {
        found.iter().any(|found| found.header.namespace() == "default" && Some(found.header.uid()) != uid.as_deref())
    };
    cluster.until(&kinds::SERVICE_ACCOUNT, "another account", is_new).await;
    cluster.end().await;
}
