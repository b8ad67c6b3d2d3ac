//! How many requests are worked on at one time, in two lanes, so that a flood of users' requests never keeps a node from
//! renewing its lease.
//!
//! Rules
//!   R1 lanes        nodes and the server's own parts have a lane of their own, much wider than they need
//!   R2 full         a full lane refuses at once with 429 and Retry-After; nothing queues
//!   R3 watches      hold no lane; they are counted and bounded by themselves, those of nodes and users apart
//!   R4 bodies       users' bodies together take so much memory and no more; one that says no size counts as the largest
//!   R5 share        one user holds three quarters of anything at most, so that who sends slowly, or much, stops only
//!                   themselves
//! Not here          fairness between many users who act together (priority and fairness by flow schemas)

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windlass_api::{ApiError, Reason};

use crate::config::{BODIES_BYTES_MAX, BODY_BYTES_MAX, INFLIGHT_MAX, INFLIGHT_SYSTEM_MAX, WATCHES_MAX};
use crate::failure::later;
use crate::identity::Identity;

/// The lanes of a server.
pub(crate) struct Lanes {
    users: Arc<Semaphore>,
    system: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    watches_system: Arc<Semaphore>,
    /// In units of [`BODY_UNIT_BYTES`].
    bodies: Arc<Semaphore>,
    shares: Arc<Mutex<Shares>>,
}

const BODY_UNIT_BYTES: usize = 64 * 1024;
const BODY_UNITS_MAX: usize = BODIES_BYTES_MAX / BODY_UNIT_BYTES;

/// What of users is bounded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Requests,
    Watches,
    BodyUnits,
}

/// What each user holds (R5). Who holds nothing is not in it, so it is no larger than what all may hold.
type Shares = BTreeMap<(What, String), usize>;

/// A place, given back when dropped.
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// Part of what a user holds, until dropped.
struct Share {
    shares: Arc<Mutex<Shares>>,
    of: (What, String),
    size: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.shares.lock().expect("nothing panics while holding the shares");
        if let Some(held) = shares.get_mut(&self.of) {
            *held -= self.size;
            if *held == 0 {
                shares.remove(&self.of);
            }
        }
    }
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes {
            users: Arc::new(Semaphore::new(INFLIGHT_MAX)),
            system: Arc::new(Semaphore::new(INFLIGHT_SYSTEM_MAX)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            watches_system: Arc::new(Semaphore::new(WATCHES_MAX)),
            bodies: Arc::new(Semaphore::new(BODY_UNITS_MAX)),
            shares: Arc::default(),
        }
    }
}

impl Lanes {
    /// A place for a request of `who`.
    pub fn enter(&self, who: &Identity) -> Result<Permit, ApiError> {
        let place = match who.is_system() {
            true => take(&self.system, 1, None),
            false => self.take_shared(&self.users, (What::Requests, INFLIGHT_MAX), who, 1),
        };
        place.ok_or_else(|| full("requests"))
    }

    /// A place for a watch of `who`.
    pub fn watch(&self, who: &Identity) -> Result<Permit, ApiError> {
        let place = match who.is_system() {
            true => take(&self.watches_system, 1, None),
            false => self.take_shared(&self.watches, (What::Watches, WATCHES_MAX), who, 1),
        };
        place.ok_or_else(|| full("watches"))
    }

    /// Room for a body of `who`, of at most `bytes` where that is known (R4).
    pub fn body(&self, who: &Identity, bytes: Option<u64>) -> Result<Option<Permit>, ApiError> {
        if who.is_system() {
            return Ok(None);
        }
        let bytes = bytes.map_or(BODY_BYTES_MAX, |bytes| bytes.min(BODY_BYTES_MAX as u64) as usize);
        let units = bytes / BODY_UNIT_BYTES + 1;
        let room = self.take_shared(&self.bodies, (What::BodyUnits, BODY_UNITS_MAX), who, units);
        room.map(Some).ok_or_else(|| full("large bodies"))
    }

    /// R5: of the user's share first, then of what all have.
    fn take_shared(
        &self,
        places: &Arc<Semaphore>,
        (what, all): (What, usize),
        who: &Identity,
        size: usize,
    ) -> Option<Permit> {
        let of = (what, who.name.clone());
        {
            let mut shares = self.shares.lock().expect("nothing panics while holding the shares");
            match shares.entry(of.clone()) {
                Entry::Occupied(held) if *held.get() + size > share_max(all) => return None,
                Entry::Occupied(mut held) => *held.get_mut() += size,
                Entry::Vacant(none) => {
                    none.insert(size);
                }
            }
        }
        take(places, size, Some(Share { shares: self.shares.clone(), of, size }))
    }

    /// Requests worked on: of users, of the system; watches served.
    pub fn counts(&self) -> (usize, usize, usize) {
        (
            INFLIGHT_MAX - self.users.available_permits(),
            INFLIGHT_SYSTEM_MAX - self.system.available_permits(),
            2 * WATCHES_MAX - self.watches.available_permits() - self.watches_system.available_permits(),
        )
    }
}

/// What one user may hold of `all`.
const fn share_max(all: usize) -> usize {
    all / 4 * 3
}

fn take(places: &Arc<Semaphore>, size: usize, share: Option<Share>) -> Option<Permit> {
    let place = places.clone().try_acquire_many_owned(size as u32).ok()?;
    Some(Permit { _place: place, _share: share })
}

fn full(what: &str) -> ApiError {
    later(Reason::TooManyRequests, format!("too many {what} at one time, please try again later"))
}

#[cfg(test)]
mod tests {
    use super::{Lanes, share_max};
    use crate::config::{INFLIGHT_MAX, WATCHES_MAX};
    use crate::identity::Identity;

    fn user(index: usize) -> Identity {
        Identity::new(format!("user-{index}"), [])
    }

    #[test]
    fn bodies_of_unknown_size_count_as_the_largest() {
        let lanes = Lanes::default();
        let mut held = Vec::new();
        while let Ok(permit) = lanes.body(&user(held.len()), None) {
            held.push(permit);
        }
        assert_eq!(held.len(), 83, "so many bodies of 3 MiB and a bit are 256 MiB");
        assert!(lanes.body(&user(0), Some(100)).is_ok(), "small ones still fit between");
        assert!(lanes.body(&Identity::node("n1"), None).is_ok());
    }

    #[test]
    fn a_flood_of_users_leaves_nodes_their_lane() {
        let lanes = Lanes::default();
        let permits: Vec<_> = (0..INFLIGHT_MAX).map(|n| lanes.enter(&user(n)).expect("there is room")).collect();
        let refused = lanes.enter(&user(0)).err().expect("the lane is full");
        assert_eq!((refused.code(), refused.details.retry_after_seconds), (429, 1));
        assert!(lanes.enter(&Identity::node("n1")).is_ok() && lanes.enter(&Identity::part("scheduler")).is_ok());
        assert!(lanes.enter(&Identity::new("system:windlass:forged", [])).is_err(), "a name alone opens no lane");
        drop(permits);
        assert!(lanes.enter(&user(0)).is_ok());
    }

    #[test]
    fn r5_one_user_leaves_room_for_the_others() {
        let lanes = Lanes::default();
        let count = |mut next: Box<dyn FnMut() -> bool + '_>| (0..).take_while(|_| next()).count();
        let (mut requests, mut watches, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        let greedy = user(0);
        assert_eq!(count(Box::new(|| lanes.enter(&greedy).map(|p| requests.push(p)).is_ok())), share_max(INFLIGHT_MAX));
        assert_eq!(count(Box::new(|| lanes.watch(&greedy).map(|p| watches.push(p)).is_ok())), share_max(WATCHES_MAX));
        assert_eq!(count(Box::new(|| lanes.body(&greedy, None).map(|p| bodies.push(p)).is_ok())), 62);
        let other = user(1);
        assert!(lanes.enter(&other).is_ok() && lanes.watch(&other).is_ok() && lanes.body(&other, None).is_ok());
        assert!(lanes.watch(&Identity::node("n1")).is_ok());
        drop((requests, watches, bodies));
        assert!(lanes.enter(&greedy).is_ok() && lanes.watch(&greedy).is_ok() && lanes.body(&greedy, None).is_ok());
        assert!(lanes.shares.lock().expect("no panic").is_empty(), "who holds nothing is forgotten");
    }
}
