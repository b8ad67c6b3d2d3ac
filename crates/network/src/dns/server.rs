//! The DNS server: one thread that owns its sockets, so that a busy node does not delay names.
//!
//! Flow        a question is answered from the names at once; one for a resolver becomes a task
//! Guarantees  the names change between two questions, never within one; whatever a client sends, memory, tasks and
//!             connections stay within the bounds below, and one client cannot use up what others need

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use hickory_proto::op::Message;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use windlass_stdx::World;

use super::answer::{Decision, decide, encode, failure};
use super::table::{DnsTable, Names};
use super::upstream;
use crate::cidr::Cidr;

/// Questions waiting for a resolver and open connections, of all clients together.
const WORK_MAX: u32 = 1024;
/// Of one client.
const WORK_PER_CLIENT_MAX: u32 = 128;
/// Datagrams of one client that are looked at in one window. Who sends more loses the rest, so that the others' are read.
const DATAGRAMS_PER_WINDOW_MAX: u32 = 1000;
const WINDOW: Duration = Duration::from_millis(100);
/// What may wait to be read: a flood is seen to be one before it has filled this.
const RECEIVE_BYTES: usize = 4 << 20;
/// Clients that are told apart in one window.
const CLIENTS_MAX: usize = 4096;
/// The largest question: a name of 255 bytes and an EDNS record are far below.
const QUESTION_BYTES_MAX: usize = 4096;
/// How long a connection may be idle or refuse to read.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions answered over one connection.
const QUESTIONS_PER_CONNECTION_MAX: usize = 1000;

/// Where the server listens and what is its own.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// UDP and TCP addresses, usually the gateway's port 53.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// Whose reverse names are answered here: the pods' and the services' networks.
    pub local: Vec<Cidr>,
    /// Who answers everything else, in order; see [`super::resolvers_of`].
    pub resolvers: Vec<SocketAddr>,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The address cannot be listened on.
    #[error("could not listen on {address} for DNS: stop what holds the port, or give another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The thread could not be started.
    #[error("could not start the DNS server")]
    Start(#[source] io::Error),
}

/// A running server; it ends when this is dropped.
pub struct DnsServer {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    config: DnsConfig,
    world: World,
    names: RwLock<Arc<Names>>,
    work: Mutex<Work>,
}

#[derive(Default)]
struct Work {
    all: u32,
    by_client: BTreeMap<IpAddr, u32>,
}

/// A client's right to one piece of work; given back when dropped.
struct Permit {
    shared: Arc<Shared>,
    client: IpAddr,
}

impl DnsServer {
    /// Starts the server in the calling thread's network namespace. Until [`DnsServer::replace`], no service has a name.
    pub fn start(config: DnsConfig, world: World) -> Result<DnsServer, DnsError> {
        let mut sockets = Vec::new();
        for address in &config.listen {
            let failed = |source| DnsError::Listen { address: *address, source };
            let udp = std::net::UdpSocket::bind(address).map_err(failed)?;
            let tcp = std::net::TcpListener::bind(address).map_err(failed)?;
            if let Err(error) = set_socket_recv_buffer_size_force(&udp, RECEIVE_BYTES) {
                tracing::warn!(%error, %address, "a flood of questions will hide those of others");
            }
            udp.set_nonblocking(true).and_then(|()| tcp.set_nonblocking(true)).map_err(failed)?;
            sockets.push((udp, tcp));
        }
        let names = RwLock::new(Arc::new(Names::build(&config.domain, &DnsTable::default())));
        let shared = Arc::new(Shared { config, world, names, work: Mutex::default() });
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DnsError::Start)?;
        let served = shared.clone();
        let run = move || runtime.block_on(serve(served, sockets, stopped));
        let thread = std::thread::Builder::new().name("dns".to_owned()).spawn(run).map_err(DnsError::Start)?;
        Ok(DnsServer { shared, stop, thread: Some(thread) })
    }

    /// Replaces every name by those of `table`.
    pub fn replace(&self, table: &DnsTable) {
        let names = Arc::new(Names::build(&self.shared.config.domain, table));
        *self.shared.names.write().expect("nothing panics while holding the names") = names;
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the dns thread had panicked");
        }
    }
}

impl Shared {
    fn names(&self) -> Arc<Names> {
        self.names.read().expect("nothing panics while holding the names").clone()
    }

    fn permit(self: &Arc<Self>, client: IpAddr) -> Option<Permit> {
        let mut work = self.work.lock().expect("nothing panics while holding the counts");
        let of_client = work.by_client.get(&client).copied().unwrap_or(0);
        if work.all >= WORK_MAX || of_client >= WORK_PER_CLIENT_MAX {
            return None;
        }
        work.all += 1;
        work.by_client.insert(client, of_client + 1);
        Some(Permit { shared: self.clone(), client })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut work = self.shared.work.lock().expect("nothing panics while holding the counts");
        work.all -= 1;
        let left = work.by_client.get(&self.client).map_or(0, |count| count - 1);
        match left {
            0 => work.by_client.remove(&self.client),
            _ => work.by_client.insert(self.client, left),
        };
    }
}

async fn serve(
    shared: Arc<Shared>,
    sockets: Vec<(std::net::UdpSocket, std::net::TcpListener)>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for (udp, tcp) in sockets {
        match (UdpSocket::from_std(udp), TcpListener::from_std(tcp)) {
            (Ok(udp), Ok(tcp)) => {
                tasks.spawn(serve_datagrams(shared.clone(), Arc::new(udp)));
                tasks.spawn(serve_connections(shared.clone(), tcp));
            }
            (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "a dns socket cannot be used"),
        }
    }
    // An error means that the server was dropped, which is the same.
    let _ = stopped.wait_for(|stop| *stop).await;
    // Dropping the runtime ends every task.
}

/// How many datagrams each client has sent in this window.
struct Shares {
    began: Instant,
    by_client: BTreeMap<IpAddr, u32>,
}

impl Shares {
    fn new() -> Shares {
        Shares { began: Instant::now(), by_client: BTreeMap::new() }
    }

    /// Whether one more of this client's is looked at.
    fn take(&mut self, client: IpAddr, now: Instant) -> bool {
        if now.duration_since(self.began) >= WINDOW || self.by_client.len() >= CLIENTS_MAX {
            *self = Shares { began: now, by_client: BTreeMap::new() };
        }
        let count = self.by_client.entry(client).or_default();
        *count = count.saturating_add(1);
        *count <= DATAGRAMS_PER_WINDOW_MAX
    }
}

async fn serve_datagrams(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    let mut shares = Shares::new();
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // What is reported here is a client that went away before its answer.
            Err(error) => {
                tracing::debug!(%error, "a dns datagram was lost");
                continue;
            }
        };
        if !shares.take(client.ip(), Instant::now()) {
            continue;
        }
        let decision = decide(&shared.names(), &shared.config.local, &buffer[..length]);
        let payload = match &decision {
            Decision::Ignore => continue,
            Decision::Reply(message) | Decision::Forward(message) | Decision::Follow(message, _) => {
                client_payload(message, &buffer)
            }
        };
        if let Decision::Reply(reply) = &decision {
            send(&socket, encode(reply, payload, false), client).await;
            continue;
        }
        let Some(permit) = shared.permit(client.ip()) else {
            send(&socket, given_up(&decision, payload, false), client).await;
            continue;
        };
        let (shared, socket) = (shared.clone(), socket.clone());
        tokio::spawn(async move {
            let answer = look_up(&shared, &decision, payload, false).await;
            send(&socket, answer, client).await;
            drop(permit);
        });
    }
}

/// What the client can take in one datagram; `None` when it did not say.
fn client_payload(message: &Message, question: &[u8]) -> Option<u16> {
    message.edns.as_ref()?;
    Message::from_vec(question).ok()?.edns.map(|edns| edns.max_payload())
}

async fn send(socket: &UdpSocket, answer: Option<Vec<u8>>, client: SocketAddr) {
    if let Some(answer) = answer
        && let Err(error) = socket.send_to(&answer, client).await
    {
        tracing::debug!(%error, %client, "a dns answer was lost");
    }
}

/// Asks a resolver for what is not in the names.
async fn look_up(shared: &Shared, decision: &Decision, payload: Option<u16>, stream: bool) -> Option<Vec<u8>> {
    let resolvers = &shared.config.resolvers;
    let answer = match decision {
        Decision::Ignore => None,
        Decision::Reply(reply) => encode(reply, payload, stream),
        Decision::Forward(query) => upstream::ask(resolvers, query, stream, &shared.world).await,
        Decision::Follow(reply, target) => {
            let mut query = Message::query();
            query.metadata.recursion_desired = true;
            let mut asked = reply.queries.first()?.clone();
            asked.set_name(target.clone());
            query.add_query(asked);
            // Over TCP, so that nothing is cut before it is put together with ours.
            let found = upstream::ask(resolvers, &query, true, &shared.world).await;
            let found = found.and_then(|bytes| Message::from_vec(&bytes).ok());
            found.and_then(|found| {
                let mut reply = reply.clone();
                reply.metadata.response_code = found.metadata.response_code;
                reply.metadata.authoritative = false;
                reply.add_answers(found.answers);
                encode(&reply, payload, stream)
            })
        }
    };
    answer.or_else(|| given_up(decision, payload, stream))
}

fn given_up(decision: &Decision, payload: Option<u16>, stream: bool) -> Option<Vec<u8>> {
    match decision {
        Decision::Ignore => None,
        Decision::Reply(message) | Decision::Forward(message) | Decision::Follow(message, _) => {
            encode(&failure(message), payload, stream)
        }
    }
}

async fn serve_connections(shared: Arc<Shared>, listener: TcpListener) {
    /// Accepting fails when descriptors run out; a pause lets connections end.
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            // Without a permit the connection is closed at once.
            Ok((stream, client)) => {
                if let Some(permit) = shared.permit(client.ip()) {
                    tokio::spawn(serve_connection(permit, stream));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a dns connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_connection(permit: Permit, mut stream: TcpStream) {
    for _ in 0..QUESTIONS_PER_CONNECTION_MAX {
        match timeout(IDLE_TIMEOUT, answer_one(&permit.shared, &mut stream)).await {
            Ok(Ok(())) => {}
            // The client left, sent nonsense or was idle: the connection ends.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

async fn answer_one(shared: &Shared, stream: &mut TcpStream) -> io::Result<()> {
    let length = usize::from(stream.read_u16().await?);
    if length > QUESTION_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await?;
    let decision = decide(&shared.names(), &shared.config.local, &question);
    let answer = look_up(shared, &decision, None, true).await.ok_or(io::ErrorKind::InvalidData)?;
    let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &answer[..]].concat()).await
}

#[cfg(test)]
mod tests {
    use super::{CLIENTS_MAX, DATAGRAMS_PER_WINDOW_MAX, Shares, WINDOW};
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    #[test]
    fn a94_a_client_has_its_share_of_a_window_and_takes_nothing_of_anothers() {
        let mut shares = Shares::new();
        let (began, loud) = (shares.began, IpAddr::from([10, 42, 0, 2]));
        let taken = (0..2 * DATAGRAMS_PER_WINDOW_MAX).filter(|_| shares.take(loud, began)).count();
        assert_eq!(taken, DATAGRAMS_PER_WINDOW_MAX as usize);
        assert!(shares.take([10, 42, 0, 3].into(), began), "another one's share is whole");
        assert!(!shares.take(loud, began + WINDOW - Duration::from_millis(1)));
        assert!(shares.take(loud, began + WINDOW));
        for number in 0..2 * CLIENTS_MAX as u32 {
            shares.take(Ipv4Addr::from(number).into(), began + WINDOW);
            assert!(shares.by_client.len() <= CLIENTS_MAX);
        }
    }
}
