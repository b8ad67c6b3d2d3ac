//! What the agent of one node is told when it starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::budget::Amounts;
pub use crate::cpus::CpuPolicy;
pub use crate::machine::CpuSet;

/// The agent's settings. `NodeConfig::named("n1")` has the defaults of every field.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The name of the Node object; a DNS subdomain.
    pub name: String,
    /// Labels the Node gets beside those of every node (`kubernetes.io/hostname`, `…/os`, `…/arch`).
    pub labels: BTreeMap<String, String>,
    /// `node-role.kubernetes.io/ROLE` labels.
    pub roles: Vec<String>,
    /// The address others reach this node at; `None` takes the machine's own idea of it.
    pub address: Option<IpAddr>,
    /// Where this node's HTTP server listens: logs, exec, port-forward.
    pub port: u16,
    /// The address that pods ask for names.
    pub cluster_dns: Ipv4Addr,
    /// The domain that services have their names in.
    pub cluster_domain: String,
    /// After this long without a renewal the node counts as lost. It is renewed four times as often, and the duration is
    /// written into the Lease, so that whoever judges the node needs no setting of its own.
    pub lease_duration: Duration,
    /// The most pods this node takes.
    pub pods_max: u32,
    /// Kernel parameters beyond the safe ones that pods may set; one that ends in `*` stands for all that begin so.
    pub unsafe_sysctls: Vec<String>,
    /// Kept from pods for the system and the agent itself.
    pub reserved: Amounts,
    /// Whether containers may have CPUs for themselves.
    pub cpu_policy: CpuPolicy,
    /// The CPUs that nobody has for itself; `None` is as many as [`NodeConfig::reserved`] has, rounded up.
    pub reserved_cpus: Option<CpuSet>,
    /// Where programs of this machine may ask which pod has which devices; `None` is nowhere.
    pub pod_resources: Option<PathBuf>,
    /// Less free memory than this is pressure; `None` is 100 MiB, or a tenth of a small machine.
    pub memory_free_bytes_min: Option<u64>,
    /// Less free disk space than this is pressure; `None` is 1 GiB, or a tenth of a small disk.
    pub disk_free_bytes_min: Option<u64>,
    /// Room for fewer new files than this is pressure; `None` is a twentieth of those that the disk can hold.
    pub disk_free_files_min: Option<u64>,
    /// Fewer free process ids than this are pressure; `None` is a twentieth of all.
    pub pids_free_min: Option<u64>,
    /// When images that nobody uses are removed although the disk is not yet nearly full.
    pub image_collection: ImageCollection,
    /// Images that are fetched from one registry at one time.
    pub pulls_max: usize,
    /// What Node.status.nodeInfo names as the agent's version.
    pub version: String,
}

/// When images that nobody uses are removed; the defaults are kubelet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageCollection {
    /// From so much of the disk in use on, in percent.
    pub high_percent: u8,
    /// Until so much of it is in use.
    pub low_percent: u8,
    /// Images that have been here for less are spared.
    pub age_min: Duration,
}

impl Default for ImageCollection {
    fn default() -> ImageCollection {
        ImageCollection { high_percent: 85, low_percent: 80, age_min: Duration::from_secs(120) }
    }
}

impl ImageCollection {
    /// How much to remove of images on a disk of this size: nothing below the higher mark, else what the lower one asks.
    pub fn surplus_bytes(&self, all: u64, free: u64) -> u64 {
        let part = |percent: u8| u64::try_from(u128::from(all) * u128::from(percent) / 100).unwrap_or(u64::MAX);
        let used = all.saturating_sub(free);
        if used < part(self.high_percent) { 0 } else { used.saturating_sub(part(self.low_percent)) }
    }
}

impl NodeConfig {
    /// The defaults for a node of this name.
    pub fn named(name: &str) -> NodeConfig {
        NodeConfig {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            roles: Vec::new(),
            address: None,
            port: 10250,
            cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
            cluster_domain: "cluster.local".to_owned(),
            lease_duration: Duration::from_secs(40),
            pods_max: 110,
            unsafe_sysctls: Vec::new(),
            reserved: Amounts::default(),
            cpu_policy: CpuPolicy::None,
            reserved_cpus: None,
            pod_resources: None,
            memory_free_bytes_min: None,
            disk_free_bytes_min: None,
            disk_free_files_min: None,
            pids_free_min: None,
            image_collection: ImageCollection::default(),
            pulls_max: 3,
            version: format!("v1.37.0+windlass.{}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// Which CPUs are kept for the system, or how many.
    pub(crate) fn kept_cpus(&self) -> Result<CpuSet, usize> {
        let count = usize::try_from(self.reserved.cpu_millis.div_ceil(1000)).unwrap_or(usize::MAX);
        self.reserved_cpus.ok_or(count)
    }

    /// How often the Lease is renewed.
    pub fn lease_interval(&self) -> Duration {
        self.lease_duration / 4
    }
}

#[cfg(test)]
mod tests {
    use super::{ImageCollection, NodeConfig};
    use std::time::Duration;

    #[test]
    fn images_are_collected_from_the_higher_mark_down_to_the_lower_one() {
        let surplus = |free| ImageCollection::default().surplus_bytes(1000, free);
        assert_eq!([surplus(500), surplus(151), surplus(150), surplus(20)], [0, 0, 50, 180]);
        assert_eq!(ImageCollection::default().surplus_bytes(0, 0), 0, "a disk that is not known");
    }

    #[test]
    fn a_lost_node_can_be_noticed_within_six_seconds_by_setting() {
        let config = NodeConfig { lease_duration: Duration::from_secs(5), ..NodeConfig::named("n") };
        assert!(config.lease_interval() * 3 < config.lease_duration, "two renewals may be lost");
        assert!(config.lease_interval() >= Duration::from_secs(1), "at most one write a second");
    }
}
