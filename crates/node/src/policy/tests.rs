//! Each rule by objects in, groups out.

use super::read::named_ports;
use super::{Local, Name, Namespace, Peer, Policies, Policy, peer_of_pod};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use windlass_api::Object;
use windlass_network::{Direction, PolicyTable};

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_terminator(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// `name labels address ports`, where a port is `name/protocol/number`.
fn pod(text: &str) -> (Name, Object) {
    let parts: Vec<&str> = text.split(' ').collect();
    let (namespace, name) = parts[0].split_once('/').expect("namespace/name");
    let ports: Vec<Value> = parts
        .get(3)
        .into_iter()
        .flat_map(|ports| ports.split(','))
        .map(|port| {
            let port: Vec<&str> = port.split('/').collect();
            json!({"name": port[0], "protocol": port[1], "containerPort": port[2].parse::<u16>().expect("a port")})
        })
        .collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels(parts[1])},
        "spec": {"containers": [{"name": "c", "ports": ports}]}, "status": {"podIP": parts[2]}});
    ((namespace.to_owned(), name.to_owned()), Object::parse(Bytes::from(pod.to_string())).expect("a pod"))
}

fn policy(spec: Value) -> Option<Arc<Policy>> {
    Some(Arc::new(Policy::of(&spec)))
}

fn local_of(text: &str) -> (Arc<str>, Option<Local>) {
    let ((namespace, name), object) = pod(text);
    let typed: windlass_api::types::core::Pod = object.decode().expect("a pod");
    let local = Local {
        namespace,
        labels: typed.metadata.labels.unwrap_or_default(),
        address: typed.status.and_then(|status| status.pod_ip).expect("an address").parse().expect("an address"),
        ports: named_ports(&typed.spec.expect("a spec")),
    };
    (name.into(), Some(local))
}

/// Namespaces a (team=x), b (team=y) and kube-system, with pods in each; the restricted one is a/web at 10.0.0.1.
fn world() -> Policies {
    let mut policies = Policies::new(Some("10.0.0.254".parse().expect("an address")));
    for (name, team) in [("a", "team=x"), ("b", "team=y"), ("kube-system", "kubernetes.io/metadata.name=kube-system")] {
        policies.set_namespace(name, Some(Namespace { labels: labels(team), is_ending: false }));
    }
    for text in [
        "a/web app=web 10.0.0.1 http/TCP/8080",
        "a/db app=db 10.0.0.2 sql/TCP/5432",
        "b/web app=web 10.0.0.3 http/TCP/9090",
        "b/db app=db 10.0.0.4",
        "kube-system/x app=x 10.0.0.5",
    ] {
        let (name, object) = pod(text);
        policies.set_peer(name, peer_of_pod(&object).map(Arc::new));
    }
    let (uid, local) = local_of("a/web app=web 10.0.0.1 http/TCP/8080");
    policies.set_local(&uid, local);
    policies
}

fn add(policies: &mut Policies, name: &str, spec: Value) {
    policies.set_policy(("a".to_owned(), name.to_owned()), policy(spec));
}

/// What a table says of each restricted pod.
fn shown(table: &PolicyTable) -> Vec<String> {
    let short = |address: std::net::Ipv4Addr| address.octets()[3].to_string();
    let pods = table.pods.iter().map(|((direction, address), number)| {
        let group = &table.groups[number];
        let peers = group.peers.iter().map(|peer| short(*peer));
        let ports = group.ports.iter().map(|(peer, protocol, port)| format!("{}:{protocol:?}/{port}", short(*peer)));
        let blocks = group.blocks.iter().map(|block| {
            let ports = block.ports.map(|(protocol, first, last)| format!(" {protocol:?}/{first}-{last}"));
            format!("{}-{}{}", block.first, block.last, ports.unwrap_or_default())
        });
        let all: Vec<String> = peers.chain(ports).chain(blocks).collect();
        let way = if *direction == Direction::Ingress { "from" } else { "to" };
        format!("{} {way} {}", short(*address), all.join(", "))
    });
    pods.collect()
}

fn check(specs: &[Value], expected: &[&str]) {
    let mut policies = world();
    for (number, spec) in specs.iter().enumerate() {
        add(&mut policies, &format!("p{number}"), spec.clone());
    }
    assert_eq!(shown(&policies.table()), expected, "{specs:?}");
}

fn ingress(rules: Value) -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules})
}

fn egress(rules: Value) -> Value {
    json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules})
}

#[test]
fn r1_only_pods_that_are_selected_are_restricted() {
    check(&[], &[]);
    check(&[json!({"podSelector": {"matchLabels": {"app": "db"}}})], &[]);
    check(&[json!({"podSelector": {"matchLabels": {"app": "web"}}})], &["1 from "]);
    let mut other = world();
    other.set_policy(("b".to_owned(), "p".to_owned()), policy(json!({"podSelector": {}})));
    assert!(shown(&other.table()).is_empty(), "a policy is for its own namespace");
}

#[test]
fn r2_types_say_which_direction_is_restricted() {
    check(&[json!({"podSelector": {}})], &["1 from "]);
    check(
        &[json!({"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]})],
        &["1 from ", "1 to 0.0.0.0-255.255.255.255 Tcp/53-53"],
    );
    check(&[json!({"podSelector": {}, "policyTypes": ["Egress"]})], &["1 to "]);
    check(&[json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})], &["1 from ", "1 to "]);
}

#[test]
fn r3_what_any_policy_allows_is_allowed() {
    let (deny, db) =
        (ingress(json!([])), ingress(json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}])));
    check(&[deny.clone(), db.clone()], &["1 from 2"]);
    let b = ingress(json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "y"}}}]}]));
    check(&[deny.clone(), db, b], &["1 from 2, 3, 4"]);
    check(&[deny, ingress(json!([{}]))], &[]);
}

#[test]
fn r4_peers_are_taken_by_pod_by_namespace_and_by_both() {
    let peers = |peer: Value| ingress(json!([{"from": [peer]}]));
    check(&[peers(json!({"podSelector": {}}))], &["1 from 1, 2"]);
    check(&[peers(json!({"namespaceSelector": {}}))], &["1 from 1, 2, 3, 4, 5"]);
    check(&[peers(json!({"namespaceSelector": {"matchLabels": {"team": "y"}}}))], &["1 from 3, 4"]);
    let both =
        json!({"namespaceSelector": {"matchLabels": {"team": "y"}}, "podSelector": {"matchLabels": {"app": "db"}}});
    check(&[peers(both)], &["1 from 4"]);
    let not = json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}});
    check(&[peers(not)], &["1 from 1"]);
    let either = json!([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}, {"namespaceSelector": {"matchLabels": {"team": "y"}}}]}]);
    check(&[ingress(either)], &["1 from 2, 3, 4"]);
    for (field, value) in [("phase", json!("Succeeded")), ("phase", json!("Failed")), ("podIP", json!(""))] {
        let mut over = pod("a/over app=db 10.0.0.9").1.value();
        over["status"][field] = value;
        assert_eq!(peer_of_pod(&Object::parse(Bytes::from(over.to_string())).expect("a pod")), None, "{over}");
    }
    let mut host = pod("a/host app=db 10.0.0.9").1.value();
    host["spec"]["hostNetwork"] = json!(true);
    assert_eq!(peer_of_pod(&Object::parse(Bytes::from(host.to_string())).expect("a pod")), None);
}

#[test]
fn r5_blocks_leave_their_exceptions_out() {
    let block = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9"]}});
    check(&[egress(json!([{"to": [block]}]))], &["1 to 10.128.0.0-10.255.255.255"]);
    let overlapping = json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.0/28"]}}, {"ipBlock": {"cidr": "10.0.0.7/32"}}]}]);
    check(&[ingress(overlapping)], &["1 from 10.0.0.7-10.0.0.7, 10.0.0.16-10.0.0.255"]);
    check(&[ingress(json!([{"from": [{"ipBlock": {"cidr": "fd00::/8"}}]}]))], &["1 from "]);
}

/// Peers times ports are not multiplied out first and counted then.
#[test]
fn r5_blocks_are_bounded_before_they_are_multiplied_out() {
    let peers: Vec<Value> =
        (0..5_000).map(|at| json!({"ipBlock": {"cidr": format!("10.{}.{}.0/28", at / 250, at % 250)}})).collect();
    let ports: Vec<Value> = (1..5_000).map(|port| json!({"port": port})).collect();
    let mut world = world();
    world.set_policy(("a".to_owned(), "p".to_owned()), policy(ingress(json!([{"from": peers, "ports": ports}]))));
    let table = world.table();
    let blocks: usize = table.groups.values().map(|group| group.blocks.len()).sum();
    assert!((1..=super::BLOCKS_MAX + 1).contains(&blocks), "{blocks} blocks");
}

#[test]
fn r6_ports_are_numbers_ranges_and_names() {
    let db = || json!([{"podSelector": {"matchLabels": {"app": "db"}}}]);
    let by = |ports: Value| ingress(json!([{"from": db(), "ports": ports}]));
    check(&[by(json!([{"port": 80}]))], &["1 from 2:Tcp/80"]);
    check(
        &[by(json!([{"port": 80, "protocol": "SCTP"}, {"protocol": "UDP", "port": 9}]))],
        &["1 from 2:Udp/9, 2:Sctp/80"],
    );
    check(&[by(json!([{"port": 80, "endPort": 90}]))], &["1 from 10.0.0.2-10.0.0.2 Tcp/80-90"]);
    check(&[by(json!([{"protocol": "UDP"}]))], &["1 from 10.0.0.2-10.0.0.2 Udp/0-65535"]);
    check(&[by(json!([{"port": "http"}]))], &["1 from 2:Tcp/8080"]);
    check(&[by(json!([{"port": "http", "protocol": "UDP"}]))], &["1 from "]);
    let to = |peer: Value, ports: Value| egress(json!([{"to": [peer], "ports": ports}]));
    check(&[to(json!({"namespaceSelector": {}}), json!([{"port": "http"}]))], &["1 to 1:Tcp/8080, 3:Tcp/9090"]);
    check(&[to(json!({"namespaceSelector": {}}), json!([{"port": "sql"}]))], &["1 to 2:Tcp/5432"]);
}

#[test]
fn r7_without_peers_a_rule_is_for_everybody() {
    check(&[ingress(json!([{"ports": [{"port": 80}]}]))], &["1 from 0.0.0.0-255.255.255.255 Tcp/80-80"]);
    check(&[ingress(json!([{"ports": [{"port": "http"}]}]))], &["1 from 0.0.0.0-255.255.255.255 Tcp/8080-8080"]);
    check(&[egress(json!([{"to": []}]))], &[]);
    check(&[egress(json!([{"ports": [{"port": "http"}]}]))], &["1 to 1:Tcp/8080, 3:Tcp/9090"]);
}

#[test]
fn r8_the_clusters_dns_is_a_pod_of_kube_system() {
    let system = || json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
    let dns = json!({"namespaceSelector": system(), "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}});
    let by = |ports: Value| egress(json!([{"to": [dns.clone()], "ports": ports}]));
    check(&[by(json!([]))], &["1 to 254:Tcp/53, 254:Udp/53"]);
    check(&[by(json!([{"port": 53, "protocol": "UDP"}]))], &["1 to 254:Udp/53"]);
    check(&[by(json!([{"port": "dns-tcp"}]))], &["1 to 254:Tcp/53"]);
    check(&[by(json!([{"port": 10250}]))], &["1 to "]);
    check(&[egress(json!([{"to": [{"namespaceSelector": system()}]}]))], &["1 to 5, 254:Tcp/53, 254:Udp/53"]);
    check(&[ingress(json!([{"from": [{"namespaceSelector": system()}]}]))], &["1 from 5"]);
}

#[test]
fn r9_policies_of_an_ending_namespace_hold_until_its_last_pod_is_gone() {
    let mut policies = world();
    let name = ("a".to_owned(), "p".to_owned());
    add(&mut policies, "p", ingress(json!([])));
    policies.set_namespace("a", Some(Namespace { labels: labels("team=x"), is_ending: true }));
    policies.set_policy(name.clone(), None);
    policies.set_namespace("a", None);
    assert_eq!(shown(&policies.table()), ["1 from "]);
    let (uid, local) = local_of("a/web app=web 10.0.0.1");
    policies.set_local(&uid, None);
    assert!(shown(&policies.table()).is_empty());
    policies.set_local(&uid, local);
    assert!(shown(&policies.table()).is_empty(), "and not longer");
    add(&mut policies, "p", ingress(json!([])));
    policies.set_namespace("a", Some(Namespace { labels: labels("team=x"), is_ending: false }));
    policies.set_policy(name, None);
    assert!(shown(&policies.table()).is_empty(), "whoever deletes a policy of a living namespace means it");
}

#[test]
fn r9_a_later_agent_has_them_from_what_was_kept() {
    let read = |text: String| {
        let object = windlass_api::Object::parse(text.into_bytes().into()).expect("an object");
        Arc::new(Policy::read(&object))
    };
    let document = |namespace: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": namespace, "uid": "u", "resourceVersion": "1"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}})
        .to_string()
    };
    let name = |namespace: &str| (namespace.to_owned(), "p".to_owned());
    let ending = || Some(Namespace { labels: labels("team=x"), is_ending: true });
    let mut policies = world();
    for namespace in ["a", "b"] {
        policies.set_policy(name(namespace), Some(read(document(namespace))));
    }
    assert!(policies.lasting().is_empty(), "what lives is in the API");
    policies.set_namespace("a", ending());
    assert_eq!(policies.lasting(), [document("a").as_bytes()], "before it is deleted, since the agent may end then");
    policies.set_policy(name("a"), None);
    assert_eq!(policies.lasting(), [document("a").as_bytes()]);

    let restored = || Policies::new(None).restored([(name("a"), read(document("a")))]);
    let mut later = restored();
    later.set_namespace("a", ending());
    let (uid, local) = local_of("a/web app=web 10.0.0.1");
    later.set_local(&uid, local.clone());
    assert_eq!(shown(&later.table()), ["1 from "]);
    later.set_local(&uid, None);
    assert!(shown(&later.table()).is_empty() && later.lasting().is_empty(), "its last pod is gone");

    let mut anew = restored();
    anew.set_local(&uid, local);
    anew.set_namespace("a", Some(Namespace { labels: labels("team=x"), is_ending: false }));
    assert!(shown(&anew.table()).is_empty(), "another namespace of that name has nothing of it");
}

#[test]
fn pods_with_the_same_rights_share_a_group() {
    let mut policies = world();
    add(&mut policies, "p", ingress(json!([{"from": [{"podSelector": {}}]}])));
    let (uid, local) = local_of("a/web2 app=web 10.0.0.8");
    policies.set_local(&uid, local);
    let table = policies.table();
    assert_eq!((table.pods.len(), table.groups.len()), (2, 1));
    let before = Arc::clone(&table.groups[&1]);
    let (uid, local) = local_of("a/web3 app=web 10.0.0.9");
    policies.set_local(&uid, local);
    assert!(Arc::ptr_eq(&before, &policies.table().groups[&1]), "a pod more changes nothing of its group");
}

/// A small generator: the same numbers every time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn selector(&mut self) -> Value {
        match self.below(4) {
            0 => json!({}),
            1 => json!({"matchLabels": {"app": "web"}}),
            2 => json!({"matchLabels": {"app": "db"}}),
            _ => json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
        }
    }

    fn labels(&mut self) -> &'static str {
        ["app=web", "app=db", "app=db,tier=x", "tier=x"][self.below(4) as usize]
    }

    fn spec(&mut self) -> Value {
        let peer = match self.below(4) {
            0 => json!({"podSelector": self.selector()}),
            1 => json!({"namespaceSelector": self.selector()}),
            2 => json!({"namespaceSelector": self.selector(), "podSelector": self.selector()}),
            _ => json!({"ipBlock": {"cidr": "10.0.0.0/16"}}),
        };
        let ports = match self.below(4) {
            0 => json!([]),
            1 => json!([{"port": 80}]),
            2 => json!([{"port": "http"}]),
            _ => json!([{"port": 80, "endPort": 88}]),
        };
        let peers = if self.below(6) == 0 { json!([]) } else { json!([peer]) };
        match self.below(2) {
            0 => json!({"podSelector": self.selector(), "ingress": [{"from": peers, "ports": ports}]}),
            _ => {
                json!({"podSelector": self.selector(), "policyTypes": ["Egress"], "egress": [{"to": peers, "ports": ports}]})
            }
        }
    }
}

#[test]
fn change_by_change_comes_to_the_same_as_all_at_once() {
    let mut draw = Draw(7);
    let mut current = Policies::new(None);
    let (mut specs, mut namespaces) = (BTreeMap::<Name, Value>::new(), BTreeMap::<String, Namespace>::new());
    let (mut peers, mut locals) = (BTreeMap::<Name, Peer>::new(), BTreeMap::<Arc<str>, Local>::new());
    for round in 0..2000 {
        let namespace = ["a", "b"][draw.below(2) as usize].to_owned();
        let number = draw.below(6);
        let is_gone = draw.below(4) == 0;
        match draw.below(4) {
            0 => {
                let name = (namespace, format!("p{number}"));
                let spec = draw.spec();
                current.set_policy(name.clone(), (!is_gone).then(|| policy(spec.clone())).flatten());
                if is_gone {
                    specs.remove(&name)
                } else {
                    specs.insert(name, spec)
                };
            }
            1 => {
                let found = Namespace { labels: labels(draw.labels()), is_ending: false };
                current.set_namespace(&namespace, Some(found.clone()));
                namespaces.insert(namespace, found);
            }
            2 => {
                let (name, object) =
                    pod(&format!("{namespace}/n{number} {} 10.0.0.{number} http/TCP/{}", draw.labels(), 80 + number));
                let peer = peer_of_pod(&object).filter(|_| !is_gone);
                current.set_peer(name.clone(), peer.clone().map(Arc::new));
                match peer {
                    Some(peer) => peers.insert(name, peer),
                    None => peers.remove(&name),
                };
            }
            _ => {
                let (uid, local) =
                    local_of(&format!("{namespace}/l{number} {} 10.0.1.{number} http/TCP/80", draw.labels()));
                let local = local.filter(|_| !is_gone && namespaces.contains_key(&namespace));
                current.set_local(&uid, local.clone());
                match local {
                    Some(local) => locals.insert(uid, local),
                    None => locals.remove(&uid),
                };
            }
        }
        if round % 10 > 0 {
            continue;
        }
        let mut fresh = Policies::new(None);
        namespaces.iter().for_each(|(name, found)| fresh.set_namespace(name, Some(found.clone())));
        specs.iter().for_each(|(name, spec)| fresh.set_policy(name.clone(), policy(spec.clone())));
        locals.iter().for_each(|(uid, local)| fresh.set_local(uid, Some(local.clone())));
        peers.iter().for_each(|(name, peer)| fresh.set_peer(name.clone(), Some(Arc::new(peer.clone()))));
        let (table, expected) = (current.table(), fresh.table());
        assert_eq!(shown(&table), shown(&expected), "round {round}");
        assert_eq!(table.groups.len(), expected.groups.len(), "round {round}: no group is left over");
    }
}
