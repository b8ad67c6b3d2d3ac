//! The cluster's DNS, asked as pods ask it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::time::Instant;
use windlass_network::{DnsConfig, DnsServer, DnsService, DnsTable};
use windlass_stdx::World;

use crate::stage::{Machine, TIMEOUT, inside, on_a_machine, start_inside};

const CLUSTER_DNS: &str = "10.43.0.10:53";

fn start(machine: &Machine, resolvers: Vec<SocketAddr>) -> DnsServer {
    let config = DnsConfig {
        listen: vec![SocketAddr::from((machine.network.gateway(), 53))],
        domain: "cluster.local".to_owned(),
        local: vec![machine.config.cluster_cidr, machine.config.service_cidr],
        resolvers,
    };
    DnsServer::start(config, World::real()).expect("the gateway's port 53 is free")
}

fn service(name: &str, cluster_ip: [u8; 4]) -> DnsTable {
    let service = DnsService {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        cluster_ip: Some(cluster_ip.into()),
        ..DnsService::default()
    };
    DnsTable { services: vec![service] }
}

fn question(name: &str) -> Message {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    query.set_edns(Edns::new());
    query
}

fn over_udp(name: &str) -> Message {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    socket.connect(CLUSTER_DNS).expect("a route");
    socket.send(&question(name).to_vec().expect("bytes")).expect("sent");
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("an answer");
    Message::from_vec(&buffer[..length]).expect("a message")
}

fn over_tcp(name: &str) -> Message {
    let mut stream = TcpStream::connect(CLUSTER_DNS).expect("a connection");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let bytes = question(name).to_vec().expect("bytes");
    stream.write_all(&(bytes.len() as u16).to_be_bytes()).and_then(|()| stream.write_all(&bytes)).expect("sent");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).expect("an answer");
    Message::from_vec(&answer).expect("a message")
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn a_pod_and_the_machine_resolve_a_service_by_name() {
    on_a_machine(|machine| async move {
        let pod = machine.pod("a").await;
        let server = start(&machine, Vec::new());
        server.replace(&service("web", [10, 43, 7, 7]));
        for ask in [over_udp, over_tcp] {
            let answer = inside(&pod.netns, move || ask("web.shop.svc.cluster.local."));
            assert_eq!((addresses(&answer), answer.answers[0].ttl), (vec!["10.43.7.7".to_owned()], 5));
            assert!(answer.edns.is_some(), "EDNS is answered with EDNS");
            assert_eq!(addresses(&ask("web.shop.svc.cluster.local.")), ["10.43.7.7"], "from the machine");
        }
        server.replace(&service("shop", [10, 43, 8, 8]));
        assert_eq!(over_udp("web.shop.svc.cluster.local.").metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(addresses(&over_udp("shop.shop.svc.cluster.local.")), ["10.43.8.8"]);
    });
}

/// A resolver that first sends a forged answer with another id, then the true one: the name's length as an address.
fn resolver() -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = udp.local_addr().expect("an address");
    let tcp = std::net::TcpListener::bind(address).expect("the same port");
    let answer = |bytes: &[u8], forged: bool| {
        let query = Message::from_vec(bytes).expect("a question");
        let mut reply = Message::response(query.metadata.id ^ u16::from(forged), OpCode::Query);
        reply.queries = query.queries.clone();
        let name = query.queries[0].name().clone();
        let last = if forged { 66 } else { name.to_ascii().len() as u8 };
        reply.add_answer(Record::from_rdata(name, 60, RData::A(Ipv4Addr::new(192, 0, 2, last).into())));
        reply.to_vec().expect("bytes")
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            for forged in [true, false] {
                udp.send_to(&answer(&buffer[..length], forged), from).expect("sent");
            }
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.expect("a client");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a length");
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes).expect("a question");
            let bytes = answer(&bytes, false);
            stream
                .write_all(&(bytes.len() as u16).to_be_bytes())
                .and_then(|()| stream.write_all(&bytes))
                .expect("sent");
        }
    });
    address
}

#[test]
fn a94_other_names_come_from_the_machines_resolver_and_forged_answers_do_not_count() {
    on_a_machine(|machine| async move {
        let pod = machine.pod("a").await;
        let server = start(&machine, vec![resolver()]);
        let mut table = service("web", [10, 43, 7, 7]);
        table.services[0].cluster_ip = None;
        table.services[0].external_name = Some("example.org".to_owned());
        server.replace(&table);
        for ask in [over_udp, over_tcp] {
            let foreign = inside(&pod.netns, move || ask("example.org."));
            assert_eq!((addresses(&foreign), foreign.metadata.id), (vec!["192.0.2.12".to_owned()], 7));
            let external = inside(&pod.netns, move || ask("web.shop.svc.cluster.local."));
            assert_eq!(addresses(&external), ["example.org.", "192.0.2.12"], "an external name is followed");
        }
    });
}

#[test]
fn without_a_resolver_that_answers_the_question_fails_and_ours_go_on() {
    on_a_machine(|machine| async move {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let server = start(&machine, vec![silent.local_addr().expect("an address")]);
        server.replace(&service("web", [10, 43, 7, 7]));
        let failed = over_udp("example.org.");
        assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(addresses(&over_udp("web.shop.svc.cluster.local.")), ["10.43.7.7"]);
    });
}

#[test]
fn a94_one_client_with_too_many_open_questions_does_not_starve_another() {
    on_a_machine(|machine| async move {
        let (greedy, modest) = (machine.pod("greedy").await, machine.pod("modest").await);
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let server = start(&machine, vec![silent.local_addr().expect("an address")]);
        server.replace(&service("web", [10, 43, 7, 7]));
        let refused = inside(&greedy.netns, || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect(CLUSTER_DNS).expect("a route");
            for number in 0..200 {
                socket.send(&question(&format!("n{number}.example.org.")).to_vec().expect("bytes")).expect("sent");
            }
            // The first answer may take its time on a busy machine; the others are on their way with it.
            socket.set_read_timeout(Some(std::time::Duration::from_secs(4))).expect("a timeout");
            let mut buffer = [0; 4096];
            let first = usize::from(socket.recv(&mut buffer).is_ok());
            socket.set_read_timeout(Some(crate::stage::DROPPED)).expect("a timeout");
            first + std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
        });
        assert_eq!(refused, 200 - 128, "beyond its share the greedy client is told so at once");
        let answer = inside(&modest.netns, || over_udp("web.shop.svc.cluster.local."));
        assert_eq!(addresses(&answer), ["10.43.7.7"]);
    });
}

#[test]
fn a94_connections_that_say_nothing_or_too_much_end_and_keep_nobody_waiting() {
    on_a_machine(|machine| async move {
        let (greedy, modest) = (machine.pod("greedy").await, machine.pod("modest").await);
        let server = start(&machine, Vec::new());
        server.replace(&service("web", [10, 43, 7, 7]));
        let open = inside(&greedy.netns, || {
            // As many as one client gets, and then some that are closed at once.
            let open: Vec<TcpStream> =
                (0..200).map(|_| TcpStream::connect(CLUSTER_DNS).expect("a connection")).collect();
            let mut long = open.last().expect("some").try_clone().expect("a stream");
            long.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            assert!(matches!(long.read(&mut [0; 1]), Ok(0) | Err(_)), "one too many is closed");
            open
        });
        let answer = inside(&modest.netns, || over_tcp("web.shop.svc.cluster.local."));
        assert_eq!(addresses(&answer), ["10.43.7.7"], "others connect all the same");
        drop(open);
        let closed = inside(&modest.netns, || {
            let mut stream = TcpStream::connect(CLUSTER_DNS).expect("a connection");
            stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            // 65,535 bytes are promised; the server waits for none of them.
            stream.write_all(&[0xff, 0xff]).expect("sent");
            matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_))
        });
        assert!(closed, "a question of 64 KiB is none");
    });
}

/// How long an answer took, for a client that asks again after a while, as resolvers do.
fn waited_for_an_answer() -> Duration {
    let begun = Instant::now();
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(800))).expect("a timeout");
    socket.connect(CLUSTER_DNS).expect("a route");
    let bytes = question("web.shop.svc.cluster.local.").to_vec().expect("bytes");
    for _ in 0..5 {
        socket.send(&bytes).expect("sent");
        let mut buffer = [0; 4096];
        if let Ok(length) = socket.recv(&mut buffer) {
            let answer = Message::from_vec(&buffer[..length]).expect("a message");
            assert_eq!(addresses(&answer), ["10.43.7.7"]);
            break;
        }
    }
    begun.elapsed()
}

#[test]
fn a94_a_flood_of_one_pod_leaves_the_others_their_answers() {
    on_a_machine(|machine| async move {
        let (loud, modest) = (machine.pod("loud").await, machine.pod("modest").await);
        let server = start(&machine, Vec::new());
        server.replace(&service("web", [10, 43, 7, 7]));
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let flood = start_inside(&loud.netns, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect(CLUSTER_DNS).expect("a route");
            let bytes = question("absent.shop.svc.cluster.local.").to_vec().expect("bytes");
            socket.set_nonblocking(true).expect("a socket");
            let (begun, mut sent, mut answered) = (Instant::now(), 0_u64, 0_u128);
            while !ended.load(Ordering::Relaxed) {
                // 50,000 a second, as far as the machine is able to.
                for _ in 0..50 {
                    sent += u64::from(socket.send(&bytes).is_ok());
                }
                while socket.recv(&mut [0; 4096]).is_ok() {
                    answered += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            (sent, answered, begun.elapsed())
        });
        let mut times = inside(&modest.netns, || {
            let begun = Instant::now();
            let ask = || (begun.elapsed() < Duration::from_secs(2)).then(waited_for_an_answer);
            std::iter::from_fn(ask).inspect(|_| std::thread::sleep(Duration::from_millis(2))).collect::<Vec<_>>()
        });
        over.store(true, Ordering::Relaxed);
        let (sent, answered, took) = flood.join().expect("the flood ends");
        // 1,000 in each window of 100 ms, and those that it began and ended in.
        assert!(answered <= 1000 * (took.as_millis() / 100 + 2), "{answered} of {sent} were answered in {took:?}");
        times.sort();
        let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        eprintln!("{} answers beside {sent} questions of another pod: p50 {half:?}, p99 {most:?}", times.len());
        assert!(most < Duration::from_secs(1), "p99 {most:?}");
    });
}
