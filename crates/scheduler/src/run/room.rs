//! Preemption carried out: pods that make way are told and ended, and the pod they make way for says where it will go.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::{Subresource, kinds};
use windlass_client::{Client, ClientError, DeleteOptions, EventKind, Key, ObjectRef, Patch};

use super::{Scheduler, Written};
use crate::budget::Budget;
use crate::pod::Pod;
use crate::preempt;

impl Scheduler {
    /// Makes room for a pod that fits nowhere, unless that is under way already. Gives the node.
    pub(super) fn make_room(&mut self, key: &Key, pod: &Arc<Pod>) -> Option<String> {
        if self.leaving.contains_key(key) {
            return None;
        }
        let budgets: Vec<Arc<Budget>> = self.budgets.list().iter().map(|budget| Budget::of(budget)).collect();
        let found = preempt::find(pod, &mut self.cluster, &budgets)?;
        let displaced: Vec<Key> = self
            .cluster
            .nominated_on(&found.node)
            .filter(|(_, other)| other.priority < pod.priority)
            .map(|(other, _)| other.clone())
            .collect();
        for other in displaced {
            self.cluster.denominate(&other);
            self.write_nomination(&other, Value::Null);
        }
        tracing::info!(pod = %key, node = found.node, victims = found.victims.len(), "others make way");
        self.cluster.nominate(key, &found.node, Arc::clone(&pod.footprint));
        for victim in &found.victims {
            self.end(key, pod, victim, &found.node);
        }
        self.leaving.insert(key.clone(), found.victims.into_iter().collect());
        Some(found.node)
    }

    fn end(&mut self, key: &Key, pod: &Pod, victim: &Key, node: &str) {
        let Some(object) = self.pods.get_key(victim.as_str()) else { return };
        if object.header.is_ending() {
            return;
        }
        let message = format!("Preempted by pod {} on node {node}", pod.uid);
        self.tell(ObjectRef::of(&object.header), EventKind::Normal, "Preempted", message);
        let now = self.client.world().now_rfc3339();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", self.config.name),
            "lastTransitionTime": now,
        });
        let (client, victim, uid, key) =
            (self.client.clone(), victim.clone(), object.header.uid().to_owned(), key.clone());
        self.writes.push(Box::pin(async move {
            let ended = tell_and_end(&client, &victim, &uid, condition).await;
            Written::Ended { for_pod: key, victim, ended }
        }));
    }

    /// What a pod's status says of where it will go.
    fn write_nomination(&mut self, key: &Key, node: Value) {
        let Some(uid) = self.queue.get_mut(key).map(|entry| entry.pod.uid.clone()) else { return };
        let patch = Patch::Strategic(json!({"metadata": {"uid": uid}, "status": {"nominatedNodeName": node}}));
        let (client, key) = (self.client.clone(), key.clone());
        self.writes.push(Box::pin(async move {
            let status = Some(Subresource::Status);
            let said = client.patch(&kinds::POD, key.namespace(), key.name(), &patch, status).await;
            Written::Said(key, said.map(drop))
        }));
    }

    /// A pod that did not end makes no way: its place is looked for anew.
    pub(super) fn settle_end(&mut self, for_pod: &Key, victim: &Key, ended: Result<(), ClientError>) {
        let Err(error) = ended else { return };
        if error.is_not_found() || error.is_conflict() {
            return;
        }
        tracing::warn!(pod = %victim, %error, "a pod that was to make way was not ended");
        self.leaving.remove(for_pod);
    }

    /// A pod is gone: nobody waits for it any more, and it waits for nobody.
    pub(super) fn is_gone(&mut self, key: &Key) {
        self.cluster.denominate(key);
        self.leaving.remove(key);
        self.leaving.retain(|_, victims: &mut BTreeSet<Key>| {
            victims.remove(key);
            !victims.is_empty()
        });
    }
}

/// The pod learns why it ends before it does.
async fn tell_and_end(client: &Client, pod: &Key, uid: &str, condition: Value) -> Result<(), ClientError> {
    let (namespace, name) = (pod.namespace(), pod.name());
    let patch = Patch::Strategic(json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}}));
    client.patch(&kinds::POD, namespace, name, &patch, Some(Subresource::Status)).await?;
    client.delete(&kinds::POD, namespace, name, &DeleteOptions::of_uid(uid)).await.map(drop)
}
