//! From a question to its answer: pure, over one state of the names.
//!
//! Rules
//!   R1 shape       one question of class IN by a standard query; transfers are refused
//!   R2 ours        a name in the domain, or the reverse of an address of ours, is answered here and nowhere else
//!   R3 absent      a name that does not exist is NXDOMAIN, one without such records NODATA; both with the SOA
//!   R4 alias       an alias is followed: within the domain here, beyond it by a resolver
//!   R5 foreign     anything else goes to a resolver

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::table::{Names, Node, reversed};
use crate::cidr::Cidr;

/// How long an answer may be kept, in seconds: as short as a service may take to change.
const TTL_S: u32 = 5;
/// The largest datagram sent: what fits one packet on every path (DNS flag day 2020).
pub(super) const DATAGRAM_BYTES_MAX: u16 = 1232;
/// The largest datagram for a client that says nothing about it (RFC 1035 §4.2.1).
const DATAGRAM_BYTES_DEFAULT: u16 = 512;
/// Aliases followed within the domain.
const ALIASES_MAX: usize = 8;

/// What to do about a question.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing: it is no question.
    Ignore,
    /// Answer this.
    Reply(Box<Message>),
    /// Ask a resolver the same.
    Forward(Box<Message>),
    /// Ask a resolver for this name, and append what it says.
    Follow(Box<Message>, Name),
}

/// What is to be done about the bytes of a question (R1, R2, R5).
pub(super) fn decide(names: &Names, local: &[Cidr], question: &[u8]) -> Decision {
    let Ok(query) = Message::from_vec(question) else { return Decision::Ignore };
    if query.metadata.message_type != MessageType::Query {
        return Decision::Ignore;
    }
    let reply = reply_to(&query);
    if query.metadata.op_code != OpCode::Query {
        return refuse(reply, ResponseCode::NotImp);
    }
    let [asked] = query.queries.as_slice() else { return refuse(reply, ResponseCode::FormErr) };
    let kind = asked.query_type();
    if asked.query_class() != DNSClass::IN || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        return refuse(reply, ResponseCode::Refused);
    }
    let name = asked.name().to_ascii().to_ascii_lowercase();
    let ours = name.ends_with(names.domain())
        && (name.len() == names.domain().len() || name.as_bytes()[name.len() - names.domain().len() - 1] == b'.');
    let reverse = reversed(&name).is_some_and(|address| local.iter().any(|cidr| cidr.contains(address)));
    match ours || reverse {
        true => resolve(names, reply, asked.name().clone(), name, kind),
        false if query.metadata.recursion_desired => Decision::Forward(Box::new(query)),
        false => refuse(reply, ResponseCode::Refused),
    }
}

/// An empty answer to a question.
pub(super) fn reply_to(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.metadata.recursion_available = true;
    reply.queries = query.queries.clone();
    reply.edns = query.edns.as_ref().map(|_| {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX);
        edns
    });
    reply
}

fn refuse(mut reply: Message, code: ResponseCode) -> Decision {
    reply.metadata.response_code = code;
    Decision::Reply(Box::new(reply))
}

/// The answer to any question that cannot be answered.
pub(super) fn failure(query: &Message) -> Message {
    let mut reply = reply_to(query);
    reply.metadata.response_code = ResponseCode::ServFail;
    reply
}

/// Answers from the names (R2, R3, R4).
fn resolve(names: &Names, mut reply: Message, mut owner: Name, mut name: String, kind: RecordType) -> Decision {
    reply.metadata.authoritative = true;
    for _ in 0..ALIASES_MAX {
        let pod = pod_address(names, &name);
        let Some(node) = names.get(&name) else {
            return match (pod, kind) {
                (Some(address), RecordType::A | RecordType::ANY) => {
                    reply.add_answer(record(&owner, RData::A(A(address))));
                    Decision::Reply(Box::new(reply))
                }
                (Some(_), _) => without_records(names, reply, ResponseCode::NoError),
                (None, _) => without_records(names, reply, ResponseCode::NXDomain),
            };
        };
        let Some(alias) = node.alias.clone().filter(|_| kind != RecordType::CNAME) else {
            let start = usize::from(reply.metadata.id);
            reply.add_answers(records(node, &owner, kind, start));
            return match reply.answers.is_empty() {
                true => without_records(names, reply, ResponseCode::NoError),
                false => Decision::Reply(Box::new(reply)),
            };
        };
        reply.add_answer(record(&owner, RData::CNAME(CNAME(alias.clone()))));
        name = alias.to_ascii().to_ascii_lowercase();
        if !name.ends_with(&format!(".{}", names.domain())) {
            return Decision::Follow(Box::new(reply), alias);
        }
        owner = alias;
    }
    refuse(reply, ResponseCode::ServFail)
}

/// `10-42-0-5.<namespace>.pod.<domain>` is that address, whoever has it (the records kubeadm's clusters have).
fn pod_address(names: &Names, name: &str) -> Option<Ipv4Addr> {
    let below = name.strip_suffix(names.domain())?.strip_suffix(".pod.")?;
    let (dashed, namespace) = below.split_once('.')?;
    let form = dashed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') && !namespace.contains('.');
    form.then(|| dashed.replace('-', ".").parse().ok()).flatten()
}

fn without_records(names: &Names, mut reply: Message, code: ResponseCode) -> Decision {
    reply.metadata.response_code = code;
    reply.add_authorities(authority(names));
    Decision::Reply(Box::new(reply))
}

/// Who is responsible for the domain: tells resolvers how long an absence may be kept (RFC 2308).
fn authority(names: &Names) -> Option<Record> {
    let domain = Name::from_ascii(names.domain()).ok()?;
    let server = Name::from_ascii(format!("ns.dns.{}", names.domain())).ok()?;
    let contact = Name::from_ascii(format!("hostmaster.{}", names.domain())).ok()?;
    let soa = SOA::new(server, contact, 1, 7200, 1800, 86_400, TTL_S);
    Some(record(&domain, RData::SOA(soa)))
}

/// The records of one kind, beginning at another place for every question so that clients spread.
fn records(node: &Node, owner: &Name, kind: RecordType, start: usize) -> Vec<Record> {
    let mut content: Vec<RData> = match kind {
        RecordType::A | RecordType::ANY => node.addresses.iter().map(|address| RData::A(A(*address))).collect(),
        RecordType::SRV => {
            let server = |(port, target): &(u16, Name)| RData::SRV(SRV::new(0, 100, *port, target.clone()));
            node.servers.iter().map(server).collect()
        }
        RecordType::PTR => node.pointers.iter().map(|name| RData::PTR(PTR(name.clone()))).collect(),
        RecordType::CNAME => node.alias.iter().map(|name| RData::CNAME(CNAME(name.clone()))).collect(),
        RecordType::TXT => node.texts.iter().map(|text| RData::TXT(TXT::new(vec![text.clone()]))).collect(),
        _ => Vec::new(),
    };
    if !content.is_empty() {
        let length = content.len();
        content.rotate_left(start % length);
    }
    content.into_iter().map(|data| record(owner, data)).collect()
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), TTL_S, data)
}

/// The bytes of an answer, cut to what its way and its client can carry.
pub(super) fn encode(reply: &Message, client_payload: Option<u16>, stream: bool) -> Option<Vec<u8>> {
    let bytes_max = match (stream, client_payload) {
        (true, _) => u16::MAX,
        (false, Some(payload)) => payload.clamp(DATAGRAM_BYTES_DEFAULT, DATAGRAM_BYTES_MAX),
        (false, None) => DATAGRAM_BYTES_DEFAULT,
    };
    let bytes = bytes_of(reply)?;
    if bytes.len() <= usize::from(bytes_max) {
        return Some(bytes);
    }
    let mut cut = reply.clone();
    cut.metadata.truncation = true;
    cut.authorities.clear();
    let mut size = bytes.len();
    loop {
        // Records are nearly of one size, so this is right at the first or second try; it always ends.
        let fitting = cut.answers.len() * usize::from(bytes_max) / size;
        cut.answers.truncate(fitting.min(cut.answers.len().checked_sub(1)?));
        let bytes = bytes_of(&cut)?;
        if bytes.len() <= usize::from(bytes_max) {
            return Some(bytes);
        }
        size = bytes.len();
    }
}

fn bytes_of(message: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(u16::MAX);
    message.emit(&mut encoder).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Decision, decide, encode};
    use crate::dns::table::{DnsEndpoint, DnsPort, DnsService, DnsTable, Names};
    use crate::service::Protocol;
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};

    fn names() -> Names {
        let endpoint = |last, hostname: Option<&str>| DnsEndpoint {
            address: std::net::Ipv4Addr::new(10, 42, 0, last),
            hostname: hostname.map(str::to_owned),
        };
        let http = || vec![DnsPort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 80 }];
        let service =
            |name: &str| DnsService { namespace: "shop".to_owned(), name: name.to_owned(), ..DnsService::default() };
        let web = DnsService { cluster_ip: Some([10, 43, 0, 7].into()), ports: http(), ..service("web") };
        let endpoints = vec![endpoint(5, Some("db-0")), endpoint(6, None)];
        let db = DnsService { endpoints, ports: http(), ..service("db") };
        let mail = DnsService { external_name: Some("mail.example.org".to_owned()), ..service("mail") };
        let inner = DnsService { external_name: Some("web.shop.svc.cluster.local".to_owned()), ..service("inner") };
        let circle =
            DnsService { external_name: Some("circle.shop.svc.cluster.local.".to_owned()), ..service("circle") };
        Names::build("cluster.local", &DnsTable { services: vec![web, db, mail, inner, circle] })
    }

    fn ask(name: &str, kind: RecordType) -> Decision {
        let mut query = Message::new(0, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        let local = ["10.42.0.0/16".parse().expect("a network"), "10.43.0.0/16".parse().expect("a network")];
        decide(&names(), &local, &query.to_vec().expect("bytes"))
    }

    /// The code and, sorted, what is answered.
    fn check(name: &str, kind: RecordType, code: ResponseCode, expected: &[&str]) {
        let Decision::Reply(reply) = ask(name, kind) else { panic!("{name} {kind} is not answered here") };
        let mut answers: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
        answers.sort();
        assert_eq!(
            (reply.metadata.response_code, answers),
            (code, expected.iter().map(|text| (*text).to_owned()).collect())
        );
        assert!(!reply.answers.is_empty() || reply.authorities.len() == 1, "{name} {kind}: an absence has its SOA");
    }

    #[test]
    fn the_names_of_services_follow_the_specification() {
        use RecordType::{A, AAAA, PTR, SRV, TXT};
        use ResponseCode::{NXDomain, NoError};
        check("web.shop.svc.cluster.local.", A, NoError, &["10.43.0.7"]);
        check("WEB.Shop.svc.cluster.local.", A, NoError, &["10.43.0.7"]);
        check("web.shop.svc.cluster.local.", AAAA, NoError, &[]);
        check("_http._tcp.web.shop.svc.cluster.local.", SRV, NoError, &["0 100 80 web.shop.svc.cluster.local."]);
        check("7.0.43.10.in-addr.arpa.", PTR, NoError, &["web.shop.svc.cluster.local."]);
        check("db.shop.svc.cluster.local.", A, NoError, &["10.42.0.5", "10.42.0.6"]);
        check("db-0.db.shop.svc.cluster.local.", A, NoError, &["10.42.0.5"]);
        check("10-42-0-6.db.shop.svc.cluster.local.", A, NoError, &["10.42.0.6"]);
        let targets = ["0 100 80 10-42-0-6.db.shop.svc.cluster.local.", "0 100 80 db-0.db.shop.svc.cluster.local."];
        check("_http._tcp.db.shop.svc.cluster.local.", SRV, NoError, &targets);
        check("5.0.42.10.in-addr.arpa.", PTR, NoError, &["db-0.db.shop.svc.cluster.local."]);
        check("dns-version.cluster.local.", TXT, NoError, &["1.1.0"]);
        check("10-42-0-9.shop.pod.cluster.local.", A, NoError, &["10.42.0.9"]);
        let followed = ["10.43.0.7", "web.shop.svc.cluster.local."];
        check("inner.shop.svc.cluster.local.", A, NoError, &followed);
        check("absent.shop.svc.cluster.local.", A, NXDomain, &[]);
        check("google.com.shop.svc.cluster.local.", A, NXDomain, &[]);
        check("9.0.43.10.in-addr.arpa.", PTR, NXDomain, &[]);
        for between in
            ["shop.svc.cluster.local.", "svc.cluster.local.", "_tcp.web.shop.svc.cluster.local.", "cluster.local."]
        {
            check(between, A, NoError, &[]);
        }
    }

    #[test]
    fn what_is_not_ours_goes_to_a_resolver() {
        for name in ["example.org.", "notcluster.local.", "8.8.8.8.in-addr.arpa.", "local."] {
            assert!(matches!(ask(name, RecordType::A), Decision::Forward(_)), "{name}");
        }
        let Decision::Follow(reply, target) = ask("mail.shop.svc.cluster.local.", RecordType::A) else {
            panic!("an external name is followed")
        };
        assert_eq!((reply.answers.len(), target.to_ascii().as_str()), (1, "mail.example.org."));
    }

    #[test]
    fn a94_nonsense_is_refused_or_ignored() {
        let Decision::Reply(circle) = ask("circle.shop.svc.cluster.local.", RecordType::A) else { panic!("no answer") };
        assert_eq!(circle.metadata.response_code, ResponseCode::ServFail);
        let Decision::Reply(transfer) = ask("cluster.local.", RecordType::AXFR) else { panic!("no answer") };
        assert_eq!(transfer.metadata.response_code, ResponseCode::Refused);
        let looping = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1];
        for bytes in [&[][..], &[0; 11], &[0xff; 512], &looping] {
            assert!(matches!(decide(&names(), &[], bytes), Decision::Ignore), "{bytes:?}");
        }
    }

    #[test]
    fn a94_whatever_bytes_come_are_answered_shortly_or_ignored() {
        use windlass_stdx::World;
        let world = World::seeded(94, "2026-01-01T00:00:00Z".parse().expect("a time"));
        let (names, local) = (names(), ["10.42.0.0/16".parse().expect("a network")]);
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        let asked = Name::from_ascii("db.shop.svc.cluster.local.").expect("a name");
        query.add_query(Query::query(asked, RecordType::ANY));
        query.set_edns(Edns::new());
        let whole = query.to_vec().expect("bytes");
        let mut answered = 0;
        for _ in 0..50_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + world.random_below(4) {
                let at = world.random_below(bytes.len() as u64) as usize;
                match world.random_below(3) {
                    0 => bytes[at] = world.random_u64() as u8,
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, [0xc0, 0xff, 0, 64][world.random_below(4) as usize]),
                }
            }
            if let Decision::Reply(reply) = decide(&names, &local, &bytes) {
                let bytes = encode(&reply, reply.edns.as_ref().map(|edns| edns.max_payload()), false).expect("bytes");
                assert!(bytes.len() <= 1232, "{} bytes", bytes.len());
                answered += 1;
            }
        }
        assert!(answered > 1000, "some still were questions: {answered}");
        // A label is at most 63 bytes, a name 255: what says more is no name.
        let mut long = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 64].to_vec();
        long.extend([b'a'; 64]);
        long.extend([0, 0, 1, 0, 1]);
        let mut many = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0].to_vec();
        many.extend([1, b'a'].repeat(200));
        many.extend([0, 0, 1, 0, 1]);
        for bytes in [long, many] {
            assert!(matches!(decide(&names, &local, &bytes), Decision::Ignore));
        }
    }

    #[test]
    fn a95_names_are_found_one_by_one_and_never_listed() {
        use ResponseCode::{NXDomain, NoError};
        for domain in ["cluster.local.", "svc.cluster.local.", "shop.svc.cluster.local."] {
            check(domain, RecordType::ANY, NoError, &[]);
            let Decision::Reply(transfer) = ask(domain, RecordType::AXFR) else { panic!("no answer") };
            assert_eq!((transfer.metadata.response_code, transfer.answers.len()), (ResponseCode::Refused, 0));
        }
        for name in ["*.shop.svc.cluster.local.", "*.svc.cluster.local.", "any.shop.svc.cluster.local."] {
            check(name, RecordType::A, NXDomain, &[]);
        }
    }

    #[test]
    fn a_long_answer_is_cut_for_datagrams_and_says_so() {
        let endpoints =
            (0..=255).map(|last| DnsEndpoint { address: [10, 42, 0, last].into(), hostname: None }).collect();
        let many = DnsService { namespace: "n".to_owned(), name: "s".to_owned(), endpoints, ..DnsService::default() };
        let names = Names::build("cluster.local", &DnsTable { services: vec![many] });
        let mut query = Message::new(9, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii("s.n.svc.cluster.local.").expect("a name"), RecordType::A));
        query.set_edns(Edns::new());
        let Decision::Reply(reply) = decide(&names, &[], &query.to_vec().expect("bytes")) else { panic!("no answer") };
        assert_eq!(reply.answers.len(), 256);
        let bytes = encode(&reply, Some(4096), false).expect("bytes");
        let cut = Message::from_vec(&bytes).expect("a message");
        assert!(cut.metadata.truncation && bytes.len() <= 1232 && cut.edns.is_some() && cut.answers.len() > 30);
        let whole = Message::from_vec(&encode(&reply, None, true).expect("bytes")).expect("a message");
        assert_eq!(whole.answers.len(), 256);
    }
}
