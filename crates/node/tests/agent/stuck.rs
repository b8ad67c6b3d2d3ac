//! A process that nobody can kill: it waits in the kernel for a file system that does not answer.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::{Cache, DeleteOptions, ListOptions, Scope};

use crate::stage::{NODE, condition, on_a_node, shell, status, until_so};

/// A FUSE file system that takes every question for a file, and never answers it.
struct Silent {
    place: PathBuf,
    asked: Arc<AtomicBool>,
}

impl Silent {
    fn mount(place: &Path) -> Silent {
        std::fs::create_dir(place).expect("a directory of the test's own");
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("this kernel has FUSE");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options).expect("no NUL in it");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("silent", place, "fuse", flags, Some(options.as_c_str())).expect("tests run as root");
        let asked = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || serve(device, &heard));
        Silent { place: place.to_owned(), asked }
    }

    /// Ends every question with an error, as a file system does whose server is gone.
    fn abort(&self) {
        // It is aborted even where it is still used.
        let _ = rustix::mount::unmount(&self.place, UnmountFlags::FORCE);
        let _ = rustix::mount::unmount(&self.place, UnmountFlags::DETACH);
    }
}

/// Answers what a mount asks (`linux/fuse.h`): its beginning, and what its root is. Ends when it is aborted.
fn serve(mut device: File, asked: &AtomicBool) {
    const LOOKUP: u32 = 1;
    const GETATTR: u32 = 3;
    const INIT: u32 = 26;
    const NOT_IMPLEMENTED: i32 = -38;
    /// Questions that have no answer: forget, interrupt, batch forget.
    const UNANSWERED: [u32; 3] = [2, 36, 42];
    let mut request = vec![0; 1 << 17];
    while let Ok(length) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        assert!(length >= 40, "a question has a header");
        let (error, body): (i32, Vec<u32>) = match word(4) {
            LOOKUP => {
                asked.store(true, Ordering::Release);
                continue;
            }
            kind if UNANSWERED.contains(&kind) => continue,
            INIT => (0, [&[7, 31, 0, 0, 0x0009_000c, 4096, 1, 1][..], &[0; 8]].concat()),
            GETATTR => (0, [&[3600, 0, 0, 0, 1, 0][..], &[0; 13], &[0o40755, 2, 0, 0, 0, 4096, 0]].concat()),
            _ => (NOT_IMPLEMENTED, Vec::new()),
        };
        let length = u32::try_from(16 + 4 * body.len()).expect("short");
        let mut answer = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &request[8..16]].concat();
        answer.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
        if device.write_all(&answer).is_err() {
            return;
        }
    }
}

fn is_running(pod: &Value) -> bool {
    !status(pod)["state"]["running"].is_null()
}

#[test]
fn f50_a_process_that_cannot_be_killed_is_told_of_and_holds_up_no_other_pod() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let silent = Silent::mount(&cluster.dir.join("silent"));
        let mut main = shell("main", "exec cat /v/file");
        main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        let volumes = json!([{"name": "v", "hostPath": {"path": &silent.place}}]);
        cluster
            .pod("stuck", json!({"terminationGracePeriodSeconds": 1, "containers": [main], "volumes": volumes}))
            .await;
        cluster.until("stuck", is_running).await;
        until_so("it waits in the kernel", || async { silent.asked.load(Ordering::Acquire) }).await;
        let deleted = cluster.client.delete(&kinds::POD, "default", "stuck", &DeleteOptions::default()).await;
        deleted.expect("it can be asked to go");

        let other = json!({"terminationGracePeriodSeconds": 0, "containers": [shell("web", "sleep 1000")]});
        cluster.pod("other", other).await;
        cluster.until("other", |pod| condition(pod, "Ready")).await;
        cluster.delete("other").await;

        let is_told = || async {
            let events = cluster.client.list(&kinds::EVENT, Some("default"), &ListOptions::default()).await;
            let events = events.expect("a list").items;
            events
                .iter()
                .map(|event| event.value())
                .any(|event| event["reason"] == "FailedKillPod" && event["involvedObject"]["name"] == "stuck")
        };
        until_so("it is told of", is_told).await;
        let pod = cluster.until("stuck", |pod| !pod.is_null()).await;
        assert!(is_running(&pod) && pod["metadata"]["deletionTimestamp"].is_string(), "as it is: {pod:#}");
        let nodes = Cache::start(cluster.client.clone(), &kinds::NODE, Scope::all());
        nodes.synced().await;
        let node = nodes.get("", NODE).expect("it is there").value();
        assert!(condition(&node, "Ready"), "{:#}", node["status"]["conditions"]);

        silent.abort();
        cluster.until("stuck", Value::is_null).await;
    });
}
