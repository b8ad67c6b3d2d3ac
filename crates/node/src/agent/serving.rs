//! Keeps this machine's network in line with Services, EndpointSlices and hostPorts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_api::types::{core, discovery};
use windlass_client::{Backoff, Subscription};

use super::kept::{self, Keeper};
use super::{Shared, decode_service};
use crate::services::{HostPort, ServicesView, tables};

/// Applies what the objects say, whenever it changes, for ever.
pub(super) async fn run(shared: &Arc<Shared>) {
    let mut network_ready = shared.network_ready.subscribe();
    network_ready.wait_for(|ready| *ready).await.expect("the sender lives in `shared`");
    // Half a table would cut off what an earlier agent served.
    let heard = async { tokio::join!(shared.services.synced(), shared.slices.synced()) };
    match shared.kept.get() {
        Some(_) => drop(tokio::time::timeout_at(shared.began + kept::PATIENCE, heard).await),
        None => {
            heard.await;
        }
    }
    // Not before somebody looks: what changes meanwhile is kept for who subscribed.
    let (mut services, mut slices) = (shared.services.subscribe(), shared.slices.subscribe());
    let mut keeper = Keeper::default();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        drain(&mut services);
        drain(&mut slices);
        match apply(shared).await {
            Ok(()) => {
                backoff.reset();
                let again = match is_heard(shared) {
                    true => keeper.keep(shared).await,
                    false => None,
                };
                tokio::select! {
                    biased;
                    () = sleep_until(again), if again.is_some() => {}
                    _ = services.next() => {}
                    _ = slices.next() => {}
                    () = shared.host_ports_changed.notified() => {}
                }
            }
            Err(error) => {
                tracing::error!(%error, "services are not as they should be; it is tried again");
                tokio::time::sleep(backoff.next(&shared.world)).await;
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// Whether what the API says of services is known.
fn is_heard(shared: &Shared) -> bool {
    shared.services.is_synced() && shared.slices.is_synced()
}

fn drain(subscription: &mut Subscription) {
    while subscription.take().is_some() {}
}

async fn apply(shared: &Shared) -> Result<(), crate::machine::MachineError> {
    let (services, slices) = match shared.kept.get().filter(|_| !is_heard(shared)) {
        Some(kept) => (kept.services.clone(), kept.slices.clone()),
        None => (
            shared.services.list().iter().map(|object| object.memo(decode_service)).collect(),
            shared.slices.list().iter().map(|object| object.memo(decode_slice)).collect(),
        ),
    };
    let host_ports: Vec<HostPort> = {
        let all = shared.host_ports.lock().expect("nothing panics while holding it");
        all.values().flatten().cloned().collect()
    };
    let services: Vec<&core::Service> = services.iter().filter_map(|service| Option::as_ref(service)).collect();
    let slices: Vec<&discovery::EndpointSlice> = slices.iter().filter_map(|slice| Option::as_ref(slice)).collect();
    let view =
        ServicesView { services: &services, slices: &slices, host_ports: &host_ports, node: &shared.config.name };
    let (table, names) = tables(&view);
    shared.machine.apply_services(&table, &names).await
}

pub(super) fn decode_slice(object: &windlass_api::Object) -> Option<discovery::EndpointSlice> {
    object.decode().inspect_err(|error| tracing::warn!(%error, "an endpoint slice is not understood")).ok()
}
