//! Keeps what drivers have lent to a pod up to date: a volume that has grown is grown into, one that its driver brings up to
//! date is published again, and one that is not well is told about.

use std::time::Duration;

use tokio::time::Instant;
use windlass_api::types::core;
use windlass_client::EventKind;

use super::PodTask;
use super::work::{Outcome, Slot};
use crate::machine::{Lasting, Volume, VolumeContent};
use crate::plan::Ground;
use crate::steps::{PodContext, claim, lent};

/// How often that is looked at.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// Every so many looks, what costs its driver something: kubelet takes a minute.
const SELDOM: u64 = 6;

impl PodTask {
    /// Begins to look when it is time. Returns when that will be.
    pub(super) fn look_at_lent(&mut self) -> Option<Instant> {
        let is_up = matches!(self.ground, Ground::Up(_)) && self.ending.is_none();
        if !is_up || !self.tends || self.work.is_busy(&Slot::Lent) || self.work.is_busy(&Slot::Ground) {
            return None;
        }
        let now = Instant::now();
        if self.lent_at > now {
            return Some(self.lent_at);
        }
        self.lent_at = now + INTERVAL;
        self.lent_looks += 1;
        let (context, is_seldom) = (self.context.clone(), self.lent_looks.is_multiple_of(SELDOM));
        self.work.begin(Slot::Lent, async move { Outcome::Tended(look(&context, is_seldom).await) });
        None
    }
}

/// A volume that is there as it should be costs nothing. One that stands for a claim is what was found of that.
async fn bring_up_to_date(pod: &PodContext, source: &core::Volume, found: Option<&claim::Found>) -> Result<(), String> {
    let content = match found {
        Some(found) => claim::content(pod, source, found).await?,
        None => VolumeContent::Lent(Box::new(lent::inline(pod, source).await?)),
    };
    let is_due = match &content {
        VolumeContent::Lent(lent) => lent.is_republished,
        // They grow with their claims.
        VolumeContent::Lasting(Lasting::Sized(..) | Lasting::Device(..)) => true,
        _ => false,
    };
    if !is_due {
        return Ok(());
    }
    // Whose it is has been said when the pod came up.
    let volume = Volume { name: source.name.clone(), group: None, trust_top: true, content };
    pod.shared.machine.volume_up(&pod.uid, &volume).await.map_err(|error| error.to_string())
}

/// One volume's trouble keeps no other. Returns whether there is anything to look at again.
async fn look(pod: &PodContext, is_seldom: bool) -> bool {
    let mut tends = false;
    for source in pod.spec().volumes.iter().flatten() {
        let (grown, found) = match (&source.csi, claim::name_of(pod, source)) {
            (Some(_), _) => (Ok(true), None),
            (None, Some(_)) => match claim::find(pod, source).await {
                Ok(found) => (lent::grow(pod, source, &found, None).await, Some(found)),
                Err(why) => (Err(why), None),
            },
            (None, None) => continue,
        };
        let is_tended = grown.unwrap_or_else(|why| {
            let (pod, volume) = (pod.name(), &source.name);
            tracing::warn!(pod, volume, why, "a volume was not grown into; it is tried again");
            true
        });
        tends |= is_tended;
        if is_seldom
            && is_tended
            && (source.csi.is_some() || found.is_some())
            && let Err(why) = bring_up_to_date(pod, source, found.as_ref()).await
        {
            pod.note(EventKind::Warning, "FailedMount", why);
        }
    }
    if !is_seldom || !tends {
        return tends;
    }
    match lent::troubles(pod).await {
        Ok(troubles) => {
            for (name, why) in troubles {
                pod.note(EventKind::Warning, "VolumeConditionAbnormal", format!("Volume {name}: {why}"));
            }
        }
        Err(error) => tracing::warn!(pod = pod.name(), %error, "how a volume is was not found out"),
    }
    tends
}
