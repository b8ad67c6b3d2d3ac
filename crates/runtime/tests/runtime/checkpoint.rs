//! A running container is saved by CRIU, or it is told why not; it goes on either way.
//!
//! Where this machine's kernel is too new for its CRIU, the same is proven with a program in CRIU's place, whose behaviour
//! can also be a bad one; real memory is saved and restored in the guest of the end-to-end suite.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use windlass_runtime::{Bind, CheckpointSpec, ContainerSpec, Mount, Propagation, RuntimeError, Sandbox};

use crate::bench::{Bench, PATIENCE, Way, exec, on_each_way, pid, until};

on_each_way! {
    crius_images_and_all_that_explains_them_are_packed_for_root_alone,
    a_terminal_is_named_as_what_is_outside,
    criu_saves_a_container_or_says_why_not,
}

/// Debian: criu.
const CRIU: &str = "/usr/sbin/criu";

/// A container that counts, and says so in a file.
async fn counting(bench: &Bench) -> Sandbox {
    let sandbox = bench.sandbox("s").await;
    let line = "rm /etc/group; echo $SECRET > /srv/written; i=0; while true; do i=$((i+1)); echo $i > /srv/count; sleep 0.05; done";
    let mut spec = bench.shell("c", line);
    spec.env.push(("SECRET".into(), "hush".into()));
    let given = bench.dir.join("given");
    fs::write(&given, "").expect("a file");
    spec.mounts.push(Mount::Bind(Bind {
        source: given,
        target: "/srv/given".into(),
        sub_path: None,
        read_only: true,
        recursive: false,
        propagation: Propagation::Private,
    }));
    sandbox.create_container(spec).await.expect("create");
    sandbox.start("c").await.expect("start");
    until("it has begun to count", || count(&sandbox).checked_sub(1)).await;
    sandbox
}

fn count(sandbox: &Sandbox) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/root/srv/count", pid(sandbox, "c"))).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

async fn goes_on(sandbox: &Sandbox) {
    let before = count(sandbox);
    until("it goes on counting", || (count(sandbox) > before + 1).then_some(())).await;
    assert_eq!(exec(sandbox, "c", "echo still").await.1, "still\n");
}

/// The tables of nft in the container's network.
fn tables(sandbox: &Sandbox) -> String {
    let mut command = std::process::Command::new("/usr/bin/nsenter");
    command.args(["--net", "--target", &pid(sandbox, "c").to_string(), "/usr/sbin/nft", "list", "tables"]);
    let listed = command.output().expect("Debian: util-linux, nftables");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

/// A program in CRIU's place.
fn script(bench: &Bench, lines: &str) -> PathBuf {
    let path = bench.dir.join("criu");
    fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
    path
}

fn order(bench: &Bench, program: &Path) -> CheckpointSpec {
    CheckpointSpec {
        program: program.to_owned(),
        archive: bench.dir.join("kept/checkpoint.tar"),
        timeout: PATIENCE,
        bytes_max: 256 << 20,
        config: json!({"id": "c", "name": "counter"}),
        annotations: BTreeMap::from([("io.kubernetes.cri.sandbox-name".to_owned(), "pod".to_owned())]),
    }
}

/// The directory that archives go to.
fn kept(bench: &Bench) -> PathBuf {
    let kept = bench.dir.join("kept");
    fs::create_dir_all(&kept).expect("a directory");
    kept
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    entries.map(|entry| entry.file_name().into_string().expect("text")).collect()
}

/// Files of an archive with their modes.
fn unpack(bytes: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mode = entry.header().mode().expect("a mode");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        files.insert(path, (mode, content));
    }
    files
}

async fn crius_images_and_all_that_explains_them_are_packed_for_root_alone(way: Way) {
    let bench = Bench::new(way).await;
    let (sandbox, kept) = (counting(&bench).await, kept(&bench));
    let criu = script(&bench, "echo \"$@\" > dump.log; echo stats > stats-dump; echo memory > checkpoint/pages-1.img");
    let wanted = order(&bench, &criu);
    sandbox.checkpoint("c", wanted.clone()).await.expect("it is saved");
    assert_eq!(names(&kept), ["checkpoint.tar"]);
    let mode = fs::metadata(&wanted.archive).expect("the archive").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "memory is secret");
    let files = unpack(&fs::read(&wanted.archive).expect("the archive"));
    assert!(files.values().all(|(mode, _)| mode & 0o077 == 0), "{files:?}");
    let text = |name: &str| String::from_utf8_lossy(&files[name].1).into_owned();
    let json = |name: &str| serde_json::from_str::<Value>(&text(name)).expect("JSON");
    assert_eq!(text("checkpoint/pages-1.img"), "memory\n");
    assert_eq!(text("stats-dump"), "stats\n");
    assert_eq!(json("config.dump")["name"], "counter");
    let spec = json("spec.dump");
    assert_eq!(spec["annotations"]["io.kubernetes.cri.sandbox-name"], "pod");
    assert_eq!(spec["process"]["args"][0], "/bin/sh");
    assert!(spec["process"]["env"].as_array().expect("variables").contains(&json!("SECRET=hush")), "{spec}");
    assert!(spec["linux"]["seccomp"]["syscalls"].is_array(), "{spec}");
    let binds = json("bind.mounts");
    let given = binds.as_array().expect("a list").iter().find(|bind| bind["destination"] == "/srv/given");
    assert_eq!(given.expect("the bind is told")["file_type"], "file");
    assert_eq!(json("deleted.files"), json!(["/etc/group"]));
    let written = unpack(&files["rootfs-diff.tar"].1);
    assert_eq!(written["srv/written"].1, b"hush\n");
    assert!(!written.contains_key("etc/group") && !written.contains_key("bin/busybox"), "{:?}", written.keys());
    let told = text("dump.log");
    let process = format!("--tree {}", pid(&sandbox, "c"));
    for words in ["dump --leave-running", &process, "--external mnt[/srv/given]:/srv/given", "mnt[/dev/shm]:/dev/shm"] {
        assert!(told.contains(words), "{words} in {told}");
    }
    goes_on(&sandbox).await;
    // What is there is not overwritten.
    let refused = sandbox.checkpoint("c", wanted).await;
    assert!(matches!(refused, Err(RuntimeError::Exists { what: "checkpoint", .. })), "{refused:?}");
    assert_eq!(names(&kept), ["checkpoint.tar"]);
}

async fn a_terminal_is_named_as_what_is_outside(way: Way) {
    let bench = Bench::new(way).await;
    let (sandbox, kept) = (bench.sandbox("s").await, kept(&bench));
    let spec = ContainerSpec { tty: true, stdin: true, ..bench.shell("c", "while true; do sleep 0.05; done") };
    sandbox.create_container(spec).await.expect("create");
    sandbox.start("c").await.expect("start");
    let criu = script(&bench, "echo \"$@\" > dump.log; touch stats-dump");
    sandbox.checkpoint("c", order(&bench, &criu)).await.expect("it is saved");
    let files = unpack(&fs::read(kept.join("checkpoint.tar")).expect("the archive"));
    let told = String::from_utf8_lossy(&files["dump.log"].1).into_owned();
    for words in ["--shell-job --external tty[88", "--external mnt[/dev/console]:/dev/console"] {
        assert!(told.contains(words), "{words} in {told}");
    }
}

async fn criu_saves_a_container_or_says_why_not(way: Way) {
    let bench = Bench::new(way).await;
    let (sandbox, kept) = (counting(&bench).await, kept(&bench));
    match sandbox.checkpoint("c", order(&bench, Path::new(CRIU))).await {
        Ok(()) => {
            let files = unpack(&fs::read(kept.join("checkpoint.tar")).expect("the archive"));
            assert!(files.contains_key("checkpoint/pstree.img"), "{:?}", files.keys());
        }
        Err(RuntimeError::Refused { why, .. }) => {
            let check = std::process::Command::new(CRIU).arg("check").output().expect("Debian: criu");
            let check = String::from_utf8_lossy(&check.stderr).into_owned();
            let reason = why.strip_prefix("criu: ").expect("whose reason it is").split("; ").next().expect("a reason");
            assert!(check.contains(reason), "{why}: criu check says {check}");
            assert_eq!(names(&kept), Vec::<String>::new());
        }
        Err(other) => panic!("{other}"),
    }
    goes_on(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn criu_that_hangs_is_ended_and_one_container_is_saved_once_at_a_time() {
    let bench = Bench::new(Way::Embedded).await;
    let (sandbox, kept) = (counting(&bench).await, kept(&bench));
    // It holds connections back by a table of its own until it is done, which it never is.
    let criu = script(&bench, "nft add table inet CRIU-$4 && touch hangs; sleep 4243");
    let wanted = CheckpointSpec { timeout: Duration::from_secs(10), ..order(&bench, &criu) };
    let first = tokio::spawn({
        let (sandbox, wanted) = (sandbox.clone(), wanted.clone());
        async move { sandbox.checkpoint("c", wanted).await }
    });
    until("it hangs", || kept.join("checkpoint.tar.part/hangs").exists().then_some(())).await;
    assert!(tables(&sandbox).contains("CRIU-"));
    let other = CheckpointSpec { archive: kept.join("other.tar"), ..wanted };
    let second = sandbox.checkpoint("c", other).await.expect_err("one at a time").to_string();
    assert!(second.contains("already"), "{second}");
    goes_on(&sandbox).await;
    let first = first.await.expect("no panic").expect_err("it hangs").to_string();
    assert!(first.contains("took too long"), "{first}");
    assert!(!tables(&sandbox).contains("CRIU-"), "its connections are held back for ever");
    assert_eq!(names(&kept), Vec::<String>::new());
    let is_sleeping = |process: &fs::DirEntry| {
        fs::read(process.path().join("cmdline")).is_ok_and(|command| command == b"sleep\x004243\x00")
    };
    until("what it had begun is gone too", || {
        (!fs::read_dir("/proc").expect("processes").flatten().any(|process| is_sleeping(&process))).then_some(())
    })
    .await;
    goes_on(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_beyond_its_bound_fails_with_the_reason_and_leaves_nothing() {
    let bench = Bench::new(Way::Embedded).await;
    let (sandbox, kept) = (counting(&bench).await, kept(&bench));
    // The images of CRIU are bounded while they are written.
    let big = "head -c 3000000 /dev/zero > checkpoint/pages-1.img || { echo 'Error (criu/page-xfer.c:1): too large' > dump.log; exit 1; }";
    let criu = script(&bench, big);
    let wanted = CheckpointSpec { bytes_max: 1 << 20, ..order(&bench, &criu) };
    let why = sandbox.checkpoint("c", wanted).await.expect_err("too large").to_string();
    assert!(why.contains("criu: too large"), "{why}");
    // And so is all together.
    let criu = script(
        &bench,
        "for i in 1 2 3; do head -c 600000 /dev/zero > checkpoint/pages-$i.img; done; touch dump.log stats-dump",
    );
    let wanted = CheckpointSpec { bytes_max: 1 << 20, ..order(&bench, &criu) };
    let error = sandbox.checkpoint("c", wanted).await.expect_err("too large");
    let why = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(why.contains("more than 1048576 bytes"), "{error}: {why}");
    assert_eq!(names(&kept), Vec::<String>::new());
    goes_on(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_run_and_a_program_that_is_not_there_are_told() {
    let bench = Bench::new(Way::Embedded).await;
    let (sandbox, kept) = (counting(&bench).await, kept(&bench));
    let missing = sandbox.checkpoint("c", order(&bench, Path::new("/no/criu"))).await.expect_err("no program");
    assert!(missing.to_string().contains("could not run /no/criu"), "{missing}");
    let nobody = sandbox.checkpoint("other", order(&bench, Path::new(CRIU))).await;
    assert!(matches!(nobody, Err(RuntimeError::NotFound { .. })), "{nobody:?}");
    sandbox.create_container(bench.shell("waits", "true")).await.expect("create");
    let waits = sandbox.checkpoint("waits", order(&bench, Path::new(CRIU))).await.expect_err("it was not started");
    assert!(waits.to_string().contains("does not run"), "{waits}");
    assert_eq!(names(&kept), Vec::<String>::new());
}
