//! What drivers offer: pools of devices, and from which nodes they can be used.
//!
//! Rules
//!   P1 newest     of a pool only the slices of its newest generation count
//!   P2 whole      a pool with fewer slices than it says, or more, is being updated: nothing is given of it
//!   P3 unique     a pool in which two devices have one name is invalid: nothing is given of it
//!   P4 place      a slice is for one node, for those that its selector selects, or for all; others, whose devices each say
//!                 where they are, are not looked at
//! Source: API reference, ResourceSliceSpec, ResourcePool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use windlass_api::Object;
use windlass_api::binding::Reach;
use windlass_api::device::{Device, DeviceId};
use windlass_client::Cached;

use crate::term::Labels;

/// All pools.
#[derive(Default)]
pub(super) struct Stock {
    pools: Vec<Pool>,
    /// By node: the pools with a slice for it alone.
    by_node: BTreeMap<String, Vec<usize>>,
    /// The pools with a slice for several nodes.
    wide: Vec<usize>,
}

/// The slices of a pool's newest generation.
pub(super) struct Pool {
    pub(super) driver: String,
    pub(super) name: String,
    pub(super) is_whole: bool,
    pub(super) is_valid: bool,
    slices: Vec<Arc<Slice>>,
}

/// One slice.
pub(super) struct Slice {
    driver: String,
    pool: String,
    generation: i64,
    count: i64,
    pub(super) place: Place,
    pub(super) devices: Vec<(DeviceId, Device)>,
}

/// From where the devices of a slice can be used.
pub(super) enum Place {
    Node(String),
    /// As it is read, and as it is written.
    Selected(Reach, Value),
    Everywhere,
    Unknown,
}

impl Slice {
    pub(super) fn read(object: &Object) -> Slice {
        let value = object.value();
        let spec = &value["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (driver, pool) = (text(&spec["driver"]), text(&spec["pool"]["name"]));
        let devices = spec["devices"].as_array().into_iter().flatten().map(|wire| {
            let device = Device::read(&driver, wire);
            (DeviceId { driver: driver.clone(), pool: pool.clone(), device: device.name.clone() }, device)
        });
        Slice {
            place: Place::read(spec),
            devices: devices.collect(),
            generation: spec["pool"]["generation"].as_i64().unwrap_or(0),
            count: spec["pool"]["resourceSliceCount"].as_i64().unwrap_or(0),
            driver,
            pool,
        }
    }
}

impl Place {
    fn read(spec: &Value) -> Place {
        let node = spec["nodeName"].as_str().unwrap_or_default();
        match (node, Reach::read(&spec["nodeSelector"])) {
            // What devices of several slices are given together is said in one term: a slice has one.
            ("", Some(_)) if spec["nodeSelector"]["nodeSelectorTerms"].as_array().map_or(0, Vec::len) != 1 => {
                Place::Unknown
            }
            ("", Some(reach)) => Place::Selected(reach, spec["nodeSelector"].clone()),
            ("", None) if spec["allNodes"] == true => Place::Everywhere,
            ("", None) => Place::Unknown,
            (node, _) => Place::Node(node.to_owned()),
        }
    }

    fn includes(&self, node: &str, labels: &Labels) -> bool {
        match self {
            Place::Node(own) => own == node,
            Place::Selected(reach, _) => reach.includes(node, labels),
            Place::Everywhere => true,
            Place::Unknown => false,
        }
    }
}

impl Stock {
    pub(super) fn of(slices: &[Arc<Cached>]) -> Stock {
        Stock::new(slices.iter().map(|slice| slice.memo(Slice::read)))
    }

    /// P1.
    pub(super) fn new(slices: impl Iterator<Item = Arc<Slice>>) -> Stock {
        let mut newest: BTreeMap<(String, String), Vec<Arc<Slice>>> = BTreeMap::new();
        for slice in slices {
            let pool = newest.entry((slice.driver.clone(), slice.pool.clone())).or_default();
            let generation = pool.first().map_or(slice.generation, |first| first.generation);
            if slice.generation > generation {
                pool.clear();
            }
            if slice.generation >= generation {
                pool.push(slice);
            }
        }
        let mut stock = Stock::default();
        for ((driver, name), slices) in newest {
            stock.add(Pool::new(driver, name, slices));
        }
        stock
    }

    fn add(&mut self, pool: Pool) {
        let at = self.pools.len();
        let (mut nodes, mut is_wide) = (BTreeSet::new(), false);
        for slice in &pool.slices {
            match &slice.place {
                Place::Node(node) => drop(nodes.insert(node.clone())),
                Place::Selected(..) | Place::Everywhere => is_wide = true,
                Place::Unknown => {}
            }
        }
        match is_wide {
            true => self.wide.push(at),
            false => nodes.into_iter().for_each(|node| self.by_node.entry(node).or_default().push(at)),
        }
        self.pools.push(pool);
    }

    /// The pools that a node can use something of, in the order of their drivers and names.
    pub(super) fn pools_of(&self, node: &str, labels: &Labels) -> Vec<&Pool> {
        let mut found: Vec<usize> = self.by_node.get(node).into_iter().flatten().chain(&self.wide).copied().collect();
        found.sort_unstable();
        let pools = found.into_iter().map(|at| &self.pools[at]);
        pools.filter(|pool| pool.slices_of(node, labels).next().is_some()).collect()
    }
}

impl Pool {
    /// P2, P3.
    fn new(driver: String, name: String, slices: Vec<Arc<Slice>>) -> Pool {
        let count = i64::try_from(slices.len()).unwrap_or(i64::MAX);
        let mut names = BTreeSet::new();
        let mut devices = slices.iter().flat_map(|slice| &slice.devices);
        let is_valid = devices.all(|(id, _)| names.insert(&id.device));
        Pool { driver, name, is_whole: slices.iter().all(|slice| slice.count == count), is_valid, slices }
    }

    /// Its slices that a node can use.
    pub(super) fn slices_of(&self, node: &str, labels: &Labels) -> impl Iterator<Item = &Arc<Slice>> {
        self.slices.iter().filter(|slice| slice.place.includes(node, labels))
    }
}
