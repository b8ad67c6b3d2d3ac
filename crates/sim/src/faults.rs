//! The faults driver: breaks things in an order that follows from the seed, and sees to it that each is mended.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use windlass_stdx::World;
use windlass_store::SimulatedDisk;

use crate::history::History;
use crate::invariant::acked::Ledger;
use crate::link::{Network, Weather};
use crate::node::Node;
use crate::server::{DISK_LATENCY, Server};
use crate::setup::{Sabotage, Setup};

/// Milliseconds, at least and at most.
type Span = (u64, u64);
const PAUSE_MS_MIN: u64 = 100;
const SERVER_DOWN: Span = (50, 4_000);
const AGENT_DOWN: Span = (50, 8_000);
const POWER_OFF: Span = (2_000, 30_000);
const CUT: Span = (500, 14_000);
const BURST: Span = (500, 6_000);
const DISK_FULL: Span = (200, 6_000);
const DISK_SLOW: Span = (200, 5_000);
const DISK_BROKEN: Span = (20, 1_500);
/// A slow disk takes up to this long before and after its effect.
const DISK_SLOW_MS_MAX: u64 = 80;
/// How many revisions compaction leaves, at most.
const KEPT_REVISIONS_MAX: u64 = 150;
/// When the first half of a sabotage is done, and when the second.
const SABOTAGE_AT: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(35));

/// What may break.
pub struct Faults {
    /// The server.
    pub server: Server,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Who has a link that may be cut.
    pub actors: Vec<String>,
    /// The links.
    pub network: Network,
    /// What was acknowledged.
    pub ledger: Ledger,
    /// Dice.
    pub world: World,
    /// What happened.
    pub history: History,
    /// Repairs under way.
    pub repairs: JoinSet<()>,
    /// The disk as it was, for a sabotage.
    pub old_disk: Option<SimulatedDisk>,
}

impl Faults {
    /// Breaks things for as long as the setup says. When this returns, everything is mended.
    pub async fn storm(mut self, setup: &Setup) {
        let end = Instant::now() + setup.storm;
        let mut sabotage = setup.sabotage.map(|sabotage| (sabotage, Instant::now() + SABOTAGE_AT.0, true));
        if setup.faults {
            self.network.set_weather(Weather::USUAL);
        }
        loop {
            let pause = self.draw((PAUSE_MS_MIN, setup.pause_max.as_millis() as u64));
            let next = (Instant::now() + pause).min(end);
            tokio::time::sleep_until(next).await;
            if let Some((what, at, first)) = sabotage
                && Instant::now() >= at
            {
                self.sabotage(what, first);
                let again = at + SABOTAGE_AT.1.saturating_sub(SABOTAGE_AT.0);
                sabotage = first.then_some((what, again, false));
            }
            if Instant::now() >= end {
                break;
            }
            if setup.faults {
                self.strike();
            }
        }
        while let Some(mended) = self.repairs.join_next().await {
            mended.expect("a repair does not panic");
        }
        self.network.set_weather(Weather::FAIR);
        self.history.note("faults", "are over");
    }

    fn draw(&self, (least, most): Span) -> Duration {
        Duration::from_millis(least + self.world.random_below(most - least))
    }

    fn pick<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        match all.len() {
            0 => None,
            count => all.get(self.world.random_below(count as u64) as usize),
        }
    }

    /// Mends something after a while.
    fn mend(&mut self, after: Span, mend: impl FnOnce() + Send + 'static) {
        let wait = self.draw(after);
        self.repairs.spawn(async move {
            tokio::time::sleep(wait).await;
            mend();
        });
    }

    fn strike(&mut self) {
        match self.world.random_below(100) {
            0..11 => self.kill_server(),
            11..14 => self.stop_server(),
            14..18 => self.kill_at_work(),
            18..21 => self.break_disk(),
            21..24 => self.fill_disk(),
            24..28 => self.slow_disk(),
            28..41 => self.kill_agent(),
            41..47 => self.power_off(),
            47..58 => self.cut(),
            58..68 => self.burst(),
            68..84 => self.crash(),
            84..92 => self.compact(),
            _ => self.snapshot(),
        }
    }

    fn kill_server(&mut self) {
        if self.server.is_running() {
            self.server.kill();
            let server = self.server.clone();
            self.mend(SERVER_DOWN, move || server.start());
        }
    }

    /// Kills the server while its disk is so slow that something is being written.
    fn kill_at_work(&mut self) {
        self.slow_disk();
        let (server, work, down) = (self.server.clone(), self.draw(DISK_SLOW), self.draw(SERVER_DOWN));
        self.repairs.spawn(async move {
            tokio::time::sleep(work).await;
            if server.is_running() {
                server.kill();
                tokio::time::sleep(down).await;
                server.start();
            }
        });
    }

    /// The disk syncs no more; the process must notice by itself, and is started again.
    fn break_disk(&mut self) {
        if !self.server.is_running() {
            return;
        }
        self.server.break_disk();
        let (server, wait, down) = (self.server.clone(), self.draw(DISK_BROKEN), self.draw(SERVER_DOWN));
        self.repairs.spawn(async move {
            tokio::time::sleep(wait).await;
            if server.is_running() {
                server.kill();
                tokio::time::sleep(down).await;
                server.start();
            }
        });
    }

    fn fill_disk(&mut self) {
        self.history.note("faults", "the disk is full");
        self.server.set_disk_full(true);
        let (server, history) = (self.server.clone(), self.history.clone());
        self.mend(DISK_FULL, move || {
            server.set_disk_full(false);
            history.note("faults", "the disk has space again");
        });
    }

    fn slow_disk(&mut self) {
        let most = Duration::from_millis(1 + self.world.random_below(DISK_SLOW_MS_MAX));
        self.history.note("faults", format_args!("the disk takes up to {most:?}"));
        self.server.set_disk_latency(most);
        let server = self.server.clone();
        self.mend(DISK_SLOW, move || server.set_disk_latency(DISK_LATENCY));
    }

    fn stop_server(&mut self) {
        if self.server.is_running() {
            let (server, wait) = (self.server.clone(), self.draw(SERVER_DOWN));
            self.repairs.spawn(async move {
                server.stop().await;
                tokio::time::sleep(wait).await;
                server.start();
            });
        }
    }

    fn kill_agent(&mut self) {
        if let Some(node) = self.pick(&self.nodes).filter(|node| node.is_running()).cloned() {
            node.kill();
            self.mend(AGENT_DOWN, move || node.start());
        }
    }

    fn power_off(&mut self) {
        if let Some(node) = self.pick(&self.nodes).filter(|node| node.is_running()).cloned() {
            node.power_off();
            self.mend(POWER_OFF, move || node.start());
        }
    }

    fn cut(&mut self) {
        if let Some(actor) = self.pick(&self.actors).cloned() {
            self.history.note("faults", format_args!("cut {actor} off"));
            self.network.set_cut(&actor, true);
            let (network, history) = (self.network.clone(), self.history.clone());
            self.mend(CUT, move || {
                network.set_cut(&actor, false);
                history.note("faults", format_args!("{actor} is connected again"));
            });
        }
    }

    fn burst(&mut self) {
        let weather = Weather {
            delay_us_max: 1_000 + self.world.random_below(400_000),
            requests_lost: self.world.random_below(300),
            responses_lost: self.world.random_below(300),
            watches_broken: self.world.random_below(200),
        };
        self.history.note("faults", format_args!("{weather:?}"));
        self.network.set_weather(weather);
        let network = self.network.clone();
        self.mend(BURST, move || network.set_weather(Weather::USUAL));
    }

    fn crash(&mut self) {
        for _ in 0..=self.world.random_below(3) {
            if let Some(node) = self.pick(&self.nodes) {
                node.machine().crash_one();
            }
        }
    }

    fn compact(&mut self) {
        let Some(store) = self.server.store() else { return };
        let up_to = store.revision().saturating_sub(self.world.random_below(KEPT_REVISIONS_MAX));
        match store.compact(up_to) {
            Ok(()) => self.history.note("faults", format_args!("compacted up to {up_to}")),
            Err(error) => self.history.note("faults", format_args!("could not compact: {error}")),
        }
    }

    fn snapshot(&mut self) {
        let Some(store) = self.server.store() else { return };
        let history = self.history.clone();
        self.repairs.spawn(async move {
            match store.snapshot().await {
                Ok(revision) => history.note("faults", format_args!("a snapshot holds {revision}")),
                Err(error) => history.note("faults", format_args!("no snapshot: {error}")),
            }
        });
    }

    fn sabotage(&mut self, sabotage: Sabotage, first: bool) {
        match (sabotage, first) {
            (Sabotage::OldDisk, true) => self.old_disk = Some(self.server.copy_disk()),
            (Sabotage::OldDisk, false) => {
                let was_running = self.server.is_running();
                self.server.kill();
                if let Some(disk) = self.old_disk.take() {
                    self.server.set_disk(disk);
                }
                if was_running {
                    self.server.start();
                }
            }
            (Sabotage::ForgottenAck, true) => self.ledger.forget_next(),
            (Sabotage::UndeadContainer, true) => self.nodes.iter().for_each(|node| node.machine().make_undead()),
            (Sabotage::StolenPod, true) => {
                for (thief, other) in self.nodes.iter().zip(self.nodes.iter().skip(1)) {
                    thief.machine().steal_from(other.machine());
                }
            }
            _ => {}
        }
    }
}
