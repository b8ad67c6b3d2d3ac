//! Sockets in a pod's network: they see what its own processes see.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;

/// A socket for an address of this family; without a namespace, in the machine's own.
pub(crate) async fn socket(namespace: Option<&Path>, address: SocketAddr) -> io::Result<TcpSocket> {
    match namespace {
        None => socket_for(address),
        Some(path) => socket_inside(path, address).await,
    }
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// A socket belongs for ever to the namespace it was made in. The thread that enters it ends there, so that no other
/// work ever runs inside.
async fn socket_inside(path: &Path, address: SocketAddr) -> io::Result<TcpSocket> {
    let namespace = File::open(path)?;
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("pod-network".to_owned()).stack_size(64 << 10).spawn(move || {
        let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        // Who asked may have gone.
        let _ = sender.send(entered.map_err(io::Error::from).and_then(|()| socket_for(address)));
    })?;
    receiver.await.map_err(io::Error::other)?
}
