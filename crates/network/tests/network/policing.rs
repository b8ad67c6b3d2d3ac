//! Network policies: real packets between pods that are restricted and those that are not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;

use windlass_network::{
    Attachment, Backend, Block, Direction, Frontend, Group, PolicyTable, Protocol, ServiceTable, Verified,
};

use crate::stage::{DROPPED, Machine, TIMEOUT, call, call_within, inside, on_a_machine, run, serve};

/// One pod in one group of its own.
fn restricted(pod: &Attachment, group: Group) -> PolicyTable {
    PolicyTable { pods: [((group.direction, pod.address), 1)].into(), groups: [(1, Arc::new(group))].into() }
}

fn nobody(direction: Direction) -> Group {
    Group::new(direction)
}

async fn apply(machine: &Machine, table: PolicyTable) {
    machine.network.apply_policies(table).await.expect("policies are applied");
}

fn reaches(from: &Attachment, to: SocketAddrV4) -> bool {
    inside(&from.netns, move || call_within(to, DROPPED)).is_ok()
}

fn reaches_by_udp(from: &Attachment, to: SocketAddrV4) -> bool {
    inside(&from.netns, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(DROPPED)).expect("a timeout");
        socket.send_to(b"?", to).is_ok() && socket.recv(&mut [0; 64]).is_ok()
    })
}

fn everywhere(ports: Option<(Protocol, u16, u16)>) -> Vec<Block> {
    Block::without("0.0.0.0/0".parse().expect("a network"), &[], ports)
}

#[test]
fn a_pod_that_nobody_may_reach_is_reached_by_its_machine_only() {
    on_a_machine(|machine| async move {
        let (client, a, b) = (machine.pod("client").await, machine.pod("a").await, machine.pod("b").await);
        let (at_a, at_b) = (serve(&a, 80), serve(&b, 80));
        assert!(reaches(&client, at_a) && reaches_by_udp(&client, at_a));
        apply(&machine, restricted(&a, nobody(Direction::Ingress))).await;
        assert!(!reaches(&client, at_a) && !reaches_by_udp(&client, at_a), "denied");
        assert!(reaches(&client, at_b), "another pod is free");
        assert!(reaches(&a, at_b), "its own connections are free");
        assert!(reaches(&a, at_a), "and those to itself");
        call(at_a).expect("the machine reaches its pods");
        apply(&machine, PolicyTable::default()).await;
        assert!(reaches(&client, at_a), "free again");
        assert!(!run("nft", &["list", "tables"]).contains("stage-policy"), "nobody is restricted: there is no table");
    });
}

#[test]
fn a_pod_that_may_reach_nobody_answers_those_who_reach_it() {
    on_a_machine(|machine| async move {
        let (client, a, b) = (machine.pod("client").await, machine.pod("a").await, machine.pod("b").await);
        let (at_a, at_b) = (serve(&a, 80), serve(&b, 80));
        let gateway = TcpListener::bind((a.gateway, 7000)).expect("a free port");
        let at_gateway = SocketAddr::from((a.gateway, 7000));
        let connects = move || TcpStream::connect_timeout(&at_gateway, DROPPED).is_ok();
        assert!(inside(&a.netns, connects));
        apply(&machine, restricted(&a, nobody(Direction::Egress))).await;
        assert!(!reaches(&a, at_b) && !reaches_by_udp(&a, at_b), "denied");
        assert!(!inside(&a.netns, connects), "also to the machine");
        assert!(reaches(&client, at_a) && reaches_by_udp(&client, at_a), "it answers");
        call(at_a).expect("it answers its machine");
        drop(gateway);
    });
}

#[test]
fn peers_are_allowed_by_address_and_by_port() {
    on_a_machine(|machine| async move {
        let (a, b, c) = (machine.pod("a").await, machine.pod("b").await, machine.pod("c").await);
        let (at_80, at_81) = (serve(&a, 80), serve(&a, 81));
        let mut group = nobody(Direction::Ingress);
        group.peers.insert(b.address);
        group.ports.insert((c.address, Protocol::Tcp, 81));
        apply(&machine, restricted(&a, group.clone())).await;
        assert_eq!((reaches(&b, at_80), reaches(&b, at_81), reaches_by_udp(&b, at_80)), (true, true, true));
        assert_eq!((reaches(&c, at_80), reaches(&c, at_81), reaches_by_udp(&c, at_81)), (false, true, false));
        group.peers.remove(&b.address);
        group.ports = [(b.address, Protocol::Udp, 80)].into();
        apply(&machine, restricted(&a, group)).await;
        assert_eq!((reaches(&b, at_80), reaches_by_udp(&b, at_80), reaches(&c, at_81)), (false, true, false));
    });
}

#[test]
fn blocks_are_allowed_with_exceptions_and_ranges_of_ports() {
    on_a_machine(|machine| async move {
        let (a, b, c) = (machine.pod("a").await, machine.pod("b").await, machine.pod("c").await);
        let (at_80, at_90, at_91) = (serve(&a, 80), serve(&a, 90), serve(&a, 91));
        let single = |address: Ipv4Addr| format!("{address}/32").parse().expect("a network");
        let pods = machine.config.cluster_cidr;
        let mut group = nobody(Direction::Ingress);
        group.blocks = Block::without(pods, &[single(c.address)], None);
        group.blocks.extend(everywhere(Some((Protocol::Tcp, 85, 90))));
        apply(&machine, restricted(&a, group.clone())).await;
        assert_eq!((reaches(&b, at_80), reaches_by_udp(&b, at_91)), (true, true), "in the block");
        assert_eq!((reaches(&c, at_80), reaches(&c, at_90), reaches(&c, at_91)), (false, true, false), "by port only");
        group.blocks = everywhere(Some((Protocol::Tcp, 91, 91)));
        apply(&machine, restricted(&a, group)).await;
        assert_eq!((reaches(&b, at_80), reaches(&c, at_90), reaches(&c, at_91)), (false, false, true));
    });
}

#[test]
fn what_a_pod_may_reach_is_judged_behind_the_service() {
    on_a_machine(|machine| async move {
        let (a, b, c) = (machine.pod("a").await, machine.pod("b").await, machine.pod("c").await);
        let (at_b, at_c) = (serve(&b, 8080), serve(&c, 8080));
        let service = |last: u8| SocketAddrV4::new(Ipv4Addr::new(10, 43, 7, last), 80);
        let table: ServiceTable = [(1, at_b), (2, at_c)]
            .into_iter()
            .map(|(last, endpoint)| {
                let frontend = Frontend { address: Some(*service(last).ip()), protocol: Protocol::Tcp, port: 80 };
                (frontend, Backend { endpoints: vec![endpoint], client_affinity: false })
            })
            .collect();
        machine.network.apply_services(table).await.expect("services are applied");
        let mut group = nobody(Direction::Egress);
        group.ports.insert((b.address, Protocol::Tcp, 8080));
        apply(&machine, restricted(&a, group)).await;
        assert!(reaches(&a, service(1)), "the pod behind it is allowed");
        assert!(!reaches(&a, service(2)), "the pod behind it is not");
    });
}

#[test]
fn a_policy_cuts_off_connections_that_stand() {
    on_a_machine(|machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        let to = SocketAddrV4::new(a.address, 90);
        let listener = inside(&a.netns, move || TcpListener::bind(to).expect("a free port"));
        let mut sender = inside(&b.netns, move || TcpStream::connect(to).expect("free"));
        let (mut receiver, _) = listener.accept().expect("a client");
        receiver.set_read_timeout(Some(DROPPED)).expect("a timeout");
        let mut buffer = [0; 16];
        sender.write_all(b"before").expect("sent");
        assert_eq!(receiver.read(&mut buffer).expect("it arrives"), 6);
        apply(&machine, restricted(&a, nobody(Direction::Ingress))).await;
        sender.write_all(b"denied").expect("sent");
        assert!(receiver.read(&mut buffer).is_err(), "nothing arrives any more");
        apply(&machine, PolicyTable::default()).await;
        receiver.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        assert_eq!(receiver.read(&mut buffer).expect("it goes on"), 6);
    });
}

#[test]
fn pods_move_between_groups_and_groups_end() {
    on_a_machine(|machine| async move {
        let (a, b, c) = (machine.pod("a").await, machine.pod("b").await, machine.pod("c").await);
        let (at_a, at_b) = (serve(&a, 80), serve(&b, 80));
        let open = Group { peers: [c.address].into(), ..nobody(Direction::Ingress) };
        let both = |of_a: u32, of_b: u32| PolicyTable {
            pods: [((Direction::Ingress, a.address), of_a), ((Direction::Ingress, b.address), of_b)].into(),
            groups: [(1, Arc::new(open.clone())), (2, Arc::new(nobody(Direction::Ingress)))]
                .into_iter()
                .filter(|(number, _)| [of_a, of_b].contains(number))
                .collect(),
        };
        for (of_a, of_b) in [(1, 2), (2, 1), (1, 1), (2, 2), (1, 2)] {
            apply(&machine, both(of_a, of_b)).await;
            assert_eq!((reaches(&c, at_a), reaches(&c, at_b)), (of_a == 1, of_b == 1), "{of_a} {of_b}");
            assert_eq!(machine.network.verify().await.expect("verified"), Verified::Intact);
        }
    });
}

#[test]
fn policies_stand_through_a_restart_and_are_restored() {
    on_a_machine(|machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        let at_a = serve(&a, 80);
        let mut group = nobody(Direction::Ingress);
        group.blocks = everywhere(Some((Protocol::Tcp, 443, 443)));
        group.ports.insert((b.address, Protocol::Udp, 9));
        apply(&machine, restricted(&a, group.clone())).await;
        let again = machine.restarted().await;
        assert!(!reaches(&b, at_a), "before the new agent knows of it");
        again.apply_policies(restricted(&a, group)).await.expect("applied");
        assert!(!reaches(&b, at_a));
        assert_eq!(again.verify().await.expect("verified"), Verified::Intact);
        let tampering: [&[&str]; 4] = [
            &["flush", "ruleset"],
            &["flush", "chain", "ip", "stage-policy", "between"],
            &["flush", "set", "ip", "stage-policy", "ports-1"],
            &["delete", "table", "ip", "stage-policy"],
        ];
        for arguments in tampering {
            run("nft", arguments);
            let verified = again.verify().await.expect("verified");
            assert!(matches!(verified, Verified::Restored { .. }), "after {arguments:?}: {verified:?}");
            assert!(!reaches(&b, at_a), "denied again");
            assert_eq!(again.verify().await.expect("verified"), Verified::Intact);
        }
    });
}

#[test]
fn the_nft_program_can_print_policies() {
    on_a_machine(|machine| async move {
        let a = machine.pod("a").await;
        let mut group = nobody(Direction::Egress);
        group.blocks = Block::without(
            "10.0.0.0/8".parse().expect("a network"),
            &["10.1.0.0/16".parse().expect("a network")],
            Some((Protocol::Udp, 53, 60)),
        );
        group.ports.insert((Ipv4Addr::new(10, 42, 9, 9), Protocol::Tcp, 8080));
        apply(&machine, restricted(&a, group)).await;
        let printed = run("nft", &["list", "table", "ip", "stage-policy"]);
        println!("{printed}");
        for part in ["10.42.9.9 . tcp . 8080", "10.0.0.0/16 . udp . 53-60", "jump group-1", "ct direction reply return"]
        {
            assert!(printed.contains(part), "{part} in {printed}");
        }
    });
}

#[test]
fn five_thousand_peers_load_and_one_of_them_changes() {
    on_a_machine(|machine| async move {
        let a = machine.pod("a").await;
        let mut group = nobody(Direction::Ingress);
        group.peers = (0..5000).map(|n| Ipv4Addr::from_bits(0x0a2a_4000 + n)).collect();
        let start = tokio::time::Instant::now();
        apply(&machine, restricted(&a, group.clone())).await;
        let load = start.elapsed();
        let mut changes = Vec::new();
        for n in 0..20 {
            group.peers.insert(Ipv4Addr::from_bits(0x0a2a_8000 + n));
            let table = restricted(&a, group.clone());
            let start = tokio::time::Instant::now();
            apply(&machine, table).await;
            changes.push(start.elapsed());
        }
        changes.sort();
        println!("5,000 peers: load {load:?}, one more {:?}", changes[10]);
    });
}
