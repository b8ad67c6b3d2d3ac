//! Network: the pods' addresses and the services of this machine, in the kernel.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::cidr::Cidr;

/// What a machine's network is made from.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The instance: names the bridge `<instance>0`, the nft table and the interfaces; at most 13 of `a-z0-9-`.
    pub instance: String,
    /// The network the pods of this machine take their addresses from; its first address is the gateway.
    pub pod_cidr: Cidr,
    /// The network that contains the pods of every machine.
    pub cluster_cidr: Cidr,
    /// The network that contains the ClusterIPs.
    pub service_cidr: Cidr,
    /// The ClusterIP of the DNS server, which this machine answers itself.
    pub dns_address: Ipv4Addr,
    /// Where leases and network namespaces are kept; should not outlive a reboot (`/run/<instance>/network`).
    pub run_dir: PathBuf,
    /// The largest packet of a pod's interface, in bytes.
    pub mtu: u32,
}

/// Which pod is to be attached.
#[derive(Clone, Debug)]
pub struct AttachSpec {
    /// The sandbox id: at most 128 of `a-zA-Z0-9._-`, not starting with a dot.
    pub id: String,
}

/// A pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The sandbox id it was attached under.
    pub id: String,
    /// The pod's network namespace, to be joined by path.
    pub netns: PathBuf,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The pod's default gateway: also where the DNS server and the node answer.
    pub gateway: Ipv4Addr,
    /// The interface inside the namespace.
    pub interface: String,
}
