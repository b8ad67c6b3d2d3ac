//! Leader election over a Lease: whoever writes it first holds it, as long as it keeps renewing it.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Error};

use crate::greeting;

const NAME: &str = "operator";
/// How long a leader that says nothing stays one.
const LEASE_SECONDS: i32 = 3;
const PERIOD: Duration = Duration::from_millis(500);

/// Waits to lead, then reconciles and renews the lease until it is lost.
pub async fn lead_and_run(client: Client, namespace: String, own: String) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    loop {
        if hold(&leases, &own).await? {
            let keeping = async {
                while hold(&leases, &own).await? {
                    tokio::time::sleep(PERIOD).await;
                }
                Ok::<(), Error>(())
            };
            tokio::select! {
                () = greeting::run(client.clone(), namespace.clone()) => {}
                kept = keeping => kept?,
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Takes or renews the lease; false while somebody else has it.
async fn hold(leases: &Api<Lease>, own: &str) -> Result<bool, Error> {
    let now = Timestamp::now();
    let spec = LeaseSpec {
        holder_identity: Some(own.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    };
    let written = match leases.get_opt(NAME).await? {
        None => {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
        }
        Some(mut lease) => {
            let held = lease.spec.unwrap_or_default();
            let renewed = held.renew_time.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            let is_over = now.duration_since(renewed).as_secs() >= i64::from(LEASE_SECONDS);
            if held.holder_identity.as_deref() != Some(own) && !is_over {
                return Ok(false);
            }
            lease.spec = Some(spec);
            // The lease names its resourceVersion: of two who take it at once, one is told.
            leases.replace(NAME, &PostParams::default(), &lease).await
        }
    };
    match written {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who holds the lease, as soon as somebody does.
pub async fn holder(client: &Client, namespace: &str) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let held = kube::runtime::wait::await_condition(leases, NAME, |lease: Option<&Lease>| lease.is_some());
    let lease = tokio::time::timeout(crate::PATIENCE, held).await.context("somebody leads")??;
    lease.and_then(|lease| lease.spec?.holder_identity).context("a lease names its holder")
}
