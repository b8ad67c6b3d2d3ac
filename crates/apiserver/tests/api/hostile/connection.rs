//! Connections that mean harm, over TLS on loopback: frames by hand, and peers that do not go on (A10, A16, A17).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::tls::{Served, client_tls, serve};
use crate::{CONFIG_MAPS, PATIENCE, config_map};

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// How long another client waits at most, unoptimised and beside other tests.
const OTHERS_TIME_MAX: Duration = Duration::from_secs(5);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block by the static table (RFC 7541, appendix A).
fn block(method: u8, path: &str) -> Vec<u8> {
    let mut bytes = vec![method, 0x87, 0x01, 9];
    bytes.extend(b"localhost");
    bytes.extend([0x04, path.len() as u8]);
    bytes.extend(path.as_bytes());
    bytes
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(0x82, path))
}

/// What a server said on a connection, until it closed it.
#[derive(Debug, Default)]
struct Seen {
    goaway: Option<u32>,
    answers: usize,
    /// Answers that say 200, as the static table has it.
    fine: usize,
    resets: BTreeMap<u32, usize>,
    pongs: usize,
}

impl Seen {
    fn note(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let number = |at: usize| payload.get(at..at + 4).map(|four| u32::from_be_bytes(four.try_into().expect("four")));
        match kind {
            HEADERS => {
                self.answers += 1;
                self.fine += usize::from(payload.first() == Some(&0x88));
            }
            RESET => *self.resets.entry(number(0).unwrap_or_default()).or_default() += 1,
            PING if flags & ACK != 0 => self.pongs += 1,
            GOAWAY => self.goaway = number(4),
            _ => {}
        }
    }
}

async fn tls(served: &Served, alpn: &[u8]) -> TlsStream<TcpStream> {
    let admin = served.pki.issue_client("kubernetes-admin", "system:masters").expect("a certificate");
    let mut tls = client_tls(served.pki.ca_pem(), Some(&admin));
    tls.alpn_protocols = vec![alpn.to_vec()];
    let tcp = TcpStream::connect(served.address).await.expect("the server listens");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    connector.connect(ServerName::try_from("localhost").expect("a name"), tcp).await.expect("TLS")
}

/// Begins HTTP/2 with these settings; a task notes what the server says until it closes, or until `answers` came.
async fn begin(
    served: &Served,
    settings: &[u8],
    answers: usize,
) -> (WriteHalf<TlsStream<TcpStream>>, JoinHandle<Seen>) {
    let (reader, mut writer) = tokio::io::split(tls(served, b"h2").await);
    writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("the server reads");
    writer.write_all(&frame(SETTINGS, 0, 0, settings)).await.expect("the server reads");
    (writer, tokio::spawn(read(reader, answers)))
}

async fn read(mut reader: ReadHalf<TlsStream<TcpStream>>, answers: usize) -> Seen {
    let mut seen = Seen::default();
    let mut head = [0; 9];
    while seen.answers < answers && reader.read_exact(&mut head).await.is_ok() {
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; size];
        if reader.read_exact(&mut payload).await.is_err() {
            break;
        }
        seen.note(head[3], head[4], &payload);
    }
    seen
}

/// Sends it all, as far as the server takes it, while another client asks; then waits for the end.
async fn attack(settings: &[u8], answers: usize, bytes: Vec<u8>) -> Seen {
    let served = serve().await;
    let (mut writer, reader) = begin(&served, settings, answers).await;
    let flood = async move {
        for chunk in bytes.chunks(16 * 1024) {
            // The server closes in the midst of it: what it said is what is looked at.
            if writer.write_all(chunk).await.is_err() {
                break;
            }
        }
        writer
    };
    let (_writer, ()) = tokio::join!(flood, others_are_served(&served));
    tokio::time::timeout(PATIENCE, reader).await.expect("the server says something in time").expect("no panic")
}

async fn others_are_served(served: &Served) {
    for _ in 0..5 {
        let begun = Instant::now();
        let (mut writer, reader) = begin(served, &[], 1).await;
        writer.write_all(&get(1, "/api/v1/namespaces/default/configmaps")).await.expect("the server reads");
        let seen = tokio::time::timeout(PATIENCE, reader).await.expect("in time").expect("no panic");
        assert_eq!(seen.answers, 1, "{seen:?}");
        assert!(begun.elapsed() < OTHERS_TIME_MAX, "another client waited {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a16_requests_that_are_reset_at_once_end_the_connection() {
    let cancelled = |stream: u32| [get(stream, "/version"), frame(RESET, 0, stream, &CANCEL.to_be_bytes())].concat();
    let bytes = (0..20_000).flat_map(|index| cancelled(2 * index + 1)).collect();
    let seen = attack(&[], usize::MAX, bytes).await;
    assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "{seen:?}");
}

#[tokio::test]
async fn a16_headers_without_end_end_the_connection() {
    let mut bytes = frame(HEADERS, END_STREAM, 1, &block(0x82, "/version"));
    for index in 0..20_000 {
        let mut header = vec![0x00, 6];
        header.extend(format!("x{index:05}").as_bytes());
        header.extend([1, b'v']);
        bytes.extend(frame(CONTINUATION, 0, 1, &header));
    }
    let seen = attack(&[], usize::MAX, bytes).await;
    assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "{seen:?}");
}

#[tokio::test]
async fn a16_headers_that_grow_when_unpacked_are_refused() {
    // One header of 4 KB goes into the table; then each byte names it again: 16 KB become 64 MB.
    let mut headers = block(0x82, "/version");
    headers.extend([0x40, 1, b'x', 0x7f, 0x80, 0x1e]);
    headers.extend([b'v'; 127 + 0x0f00]);
    headers.resize(16 * 1024, 0x80 | 62);
    let seen = attack(&[], 1, frame(HEADERS, END_HEADERS | END_STREAM, 1, &headers)).await;
    assert!(seen.answers == 1 || seen.goaway.is_some() || !seen.resets.is_empty(), "{seen:?}");
    assert_eq!(seen.fine, 0, "what grows to 64 MB is not read and answered: {seen:?}");
    let seen = attack(&[], 1, get(1, "/version")).await;
    assert_eq!(seen.fine, 1, "the same without the growth is: {seen:?}");
}

#[tokio::test]
async fn a16_of_very_many_streams_a_bounded_number_is_open() {
    let open = |stream: u32| frame(HEADERS, END_HEADERS, stream, &block(0x83, "/api/v1/namespaces/default/configmaps"));
    let bytes = (0..5_000).flat_map(|index| open(2 * index + 1)).collect();
    let seen = attack(&[], usize::MAX, bytes).await;
    assert!(seen.answers <= 250, "{seen:?}");
    assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "{seen:?}");
}

#[tokio::test]
async fn a16_floods_of_small_frames_keep_nobody_from_being_served() {
    let floods = [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
    ];
    for flood in floods {
        // What comes last is answered, so all of it was looked at, or the connection was ended for it.
        let bytes = [flood.repeat(20_000), get(1, "/version")].concat();
        let seen = attack(&[], 1, bytes).await;
        assert!(seen.answers == 1 || seen.goaway.is_some(), "{seen:?}");
    }
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(0x83, "/api/v1/namespaces/default/configmaps"));
    bytes.extend(frame(DATA, 0, 1, &[]).repeat(20_000));
    bytes.extend(frame(DATA, END_STREAM, 1, &[]));
    let seen = attack(&[], 1, bytes).await;
    assert!(seen.answers == 1 || seen.goaway.is_some(), "{seen:?}");
}

#[tokio::test]
async fn a16_who_opens_no_window_holds_up_nobody_else() {
    let no_window = [0, 4, 0, 0, 0, 0];
    let bytes = (0..200).flat_map(|index| get(2 * index + 1, "/api/v1/namespaces")).collect();
    let seen = attack(&no_window, 200, bytes).await;
    assert_eq!(seen.answers, 200, "heads need no window: {seen:?}");
}

#[tokio::test]
async fn a10_a_path_of_a_megabyte_is_refused() {
    let served = serve().await;
    for (size, codes) in [(60_000, &["400"][..]), (70_000, &["400", "414", "431"]), (2_000_000, &["400", "414", "431"])]
    {
        let mut stream = tls(&served, b"http/1.1").await;
        let path = format!("/api/v1/configmaps?labelSelector={}", "a".repeat(size));
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        // A server that has read enough closes before the whole was sent.
        let sent = stream.write_all(request.as_bytes()).await;
        let mut answer = vec![0; 12];
        match tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("in time") {
            Ok(_) => {
                let line = String::from_utf8_lossy(&answer).into_owned();
                assert!(codes.iter().any(|code| line == format!("HTTP/1.1 {code}")), "{size}: {line}");
            }
            Err(error) => assert!(size > 1 << 20, "{size}: {error}, sent: {sent:?}"),
        }
    }
    others_are_served(&served).await;
}

/// Waits until the server closes; what it says before is passed over.
async fn closes(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(more) if more > 0) {}
}

/// How many handshakes nobody finishes: 5,000, or as many as the limit of open files has room for. Each is two sockets of
/// this process, and other tests run beside.
fn handshakes() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux tells a process its limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("files are among them");
    let soft = line.split_whitespace().nth(3).and_then(|soft| soft.parse::<usize>().ok());
    soft.map_or(5_000, |soft| (soft / 4).min(5_000))
}

/// The server's own sockets of connections to its port that it has not closed: established, or closed by the peer alone.
fn sockets_of(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux tells its sockets");
    let own = format!(":{port:04X}");
    let is_kept = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1).is_some_and(|local| local.ends_with(&own)) && matches!(words.get(3), Some(&"01" | &"08"))
    };
    table.lines().filter(|line| is_kept(line)).count()
}

#[tokio::test]
async fn a17_handshakes_that_are_not_finished_are_dropped_after_ten_seconds() {
    let served = serve().await;
    tokio::time::pause();
    let begun = Instant::now();
    let mut silent = Vec::new();
    assert_eq!(sockets_of(served.address.port()), 0);
    let handshakes = handshakes();
    for index in 0..handshakes {
        let mut tcp = TcpStream::connect(served.address).await.expect("the server listens");
        if index % 2 == 0 {
            tcp.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("the beginning of a greeting");
        }
        silent.push(tcp);
    }
    for tcp in &mut silent {
        closes(tcp).await;
    }
    let took = begun.elapsed();
    assert!((9..30).contains(&took.as_secs()), "the last was dropped after {took:?}");
    tokio::time::resume();
    assert_eq!(sockets_of(served.address.port()), 0, "the server keeps no socket of them");
    others_are_served(&served).await;
}

#[tokio::test]
async fn a17_headers_that_do_not_come_to_an_end_are_dropped() {
    let served = serve().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = tls(&served, b"http/1.1").await;
        stream.write_all(b"GET /version HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.expect("the server reads");
        streams.push(stream);
    }
    others_are_served(&served).await;
    tokio::time::pause();
    let begun = Instant::now();
    for stream in &mut streams {
        closes(stream).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "the last was dropped after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a17_a_body_that_does_not_come_is_given_up_and_its_connection_closed() {
    let served = serve().await;
    let mut stream = tls(&served, b"http/1.1").await;
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    others_are_served(&served).await;
    tokio::time::pause();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 504");
    closes(&mut stream).await;
}

/// The history of the store is 64 MiB: who has not read what it forgets cannot go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_stops_reading_is_closed_and_holds_up_nobody() {
    const WRITES: usize = 76;
    let served = serve().await;
    let api = &served.api;
    api.make(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", api.store.revision());
    let mut stopped = tls(&served, b"http/1.1").await;
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stopped.write_all(head.as_bytes()).await.expect("the server reads");
    let mut line = vec![0; 12];
    stopped.read_exact(&mut line).await.expect("the watch begins");
    assert_eq!(String::from_utf8_lossy(&line), "HTTP/1.1 200");
    let mut other = api.watch(&path).await;
    for index in 0..WRITES {
        let text = char::from(b'a' + (index % 20) as u8).to_string().repeat(1 << 20);
        let written = api.merge(&format!("{CONFIG_MAPS}/c"), &json!({"data": {"k": text}})).await;
        assert_eq!(written.said(), "200");
        let event = other.next().await.expect("the other watch goes on");
        assert_eq!(event["object"]["metadata"]["resourceVersion"], written.json()["metadata"]["resourceVersion"]);
    }
    others_are_served(&served).await;
    // What the kernel had room for still comes, then the reason, then the end.
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stopped.read_to_end(&mut rest)).await.expect("the watch ends");
    assert!(ended.is_ok() || !rest.is_empty(), "{ended:?}");
    assert!(rest.len() < WRITES << 20, "not all of it was kept for who does not read: {} bytes", rest.len());
    let end = String::from_utf8_lossy(&rest[rest.len().saturating_sub(2_000)..]).into_owned();
    assert!(end.contains(r#""type":"ERROR""#) && end.contains(r#""code":410"#), "{end}");
}
