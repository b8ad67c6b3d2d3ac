//! Which pod gives way when the node is short of something: a pure function of what each has and was promised.
//!
//! Rules, in order
//!   E1 promise    pods that use more than they were promised go before those that do not
//!   E2 priority   of these, the less important ones first
//!   E3 amount     of these, the one that is furthest beyond its promise; of files and process ids, the one that has most
//! Not here        when the node is short (node), ending the pod (pod)
//! Source: Kubernetes documentation, "Node-pressure Eviction", "Pod selection for kubelet eviction".

use std::sync::Arc;

/// What the node is short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Memory.
    Memory,
    /// Disk space.
    Disk,
    /// Room for new files on the disk.
    Files,
    /// Process ids.
    Pids,
}

impl Shortage {
    /// All, in the order in which they are relieved.
    pub const ALL: [Shortage; 4] = [Shortage::Memory, Shortage::Disk, Shortage::Files, Shortage::Pids];

    /// The condition of the Node that tells of it.
    pub fn condition(self) -> &'static str {
        match self {
            Shortage::Memory => "MemoryPressure",
            Shortage::Disk | Shortage::Files => "DiskPressure",
            Shortage::Pids => "PIDPressure",
        }
    }

    /// Whether pods are promised any of it.
    fn is_promised(self) -> bool {
        matches!(self, Shortage::Memory | Shortage::Disk)
    }

    fn resource(self) -> &'static str {
        match self {
            Shortage::Memory => "memory",
            Shortage::Disk => "ephemeral-storage",
            Shortage::Files => "inodes",
            Shortage::Pids => "pids",
        }
    }
}

/// A pod that could go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its uid.
    pub uid: Arc<str>,
    /// Its priority.
    pub priority: i32,
    /// How much of what is short it was promised; of files and process ids nothing is.
    pub promised: u64,
    /// How much it uses.
    pub used: u64,
}

/// The pod that goes, and what it is told.
pub fn choose(shortage: Shortage, candidates: &[Candidate]) -> Option<(Arc<str>, String)> {
    let first = candidates.iter().min_by(|a, b| {
        let beyond = |one: &Candidate| one.used.saturating_sub(one.promised);
        let keeps = |one: &Candidate| shortage.is_promised() && beyond(one) == 0;
        let promise = keeps(a).cmp(&keeps(b));
        promise.then(a.priority.cmp(&b.priority)).then(beyond(b).cmp(&beyond(a))).then_with(|| a.uid.cmp(&b.uid))
    })?;
    let resource = shortage.resource();
    let message = format!(
        "The node was low on resource: {resource}. The pod was using {}, request is {}.",
        first.used, first.promised
    );
    Some((Arc::clone(&first.uid), message))
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Shortage, choose};
    use std::sync::Arc;

    fn check(shortage: Shortage, rows: &[(&str, i32, u64, u64)]) -> String {
        let of = |(uid, priority, promised, used): &(&str, i32, u64, u64)| Candidate {
            uid: Arc::from(*uid),
            priority: *priority,
            promised: *promised,
            used: *used,
        };
        let mut left: Vec<Candidate> = rows.iter().map(of).collect();
        let mut order = Vec::new();
        while let Some((uid, _)) = choose(shortage, &left) {
            left.retain(|one| one.uid != uid);
            order.push(uid.to_string());
        }
        order.join(" ")
    }

    #[test]
    fn e1_who_keeps_to_its_promise_goes_last_whatever_its_priority() {
        assert_eq!(check(Shortage::Memory, &[("kept", 0, 100, 90), ("beyond", 1000, 10, 11)]), "beyond kept");
    }

    #[test]
    fn e2_the_less_important_goes_before_the_greedier() {
        assert_eq!(check(Shortage::Memory, &[("greedy", 5, 0, 900), ("small", 1, 0, 1)]), "small greedy");
    }

    #[test]
    fn e3_the_furthest_beyond_goes_first() {
        let rows = [("a", 0, 100, 200), ("b", 0, 500, 700), ("c", 0, 0, 50), ("d", 0, 10, 10)];
        assert_eq!(check(Shortage::Memory, &rows), "b a c d");
        assert_eq!(check(Shortage::Disk, &rows), "b a c d");
        for unpromised in [Shortage::Pids, Shortage::Files] {
            let rows = [("none", 0, 0, 0), ("few", 0, 0, 3), ("many", 0, 0, 900), ("vital", 9, 0, 4000)];
            assert_eq!(check(unpromised, &rows), "many few none vital");
        }
    }

    #[test]
    fn the_pod_is_told_what_it_had_and_was_promised() {
        let one = Candidate { uid: Arc::from("u"), priority: 0, promised: 5, used: 9 };
        let (_, message) = choose(Shortage::Memory, &[one]).expect("somebody goes");
        assert_eq!(message, "The node was low on resource: memory. The pod was using 9, request is 5.");
        assert_eq!(choose(Shortage::Disk, &[]), None);
    }
}
