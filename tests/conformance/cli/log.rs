//! Logs as kubectl asks for them.

use crate::Test;
use crate::api::Reply;
use crate::running::{has_lines, script};

pub async fn logs_are_cut_as_asked(test: &Test) {
    test.start_ready(&script("logged", "for i in $(seq 20); do echo line $i; done; sleep 2; echo late; sleep 600"))
        .await;
    let whole = test.until_log("logged", "", "whole", |text| text.contains("late")).await;
    has_lines(&whole, &["line 1", "line 20", "late"]);
    assert_eq!(test.log("logged", "tailLines=1").await, "late\n");
    assert_eq!(test.log("logged", "limitBytes=1").await, "l");
    let stamped = test.log("logged", "tailLines=1&timestamps=true").await;
    let (time, line) = stamped.split_once(' ').expect("a time and a line");
    assert!(line == "late\n" && time.ends_with('Z') && time.contains('T'), "{stamped}");
    assert_eq!(test.log("logged", "sinceSeconds=86400").await, whole);
    let recent = |reply: &Reply| !String::from_utf8_lossy(&reply.body).contains("line");
    test.api.until(&format!("{}/log?sinceSeconds=1", test.pod("logged")), "cut", recent).await;
}
