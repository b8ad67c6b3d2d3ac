//! Which images go when room is needed.
//!
//! Rules, in order
//!   C1 in use     an image goes only when no container and no volume of a pod is made of it as a whole, whichever runtime
//!                 runs it; that others share layers with it keeps none
//!   C2 wanted     one that a pod has asked for a moment ago is for a container that is about to be made, and stays
//!   C3 imported   what the machine's owner has imported stays: nobody could fetch it again
//!   C4 age        one that has not been here for long stays: its pods may be on their way
//!   C5 order      the one that was not used for longest goes first; of these the one that has been here for longest
//! Caveats     when an image was used is known since this agent began; what it found here was here for ever
//! Source: Kubernetes documentation, "Garbage Collection", "Container image lifecycle".

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use windlass_runtime::Runtime;
use windlass_runtime::image::{ImageRecord, Images};

use super::layout::Layout;
use super::volume::{self, Source};
use super::{Kernel, MachineError, names, of_image, of_runtime, off_the_runtime, runtime_config};

/// C2: what lies between a pod's question for its image and its container takes no longer than this.
const WANTED: Duration = Duration::from_secs(120);

/// When images were used.
#[derive(Default)]
pub(super) struct Uses(Mutex<State>);

#[derive(Default)]
struct State {
    by_id: BTreeMap<String, Use>,
    /// What is being removed.
    going: BTreeSet<String>,
}

/// One image's times. What is before this agent is `None`, which is earlier than everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    used: Option<Instant>,
    since: Option<Instant>,
    asked: Option<Instant>,
}

impl Uses {
    /// What is here when the agent begins.
    pub(super) fn of(images: &Images) -> Result<Uses, MachineError> {
        let uses = Uses::default();
        let found = images.list().map_err(|error| of_image(&error))?;
        uses.state().by_id.extend(found.into_iter().map(|record| (record.id, Use::default())));
        Ok(uses)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while holding it")
    }

    /// Notes what is here now.
    pub(super) fn see(&self, records: &[ImageRecord], now: Instant) {
        let ids: BTreeSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
        let mut state = self.state();
        state.by_id.retain(|id, _| ids.contains(id.as_str()));
        for id in ids {
            state.by_id.entry(id.to_owned()).or_insert(Use { since: Some(now), ..Use::default() });
        }
    }

    /// A pod asks for this image. `false` when it is just being removed: then there is none.
    pub(super) fn ask(&self, id: &str, now: Instant) -> bool {
        let mut state = self.state();
        if state.going.contains(id) {
            return false;
        }
        let found = state.by_id.entry(id.to_owned()).or_insert(Use { since: Some(now), ..Use::default() });
        (found.asked, found.used) = (Some(now), Some(now));
        true
    }

    fn use_now(&self, id: &str, now: Instant) {
        self.state().by_id.entry(id.to_owned()).or_default().used = Some(now);
    }

    /// C5: what may go, in its order.
    fn order(&self, records: &[ImageRecord], now: Instant, age_min: Duration) -> Vec<String> {
        let state = self.state();
        let mut all: Vec<(Use, &str)> = records
            .iter()
            .filter(|record| !record.imported)
            .filter_map(|record| Some((*state.by_id.get(&record.id)?, record.id.as_str())))
            .filter(|(times, _)| times.may_go(now, age_min))
            .collect();
        all.sort();
        all.into_iter().map(|(_, id)| id.to_owned()).collect()
    }

    /// Whether it still may go; if so, nobody gets it any more until [`Uses::gone`].
    fn begin_to_go(&self, id: &str, now: Instant, age_min: Duration) -> bool {
        let mut state = self.state();
        let may_go = state.by_id.get(id).is_some_and(|times| times.may_go(now, age_min));
        may_go && state.going.insert(id.to_owned())
    }

    fn gone(&self, id: &str) {
        self.state().going.remove(id);
    }
}

impl Use {
    /// C2, C4.
    fn may_go(&self, now: Instant, age_min: Duration) -> bool {
        let is_past = |at: Option<Instant>, age: Duration| at.is_none_or(|at| now.duration_since(at) >= age);
        is_past(self.asked, WANTED) && is_past(self.since, age_min)
    }
}

impl Kernel {
    pub(super) async fn collect_images(&self, bytes: u64, age_min: Duration) -> Result<u64, MachineError> {
        let (config, layout, images) = (runtime_config(&self.config), self.layout.clone(), self.images.clone());
        let looked = off_the_runtime(move || {
            let records = images.list().map_err(|error| of_image(&error))?;
            let in_use = in_use(&images, &records, &stacks(&config)?, &shown(&layout)?);
            Ok((records, in_use))
        });
        let (records, mut in_use) = looked.await?;
        // A runtime that does not say what it runs may run anything.
        in_use.extend(self.cri.images_in_use().await?);
        let now = Instant::now();
        self.uses.see(&records, now);
        in_use.iter().for_each(|id| self.uses.use_now(id, now));
        let unused: Vec<ImageRecord> = records.into_iter().filter(|record| !in_use.contains(&record.id)).collect();
        let mut freed: u64 = 0;
        for id in self.uses.order(&unused, now, age_min) {
            if freed >= bytes {
                break;
            }
            if self.uses.begin_to_go(&id, now, age_min) {
                let removed = self.images.remove(&id, &BTreeSet::new()).await;
                self.uses.gone(&id);
                match removed {
                    Ok(removed) => {
                        tracing::info!(image = id, bytes = removed.bytes, "an image that nobody uses was removed");
                        freed = freed.saturating_add(removed.bytes);
                    }
                    Err(error) => tracing::warn!(image = id, error = %of_image(&error), "an image stays"),
                }
            }
        }
        Ok(freed)
    }
}

fn stacks(config: &windlass_runtime::RuntimeConfig) -> Result<BTreeSet<Vec<PathBuf>>, MachineError> {
    Runtime::stacks_in_use(config).map_err(|error| of_runtime("look at the containers", &error))
}

/// The images that volumes of pods show, by id.
fn shown(layout: &Layout) -> Result<BTreeSet<String>, MachineError> {
    let mut all = BTreeSet::new();
    for pod in names(&layout.pods())? {
        for name in names(&layout.volumes(&pod)?)? {
            // A volume that has gone meanwhile shows nothing.
            if let Ok(Source::Image(id)) = volume::source(layout, &pod, &name) {
                all.insert(id);
            }
        }
    }
    Ok(all)
}

/// C1. A container whose image is on the list no more keeps all that has any of its layers: they go with the last of these.
/// An image that cannot be read stays: what is made of it is not known.
fn in_use(
    images: &Images,
    records: &[ImageRecord],
    stacks: &BTreeSet<Vec<PathBuf>>,
    shown: &BTreeSet<String>,
) -> BTreeSet<String> {
    let (mut layers, mut unread) = (BTreeMap::new(), BTreeSet::new());
    for record in records {
        match images.find(&record.id) {
            Ok(Some(image)) => {
                layers.insert(record.id.clone(), image.layers);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(image = record.id, error = %of_image(&error), "an image cannot be read, and stays");
                unread.insert(record.id.clone());
            }
        }
    }
    let listed: BTreeSet<&Vec<PathBuf>> = layers.values().collect();
    let orphaned: BTreeSet<&PathBuf> = stacks.iter().filter(|stack| !listed.contains(stack)).flatten().collect();
    let is_used = |id: &String, own: &Vec<PathBuf>| {
        shown.contains(id) || stacks.contains(own) || own.iter().any(|layer| orphaned.contains(layer))
    };
    unread.extend(layers.iter().filter(|(id, own)| is_used(id, own)).map(|(id, _)| id.clone()));
    unread
}

#[cfg(test)]
mod tests {
    use super::{ImageRecord, Uses, WANTED};
    use std::time::Duration;
    use tokio::time::Instant;

    fn record(id: &str) -> ImageRecord {
        ImageRecord { id: id.to_owned(), names: Vec::new(), digest: None, size: 1, imported: false }
    }

    const AGE: Duration = Duration::from_secs(60);

    #[test]
    fn c5_what_was_not_used_for_longest_goes_first() {
        let (uses, began) = (Uses::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let all = ["a", "b", "c"].map(record);
        uses.see(&all[..2], at(0));
        uses.see(&all, at(5));
        uses.use_now("a", at(20));
        assert_eq!(uses.order(&all, at(500), AGE), ["b", "c", "a"]);
    }

    #[test]
    fn c2_c3_c4_what_is_wanted_imported_or_young_stays() {
        let (uses, began) = (Uses::default(), Instant::now());
        let all = [record("a"), ImageRecord { imported: true, ..record("b") }];
        uses.see(&all, began);
        let order = |after: Duration| uses.order(&all, began + after, AGE);
        assert!(order(AGE / 2).is_empty());
        assert_eq!(order(AGE), ["a"]);
        assert!(uses.ask("a", began + AGE));
        assert!(order(AGE + WANTED / 2).is_empty(), "a container is being made of it");
        assert!(!uses.begin_to_go("a", began + AGE, AGE), "it was asked for after the order was made");
        assert_eq!(order(AGE + WANTED), ["a"]);
        assert!(uses.begin_to_go("a", began + AGE + WANTED, AGE));
        assert!(!uses.ask("a", began + AGE + WANTED), "nobody gets what is being removed");
        uses.gone("a");
        assert!(uses.ask("a", began + AGE + WANTED));
    }
}
