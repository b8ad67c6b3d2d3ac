//! The cable between a pod's namespace and the machine: made by one thread in two moves, without a fork.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::cidr::Cidr;
use crate::namespace;
use crate::netlink::{Messages, NetlinkError, Protocol, Socket};
use crate::network::{NetworkError, kernel};
use crate::route::{self, LOOPBACK_INDEX, Route, Veth};
use crate::sysctl;

/// The interface inside every pod.
pub(crate) const POD_INTERFACE: &str = "eth0";
/// Its index: nothing else is in a new namespace but the loopback interface.
const POD_INDEX: u32 = 2;

/// What joins one pod to the machine.
pub(crate) struct Cable {
    pub(crate) netns: PathBuf,
    pub(crate) host_interface: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mtu: u32,
}

impl Cable {
    /// Whether both ends are there.
    pub(crate) fn stands(&self) -> Result<bool, NetlinkError> {
        let mut socket = Socket::open(Protocol::Route)?;
        Ok(namespace::exists(&self.netns) && route::link_index(&mut socket, &self.host_interface)?.is_some())
    }
}

/// Makes namespace, cable, address and routes. Must run on a thread of its own.
pub(crate) fn plug(cable: &Cable) -> Result<(), NetworkError> {
    namespace::make(&cable.netns, |home| plug_inside(cable, home))??;
    connect(cable)
}

/// In the pod's namespace: both ends at once, then the pod's end.
fn plug_inside(cable: &Cable, home: &std::fs::File) -> Result<(), NetworkError> {
    let mut messages = Messages::new();
    let veth = Veth {
        inner: (POD_INTERFACE, POD_INDEX),
        outer: &cable.host_interface,
        outer_namespace: home.as_fd(),
        mtu: cable.mtu,
    };
    route::add_veth(&mut messages, &veth);
    route::set_plain_up(&mut messages, LOOPBACK_INDEX);
    route::set_up(&mut messages, POD_INDEX);
    route::add_address(&mut messages, POD_INDEX, cable.address);
    let everywhere = Cidr::containing(Ipv4Addr::UNSPECIFIED, 0).expect("0 bits are a prefix");
    let to_gateway = Route { destination: single(cable.gateway), index: POD_INDEX, gateway: None, source: None };
    let to_all =
        Route { destination: everywhere, index: POD_INDEX, gateway: Some(cable.gateway), source: Some(cable.address) };
    route::add_route(&mut messages, &to_gateway);
    route::add_route(&mut messages, &to_all);
    let mut socket = Socket::open(Protocol::Route).map_err(kernel("opening rtnetlink in a pod"))?;
    socket.change(messages).map_err(kernel("connecting a pod"))?;
    // As containerd and Docker have it: low ports and ping need no capability, since the namespace is the pod's own.
    for (name, value) in [("ipv4/ip_unprivileged_port_start", "0"), ("ipv4/ping_group_range", "0 2147483647")] {
        let failed = |source| NetworkError::File { doing: "write the setting", path: name.into(), source };
        sysctl::write(name, value).map_err(failed)?;
    }
    Ok(())
}

/// On the machine: the other end and the way to the pod.
pub(crate) fn connect(cable: &Cable) -> Result<(), NetworkError> {
    let mut socket = Socket::open(Protocol::Route).map_err(kernel("opening rtnetlink"))?;
    let index = route::link_index(&mut socket, &cable.host_interface).map_err(kernel("reading interfaces"))?;
    let missing = || NetworkError::Config(format!("interface {} vanished while it was made", cable.host_interface));
    let index = index.ok_or_else(missing)?;
    let mut messages = Messages::new();
    route::set_up(&mut messages, index);
    let to_pod = Route { destination: single(cable.address), index, gateway: None, source: Some(cable.gateway) };
    route::add_route(&mut messages, &to_pod);
    socket.change(messages).map_err(kernel("connecting the machine to a pod"))?;
    // Lets answers come back to a client on 127.0.0.1 that used a NodePort; the guard chain keeps pods out of 127/8.
    let name = format!("ipv4/conf/{}/route_localnet", cable.host_interface);
    sysctl::write(&name, "1").map_err(|source| NetworkError::File {
        doing: "write the setting",
        path: name.into(),
        source,
    })
}

/// Removes what there is of the cable and the namespace.
pub(crate) fn unplug(cable: &Cable) -> Result<(), NetworkError> {
    let mut messages = Messages::new();
    route::delete_link(&mut messages, &cable.host_interface);
    let mut socket = Socket::open(Protocol::Route).map_err(kernel("opening rtnetlink"))?;
    match socket.change(messages) {
        Err(error) if error.refusal() != Some(libc::ENODEV) => return Err(kernel("disconnecting a pod")(error)),
        _ => {}
    }
    Ok(namespace::remove(&cable.netns)?)
}

fn single(address: Ipv4Addr) -> Cidr {
    Cidr::containing(address, 32).expect("32 bits are a prefix")
}
