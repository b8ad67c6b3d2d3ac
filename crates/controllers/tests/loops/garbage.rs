//! What becomes of what an owner owned, for each way to delete the owner.

use windlass_api::kinds;
use windlass_client::{DeleteOptions, Propagation};

use super::{Cluster, alive, deployment};

async fn delete(cluster: &Cluster, propagation: Propagation) {
    cluster.create(&kinds::DEPLOYMENT, deployment("default", 2)).await;
    cluster.until(&kinds::POD, "2 pods", |pods| alive(pods, "default") == 2).await;
    let options = DeleteOptions::default().propagate(propagation);
    cluster.client.delete(&kinds::DEPLOYMENT, "default", "web", &options).await.expect("the deployment is there");
    cluster.until(&kinds::DEPLOYMENT, "no deployment", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_background_dependents_go_after_their_owner() {
    let cluster = Cluster::start().await;
    delete(&cluster, Propagation::Background).await;
    cluster.until(&kinds::REPLICA_SET, "no set", <[_]>::is_empty).await;
    cluster.until(&kinds::POD, "no pod", <[_]>::is_empty).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_foreground_dependents_go_before_their_owner() {
    let cluster = Cluster::start().await;
    delete(&cluster, Propagation::Foreground).await;
    for kind in [&kinds::REPLICA_SET, &kinds::POD] {
        let left = cluster.client.list(kind, Some("default"), &Default::default()).await.expect("a list");
        assert!(left.items.is_empty(), "{} were there after their owner", kind.plural);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_are_nobodys() {
    let cluster = Cluster::start().await;
    delete(&cluster, Propagation::Orphan).await;
    let sets = cluster
        .until(&kinds::REPLICA_SET, "a set without owner", |sets| sets.len() == 1 && sets[0].header.owners.is_empty());
    let set = sets.await[0].header.uid.clone();
    let pods = cluster.until(&kinds::POD, "2 pods", |pods| alive(pods, "default") == 2).await;
    assert!(pods.iter().all(|pod| pod.header.controller().is_some_and(|owner| owner.uid == set)));
    cluster.create(&kinds::DEPLOYMENT, deployment("default", 2)).await;
    let adopted = cluster.until(&kinds::REPLICA_SET, "the set adopted again", |sets| {
        sets.len() == 1 && sets[0].header.controller().is_some()
    });
    assert_eq!(adopted.await[0].header.uid, set);
    cluster.end().await;
}
