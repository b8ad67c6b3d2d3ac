//! The administrator's way to the API from this machine: whoever can read the cluster's key may do everything.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use windlass_apiserver::Pki;
use windlass_client::{Client, HttpsConfig, HttpsTransport};
use windlass_stdx::World;

use crate::place::{Place, Running};

/// The process that runs here, or an error that says how to start one.
pub fn running(place: &Place) -> Result<Running> {
    match place.running() {
        Some(running) => Ok(running),
        None => bail!("nothing runs here (looked in {}): start a cluster with `windlass up`", place.run.display()),
    }
}

/// A client with all rights.
pub fn client(place: &Place, running: &Running) -> Result<Client> {
    let world = World::real();
    let pki = Pki::open(&place.pki(), &world).context("cannot open the cluster's certificates")?;
    let admin = pki.issue_client("kubernetes-admin", "system:masters")?;
    let transport = HttpsTransport::new(HttpsConfig {
        server: running.server.clone(),
        ca_pem: pki.ca_pem().as_bytes().to_vec(),
        identity: Some((admin.cert_pem.into_bytes(), admin.key_pem.into_bytes())),
    })?;
    Ok(Client::new(Arc::new(transport), world))
}

/// Prints the join token.
pub fn print_token(place: &Place) -> Result<()> {
    if !place.pki().exists() {
        bail!(
            "{} does not exist: the token is made by the first `windlass up` or `windlass server`",
            place.pki().display()
        );
    }
    let pki = Pki::open(&place.pki(), &World::real()).context("cannot open the cluster's certificates")?;
    println!("{}", pki.join_token());
    Ok(())
}

/// Makes a new key for tokens. A server that runs takes it in by itself.
pub fn rotate_token_key(place: &Place) -> Result<()> {
    if !place.pki().join("sa.key").exists() {
        bail!(
            "{} has no keys yet: they are made by the first `windlass up` or `windlass server`",
            place.pki().display()
        );
    }
    Pki::rotate_token_key(&place.pki()).context("cannot make a new key for tokens")?;
    println!("a new key signs tokens within ten seconds; those of the keys before it count until they expire");
    Ok(())
}
