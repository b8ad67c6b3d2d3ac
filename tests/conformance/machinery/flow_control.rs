//! Flow control: FlowSchema and PriorityLevelConfiguration.

use serde_json::json;

use crate::Test;
use crate::walk::{Walk, condition};

const VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

pub fn schemas(test: &Test) -> Walk {
    let rule = json!({"subjects": [{"kind": "User", "user": {"name": "nobody-of-that-name"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
    let schema = json!({"spec": {"matchingPrecedence": 9999, "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]}});
    let walk = Walk::cluster(test, VERSION, "flowschemas", schema);
    let walk = walk.change(json!({"spec": {"matchingPrecedence": 9998}}));
    walk.status(condition("Patched"), condition("Replaced"))
}

pub fn priority_levels(test: &Test) -> Walk {
    let limited = json!({"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}});
    let level = json!({"spec": {"type": "Limited", "limited": limited}});
    let walk = Walk::cluster(test, VERSION, "prioritylevelconfigurations", level);
    let walk = walk.change(json!({"spec": {"limited": {"nominalConcurrencyShares": 4}}}));
    walk.status(condition("Patched"), condition("Replaced"))
}
