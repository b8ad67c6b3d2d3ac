//! Policies as the kernel sees them: which pods are restricted, and with whom each group of them may speak.
//!
//! Rules
//!   P1 groups      pods with the same rights share one group, so that a peer is written once for all of them
//!   P2 boxes       blocks of addresses and ports are cut into boxes that do not overlap: the kernel takes no others
//!   P3 bounded     a group has at most BLOCKS_MAX blocks, the table at most ELEMENTS_MAX elements; what is over is not
//!                  allowed, and said
//!
//! Not here    selectors, namespaces and pods (node); how it is written (`nft`)

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::cidr::Cidr;
use crate::service::{ELEMENTS_MAX, Protocol};

/// The most blocks of one group: cutting them into boxes takes time that grows with their square.
pub const BLOCKS_MAX: usize = 2048;

/// Which way a connection is begun, as the restricted pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// By the peer, to the pod.
    Ingress,
    /// By the pod, to the peer.
    Egress,
}

/// Everything that is restricted. A pod that is not named here in a direction is free in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyTable {
    /// The group that a pod of this machine is in.
    pub pods: BTreeMap<(Direction, Ipv4Addr), u32>,
    /// The groups by number. A group whose contents change keeps its number.
    pub groups: BTreeMap<u32, Arc<Group>>,
}

/// With whom the pods of a group may speak; with nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which way.
    pub direction: Direction,
    /// Peers, by every protocol and port.
    pub peers: BTreeSet<Ipv4Addr>,
    /// Peers, by one port: that of the peer for egress, of the pod for ingress.
    pub ports: BTreeSet<(Ipv4Addr, Protocol, u16)>,
    /// Blocks of addresses.
    pub blocks: Vec<Block>,
}

impl Group {
    /// A group that may speak with nobody.
    pub fn new(direction: Direction) -> Group {
        Group { direction, peers: BTreeSet::new(), ports: BTreeSet::new(), blocks: Vec::new() }
    }
}

/// A range of addresses, and what is allowed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// The first address.
    pub first: Ipv4Addr,
    /// The last address.
    pub last: Ipv4Addr,
    /// A protocol with its first and last port; `None` is everything.
    pub ports: Option<(Protocol, u16, u16)>,
}

impl Block {
    /// The network without its excepted parts, for these ports.
    pub fn without(network: Cidr, except: &[Cidr], ports: Option<(Protocol, u16, u16)>) -> Vec<Block> {
        let left = subtract(&[range_of(network)], &merge(except.iter().copied().map(range_of).collect()));
        left.into_iter().map(|range| Block { first: range.first(), last: range.last(), ports }).collect()
    }
}

/// Addresses, protocols and ports, each from a first to a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Region {
    pub(crate) addresses: (Ipv4Addr, Ipv4Addr),
    pub(crate) protocols: (u8, u8),
    pub(crate) ports: (u16, u16),
}

/// A group as elements of its sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elements {
    /// What they were made of.
    pub(crate) group: Arc<Group>,
    pub(crate) regions: BTreeSet<Region>,
}

impl Elements {
    fn len(&self) -> usize {
        self.group.peers.len() + self.group.ports.len() + self.regions.len()
    }
}

/// A policy table as it stands in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policed {
    pub(crate) pods: BTreeMap<(Direction, Ipv4Addr), u32>,
    pub(crate) groups: BTreeMap<u32, Elements>,
}

impl Policed {
    /// The table as elements; what `before` has of it already is not made again. A group that does not fit allows
    /// nothing (P3).
    pub(crate) fn of(table: &PolicyTable, before: &Policed) -> Policed {
        let mut left = ELEMENTS_MAX.saturating_sub(2 * table.pods.len());
        let mut groups = BTreeMap::new();
        for (number, group) in &table.groups {
            let same = before.groups.get(number).filter(|known| Arc::ptr_eq(&known.group, group));
            let mut elements = match same {
                Some(known) => known.clone(),
                None => Elements { group: Arc::clone(group), regions: regions(&group.blocks) },
            };
            if elements.len() > left {
                tracing::error!(
                    wanted = elements.len(),
                    left,
                    "network policies allow more peers than fit; what is left out is denied"
                );
                elements = Elements { group: Arc::new(Group::new(group.direction)), regions: BTreeSet::new() };
            }
            left -= elements.len();
            groups.insert(*number, elements);
        }
        Policed { pods: table.pods.clone(), groups }
    }

    /// The pods that are restricted in any direction.
    pub(crate) fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.pods.keys().map(|(_, address)| *address).collect()
    }
}

/// The addresses from the first up to but without the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Range(u64, u64);

impl Range {
    fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::try_from(self.0).expect("a range of IPv4 addresses"))
    }

    fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::try_from(self.1 - 1).expect("a range of IPv4 addresses"))
    }
}

fn range_of(network: Cidr) -> Range {
    let first = u64::from(network.address().to_bits());
    Range(first, first + network.size())
}

/// The same addresses in order, each once.
fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.0 <= last.1 => last.1 = last.1.max(range.1),
            _ => merged.push(range),
        }
    }
    merged
}

/// What is in `from` and not in `what`, both merged.
fn subtract(from: &[Range], what: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    for range in from {
        let mut at = range.0;
        for hole in what.iter().filter(|hole| hole.1 > range.0 && hole.0 < range.1) {
            if hole.0 > at {
                left.push(Range(at, hole.0));
            }
            at = at.max(hole.1);
        }
        if at < range.1 {
            left.push(Range(at, range.1));
        }
    }
    left
}

/// The blocks as regions of which no two overlap (P2, P3).
pub(crate) fn regions(blocks: &[Block]) -> BTreeSet<Region> {
    if blocks.len() > BLOCKS_MAX {
        tracing::error!(blocks = blocks.len(), BLOCKS_MAX, "a network policy has too many blocks; the last are denied");
    }
    let blocks = &blocks[..blocks.len().min(BLOCKS_MAX)];
    let range = |block: &Block| Range(u64::from(block.first.to_bits()), u64::from(block.last.to_bits()) + 1);
    let whole = merge(blocks.iter().filter(|block| block.ports.is_none()).map(range).collect());
    let region = |range: Range, protocols, ports| Region { addresses: (range.first(), range.last()), protocols, ports };
    let mut out: BTreeSet<Region> = whole.iter().map(|found| region(*found, (0, u8::MAX), (0, u16::MAX))).collect();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let number = protocol.number();
        let of_it = blocks.iter().filter_map(|block| {
            let (found, first, last) = block.ports?;
            (found == protocol).then(|| (u32::from(first), u32::from(last) + 1, range(block)))
        });
        for (first, end, addresses) in slices(&of_it.collect::<Vec<_>>()) {
            let ports = (first as u16, (end - 1) as u16);
            out.extend(subtract(&addresses, &whole).into_iter().map(|found| region(found, (number, number), ports)));
        }
    }
    out
}

/// Cuts ranges of ports where any of them begins or ends; neighbours with the same addresses are one.
fn slices(blocks: &[(u32, u32, Range)]) -> Vec<(u32, u32, Vec<Range>)> {
    let cuts: BTreeSet<u32> = blocks.iter().flat_map(|(first, end, _)| [*first, *end]).collect();
    let cuts: Vec<u32> = cuts.into_iter().collect();
    let mut out: Vec<(u32, u32, Vec<Range>)> = Vec::new();
    for pair in cuts.windows(2) {
        let within = blocks.iter().filter(|(first, end, _)| *first <= pair[0] && pair[1] <= *end);
        let addresses = merge(within.map(|(_, _, range)| *range).collect());
        match out.last_mut() {
            Some(last) if last.1 == pair[0] && last.2 == addresses => last.1 = pair[1],
            _ if addresses.is_empty() => {}
            _ => out.push((pair[0], pair[1], addresses)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Block, Direction, Group, Policed, PolicyTable, regions};
    use crate::service::{ELEMENTS_MAX, Protocol};
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    fn block(text: &str) -> Vec<Block> {
        let (addresses, ports) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = addresses.split('-').map(|part| part.parse().expect("a network"));
        let network = parts.next().expect("a network");
        let except: Vec<_> = parts.collect();
        let ports = ports.split_once('/').map(|(protocol, ports)| {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let protocol = if protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp };
            (protocol, first.parse().expect("a port"), last.parse().expect("a port"))
        });
        Block::without(network, &except, ports)
    }

    fn check(blocks: &[&str], expected: &[&str]) {
        let blocks: Vec<Block> = blocks.iter().flat_map(|text| block(text)).collect();
        let shown = regions(&blocks).into_iter().map(|region| {
            let ((a, b), (c, d), (e, f)) = (region.addresses, region.protocols, region.ports);
            format!("{a}-{b} {c}-{d} {e}-{f}")
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{blocks:?}");
    }

    #[test]
    fn p2_excepted_parts_are_cut_out_and_neighbours_joined() {
        check(&["10.0.0.0/24-10.0.0.0/26-10.0.0.128/25"], &["10.0.0.64-10.0.0.127 0-255 0-65535"]);
        check(&["10.0.0.0/25", "10.0.0.128/25"], &["10.0.0.0-10.0.0.255 0-255 0-65535"]);
        check(
            &["0.0.0.0/0-10.0.0.0/8"],
            &["0.0.0.0-9.255.255.255 0-255 0-65535", "11.0.0.0-255.255.255.255 0-255 0-65535"],
        );
        check(
            &["10.0.0.0/24-10.0.0.7/32", "10.0.0.7/32 tcp/80"],
            &["10.0.0.0-10.0.0.6 0-255 0-65535", "10.0.0.7-10.0.0.7 6-6 80-80", "10.0.0.8-10.0.0.255 0-255 0-65535"],
        );
    }

    #[test]
    fn p2_no_two_regions_overlap() {
        check(
            &["10.0.0.0/8 tcp/80-90", "10.1.0.0/16 tcp/85-100", "10.1.0.0/16 udp/85"],
            &[
                "10.0.0.0-10.255.255.255 6-6 80-90",
                "10.1.0.0-10.1.255.255 6-6 91-100",
                "10.1.0.0-10.1.255.255 17-17 85-85",
            ],
        );
        check(&["10.0.0.0/8", "10.1.0.0/16 tcp/80"], &["10.0.0.0-10.255.255.255 0-255 0-65535"]);
        check(&["10.0.0.0/8 tcp/1-65535", "10.0.0.0/8 tcp/80"], &["10.0.0.0-10.255.255.255 6-6 1-65535"]);
    }

    #[test]
    fn p3_what_does_not_fit_is_denied() {
        let mut group = Group::new(Direction::Ingress);
        group.peers = (0..=ELEMENTS_MAX as u32).map(Ipv4Addr::from_bits).collect();
        let small = Group { peers: [Ipv4Addr::LOCALHOST].into(), ..Group::new(Direction::Egress) };
        let table =
            PolicyTable { groups: [(1, Arc::new(group)), (2, Arc::new(small))].into(), ..PolicyTable::default() };
        let policed = Policed::of(&table, &Policed::default());
        assert!(policed.groups[&1].group.peers.is_empty());
        assert_eq!(policed.groups[&2].group.peers.len(), 1);
        let many: Vec<Block> =
            (0..3000_u32).flat_map(|n| block(&format!("{}/32", Ipv4Addr::from_bits(n * 2)))).collect();
        assert_eq!(regions(&many).len(), super::BLOCKS_MAX);
    }
}
