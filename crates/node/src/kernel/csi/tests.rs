//! Lending against a driver over its socket: every step killed, hung and crashed, and nothing left.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::driver::{Driver, Manner, State};
use super::{Borrower, Lending};
use crate::kernel::plugins::Plugins;
use crate::machine::{LentVolume, MachineError, PluginKind};

const NAME: &str = "test.csi.windlass.dev";
const BOOT: &str = "boot-1";

/// A directory with a driver, and everything that is mounted in it gone at the end.
struct Place {
    root: PathBuf,
}

impl Place {
    fn new(name: &str) -> Place {
        let root = std::env::temp_dir().join(format!("windlass-csi-{name}-{}", std::process::id()));
        for part in ["driver", "node/plugins_registry"] {
            std::fs::create_dir_all(root.join(part)).expect("writable");
        }
        Place { root }
    }

    fn registry(&self) -> PathBuf {
        self.root.join("node/plugins_registry")
    }

    fn driver(&self, can: &[i64]) -> Driver {
        let manner = Manner { name: NAME.to_owned(), node: "n1".to_owned(), can: can.to_vec(), volumes_max: 0 };
        Driver::start(manner, &self.root.join("driver"), &self.registry())
    }

    /// An agent that has just begun.
    async fn lending(&self, boot: &str) -> Lending {
        let plugins = Arc::new(Plugins::new(self.registry()));
        plugins.look().await.expect("the directory is there");
        Lending::new(self.root.join("node"), boot.to_owned(), plugins)
    }

    /// What is left on disk of anything borrowed.
    fn left(&self) -> Vec<PathBuf> {
        let mut open = vec![self.root.join("node/pods"), self.root.join("node/plugins")];
        let mut left = Vec::new();
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                left.push(entry.path());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                }
            }
        }
        left
    }

    #[track_caller]
    fn nothing_is_left(&self, driver: &Driver) {
        assert_eq!(driver.left(), Vec::<String>::new(), "mounts and devices");
        assert_eq!(self.left(), Vec::<PathBuf>::new(), "records and directories");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for at in windlass_runtime::mounts_below(&self.root).expect("proc is mounted") {
            let gone = std::process::Command::new("umount").arg(&at).status();
            assert!(gone.is_ok_and(|status| status.success()), "{} stays mounted", at.display());
        }
        std::fs::remove_dir_all(&self.root).expect("the test's own directory");
    }
}

fn lent(handle: &str) -> LentVolume {
    LentVolume {
        driver: NAME.to_owned(),
        handle: handle.to_owned(),
        name: format!("pv-{handle}"),
        access: vec!["ReadWriteOnce".to_owned()],
        fs_type: "ext4".to_owned(),
        ..LentVolume::default()
    }
}

fn to(pod: &str) -> Borrower<'_> {
    Borrower { pod, volume: "data", group: None, trust_top: false }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: it did not come"));
}

/// Drops work as soon as the driver hangs in it: so an agent that is killed leaves things.
async fn killed<T>(driver: &Driver, method: &str, work: impl Future<Output = Result<T, MachineError>>) {
    let hangs = format!("{method} hangs");
    driver.state.hangs.lock().expect("not poisoned").insert(method.to_owned());
    let seen = until("the driver is asked", || driver.state.calls.lock().expect("not poisoned").contains(&hangs));
    tokio::select! {
        biased;
        () = seen => {}
        _ = work => panic!("{method} answered"),
    }
    driver.state.hangs.lock().expect("not poisoned").clear();
    driver.state.calls.lock().expect("not poisoned").retain(|call| *call != hangs);
}

#[tokio::test]
async fn c2_c3_a_volume_is_staged_once_and_unstaged_by_the_last_pod() {
    let place = Place::new("once");
    let driver = place.driver(&[1]);
    driver.make("v", None);
    let lending = place.lending(BOOT).await;
    let first = lending.lend(to("a"), &lent("v")).await.expect("lent");
    std::fs::write(first.join("file"), "kept").expect("writable");
    // Another agent of the same boot finds it staged.
    let lending = place.lending(BOOT).await;
    let second = lending.lend(to("b"), &lent("v")).await.expect("lent");
    lending.lend(to("b"), &lent("v")).await.expect("it is there");
    assert_eq!(std::fs::read_to_string(second.join("file")).expect("shared"), "kept");
    assert_eq!(driver.count("NodeStageVolume", "v"), 1);
    assert_eq!(driver.count("NodePublishVolume", "v"), 2);
    let mut all = lending.lent().await.expect("readable");
    all.sort();
    assert_eq!(
        all.iter().map(|(pod, _, handle)| (pod.as_str(), handle.as_str())).collect::<Vec<_>>(),
        [("a", "v"), ("b", "v")]
    );
    lending.give_back("a").await.expect("given back");
    assert_eq!(driver.count("NodeUnstageVolume", "v"), 0, "the other pod has it");
    lending.give_back("b").await.expect("given back");
    lending.give_back("b").await.expect("it is done already");
    assert_eq!(driver.count("NodeUnstageVolume", "v"), 1);
    place.nothing_is_left(&driver);
}

#[tokio::test]
async fn c1_an_agent_killed_in_any_step_leaves_what_the_next_one_gives_back() {
    let place = Place::new("killed");
    let driver = place.driver(&[1]);
    driver.make("v", None);
    for method in ["NodeStageVolume", "NodePublishVolume"] {
        let lending = place.lending(BOOT).await;
        killed(&driver, method, lending.lend(to("a"), &lent("v"))).await;
        // Its pod is gone meanwhile: what is on disk is enough.
        let next = place.lending(BOOT).await;
        assert_eq!(next.pods().await.expect("readable"), ["a"], "{method}");
        next.give_back("a").await.expect("given back");
        place.nothing_is_left(&driver);
        // Or its pod is still there.
        let lending = place.lending(BOOT).await;
        killed(&driver, method, lending.lend(to("a"), &lent("v"))).await;
        driver.state.calls.lock().expect("not poisoned").clear();
        let next = place.lending(BOOT).await;
        let path = next.lend(to("a"), &lent("v")).await.expect("lent");
        assert_eq!(driver.count("NodeStageVolume", "v"), usize::from(method == "NodeStageVolume"));
        assert_eq!(windlass_runtime::mounts_below(&path).expect("proc is mounted").len(), 1, "published once");
        next.give_back("a").await.expect("given back");
        place.nothing_is_left(&driver);
    }
    for method in ["NodeUnpublishVolume", "NodeUnstageVolume"] {
        let lending = place.lending(BOOT).await;
        lending.lend(to("a"), &lent("v")).await.expect("lent");
        killed(&driver, method, lending.give_back("a")).await;
        let next = place.lending(BOOT).await;
        assert_eq!(next.lent().await.expect("readable").len(), 1, "{method}: it is still known");
        next.give_back("a").await.expect("given back");
        place.nothing_is_left(&driver);
    }
}

#[tokio::test]
async fn f74_a_driver_that_hangs_or_crashes_keeps_no_other_volume_and_is_asked_again() {
    let place = Place::new("hang");
    let mut driver = place.driver(&[1]);
    for handle in ["v", "w"] {
        driver.make(handle, None);
    }
    let lending = place.lending(BOOT).await;
    for method in ["NodeStageVolume", "NodePublishVolume"] {
        driver.state.hangs.lock().expect("not poisoned").insert(method.to_owned());
        let (one, volume) = (lent("v"), lent("w"));
        let mut hanging = Box::pin(lending.lend(to("a"), &one));
        assert!((&mut hanging).now_or_never().is_none());
        let hangs = format!("{method} hangs");
        tokio::select! {
            biased;
            () = until("it hangs", || driver.state.calls.lock().expect("not poisoned").contains(&hangs)) => {}
            _ = &mut hanging => panic!("{method} answered"),
        }
        driver.state.hangs.lock().expect("not poisoned").clear();
        let other = lending.lend(to("b"), &volume);
        // The one that hangs is still waited for, and the other goes on.
        tokio::select! {
            biased;
            _ = &mut hanging => panic!("{method} answered"),
            done = other => drop(done.expect("lent")),
        }
        // The driver dies with the call in its hands; the call fails at once, and is made again.
        let state = Arc::clone(&driver.state);
        drop(driver);
        hanging.await.expect_err("nobody answers");
        state.calls.lock().expect("not poisoned").clear();
        driver = Driver::serve(state, &place.registry());
        lending.plugins.look().await.expect("the directory is there");
        lending.lend(to("a"), &one).await.expect("lent");
        for pod in ["a", "b"] {
            lending.give_back(pod).await.expect("given back");
        }
        place.nothing_is_left(&driver);
    }
    // It does its work and dies before it says so.
    for method in ["NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"] {
        driver.state.crashes.lock().expect("not poisoned").insert(method.to_owned());
        let up = lending.lend(to("a"), &lent("v")).await;
        let down = lending.give_back("a").await;
        assert!(up.is_err() || down.is_err(), "{method}: it was told to crash");
        driver.state.crashes.lock().expect("not poisoned").clear();
        let path = lending.lend(to("a"), &lent("v")).await.expect("lent");
        assert_eq!(windlass_runtime::mounts_below(&path).expect("proc is mounted").len(), 1, "{method}: once");
        lending.give_back("a").await.expect("given back");
        place.nothing_is_left(&driver);
    }
}

#[tokio::test]
async fn c6_nothing_is_removed_that_is_still_mounted_or_whose_driver_is_away() {
    let place = Place::new("away");
    let driver = place.driver(&[1]);
    driver.make("v", None);
    let lending = place.lending(BOOT).await;
    let path = lending.lend(to("a"), &lent("v")).await.expect("lent");
    std::fs::write(path.join("file"), "kept").expect("writable");
    driver.state.refuses.lock().expect("not poisoned").insert("NodeUnpublishVolume".to_owned());
    lending.give_back("a").await.expect_err("it refuses");
    assert!(path.join("file").exists());
    driver.state.refuses.lock().expect("not poisoned").clear();
    for name in std::fs::read_dir(place.registry()).expect("readable").flatten() {
        std::fs::remove_file(name.path()).expect("a socket");
    }
    lending.plugins.look().await.expect("the directory is there");
    assert!(lending.plugins.find(PluginKind::Csi, NAME).is_none(), "its socket is gone");
    lending.give_back("a").await.expect_err("nobody can give it back");
    let driver = Driver::serve(Arc::clone(&driver.state), &place.registry());
    lending.plugins.look().await.expect("the directory is there");
    lending.give_back("a").await.expect("given back");
    place.nothing_is_left(&driver);
    assert!(driver.state.root.join("volumes/v/file").exists(), "what is in a volume stays");
}

#[tokio::test]
async fn after_a_reboot_volumes_are_staged_anew_and_old_ones_need_no_driver() {
    let place = Place::new("reboot");
    let driver = place.driver(&[1]);
    driver.make("v", None);
    let lending = place.lending(BOOT).await;
    let path = lending.lend(to("a"), &lent("v")).await.expect("lent");
    // What a reboot does to mounts.
    for at in windlass_runtime::mounts_below(&place.root.join("node")).expect("proc is mounted") {
        assert!(std::process::Command::new("umount").arg(at).status().expect("umount runs").success());
    }
    let lending = place.lending("boot-2").await;
    assert_eq!(lending.lend(to("a"), &lent("v")).await.expect("lent"), path);
    assert_eq!(driver.count("NodeStageVolume", "v"), 2);
    for at in windlass_runtime::mounts_below(&place.root.join("node")).expect("proc is mounted") {
        assert!(std::process::Command::new("umount").arg(at).status().expect("umount runs").success());
    }
    let state: Arc<State> = Arc::clone(&driver.state);
    drop(driver);
    std::fs::remove_file(place.registry().join(format!("{NAME}-reg.sock"))).expect("its socket");
    let lending = place.lending("boot-3").await;
    lending.give_back("a").await.expect("nothing of it is left");
    place.nothing_is_left(&Driver::serve(state, &place.registry()));
}

#[tokio::test]
async fn a_device_is_published_as_one() {
    let place = Place::new("block");
    let driver = place.driver(&[1]);
    driver.make("d", Some(1 << 20));
    let lending = place.lending(BOOT).await;
    let device = LentVolume { is_block: true, ..lent("d") };
    let path = lending.lend(to("a"), &device).await.expect("lent");
    let found = std::fs::metadata(&path).expect("it is there");
    assert!(std::os::unix::fs::FileTypeExt::is_block_device(&found.file_type()) && found.rdev() != 0);
    lending.give_back("a").await.expect("given back");
    Driver::clear(&driver.state);
    place.nothing_is_left(&driver);
}

#[tokio::test]
async fn a_volume_that_lives_with_its_pod_is_never_staged_and_is_told_of_it() {
    let place = Place::new("inline");
    let driver = place.driver(&[1]);
    let lending = place.lending(BOOT).await;
    let mut inline = LentVolume { is_inline: true, is_republished: true, read_only: true, ..lent("i") };
    inline.pod_attributes.insert("csi.storage.k8s.io/pod.name".to_owned(), "web".to_owned());
    inline.publish_secrets.0.insert("key".to_owned(), "hush".to_owned());
    assert!(!format!("{inline:?}").contains("hush"), "secrets are not shown");
    let path = lending.lend(to("a"), &inline).await.expect("lent");
    lending.lend(to("a"), &inline).await.expect("published again");
    assert!(std::fs::write(path.join("file"), "").is_err(), "read-only");
    assert_eq!((driver.count("NodeStageVolume", "i"), driver.count("NodePublishVolume", "i")), (0, 2));
    let told = driver.state.told.lock().expect("not poisoned").clone();
    assert_eq!(told["context"]["csi.storage.k8s.io/pod.name"], "web");
    assert_eq!(told["secrets"]["key"], "hush");
    lending.give_back("a").await.expect("given back");
    place.nothing_is_left(&driver);
}

#[tokio::test]
async fn the_group_gets_the_volume_from_the_driver_or_from_the_node() {
    let with_group = |pod| Borrower { group: Some(4321), ..to(pod) };
    let wanted = LentVolume { is_groups: true, ..lent("v") };
    let place = Place::new("group");
    let driver = place.driver(&[1]);
    driver.make("v", None);
    let lending = place.lending(BOOT).await;
    let path = lending.lend(with_group("a"), &wanted).await.expect("lent");
    assert_eq!(std::fs::metadata(&path).expect("it is there").gid(), 4321);
    lending.give_back("a").await.expect("given back");
    drop(driver);
    let driver = place.driver(&[1, 6]);
    driver.make("w", None);
    let lending = place.lending(BOOT).await;
    let path = lending.lend(with_group("a"), &LentVolume { is_groups: true, ..lent("w") }).await.expect("lent");
    assert_eq!(std::fs::metadata(&path).expect("it is there").gid(), 0, "it is the driver's to give");
    assert_eq!(driver.state.told.lock().expect("not poisoned")["other"]["group"], "4321");
    lending.give_back("a").await.expect("given back");
    place.nothing_is_left(&driver);
}

#[tokio::test]
async fn a_volume_grows_and_says_how_it_is() {
    let place = Place::new("grow");
    let driver = place.driver(&[1, 2, 3, 4]);
    driver.make("v", None);
    let lending = place.lending(BOOT).await;
    let wanted = lent("v");
    lending.expand("a", &wanted, 1 << 20).await.expect_err("it is not there");
    lending.lend(to("a"), &wanted).await.expect("lent");
    lending.expand("a", &wanted, 1 << 20).await.expect("grown");
    assert_eq!(driver.count("NodeExpandVolume", "v"), 1);
    *driver.state.trouble.lock().expect("not poisoned") = Some("worn out".to_owned());
    let stats = lending.stats("a").await.expect("it says");
    assert_eq!((stats["data"].bytes_used, stats["data"].trouble.as_deref()), (30, Some("worn out")));
    lending.give_back("a").await.expect("given back");
    place.nothing_is_left(&driver);
}

#[tokio::test]
async fn p1_p3_p4_plugins_register_are_told_and_keep_nobody_waiting() {
    let place = Place::new("register");
    let driver = place.driver(&[1]);
    let registry = place.registry();
    // Another of the name, one that nobody serves, and something that is no socket.
    std::fs::create_dir_all(place.root.join("other")).expect("writable");
    let plugins = Plugins::new(registry.clone());
    let there = plugins.look().await.expect("the directory is there");
    assert_eq!(there.iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>(), [NAME]);
    assert_eq!(driver.state.registered.lock().expect("not poisoned").as_deref(), Some("yes"));
    let asked = driver.count("GetInfo", "");
    drop(std::os::unix::net::UnixListener::bind(registry.join("dead.sock")).expect("a free name"));
    std::fs::write(registry.join("text"), "x").expect("writable");
    let manner = Manner { name: NAME.to_owned(), node: "n1".to_owned(), can: Vec::new(), volumes_max: 0 };
    let second = registry.join("second");
    std::fs::create_dir_all(&second).expect("writable");
    let namesake = Driver::start(manner, &place.root.join("other"), &second);
    std::fs::rename(second.join(format!("{NAME}-reg.sock")), registry.join("namesake.sock")).expect("one disk");
    assert_eq!(plugins.look().await.expect("the directory is there").len(), 1);
    assert!(
        namesake.state.registered.lock().expect("not poisoned").as_deref().is_some_and(|why| why.contains("another"))
    );
    assert_eq!(driver.count("GetInfo", ""), asked, "one that stays is not asked twice");
}
