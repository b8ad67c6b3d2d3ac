//! Preparing against a driver over its socket: asked once, undone once, and nothing left.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::driver::Driver;
use super::{Preparing, answer_for, devices, service};
use crate::kernel::plugins::Plugins;
use crate::machine::ClaimToPrepare;

const NAME: &str = "gpu.example.com";
const BOOT: &str = "boot-1";
const PREPARE: &str = "NodePrepareResources";
const UNPREPARE: &str = "NodeUnprepareResources";

/// A directory with a driver.
struct Place {
    root: PathBuf,
}

impl Place {
    fn new(name: &str) -> Place {
        let root = std::env::temp_dir().join(format!("windlass-dra-{name}-{}", std::process::id()));
        for part in ["node/plugins_registry", "node/dra"] {
            std::fs::create_dir_all(root.join(part)).expect("writable");
        }
        Place { root }
    }

    fn registry(&self) -> PathBuf {
        self.root.join("node/plugins_registry")
    }

    fn driver(&self) -> Driver {
        let given = |request: &str, device: &str| [request.to_owned(), "n1".to_owned(), device.to_owned()];
        let look = move |_: &str, _: &str| vec![given("a", "gpu-0"), given("b", "gpu-1")];
        Driver::start(NAME, (&self.root.join("driver"), &self.root.join("cdi")), &self.registry(), Box::new(look))
    }

    /// An agent that has just begun.
    async fn agent(&self, boot: &str) -> Preparing {
        let plugins = Arc::new(Plugins::new(self.registry()));
        plugins.look().await.expect("the directory is there");
        Preparing::new(self.root.join("node/dra"), boot.to_owned(), plugins)
    }

    /// An agent to which no driver has come yet.
    fn agent_alone(&self, boot: &str) -> Preparing {
        Preparing::new(self.root.join("node/dra"), boot.to_owned(), Arc::new(Plugins::new(self.registry())))
    }

    fn records(&self) -> usize {
        std::fs::read_dir(self.root.join("node/dra")).expect("it is there").count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).expect("the test's own directory");
    }
}

fn claim(name: &str) -> ClaimToPrepare {
    ClaimToPrepare {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        drivers: vec![NAME.to_owned()],
    }
}

fn set(all: &Mutex<BTreeSet<String>>, method: &str, is_in: bool) {
    let mut all = all.lock().expect("not poisoned");
    match is_in {
        true => all.insert(method.to_owned()),
        false => all.remove(method),
    };
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: it did not come"));
}

#[tokio::test]
async fn d2_and_d3_a_claim_is_prepared_once_and_undone_with_its_last_pod() {
    let place = Place::new("shared");
    let driver = place.driver();
    let agent = place.agent(BOOT).await;
    assert_eq!(driver.state.registered.lock().expect("not poisoned").as_deref(), Some("yes"));
    for pod in ["pod-1", "pod-2", "pod-1"] {
        agent.prepare(pod, &[claim("c")]).await.expect("prepared");
    }
    assert_eq!(driver.count(PREPARE, "c"), 1);
    let prepared = agent.prepared("pod-2").await.expect("readable");
    let shown: Vec<_> =
        prepared.iter().map(|one| (one.claim.as_str(), one.device.as_str(), one.cdi.join(","))).collect();
    let name = |device: &str| format!("{NAME}/gpu={device}");
    assert_eq!(shown, [("c", "gpu-0", name("gpu-0")), ("c", "gpu-1", name("gpu-1"))]);
    assert_eq!(prepared[0].requests, ["a"]);
    // Another agent of the same boot asks nobody.
    let agent = place.agent(BOOT).await;
    agent.prepare("pod-1", &[claim("c")]).await.expect("prepared");
    assert_eq!((driver.count(PREPARE, "c"), agent.prepared("pod-1").await.expect("readable").len()), (1, 2));
    assert_eq!(agent.pods().await.expect("readable"), ["pod-1", "pod-2"]);
    agent.unprepare("pod-1").await.expect("the other one has it still");
    assert_eq!((driver.count(UNPREPARE, "c"), driver.prepared().len()), (0, 1));
    agent.unprepare("pod-2").await.expect("undone");
    agent.unprepare("pod-2").await.expect("it is undone already");
    assert_eq!((driver.count(UNPREPARE, "c"), driver.prepared().len(), place.records()), (1, 0, 0));
    assert!(agent.prepared("pod-2").await.expect("readable").is_empty());
}

#[tokio::test]
async fn d1_what_an_agent_was_killed_in_the_next_one_undoes() {
    let place = Place::new("killed");
    let driver = place.driver();
    let agent = place.agent(BOOT).await;
    set(&driver.state.hangs, PREPARE, true);
    let (asked, claims) =
        (|| driver.state.calls.lock().expect("not poisoned").contains(&format!("{PREPARE} hangs")), [claim("c")]);
    tokio::select! {
        biased;
        _ = agent.prepare("pod", &claims) => panic!("the driver hangs"),
        () = until("the driver is asked", asked) => {}
    }
    set(&driver.state.hangs, PREPARE, false);
    let next = place.agent(BOOT).await;
    assert_eq!(next.pods().await.expect("readable"), ["pod"]);
    assert!(next.prepared("pod").await.expect("readable").is_empty(), "nobody knows whether it is");
    next.unprepare("pod").await.expect("undone");
    assert_eq!((driver.count(UNPREPARE, "c"), place.records()), (1, 0));
}

#[tokio::test]
async fn d4_a_driver_that_hangs_keeps_no_other_claim() {
    let place = Place::new("hangs");
    let driver = place.driver();
    let agent = Arc::new(place.agent(BOOT).await);
    agent.prepare("other", &[claim("other")]).await.expect("prepared");
    set(&driver.state.hangs, PREPARE, true);
    let (own, asked) = (Arc::clone(&agent), claim("c"));
    let hanging = tokio::spawn(async move { own.prepare("pod", &[asked]).await });
    let is_asked = || driver.state.calls.lock().expect("not poisoned").contains(&format!("{PREPARE} hangs"));
    until("the driver is asked", is_asked).await;
    agent.unprepare("other").await.expect("it waits for nobody");
    hanging.abort();
}

#[tokio::test]
async fn what_a_driver_refuses_is_told_and_asked_again() {
    let place = Place::new("refuses");
    let driver = place.driver();
    let agent = place.agent(BOOT).await;
    set(&driver.state.refuses, PREPARE, true);
    let why = agent.prepare("pod", &[claim("c")]).await.expect_err("it refuses").to_string();
    assert_eq!(why, "NodePrepareResources failed for ResourceClaim c: it was told to refuse");
    set(&driver.state.refuses, PREPARE, false);
    agent.prepare("pod", &[claim("c")]).await.expect("prepared");
    set(&driver.state.refuses, UNPREPARE, true);
    let why = agent.unprepare("pod").await.expect_err("it refuses").to_string();
    assert_eq!(why, "NodeUnprepareResources failed for ResourceClaim c: it was told to refuse");
    assert_eq!(place.records(), 1, "it is not forgotten");
    set(&driver.state.refuses, UNPREPARE, false);
    agent.unprepare("pod").await.expect("undone");
    assert_eq!(place.records(), 0);
}

#[tokio::test]
async fn a_driver_that_is_not_here_is_named_and_nothing_of_an_earlier_boot_needs_it() {
    let place = Place::new("absent");
    let agent = place.agent(BOOT).await;
    let why = agent.prepare("pod", &[claim("c")]).await.expect_err("nobody is there").to_string();
    assert_eq!(why, format!("reach the driver: DRA driver {NAME} is not registered"));
    assert_eq!(place.records(), 0, "nothing was prepared");
    agent.unprepare("pod").await.expect("there is nothing to undo");
    let driver = place.driver();
    place.agent(BOOT).await.prepare("pod", &[claim("c")]).await.expect("prepared");
    assert!(place.agent_alone(BOOT).unprepare("pod").await.is_err(), "it is prepared");
    // What an earlier boot had prepared is prepared anew.
    let agent = place.agent("boot-2").await;
    assert!(agent.prepared("pod").await.expect("readable").is_empty());
    agent.prepare("pod", &[claim("c")]).await.expect("prepared");
    assert_eq!(driver.count(PREPARE, "c"), 2);
    place.agent_alone("boot-3").unprepare("pod").await.expect("nothing of it is there");
    assert_eq!(place.records(), 0);
}

#[test]
fn the_best_service_that_a_driver_has_is_called() {
    let services = |all: &[&str]| service(&all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
    assert_eq!(services(&["v1beta1.DRAPlugin", "v1.DRAPlugin"]), Some("k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"));
    assert_eq!(services(&["v1beta1.DRAPlugin"]), Some("k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin"));
    assert_eq!(services(&["1.0.0", "v1alpha4.DRAPlugin"]), None);
}

#[test]
fn d6_answers_are_hostile() {
    use windlass_api::codec::wire::Writer;
    let entry = Writer::new().text(1, "u").message(2, &Writer::new().text(2, "no"));
    let answer = Writer::new().message(1, &entry).finish();
    let found = answer_for(&answer, "u").expect("well formed").expect("it speaks of it");
    assert_eq!(devices(found).expect("well formed"), Err("no".to_owned()));
    assert_eq!(answer_for(&answer, "other").expect("well formed"), None);
    assert!(answer_for(&[0x0a, 0xff], "u").is_err() && devices(&[0x0a, 0xff]).is_err());
    let many = (0..2000).fold(Writer::new(), |all, _| all.message(1, &Writer::new().text(3, "d"))).finish();
    assert!(devices(&many).expect("well formed").expect_err("too many").contains("at most 1024"));
}
