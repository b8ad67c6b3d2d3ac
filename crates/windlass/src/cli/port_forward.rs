//! `windlass port-forward`: ports of this machine that lead to ports of a pod.
//!
//! Rules
//!   R1 words    `[LOCAL:]REMOTE`, as many as wanted; `:REMOTE` finds a free port; a name is a port of the pod's or Service's
//!   R2 service  a port of a Service means the port of its pod that it leads to
//!   R3 listen   at `--address`; `localhost` is both loopbacks, of which one must be free
//!   R4 apart    each connection is a stream of its own; what fails is told and the others go on
//!   R5 ends     our side's end is passed on; the pod's is the end
//! Not here      SPDY, UDP

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Buf;
use clap::Args;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::channel::{self, CHUNK_BYTES_MAX, CLOSE, V4, V5, on_channel, payload};
use super::describe::sheet::{items, text};
use super::output::escape;
use super::podset::pods;
use super::session::{Session, SessionFlags};
use super::target::Asked;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// Ports of one command.
const PORTS_MAX: usize = 64;
/// The channels of one forwarded port.
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// Bytes of an error that are told.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// `windlass port-forward`.
#[derive(Args)]
pub struct PortForwardFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// POD or KIND/NAME
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// [LOCAL:]REMOTE
    #[arg(value_name = "PORT", required = true)]
    pub ports: Vec<String>,
    /// Where to listen
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    pub address: Vec<String>,
}

/// A port here and one of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    local: u16,
    remote: u16,
}

/// Does it, until interrupted.
pub async fn run(session: Arc<Session>, flags: &PortForwardFlags) -> Result<()> {
    if flags.ports.len() > PORTS_MAX {
        bail!("expected at most {PORTS_MAX} ports, found {}", flags.ports.len());
    }
    let service = service(&session, &flags.what).await?;
    let pod = Arc::new(pods(&session, &flags.what).await?.swap_remove(0));
    let phase = text(&pod["status"], "phase");
    if phase != "Running" {
        bail!("unable to forward port because pod is not running. Current status={phase}");
    }
    let pairs = flags.ports.iter().map(|word| pair(word, service.as_ref(), &pod)).collect::<Result<Vec<_>>>()?;
    let mut listeners = Vec::new();
    for pair in pairs {
        listeners.extend(listen(&flags.address, pair).await?);
    }
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut accepting = JoinSet::new();
    for (listener, remote) in listeners {
        let (session, pod, slots) = (Arc::clone(&session), Arc::clone(&pod), Arc::clone(&slots));
        accepting.spawn(async move { accept(session, pod, slots, listener, remote).await });
    }
    while let Some(ended) = accepting.join_next().await {
        ended.context("a listener did not end in order")??;
    }
    Ok(())
}

/// The Service that a word names, if it names one.
async fn service(session: &Session, word: &str) -> Result<Option<Value>> {
    if !word.contains('/') {
        return Ok(None);
    }
    let (served, name) = Asked::one(session.discovery().await?, &[word.to_owned()])?;
    if served.kind.kind != "Service" || !served.kind.group.is_empty() {
        return Ok(None);
    }
    Ok(Some(session.get(&served.kind, &session.namespace, &name).await?))
}

/// R1.
fn pair(word: &str, service: Option<&Value>, pod: &Value) -> Result<Pair> {
    let (local, remote) = word.split_once(':').map_or((None, word), |(local, remote)| (Some(local), remote));
    let number = |text: &str| {
        let port = text.parse::<u16>().ok();
        port.with_context(|| format!("error parsing local port {text:?}: expected a number up to 65535"))
    };
    let (shown, remote) = match service {
        Some(service) => of_service(service, pod, remote)?,
        None => {
            let port = port_of(pod, remote)?;
            (port, port)
        }
    };
    let local = match local {
        Some("") => 0,
        Some(local) => number(local)?,
        None => shown,
    };
    Ok(Pair { local, remote })
}

/// A number, or the name of a port of the pod's containers.
fn port_of(pod: &Value, word: &str) -> Result<u16> {
    if let Ok(port) = word.parse::<u16>() {
        return if port == 0 { Err(anyhow!("remote port must be > 0")) } else { Ok(port) };
    }
    let mut ports = items(&pod["spec"], "containers").iter().flat_map(|container| items(container, "ports"));
    let found = ports.find(|port| text(port, "name") == word).and_then(|port| port["containerPort"].as_u64());
    found
        .and_then(|port| u16::try_from(port).ok())
        .with_context(|| format!("Pod '{}' does not have a named port '{word}'", text(&pod["metadata"], "name")))
}

/// R2: the Service's port and the pod's.
fn of_service(service: &Value, pod: &Value, word: &str) -> Result<(u16, u16)> {
    let name = text(&service["metadata"], "name");
    let is_it = |port: &&Value| text(port, "name") == word || port["port"].as_u64() == word.parse().ok();
    let Some(port) = items(&service["spec"], "ports").iter().find(is_it) else {
        bail!("Service {name} does not have a service port {word}");
    };
    let own = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("the Service's port is none")?;
    let target = match &port["targetPort"] {
        Value::String(name) => port_of(pod, name)?,
        Value::Number(number) => port_of(pod, &number.to_string())?,
        _ => own,
    };
    // A Service without an address leads nowhere itself: its ports are the pod's.
    Ok((own, if text(&service["spec"], "clusterIP") == "None" { port_of(pod, word).unwrap_or(target) } else { target }))
}

/// R3.
async fn listen(addresses: &[String], pair: Pair) -> Result<Vec<(TcpListener, u16)>> {
    let mut listeners: Vec<(TcpListener, u16)> = Vec::new();
    let mut local = pair.local;
    for address in addresses {
        let (candidates, wanted): (Vec<IpAddr>, usize) = match address.as_str() {
            "localhost" => (vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], 1),
            other => {
                let address = other.parse().with_context(|| format!("{other:?} is not a valid IP"))?;
                (vec![address], 1)
            }
        };
        let before = listeners.len();
        let mut failure = None;
        for address in candidates {
            match TcpListener::bind(SocketAddr::new(address, local)).await {
                Ok(listener) => {
                    let at = listener.local_addr()?;
                    local = at.port();
                    println!("Forwarding from {at} -> {}", pair.remote);
                    listeners.push((listener, pair.remote));
                }
                Err(error) => failure = Some(anyhow!("unable to listen on port {local} at {address}: {error}")),
            }
        }
        if listeners.len() - before < wanted {
            return Err(failure.unwrap_or_else(|| anyhow!("there is nowhere to listen")));
        }
    }
    Ok(listeners)
}

async fn accept(
    session: Arc<Session>,
    pod: Arc<Value>,
    slots: Arc<Semaphore>,
    listener: TcpListener,
    remote: u16,
) -> Result<()> {
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.context("the slots are never closed")?;
        let (stream, _) = listener.accept().await.context("no connection could be accepted")?;
        println!("Handling connection for {}", listener.local_addr()?.port());
        let (session, pod) = (Arc::clone(&session), Arc::clone(&pod));
        tokio::spawn(async move {
            if let Err(error) = forward(&session, &pod, stream, remote).await {
                eprintln!("{}", escape::text(&format!("an error occurred forwarding {remote}: {error:#}")));
            }
            drop(slot);
        });
    }
}

/// R4, R5.
async fn forward(session: &Session, pod: &Value, stream: TcpStream, remote: u16) -> Result<()> {
    let port = remote.to_string();
    let (socket, protocol) = channel::connect(session, pod, "portforward", &[("ports", &port)], &[V5, V4]).await?;
    let (mut sink, mut source) = socket.split();
    let (mut from_here, mut to_here) = stream.into_split();
    let up = async {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        loop {
            match from_here.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => sink.send(Message::Binary(on_channel(DATA, &buffer[..count]))).await?,
                // Whoever connected is gone: nobody waits for an answer.
                Err(error) => return Err(anyhow::Error::from(error)),
            }
        }
        if protocol == V5 {
            sink.send(Message::Binary(on_channel(CLOSE, &[DATA]))).await?;
        }
        std::future::pending::<Result<()>>().await
    };
    let down = async {
        let mut failure = Vec::new();
        // The first message of each channel names the port.
        let mut greeted = [false, false];
        while let Some(message) = source.next().await {
            let message = message.context("the stream broke off")?;
            if message.is_close() {
                break;
            }
            let Some(mut content) = payload(message) else { continue };
            let Ok(channel @ (DATA | ERROR)) = content.try_get_u8() else { continue };
            if !std::mem::replace(&mut greeted[usize::from(channel)], true) {
                continue;
            }
            match channel {
                DATA => to_here.write_all(&content).await?,
                _ => failure.extend(content.iter().take(ERROR_BYTES_MAX - failure.len().min(ERROR_BYTES_MAX))),
            }
        }
        match failure.is_empty() {
            true => Ok(to_here.shutdown().await?),
            false => Err(anyhow!("{}", String::from_utf8_lossy(&failure))),
        }
    };
    tokio::select! {
        biased;
        ended = down => ended,
        broken = up => broken,
    }
}

#[cfg(test)]
mod tests {
    use super::{Pair, pair};
    use serde_json::{Value, json};

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]}})
    }

    #[test]
    fn r1_ports_are_numbers_and_names() {
        let of = |word: &str| pair(word, None, &pod()).map_err(|error| error.to_string());
        assert_eq!(of("80"), Ok(Pair { local: 80, remote: 80 }));
        assert_eq!(of("5000:web"), Ok(Pair { local: 5000, remote: 8080 }));
        assert_eq!(of(":80"), Ok(Pair { local: 0, remote: 80 }));
        assert_eq!(of("1:nothing"), Err("Pod 'p' does not have a named port 'nothing'".to_owned()));
        assert_eq!(of("1:0"), Err("remote port must be > 0".to_owned()));
        assert!(of("70000:80").is_err() && of("x:80").is_err());
    }

    #[test]
    fn r2_a_services_port_leads_to_the_pods() {
        let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.0.0.1", "ports": [
            {"name": "http", "port": 80, "targetPort": "web"}, {"port": 443, "targetPort": 8443}]}});
        let of = |word: &str| pair(word, Some(&service), &pod()).map_err(|error| error.to_string());
        assert_eq!(of("http"), Ok(Pair { local: 80, remote: 8080 }));
        assert_eq!(of("9000:443"), Ok(Pair { local: 9000, remote: 8443 }));
        assert_eq!(of("1"), Err("Service s does not have a service port 1".to_owned()));
    }
}
