//! `windlass create -f`: objects that are not there yet.
//!
//! Not here  generators (`create deployment web --image=…`): write the object, or `apply` it

use anyhow::{Context, Result};
use clap::Args;
use http::Method;
use serde_json::Value;
use windlass_client::{Call, segment, with_query};

use super::apply::say_done;
use super::manifest::{FileFlags, Manifest};
use super::session::{Session, SessionFlags};
use super::write::WriteFlags;

/// `windlass create`.
#[derive(Args)]
pub struct CreateFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    #[command(flatten)]
    pub files: FileFlags,
    #[command(flatten)]
    pub write: WriteFlags,
}

/// Does it.
pub async fn run(session: &Session, flags: &CreateFlags) -> Result<()> {
    flags.files.each("create", |_| true, async |manifest| create(session, flags, manifest).await).await
}

async fn create(session: &Session, flags: &CreateFlags, manifest: &Manifest) -> Result<()> {
    let served = session.discovery().await?.of_manifest(manifest)?;
    let namespace = session.namespace_for(&served.kind, &manifest.object)?;
    let object = if flags.write.dry_run.is_client() {
        manifest.object.clone()
    } else {
        let path = served.kind.collection_path(Some(&segment(&namespace)));
        post(session, &path, &manifest.object, &flags.write.query("kubectl-create"))
            .await
            .with_context(|| format!("error when creating {:?}", manifest.origin))?
    };
    say_done(&object, "created", &flags.write)
}

/// Sends a new object.
pub async fn post(session: &Session, path: &str, object: &Value, query: &[(&str, &str)]) -> Result<Value> {
    session.json(Call::with_json(Method::POST, with_query(path, query), object)).await
}
