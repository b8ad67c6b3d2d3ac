//! R5: `spec.replicas` changed while several sets have replicas: each gets its share of the change, so that a rollout
//! that is half done stays half done.

use super::Rollout;
use super::set::{DESIRED, MOST, Set};
use crate::plan::Plan;

/// Whether a set was last sized for another `spec.replicas`.
pub(super) fn is_due(rollout: &Rollout) -> bool {
    let desired = rollout.replicas();
    rollout
        .all()
        .filter(|set| set.replicas > 0)
        .any(|set| annotation(set, DESIRED).is_some_and(|sized| sized != desired))
}

/// Spreads `spec.replicas` over the sets.
pub(super) fn spread(rollout: &mut Rollout, plan: &mut Plan) {
    let desired = rollout.replicas();
    match only_active(rollout) {
        Active::One(place) => {
            resize(rollout, place, desired, plan);
            return;
        }
        Active::Several => {}
        Active::None => return,
    }
    if is_saturated(rollout) {
        for index in 0..rollout.old.len() {
            if rollout.old[index].replicas > 0 {
                rollout.resize_old(index, 0, plan);
            }
        }
        return;
    }
    if !rollout.is_recreate() {
        spread_by_size(rollout, plan);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    New,
    Old(usize),
}

enum Active {
    None,
    One(Place),
    Several,
}

/// The only set with replicas, or the newest when none has any.
fn only_active(rollout: &Rollout) -> Active {
    let active: Vec<Place> = places(rollout).filter(|place| set(rollout, *place).replicas > 0).collect();
    match active.as_slice() {
        [] => match (&rollout.new, rollout.old.len().checked_sub(1)) {
            (Some(_), _) => Active::One(Place::New),
            (None, Some(last)) => Active::One(Place::Old(last)),
            (None, None) => Active::None,
        },
        [one] => Active::One(*one),
        _ => Active::Several,
    }
}

/// Old sets by age, then the new one.
fn places(rollout: &Rollout) -> impl Iterator<Item = Place> + use<> {
    let new = rollout.new.is_some().then_some(Place::New);
    (0..rollout.old.len()).map(Place::Old).chain(new)
}

fn set<'a>(rollout: &'a Rollout, place: Place) -> &'a Set {
    match place {
        Place::New => rollout.new.as_ref().expect("a place of the new set is made only when there is one"),
        Place::Old(index) => &rollout.old[index],
    }
}

fn resize(rollout: &mut Rollout, place: Place, replicas: i64, plan: &mut Plan) {
    match place {
        Place::New => rollout.resize_new(replicas, plan),
        Place::Old(index) => rollout.resize_old(index, replicas, plan),
    }
}

/// The new set has all replicas it was to have, and they are available.
fn is_saturated(rollout: &Rollout) -> bool {
    let desired = rollout.replicas();
    rollout.new.as_ref().is_some_and(|new| {
        new.replicas == desired && annotation(new, DESIRED) == Some(desired) && new.status.available_replicas == desired
    })
}

fn annotation(set: &Set, name: &str) -> Option<i64> {
    set.annotations.get(name)?.parse().ok()
}

fn spread_by_size(rollout: &mut Rollout, plan: &mut Plan) {
    let mut active: Vec<Place> = places(rollout).filter(|place| set(rollout, *place).replicas > 0).collect();
    let now: i64 = active.iter().map(|place| set(rollout, *place).replicas).sum();
    let allowed = if rollout.replicas() > 0 { rollout.replicas() + rollout.max_surge() } else { 0 };
    let change = allowed - now;
    // The largest share first; of equals the newest grows and the oldest shrinks. `active` is oldest first.
    if change > 0 {
        active.reverse();
    }
    active.sort_by_key(|place| std::cmp::Reverse(set(rollout, *place).replicas));
    let mut given = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for place in &active {
        let found = set(rollout, *place);
        let part = share(rollout, found, change, given);
        given += part;
        sizes.push(found.replicas + part);
    }
    // What rounding left over goes to the largest.
    if let Some(first) = sizes.first_mut() {
        *first = (*first + change - given).max(0);
    }
    for (place, size) in active.into_iter().zip(sizes) {
        resize(rollout, place, size, plan);
    }
}

/// A set's share of the change, by its share of the pods that there might have been before.
fn share(rollout: &Rollout, set: &Set, change: i64, given: i64) -> i64 {
    let left = change - given;
    if change == 0 || left == 0 {
        return 0;
    }
    let fraction = if rollout.replicas() == 0 {
        -set.replicas
    } else {
        let most_now = rollout.replicas() + rollout.max_surge();
        let status_replicas = rollout.view.deployment.status["replicas"].as_i64().unwrap_or(0);
        let most_before = annotation(set, MOST).filter(|most| *most > 0).unwrap_or(status_replicas).max(1);
        let exact = set.replicas as f64 * most_now as f64 / most_before as f64;
        exact.round() as i64 - set.replicas
    };
    if change > 0 { fraction.min(left) } else { fraction.max(left) }
}
