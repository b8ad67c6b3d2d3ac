//! R8: from the old template to the new one, a few nodes at a time.
//!
//! Source: API reference, apps/v1 RollingUpdateDaemonSet; KEP-1591.

use serde_json::Value;

use super::node::Suits;
use super::{Changes, DaemonPod, OnNode, OnNodes, View};
use crate::plan::Plan;

/// Whether new pods come before old ones go.
pub(super) fn surges(view: &View) -> bool {
    bounds(view, 100).1 > 0
}

/// maxUnavailable and maxSurge of so many nodes; percentages are rounded up. One of them is more than nothing.
fn bounds(view: &View, nodes: usize) -> (usize, usize) {
    let strategy = &view.set.spec.update_strategy;
    let Some(rolling) = strategy.rolling_update.as_ref().filter(|_| strategy.kind == "RollingUpdate") else {
        return (0, 0);
    };
    let (unavailable, surge) = (part(&rolling.max_unavailable, nodes), part(&rolling.max_surge, nodes));
    if unavailable == 0 && surge == 0 { (1, 0) } else { (unavailable, surge) }
}

fn part(value: &Value, nodes: usize) -> usize {
    if let Some(count) = value.as_u64() {
        return usize::try_from(count).unwrap_or(usize::MAX);
    }
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|text| text.parse::<usize>().ok());
    nodes.saturating_mul(percent.unwrap_or(0)).div_ceil(100)
}

pub(super) fn plan(view: &View, nodes: &OnNodes, changes: &mut Changes, plan: &mut Plan) {
    if view.set.spec.update_strategy.kind != "RollingUpdate" {
        return;
    }
    let running: Vec<&OnNode> = nodes.nodes.iter().filter(|node| node.suits == Suits::Runs).collect();
    let (unavailable, surge) = bounds(view, running.len());
    if surge > 0 {
        replace_after(&running, surge, changes, plan);
    } else {
        replace_before(&running, unavailable, changes, plan);
    }
}

/// Old pods go first. One that is not available anyway is lost to nobody.
fn replace_before(nodes: &[&OnNode], most: usize, changes: &mut Changes, plan: &mut Plan) {
    let (mut unavailable, mut idle, mut candidates) = (0, Vec::new(), Vec::new());
    for node in nodes {
        match (node.active(true), node.active(false)) {
            (None, Some(old)) if old.is_available() => candidates.push(old),
            (None, Some(old)) => {
                unavailable += 1;
                idle.push(old);
            }
            (Some(new), None) if new.is_available() => {}
            (Some(new), _) => {
                unavailable += 1;
                wait_for(new, plan);
            }
            (None, None) => unavailable += 1,
        }
    }
    let more = most.saturating_sub(unavailable);
    changes.delete(idle.into_iter().chain(candidates.into_iter().take(more)));
}

/// New pods come first; the old one goes when the new one is available.
fn replace_after(nodes: &[&OnNode], most: usize, changes: &mut Changes, plan: &mut Plan) {
    let (mut surging, mut idle, mut candidates) = (0, Vec::new(), Vec::new());
    for node in nodes {
        match (node.active(true), node.active(false)) {
            (None, Some(old)) if old.is_available() => candidates.push(node.name.clone()),
            (None, Some(_)) => idle.push(node.name.clone()),
            (Some(new), Some(old)) if new.is_available() => changes.delete(std::iter::once(old)),
            (Some(new), Some(_)) => {
                surging += 1;
                wait_for(new, plan);
            }
            (_, None) => {}
        }
    }
    let more = most.saturating_sub(surging);
    changes.created.extend(idle.into_iter().chain(candidates.into_iter().take(more)));
}

fn wait_for(pod: &DaemonPod, plan: &mut Plan) {
    if let Some(left) = pod.available_in {
        plan.look_again(left, format!("pod {} will have been ready for minReadySeconds", pod.object.header.name()));
    }
}
