//! ServiceCIDR: the walk.

use serde_json::json;

use crate::Test;
use crate::walk::{Walk, condition};

/// The range is one for documentation, which no service uses.
pub fn row(test: &Test) -> Walk {
    let spec = json!({"cidrs": ["192.0.2.0/24"]});
    Walk::cluster(test, "networking.k8s.io/v1", "servicecidrs", json!({"spec": spec}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}
