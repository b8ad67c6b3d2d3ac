//! What this node has promised to the pods it has taken, so that it never promises more than it has.
//!
//! Guarantees  taking and comparing are one step: two pods that fit alone do not both get in

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::downward::Allocatable;
use crate::steps::resources::{HUGE_1GI, HUGE_2MI};

/// What a pod is promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// In thousandths of a CPU.
    pub cpu_millis: u64,
    /// In bytes.
    pub memory_bytes: u64,
    /// In bytes.
    pub disk_bytes: u64,
    /// In pages of 2 MiB, in bytes.
    pub huge_2mi_bytes: u64,
    /// In pages of 1 GiB, in bytes.
    pub huge_1gi_bytes: u64,
}

impl Amounts {
    /// Of each kind what `pick` makes of both.
    #[must_use]
    pub fn each(self, other: Amounts, pick: fn(u64, u64) -> u64) -> Amounts {
        Amounts {
            cpu_millis: pick(self.cpu_millis, other.cpu_millis),
            memory_bytes: pick(self.memory_bytes, other.memory_bytes),
            disk_bytes: pick(self.disk_bytes, other.disk_bytes),
            huge_2mi_bytes: pick(self.huge_2mi_bytes, other.huge_2mi_bytes),
            huge_1gi_bytes: pick(self.huge_1gi_bytes, other.huge_1gi_bytes),
        }
    }
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The reason in a refused pod's status: `OutOfcpu`, …
    pub reason: &'static str,
    /// The resource, as the API names it.
    pub resource: &'static str,
    /// How much was asked for.
    pub requested: u64,
    /// How much is promised to others.
    pub used: u64,
    /// How much there is.
    pub capacity: u64,
}

/// All promises, by the pods' uids.
#[derive(Debug, Default)]
pub struct Budget(Mutex<BTreeMap<Arc<str>, Amounts>>);

impl Budget {
    /// Promises `wanted` to the pod, in place of what it was promised before, if there is room.
    pub fn take(&self, pod: &Arc<str>, wanted: Amounts, has: Allocatable, pods_max: u32) -> Result<(), Shortage> {
        let mut all = self.0.lock().expect("nothing panics while holding it");
        let others = || all.iter().filter(|(uid, _)| *uid != pod).map(|(_, amounts)| amounts);
        let sum = |pick: fn(&Amounts) -> u64| others().map(pick).sum::<u64>();
        let positive = |amount: i64| u64::try_from(amount).unwrap_or(0);
        let pods = u64::try_from(others().count()).unwrap_or(u64::MAX);
        let rows = [
            ("OutOfpods", "pods", 1, pods, u64::from(pods_max)),
            ("OutOfcpu", "cpu", wanted.cpu_millis, sum(|a| a.cpu_millis), positive(has.cpu_millis)),
            ("OutOfmemory", "memory", wanted.memory_bytes, sum(|a| a.memory_bytes), positive(has.memory_bytes)),
            (
                "OutOfephemeral-storage",
                "ephemeral-storage",
                wanted.disk_bytes,
                sum(|a| a.disk_bytes),
                positive(has.disk_bytes),
            ),
            (
                "OutOfhugepages-2Mi",
                HUGE_2MI,
                wanted.huge_2mi_bytes,
                sum(|a| a.huge_2mi_bytes),
                positive(has.huge_2mi_bytes),
            ),
            (
                "OutOfhugepages-1Gi",
                HUGE_1GI,
                wanted.huge_1gi_bytes,
                sum(|a| a.huge_1gi_bytes),
                positive(has.huge_1gi_bytes),
            ),
        ];
        for (reason, resource, requested, used, capacity) in rows {
            // A pod that asks for nothing fits even where too much has been promised.
            if requested > 0 && used.saturating_add(requested) > capacity {
                return Err(Shortage { reason, resource, requested, used, capacity });
            }
        }
        all.insert(Arc::clone(pod), wanted);
        Ok(())
    }

    /// Notes what a pod has that runs here already, whether or not there is room.
    pub fn note(&self, pod: &Arc<str>, has: Amounts) {
        self.0.lock().expect("nothing panics while holding it").insert(Arc::clone(pod), has);
    }

    /// The pod is over.
    pub fn give_back(&self, pod: &str) {
        self.0.lock().expect("nothing panics while holding it").remove(pod);
    }
}

#[cfg(test)]
mod tests {
    use super::{Amounts, Budget};
    use crate::downward::Allocatable;
    use std::sync::Arc;

    #[test]
    fn no_more_is_promised_than_there_is() {
        let has = Allocatable { cpu_millis: 2000, huge_2mi_bytes: 4 << 20, ..Allocatable::default() };
        let budget = Budget::default();
        let take = |name: &str, cpu_millis, pods_max| {
            let wanted = Amounts { cpu_millis, ..Amounts::default() };
            budget.take(&Arc::from(name), wanted, has, pods_max).map_err(|shortage| shortage.reason)
        };
        let pages = Amounts { huge_2mi_bytes: 6 << 20, ..Amounts::default() };
        let short = budget.take(&Arc::from("a"), pages, has, 3).expect_err("more than there is");
        assert_eq!((short.reason, short.resource), ("OutOfhugepages-2Mi", "hugepages-2Mi"));
        assert_eq!(take("a", 1500, 3), Ok(()));
        assert_eq!(take("b", 501, 3), Err("OutOfcpu"));
        assert_eq!(take("b", 500, 3), Ok(()));
        assert_eq!(take("a", 1501, 3), Err("OutOfcpu"), "what it wants more does not fit");
        assert_eq!(take("a", 1000, 3), Ok(()), "less always fits");
        assert_eq!(take("c", 0, 2), Err("OutOfpods"));
        budget.give_back("b");
        assert_eq!(take("c", 1000, 2), Ok(()));
        budget.note(&Arc::from("adopted"), Amounts { cpu_millis: 9000, ..Amounts::default() });
        assert_eq!(take("d", 0, 9), Ok(()), "a pod that asks for nothing always fits");
    }
}
