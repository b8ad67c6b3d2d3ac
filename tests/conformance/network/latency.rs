//! How soon a new Service has its endpoints.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::Reply;
use crate::{Test, pod};

/// Services made, one after the other.
const SERVICES: usize = 200;
/// Made before it counts.
const WARM_UP: usize = 10;
/// What the entry demands of the median and of the 99th percentile.
const MEDIAN_MAX: Duration = Duration::from_secs(20);
const P99_MAX: Duration = Duration::from_secs(50);

pub async fn endpoints_follow_their_services_quickly(test: &Test) {
    let address = "192.0.2.1";
    test.api.create(&test.path("v1", "pods"), &pod::named("served", "served")).await.ok();
    pod::make_ready(test, "served", address).await;
    let services = test.path("v1", "services");
    let mut took = Vec::new();
    for number in 0..WARM_UP + SERVICES {
        let name = format!("quick-{number}");
        let service =
            json!({"metadata": {"name": name}, "spec": {"selector": {"app": "served"}, "ports": [{"port": 80}]}});
        let begun = Instant::now();
        test.api.create(&services, &service).await.ok();
        let holds =
            |reply: &Reply| reply.code.is_success() && reply.json()["subsets"][0]["addresses"][0]["ip"] == address;
        test.api.until(&format!("{}/{name}", test.path("v1", "endpoints")), "its endpoints", holds).await;
        took.push(begun.elapsed());
    }
    let mut took = took.split_off(WARM_UP);
    took.sort();
    let (median, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("endpoints of a Service: median {median:?}, 99th percentile {p99:?}");
    assert!(median < MEDIAN_MAX && p99 < P99_MAX, "median {median:?}, 99th percentile {p99:?}");
}
