//! Packets between pods.

use crate::Test;
use crate::running::{server, waiting};

/// Pods that are asked.
const SERVERS: usize = 2;

/// From a pod, asks each server pod by its address who it is.
async fn each_answers(test: &Test, setting: &str, ask: fn(&str) -> String) {
    let mut addresses = Vec::new();
    for number in 0..SERVERS {
        let name = format!("server-{number}");
        let pod = test.start_ready(&server(&name, &[setting])).await;
        addresses.push((name, pod["status"]["podIP"].as_str().expect("a ready pod has an address").to_owned()));
    }
    test.start_ready(&waiting("client")).await;
    for (name, address) in addresses {
        // A pod without a readiness probe may be ready before its program listens.
        test.until_shell("client", &ask(&address), |text| text.trim() == name).await;
    }
}

pub async fn pods_answer_over_http(test: &Test) {
    each_answers(test, "http=8080", |address| format!("/bin/peer fetch http://{address}:8080/hostname")).await;
}

pub async fn pods_answer_over_udp(test: &Test) {
    each_answers(test, "udp=8081", |address| format!("/bin/peer udp {address}:8081 hostname")).await;
}
