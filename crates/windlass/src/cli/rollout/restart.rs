//! `rollout restart`: a note in the pod template, so that every pod is replaced by the rules of a rollout.

use anyhow::{Result, bail};
use http::Method;
use serde_json::json;
use windlass_client::Call;

use crate::cli::chosen::Chosen;
use crate::cli::session::Session;

pub(super) async fn restart(session: &Session, object: &Chosen) -> Result<()> {
    let found = object.get(session).await?;
    if !found["spec"]["template"].is_object()
        || matches!(&*object.served.kind.kind, "Job" | "ReplicaSet" | "ReplicationController")
    {
        bail!("{} {:?} restarting is not supported", object.served.kind.qualified_plural(), object.name);
    }
    if found["spec"]["paused"] == true {
        bail!("can't restart paused deployment (run rollout resume first)");
    }
    let now = session.client.world().now_rfc3339();
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    let call = Call::new(Method::PATCH, format!("{}?fieldManager=kubectl-rollout", object.path()));
    session.json(call.body("application/merge-patch+json", serde_json::to_vec(&patch)?)).await?;
    println!("{} restarted", object.qualified());
    Ok(())
}
