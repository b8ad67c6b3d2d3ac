//! Pods get their place in the network, keep it, and give it back.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use windlass_network::{AttachSpec, Network, NetworkError, Verified};

use crate::stage::{DROPPED, TIMEOUT, call, call_within, inside, on_a_machine, run, serve};

#[test]
fn pods_reach_each_other_and_the_machine_by_their_own_addresses() {
    on_a_machine(|machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        assert_eq!((a.address, b.address), (Ipv4Addr::new(10, 42, 3, 2), Ipv4Addr::new(10, 42, 3, 3)));
        let at_b = serve(&b, 80);
        let from_pod = inside(&a.netns, move || call(at_b)).expect("pod to pod");
        assert_eq!(from_pod, ("b".to_owned(), a.address.to_string()), "no address is rewritten between pods");
        let from_machine = call(at_b).expect("machine to pod");
        assert_eq!(from_machine, ("b".to_owned(), "10.42.3.1".to_owned()));
        let listener = std::net::TcpListener::bind((machine.network.gateway(), 7000)).expect("the gateway is ours");
        let gateway = SocketAddr::from((a.gateway, 7000));
        inside(&a.netns, move || std::net::TcpStream::connect_timeout(&gateway, TIMEOUT)).expect("pod to machine");
        drop(listener);
    });
}

#[test]
fn a_pod_reaches_the_outside_under_the_machines_address() {
    on_a_machine(|machine| async move {
        let pod = machine.pod("a").await;
        // The outside is another namespace behind an uplink.
        let outside = machine.config.run_dir.join("netns").join("outside");
        let outside_name = outside.clone();
        std::thread::spawn(move || {
            let home = std::fs::File::open("/proc/thread-self/ns/net").expect("a namespace");
            // SAFETY: only the network namespace of this thread changes.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("root");
            std::fs::File::create(&outside_name).expect("a name");
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &outside_name).expect("kept");
            let home = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&home));
            run("ip", &["link", "add", "peer", "type", "veth", "peer", "name", "uplink", "netns", &home]);
            run("ip", &["address", "add", "192.0.2.2/24", "dev", "peer"]);
            run("ip", &["link", "set", "peer", "up"]);
        })
        .join()
        .expect("an outside");
        run("ip", &["address", "add", "192.0.2.1/24", "dev", "uplink"]);
        run("ip", &["link", "set", "uplink", "up"]);
        let server = windlass_network::Attachment {
            id: "outside".to_owned(),
            netns: outside,
            address: Ipv4Addr::new(192, 0, 2, 2),
            gateway: Ipv4Addr::new(192, 0, 2, 1),
            interface: "peer".to_owned(),
        };
        let at_outside = serve(&server, 80);
        let seen = inside(&pod.netns, move || call(at_outside)).expect("pod to outside");
        assert_eq!(seen, ("outside".to_owned(), "192.0.2.1".to_owned()));
        run("ip", &["link", "delete", "uplink"]);
    });
}

#[test]
fn a98_a_pod_can_neither_forge_its_address_nor_reach_the_machines_loopback() {
    on_a_machine(|machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        let own = UdpSocket::bind("127.0.0.1:7001").expect("a free port");
        own.set_read_timeout(Some(DROPPED)).expect("a timeout");
        let victim = inside(&b.netns, || UdpSocket::bind("0.0.0.0:7002").expect("a free port"));
        victim.set_read_timeout(Some(DROPPED)).expect("a timeout");
        let to_victim = SocketAddr::from((b.address, 7002));
        inside(&a.netns, move || {
            run("ip", &["address", "add", "10.42.3.77/32", "dev", "eth0"]);
            run("ip", &["route", "add", "127.0.0.0/8", "via", "10.42.3.1", "dev", "eth0", "table", "7"]);
            run("ip", &["rule", "add", "pref", "0", "lookup", "7"]);
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").expect("the pod's own setting");
            let honest = UdpSocket::bind(SocketAddr::from((a.address, 0))).expect("the pod's address");
            honest.send_to(b"loopback", "127.0.0.1:7001").expect("sent");
            honest.send_to(b"honest", to_victim).expect("sent");
            let forged = UdpSocket::bind("10.42.3.77:0").expect("an address it took itself");
            forged.send_to(b"forged", to_victim).expect("sent");
        });
        let mut buffer = [0; 16];
        let (length, _) = victim.recv_from(&mut buffer).expect("the honest datagram");
        assert_eq!(&buffer[..length], b"honest");
        assert!(victim.recv_from(&mut buffer).is_err(), "the forged datagram is dropped");
        assert!(own.recv_from(&mut buffer).is_err(), "the loopback datagram is dropped");
    });
}

#[test]
fn a100_a_pod_does_not_reach_the_address_that_tells_about_the_machine() {
    on_a_machine(|machine| async move {
        let a = machine.pod("a").await;
        run("ip", &["address", "add", "169.254.169.254/32", "dev", "lo"]);
        let metadata = std::net::TcpListener::bind("169.254.169.254:80").expect("a free port");
        let own = std::net::TcpStream::connect("169.254.169.254:80");
        own.expect("the machine itself reaches it");
        let refused = inside(&a.netns, || std::net::TcpStream::connect("169.254.169.254:80")).expect_err("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");
        drop(metadata);
        run("ip", &["address", "delete", "169.254.169.254/32", "dev", "lo"]);
    });
}

#[test]
fn a_restart_keeps_pods_and_their_connections() {
    on_a_machine(|machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        let at_b = serve(&b, 80);
        let again = machine.restarted().await;
        assert_eq!(again.attachments(), [a.clone(), b.clone()]);
        let same = again.attach(AttachSpec { id: "a".to_owned() }).await.expect("attached already");
        assert_eq!(same, a);
        inside(&a.netns, move || call(at_b)).expect("the pods still reach each other");
        assert_eq!(again.verify().await.expect("verified"), Verified::Intact);
    });
}

#[test]
fn an_attach_that_was_cut_off_is_completed_by_the_next() {
    on_a_machine(|machine| async move {
        let a = machine.pod("a").await;
        let lease = machine.config.run_dir.join("leases").join(a.address.to_string());
        std::fs::write(&lease, r#"{"id":"a","ready":false,"returned":0}"#).expect("a lease of a cut-off attach");
        std::fs::write(lease.with_file_name("10.42.3.9"), "{").expect("a lease of a cut-off write");
        let again = machine.restarted().await;
        assert_eq!(again.attachments(), []);
        assert_eq!(again.held(), ["a"]);
        let same = again.attach(AttachSpec { id: "a".to_owned() }).await.expect("attached anew");
        assert_eq!(same, a);
        let at_a = serve(&same, 80);
        call(at_a).expect("the new cable works");
    });
}

#[test]
fn an_address_is_given_out_again_as_late_as_possible() {
    on_a_machine(|machine| async move {
        let mut config = machine.config.clone();
        config.instance = "small".to_owned();
        config.run_dir = config.run_dir.join("small");
        config.pod_cidr = "10.42.9.0/29".parse().expect("a network");
        let small = Network::open(config.clone()).await.expect("a second instance");
        let attach = async |id: &str| small.attach(AttachSpec { id: id.to_owned() }).await;
        for id in ["a", "b", "c", "d", "e"] {
            attach(id).await.expect("an address is left");
        }
        let full = attach("f").await.expect_err("no address is left");
        assert!(full.to_string().contains("all 5 pod addresses of 10.42.9.0/29 are in use"), "{full}");
        for id in ["d", "b"] {
            small.detach(id).await.expect("detached");
            small.detach(id).await.expect("twice is fine");
        }
        drop(small);
        let small = Network::open(config).await.expect("the second instance again");
        let next = small.attach(AttachSpec { id: "g".to_owned() }).await.expect("an address is left");
        assert_eq!(next.address, Ipv4Addr::new(10, 42, 9, 5), "d came back first");
        small.teardown().await.expect("the second instance is gone");
    });
}

#[test]
fn what_was_removed_behind_our_back_is_put_right() {
    on_a_machine(|machine| async move {
        let pod = machine.pod("a").await;
        assert_eq!(machine.network.verify().await.expect("verified"), Verified::Intact);
        run("ip", &["link", "delete", "stage0"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("the machine's setting");
        assert!(matches!(machine.network.verify().await.expect("verified"), Verified::Restored { .. }));
        assert_eq!(machine.network.verify().await.expect("verified"), Verified::Intact);
        let at_pod = serve(&pod, 80);
        call_within(at_pod, TIMEOUT).expect("the machine reaches the pod");
    });
}

#[test]
fn f61_a_run_directory_that_was_removed_is_made_again() {
    on_a_machine(|machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        assert_eq!(machine.network.unplugged().expect("read").len(), 0);
        std::fs::remove_dir_all(machine.config.run_dir.join("leases")).expect("the test's own");
        run("umount", &[&b.netns.to_string_lossy()]);
        std::fs::remove_file(&b.netns).expect("the test's own");
        assert_eq!(machine.network.unplugged().expect("read"), ["b".to_owned()].into(), "whose namespace is gone");
        assert!(matches!(machine.network.verify().await.expect("verified"), Verified::Restored { .. }));
        assert_eq!(machine.network.verify().await.expect("verified"), Verified::Intact);
        let at_a = serve(&a, 80);
        call(at_a).expect("who was not touched goes on");
        let b = machine.pod("b").await;
        call(serve(&b, 80)).expect("who was is attached anew");
        run("ip", &["link", "delete", &format!("{}{:08x}", prefix(), a.address.to_bits())]);
        assert_eq!(machine.network.unplugged().expect("read"), ["a".to_owned()].into(), "whose interface is gone");
        let again = machine.restarted().await;
        assert_eq!(again.attachments().len(), 2, "the leases are on disk again");
    });
}

/// What the names of the stage's pod interfaces begin with.
fn prefix() -> String {
    let names = run("ip", &["-o", "link"]);
    let name = names.split_whitespace().find(|word| word.starts_with("wl")).expect("a pod's interface");
    name.split_once('-').map(|(prefix, _)| format!("{prefix}-")).expect("a dash")
}

#[test]
fn impossible_configurations_and_ids_are_refused_with_the_reason() {
    on_a_machine(|machine| async move {
        for id in ["", "../x", ".hidden", "a/b", "a b", &"x".repeat(129)] {
            let refused = machine.network.attach(AttachSpec { id: id.to_owned() }).await;
            assert!(matches!(refused, Err(NetworkError::Id(_))), "{id:?}");
        }
        type Spoil = fn(&mut windlass_network::NetworkConfig);
        let rows: [(&str, Spoil); 5] = [
            ("expected an instance", |config| config.instance = "Too Long An Instance".to_owned()),
            ("is not within the cluster's", |config| config.pod_cidr = "10.99.0.0/24".parse().expect("a network")),
            ("overlaps", |config| config.service_cidr = "10.42.0.0/20".parse().expect("a network")),
            ("the DNS address", |config| config.dns_address = Ipv4Addr::new(10, 99, 0, 10)),
            ("mtu", |config| config.mtu = 100),
        ];
        for (why, spoil) in rows {
            let mut config = machine.config.clone();
            spoil(&mut config);
            let error = Network::open(config).await.err().expect(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    });
}

#[test]
fn attaching_many_at_once_gives_everyone_a_place_of_its_own() {
    on_a_machine(|machine| async move {
        let start = tokio::time::Instant::now();
        let one = machine.pod("first").await;
        let single = start.elapsed();
        let start = tokio::time::Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..20 {
            let network = machine.network.clone();
            tasks.spawn(async move { network.attach(AttachSpec { id: format!("pod-{number}") }).await });
        }
        let pods = tasks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>().expect("all are attached");
        println!("attach: one {single:?}, twenty at once {:?}", start.elapsed());
        let addresses: std::collections::BTreeSet<_> =
            pods.iter().map(|pod| pod.address).chain([one.address]).collect();
        assert_eq!(addresses.len(), 21);
    });
}
