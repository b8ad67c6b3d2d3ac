//! `rollout pause` and `resume`: whether a Deployment's changes reach its pods.

use anyhow::{Result, bail};
use http::Method;
use serde_json::json;
use windlass_client::Call;

use crate::cli::chosen::Chosen;
use crate::cli::session::Session;

pub(super) async fn pause(session: &Session, object: &Chosen) -> Result<()> {
    expect_deployment(object, "pausing")?;
    if is_paused(session, object).await? {
        bail!("{} {:?} is already paused", object.served.kind.qualified_plural(), object.name);
    }
    set(session, object, true).await?;
    println!("{} paused", object.qualified());
    Ok(())
}

pub(super) async fn resume(session: &Session, object: &Chosen) -> Result<()> {
    expect_deployment(object, "resuming")?;
    if !is_paused(session, object).await? {
        bail!("{} {:?} is not paused", object.served.kind.qualified_plural(), object.name);
    }
    set(session, object, false).await?;
    println!("{} resumed", object.qualified());
    Ok(())
}

/// Changes of other kinds cannot be held back.
fn expect_deployment(object: &Chosen, what: &str) -> Result<()> {
    let kind = &object.served.kind;
    if kind.kind == "Deployment" && kind.group == "apps" {
        return Ok(());
    }
    bail!("{} {:?} {what} is not supported", kind.qualified_plural(), object.name)
}

async fn is_paused(session: &Session, object: &Chosen) -> Result<bool> {
    Ok(object.get(session).await?["spec"]["paused"] == true)
}

async fn set(session: &Session, object: &Chosen, paused: bool) -> Result<()> {
    let patch = json!({"spec": {"paused": paused}});
    let call = Call::new(Method::PATCH, format!("{}?fieldManager=kubectl-rollout", object.path()));
    session.json(call.body("application/merge-patch+json", serde_json::to_vec(&patch)?)).await?;
    Ok(())
}
