//! Tells the cluster which drivers of volumes have registered on this node: its CSINode, and what the Node says for them.
//! Which drivers of devices have, `resource_slice` wants to know.
//!
//! Goal        CSINode of our name lists the CSI drivers that are here; the Node has their topology as labels and their names
//!             for it as an annotation
//! Writes      CSINode: its own · Node: labels and one annotation
//!
//! Rules
//!   D1 there      a driver is listed when it has registered, and no longer when its socket is gone
//!   D2 patience   what an agent before this one has listed stays for [`PATIENCE`]: its driver may be slower than we are
//! Source: API reference, CSINode; Kubernetes documentation, node labels of CSI topology.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use windlass_api::kinds;
use windlass_client::{Client, ClientError, Patch};

use super::{Shared, resource_slice};
use crate::machine::{DriverFacts, Plugin};

/// How often it is looked which plugins there are.
const INTERVAL: Duration = Duration::from_secs(1);
/// D2.
const PATIENCE: Duration = Duration::from_secs(120);
/// What drivers call this node, on the Node.
const NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";

/// The CSI drivers that are here.
type Drivers = BTreeMap<String, DriverFacts>;

/// Does so, for ever.
pub(super) async fn run(shared: &Shared) {
    let began = Instant::now();
    let mut timer = tokio::time::interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = BTreeSet::new();
    let mut told = None;
    let mut slices = resource_slice::Slices::new(shared);
    loop {
        timer.tick().await;
        let plugins = match shared.machine.plugins().await {
            Ok(plugins) => plugins,
            Err(error) => {
                tracing::warn!(%error, "the machine's plugins were not looked at");
                continue;
            }
        };
        slices.look(shared, &plugins).await;
        let drivers = drivers(&plugins);
        seen.extend(drivers.keys().cloned());
        let Some(uid) = shared.node_uid() else { continue };
        let is_patient = began.elapsed() < PATIENCE;
        let news = (drivers, uid, is_patient);
        if told.as_ref() == Some(&news) {
            continue;
        }
        let stays = |name: &str| is_patient && !seen.contains(name);
        match tell(&shared.client, &shared.config.name, (&news.0, &news.1), stays).await {
            Ok(()) => told = Some(news),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the node's drivers were not told"),
        }
    }
}

fn drivers(plugins: &[Arc<Plugin>]) -> Drivers {
    let csi = plugins.iter().filter_map(|plugin| Some((plugin.name.clone(), plugin.driver.clone()?)));
    csi.collect()
}

async fn tell(
    client: &Client,
    node: &str,
    (drivers, uid): (&Drivers, &str),
    stays: impl Fn(&str) -> bool,
) -> Result<(), ClientError> {
    let found = client.get(&kinds::CSI_NODE, "", node).await?;
    let rows: Vec<Value> = drivers.iter().map(|(name, facts)| row(name, facts)).collect();
    let Some(found) = found else {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid});
        let object = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
            "metadata": {"name": node, "ownerReferences": [owner]}, "spec": {"drivers": rows}});
        client.create(&kinds::CSI_NODE, "", &object).await?;
        return describe(client, node, drivers).await;
    };
    let listed = found.value()["spec"]["drivers"].take();
    let listed = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    let others = listed.iter().filter(|row| {
        let name = row["name"].as_str().unwrap_or_default();
        !drivers.contains_key(name) && stays(name)
    });
    let wanted: Vec<Value> = rows.into_iter().chain(others.cloned()).collect();
    // What a driver has said once cannot be changed, only taken away and said anew.
    let kept: Vec<Value> =
        wanted.iter().filter(|row| !listed.iter().any(|old| contradicts(old, row))).cloned().collect();
    let mut now = listed.to_vec();
    for list in [kept, wanted] {
        if !is_same(&now, &list) {
            let patch = Patch::Merge(json!({"spec": {"drivers": list}}));
            client.patch(&kinds::CSI_NODE, "", node, &patch, None).await?;
            now = list;
        }
    }
    describe(client, node, drivers).await
}

fn row(name: &str, facts: &DriverFacts) -> Value {
    let keys: Vec<&String> = facts.topology.keys().collect();
    let mut row = json!({"name": name, "nodeID": facts.node_id, "topologyKeys": keys});
    if let Some(count) = facts.volumes_max {
        row["allocatable"] = json!({"count": count});
    }
    row
}

/// Whether two rows of one driver say different things.
fn contradicts(old: &Value, new: &Value) -> bool {
    let keys = |row: &Value| row["topologyKeys"].as_array().cloned().unwrap_or_default();
    old["name"] == new["name"] && (old["nodeID"] != new["nodeID"] || keys(old) != keys(new))
}

fn is_same(one: &[Value], other: &[Value]) -> bool {
    one.len() == other.len() && one.iter().all(|row| other.contains(row))
}

/// What the Node says for its drivers.
async fn describe(client: &Client, node: &str, drivers: &Drivers) -> Result<(), ClientError> {
    let Some(found) = client.get(&kinds::NODE, "", node).await? else { return Ok(()) };
    let metadata = found.value()["metadata"].take();
    let labels: Map<String, Value> =
        drivers.values().flat_map(|facts| &facts.topology).map(|(key, value)| (key.clone(), json!(value))).collect();
    let ids: BTreeMap<&String, &String> = drivers.iter().map(|(name, facts)| (name, &facts.node_id)).collect();
    let ids = if ids.is_empty() { Value::Null } else { json!(json!(ids).to_string()) };
    let is_told = labels.iter().all(|(key, value)| &metadata["labels"][key] == value);
    if is_told && metadata["annotations"][NODE_ID] == ids {
        return Ok(());
    }
    let patch = Patch::Merge(json!({"metadata": {"labels": labels, "annotations": {NODE_ID: ids}}}));
    client.patch(&kinds::NODE, "", node, &patch, None).await.map(drop)
}
