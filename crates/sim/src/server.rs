//! The server: store, API, controllers and scheduler as one process that can be killed and comes back from its disk.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use windlass_apiserver::{Apiserver, Config, Identity};
use windlass_client::{Caches, Client};
use windlass_controllers::ControllersConfig;
use windlass_scheduler::SchedulerConfig;
use windlass_stdx::{Transport, World};
use windlass_store::{Limits, SimulatedDisk, Store};

use crate::history::History;
use crate::invariant::acked::{self, Ledger};
use crate::invariant::journal::Journal;
use crate::life::Life;
use crate::link::{Door, InProcess, Network};

/// Where the store lies on the simulated disk.
const DIR: &str = "/data/store";
/// A call of a healthy disk takes up to this long before and after its effect.
pub const DISK_LATENCY: Duration = Duration::from_millis(2);
/// Whoever looks after the process starts it again so long after it gave up because its disk is full.
const START_AGAIN: Duration = Duration::from_millis(500);
/// What made the server not start this time is given up on after so many tries.
const BOOTSTRAPS_MAX: u32 = 5;

/// Small limits, so that segments end, snapshots are written and history is forgotten within a run.
fn limits() -> Limits {
    Limits {
        history_events_max: 4_000,
        snapshot_log_entries: 400,
        segment_bytes_min: 32 << 10,
        segment_bytes_max: 256 << 10,
        ..Limits::default()
    }
}

/// Which parts run beside the API.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The controllers.
    pub controllers: bool,
    /// The scheduler.
    pub scheduler: bool,
    /// They reach the API over a link like everybody else's, instead of in their own process.
    pub remote: bool,
}

/// The server's machine. Clones are the same.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Mutex<SimulatedDisk>,
    world: World,
    history: History,
    network: Network,
    ledger: Ledger,
    journal: Journal,
    parts: Mutex<Parts>,
    running: Mutex<Option<Running>>,
}

/// One life of the process.
struct Running {
    life: Life,
    store: Option<Store>,
    stop: watch::Sender<bool>,
    /// Its disk was broken on purpose: the store may fail, and nothing else.
    is_disk_broken: bool,
}

/// How a start went wrong.
enum StartError {
    /// There is no space; that passes.
    Full(String),
    /// It must not have.
    Wrong(String),
}

impl Server {
    /// A machine with an empty disk; nothing runs yet.
    pub fn new(seed: u64, world: World, history: History, network: Network, ledger: Ledger) -> Server {
        let disk = SimulatedDisk::new(seed);
        disk.set_latency(DISK_LATENCY);
        let shared = Shared {
            disk: Mutex::new(disk),
            world,
            history,
            network,
            ledger,
            journal: Journal::default(),
            parts: Mutex::new(Parts { controllers: true, scheduler: true, remote: false }),
            running: Mutex::new(None),
        };
        Server { shared: Arc::new(shared) }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.shared.running.lock().expect("nothing panics while holding it")
    }

    fn disk(&self) -> SimulatedDisk {
        self.shared.disk.lock().expect("nothing panics while holding it").clone()
    }

    /// A copy of the disk as it is now, all of it durable.
    pub fn copy_disk(&self) -> SimulatedDisk {
        let copy = self.disk().copy();
        copy.set_latency(DISK_LATENCY);
        copy
    }

    /// The machine gets another disk; only while nothing runs.
    pub fn set_disk(&self, disk: SimulatedDisk) {
        *self.shared.disk.lock().expect("nothing panics while holding it") = disk;
    }

    /// Calls of the disk take up to this long before and after their effect.
    pub fn set_disk_latency(&self, most: Duration) {
        self.disk().set_latency(most);
    }

    /// The disk is full, or no longer.
    pub fn set_disk_full(&self, is_full: bool) {
        self.disk().set_write_is_full(is_full);
    }

    /// The disk does not sync any more, until the power is lost.
    pub fn break_disk(&self) {
        if let Some(running) = self.running().as_mut() {
            running.is_disk_broken = true;
            self.disk().set_sync_fails(true);
            self.note("has a broken disk");
        }
    }

    /// What runs from the next start on.
    pub fn set_parts(&self, parts: Parts) {
        *self.shared.parts.lock().expect("nothing panics while holding it") = parts;
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.shared.history.note("server", what);
    }

    /// What has changed, as its store told.
    pub fn journal(&self) -> Journal {
        self.shared.journal.clone()
    }

    /// Whether the process runs, even if it is only starting.
    pub fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// The store of the process that runs now, once it is open.
    pub fn store(&self) -> Option<Store> {
        self.running().as_ref().and_then(|running| running.store.clone())
    }

    /// A client in the server's own process, which loses nothing. `None` when the server is not up.
    pub fn client(&self) -> Option<Client> {
        let door = self.shared.network.door()?;
        let transport = door.apiserver.transport(Identity::part("observer"));
        let link = InProcess { transport, life: door.life };
        Some(Client::new(Arc::new(link), self.shared.world.clone()))
    }

    /// Starts the process. It opens its door when it is ready.
    pub fn start(&self) {
        let life = Life::begin();
        let (stop, stopped) = watch::channel(false);
        let before = self.running().replace(Running { life: life.clone(), store: None, stop, is_disk_broken: false });
        assert!(before.is_none(), "the server is started while it runs");
        self.note("starts");
        let server = self.clone();
        tokio::spawn(async move {
            let booted = life.within(server.boot_until_up(&life, stopped)).await;
            if let Some(Err(why)) = booted
                && !life.is_over()
                && !server.is_disk_broken()
            {
                server.shared.history.violate("acked", format_args!("the server does not start: {why}"));
            }
        });
    }

    fn is_disk_broken(&self) -> bool {
        self.running().as_ref().is_some_and(|running| running.is_disk_broken)
    }

    async fn boot_until_up(&self, life: &Life, stopped: watch::Receiver<bool>) -> Result<(), String> {
        loop {
            match self.boot(life, stopped.clone()).await {
                Ok(()) => return Ok(()),
                Err(StartError::Wrong(why)) => return Err(why),
                Err(StartError::Full(why)) => self.note(format_args!("does not start yet: {why}")),
            }
            tokio::time::sleep(START_AGAIN).await;
        }
    }

    /// Without space a start may fail; there is nothing to say against another one.
    fn start_failed(&self, why: String) -> StartError {
        if self.disk().is_write_full() { StartError::Full(why) } else { StartError::Wrong(why) }
    }

    async fn boot(&self, life: &Life, stopped: watch::Receiver<bool>) -> Result<(), StartError> {
        let config = windlass_store::Config { limits: limits(), ..windlass_store::Config::new(DIR) };
        let store = Store::open(config, self.disk().boot(), self.shared.world.clone()).await;
        let store = store.map_err(|error| self.start_failed(describe(&error)))?;
        if let Some(running) = self.running().as_mut() {
            running.store = Some(store.clone());
        }
        self.note(format_args!("has opened its store at revision {}", store.revision()));
        tokio::spawn(self.clone().watch_over(store.clone(), life.clone()));
        let (journal, own, journal_life) = (self.journal(), store.clone(), life.clone());
        tokio::spawn(async move { journal_life.within(journal.follow(own)).await });
        let config = Config::new(windlass_api::resources::registry());
        let apiserver = Apiserver::new(config, store.clone(), self.shared.world.clone());
        let mut attempt = 0;
        while let Err(error) = apiserver.bootstrap().await {
            attempt += 1;
            if attempt == BOOTSTRAPS_MAX {
                store.close().await;
                return Err(self.start_failed(describe(&error)));
            }
        }
        let own =
            Arc::new(InProcess { transport: apiserver.transport(Identity::part("observer")), life: life.clone() });
        let reader = Client::new(own, self.shared.world.clone());
        // Nobody else can write yet, but for what is still being carried out.
        acked::check_server(&reader, &store, &self.shared.ledger, &self.shared.history).await;
        self.run_parts(&apiserver, life, stopped);
        self.shared.network.set_door(Some(Door { apiserver, life: life.clone() }));
        self.note("is up");
        Ok(())
    }

    /// A store must not fail while its disk is well.
    async fn watch_over(self, store: Store, life: Life) {
        if let Some(why) = life.within(store.failed()).await
            && !life.is_over()
            && !self.is_disk_broken()
        {
            self.shared.history.violate("acked", format_args!("the store failed on a healthy disk: {why}"));
        }
    }

    fn run_parts(&self, apiserver: &Apiserver, life: &Life, stopped: watch::Receiver<bool>) {
        let parts = *self.shared.parts.lock().expect("nothing panics while holding it");
        let identity = Identity::part("controllers");
        let link: Arc<dyn Transport> = match parts.remote {
            true => self.shared.network.link("parts", identity, life),
            false => Arc::new(InProcess { transport: apiserver.transport(identity), life: life.clone() }),
        };
        let caches = Caches::new(Client::new(link, self.shared.world.clone()));
        if parts.controllers {
            // Pods mount it; here nobody checks anybody by it.
            let controllers = ControllersConfig { root_ca_pem: "simulated".to_owned(), ..ControllersConfig::default() };
            let run = windlass_controllers::run(caches.clone(), controllers, stopped.clone());
            let (history, life) = (self.shared.history.clone(), life.clone());
            tokio::spawn(async move {
                if let Some(Err(error)) = life.within(run).await {
                    history.violate("converge", format_args!("the controllers do not start: {error}"));
                }
            });
        }
        if parts.scheduler {
            let run = windlass_scheduler::run(caches, SchedulerConfig::default(), stopped);
            let life = life.clone();
            tokio::spawn(async move { life.within(run).await });
        }
    }

    /// Kills the process and loses the power: nothing of it does anything more.
    pub fn kill(&self) {
        let Some(running) = self.running().take() else { return };
        running.life.end();
        self.disk().lose_power();
        self.disk().set_sync_fails(false);
        self.shared.network.set_door(None);
        running.stop.send_replace(true);
        self.note("is killed");
    }

    /// Stops the process in order: watches end, the store is closed.
    pub async fn stop(&self) {
        let Some(running) = self.running().take() else { return };
        self.note("stops");
        running.stop.send_replace(true);
        if let Some(door) = self.shared.network.door() {
            door.apiserver.close();
        }
        self.shared.network.set_door(None);
        running.life.end();
        if let Some(store) = running.store {
            store.close().await;
        }
        self.disk().set_sync_fails(false);
        // The process is gone; its memory of the disk's cache is not lost with it, but nothing un-synced is needed.
        self.disk().lose_power();
        self.note("has stopped");
    }
}

/// An error with its causes.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
