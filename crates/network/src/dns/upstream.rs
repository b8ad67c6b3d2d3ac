//! The machine's own resolvers: who they are, and one question to them.
//!
//! Guarantees  every question leaves from a port and with an id nobody can guess, and only an answer to that very question,
//!             from the resolver that was asked, is taken

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use windlass_stdx::World;

/// As many as the C library uses.
const RESOLVERS_MAX: usize = 3;
const DNS_PORT: u16 = 53;
/// The C library gives up after five seconds: three resolvers must have had their chance by then.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
const ANSWER_BYTES_MAX: usize = 65_535;

/// The resolvers that the text of a `resolv.conf` names.
pub fn resolvers_of(resolv_conf: &str) -> Vec<SocketAddr> {
    let named = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = named.filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok());
    addresses.take(RESOLVERS_MAX).map(|address| SocketAddr::new(address, DNS_PORT)).collect()
}

/// The answer of the first resolver that gives one, with the question's own id.
pub(super) async fn ask(resolvers: &[SocketAddr], query: &Message, stream: bool, world: &World) -> Option<Vec<u8>> {
    for resolver in resolvers {
        let mut asked = query.clone();
        asked.metadata.id = world.random_u64() as u16;
        let bytes = asked.to_vec().ok()?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let exchange = async {
            match stream {
                true => over_tcp(*resolver, &bytes).await,
                false => over_udp(*resolver, &asked, &bytes).await,
            }
        };
        if let Ok(Ok(mut answer)) = timeout_at(deadline, exchange).await
            && answers(&asked, &answer)
        {
            answer[..2].copy_from_slice(&query.metadata.id.to_be_bytes());
            return Some(answer);
        }
    }
    None
}

async fn over_udp(resolver: SocketAddr, asked: &Message, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match resolver {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(asked, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(resolver: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Whether these bytes are an answer to that very question.
fn answers(asked: &Message, bytes: &[u8]) -> bool {
    Message::from_vec(bytes).is_ok_and(|answer| {
        answer.metadata.id == asked.metadata.id
            && answer.metadata.message_type == MessageType::Response
            && answer.queries == asked.queries
    })
}

#[cfg(test)]
mod tests {
    use super::resolvers_of;

    #[test]
    fn resolvers_are_read_as_the_c_library_reads_them() {
        let text = "# x\nsearch a b\nnameserver 10.0.0.1\n  nameserver\t::1 \nnameserver bad\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n";
        let found: Vec<String> = resolvers_of(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:53", "[::1]:53", "1.1.1.1:53"]);
    }
}
