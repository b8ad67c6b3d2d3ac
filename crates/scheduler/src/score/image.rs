//! Images: a node that has the pod's images already starts it sooner. Small images hardly count.

use super::BEST;
use crate::near::Near;
use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

/// Bytes below which an image that is there counts nothing.
const SMALL_BYTES: i64 = 23 << 20;
/// Bytes for each container above which more makes no difference.
const LARGE_BYTES: i64 = 1000 << 20;

pub(super) fn rate(pod: &Pod, _near: &Near, _node: &Node, facts: &NodeFacts) -> i64 {
    if facts.images.is_empty() || pod.images.is_empty() {
        return 0;
    }
    let there: i64 = pod.images.iter().filter_map(|image| facts.images.get(image)).sum();
    let large = LARGE_BYTES * i64::try_from(pod.images.len()).unwrap_or(1);
    (there.clamp(SMALL_BYTES, large) - SMALL_BYTES) * BEST / (large - SMALL_BYTES)
}
