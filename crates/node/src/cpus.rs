//! Which CPUs run whose containers.
//!
//! Rules
//!   C1 own       a container of a Guaranteed pod that asks for whole CPUs has them for itself as long as its pod is here
//!   C2 pool      all others run on what is left
//!   C3 reserved  CPUs kept for the system are never given away; they are in the pool
//!   C4 whole     whole cores are given first, those of one socket together, then single threads
//!   C5 turns     an init container has CPUs of the containers that come after it, and more only if these are too few
//!   C6 kept      what a container has it keeps, over restarts of its own and of the agent
//! Not here       how the pods' tasks move containers when the pool changes (pod/resize) · memory and devices near CPUs
//! Source: Kubernetes documentation, "Control CPU Management Policies on the Node", static policy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use windlass_api::types::core;

use crate::machine::{CpuPlace, CpuSet};
use crate::steps::resources;

/// How CPUs are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuPolicy {
    /// Everything runs everywhere.
    #[default]
    None,
    /// Some have CPUs for themselves.
    Static,
}

/// The CPUs of one pod's containers, by their names; of those only that have their own.
pub type OwnCpus = BTreeMap<String, CpuSet>;

/// All CPUs of this node.
#[derive(Debug)]
pub struct Cpus {
    policy: CpuPolicy,
    places: Vec<CpuPlace>,
    reserved: CpuSet,
    own: Mutex<BTreeMap<Arc<str>, OwnCpus>>,
    pool: watch::Sender<CpuSet>,
}

/// There are too few CPUs that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// How many were asked for.
    pub requested: usize,
    /// How many there are.
    pub available: usize,
}

impl Cpus {
    /// All CPUs, of which nobody has any for itself yet. `reserved` is which are kept, or how many.
    pub fn new(policy: CpuPolicy, places: Vec<CpuPlace>, reserved: Result<CpuSet, usize>) -> Cpus {
        let all: CpuSet = places.iter().map(|place| place.cpu).collect();
        let reserved = reserved.unwrap_or_else(|count| pick(&places, all, count));
        Cpus { policy, places, reserved, own: Mutex::default(), pool: watch::Sender::new(all) }
    }

    /// Whether some may have CPUs for themselves.
    pub fn are_given(&self) -> bool {
        self.policy == CpuPolicy::Static
    }

    /// Gives a pod's containers what is theirs (C1); the same again to a pod that has something.
    pub fn take(&self, pod: &Arc<str>, spec: &core::PodSpec) -> Result<OwnCpus, TooFew> {
        if self.policy == CpuPolicy::None || resources::quality(spec) != resources::Quality::Guaranteed {
            return Ok(OwnCpus::new());
        }
        let mut all = self.own.lock().expect("nothing panics while holding it");
        if let Some(own) = all.get(pod) {
            return Ok(own.clone());
        }
        let mut free = self.free(&all);
        let mut own = OwnCpus::new();
        let mut later = CpuSet::default();
        for container in spec.containers.iter().chain(resources::sidecars(spec)) {
            let Some(count) = resources::whole_cpus(container) else { continue };
            let given = self.pick(free, count)?;
            free = free.minus(given);
            later = later.union(given);
            own.insert(container.name.clone(), given);
        }
        // C5
        for container in spec.init_containers.iter().flatten() {
            let Some(count) = resources::whole_cpus(container).filter(|_| !own.contains_key(&container.name)) else {
                continue;
            };
            let mut given = pick(&self.places, later, count.min(later.len()));
            let more = self.pick(free, count - given.len())?;
            free = free.minus(more);
            later = later.union(more);
            given = given.union(more);
            own.insert(container.name.clone(), given);
        }
        if !own.is_empty() {
            all.insert(Arc::clone(pod), own.clone());
            self.tell(&all);
        }
        Ok(own)
    }

    /// C6: a pod has these already.
    pub fn note(&self, pod: &Arc<str>, own: &OwnCpus) {
        if self.policy == CpuPolicy::None || own.is_empty() {
            return;
        }
        let mut all = self.own.lock().expect("nothing panics while holding it");
        all.insert(Arc::clone(pod), own.clone());
        self.tell(&all);
    }

    /// The pod is over.
    pub fn give_back(&self, pod: &str) {
        let mut all = self.own.lock().expect("nothing panics while holding it");
        if all.remove(pod).is_some() {
            self.tell(&all);
        }
    }

    /// What a pod's containers have for themselves.
    pub fn own_of(&self, pod: &str) -> OwnCpus {
        self.own.lock().expect("nothing panics while holding it").get(pod).cloned().unwrap_or_default()
    }

    /// Where a container runs that was last told `before`; `None` is everywhere, as it is without having been told.
    pub fn of(&self, pod: &str, container: &str, before: Option<CpuSet>) -> Option<CpuSet> {
        match (self.policy, before) {
            (CpuPolicy::None, None) => None,
            (CpuPolicy::None, Some(_)) => Some(*self.pool.borrow()),
            (CpuPolicy::Static, _) => {
                let own = self.own.lock().expect("nothing panics while holding it");
                own.get(pod).and_then(|own| own.get(container)).copied().or_else(|| Some(*self.pool.borrow()))
            }
        }
    }

    /// The CPUs that may be given away.
    pub fn allocatable(&self) -> CpuSet {
        self.all().minus(self.reserved)
    }

    /// Tells when those without CPUs of their own have others.
    pub fn pool(&self) -> watch::Receiver<CpuSet> {
        self.pool.subscribe()
    }

    fn all(&self) -> CpuSet {
        self.places.iter().map(|place| place.cpu).collect()
    }

    fn given(own: &BTreeMap<Arc<str>, OwnCpus>) -> CpuSet {
        own.values().flat_map(BTreeMap::values).fold(CpuSet::default(), |sum, own| sum.union(*own))
    }

    /// C3.
    fn free(&self, own: &BTreeMap<Arc<str>, OwnCpus>) -> CpuSet {
        self.allocatable().minus(Cpus::given(own))
    }

    /// C2.
    fn tell(&self, own: &BTreeMap<Arc<str>, OwnCpus>) {
        let pool = self.all().minus(Cpus::given(own));
        self.pool.send_if_modified(|now| std::mem::replace(now, pool) != pool);
    }

    fn pick(&self, free: CpuSet, count: usize) -> Result<CpuSet, TooFew> {
        match count > free.len() {
            true => Err(TooFew { requested: count, available: free.len() }),
            false => Ok(pick(&self.places, free, count)),
        }
    }
}

/// C4. Of at least as many as are asked for.
fn pick(places: &[CpuPlace], free: CpuSet, count: usize) -> CpuSet {
    let free_places = || places.iter().filter(|place| free.contains(place.cpu));
    let mut cores: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    for place in free_places() {
        cores.entry((place.socket, place.core)).or_default().push(place.cpu);
    }
    let threads = |core: &(u32, u32)| places.iter().filter(|place| (place.socket, place.core) == *core).count();
    let is_whole = |core: &(u32, u32), cpus: &Vec<usize>| cpus.len() == threads(core);
    let in_socket = |socket: u32| free_places().filter(|place| place.socket == socket).count();
    // The fullest socket that holds all of them first, or else the emptiest: fewest sockets are broken into.
    let mut order: Vec<(&(u32, u32), &Vec<usize>)> = cores.iter().collect();
    order.sort_by_key(|(core, cpus)| {
        let free = in_socket(core.0);
        let fits = free >= count;
        (!fits, if fits { free } else { usize::MAX - free }, core.0, !is_whole(core, cpus), core.1)
    });
    let mut picked = CpuSet::default();
    let mut rest: Vec<usize> = Vec::new();
    for (core, cpus) in order {
        if is_whole(core, cpus) && cpus.len() <= count - picked.len() {
            cpus.iter().for_each(|cpu| picked.insert(*cpu));
        } else {
            rest.extend(cpus);
        }
    }
    // Threads of cores that others have a part of go before whole ones are broken.
    let partner_is_free = |cpu: &usize| {
        let core = places.iter().find(|place| place.cpu == *cpu).map(|place| (place.socket, place.core));
        core.is_some_and(|core| cores.get(&core).is_some_and(|cpus| is_whole(&core, cpus)))
    };
    rest.sort_by_key(|cpu| (partner_is_free(cpu), *cpu));
    let missing = count - picked.len();
    rest.iter().take(missing).for_each(|cpu| picked.insert(*cpu));
    picked
}

#[cfg(test)]
mod tests {
    use super::{CpuPolicy, Cpus, TooFew};
    use crate::machine::{CpuPlace, CpuSet};
    use serde_json::{Value, json};
    use std::sync::Arc;
    use windlass_api::types::core;

    /// Two sockets of two cores of two threads: socket 0 has the CPUs 0-3, and CPU n shares its core with n ^ 1.
    fn cpus() -> Cpus {
        let place = |cpu: usize| CpuPlace { cpu, socket: (cpu / 4) as u32, core: (cpu % 4 / 2) as u32 };
        Cpus::new(CpuPolicy::Static, (0..8).map(place).collect(), Ok("0".parse().expect("a set")))
    }

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"limits": {"cpu": cpu, "memory": "1Mi"}}})
    }

    fn pod(containers: &[Value], init: &[Value]) -> core::PodSpec {
        serde_json::from_value(json!({"containers": containers, "initContainers": init})).expect("a spec")
    }

    fn take(cpus: &Cpus, name: &str, spec: &core::PodSpec) -> Result<String, TooFew> {
        let own = cpus.take(&Arc::from(name), spec)?;
        Ok(own.iter().map(|(name, cpus)| format!("{name}={cpus}")).collect::<Vec<_>>().join(" "))
    }

    fn pool(cpus: &Cpus) -> String {
        cpus.pool().borrow().to_string()
    }

    #[test]
    fn c1_whole_cpus_of_guaranteed_containers_are_their_own() {
        let cpus = cpus();
        assert_eq!(take(&cpus, "a", &pod(&[container("x", "2"), container("y", "500m")], &[])).as_deref(), Ok("x=2-3"));
        let burstable = json!({"containers": [{"name": "x", "resources": {"requests": {"cpu": "2"}}}]});
        assert_eq!(take(&cpus, "b", &serde_json::from_value(burstable).expect("a spec")).as_deref(), Ok(""));
        assert_eq!(cpus.of("a", "x", None), Some("2-3".parse().expect("a set")));
    }

    #[test]
    fn c2_all_others_run_on_what_is_left() {
        let cpus = cpus();
        let mut changes = cpus.pool();
        take(&cpus, "a", &pod(&[container("x", "4")], &[])).expect("there are enough");
        assert!(changes.has_changed().expect("it lives") && changes.borrow_and_update().to_string() == "0-3");
        assert_eq!(cpus.of("b", "z", None).expect("a pool").to_string(), "0-3");
        cpus.give_back("a");
        assert_eq!(pool(&cpus), "0-7");
    }

    #[test]
    fn c3_reserved_cpus_are_never_given_away() {
        let cpus = cpus();
        assert_eq!(take(&cpus, "a", &pod(&[container("x", "7")], &[])).as_deref(), Ok("x=1-7"));
        assert_eq!(pool(&cpus), "0");
        let short = take(&cpus, "b", &pod(&[container("x", "1")], &[]));
        assert_eq!(short, Err(TooFew { requested: 1, available: 0 }));
        let by_count = Cpus::new(CpuPolicy::Static, cpus.places.clone(), Err(2));
        assert_eq!(by_count.reserved.to_string(), "0-1");
    }

    #[test]
    fn c4_whole_cores_of_one_socket_are_given_first() {
        let cpus = cpus();
        let one = pod(&[container("x", "1")], &[]);
        assert_eq!(take(&cpus, "thread", &one).as_deref(), Ok("x=1"), "its core is broken already");
        assert_eq!(take(&cpus, "socket", &pod(&[container("x", "4")], &[])).as_deref(), Ok("x=4-7"));
        assert_eq!(take(&cpus, "core", &pod(&[container("x", "2")], &[])).as_deref(), Ok("x=2-3"));
    }

    #[test]
    fn c5_init_containers_have_cpus_of_those_after_them() {
        let cpus = cpus();
        let mut sidecar = container("s", "1");
        sidecar["restartPolicy"] = json!("Always");
        let spec = pod(&[container("x", "2")], &[container("i", "1"), sidecar, container("j", "4")]);
        let own = cpus.take(&Arc::from("a"), &spec).expect("there are enough");
        assert!(own["i"].minus(own["x"].union(own["s"])).is_empty(), "{own:?}");
        assert_eq!((own["j"].len(), own["x"].minus(own["j"]).len()), (4, 0), "{own:?}");
        let given = own.values().fold(CpuSet::default(), |sum, own| sum.union(*own));
        assert_eq!(given.len(), 4, "{own:?}");
    }

    #[test]
    fn c6_what_an_earlier_agent_gave_stays_as_it_was() {
        let cpus = cpus();
        let kept = [("x".to_owned(), "5-6".parse().expect("a set"))].into();
        cpus.note(&Arc::from("a"), &kept);
        assert_eq!(pool(&cpus), "0-4,7");
        assert_eq!(take(&cpus, "a", &pod(&[container("x", "2")], &[])).as_deref(), Ok("x=5-6"));
        assert_eq!(cpus.own_of("a"), kept);
    }

    #[test]
    fn without_a_policy_nobody_is_told_where_to_run_but_who_was() {
        let cpus = Cpus::new(CpuPolicy::None, cpus().places, Err(0));
        assert_eq!(take(&cpus, "a", &pod(&[container("x", "2")], &[])).as_deref(), Ok(""));
        assert_eq!(cpus.of("a", "x", None), None);
        let before = "2".parse().ok();
        assert_eq!(cpus.of("a", "x", before).expect("everywhere").to_string(), "0-7");
    }
}
