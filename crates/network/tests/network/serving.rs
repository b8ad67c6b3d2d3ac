//! Services: what a client names, and who answers.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use windlass_network::{Backend, Frontend, Protocol, ServiceTable, Verified};

use crate::stage::{Machine, TIMEOUT, call, inside, on_a_machine, run, serve};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 43, 7, 7);
const WEB_PORT: SocketAddrV4 = SocketAddrV4::new(WEB, 80);

fn frontend(address: Option<Ipv4Addr>, protocol: Protocol, port: u16) -> Frontend {
    Frontend { address, protocol, port }
}

fn web(endpoints: &[SocketAddrV4]) -> ServiceTable {
    let backend = Backend { endpoints: endpoints.to_vec(), client_affinity: false };
    ServiceTable::from([
        (frontend(Some(WEB), Protocol::Tcp, 80), backend.clone()),
        (frontend(None, Protocol::Tcp, 30_080), backend.clone()),
        (frontend(Some(WEB), Protocol::Udp, 80), backend),
    ])
}

async fn apply(machine: &Machine, table: ServiceTable) {
    machine.network.apply_services(table).await.expect("services are applied");
}

/// Everyone who answers at `address` within a number of calls that misses one of three with a chance below 1e-9.
fn answering(address: SocketAddrV4) -> BTreeSet<String> {
    (0..60).map(|_| call(address).expect("an answer").0).collect()
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_service_spreads_over_its_endpoints_from_pods_and_from_the_machine() {
    on_a_machine(|machine| async move {
        let (client, a, b, c) =
            (machine.pod("client").await, machine.pod("a").await, machine.pod("b").await, machine.pod("c").await);
        let (at_a, at_b, at_c) = (serve(&a, 8080), serve(&b, 8081), serve(&c, 8082));
        apply(&machine, web(&[at_a, at_b, at_c])).await;
        let all = names(&["a", "b", "c"]);
        assert_eq!(answering(WEB_PORT), all, "from the machine");
        assert_eq!(inside(&client.netns, || answering(WEB_PORT)), all, "from a pod");
        let seen = inside(&client.netns, || call(WEB_PORT)).expect("an answer").1;
        assert_eq!(seen, client.address.to_string(), "endpoints see who calls");

        apply(&machine, web(&[at_c])).await;
        assert_eq!(answering(WEB_PORT), names(&["c"]), "a change takes effect for the next connection");
        assert_eq!(inside(&client.netns, || answering(WEB_PORT)), names(&["c"]));
        apply(&machine, web(&[at_a, at_c])).await;
        assert_eq!(answering(WEB_PORT), names(&["a", "c"]));
    });
}

#[test]
fn a_node_port_answers_on_every_address_of_the_machine() {
    on_a_machine(|machine| async move {
        let (client, a) = (machine.pod("client").await, machine.pod("a").await);
        apply(&machine, web(&[serve(&a, 8080)])).await;
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        for address in ["127.0.0.1:30080", "192.0.2.1:30080", "10.42.3.1:30080"] {
            let address: SocketAddr = address.parse().expect("an address");
            assert_eq!(call(address).unwrap_or_else(|error| panic!("{address}: {error}")).0, "a");
        }
        let gateway = SocketAddrV4::new(client.gateway, 30_080);
        assert_eq!(inside(&client.netns, move || call(gateway)).expect("from a pod").0, "a");
        run("ip", &["address", "delete", "192.0.2.1/32", "dev", "lo"]);
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    on_a_machine(|machine| async move {
        let a = machine.pod("a").await;
        apply(&machine, web(&[serve(&a, 8080)])).await;
        assert_eq!(inside(&a.netns, || call(WEB_PORT)).expect("an answer").0, "a");
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    on_a_machine(|machine| async move {
        let client = machine.pod("client").await;
        apply(&machine, web(&[])).await;
        for port in [80, 81] {
            let address = SocketAddrV4::new(WEB, port);
            let from_pod = inside(&client.netns, move || call(address)).expect_err("nobody is there");
            assert_eq!(from_pod.kind(), ErrorKind::ConnectionRefused, "from a pod, port {port}");
            let from_machine = call(address).expect_err("nobody is there");
            assert_eq!(from_machine.kind(), ErrorKind::ConnectionRefused, "from the machine, port {port}");
        }
    });
}

#[test]
fn with_client_affinity_a_client_meets_one_endpoint() {
    on_a_machine(|machine| async move {
        let (client, a, b, c) =
            (machine.pod("client").await, machine.pod("a").await, machine.pod("b").await, machine.pod("c").await);
        let mut table = web(&[serve(&a, 80), serve(&b, 80), serve(&c, 80)]);
        for backend in table.values_mut() {
            backend.client_affinity = true;
        }
        apply(&machine, table).await;
        assert_eq!(inside(&client.netns, || answering(WEB_PORT)).len(), 1);
    });
}

#[test]
fn datagrams_of_one_client_leave_an_endpoint_that_is_gone() {
    on_a_machine(|machine| async move {
        let (client, a, b) = (machine.pod("client").await, machine.pod("a").await, machine.pod("b").await);
        let (at_a, at_b) = (serve(&a, 80), serve(&b, 80));
        apply(&machine, web(&[at_a])).await;
        let socket = inside(&client.netns, || UdpSocket::bind("0.0.0.0:0").expect("a socket"));
        socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let ask = || {
            let mut buffer = [0; 64];
            socket.send_to(b"?", WEB_PORT).expect("sent");
            let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
            assert_eq!(from, SocketAddr::from(WEB_PORT), "the service answers, not the endpoint");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert!(ask().starts_with("a "));
        apply(&machine, web(&[at_b])).await;
        assert!(ask().starts_with("b "), "the same socket meets the endpoint that is there");
    });
}

#[test]
fn rules_removed_behind_our_back_are_restored() {
    on_a_machine(|machine| async move {
        let a = machine.pod("a").await;
        apply(&machine, web(&[serve(&a, 8080)])).await;
        assert_eq!(machine.network.verify().await.expect("verified"), Verified::Intact);
        let tampering: [&[&str]; 4] = [
            &["flush", "ruleset"],
            &["flush", "chain", "ip", "stage", "arriving"],
            &["flush", "map", "ip", "stage", "endpoints"],
            &["delete", "table", "ip", "stage"],
        ];
        for arguments in tampering {
            run("nft", arguments);
            let verified = machine.network.verify().await.expect("verified");
            assert!(matches!(verified, Verified::Restored { .. }), "after {arguments:?}");
            assert_eq!(call(WEB_PORT).expect("the service is back").0, "a");
            assert_eq!(machine.network.verify().await.expect("verified"), Verified::Intact);
        }
        run("nft", &["add", "table", "ip", "somebody-elses"]);
        assert_eq!(machine.network.verify().await.expect("verified"), Verified::Intact);
        run("nft", &["delete", "table", "ip", "somebody-elses"]);
    });
}

#[test]
fn services_stand_through_a_restart_until_the_new_table_replaces_them() {
    on_a_machine(|machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        let (at_a, at_b) = (serve(&a, 80), serve(&b, 80));
        apply(&machine, web(&[at_a])).await;
        let again = machine.restarted().await;
        assert_eq!(call(WEB_PORT).expect("nothing was flushed").0, "a");
        let applied = again.apply_services(web(&[at_b])).await.expect("applied");
        assert!(applied.rebuilt);
        assert_eq!(answering(WEB_PORT), names(&["b"]));
        let applied = again.apply_services(web(&[at_b])).await.expect("applied");
        assert_eq!((applied.elements, applied.rebuilt), (0, false), "the same again writes nothing");
    });
}

#[test]
fn the_nft_program_can_print_our_table() {
    on_a_machine(|machine| async move {
        apply(&machine, web(&["10.42.3.7:8080".parse().expect("an address")])).await;
        let printed = run("nft", &["list", "table", "ip", "stage"]);
        for part in ["10.43.7.7 . tcp . 80", "10.42.3.7 . 8080", "jump random-of-1", "masquerade", "127.0.0.0/8"] {
            assert!(printed.contains(part), "{part} in {printed}");
        }
    });
}

#[test]
fn a_thousand_services_of_ten_load_and_change() {
    on_a_machine(|machine| async move {
        let mut table = ServiceTable::new();
        for number in 0..1000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let endpoints =
                (0..10).map(|slot| SocketAddrV4::new(Ipv4Addr::new(10, 42, 100 + slot, low), 8080)).collect();
            let address = Ipv4Addr::new(10, 43, 16 + high, low);
            let backend = Backend { endpoints, client_affinity: false };
            table.insert(frontend(Some(address), Protocol::Tcp, 80), backend);
        }
        let start = tokio::time::Instant::now();
        let applied = machine.network.apply_services(table.clone()).await.expect("applied");
        let load = start.elapsed();
        assert_eq!(applied.elements, 11_000);
        let mut changes = Vec::new();
        for round in 0..20_u8 {
            let backend = table.values_mut().nth(500).expect("a service");
            backend.endpoints[3] = SocketAddrV4::new(Ipv4Addr::new(10, 42, 200, round), 8080);
            let desired = table.clone();
            let start = tokio::time::Instant::now();
            let applied = machine.network.apply_services(desired).await.expect("applied");
            changes.push(start.elapsed());
            assert_eq!((applied.elements, applied.rebuilt), (2, false));
        }
        changes.sort();
        let mut growth = Vec::new();
        for round in 0..20_u8 {
            let backend = table.values_mut().nth(500).expect("a service");
            backend.endpoints.push(SocketAddrV4::new(Ipv4Addr::new(10, 42, 201, round), 8080));
            let desired = table.clone();
            let start = tokio::time::Instant::now();
            machine.network.apply_services(desired).await.expect("applied");
            growth.push(start.elapsed());
        }
        growth.sort();
        let start = tokio::time::Instant::now();
        machine.network.verify().await.expect("verified");
        println!(
            "1,000 x 10: load {load:?}, one endpoint {:?}, one more endpoint {:?}, verify {:?}",
            changes[10],
            growth[10],
            start.elapsed()
        );
    });
}
