//! Finds devices for all claims of a pod on one node.
//!
//! Flow        the devices that the node can use → claim by claim, request by request, way by way → the first choice that
//!             meets everything
//!
//! Rules
//!   F1 free        a device is given to one claim; an admin's access takes nothing from anybody
//!   F2 meant       the selectors of class and request select it, and its taints are tolerated
//!   F3 amount      so many, or all that are meant and at least one; a claim has at most 32
//!   F4 between     what constraints say of the devices of a claim holds
//!   F5 in order    of the ways to meet a request the first one with which everything else can be met is taken
//!   F6 bounded     after [`STEPS_NODE_MAX`] steps on a node, or [`STEPS_MAX`] or the selectors' cost on all of them, or with
//!                  more than [`PICKS_MAX`] devices, the search is given up, and the pod says so. A step is one device tried,
//!                  or one compared with another
//! Not here        which of several solutions is the best: the first is taken

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_api::cel::EvalError;
use windlass_api::device::{Attribute, DeviceId, RESULTS_MAX};

use super::spec::{Compiled, Test, Way};
use super::stock::Slice;
use super::{Ask, AskedClaim, Effort};
use crate::term::Labels;

/// Devices tried on one node: each is looked at a few times where the choice is simple.
const STEPS_NODE_MAX: usize = 20_000;
/// Devices tried for one pod: a fraction of a second.
const STEPS_MAX: usize = 500_000;
/// Devices that a node lists for a pod in the time of one step.
const LISTED_PER_STEP: usize = 8;
/// Devices of one pod: the search is as deep as there are.
const PICKS_MAX: usize = 512;
const TOO_MANY: &str = "cannot allocate all claims: too many combinations of devices to try them all";

/// What each claim gets.
pub(super) type Solution = Vec<Vec<Pick>>;

/// A device, and what it is for.
#[derive(Clone)]
pub(super) struct Pick {
    slice: Arc<Slice>,
    at: usize,
    /// Which request, and which way to meet it.
    pub(super) request: usize,
    pub(super) way: usize,
}

impl Pick {
    pub(super) fn id(&self) -> &DeviceId {
        &self.slice.devices[self.at].0
    }

    pub(super) fn slice(&self) -> &Slice {
        &self.slice
    }
}

/// Why a search ended without a solution before everything was tried.
struct Stop(String);

/// Finds devices for all claims; or why there are none.
pub(super) fn find(ask: &Ask, node: &str, labels: &Labels, effort: &mut Effort) -> Result<Solution, String> {
    if let Some(why) = &effort.spent {
        return Err(why.clone());
    }
    let pools = ask.stock.pools_of(node, labels);
    let usable = pools.iter().filter(|pool| pool.is_whole && pool.is_valid);
    let mut candidates: Vec<(Arc<Slice>, usize)> = Vec::new();
    let (mut listed, wants_taken) = (pools.len(), ask.wants_taken());
    for slice in usable.flat_map(|pool| pool.slices_of(node, labels)) {
        listed += 1 + slice.devices.len();
        let is_candidate = |at: &usize| wants_taken || !ask.taken.contains_key(&slice.devices[*at].0);
        candidates.extend((0..slice.devices.len()).filter(is_candidate).map(|at| (Arc::clone(slice), at)));
    }
    effort.steps += listed / LISTED_PER_STEP;
    let unsure = pools.iter().find_map(|pool| match (pool.is_whole, pool.is_valid) {
        (false, _) => Some(format!("resource pool {}/{} is currently being updated", pool.driver, pool.name)),
        (_, false) => Some(format!("resource pool {}/{} is currently invalid", pool.driver, pool.name)),
        _ => None,
    });
    let mut search = Search {
        ask,
        candidates,
        unsure,
        picks: vec![Vec::new(); ask.claims.len()],
        held: BTreeSet::new(),
        verdicts: BTreeMap::new(),
        steps: 0,
        depth: 0,
        effort,
    };
    match search.next(0, 0) {
        Ok(true) => Ok(search.picks),
        Ok(false) if pools.iter().any(|pool| !pool.is_valid) => {
            Err("invalid resource pools were encountered".to_owned())
        }
        Ok(false) => Err("cannot allocate all claims".to_owned()),
        Err(Stop(why)) => Err(why),
    }
}

struct Search<'a> {
    ask: &'a Ask,
    candidates: Vec<(Arc<Slice>, usize)>,
    /// A pool of which it is not known what there is.
    unsure: Option<String>,
    picks: Solution,
    /// The candidates that a claim has for itself.
    held: BTreeSet<usize>,
    /// F2, by claim, request, way and candidate.
    verdicts: BTreeMap<(usize, usize, usize, usize), bool>,
    steps: usize,
    /// The devices picked for all claims.
    depth: usize,
    effort: &'a mut Effort,
}

impl<'a> Search<'a> {
    /// Meets everything from this request on.
    fn next(&mut self, mut claim: usize, mut request: usize) -> Result<bool, Stop> {
        let ask = self.ask;
        let wanted = loop {
            self.step(1)?;
            let Some(asked) = ask.claims.get(claim) else { return Ok(true) };
            if let Some(wanted) = asked.spec.requests.get(request) {
                break wanted;
            }
            (claim, request) = (claim + 1, 0);
        };
        for (way, found) in wanted.ways.iter().enumerate() {
            let is_met = match found.count {
                Some(count) => self.choose((claim, request, way), count, 0)?,
                None => self.take_all((claim, request, way))?,
            };
            if is_met {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Chooses so many more devices, none of them before `from`, and goes on.
    fn choose(&mut self, at: (usize, usize, usize), left: usize, from: usize) -> Result<bool, Stop> {
        if left == 0 {
            return self.next(at.0, at.1 + 1);
        }
        // F3.
        if self.picks[at.0].len().saturating_add(left) > RESULTS_MAX {
            return Ok(false);
        }
        for candidate in from..self.candidates.len() {
            if self.candidates.len() - candidate < left {
                break;
            }
            self.step(1)?;
            if !self.is_free(at, candidate) || !self.is_meant(at, candidate)? || !self.is_in_line(at, candidate)? {
                continue;
            }
            self.take(at, candidate)?;
            if self.choose(at, left - 1, candidate + 1)? {
                return Ok(true);
            }
            self.give_back(at, candidate);
        }
        Ok(false)
    }

    /// Takes all devices that are meant, and goes on.
    fn take_all(&mut self, at: (usize, usize, usize)) -> Result<bool, Stop> {
        if let Some(why) = &self.unsure {
            let (asked, way) = self.at(at);
            return Err(Stop(format!(
                "claim {}, request {}: asks for all devices, but {why}",
                asked.key, way.full_name
            )));
        }
        let mut all = Vec::new();
        for candidate in 0..self.candidates.len() {
            self.step(1)?;
            if self.is_meant(at, candidate)? {
                all.push(candidate);
            }
        }
        if all.is_empty() || self.picks[at.0].len() + all.len() > RESULTS_MAX {
            return Ok(false);
        }
        let mut taken = 0;
        for candidate in &all {
            if !self.is_free(at, *candidate) || !self.is_in_line(at, *candidate)? {
                break;
            }
            self.take(at, *candidate)?;
            taken += 1;
        }
        if taken == all.len() && self.next(at.0, at.1 + 1)? {
            return Ok(true);
        }
        all[..taken].iter().rev().for_each(|candidate| self.give_back(at, *candidate));
        Ok(false)
    }

    /// F6.
    fn step(&mut self, count: usize) -> Result<(), Stop> {
        self.steps += count;
        self.effort.steps += count;
        if self.effort.steps > STEPS_MAX {
            return Err(self.effort.give_up(TOO_MANY));
        }
        if self.steps > STEPS_NODE_MAX {
            return Err(Stop(TOO_MANY.to_owned()));
        }
        Ok(())
    }

    fn at(&self, (claim, request, way): (usize, usize, usize)) -> (&'a AskedClaim, &'a Way) {
        let asked = &self.ask.claims[claim];
        (asked, &asked.spec.requests[request].ways[way])
    }

    /// F1.
    fn is_free(&self, at: (usize, usize, usize), candidate: usize) -> bool {
        let (slice, device) = &self.candidates[candidate];
        let id = &slice.devices[*device].0;
        match self.at(at).1.is_admin {
            true => !self.picks[at.0].iter().any(|pick| pick.id() == id),
            false => !self.held.contains(&candidate) && !self.ask.taken.contains_key(id),
        }
    }

    /// F2.
    fn is_meant(&mut self, at: (usize, usize, usize), candidate: usize) -> Result<bool, Stop> {
        let key = (at.0, at.1, at.2, candidate);
        if let Some(verdict) = self.verdicts.get(&key) {
            return Ok(*verdict);
        }
        let (asked, way) = self.at(at);
        let (slice, device) = &self.candidates[candidate];
        let (id, device) = &slice.devices[*device];
        let class = &asked.classes[&way.class];
        let owner = format!("class {}", class.name);
        let is_meant = device.is_plain
            && !device.taints.iter().any(|taint| taint.keeps_away(&way.tolerations))
            && self.effort.select(&class.selectors, (id, device), &owner)?
            && self.effort.select(&way.selectors, (id, device), &format!("claim {}", asked.key))?;
        self.verdicts.insert(key, is_meant);
        Ok(is_meant)
    }

    /// F4.
    fn is_in_line(&mut self, at: (usize, usize, usize), candidate: usize) -> Result<bool, Stop> {
        let (asked, way) = self.at(at);
        self.step(way.constraints.len() * self.picks[at.0].len())?;
        let (slice, device) = &self.candidates[candidate];
        let own = &slice.devices[*device].1;
        let holds = |constraint: &usize| {
            let test = &asked.spec.constraints[*constraint];
            let (Test::Match(name) | Test::Distinct(name)) = test;
            let Some(own) = own.attribute(name) else { return false };
            let others = self.picks[at.0].iter().filter(|pick| {
                asked.spec.requests[pick.request].ways[pick.way].constraints.binary_search(constraint).is_ok()
            });
            let mut others = others.map(|pick| pick.slice.devices[pick.at].1.attribute(name));
            let is_same = |other: Option<&Attribute>| other == Some(own);
            match test {
                Test::Match(_) => others.all(is_same),
                Test::Distinct(_) => !others.any(is_same),
            }
        };
        Ok(way.constraints.iter().all(holds))
    }

    fn take(&mut self, at: (usize, usize, usize), candidate: usize) -> Result<(), Stop> {
        if self.depth >= PICKS_MAX {
            return Err(Stop(format!("cannot allocate all claims: a pod has at most {PICKS_MAX} devices")));
        }
        self.depth += 1;
        let (slice, device) = &self.candidates[candidate];
        let pick = Pick { slice: Arc::clone(slice), at: *device, request: at.1, way: at.2 };
        if !self.at(at).1.is_admin {
            self.held.insert(candidate);
        }
        self.picks[at.0].push(pick);
        Ok(())
    }

    fn give_back(&mut self, at: (usize, usize, usize), candidate: usize) {
        if !self.at(at).1.is_admin {
            self.held.remove(&candidate);
        }
        self.picks[at.0].pop();
        self.depth -= 1;
    }
}

impl Effort {
    /// No node is looked at any more.
    fn give_up(&mut self, why: &str) -> Stop {
        self.spent = Some(why.to_owned());
        Stop(why.to_owned())
    }

    /// Whether all selectors select a device; `owner` is whose they are.
    fn select(
        &mut self,
        selectors: &[Compiled],
        (id, device): (&DeviceId, &windlass_api::device::Device),
        owner: &str,
    ) -> Result<bool, Stop> {
        for (index, selector) in selectors.iter().enumerate() {
            let selector = selector
                .as_ref()
                .map_err(|why| Stop(format!("{owner}: selector #{index}: CEL compile error: {why}")))?;
            match selector.matches(device, &mut self.budget) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(EvalError::BudgetCost) => {
                    let why = "cannot allocate all claims: the selectors of devices cost too much to ask them all";
                    return Err(self.give_up(why));
                }
                Err(error) => {
                    let why = format!("{owner}: selector #{index} on device {id}: CEL runtime error: {error}");
                    return Err(Stop(why));
                }
            }
        }
        Ok(true)
    }
}
