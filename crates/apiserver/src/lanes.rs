//! How many requests are worked on at one time, in two lanes, so that a flood of users' requests never keeps a node from
//! renewing its lease.
//!
//! Rules
//!   R1 lanes        nodes and the server's own parts have a lane of their own, much wider than they need
//!   R2 full         a full lane refuses at once with 429 and Retry-After; nothing queues
//!   R3 watches      hold no lane; they are counted and bounded by themselves
//!   R4 bodies       users' bodies together take so much memory and no more; one that says no size counts as the largest

use std::sync::Arc;

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
    /// In units of [`BODY_UNIT_BYTES`].
    bodies: Arc<Semaphore>,
}

const BODY_UNIT_BYTES: usize = 64 * 1024;

/// A place in a lane, given back when dropped.
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
}

/// A served watch, counted until dropped.
pub(crate) struct WatchPermit {
    _place: OwnedSemaphorePermit,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes {
            users: Arc::new(Semaphore::new(INFLIGHT_MAX)),
            system: Arc::new(Semaphore::new(INFLIGHT_SYSTEM_MAX)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            bodies: Arc::new(Semaphore::new(BODIES_BYTES_MAX / BODY_UNIT_BYTES)),
        }
    }
}

impl Lanes {
    /// A place for a request of `who`.
    pub fn enter(&self, who: &Identity) -> Result<Permit, ApiError> {
        let lane = if who.is_system() { &self.system } else { &self.users };
        match lane.clone().try_acquire_owned() {
            Ok(place) => Ok(Permit { _place: place }),
            Err(_) => Err(later(Reason::TooManyRequests, "too many requests at one time, please try again later")),
        }
    }

    /// A place for a watch.
    pub fn watch(&self) -> Result<WatchPermit, ApiError> {
        match self.watches.clone().try_acquire_owned() {
            Ok(place) => Ok(WatchPermit { _place: place }),
            Err(_) => Err(later(Reason::TooManyRequests, "too many watches at one time, please try again later")),
        }
    }

    /// Room for a body of `who`, of at most `bytes` where that is known (R4).
    pub fn body(&self, who: &Identity, bytes: Option<u64>) -> Result<Option<Permit>, ApiError> {
        if who.is_system() {
            return Ok(None);
        }
        let bytes = bytes.map_or(BODY_BYTES_MAX, |bytes| bytes.min(BODY_BYTES_MAX as u64) as usize);
        match self.bodies.clone().try_acquire_many_owned((bytes / BODY_UNIT_BYTES + 1) as u32) {
            Ok(place) => Ok(Some(Permit { _place: place })),
            Err(_) => Err(later(Reason::TooManyRequests, "too many large bodies at one time, please try again later")),
        }
    }

    /// Requests worked on: of users, of the system; watches served.
    pub fn counts(&self) -> (usize, usize, usize) {
        (
            INFLIGHT_MAX - self.users.available_permits(),
            INFLIGHT_SYSTEM_MAX - self.system.available_permits(),
            WATCHES_MAX - self.watches.available_permits(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Lanes;
    use crate::config::INFLIGHT_MAX;
    use crate::identity::Identity;

    #[test]
    fn bodies_of_unknown_size_count_as_the_largest() {
        let lanes = Lanes::default();
        let user = Identity::new("jane", []);
        let mut held = Vec::new();
        while let Ok(permit) = lanes.body(&user, None) {
            held.push(permit);
        }
        assert_eq!(held.len(), 83, "so many bodies of 3 MiB and a bit are 256 MiB");
        assert!(lanes.body(&user, Some(100)).is_ok(), "small ones still fit between");
        assert!(lanes.body(&Identity::node("n1"), None).is_ok());
    }

    #[test]
    fn a_flood_of_users_leaves_nodes_their_lane() {
        let lanes = Lanes::default();
        let user = Identity::new("jane", []);
        let permits: Vec<_> = (0..INFLIGHT_MAX).map(|_| lanes.enter(&user).expect("there is room")).collect();
        let refused = lanes.enter(&user).err().expect("the lane is full");
        assert_eq!((refused.code(), refused.details.retry_after_seconds), (429, 1));
        assert!(lanes.enter(&Identity::node("n1")).is_ok() && lanes.enter(&Identity::part("scheduler")).is_ok());
        assert!(lanes.enter(&Identity::new("system:windlass:forged", [])).is_err(), "a name alone opens no lane");
        drop(permits);
        assert!(lanes.enter(&user).is_ok());
    }
}
