//! R6 and R7: from the old sets to the new one.

use super::Rollout;
use super::revision;
use crate::plan::Plan;

/// R6: grows the new set as far as maxSurge lets; else shrinks old ones as far as maxUnavailable lets.
pub(super) fn rolling(rollout: &mut Rollout, plan: &mut Plan) {
    let size = new_size(rollout);
    let before = rollout.new.as_ref().map(|set| set.replicas);
    revision::find_or_create(rollout, size, plan);
    if rollout.new.is_none() || before.is_none() {
        return;
    }
    rollout.resize_new(size, plan);
    if before == Some(size) {
        shrink_old(rollout, plan);
    }
}

/// How large the new set may be now.
fn new_size(rollout: &Rollout) -> i64 {
    let desired = rollout.replicas();
    let new = rollout.new.as_ref().map_or(0, |set| set.replicas);
    if new >= desired {
        return desired;
    }
    let room = desired + rollout.max_surge() - rollout.all().map(|set| set.replicas).sum::<i64>();
    if room <= 0 { new } else { new + room.min(desired - new) }
}

/// Shrinks old sets without ever leaving fewer than the minimum available.
fn shrink_old(rollout: &mut Rollout, plan: &mut Plan) {
    let old_replicas: i64 = rollout.old.iter().map(|set| set.replicas).sum();
    if old_replicas == 0 {
        return;
    }
    let Some(new) = &rollout.new else { return };
    let min_available = rollout.replicas() - rollout.max_unavailable();
    let new_unavailable = new.replicas - new.status.available_replicas;
    let room = old_replicas + new.replicas - min_available - new_unavailable;
    if room <= 0 {
        return;
    }
    shrink_sick(rollout, room, plan);
    let available: i64 = rollout.all().map(|set| set.status.available_replicas).sum();
    let mut room = available - min_available;
    for index in 0..rollout.old.len() {
        let set = &rollout.old[index];
        if room <= 0 || set.replicas == 0 {
            continue;
        }
        let by = set.replicas.min(room);
        room -= by;
        let size = set.replicas - by;
        rollout.resize_old(index, size, plan);
    }
}

/// Takes the unavailable replicas of old sets away first: they cost nothing.
fn shrink_sick(rollout: &mut Rollout, mut room: i64, plan: &mut Plan) {
    for index in 0..rollout.old.len() {
        let set = &rollout.old[index];
        let sick = set.replicas - set.status.available_replicas;
        if room <= 0 || set.replicas == 0 || sick <= 0 {
            continue;
        }
        let by = sick.min(room);
        room -= by;
        let size = set.replicas - by;
        rollout.resize_old(index, size, plan);
    }
}

/// R7: first no old pods, then new ones.
pub(super) fn recreate(rollout: &mut Rollout, plan: &mut Plan) {
    let shrinking: Vec<usize> = (0..rollout.old.len()).filter(|index| rollout.old[*index].replicas > 0).collect();
    if !shrinking.is_empty() {
        revision::sync(rollout, plan);
        for index in shrinking {
            rollout.resize_old(index, 0, plan);
        }
        return;
    }
    if rollout.view.old_pods_run {
        revision::sync(rollout, plan);
        return;
    }
    let (exists, size) = (rollout.new.is_some(), rollout.replicas());
    revision::find_or_create(rollout, size, plan);
    if exists {
        rollout.resize_new(size, plan);
    }
}
