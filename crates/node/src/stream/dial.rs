//! Dialer: opens connections to a pod as its own processes would, so that what listens only inside is reached too.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::kernel::namespace;

/// How long one address may take to answer.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Where a pod is reached.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    /// The pod's network namespace; `None` is the machine's own.
    pub namespace: Option<PathBuf>,
    /// The pod's addresses, tried after its loopback.
    pub addresses: Vec<IpAddr>,
}

impl Dialer {
    /// Connects to a port of the pod. The error is that of the first address: the pod's loopback.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let mut first = None;
        for address in loopback.into_iter().chain(self.addresses.iter().copied()) {
            match self.connect_to(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.expect("the loopback has been tried"))
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = namespace::socket(self.namespace.as_deref(), address).await?;
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, socket.connect(address)).await;
        let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).flatten();
        let stream = stream.map_err(|error| io::Error::new(error.kind(), format!("connect to {address}: {error}")))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::Dialer;

    #[tokio::test]
    async fn the_loopback_is_tried_first_and_its_error_is_the_one_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let dialer = Dialer { namespace: None, addresses: vec!["192.0.2.1".parse().expect("an address")] };
        let stream = dialer.connect(port).await.expect("it listens");
        assert!(stream.peer_addr().expect("connected").ip().is_loopback());
        drop((listener, stream));
        let dialer = Dialer { namespace: None, addresses: vec!["127.0.0.2".parse().expect("an address")] };
        let error = dialer.connect(port).await.expect_err("nothing listens any more").to_string();
        assert!(error.starts_with(&format!("connect to 127.0.0.1:{port}: Connection refused")), "{error}");
    }

    #[tokio::test]
    async fn a_namespace_of_its_own_is_entered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let own = Dialer { namespace: Some("/proc/self/ns/net".into()), addresses: Vec::new() };
        own.connect(port).await.expect("our own namespace is where it listens");
        let gone = Dialer { namespace: Some("/proc/self/ns/none".into()), addresses: Vec::new() };
        let error = gone.connect(port).await.expect_err("there is no such namespace");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
