//! The other side of a test: a server whose answers a test chooses, its clients, and words for an entry point.
//!
//!   peer say WORD…              prints the words
//!   peer serve KEY=VALUE…       `http=8080`, `tcp=PORT`, `udp=PORT`, `grpc=PORT`: what to listen on, more than one at will;
//!                               `fail-after=SECONDS`: /healthz and the gRPC health check are well until then;
//!                               `health=NAME`: the service that the gRPC health check knows, besides the server itself;
//!                               `replica-of=HOST:PORT`: keeps the same book as that server, which it registers with;
//!                               `writes-to=HOST:PORT`, `reads-from=HOST:PORT`: the guest book's front
//!   peer fetch URL              prints the body of the answer; ends with 1 unless it is a success
//!   peer tcp|udp HOST:PORT TEXT prints what comes back
//!   peer resolve NAME           prints a name's addresses
//!
//! Over HTTP: `/hostname` (and `/`), `/echo?msg=TEXT`, `/clientip`, `/method`, `/head` (the request's), `/status?code=N`,
//! `/delay?ms=N`, `/redirect?to=URL`, `/healthz`, `/exit?code=N`. Each request is a line of the log. Over TCP and UDP a
//! line `hostname` or `clientip` is answered, any other comes back.
//! The guest book: `/set?key=K&value=V` and `/get?key=K` of a server that keeps it, `/register?at=HOST:PORT` of one that has
//! replicas, `/guestbook?cmd=set|get&key=K&value=V` of its front.
//! One file, the standard library only, so that it compiles in a second into one static program.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a client waits for its answer, and a server for its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a client over UDP asks: packets get lost.
const UDP_ATTEMPTS: u32 = 5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["say", words @ ..] => {
            println!("{}", words.join(" "));
            Ok(())
        }
        ["serve", settings @ ..] => serve(settings),
        ["fetch", url] => fetch(url),
        ["tcp", address, text] => ask_tcp(address, text),
        ["udp", address, text] => ask_udp(address, text),
        ["resolve", name] => resolve(name),
        other => Err(Error::other(format!("expected say, serve, fetch, tcp, udp or resolve, found {other:?}"))),
    }
}

/// What every part of a server knows.
struct Served {
    begun: Instant,
    fail_after: Option<Duration>,
    health: Option<String>,
    writes_to: Option<String>,
    reads_from: Option<String>,
    book: Mutex<Book>,
}

/// What guests have written, and who keeps the same.
#[derive(Default)]
struct Book {
    entries: HashMap<String, String>,
    replicas: Vec<String>,
}

impl Served {
    fn is_well(&self) -> bool {
        self.fail_after.is_none_or(|limit| self.begun.elapsed() < limit)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry, here and at all replicas.
    fn set(&self, key: &str, value: &str) -> Result<()> {
        let replicas = {
            let mut book = self.book();
            book.entries.insert(key.to_owned(), value.to_owned());
            book.replicas.clone()
        };
        for replica in replicas {
            ask_http(&format!("http://{replica}/set?key={}&value={}", escape(key), escape(value)))?;
        }
        Ok(())
    }

    /// A new replica gets all that is there, and then what comes.
    fn register(&self, at: String) -> String {
        let mut book = self.book();
        book.replicas.push(at);
        book.entries.iter().map(|(key, value)| format!("{} {}\n", escape(key), escape(value))).collect()
    }

    /// The front: writes go to one server, reads to others.
    fn guest(&self, command: &str, key: &str, value: &str) -> Result<String> {
        let server = |server: &Option<String>| server.clone().ok_or_else(|| Error::other("this is no front"));
        match command {
            "set" => {
                let url = format!("http://{}/set?key={}&value={}", server(&self.writes_to)?, escape(key), escape(value));
                ask_http(&url)
            }
            "get" => ask_http(&format!("http://{}/get?key={}", server(&self.reads_from)?, escape(key))),
            other => Err(Error::other(format!("expected set or get, found {other}"))),
        }
    }
}

/// Registers with the server whose book is kept here too, as soon as that answers.
fn follow(primary: &str, port: u16, served: &Served) {
    let join = || {
        let own = connect(primary)?.local_addr()?.ip();
        ask_http(&format!("http://{primary}/register?at={}", escape(&format!("{own}:{port}"))))
    };
    loop {
        match join() {
            Ok(entries) => {
                let mut book = served.book();
                for (key, value) in entries.lines().filter_map(|line| line.split_once(' ')) {
                    book.entries.insert(unescape(key), unescape(value));
                }
                println!("registered with {primary}");
                return;
            }
            Err(error) => eprintln!("{primary} does not answer: {error}"),
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn serve(settings: &[&str]) -> Result<()> {
    let mut served = Served {
        begun: Instant::now(),
        fail_after: None,
        health: None,
        writes_to: None,
        reads_from: None,
        book: Mutex::default(),
    };
    let (mut listening, mut primary) = (Vec::new(), None);
    for setting in settings {
        let wrong = || Error::other(format!("expected KEY=VALUE, found {setting}"));
        let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
        match key {
            "fail-after" => served.fail_after = Some(Duration::from_secs(value.parse().map_err(|_| wrong())?)),
            "health" => served.health = Some(value.to_owned()),
            "writes-to" => served.writes_to = Some(value.to_owned()),
            "reads-from" => served.reads_from = Some(value.to_owned()),
            "replica-of" => primary = Some(value.to_owned()),
            _ => listening.push((key, value.parse::<u16>().map_err(|_| wrong())?)),
        }
    }
    let served = Arc::new(served);
    let mut threads = Vec::new();
    for (protocol, port) in listening {
        if let Some(primary) = primary.take_if(|_| protocol == "http") {
            let served = Arc::clone(&served);
            thread::spawn(move || follow(&primary, port, &served));
        }
        let served = Arc::clone(&served);
        if protocol == "udp" {
            let socket = bind(port, |address| UdpSocket::bind(address))?;
            threads.push(thread::spawn(move || answer_udp(&socket)));
        } else {
            let answer = match protocol {
                "http" => answer_http,
                "tcp" => answer_tcp,
                "grpc" => answer_grpc,
                other => return Err(Error::other(format!("expected http, tcp, udp or grpc, found {other}"))),
            };
            let listener = bind(port, |address| TcpListener::bind(address))?;
            threads.push(thread::spawn(move || accept(&listener, &served, answer)));
        }
        println!("listening on {protocol} {port}");
    }
    for running in threads {
        running.join().map_err(|_| Error::other("a listener panicked"))??;
    }
    Ok(())
}

/// On every address of both families, or of the one that is there.
fn bind<T>(port: u16, bind: impl Fn(SocketAddr) -> Result<T>) -> Result<T> {
    bind(SocketAddr::from(([0u16; 8], port))).or_else(|_| bind(SocketAddr::from(([0u8; 4], port))))
}

fn accept(listener: &TcpListener, served: &Arc<Served>, answer: fn(TcpStream, &Served) -> Result<()>) -> Result<()> {
    for stream in listener.incoming() {
        let (stream, served) = (stream?, Arc::clone(served));
        thread::spawn(move || {
            stream.set_read_timeout(Some(PATIENCE)).ok();
            if let Err(error) = answer(stream, &served) {
                eprintln!("request failed: {error}");
            }
        });
    }
    Ok(())
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn answer_line(line: &str, client: SocketAddr) -> String {
    match line.trim_end() {
        "hostname" => hostname(),
        "clientip" => client.ip().to_canonical().to_string(),
        other => other.to_owned(),
    }
}

fn answer_tcp(mut stream: TcpStream, _: &Served) -> Result<()> {
    let client = stream.peer_addr()?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).take(64 * 1024).read_line(&mut line)?;
    writeln!(stream, "{}", answer_line(&line, client))
}

fn answer_udp(socket: &UdpSocket) -> Result<()> {
    let mut packet = vec![0; 64 * 1024];
    loop {
        let (length, client) = socket.recv_from(&mut packet)?;
        let answer = answer_line(&String::from_utf8_lossy(&packet[..length]), client);
        // Who asked may be gone.
        socket.send_to(answer.as_bytes(), client).ok();
    }
}

fn answer_http(mut stream: TcpStream, served: &Served) -> Result<()> {
    let client = stream.peer_addr()?.ip().to_canonical();
    let mut reader = BufReader::new(stream.try_clone()?).take(64 * 1024);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    if request.is_empty() {
        return Ok(());
    }
    let mut head = request.clone();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        head.push_str(&header);
    }
    println!("{}", request.trim_end());
    let mut words = request.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: HashMap<&str, String> =
        query.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key, unescape(value))).collect();
    let number = |key: &str, otherwise: u64| query.get(key).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let text = |key: &str| query.get(key).cloned().unwrap_or_default();
    let said = |result: Result<String>| match result {
        Ok(body) => (200, body),
        Err(error) => (502, error.to_string()),
    };
    let mut location = String::new();
    let (code, body) = match path {
        "/" | "/hostname" => (200, hostname()),
        "/echo" => (200, query.get("msg").cloned().unwrap_or_default()),
        "/clientip" => (200, client.to_string()),
        "/method" => (200, method.to_owned()),
        "/head" => (200, head),
        "/status" => (number("code", 200), String::new()),
        "/delay" => {
            thread::sleep(Duration::from_millis(number("ms", 0)));
            (200, String::new())
        }
        "/redirect" => {
            location = format!("Location: {}\r\n", query.get("to").cloned().unwrap_or_default());
            (302, String::new())
        }
        "/set" => said(served.set(&text("key"), &text("value")).map(|()| String::new())),
        "/get" => (200, served.book().entries.get(&text("key")).cloned().unwrap_or_default()),
        "/register" => (200, served.register(text("at"))),
        "/guestbook" => said(served.guest(&text("cmd"), &text("key"), &text("value"))),
        "/healthz" if served.is_well() => (200, "ok".to_owned()),
        "/healthz" => (500, format!("not well after {} s", served.begun.elapsed().as_secs())),
        "/exit" => std::process::exit(number("code", 0) as i32),
        _ => (404, "no such path".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {code} Answer\r\n{location}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        body.len(),
        if method == "HEAD" { "" } else { &body }
    )
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match (escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()), bytes[at]) {
            (Some(byte), _) => {
                out.push(byte);
                at += 2;
            }
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

// HTTP/2 (RFC 9113), as much as a health check needs: https://grpc.io/docs/guides/health-checking
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The statuses of grpc.health.v1.
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
/// The code of gRPC for a service that is not known.
const NOT_FOUND: &str = "5";

fn answer_grpc(mut stream: TcpStream, served: &Served) -> Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    write_frame(&mut stream, SETTINGS, 0, 0, &[])?;
    let mut message: HashMap<u32, Vec<u8>> = HashMap::new();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Ok(());
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => write_frame(&mut stream, SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => write_frame(&mut stream, PING, ACK, 0, &payload)?,
            DATA => message.entry(id).or_default().extend(payload),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            let asked = message.remove(&id).unwrap_or_default();
            println!("health check");
            answer_health(&mut stream, id, &asked, served)?;
        }
    }
}

fn answer_health(stream: &mut TcpStream, id: u32, asked: &[u8], served: &Served) -> Result<()> {
    // Five bytes of gRPC's frame, then field 1 as a string: the service.
    let service = match asked.get(5..) {
        Some([0x0a, length, name @ ..]) => name.get(..usize::from(*length)).unwrap_or_default(),
        _ => &[],
    };
    let is_known = service.is_empty() || served.health.as_deref().is_some_and(|name| name.as_bytes() == service);
    let mut head = vec![0x88];
    literal(&mut head, "content-type", "application/grpc");
    write_frame(stream, HEADERS, END_HEADERS, id, &head)?;
    if is_known {
        let status = if served.is_well() { SERVING } else { NOT_SERVING };
        write_frame(stream, DATA, 0, id, &[0, 0, 0, 0, 2, 0x08, status])?;
    }
    let mut trailers = Vec::new();
    literal(&mut trailers, "grpc-status", if is_known { "0" } else { NOT_FOUND });
    write_frame(stream, HEADERS, END_HEADERS | END_STREAM, id, &trailers)
}

/// A header that is neither indexed nor compressed (RFC 7541, 6.2.2).
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(text.len() as u8);
        block.extend(text.as_bytes());
    }
}

fn write_frame(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Result<()> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    stream.write_all(&frame)
}

fn escape(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        plain if plain.is_ascii_alphanumeric() => char::from(plain).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escaped).collect()
}

fn fetch(url: &str) -> Result<()> {
    print!("{}", ask_http(url)?);
    Ok(())
}

/// The body of an answer that is a success; that of another is printed.
fn ask_http(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| Error::other("expected an http:// URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = connect(&if host.contains(':') { host.to_owned() } else { format!("{host}:80") })?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(1 << 20).read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| Error::other("the answer has no body"))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(body.to_owned());
    }
    print!("{body}");
    Err(Error::other(format!("the answer is {status}")))
}

fn connect(address: &str) -> Result<TcpStream> {
    let address = address.to_socket_addrs()?.next().ok_or_else(|| Error::other("the name has no address"))?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE / 2)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask_tcp(address: &str, text: &str) -> Result<()> {
    let mut stream = connect(address)?;
    writeln!(stream, "{text}")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    print!("{answer}");
    Ok(())
}

fn ask_udp(address: &str, text: &str) -> Result<()> {
    let address = address.to_socket_addrs()?.next().ok_or_else(|| Error::other("the name has no address"))?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(PATIENCE / UDP_ATTEMPTS))?;
    let mut packet = vec![0; 64 * 1024];
    let mut last = Error::other("never asked");
    for _ in 0..UDP_ATTEMPTS {
        let sent = socket.send_to(text.as_bytes(), address);
        match sent.and_then(|_| socket.recv(&mut packet)) {
            Ok(length) => {
                println!("{}", String::from_utf8_lossy(&packet[..length]));
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn resolve(name: &str) -> Result<()> {
    for address in (name, 0).to_socket_addrs()? {
        println!("{}", address.ip());
    }
    Ok(())
}
